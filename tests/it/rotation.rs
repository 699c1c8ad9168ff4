//! A log changes its key while it runs: the command, a witness, and the verifiers that know only the first key.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::leaf;
use kiki::leaf::leaf::Body;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{GetCheckpointRequest, PutPolicyRequest};
use kiki::rotation;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use kiki::tlog::note::{Note, SigningKey, VerifyingKey, Witness};
use kiki::tlog::{Checkpoint, Tree, leaf_hash};
use kiki_cli::audit::{self, Prove, To};
use kiki_cli::operate::{RotateKey, rotate_key};
use kiki_cli::witness::Server;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::python::python;
use crate::witness::call;

const LOG: &str = "kiki.local/log-1";
/// How long a cosignature may take: witnesses are asked again 5 s after a refusal.
const PATIENCE: Duration = Duration::from_secs(30);

type Shield = SyncShieldServiceClient<kiki::runtime::Channel>;

fn public(dir: &Path) -> VerifyingKey {
    std::fs::read_to_string(dir.join("log.pub")).unwrap().trim().parse().unwrap()
}

async fn grow(shield: &mut Shield) {
    let bid_caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 1 }];
    let policy = Some(leaf::Policy { bid_caps, ..Default::default() });
    shield.put_policy(PutPolicyRequest { policy, ..Default::default() }).await.unwrap();
}

async fn newest(shield: &mut Shield) -> Note {
    let signed = shield.get_checkpoint(GetCheckpointRequest { min_size: 0, ..Default::default() }).await.unwrap().into_inner();
    Note::parse(signed.checkpoint.as_bytes()).unwrap()
}

