//! From requests to leaves. A request is checked against the state, becomes leaf bodies, and the same fold that an
//! auditor runs takes each of them in; the shell makes the batch durable before anybody hears of it.
//!
//! Invariants: one idempotency key has one effect; a request has all of its effect or none; the bytes of a leaf are
//! encoded once. Not here: files, signatures, time.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::framed::Frames;
use kiki::leaf::{self, leaf::Body};
use kiki::money::{Micros, NANOS_PER_MICRO};
use prost::Message as _;

use super::budget::{CampaignState, Lease, MAX_LEASE_MICROS, MAX_SLOTS, SlotState};
use super::document;
use super::outage::Outage;
use super::refusal::Refusal;
use super::scopes::DEFAULT_WINDOW_SECONDS;
use super::state::{ClientState, State, Stored, Totals, check_epoch};

/// Items of one request: with 256 bytes an item, a quarter of a megabyte.
pub const MAX_ITEMS: usize = 1_024;
/// Settlements in one leaf: about 150 bytes each, 38 KiB of the 64 that a leaf may have.
const MAX_PER_LEAF: usize = 256;

/// The state with the leaves that are not durable yet.
#[derive(Debug)]
pub struct Ledger {
    /// The fold of the log, pending leaves included.
    pub state: State,
    log_id: String,
    now: UnixMicros,
    /// Leaves of the request that is being answered.
    open: Vec<leaf::Leaf>,
    /// Leaves of whole requests, encoded.
    pending: Frames,
    catalog_changed: bool,
    pub(super) outage: Option<Outage>,
}

/// A lease or reservation that is asked for.
#[derive(Debug, Clone)]
pub struct LeaseAsk {
    /// One key has one effect.
    pub key: String,
    /// Whose budget.
    pub client: String,
    /// Which campaign's.
    pub campaign: String,
    /// Who will hold it.
    pub holder: String,
    /// The most that is of use.
    pub amount: Micros,
    /// The least that is of use.
    pub least: Micros,
    /// The mark to start with: slots and nanos.
    pub mark: (u32, i64),
    /// How long it lives.
    pub ttl: Duration,
    /// A single slot, marked at once.
    pub reservation: bool,
    /// The one platform that it is spent on, or empty.
    pub platform: String,
}

/// A lease as it stands.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Its number.
    pub lease_id: u64,
    /// Its state; of one that is forgotten since, none.
    pub lease: Option<Lease>,
    /// The key had been used: nothing was granted now.
    pub duplicate: bool,
}

/// What became of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotOutcome {
    /// It was closed.
    Applied,
    /// It had been closed, in the same way.
    Duplicate,
    /// It had been closed in another way: nothing changed.
    Conflict(String),
    /// It cannot be closed, and why.
    Refused(String),
}

/// Closes one slot.
#[derive(Debug, Clone)]
pub struct Closing<T> {
    /// Whose.
    pub client: String,
    /// Which campaign's.
    pub campaign: String,
    /// Which lease's.
    pub lease_id: u64,
    /// With what.
    pub what: T,
}

/// A record that is not a budget's.
#[derive(Debug, Clone)]
pub enum Item {
    /// What SyncFlow decided.
    Decisions(leaf::DecisionBatch),
    /// A purchase or refund.
    Purchase(leaf::Outcome),
    /// A document outside the log.
    Evidence(leaf::Evidence),
    /// The end of a client's month: currency, month and bounds are given, the rest is filled in.
    ClosePeriod(leaf::PeriodClosed),
    /// An invoice that was issued.
    Invoice(leaf::Invoice),
}

/// Where a record stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its index.
    pub index: u64,
    /// Its number in its client's stream; 0 where the record is an old one.
    pub client_seq: u64,
    /// It had been recorded before.
    pub duplicate: bool,
    /// The campaign that a purchase is attributed to.
    pub attributed_campaign: String,
}

