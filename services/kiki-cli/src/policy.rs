//! `kiki policy`: reads guardrail documents, puts, shadows, activates and rolls them back, and explains decisions.

pub mod document;
pub mod replay;

use std::path::PathBuf;

use kiki::leaf::{self, Stage};
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::runtime::Channel;
use kiki::runtime::MAX_MESSAGE;

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Guardrails.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// SyncShield's address.
    #[arg(long, global = true, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    addr: String,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Checks a document, offline.
    Validate {
        /// The document, YAML or JSON.
        file: PathBuf,
    },
    /// Puts a document as the next version: proposed where it names an author, in force at once where it names none.
    Put {
        /// The document, YAML or JSON.
        file: PathBuf,
        /// In force at once although it names an author.
        #[arg(long)]
        activate_now: bool,
    },
    /// Holds a version against every decision, without refusing.
    Shadow(Step),
    /// Puts a version in force. Its author cannot.
    Activate(Step),
    /// Puts back in force what was before.
    Rollback {
        /// Who does it.
        #[arg(long)]
        actor: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// A version with its document; without one what is in force, what is proposed, and what the shadow would have changed.
    Show {
        /// The version.
        version: Option<u64>,
    },
    /// A recorded decision with the rules that it was made under.
    Explain(Explain),
}

/// A step in a version's life.
#[derive(Debug, Clone, clap::Args)]
struct Step {
    /// The version.
    version: u64,
    /// Who does it.
    #[arg(long)]
    actor: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Which decision.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("decision").required(true).args(["bid", "request"])))]
struct Explain {
    /// The advertiser.
    #[arg(long)]
    client: String,
    /// The bid's id, LEASE-SLOT.
    #[arg(long)]
    bid: Option<String>,
    /// The id of the bid request; needs the exchange and the impression.
    #[arg(long, requires_all = ["exchange", "imp"])]
    request: Option<String>,
    /// The exchange that asked.
    #[arg(long)]
    exchange: Option<String>,
    /// The impression's id in the request.
    #[arg(long)]
    imp: Option<String>,
    /// Index of the leaf to search from; 1,000,000 leaves are searched. Default: the last ones.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

type Shield = SyncShieldServiceClient<Channel>;

/// Runs `kiki policy`.
///
/// # Errors
/// A document that does not compile, or what SyncShield refused.
pub async fn run(args: Args) -> Result<(), Failure> {
    if let Command::Validate { file } = &args.command {
        let (policy, _) = document::load(file)?;
        out::say(out::table("valid", &written(&policy)));
        return Ok(());
    }
    let mut shield =
        SyncShieldServiceClient::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?).max_decoding_message_size(MAX_MESSAGE);
    match args.command {
        Command::Validate { .. } => Ok(()),
        Command::Put { file, activate_now } => put(&mut shield, &file, activate_now).await,
        Command::Shadow(step) => stage(&mut shield, step, Stage::Shadow).await,
        Command::Activate(step) => stage(&mut shield, step, Stage::Active).await,
        Command::Rollback { actor, reason } => stage(&mut shield, Step { version: 0, actor, reason }, Stage::RolledBack).await,
        Command::Show { version } => show(&mut shield, version.unwrap_or(0)).await,
        Command::Explain(explain) => self::explain(&mut shield, explain).await,
    }
}

async fn put(shield: &mut Shield, file: &std::path::Path, activate_now: bool) -> Result<(), Failure> {
    let (policy, _) = document::load(file)?;
    let document = hex::encode(&policy.document_sha256);
    let proposed = !policy.author.is_empty() && !activate_now;
    let request = pb::PutPolicyRequest { policy: Some(policy.clone()), activate_now };
    let put = shield.put_policy(request).await.map_err(|status| rpc("putting the policy", &status))?.into_inner();
    let what = if proposed { "proposed" } else { "in force" };
    let leaf = put.position.map_or(0, |position| position.index).to_string();
    let rows = [("leaf", leaf), ("policy digest", hex::encode(&put.digest)), ("document digest", document)];
    out::say(out::table(&format!("version {} {what}", put.version), &rows));
    // A warning, so that it never stands in the way of the policy.
    for warning in campaigns(shield).await.map(|known| unknown(&policy, &known)).unwrap_or_default() {
        out::warn(format_args!("{}: {warning}", file.display()));
    }
    Ok(())
}

