//! `KIKI_CONFORMANCE_DATA=... cargo run --release`: JSON parsers over the collected bid requests, each for the x86-64 of 2003 that
//! is shipped unless RUSTFLAGS says otherwise. With a measure's name as its argument it takes that one once, for callgrind
//! (`--toggle-collect='parsers::measure::one_pass*'`).

mod measure;

use measure::{MEASURES, fastest_ns, one_pass};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::var("KIKI_CONFORMANCE_DATA")?;
    let text = std::fs::read_to_string(format!("{folder}/openrtb/requests.jsonl"))?;
    let request = |line: &str| Ok(serde_json::from_str::<serde_json::Value>(line)?["request"].to_string().into_bytes());
    let requests = text.lines().map(request).collect::<Result<Vec<_>, serde_json::Error>>()?;
    let wanted = std::env::args().nth(1);
    for (name, measure) in MEASURES {
        match &wanted {
            Some(wanted) if wanted == name => println!("{name} {} of {}", one_pass(&requests, measure), requests.len()),
            Some(_) => {}
            None => {
                let ns = fastest_ns(&requests, measure);
                println!("{name}_ns {ns:.0}, a second on a core {:.0}", 1e9 / ns);
            }
        }
    }
    Ok(())
}
