//! Predictions from SyncValue: asked by many bids, sent in batches over one stream, behind a circuit breaker.
//!
//! Whoever asks gets a [`Pending`] at once and waits as long as it can afford; no answer in time is no answer, and
//! [`crate::domain::fallback`] stands in. Bounds: `MAX_WAITING` questions wait to be sent, `MAX_IN_FLIGHT` messages of at most
//! `MAX_BATCH` are unanswered. A stream that stays silent for `STALL` is given up and opened anew.

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

/// Questions that may wait: 16 full messages.
const MAX_WAITING: usize = 1_024;
/// Questions of one message: enough to share its cost, few enough that nobody waits for the last.
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
    questions: mpsc::Sender<Question>,
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

#[derive(Debug)]
struct Question {
    subject: Subject,
    answer: oneshot::Sender<pb::Prediction>,
}

/// A prediction that was asked for.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<pb::Prediction>,
    permit: Permit<Arc<Breaker>>,
    watched: Arc<Watched>,
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

    /// Asks; nothing where the breaker refuses or too many wait already.
    #[must_use]
    pub fn ask(&self, subject: Subject) -> Option<Pending> {
        let Watched { breaker, clock, .. } = &*self.watched;
        let now = clock.now();
        let permit = breaker.admit_owned(now).ok()?;
        let (answer, pending) = oneshot::channel();
        match self.questions.try_send(Question { subject, answer }) {
            Ok(()) => Some(Pending { answer: pending, permit, watched: self.watched.clone() }),
            Err(_) => {
                permit.failed(now);
                None
            }
        }
    }
}

impl Pending {
    /// The prediction, if it comes by `deadline`.
    pub async fn answer(self, deadline: Instant) -> Predicted {
        let answer = tokio::time::timeout_at(deadline, self.answer).await;
        let Watched { clock, metrics, .. } = &*self.watched;
        let now = clock.now();
        let answered = match answer {
            Ok(Ok(prediction)) if ids::check("model", &prediction.model).is_ok() => Some(prediction),
            Ok(_) => None,
            Err(_) => {
                metrics.predictions_late.inc();
                None
            }
        };
        if answered.is_some() {
            self.permit.succeeded(now)
        } else {
            self.permit.failed(now)
        }
        answered.map_or(Predicted::Missing, known)
    }
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

async fn serve(value: Channel, mut waiting: mpsc::Receiver<Question>) {
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
async fn turn_away(waiting: &mut mpsc::Receiver<Question>) {
    while waiting.recv().await.is_some() {}
}

/// One stream's life. Questions that it leaves unanswered are dropped, which tells those who asked.
async fn converse(value: &Channel, waiting: &mut mpsc::Receiver<Question>, first: Question) -> Result<(), Status> {
    // The channel is as deep as the window, so that sending never waits.
    let (requests, outgoing) = mpsc::channel(MAX_IN_FLIGHT);
    let mut in_flight = VecDeque::with_capacity(MAX_IN_FLIGHT);
    send(&requests, &mut in_flight, vec![first]);
    let opened = tokio::time::timeout(STALL, open(value, outgoing)).await;
    let mut answers = opened.map_err(|_| Status::deadline_exceeded("no stream for 5 s"))??;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            answer = next(&mut answers, in_flight.is_empty()) => {
                let Some(answer) = answer? else { return Ok(()) };
                let asked: Vec<oneshot::Sender<pb::Prediction>> = in_flight.pop_front().unwrap_or_default();
                for (question, prediction) in asked.into_iter().zip(answer.predictions) {
                    let _ = question.send(prediction); // whoever asked may have stopped waiting
                }
            }
            got = waiting.recv_many(&mut batch, MAX_BATCH), if in_flight.len() < MAX_IN_FLIGHT => {
                if got == 0 {
                    return Ok(());
                }
                send(&requests, &mut in_flight, batch);
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

type InFlight = VecDeque<Vec<oneshot::Sender<pb::Prediction>>>;

fn send(requests: &mpsc::Sender<Vec<u8>>, in_flight: &mut InFlight, batch: Vec<Question>) {
    let mut message = Vec::with_capacity(batch.len() * USUAL);
    let mut to = Fields(&mut message);
    batch.iter().for_each(|question| to.message(1, |to| request(&question.subject, to)));
    if requests.try_send(message).is_ok() {
        in_flight.push_back(batch.into_iter().map(|question| question.answer).collect());
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
