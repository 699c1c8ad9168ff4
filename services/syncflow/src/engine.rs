//! The bid path: an opportunity in, a bid or a reason out.
//!
//! The opportunities of a message are one [`Round`]: it finds their campaigns and what is to be asked of SyncValue, without
//! waiting; then it decides on each in turn.
//!
//! Invariants: no bid without a fresh policy, fresh campaigns and a slot below an acknowledged mark; one opportunity has
//! one answer and at most one slot, as long as it was first asked within the last minute and
//! the last 57,344; between taking a slot and
//! handing on its decision nothing is awaited, so that a caller who gives up cannot lose a decision.

mod memo;
mod recorded;
mod round;

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::ids::{CustomerKey, Pseudonyms};
use kiki::leaf;
use kiki::money::{Micros, Nanos};

use crate::breakers::Breakers;
use crate::clients::leases::Leases;
use crate::clients::predictor::Predictor;
use crate::clients::recorder::Recorder;
use crate::clients::replicas::{Replicas, View};
use crate::config::{Exchanges, Record};
use crate::deadline::{Arrival, Deadline};
use crate::domain::creative::Creative;
use crate::domain::fallback::Multipliers;
use crate::domain::lease::Slot;
use crate::domain::opportunity::Opportunity;
use crate::domain::receipt::{Purpose, Receipt, ReceiptKeys};
use crate::domain::shading::{Market, Markets};
use crate::domain::targeting::Campaign;
use crate::frequency::Frequency;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::pacing::Pacing;
pub use memo::{Answered, Memo};
pub use round::{Offered, Prepared, Round};

/// Why there is no bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No campaign fits.
    NoMatch,
    /// The value does not reach the floor.
    BelowFloor,
    /// A guardrail refused.
    Policy,
    /// The budget is used up.
    Budget,
    /// SyncShield is out of reach, a replica too old, or too many decisions wait.
    NotReady,
    /// Too late.
    Deadline,
    /// The exchange is testing.
    Test,
    /// The circuit breaker of its platform is open.
    Platform,
    /// Too many bids are under way.
    Overloaded,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoMatch,
        Self::BelowFloor,
        Self::Policy,
        Self::Budget,
        Self::NotReady,
        Self::Deadline,
        Self::Test,
        Self::Platform,
        Self::Overloaded,
    ];

    /// Its name on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoMatch => "NO_MATCH",
            Self::BelowFloor => "BELOW_FLOOR",
            Self::Policy => "POLICY",
            Self::Budget => "BUDGET",
            Self::NotReady => "NOT_READY",
            Self::Deadline => "DEADLINE",
            Self::Test => "TEST",
            Self::Platform => "PLATFORM",
            Self::Overloaded => "OVERLOADED",
        }
    }

    /// Whether asking again a moment later can have another answer.
    const fn passing(self) -> bool {
        matches!(self, Self::NotReady | Self::Deadline | Self::Platform | Self::Overloaded)
    }
}

/// A bid. It is kept for as long as its opportunity may come again, so what can be made of other things is not in it.
#[derive(Debug)]
pub struct Bid {
    view: Arc<View>,
    /// Places in the view, and among the campaign's creatives.
    campaign: usize,
    creative: usize,
    customer: Option<CustomerKey>,
    model: Arc<str>,
    p_conversion_ppb: u32,
    bid_at: UnixMicros,
    /// What it pays.
    pub price: Nanos,
    /// What the customer is expected to be worth.
    pub predicted_ltv: Micros,
    /// Who said so.
    pub prediction_status: leaf::PredictionStatus,
    /// The market that it was shaded by.
    pub market: Option<Market>,
    /// Its slot under the lease.
    pub slot: Slot,
}

