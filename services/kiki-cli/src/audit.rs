//! `kiki audit` on files alone: proofs for third parties, and the records to be read, compared and exported.
//!
//! What is printed is as trustworthy as the folder; `kiki audit verify` and `kiki audit check` say how far that is.

use std::io::Write;
use std::path::{Path, PathBuf};

use kiki::clock::{Clock, UnixMicros};
use kiki::framed::Scanner;
use kiki::tlog::note::{Note, VerifyingKey, Witness};
use kiki::tlog::portable::{self, Growth, PortableProof};
use kiki::tlog::{Checkpoint, Hash, Tree, checkpoint, leaf_hash, note};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use syncshield::store::{Paths, prune, segments};

use crate::error::{Doing as _, Failure};
use crate::{invoice, out, subject};

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

/// Prints the last records.
#[derive(Debug, Clone, clap::Args)]
pub struct Tail {
    /// The data folder.
    pub dir: PathBuf,
    /// Only this client's.
    #[arg(long)]
    pub client: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 20)]
    pub last: usize,
}

/// Compares two logs, such as a log and its backup.
#[derive(Debug, Clone, clap::Args)]
pub struct Diff {
    /// One data folder.
    pub one: PathBuf,
    /// The other.
    pub other: PathBuf,
}

/// Writes the records in a form that other programs read.
#[derive(Debug, Clone, clap::Args)]
pub struct Export {
    /// The data folder.
    pub dir: PathBuf,
    /// Lines of JSON, or CSV with the record's body as JSON in its last column.
    #[arg(long, default_value = "jsonl")]
    pub format: Format,
    /// Only this client's.
    #[arg(long)]
    pub client: Option<String>,
    /// Opens what was sealed with purchases, as `personal`, with the keys in the folder; says where it was erased.
    #[arg(long)]
    pub unseal: bool,
    /// File for the records; default: standard output.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Takes the leaves of the oldest segments out of a log that nobody serves. Their hashes stay.
#[derive(Debug, Clone, clap::Args)]
pub struct Prune {
    /// The data folder.
    pub dir: PathBuf,
    /// What was recorded in the last so many days stays.
    #[arg(long)]
    pub keep_days: u32,
    /// Folder that the segments go to. A segment that is put back is a part of the log again.
    #[arg(long)]
    pub to: PathBuf,
}

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line each; the protobuf JSON of the leaf.
    Jsonl,
    /// A row each, under a header.
    Csv,
}

const COLUMNS: [&str; 8] = ["index", "client", "client_seq", "recorded_at", "source", "source_seq", "kind", "body"];

