//! The time that a bid has, and what is not done once it is over.

use kiki::leaf::{CreativeFormat, Refusal};
use kiki::pb::syncflow::v1 as flow;
use serde_json::json;

use crate::world::{World, request};

const PLENTY: i64 = 640_000_000_000;

pub fn opportunities(count: u64) -> Vec<flow::Opportunity> {
    let one = |id| flow::Opportunity {
        request_id: format!("s{id}"),
        imp_id: "1".into(),
        exchange: "x1".into(),
        customer: "customer-7".into(),
        format: CreativeFormat::Banner.into(),
        width: 300,
        height: 250,
        ..Default::default()
    };
    (0..count).map(one).collect()
}

#[tokio::test]
async fn what_has_no_time_left_costs_nobody_anything() {
    let world = World::new(PLENTY).await;
    let mut late = request("late");
    late["tmax"] = json!(5); // which the network takes
    let answer = world.post("/openrtb2/x1", &late).await;
    assert_eq!((answer.status, answer.header("x-kiki-no-bid")), (204, Some("DEADLINE")));
    assert_eq!(answer.header("x-kiki-no-bid-detail"), Some("the deadline passed before anything was asked"));
    assert!(world.value.asked.lock().is_empty());
    late["tmax"] = json!(2_000);
    assert_eq!(world.post("/openrtb2/x1", &late).await.status, 200, "it was late, not refused: asked again, it is bid on");
    let shield = world.stop().await;
    let state = shield.state.lock();
    assert_eq!((state.grants, state.decisions.len()), (1, 1));
}

#[tokio::test]
async fn a_lease_that_comes_too_late_is_no_bid_and_is_kept_for_the_next() {
    let world = World::new(PLENTY).await;
    let silence = world.shield.leases_wait.clone().acquire_owned().await.unwrap();
    let mut waiting = request("waiting");
    waiting["tmax"] = json!(55);
    let answer = world.post("/openrtb2/x1", &waiting).await;
    assert_eq!((answer.status, answer.header("x-kiki-no-bid")), (204, Some("DEADLINE")));
    drop(silence);
    assert_eq!(world.bid("next").await.status, 200);
    let shield = world.stop().await;
    let state = shield.state.lock();
    assert_eq!(state.grants, 1, "asked once");
    assert_eq!(state.decisions[0].1.refusals, 1 << Refusal::Deadline as u32);
}

#[tokio::test]
async fn each_stage_is_timed_and_of_a_streams_message_one_opportunity() {
    let world = World::new(PLENTY).await;
    let counts = async |world: &World| {
        let mut counts = Vec::new();
        for stage in ["predict", "guard", "encode"] {
            counts.push(world.metric(&format!(r#"syncflow_stage_seconds_count{{stage="{stage}"}}"#)).await);
        }
        for whole in ["syncflow_service_seconds_count", "syncflow_response_seconds_count"] {
            counts.push(world.metric(whole).await);
        }
        counts
    };
    let probes = counts(&world).await[3];
    world.won("r1").await;
    assert_eq!(counts(&world).await, [1.0, 1.0, probes + 1.0, probes + 1.0, probes + 1.0], "a refused probe has no prediction to wait for");
    for _ in 0..3 {
        let message = tokio_stream::once(flow::BidStreamRequest { opportunities: opportunities(16) });
        let mut answers = world.flow.clone().bid_stream(message).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().responses.len(), 16);
        while answers.message().await.unwrap().is_some() {}
    }
    assert_eq!(counts(&world).await[3..], [probes + 4.0; 2]);
    assert_eq!(world.metric("syncflow_runtime_lag_seconds_count").await, probes + 1.0, "of each request, not of a stream's messages");
    world.stop().await;
}