impl Ledger {
    /// A ledger over what was folded so far.
    #[must_use]
    pub fn new(log_id: String, state: State) -> Self {
        Self { now: state.recorded_at, state, log_id, open: Vec::new(), pending: Frames::default(), catalog_changed: false, outage: None }
    }

    /// Starts anew from a state, and waits for the same holders.
    #[must_use]
    pub fn anew(&self, state: State) -> Self {
        Self { outage: self.outage, ..Self::new(self.log_id.clone(), state) }
    }

    /// Moves "now" on; it never goes back.
    pub fn set_now(&mut self, now: UnixMicros) {
        self.now = now.max(self.state.recorded_at);
    }

    /// The log that it writes.
    pub(super) fn log_id(&self) -> &str {
        &self.log_id
    }

    /// Now, as the next leaf will have it.
    #[must_use]
    pub fn now(&self) -> UnixMicros {
        self.now
    }

    /// Ends a request: its leaves will be on disk together or not at all.
    pub fn seal(&mut self) {
        let last = self.open.len().saturating_sub(1);
        for (i, leaf) in self.open.drain(..).enumerate() {
            let leaf = leaf::Leaf { continued: i < last, ..leaf };
            let encode = |out: &mut Vec<u8>| leaf.encode(out).expect("a vector grows");
            self.pending.push_with(encode).expect("its length was checked when it was appended");
        }
    }

    /// The leaves of the requests since the last call, in order.
    #[must_use]
    pub fn take_pending(&mut self) -> Frames {
        self.seal();
        std::mem::take(&mut self.pending)
    }

    /// Whether campaigns, terms or the policy changed since the last call.
    #[must_use]
    pub fn take_catalog_changed(&mut self) -> bool {
        std::mem::take(&mut self.catalog_changed)
    }

