//! The fold of the log: everything that SyncShield knows is [`State`], and a leaf changes it in one place.
//!
//! Invariants: [`State::apply`] refuses a leaf that breaks the log's own rules (index, gapless `client_seq`, monotone
//! time) or a budget's (a grant above a limit, a mark that falls, a slot that closes twice, a stale epoch), and
//! changes nothing when it refuses. It reads no clock: "now" is the leaf's `recorded_at`.

use std::collections::BTreeMap;

use kiki::attribution::Attribution;
use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use kiki::money::Micros;
use serde::{Deserialize, Serialize};

use super::budget::{CampaignState, Lease, MAX_LEASE_MICROS, MAX_SLOTS, SlotState};
use super::keys::Keys;
use super::moving::{Arriving, Came, Left};
use super::policy::Policies;
use super::refusal::Refusal;
use super::scopes::{At, Limits, Raised, Scope};

/// Senders whose last batch is remembered; the one that has been silent longest is forgotten beyond that.
const MAX_SOURCES: usize = 4_096;

/// All that follows from the log so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// How many leaves were folded.
    pub size: u64,
    /// The last leaf's time.
    pub recorded_at: UnixMicros,
    /// The last lease's number.
    pub last_lease_id: u64,
    /// The clients.
    pub clients: BTreeMap<String, ClientState>,
    /// The last batch of each sender.
    pub sources: BTreeMap<String, Source>,
    /// The policies, and which is in force.
    pub policies: Policies,
    /// Clients of other logs of which not every part has come.
    pub arriving: BTreeMap<String, Arriving>,
    /// The keys that signed the log, where the first was replaced.
    pub keys: Keys,
}

/// A sender's last batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its number.
    pub seq: u64,
    /// Where its first leaf stands.
    pub first_index: u64,
}

/// All that follows from one client's leaves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClientState {
    /// Its last leaf's number.
    pub seq: u64,
    /// Its campaigns.
    pub campaigns: BTreeMap<String, CampaignState>,
    /// Its terms (version and `leaf::Terms`, encoded) by currency.
    pub terms: BTreeMap<String, (u64, Vec<u8>)>,
    /// Who was acquired by what.
    pub attribution: Attribution,
    /// Running totals by currency.
    pub totals: BTreeMap<String, Totals>,
    /// Closed months by (currency, month).
    pub closed: BTreeMap<(String, String), Closed>,
    /// Recorded invoices by number.
    pub invoices: BTreeMap<String, Stored>,
    /// The documents of each closing, by the closing's `client_seq` and that of the period that a note corrects: one
    /// closing is invoiced once, and corrects a period once.
    pub invoiced: BTreeMap<(u64, u64), String>,
    /// What happened to invoices, by its keys.
    pub invoice_events: BTreeMap<String, Stored>,
    /// Recorded evidence by digest.
    pub evidence: BTreeMap<Vec<u8>, Stored>,
    /// Limits beside those of the campaigns.
    pub limits: BTreeMap<Scope, Limits>,
    /// The last alert of each limit: by scope, kind and whether it is a campaign's own.
    pub raised: BTreeMap<(Scope, i32, bool), Raised>,
    /// Corrections by their keys.
    pub adjustments: BTreeMap<String, Stored>,
    /// It is in another log now.
    pub left: Option<Left>,
    /// It was in another log before.
    pub came: Option<Came>,
    /// Subjects' keys that were destroyed, by their ids: the indices of their records.
    pub erased: BTreeMap<Vec<u8>, Stored>,
    /// The leaves below this index have been summed in Rollup leaves.
    pub rolled_up: u64,
}

/// A client's running totals in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// What was charged.
    pub settled_nanos: i128,
    /// For how many impressions.
    pub settlements: u64,
    /// Customers acquired.
    pub conversions: u64,
    /// Realised value.
    pub outcome_micros: i128,
    /// In how many outcomes.
    pub outcomes: u64,
    /// The `client_seq` of the last leaf that counts here.
    pub last_seq: u64,
}

/// A closed month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Where its leaf stands.
    pub at: Stored,
    /// Its bounds.
    pub bounds: (UnixMicros, UnixMicros),
}

/// Where a leaf stands, and a digest of what it says where that must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its index.
    pub index: u64,
    /// Its `client_seq`.
    pub client_seq: u64,
    /// The document's digest, or nothing.
    pub digest: Vec<u8>,
}

