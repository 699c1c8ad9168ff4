//! Every mutant of `mutants.py` still fits the code that it breaks: a list that is out of date shows nothing.

use std::collections::BTreeSet;
use std::path::Path;

#[derive(serde::Deserialize)]
struct Mutant {
    name: String,
    file: String,
    text: Vec<String>,
    instead: Vec<String>,
}

#[test]
fn each_text_stands_once_and_is_changed() {
    let mutants: Vec<Mutant> = serde_json::from_str(include_str!("../mutants.json")).unwrap();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for Mutant { name, file, text, instead } in &mutants {
        let source = std::fs::read_to_string(src.join(file)).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        assert_eq!(source.matches(&text.join("\n")).count(), 1, "{name}: how often its text stands in {file}");
        assert_ne!(text, instead, "{name}");
    }
    let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
    assert_eq!(names.len(), mutants.len(), "each has a name of its own");
    // What must never go uncaught.
    for name in ["skip the fsync", "drop a lease's idempotency", "free a lease on expiry", "sign a shorter log", "reorder two records"] {
        assert!(names.contains(name), "{name}");
    }
}
