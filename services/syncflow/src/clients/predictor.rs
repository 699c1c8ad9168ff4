//! Predictions from SyncValue: asked by many bids, sent in batches over one stream, behind a circuit breaker.
//!
//! The questions of one message of opportunities go together, as one call to the breaker. Whoever asks gets [`Predictions`] at
//! once and waits as long as it can afford; no answer in time is no answer, and [`crate::domain::fallback`] stands in. Bounds:
//! `MAX_WAITING` calls of at most `MAX_BATCH` questions wait to be sent, `MAX_IN_FLIGHT` messages of less than two calls'
//! questions are unanswered. A stream that stays silent for `STALL` is given up and opened anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::clock::{Clock, UnixMicros};
use kiki::ids::{self, CustomerKey};
use kiki::leaf;
use kiki::money::{Micros, PPM};
use kiki::pb::syncvalue::v1 as pb;
use kiki::runtime::Raw;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::Backoff;
use crate::domain::auction::Prediction;
use crate::domain::breaker::{Breaker, Permit};
use crate::domain::fallback::Predicted;
use crate::domain::targeting::Campaign;
use crate::metrics::Metrics;
use crate::wire::Fields;

/// Calls that may wait: of single questions, 16 full messages.
const MAX_WAITING: usize = 1_024;
/// Questions of one call, and at which a message is full: enough to share its cost, few enough that nobody waits for the last.
const MAX_BATCH: usize = 64;
/// Unanswered messages: while some are computed, others are on their way.
const MAX_IN_FLIGHT: usize = 8;
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
}

/// Whose value, in what, over how long, as of when.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The advertiser's campaign, with its currency and the horizon of its terms: two may be answered by two models.
    pub campaign: Arc<Campaign>,
    /// The advertiser's customer.
    pub customer: CustomerKey,
    /// "Now" of the question.
    pub at: UnixMicros,
}

/// What the opportunities of one message ask for.
#[derive(Debug, Default)]
pub struct Questions(Vec<Subject>);

impl Questions {
    /// One more; its place among them.
    pub fn add(&mut self, subject: Subject) -> usize {
        self.0.push(subject);
        self.0.len() - 1
    }
}

#[derive(Debug)]
struct Call {
    subjects: Vec<Subject>,
    answer: oneshot::Sender<Vec<pb::Prediction>>,
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
    answer: Option<oneshot::Receiver<Vec<pb::Prediction>>>,
    /// None once the call is known to be answered, late or failed.
    permit: Option<Permit<Arc<Breaker>>>,
    said: Vec<pb::Prediction>,
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
        let predictor = Self { questions, watched: Arc::new(Watched { breaker, clock, metrics }) };
        (predictor, async move {
            let _ = stop.run_until_cancelled(serve(channel, waiting)).await;
        })
    }

    /// Asks, and waits for nothing.
    #[must_use]
    pub fn ask(&self, Questions(mut subjects): Questions) -> Predictions {
        let mut calls = Vec::with_capacity(subjects.len().div_ceil(MAX_BATCH));
        while !subjects.is_empty() {
            let rest = subjects.split_off(subjects.len().min(MAX_BATCH));
            calls.push(self.call(std::mem::replace(&mut subjects, rest)));
        }
        Predictions { calls, watched: self.watched.clone() }
    }

    fn call(&self, subjects: Vec<Subject>) -> Option<Pending> {
        let Watched { breaker, clock, .. } = &*self.watched;
        let now = clock.now();
        let permit = breaker.admit_owned(now).ok()?;
        let (answer, pending) = oneshot::channel();
        match self.questions.try_send(Call { subjects, answer }) {
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
        if !pending.wait(deadline, watched).await {
            return Predicted::Missing;
        }
        let said = pending.said.get_mut(place % MAX_BATCH).map(std::mem::take);
        said.filter(named).map_or(Predicted::Missing, known)
    }
}

impl Pending {
    /// Whether the call is answered by then.
    async fn wait(&mut self, deadline: Instant, watched: &Watched) -> bool {
        let Some(answer) = &mut self.answer else { return !self.said.is_empty() };
        let came = tokio::time::timeout_at(deadline, answer).await;
        let (now, permit) = (watched.clock.now(), self.permit.take().into_iter());
        match came {
            Ok(said) => {
                self.answer = None;
                self.said = said.unwrap_or_default();
            }
            Err(_) => watched.metrics.predictions_late.inc(),
        }
        // An answer that nobody can use is a failure, as one that does not come.
        let answered = self.said.iter().any(named);
        permit.for_each(|permit| if answered { permit.succeeded(now) } else { permit.failed(now) });
        answered
    }
}

/// Whether a prediction says which model it is of, in the form that the log takes.
fn named(prediction: &pb::Prediction) -> bool {
    ids::check("model", &prediction.model).is_ok()
}

