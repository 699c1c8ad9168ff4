//! The calls whose messages are read without prost, as a caller sees them: all calls are there, and what is rare or wrong is as prost has it.

use bytes::Bytes;
use kiki::clock::Clock;
use kiki::ids::Key;
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, Raw, channel};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use syncvalue::Config;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

/// The first answer to a call of one message, or what it ended with.
async fn call(channel: &Channel, method: &str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/{}/{method}", syncvalue::SERVICE).parse().unwrap();
    let messages = tokio_stream::once(message.into());
    let mut answers = client.streaming(Request::new(messages), path, Raw::default()).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

async fn served(test: impl AsyncFnOnce(Channel)) {
    let data = tempfile::tempdir().unwrap();
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
    let (config, shutdown) = (Config::new(data.path().into(), Key::new([7; 32])), CancellationToken::new());
    let service = tokio::spawn(syncvalue::serve(listeners, config, Clock::System, shutdown.clone()));
    test(channel(&address).unwrap()).await;
    shutdown.cancel();
    service.await.unwrap().unwrap();
}

fn asking(subject: Subject) -> PredictRequest {
    PredictRequest { client: "acme".into(), subject: Some(subject), currency: "USD".into(), ..Default::default() }
}

#[tokio::test]
async fn every_call_of_the_protocol_is_there() {
    served(async |channel| {
        let files = FileDescriptorSet::decode(kiki::pb::DESCRIPTORS).unwrap().file;
        let services = files.iter().flat_map(|file| &file.service);
        let methods: Vec<&str> = services.filter(|s| s.name() == "SyncValueService").flat_map(|s| &s.method).map(|m| m.name()).collect();
        assert!(methods.len() >= 8, "{methods:?}");
        for method in methods {
            let code = call(&channel, method, Bytes::new()).await.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_ne!(code, Code::Unimplemented, "{method}");
        }
        assert_eq!(call(&channel, "Divine", Bytes::new()).await.unwrap_err().code(), Code::Unimplemented);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_wrong_is_refused_in_the_words_of_prost() {
    served(async |channel| {
        // A text that is none, a length beyond the end, a field of the wrong kind; each alone and in a list.
        for wrong in [&[0x0a, 1, 0xff][..], &[0x1a, 99, 1], &[0x0d, 1, 2, 3, 4]] {
            let list = [&[0x0a, wrong.len() as u8], wrong].concat();
            let refusals = [
                ("Predict", wrong.to_vec(), PredictRequest::decode(wrong).unwrap_err()),
                ("PredictBatch", list.clone(), PredictBatchRequest::decode(&*list).unwrap_err()),
                ("PredictStream", list.clone(), PredictBatchRequest::decode(&*list).unwrap_err()),
            ];
            for (method, message, refusal) in refusals {
                let status = call(&channel, method, message).await.unwrap_err();
                assert_eq!((status.code(), status.message()), (Code::Internal, &*refusal.to_string()), "{method}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_prost_alone_reads_is_answered_the_same() {
    served(async |channel| {
        let plain = asking(Subject::Customer("c1".into())).encode_to_vec();
        let answer = call(&channel, "Predict", plain.clone()).await.unwrap();
        let prediction = PredictResponse::decode(answer.clone()).unwrap().prediction.unwrap();
        assert_eq!(prediction.fallback_reason(), FallbackReason::NoPopulation);
        // A group of no fields, whose number is unknown.
        let odd = [&plain[..], &[0x4b, 0x4c]].concat();
        assert_eq!(call(&channel, "Predict", odd.clone()).await.unwrap(), answer);
        let lists = [&plain, &odd].map(|one| [&[0x0a, one.len() as u8][..], one].concat());
        let [plain, odd] = [call(&channel, "PredictBatch", lists[0].clone()).await, call(&channel, "PredictBatch", lists[1].clone()).await];
        assert_eq!(plain.unwrap(), odd.unwrap());
        let many = PredictBatchRequest { requests: vec![asking(Subject::History(History::default())); 1_025] }.encode_to_vec();
        assert!(call(&channel, "PredictBatch", many).await.unwrap_err().message().contains("1025"));
        assert_eq!(call(&channel, "PredictStream", Bytes::new()).await.unwrap(), Bytes::new());
    })
    .await;
}