/// Every leaf of a folder's log, in order. A last frame that is not whole is still being written and ends the log.
///
/// # Errors
/// A folder without a log, a damaged frame, or what `each` returned.
pub fn leaves(dir: &Path, mut each: impl FnMut(u64, &[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let folder = Paths::new(dir).log();
    let files = segments::list(&syncshield::store::disk::Files, &folder).doing(format_args!("listing {}", folder.display()))?;
    if files.is_empty() {
        return Err(Failure::new(format!("{} holds no log", dir.display())));
    }
    let mut next = pruned(dir)?.len() as u64;
    for (i, (first, path)) in files.iter().enumerate() {
        if *first != next {
            return Err(Failure::new(format!("leaf {next} is missing: {} starts at leaf {first}", path.display())));
        }
        let bytes = std::fs::read(path).doing(format_args!("reading {}", path.display()))?;
        for frame in Scanner::new(&bytes) {
            match frame {
                Ok((_, payload)) => each(next, payload)?,
                Err(bad) if i + 1 == files.len() && bad.why == kiki::framed::Why::Torn => return Ok(()),
                Err(bad) => return Err(Failure::new(format!("leaf {next} in {}: {bad}", path.display()))),
            }
            next += 1;
        }
    }
    Ok(())
}

/// The hashes of what was pruned, where something was: [`leaves`] begins behind it.
fn pruned(dir: &Path) -> Result<Vec<Hash>, Failure> {
    let folder = Paths::new(dir).log();
    segments::pruned_hashes(&syncshield::store::disk::Files, &folder).doing(format_args!("reading {}", folder.display()))
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
    let note = Note::parse(&std::fs::read(&path).doing(path.display())?).doing(path.display())?;
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

/// Runs `kiki audit prune`.
///
/// # Errors
/// A log that is served or damaged, or a folder that cannot be written.
pub async fn prune(args: &Prune) -> Result<(), Failure> {
    let key = invoice::key(None, &[&args.dir])?;
    std::fs::create_dir_all(&args.to).doing(format_args!("making {}", args.to.display()))?;
    let before = UnixMicros(Clock::System.now().0 - i64::from(args.keep_days) * 86_400_000_000);
    let report = prune::prune(&Paths::new(&args.dir), key.name(), before, &args.to).await.doing(args.dir.display())?;
    let rows = [
        ("pruned now", format!("{} segments, {} bytes", report.segments, out::grouped(report.bytes))),
        ("kept from leaf", out::grouped(report.retained)),
        ("because", report.stopped),
    ];
    out::say(out::table("prune", &rows));
    Ok(())
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

/// Runs `kiki audit tail`.
///
/// # Errors
/// A folder without a log, or with a damaged one.
pub fn tail(args: &Tail) -> Result<(), Failure> {
    let mut last = std::collections::VecDeque::new();
    each(&args.dir, args.client.as_deref(), |record| {
        last.push_back(record);
        if last.len() > args.last {
            last.pop_front();
        }
        Ok(())
    })?;
    for record in last {
        let [index, client, client_seq, recorded_at, _, _, kind, body] = record.row()?;
        out::say(format_args!("{index}  {recorded_at}  {client}#{client_seq}  {kind}  {body}"));
    }
    Ok(())
}

/// Runs `kiki audit diff`.
///
/// # Errors
/// Two logs that part, and where.
pub fn diff(args: &Diff) -> Result<(), Failure> {
    let hashes = |dir: &Path| {
        let mut hashes: Vec<Hash> = pruned(dir)?;
        leaves(dir, |_, leaf| {
            hashes.push(leaf_hash(leaf));
            Ok(())
        })?;
        Ok::<_, Failure>(hashes)
    };
    let (one, other) = (hashes(&args.one)?, hashes(&args.other)?);
    let first = pruned(&args.one)?.len().max(pruned(&args.other)?.len());
    if let Some(at) = one.iter().zip(&other).position(|(a, b)| a != b) {
        // Where both have more of it than the hash.
        for dir in [&args.one, &args.other].into_iter().filter(|_| at >= first) {
            out::say(format_args!("{}: {}", dir.display(), record_at(dir, at as u64)?));
        }
        return Err(Failure::new(format!("the logs part at leaf {at}")));
    }
    let (short, more) = if one.len() < other.len() { (&args.one, &args.other) } else { (&args.other, &args.one) };
    let (common, beyond) = (one.len().min(other.len()), one.len().abs_diff(other.len()));
    match beyond {
        0 => out::say(format_args!("the same {} leaves", out::grouped(common as u64))),
        _ => out::say(format_args!(
            "{} goes on for {} leaves behind the {} of {}",
            more.display(),
            out::grouped(beyond as u64),
            out::grouped(common as u64),
            short.display()
        )),
    }
    Ok(())
}

fn record_at(dir: &Path, wanted: u64) -> Result<String, Failure> {
    let records = Records::new()?;
    let mut found = String::new();
    leaves(dir, |index, leaf| {
        if index == wanted {
            found = records.read(leaf)?.json()?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Runs `kiki audit export`.
///
/// # Errors
/// A folder without a log, a damaged one, or a file that cannot be written.
pub fn export(args: &Export) -> Result<(), Failure> {
    match &args.out {
        Some(path) => {
            let file = std::fs::File::create(path).doing(format_args!("making {}", path.display()))?;
            export_to(args, std::io::BufWriter::new(file))
        }
        None => export_to(args, std::io::BufWriter::new(out::pipe())),
    }
}

fn export_to(args: &Export, mut to: impl Write) -> Result<(), Failure> {
    let keys = args.unseal.then(|| subject::Opener::new(&args.dir)).transpose()?;
    let personal = |record: &Record| keys.as_ref().map_or(Ok(None), |keys| keys.personal(&record.leaf));
    match args.format {
        Format::Jsonl => {
            each(&args.dir, args.client.as_deref(), |record| {
                let mut line = record.json()?;
                if let Some(personal) = personal(&record)? {
                    line.truncate(line.len() - 1); // before the closing brace
                    line.push_str(&format!(",\"personal\":{personal}}}"));
                }
                writeln!(to, "{line}").doing("writing")
            })?;
            to.flush().doing("writing")
        }
        Format::Csv => {
            let mut rows = csv::Writer::from_writer(to);
            let more = args.unseal.then_some("personal");
            rows.write_record(COLUMNS.into_iter().chain(more)).doing("writing")?;
            each(&args.dir, args.client.as_deref(), |record| {
                let personal = personal(&record)?.map(|personal| personal.to_string()).unwrap_or_default();
                rows.write_record(record.row()?.into_iter().chain(args.unseal.then_some(personal))).doing("writing")
            })?;
            rows.flush().doing("writing")
        }
    }
}

/// Every record, or every one of a client.
fn each(dir: &Path, client: Option<&str>, mut each: impl FnMut(Record) -> Result<(), Failure>) -> Result<(), Failure> {
    let records = Records::new()?;
    leaves(dir, |_, leaf| {
        let record = records.read(leaf)?;
        if client.is_none_or(|client| record.text("client") == client) { each(record) } else { Ok(()) }
    })
}

/// Reads leaves by their descriptor, so that a record of any kind is shown whole.
struct Records(MessageDescriptor);

struct Record {
    message: DynamicMessage,
    leaf: Vec<u8>,
}

impl Records {
    fn new() -> Result<Self, Failure> {
        let pool = DescriptorPool::decode(kiki::pb::DESCRIPTORS).doing("reading the descriptors")?;
        pool.get_message_by_name("kiki.log.v1.Leaf").map(Self).ok_or_else(|| Failure::new("there is no kiki.log.v1.Leaf"))
    }

    fn read(&self, leaf: &[u8]) -> Result<Record, Failure> {
        let message = DynamicMessage::decode(self.0.clone(), leaf).doing("reading a leaf")?;
        Ok(Record { message, leaf: leaf.to_vec() })
    }
}

impl Record {
    fn json(&self) -> Result<String, Failure> {
        serde_json::to_string(&self.message).doing("writing JSON")
    }

    /// A field of the header as text; empty where it is absent.
    fn text(&self, name: &str) -> String {
        use prost_reflect::Value;
        match self.message.get_field_by_name(name).as_deref() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::U64(number)) => number.to_string(),
            Some(Value::Message(message)) => {
                serde_json::to_value(message).ok().and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
            }
            _ => String::new(),
        }
    }

    fn row(&self) -> Result<[String; 8], Failure> {
        let body = self.message.fields().find(|(field, _)| field.containing_oneof().is_some());
        let (kind, body) = match body {
            Some((field, value)) => {
                let json = value.as_message().map(serde_json::to_string).transpose().doing("writing JSON")?;
                (field.name().to_owned(), json.unwrap_or_default())
            }
            None => Default::default(),
        };
        let [index, client, client_seq, recorded_at, source, source_seq] =
            ["index", "client", "client_seq", "recorded_at", "source", "source_seq"].map(|name| self.text(name));
        Ok([index, client, client_seq, recorded_at, source, source_seq, kind, body])
    }
}
