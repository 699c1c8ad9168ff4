//! Pruning: the leaves of old segments go, proofs go on, and no crash in between costs a record.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf::{self, leaf::Body};
use kiki::money::Micros;
use kiki::status::Reason;
use kiki::tlog::note::SigningKey;
use kiki::tlog::{Checkpoint, leaf_hash, multiproof_root, verify_consistency};
use syncshield::Error;
use syncshield::audit;
use syncshield::domain::ledger::{Closing, Item, LeaseAsk};
use syncshield::store::disk::Files;
use syncshield::store::prune::{Report, prune_on};
use syncshield::store::{Log, Paths, segments};

use crate::ending::Ending;

const START: i64 = 1_770_000_000_000_000;
const MONTH: i64 = 31 * 86_400_000_000;

/// Real files in small segments, which end after so many calls.
fn small(calls: i64) -> Ending {
    Ending::after(calls, 1_024)
}

fn key() -> SigningKey {
    SigningKey::new("test.local/log", &[7; 32]).unwrap()
}

struct World {
    dir: tempfile::TempDir,
    clock: VirtualClock,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), clock: VirtualClock::at(UnixMicros(START)) };
        std::fs::create_dir_all(world.paths().log()).unwrap();
        std::fs::create_dir_all(world.cold()).unwrap();
        world
    }
    fn paths(&self) -> Paths {
        Paths::new(&self.dir.path().join("data"))
    }
    fn cold(&self) -> PathBuf {
        self.dir.path().join("cold")
    }
    fn open(&self) -> Result<(Log, tokio::task::JoinHandle<()>), Error> {
        let (log, hand) = Log::open_by_hand(Arc::new(small(i64::MAX)), &self.paths(), key(), Clock::Virtual(self.clock.clone()))?;
        Ok((log, tokio::spawn(hand.run())))
    }
    async fn prune(&self, disk: &Ending, before: i64) -> Result<Report, Error> {
        prune_on(Arc::new(disk.clone()), &self.paths(), key(), Clock::Virtual(self.clock.clone()), UnixMicros(before), &self.cold()).await
    }
    fn verify(&self) -> Result<audit::Report, audit::Finding> {
        audit::verify(&self.dir.path().join("data"), key().verifying_key())
    }
    fn copy(&self) -> Self {
        let copy = Self { dir: tempfile::tempdir().unwrap(), clock: self.clock.clone() };
        copy_folder(self.dir.path(), copy.dir.path());
        copy
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &to) } else { assert!(std::fs::copy(&path, &to).is_ok()) }
    }
}

async fn close((log, writing): (Log, tokio::task::JoinHandle<()>)) {
    log.close().await;
    writing.await.unwrap();
}

fn campaign(paused: bool) -> leaf::Campaign {
    leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000_000,
        target_roas_ppm: 3_000_000,
        paused,
        ..Default::default()
    }
}

async fn charge(log: &Log, n: i64) {
    let ask = LeaseAsk {
        key: format!("k{n}"),
        client: "acme".into(),
        campaign: "c".into(),
        holder: "h".into(),
        amount: Micros::new(10),
        least: Micros::new(10),
        mark: (1, 0),
        ttl: Duration::from_secs(60),
        reservation: true,
        platform: "meta".into(),
    };
    let lease_id = log.run(move |ledger| ledger.lease(&ask)).await.unwrap().lease_id;
    let at = Some(UnixMicros(START).into());
    let what = leaf::Settlement {
        max_nanos: 10_000,
        price_nanos: 1_000 + n,
        bid_at: at,
        noticed_at: at,
        platform: "meta".into(),
        ..Default::default()
    };
    let close = Closing { client: "acme".into(), campaign: "c".into(), lease_id, what };
    log.run(move |ledger| Ok(ledger.settle(vec![close]))).await.unwrap();
}

async fn record(log: &Log, item: Item) -> u64 {
    log.run(move |ledger| ledger.record("", 0, vec![("acme".into(), item)])).await.unwrap()[0].client_seq
}

