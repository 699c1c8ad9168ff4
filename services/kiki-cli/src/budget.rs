//! `kiki budget`: what a treasurer asks of a running SyncShield: where the money stands, what bounds it, a pause, a
//! correction, a platform's report.
//!
//! Amounts are given and shown in units of the currency ("12.50"). Nothing is rounded on its way in; tables round to the
//! currency's minor unit, `--json` has the exact decimals as strings.

mod change;
pub mod report;
mod show;

use std::path::PathBuf;

use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::runtime::Channel;

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Budgets.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// SyncShield's address.
    #[arg(long, global = true, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    addr: String,
    /// One JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Where the money of a client's campaigns stands.
    Show {
        /// The advertiser.
        #[arg(long)]
        client: String,
        /// One campaign; all of them where none is named.
        #[arg(long)]
        campaign: Option<String>,
    },
    /// Shows the limits of a scope, or changes those that are given. "none" takes a limit away.
    Limits {
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        set: Set,
    },
    /// No grant, renewal or mark in the scope. Bidders stop within one renewal of their leases.
    Pause {
        #[command(flatten)]
        scope: Scope,
    },
    /// Takes a pause back.
    Resume {
        #[command(flatten)]
        scope: Scope,
    },
    /// Records a correction of what was charged.
    Adjust(Adjust),
    /// Takes in a platform's report of what it charged: what it names is settled, what it does not name is free.
    Reconcile(Reconcile),
}

/// Whose money: the client's, a campaign's, or a campaign's on one platform.
#[derive(Debug, Clone, clap::Args)]
struct Scope {
    /// The advertiser.
    #[arg(long)]
    client: String,
    /// The campaign; the client as a whole where none is named.
    #[arg(long)]
    campaign: Option<String>,
    /// The platform.
    #[arg(long, requires = "campaign")]
    platform: Option<String>,
    /// The currency; needed for a client with campaigns in several.
    #[arg(long)]
    currency: Option<String>,
}

/// Limits to set.
#[derive(Debug, Clone, clap::Args)]
struct Set {
    /// In all, in units of the currency.
    #[arg(long, value_parser = limit)]
    total: Option<i64>,
    /// A local day.
    #[arg(long, value_parser = limit)]
    daily: Option<i64>,
    /// Any window.
    #[arg(long, value_parser = limit)]
    window: Option<i64>,
    /// The window's length, seconds, 10 to 3,600; 600 where it was never set.
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=3_600))]
    window_seconds: Option<u32>,
}

#[derive(Debug, Clone, clap::Args)]
struct Adjust {
    /// The advertiser.
    #[arg(long)]
    client: String,
    /// The campaign.
    #[arg(long)]
    campaign: String,
    /// The platform that it concerns.
    #[arg(long, default_value = "")]
    platform: String,
    /// Added to what was charged, in units of the currency: below 0 for a credit.
    #[arg(long, allow_hyphen_values = true, value_parser = nanos)]
    amount: i64,
    /// Why the platform corrects.
    #[arg(long, value_enum)]
    kind: Kind,
    /// In words; it stands in the log.
    #[arg(long)]
    reason: String,
    /// The platform's statement; its SHA-256 stands in the log.
    #[arg(long)]
    evidence: PathBuf,
    /// When the spend is accounted, as 2026-01-31T12:00:00Z: it decides the day and the invoice.
    #[arg(long)]
    at: jiff::Timestamp,
    /// One key has one effect: the same command may be given again. Default: a digest of the correction.
    #[arg(long)]
    key: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Traffic was invalid and its price is given back.
    InvalidTraffic,
    /// What was charged is corrected.
    Platform,
}