impl State {
    /// A campaign's state.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn campaign(&self, client: &str, campaign: &str) -> Result<&CampaignState, Refusal> {
        self.check_here(client)?;
        let found = self.clients.get(client).and_then(|client| client.campaigns.get(campaign));
        found.ok_or_else(|| Refusal::NotFound { what: "campaign", id: format!("{client}/{campaign}") })
    }

    /// The terms in force, if there are any.
    #[must_use]
    pub fn terms(&self, client: &str, currency: &str) -> Option<leaf::Terms> {
        let (_, bytes) = self.clients.get(client)?.terms.get(currency)?;
        prost::Message::decode(bytes.as_slice()).ok()
    }

    /// Takes in one leaf.
    ///
    /// # Errors
    /// The rule that it breaks; the state is then unchanged.
    pub fn apply(&mut self, head: &leaf::Leaf, body: &Body) -> Result<(), Refusal> {
        let now = self.check_head(head, body)?;
        let arrival = self.check_move(now, head, body)?;
        self.check_body(now, &head.client, body)?;
        if let Body::KeyRotated(change) = body {
            self.keys.check(&head.log_id, &head.client, change)?;
        }
        // Nothing below refuses: every condition was checked above.
        self.size += 1;
        self.recorded_at = now;
        if !head.source.is_empty() {
            self.note_source(head);
        }
        if let Body::Policy(policy) = body {
            self.policies.put(policy, head.index);
        }
        if let Body::PolicyStage(step) = body {
            self.policies.stage(step, head.index);
        }
        if let Body::KeyRotated(change) = body {
            self.keys.put(head.index, head.client_seq, change);
        }
        if let Body::LeaseGranted(granted) = body {
            self.last_lease_id = granted.lease_id;
        }
        if let Body::ClientMoved(moved) = body {
            self.take_in_move(head, arrival, moved);
            return Ok(());
        }
        let client = self.clients.entry(head.client.clone()).or_default();
        client.seq += 1;
        client.take_in(now, head, body);
        Ok(())
    }

    fn check_head(&self, head: &leaf::Leaf, body: &Body) -> Result<UnixMicros, Refusal> {
        let seq = self.next_seq(&head.client, body);
        let now = UnixMicros::from_pb(head.recorded_at.as_ref()).ok_or_else(|| Refusal::field("recorded_at", "absent or out of range"))?;
        if head.index != self.size {
            Err(Refusal::OutOfOrder(format!("index is {}, and {} leaves stand before it", head.index, self.size)))
        } else if head.client_seq != seq {
            Err(Refusal::OutOfOrder(format!("client_seq of {} is {}, and {seq} is next", head.client, head.client_seq)))
        } else if now < self.recorded_at {
            Err(Refusal::OutOfOrder(format!("recorded_at is before that of leaf {}", self.size.saturating_sub(1))))
        } else {
            Ok(now)
        }
    }

    fn check_body(&self, now: UnixMicros, client: &str, body: &Body) -> Result<(), Refusal> {
        match body {
            Body::LeaseGranted(b) => self.check_grant(now, client, b),
            Body::LeaseRenewed(b) => self.check_renewal(now, client, b),
            Body::SpendMark(b) => {
                let lease = self.live_lease(now, client, &b.campaign, b.lease_id)?;
                check_epoch(b.lease_id, lease.epoch, b.epoch)?;
                self.check_running(client, &b.campaign, &lease.platform)?;
                let nanos = i128::from(b.amount_nanos);
                let rises = b.sequence >= lease.mark_sequence && nanos >= lease.mark_nanos;
                let fits = b.sequence <= lease.slots && nanos <= lease.amount.nanos();
                (rises && fits).then_some(()).ok_or_else(|| {
                    Refusal::OutOfOrder(format!(
                        "mark of lease {} at slot {} and {nanos} nanos: it stands at {} and {}, and ends at {} and {}",
                        b.lease_id,
                        b.sequence,
                        lease.mark_sequence,
                        lease.mark_nanos,
                        lease.slots,
                        lease.amount.nanos()
                    ))
                })
            }
            Body::LeaseReturned(b) => {
                let lease = self.lease(client, &b.campaign, b.lease_id)?;
                check_epoch(b.lease_id, lease.epoch, b.epoch)?;
                if lease.returned {
                    return Err(Refusal::LeaseEnded { lease_id: b.lease_id });
                }
                let nanos = i128::from(b.amount_nanos);
                let within = b.sequence <= lease.mark_sequence && nanos <= lease.mark_nanos;
                let covers = b.sequence >= lease.closed_slots && nanos >= lease.closed_nanos;
                (within && covers).then_some(()).ok_or_else(|| {
                    Refusal::OutOfOrder(format!(
                        "return of lease {} at slot {} and {nanos} nanos: its mark is {} and {}, and {} and {} are closed",
                        b.lease_id, b.sequence, lease.mark_sequence, lease.mark_nanos, lease.closed_slots, lease.closed_nanos
                    ))
                })
            }
            Body::Settlements(b) => self.check_settlements(client, b),
            Body::Voids(b) => self.check_open(client, &b.campaign, b.lease_id, b.voids.iter().map(|v| (v.sequence, v.max_nanos))),
            Body::Campaign(b) => {
                let version = self.campaign(client, &b.campaign).map_or(0, |campaign| campaign.version) + 1;
                check_version("campaign", b.version, version)?;
                self.check_zone(client, b)
            }
            Body::Terms(b) => {
                let version = self.clients.get(client).and_then(|c| c.terms.get(&b.currency)).map_or(0, |(version, _)| *version) + 1;
                check_version("terms", b.version, version)
            }
            Body::Invoice(b) => match self.clients.get(client).and_then(|c| c.invoiced.get(&(b.period_closed_seq, b.corrects_seq))) {
                Some(number) => Err(Refusal::OutOfOrder(format!("the closing at {} was invoiced as {number}", b.period_closed_seq))),
                None => Ok(()),
            },
            Body::Policy(b) => self.policies.check_put(b),
            Body::PolicyStage(b) => self.policies.check_stage(client, b),
            Body::Limits(b) => self.check_limits(client, b),
            Body::SpendAdjustment(b) => self.check_adjustment(now, client, b),
            Body::BudgetAlert(b) => self.check_alert(now, client, b),
            Body::Erased(b) => self.check_erased(client, b),
            Body::InvoiceEvent(b) => self.check_invoice_event(client, b),
            Body::Rollup(b) => self.check_rollup(client, b),
            _ => Ok(()),
        }
    }

    /// Invariants 1 and 2: no grant takes settled + held + leased above a limit in force, of any of its scopes.
    fn check_grant(&self, now: UnixMicros, client: &str, grant: &leaf::LeaseGranted) -> Result<(), Refusal> {
        let day_start = UnixMicros::from_pb(grant.day_start.as_ref()).unwrap_or_default();
        self.check_running(client, &grant.campaign, &grant.platform)?;
        if grant.lease_id != self.last_lease_id + 1 {
            return Err(Refusal::OutOfOrder(format!("lease {} is granted, and {} is next", grant.lease_id, self.last_lease_id + 1)));
        }
        if !(1..=MAX_LEASE_MICROS).contains(&grant.amount_micros) || !(1..=MAX_SLOTS).contains(&grant.slots) {
            return Err(Refusal::field("amount_micros", format!("{} micros in {} slots", grant.amount_micros, grant.slots)));
        }
        let asked = Micros::new(grant.amount_micros).nanos();
        let at = At { now, day: day_start, commitments: true, outage: None };
        let available = self.available(at, client, &grant.campaign, &grant.platform)?;
        if asked > available.nanos {
            let (available_nanos, limit) = (available.nanos, available.limit);
            return Err(Refusal::Exhausted { campaign: grant.campaign.clone(), limit, available_nanos, least_nanos: asked });
        }
        Ok(())
    }

    /// A batch of charges says of its lease what the lease says of itself: its day decides which invoice the spend is on.
    fn check_settlements(&self, client: &str, batch: &leaf::SettlementBatch) -> Result<(), Refusal> {
        let lease = self.lease(client, &batch.campaign, batch.lease_id)?;
        let currency = &self.campaign(client, &batch.campaign)?.currency;
        let said = (UnixMicros::from_pb(batch.granted_at.as_ref()), UnixMicros::from_pb(batch.day_start.as_ref()));
        if batch.currency != *currency || said != (Some(lease.granted_at), Some(lease.day_start)) {
            return Err(Refusal::field(
                "settlements",
                format!("currency, granted_at or day_start are not those of lease {}", batch.lease_id),
            ));
        }
        self.check_open(client, &batch.campaign, batch.lease_id, batch.settlements.iter().map(|s| (s.sequence, s.max_nanos)))
    }

    /// Each slot closes once.
    fn check_open(&self, client: &str, campaign: &str, lease_id: u64, slots: impl Iterator<Item = (u32, i64)>) -> Result<(), Refusal> {
        let lease = self.lease(client, campaign, lease_id)?;
        let mut seen = std::collections::BTreeSet::new();
        for (sequence, max_nanos) in slots {
            if sequence >= lease.slots || max_nanos < 0 {
                return Err(Refusal::field("sequence", format!("slot {sequence} of {} holding {max_nanos} nanos", lease.slots)));
            }
            if lease.slot(sequence) != SlotState::Open || !seen.insert(sequence) {
                return Err(Refusal::OutOfOrder(format!("slot {sequence} of lease {lease_id} is closed")));
            }
        }
        Ok(())
    }

    /// A lease of which something may still come.
    pub(crate) fn lease(&self, client: &str, campaign: &str, lease_id: u64) -> Result<&Lease, Refusal> {
        let lease = self.campaign(client, campaign)?.leases.get(&lease_id);
        lease.ok_or_else(|| Refusal::NotFound { what: "lease", id: lease_id.to_string() })
    }

    /// A lease that may be marked and renewed.
    pub(crate) fn live_lease(&self, now: UnixMicros, client: &str, campaign: &str, lease_id: u64) -> Result<&Lease, Refusal> {
        let lease = self.lease(client, campaign, lease_id)?;
        if lease.lives(now) { Ok(lease) } else { Err(Refusal::LeaseEnded { lease_id }) }
    }

    fn note_source(&mut self, head: &leaf::Leaf) {
        let source = self.sources.entry(head.source.clone()).or_default();
        if source.seq != head.source_seq {
            *source = Source { seq: head.source_seq, first_index: head.index };
        }
        if self.sources.len() > MAX_SOURCES
            && let Some(oldest) = self.sources.iter().min_by_key(|(_, source)| source.first_index).map(|(name, _)| name.clone())
        {
            self.sources.remove(&oldest);
        }
    }
}