/// A client that spent, left and was invoiced: 40 charges of 1,000 and some nanos, a purchase, a closing and its invoice.
async fn ended(world: &World) {
    let opened = world.open().unwrap();
    let log = &opened.0;
    log.run(|ledger| ledger.put_campaign("acme", campaign(false))).await.unwrap();
    let terms = leaf::Terms {
        currency: "USD".into(),
        client_name: "Acme".into(),
        baseline_ppm: 3_000_000,
        share_ppm: 100_000,
        basis: leaf::Basis::Predicted.into(),
        netting: leaf::Netting::Client.into(),
        zone: "UTC".into(),
        payment_days: 30,
        horizon_days: 365,
        attribution: leaf::AttributionRule::LastBilledV1.into(),
        lookback_seconds: 86_400,
        baseline_evidence: Some(leaf::Position { log_id: "test.local/log".into(), index: 1 }),
        ..Default::default()
    };
    let evidence =
        leaf::Evidence { title: "before".into(), document_sha256: vec![1; 32].into(), currency: "USD".into(), ..Default::default() };
    record(log, Item::Evidence(evidence)).await;
    log.run(move |ledger| ledger.put_terms("acme", terms)).await.unwrap();
    let outcome = leaf::Outcome {
        event_id: "order-1".into(),
        occurred_at: Some(UnixMicros(START).into()),
        customer: vec![1; 16].into(),
        currency: "USD".into(),
        value_micros: 5_000,
        ..Default::default()
    };
    record(log, Item::Purchase(outcome)).await;
    for n in 0..40 {
        charge(log, n).await;
    }
    log.run(|ledger| ledger.put_campaign("acme", campaign(true))).await.unwrap();
    close(opened).await;
}

async fn invoiced(world: &World) {
    world.clock.advance_to(UnixMicros(START + 2 * MONTH));
    let opened = world.open().unwrap();
    let time = |text: &str| Some(UnixMicros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond()).into());
    let period = leaf::PeriodClosed {
        currency: "USD".into(),
        month: "2026-02".into(),
        period_start: time("2026-02-01T00:00:00Z"),
        period_end: time("2026-03-01T00:00:00Z"),
        ..Default::default()
    };
    let period_closed_seq = record(&opened.0, Item::ClosePeriod(period)).await;
    let invoice = leaf::Invoice {
        number: "K2026-000001".into(),
        currency: "USD".into(),
        month: "2026-02".into(),
        document_sha256: vec![2; 32].into(),
        issued_at: Some(UnixMicros(START + 2 * MONTH).into()),
        period_closed_seq,
        ..Default::default()
    };
    record(&opened.0, Item::Invoice(invoice)).await;
    close(opened).await;
}

fn rollups(world: &World) -> Vec<(leaf::Leaf, leaf::Rollup)> {
    let mut found = Vec::new();
    for (_, path) in segments::list(&Files, &world.paths().log()).unwrap() {
        for frame in kiki::framed::Scanner::new(&std::fs::read(path).unwrap()) {
            if let (head, Body::Rollup(rollup)) = leaf::decode(frame.unwrap().1).unwrap() {
                found.push((head, rollup));
            }
        }
    }
    found
}

#[tokio::test]
async fn pruned_leaves_are_gone_and_trees_proofs_sums_and_sequences_go_on() {
    let world = World::new();
    ended(&world).await;
    invoiced(&world).await;
    let whole = world.verify().unwrap();
    let opened = world.open().unwrap();
    let old = opened.0.checkpoint(0).await.unwrap();
    let (_, first) = opened.0.read(0, 1).await.unwrap().remove(0);
    close(opened).await;

    let young = world.prune(&small(i64::MAX), START).await.unwrap();
    assert!(young.segments == 0 && young.stopped.contains("leaf 0 is not old enough"), "{young:?}");
    let report = world.prune(&small(i64::MAX), START + MONTH).await.unwrap();
    assert!(report.segments > 3 && report.bytes > 0, "{report:?}");
    let left = world.verify().unwrap();
    assert_eq!((left.pruned, &left.settled), (report.retained, &whole.settled));
    assert!(left.leaves > whole.leaves && left.kinds["rollups"] == 1);

    let (head, rollup) = rollups(&world).remove(0);
    assert_eq!((rollup.first, rollup.last, rollup.rows.len()), (0, report.retained, 2));
    assert!(rollup.last_seq == report.retained && rollup.last_seq < head.client_seq, "{rollup:?}");
    let spend = rollup.rows.iter().find(|row| row.platform == "meta").unwrap();
    let n = i128::from(spend.impressions); // the last ones stand in the segment that stays
    assert!(n > 30 && spend.settled_nanos.as_ref().map(i128::from) == Some(n * 1_000 + n * (n - 1) / 2), "{spend:?}");
    assert_eq!(rollup.rows.iter().map(|row| row.outcome_micros.as_ref().map_or(0, i128::from)).sum::<i128>(), 5_000);

    // The log starts, says what it no longer has, and still proves what anybody holds.
    let opened = world.open().unwrap();
    let log = &opened.0;
    let gone = log.read(0, 1).await.unwrap_err();
    assert!(matches!(gone, Error::Pruned { asked: 0, retained } if retained == report.retained));
    assert_eq!(gone.reason(), Reason::PositionOutOfRange);
    let kept = log.read(report.retained, 1).await.unwrap();
    assert_eq!(leaf::decode(&kept[0].1).unwrap().0.client_seq, rollup.last_seq + 1, "the client's stream goes on from the rollup");
    let new = log.checkpoint(0).await.unwrap();
    let root = |note: &str| Checkpoint::open(note.as_bytes(), "test.local/log", key().verifying_key()).unwrap().root;
    let proof = log.proof(&[0], new.size).unwrap();
    assert_eq!(multiproof_root(new.size, &[(0, leaf_hash(&first))], &proof).unwrap(), root(&new.note));
    let growth = log.consistency_proof(old.size, new.size).unwrap();
    verify_consistency(old.size, new.size, &growth, &root(&old.note), &root(&new.note)).unwrap();
    close(opened).await;

    // Without its snapshot it starts from the opening fold, and without either it does not start.
    std::fs::remove_file(world.paths().snapshot()).unwrap();
    close(world.open().unwrap()).await;
    assert!(!world.paths().snapshot().exists(), "it would hide what comes now");
    std::fs::remove_file(world.paths().opening()).unwrap();
    let refused = world.open().err().unwrap().to_string();
    assert!(refused.contains("was pruned"), "{refused}");
    assert!(world.verify().is_err());
    // Until the segments are put back.
    for (_, path) in segments::list(&Files, &world.cold()).unwrap() {
        std::fs::copy(&path, world.paths().log().join(path.file_name().unwrap())).unwrap();
    }
    close(world.open().unwrap()).await;
    assert_eq!(world.verify().unwrap().pruned, 0);
}

