//! For how long answers hold, and the messages that say which customers changed.

use std::time::Duration;

use kiki::caller::{Caller, WATCH};
use kiki::clock::UnixMicros;
use kiki::pb::syncvalue::v1 as pb;
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::domain::customer::DAY_MICROS;
use crate::domain::predictor::{Prediction, Reason, Source};
use crate::error::Error;
use crate::store::changes::Watch;

/// How long changes are gathered before they are told. What they make wrong is as old as that: a purchase has come through the log,
/// which takes longer.
const GATHERED: Duration = Duration::from_millis(5);
/// How long an estimate is held: it is made of what all customers do.
const ESTIMATE_MS: u32 = 1_000;

/// Whether a stream's caller wants to be told.
///
/// # Errors
/// A tenant, who may not know of others' customers, or a value that says nothing.
pub(super) fn wanted(metadata: &MetadataMap, caller: &Caller) -> Result<bool, Status> {
    match metadata.get(WATCH).map(|value| value.to_str().unwrap_or("?")) {
        None => Ok(false),
        Some("changes") => caller.act_for_all().map(|()| true),
        Some(other) => Err(Error::field(format!("metadata {WATCH}"), format!("{other:?}; changes")).into()),
    }
}

/// For how long the answer to a question that was asked `at` then holds. A model's is the same all day long, in UTC.
pub(super) fn holds_ms(prediction: &Prediction, at: UnixMicros) -> u32 {
    match prediction.source {
        Source::Model(_) => ((DAY_MICROS - at.0.rem_euclid(DAY_MICROS)) / 1_000) as u32,
        Source::Estimate(Reason::NoModel | Reason::UnknownCustomer) => ESTIMATE_MS,
        Source::Estimate(_) => 0,
    }
}

/// What a stream of predictions goes on with.
pub(super) enum Next<M> {
    /// Its caller asks.
    Asked(M),
    /// The message that says what changed.
    Told(Vec<u8>),
}

/// Questions, and between them what changes, until the questions end. While one is answered nothing is taken off here, so that what
/// changes meanwhile is told after the answer.
pub(super) fn between<M>(questions: impl Stream<Item = M>, watch: Option<Watch>) -> impl Stream<Item = Next<M>> {
    let questions = questions.map(|message| Some(Next::Asked(message))).chain(tokio_stream::once(None));
    questions.merge(told(watch).map(|message| Some(Next::Told(message)))).map_while(|next| next)
}

/// Messages of what changes, until nobody listens; none where nobody watches.
fn told(watch: Option<Watch>) -> impl Stream<Item = Vec<u8>> {
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    if let Some(watch) = watch {
        tokio::spawn(gather(watch, sender));
    }
    ReceiverStream::new(messages)
}

async fn gather(mut watch: Watch, sender: tokio::sync::mpsc::Sender<Vec<u8>>) {
    while let Some(mut changed) = tokio::select! { changed = watch.next() => changed, () = sender.closed() => None } {
        tokio::time::sleep(GATHERED).await; // others come meanwhile
        let Ok(place) = sender.reserve().await else { return };
        watch.and(&mut changed);
        let customers = changed.customers.iter().map(|customer| customer.0.to_vec().into()).collect();
        let message = pb::PredictStreamResponse { predictions: Vec::new(), changed: customers, all_changed: changed.all };
        place.send(message.encode_to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_s_answer_holds_until_midnight_and_an_estimate_for_a_second() {
        let holds = |source, at| holds_ms(&Prediction { source, ..Prediction::nothing(90) }, UnixMicros(at));
        let model = Source::Model(1);
        assert_eq!([0, 1, DAY_MICROS - 1_001, DAY_MICROS - 1, -1].map(|at| holds(model, at)), [86_400_000, 86_399_999, 1, 0, 0]);
        let reasons = [Reason::NoModel, Reason::UnknownCustomer, Reason::NoPopulation, Reason::StateUnavailable, Reason::ModelFailed];
        assert_eq!(reasons.map(|reason| holds(Source::Estimate(reason), 7)), [1_000, 1_000, 0, 0, 0]);
    }
}
