//! Notices and conversions: what comes back after a bid, on its way to the log. Any instance takes them.

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::ids::{self, Pseudonyms};
use kiki::leaf;
use kiki::money::{Currency, Nanos};
use kiki::pb::syncshield::v1 as shield;

use crate::breakers::Breakers;
use crate::clients::Shield;
use crate::clients::leases::Leases;
use crate::company::Company;
use crate::config::Exchanges;
use crate::domain::frequency::Fate;
use crate::domain::notice::{self, Effect, Word};
use crate::domain::receipt::{Purpose, Receipt, ReceiptError, ReceiptKeys};
use crate::domain::shading::{Markets, Seen};
use crate::error::Error;
use crate::frequency::Frequency;
use crate::metrics::Metrics;
use crate::pacing::Pacing;

/// Notices or conversions of one call: what SyncShield takes at once.
pub const MAX_ITEMS: usize = 1_024;
/// A notice that comes alone waits so long for others: a call and a flush of the log are for all of them. No exchange waits for the answer.
const WAIT: Duration = Duration::from_millis(2);

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The slot was closed, durably.
    Applied,
    /// It had been closed before.
    Duplicate,
    /// Taken, and nothing moves.
    Noted,
    /// The slot was closed before with another effect or price, says the log; nothing moved.
    Conflict(String),
    /// Not taken.
    Refused(Why),
}

/// Why a notice was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its receipt.
    Receipt(ReceiptError),
    /// Its price, or the log's own reason.
    Other(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Receipt(error) => error.fmt(f),
            Self::Other(why) => why.fmt(f),
        }
    }
}

impl Outcome {
    /// Its name in metrics and JSON.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Noted => "noted",
            Self::Conflict(_) => "conflict",
            Self::Refused(_) => "refused",
        }
    }
}

/// A purchase or refund as its advertiser reports it.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// The advertiser.
    pub client: String,
    /// Its own id of the event.
    pub event_id: String,
    /// The customer's own id.
    pub customer: String,
    /// ISO 4217.
    pub currency: String,
    /// Negative for a refund.
    pub value_micros: i64,
    /// When it happened.
    pub occurred_at: prost_types::Timestamp,
    /// The receipt that came with it, or nothing.
    pub receipt: String,
    /// What the advertiser wants back in an audit, or nothing.
    pub personal: bytes::Bytes,
}

/// Takes notices and conversions.
#[derive(Debug)]
pub struct Notices {
    /// The log.
    pub shield: Shield,
    /// The receipts' keys.
    pub receipts: ReceiptKeys,
    /// How exchanges settle.
    pub exchanges: Exchanges,
    /// The customers' pseudonyms.
    pub pseudonyms: Pseudonyms,
    /// The leases, which hear of money that came back.
    pub leases: Arc<Leases>,
    /// The counts of impressions, which hear of what was charged and lost.
    pub frequency: Arc<Frequency>,
    /// The pacers, which hear of what was charged.
    pub pacing: Arc<Pacing>,
    /// The first-price markets, which hear what won and what did not.
    pub markets: Arc<Markets>,
    /// What "now" is.
    pub clock: Clock,
    /// Platforms' circuit breakers, which spend that runs away trips.
    pub breakers: Arc<Breakers>,
    /// What is counted.
    pub metrics: Metrics,
    /// Notices that come one by one.
    pub company: Arc<Company<Heard, Result<Outcome, Arc<Error>>>>,
}

/// Where notices that come one by one wait for each other; on virtual time nobody waits, because bids and notices come in turn.
#[must_use]
pub fn company(clock: &Clock) -> Arc<Company<Heard, Result<Outcome, Arc<Error>>>> {
    Company::new(if matches!(clock, Clock::System) { WAIT } else { Duration::ZERO })
}

/// A notice that came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The bid's receipt.
    pub receipt: Receipt,
    /// What became of the bid.
    pub word: Word,
    /// What it took to win, where the exchange says so.
    pub min_to_win: Option<Nanos>,
}

/// A notice whose slot has to be closed.
struct Closing {
    at: usize,
    receipt: Receipt,
    /// The charge; nothing for a void.
    price: Option<i64>,
    /// What it says of the price to beat.
    seen: Option<Seen>,
}

