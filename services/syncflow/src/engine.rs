//! The bid path: an opportunity in, a bid or a reason out.
//!
//! Two halves, so that a stream can ask for many predictions at once and still decide in order: [`Engine::prepare`] finds
//! the campaigns and what is to be asked of SyncValue, without waiting; [`Engine::decide`] waits for the predictions, prices,
//! takes a slot and hands the decision to the recorder. [`Engine::bid`] is both, for one opportunity.
//!
//! Invariants: no bid without a fresh policy, fresh campaigns and a slot below an acknowledged mark; one opportunity has
//! one answer and at most one slot, as long as it is among the last 65,536; between taking a slot and
//! handing on its decision nothing is awaited, so that a caller who gives up cannot lose a decision.

mod memo;
mod recorded;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::guardrail::{Policy, Refusals};
use kiki::ids::{CustomerKey, Pseudonyms};
use kiki::leaf;
use kiki::money::{Micros, Nanos};
use tokio::time::Instant;

use crate::breakers::Breakers;
use crate::clients::leases::{Leases, NoSlot};
use crate::clients::predictor::{Predictions, Predictor, Questions, Subject};
use crate::clients::recorder::{Entry, Recorder};
use crate::clients::replicas::{Replicas, View};
use crate::config::{Exchanges, Record};
use crate::deadline::Deadline;
use crate::domain::auction::{self, Candidate, Counts, Standing};
use crate::domain::breaker::{Breaker, Permit, Refused};
use crate::domain::creative::Creative;
use crate::domain::fallback::{self, Multipliers, Predicted};
use crate::domain::frequency::Fate;
use crate::domain::lease::Slot;
use crate::domain::opportunity::Opportunity;
use crate::domain::receipt::{Content, Purpose, Receipt, ReceiptKeys};
use crate::domain::shading::{Market, Markets};
use crate::domain::targeting::Campaign;
use crate::frequency::Frequency;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::pacing::Pacing;
use memo::{Cell, Memo};
use recorded::Decision;

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
    /// The campaign that bids.
    pub campaign: Arc<Campaign>,
    /// What it shows.
    pub creative: Arc<Creative>,
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
    receipt: Content,
}

/// What an opportunity got.
#[derive(Debug)]
pub enum Answer {
    /// A bid.
    Bid(Box<Bid>),
    /// None, why, and the detail for people.
    NoBid(Reason, String),
}

/// An answer, and when its decisions are durable.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The answer, shared with the memory of answers.
    pub answer: Arc<Answer>,
    /// The recorder's ticket; 0 where nothing was recorded.
    pub ticket: u64,
}

impl Answered {
    pub(crate) fn no_bid(reason: Reason, detail: String, ticket: u64) -> Self {
        Self { answer: Arc::new(Answer::NoBid(reason, detail)), ticket }
    }
}

/// An opportunity with what it waits for.
#[derive(Debug)]
pub struct Prepared {
    opportunity: Opportunity,
    /// Where its answer goes.
    cell: Cell,
    deadline: Deadline,
    asked: Instant,
    found: Result<Found, (Reason, String)>,
}

#[derive(Debug)]
struct Found {
    policy: Arc<Policy>,
    matches: Vec<Match>,
    /// Leave to bid on the platform, where it has a breaker.
    permit: Option<Permit<Arc<Breaker>>>,
}

#[derive(Debug)]
struct Match {
    campaign: Arc<Campaign>,
    creative: Arc<Creative>,
    counts: Counts,
    customer: Option<CustomerKey>,
    /// The place of its question: one each, because campaigns of one client may be answered by different models.
    question: Option<usize>,
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

/// An empty memory of answers.
#[must_use]
pub fn memo() -> Memo {
    Memo::new()
}

impl Engine {
    /// The deadline of a bid that came then, by the exchange's limit and the caller's.
    #[must_use]
    pub fn deadline(&self, began: Instant, tmax_ms: Option<u32>, call: Option<Duration>) -> Deadline {
        let tmax = tmax_ms.map(|tmax| Duration::from_millis(tmax.into()));
        Deadline::of(began, tmax.into_iter().chain(call), self.deadline_max, self.network_allowance)
    }