/// The first checkpoint that this witness and this key signed.
async fn cosigned(shield: &mut Shield, witness: &Witness, key: &VerifyingKey) -> Note {
    let seen = async {
        loop {
            let note = newest(shield).await;
            if note.verify(&[key]).is_ok() && witness.cosigned_at(&note).unwrap().is_some() {
                return note;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap()
}

/// A witness of these keys at an address; it ends with the token.
async fn run_witness(
    folder: &Path,
    keys: &[&VerifyingKey],
    at: &str,
    stop: CancellationToken,
) -> (String, Witness, tokio::task::JoinHandle<()>) {
    let logs = keys.iter().map(|key| (LOG.to_owned(), (*key).clone())).collect();
    let server = Server::open(folder, "w/1", logs, Clock::System).unwrap();
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let (at, key, router) = (listener.local_addr().unwrap().to_string(), server.witness().clone(), server.router());
    drop(server);
    let served = async move { axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap() };
    (at, key, tokio::spawn(served))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_changed_its_key_is_cosigned_and_verified_under_the_first() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    syncshield::store::Log::open(&syncshield::store::Paths::new(dir.path()), LOG, Clock::System).unwrap().close().await;
    let first = public(dir.path());
    let secret: SigningKey = std::fs::read_to_string(dir.path().join("keys/log.key")).unwrap().trim().parse().unwrap();
    let stop = CancellationToken::new();
    let (at, by, witnessing) = run_witness(folder.path(), &[&first], "127.0.0.1:0", stop.clone()).await;
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let (url, http) = (format!("http://{}", listeners.grpc.local_addr().unwrap()), listeners.http.local_addr().unwrap().to_string());
    let shutdown = CancellationToken::new();
    let witnesses = vec![format!("http://{at}+{by}").parse().unwrap()];
    let config = syncshield::Config { witnesses, ..syncshield::Config::new(dir.path(), LOG) };
    let served = tokio::spawn(syncshield::serve(listeners, config, Clock::System, shutdown.clone()));
    let mut shield = SyncShieldServiceClient::new(channel(&url).unwrap());
    grow(&mut shield).await;
    shield.get_checkpoint(GetCheckpointRequest { min_size: 1, ..Default::default() }).await.unwrap();
    cosigned(&mut shield, &by, &first).await;
    let old = newest(&mut shield).await;
    let before = To { log_key: None, out: Some(dir.path().join("before")) };
    audit::prove(&Prove { dir: dir.path().to_owned(), index: 0, to: before }).unwrap();

    let (actor, reason) = ("ada".to_owned(), "yearly".to_owned());
    let rotate = RotateKey { shield: url, log_key: first.to_string(), actor, reason };
    rotate_key(&rotate).await.unwrap();
    rotate_key(&rotate).await.unwrap();
    let second = public(dir.path());
    assert_ne!(first, second);
    let refused = rotate_key(&RotateKey { log_key: SigningKey::new(LOG, &[9; 32]).unwrap().verifying_key().to_string(), ..rotate }).await;
    assert!(refused.unwrap_err().to_string().contains("is to be replaced"));
    let by_both = newest(&mut shield).await;
    assert!(by_both.verify(&[&second]).is_ok() && by_both.verify(&[&first]).is_ok());

    // The witness knows the first key alone, and cosigns nothing that the new one signed, until it is told of it.
    stop.cancel();
    witnessing.await.unwrap();
    let _again = run_witness(folder.path(), &[&second], &at, CancellationToken::new()).await;
    grow(&mut shield).await;
    shield.get_checkpoint(GetCheckpointRequest { min_size: 3, ..Default::default() }).await.unwrap();
    let note = cosigned(&mut shield, &by, &second).await;
    assert!(note.verify(&[&first]).is_err(), "the new key signs alone");
    let (status, _, served_rotations) = call(&http, "GET", "/rotations", "").await;
    let kept = std::fs::read_to_string(dir.path().join("log.rotations")).unwrap();
    assert_eq!((status, served_rotations), (200, kept));
    shutdown.cancel();
    served.await.unwrap().unwrap();
    verify_offline(dir.path(), &secret, &old);
}

/// What a reader does who has the files and the first key.
fn verify_offline(dir: &Path, stolen: &SigningKey, old: &Note) {
    let first = stolen.verifying_key();
    let report = syncshield::audit::verify(dir, first).unwrap();
    assert_eq!(report.kinds["changes of key"], 1);
    let proof = dir.join("proof");
    audit::prove(&Prove { dir: dir.to_owned(), index: 0, to: To { log_key: Some(first.to_string()), out: Some(proof.clone()) } }).unwrap();
    let rotations = dir.join("log.rotations");
    let check = |key: &VerifyingKey, rotations: Option<&Path>, file: &str| {
        let (log_key, rotations) = (key.to_string(), rotations.map(Path::to_owned));
        audit::check(&audit::Check { log_key, rotations, file: dir.join(file) }).map_err(|error| error.to_string())
    };
    let second = public(dir);
    for key in [first, &second] {
        for file in ["proof", "before"] {
            assert_eq!(check(key, Some(&rotations), file), Ok(()));
        }
    }
    check(first, None, "before").unwrap();
    for (key, file) in [(first, "proof"), (&second, "before")] {
        let error = check(key, None, file).unwrap_err();
        assert!(error.contains("give that one, or --rotations"), "{error}");
    }
    // The first key, in other hands, signs a tree that it never had.
    let forged = std::fs::read_to_string(&proof).unwrap();
    let (head, note) = forged.split_once("\n\n").unwrap();
    let text = Note::parse(note.as_bytes()).unwrap().text;
    std::fs::write(dir.join("forged"), format!("{head}\n\n{}", Note::sign(&text, stolen).unwrap())).unwrap();
    // It adds itself to what the new key signed later, and so the change seems to be of that size.
    let stretched = dir.join("stretched");
    audit::prove(&Prove { dir: dir.to_owned(), index: 1, to: To { log_key: Some(first.to_string()), out: Some(stretched.clone()) } })
        .unwrap();
    let change = std::fs::read_to_string(&stretched).unwrap();
    let (head, note) = change.split_once("\n\n").unwrap();
    let mut by_both = Note::sign(&text, stolen).unwrap();
    let later = Note::parse(note.as_bytes()).unwrap();
    by_both.signatures.extend(later.signatures.into_iter().filter(|one| (one.name.as_str(), one.id) == (LOG, second.id())));
    assert_eq!((by_both.verify(&[first, &second]), later.text == text), (Ok(2), true));
    let change = format!("{head}\n\n{by_both}");
    std::fs::write(&stretched, &change).unwrap();
    assert_eq!(rotation::read(&change).unwrap()[0].checkpoint.size, 3, "both did sign");
    assert_eq!(rotation::signers(&change, first).unwrap(), [(first.clone(), 2), (second.clone(), u64::MAX)]);
    for changes in [&rotations, &stretched] {
        let error = check(&second, Some(changes), "forged").unwrap_err();
        assert!(error.contains("was replaced at 2 leaves, and signed 3"), "{error}");
    }

    let Some(python) = python() else { return };
    std::fs::write(dir.join("old"), old.to_string()).unwrap();
    let verify = |key: &str, more: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify_log.py");
        let args = ["--key", key, "--log", "tiles", "--index", "0", "--old", "old", "--proof", "proof"];
        let output = Command::new(&python).arg(script).args(args).args(more).current_dir(dir).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (good, text) = verify(&first.to_string(), &["--rotations", "log.rotations"]);
    assert!(good && text.contains("1 changes, each signed by both keys"), "{text}");
    println!("{text}");
    for key in [first, &second] {
        let (good, text) = verify(&key.to_string(), &["--rotations", "log.rotations", "--proof", "before"]);
        assert!(good && text.matches("proof: leaf 0").count() == 2, "{text}");
        for changes in ["log.rotations", "stretched"] {
            let (good, text) = verify(&key.to_string(), &["--rotations", changes, "--proof", "forged"]);
            assert!(!good && text.contains("was replaced at 2 leaves, and signed 3"), "{text}");
        }
    }
    let (good, text) = verify(&first.to_string(), &[]);
    assert!(!good && text.contains("is not signed by") && text.contains("is followed with --rotations"), "{text}");
    let honest = std::fs::read_to_string(&rotations).unwrap();
    let mut lines: Vec<&str> = honest.trim_end().split('\n').collect();
    lines.remove(lines.len() - 2); // the first key's signature
    std::fs::write(&rotations, lines.join("\n") + "\n").unwrap();
    let (good, text) = verify(&first.to_string(), &["--rotations", "log.rotations"]);
    assert!(!good && text.contains("is not signed by") && !text.contains("--rotations"), "{text}");
    let error = syncshield::audit::verify(dir, first).unwrap_err();
    assert!(error.problem.contains("none of the note's"), "{error}");
}

/// Changes of key as text, in this order: the old seed, the new one, the leaf, and which leaf it says that it is.
fn chain(changes: &[(u8, u8, u64, u64)], more: &[u8]) -> String {
    let key = |seed: u8| SigningKey::new(LOG, &[seed; 32]).unwrap();
    let leaf = |&(old, new, _, index): &(u8, u8, u64, u64)| {
        let (old_key, new_key) = (key(old).verifying_key().to_string(), key(new).verifying_key().to_string());
        let body = leaf::KeyRotated { old_key, new_key, ..Default::default() };
        leaf::Leaf { log_id: LOG.into(), index, body: Some(Body::KeyRotated(body)), ..Default::default() }.encode_to_vec()
    };
    let mut leaves: Vec<_> = changes.iter().map(|change| (change.2, leaf(change))).collect();
    leaves.sort();
    let prove = |change: &(u8, u8, u64, u64)| {
        let mut tree = Tree::new();
        leaves.iter().take(usize::try_from(change.2).unwrap() + 1).for_each(|(_, leaf)| tree.push(leaf_hash(leaf)));
        let checkpoint = Checkpoint { origin: LOG.into(), size: tree.size(), root: tree.root() };
        let mut note = Note::parse(checkpoint.sign_by_both(&key(change.0), &key(change.1)).unwrap().as_bytes()).unwrap();
        more.iter().for_each(|&seed| note.add(&key(seed)));
        rotation::proof(change.2, &leaf(change), tree.inclusion_proof(change.2, tree.size()).unwrap(), &note.to_string())
    };
    changes.iter().map(prove).collect()
}

#[test]
fn both_verifiers_refuse_the_same_chains() {
    let good = chain(&[(1, 2, 0, 0), (2, 3, 1, 1)], &[]);
    let refused = [
        (chain(&[(1, 2, 0, 0), (2, 1, 1, 1)], &[]), "leads back to"),
        (chain(&[(1, 1, 0, 0)], &[]), "leads back to"),
        (chain(&[(1, 2, 0, 7)], &[]), "says that it is leaf 7, not 0"),
        (chain(&[(1, 2, 1, 1), (2, 3, 0, 0)], &[]), "is at leaf 0, behind that at leaf 1"),
        (chain(&[(1, 2, 0, 0)], &[9]), "has other signatures than those of the two keys"),
        (chain(&[(1, 2, 0, 0)], &[1]), "has other signatures than those of the two keys"),
    ];
    let forms = ["+1", "01", "-1", "1_0", "1 "].map(|form| (good.replace("\nindex 1\n", &format!("\nindex {form}\n")), "no "));
    let refused = [&refused[..], &forms].concat();
    let known = SigningKey::new(LOG, &[1; 32]).unwrap().verifying_key().clone();
    rotation::newest(&good, &known).unwrap();
    for (text, why) in &refused {
        let error = rotation::newest(text, &known).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify_log.py");
    std::fs::write(dir.path().join("proof"), chain(&[(1, 2, 0, 0)], &[])).unwrap();
    for (text, why) in refused.iter().chain([&(good, "all holds")]) {
        std::fs::write(dir.path().join("rotations"), text).unwrap();
        let args = ["--key", &known.to_string(), "--rotations", "rotations", "--proof", "proof"];
        let output = Command::new(&python).arg(&script).args(args).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains(why) && output.status.success() == (*why == "all holds"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_changes_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listeners.grpc.local_addr().unwrap());
    tokio::spawn(syncshield::serve(listeners, syncshield::Config::new(dir.path(), LOG), Clock::System, CancellationToken::new()));
    let mut admin = kiki::pb::syncshield::v1::sync_shield_admin_service_client::SyncShieldAdminServiceClient::new(channel(&url).unwrap());
    for role in ["service", "tenant"] {
        let mut request = tonic::Request::new(kiki::pb::syncshield::v1::RotateKeyRequest::default());
        request.metadata_mut().insert(kiki::caller::ROLE, role.parse().unwrap());
        request.metadata_mut().insert(kiki::caller::CLIENT, "acme".parse().unwrap());
        assert!(Reason::NotYours.is(&admin.rotate_key(request).await.unwrap_err()));
    }
}
