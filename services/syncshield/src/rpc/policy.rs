//! The policy's calls: put and stage, read, explain.

use std::collections::HashMap;

use kiki::guardrail::{self, Policy, Refusals};
use kiki::leaf::{self, leaf::Body};
use kiki::pb::syncshield::v1 as pb;
use kiki::status::{self, Reason};
use tonic::Status;

use crate::domain::ledger::Ledger;
use crate::domain::policy::Records;
use crate::shadow;
use crate::store::Log;

/// Leaves that one search looks at: some seconds of reading.
const MAX_SEARCHED: u64 = 1_000_000;
/// Bytes of leaves that are read at a time.
const MAX_BYTES: usize = 1 << 20;
/// Decisions of one answer: an opportunity is held against each campaign once.
const MAX_EXPLAINED: usize = 256;

/// Whether a policy could be put.
pub(super) fn validate(policy: Option<leaf::Policy>) -> Result<pb::ValidatePolicyResponse, Status> {
    let policy = policy.ok_or_else(|| status::field("policy", "is missing"))?;
    let bytes = prost::Message::encoded_len(&policy);
    let most = leaf::MAX_BYTES - 1_024; // the leaf around it
    Ok(match Policy::accept(&policy) {
        Err(error) => pb::ValidatePolicyResponse { field: format!("policy.{}", error.field), problem: error.problem, rules: 0 },
        Ok(_) if bytes > most => pb::ValidatePolicyResponse {
            field: "policy".into(),
            problem: format!("has {bytes} bytes; at most {most} fit a leaf"),
            rules: 0,
        },
        Ok(compiled) => pb::ValidatePolicyResponse { rules: compiled.rule_ids().len() as u32, ..Default::default() },
    })
}

/// Takes a step in a version's life.
pub(super) async fn stage(log: &Log, request: pb::StagePolicyRequest) -> Result<pb::StagePolicyResponse, Status> {
    let run = move |ledger: &mut Ledger| {
        let stage = request.stage();
        let recorded = ledger.stage_policy(request.version, stage, request.actor, request.reason)?;
        Ok((recorded.index, ledger.state.policies.active, ledger.state.policies.shadow))
    };
    let (index, active_version, shadow_version) = log.run(run).await?;
    let position = Some(leaf::Position { log_id: log.id().to_owned(), index });
    Ok(pb::StagePolicyResponse { position, active_version, shadow_version })
}

/// A version, what is in force, and what the shadow would have changed.
pub(super) async fn get(log: &Log, version: u64) -> Result<pb::GetPolicyResponse, Status> {
    let run = move |ledger: &mut Ledger| {
        let policies = &ledger.state.policies;
        let version = if version == 0 { policies.active } else { version };
        Ok((policies.document(version), policies.active, policies.shadow, policies.versions().collect::<Vec<_>>()))
    };
    let (policy, active_version, shadow_version, versions) = log.run(run).await?;
    if policy.is_none() && version > 0 {
        return Err(Reason::NotFound.status(format!("policy version {version} is not held")));
    }
    let digest = policy.as_ref().map(|policy| guardrail::digest(policy).to_vec()).unwrap_or_default().into();
    let shadow = (shadow_version > 0).then(|| log.shadow().of(shadow_version));
    let versions = versions.iter().map(|(policy, records)| described(log.id(), policy, records)).collect();
    Ok(pb::GetPolicyResponse { policy, digest, active_version, shadow_version, shadow, versions })
}

fn described(log_id: &str, policy: &leaf::Policy, records: &Records) -> pb::PolicyVersion {
    let position = |index| Some(leaf::Position { log_id: log_id.to_owned(), index });
    pb::PolicyVersion {
        version: policy.version,
        digest: guardrail::digest(policy).to_vec().into(),
        author: policy.author.clone(),
        proposed: policy.proposed,
        position: records.put.and_then(position),
        approver: records.approver.clone(),
        approval: records.approval.and_then(position),
    }
}