    /// Decides on an opportunity that comes alone.
    pub async fn bid(&self, opportunity: Opportunity, deadline: Deadline) -> Answered {
        let mut questions = Questions::default();
        let prepared = self.prepare(opportunity, deadline, &mut questions);
        self.decide(prepared, &mut self.predictor.ask(questions)).await
    }

    /// Finds campaigns, and adds what is to be asked for them; waits for nothing.
    #[must_use]
    pub fn prepare(&self, opportunity: Opportunity, deadline: Deadline, questions: &mut Questions) -> Prepared {
        let (now, asked) = (self.clock.now(), Instant::now());
        let cell = self.memo.cell(opportunity.key);
        let found = if cell.initialized() {
            Err((Reason::NotReady, String::new()))
        } else if deadline.too_late_to_bid(asked) {
            Err(late("anything was asked"))
        } else {
            self.find(&opportunity, now, (!deadline.too_late_to_ask(asked)).then_some(questions))
        };
        Prepared { opportunity, cell, deadline, asked, found }
    }

    fn find(&self, opportunity: &Opportunity, now: UnixMicros, mut questions: Option<&mut Questions>) -> Result<Found, (Reason, String)> {
        let View { campaigns, policy } = self.replicas.view().map_err(|why| (Reason::NotReady, why.to_owned()))?;
        if !self.recorder.has_room() {
            return Err((Reason::NotReady, "too many decisions wait for the log".to_owned()));
        }
        if opportunity.test {
            return Err((Reason::Test, "a test is not billed, and not bid on".to_owned()));
        }
        let refused = |refused: Refused| (Reason::Platform, format!("{}: {refused}", opportunity.platform));
        let permit = self.breakers.admit(&opportunity.platform, now).map_err(refused)?;
        let mut matches = Vec::new();
        for entry in campaigns.values() {
            let Some(creative) = entry.campaign.fits(opportunity).cloned() else { continue };
            let campaign = entry.campaign.clone();
            let customer = opportunity.customer.as_ref().map(|customer| self.pseudonyms.of(&campaign.client, customer));
            let ask =
                |(customer, questions): (_, &mut &mut Questions)| questions.add(Subject { campaign: campaign.clone(), customer, at: now });
            let question = customer.zip(questions.as_mut()).map(ask);
            matches.push(Match { campaign, creative, counts: entry.counts, customer, question });
        }
        if matches.is_empty() {
            return Err((Reason::NoMatch, "no campaign fits".to_owned()));
        }
        Ok(Found { policy, matches, permit })
    }

    /// Decides; an opportunity that was answered before has the same answer again.
    pub async fn decide(&self, prepared: Prepared, predictions: &mut Predictions) -> Answered {
        let cell = prepared.cell.clone();
        // Pinned here, because it has some kilobytes, which the memory would move from hand to hand.
        let deciding = pin!(self.decide_once(prepared, predictions));
        let answered = memo::answer(&cell, deciding).await;
        if let Answer::NoBid(reason, _) = &*answered.answer {
            self.metrics.no_bids.with_label_values(&[reason.as_str()]).inc();
        }
        answered
    }

    async fn decide_once(&self, prepared: Prepared, predictions: &mut Predictions) -> Answered {
        let Prepared { opportunity, deadline, asked, found, .. } = prepared;
        let mut found = match found {
            Ok(found) => found,
            Err((reason, detail)) => return Answered::no_bid(reason, detail, 0),
        };
        let permit = found.permit.take();
        let predicted = predicted(std::mem::take(&mut found.matches), predictions, deadline).await;
        let answered = self.decide_found(&opportunity, deadline, asked, (&found.policy, predicted)).await;
        match (&*answered.answer, permit) {
            (Answer::Bid(_), Some(permit)) => permit.succeeded(self.clock.now()),
            (Answer::NoBid(Reason::Deadline, _), Some(permit)) => permit.failed(self.clock.now()),
            _ => {} // the platform had no part in it
        }
        answered
    }

