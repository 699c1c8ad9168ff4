//! `kiki invoice bundle` fetches a proof bundle; and what a sample in one shows.

use std::path::PathBuf;

use billing::domain::bundle::sample::CHALLENGE_MAX;
use billing::domain::bundle::{Sample, Sampled};

use crate::close::Biller;
use crate::error::{Doing as _, Failure};
use crate::out;

/// Which bundle.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Billing's address.
    #[arg(long, env = "KIKI_BILLING", default_value = "http://127.0.0.1:50054")]
    addr: String,
    /// What the sample is drawn with besides document and checkpoint, in hex: at most 64 bytes of one's own, which nobody could foresee.
    #[arg(long, default_value = "", value_parser = challenge)]
    challenge: Challenge,
    /// The file. Default: `NUMBER.bundle`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The invoice's number.
    number: String,
}

/// Bytes that a sample is drawn with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(Vec<u8>);

impl Challenge {
    /// Whether it is what a sample was drawn with.
    pub(super) fn drew(&self, sample: &Sample) -> Result<(), String> {
        let with = hex::encode(&sample.challenge);
        if self.0 == sample.challenge { Ok(()) } else { Err(format!("its sample was drawn with the challenge {with:?}")) }
    }
}

/// From hex.
pub(super) fn challenge(hex: &str) -> Result<Challenge, String> {
    let bytes = hex::decode(hex).map_err(|e| e.to_string())?;
    let len = bytes.len();
    if len > CHALLENGE_MAX { Err(format!("is {len} bytes long; at most {CHALLENGE_MAX} are taken")) } else { Ok(Challenge(bytes)) }
}

/// Fetches it.
pub(super) async fn fetch(args: Args) -> Result<(), Failure> {
    let mut biller = Biller::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?);
    let bytes = biller.bundle(&args.number, args.challenge.0).await?;
    let path = args.out.unwrap_or_else(|| PathBuf::from(format!("{}.bundle", args.number)));
    std::fs::write(&path, &bytes).doing(format_args!("writing {}", path.display()))?;
    out::say(format_args!("{}: {} bytes", path.display(), out::grouped(bytes.len() as u64)));
    Ok(())
}

/// How much of the books a sample shows, and what share of wrong records or money it finds in 19 of 20 cases.
pub(super) fn seen(sampled: &Sampled) -> String {
    let Sampled { sheets, records, draws } = sampled;
    let [drawn, sheets, opened, records] = [sheets.0, sheets.1, records.0, records.1].map(out::grouped);
    // What is missed by n draws with a probability of 1 in 20: 1 - 0.05^(1/n).
    let share = (1.0 - 0.05_f64.powf(1.0 / *draws as f64)) * 100.0;
    format!("; a sample: {drawn} of {sheets} sheets, {opened} of {records} records; finds {share:.1} % wrong in 19 of 20 cases")
}
