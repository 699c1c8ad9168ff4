//! The opportunities of one message: what they have in common is found out once.

use std::pin::pin;
use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::guardrail::Refusals;
use kiki::ids::CustomerKey;
use kiki::leaf::{self, PredictionStatus};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::memo::{Answered, Cell};
use super::recorded::Decisions;
use super::{Answer, Bid, Decided, Engine, Reason};
use crate::clients::leases::{Account, NoSlot};
use crate::clients::predictor::{Held, Predictions, Questions};
use crate::clients::replicas::View;
use crate::deadline::Deadline;
use crate::domain::auction::{self, Candidate, Counts, Fit, Standing};
use crate::domain::breaker::{Breaker, Permit, Refused};
use crate::domain::fallback::{self, Predicted};
use crate::domain::frequency::Fate;
use crate::domain::lease::Slot;
use crate::domain::opportunity::Opportunity;

/// A message's opportunities, and what they are decided on: the replicas as they were when it came.
#[derive(Debug)]
pub struct Round<'e> {
    engine: &'e Engine,
    now: UnixMicros,
    asked: Instant,
    view: Result<Arc<View>, &'static str>,
    questions: Questions,
    /// What need not be asked.
    held: Option<&'e Held>,
    /// What was found for each opportunity, until it is decided on.
    found: Vec<Option<Result<Found, (Reason, String)>>>,
    standings: Vec<Known>,
    decisions: Decisions,
    tally: Tally,
    /// A bid waited for SyncShield.
    waited: bool,
}

/// What is known of a campaign on a platform, for as long as a round lasts.
#[derive(Debug)]
struct Known {
    /// Its place in the view.
    campaign: usize,
    platform: String,
    counts: Counts,
    lambda_ppm: u64,
    account: Arc<Account>,
    bids: u64,
}

/// What is counted once for all opportunities: counters that all threads count with are waited for.
#[derive(Debug, Default)]
struct Tally {
    predicted: [u64; 5],
    held: u64,
}

/// An opportunity and its time.
#[derive(Debug)]
pub struct Offered<'m> {
    /// The opportunity.
    pub opportunity: Opportunity<'m>,
    /// Its time.
    pub deadline: Deadline,
}

/// An opportunity of a round.
#[derive(Debug)]
pub struct Prepared<'o, 'm> {
    /// What was offered.
    pub offered: &'o Offered<'m>,
    /// Where its answer goes.
    cell: Cell,
    /// Its place in the round.
    place: usize,
}

#[derive(Debug, Default)]
struct Found {
    matches: SmallVec<[Match; 2]>,
    /// Leave to bid on the platform, where it has a breaker.
    permit: Option<Permit<Arc<Breaker>>>,
}

#[derive(Debug)]
struct Match {
    /// Places in the view, and among the campaign's creatives.
    campaign: usize,
    creative: usize,
    customer: Option<CustomerKey>,
    predicted: Asked,
}

/// What becomes of a match's prediction: one each, because campaigns of one client may be answered by different models.
#[derive(Debug)]
enum Asked {
    /// It is known what it is.
    Known(Predicted),
    /// It is asked for: the place of its question.
    Question(usize),
}

impl<'e> Round<'e> {
    /// A round of so many opportunities.
    #[must_use]
    pub fn new(engine: &'e Engine, count: usize) -> Self {
        let room = || engine.recorder.has_room().then_some(()).ok_or("too many decisions wait for the log");
        let now = engine.clock.now();
        Self {
            engine,
            now,
            asked: Instant::now(),
            view: engine.replicas.view().and_then(|view| room().map(|()| view)),
            questions: Questions::for_about(count),
            held: engine.predictor.held(now),
            found: Vec::with_capacity(count),
            standings: Vec::new(),
            decisions: Decisions::default(),
            tally: Tally::default(),
            waited: false,
        }
    }

