#![allow(clippy::unwrap_used)]
use kiki::tlog::Tree;
use prost::Message as _;

use super::*;

const LOG: &str = "kiki.test/log";

fn leaf_bytes(index: u64, client: &str, client_seq: u64) -> Vec<u8> {
    let body = Some(Body::Outcome(leaf::Outcome { event_id: format!("e{index}"), ..Default::default() }));
    let client = client.to_owned();
    leaf::Leaf { log_id: LOG.into(), index, client, client_seq, body, ..Default::default() }.encode_to_vec()
}

/// A log of `count` leaves that alternate between two clients.
fn log(count: u64) -> (Vec<Vec<u8>>, Tree) {
    let leaves: Vec<_> = (0..count).map(|i| leaf_bytes(i, if i % 2 == 0 { "a" } else { "b" }, i / 2 + 1)).collect();
    let mut tree = Tree::new();
    leaves.iter().for_each(|bytes| tree.push(tlog::leaf_hash(bytes)));
    (leaves, tree)
}

fn at(tree: &Tree, size: u64) -> Checkpoint {
    Checkpoint { origin: LOG.into(), size, root: tree.root_at(size).unwrap() }
}

fn fresh() -> Follower {
    Follower::new(LOG, Frontier::new(), BTreeMap::new())
}

