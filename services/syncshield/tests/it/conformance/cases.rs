//! What every store does alike: each case gets an empty log of its own.

use std::pin::Pin;
use std::sync::Arc;

use kiki::framed::Frames;
use kiki::ids::CustomerKey;
use kiki::sealed::key_id;
use kiki::tlog::{Checkpoint, leaf_hash, multiproof_root};
use syncshield::Error;
use syncshield::domain::refusal::Refusal;
use syncshield::store::disk::Files;
use syncshield::store::engine::{Appended, Engine, Opened};
use syncshield::store::files::{SegmentLog, lock};
use syncshield::store::postgres::Postgres;
use syncshield::store::{Log, Paths, Store};
use syncshield::subjects::{Subject, Subjects};

use super::world::{World, ask, campaign};

type Case = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

pub(crate) const ALL: [Case; 15] = [
    ("a batch is appended only at the expected size", |w| Box::pin(compare_and_set(w))),
    ("an empty batch compares and writes nothing", |w| Box::pin(empty_batch(w))),
    ("a checkpoint is replaced only by who knows the one that stands", |w| Box::pin(checkpoint_replaced(w))),
    ("what was appended is read back byte for byte, in pieces of any size", |w| Box::pin(reads_back(w))),
    ("what was acknowledged is there after a restart, with and without the snapshot", |w| Box::pin(restart(w))),
    ("one key has one effect, also across a restart", |w| Box::pin(one_key(w))),
    ("a request that is refused leaves nothing", |w| Box::pin(refused(w))),
    ("requests at the same time never pass the limit", |w| Box::pin(limit(w))),
    ("the leaves of one request stand together", |w| Box::pin(together(w))),
    ("a checkpoint covers what was acknowledged, and a proof leads to it", |w| Box::pin(proof(w))),
    ("a log with records and without its key is refused, and so is another key", |w| Box::pin(keys(w))),
    ("a key is changed in a folder, and refused where several have it", |w| Box::pin(another_key(w))),
    ("a client that left is refused, and its leaving is answered alike after a restart", |w| Box::pin(left(w))),
    ("a subject has one key until it is erased, and none from before after it", |w| Box::pin(subjects(w))),
    ("an erasure that was cut short is recorded once", |w| Box::pin(erasure_cut_short(w))),
];

/// The store below the log, which may then not be open.
fn engine(world: &World) -> Box<dyn Engine> {
    let Opened { engine, .. } = match &world.store {
        Store::Files(_) => {
            let lock = lock(&world.paths()).unwrap();
            SegmentLog::recover(Arc::new(Files), &world.paths(), &world.log_id, 0, Some(lock)).unwrap()
        }
        Store::Postgres(config) => {
            let mut postgres = Postgres::connect(config, &world.log_id).unwrap();
            postgres.claim("a key").unwrap();
            postgres.load().unwrap()
        }
    };
    engine
}

/// Real leaves: batches of them, as a writer would append them.
fn batches(world: &World, sizes: &[usize]) -> Vec<Frames> {
    let mut ledger = syncshield::domain::ledger::Ledger::new(world.log_id.clone(), Default::default());
    let batch = |size: &usize| {
        (0..*size).for_each(|_| drop(ledger.put_campaign("acme", campaign(0)).unwrap()));
        ledger.take_pending()
    };
    sizes.iter().map(batch).collect()
}

async fn put(log: &Log) -> u64 {
    log.run(|ledger| ledger.put_campaign("acme", campaign(10_000))).await.unwrap().0.index
}

async fn compare_and_set(world: World) {
    let batches = batches(&world, &[2, 3]);
    let mut engine = engine(&world);
    assert_eq!(engine.append(&batches[0], 1).unwrap(), Appended::Lost);
    assert_eq!(engine.size().unwrap(), 0);
    assert_eq!(engine.append(&batches[0], 0).unwrap(), Appended::Done);
    assert_eq!(engine.append(&batches[1], 0).unwrap(), Appended::Lost);
    assert_eq!(engine.append(&batches[1], 2).unwrap(), Appended::Done);
    assert_eq!(engine.size().unwrap(), 5);
    assert_eq!(engine.reader().read(0, 5, 1 << 20).unwrap().last().unwrap().0, 4);
}

async fn empty_batch(world: World) {
    let mut engine = engine(&world);
    assert_eq!(engine.append(&Frames::default(), 1).unwrap(), Appended::Lost);
    assert_eq!(engine.append(&Frames::default(), 0).unwrap(), Appended::Done);
    assert_eq!((engine.size().unwrap(), engine.reader().read(0, 0, 100).unwrap().len()), (0, 0));
}

