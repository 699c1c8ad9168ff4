//! Predictions from SyncValue: asked by many bids, sent in batches over one stream, behind a circuit breaker.
//!
//! The questions of one message of opportunities go together, as one call to the breaker. Whoever asks gets [`Predictions`] at
//! once and waits as long as it can afford; no answer in time is no answer, and [`crate::domain::fallback`] stands in: what comes later is
//! [`Held`] for who asks next. Bounds: `MAX_WAITING` calls of at most `MAX_BATCH` questions wait to be sent, `MAX_IN_FLIGHT` messages of less than
//! two calls' questions are unanswered. A stream that stays silent for `STALL` is given up and opened anew.
//!
//! What was said is held for as long as SyncValue says that it holds and its stream lasts, which tells of the customers who changed. On
//! virtual time nothing is, because what changed comes in real time.

mod answers;
mod held;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::caller::WATCH;
use kiki::clock::{Clock, UnixMicros};
use kiki::ids::CustomerKey;
use kiki::leaf;
use kiki::money::PPM;
use kiki::pb::syncvalue::v1 as pb;
use kiki::runtime::Channel;
use kiki::runtime::Raw;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Status, Streaming};

use super::Backoff;
use crate::domain::auction::Prediction;
use crate::domain::breaker::{Breaker, Permit, State};
use crate::domain::fallback::Predicted;
use crate::domain::targeting::Campaign;
use crate::metrics::Metrics;
use crate::wire::Fields;
use answers::Said;
pub use held::Held;
use held::{Era, Subject};

/// Calls that may wait: of single questions, four full messages.
const MAX_WAITING: usize = 1_024;
/// Questions of one call, and at which a message is full: so that a message's cost is shared by all who ask meanwhile, and nobody waits
/// long for the last answer.
const MAX_BATCH: usize = 256;
/// Unanswered messages: while one is computed, the next is on its way. What comes then goes together.
const MAX_IN_FLIGHT: usize = 2;
const PREDICT_STREAM: &str = "/kiki.syncvalue.v1.SyncValueService/PredictStream";
/// A question's length, more or less: what room is made for.
const USUAL: usize = 96;
/// Longer than any bid waits.
const STALL: Duration = Duration::from_secs(5);

/// Asks SyncValue.
#[derive(Debug, Clone)]
pub struct Predictor {
    questions: mpsc::Sender<Call>,
    watched: Arc<Watched>,
}

/// What an answer is told to. One for all that are asked: handles are counted, and a question would count each of them.
#[derive(Debug)]
struct Watched {
    breaker: Arc<Breaker>,
    clock: Clock,
    metrics: Metrics,
    held: Option<Held>,
}

/// What the opportunities of one message ask for.
#[derive(Debug, Default)]
pub struct Questions {
    /// Full calls and one that is not, each with the bytes of a `PredictStreamRequest`.
    calls: Vec<Asked>,
    count: usize,
    /// How many are expected.
    about: usize,
}

#[derive(Debug, Default)]
struct Asked {
    /// Who is asked about.
    of: Vec<Subject>,
    message: Vec<u8>,
}

impl Questions {
    /// Room for so many, once there is one.
    #[must_use]
    pub fn for_about(count: usize) -> Self {
        Self { calls: Vec::new(), count: 0, about: count }
    }

    /// Asks what the campaign's customer is worth as of then, in the campaign's currency and over the horizon of its terms: two
    /// campaigns may be answered by two models. The question's place among them.
    pub fn add(&mut self, campaign: &Campaign, customer: CustomerKey, at: UnixMicros) -> usize {
        if self.calls.last().is_none_or(|call| call.of.len() == MAX_BATCH) {
            let about = self.about.clamp(1, MAX_BATCH);
            self.calls.push(Asked { of: Vec::with_capacity(about), message: Vec::with_capacity(about * USUAL) });
        }
        if let Some(call) = self.calls.last_mut() {
            Fields(&mut call.message).message(1, |to| request(campaign, customer, at, to));
            call.of.push(Subject { customer, campaign: campaign.recent.clone(), at });
        }
        self.count += 1;
        self.count - 1
    }
}

#[derive(Debug)]
struct Call {
    of: Vec<Subject>,
    message: Vec<u8>,
    answer: oneshot::Sender<Answered>,
}

/// What was said of those whom a call asked about, and when it came.
#[derive(Debug)]
struct Answered {
    of: Vec<Subject>,
    said: Bytes,
    era: Era,
}

/// Predictions that were asked for.
#[derive(Debug)]
pub struct Predictions {
    /// One for each `MAX_BATCH` questions; none where the breaker refused, or too many waited already.
    calls: Vec<Option<Pending>>,
    watched: Arc<Watched>,
}

#[derive(Debug)]
struct Pending {
    /// None once it came, or is known never to come.
    answer: Option<oneshot::Receiver<Answered>>,
    /// None once the call is known to be answered, late or failed.
    permit: Option<Permit<Arc<Breaker>>>,
    said: Vec<Said>,
}

