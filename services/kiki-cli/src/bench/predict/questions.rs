//! What SyncValue is asked, encoded once, and whether what it answers is an answer.

use bytes::Bytes;
use kiki::clock::{Clock, UnixMicros};
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::pb::syncvalue::v1::{PredictRequest, PredictResponse, PredictStreamRequest, PredictStreamResponse, Prediction};
use kiki::runtime::Channel;
use prost::Message;
use tokio_stream::iter;

use crate::bench::customers::{CLIENT, CURRENCY, customer};
use crate::bench::value;
use crate::error::{Doing as _, Failure, rpc};

/// Messages of each kind that are made: a customer comes up once in these, or all of them do.
const MESSAGES: u32 = 4_096;
/// Calls that are made ahead and looked at; of the messages of a stream, all are.
const CHECKED: usize = 64;

pub(super) struct Questions {
    /// Requests of Predict, by the customer's own id.
    pub(super) single: Vec<Bytes>,
    /// Messages of PredictStream, by pseudonym.
    pub(super) batches: Vec<Bytes>,
}

impl Questions {
    /// Of customers spread over all of them.
    pub(super) fn about(customers: u32, batch: u32) -> Self {
        let (names, now) = (value::pseudonyms(), Clock::System.now());
        let spread = |number: u32| u64::from(number) * 7_919 % u64::from(customers);
        let single = |number| question(Subject::Customer(customer(spread(number))), now).encode_to_vec().into();
        let key = |number| names.of(CLIENT, &customer(spread(number))).0.to_vec().into();
        let batches = |message: u32| {
            let requests = (message * batch..).take(batch as usize).map(|number| question(Subject::CustomerKey(key(number)), now));
            PredictStreamRequest { requests: requests.collect() }.encode_to_vec().into()
        };
        Self { single: (0..MESSAGES).map(single).collect(), batches: (0..MESSAGES / batch.min(64)).map(batches).collect() }
    }

    /// The lengths of a request of each kind.
    pub(super) fn bytes(&self) -> [usize; 2] {
        [&self.single, &self.batches].map(|messages| messages.first().map_or(0, Bytes::len))
    }

    /// Asks about every customer once, so that the model has made up its mind about each, and looks at the answers, which have to
    /// be worth something; the mean lengths of an answer of each kind.
    pub(super) async fn check(&self, channel: Channel) -> Result<[usize; 2], Failure> {
        let mut client = SyncValueServiceClient::new(channel);
        let (mut single, mut batches) = (Vec::new(), Vec::new());
        for request in self.single.iter().take(CHECKED) {
            let request = PredictRequest::decode(request.as_ref()).doing("reading a question")?;
            let answer = client.predict(request).await.map_err(|status| rpc("asking", &status))?.into_inner();
            worth(answer.prediction.as_ref())?;
            single.push(answer);
        }
        let requests: Result<Vec<_>, _> = self.batches.iter().map(|b| PredictStreamRequest::decode(b.as_ref())).collect();
        let stream = client.predict_stream(iter(requests.doing("reading questions")?)).await;
        let mut stream = stream.map_err(|status| rpc("asking in a stream", &status))?.into_inner();
        while let Some(answer) = stream.message().await.map_err(|status| rpc("asking in a stream", &status))? {
            answer.predictions.iter().try_for_each(|prediction| worth(Some(prediction)))?;
            batches.push(answer);
        }
        Ok([mean_length::<PredictResponse>(&single), mean_length::<PredictStreamResponse>(&batches)])
    }
}

fn question(subject: Subject, now: UnixMicros) -> PredictRequest {
    PredictRequest {
        client: CLIENT.to_owned(),
        subject: Some(subject),
        currency: CURRENCY.to_owned(),
        horizon_days: value::HORIZON_DAYS,
        at: Some(now.into()),
        campaign: String::new(),
    }
}

/// Every customer who is asked for has bought.
fn worth(prediction: Option<&Prediction>) -> Result<(), Failure> {
    match prediction {
        Some(prediction) if prediction.mean_micros > 0 => Ok(()),
        other => Err(Failure::new(format!("SyncValue says that a customer is worth nothing: {other:?}"))),
    }
}

fn mean_length<M: Message>(messages: &[M]) -> usize {
    messages.iter().map(Message::encoded_len).sum::<usize>() / messages.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_full_and_ask_for_different_customers() {
        let questions = Questions::about(100_000, 64);
        assert_eq!((questions.single.len(), questions.batches.len()), (4_096, 64));
        let distinct: std::collections::BTreeSet<_> = questions.single.iter().collect();
        assert_eq!(distinct.len(), 4_096);
        let batch = PredictStreamRequest::decode(questions.batches[3].as_ref()).expect("a message");
        let distinct: std::collections::BTreeSet<_> = batch.requests.iter().map(Message::encode_to_vec).collect();
        assert_eq!(distinct.len(), 64);
    }
}