async fn checkpoint_replaced(world: World) {
    let batches = batches(&world, &[5]);
    let mut engine = engine(&world);
    assert_eq!(engine.checkpoint().unwrap(), None);
    engine.append(&batches[0], 0).unwrap();
    assert!(!engine.put_checkpoint(3, "three", Some("two")).unwrap());
    assert!(engine.put_checkpoint(3, "three", None).unwrap());
    assert!(!engine.put_checkpoint(5, "five", None).unwrap());
    assert_eq!(engine.checkpoint().unwrap().unwrap(), "three");
    assert!(engine.put_checkpoint(3, "three, cosigned", Some("three")).unwrap());
    assert!(!engine.put_checkpoint(5, "five", Some("three")).unwrap());
    assert!(engine.put_checkpoint(5, "five", Some("three, cosigned")).unwrap());
    assert_eq!(engine.checkpoint().unwrap().unwrap(), "five");
}

async fn reads_back(world: World) {
    let batches = batches(&world, &[1, 7, 2, 30]);
    let mut engine = engine(&world);
    let mut size = 0;
    for batch in &batches {
        assert_eq!(engine.append(batch, size).unwrap(), Appended::Done);
        size += batch.len() as u64;
    }
    let written: Vec<&[u8]> = batches.iter().flat_map(Frames::payloads).collect();
    let reader = engine.reader();
    for max_bytes in [0, 100, 1_000, 1 << 20] {
        let mut next = 0;
        while next < size {
            let leaves = reader.read(next, size, max_bytes).unwrap();
            assert!(!leaves.is_empty(), "at least one, whatever the limit");
            for (index, leaf) in leaves {
                assert_eq!((index, &leaf[..]), (next, written[next as usize]));
                next += 1;
            }
        }
    }
    // Not beyond what the reader was told is durable.
    assert_eq!(reader.read(2, 4, 1 << 20).unwrap().len(), 2);
    assert!(reader.read(size, size, 1 << 20).unwrap().is_empty());
}

async fn restart(world: World) {
    let log = world.open().unwrap();
    for index in 0..10 {
        assert_eq!(put(&log).await, index);
    }
    log.close().await;
    let log = world.open().unwrap();
    assert_eq!((put(&log).await, *log.committed().borrow()), (10, 11));
    log.close().await;
    std::fs::remove_file(world.paths().snapshot()).unwrap();
    let log = world.open().unwrap();
    assert_eq!(put(&log).await, 11);
    log.close().await;
    assert_eq!(world.strict_fold().await.0.size, 12);
}

async fn another_key(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    let old = std::fs::read_to_string(world.paths().public_key()).unwrap().trim().to_owned();
    let rotated = log.rotate_key(old.clone(), "ada".into(), "yearly".into()).await;
    let shared = matches!(world.store, Store::Postgres(_));
    assert_eq!(rotated.is_err(), shared, "{rotated:?}");
    put(&log).await;
    log.close().await;
    let log = world.open().unwrap();
    put(&log).await;
    log.close().await;
    let now = std::fs::read_to_string(world.paths().public_key()).unwrap().trim().to_owned();
    assert_eq!((now == old, world.strict_fold().await.0.keys.changes().len()), (shared, usize::from(!shared)));
}

async fn left(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    let first = log.run(|ledger| ledger.export_client("acme", "test.local/another")).await.unwrap();
    log.close().await;
    let log = world.open().unwrap();
    let again = log.run(|ledger| ledger.export_client("acme", "test.local/another")).await.unwrap();
    assert_eq!(first, again);
    let (proof, key) = log.prove(first.index).await.unwrap();
    let proof: kiki::tlog::portable::PortableProof = proof.parse().unwrap();
    assert!(proof.verify(&world.log_id, &key.parse().unwrap()).is_ok());
    let refused = log.run(|ledger| ledger.lease(&ask("key", 1))).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused(Refusal::Moved { to_log_id, .. }) if to_log_id == "test.local/another"), "{refused}");
    assert!(log.catalog().borrow().campaigns.is_empty(), "nobody bids for it here");
    log.close().await;
    assert_eq!(world.strict_fold().await.0.size, 2);
}

async fn one_key(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    let first = log.run(|ledger| ledger.lease(&ask("key", 6_000))).await.unwrap();
    let again = log.run(|ledger| ledger.lease(&ask("key", 6_000))).await.unwrap();
    log.close().await;
    let log = world.open().unwrap();
    let later = log.run(|ledger| ledger.lease(&ask("key", 6_000))).await.unwrap();
    assert_eq!((first.duplicate, again.duplicate, later.duplicate), (false, true, true));
    assert_eq!((again.lease_id, later.lease_id), (first.lease_id, first.lease_id));
    assert_eq!(*log.committed().borrow(), 2);
    log.close().await;
}

async fn refused(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    let refused = log.run(|ledger| ledger.lease(&ask("key", 10_001))).await;
    assert!(matches!(refused, Err(Error::Refused(_))));
    assert_eq!(*log.committed().borrow(), 1);
    assert_eq!(put(&log).await, 1);
    log.close().await;
}

async fn limit(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    let asked: Vec<_> = (0..64)
        .map(|i| {
            let log = log.clone();
            tokio::spawn(async move { log.run(move |ledger| ledger.lease(&ask(&format!("key-{i}"), 300))).await.is_ok() })
        })
        .collect();
    let mut granted = 0;
    for one in asked {
        granted += i64::from(one.await.unwrap());
    }
    assert_eq!(granted, 10_000 / 300);
    log.close().await;
    assert_eq!(world.strict_fold().await.0.size, 1 + 10_000 / 300);
}

