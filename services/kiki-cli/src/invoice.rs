//! `kiki invoice` closes a month of a running platform, and `kiki invoice pay` and its like say what became of an invoice;
//! `kiki invoice verify` and `kiki audit verify` check what one left,
//! on files alone.

mod bundle;
mod export;
mod life;
mod reconcile;

use std::path::{Path, PathBuf};

use billing::domain::summary::Summary;
use kiki::tlog::note::VerifyingKey;

pub use bundle::Challenge;

use crate::close::{Biller, summarise_month};
use crate::error::{Doing as _, Failure};
use crate::{audit, out, witness};

/// Closes a month, says what becomes of invoices, or verifies them offline.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The month to close, "2026-01", in each client's own zone.
    #[arg(long, required = true)]
    month: Option<String>,
    /// Billing's address.
    #[arg(long, env = "KIKI_BILLING", default_value = "http://127.0.0.1:50054")]
    addr: String,
    /// Folder for the files.
    #[arg(long, default_value = "./kiki-data/invoices")]
    out: PathBuf,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Recomputes invoices from their bundles, offline.
    Verify(VerifyInvoices),
    /// Fetches an invoice's bundle; of a client with very many leaves, with the sample that a challenge of one's own draws.
    Bundle(bundle::Args),
    /// Writes invoices as UBL, CII, PDF, or for an accounting program, offline.
    Export(export::Args),
    /// Holds a platform's report of spend, or Prometheus' counters, against the log, and lists what differs. Exits with 1 where anything does.
    Reconcile(reconcile::Args),
    #[command(flatten)]
    Life(life::Command),
}

/// Which bundles are verified, and under which key.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyInvoices {
    /// The log's public key, or a file that holds it. Default: `log.pub` in the bundle's folder or the one above; a key
    /// that came with the bundle vouches for nothing, so name one from elsewhere where it matters.
    #[arg(long)]
    pub log_key: Option<String>,
    /// The key of a witness, or a file that holds it, whose cosignature on a bundle's checkpoint counts. Any number.
    #[arg(long = "witness")]
    pub witnesses: Vec<String>,
    /// How many of these witnesses must have cosigned.
    #[arg(long, default_value_t = 0)]
    pub quorum: usize,
    /// What a bundle's sample must have been drawn with, in hex, where it has one: it proves something to who chose that.
    #[arg(long, value_parser = bundle::challenge)]
    pub challenge: Option<Challenge>,
    /// The bundles.
    #[arg(required = true)]
    pub bundles: Vec<PathBuf>,
}

/// Verifies a log's folder offline.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum AuditCommand {
    /// Checks every leaf, the tree, the signature and the fold.
    Verify(VerifyLog),
    /// Writes the proof that a record is in the log, for a third party (C2SP tlog-proof).
    Proof(audit::Prove),
    /// Checks such a proof under the log's key, with nothing else.
    Check(audit::Check),
    /// Writes the proof that the log only grew since it had a size.
    Consistency(audit::Consistency),
    /// Prints the last records.
    Tail(audit::Tail),
    /// Compares two logs, leaf by leaf.
    Diff(audit::Diff),
    /// Writes the records as JSON lines or CSV.
    Export(audit::Export),
    Prune(audit::Prune),
    /// What a policy would have refused of the recorded decisions.
    ReplayPolicy(crate::policy::replay::Args),
    /// Has the log signed by a new key; both sign the change.
    RotateKey(crate::operate::RotateKey),
    /// Has a client go from one log to another, with a record in both.
    MoveClient(crate::operate::MoveClient),
    /// Runs a witness that cosigns the checkpoints of logs (C2SP tlog-witness).
    Witness(witness::Args),
}

/// Which log is verified, and under which key.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyLog {
    /// The log's public key, or a file that holds it. Default: `log.pub` in the folder, which vouches for nothing to a stranger.
    #[arg(long)]
    pub log_key: Option<String>,
    /// The key of a witness, or a file that holds it, whose cosignature on the checkpoint counts. Any number.
    #[arg(long = "witness")]
    pub witnesses: Vec<String>,
    /// How many of these witnesses must have cosigned.
    #[arg(long, default_value_t = 0)]
    pub quorum: usize,
    /// The data folder.
    pub dir: PathBuf,
}

