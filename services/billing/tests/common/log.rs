//! A log in memory, written as SyncShield writes one, for tests of what is read from it.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::attribution::Attribution;
use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::leaf::{self, leaf::Body};
use kiki::tlog::note::{SigningKey, VerifyingKey};
use kiki::tlog::{self, Checkpoint, Tree};
use prost::Message as _;

/// The log's id and its key's name.
pub const LOG: &str = "kiki.test/log";
/// 2026-01-01T00:00:00Z
pub const JANUARY: i64 = 1_767_225_600_000_000;
/// 2026-02-01T00:00:00Z
pub const FEBRUARY: i64 = 1_769_904_000_000_000;
/// A day in micros.
pub const DAY: i64 = 86_400_000_000;
/// One of the currency in nanos.
pub const ONE: i64 = 1_000_000_000;

/// The log.
pub struct Log {
    /// Bytes of its leaves.
    pub leaves: Vec<Vec<u8>>,
    /// Their tree.
    pub tree: Tree,
    /// What it signs with.
    pub key: SigningKey,
    /// Every change of it.
    pub rotations: String,
    clients: BTreeMap<String, Client>,
}

#[derive(Default)]
struct Client {
    seq: u64,
    attribution: Attribution,
    totals: BTreeMap<String, leaf::PeriodClosed>,
    terms: BTreeMap<String, leaf::Terms>,
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        let key = SigningKey::new(LOG, &[7; 32]).unwrap();
        Self { leaves: Vec::new(), tree: Tree::new(), key, rotations: String::new(), clients: BTreeMap::new() }
    }

    /// The public key.
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key().clone()
    }

    /// A signed checkpoint of a size.
    pub fn signed(&self, size: u64) -> String {
        Checkpoint { origin: LOG.into(), size, root: self.tree.root_at(size).unwrap() }.sign(&self.key).unwrap()
    }

    /// Signs with another key from here on; both sign the checkpoint over the change.
    pub fn rotate(&mut self, seed: u8) {
        let new = SigningKey::new(LOG, &[seed; 32]).unwrap();
        let keys = (self.public().to_string(), new.verifying_key().to_string());
        let body = leaf::KeyRotated { old_key: keys.0, new_key: keys.1, actor: "ada".into(), reason: "yearly".into() };
        let index = self.append(leaf::OPERATOR, Body::KeyRotated(body));
        let checkpoint = Checkpoint { origin: LOG.into(), size: self.size(), root: self.tree.root() };
        let note = checkpoint.sign_by_both(&self.key, &new).unwrap();
        let hashes = self.tree.inclusion_proof(index, self.size()).unwrap();
        self.rotations += &kiki::rotation::proof(index, &self.leaves[index as usize], hashes, &note);
        self.key = new;
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// The header of a leaf.
    pub fn header(&self, index: u64) -> leaf::Leaf {
        leaf::decode(&self.leaves[index as usize]).unwrap().0
    }

    /// Appends a leaf as it is and gives its index.
    pub fn append(&mut self, client: &str, body: Body) -> u64 {
        let index = self.size();
        let state = self.clients.entry(client.to_owned()).or_default();
        state.seq += 1;
        let leaf = leaf::Leaf {
            log_id: LOG.into(),
            index,
            client: client.into(),
            client_seq: state.seq,
            recorded_at: Some(UnixMicros(JANUARY + index as i64).into()),
            body: Some(body),
            ..Default::default()
        };
        let bytes = leaf.encode_to_vec();
        self.tree.push(tlog::leaf_hash(&bytes));
        self.leaves.push(bytes);
        index
    }

    /// Terms of 3.0 and 10 %, in USD, with what `change` makes of them.
    pub fn terms(&mut self, client: &str, change: impl FnOnce(&mut leaf::Terms)) -> u64 {
        let mut terms = leaf::Terms {
            currency: "USD".into(),
            client_name: format!("{client}, Inc."),
            baseline_ppm: 3_000_000,
            share_ppm: 100_000,
            basis: leaf::Basis::Predicted.into(),
            netting: leaf::Netting::Client.into(),
            zone: "UTC".into(),
            payment_days: 30,
            horizon_days: 90,
            attribution: leaf::AttributionRule::LastBilledV1.into(),
            lookback_seconds: 7 * 86_400,
            ..Default::default()
        };
        change(&mut terms);
        let state = self.clients.entry(client.to_owned()).or_default();
        terms.version = state.terms.get(&terms.currency).map_or(0, |before| before.version) + 1;
        state.terms.insert(terms.currency.clone(), terms.clone());
        self.append(client, Body::Terms(terms))
    }

    /// A lease, whose id is its leaf's index.
    pub fn grant(&mut self, client: &str, campaign: &str, at: i64) -> u64 {
        let lease = leaf::LeaseGranted {
            lease_id: self.size(),
            campaign: campaign.into(),
            currency: "USD".into(),
            granted_at: Some(UnixMicros(at).into()),
            day_start: Some(UnixMicros(at).into()),
            ..Default::default()
        };
        self.append(client, Body::LeaseGranted(lease))
    }

    /// One impression of a customer, billed at `price_nanos` on a prediction.
    pub fn bill(&mut self, client: &str, campaign: &str, at: i64, price_nanos: i64, customer: u8, predicted_micros: i64) -> u64 {
        let lease_id = self.grant(client, campaign, at);
        let batch = leaf::SettlementBatch {
            lease_id,
            campaign: campaign.into(),
            currency: "USD".into(),
            granted_at: Some(UnixMicros(at).into()),
            day_start: Some(UnixMicros(at).into()),
            settlements: vec![leaf::Settlement {
                sequence: 0,
                max_nanos: price_nanos,
                price_nanos,
                bid_at: Some(UnixMicros(at).into()),
                noticed_at: Some(UnixMicros(at).into()),
                customer: vec![customer; 16].into(),
                predicted_ltv_micros: predicted_micros,
                model: "m".into(),
                horizon_days: 90,
                ..Default::default()
            }],
        };
        let state = self.clients.entry(client.to_owned()).or_default();
        state.attribution.settled(&batch);
        let totals = state.totals.entry("USD".into()).or_default();
        add(&mut totals.settled_nanos, i128::from(price_nanos));
        totals.settlements += 1;
        self.append(client, Body::Settlements(batch))
    }

    /// A correction of what was charged, below 0 for a credit.
    pub fn adjust(&mut self, client: &str, campaign: &str, at: i64, amount_nanos: i64) -> u64 {
        let adjustment = leaf::SpendAdjustment {
            key: format!("k{}", self.size()),
            campaign: campaign.into(),
            currency: "USD".into(),
            amount_nanos,
            accounted_at: Some(UnixMicros(at).into()),
            ..Default::default()
        };
        let totals = self.clients.entry(client.to_owned()).or_default().totals.entry("USD".into()).or_default();
        add(&mut totals.settled_nanos, i128::from(amount_nanos));
        self.append(client, Body::SpendAdjustment(adjustment))
    }

    /// A purchase, and its conversion where it acquires the customer.
    pub fn purchase(&mut self, client: &str, at: i64, customer: u8, value_micros: i64) -> u64 {
        let outcome = leaf::Outcome {
            event_id: format!("e{}", self.size()),
            occurred_at: Some(UnixMicros(at).into()),
            customer: CustomerKey([customer; 16]).0.to_vec().into(),
            currency: "USD".into(),
            value_micros,
            ..Default::default()
        };
        let index = self.size();
        let state = self.clients.entry(client.to_owned()).or_default();
        let lookback = state.terms.get("USD").map(|terms| Duration::from_secs(terms.lookback_seconds.into()));
        let conversion = lookback.and_then(|lookback| state.attribution.conversion(&outcome, lookback));
        state.attribution.observed(&outcome, index);
        let totals = state.totals.entry("USD".into()).or_default();
        add(&mut totals.outcome_micros, i128::from(value_micros));
        totals.outcomes += 1;
        if let Some(conversion) = &conversion {
            totals.conversions += 1;
            state.attribution.converted(conversion);
        }
        self.append(client, Body::Outcome(outcome));
        if let Some(conversion) = conversion {
            self.append(client, Body::Conversion(conversion));
        }
        index
    }

    /// Closes a month.
    pub fn close(&mut self, client: &str, month: &str, start: i64, end: i64) -> u64 {
        let state = self.clients.entry(client.to_owned()).or_default();
        let closed = leaf::PeriodClosed {
            currency: "USD".into(),
            month: month.into(),
            period_start: Some(UnixMicros(start).into()),
            period_end: Some(UnixMicros(end).into()),
            first_seq: 1,
            last_seq: state.seq,
            terms_version: state.terms.get("USD").map_or(0, |terms| terms.version),
            ..state.totals.get("USD").cloned().unwrap_or_default()
        };
        self.append(client, Body::PeriodClosed(closed))
    }
}

fn add(total: &mut Option<leaf::Int128>, more: i128) {
    let before = total.as_ref().map_or(0, i128::from);
    *total = Some((before + more).into());
}
