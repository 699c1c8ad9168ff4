//! The records of a folder, to be read, compared and exported.

use std::io::Write;
use std::path::{Path, PathBuf};

use kiki::tlog::{Hash, leaf_hash};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::{leaves, pruned};
use crate::error::{Doing as _, Failure};
use crate::{out, subject};

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

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line each; the protobuf JSON of the leaf.
    Jsonl,
    /// A row each, under a header.
    Csv,
}

const COLUMNS: [&str; 8] = ["index", "client", "client_seq", "recorded_at", "source", "source_seq", "kind", "body"];

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
pub(super) struct Records(MessageDescriptor);

pub(super) struct Record {
    message: DynamicMessage,
    leaf: Vec<u8>,
}

impl Records {
    pub(super) fn new() -> Result<Self, Failure> {
        let pool = DescriptorPool::decode(kiki::pb::DESCRIPTORS).doing("reading the descriptors")?;
        pool.get_message_by_name("kiki.log.v1.Leaf").map(Self).ok_or_else(|| Failure::new("there is no kiki.log.v1.Leaf"))
    }

    pub(super) fn read(&self, leaf: &[u8]) -> Result<Record, Failure> {
        let message = DynamicMessage::decode(self.0.clone(), leaf).doing("reading a leaf")?;
        Ok(Record { message, leaf: leaf.to_vec() })
    }
}

impl Record {
    pub(super) fn json(&self) -> Result<String, Failure> {
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
