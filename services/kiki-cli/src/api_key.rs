//! `kiki api-key`: a key for a caller, and the line by which services know it.

use jiff::{Span, Timestamp};
use kiki::roles::Granted;
use kiki::runtime::ApiKey;

use crate::error::{Doing as _, Failure};
use crate::out::say;

/// The longest that a key may live, days: two years.
const DAYS_MAX: i64 = 731;

/// For whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The key's id, which the log and errors name.
    id: String,
    /// Whose it is: operator, finance, bidder, syncvalue, syncflow, syncshield, billing or tenant:CLIENT.
    #[arg(long)]
    role: String,
    /// How long it is good, days.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=DAYS_MAX))]
    days: i64,
}

/// Prints a new key, and its line for the file that `KIKI_API_KEYS` names. The key is shown this once.
///
/// # Errors
/// An id or a role that is none.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.role.parse::<Granted>().doing("--role")?;
    let key = ApiKey::random(&args.id).doing("making a key")?;
    let until = Timestamp::now().checked_add(Span::new().hours(24 * args.days)).doing("--days")?;
    say(format_args!("key   {}", key.reveal()));
    say(format_args!("line  {}", key.line(&args.role, until.round(jiff::Unit::Second).unwrap_or(until))));
    Ok(())
}
