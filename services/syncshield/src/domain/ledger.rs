//! From requests to leaves. A request is checked against the state, becomes leaf bodies, and the same fold that an
//! auditor runs takes each of them in; the shell makes the batch durable before anybody hears of it.
//!
//! Invariants: one idempotency key has one effect; a request has all of its effect or none; the bytes of a leaf are
//! encoded once. Not here: files, signatures, time.

mod leases;
mod records;
mod slots;

use bytes::Bytes;
use kiki::clock::UnixMicros;
use kiki::framed::Frames;
use kiki::leaf::{self, leaf::Body};
use prost::{Message as _, encoding};

use super::budget::CampaignState;
use super::document;
use super::outage::Outage;
use super::refusal::Refusal;
use super::state::State;

pub use leases::{Granted, LeaseAsk};
pub use records::Item;
pub use slots::{Closing, SlotOutcome};

/// The field of a leaf that holds decisions.
const DECISIONS: u32 = 16;
/// Items of one request: with 256 bytes an item, a quarter of a megabyte.
pub const MAX_ITEMS: usize = 1_024;

/// The state with the leaves that are not durable yet.
#[derive(Debug)]
pub struct Ledger {
    /// The fold of the log, pending leaves included.
    pub state: State,
    log_id: String,
    now: UnixMicros,
    /// Leaves of the request that is being answered, and the bytes of the decisions of those that have some.
    open: Vec<(leaf::Leaf, Bytes)>,
    /// Leaves of whole requests, encoded.
    pending: Frames,
    catalog_changed: bool,
    pub(super) outage: Option<Outage>,
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

/// A leaf's bytes. Decisions stand where prost has them, behind all else.
fn encode(mut leaf: leaf::Leaf, decisions: &Bytes, out: &mut Vec<u8>) {
    let decided = matches!(leaf.body, Some(Body::Decisions(_)));
    leaf.body = leaf.body.filter(|_| !decided);
    leaf.encode(out).expect("a vector grows");
    if decided {
        encoding::bytes::encode(DECISIONS, decisions, out);
    }
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
        for (i, (leaf, decisions)) in self.open.drain(..).enumerate() {
            let leaf = leaf::Leaf { continued: i < last, ..leaf };
            let encode = |out: &mut Vec<u8>| encode(leaf, &decisions, out);
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
        self.append_with(client, source, body, Bytes::new())
    }

    /// Appends decisions as they came; the state keeps nothing of them.
    fn append_decisions(&mut self, client: &str, source: (&str, u64), batch: Bytes) -> Result<Recorded, Refusal> {
        self.append_with(client, source, Body::Decisions(leaf::DecisionBatch::default()), batch)
    }

    fn append_with(&mut self, client: &str, source: (&str, u64), body: Body, decisions: Bytes) -> Result<Recorded, Refusal> {
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
        // Of a body without decisions the length has one byte already.
        let len = leaf.encoded_len() + decisions.len() + prost::length_delimiter_len(decisions.len()) - 1;
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
        self.open.push((leaf::Leaf { body: Some(body), ..leaf }, decisions));
        if let Some(campaign) = charged {
            self.raise_alerts(client, &campaign);
        }
        Ok(Recorded { index, client_seq, ..Default::default() })
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

/// The currency counts the money and the zone bounds its days: another one would begin a second budget.
fn check_unchanged(before: &CampaignState, next: &leaf::Campaign) -> Result<(), Refusal> {
    if before.currency != next.currency {
        return Err(Refusal::field("campaign.currency", format!("is {} for ever, not {}", before.currency, next.currency)));
    }
    let zone = leaf::Campaign::decode(before.document.as_slice()).map_err(|e| Refusal::field("campaign", e))?.zone;
    if zone != next.zone { Err(Refusal::field("campaign.zone", format!("is {zone} for ever, not {}", next.zone))) } else { Ok(()) }
}