    /// How many leaves wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn append(&mut self, client: &str, source: (&str, u64), body: Body) -> Result<Recorded, Refusal> {
        let client_seq = self.state.next_seq(client, &body);
        let index = self.state.size;
        let mut leaf = leaf::Leaf {
            log_id: self.log_id.clone(),
            index,
            client: client.to_owned(),
            client_seq,
            recorded_at: Some(self.now.into()),
            source: source.0.to_owned(),
            source_seq: source.1,
            continued: true, // as at its longest
            body: Some(body),
        };
        let len = leaf.encoded_len();
        if len > leaf::MAX_BYTES {
            return Err(Refusal::TooMany { field: "leaf bytes".into(), count: len, limit: leaf::MAX_BYTES });
        }
        let body = leaf.body.take().unwrap_or_else(|| unreachable!("set above"));
        self.state.apply(&leaf, &body)?;
        self.catalog_changed |= changes_catalog(&body);
        let charged = match &body {
            Body::Settlements(b) => Some(b.campaign.clone()),
            Body::SpendAdjustment(b) => Some(b.campaign.clone()),
            Body::Campaign(b) => Some(b.campaign.clone()),
            Body::Limits(b) => Some(b.campaign.clone()),
            _ => None,
        };
        self.open.push(leaf::Leaf { body: Some(body), ..leaf });
        if let Some(campaign) = charged {
            self.raise_alerts(client, &campaign);
        }
        Ok(Recorded { index, client_seq, ..Default::default() })
    }

    /// Sets money aside, or answers with what the key was granted before.
    ///
    /// # Errors
    /// No such campaign, paused, or less than `least` is left.
    pub fn lease(&mut self, ask: &LeaseAsk) -> Result<Granted, Refusal> {
        let campaign = self.state.campaign(&ask.client, &ask.campaign)?;
        if let Some(lease_id) = campaign.lease_of_key(&ask.key) {
            return Ok(Granted { lease_id, lease: campaign.leases.get(&lease_id).cloned(), duplicate: true });
        }
        let grant = self.grant(ask, campaign)?;
        let lease_id = grant.lease_id;
        self.append(&ask.client, ("", 0), Body::LeaseGranted(grant.clone()))?;
        if ask.mark.0 > 0 && !ask.reservation {
            let amount_nanos = ask.mark.1.min((grant.amount_micros).saturating_mul(NANOS_PER_MICRO as i64));
            let mark =
                leaf::SpendMark { lease_id, epoch: 1, sequence: ask.mark.0.min(MAX_SLOTS), amount_nanos, campaign: ask.campaign.clone() };
            self.append(&ask.client, ("", 0), Body::SpendMark(mark))?;
        }
        let lease = self.state.lease(&ask.client, &ask.campaign, lease_id)?.clone();
        Ok(Granted { lease_id, lease: Some(lease), duplicate: false })
    }

    fn grant(&self, ask: &LeaseAsk, campaign: &CampaignState) -> Result<leaf::LeaseGranted, Refusal> {
        self.check_active(&ask.client, &ask.campaign)?;
        if ask.amount <= Micros::ZERO || ask.least <= Micros::ZERO || ask.least > ask.amount {
            return Err(Refusal::field(
                "amount_micros",
                format!("{} with at least {}; both are above 0, the least not above the amount", ask.amount.get(), ask.least.get()),
            ));
        }
        if ask.mark.1 < 0 {
            return Err(Refusal::field("mark_nanos", "is below 0"));
        }
        let document = leaf::Campaign::decode(campaign.document.as_slice()).map_err(|e| Refusal::field("campaign", e))?;
        let (day_start, day_end) = document::local_day(&document.zone, self.now)?;
        self.state.check_running(&ask.client, &ask.campaign, &ask.platform)?;
        let available = self.state.available(self.at(day_start), &ask.client, &ask.campaign, &ask.platform)?;
        if ask.least.nanos() > available.nanos {
            let (available_nanos, limit) = (available.nanos, available.limit);
            return Err(Refusal::Exhausted { campaign: ask.campaign.clone(), limit, available_nanos, least_nanos: ask.least.nanos() });
        }
        let most = fair_share(self.now, campaign, ask, available.nanos).min(i128::from(MAX_LEASE_MICROS)) as i64;
        Ok(leaf::LeaseGranted {
            lease_id: self.state.last_lease_id + 1,
            epoch: 1,
            campaign: ask.campaign.clone(),
            holder: ask.holder.clone(),
            currency: campaign.currency.clone(),
            amount_micros: ask.amount.get().min(most),
            granted_at: Some(self.now.into()),
            expires_at: Some(self.now.plus(ask.ttl).min(day_end).into()),
            day_start: Some(day_start.into()),
            day_end: Some(day_end.into()),
            key: ask.key.clone(),
            reservation: ask.reservation,
            slots: if ask.reservation { 1 } else { MAX_SLOTS },
            platform: ask.platform.clone(),
        })
    }

    /// A campaign that its own document pauses grants, renews and marks nothing.
    fn check_active(&self, client: &str, campaign: &str) -> Result<(), Refusal> {
        let paused = self.state.campaign(client, campaign)?.paused;
        if paused { Err(Refusal::Inactive { campaign: campaign.to_owned(), why: "is paused" }) } else { Ok(()) }
    }

    /// Extends a lease and raises its epoch.
    ///
    /// # Errors
    /// It has ended, or the epoch is not its own.
    pub fn renew(&mut self, client: &str, campaign: &str, lease_id: u64, epoch: u64, ttl: Duration) -> Result<Lease, Refusal> {
        let lease = self.renewable(client, campaign, lease_id, epoch)?;
        self.check_active(client, campaign)?;
        let expires_at = self.now.plus(ttl).min(lease.day_end).max(lease.expires_at);
        let renewed = leaf::LeaseRenewed { lease_id, epoch: epoch + 1, expires_at: Some(expires_at.into()), campaign: campaign.to_owned() };
        self.append(client, ("", 0), Body::LeaseRenewed(renewed))?;
        self.state.lease(client, campaign, lease_id).cloned()
    }

    /// Moves a lease's mark; one that is not above what stands changes nothing.
    ///
    /// # Errors
    /// It has ended, the epoch is not its own, or the mark lies beyond the lease.
    pub fn mark(&mut self, client: &str, mark: leaf::SpendMark) -> Result<(), Refusal> {
        let lease = self.state.live_lease(self.now, client, &mark.campaign, mark.lease_id)?;
        check_epoch(mark.lease_id, lease.epoch, mark.epoch)?;
        if mark.sequence <= lease.mark_sequence && i128::from(mark.amount_nanos) <= lease.mark_nanos {
            return Ok(());
        }
        self.check_active(client, &mark.campaign)?;
        self.append(client, ("", 0), Body::SpendMark(mark)).map(drop)
    }

    /// Ends a lease at what was used of it. Says what became free, nanos.
    ///
    /// # Errors
    /// It was returned, the epoch is not its own, or more was used than marked.
    pub fn give_back(&mut self, client: &str, returned: leaf::LeaseReturned) -> Result<i128, Refusal> {
        let (campaign, lease_id) = (returned.campaign.clone(), returned.lease_id);
        let before = self.state.lease(client, &campaign, lease_id)?.committed(self.now);
        self.append(client, ("", 0), Body::LeaseReturned(returned))?;
        let after = self.state.lease(client, &campaign, lease_id)?.committed(self.now);
        Ok(before - after)
    }

    /// Closes slots with their charges: one leaf for each run of items of one lease.
    pub fn settle(&mut self, items: Vec<Closing<leaf::Settlement>>) -> Vec<SlotOutcome> {
        self.close(
            items,
            SlotState::Charged,
            |s| s.sequence,
            |ledger, client, campaign, lease_id, mut settlements: Vec<leaf::Settlement>| {
                let state = ledger.state.campaign(client, campaign)?;
                let lease = ledger.state.lease(client, campaign, lease_id)?;
                for settlement in &mut settlements {
                    settlement.excess = settlement.price_nanos > settlement.max_nanos || settlement.sequence >= lease.mark_sequence;
                }
                let (granted_at, day_start) = (Some(lease.granted_at.into()), Some(lease.day_start.into()));
                let batch = leaf::SettlementBatch {
                    lease_id,
                    campaign: campaign.to_owned(),
                    currency: state.currency.clone(),
                    granted_at,
                    day_start,
                    settlements,
                };
                ledger.append(client, ("", 0), Body::Settlements(batch))
            },
        )
    }

    /// Closes slots that cost nothing.
    pub fn void(&mut self, items: Vec<Closing<leaf::Void>>) -> Vec<SlotOutcome> {
        self.close(
            items,
            SlotState::Void,
            |v| v.sequence,
            |ledger, client, campaign, lease_id, voids| {
                let batch = leaf::VoidBatch { lease_id, campaign: campaign.to_owned(), voids };
                ledger.append(client, ("", 0), Body::Voids(batch))
            },
        )
    }

    fn close<T>(
        &mut self,
        items: Vec<Closing<T>>,
        becomes: SlotState,
        sequence: impl Fn(&T) -> u32,
        write: impl Fn(&mut Self, &str, &str, u64, Vec<T>) -> Result<Recorded, Refusal>,
    ) -> Vec<SlotOutcome> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while let Some(first) = items.next() {
            let (client, campaign, lease_id) = (first.client, first.campaign, first.lease_id);
            let mut run = Vec::new();
            let mut taken = std::collections::BTreeSet::new();
            let mut next = Some(first.what);
            let start = outcomes.len();
            while let Some(what) = next {
                let outcome = self.slot(&client, &campaign, lease_id, sequence(&what), becomes);
                let outcome =
                    if outcome == SlotOutcome::Applied && !taken.insert(sequence(&what)) { SlotOutcome::Duplicate } else { outcome };
                if outcome == SlotOutcome::Applied {
                    run.push(what);
                }
                outcomes.push(outcome);
                let same = |i: &Closing<T>| i.client == client && i.campaign == campaign && i.lease_id == lease_id;
                next = if run.len() < MAX_PER_LEAF { items.next_if(same).map(|i| i.what) } else { None };
            }
            if !run.is_empty()
                && let Err(refusal) = write(self, &client, &campaign, lease_id, run)
            {
                let refused = |outcome: &mut SlotOutcome| {
                    if *outcome == SlotOutcome::Applied {
                        *outcome = SlotOutcome::Refused(refusal.to_string())
                    }
                };
                outcomes[start..].iter_mut().for_each(refused);
            }
        }
        outcomes
    }

    fn slot(&self, client: &str, campaign: &str, lease_id: u64, sequence: u32, becomes: SlotState) -> SlotOutcome {
        match self.state.lease(client, campaign, lease_id) {
            Ok(lease) if sequence >= lease.slots => SlotOutcome::Refused(format!("slot {sequence}: lease {lease_id} has {}", lease.slots)),
            Ok(lease) => match lease.slot(sequence) {
                SlotState::Open => SlotOutcome::Applied,
                was if was == becomes => SlotOutcome::Duplicate,
                was => SlotOutcome::Conflict(format!("slot {sequence} of lease {lease_id} is {was:?}, and would become {becomes:?}")),
            },
            // A lease is forgotten long after all of it that was spent is closed.
            Err(Refusal::NotFound { what: "lease", .. }) if (1..=self.state.last_lease_id).contains(&lease_id) => SlotOutcome::Duplicate,
            Err(refusal) => SlotOutcome::Refused(refusal.to_string()),
        }
    }

    /// Records items of a sender's batch, or of none. A batch that came before has no second effect.
    ///
    /// # Errors
    /// The first item that cannot be taken, or a batch that does not follow: nothing was recorded then.
    pub fn record(&mut self, source: &str, source_seq: u64, items: Vec<(String, Item)>) -> Result<Vec<Recorded>, Refusal> {
        if !source.is_empty() {
            let last = self.state.sources.get(source).cloned().unwrap_or_default();
            if source_seq <= last.seq && source_seq > 0 {
                let known = source_seq == last.seq;
                let old = |i: usize| Recorded {
                    index: if known { last.first_index + i as u64 } else { 0 },
                    duplicate: true,
                    ..Default::default()
                };
                return Ok((0..items.len()).map(old).collect());
            }
            if source_seq != last.seq + 1 {
                return Err(Refusal::OutOfOrder(format!("source_seq of {source} is {source_seq}, and {} is next", last.seq + 1)));
            }
        }
        // Two of these could contradict each other, and a request is taken whole or not at all.
        if items.len() > 1 && items.iter().any(|(_, item)| matches!(item, Item::ClosePeriod(_) | Item::Invoice(_))) {
            return Err(Refusal::field("items", "a period or an invoice comes alone"));
        }
        for (i, (client, item)) in items.iter().enumerate() {
            self.check_item(&format!("items[{i}]"), client, item, !source.is_empty())?;
        }
        items.into_iter().map(|(client, item)| self.record_one(&client, (source, source_seq), item)).collect()
    }

    fn check_item(&self, path: &str, client: &str, item: &Item, sourced: bool) -> Result<(), Refusal> {
        let known = self.state.clients.get(client);
        let state = known.ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        self.state.check_here(client)?;
        match item {
            Item::Decisions(_) if !sourced => Err(Refusal::field(format!("{path}.decisions"), "come in a batch with a source")),
            Item::Decisions(batch) => {
                let len = batch.encoded_len();
                let limit = leaf::MAX_BYTES - 512; // the head of the leaf
                if len > limit { Err(Refusal::TooMany { field: format!("{path}.decisions bytes"), count: len, limit }) } else { Ok(()) }
            }
            _ if sourced => Err(Refusal::field(path, "has a key of its own and comes without a source")),
            Item::Purchase(outcome) => document::check_outcome(path, outcome),
            Item::Evidence(evidence) => document::check_evidence(path, evidence),
            Item::ClosePeriod(period) => self.check_close(state, path, period),
            Item::Invoice(invoice) => check_invoice(state, path, invoice),
        }
    }

    fn check_close(&self, state: &ClientState, path: &str, period: &leaf::PeriodClosed) -> Result<(), Refusal> {
        let bounds = document::check_period(path, period)?;
        if !state.terms.contains_key(&period.currency) {
            return Err(Refusal::NotFound { what: "terms in currency", id: period.currency.clone() });
        }
        if let Some(came) = &state.came {
            return Err(Refusal::CameFrom { log_id: came.log_id.clone() });
        }
        if self.now < bounds.1 {
            return Err(Refusal::PeriodOpen { end_micros: bounds.1.0, now_micros: self.now.0 });
        }
        match state.closed.get(&(period.currency.clone(), period.month.clone())) {
            Some(closed) if closed.bounds != bounds => Err(Refusal::KeyReused { what: "period", key: period.month.clone() }),
            _ => Ok(()),
        }
    }

    fn record_one(&mut self, client: &str, source: (&str, u64), item: Item) -> Result<Recorded, Refusal> {
        let again =
            |stored: &Stored| Recorded { index: stored.index, client_seq: stored.client_seq, duplicate: true, ..Default::default() };
        let known = self.state.clients.get(client);
        let body = match item {
            Item::Decisions(batch) => Body::Decisions(batch),
            Item::Purchase(outcome) => return self.purchase(client, outcome),
            Item::Evidence(evidence) => match known.and_then(|c| c.evidence.get(evidence.document_sha256.as_ref())) {
                Some(stored) => return Ok(again(stored)),
                None => Body::Evidence(evidence),
            },
            Item::Invoice(invoice) => match known.and_then(|c| c.invoices.get(&invoice.number)) {
                Some(stored) => return Ok(again(stored)),
                None => Body::Invoice(invoice),
            },
            Item::ClosePeriod(period) => match known.and_then(|c| c.closed.get(&(period.currency.clone(), period.month.clone()))) {
                Some(closed) => return Ok(again(&closed.at)),
                None => Body::PeriodClosed(self.closing(client, period)),
            },
        };
        self.append(client, source, body)
    }

    fn closing(&self, client: &str, period: leaf::PeriodClosed) -> leaf::PeriodClosed {
        let state = self.state.clients.get(client);
        let totals = state.and_then(|c| c.totals.get(&period.currency)).cloned().unwrap_or_default();
        let Totals { settled_nanos, settlements, conversions, outcome_micros, outcomes, .. } = totals;
        leaf::PeriodClosed {
            first_seq: 1,
            last_seq: state.map_or(0, |c| c.seq),
            settled_nanos: Some(settled_nanos.into()),
            settlements,
            conversions,
            outcome_micros: Some(outcome_micros.into()),
            outcomes,
            terms_version: state.and_then(|c| c.terms.get(&period.currency)).map_or(0, |(version, _)| *version),
            ..period
        }
    }

    /// An Outcome leaf for each purchase, and a Conversion leaf behind it where it acquired the customer.
    fn purchase(&mut self, client: &str, outcome: leaf::Outcome) -> Result<Recorded, Refusal> {
        let attribution = self.state.clients.get(client).map(|c| &c.attribution);
        if let Some(index) = attribution.and_then(|a| a.index_of(&outcome.event_id)) {
            return Ok(Recorded { index, duplicate: true, ..Default::default() });
        }
        let lookback = self.state.terms(client, &outcome.currency).map(|terms| Duration::from_secs(terms.lookback_seconds.into()));
        let conversion = attribution.zip(lookback).and_then(|(a, lookback)| a.conversion(&outcome, lookback));
        let mut recorded = self.append(client, ("", 0), Body::Outcome(outcome))?;
        if let Some(conversion) = conversion {
            recorded.attributed_campaign.clone_from(&conversion.campaign);
            self.append(client, ("", 0), Body::Conversion(conversion))?;
        }
        Ok(recorded)
    }

    /// Puts a campaign's next version.
    ///
    /// # Errors
    /// A field out of its limits, or another currency than before.
    pub fn put_campaign(&mut self, client: &str, mut campaign: leaf::Campaign) -> Result<(Recorded, u64), Refusal> {
        document::check_campaign(&campaign)?;
        let before = self.state.campaign(client, &campaign.campaign).ok();
        if let Some(before) = before {
            check_unchanged(before, &campaign)?;
        }
        campaign.version = before.map_or(0, |before| before.version) + 1;
        let version = campaign.version;
        Ok((self.append(client, ("", 0), Body::Campaign(campaign))?, version))
    }

    /// Puts the next version of a client's terms in one currency.
    ///
    /// # Errors
    /// A field out of its limits.
    pub fn put_terms(&mut self, client: &str, mut terms: leaf::Terms) -> Result<(Recorded, u64), Refusal> {
        let known = self.state.clients.get(client);
        document::check_terms(&terms, &self.log_id, |index| known.is_some_and(|c| c.evidence.values().any(|e| e.index == index)))?;
        terms.version = self.state.clients.get(client).and_then(|c| c.terms.get(&terms.currency)).map_or(0, |(version, _)| *version) + 1;
        terms.effective_from = terms.effective_from.or(Some(self.now.into()));
        let version = terms.version;
        Ok((self.append(client, ("", 0), Body::Terms(terms))?, version))
    }
}

