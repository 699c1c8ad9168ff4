//! Proofs for third parties: written from a folder, and checked against the log's key alone.

use std::path::{Path, PathBuf};

use kiki::tlog::note::{Note, VerifyingKey, Witness};
use kiki::tlog::portable::{self, Growth, PortableProof};
use kiki::tlog::{Checkpoint, Tree, checkpoint, leaf_hash, note};
use syncshield::store::Paths;

use super::records::Records;
use super::{leaves, pruned};
use crate::error::{Doing as _, Failure};
use crate::{invoice, out};

/// Writes the proof that a record is in the log.
#[derive(Debug, Clone, clap::Args)]
pub struct Prove {
    /// The data folder.
    pub dir: PathBuf,
    /// The record's index.
    #[arg(long)]
    pub index: u64,
    /// Under which key, and where to.
    #[command(flatten)]
    pub to: To,
}

/// Writes the proof that the log only grew since it had a size.
#[derive(Debug, Clone, clap::Args)]
pub struct Consistency {
    /// The data folder.
    pub dir: PathBuf,
    /// The size of the earlier checkpoint, leaves.
    #[arg(long)]
    pub old_size: u64,
    /// Under which key, and where to.
    #[command(flatten)]
    pub to: To,
}

/// Under which key a proof is made, and where it goes.
#[derive(Debug, Clone, clap::Args)]
pub struct To {
    /// The log's public key, or a file that holds it. Default: `log.pub` in the folder.
    #[arg(long)]
    pub log_key: Option<String>,
    /// File for the proof; default: standard output.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Checks a proof that `kiki audit proof` wrote; needs nothing but the file and the log's key.
#[derive(Debug, Clone, clap::Args)]
pub struct Check {
    /// The log's public key, or a file that holds it.
    #[arg(long)]
    pub log_key: String,
    /// The log's changes of key (`log.rotations`), where another of its keys signed the proof.
    #[arg(long)]
    pub rotations: Option<PathBuf>,
    /// The proof.
    pub file: PathBuf,
}

fn tree(dir: &Path) -> Result<Tree, Failure> {
    let mut tree: Tree = pruned(dir)?.into_iter().collect();
    leaves(dir, |_, leaf| {
        tree.push(leaf_hash(leaf));
        Ok(())
    })?;
    Ok(tree)
}

/// The key that signs after the changes in a file, for a reader who knows an earlier one.
fn newest(rotations: Option<&Path>, key: &VerifyingKey) -> Result<VerifyingKey, Failure> {
    let Some(path) = rotations else { return Ok(key.clone()) };
    let text = std::fs::read_to_string(path).doing(format_args!("reading {}", path.display()))?;
    kiki::rotation::newest(&text, key).doing(path.display())
}

/// The folder's checkpoint with its note, once its signature and its root hold.
fn signed(dir: &Path, key: &VerifyingKey, tree: &Tree) -> Result<(Checkpoint, String), Failure> {
    let path = Paths::new(dir).checkpoint();
    let note = std::fs::read_to_string(&path).doing(format_args!("reading {}", path.display()))?;
    let rotations = Paths::new(dir).rotations();
    let key = newest(rotations.exists().then_some(&*rotations), key)?;
    let checkpoint = Checkpoint::open(note.as_bytes(), key.name(), &key).doing(path.display())?;
    if tree.root_at(checkpoint.size).doing(path.display())? != checkpoint.root {
        return Err(Failure::new(format!("the first {} leaves are not those that were signed", checkpoint.size)));
    }
    Ok((checkpoint, note))
}

/// Which of these witnesses cosigned the folder's checkpoint, and when, a line each.
///
/// # Errors
/// Fewer than the quorum, or a cosignature that is false.
pub fn cosigned(dir: &Path, witnesses: &[String], quorum: usize) -> Result<Vec<String>, Failure> {
    let path = Paths::new(dir).checkpoint();
    cosignatures(&std::fs::read(&path).doing(path.display())?, &path, witnesses, quorum)
}

/// The same of a checkpoint that stands in a file.
///
/// # Errors
/// As [`cosigned`].
pub fn cosignatures(checkpoint: &[u8], path: &Path, witnesses: &[String], quorum: usize) -> Result<Vec<String>, Failure> {
    let note = Note::parse(checkpoint).doing(path.display())?;
    // One that is named twice counts once.
    let mut lines = std::collections::BTreeSet::new();
    for named in witnesses {
        let text =
            if named.contains('+') { named.clone() } else { std::fs::read_to_string(named).doing(format_args!("reading {named}"))? };
        let witness: Witness = text.trim().parse().doing(format_args!("reading the witness's key {named}"))?;
        if let Some(seconds) = witness.cosigned_at(&note).doing(path.display())? {
            let at = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            lines.insert(format!("{witness} at {}", at.map_or_else(|| seconds.to_string(), |at| at.to_string())));
        }
    }
    if lines.len() < quorum {
        return Err(Failure::new(format!("{} of these witnesses cosigned the checkpoint, and {quorum} are called for", lines.len())));
    }
    Ok(lines.into_iter().collect())
}

/// Runs `kiki audit proof`.
///
/// # Errors
/// A log that does not verify, or a record that no checkpoint covers.
pub fn prove(args: &Prove) -> Result<(), Failure> {
    let key = invoice::key(args.to.log_key.as_deref(), &[&args.dir])?;
    let (mut tree, mut extra): (Tree, _) = (pruned(&args.dir)?.into_iter().collect(), Vec::new());
    if args.index < tree.size() {
        return Err(Failure::new(format!("leaf {} was pruned; the log is kept from leaf {} on", args.index, tree.size())));
    }
    leaves(&args.dir, |index, leaf| {
        tree.push(leaf_hash(leaf));
        if index == args.index {
            extra = leaf.to_vec();
        }
        Ok(())
    })?;
    let (at, checkpoint) = signed(&args.dir, &key, &tree)?;
    if args.index >= at.size {
        let (index, leaves, signed) = (args.index, tree.size(), at.size);
        let why = if index < leaves {
            format!("the newest checkpoint covers {signed} leaves; SyncShield signs the next within a second, while it runs")
        } else {
            format!("the log has {leaves} leaves, from 0 on")
        };
        return Err(Failure::new(format!("leaf {index} cannot be proven: {why}")));
    }
    let hashes = tree.inclusion_proof(args.index, at.size).doing("proving under the checkpoint")?;
    write(&args.to, &PortableProof { extra, index: args.index, hashes, checkpoint }.to_string())
}

/// Runs `kiki audit consistency`.
///
/// # Errors
/// A log that does not verify, or that never had this size under a checkpoint.
pub fn consistency(args: &Consistency) -> Result<(), Failure> {
    let key = invoice::key(args.to.log_key.as_deref(), &[&args.dir])?;
    let tree = tree(&args.dir)?;
    let (at, checkpoint) = signed(&args.dir, &key, &tree)?;
    let hashes = tree.consistency_proof(args.old_size, at.size).doing("proving under the checkpoint")?;
    write(&args.to, &Growth { old: args.old_size, hashes, checkpoint }.to_string())
}

fn write(to: &To, text: &str) -> Result<(), Failure> {
    match &to.out {
        Some(path) => std::fs::write(path, text).doing(format_args!("writing {}", path.display())),
        None => {
            out::say(text.trim_end_matches('\n'));
            Ok(())
        }
    }
}

/// Runs `kiki audit check`.
///
/// # Errors
/// A proof that does not hold under this key.
pub fn check(args: &Check) -> Result<(), Failure> {
    let known = invoice::key(Some(&args.log_key), &[])?;
    let keys = match &args.rotations {
        None => vec![(known, u64::MAX)],
        Some(path) => {
            let text = std::fs::read_to_string(path).doing(format_args!("reading {}", path.display()))?;
            kiki::rotation::signers(&text, &known).doing(path.display())?
        }
    };
    let text = std::fs::read_to_string(&args.file).doing(format_args!("reading {}", args.file.display()))?;
    let proof: PortableProof = text.parse().doing(args.file.display())?;
    let checkpoint = verified(&proof, &keys).map_err(|problem| Failure::new(format!("{}: {problem}", args.file.display())))?;
    let record = Records::new()?.read(&proof.extra)?;
    out::say(format_args!("good: leaf {} of {} in {}", proof.index, checkpoint.size, checkpoint.origin));
    out::say(record.json()?);
    Ok(())
}

/// The checkpoint that the proof leads to, signed by one of these keys in its time; the last of them is the newest.
fn verified(proof: &PortableProof, keys: &[(VerifyingKey, u64)]) -> Result<Checkpoint, String> {
    let mut found = Err("there is no key".to_owned());
    for (key, until) in keys.iter().rev() {
        found = match proof.verify(key.name(), key) {
            Ok(checkpoint) if checkpoint.size > *until => {
                Err(format!("{} was replaced at {until} leaves, and signed {}", kiki::rotation::short(key), checkpoint.size))
            }
            Err(portable::Error::Checkpoint(checkpoint::Error::Note(note::Error::Unverified { .. }))) => {
                let hint = if keys.len() == 1 { "; by an earlier or a later key? give that one, or --rotations" } else { "" };
                Err(format!("checkpoint: not signed by {}{hint}", kiki::rotation::short(key)))
            }
            other => return other.map_err(|error| error.to_string()),
        };
    }
    found
}