    /// Finds campaigns, and adds what is to be asked for them; waits for nothing.
    pub fn prepare<'o, 'm>(&mut self, offered: &'o [Offered<'m>]) -> Vec<Prepared<'o, 'm>> {
        let cells = self.engine.memo.cells(offered.iter().map(|offered| offered.opportunity.key), self.now);
        offered.iter().zip(cells).map(|(offered, cell)| self.prepare_one(offered, cell)).collect()
    }

    fn prepare_one<'o, 'm>(&mut self, offered: &'o Offered<'m>, cell: Cell) -> Prepared<'o, 'm> {
        let Offered { opportunity, deadline } = offered;
        let found = if cell.answered() {
            Ok(Found::default())
        } else if deadline.too_late_to_bid(self.asked) {
            Err(late("anything was asked"))
        } else {
            self.find(opportunity, !deadline.too_late_to_ask(self.asked))
        };
        self.found.push(Some(found));
        Prepared { offered, cell, place: self.found.len() - 1 }
    }

    fn find(&mut self, opportunity: &Opportunity<'_>, ask: bool) -> Result<Found, (Reason, String)> {
        let view = self.view.as_ref().map_err(|why| (Reason::NotReady, (*why).to_owned()))?;
        if opportunity.test {
            return Err((Reason::Test, "a test is not billed, and not bid on".to_owned()));
        }
        let refused = |refused: Refused| (Reason::Platform, format!("{}: {refused}", opportunity.platform));
        let permit = self.engine.breakers.admit(opportunity.platform, self.now).map_err(refused)?;
        let mut matches = SmallVec::new();
        for (at, entry) in view.campaigns.iter().enumerate() {
            let campaign = &*entry.campaign;
            let Some(creative) = campaign.fits(opportunity) else { continue };
            let customer = opportunity.customer.map(|customer| self.engine.pseudonyms.of(&campaign.client, customer));
            let predicted = match customer {
                None => Asked::Known(Predicted::Unknown),
                Some(customer) => match self.held.and_then(|held| held.get(&customer, &campaign.recent, self.now)) {
                    Some(predicted) => {
                        self.tally.held += 1;
                        Asked::Known(predicted)
                    }
                    None if ask => Asked::Question(self.questions.add(campaign, customer, self.now)),
                    None => Asked::Known(Predicted::Missing), // it is too late to ask
                },
            };
            matches.push(Match { campaign: at, creative, customer, predicted });
        }
        if matches.is_empty() {
            return Err((Reason::NoMatch, "no campaign fits".to_owned()));
        }
        Ok(Found { matches, permit })
    }

    /// Asks what was added.
    #[must_use]
    pub fn ask(&mut self) -> Predictions {
        self.engine.predictor.ask(std::mem::take(&mut self.questions))
    }

    /// Whether SyncShield was waited for. How long that took says nothing of how much is under way here: one platform's lease that does
    /// not come must not turn away the bids of others.
    #[must_use]
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// Decides; an opportunity that was answered before has the same answer again.
    pub async fn decide<'p>(&mut self, prepared: &'p Prepared<'_, '_>, predictions: &mut Predictions) -> Answered<'p> {
        let metrics = &self.engine.metrics;
        // Pinned here, because it has some kilobytes, which the memory would move from hand to hand.
        let deciding = pin!(self.decide_once(prepared, predictions));
        let answered = prepared.cell.answer(deciding).await;
        if let Answer::NoBid(reason, _) = &answered.answer {
            metrics.no_bids.with_label_values(&[reason.as_str()]).inc();
        }
        answered
    }

    async fn decide_once(&mut self, prepared: &Prepared<'_, '_>, predictions: &mut Predictions) -> Decided {
        let Offered { opportunity, deadline } = prepared.offered;
        let found = self.found.get_mut(prepared.place).and_then(Option::take).unwrap_or_else(|| Ok(Found::default()));
        let (view, Found { mut matches, permit }) = match (&self.view, found) {
            (Ok(view), Ok(found)) => (view.clone(), found),
            (_, Err((reason, detail))) => return Decided::no_bid(reason, detail, 0),
            (Err(why), _) => return Decided::no_bid(Reason::NotReady, (*why).to_owned(), 0),
        };
        let mut predicted = SmallVec::<[Predicted; 1]>::new();
        for one in &mut matches {
            predicted.push(match &mut one.predicted {
                Asked::Question(place) => predictions.of(*place, deadline.predict).await,
                Asked::Known(predicted) => std::mem::replace(predicted, Predicted::Missing), // each is decided on once
            });
        }
        let decided = self.decide_found(opportunity, *deadline, &view, matches.iter().zip(predicted)).await;
        match (&decided.answer, permit) {
            (Answer::Bid(_), Some(permit)) => permit.succeeded(self.engine.clock.now()),
            (Answer::NoBid(Reason::Deadline, _), Some(permit)) => permit.failed(self.engine.clock.now()),
            _ => {} // the platform had no part in it
        }
        decided
    }

    async fn decide_found(
        &mut self,
        opportunity: &Opportunity<'_>,
        deadline: Deadline,
        view: &Arc<View>,
        predicted: impl Iterator<Item = (&Match, Predicted)>,
    ) -> Decided {
        let had = Instant::now();
        let stages = &self.engine.metrics.stages;
        if deadline.timed {
            stages.predict.observe((had - self.asked).as_secs_f64());
        }
        if deadline.too_late_to_bid(had) {
            let (reason, detail) = late("the campaigns were priced");
            return Decided::no_bid(reason, detail, 0);
        }
        let decided = self.guard(opportunity, (deadline, had), view, predicted).await;
        if deadline.timed {
            stages.guard.observe(had.elapsed().as_secs_f64());
        }
        decided
    }

    /// Prices, holds against the guardrails and takes a slot.
    async fn guard(
        &mut self,
        opportunity: &Opportunity<'_>,
        (deadline, mut at): (Deadline, Instant),
        view: &Arc<View>,
        predicted: impl Iterator<Item = (&Match, Predicted)>,
    ) -> Decided {
        let now = self.engine.clock.now(); // predictions may have taken a while, and leases end on time
        let mut candidates = SmallVec::<[Candidate<'_>; 1]>::new();
        for (one, predicted) in predicted {
            candidates.push(self.value(opportunity, view, one, predicted, now));
        }
        auction::rank(&mut candidates);
        if view.policy.caps_frequency() {
            self.engine.frequency.hold(&mut candidates, &view.policy, now, deadline.guard).await;
            at = Instant::now();
        }
        self.decisions.begin(now);
        for candidate in candidates.iter().filter(|candidate| !candidate.refusals.is_empty()) {
            if self.engine.record.takes(candidate.refusals) {
                self.decisions.add(opportunity, candidate, candidate.refusals, None);
            } else {
                self.engine.metrics.counted_below_floor.inc();
            }
        }
        let mut stopped = None;
        for candidate in candidates.iter().filter(|candidate| candidate.refusals.is_empty()) {
            match self.slot(opportunity, (deadline, at), view, candidate, now).await {
                // Nothing is awaited from here to the push.
                Ok(slot) => return self.take(opportunity, view, candidate, slot),
                Err((refusal, why)) => {
                    self.decisions.add(opportunity, candidate, Refusals::NONE.with(refusal), None);
                    let last = refusal == leaf::Refusal::Deadline;
                    stopped = if refusal == leaf::Refusal::Budget { stopped.or(Some(why)) } else { Some(why) };
                    if last {
                        break;
                    }
                    at = Instant::now();
                }
            }
        }
        let (reason, detail) = stopped.unwrap_or_else(|| refused(&candidates));
        let ticket = self.decisions.push(&self.engine.recorder, view);
        Decided::no_bid(reason, detail, ticket)
    }

    /// Prices a campaign that fits.
    fn value<'v>(
        &mut self,
        opportunity: &Opportunity<'_>,
        view: &'v View,
        one: &Match,
        predicted: Predicted,
        now: UnixMicros,
    ) -> Candidate<'v> {
        let engine = self.engine;
        let campaign = &view.campaigns[one.campaign].campaign;
        let prediction = fallback::settled(predicted, campaign, || engine.multipliers.of(opportunity.platform));
        self.tally.predicted[prediction.status as usize] += 1;
        let Known { counts, lambda_ppm, .. } = *self.known(view, one.campaign, opportunity.platform);
        let standing = Standing { counts, lambda_ppm, markets: &engine.markets };
        let fit = Fit { place: one.campaign, campaign, creative: one.creative, customer: one.customer };
        auction::candidate(opportunity, fit, prediction, standing, &view.policy, now)
    }

    /// What is known of the campaign, found out by the first opportunity that it fits.
    fn known(&mut self, view: &View, campaign: usize, platform: &str) -> &mut Known {
        let at = self.standings.iter().position(|known| known.campaign == campaign && known.platform == platform);
        let at = at.unwrap_or_else(|| {
            let entry = &view.campaigns[campaign];
            let (leases, pacing) = (&self.engine.leases, &self.engine.pacing);
            self.standings.push(Known {
                campaign,
                platform: platform.to_owned(),
                counts: leases.counts(&entry.campaign).unwrap_or(entry.counts),
                lambda_ppm: pacing.lambda_ppm(&entry.campaign, self.now),
                account: leases.account(&entry.campaign, platform),
                bids: 0,
            });
            self.standings.len() - 1
        });
        &mut self.standings[at]
    }

    /// A slot for the candidate, asked for then; or what refuses it, and why, for people.
    async fn slot(
        &mut self,
        opportunity: &Opportunity<'_>,
        (deadline, at): (Deadline, Instant),
        view: &View,
        candidate: &Candidate<'_>,
        now: UnixMicros,
    ) -> Result<Slot, (leaf::Refusal, (Reason, String))> {
        if deadline.too_late_to_bid(at) {
            return Err((leaf::Refusal::Deadline, late("a slot was taken")));
        }
        let Candidate { campaign, price, place, .. } = *candidate;
        if let Some(slot) = self.known(view, place, opportunity.platform).account.take(price, now) {
            return Ok(slot);
        }
        self.waited = true;
        let slot = self.engine.leases.take(campaign, opportunity.platform, price, now);
        match tokio::time::timeout_at(deadline.guard, slot).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(NoSlot::Budget)) => Err((leaf::Refusal::Budget, (Reason::Budget, "the budget does not have the price".to_owned()))),
            Ok(Err(NoSlot::Unavailable(why))) => Err((leaf::Refusal::NoLease, (Reason::NotReady, why))),
            Err(_) => Err((leaf::Refusal::Deadline, late("a slot was had"))),
        }
    }

    fn take(&mut self, opportunity: &Opportunity<'_>, view: &Arc<View>, candidate: &Candidate<'_>, slot: Slot) -> Decided {
        let Candidate { place: campaign, creative, customer, p_conversion_ppb, price, market, .. } = *candidate;
        let prediction = &candidate.prediction;
        self.decisions.add(opportunity, candidate, Refusals::NONE, Some(&slot));
        let bid = Bid {
            view: view.clone(),
            campaign,
            creative,
            customer,
            model: prediction.model.clone(),
            p_conversion_ppb,
            bid_at: self.decisions.at,
            price,
            predicted_ltv: prediction.ltv,
            prediction_status: prediction.status,
            market,
            slot,
        };
        let receipt = bid.receipt(opportunity, self.engine.notice_window);
        self.engine.frequency.tell(&receipt, Fate::Open, &view.policy, bid.bid_at);
        let ticket = self.decisions.push(&self.engine.recorder, view);
        self.known(view, campaign, opportunity.platform).bids += 1;
        Decided { answer: Answer::Bid(bid), ticket }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let metrics = &self.engine.metrics;
        for (status, count) in (0..).zip(self.tally.predicted) {
            metrics.predicted(PredictionStatus::try_from(status).unwrap_or_default(), count);
        }
        metrics.predictions_held.inc_by(self.tally.held);
        let Ok(view) = &self.view else { return };
        for Known { campaign, platform, bids, .. } in self.standings.iter().filter(|known| known.bids > 0) {
            let labels = [platform.as_str(), view.campaigns[*campaign].campaign.currency.code()];
            metrics.bids.with_label_values(&labels).inc_by(*bids);
        }
    }
}

/// The deadline passed before that.
fn late(what: &str) -> (Reason, String) {
    (Reason::Deadline, format!("the deadline passed before {what}"))
}

/// The most telling reason of campaigns that all were refused: a floor that one alone failed by says more than the guardrails of others.
fn refused(candidates: &[Candidate<'_>]) -> (Reason, String) {
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