impl Predictor {
    /// A predictor, and the task that serves it until `stop`.
    pub fn new(
        channel: Channel,
        breaker: Arc<Breaker>,
        clock: Clock,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (questions, waiting) = mpsc::channel(MAX_WAITING);
        let held = matches!(clock, Clock::System).then(Held::new);
        let watched = Arc::new(Watched { breaker, clock, metrics, held });
        let predictor = Self { questions, watched: watched.clone() };
        (predictor, async move {
            let _ = stop.run_until_cancelled(serve(channel, waiting, &watched)).await;
        })
    }

    /// What need not be asked. An answer of before is as good while others come late; not while somebody has opened the breaker, who may
    /// mistrust what is said.
    #[must_use]
    pub fn held(&self, now: UnixMicros) -> Option<&Held> {
        let Watched { breaker, held, .. } = &*self.watched;
        let trusted = match breaker.state(now) {
            State::Closed | State::HalfOpen | State::ForcedClosed => true,
            State::Open => breaker.why(now) != Breaker::TRIPPED,
            State::ForcedOpen => false,
        };
        held.as_ref().filter(|_| trusted)
    }

    /// Asks, and waits for nothing.
    #[must_use]
    pub fn ask(&self, questions: Questions) -> Predictions {
        Predictions { calls: questions.calls.into_iter().map(|asked| self.call(asked)).collect(), watched: self.watched.clone() }
    }

    fn call(&self, Asked { of, message }: Asked) -> Option<Pending> {
        let Watched { breaker, clock, .. } = &*self.watched;
        let now = clock.now();
        let permit = breaker.admit_owned(now).ok()?;
        let (answer, pending) = oneshot::channel();
        match self.questions.try_send(Call { of, message, answer }) {
            Ok(()) => Some(Pending { answer: Some(pending), permit: Some(permit), said: Vec::new() }),
            Err(_) => {
                permit.failed(now);
                None
            }
        }
    }
}

impl Predictions {
    /// The answer to the question at that place, if it comes by `deadline`. Each is given once.
    pub async fn of(&mut self, place: usize, deadline: Instant) -> Predicted {
        let Self { calls, watched } = self;
        let Some(Some(pending)) = calls.get_mut(place / MAX_BATCH) else { return Predicted::Missing };
        if pending.answer.is_some() {
            pending.wait(deadline, watched).await;
        }
        let said = pending.said.get(place % MAX_BATCH);
        said.map_or(Predicted::Missing, known)
    }
}

impl Drop for Predictions {
    /// An answer that came and was not waited for is held now, one that is still to come once it does.
    fn drop(&mut self) {
        for mut answer in self.calls.iter_mut().flatten().filter_map(|pending| pending.answer.take()) {
            answer.close();
            if let Ok(answered) = answer.try_recv() {
                self.watched.late(&answered);
            }
        }
    }
}

impl Pending {
    /// Waits until the call is answered, or until then.
    async fn wait(&mut self, deadline: Instant, watched: &Watched) {
        let Some(answer) = &mut self.answer else { return };
        let came = tokio::time::timeout_at(deadline, answer).await;
        let (now, permit) = (watched.clock.now(), self.permit.take().into_iter());
        match came {
            Ok(answered) => {
                self.answer = None;
                self.said = answered.map(|answered| watched.said(&answered)).unwrap_or_default();
            }
            Err(_) => watched.metrics.predictions_late.inc(),
        }
        // An answer that nobody can use is a failure, as one that does not come.
        let answered = self.said.iter().any(|said| said.model.is_some());
        permit.for_each(|permit| if answered { permit.succeeded(now) } else { permit.failed(now) });
    }
}

impl Watched {
    /// What was said. It is held from now on.
    fn said(&self, answered: &Answered) -> Vec<Said> {
        let all = answers::read(&answered.said).unwrap_or_default();
        let Some(held) = &self.held else { return all };
        for (subject, said) in answered.of.iter().zip(&all).filter(|(_, said)| said.holds_ms > 0) {
            match known(said) {
                Predicted::Missing => {}
                predicted => held.put(subject, predicted, said.holds_ms, answered.era),
            }
        }
        all
    }

    /// What came too late for whoever asked is held for who asks next.
    fn late(&self, answered: &Answered) {
        if self.held.is_some() {
            self.said(answered);
        }
    }
}

/// Of a customer or a population that nobody has seen, the campaign's prior knows more; where SyncValue cannot get at what it
/// knows of the customer, or does not say which model it is of, that is as good as no answer.
fn known(said: &Said) -> Predicted {
    let Some(model) = &said.model else { return Predicted::Missing };
    match said.fallback_reason {
        pb::FallbackReason::NoPopulation | pb::FallbackReason::UnknownCustomer => return Predicted::Unknown,
        pb::FallbackReason::StateUnavailable => return Predicted::Missing,
        _ => {}
    }
    let status = match said.status {
        leaf::PredictionStatus::Ok => leaf::PredictionStatus::Ok,
        _ => leaf::PredictionStatus::Fallback,
    };
    Predicted::Said(Prediction { ltv: said.mean, q05: Some(said.q05), model: model.clone(), status, multiplier_ppm: PPM as u32 })
}

