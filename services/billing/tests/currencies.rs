//! Minor units against the list of ISO 4217, which is not part of the repository: `$KIKI_CONFORMANCE_DATA/billing/iso4217/codes-all.csv`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use billing::domain::amount::minor_places;
use kiki::money::Currency;

/// Code and minor unit (none: gold, test codes and the like) of each currency that was not withdrawn. An entity's name may be quoted, with
/// commas; the last five fields are not.
fn current(csv: &str) -> BTreeMap<&str, Option<u32>> {
    let mut codes = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.rsplitn(5, ',').collect();
        let [withdrawn, minor, _number, code, _names] = fields[..] else { panic!("{line}") };
        if withdrawn.is_empty() && !code.is_empty() {
            codes.insert(code, minor.parse().ok());
        }
    }
    codes
}

#[test]
fn every_currency_has_its_own_minor_unit() {
    let Some(folder) = std::env::var_os("KIKI_CONFORMANCE_DATA") else {
        println!("currencies did not run: KIKI_CONFORMANCE_DATA is not set");
        return;
    };
    let path = PathBuf::from(folder).join("billing/iso4217/codes-all.csv");
    let Ok(csv) = std::fs::read_to_string(&path) else {
        println!("currencies did not run: {} is not there", path.display());
        return;
    };
    let codes = current(&csv);
    let ours = |code: &str| minor_places(code).ok().filter(|_| Currency::parse(code).is_ok());
    let wrong: Vec<_> = codes.iter().filter(|(code, minor)| ours(code) != **minor).map(|(code, minor)| (code, minor, ours(code))).collect();
    assert!(wrong.is_empty(), "code, the list's minor unit, ours: {wrong:?}");
    let with = |minor| codes.values().filter(|other| **other == Some(minor)).count();
    println!("{} currencies checked", codes.len());
    assert!([0, 2, 3, 4].map(with).iter().all(|count| *count > 0), "minor units of every length");
}
