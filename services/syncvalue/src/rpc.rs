//! The calls: decode, look at what is known, ask the model where that does not answer, encode.

mod decode;
mod explain;
mod plans;
mod until;
mod watch;
mod wire;

/// The routing of calls that `build.rs` makes.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, rustdoc::all)]
pub(crate) mod server {
    include!(concat!(env!("OUT_DIR"), "/kiki.syncvalue.v1.SyncValueService.rs"));
    pub(crate) use sync_value_service_server::*;
}

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::caller::Caller;
use kiki::clock::{Clock, monotonic};
use kiki::ids::Pseudonyms;
use kiki::leaf::{Position, PredictionStatus};
use kiki::money::Currency;
use kiki::pb::syncvalue::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::answers::turn::Turn;
use crate::answers::{About, Answers, Look};
use crate::domain::market::{Market, Outlook};
use crate::domain::predictor::{MODEL, Prediction};
use crate::domain::serving::Serving;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::models::Models;
use crate::store::recent::Place;
use crate::store::record::Followed;
use crate::store::shared::{Fetched, Known};
use crate::store::{Pending, Store};
use decode::{Decoder, MAX_REQUESTS, Question, Questions, Subject, by_prost};
use server::SyncValueService;
use until::Until;
use watch::Next;
use wire::read::{self, Asking};
use wire::write;

