//! The calls: decode, one call of the store, encode.

mod decode;
mod until;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kiki::caller::Caller;
use kiki::clock::{Clock, monotonic};
use kiki::ids::Pseudonyms;
use kiki::leaf::{Position, PredictionStatus};
use kiki::pb::syncvalue::v1 as pb;
use kiki::pb::syncvalue::v1::sync_value_service_server::SyncValueService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::market::{Market, Outlook};
use crate::domain::predictor::{MODEL, Prediction, Reason};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::record::Followed;
use crate::store::{Pending, Store};
use decode::{Decoder, Question, Questions, Subject};
use until::Until;

/// Messages of one Observe stream that are handed to the writer and not acknowledged: enough that each fsync finds work
/// waiting; 32 of at most 1.2 MB.
const MAX_UNACKNOWLEDGED: usize = 32;
/// How long GetModel waits for a position where the call has no shorter deadline.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The service; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    pub(crate) store: Arc<Store>,
    pub(crate) names: Pseudonyms,
    pub(crate) horizon_days: u32,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Whether SyncShield's log is followed at all.
    pub(crate) follows: bool,
    pub(crate) shutdown: CancellationToken,
}

impl Rpc {
    fn decoder<'a>(&'a self, caller: &'a Caller) -> Decoder<'a> {
        Decoder { caller, names: &self.names, horizon_days: self.horizon_days, now: self.clock.now() }
    }

    fn answer(&self, Questions { market, questions }: Questions) -> Vec<Prediction> {
        let predictions = self.store.read(&market, |market| predict(market, questions));
        self.metrics.predicted(&predictions);
        predictions
    }

    fn answers(&self, caller: &Caller, requests: &[pb::PredictRequest]) -> Result<Vec<pb::Prediction>, Status> {
        let all = self.decoder(caller).questions(requests)?;
        let predictions = all.into_iter().flat_map(|questions| self.answer(questions));
        Ok(predictions.map(|prediction| encode(&prediction)).collect())
    }

    async fn followed_to(&self, asked: Option<Position>) -> Result<Option<Followed>, Error> {
        let mut followed = self.store.followed();
        if let Some(asked) = asked.filter(|asked| asked.index > 0) {
            let wait = if self.follows { MAX_WAIT } else { Duration::ZERO };
            let there = |f: &Option<Followed>| f.as_ref().is_some_and(|f| f.next_index >= asked.index || !same_log(f, &asked));
            let reached = tokio::select! {
                reached = tokio::time::timeout(wait, followed.wait_for(there)) => reached.is_ok(),
                () = self.shutdown.cancelled() => false,
            };
            let now = followed.borrow().clone().unwrap_or_default();
            if reached && !same_log(&now, &asked) {
                return Err(Error::field(
                    "followed_to.log_id",
                    format!("{:?}; the log that is followed is {:?}", asked.log_id, now.log_id),
                ));
            }
            if !reached {
                return Err(Error::NotFollowed { asked: asked.index, followed: now.next_index, waited_secs: wait.as_secs() });
            }
        }
        Ok(followed.borrow().clone())
    }
}

fn same_log(followed: &Followed, asked: &Position) -> bool {
    asked.log_id.is_empty() || asked.log_id == followed.log_id
}

/// The answers to questions about one market, in order.
fn predict(market: &Market, questions: Vec<Question>) -> Vec<Prediction> {
    let mut outlook: Option<Outlook<'_>> = None;
    let answer = |Question { subject, horizon_days, at }| {
        outlook.take_if(|outlook| outlook.horizon_days() != horizon_days);
        let outlook = outlook.get_or_insert_with(|| market.over(horizon_days));
        match subject {
            Subject::Customer(key) => outlook.of(&key, at),
            Subject::History(mut history) => outlook.of_history(&mut history, at),
        }
    };
    questions.into_iter().map(answer).collect()
}

