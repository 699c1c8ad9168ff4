//! What is transparent about the log: tiles on disk and over HTTP, consistency proofs, and a log that does not sign
//! when it came back shorter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{GetCheckpointRequest, GetConsistencyRequest, PutPolicyRequest};
use kiki::runtime::{Listeners, channel};
use kiki::tlog::tile::{self, Kind, Tile};
use kiki::tlog::{Checkpoint, Hash, Tree, leaf_hash, verify_consistency};
use syncshield::Error;
use syncshield::store::tiles::Publisher;
use syncshield::store::{Log, Paths};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const LOG: &str = "test.local/log";

fn clock() -> Clock {
    Clock::Virtual(VirtualClock::at(UnixMicros(1_770_000_000_000_000)))
}

fn open(paths: &Paths) -> Result<Log, Error> {
    Log::open(paths, LOG, clock())
}

fn policy(cap_nanos: i64) -> leaf::Policy {
    leaf::Policy { bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos }], ..Default::default() }
}

async fn grow(log: &Log, leaves: u64) {
    for _ in 0..leaves {
        log.run(|ledger| ledger.put_policy(policy(1))).await.unwrap();
    }
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn expected(size: u64) -> BTreeSet<String> {
    tile::added(0, size).map(|tile| tile.to_string()).chain(["checkpoint".to_owned()]).collect()
}

fn copy(from: &Path, to: &Path) {
    drop(std::fs::remove_dir_all(to));
    std::fs::create_dir_all(to).unwrap();
    for name in files(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// The root that the files of a folder lead to, from the entries alone.
fn root_of(folder: &Path, size: u64) -> Hash {
    let mut tree = Tree::new();
    for tile in tile::added(0, size).filter(|tile| tile.kind() == Kind::Entries) {
        let bundle = std::fs::read(folder.join(tile.to_string())).unwrap();
        tile::entries(&bundle).unwrap().into_iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
    }
    for tile in tile::added(0, size).filter(|tile| tile.kind() != Kind::Entries) {
        assert_eq!(std::fs::read(folder.join(tile.to_string())).unwrap(), tree.tile(&tile).unwrap(), "{tile}");
    }
    tree.root()
}

#[tokio::test]
async fn the_files_of_a_checkpoint_lead_to_its_root_and_partial_ones_go_when_full() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    let log = open(&paths).unwrap();
    let mut publisher = Publisher::new(log.clone(), &paths);
    let mut size = 0;
    for step in [3, 252, 1, 44, 212, 8] {
        grow(&log, step).await;
        size += step;
        let signed = log.checkpoint(size).await.unwrap();
        publisher.publish().await.unwrap();
        let note = std::fs::read(paths.tiles().join("checkpoint")).unwrap();
        assert_eq!(note, signed.note.as_bytes());
        let key = std::fs::read_to_string(paths.public_key()).unwrap().trim().parse().unwrap();
        assert_eq!(Checkpoint::open(&note, LOG, &key).unwrap().root, root_of(&paths.tiles(), size));
    }
    assert_eq!(size, 520);
    // Of the partial tiles of earlier sizes only those stay that no full one replaced.
    let stale: Vec<String> = files(&paths.tiles()).difference(&expected(size)).cloned().collect();
    assert_eq!(stale, ["tile/1/000.p/1"]);
}

#[tokio::test]
async fn files_that_are_missing_or_damaged_are_written_again_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    let log = open(&paths).unwrap();
    grow(&log, 600).await;
    log.checkpoint(600).await.unwrap();
    Publisher::new(log.clone(), &paths).publish().await.unwrap();
    let right: Vec<(PathBuf, Vec<u8>)> = files(&paths.tiles())
        .into_iter()
        .map(|name| paths.tiles().join(name))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    for (i, (path, bytes)) in right.iter().enumerate() {
        match i % 3 {
            0 => std::fs::remove_file(path).unwrap(),
            1 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            _ => std::fs::write(path, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap(),
        }
    }
    Publisher::new(log, &paths).publish().await.unwrap();
    for (path, bytes) in right {
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{}", path.display());
    }
}

#[tokio::test]
async fn tiles_end_at_the_newest_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&Paths::new(dir.path())).unwrap();
    grow(&log, 5).await;
    let tile = |width| Tile::new(Kind::Entries, 0, width).unwrap();
    assert_eq!(log.tile(&tile(5)).await.unwrap(), None, "nothing is signed yet");
    log.checkpoint(5).await.unwrap();
    grow(&log, 5).await;
    assert!(log.tile(&tile(5)).await.unwrap().is_some());
    assert_eq!(log.tile(&tile(6)).await.unwrap(), None);
}