async fn together(world: World) {
    let log = world.open().unwrap();
    let two = |ledger: &mut syncshield::domain::ledger::Ledger| {
        let first = ledger.put_campaign("acme", campaign(1))?.0.index;
        Ok((first, ledger.put_campaign("acme", campaign(2))?.0.index))
    };
    let both = futures_of(16, &log, two).await;
    assert!(both.iter().all(|(first, second)| *second == first + 1));
    log.close().await;
}

async fn futures_of<T: Send + 'static>(
    count: usize,
    log: &Log,
    request: impl FnOnce(&mut syncshield::domain::ledger::Ledger) -> Result<T, syncshield::domain::refusal::Refusal>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Vec<T> {
    let running: Vec<_> = (0..count)
        .map(|_| {
            let (log, request) = (log.clone(), request.clone());
            tokio::spawn(async move { log.run(request).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for one in running {
        answers.push(one.await.unwrap());
    }
    answers
}

async fn proof(world: World) {
    let log = world.open().unwrap();
    for _ in 0..5 {
        put(&log).await;
    }
    let signed = log.checkpoint(5).await.unwrap();
    let key = std::fs::read_to_string(world.paths().public_key()).unwrap().trim().parse().unwrap();
    let opened = Checkpoint::open(signed.note.as_bytes(), &world.log_id, &key).unwrap();
    let read = log.read(0, 1 << 20).await.unwrap();
    let leaves = [1, 3].map(|index: u64| (index, leaf_hash(&read[index as usize].1)));
    let proof = log.proof(&[1, 3], opened.size).unwrap();
    assert_eq!(multiproof_root(opened.size, &leaves, &proof).unwrap(), opened.root);
    assert!(matches!(log.checkpoint(6).await, Err(Error::OutOfRange { asked: 6, size: 5 })));
    log.close().await;
}

async fn keys(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    log.close().await;
    let key = world.paths().key();
    std::fs::rename(&key, key.with_extension("away")).unwrap();
    assert!(matches!(world.open(), Err(Error::Key(_))), "without its key");
    let other = kiki::tlog::note::SigningKey::new(&world.log_id, &[7; 32]).unwrap();
    std::fs::write(&key, other.to_secret_text()).unwrap();
    assert!(world.open().is_err(), "with another key of the same name");
    std::fs::rename(key.with_extension("away"), Paths::new(world.dir.path()).key()).unwrap();
    assert!(world.open().is_ok());
}

fn keys_of(world: &World) -> Subjects {
    Subjects::of(&world.store, world.dir.path(), &world.log_id)
}

fn customer(byte: u8) -> Subject {
    Subject { client: "acme".into(), customer: CustomerKey([byte; 16]) }
}

async fn subjects(world: World) {
    let log = world.open().unwrap();
    let keys = keys_of(&world);
    let unknown = keys.erase(&log, customer(1), "article 17".into()).await;
    assert!(matches!(unknown, Err(Error::Refused(_))), "a client that the log does not know");
    put(&log).await;
    let made = keys.obtain(vec![customer(1), customer(2), customer(1)]).await.unwrap();
    assert!(made[0] == made[2] && made[0] != made[1]);
    // As the next process reads them, beside one that is new.
    let other = keys_of(&world);
    let again = other.obtain(vec![customer(3), customer(2), customer(1)]).await.unwrap();
    assert!(again[1] == made[1] && again[2] == made[0] && again[0] != made[0]);
    let (id, recorded) = other.erase(&log, customer(1), "article 17".into()).await.unwrap().unwrap();
    assert_eq!((id, recorded.index), (key_id(&made[0]), 1));
    assert!(other.erase(&log, customer(1), "article 17".into()).await.unwrap().is_none());
    let next = keys_of(&world);
    assert!(next.find(customer(1)).await.unwrap().is_none());
    assert!(next.find(customer(2)).await.unwrap().as_ref() == Some(&made[1]));
    assert!(next.obtain(vec![customer(1)]).await.unwrap()[0] != made[0]);
    next.finish(&log).await.unwrap();
    assert_eq!(*log.committed().borrow(), 2, "nothing was due");
    log.close().await;
}

async fn erasure_cut_short(world: World) {
    let log = world.open().unwrap();
    put(&log).await;
    let made = keys_of(&world).obtain(vec![customer(1)]).await.unwrap();
    let ids = keys_of(&world).destroy(customer(1)).await.unwrap();
    assert_eq!(ids, [key_id(&made[0])]);
    for _ in 0..2 {
        keys_of(&world).finish(&log).await.unwrap();
        assert_eq!(*log.committed().borrow(), 2);
    }
    log.close().await;
    let (state, _) = world.strict_fold().await;
    assert_eq!(state.clients["acme"].erased.keys().collect::<Vec<_>>(), [&ids[0].to_vec()]);
}
