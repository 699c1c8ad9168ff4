//! The log on a real disk: restarts, torn ends, damage.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::tlog::note::VerifyingKey;
use syncshield::audit;
use syncshield::store::{Log, Paths};

const LOG: &str = "test.local/log";

fn open(dir: &Path) -> Result<Log, syncshield::Error> {
    let clock = VirtualClock::at(UnixMicros(1_770_000_000_000_000));
    Log::open(&Paths::new(dir), LOG, Clock::Virtual(clock))
}

fn policy() -> leaf::Policy {
    leaf::Policy { bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 1 }], ..Default::default() }
}

async fn put(log: &Log) -> u64 {
    log.run(|ledger| ledger.put_policy(policy())).await.unwrap().0.index
}

fn key(dir: &Path) -> VerifyingKey {
    std::fs::read_to_string(Paths::new(dir).public_key()).unwrap().trim().parse().unwrap()
}

fn segment(dir: &Path) -> PathBuf {
    Paths::new(dir).log().join("00000000000000000000.seg")
}

/// A closed log of ten leaves.
async fn ten(dir: &Path) {
    let log = open(dir).unwrap();
    for _ in 0..10 {
        put(&log).await;
    }
    log.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_with_and_without_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    let log = open(dir.path()).unwrap();
    assert_eq!((put(&log).await, *log.committed().borrow()), (10, 11));
    log.close().await;
    std::fs::remove_file(Paths::new(dir.path()).snapshot()).unwrap();
    let log = open(dir.path()).unwrap();
    assert_eq!(put(&log).await, 11);
    let read = log.read(3, 1 << 20).await.unwrap();
    assert_eq!((read[0].0, read.len()), (3, 9));
    log.close().await;
    assert_eq!(audit::verify(dir.path(), &key(dir.path())).unwrap().signed, 12);
}

#[tokio::test]
async fn a_log_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(syncshield::Error::Locked(_))));
    log.close().await;
    assert!(open(dir.path()).is_ok());
}

#[tokio::test]
async fn a_start_that_was_killed_while_it_made_its_key_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    log.close().await;
    std::fs::remove_file(Paths::new(dir.path()).public_key()).unwrap();
    std::fs::write(Paths::new(dir.path()).key().with_extension("new"), "").unwrap();
    open(dir.path()).unwrap().close().await;
    assert_eq!(key(dir.path()).name(), LOG);
}

#[tokio::test]
async fn a_snapshot_of_another_log_is_not_believed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ten(dir.path()).await;
    let log = open(other.path()).unwrap();
    put(&log).await;
    log.close().await;
    std::fs::copy(Paths::new(other.path()).snapshot(), Paths::new(dir.path()).snapshot()).unwrap();
    // A fold from the wrong snapshot would give the next policy another version than 11.
    let log = open(dir.path()).unwrap();
    let version = log.run(|ledger| ledger.put_policy(policy())).await.unwrap().1.version;
    assert_eq!(version, 11);
}

#[tokio::test]
async fn a_torn_end_is_cut_only_beyond_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    let bytes = std::fs::read(segment(dir.path())).unwrap();
    let torn = [&bytes[..], &bytes[..20]].concat();
    std::fs::write(segment(dir.path()), &torn).unwrap();
    let log = open(dir.path()).unwrap();
    assert_eq!(*log.committed().borrow(), 10);
    log.close().await;
    assert_eq!(std::fs::read(segment(dir.path())).unwrap(), bytes);
    std::fs::write(segment(dir.path()), &bytes[..bytes.len() - 1]).unwrap();
    let error = open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("leaf 9") && error.contains("it was signed"), "{error}");
}

