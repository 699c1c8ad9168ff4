//! `kiki audit replay-policy`: what a policy would have refused of a log's decisions, on files alone.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::process::Command;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki_cli::policy::document;
use kiki_cli::policy::replay::{Report, replay};
use prost::Message as _;
use syncshield::domain::ledger::Item;
use syncshield::store::{Log, Paths};

const MARCH: i64 = 1_772_323_200; // 2026-03-01T00:00:00Z
const APRIL: i64 = MARCH + 31 * 86_400;

fn decision(second: i64, country: &str, refusal: Option<leaf::Refusal>) -> leaf::Decision {
    let at = Some(UnixMicros(second * 1_000_000).into());
    let refusals = refusal.map_or(0, |refusal| 1 << refusal as u32);
    leaf::Decision { at, country: country.into(), price_nanos: 2_000_000, refusals, ..Default::default() }
}

#[tokio::test]
async fn a_policy_is_held_against_a_month_of_decisions() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::Virtual(VirtualClock::at(UnixMicros(APRIL * 1_000_000)));
    let log = Log::open(&Paths::new(dir.path()), "test.local/log", clock).unwrap();
    let decisions = vec![
        decision(MARCH, "DEU", None),
        decision(MARCH + 1, "FRA", None),
        decision(MARCH + 2, "PRK", Some(leaf::Refusal::Geo)),
        decision(MARCH + 3, "DEU", Some(leaf::Refusal::Budget)),
        leaf::Decision { abridged: true, ..decision(APRIL - 1, "FRA", None) },
        decision(MARCH - 1, "DEU", None),
        decision(APRIL, "DEU", None),
    ];
    let batch = leaf::DecisionBatch { campaign: "c".into(), currency: "USD".into(), decisions, ..Default::default() };
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1,
        target_roas_ppm: 1_000_000,
        ..Default::default()
    };
    log.run(move |ledger| {
        ledger.put_campaign("acme", campaign)?;
        ledger.record("flow", 1, vec![("acme".into(), Item::Decisions(batch.encode_to_vec().into()))])
    })
    .await
    .unwrap();
    log.close().await;

    let text = "{bid_caps: {USD: 50}, rules: [{id: not-there, client: acme, countries: {block: [DEU]}}]}";
    let (_, policy) = document::read(text.as_bytes()).unwrap();
    let march = replay(dir.path(), &policy, (MARCH, APRIL)).unwrap();
    let expected = Report {
        decisions: 5,
        same: 2,
        refused_bids: BTreeMap::from([("USD".into(), (1, 2_000_000))]),
        refused_others: 1,
        allowed: 1,
        abridged: 1,
        rules: BTreeMap::from([("not-there".into(), 2)]),
    };
    assert_eq!(march, expected);
    assert_eq!(replay(dir.path(), &policy, (i64::MIN, i64::MAX)).unwrap().refused_bids["USD"].0, 3);
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, text).unwrap();
    let command = |month: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.args(["audit", "replay-policy", "--month", month, "--policy"]).arg(&file).arg(dir.path()).output().unwrap()
    };
    let said = String::from_utf8(command("2026-03").stdout).unwrap();
    let expected = "\
replayed
  decisions     5
  same          2
  would allow   1
  would refuse  1 that were no bids for another reason
  would refuse  1 bids, 0.00 USD offered
  rule          not-there  2
  abridged      1 decisions recorded only a part of their lists
";
    assert_eq!(said, expected);
    assert!(!command("March").status.success());
    replay(&dir.path().join("nowhere"), &policy, (0, 1)).unwrap_err();
}
