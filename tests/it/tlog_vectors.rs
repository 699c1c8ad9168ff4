//! `kiki::tlog` against other people's vectors, from the folder that KIKI_CONFORMANCE_DATA names.
//!
//! Every vector of a file is run. Each test prints how many it ran, and fails when there were none.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use kiki::tlog::note::{self, Note, SigningKey, VerifyingKey};
use kiki::tlog::{Checkpoint, EMPTY_ROOT, Frontier, Hash, Tree, leaf_hash, node_hash, verify_consistency, verify_inclusion};
use serde_json::Value;

/// The folder, or nothing, said aloud.
fn data(part: &str) -> Option<PathBuf> {
    let folder =
        std::env::var_os("KIKI_CONFORMANCE_DATA").map(|data| Path::new(&data).join("tlog").join(part)).filter(|folder| folder.exists());
    if folder.is_none() {
        println!("tlog/{part}: DID NOT RUN, KIKI_CONFORMANCE_DATA does not lead to it");
    }
    folder
}

/// Every .json below a folder, in order of its path.
fn vectors(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "json") {
                let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                found.push((path, json));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// A root or leaf hash of a vector. Some are "don't care", which is not 32 bytes and so cannot be said in
/// our types; a stand-in lets the verifier decide and not the type. An empty one is missing, which only the
/// type can refuse.
fn hash(value: &Value) -> Option<Hash> {
    Some(stand_in(value)).filter(|_| value != "")
}

/// The hash itself, or one of its bytes where it is not 32 long: equal where they are equal.
fn stand_in(value: &Value) -> Hash {
    let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    bytes.as_slice().try_into().unwrap_or_else(|_| leaf_hash(&bytes))
}

fn proof(value: &Value) -> Vec<Hash> {
    // Go writes null for an empty slice.
    value.as_array().map_or(Vec::new(), |hashes| hashes.iter().map(stand_in).collect())
}

/// Runs the vectors of one kind; `holds` says None where the types themselves refuse a vector.
fn run(kind: &str, mut holds: impl FnMut(&Value) -> Option<bool>) {
    let Some(folder) = data("merkle-testdata") else { return };
    let (mut all, mut must_fail, mut refused_by_type) = (0, 0, 0);
    for (path, vector) in vectors(&folder.join("testdata").join(kind)) {
        let must = !vector["wantErr"].as_bool().unwrap();
        let got = holds(&vector);
        assert_eq!(got.unwrap_or(false), must, "{}: {}", path.display(), vector["desc"]);
        all += 1;
        must_fail += usize::from(!must);
        refused_by_type += usize::from(got.is_none());
    }
    println!("merkle-testdata: {all} {kind} ({must_fail} must fail, {refused_by_type} of them for an empty root or leaf hash)");
    assert!(must_fail > 0 && all > must_fail && must_fail > refused_by_type);
}

#[test]
fn inclusion_vectors_hold_or_fail_as_they_must() {
    run("inclusion", |v| {
        let [index, size] = ["leafIdx", "treeSize"].map(|key| v[key].as_u64().unwrap());
        let (leaf, root) = (hash(&v["leafHash"])?, hash(&v["root"])?);
        Some(verify_inclusion(&leaf, index, size, &proof(&v["proof"]), &root).is_ok())
    });
}

#[test]
fn consistency_vectors_hold_or_fail_as_they_must() {
    run("consistency", |v| {
        let [old, new] = ["size1", "size2"].map(|key| v[key].as_u64().unwrap());
        let (old_root, new_root) = (hash(&v["root1"])?, hash(&v["root2"])?);
        Some(verify_consistency(old, new, &proof(&v["proof"]), &old_root, &new_root).is_ok())
    });
}

/// What stands between `before` and `after`, each time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
}

