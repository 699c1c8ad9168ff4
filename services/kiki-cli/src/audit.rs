//! `kiki audit` on files alone: proofs for third parties, and the records to be read, compared and exported.
//!
//! What is printed is as trustworthy as the folder; `kiki audit verify` and `kiki audit check` say how far that is.

mod proofs;
mod records;

use std::path::{Path, PathBuf};

use kiki::clock::{Clock, UnixMicros};
use kiki::framed::Scanner;
use kiki::tlog::Hash;
use syncshield::store::{Paths, prune, segments};

use crate::error::{Doing as _, Failure};
use crate::{invoice, out};

pub use proofs::{Check, Consistency, Prove, To, check, consistency, cosignatures, cosigned, prove};
pub use records::{Diff, Export, Format, Tail, diff, export, tail};

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
