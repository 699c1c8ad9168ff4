//! The authorities' own documents: every example adds up, and the unit tests of arithmetic rules agree with our check.
//!
//! Reads `$KIKI_CONFORMANCE_DATA/billing`, which is not part of the repository.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use billing::domain::document::readd::{differences, prices, read, sums};

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("KIKI_CONFORMANCE_DATA").map(|folder| PathBuf::from(folder).join("billing"));
    let there = folder.filter(|folder| folder.join("en16931").is_dir());
    if there.is_none() {
        println!("conformance of documents did not run: $KIKI_CONFORMANCE_DATA/billing/en16931 is not there");
    }
    there
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml")));
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// A tax rounded up to whole forints, which have a minor unit on paper: the schematron tolerates the 0.40.
const FORINTS: (&str, &str) = ("huf_example_cii", "BG-23[1]/BT-117 is 18679.00, but BT-116 x BT-119 gives 18678.60");

#[test]
fn every_official_example_is_read_and_its_sums_add_up_to_the_cent() {
    let Some(data) = data() else { return };
    let mut count = 0;
    for path in ["en16931/ubl-examples", "en16931/cii-examples", "peppol/examples"].iter().flat_map(|folder| files(&data.join(folder))) {
        let invoice = read(&std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found: Vec<_> = sums(&invoice).iter().map(ToString::to_string).collect();
        let known = (name(&path) == FORINTS.0).then(|| FORINTS.1.to_owned());
        assert_eq!(found, Vec::from_iter(known), "{}", path.display());
        let ruled = path.starts_with(data.join("peppol"));
        assert!(!ruled || prices(&invoice).is_empty(), "{}: {:?}", path.display(), prices(&invoice));
        count += 1;
    }
    assert!(count >= 43, "only {count} examples found");
    println!("{count} official examples add up");
}

/// Rules that our check covers, by the file of their unit tests, and the term that a breach is reported at. All the other rules
/// are about codes, texts, identifiers and presence, which the rules of the crate `en16931` cover where a document is written. R040
/// and R046 of Peppol are covered, but their fragments lack a charge indicator, without which nothing says whether to add.
const COVERED: [(&str, &str); 20] = [
    ("BR-CO-10", "BT-106"),
    ("BR-CO-11", "BT-107"),
    ("BR-CO-12", "BT-108"),
    ("BR-CO-13", "BT-109"),
    ("BR-CO-14", "BT-110"),
    ("BR-CO-15", "BT-112"),
    ("BR-CO-16", "BT-115"),
    ("BR-CO-17", "BT-117"),
    ("BR-S-08-1", "BT-116"),
    ("BR-S-08-2", "BT-116"),
    ("BR-S-08-3", "BT-116"),
    ("BR-S-09", "BT-117"),
    ("BR-Z-08", "BT-116"),
    ("BR-Z-09", "BT-117"),
    ("BR-E-08", "BT-116"),
    ("BR-AE-08", "BT-116"),
    ("BR-IC-08", "BT-116"),
    ("BR-G-08", "BT-116"),
    ("BR-O-08", "BT-116"),
    ("PEPPOL-EN16931-R120", "BT-131"),
];

/// Unit tests that our check sees otherwise, by file and place.
const OTHERWISE: [(&str, usize, &str); 7] = [
    ("Invoice-unit-UBL/BR-CO-12", 3, "an amount written as .00 is refused"),
    ("Invoice-unit-UBL/BR-CO-15", 8, "of two tax totals in one currency the first is read"),
    ("Invoice-unit-UBL/BR-CO-17", 4, "an amount written as .00 is refused"),
    ("CreditNote-unit-UBL/BR-CO-15", 8, "of two tax totals in one currency the first is read"),
    ("unit-UBL-PEPPOL/PEPPOL-EN16931-R120", 5, "off by 0.02, which the rule tolerates"),
    ("unit-UBL-PEPPOL/PEPPOL-EN16931-R120", 6, "off by 0.02, which the rule tolerates"),
    ("unit-UBL-PEPPOL/PEPPOL-EN16931-R120", 11, "neither quantity nor amount: nothing to add"),
];

/// The document inside a unit test.
fn fragment(test: &str) -> &str {
    let root = ["Invoice", "CreditNote"].into_iter().find(|root| test.contains(&format!("<{root}"))).unwrap();
    let end = format!("</{root}>");
    &test[test.find(&format!("<{root}")).unwrap()..test.rfind(&end).unwrap() + end.len()]
}

#[test]
fn unit_tests_of_the_rules_that_add_agree_with_our_check() {
    let Some(data) = data() else { return };
    let (mut agreed, mut otherwise) = (0, Vec::new());
    for folder in ["en16931/Invoice-unit-UBL", "en16931/CreditNote-unit-UBL", "peppol/unit-UBL-PEPPOL"] {
        for path in files(&data.join(folder)) {
            let Some((_, term)) = COVERED.iter().find(|(rule, _)| *rule == name(&path)) else { continue };
            let text = std::fs::read_to_string(&path).unwrap();
            // The first two pieces are the test set's own head.
            for (i, test) in text.split("<test").skip(2).enumerate() {
                let breaks = test.contains("<error>") || test.contains("<warning>");
                let found = read(fragment(test).as_bytes()).map(|invoice| differences(&invoice));
                let ours = found.map(|found| found.iter().any(|difference| difference.at.ends_with(term)));
                match ours == Ok(breaks) {
                    true => agreed += 1,
                    false => otherwise.push((format!("{}/{}", folder.rsplit('/').next().unwrap(), name(&path)), i + 1)),
                }
            }
        }
    }
    let known: Vec<_> = OTHERWISE.iter().map(|(file, place, _)| ((*file).to_owned(), *place)).collect();
    assert_eq!(otherwise, known);
    assert!(agreed > 150, "only {agreed} unit tests found");
    println!("{agreed} unit tests agree with our check, {} do not for a known reason", known.len());
}