impl Notices {
    /// Reads a receipt; the deadline is the notice's to check.
    ///
    /// # Errors
    /// It was not made here, was made for another purpose, or was changed.
    pub fn open(&self, receipt: &str, purpose: Purpose) -> Result<Receipt, Error> {
        Ok(self.receipts.open(receipt, purpose)?)
    }

    /// Takes a notice that comes alone, in one call with others that do.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    pub async fn take_one(self: &Arc<Self>, heard: Heard) -> Result<Outcome, Arc<Error>> {
        let notices = self.clone();
        let outcome = self.company.join(heard, move |all| async move { notices.take_all(all).await }).await;
        let stopping = || Error::shield(tonic::Status::unavailable("not asked, because this instance is stopping"));
        outcome.unwrap_or_else(|| Err(Arc::new(stopping())))
    }

    async fn take_all(&self, all: Vec<Heard>) -> Vec<Result<Outcome, Arc<Error>>> {
        let mut results = Vec::with_capacity(all.len());
        for heard in all.chunks(MAX_ITEMS) {
            match self.take(heard).await {
                Ok(outcomes) => results.extend(outcomes.into_iter().map(Ok)),
                Err(error) => results.extend(std::iter::repeat_n(Err(Arc::new(error)), heard.len())),
            }
        }
        results
    }

    /// Takes notices; answers in their order once what they moved is durable.
    ///
    /// # Errors
    /// SyncShield did not answer, and then the notices have to be sent again, which counts nothing twice.
    pub async fn take(&self, notices: &[Heard]) -> Result<Vec<Outcome>, Error> {
        let now = self.clock.now();
        let mut outcomes = Vec::with_capacity(notices.len());
        let (mut settle, mut settling) = (Vec::new(), Vec::new());
        let (mut void, mut voiding) = (Vec::new(), Vec::new());
        for (at, Heard { receipt, word, min_to_win }) in notices.iter().enumerate() {
            if let Err(error) = receipt.check_deadline(now) {
                outcomes.push(Outcome::Refused(Why::Receipt(error)));
                continue;
            }
            let (client, campaign, lease_id) = (receipt.client.clone(), receipt.campaign.clone(), receipt.lease_id);
            let seen = Seen::of(*word, receipt.max_price, *min_to_win);
            let settles_on_win = self.exchanges.settles_on_win(&receipt.exchange);
            outcomes.push(match notice::effect(receipt, *word, settles_on_win) {
                Effect::Noted => Outcome::Noted,
                Effect::Refused(why) => Outcome::Refused(Why::Other(why.to_string())),
                Effect::Settle(price) => {
                    let settlement = Some(notice::settlement(receipt, price, now));
                    settle.push(shield::SettleItem { client, campaign, lease_id, settlement });
                    settling.push(Closing { at, receipt: receipt.clone(), price: Some(price.get()), seen });
                    Outcome::Applied
                }
                Effect::Void(loss_reason) => {
                    let (sequence, max_nanos) = (receipt.sequence, receipt.max_price.get());
                    let closed = Some(leaf::Void { sequence, max_nanos, loss_reason, ..Default::default() });
                    void.push(shield::VoidItem { client, campaign, lease_id, void: closed });
                    voiding.push(Closing { at, receipt: receipt.clone(), price: None, seen });
                    Outcome::Applied
                }
            });
        }
        // Settlements go first: a bill and a loss for one slot are a contradiction, and the charge is what counts.
        let mut shield = self.shield.clone();
        if !settle.is_empty() {
            let answer = shield.settle(shield::SettleRequest { items: settle }).await.map_err(Error::shield)?;
            self.closed(settling, answer.into_inner().results, &mut outcomes)?;
        }
        if !void.is_empty() {
            let answer = shield.void(shield::VoidRequest { items: void }).await.map_err(Error::shield)?;
            self.closed(voiding, answer.into_inner().results, &mut outcomes)?;
        }
        for (heard, outcome) in notices.iter().zip(&outcomes) {
            self.metrics.notices.with_label_values(&[kind(heard.word), outcome.as_str()]).inc();
        }
        Ok(outcomes)
    }

    fn closed(&self, closings: Vec<Closing>, results: Vec<shield::SlotResult>, outcomes: &mut [Outcome]) -> Result<(), Error> {
        if results.len() != closings.len() {
            let message = format!("{} results for {} slots", results.len(), closings.len());
            return Err(Error::shield(tonic::Status::unknown(message)));
        }
        for (closing, result) in closings.into_iter().zip(results) {
            if matches!(result.status(), shield::SlotStatus::Applied | shield::SlotStatus::Duplicate) {
                let fate = if closing.price.is_some() { Fate::Charged } else { Fate::Lost };
                self.frequency.noticed(&closing.receipt, fate, self.clock.now());
            }
            let outcome = match result.status() {
                shield::SlotStatus::Applied => {
                    let receipt = &closing.receipt;
                    self.leases.freed(&receipt.client, &receipt.campaign);
                    if let Some((market, seen)) = receipt.market.zip(closing.seen) {
                        self.markets.saw(market, seen);
                    }
                    if let Some(nanos) = closing.price {
                        self.pacing.charged(receipt, Nanos::new(nanos));
                        self.breakers.charged(&receipt.platform, receipt.currency, Nanos::new(nanos));
                        self.metrics.settled(receipt, nanos);
                    }
                    Outcome::Applied
                }
                shield::SlotStatus::Duplicate => Outcome::Duplicate,
                shield::SlotStatus::Conflict => {
                    let Receipt { client, campaign, lease_id, sequence, .. } = &closing.receipt;
                    tracing::warn!("slot {sequence} of lease {lease_id} of {campaign} of {client}: {}", result.reason);
                    Outcome::Conflict(result.reason)
                }
                shield::SlotStatus::Refused | shield::SlotStatus::Unspecified => Outcome::Refused(Why::Other(result.reason)),
            };
            if let Some(place) = outcomes.get_mut(closing.at) {
                *place = outcome;
            }
        }
        Ok(())
    }

    /// Hands purchases on to the log, where they are attributed; answers in their order once they are durable.
    ///
    /// # Errors
    /// A field is out of its form, or SyncShield did not answer.
    pub async fn report(&self, purchases: Vec<Purchase>) -> Result<Vec<shield::RecordResult>, Error> {
        let mut items = Vec::with_capacity(purchases.len());
        for (at, purchase) in purchases.into_iter().enumerate() {
            items.push(self.item(purchase).map_err(|(field, problem)| Error::field(format!("conversions[{at}].{field}"), problem))?);
        }
        let request = shield::RecordRequest { source: String::new(), source_seq: 0, items };
        Ok(self.shield.clone().record(request).await.map_err(Error::shield)?.into_inner().results)
    }

    fn item(&self, purchase: Purchase) -> Result<shield::RecordItem, (&'static str, String)> {
        ids::check("client", &purchase.client).map_err(|error| ("client", error.to_string()))?;
        ids::check_customer(&purchase.customer).map_err(|error| ("customer", error.to_string()))?;
        Currency::parse(&purchase.currency).map_err(|error| ("currency", error.to_string()))?;
        let slot = self.slot_of(&purchase);
        let body = shield::record_item::Body::Purchase(shield::Purchase {
            event_id: purchase.event_id,
            occurred_at: Some(purchase.occurred_at),
            customer: self.pseudonyms.of(&purchase.client, &purchase.customer).0.to_vec().into(),
            currency: purchase.currency,
            value_micros: purchase.value_micros,
            receipt_lease_id: slot.0,
            receipt_sequence: slot.1,
            personal: purchase.personal,
        });
        Ok(shield::RecordItem { client: purchase.client, body: Some(body) })
    }

    /// The slot of the click's receipt, if it is good and the same client's. A purchase with a bad one is a purchase
    /// all the same: it is attributed as if it had come with none.
    fn slot_of(&self, purchase: &Purchase) -> (u64, u32) {
        if purchase.receipt.is_empty() {
            return (0, 0);
        }
        match self.receipts.open(&purchase.receipt, Purpose::Click) {
            Ok(receipt) if receipt.client == purchase.client => (receipt.lease_id, receipt.sequence),
            _ => {
                self.metrics.receipts_refused.inc();
                (0, 0)
            }
        }
    }
}

fn kind(word: Word) -> &'static str {
    match word {
        Word::Win(_) => "win",
        Word::Bill(_) => "bill",
        Word::Loss(_) => "loss",
    }
}