/// What of a policy somebody wrote. The document's digest is that of the file, the policy's that of its record.
fn written(policy: &leaf::Policy) -> Vec<(&'static str, String)> {
    let lists = [&policy.blocked_countries, &policy.blocked_categories, &policy.blocked_domains, &policy.platforms_off];
    let author = if policy.author.is_empty() { "none: in force at once" } else { &policy.author };
    vec![
        ("author", author.to_owned()),
        ("bid caps", policy.bid_caps.len().to_string()),
        ("lists", lists.iter().filter(|list| !list.is_empty()).count().to_string()),
        ("rules", policy.rules.len().to_string()),
        ("document digest", if policy.document_sha256.is_empty() { "none".to_owned() } else { hex::encode(&policy.document_sha256) }),
    ]
}

/// Every client's campaigns.
async fn campaigns(shield: &mut Shield) -> Result<Vec<(String, String)>, Failure> {
    let failed = |status: tonic::Status| rpc("asking for the campaigns", &status);
    let mut stream = shield.watch_campaigns(pb::WatchCampaignsRequest::default()).await.map_err(failed)?.into_inner();
    let mut found = Vec::new();
    // All there are come at once, in messages of so many.
    while let Some(message) = stream.message().await.map_err(failed)? {
        let many = message.campaigns.len();
        found.extend(message.campaigns.into_iter().filter_map(|of| Some((of.client, of.campaign?.campaign))));
        if many < syncshield::CAMPAIGNS_A_MESSAGE {
            break;
        }
    }
    Ok(found)
}

/// The rules that are for nobody yet.
fn unknown(policy: &leaf::Policy, known: &[(String, String)]) -> Vec<String> {
    let fits = |rule: &leaf::PolicyRule, (client, campaign): &(String, String)| {
        rule.client == *client && (rule.campaign.is_empty() || rule.campaign == *campaign)
    };
    let lost = policy.rules.iter().filter(|rule| !rule.client.is_empty() && !known.iter().any(|one| fits(rule, one)));
    let scope = |rule: &leaf::PolicyRule| match rule.campaign.as_str() {
        "" => format!("client {} has no campaigns", rule.client),
        campaign => format!("there is no campaign {}/{campaign}", rule.client),
    };
    lost.map(|rule| format!("rule {} holds nothing back yet: {}", rule.id, scope(rule))).collect()
}

async fn stage(shield: &mut Shield, step: Step, stage: Stage) -> Result<(), Failure> {
    let Step { version, actor, reason } = step;
    let request = pb::StagePolicyRequest { version, stage: stage.into(), actor, reason };
    let done = shield.stage_policy(request).await.map_err(|status| rpc("staging the policy", &status))?.into_inner();
    let shadow = if done.shadow_version == 0 { "none".to_owned() } else { done.shadow_version.to_string() };
    out::say(format_args!("in force: version {}; shadow: {shadow}", done.active_version));
    Ok(())
}

async fn show(shield: &mut Shield, version: u64) -> Result<(), Failure> {
    let got = shield.get_policy(pb::GetPolicyRequest { version }).await.map_err(|status| rpc("asking for the policy", &status))?;
    let got = got.into_inner();
    let Some(policy) = &got.policy else { return Err(Failure::new("no policy is in force")) };
    let mut rows = vec![("version", policy.version.to_string())];
    if let Some(of) = got.versions.iter().find(|of| of.version == policy.version) {
        rows.push(("state", state(of, &got).to_owned()));
        rows.extend(records(of));
    }
    rows.push(("policy digest", hex::encode(&got.digest)));
    rows.extend(written(policy));
    if version > 0 {
        out::say(out::table("policy", &rows));
        out::say(document::shown(policy)?);
        return Ok(());
    }
    let proposed = got.versions.iter().filter(|of| state(of, &got) == "proposed");
    rows.extend(proposed.map(|of| ("proposed", format!("version {} by {}", of.version, of.author))));
    if let Some(counts) = &got.shadow {
        rows.push(("shadow", format!("version {}", got.shadow_version)));
        rows.push(("would refuse", out::grouped(counts.would_refuse)));
        rows.push(("would allow", out::grouped(counts.would_allow)));
        rows.push(("same", out::grouped(counts.same)));
    }
    out::say(out::table("policy", &rows));
    Ok(())
}

fn state(of: &pb::PolicyVersion, among: &pb::GetPolicyResponse) -> &'static str {
    match of.version {
        version if version == among.active_version => "in force",
        version if version == among.shadow_version => "in the shadow",
        _ if of.proposed && of.approval.is_none() => "proposed",
        _ => "no longer in force",
    }
}

