//! `kiki invoice bundle` fetches a proof bundle; and what a sample in one shows.

use std::path::PathBuf;

use billing::domain::bundle::Sampled;
use billing::domain::bundle::sample::CHALLENGE_MAX;

use crate::close::Biller;
use crate::error::{Doing as _, Failure};
use crate::out;

/// Which bundle.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Billing's address.
    #[arg(long, env = "KIKI_BILLING", default_value = "http://127.0.0.1:50054")]
    addr: String,
    /// What the sample is drawn with besides the document, in hex: at most 64 bytes of one's own, which nobody could foresee.
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

/// How much of the books a sample shows, and what that proves to who drew it.
pub(super) fn seen(sampled: Option<&Sampled>, challenge: Option<&Challenge>) -> Result<String, String> {
    let Some(Sampled { sheets, records, draws, challenge: with }) = sampled else { return Ok(String::new()) };
    let [drawn, sheets, opened, records] = [sheets.0, sheets.1, records.0, records.1].map(out::grouped);
    let shown = format!("; a sample: {drawn} of {sheets} sheets, {opened} of {records} records");
    match challenge {
        None => Ok(format!("{shown}; who draws it with a challenge of its own is sure of more")),
        // What is missed by n draws with a probability of 1 in 20: 1 - 0.05^(1/n).
        Some(own) if own.0 == *with => {
            let share = (1.0 - 0.05_f64.powf(1.0 / *draws as f64)) * 100.0;
            Ok(format!("{shown}; {share:.1} % that is wrong is found in 19 of 20 cases"))
        }
        Some(_) => Err(format!("the sample was drawn with the challenge {:?}", hex::encode(with))),
    }
}