impl ClientState {
    fn take_in(&mut self, now: UnixMicros, head: &leaf::Leaf, body: &Body) {
        let stored = |digest: &[u8]| Stored { index: head.index, client_seq: head.client_seq, digest: digest.to_vec() };
        match body {
            Body::Decisions(_) | Body::Access(_) | Body::Policy(_) | Body::PolicyStage(_) | Body::KeyRotated(_) | Body::ClientMoved(_) => {}
            Body::LeaseGranted(b) => {
                if let Some(campaign) = self.campaigns.get_mut(&b.campaign) {
                    campaign.grant(now, b);
                    campaign.forget_done(now); // once a grant, so that the leases of a campaign stay few
                }
            }
            Body::LeaseRenewed(b) => self.with_lease(&b.campaign, b.lease_id, |lease| {
                lease.epoch = b.epoch;
                lease.expires_at = UnixMicros::from_pb(b.expires_at.as_ref()).unwrap_or(lease.expires_at);
            }),
            Body::SpendMark(b) => self.with_lease(&b.campaign, b.lease_id, |lease| {
                (lease.mark_sequence, lease.mark_nanos) = (b.sequence, b.amount_nanos.into());
            }),
            Body::LeaseReturned(b) => self.with_lease(&b.campaign, b.lease_id, |lease| {
                lease.give_back(now, b.sequence, b.amount_nanos.into());
            }),
            Body::Settlements(b) => self.settle(head, b),
            Body::Voids(b) => {
                let reported = b.voids.iter().any(|void| !void.evidence.is_empty());
                self.with_lease(&b.campaign, b.lease_id, |lease| lease.reconciled |= reported);
                if let Some(campaign) = self.campaigns.get_mut(&b.campaign) {
                    b.voids.iter().for_each(|void| campaign.close(b.lease_id, void.sequence, void.max_nanos, None));
                }
            }
            Body::Conversion(b) => {
                self.attribution.converted(b);
                self.totals.entry(b.currency.clone()).or_default().conversions += 1;
                if let Some(campaign) = self.campaigns.get_mut(&b.campaign) {
                    campaign.conversions += 1;
                }
            }
            Body::Outcome(b) => {
                self.attribution.observed(b, head.index);
                let totals = self.totals.entry(b.currency.clone()).or_default();
                totals.outcome_micros += i128::from(b.value_micros);
                totals.outcomes += 1;
                totals.last_seq = head.client_seq;
            }
            Body::Terms(b) => {
                self.terms.insert(b.currency.clone(), (b.version, prost::Message::encode_to_vec(b)));
            }
            Body::Campaign(b) => self.put_campaign(b),
            Body::PeriodClosed(b) => {
                let time = |t: &Option<prost_types::Timestamp>| UnixMicros::from_pb(t.as_ref()).unwrap_or_default();
                let closed = Closed { at: stored(&[]), bounds: (time(&b.period_start), time(&b.period_end)) };
                self.closed.insert((b.currency.clone(), b.month.clone()), closed);
            }
            Body::Limits(b) => self.put_limits(b),
            Body::BudgetAlert(b) => self.raise(b),
            Body::Rollup(b) => self.rolled_up = b.last,
            Body::Erased(b) => {
                self.erased.insert(b.key_id.to_vec(), stored(&[]));
            }
            Body::SpendAdjustment(b) => self.adjust(head, b),
            Body::Invoice(b) => {
                self.invoiced.insert((b.period_closed_seq, b.corrects_seq), b.number.clone());
                self.invoices.insert(b.number.clone(), stored(&b.document_sha256));
            }
            Body::InvoiceEvent(b) => {
                self.invoice_events.insert(b.key.clone(), stored(&super::invoice_event::digest(b)));
            }
            Body::Evidence(b) => {
                self.evidence.insert(b.document_sha256.to_vec(), stored(&b.document_sha256));
            }
        }
    }

