//! The life of policies: proposed, shadowed, activated, rolled back. What is in force changes by a record alone, so
//! whatever fails, the last good one stays.
//!
//! Invariants: what takes force by a stage was approved by another than its author, and both are in the record; a
//! version is put once and never changes; a rollback leads to what was in force before.

use std::collections::BTreeMap;

use kiki::guardrail::Policy;
use kiki::leaf::{self, Stage, leaf::Body};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Recorded};
use super::refusal::Refusal;

/// Versions whose documents are held: 64 of at most 64 KiB are 4 MiB. The log has them all.
const MAX_HELD: usize = 64;
/// Bytes of a name and of a reason.
const MAX_TEXT: usize = 255;

/// The policies that were put, and which of them is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// The newest version; 0 before the first.
    pub newest: u64,
    /// The version in force; 0 before the first.
    pub active: u64,
    /// The version that is held against decisions without refusing; 0 is none.
    pub shadow: u64,
    /// Versions that were in force before, the latest last.
    before: Vec<u64>,
    /// Whether a version ever took force by approval.
    approved: bool,
    /// The documents: `leaf::Policy` and behind it [`Records`], encoded, which protobuf reads as one message or the other.
    held: BTreeMap<u64, Vec<u8>>,
}

/// A version's records, by their indices; none where a fold of before they were kept is all that is left.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Records {
    /// Its own.
    #[prost(uint64, optional, tag = "1000")]
    pub put: Option<u64>,
    /// That of the last approval.
    #[prost(uint64, optional, tag = "1001")]
    pub approval: Option<u64>,
    /// Who approved it.
    #[prost(string, tag = "1002")]
    pub approver: String,
}

impl Policies {
    /// A version's document, where it is held.
    #[must_use]
    pub fn document(&self, version: u64) -> Option<leaf::Policy> {
        leaf::Policy::decode(self.held.get(&version)?.as_slice()).ok()
    }

    /// All that are held, the oldest first.
    pub fn documents(&self) -> impl Iterator<Item = leaf::Policy> {
        self.held.keys().filter_map(|version| self.document(*version))
    }

    /// All that are held, with their records.
    pub fn versions(&self) -> impl Iterator<Item = (leaf::Policy, Records)> {
        let both = |held: &Vec<u8>| Some((leaf::Policy::decode(held.as_slice()).ok()?, Records::decode(held.as_slice()).ok()?));
        self.held.values().filter_map(both)
    }

    pub(super) fn check_put(&self, policy: &leaf::Policy) -> Result<(), Refusal> {
        let next = self.newest + 1;
        if policy.version != next {
            return Err(Refusal::OutOfOrder(format!("policy version {} was recorded, and {next} is next", policy.version)));
        }
        if policy.proposed && policy.author.is_empty() { Err(Refusal::field("policy.author", "is missing")) } else { Ok(()) }
    }

    pub(super) fn put(&mut self, policy: &leaf::Policy, index: u64) {
        self.newest = policy.version;
        self.hold(policy, &Records { put: Some(index), ..Default::default() });
        if !policy.proposed {
            self.enforce(policy.version);
        }
        self.forget();
    }

    pub(super) fn check_stage(&self, client: &str, step: &leaf::PolicyStage) -> Result<(), Refusal> {
        if client != leaf::OPERATOR {
            return Err(Refusal::field("client", format!("{client:?} stages no policies")));
        }
        let document = self.document(step.version);
        let document = document.ok_or_else(|| Refusal::NotFound { what: "policy version", id: step.version.to_string() })?;
        let active = self.active;
        match step.stage() {
            _ if step.author != document.author => Err(Refusal::field("author", format!("of version {} is another", step.version))),
            _ if step.actor.trim().is_empty() => Err(Refusal::field("actor", "is missing")),
            Stage::Unspecified => Err(Refusal::field("stage", "is missing")),
            Stage::RolledBack if step.version != active => Err(Refusal::OutOfOrder(format!("version {active} is in force"))),
            Stage::RolledBack if step.restored == 0 || self.before.last() != Some(&step.restored) => {
                Err(Refusal::OutOfOrder(format!("before version {active} no version was in force that is still held")))
            }
            Stage::RolledBack => Ok(()),
            _ if step.restored != 0 => Err(Refusal::field("restored", "is of a rollback")),
            _ if step.version == active => Err(Refusal::OutOfOrder(format!("version {active} is in force"))),
            Stage::Active if step.actor.trim().eq_ignore_ascii_case(step.author.trim()) => {
                Err(Refusal::field("actor", format!("{:?} is the author; another approves", step.actor)))
            }
            Stage::Shadow | Stage::Active => Ok(()),
        }
    }