impl Bid {
    /// Its id: its slot is nobody else's.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = self.slot.lease_id.to_string();
        id.push('-');
        id.push_str(&self.slot.sequence.to_string());
        id
    }

    /// The campaign that bids.
    #[must_use]
    pub fn campaign(&self) -> &Campaign {
        &self.view.campaigns[self.campaign].campaign
    }

    /// What it shows.
    #[must_use]
    pub fn creative(&self) -> &Creative {
        &self.campaign().creatives[self.creative]
    }

    /// What its notices bring back, if they are taken for so long.
    fn receipt<'a>(&'a self, of: &'a Opportunity<'_>, window: Duration) -> Receipt<&'a str> {
        let campaign = self.campaign();
        let mut policy_digest = [0; 16];
        policy_digest.copy_from_slice(&self.view.policy.digest[..16]);
        Receipt {
            client: &campaign.client,
            campaign: &campaign.id,
            exchange: of.exchange,
            platform: of.platform,
            model: &self.model,
            lease_id: self.slot.lease_id,
            epoch: self.slot.epoch,
            sequence: self.slot.sequence,
            max_price: self.price,
            currency: campaign.currency,
            customer: self.customer,
            predicted_ltv: self.predicted_ltv,
            horizon_days: campaign.horizon_days,
            p_conversion_ppb: self.p_conversion_ppb,
            policy_digest,
            bid_at: self.bid_at,
            deadline: self.bid_at.plus(window),
            granted_at: self.slot.granted_at,
            market: self.market,
        }
    }
}

/// What an opportunity got.
#[derive(Debug)]
pub enum Answer {
    /// A bid.
    Bid(Bid),
    /// None, why, and the detail for people.
    NoBid(Reason, String),
}

/// An answer, and when its decisions are durable.
#[derive(Debug)]
pub struct Decided {
    /// The answer.
    pub answer: Answer,
    /// The recorder's ticket; 0 where nothing was recorded.
    pub ticket: u64,
}

impl Decided {
    fn no_bid(reason: Reason, detail: String, ticket: u64) -> Self {
        Self { answer: Answer::NoBid(reason, detail), ticket }
    }
}

/// Everything that a bid needs.
#[derive(Debug)]
pub struct Engine {
    /// The exchanges.
    pub exchanges: Exchanges,
    /// The circuit breakers.
    pub breakers: Arc<Breakers>,
    /// How many bids may be under way.
    pub load: Arc<Load>,
    /// Campaigns and policy.
    pub replicas: Arc<Replicas>,
    /// Budgets.
    pub leases: Arc<Leases>,
    /// Frequency caps.
    pub frequency: Arc<Frequency>,
    /// The pace of daily budgets.
    pub pacing: Arc<Pacing>,
    /// What it takes to win first-price auctions.
    pub markets: Arc<Markets>,
    /// Predictions.
    pub predictor: Predictor,
    /// What platforms pay of a value that stood in for a prediction.
    pub multipliers: Multipliers,
    /// The way to the log.
    pub recorder: Arc<Recorder>,
    /// Which decisions are recorded.
    pub record: Record,
    /// The receipts' keys.
    pub receipts: ReceiptKeys,
    /// The customers' pseudonyms.
    pub pseudonyms: Pseudonyms,
    /// What "now" is.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// How long after a bid its notices are taken.
    pub notice_window: Duration,
    /// What of a deadline the network takes.
    pub network_allowance: Duration,
    /// The longest that a bid may take.
    pub deadline_max: Duration,
    /// What was answered lately.
    pub memo: Memo,
}

impl Engine {
    /// The deadline of a bid, by the exchange's limit and the caller's.
    #[must_use]
    pub fn deadline(&self, arrival: Arrival, tmax_ms: Option<u32>, call: Option<Duration>) -> Deadline {
        let tmax = tmax_ms.map(|tmax| Duration::from_millis(tmax.into()));
        Deadline::of(arrival, tmax.into_iter().chain(call), self.deadline_max, self.network_allowance)
    }

    /// What the bid's notices bring back, and its click. `of`: what it was made for.
    #[must_use]
    pub fn receipts(&self, bid: &Bid, of: &Opportunity<'_>) -> [String; 2] {
        self.receipts.seal(&bid.receipt(of, self.notice_window), [Purpose::Notice, Purpose::Click])
    }
}
