//! `BidStream`.

use kiki::leaf;
use kiki::pb::syncflow::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::world::{PREDICTED_PRICE, World};

fn opportunity(id: u64) -> pb::Opportunity {
    pb::Opportunity {
        request_id: format!("s{id}"),
        imp_id: "1".into(),
        exchange: "x1".into(),
        customer: format!("customer-{}", id % 10),
        format: leaf::CreativeFormat::Banner.into(),
        width: 300,
        height: 250,
        ..Default::default()
    }
}

#[tokio::test]
async fn answers_in_order_and_says_what_is_final() {
    let world = World::new(1_000_000 * PREDICTED_PRICE).await;
    world.shield.state.lock().lose_answers = 2;
    let (messages, outgoing) = mpsc::channel(4);
    let mut flow = world.flow.clone();
    let mut answers = flow.bid_stream(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let sending = tokio::spawn(async move {
        for message in 0..10 {
            let opportunities = (0..100).map(|n| opportunity(message * 100 + n)).collect();
            messages.send(pb::BidStreamRequest { opportunities }).await.unwrap();
        }
    });
    let (mut sequences, mut acknowledged) = (Vec::new(), 0);
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.acknowledged >= acknowledged, "what is final stays final");
        acknowledged = answer.acknowledged;
        for response in answer.responses {
            let Some(pb::bid_response::Result::Bid(bid)) = response.result else { panic!("{response:?}") };
            let (lease, sequence) = bid.bid_id.split_once('-').unwrap();
            sequences.push((lease.parse::<u64>().unwrap(), sequence.parse::<u32>().unwrap()));
        }
        assert!(acknowledged <= sequences.len() as u64);
        assert!(acknowledged <= world.shield.state.lock().decisions.len() as u64, "final means durable");
    }
    sending.await.unwrap();
    assert_eq!((sequences.len(), acknowledged), (1_000, 1_000));
    assert!(sequences.is_sorted());
    let asked = world.value.asked.lock().len();
    assert_eq!(asked, 1_000);
    let shield = world.stop().await;
    assert_eq!(shield.state.lock().decisions.len(), 1_000);
}

#[tokio::test]
async fn a_message_above_its_bound_ends_the_stream() {
    let world = World::new(PREDICTED_PRICE).await;
    let opportunities = (0..257).map(opportunity).collect();
    let messages = tokio_stream::once(pb::BidStreamRequest { opportunities });
    let mut answers = world.flow.clone().bid_stream(messages).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("257"));
    world.stop().await;
}

#[tokio::test]
async fn what_comes_before_a_message_that_is_refused_is_answered() {
    let world = World::new(1_000 * PREDICTED_PRICE).await;
    let message = |from: u64, count: u64| pb::BidStreamRequest { opportunities: (from..from + count).map(opportunity).collect() };
    let mut wrong = message(500, 2);
    wrong.opportunities[1].imp_id.clear();
    // They are there at once, so that they are answered together.
    let messages = tokio_stream::iter([message(0, 3), message(3, 200), message(203, 100), wrong, message(600, 1)]);
    let mut answers = world.flow.clone().bid_stream(messages).await.unwrap().into_inner();
    let mut counts = Vec::new();
    let status = loop {
        match answers.message().await {
            Ok(answer) => counts.extend(answer.map(|answer| answer.responses.len()).filter(|count| *count > 0)),
            Err(status) => break status,
        }
    };
    assert_eq!(counts, [3, 200, 100]);
    assert!(status.message().contains("opportunities[1].imp_id"), "{status:?}");
    let shield = world.stop().await;
    assert_eq!(shield.state.lock().decisions.len(), 303, "of what was refused nothing was decided");
}