#[tokio::test]
async fn nothing_goes_from_which_something_is_still_computed() {
    let world = World::new();
    ended(&world).await;
    world.clock.advance_to(UnixMicros(START + 2 * MONTH));
    let before = segments::list(&Files, &world.paths().log()).unwrap();
    let report = world.prune(&small(i64::MAX), i64::MAX).await.unwrap();
    assert!(report.segments == 0 && report.stopped.contains("are not invoiced"), "{report:?}");
    invoiced(&world).await;
    let opened = world.open().unwrap();
    opened.0.run(|ledger| ledger.put_campaign("acme", campaign(false))).await.unwrap();
    close(opened).await;
    let report = world.prune(&small(i64::MAX), i64::MAX).await.unwrap();
    assert!(report.segments == 0 && report.stopped.contains("is not paused"), "{report:?}");
    assert!(rollups(&world).is_empty() && segments::list(&Files, &world.paths().log()).unwrap().len() >= before.len());
}

/// The opening fold is believed only where a signed record says so.
#[tokio::test]
async fn an_opening_fold_or_a_hash_that_was_changed_is_found() {
    let world = World::new();
    ended(&world).await;
    invoiced(&world).await;
    world.prune(&small(i64::MAX), START + MONTH).await.unwrap();
    let (hashes, opening) = (segments::pruned(&Files, &world.paths().log()).unwrap()[1].1.clone(), world.paths().opening());
    for path in [hashes, opening] {
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(world.verify().is_err(), "{}", path.display());
        std::fs::write(&path, good).unwrap();
    }
    assert!(world.verify().is_ok());
}

/// The device fails at every call in turn, in the middle of it where that can be: the log starts and verifies, has each leaf in
/// one of the two folders, and the next pruning comes to the same end.
#[tokio::test]
async fn wherever_a_crash_comes_the_log_starts_and_pruning_goes_on() {
    let world = World::new();
    ended(&world).await;
    invoiced(&world).await;
    let expected = {
        let world = world.copy();
        let report = world.prune(&small(i64::MAX), START + MONTH).await.unwrap();
        (report.retained, world.verify().unwrap().settled)
    };
    for steps in 0.. {
        let world = world.copy();
        let done = world.prune(&small(steps), START + MONTH).await.is_ok();
        close(world.open().unwrap_or_else(|e| panic!("after {steps} calls: {e}"))).await;
        world.verify().unwrap_or_else(|e| panic!("after {steps} calls: {e}"));
        world.prune(&small(i64::MAX), START + MONTH).await.unwrap_or_else(|e| panic!("after {steps} calls: {e}"));
        let left = world.verify().unwrap_or_else(|e| panic!("after {steps} calls, pruned again: {e}"));
        assert_eq!((left.pruned, left.settled), expected, "after {steps} calls");
        let cold = segments::list(&Files, &world.cold()).unwrap().len();
        assert_eq!(cold, segments::pruned(&Files, &world.paths().log()).unwrap().len(), "after {steps} calls");
        if done {
            assert!(steps > 40, "it took {steps} calls: is it still tested?");
            break;
        }
    }
}