fn encode(prediction: &Prediction) -> pb::Prediction {
    let reason = match prediction.reason {
        Reason::NoModel => pb::FallbackReason::NoModel,
        Reason::UnknownCustomer => pb::FallbackReason::UnknownCustomer,
        Reason::NoPopulation => pb::FallbackReason::NoPopulation,
    };
    pb::Prediction {
        mean_micros: prediction.mean_micros,
        q05_micros: prediction.q05_micros,
        q95_micros: prediction.q95_micros,
        p_active_ppb: prediction.p_active_ppb,
        horizon_days: prediction.horizon_days,
        model: MODEL.into(),
        status: PredictionStatus::Fallback.into(),
        fallback_reason: reason.into(),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SyncValueService for Rpc {
    async fn predict(&self, request: Request<pb::PredictRequest>) -> Result<Response<pb::PredictResponse>, Status> {
        let start = monotonic();
        let caller = Caller::of(&request);
        let question = self.decoder(&caller).single(request.get_ref())?;
        let answer = pb::PredictResponse { prediction: self.answer(question).first().map(encode) };
        self.metrics.predict.observe(start.elapsed().as_secs_f64());
        Ok(Response::new(answer))
    }

    async fn predict_batch(&self, request: Request<pb::PredictBatchRequest>) -> Result<Response<pb::PredictBatchResponse>, Status> {
        let start = monotonic();
        let caller = Caller::of(&request);
        let predictions = self.answers(&caller, &request.get_ref().requests)?;
        self.metrics.predict_batch.observe(start.elapsed().as_secs_f64());
        Ok(Response::new(pb::PredictBatchResponse { predictions }))
    }

    type PredictStreamStream = Answers<pb::PredictStreamResponse>;

    async fn predict_stream(
        &self,
        request: Request<Streaming<pb::PredictStreamRequest>>,
    ) -> Result<Response<Self::PredictStreamStream>, Status> {
        let (rpc, caller) = (self.clone(), Caller::of(&request));
        let answers = request.into_inner().map(move |message| {
            let start = monotonic();
            let predictions = rpc.answers(&caller, &message?.requests)?;
            rpc.metrics.predict_stream.observe(start.elapsed().as_secs_f64());
            Ok(pb::PredictStreamResponse { predictions })
        });
        Ok(Response::new(Box::pin(Until::new(answers, &self.shutdown))))
    }

    type ObserveStream = Answers<pb::ObserveResponse>;

    async fn observe(&self, request: Request<Streaming<pb::ObserveRequest>>) -> Result<Response<Self::ObserveStream>, Status> {
        let caller = Caller::of(&request);
        let (sender, pending) = mpsc::channel(MAX_UNACKNOWLEDGED);
        let messages = Until::new(request.into_inner(), &self.shutdown);
        tokio::spawn(hand_over(self.clone(), caller, messages, sender));
        let rpc = self.clone();
        let answers = ReceiverStream::new(pending).then(move |pending: Result<Pending, Status>| {
            let rpc = rpc.clone();
            async move {
                let applied = pending?.applied().await?;
                rpc.metrics.observed(&applied, &rpc.store);
                Ok(pb::ObserveResponse { applied: applied.applied, duplicates: applied.duplicates })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_model(&self, request: Request<pb::GetModelRequest>) -> Result<Response<pb::GetModelResponse>, Status> {
        Caller::of(&request).act_for_all()?;
        let followed = self.followed_to(request.into_inner().followed_to).await?;
        Ok(Response::new(pb::GetModelResponse {
            model: MODEL.into(),
            status: PredictionStatus::Fallback.into(),
            fallback_reason: pb::FallbackReason::NoModel.into(),
            horizon_days: self.horizon_days,
            customers: self.store.customers(),
            events: self.store.events(),
            followed_to: followed.map(|followed| Position { log_id: followed.log_id, index: followed.next_index }),
        }))
    }
}

/// Hands an Observe stream's messages to the writer, in order, up to the first that is wrong.
async fn hand_over(
    rpc: Rpc,
    caller: Caller,
    mut messages: Until<Streaming<pb::ObserveRequest>>,
    sender: mpsc::Sender<Result<Pending, Status>>,
) {
    while let Some(message) = messages.next().await {
        let events = message.and_then(|message| rpc.decoder(&caller).observed(&message));
        let pending = match events {
            Ok(events) => rpc.store.observe(events).await.map_err(Status::from),
            Err(status) => Err(status),
        };
        let over = pending.is_err();
        if sender.send(pending).await.is_err() || over {
            return; // nobody listens any more, or the stream has ended with an error
        }
    }
}