/// Messages of one Observe stream that are handed to the writer and not acknowledged: enough that each fsync finds work
/// waiting; 32 of at most 1.2 MB.
const MAX_UNACKNOWLEDGED: usize = 32;
/// How long GetModel waits for a position where the call has no shorter deadline.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The service; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    pub(crate) store: Arc<Store>,
    pub(crate) models: Arc<Models>,
    pub(crate) answers: Answers,
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

    /// The answers to questions about one market, in order, and the models that made them. `fetched` are its customers, where they are not here.
    async fn answer(
        &self,
        Questions { market, questions }: &Questions<'_>,
        fetched: Option<&[Known]>,
        turn: &mut Turn,
    ) -> (Vec<Prediction>, Arc<Serving>) {
        let serving = self.models.of(market);
        let looks: Vec<Look<'_>> = self.store.read(market, |known, recent| {
            let place = |question: &Question<'_>| recent.place(known.number, &question.key().unwrap_or_default());
            let places: Vec<Place> = questions.iter().map(place).collect();
            let mut outlook: Option<Outlook<'_>> = None;
            // Elsewhere customers change without our being told.
            let recent = fetched.is_none().then_some(recent);
            let look = |(i, question): (usize, &Question<'_>)| {
                let (about, days) = (about(question, known.number, market.currency), question.horizon_days);
                if let Some(recent) = recent
                    && let Some(prediction) = self.answers.recall((recent, places[i]), &serving, &about, days)
                {
                    return Look::Known(prediction);
                }
                outlook.take_if(|outlook| outlook.horizon_days() != days);
                let outlook = outlook.get_or_insert_with(|| outlook_of(known, &serving, days, market.currency, fetched.is_some()));
                let customer = match (&question.subject, fetched) {
                    (Subject::History(customer), _) => Some(&**customer),
                    (Subject::Customer(key), None) => known.get(key),
                    (Subject::Customer(_), Some(fetched)) => match &fetched[i] {
                        Ok(customer) => customer.as_ref(),
                        Err(_) => return Look::Estimated(outlook.unavailable(question.at)),
                    },
                };
                self.answers.look(recent, &serving, outlook, customer, about)
            };
            questions.iter().enumerate().map(look).collect()
        });
        self.metrics.looked(&looks);
        let (mut predictions, mut asks, mut places) = (Vec::with_capacity(looks.len()), Vec::new(), Vec::new());
        for (place, look) in looks.into_iter().enumerate() {
            match look {
                Look::Estimated(prediction) | Look::Known(prediction) => predictions.push(prediction),
                Look::Ask(ask) => {
                    predictions.push(ask.fallback); // the networks' takes its place
                    asks.push(*ask);
                    places.push(place);
                }
            }
        }
        for (place, prediction) in places.into_iter().zip(self.answers.ask(&asks, turn).await) {
            predictions[place] = prediction;
        }
        self.metrics.predicted(&predictions);
        (predictions, serving)
    }

    /// The answer to the message of a Predict.
    async fn one(&self, caller: &Caller, message: &[u8]) -> Result<Vec<u8>, Status> {
        let slow;
        let asking = match read::question(message) {
            Some(asking) => asking,
            None => {
                slow = by_prost::<pb::PredictRequest>(message)?;
                Asking::from(&slow)
            }
        };
        Ok(self.written(&[self.decoder(caller).single(&asking)?], false).await)
    }

    /// The answer to the message of a PredictBatch or PredictStream, which are alike. `watched`: who asks is told of changes.
    async fn many(&self, caller: &Caller, message: &[u8], watched: bool) -> Result<Vec<u8>, Status> {
        let slow;
        let (all, count) = match read::questions(message, MAX_REQUESTS) {
            Some(read) => read,
            None => {
                slow = by_prost::<pb::PredictBatchRequest>(message)?.requests;
                (slow.iter().take(MAX_REQUESTS).map(Asking::from).collect(), slow.len())
            }
        };
        Ok(self.written(&self.decoder(caller).questions(&all, count)?, watched).await)
    }

    /// The answers, as all three messages have them.
    async fn written(&self, all: &[Questions<'_>], watched: bool) -> Vec<u8> {
        let fetched = self.store.fetch(all.iter().flat_map(Questions::keys)).await;
        let watched = watched && matches!(fetched, Fetched::Here); // elsewhere customers change without our being told
        let (mut message, mut asked, mut turn) = (Vec::new(), 0, Turn::new());
        for questions in all {
            let from = asked;
            asked += questions.questions.len();
            let (predictions, serving) = self.answer(questions, fetched.some(from..asked), &mut turn).await;
            // Another model is to be compared on all predictions that are asked for, and is not where they are not.
            let held = watched && !serving.compares();
            let holds = |at: usize| if held { watch::holds_ms(&predictions[at], questions.questions[at].at) } else { 0 };
            write::predictions(&predictions, |number| serving.id(number), holds, &mut message);
        }
        message
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

/// The estimate of a market. Customers who are not here left the market's sums to be of what passed by: where that is nothing yet, the model's own
/// stands in.
fn outlook_of<'a>(known: &'a Market, serving: &'a Serving, horizon_days: u32, currency: Currency, elsewhere: bool) -> Outlook<'a> {
    let outlook = known.averages.over(horizon_days);
    if elsewhere { outlook.or(serving.estimate(currency, horizon_days)) } else { outlook }
}

fn about<'q>(question: &'q Question<'_>, market: u32, currency: Currency) -> About<'q> {
    About { key: question.key(), campaign: question.campaign, at: question.at, market, currency }
}

type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SyncValueService for Rpc {
    async fn predict(&self, request: Request<Bytes>) -> Result<Response<Vec<u8>>, Status> {
        let start = monotonic();
        let answer = self.one(&Caller::of(&request), request.get_ref()).await?;
        self.metrics.predict.observe(start.elapsed().as_secs_f64());
        Ok(Response::new(answer))
    }

    async fn predict_batch(&self, request: Request<Bytes>) -> Result<Response<Vec<u8>>, Status> {
        let start = monotonic();
        let answer = self.many(&Caller::of(&request), request.get_ref(), false).await?;
        self.metrics.predict_batch.observe(start.elapsed().as_secs_f64());
        Ok(Response::new(answer))
    }

    type PredictStreamStream = AnswerStream<Vec<u8>>;

    async fn predict_stream(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Self::PredictStreamStream>, Status> {
        let caller = Caller::of(&request);
        let watch = watch::wanted(request.metadata(), &caller)?.then(|| self.store.watch());
        let mine = Arc::new((self.clone(), caller, watch.is_some()));
        let questions = Until::new(request.into_inner(), &self.shutdown);
        let answers = watch::between(questions, watch).then(move |next| {
            let mine = mine.clone();
            async move {
                let message = match next {
                    Next::Asked(message) => message?,
                    Next::Told(changes) => return Ok(changes),
                };
                let (start, (rpc, caller, watched)) = (monotonic(), &*mine);
                let answer = rpc.many(caller, &message, *watched).await?;
                rpc.metrics.predict_stream.observe(start.elapsed().as_secs_f64());
                Ok(answer)
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type ObserveStream = AnswerStream<pb::ObserveResponse>;

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

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner().request.ok_or_else(|| Error::field("request", "missing"))?;
        let all = [self.decoder(&caller).single(&Asking::from(&request))?];
        let fetched = self.store.fetch(all[0].keys()).await;
        let Questions { market, questions } = &all[0];
        let (predictions, serving) = self.answer(&all[0], fetched.some(0..questions.len()), &mut Turn::new()).await;
        let prediction = predictions.first().map(|prediction| write::message(prediction, |number| serving.id(number)));
        let mut answer = pb::ExplainResponse { prediction, ..Default::default() };
        let customer = |question: &Question<'_>| match (&question.subject, fetched) {
            (Subject::History(customer), _) => Some((**customer).clone()),
            (Subject::Customer(key), Fetched::Here) => self.store.read(market, |market, _| market.get(key).cloned()),
            (Subject::Customer(_), Fetched::Read(mut read)) => read.pop()?.ok()?,
        };
        if let Some(question) = questions.first()
            && let Some(customer) = customer(question)
        {
            let explained = explain::aside(serving, customer, question, market.currency).await?;
            if let Some(explained) = explained {
                answer = pb::ExplainResponse { prediction: answer.prediction, ..explained };
            }
        }
        Ok(Response::new(answer))
    }

    async fn erase_customer(&self, request: Request<pb::EraseCustomerRequest>) -> Result<Response<pb::EraseCustomerResponse>, Status> {
        let caller = Caller::of(&request);
        let (client, customer) = self.decoder(&caller).erased(request.get_ref())?;
        let applied = self.store.erase(&client, &customer).await?;
        applied.erased.iter().for_each(|market| self.answers.cache.erase(*market, &customer));
        Ok(Response::new(pb::EraseCustomerResponse { erased: applied.known }))
    }

    async fn get_model(&self, request: Request<pb::GetModelRequest>) -> Result<Response<pb::GetModelResponse>, Status> {
        Caller::of(&request).act_for_all()?;
        let followed = self.followed_to(request.into_inner().followed_to).await?;
        let all = self.models.all();
        let serving = all.iter().find(|set| set.plan.client.is_empty() && set.plan.currency.is_empty());
        let model = serving.and_then(|set| set.serving.as_deref()).map(|loaded| &loaded.model);
        let (status, reason) = match model {
            Some(_) => (PredictionStatus::Ok, pb::FallbackReason::Unspecified),
            None => (PredictionStatus::Fallback, pb::FallbackReason::NoModel),
        };
        Ok(Response::new(pb::GetModelResponse {
            model: model.map_or(MODEL, |model| &model.id).into(),
            status: status.into(),
            fallback_reason: reason.into(),
            horizon_days: model.map_or(self.horizon_days, |model| model.horizon_days),
            customers: self.store.customers(),
            events: self.store.events(),
            followed_to: followed.map(|followed| Position { log_id: followed.log_id, index: followed.next_index }),
            plans: all.iter().map(|set| plans::encode(&set.plan)).collect(),
            models: all.iter().flat_map(|set| plans::infos(set)).collect(),
        }))
    }

    async fn set_models(&self, request: Request<pb::SetModelsRequest>) -> Result<Response<pb::SetModelsResponse>, Status> {
        Caller::of(&request).operate()?;
        let pb::SetModelsRequest { plan, rollback } = request.into_inner();
        let plan = plans::decode(plan.unwrap_or_default());
        let (models, cache, store) = (self.models.clone(), self.answers.cache.clone(), self.store.clone());
        // Models are read from files. Whoever asked may be gone before they are set, which is done and told all the same.
        let set = tokio::task::spawn_blocking(move || {
            let set = if rollback { models.rollback(&plan.client, &plan.currency) } else { models.set(plan) }?;
            store.all_changed();
            cache.keep(&models.numbers());
            Ok::<_, Error>(set)
        });
        let set = set.await.map_err(|e| Error::Model(e.to_string()))??;
        Ok(Response::new(pb::SetModelsResponse { plan: Some(plans::encode(&set.plan)), models: plans::infos(&set) }))
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