/// Where the log says so, as `kiki audit proof --index` asks for it.
fn records(of: &pb::PolicyVersion) -> Vec<(&'static str, String)> {
    let put = of.position.as_ref().map(|at| ("policy leaf", at.index.to_string()));
    let approval = of.approval.as_ref().map(|at| ("approval leaf", format!("{} by {}", at.index, of.approver)));
    put.into_iter().chain(approval).collect()
}

async fn explain(shield: &mut Shield, explain: Explain) -> Result<(), Failure> {
    let request = question(explain)?;
    let answer = shield.explain(request).await.map_err(|status| rpc("explaining", &status))?.into_inner();
    answer.decisions.iter().for_each(|decision| out::say(explained(decision)));
    Ok(())
}

fn question(explain: Explain) -> Result<pb::ExplainRequest, Failure> {
    let mut request = pb::ExplainRequest { client: explain.client, from: explain.from, ..Default::default() };
    if let Some(bid) = explain.bid {
        let parts = bid.split_once('-').and_then(|(lease, slot)| Some((lease.parse().ok()?, slot.parse().ok()?)));
        (request.lease_id, request.sequence) =
            parts.ok_or_else(|| Failure::new(format!("--bid: {bid:?} is no bid's id, for example 17-4")))?;
    } else {
        let [exchange, id, imp] = [explain.exchange, explain.request, explain.imp].map(Option::unwrap_or_default);
        request.opportunity = syncflow::domain::opportunity::key(&exchange, &id, &imp).to_vec().into();
    }
    Ok(request)
}

/// A decision to be read.
fn explained(explained: &pb::Explained) -> String {
    let decision = explained.decision.clone().unwrap_or_default();
    let reasons: Vec<&str> = explained.reasons.iter().filter_map(|r| leaf::Refusal::try_from(*r).ok()).map(|r| r.as_str_name()).collect();
    let price = out::amount(i128::from(decision.price_nanos) * 1_000, &explained.currency);
    let verdict = if reasons.is_empty() { "bid".to_owned() } else { format!("refused: {}", reasons.join(", ")) };
    let version = if explained.policy_version == 0 { "an earlier one".to_owned() } else { explained.policy_version.to_string() };
    let index = explained.position.as_ref().map_or(0, |position| position.index);
    let mut rows = vec![
        ("decision", verdict),
        ("leaf", index.to_string()),
        ("CPM", price),
        ("policy", format!("version {version}, {}", hex::encode(&explained.policy_digest))),
    ];
    rows.extend(explained.policy.iter().flat_map(records));
    let says = |rule: &leaf::PolicyRule| if rule.text.is_empty() { rule.condition.clone() } else { rule.text.clone() };
    rows.extend(explained.rules.iter().map(|rule| ("rule", format!("{}  {}", rule.id, says(rule)))));
    out::table(&explained.campaign, &rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_written_is_counted_and_what_is_for_nobody_is_named() {
        let text = "{author: ada, bid_caps: {USD: 5}, blocked_countries: [PRK], rules: [
            {id: all, condition: 'true'}, {id: c, client: acme, condition: 'true'},
            {id: d, client: acme, campaign: autumn, condition: 'true'}, {id: e, client: globex, campaign: c, condition: 'true'},
            {id: f, client: globex, condition: 'true'}]}";
        let (policy, _) = document::read(text.as_bytes()).unwrap();
        let rows = written(&policy);
        assert_eq!(rows[..4].iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["ada", "1", "1", "5"]);
        let said = unknown(&policy, &[("acme".into(), "spring".into())]);
        let holds_nothing = |rule, why| format!("rule {rule} holds nothing back yet: {why}");
        let expected = [
            holds_nothing("d", "there is no campaign acme/autumn"),
            holds_nothing("e", "there is no campaign globex/c"),
            holds_nothing("f", "client globex has no campaigns"),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_bid_is_named_like_one() {
        let explain =
            |bid: &str| Explain { client: "acme".into(), bid: Some(bid.into()), request: None, exchange: None, imp: None, from: 0 };
        let asked = question(explain("17-4")).unwrap();
        assert_eq!((asked.lease_id, asked.sequence), (17, 4));
        assert!(question(explain("foo")).unwrap_err().to_string().contains("for example 17-4"));
    }
}
