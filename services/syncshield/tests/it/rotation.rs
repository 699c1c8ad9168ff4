//! Changes of the key that signs: with a process that ends at every step, and with keys and signatures that are not what
//! they should be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use kiki::clock::Clock;
use kiki::leaf;
use kiki::rotation;
use kiki::status::Reason;
use kiki::tlog::note::{Note, SigningKey, VerifyingKey};
use kiki::tlog::portable::PortableProof;
use syncshield::audit;
use syncshield::store::rotate::Rotated;
use syncshield::store::{Log, Paths};

use crate::ending::Ending;

const LOG: &str = "test.local/log";

fn open(dir: &Path) -> Log {
    Log::open(&Paths::new(dir), LOG, Clock::System).unwrap()
}

async fn grow(log: &Log) -> u64 {
    let bid_caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 1 }];
    log.run(|ledger| ledger.put_policy(leaf::Policy { bid_caps, ..Default::default() })).await.unwrap();
    log.checkpoint(*log.committed().borrow()).await.unwrap().size
}

async fn rotate(log: &Log, old: &VerifyingKey) -> Result<Rotated, syncshield::Error> {
    log.rotate_key(old.to_string(), "ada".into(), "yearly".into()).await
}

fn public(dir: &Path) -> VerifyingKey {
    std::fs::read_to_string(Paths::new(dir).public_key()).unwrap().trim().parse().unwrap()
}

fn key(text: &str) -> VerifyingKey {
    text.parse().unwrap()
}

