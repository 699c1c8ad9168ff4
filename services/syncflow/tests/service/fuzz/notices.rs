//! Damaged notices over HTTP: each has its answer at once, and none moves money that was not bid.

use std::collections::BTreeSet;

use super::fuzzing;
use crate::world::{PREDICTED_PRICE, World};

const PLENTY: i64 = 64_000_000_000;
/// Of the runs of a reader, which needs no socket.
const SHARE: usize = 20;
/// Bids whose notices are damaged.
const BIDS: usize = 8;

/// A path as the first line of a request can have it.
fn path(bytes: &[u8]) -> String {
    let one = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    let path: String = bytes.iter().map(one).collect();
    if path.starts_with('/') { path } else { format!("/{path}") }
}

#[tokio::test]
async fn a_damaged_notice_is_answered_and_moves_nothing_that_was_not_bid() {
    let (mut mutator, runs) = fuzzing();
    let world = World::new(PLENTY).await;
    let mut seeds = Vec::new();
    for n in 0..BIDS {
        let bid = world.won(&format!("r{n}")).await;
        for which in ["nurl", "burl", "lurl"] {
            let url = bid[which].as_str().unwrap().replace("${AUCTION_PRICE}", "9.5").replace("${AUCTION_LOSS}", "102");
            seeds.push(url.strip_prefix("http://flow.example").unwrap().as_bytes().to_vec());
        }
        let click = bid["adm"].as_str().unwrap().split('"').nth(1).unwrap();
        seeds.push(click.strip_prefix("http://flow.example").unwrap().as_bytes().to_vec());
    }
    let mut statuses = BTreeSet::new();
    for _ in 0..runs / SHARE {
        let path = path(&mutator.bytes(&seeds));
        let answer = world.get(&path).await;
        assert!([200, 302, 400, 404, 409].contains(&answer.status), "{path}: {}", answer.head);
        statuses.insert(answer.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&400), "{statuses:?}");
    let shield = world.stop().await;
    let state = shield.state.lock();
    let settled = state.settlements.iter().map(|one| one.sequence);
    let closed: BTreeSet<u32> = settled.chain(state.voids.iter().map(|one| one.sequence)).collect();
    assert_eq!(closed.len(), state.settlements.len() + state.voids.len(), "a slot was closed twice");
    assert!(closed.len() <= BIDS);
    assert!(state.settlements.iter().all(|one| (0..=PREDICTED_PRICE).contains(&one.price_nanos)), "{:?}", state.settlements);
}