    fn adjust(&mut self, head: &leaf::Leaf, adjustment: &leaf::SpendAdjustment) {
        let stored = Stored { index: head.index, client_seq: head.client_seq, digest: super::adjust::digest(adjustment).to_vec() };
        self.adjustments.insert(adjustment.key.clone(), stored);
        let totals = self.totals.entry(adjustment.currency.clone()).or_default();
        totals.settled_nanos += i128::from(adjustment.amount_nanos);
        totals.last_seq = head.client_seq;
        if let Some(campaign) = self.campaigns.get_mut(&adjustment.campaign) {
            campaign.adjust(adjustment);
        }
    }

    fn settle(&mut self, head: &leaf::Leaf, batch: &leaf::SettlementBatch) {
        self.attribution.settled(batch);
        let totals = self.totals.entry(batch.currency.clone()).or_default();
        totals.last_seq = head.client_seq;
        for settlement in &batch.settlements {
            totals.settled_nanos += i128::from(settlement.price_nanos);
            totals.settlements += 1;
            if let Some(campaign) = self.campaigns.get_mut(&batch.campaign) {
                campaign.close(
                    batch.lease_id,
                    settlement.sequence,
                    settlement.max_nanos,
                    Some((settlement.price_nanos, &settlement.platform)),
                );
            }
        }
    }