#[tokio::test]
async fn a_request_that_was_torn_between_its_leaves_is_cut_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    put(&log).await;
    log.checkpoint(1).await.unwrap();
    let two = |ledger: &mut syncshield::domain::ledger::Ledger| ledger.put_policy(policy()).and_then(|_| ledger.put_policy(policy()));
    log.run(two).await.unwrap();
    drop(log); // the writer ends without a last checkpoint
    let bytes = std::fs::read(segment(dir.path())).unwrap();
    let starts: Vec<_> = kiki::framed::Scanner::new(&bytes).map(|frame| frame.unwrap().0).collect();
    assert_eq!(starts.len(), 3);
    // The first leaf of the two is whole on disk, of the second nothing or a part.
    for cut in [starts[2], starts[2] + 5, bytes.len() - 1] {
        std::fs::write(segment(dir.path()), &bytes[..cut]).unwrap();
        let log = reopen(dir.path()).await;
        assert_eq!(*log.committed().borrow(), 1, "cut at {cut}");
        drop(log);
        assert_eq!(std::fs::metadata(segment(dir.path())).unwrap().len(), starts[1] as u64);
    }
}

/// Opens a log whose last writer may still be on its way out.
async fn reopen(dir: &Path) -> Log {
    loop {
        match open(dir) {
            Err(syncshield::Error::Locked(_)) => tokio::task::yield_now().await,
            log => return log.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_bad_record_with_a_valid_one_behind_it_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    // As if nothing had been signed: only what stands behind can tell.
    std::fs::remove_file(Paths::new(dir.path()).checkpoint()).unwrap();
    std::fs::remove_file(Paths::new(dir.path()).signed_size()).unwrap();
    let bytes = std::fs::read(segment(dir.path())).unwrap();
    let mut bad = bytes.clone();
    bad[bytes.len() / 2] ^= 1;
    std::fs::write(segment(dir.path()), &bad).unwrap();
    let error = open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("valid records stand behind it"), "{error}");
}

#[tokio::test]
async fn every_flipped_byte_of_the_log_and_its_checkpoint_is_found() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    let key = key(dir.path());
    assert!(audit::verify(dir.path(), &key).is_ok());
    for path in [segment(dir.path()), Paths::new(dir.path()).checkpoint()] {
        let bytes = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (at, byte) in bytes.iter().enumerate() {
            file.write_all_at(&[byte ^ 0x10], at as u64).unwrap();
            let finding = audit::verify(dir.path(), &key).expect_err(&format!("{} byte {at}", path.display()));
            assert!(finding.place.starts_with("leaf ") || finding.place == "checkpoint", "{finding}");
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
    }
    assert!(audit::verify(dir.path(), &key).is_ok());
}

#[tokio::test]
async fn a_log_that_was_cut_or_signed_by_another_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ten(dir.path()).await;
    ten(other.path()).await;
    assert_eq!(audit::verify(dir.path(), &key(other.path())).unwrap_err().place, "checkpoint");
    // Nine whole frames: the leaf that is gone is named.
    let bytes = std::fs::read(segment(dir.path())).unwrap();
    let last = kiki::framed::Scanner::new(&bytes).map(|frame| frame.unwrap().0).last().unwrap();
    std::fs::write(segment(dir.path()), &bytes[..last]).unwrap();
    assert_eq!(audit::verify(dir.path(), &key(dir.path())).unwrap_err().place, "leaf 9");
    assert!(open(dir.path()).err().unwrap().to_string().contains("10 were signed"));
}

#[tokio::test]
async fn a_checkpoint_covers_what_was_acknowledged_and_the_proof_leads_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    for _ in 0..5 {
        put(&log).await;
    }
    let signed = log.checkpoint(5).await.unwrap();
    let opened = kiki::tlog::Checkpoint::open(signed.note.as_bytes(), LOG, &key(dir.path())).unwrap();
    let proof = log.proof(&[1, 3], opened.size).unwrap();
    let read = log.read(0, 1 << 20).await.unwrap();
    let leaves = [1, 3].map(|index: u64| (index, kiki::tlog::leaf_hash(&read[index as usize].1)));
    assert_eq!(kiki::tlog::multiproof_root(opened.size, &leaves, &proof).unwrap(), opened.root);
    assert!(matches!(log.checkpoint(6).await, Err(syncshield::Error::OutOfRange { asked: 6, size: 5 })));
}
