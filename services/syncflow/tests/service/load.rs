//! Too many bids at once: the rest is turned away at once, and nothing is lost by it.

use kiki::pb::syncflow::v1 as flow;
use kiki::status::Reason;
use tonic::Code;

use crate::deadlines::opportunities;
use crate::fakes::Manner;
use crate::world::World;

const PLENTY: i64 = 640_000_000_000;
/// What is let in before anything is known.
const FIRST: usize = 1_024;

#[tokio::test]
async fn what_is_over_the_limit_is_turned_away_by_each_face_in_its_own_words() {
    let world = World::bare(PLENTY, Manner::Hangs).await;
    world.open(vec![crate::world::client_campaign(crate::world::campaign())]).await;
    // As many as are let in wait for a SyncValue that says nothing.
    let mut opportunities = opportunities(FIRST as u64);
    let mut streams = Vec::new();
    while !opportunities.is_empty() {
        let some = opportunities.split_off(opportunities.len() - 128);
        let (messages, outgoing) = tokio::sync::mpsc::channel(1);
        messages.send(flow::BidStreamRequest { opportunities: some }).await.unwrap();
        let answers = world.flow.clone().bid_stream(tokio_stream::wrappers::ReceiverStream::new(outgoing)).await.unwrap();
        streams.push((messages, answers.into_inner()));
    }
    while world.metric("syncflow_bids_under_way").await < FIRST as f64 {
        tokio::task::yield_now().await; // polls what the service does with what it was sent
    }
    assert_eq!(world.metric("syncflow_bids_limit").await, FIRST as f64);
    let http = world.bid("over").await;
    assert_eq!((http.status, http.header("x-kiki-no-bid")), (204, Some("OVERLOADED")));
    let opportunity = crate::deadlines::opportunities(1).pop();
    let status = world.flow.clone().bid(flow::BidRequest { opportunity, await_durable: false }).await.unwrap_err();
    assert!(status.code() == Code::ResourceExhausted && Reason::Overloaded.is(&status), "{status}");
    assert_eq!(status.message(), format!("more bids come than are answered in time: {FIRST} are under way"));
    let one = flow::BidStreamRequest { opportunities: crate::deadlines::opportunities(3) };
    let mut answers = world.flow.clone().bid_stream(tokio_stream::once(one)).await.unwrap().into_inner();
    let message = answers.message().await.unwrap().unwrap();
    let overloaded = |answer: &flow::BidResponse| match &answer.result {
        Some(flow::bid_response::Result::NoBid(no)) => no.reason() == flow::NoBidReason::Overloaded,
        _ => false,
    };
    assert!(message.responses.len() == 3 && message.responses.iter().all(overloaded), "{message:?}");
    assert_eq!((message.acknowledged, answers.message().await.unwrap()), (3, None), "final, and the stream ends as any other");
    assert_eq!(world.metric(r#"syncflow_no_bids_total{reason="OVERLOADED"}"#).await, 5.0);
    for (_, answers) in &mut streams {
        assert_eq!(answers.message().await.unwrap().unwrap().responses.len(), 128, "those that were let in are answered");
    }
    assert_eq!(world.metric("syncflow_bids_under_way").await, 0.0);
    assert_eq!(world.bid("over").await.status, 200, "it was not looked at before");
    world.stop().await;
}
