//! An independent verifier, tests/verify_log.py, against what SyncShield and `kiki audit` write and serve; and the
//! commands that read a log on files alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiki::clock::Clock;
use kiki::leaf;
use kiki::runtime::Listeners;
use kiki_cli::audit::{self, Consistency, Diff, Export, Format, Prove, To};
use syncshield::store::tiles::Publisher;
use syncshield::store::{Log, Paths};
use tokio_util::sync::CancellationToken;

use crate::python::python;

const LOG: &str = "kiki.local/log-1";
/// Two full tiles and a partial one; the earlier checkpoint lies within a tile.
const SIZES: [u64; 2] = [300, 700];

/// A log of 700 leaves with its tiles, and the checkpoint that it had at 300.
async fn log(dir: &Path) -> PathBuf {
    let paths = Paths::new(dir);
    let log = Log::open(&paths, LOG, Clock::System).unwrap();
    for size in SIZES {
        while *log.committed().borrow() < size {
            let caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 1 }];
            log.run(|ledger| ledger.put_policy(leaf::Policy { bid_caps: caps, ..Default::default() })).await.unwrap();
        }
        let signed = log.checkpoint(size).await.unwrap();
        std::fs::write(dir.join(format!("checkpoint-{size}")), signed.note.as_bytes()).unwrap();
    }
    Publisher::new(log.clone(), &paths).publish().await.unwrap();
    log.close().await;
    dir.join("checkpoint-300")
}

fn to(file: &Path) -> To {
    To { log_key: None, out: Some(file.to_owned()) }
}

fn verifier(python: &Path, args: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify_log.py");
    Command::new(python).arg(script).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).join("")
}

/// A copy of a text file with letters of the last word of a line changed for others.
fn tampered(file: &Path, line: usize) -> PathBuf {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let word = lines[line].rfind(' ').map_or(0, |at| at + 1);
    let changed = lines[line][word..].replacen(|c: char| c.is_ascii_alphabetic(), "7", 9);
    lines[line].replace_range(word.., &changed);
    let other = file.with_extension("tampered");
    std::fs::write(&other, lines.join("\n")).unwrap();
    assert_ne!(std::fs::read(&other).unwrap(), std::fs::read(file).unwrap());
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_verifier_holds_checkpoint_tiles_and_proofs_to_be_good_and_finds_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let old = log(dir.path()).await;
    let (proof, growth) = (dir.path().join("leaf.tlog-proof"), dir.path().join("growth"));
    audit::prove(&Prove { dir: dir.path().to_owned(), index: 511, to: to(&proof) }).unwrap();
    audit::consistency(&Consistency { dir: dir.path().to_owned(), old_size: 300, to: to(&growth) }).unwrap();
    let key = dir.path().join("log.pub").display().to_string();
    audit::check(&audit::Check { log_key: key.clone(), rotations: None, file: proof.clone() }).unwrap();
    for (index, why) in [(700, "the log has 700 leaves, from 0 on"), (699, "")] {
        let proven = audit::prove(&Prove { dir: dir.path().to_owned(), index, to: to(&dir.path().join("other")) });
        let said = proven.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(said.ends_with(why) && said.is_empty() == why.is_empty(), "{said}");
    }
    let altered = tampered(&proof, 1);
    let error = audit::check(&audit::Check { log_key: key.clone(), rotations: None, file: altered.clone() }).unwrap_err().to_string();
    assert!(error.contains("proof: root at size 700"), "{error}");

    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let tiles = dir.path().join("tiles").display().to_string();
    let [old, proof, growth, altered] = [old, proof, growth, altered].map(|path| path.display().to_string());
    let all = ["--index", "0", "--index", "511", "--index", "699", "--old", &old, "--proof", &proof, "--consistency", &growth];
    let holds = |log: &str, more: &[&str]| {
        let output = verifier(&python, &[&["--key", &key, "--log", log], more].concat());
        (output.status.success(), said(&output))
    };
    let (good, text) = holds(&tiles, &all);
    assert!(good && text.contains("all holds") && text.contains("700 leaves") && text.matches("inclusion: ").count() == 3, "{text}");
    println!("{text}");
    let alone = |args: &[&str]| {
        let output = verifier(&python, &[&["--key", &key], args].concat());
        (output.status.success(), said(&output))
    };
    let (good, text) = alone(&["--proof", &proof]);
    assert!(good && text.contains("proof: leaf 511") && text.contains("      currency: 'USD'\n      cap_nanos: 1\n"), "{text}");
    let (good, text) = alone(&["--index", "0"]);
    assert!(!good && text.contains("--log is missing"), "{text}");
    let (good, text) = alone(&["--proof", &altered]);
    assert!(!good && text.contains("another root"), "{text}");

    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listeners.http.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let config = syncshield::Config::new(dir.path(), LOG);
    let served = tokio::spawn(syncshield::serve(listeners, config, Clock::System, shutdown.clone()));
    let (good, text) = tokio::task::block_in_place(|| holds(&url, &all));
    assert!(good && text.contains("all holds"), "{text}");
    shutdown.cancel();
    served.await.unwrap().unwrap();

    let (good, text) = holds(&tiles, &["--proof", &altered]);
    assert!(!good && text.contains("another root"), "{text}");
    let tile = dir.path().join("tiles/tile/0/001");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[32] ^= 1;
    std::fs::write(&tile, bytes).unwrap();
    let (good, text) = holds(&tiles, &["--index", "257"]);
    assert!(!good && text.contains("is not the one in its tile"), "{text}");
    let altered = tampered(&dir.path().join("tiles/checkpoint"), 2);
    std::fs::rename(altered, dir.path().join("tiles/checkpoint")).unwrap();
    let (good, text) = holds(&tiles, &[]);
    assert!(!good && text.contains("signature does not verify"), "{text}");
}