async fn serve(value: Channel, mut waiting: mpsc::Receiver<Call>, watched: &Watched) {
    let mut backoff = Backoff::new();
    // A stream is opened for the first question, and anew for the first one after it broke.
    while let Some(first) = waiting.recv().await {
        let ended = converse(&value, &mut waiting, first, watched).await;
        watched.held.iter().for_each(Held::forget_all); // nobody tells what changes
        match ended {
            Ok(()) => backoff = Backoff::new(),
            Err(status) => {
                tracing::warn!("syncvalue: {}", status.message());
                let _ = tokio::time::timeout(backoff.next(), turn_away(&mut waiting)).await; // for so long
            }
        }
    }
}

/// Nobody waits for a service that has just failed.
async fn turn_away(waiting: &mut mpsc::Receiver<Call>) {
    while waiting.recv().await.is_some() {}
}

/// One stream's life. Calls that it leaves unanswered are dropped, which tells those who asked.
async fn converse(value: &Channel, waiting: &mut mpsc::Receiver<Call>, first: Call, watched: &Watched) -> Result<(), Status> {
    let held = watched.held.as_ref();
    // The channel is as deep as the window, so that sending never waits.
    let (requests, outgoing) = mpsc::channel(MAX_IN_FLIGHT);
    let mut in_flight = VecDeque::with_capacity(MAX_IN_FLIGHT);
    send(&requests, &mut in_flight, waiting, first);
    let opened = tokio::time::timeout(STALL, open(value, outgoing, held.is_some())).await;
    let mut answers = opened.map_err(|_| Status::deadline_exceeded("no stream for 5 s"))??;
    loop {
        tokio::select! {
            biased;
            answer = next(&mut answers, in_flight.is_empty()) => {
                let Some(mut answer) = answer? else { return Ok(()) };
                // Once it is not clear what a message answers, it is not clear of any behind it either.
                let unclear = || Status::internal("an answer that is not to what was asked");
                if let Some(changes) = answers::changes(&answer).ok_or_else(unclear)? {
                    held.iter().for_each(|held| held.take(&changes));
                    continue;
                }
                let era = held.map_or(Era::default(), Held::era);
                for (of, call) in in_flight.pop_front().unwrap_or_default() {
                    let said = answers::split(&mut answer, of.len()).ok_or_else(unclear)?;
                    if let Err(answered) = call.send(Answered { of, said, era }) {
                        watched.late(&answered);
                    }
                }
                if !answer.is_empty() {
                    return Err(unclear());
                }
            }
            call = waiting.recv(), if in_flight.len() < MAX_IN_FLIGHT => match call {
                None => return Ok(()),
                Some(call) => send(&requests, &mut in_flight, waiting, call),
            }
        }
    }
}

/// Opens SyncValue's PredictStream.
async fn open(value: &Channel, requests: mpsc::Receiver<Vec<u8>>, watch: bool) -> Result<Streaming<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(value.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (path, mut request) = (PathAndQuery::from_static(PREDICT_STREAM), tonic::Request::new(ReceiverStream::new(requests)));
    if watch {
        request.metadata_mut().insert(WATCH, MetadataValue::from_static("changes"));
    }
    client.streaming(request, path, Raw::<Vec<u8>>::default()).await.map(tonic::Response::into_inner)
}

/// The next answer; without a limit where none is owed.
async fn next(answers: &mut Streaming<Bytes>, idle: bool) -> Result<Option<Bytes>, Status> {
    let late = |_| Status::deadline_exceeded("no answer for 5 s");
    if idle { answers.message().await } else { tokio::time::timeout(STALL, answers.message()).await.map_err(late)? }
}

/// Of each unanswered message its calls, and whom each asks about.
type InFlight = VecDeque<Vec<(Vec<Subject>, oneshot::Sender<Answered>)>>;

/// Sends the call together with those that wait behind it, as far as a message goes.
fn send(requests: &mpsc::Sender<Vec<u8>>, in_flight: &mut InFlight, waiting: &mut mpsc::Receiver<Call>, first: Call) {
    let Call { of, mut message, answer } = first;
    let (mut count, mut calls) = (of.len(), vec![(of, answer)]);
    // What belongs together is written together: protobuf's lists are one behind the other.
    while count < MAX_BATCH
        && let Ok(call) = waiting.try_recv()
    {
        message.extend_from_slice(&call.message);
        count += call.of.len();
        calls.push((call.of, call.answer));
    }
    if requests.try_send(message).is_ok() {
        in_flight.push_back(calls);
    }
}

/// Writes a `PredictRequest`.
fn request(campaign: &Campaign, customer: CustomerKey, at: UnixMicros, to: &mut Fields<'_>) {
    to.text(1, &campaign.client);
    to.entry(3, &customer.0);
    to.text(5, campaign.currency.code());
    to.number(6, campaign.horizon_days.into());
    to.message(7, |to| to.timestamp(at));
    to.text(8, &campaign.id);
}
