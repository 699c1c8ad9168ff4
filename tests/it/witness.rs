//! The witness and the log that it cosigns: another witness's own test, and SyncShield with two witnesses.

use std::path::Path;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::runtime::Listeners;
use kiki::tlog::note::{Note, SigningKey, VerifyingKey, Witness};
use kiki::tlog::portable::Growth;
use kiki::tlog::{Checkpoint, Tree, leaf_hash};
use kiki_cli::audit;
use kiki_cli::witness::Server;
use sha2::{Digest as _, Sha256};
use syncshield::store::{Log, Paths};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const LOG: &str = "kiki.local/log-1";
const NOW: i64 = 1_770_000_000;

fn clock() -> Clock {
    Clock::Virtual(VirtualClock::at(UnixMicros(NOW * 1_000_000)))
}

/// A witness on a port of its own; it ends with the runtime.
pub(crate) async fn serve(server: &Server) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let router = server.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    at
}

pub(crate) async fn call(at: &str, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let mut tcp = tokio::net::TcpStream::connect(at).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    tcp.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut all = String::new();
    tcp.read_to_string(&mut all).await.unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn add(at: &str, body: &str) -> (u16, String) {
    let (status, _, body) = call(at, "POST", "/add-checkpoint", body).await;
    (status, body)
}

/// A log key of which only the bytes are known.
fn key(name: &str, public: &[u8]) -> VerifyingKey {
    let typed = [&[1], public].concat();
    let id = Sha256::new().chain_update(name).chain_update(b"\n").chain_update(&typed).finalize();
    format!("{name}+{}+{}", hex::encode(&id[..4]), STANDARD.encode(typed)).parse().unwrap()
}

/// The requests of a hurl script: (body, status, what the answer is to contain, what it is to be).
fn requests(script: &str) -> Vec<(String, u16, Option<String>, Option<String>)> {
    let quoted = |text: &str, before: &str| {
        let text = text.lines().find_map(|line| line.strip_prefix(before))?;
        Some(text.trim_matches('"').replace("\\n", "\n"))
    };
    script
        .split("\nPOST ")
        .skip(1)
        .map(|block| {
            let mut parts = block.split("```\n");
            let (body, rest) = (parts.nth(1).unwrap(), parts.next().unwrap());
            let body = body.strip_suffix('\n').map_or(body, |_| body).to_owned();
            let status = rest.lines().find_map(|line| line.strip_prefix("HTTP ")).unwrap().parse().unwrap();
            (body, status, quoted(rest, "body contains "), quoted(rest, "body == "))
        })
        .collect()
}

#[tokio::test]
async fn the_witness_answers_the_requests_of_another_witnesss_test() {
    let Some(data) = std::env::var_os("KIKI_CONFORMANCE_DATA") else {
        println!("tlog/litewitness: DID NOT RUN, KIKI_CONFORMANCE_DATA does not lead to it");
        return;
    };
    let folder = Path::new(&data).join("tlog/litewitness/cmd/litewitness/testdata");
    let dir = tempfile::tempdir().unwrap();
    let sigsum = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562";
    let public = hex::decode("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f").unwrap();
    let sumdb = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8".parse().unwrap();
    let logs = vec![(sigsum.to_owned(), key(sigsum, &public)), ("go.sum database tree".to_owned(), sumdb)];
    let server = Server::open(dir.path(), "example.com/witness", logs, clock()).unwrap();
    let at = serve(&server).await;
    let mut exercised = 0;
    for script in ["litewitness.txt", "sumdb.txt"] {
        for (body, status, contains, is) in requests(&std::fs::read_to_string(folder.join(script)).unwrap()) {
            // litewitness still says 403 of a log that it does not know; the specification says 404.
            let status = if contains.as_deref() == Some("unknown log") { 404 } else { status };
            let (got, answer) = add(&at, &body).await;
            assert_eq!(got, status, "{answer}\n{body}");
            assert!(contains.is_none_or(|text| answer.contains(&text)), "{answer}\n{body}");
            assert!(is.is_none_or(|text| answer == text), "{answer}\n{body}");
            exercised += 1;
        }
    }
    println!("{exercised} requests of litewitness's test answered as there");
    assert_eq!(exercised, 10);
}

/// A log of our own making, whose past can be rewritten.
struct Maker {
    tree: Tree,
    key: SigningKey,
}

impl Maker {
    fn new(leaves: u64, from: &str) -> Self {
        let tree = (0..leaves).map(|i| leaf_hash(format!("{from}{i}").as_bytes())).collect();
        Self { tree, key: SigningKey::new(LOG, &[7; 32]).unwrap() }
    }

    fn request(&self, old: u64, size: u64) -> String {
        let root = self.tree.root_at(size).unwrap();
        let checkpoint = Checkpoint { origin: LOG.to_owned(), size, root }.sign(&self.key).unwrap();
        let hashes = if old == 0 || old > size { Vec::new() } else { self.tree.consistency_proof(old, size).unwrap() };
        Growth { old, hashes, checkpoint }.to_string()
    }
}

#[tokio::test]
async fn a_witness_cosigns_one_history_across_its_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (log, rewritten) = (Maker::new(9, "a"), Maker::new(9, "b"));
    let open = || Server::open(dir.path(), "w/1", vec![(LOG.to_owned(), log.key.verifying_key().clone())], clock());
    let server = open().unwrap();
    assert!(open().is_err(), "one witness a folder");
    let at = serve(&server).await;
    let path = format!("/{}/checkpoint", hex::encode(Sha256::digest(LOG)));
    assert_eq!(call(&at, "GET", &path, "").await.0, 404);
    assert_eq!(add(&at, &log.request(0, 4)).await.0, 200);
    assert_eq!(add(&at, &log.request(4, 7)).await.0, 200);
    assert_eq!(add(&at, &log.request(7, 7)).await.0, 200, "the same again");
    assert_eq!(add(&at, &rewritten.request(7, 7)).await.0, 422);
    assert_eq!(add(&at, &rewritten.request(7, 9)).await.0, 422);
    assert_eq!(add(&at, &log.request(7, 4)).await.0, 400, "old beyond new");
    let (status, head, body) = call(&at, "POST", "/add-checkpoint", &log.request(4, 4)).await;
    assert_eq!((status, body.as_str()), (409, "7\n"), "an older one");
    assert!(head.contains("content-type: text/x.tlog.size"), "{head}");
    assert_eq!(add(&at, "old 0\n").await.0, 400);
    let (status, _, shown) = call(&at, "GET", &path, "").await;
    let witness: Witness = server.witness().to_string().parse().unwrap();
    assert_eq!((status, witness.cosigned_at(&Note::parse(shown.as_bytes()).unwrap())), (200, Ok(Some(NOW as u64))));

    // The state of a witness that ended, as the next one finds it.
    let next = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&entry, next.path().join(entry.file_name().unwrap())).unwrap();
    }
    let again = Server::open(next.path(), "w/1", vec![(LOG.to_owned(), log.key.verifying_key().clone())], clock()).unwrap();
    let at = serve(&again).await;
    assert_eq!(add(&at, &rewritten.request(0, 9)).await, (409, "7\n".to_owned()));
    assert_eq!(add(&at, &rewritten.request(7, 9)).await.0, 422);
    assert_eq!(add(&at, &log.request(7, 9)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_that_is_served_carries_every_witnesss_cosignature_and_a_quorum_is_checked() {
    let (dir, folders) = (tempfile::tempdir().unwrap(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let log = Log::open(&Paths::new(dir.path()), LOG, clock()).unwrap();
    let caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 1 }];
    for _ in 0..5 {
        let policy = leaf::Policy { bid_caps: caps.clone(), ..Default::default() };
        log.run(|ledger| ledger.put_policy(policy)).await.unwrap();
    }
    log.close().await;
    let log_key: VerifyingKey = std::fs::read_to_string(dir.path().join("log.pub")).unwrap().trim().parse().unwrap();
    let (mut at, mut keys) = (Vec::new(), Vec::new());
    for (i, folder) in folders.iter().enumerate() {
        let server = Server::open(folder.path(), &format!("w/{i}"), vec![(LOG.to_owned(), log_key.clone())], clock()).unwrap();
        at.push(format!("http://{}+{}", serve(&server).await, server.witness()).parse().unwrap());
        keys.push(server.witness().to_string());
    }
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let http = listeners.http.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let config = syncshield::Config { witnesses: at, ..syncshield::Config::new(dir.path(), LOG) };
    let served = tokio::spawn(syncshield::serve(listeners, config, clock(), shutdown.clone()));
    let witnesses: Vec<Witness> = keys.iter().map(|key| key.parse().unwrap()).collect();
    let cosigned = async {
        loop {
            let (status, _, note) = call(&http, "GET", "/checkpoint", "").await;
            let note = Note::parse(note.as_bytes()).unwrap();
            if status == 200 && witnesses.iter().all(|witness| witness.cosigned_at(&note).unwrap() == Some(NOW as u64)) {
                return note;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let note = tokio::time::timeout(Duration::from_secs(20), cosigned).await.unwrap();
    assert_eq!(note.verify(&[&log_key]), Ok(1));
    shutdown.cancel();
    served.await.unwrap().unwrap();

    assert_eq!(audit::cosigned(dir.path(), &keys, 2).unwrap().len(), 2);
    let twice = [keys[0].clone(), keys[0].clone()];
    let error = audit::cosigned(dir.path(), &twice, 2).unwrap_err().to_string();
    assert_eq!(error, "1 of these witnesses cosigned the checkpoint, and 2 are called for");
    assert!(syncshield::audit::verify(dir.path(), &log_key).is_ok());
}