/// Runs `kiki invoice`.
///
/// # Errors
/// What Billing refused, a file that cannot be written, or a bundle with something off.
pub async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Some(Command::Verify(verify)) => return verify_invoices(&verify),
        Some(Command::Bundle(args)) => return bundle::fetch(args).await,
        Some(Command::Export(export)) => return export::run(&export),
        Some(Command::Reconcile(args)) => return reconcile::run(args).await,
        Some(Command::Life(command)) => return life::run(command).await,
        None => {}
    }
    let month = args.month.unwrap_or_default();
    let mut biller = Biller::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?);
    let progress = out::bar("invoices", 0);
    let closed = biller.close(&month, &progress).await?;
    progress.finish_and_clear();
    std::fs::create_dir_all(&args.out).doing(format_args!("making {}", args.out.display()))?;
    let progress = out::bar("files", closed.numbers.len() as u64);
    let mut invoices = Vec::new();
    for number in &closed.numbers {
        invoices.push(biller.save(&args.out, number).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    for postponed in &closed.postponed {
        out::say(format_args!("postponed: {} {}: {}", postponed.client, postponed.currency, postponed.reason));
    }
    if invoices.is_empty() {
        out::say(format_args!("{month}: nothing to invoice"));
        return Ok(());
    }
    let summary = summarise_month(&args.out, &month, &invoices)?;
    out::say(month_table(&summary));
    out::say(format_args!("files in {}", args.out.display()));
    Ok(())
}

/// Verifies bundles and says so for each.
///
/// # Errors
/// How many are not right; each finding is printed.
pub fn verify_invoices(args: &VerifyInvoices) -> Result<(), Failure> {
    let mut wrong = 0;
    for path in &args.bundles {
        let verified = verify_bundle(path, args.log_key.as_deref(), args.challenge.as_ref());
        match verified.and_then(|line| Ok((line, witnessed(path, args)?))) {
            Ok((line, cosigned)) => {
                out::say(format_args!("{}: {line}", path.display()));
                cosigned.iter().for_each(|line| out::say(format_args!("{}: cosigned by {line}", path.display())));
            }
            Err(findings) => {
                wrong += 1;
                findings.iter().for_each(|finding| out::say(format_args!("{}: {finding}", path.display())));
            }
        }
    }
    if wrong > 0 { Err(Failure::new(format!("{wrong} of {} invoices are not right", args.bundles.len()))) } else { Ok(()) }
}

/// What is right about a bundle, or what is off.
pub(crate) fn verify_bundle(path: &Path, log_key: Option<&str>, challenge: Option<&Challenge>) -> Result<String, Vec<String>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let above = folder.join("..");
    let key = key(log_key, &[folder, &above]).map_err(|e| vec![e.to_string()])?;
    let bytes = std::fs::read(path).map_err(|e| vec![e.to_string()])?;
    let report = billing::verify_bundle(&bytes, &key).map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let invoice = &report.invoice;
    let (place, sampled) = (report.checkpoint_size, bundle::seen(report.sampled.as_ref(), challenge).map_err(|e| vec![e])?);
    Ok(format!(
        "good: {} for {}, {} {}, from {} leaves of {place}{sampled}",
        invoice.invoice_id, invoice.client_name, invoice.total_invoice_amount, invoice.currency, report.leaves
    ))
}

/// Who of the named witnesses cosigned a bundle's checkpoint.
fn witnessed(path: &Path, args: &VerifyInvoices) -> Result<Vec<String>, Vec<String>> {
    if args.witnesses.is_empty() && args.quorum == 0 {
        return Ok(Vec::new());
    }
    let bytes = std::fs::read(path).map_err(|e| vec![e.to_string()])?;
    let checkpoint = billing::bundle::decode(&bytes).map_err(|e| vec![e])?.checkpoint;
    audit::cosignatures(checkpoint.as_bytes(), path, &args.witnesses, args.quorum).map_err(|e| vec![e.to_string()])
}

