//! What was changed afterwards is found, and named.

use std::fs;
use std::path::{Path, PathBuf};

use kiki::framed::Scanner;
use kiki::tlog::note::VerifyingKey;

use super::{Input, bundles, copy, kiki, log_key, run, said};

/// A run to spoil copies of.
fn left(input: &Input) -> PathBuf {
    run(&mut input.replay("run", &[]));
    input.path("run")
}

fn segment(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "seg")).min().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_byte_flipped_anywhere_in_the_log_is_found_and_its_leaf_named() {
    let input = Input::new();
    let dir = left(&input);
    let key = log_key(&dir);
    let segment = segment(&dir);
    let original = fs::read(&segment).unwrap();
    let starts: Vec<usize> = Scanner::new(&original).map(|frame| frame.unwrap().0).collect();
    // Some hundred places, an odd number of bytes apart so that they fall on every part of a frame; and the end.
    let places = (0..original.len()).step_by((original.len() / 151) | 1).chain([original.len() - 1]);
    let mut tried = 0;
    for at in places {
        flip(&segment, at);
        let finding = syncshield::audit::verify(&dir, &key).expect_err("a flipped byte was not found");
        let leaf = starts.partition_point(|&start| start <= at) - 1;
        assert_eq!(finding.place, format!("leaf {leaf}"), "byte {at}: {finding}");
        fs::write(&segment, &original).unwrap();
        tried += 1;
    }
    assert!(tried > 100, "only {tried} places were tried");
    syncshield::audit::verify(&dir, &key).unwrap();

    flip(&segment, starts[7] + 20);
    let output = kiki(&["audit", "verify"]).arg(&dir).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("leaf 7"), "{}", said(&output));
}

#[test]
fn a_leaf_taken_out_of_the_log_is_found() {
    let input = Input::new();
    let dir = left(&input);
    let segment = segment(&dir);
    let original = fs::read(&segment).unwrap();
    let starts: Vec<usize> = Scanner::new(&original).map(|frame| frame.unwrap().0).collect();
    fs::write(&segment, [&original[..starts[9]], &original[starts[10]..]].concat()).unwrap();
    let finding = syncshield::audit::verify(&dir, &log_key(&dir)).expect_err("a missing leaf was not found");
    assert_eq!(finding.place, "leaf 9", "{finding}");
    // The end cut off, below what was signed.
    fs::write(&segment, &original[..*starts.last().unwrap()]).unwrap();
    let finding = syncshield::audit::verify(&dir, &log_key(&dir)).expect_err("a missing end was not found");
    assert!(finding.to_string().contains("leaf"), "{finding}");
}

#[test]
fn a_byte_flipped_anywhere_in_a_bundle_is_found() {
    let input = Input::new();
    let dir = left(&input);
    let key = log_key(&dir);
    for bundle in bundles(&dir) {
        let original = fs::read(&bundle).unwrap();
        billing::verify_bundle(&original, &key).unwrap();
        for at in (0..original.len()).step_by((original.len() / 97) | 1) {
            let mut bytes = original.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(billing::verify_bundle(&bytes, &key).is_err(), "{}: byte {at} of {} was flipped", bundle.display(), original.len());
        }
    }
}

#[test]
fn nothing_verifies_under_another_logs_key() {
    let input = Input::new();
    let dir = left(&input);
    run(&mut input.replay("another", &["--seed", "2"]));
    let other: VerifyingKey = log_key(&input.path("another"));
    assert!(syncshield::audit::verify(&dir, &other).is_err());
    for (bundle, stranger) in bundles(&dir).iter().zip(bundles(&input.path("another"))) {
        assert!(billing::verify_bundle(&fs::read(bundle).unwrap(), &other).is_err());
        // Consistent in itself, signed by somebody else: only the key that the reader brings tells.
        let mut command = kiki(&["invoice", "verify", "--log-key"]);
        let output = command.arg(dir.join("log.pub")).arg(stranger).output().unwrap();
        assert!(!output.status.success(), "{}", said(&output));
    }
    // A copy is as good as the original: nothing depends on where it lies.
    let moved = input.path("moved");
    copy(&dir, &moved);
    run(kiki(&["audit", "verify", "--log-key"]).arg(dir.join("log.pub")).arg(&moved));
}