#[test]
fn hands_on_what_a_checkpoint_covers_and_keeps_the_rest() {
    let (leaves, tree) = log(10);
    let mut follower = fresh();
    for (i, bytes) in (0..).zip(&leaves) {
        follower.push(i, bytes).unwrap();
    }
    let first = follower.checkpoint(&at(&tree, 7)).unwrap().unwrap();
    assert_eq!(first.leaves.iter().map(|l| l.header.index).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    assert_eq!(first.heads, BTreeMap::from([("a".to_owned(), 4), ("b".to_owned(), 3)]));
    assert!(follower.checkpoint(&at(&tree, 7)).unwrap().unwrap().leaves.is_empty());
    assert_eq!(follower.checkpoint(&at(&tree, 10)).unwrap().unwrap().leaves.len(), 3);
    assert_eq!(follower.next_index(), 10);
}

#[test]
fn goes_on_from_a_stored_edge() {
    let (leaves, tree) = log(10);
    let mut follower = fresh();
    (0..6).for_each(|i| follower.push(i as u64, &leaves[i]).unwrap());
    let believed = follower.checkpoint(&at(&tree, 6)).unwrap().unwrap();
    let mut again = Follower::new(LOG, believed.frontier, believed.heads);
    (6..10).for_each(|i| again.push(i as u64, &leaves[i]).unwrap());
    assert_eq!(again.checkpoint(&at(&tree, 10)).unwrap().unwrap().leaves.len(), 4);
}

#[test]
fn a_changed_leaf_is_never_handed_on() {
    let (mut leaves, tree) = log(5);
    leaves[3] = leaf_bytes(3, "b", 2);
    let outcome = leaf::Outcome { value_micros: 1, ..Default::default() };
    leaves[3] = {
        let mut leaf = leaf::Leaf::decode(&leaves[3][..]).unwrap();
        leaf.body = Some(Body::Outcome(outcome));
        leaf.encode_to_vec()
    };
    let mut follower = fresh();
    (0..5).for_each(|i| follower.push(i as u64, &leaves[i]).unwrap());
    assert!(matches!(follower.checkpoint(&at(&tree, 5)), Err(Fault::Root { size: 5, .. })));
    // Up to the leaf before it the log is as signed.
    assert_eq!(follower.checkpoint(&at(&tree, 3)).unwrap().unwrap().leaves.len(), 3);
}

#[test]
fn a_gap_a_repeat_or_a_leaf_of_elsewhere_is_a_fault() {
    let (leaves, _) = log(5);
    let mut follower = fresh();
    assert_eq!(follower.push(1, &leaves[1]), Err(Fault::Order { wanted: 0, found: 1 }));
    follower.push(0, &leaves[0]).unwrap();
    assert_eq!(follower.push(0, &leaves[0]), Err(Fault::Order { wanted: 1, found: 0 }));
    assert!(matches!(follower.push(1, &leaves[2]), Err(Fault::Header { index: 1, found: 2, .. })));
    let skipped = Fault::ClientSeq { index: 1, client: "a".into(), wanted: 2, found: 3 };
    assert_eq!(follower.push(1, &leaf_bytes(1, "a", 3)), Err(skipped));
    assert!(matches!(follower.push(1, b"\xff"), Err(Fault::Unreadable(Unreadable { leaf: 1, .. }))));
    let unknown = leaf::Leaf { log_id: LOG.into(), index: 1, client: "b".into(), client_seq: 1, ..Default::default() };
    let refused = follower.push(1, &unknown.encode_to_vec()).unwrap_err().to_string();
    assert!(refused.starts_with("leaf 1 of client \"b\" cannot be read"), "{refused}");
}

#[test]
fn a_client_that_comes_from_another_log_goes_on_where_it_left_that() {
    let mut follower = fresh();
    let part = |index, client_seq, part| {
        let side = Some(Side::Arrived(leaf::ClientArrived { part, parts: 2, ..Default::default() }));
        let body = Some(Body::ClientMoved(leaf::ClientMoved { side }));
        leaf::Leaf { log_id: LOG.into(), index, client: "a".into(), client_seq, body, ..Default::default() }.encode_to_vec()
    };
    follower.push(0, &part(0, 41, 0)).unwrap();
    assert!(matches!(follower.push(1, &part(1, 43, 1)), Err(Fault::ClientSeq { wanted: 42, found: 43, .. })));
    follower.push(1, &part(1, 42, 1)).unwrap();
    follower.push(2, &leaf_bytes(2, "a", 43)).unwrap();
    assert!(matches!(follower.push(3, &part(3, 40, 0)), Err(Fault::ClientSeq { .. })), "never back");
}

#[test]
fn a_log_that_went_back_or_ran_ahead_is_a_fault() {
    let (leaves, tree) = log(6);
    let mut follower = fresh();
    (0..5).for_each(|i| follower.push(i as u64, &leaves[i]).unwrap());
    follower.checkpoint(&at(&tree, 5)).unwrap();
    assert_eq!(follower.checkpoint(&at(&tree, 4)).unwrap_err(), Fault::Rollback { size: 4, believed: 5 });
    assert_eq!(follower.checkpoint(&at(&tree, 6)).unwrap_err(), Fault::Ahead { size: 6, received: 5 });
}

#[test]
fn catches_up_with_a_longer_log_by_proof() {
    let (leaves, tree) = log(40);
    for (first, second, size) in [(0, 5, 40), (6, 13, 40), (8, 16, 33), (7, 8, 9), (13, 40, 40)] {
        let mut follower = fresh();
        (0..first).for_each(|i| follower.push(i, &leaves[i as usize]).unwrap());
        if first > 0 {
            follower.checkpoint(&at(&tree, first)).unwrap();
        }
        (first..second).for_each(|i| follower.push(i, &leaves[i as usize]).unwrap());
        let proof = tree.multiproof(&follower.waiting().collect::<Vec<_>>(), size).unwrap();
        let believed = follower.proven(&at(&tree, size), &proof).unwrap();
        assert_eq!((believed.leaves.len() as u64, believed.frontier.root()), (second - first, tree.root_at(second).unwrap()));
        assert_eq!(believed.signed, (size, tree.root_at(size).unwrap()));
        (second..size).for_each(|i| follower.push(i, &leaves[i as usize]).unwrap());
        // A checkpoint that was on its way meanwhile says nothing new.
        if first < second - 1 {
            assert!(follower.checkpoint(&at(&tree, second - 1)).unwrap().is_none());
        }
        assert_eq!(follower.checkpoint(&at(&tree, size)).unwrap().unwrap().frontier.size(), size);
    }
}

#[test]
fn a_longer_log_that_forked_before_is_no_proof() {
    let (leaves, _) = log(40);
    let (mut other, mut tree) = (log(40).0, Tree::new());
    other[2] = leaf_bytes(2, "z", 1);
    other.iter().for_each(|bytes| tree.push(tlog::leaf_hash(bytes)));
    let mut follower = fresh();
    let honest = log(40).1;
    (0..6).for_each(|i| follower.push(i as u64, &leaves[i]).unwrap());
    follower.checkpoint(&at(&honest, 6)).unwrap();
    (6..13).for_each(|i| follower.push(i as u64, &leaves[i]).unwrap());
    let proof = tree.multiproof(&follower.waiting().collect::<Vec<_>>(), 40).unwrap();
    // Leaves 6 to 12 are in the other log too; what stands before them is not what was believed.
    let fault = follower.proven(&at(&tree, 40), &proof).unwrap_err();
    assert!(fault.to_string().contains("not what was believed"), "{fault}");
    assert!(matches!(follower.proven(&at(&honest, 40), &proof), Err(Fault::Unproven { .. })));
}

#[test]
fn asks_for_a_checkpoint_before_it_gives_up() {
    let mut follower = fresh();
    for i in 0..PENDING_MAX as u64 {
        assert_eq!(follower.wants_checkpoint(), i >= PENDING_MAX as u64 / 2);
        follower.push(i, &leaf_bytes(i, "a", i + 1)).unwrap();
    }
    let next = PENDING_MAX as u64;
    assert_eq!(follower.push(next, &leaf_bytes(next, "a", next + 1)), Err(Fault::Unsigned { from: 0 }));
}

/// A leaf of some 60 KiB.
fn long_leaf(index: u64, decisions: bool) -> Vec<u8> {
    let model = "m".repeat(60_000);
    let body = if decisions {
        let decision = leaf::Decision { model, ..Default::default() };
        Body::Decisions(leaf::DecisionBatch { decisions: vec![decision], ..Default::default() })
    } else {
        let settlement = leaf::Settlement { model, ..Default::default() };
        Body::Settlements(leaf::SettlementBatch { settlements: vec![settlement], ..Default::default() })
    };
    let client = "a".to_owned();
    leaf::Leaf { log_id: LOG.into(), index, client, client_seq: index + 1, body: Some(body), ..Default::default() }.encode_to_vec()
}

#[test]
fn long_leaves_that_wait_are_bounded_by_their_bytes() {
    let (mut follower, mut tree, mut index) = (fresh(), Tree::new(), 0);
    while !follower.wants_checkpoint() {
        tree.push(tlog::leaf_hash(&long_leaf(index, false)));
        follower.push(index, &long_leaf(index, false)).unwrap();
        index += 1;
    }
    assert!(index < PENDING_MAX as u64 / 2 && index * 60_000 >= PENDING_BYTES_MAX as u64 / 2 - 120_000, "{index}");
    follower.checkpoint(&at(&tree, index)).unwrap();
    assert!(!follower.wants_checkpoint(), "what was believed waits no longer");
    let refused = loop {
        match follower.push(index, &long_leaf(index, false)) {
            Ok(()) => index += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!(refused, Fault::Unsigned { from: tree.size() });
}

#[test]
fn decisions_that_wait_keep_no_body() {
    let (mut follower, mut tree) = (fresh(), Tree::new());
    let count = PENDING_BYTES_MAX as u64 / 60_000 + 10;
    for index in 0..count {
        tree.push(tlog::leaf_hash(&long_leaf(index, true)));
        follower.push(index, &long_leaf(index, true)).unwrap();
    }
    assert!(!follower.wants_checkpoint());
    let believed = follower.checkpoint(&at(&tree, count)).unwrap().unwrap();
    assert!(believed.leaves.iter().all(|leaf| leaf.body.is_none() && leaf.length > 60_000));
}