#[tokio::test]
async fn two_logs_are_compared_leaf_by_leaf() {
    let [one, backup, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    log(one.path()).await;
    log(other.path()).await;
    std::fs::create_dir(backup.path().join("log")).unwrap();
    let segment = "log/00000000000000000000.seg";
    let bytes = std::fs::read(one.path().join(segment)).unwrap();
    let end = kiki::framed::Scanner::new(&bytes).nth(400).unwrap().unwrap().0;
    std::fs::write(backup.path().join(segment), &bytes[..end]).unwrap();
    let diff = |a: &tempfile::TempDir, b: &tempfile::TempDir| audit::diff(&Diff { one: a.path().to_owned(), other: b.path().to_owned() });
    diff(&one, &one).unwrap();
    diff(&one, &backup).unwrap();
    // The same requests at other times are other leaves.
    assert_eq!(diff(&one, &other).unwrap_err().to_string(), "the logs part at leaf 0");
}

#[tokio::test]
async fn an_export_has_every_record_in_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path()).await;
    let export = |format, client: Option<&str>| {
        let out = dir.path().join("export");
        audit::export(&Export {
            dir: dir.path().to_owned(),
            format,
            client: client.map(str::to_owned),
            out: Some(out.clone()),
            unseal: false,
        })
        .unwrap();
        std::fs::read_to_string(out).unwrap()
    };
    let lines = export(Format::Jsonl, None);
    let records: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 700);
    assert_eq!(records[699]["index"], "699");
    assert_eq!(records[699]["policy"]["bidCaps"][0]["currency"], "USD");
    let rows = export(Format::Csv, Some("kiki"));
    assert_eq!(rows.lines().count(), 701);
    assert!(rows.starts_with("index,client,client_seq,recorded_at,source,source_seq,kind,body\n0,kiki,1,2"), "{}", &rows[..200]);
    assert!(rows.lines().last().unwrap().starts_with("699,kiki,700,"), "{}", rows.lines().last().unwrap());
    assert_eq!(export(Format::Csv, Some("nobody")).lines().count(), 1);
}