#[derive(Debug, Clone, clap::Args)]
struct Reconcile {
    /// The advertiser.
    #[arg(long)]
    client: String,
    /// The campaign.
    #[arg(long)]
    campaign: String,
    /// The platform of the leases; leases that name none where it is left out.
    #[arg(long, default_value = "")]
    platform: String,
    /// Leases that ended by then are covered, as 2026-02-01T00:00:00Z.
    #[arg(long)]
    until: jiff::Timestamp,
    /// The report: CSV with the columns `bid` and `price`. A bid's id (LEASE-SLOT) with what it was charged, or a lease's number
    /// with what all of it was charged, in units of the currency. Leases that it does not name were charged nothing.
    #[arg(long)]
    report: PathBuf,
    /// In words; it stands in the log.
    #[arg(long)]
    reason: String,
}

type Shield = SyncShieldServiceClient<Channel>;

/// Runs `kiki budget`.
///
/// # Errors
/// A report that cannot be read, or what SyncShield refused.
pub async fn run(args: Args) -> Result<(), Failure> {
    let channel = kiki::runtime::channel(&args.addr).doing(&args.addr)?;
    let mut shield = SyncShieldServiceClient::new(channel);
    let said = match args.command {
        Command::Show { client, campaign } => {
            let budgets = budgets(&mut shield, &client, campaign).await?;
            if args.json { show::json(&budgets) } else { show::text(&budgets) }
        }
        Command::Limits { scope, set } => change::limits(&mut shield, &scope, &set, args.json).await?,
        Command::Pause { scope } => change::pause(&mut shield, &scope, true, args.json).await?,
        Command::Resume { scope } => change::pause(&mut shield, &scope, false, args.json).await?,
        Command::Adjust(adjust) => change::adjust(&mut shield, adjust, args.json).await?,
        Command::Reconcile(reconcile) => change::reconcile(&mut shield, reconcile, args.json).await?,
    };
    out::say(said);
    Ok(())
}

async fn budgets(shield: &mut Shield, client: &str, campaign: Option<String>) -> Result<Vec<pb::GetBudgetResponse>, Failure> {
    let campaigns = match campaign {
        Some(campaign) => vec![campaign],
        None => campaigns(shield, client).await?,
    };
    let mut budgets = Vec::with_capacity(campaigns.len());
    for campaign in campaigns {
        budgets.push(get(shield, client, &campaign).await?);
    }
    Ok(budgets)
}

async fn get(shield: &mut Shield, client: &str, campaign: &str) -> Result<pb::GetBudgetResponse, Failure> {
    let request = pb::GetBudgetRequest { client: client.to_owned(), campaign: campaign.to_owned() };
    Ok(shield.get_budget(request).await.map_err(|status| rpc("asking for the budget", &status))?.into_inner())
}

/// The client's campaigns: the first message of the stream is the whole.
async fn campaigns(shield: &mut Shield, client: &str) -> Result<Vec<String>, Failure> {
    let request = pb::WatchCampaignsRequest { client: client.to_owned() };
    let failed = |status: &tonic::Status| rpc("asking for the campaigns", status);
    let mut stream = shield.watch_campaigns(request).await.map_err(|status| failed(&status))?.into_inner();
    let first = stream.message().await.map_err(|status| failed(&status))?.unwrap_or_default();
    let mut ids: Vec<String> = first.campaigns.into_iter().filter_map(|of| of.campaign).map(|campaign| campaign.campaign).collect();
    ids.sort_unstable();
    if ids.is_empty() { Err(Failure::new(format!("client {client:?} has no campaigns"))) } else { Ok(ids) }
}

/// A limit in micros; 0 for none.
fn limit(text: &str) -> Result<i64, String> {
    match text {
        "none" => Ok(0),
        _ => match kiki::money::parse_decimal(text, 6).map_err(|error| error.to_string())? {
            micros @ 1.. => Ok(micros),
            _ => Err("a limit is above 0, or none".to_owned()),
        },
    }
}

fn nanos(text: &str) -> Result<i64, String> {
    kiki::money::parse_decimal(text, 9).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_amounts_above_nothing_or_none() {
        assert_eq!(limit("12.5"), Ok(12_500_000));
        assert_eq!(limit("none"), Ok(0));
        assert_eq!(limit("0"), Err("a limit is above 0, or none".to_owned()));
        assert!(limit("-1").is_err() && limit("1e3").is_err() && limit("0.0000001").is_err());
    }
}
