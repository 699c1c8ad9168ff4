//! `kiki policy`: reads guardrail documents, puts, shadows, activates and rolls them back, and explains decisions.

pub mod document;
pub mod replay;

use std::path::PathBuf;

use kiki::guardrail::Policy;
use kiki::leaf::{self, Stage};
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use tonic::transport::Channel;

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
    /// What is in force, and what the shadow would have changed.
    Show,
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
        let (policy, compiled) = document::load(file)?;
        let author = if policy.author.is_empty() { "no author: in force at once" } else { &policy.author };
        out::say(format_args!("valid: {} rules ({author}), {}", compiled.rule_ids().len(), hex::encode(&policy.document_sha256)));
        return Ok(());
    }
    let mut shield = SyncShieldServiceClient::new(kiki::runtime::channel(&args.addr).doing(&args.addr)?);
    match args.command {
        Command::Validate { .. } => Ok(()),
        Command::Put { file, activate_now } => put(&mut shield, &file, activate_now).await,
        Command::Shadow(step) => stage(&mut shield, step, Stage::Shadow).await,
        Command::Activate(step) => stage(&mut shield, step, Stage::Active).await,
        Command::Rollback { actor, reason } => stage(&mut shield, Step { version: 0, actor, reason }, Stage::RolledBack).await,
        Command::Show => show(&mut shield).await,
        Command::Explain(explain) => self::explain(&mut shield, explain).await,
    }
}

async fn put(shield: &mut Shield, file: &std::path::Path, activate_now: bool) -> Result<(), Failure> {
    let (policy, _) = document::load(file)?;
    let proposed = !policy.author.is_empty() && !activate_now;
    let request = pb::PutPolicyRequest { policy: Some(policy), activate_now };
    let put = shield.put_policy(request).await.map_err(|status| rpc("putting the policy", &status))?.into_inner();
    let what = if proposed { "proposed" } else { "in force" };
    out::say(format_args!("version {} {what}, {}", put.version, hex::encode(&put.digest)));
    Ok(())
}

async fn stage(shield: &mut Shield, step: Step, stage: Stage) -> Result<(), Failure> {
    let Step { version, actor, reason } = step;
    let request = pb::StagePolicyRequest { version, stage: stage.into(), actor, reason };
    let done = shield.stage_policy(request).await.map_err(|status| rpc("staging the policy", &status))?.into_inner();
    let shadow = if done.shadow_version == 0 { "none".to_owned() } else { done.shadow_version.to_string() };
    out::say(format_args!("in force: version {}; shadow: {shadow}", done.active_version));
    Ok(())
}

async fn show(shield: &mut Shield) -> Result<(), Failure> {
    let got = shield.get_policy(pb::GetPolicyRequest { version: 0 }).await.map_err(|status| rpc("asking for the policy", &status))?;
    let got = got.into_inner();
    let Some(policy) = got.policy else { return Err(Failure::new("no policy is in force")) };
    let mut rows = vec![
        ("version", got.active_version.to_string()),
        ("digest", hex::encode(&got.digest)),
        ("author", if policy.author.is_empty() { "none".to_owned() } else { policy.author.clone() }),
        ("rules", Policy::compile(&policy).map_or(0, |compiled| compiled.rule_ids().len()).to_string()),
    ];
    if let Some(counts) = got.shadow {
        rows.push(("shadow", format!("version {}", got.shadow_version)));
        rows.push(("would refuse", out::grouped(counts.would_refuse)));
        rows.push(("would allow", out::grouped(counts.would_allow)));
        rows.push(("same", out::grouped(counts.same)));
    }
    out::say(out::table("policy", &rows));
    Ok(())
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
        (request.lease_id, request.sequence) = parts.ok_or_else(|| Failure::new(format!("{bid:?} is not LEASE-SLOT")))?;
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
    let says = |rule: &leaf::PolicyRule| if rule.text.is_empty() { rule.condition.clone() } else { rule.text.clone() };
    rows.extend(explained.rules.iter().map(|rule| ("rule", format!("{}  {}", rule.id, says(rule)))));
    out::table(&explained.campaign, &rows)
}