/// Of a customer or a population that nobody has seen, the campaign's prior knows more; where SyncValue cannot get at what it
/// knows of the customer, that is as good as no answer.
fn known(prediction: pb::Prediction) -> Predicted {
    match prediction.fallback_reason() {
        pb::FallbackReason::NoPopulation | pb::FallbackReason::UnknownCustomer => return Predicted::Unknown,
        pb::FallbackReason::StateUnavailable => return Predicted::Missing,
        _ => {}
    }
    let status = match prediction.status() {
        leaf::PredictionStatus::Ok => leaf::PredictionStatus::Ok,
        _ => leaf::PredictionStatus::Fallback,
    };
    let [ltv, q05] = [prediction.mean_micros, prediction.q05_micros].map(Micros::new);
    Predicted::Said(Prediction { ltv, q05: Some(q05), model: prediction.model, status, multiplier_ppm: PPM as u32 })
}

async fn serve(value: Channel, mut waiting: mpsc::Receiver<Call>) {
    let mut backoff = Backoff::new();
    // A stream is opened for the first question, and anew for the first one after it broke.
    while let Some(first) = waiting.recv().await {
        match converse(&value, &mut waiting, first).await {
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
async fn converse(value: &Channel, waiting: &mut mpsc::Receiver<Call>, first: Call) -> Result<(), Status> {
    // The channel is as deep as the window, so that sending never waits.
    let (requests, outgoing) = mpsc::channel(MAX_IN_FLIGHT);
    let mut in_flight = VecDeque::with_capacity(MAX_IN_FLIGHT);
    send(&requests, &mut in_flight, waiting, first);
    let opened = tokio::time::timeout(STALL, open(value, outgoing)).await;
    let mut answers = opened.map_err(|_| Status::deadline_exceeded("no stream for 5 s"))??;
    loop {
        tokio::select! {
            biased;
            answer = next(&mut answers, in_flight.is_empty()) => {
                let Some(answer) = answer? else { return Ok(()) };
                let mut predictions = answer.predictions;
                for (count, call) in in_flight.pop_front().unwrap_or_default() {
                    let rest = predictions.split_off(predictions.len().min(count));
                    let said = std::mem::replace(&mut predictions, rest);
                    if said.len() == count {
                        let _ = call.send(said); // whoever asked may have stopped waiting
                    }
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
async fn open(value: &Channel, requests: mpsc::Receiver<Vec<u8>>) -> Result<Streaming<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(value.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (path, requests) = (PathAndQuery::from_static(PREDICT_STREAM), ReceiverStream::new(requests));
    client.streaming(tonic::Request::new(requests), path, Raw::<Vec<u8>>::default()).await.map(tonic::Response::into_inner)
}

/// The next answer; without a limit where none is owed.
async fn next(answers: &mut Streaming<Bytes>, idle: bool) -> Result<Option<pb::PredictStreamResponse>, Status> {
    let late = |_| Status::deadline_exceeded("no answer for 5 s");
    let answer = if idle { answers.message().await } else { tokio::time::timeout(STALL, answers.message()).await.map_err(late)? };
    let read = |bytes: Bytes| pb::PredictStreamResponse::decode(bytes).map_err(|error| Status::internal(error.to_string()));
    answer?.map(read).transpose()
}

/// Of each unanswered message its calls, and how many questions each has.
type InFlight = VecDeque<Vec<(usize, oneshot::Sender<Vec<pb::Prediction>>)>>;

/// Sends the call together with those that wait behind it, as far as a message goes.
fn send(requests: &mpsc::Sender<Vec<u8>>, in_flight: &mut InFlight, waiting: &mut mpsc::Receiver<Call>, first: Call) {
    let mut message = Vec::with_capacity(MAX_BATCH * USUAL);
    let (mut calls, mut count, mut next) = (Vec::new(), 0, Some(first));
    while let Some(Call { subjects, answer }) = next {
        let mut to = Fields(&mut message);
        subjects.iter().for_each(|subject| to.message(1, |to| request(subject, to)));
        count += subjects.len();
        calls.push((subjects.len(), answer));
        next = if count < MAX_BATCH { waiting.try_recv().ok() } else { None };
    }
    if requests.try_send(message).is_ok() {
        in_flight.push_back(calls);
    }
}

/// Writes a `PredictRequest`.
fn request(Subject { campaign, customer, at }: &Subject, to: &mut Fields<'_>) {
    to.text(1, &campaign.client);
    to.entry(3, &customer.0);
    to.text(5, campaign.currency.code());
    to.number(6, campaign.horizon_days.into());
    to.message(7, |to| to.timestamp(*at));
    to.text(8, &campaign.id);
}
