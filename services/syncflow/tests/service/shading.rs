//! A campaign whose bids are shaded: from what its notices say, in first-price auctions alone.

use kiki::leaf;
use serde_json::{Value as Json, json};

use crate::fakes::Manner;
use crate::world::{PREDICTED_PRICE, World, campaign, client_campaign, prediction, request};

fn first_price(id: &str) -> Json {
    let mut request = request(id);
    request["at"] = json!(1);
    request["imp"][0]["tagid"] = json!("top");
    request
}

async fn bid(world: &World, request: &Json) -> Json {
    let answer = world.post("/openrtb2/x1", request).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    answer.json()["seatbid"][0]["bid"][0].clone()
}

#[tokio::test]
async fn learns_what_it_takes_to_win_and_offers_that() {
    let world = World::bare(64_000_000_000, Manner::Answers(prediction())).await;
    world.open(vec![client_campaign(leaf::Campaign { shading: true, ..campaign() })]).await;
    for n in 0..60 {
        let mut bid = bid(&world, &first_price(&format!("r{n}"))).await;
        let lost = bid["lurl"].as_str().unwrap().replace("${AUCTION_MIN_TO_WIN}", "6.0");
        bid["lurl"] = json!(lost);
        assert_eq!(world.notice(&bid, "lurl", "").await.status, 200);
    }
    bid(&world, &first_price("first")).await;
    let second = bid(&world, &request("second")).await;
    assert!(!second["lurl"].as_str().unwrap().contains("min="), "nobody asks where nothing is shaded");
    let shield = world.stop().await;
    let state = shield.state.lock();
    let decisions: Vec<&leaf::Decision> = state.decisions.iter().map(|(_, decision)| decision).collect();
    let shaded: Vec<_> = decisions.iter().filter(|decision| decision.price_nanos < PREDICTED_PRICE).collect();
    assert!(shaded.iter().all(|decision| (6_000_000..7_000_000).contains(&decision.price_nanos)), "{shaded:?}");
    assert_eq!(shaded.len(), 10, "of fifty notices a little has faded: from the 51st on");
    assert!(decisions[..61].iter().all(|one| one.value_nanos == PREDICTED_PRICE && one.shading_market == decisions[0].shading_market));
    assert_ne!(decisions[0].shading_market, 0);
    let second = decisions[61];
    assert_eq!((second.price_nanos, second.value_nanos, second.shading_market), (PREDICTED_PRICE, 0, 0));
}
