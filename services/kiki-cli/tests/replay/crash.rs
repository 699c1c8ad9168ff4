//! kill -9 at random moments, each followed by a restart.
//!
//! What must hold at each of them, on the files as the kill left them:
//! - the log audits: the fold, which refuses what breaks invariants 1 to 6, takes every leaf of every prefix;
//! - every leaf that a checkpoint had signed before is still there, in its place;
//! - what the exchange was told is settled, is settled; and nothing is settled that it did not charge.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use kiki::framed::Scanner;
use kiki::tlog::{Hash, leaf_hash};
use serde_json::Value;

use super::{Input, kiki, log_key, recompute, result, run, verify};

/// Kills of one run.
const KILLS: u32 = 20;

#[test]
fn a_replay_that_is_killed_20_times_loses_nothing_and_counts_nothing_twice() {
    let input = Input::new();
    run(&mut input.replay("whole", &[]));
    let entries = entries(&input.path("whole"));
    let dir = input.path("killed");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // From before the set-up to the last invoice, in the order in which they come.
    let mut moments: Vec<u64> = (0..KILLS).map(|_| random.below(entries)).collect();
    moments.sort_unstable();
    let (mut signed, mut audited, mut ended) = (Vec::new(), 0, 0);
    for moment in moments {
        let mut child = input.replay("killed", &["--resume"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while self::entries(&dir) < moment && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1)); // polls: the process is not told that it is watched
        }
        // Then whenever it may be: it is starting, at work, or closing the month.
        sleep(Duration::from_millis(random.below(150)));
        ended += u32::from(child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        if dir.join("log/checkpoint").exists() {
            check(&dir, &mut signed);
            audited += 1;
        }
    }
    assert!(audited >= KILLS / 2, "only {audited} kills left a log to check");
    assert!(ended <= KILLS / 2, "{ended} of {KILLS} runs ended before they were killed");
    run(&mut input.replay("killed", &["--resume"]));
    check(&dir, &mut signed);
    let result = result(&dir);
    assert_eq!(result["wrong"], Value::Array(vec![]));
    assert_eq!(result["settled_nanos"], result["exchange_nanos"], "the log and the exchange differ");
    verify(&dir);
    recompute(&dir);
    println!("{audited} logs audited after {KILLS} kills, {ended} of which came after the end; the whole ledger has {entries} lines");
}

/// Lines of the exchange's ledger: how far a run has come.
fn entries(dir: &Path) -> u64 {
    fs::read(dir.join("exchange.jsonl")).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count() as u64)
}

/// `signed` are the leaves that were signed before; those that are now take their place.
fn check(dir: &Path, signed: &mut Vec<Hash>) {
    let report = syncshield::audit::verify(dir, &log_key(dir)).unwrap_or_else(|finding| panic!("{finding}"));
    let leaves = leaves(dir);
    assert!(leaves.starts_with(signed), "a signed leaf is gone or another: {} were signed, {} are there", signed.len(), leaves.len());
    *signed = leaves[..usize::try_from(report.signed).unwrap()].to_vec();

    let exchange = Exchange::read(dir);
    let campaigns = exchange.charged.keys().chain(exchange.told.keys());
    for campaign in campaigns {
        let settled: i128 = report.settled.iter().filter(|((_, of, _), _)| of == campaign).map(|(_, nanos)| nanos).sum();
        let [told, charged] = [&exchange.told, &exchange.charged].map(|sums| sums.get(campaign).copied().unwrap_or_default());
        assert!(told <= settled, "{campaign}: the exchange was told that {told} nanos are settled, the log has {settled}");
        assert!(settled <= charged, "{campaign}: the log settled {settled} nanos, the exchange charged {charged}");
    }
    let all: i128 = report.settled.values().sum();
    assert!(all <= exchange.charged.values().sum(), "settled what nobody charged");
}

/// The leaves' hashes, read without the store's code, up to the first frame that is not whole.
fn leaves(dir: &Path) -> Vec<Hash> {
    let mut segments: Vec<_> = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    segments.sort();
    let hashes = |path| {
        let bytes = fs::read(path).unwrap();
        Scanner::new(&bytes).map_while(Result::ok).map(|(_, payload)| leaf_hash(payload)).collect::<Vec<Hash>>()
    };
    segments.iter().flat_map(hashes).collect()
}

/// Nanos by campaign, from the exchange's own ledger.
#[derive(Default)]
struct Exchange {
    /// What it charged. A line is written before the notice goes out.
    charged: BTreeMap<String, i128>,
    /// Charges of rounds whose notices were all answered.
    told: BTreeMap<String, i128>,
}

impl Exchange {
    fn read(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("exchange.jsonl")).unwrap_or_default();
        // The last line may be torn.
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |kind: &'static str| lines.iter().filter(move |line| line["type"] == kind);
        let sent: Vec<&Value> = of("sent").map(|line| &line["at"]).collect();
        let mut exchange = Self::default();
        for charge in of("charge") {
            let campaign = charge["campaign"].as_str().unwrap();
            let price = i128::from(charge["price_nanos"].as_i64().unwrap());
            *exchange.charged.entry(campaign.to_owned()).or_default() += price;
            if sent.contains(&&charge["notified_at"]) {
                *exchange.told.entry(campaign.to_owned()).or_default() += price;
            }
        }
        exchange
    }
}

/// xorshift64*: moments need no better.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }
}

#[test]
fn the_command_says_what_it_will_not_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    let output = kiki(&["replay", "--data"]).arg(folder.path()).output().unwrap();
    assert!(!output.status.success(), "a folder that is not a replay's was taken");
    assert_eq!(fs::read_to_string(folder.path().join("thesis.txt")).unwrap(), "mine");
}