/// A log with two records and its first key.
async fn log() -> (tempfile::TempDir, Log, VerifyingKey) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    grow(&log).await;
    grow(&log).await;
    let first = public(dir.path());
    (dir, log, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_verifies_under_every_key_that_it_had_and_under_no_other() {
    let (dir, log, first) = log().await;
    let second = key(&rotate(&log, &first).await.unwrap().change.new);
    let both = log.newest_checkpoint().unwrap();
    let note = Note::parse(both.note.as_bytes()).unwrap();
    assert_eq!((note.verify(&[&first, &second]), note.signatures.len(), both.size), (Ok(2), 2, 3));
    grow(&log).await;
    let note = Note::parse(log.newest_checkpoint().unwrap().note.as_bytes()).unwrap();
    assert!(note.verify(&[&second]).is_ok() && note.verify(&[&first]).is_err(), "the new key signs alone");
    let third = key(&rotate(&log, &second).await.unwrap().change.new);
    grow(&log).await;
    log.close().await;

    let log = open(dir.path());
    grow(&log).await;
    assert_eq!(public(dir.path()), third);
    assert_eq!(rotation::newest(&log.rotations(), &first).unwrap(), third);
    log.close().await;
    for known in [&first, &second, &third] {
        let report = audit::verify(dir.path(), known).unwrap();
        assert_eq!((report.signed, report.kinds["changes of key"]), (7, 2));
    }
    let stranger = SigningKey::new(LOG, &[9; 32]).unwrap();
    let error = audit::verify(dir.path(), stranger.verifying_key()).unwrap_err();
    assert!(error.problem.contains("no change of key leads from"), "{error}");
    let secret = std::fs::metadata(Paths::new(dir.path()).key()).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    assert!(!dir.path().join("keys/log.key.next").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_once_and_only_of_the_key_that_signs() {
    let (_dir, log, first) = log().await;
    let done = rotate(&log, &first).await.unwrap();
    let again = rotate(&log, &first).await.unwrap();
    assert_eq!((again.change.clone(), again.duplicate, done.duplicate), (done.change, true, false));
    let stranger = SigningKey::new(LOG, &[9; 32]).unwrap();
    let refused = rotate(&log, stranger.verifying_key()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::OutOfOrder, "{refused}");
    let second = again.change.new;
    let refused = log.rotate_key(second.clone(), String::new(), "why".into()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::FieldInvalid, "{refused}");
    assert!(!log.rotate_key(second, "ada".into(), "stolen".into()).await.unwrap().duplicate);
    log.close().await;
}

/// The change's proof, with its checkpoint's signatures as `keep` leaves them.
fn resign(dir: &Path, keep: impl Fn(&mut Note)) {
    let path = Paths::new(dir).rotations();
    let mut proof: PortableProof = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let mut note = Note::parse(proof.checkpoint.as_bytes()).unwrap();
    keep(&mut note);
    proof.checkpoint = note.to_string();
    std::fs::write(path, proof.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_without_the_old_ones_signature_is_refused() {
    let (dir, log, first) = log().await;
    let second = key(&rotate(&log, &first).await.unwrap().change.new);
    grow(&log).await;
    log.close().await;
    let honest = std::fs::read(Paths::new(dir.path()).rotations()).unwrap();

    resign(dir.path(), |note| note.signatures.retain(|signature| signature.id == second.id()));
    let error = audit::verify(dir.path(), &first).unwrap_err();
    assert!(error.problem.contains("none of the note's 1 signatures is by a known key"), "{error}");
    resign(dir.path(), |note| {
        let thief = SigningKey::new(LOG, &[9; 32]).unwrap();
        note.add(&thief);
    });
    assert!(audit::verify(dir.path(), &first).is_err());

    std::fs::remove_file(Paths::new(dir.path()).rotations()).unwrap();
    let error = audit::verify(dir.path(), &first).unwrap_err();
    assert!(error.problem.contains("none of the note's 1 signatures is by a known key"), "{error}");
    let error = audit::verify(dir.path(), &second).unwrap_err();
    assert!(error.problem.contains("no checkpoint by both keys covers it"), "{error}");

    std::fs::write(Paths::new(dir.path()).rotations(), honest).unwrap();
    assert!(audit::verify(dir.path(), &first).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_history_is_refused() {
    let (dir, log, first) = log().await;
    let copy = copied(dir.path());
    rotate(&log, &first).await.unwrap();
    log.close().await;
    // The same key, another record before the change, another new key.
    let other = open(copy.path());
    grow(&other).await;
    rotate(&other, &first).await.unwrap();
    other.close().await;
    std::fs::copy(Paths::new(copy.path()).rotations(), Paths::new(dir.path()).rotations()).unwrap();
    assert!(audit::verify(dir.path(), &first).is_err());
    // Nor does it pass where the checkpoint is the other history's too.
    std::fs::copy(Paths::new(copy.path()).checkpoint(), Paths::new(dir.path()).checkpoint()).unwrap();
    assert!(audit::verify(dir.path(), &first).is_err());
}

fn copied(dir: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in ["log.pub", "signed-size", "keys/log.key", "log/checkpoint", "log/00000000000000000000.seg"] {
        std::fs::create_dir_all(to.path().join(file).parent().unwrap()).unwrap();
        std::fs::copy(dir.join(file), to.path().join(file)).unwrap();
    }
    to
}

/// Changes the key in a process that ends after so many changes of the disk. Whether the change was answered.
async fn cut_off(dir: &Path, first: &VerifyingKey, steps: i64) -> bool {
    let secret: SigningKey = std::fs::read_to_string(Paths::new(dir).key()).unwrap().trim().parse().unwrap();
    let disk = Ending::after(i64::MAX, 64 << 20);
    let (log, hand) = Log::open_by_hand(Arc::new(disk.clone()), &Paths::new(dir), secret, Clock::System).unwrap();
    let writer = tokio::spawn(hand.run());
    disk.end_after(steps);
    let answered = rotate(&log, first).await.is_ok();
    drop(log);
    writer.await.unwrap();
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_at_any_step_leaves_a_log_that_verifies_and_finishes_the_change() {
    let (dir, log, first) = log().await;
    log.close().await;
    let _ = std::fs::remove_file(Paths::new(dir.path()).snapshot());
    let (mut steps, mut recorded_by_then) = (0, Vec::new());
    loop {
        let copy = copied(dir.path());
        let path = copy.path();
        let answered = cut_off(path, &first, steps).await;
        let report = audit::verify(path, &first).unwrap_or_else(|finding| panic!("after {steps} steps: {finding}"));
        assert!(!answered || report.kinds["changes of key"] == 1);

        let log = open(path);
        let recorded = log.run(|ledger| Ok(ledger.state.keys.changes().first().cloned())).await.unwrap();
        recorded_by_then.push(recorded.is_some());
        let now = public(path);
        assert_eq!(recorded.as_ref().map_or(first.to_string(), |change| change.new.clone()), now.to_string(), "after {steps} steps");
        grow(&log).await;
        audit::verify(path, &first).unwrap_or_else(|finding| panic!("after {steps} steps and a start: {finding}"));
        assert!(audit::verify(path, &now).is_ok());

        let done = rotate(&log, &first).await.unwrap();
        assert_eq!(done.duplicate, recorded.is_some());
        grow(&log).await;
        log.close().await;
        let newest = public(path);
        assert_eq!(newest.to_string(), done.change.new);
        assert!(audit::verify(path, &first).is_ok() && audit::verify(path, &newest).is_ok());
        if answered {
            break;
        }
        steps += 1;
    }
    println!(
        "the process ended after each of {steps} steps; the change was recorded from step {:?} on",
        recorded_by_then.iter().position(|r| *r)
    );
    assert!(steps > 25 && !recorded_by_then[0] && recorded_by_then.is_sorted(), "{steps} {recorded_by_then:?}");
}