/// Runs `kiki audit`.
///
/// # Errors
/// The first thing in the log that is off.
pub async fn run_audit(args: &AuditArgs) -> Result<(), Failure> {
    match &args.command {
        AuditCommand::Verify(verify) => verify_log(verify),
        AuditCommand::Proof(args) => audit::prove(args),
        AuditCommand::Check(args) => audit::check(args),
        AuditCommand::Consistency(args) => audit::consistency(args),
        AuditCommand::Tail(args) => audit::tail(args),
        AuditCommand::Diff(args) => audit::diff(args),
        AuditCommand::Export(args) => audit::export(args),
        AuditCommand::Prune(args) => audit::prune(args).await,
        AuditCommand::ReplayPolicy(replay) => crate::policy::replay::run(replay),
        AuditCommand::RotateKey(args) => crate::operate::rotate_key(args).await,
        AuditCommand::MoveClient(args) => crate::operate::move_client(args).await,
        AuditCommand::Witness(args) => witness::run(args).await,
    }
}

fn verify_log(verify: &VerifyLog) -> Result<(), Failure> {
    let key = key(verify.log_key.as_deref(), &[&verify.dir])?;
    let report = syncshield::audit::verify(&verify.dir, &key).doing(verify.dir.display())?;
    let cosigned = audit::cosigned(&verify.dir, &verify.witnesses, verify.quorum)?;
    let mut rows = vec![
        ("log", report.log_id.clone()),
        ("leaves", out::grouped(report.leaves)),
        ("signed", format!("{} under root {}", out::grouped(report.signed), report.root)),
    ];
    if verify.log_key.is_none() {
        rows.push(("key", "that of the folder is trusted; name the one that you know with --log-key".to_owned()));
    }
    rows.extend(report.arrived.iter().map(|(client, key)| ("arrived", format!("{client} as {key} says"))));
    if report.pruned > 0 {
        rows.push(("not read", format!("the first {}: pruned, their hashes hold", out::grouped(report.pruned))));
    }
    rows.extend(cosigned.into_iter().map(|line| ("cosigned", line)));
    rows.extend(report.kinds.iter().map(|(kind, count)| (*kind, out::grouped(*count))));
    let settled: Vec<String> = report
        .settled
        .iter()
        .map(|((client, campaign, currency), nanos)| format!("{client}/{campaign}  {} {currency}", kiki::money::decimal(*nanos, 9)))
        .collect();
    rows.extend(settled.into_iter().map(|line| ("settled", line)));
    out::say(out::table("good", &rows));
    Ok(())
}

/// The key that was named, as text or as a file; else `log.pub` in one of these folders.
pub(crate) fn key(named: Option<&str>, folders: &[&Path]) -> Result<VerifyingKey, Failure> {
    let text = match named {
        Some(text) if text.contains('+') => text.to_owned(),
        Some(path) => std::fs::read_to_string(path).doing(format_args!("reading the log's key {path}"))?,
        None => {
            let found = folders.iter().map(|folder| folder.join("log.pub")).find(|path| path.exists());
            let path = found.ok_or_else(|| Failure::new("there is no log.pub beside it; name the log's key with --log-key"))?;
            std::fs::read_to_string(&path).doing(format_args!("reading {}", path.display()))?
        }
    };
    text.trim().parse().doing("reading the log's key")
}

/// The month over all clients, to be read.
#[must_use]
pub fn month_table(summary: &Summary) -> String {
    let (header, rows) = summary.table();
    let rows: Vec<Vec<String>> =
        std::iter::once(header.map(str::to_owned).to_vec()).chain(rows.into_iter().map(|row| row.to_vec())).collect();
    let widths: Vec<usize> =
        (0..header.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    // Names to the left, figures to the right.
    let cell = |column: usize, text: &str| match column {
        0..=2 => format!("{text:<width$}", width = widths[column]),
        _ => format!("{text:>width$}", width = widths[column]),
    };
    let line = |row: &Vec<String>| row.iter().enumerate().map(|(column, text)| cell(column, text)).collect::<Vec<_>>().join("  ");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