/// The versions that are held, by their digests.
type Held = HashMap<[u8; 32], (leaf::Policy, Records)>;

/// Finds a decision and names the rules that it was made under.
pub(super) async fn explain(log: &Log, request: pb::ExplainRequest) -> Result<pb::ExplainResponse, Status> {
    if !matches!((request.opportunity.len(), request.lease_id), (16, 0) | (0, 1..)) {
        return Err(status::field("opportunity", "has 16 bytes and no lease_id beside it; or lease_id and sequence stand alone"));
    }
    let held = log.run(|ledger| Ok(ledger.state.policies.versions().collect::<Vec<_>>())).await?;
    let held: Held = held.into_iter().map(|held| (guardrail::digest(&held.0), held)).collect();
    let size = *log.committed().borrow();
    let mut next = if request.from == 0 { size.saturating_sub(MAX_SEARCHED) } else { request.from };
    let end = size.min(next.saturating_add(MAX_SEARCHED));
    let mut decisions = Vec::new();
    while next < end && decisions.len() < MAX_EXPLAINED {
        let leaves = log.read(next, MAX_BYTES).await?;
        let Some((last, _)) = leaves.last() else { break };
        next = last + 1;
        let request = request.clone();
        let found = tokio::task::spawn_blocking(move || search(&leaves, &request)).await;
        let found = found.map_err(|error| Reason::Internal.status(error.to_string()))?;
        decisions.extend(found.into_iter().map(|found| explained(log.id(), &held, found)));
    }
    decisions.truncate(MAX_EXPLAINED);
    if decisions.is_empty() {
        let what = "no such decision in the leaves searched; a decision is recorded some milliseconds after its answer";
        return Err(Reason::NotFound.status(what));
    }
    Ok(pb::ExplainResponse { decisions })
}

type Found = (u64, leaf::DecisionBatch, leaf::Decision);

fn search(leaves: &[(u64, bytes::Bytes)], request: &pb::ExplainRequest) -> Vec<Found> {
    let mut found = Vec::new();
    for (index, bytes) in leaves {
        let Ok((head, Body::Decisions(mut batch))) = leaf::decode(bytes) else { continue };
        if head.client != request.client {
            continue;
        }
        let decisions = std::mem::take(&mut batch.decisions);
        let wanted = |one: &leaf::Decision| shadow::is_of(one, &request.opportunity, request.lease_id, request.sequence);
        found.extend(decisions.into_iter().filter(wanted).map(|decision| (*index, batch.clone(), decision)));
    }
    found
}

fn explained(log_id: &str, held: &Held, (index, batch, decision): Found) -> pb::Explained {
    let found = <[u8; 32]>::try_from(batch.policy_digest.as_ref()).ok().and_then(|digest| held.get(&digest));
    let policy = found.map(|(policy, _)| policy);
    let rules = decision.rules.iter().map(|id| rule(policy, id)).collect();
    let reasons = Refusals(decision.refusals).iter().map(i32::from).collect();
    pb::Explained {
        position: Some(leaf::Position { log_id: log_id.to_owned(), index }),
        campaign: batch.campaign,
        currency: batch.currency,
        decision: Some(decision),
        reasons,
        policy_version: policy.map_or(0, |policy| policy.version),
        policy_digest: batch.policy_digest,
        rules,
        policy: found.map(|(policy, records)| described(log_id, policy, records)),
    }
}

fn rule(policy: Option<&leaf::Policy>, id: &str) -> leaf::PolicyRule {
    let found = policy.and_then(|policy| policy.rules.iter().find(|rule| rule.id == id)).cloned();
    let list = || leaf::PolicyRule { id: id.to_owned(), text: format!("the policy's own list {id}"), ..Default::default() };
    match policy {
        Some(_) => found.unwrap_or_else(list),
        None => leaf::PolicyRule { id: id.to_owned(), ..Default::default() },
    }
}