    async fn decide_found(
        &self,
        opportunity: &Opportunity,
        deadline: Deadline,
        asked: Instant,
        (policy, predicted): (&Arc<Policy>, Vec<(Match, Predicted)>),
    ) -> Answered {
        let had = Instant::now();
        if deadline.timed {
            self.metrics.stages.predict.observe((had - asked).as_secs_f64());
        }
        if deadline.too_late_to_bid(had) {
            let (reason, detail) = late("the campaigns were priced");
            return Answered::no_bid(reason, detail, 0);
        }
        let answered = self.guard(opportunity, deadline, policy, predicted).await;
        if deadline.timed {
            self.metrics.stages.guard.observe(had.elapsed().as_secs_f64());
        }
        answered
    }

    /// Prices, holds against the guardrails and takes a slot.
    async fn guard(
        &self,
        opportunity: &Opportunity,
        deadline: Deadline,
        policy: &Arc<Policy>,
        predicted: Vec<(Match, Predicted)>,
    ) -> Answered {
        let now = self.clock.now(); // predictions may have taken a while, and leases end on time
        let (may, mut may_not) = auction::rank(self.value(opportunity, predicted, policy, now));
        let (may, over) = self.frequency.hold(may, policy, now, deadline.guard).await;
        may_not.extend(over);
        let mut decided = Decided { opportunity, policy, now, entries: vec![] };
        for candidate in &may_not {
            if self.record.takes(candidate.refusals) {
                decided.refused(candidate, candidate.refusals);
            } else {
                self.metrics.counted_below_floor.inc();
            }
        }
        let mut stopped = None;
        for candidate in may {
            if deadline.too_late_to_bid(Instant::now()) {
                decided.refused(&candidate, Refusals::NONE.with(leaf::Refusal::Deadline));
                stopped = Some(late("a slot was taken"));
                break;
            }
            let slot = self.leases.take(&candidate.campaign, opportunity.platform.as_str(), candidate.price, now);
            match tokio::time::timeout_at(deadline.guard, slot).await {
                // Nothing is awaited from here to the push.
                Ok(Ok(slot)) => return self.take(decided, candidate, slot),
                Ok(Err(NoSlot::Budget)) => {
                    decided.refused(&candidate, Refusals::NONE.with(leaf::Refusal::Budget));
                    stopped = stopped.or(Some((Reason::Budget, "the budget does not have the price".to_owned())));
                }
                Ok(Err(NoSlot::Unavailable(why))) => {
                    decided.refused(&candidate, Refusals::NONE.with(leaf::Refusal::NoLease));
                    stopped = Some((Reason::NotReady, why));
                }
                Err(_) => {
                    decided.refused(&candidate, Refusals::NONE.with(leaf::Refusal::Deadline));
                    stopped = Some(late("a slot was had"));
                    break;
                }
            }
        }
        let (reason, detail) = stopped.unwrap_or_else(|| refused(&may_not));
        let ticket = if decided.entries.is_empty() { 0 } else { self.recorder.push(decided.entries) };
        Answered::no_bid(reason, detail, ticket)
    }

    /// Prices every campaign that fits.
    fn value(&self, opportunity: &Opportunity, predicted: Vec<(Match, Predicted)>, policy: &Policy, now: UnixMicros) -> Vec<Candidate> {
        let multiplier_ppm = self.multipliers.of(&opportunity.platform);
        let candidate = |(one, predicted): (Match, Predicted)| {
            let prediction = fallback::settled(predicted, &one.campaign, multiplier_ppm);
            self.metrics.predicted(prediction.status);
            let counts = self.leases.counts(&one.campaign).unwrap_or(one.counts);
            let standing = Standing { counts, lambda_ppm: self.pacing.lambda_ppm(&one.campaign, now), markets: &self.markets };
            let customer = one.customer;
            Candidate { customer, ..auction::candidate(opportunity, one.campaign, one.creative, prediction, standing, policy, now) }
        };
        predicted.into_iter().map(candidate).collect()
    }

    fn take(&self, mut decided: Decided<'_>, candidate: Candidate, slot: Slot) -> Answered {
        let receipt = decided.receipt(&candidate, &slot, self.notice_window);
        self.frequency.tell(&receipt, Fate::Open, decided.now);
        let receipt = self.receipts.content(&receipt);
        decided.took(&candidate, &slot);
        let ticket = self.recorder.push(decided.entries);
        let labels = [decided.opportunity.platform.as_str(), candidate.campaign.currency.code()];
        self.metrics.bids.with_label_values(&labels).inc();
        let Candidate { campaign, creative, price, prediction, market, .. } = candidate;
        let (predicted_ltv, prediction_status) = (prediction.ltv, prediction.status);
        let bid = Bid { campaign, creative, price, predicted_ltv, prediction_status, market, slot, receipt };
        Answered { answer: Arc::new(Answer::Bid(Box::new(bid))), ticket }
    }

