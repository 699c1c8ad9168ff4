//! Collected OpenRTB traffic, where `KIKI_CONFORMANCE_DATA` names the folder that holds it.
//!
//! Every real request is accepted. Every request that another server refuses is refused here too, naming the
//! field, or is in [`ACCEPTED`] with the reason why accepting it is right.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use syncflow::domain::openrtb::{BidRequest, Document, Malformed};

const ACCOUNT: &str = "an account or application that the other server does not serve; nothing is wrong with the request";
const BIDDER: &str = "imp.ext and ext.prebid choose among the other server's bidders; they are not ours to check";
const STORED: &str = "a stored request of the other server; the request is sound without it";
const SIZELESS: &str = "sizes are only recommended, and 18 real banners have none; it matches no creative";
const ONE_CHANNEL: &str = "answered with no bid naming the field, because 23 real requests have more than one channel";
const CHANNEL: &str = "site, app and dooh are only recommended, and 485 real requests have none of them and 20 an empty one";
const NATIVE: &str = "answered with no bid naming the field, because real requests have such markup";

/// File name, the field that the no-bid names (nothing if the request is simply sound), and the reason.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("malformed-acct.json", "", ACCOUNT),
    ("required-disabled-acct.json", "", ACCOUNT),
    ("blocked-app.json", "", ACCOUNT),
    ("bad-alias.json", "", BIDDER),
    ("alias-bidder-self.json", "", BIDDER),
    ("alias-unknown-core.json", "", BIDDER),
    ("bid-adjustment-invalid-bidder.json", "", BIDDER),
    ("bid-adjustment-negative.json", "", BIDDER),
    ("cache-nothing.json", "", BIDDER),
    ("imp-ext-empty.json", "", BIDDER),
    ("imp-ext-prebid-bidder-empty.json", "", BIDDER),
    ("imp-ext-unknown-bidder.json", "", BIDDER),
    ("imp-no-ext.json", "", BIDDER),
    ("invalid-bidder-params.json", "", BIDDER),
    ("interstital-bad-perc.json", "", "device.ext.prebid is the other server's own extension"),
    ("user-ext-prebid-empty.json", "", "user.ext.prebid is the other server's own extension"),
    ("bad_stored_imp.json", "", STORED),
    ("banner-no-size.json", "", SIZELESS),
    ("banner-hmax.json", "", SIZELESS),
    ("banner-hmin.json", "", SIZELESS),
    ("banner-wmin.json", "", SIZELESS),
    ("format-empty-array.json", "", SIZELESS),
    ("banner-w-negative.json", "", "a width of -1 is a real exchange's fluid width; it matches no creative"),
    ("no-site-or-app-or-dooh.json", "", CHANNEL),
    ("site-empty.json", "", CHANNEL),
    ("site-app-both.json", "app", ONE_CHANNEL),
    ("site-dooh-both.json", "dooh", ONE_CHANNEL),
    ("imp-id-duplicates.json", "imp[1].id", "answered with no bid naming the field, as 5 real requests repeat an id"),
    ("video-empty.json", "", "real videos name no content type; it matches no creative"),
    ("asset-empty.json", "imp[0].native.request.assets", NATIVE),
    ("empty-object.json", "imp[0].native.request.assets", NATIVE),
    ("request-plcmttype-invalid.json", "imp[0].native.request.plcmttype", NATIVE),
];

fn data(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("KIKI_CONFORMANCE_DATA").map(|folder| PathBuf::from(folder).join("openrtb").join(name));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        println!("did not run: KIKI_CONFORMANCE_DATA names no folder with openrtb/{name}");
    }
    found
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a test reads lives as long as the test's process.
fn parse(line: &Value) -> Result<BidRequest<'static>, Malformed> {
    BidRequest::of(Box::leak(Box::new(Document::json(line["request"].to_string().leak().as_bytes())?)))
}

#[test]
fn accepts_every_real_request() {
    let Some(path) = data("requests.jsonl") else { return };
    let mut imps = 0;
    let mut set_aside = 0;
    let mut refused = Vec::new();
    let lines = lines(&path);
    for (number, line) in lines.iter().enumerate() {
        match parse(line) {
            Ok(request) => {
                imps += request.imps.len();
                set_aside += request.set_aside.len();
            }
            Err(error) => refused.push(format!("line {}: {error}", number + 1)),
        }
    }
    println!("{} requests, {imps} impressions to bid on, {set_aside} faults set aside", lines.len());
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
    assert_eq!(lines.len(), 1828);
    assert!(imps > 1900 && set_aside < 150);
}

#[test]
fn refuses_what_is_invalid_or_says_why_not() {
    let Some(path) = data("invalid.jsonl") else { return };
    // Two files of the corpus have one name: the one with no id at all is refused, the native one is accepted.
    let accepted: BTreeMap<&str, (&str, &str)> = ACCEPTED.iter().map(|(name, field, why)| (*name, (*field, *why))).collect();
    let lines = lines(&path);
    let mut refused = 0;
    let mut wrong = Vec::new();
    for line in &lines {
        let path = line["source"]["path"].as_str().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let expected = accepted.get(name).filter(|_| line["request"].get("id").is_some());
        match (parse(line), expected) {
            (Ok(_), None) => wrong.push(format!("{name} was accepted and should not be")),
            (Err(error), Some(_)) => wrong.push(format!("{name} was refused and should not be: {error}")),
            (Err(error), None) => {
                refused += 1;
                println!("{name}: 400 {error}");
                if error.field.is_empty() {
                    wrong.push(format!("{name} was refused without naming a field"));
                }
            }
            (Ok(request), Some((field, why))) => {
                println!("{name}: accepted: {why}");
                let named = request.set_aside.first().map_or("", |fault| fault.field.as_str());
                if named != *field {
                    wrong.push(format!("{name} was set aside for {named:?} instead of {field:?}"));
                }
                if !field.is_empty() && !request.imps.is_empty() {
                    wrong.push(format!("{name} can be bid on"));
                }
            }
        }
    }
    println!("{} invalid requests: {refused} refused, {} accepted for a stated reason", lines.len(), lines.len() - refused);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((lines.len(), lines.len() - refused), (80, ACCEPTED.len()));
}

#[test]
fn refuses_every_body_that_is_not_json() {
    let Some(folder) = data("malformed_raw") else { return };
    let mut refused = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("INDEX.json") {
            continue; // the corpus' own table of contents
        }
        let error = Document::json(&std::fs::read(&path).unwrap()).unwrap_err();
        assert_eq!(error.field, "body", "{}: {error}", path.display());
        refused += 1;
    }
    println!("{refused} bodies refused");
    assert!(refused > 0);
}