    fn hold(&mut self, policy: &leaf::Policy, records: &Records) {
        self.held.insert(policy.version, [policy.encode_to_vec(), records.encode_to_vec()].concat());
    }

    pub(super) fn stage(&mut self, step: &leaf::PolicyStage, index: u64) {
        match step.stage() {
            Stage::Unspecified => {}
            Stage::Shadow => self.shadow = step.version,
            Stage::Active => {
                self.approved = true;
                let held = self.versions().find(|(policy, _)| policy.version == step.version);
                if let Some((policy, records)) = held {
                    self.hold(&policy, &Records { approval: Some(index), approver: step.actor.clone(), ..records });
                }
                self.enforce(step.version);
            }
            Stage::RolledBack => {
                self.before.pop();
                self.active = step.restored;
                if self.shadow == step.restored {
                    self.shadow = 0;
                }
            }
        }
        self.forget();
    }

    fn enforce(&mut self, version: u64) {
        if self.active > 0 {
            self.before.push(self.active);
        }
        self.active = version;
        if self.shadow == version {
            self.shadow = 0;
        }
    }

    /// Lets go of the oldest documents, but not of those in use.
    fn forget(&mut self) {
        while self.held.len() > MAX_HELD {
            let in_use = [self.active, self.shadow, self.before.last().copied().unwrap_or(0)];
            let Some(oldest) = self.held.keys().copied().find(|version| !in_use.contains(version)) else { break };
            self.held.remove(&oldest);
            self.before.retain(|version| *version != oldest);
        }
    }
}

impl Ledger {
    /// Puts the next version of the policy: proposed where it has an author, in force at once where it has none.
    ///
    /// # Errors
    /// A document that does not compile, or one without an author once a version took force by approval.
    pub fn put_policy(&mut self, policy: leaf::Policy) -> Result<(Recorded, Policy), Refusal> {
        self.put_policy_as(policy, false)
    }

    /// The same; with `activate_now` it is in force at once, whoever wrote it.
    ///
    /// # Errors
    /// As [`Ledger::put_policy`].
    pub fn put_policy_as(&mut self, mut policy: leaf::Policy, activate_now: bool) -> Result<(Recorded, Policy), Refusal> {
        let policies = &self.state.policies;
        policy.version = policies.newest + 1;
        policy.proposed = !policy.author.is_empty() && !activate_now;
        if policies.approved && !policy.proposed && !activate_now {
            return Err(Refusal::field("policy.author", "is missing, and versions of this log are approved: name an author"));
        }
        let compiled = Policy::accept(&policy).map_err(|e| Refusal::field(format!("policy.{}", e.field), e.problem))?;
        Ok((self.append(leaf::OPERATOR, ("", 0), Body::Policy(policy))?, compiled))
    }

    /// Takes a step in a version's life. For a rollback version 0 is the one in force.
    ///
    /// # Errors
    /// No such version, not its turn, or an approver who is the author.
    pub fn stage_policy(&mut self, version: u64, stage: Stage, actor: String, reason: String) -> Result<Recorded, Refusal> {
        for (field, text) in [("actor", &actor), ("reason", &reason)] {
            if text.len() > MAX_TEXT {
                return Err(Refusal::field(field, format!("has {} bytes; at most {MAX_TEXT} are taken", text.len())));
            }
        }
        let policies = &self.state.policies;
        let back = stage == Stage::RolledBack;
        let version = if back && version == 0 { policies.active } else { version };
        let restored = if back { policies.before.last().copied().unwrap_or(0) } else { 0 };
        let author = policies.document(version).map(|document| document.author).unwrap_or_default();
        let step = leaf::PolicyStage { version, stage: stage.into(), actor, reason, author, restored };
        self.append(leaf::OPERATOR, ("", 0), Body::PolicyStage(step))
    }
}