    /// What the bid's notices bring back, and its click.
    #[must_use]
    pub fn receipts(&self, bid: &Bid) -> [String; 2] {
        self.receipts.seal(&bid.receipt, [Purpose::Notice, Purpose::Click])
    }
}

/// The deadline passed before that.
fn late(what: &str) -> (Reason, String) {
    (Reason::Deadline, format!("the deadline passed before {what}"))
}

/// Waits for the predictions.
async fn predicted(matches: Vec<Match>, predictions: &mut Predictions, deadline: Deadline) -> Vec<(Match, Predicted)> {
    let mut predicted = Vec::with_capacity(matches.len());
    for one in matches {
        let prediction = match one.question {
            Some(place) => predictions.of(place, deadline.predict).await,
            None if one.customer.is_some() => Predicted::Missing, // it was too late to ask
            None => Predicted::Unknown,
        };
        predicted.push((one, prediction));
    }
    predicted
}

/// The most telling reason of campaigns that all were refused: a floor that one alone failed by says more than the guardrails of others.
fn refused(candidates: &[Candidate]) -> (Reason, String) {
    let floor = Refusals::NONE.with(leaf::Refusal::BelowFloor);
    let below_floor = candidates.iter().find(|candidate| candidate.refusals == floor);
    let reason = if below_floor.is_some() { Reason::BelowFloor } else { Reason::Policy };
    let shown = below_floor.or(candidates.first());
    let detail = shown.map_or_else(String::new, |candidate| {
        let why: Vec<&str> = candidate.refusals.iter().map(|refusal| refusal.as_str_name()).collect();
        let rules = if candidate.rules.is_empty() { String::new() } else { format!(" by {}", candidate.rules.join(", ")) };
        format!("{} at {} nanos: {}{rules}", candidate.campaign.id, candidate.price.get(), why.join(", "))
    });
    (reason, detail)
}

/// The decisions of one opportunity.
struct Decided<'a> {
    opportunity: &'a Opportunity,
    policy: &'a Policy,
    now: UnixMicros,
    entries: Vec<Entry>,
}

impl Decided<'_> {
    fn refused(&mut self, candidate: &Candidate, refusals: Refusals) {
        self.push(candidate, refusals, None);
    }

    fn took(&mut self, candidate: &Candidate, slot: &Slot) {
        self.push(candidate, Refusals::NONE, Some(slot));
    }

    fn push(&mut self, candidate: &Candidate, refusals: Refusals, slot: Option<&Slot>) {
        let decision = Decision { at: self.now, opportunity: self.opportunity, candidate, refusals, slot }.encode();
        self.entries.push(Entry { campaign: candidate.campaign.clone(), policy_digest: self.policy.digest, decision });
    }

    fn receipt(&self, candidate: &Candidate, slot: &Slot, window: Duration) -> Receipt {
        let mut policy_digest = [0; 16];
        policy_digest.copy_from_slice(&self.policy.digest[..16]);
        Receipt {
            client: candidate.campaign.client.clone(),
            campaign: candidate.campaign.id.clone(),
            exchange: self.opportunity.exchange.clone(),
            platform: self.opportunity.platform.clone(),
            model: candidate.prediction.model.clone(),
            lease_id: slot.lease_id,
            epoch: slot.epoch,
            sequence: slot.sequence,
            max_price: candidate.price,
            currency: candidate.campaign.currency,
            customer: candidate.customer,
            predicted_ltv: candidate.prediction.ltv,
            horizon_days: candidate.campaign.horizon_days,
            p_conversion_ppb: candidate.p_conversion_ppb,
            policy_digest,
            bid_at: self.now,
            deadline: self.now.plus(window),
            granted_at: slot.granted_at,
            market: candidate.market,
        }
    }
}