/// Whether a leaf changes what bidders' replicas are made of.
#[must_use]
pub fn changes_catalog(body: &Body) -> bool {
    matches!(body, Body::Campaign(_) | Body::Terms(_) | Body::Policy(_) | Body::PolicyStage(_) | Body::ClientMoved(_))
}

/// A number has one document, and a closing one invoice.
fn check_invoice(state: &ClientState, path: &str, invoice: &leaf::Invoice) -> Result<(), Refusal> {
    document::check_invoice(path, invoice)?;
    let reused = |what| Err(Refusal::KeyReused { what, key: invoice.number.clone() });
    match (state.invoices.get(&invoice.number), state.invoiced.get(&invoice.period_closed_seq)) {
        (Some(stored), _) if stored.digest != invoice.document_sha256 => reused("invoice"),
        (_, Some(number)) if *number != invoice.number => reused("closing of invoice"),
        _ => Ok(()),
    }
}

/// The currency counts the money and the zone bounds its days: another one would begin a second budget.
fn check_unchanged(before: &CampaignState, next: &leaf::Campaign) -> Result<(), Refusal> {
    if before.currency != next.currency {
        return Err(Refusal::field("campaign.currency", format!("is {} for ever, not {}", before.currency, next.currency)));
    }
    let zone = leaf::Campaign::decode(before.document.as_slice()).map_err(|e| Refusal::field("campaign", e))?.zone;
    if zone != next.zone { Err(Refusal::field("campaign.zone", format!("is {zone} for ever, not {}", next.zone))) } else { Ok(()) }
}

/// The most that a lease gets, micros: what is left, and where others spend from it too, half of an even part of that; so a budget
/// that runs out is shared rather than taken by who comes first. Never less than the least that is of use.
fn fair_share(now: UnixMicros, campaign: &CampaignState, ask: &LeaseAsk, available_nanos: i128) -> i128 {
    let available = available_nanos / NANOS_PER_MICRO;
    let others = campaign.other_holders(now, &ask.holder, DEFAULT_WINDOW_SECONDS) as i128;
    if ask.reservation || others == 0 { available } else { (available / (2 * (others + 1))).max(ask.least.get().into()) }
}
