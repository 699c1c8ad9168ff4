//! What reading a bid request costs: `cargo bench -p syncflow --bench openrtb`.
//!
//! The requests are those of `openrtb/requests.jsonl` in the folder that `KIKI_CONFORMANCE_DATA` names, else one that is made
//! here. Beside the reader stands what serde_json takes for a tree of the same bytes, and for skipping them; other parsers stand
//! in a crate of their own (`benches/parsers`). With a measure's name as its argument it takes that one once over the
//! requests, for callgrind: `--toggle-collect='openrtb::one_pass*'`.

#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write as _;

use kiki::clock::monotonic;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use syncflow::domain::openrtb::{BidRequest, Document};
use syncflow::domain::opportunity::Opportunity;

/// Passes over the requests in one run, and runs, of which the fastest counts: others had company.
const PASSES: usize = 20;
const RUNS: usize = 9;

type Measure = (&'static str, fn(&[u8]) -> usize);

const MEASURES: [Measure; 5] = [
    ("document", |body| usize::from(Document::json(body).is_ok())),
    ("bid_request", |body| read(body, |request| request.imps.len())),
    ("opportunities", |body| read(body, opportunities)),
    ("serde_json_skipped", |body| usize::from(serde_json::from_slice::<IgnoredAny>(body).is_ok())),
    ("serde_json_value", |body| usize::from(serde_json::from_slice::<Value>(body).is_ok())),
];

fn main() {
    let requests = requests();
    let bytes = requests.iter().map(Vec::len).sum::<usize>() / requests.len();
    let mut out = std::io::stdout();
    drop(writeln!(out, "requests {}, mean_bytes {bytes}", requests.len()));
    let wanted = std::env::args().nth(1).filter(|name| !name.starts_with('-')); // cargo adds --bench
    for (name, measure) in MEASURES {
        match &wanted {
            Some(wanted) if wanted == name => drop(writeln!(out, "{name} {}", one_pass(&requests, measure))),
            Some(_) => {}
            None => {
                let ns = fastest_ns(&requests, measure);
                drop(writeln!(out, "{name}_ns {ns:.0}, a second on a core {:.0}", 1e9 / ns));
            }
        }
    }
}

fn fastest_ns(requests: &[Vec<u8>], measure: fn(&[u8]) -> usize) -> f64 {
    let run = |_| {
        let start = monotonic();
        for _ in 0..PASSES {
            black_box(one_pass(requests, measure));
        }
        (monotonic() - start).as_nanos() as f64 / (PASSES * requests.len()) as f64
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

#[inline(never)]
fn one_pass(requests: &[Vec<u8>], measure: fn(&[u8]) -> usize) -> usize {
    requests.iter().map(|body| measure(black_box(body))).sum()
}

fn read(body: &[u8], then: impl FnOnce(BidRequest<'_>) -> usize) -> usize {
    Document::json(body).map_or(0, |document| BidRequest::of(&document).map_or(0, then))
}

fn opportunities(mut request: BidRequest<'_>) -> usize {
    let imps = std::mem::take(&mut request.imps);
    imps.iter().map(|imp| Opportunity::of(&request, imp, "x", "y").shapes.len()).sum()
}

fn requests() -> Vec<Vec<u8>> {
    let folder = std::env::var_os("KIKI_CONFORMANCE_DATA").map(std::path::PathBuf::from);
    let text = folder.and_then(|folder| std::fs::read_to_string(folder.join("openrtb/requests.jsonl")).ok());
    let request = |line: &str| serde_json::from_str::<Value>(line).map(|line| line["request"].to_string().into_bytes());
    let found = text.map(|text| text.lines().filter_map(|line| request(line).ok()).collect::<Vec<_>>());
    found.filter(|found| !found.is_empty()).unwrap_or_else(|| vec![made()])
}

/// A request as a large exchange sends it, most of which no bid needs.
fn made() -> Vec<u8> {
    json!({
        "id": "8d1b1c1e-7c1a-4b57-9a5e-3f1f6d0c9a11", "at": 1, "tmax": 120, "cur": ["USD"], "bcat": ["IAB25", "IAB26", "IAB7-39"],
        "imp": [{"id": "1", "tagid": "news-top", "bidfloor": 0.35, "secure": 1, "instl": 0,
            "banner": {"w": 300, "h": 250, "format": [{"w": 300, "h": 250}, {"w": 728, "h": 90}], "pos": 1, "btype": [4], "battr": [1, 3, 8]},
            "ext": {"gpid": "/1234/news/top", "data": {"adserver": {"name": "gam", "adslot": "/1234/news/top"}}}}],
        "site": {"id": "77", "domain": "news.example", "page": "https://news.example/world/today?ref=home", "cat": ["IAB12"],
            "publisher": {"id": "p-9", "name": "News"}, "content": {"language": "en", "title": "Today", "keywords": "world,today"}},
        "device": {"ua": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
            "ip": "192.0.2.7", "language": "en", "devicetype": 2, "w": 1920, "h": 1080,
            "geo": {"country": "USA", "region": "CA", "city": "Fresno", "lat": 36.7, "lon": -119.8}},
        "user": {"id": "u-1", "buyeruid": "b-1", "ext": {"eids": [{"source": "id.example", "uids": [{"id": "x1", "atype": 1}]}]}},
        "regs": {"gdpr": 0, "ext": {"us_privacy": "1YNN"}}, "source": {"tid": "t-1"}
    })
    .to_string()
    .into_bytes()
}
