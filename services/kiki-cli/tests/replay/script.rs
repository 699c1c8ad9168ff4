//! tests/verify_bundle.py, which shares no code with us, on the bundles of a run; and on each figure of one, changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::python::python;
use super::{Input, ROOT, bundles, log_key, run, said};

/// What the script says of these bundles, and whether all are good.
fn script(python: &Path, dir: &Path, bundles: &[PathBuf]) -> (String, bool) {
    let script = Path::new(ROOT).join("tests/verify_bundle.py");
    let output = Command::new(python).arg(script).arg("--key").arg(dir.join("log.pub")).args(bundles).output().unwrap();
    (said(&output), output.status.success())
}

/// The bundle with the first digit behind each key of its document changed: the key, and the file.
fn bent(bundle: &[u8]) -> Vec<(String, Vec<u8>)> {
    let document = billing::bundle::decode(bundle).unwrap().invoice_json;
    let begin = bundle.windows(document.len()).position(|window| window == document).unwrap();
    let mut at = begin;
    let mut out = Vec::new();
    for line in document.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line).unwrap();
        if let Some((key, value)) = text.split_once("\": ")
            && let Some(digit) = value.find(|c: char| c.is_ascii_digit())
        {
            let digit = at + text.len() - value.len() + digit;
            let mut other = bundle.to_vec();
            // Never to a 0, which could lead a number.
            other[digit] = if other[digit] == b'9' { b'8' } else { other[digit] + 1 };
            out.push((key.trim_start().trim_start_matches('"').to_owned(), other));
        }
        at += line.len();
    }
    out
}

#[test]
fn a_script_of_another_language_verifies_the_bundles_and_names_every_figure_that_was_changed() {
    let Some(python) = python() else { return };
    let input = Input::new();
    run(&mut input.replay("run", &[]));
    let dir = input.path("run");
    let honest = bundles(&dir);
    let (text, good) = script(&python, &dir, &honest);
    assert!(good && text.lines().filter(|line| line.contains(": good: K")).count() == honest.len(), "{text}");

    let bent = bent(&fs::read(&honest[0]).unwrap());
    assert!(bent.len() > 40, "only {} figures were changed", bent.len());
    let file = |i: usize| dir.join(format!("bent-{i}.bundle"));
    for (i, (_, bytes)) in bent.iter().enumerate() {
        fs::write(file(i), bytes).unwrap();
    }
    let (text, good) = script(&python, &dir, &(0..bent.len()).map(file).collect::<Vec<_>>());
    assert!(!good && !text.contains("good:"), "{text}");
    for (i, (key, bytes)) in bent.iter().enumerate() {
        let found = billing::verify_bundle(bytes, &log_key(&dir)).expect_err(key);
        // What the log was signed at when the invoice was drawn up, only the digest of the whole document says.
        let named = if key.starts_with("checkpoint_") { "SHA-256" } else { key };
        assert!(found.iter().any(|finding| finding.to_string().contains(named)), "{key}: {found:?}");
        let said: Vec<&str> = text.lines().filter(|line| line.starts_with(&file(i).display().to_string())).collect();
        assert!(said.iter().any(|line| line.contains(named)), "{key}: {said:?}");
    }
}