#[tokio::test]
async fn a_log_that_came_back_shorter_or_other_does_not_sign() {
    let (dir, backup, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths = Paths::new(dir.path());
    let log = open(&paths).unwrap();
    grow(&log, 5).await;
    log.close().await;
    copy(&paths.log(), backup.path());
    let log = open(&paths).unwrap();
    grow(&log, 5).await;
    log.close().await;
    copy(&paths.log(), other.path());

    copy(backup.path(), &paths.log());
    let error = open(&paths).err().unwrap().to_string();
    assert!(error.contains("does not sign: 10 leaves were signed") && error.contains("came back with 5"), "{error}");

    // Of the same length, with another leaf at its end: a past that was rewritten under the same key.
    std::fs::remove_file(paths.signed_size()).unwrap();
    let log = open(&paths).unwrap();
    log.run(|ledger| ledger.put_policy(policy(2))).await.unwrap();
    grow(&log, 4).await;
    log.close().await;
    let rewritten = tempfile::tempdir().unwrap();
    copy(&paths.log(), rewritten.path());
    copy(other.path(), &paths.log());
    let error = open(&paths).err().unwrap().to_string();
    assert!(error.contains("the first 10 leaves are not those that were signed"), "{error}");

    copy(rewritten.path(), &paths.log());
    open(&paths).unwrap();
}

#[tokio::test]
async fn the_signed_size_may_lie_elsewhere_and_nothing_is_signed_where_it_cannot_be_written() {
    let (dir, elsewhere, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = elsewhere.path().join("log-1");
    let paths = Paths::new(dir.path()).with_signed_size(Some(file.clone()));
    let log = open(&paths).unwrap();
    grow(&log, 2).await;
    log.close().await;
    for folder in ["", "log", "keys"] {
        copy_flat(&dir.path().join(folder), &whole.path().join(folder));
    }
    let log = open(&paths).unwrap();
    grow(&log, 1).await;
    log.close().await;
    let restored = Paths::new(whole.path()).with_signed_size(Some(file.clone()));
    assert!(matches!(open(&restored), Err(Error::Rewound(_))), "all of the data folder came back, and the file tells");

    let log = open(&paths).unwrap();
    grow(&log, 1).await;
    std::fs::remove_dir_all(elsewhere.path()).unwrap();
    assert!(matches!(log.checkpoint(4).await, Err(Error::Io(_))));
    assert_eq!(log.newest_checkpoint().unwrap().size, 3);
}

fn copy_flat(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

async fn get(at: &str, path: &str, more: &str) -> Answer {
    let mut tcp = tokio::net::TcpStream::connect(at).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    tcp.read_to_end(&mut all).await.unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head: head.to_lowercase(), body: all[end + 4..].to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_served_over_http_and_proves_its_growth() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap().to_string());
    let shutdown = CancellationToken::new();
    let config = syncshield::Config::new(dir.path(), LOG);
    let served = tokio::spawn(syncshield::serve(listeners, config, clock(), shutdown.clone()));
    let mut client = SyncShieldServiceClient::new(channel(&format!("http://{grpc}")).unwrap());
    let mut signed = Vec::new();
    for _ in 0..3 {
        client.put_policy(PutPolicyRequest { policy: Some(policy(1)), ..Default::default() }).await.unwrap();
        let size = signed.len() as u64 + 1;
        let note =
            client.get_checkpoint(GetCheckpointRequest { min_size: size, ..Default::default() }).await.unwrap().into_inner().checkpoint;
        let key = std::fs::read_to_string(dir.path().join("log.pub")).unwrap().trim().parse().unwrap();
        signed.push(Checkpoint::open(note.as_bytes(), LOG, &key).unwrap());
    }

    let consistency = |old_size, new_size| {
        let mut client = client.clone();
        async move { client.get_consistency(GetConsistencyRequest { log_id: LOG.into(), old_size, new_size }).await }
    };
    for (old, new) in [(1, 2), (1, 3), (2, 3), (3, 3)] {
        let answer = consistency(old, new).await.unwrap().into_inner();
        let proof: Vec<Hash> = answer.proof.iter().map(|hash| hash.as_ref().try_into().unwrap()).collect();
        verify_consistency(old, new, &proof, &signed[old as usize - 1].root, &signed[new as usize - 1].root).unwrap();
    }
    assert_eq!(consistency(2, 0).await.unwrap().into_inner().new_size, 3);
    for (old, new) in [(0, 3), (3, 2), (1, 4)] {
        assert_eq!(consistency(old, new).await.unwrap_err().code(), tonic::Code::OutOfRange, "{old} to {new}");
    }

    let newest = get(&http, "/checkpoint", "").await;
    assert_eq!(newest.body, std::fs::read(dir.path().join("log/checkpoint")).unwrap());
    assert!(newest.head.contains("cache-control: no-cache") && newest.head.contains("text/plain; charset=utf-8"), "{}", newest.head);
    let tile = get(&http, "/tile/0/000.p/3", "").await;
    assert_eq!((tile.status, tile.body.len()), (200, 96));
    assert!(tile.head.contains("immutable") && tile.head.contains("application/octet-stream"), "{}", tile.head);
    let bundle = get(&http, "/tile/entries/000.p/3", "").await;
    let hashes: Vec<Hash> = tile::entries(&bundle.body).unwrap().iter().map(|leaf| leaf_hash(leaf)).collect();
    assert_eq!(hashes.concat(), tile.body);
    for missing in ["/tile/0/000", "/tile/0/000.p/4", "/tile/0/001.p/1", "/tile/1/000.p/1", "/tile/0/0", "/tile/x", "/tile/0/000.p/03"] {
        let answer = get(&http, missing, "").await;
        assert_eq!(answer.status, 404, "{missing}");
        assert!(answer.head.contains("no-store"), "{}", answer.head);
    }
    // A tenant does not see the leaves of others.
    let tenant = "kiki-role: tenant\r\nkiki-client: acme\r\n";
    assert_eq!(get(&http, "/tile/entries/000.p/3", tenant).await.status, 403);
    assert_eq!(get(&http, "/tile/0/000.p/3", tenant).await.status, 200);

    shutdown.cancel();
    served.await.unwrap().unwrap();
    // The fourth leaf is that the tenant was refused.
    let tiles = dir.path().join("tiles");
    assert_eq!(files(&tiles), expected(4), "what a stop leaves is whole");
    let key = std::fs::read_to_string(dir.path().join("log.pub")).unwrap().trim().parse().unwrap();
    let last = Checkpoint::open(&std::fs::read(tiles.join("checkpoint")).unwrap(), LOG, &key).unwrap();
    assert_eq!(root_of(&tiles, 4), last.root);
}
