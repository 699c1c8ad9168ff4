//! `kiki breakers`: the circuit breakers of a running SyncFlow, and what an operator does to them.

use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::pb::syncflow::v1 as pb;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::runtime::Channel;
use serde_json::json;

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Circuit breakers.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// SyncFlow's address.
    #[arg(long, global = true, env = "KIKI_FLOW", default_value = "http://127.0.0.1:50052")]
    flow: String,
    /// A JSON object a line instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Where all of them stand.
    List,
    /// The same, and then each change, until it is stopped.
    Watch,
    /// Refuses calls for so long, whatever becomes of them.
    ForceOpen {
        #[command(flatten)]
        word: Word,
        #[command(flatten)]
        until: For,
    },
    /// Lets all calls pass for so long, whatever becomes of them.
    ForceClosed {
        #[command(flatten)]
        word: Word,
        #[command(flatten)]
        until: For,
    },
    /// Ends a force: it goes by its calls again.
    Reset(Word),
    /// Opens it for one pause; its probes find out what then.
    Trip(Word),
}

/// Which, who and why.
#[derive(Debug, Clone, clap::Args)]
struct Word {
    /// "syncvalue", or "platform/" and a platform's name.
    name: String,
    /// Who says so, for the record.
    #[arg(long, env = "KIKI_OPERATOR")]
    operator: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Clone, clap::Args)]
struct For {
    /// For how long: 90s, 10m, 2h or 1d; at most 30 days.
    #[arg(long = "for", value_parser = span)]
    span: Duration,
}

type Flow = SyncFlowServiceClient<Channel>;

/// Runs `kiki breakers`.
///
/// # Errors
/// What SyncFlow refused, or that it is out of reach.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut flow = SyncFlowServiceClient::new(kiki::runtime::channel(&args.flow).doing(&args.flow)?);
    let (word, what, until) = match args.command {
        Command::List => return watch(&mut flow, args.json, 1).await,
        Command::Watch => return watch(&mut flow, args.json, u64::MAX).await,
        Command::ForceOpen { word, until } => (word, pb::BreakerOverride::ForceOpen, Some(until.span)),
        Command::ForceClosed { word, until } => (word, pb::BreakerOverride::ForceClosed, Some(until.span)),
        Command::Reset(word) => (word, pb::BreakerOverride::Automatic, None),
        Command::Trip(word) => (word, pb::BreakerOverride::Trip, None),
    };
    let until = until.map(|span| Clock::System.now().plus(span).into());
    let Word { name, operator, reason } = word;
    let request = pb::OverrideBreakerRequest { name, r#override: what.into(), operator, reason, until };
    let told = flow.override_breaker(request).await.map_err(|status| rpc("telling the breaker", &status))?.into_inner();
    told.breaker.iter().for_each(|breaker| say(breaker, args.json));
    Ok(())
}

/// Shows so many messages of WatchBreakers: the first has all.
async fn watch(flow: &mut Flow, as_json: bool, messages: u64) -> Result<(), Failure> {
    let failed = |status: tonic::Status| rpc("watching the breakers", &status);
    let mut stream = flow.watch_breakers(pb::WatchBreakersRequest {}).await.map_err(failed)?.into_inner();
    for _ in 0..messages {
        let Some(message) = stream.message().await.map_err(failed)? else { return Ok(()) };
        message.breakers.iter().for_each(|breaker| say(breaker, as_json));
    }
    Ok(())
}

fn say(breaker: &pb::BreakerStatus, as_json: bool) {
    out::say(if as_json { object(breaker) } else { line(breaker) });
}

fn object(breaker: &pb::BreakerStatus) -> String {
    let pb::BreakerStatus { name, why, changes, operator, reason, .. } = breaker;
    let state = state(breaker.state());
    json!({ "name": name, "state": state, "why": why, "changes": changes, "operator": operator, "reason": reason }).to_string()
}

fn line(breaker: &pb::BreakerStatus) -> String {
    let why = match (breaker.why.as_str(), breaker.operator.as_str()) {
        ("", _) => String::new(),
        (why, "") => format!("  {why}"),
        (why, operator) => format!("  {why} ({operator}: {})", breaker.reason),
    };
    format!("{:<24} {:<13} {:>5} changes{why}", breaker.name, state(breaker.state()), breaker.changes)
}

/// A state in words.
pub(crate) fn state(state: pb::BreakerState) -> &'static str {
    match state {
        pb::BreakerState::Unspecified => "unknown",
        pb::BreakerState::Closed => "closed",
        pb::BreakerState::Open => "open",
        pb::BreakerState::HalfOpen => "half-open",
        pb::BreakerState::ForcedOpen => "forced open",
        pb::BreakerState::ForcedClosed => "forced closed",
    }
}

/// A number and its unit.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a number above 0 with one of the units s, m, h and d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// How far `at` is into a run that began then, as minutes and seconds.
pub(crate) fn into_run(began: UnixMicros, at: UnixMicros) -> String {
    let seconds = at.since(began).as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_a_unit() {
        let read = |text| span(text).map(|span| span.as_secs());
        assert_eq!([read("90s"), read("10m"), read("2h"), read("1d")], [Ok(90), Ok(600), Ok(7_200), Ok(86_400)]);
        for wrong in ["", "s", "10", "0m", "-1s", "1.5h", "5w", "ä"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_says_who_and_why() {
        let breaker = pb::BreakerStatus {
            name: "platform/x".into(),
            state: pb::BreakerState::ForcedOpen.into(),
            why: "an operator said so".into(),
            changes: 3,
            operator: "ada".into(),
            reason: "an incident".into(),
        };
        assert_eq!(line(&breaker), "platform/x               forced open       3 changes  an operator said so (ada: an incident)");
        assert_eq!(
            object(&breaker),
            r#"{"changes":3,"name":"platform/x","operator":"ada","reason":"an incident","state":"forced open","why":"an operator said so"}"#
        );
    }
}