fn hex_hash(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn hashes_and_roots_are_the_known_answers() {
    let Some(folder) = data("rfc6962-kat") else { return };
    let constants = fs::read_to_string(folder.join("constants.go.txt")).unwrap();
    let function = |name: &str| between(&constants, &format!("func {name}()"), "\n}")[0];
    let leaves: Vec<Hash> =
        between(function("LeafInputs"), "hd(\"", "\")").iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect();

    // Levels stand one after the other, each half as long as the one before.
    let nodes: Vec<Hash> = between(function("NodeHashes"), "hd(\"", "\")").into_iter().map(hex_hash).collect();
    let mut computed: Vec<Hash> = Vec::new();
    let mut level = leaves.clone();
    while !level.is_empty() {
        computed.extend(&level);
        level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    assert_eq!(computed, nodes);

    let roots: Vec<Hash> = between(function("RootHashes"), "hd(\"", "\")").into_iter().map(hex_hash).collect();
    let (mut frontier, mut tree) = (Frontier::new(), Tree::new());
    assert_eq!((frontier.root(), tree.root()), (EMPTY_ROOT, EMPTY_ROOT));
    for (leaf, root) in leaves.iter().zip(&roots) {
        frontier.push(*leaf);
        tree.push(*leaf);
        assert_eq!((frontier.root(), tree.root()), (*root, *root));
    }

    // The fourth answer hashes two children of 4 bytes, which are no hashes in our types.
    let hasher = fs::read_to_string(folder.join("rfc6962_test.go.txt")).unwrap();
    let wants = between(&hasher, "want: \"", "\"");
    let ours = [EMPTY_ROOT, leaf_hash(b""), leaf_hash(b"L123456")];
    assert_eq!(wants.len(), 4);
    assert_eq!(ours.map(hex::encode), wants[..3]);

    println!(
        "rfc6962-kat: {} leaf hashes, {} node hashes, {} roots, {} of {} hasher answers",
        leaves.len(),
        nodes.len() - leaves.len(),
        roots.len(),
        ours.len(),
        wants.len(),
    );
    assert!(leaves.len() == 8 && nodes.len() == 15 && roots.len() == 8);
}

#[test]
fn signed_notes_open_or_fail_as_they_must() {
    let Some(folder) = data("sumdb-note") else { return };
    let file = fs::read(folder.join("vectors.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for case in file["cases"].as_array().unwrap() {
        let note = hex::decode(case["note_hex"].as_str().unwrap()).unwrap();
        let keys: Vec<VerifyingKey> = case["vkeys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().parse().unwrap()).collect();
        let keys: Vec<&VerifyingKey> = keys.iter().collect();
        let got = match Note::parse(&note).and_then(|note| note.verify(&keys)) {
            Ok(signed) => format!("ok:{signed}"),
            Err(note::Error::Malformed(_)) => "err:malformed".to_owned(),
            Err(note::Error::Unverified { .. }) => "err:unverified".to_owned(),
            Err(note::Error::InvalidSignature { .. }) => "err:invalid-signature".to_owned(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(got, case["want"], "{}", case["name"]);
        if got.starts_with("ok") { opened += 1 } else { refused += 1 }
    }

    let source = fs::read_to_string(folder.join("note_test.go.txt")).unwrap();
    let signer: SigningKey = between(&source, "skey := \"", "\"")[0].parse().unwrap();
    let signed = between(&source, "want := `", "`")[0];
    let text = Note::parse(signed.as_bytes()).unwrap().text;
    assert_eq!(Note::sign(&text, &signer).unwrap().to_string(), signed);

    println!("sumdb-note: {opened} notes opened, {refused} refused, 1 signed to the same bytes");
    assert!(opened > 0 && refused > 0);
}

#[test]
fn keys_of_other_signature_types_are_refused() {
    let Some(folder) = data("tlog-proof") else { return };
    let source = fs::read_to_string(folder.join("note_cosigv1_test.go.txt")).unwrap();
    let (mut ours, mut others) = (0, 0);
    for text in between(&source, "pubK: \"", "\"").into_iter().chain(between(&source, "pubK:    \"", "\"")) {
        match text.parse::<VerifyingKey>() {
            Ok(key) => {
                assert_eq!(key.to_string(), text);
                assert_eq!(key.name(), "TEST");
                ours += 1;
            }
            Err(_) => others += 1,
        }
    }
    println!("tlog-proof: {ours} ed25519 key read, {others} others refused; its own text format is not used");
    assert!(ours > 0 && others > 0);
}

/// The witness's stories: each request is a checkpoint and a consistency proof from the size before.
#[test]
fn a_witness_s_checkpoints_and_proofs_are_judged_as_it_judged_them() {
    let Some(folder) = data("litewitness/cmd/litewitness/testdata") else { return };
    let sumdb = fs::read_to_string(folder.join("sumdb.txt")).unwrap();
    let sigsum = fs::read_to_string(folder.join("litewitness.txt")).unwrap();
    let sumdb_key = between(&sumdb, "add-key -origin 'go.sum database tree' -key ", "\n")[0];
    // Sigsum logs are named by the hash of their key, which is given bare.
    let sigsum_origin = between(&sigsum, "stdout ", "\n")[0];
    let public = between(&sigsum, "add-sigsum-log -key=", "\n")[0];
    let sigsum_key = {
        let public = [&[1], &hex::decode(public).unwrap()[..]].concat();
        let id = hex::encode([0x52, 0x02, 0x28, 0x9b]); // as in its signature lines, "UgIom..."
        format!("{sigsum_origin}+{id}+{}", STANDARD.encode(public))
    };
    let stories = [(&sumdb, "go.sum database tree", sumdb_key), (&sigsum, sigsum_origin, &sigsum_key)];

    let (mut accepted, mut refused) = (0, 0);
    for (script, origin, key) in stories {
        let key: VerifyingKey = key.parse().unwrap();
        let mut last = Checkpoint { origin: origin.to_owned(), size: 0, root: EMPTY_ROOT };
        for request in between(script, "add-checkpoint\n```\nold ", "\n[Asserts]") {
            let (body, status) = request.split_once("```\nHTTP ").unwrap();
            let (head, note) = body.split_once("\n\n").unwrap();
            let mut lines = head.lines();
            let old: u64 = lines.next().unwrap().parse().unwrap();
            let proof: Vec<Hash> = lines.map(|line| STANDARD.decode(line).unwrap().try_into().unwrap()).collect();
            let judged = match Checkpoint::open(note.as_bytes(), origin, &key) {
                Err(_) => "403",
                Ok(_) if old != last.size => "409",
                Ok(new) => {
                    let continues = old == 0 || verify_consistency(old, new.size, &proof, &last.root, &new.root).is_ok();
                    if continues {
                        last = new;
                    }
                    if continues { "200" } else { "422" }
                }
            };
            assert_eq!(judged, status, "{body}");
            if judged == "200" { accepted += 1 } else { refused += 1 }
        }
    }
    println!("litewitness: {accepted} checkpoints accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0);
}