    fn put_campaign(&mut self, document: &leaf::Campaign) {
        let campaign = self.campaigns.entry(document.campaign.clone()).or_default();
        campaign.document = prost::Message::encode_to_vec(document);
        campaign.version = document.version;
        campaign.currency.clone_from(&document.currency);
        campaign.paused = document.paused;
        campaign.zone.clone_from(&document.zone);
        campaign.limit_total = Micros::new(document.limit_total_micros);
        campaign.limit_daily = Micros::new(document.limit_daily_micros);
    }

    fn with_lease(&mut self, campaign: &str, lease_id: u64, change: impl FnOnce(&mut Lease)) {
        if let Some(lease) = self.campaigns.get_mut(campaign).and_then(|campaign| campaign.leases.get_mut(&lease_id)) {
            change(lease);
        }
    }
}

pub(crate) fn check_epoch(lease_id: u64, epoch: u64, given: u64) -> Result<(), Refusal> {
    if epoch == given { Ok(()) } else { Err(Refusal::StaleEpoch { lease_id, epoch, given }) }
}

fn check_version(what: &str, given: u64, next: u64) -> Result<(), Refusal> {
    if given == next { Ok(()) } else { Err(Refusal::OutOfOrder(format!("{what} version {given} was recorded, and {next} is next"))) }
}
