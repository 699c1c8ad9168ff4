#![allow(clippy::unwrap_used)]
//! Tree and proofs against the definitions of RFC 6962, written down as they stand there.

use super::*;
use crate::tlog::{Frontier, Tree, leaf_hash};
use proptest::prelude::*;

/// MTH of §2.1.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => EMPTY_ROOT,
        1 => leaves[0],
        n => {
            let k = n.next_power_of_two() / 2;
            node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

/// PATH of §2.1.1.
fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    if m < k { [path(m, left), vec![mth(right)]].concat() } else { [path(m - k, right), vec![mth(left)]].concat() }
}

/// SUBPROOF of §2.1.2.
fn subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    if m <= k { [subproof(m, left, whole), vec![mth(right)]].concat() } else { [subproof(m - k, right, false), vec![mth(left)]].concat() }
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n as u64).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

#[test]
fn small_trees_have_the_roots_and_proofs_of_the_rfc_at_every_size() {
    const MOST: usize = 40;
    let all = leaves(MOST);
    let (mut tree, mut frontier) = (Tree::new(), Frontier::new());
    for size in 0..=MOST {
        let now = &all[..size];
        assert_eq!(tree.root(), mth(now), "size {size}");
        assert_eq!(frontier.root(), mth(now), "size {size}");
        for old in 1..=size {
            let proof = tree.consistency_proof(old as u64, size as u64).unwrap();
            assert_eq!(proof, subproof(old, now, true), "{old} to {size}");
            let roots = (mth(&all[..old]), mth(now));
            verify_consistency(old as u64, size as u64, &proof, &roots.0, &roots.1).unwrap();
        }
        for (index, leaf) in now.iter().enumerate() {
            let proof = tree.inclusion_proof(index as u64, size as u64).unwrap();
            assert_eq!(proof, path(index, now), "{index} of {size}");
            verify_inclusion(leaf, index as u64, size as u64, &proof, &mth(now)).unwrap();
        }
        if let Some(leaf) = all.get(size) {
            tree.push(*leaf);
            frontier.push(*leaf);
        }
    }
}

#[test]
fn large_trees_have_them_across_stored_levels() {
    // Beyond 256^2, so that three levels are stored.
    const MOST: usize = 65_536 + 256 + 3;
    let all = leaves(MOST);
    let tree: Tree = all.iter().copied().collect();
    for size in [1, 255, 256, 257, 511, 512, 513, 4_096, 65_535, 65_536, 65_537, 65_792, MOST] {
        let now = &all[..size];
        let root = mth(now);
        assert_eq!(tree.root_at(size as u64).unwrap(), root, "size {size}");
        for index in [0, 1, size / 3, size / 2, size - 1] {
            let index = index.min(size - 1);
            assert_eq!(tree.leaf(index as u64).unwrap(), all[index]);
            let proof = tree.inclusion_proof(index as u64, size as u64).unwrap();
            assert_eq!(proof, path(index, now), "{index} of {size}");
        }
        for old in [1, size / 3, size / 2, size - 1, size] {
            let old = old.max(1);
            let proof = tree.consistency_proof(old as u64, size as u64).unwrap();
            assert_eq!(proof, subproof(old, now, true), "{old} to {size}");
        }
    }
    assert_eq!(tree.root(), mth(&all));
}

#[test]
fn refuses_what_is_not_in_the_tree() {
    let tree: Tree = leaves(5).into_iter().collect();
    assert_eq!(tree.inclusion_proof(5, 5), Err(Error::Index { index: 5, size: 5 }));
    assert_eq!(tree.inclusion_proof(0, 0), Err(Error::Index { index: 0, size: 0 }));
    assert_eq!(tree.inclusion_proof(0, 6), Err(Error::Size { size: 6, have: 5 }));
    assert_eq!(tree.leaf(u64::MAX), Err(Error::Index { index: u64::MAX, size: 5 }));
    assert_eq!(tree.root_at(6), Err(Error::Size { size: 6, have: 5 }));
    assert_eq!(tree.consistency_proof(3, 6), Err(Error::Size { size: 6, have: 5 }));
    assert_eq!(tree.consistency_proof(3, 2), Err(Error::Order { old: 3, new: 2 }));
    assert_eq!(tree.consistency_proof(0, 2), Err(Error::FromEmpty));
    assert_eq!(tree.multiproof(&[1, 1], 5), Err(Error::Unsorted { previous: 1, index: 1 }));
    assert_eq!(tree.multiproof(&[2, 1], 5), Err(Error::Unsorted { previous: 2, index: 1 }));
    assert_eq!(tree.multiproof(&[4], 4), Err(Error::Index { index: 4, size: 4 }));
    assert_eq!(tree.multiproof(&[], 6), Err(Error::Size { size: 6, have: 5 }));
}

#[test]
fn a_multiproof_of_nothing_is_the_root_itself() {
    let tree: Tree = leaves(5).into_iter().collect();
    assert_eq!(tree.multiproof(&[], 5).unwrap(), [tree.root()]);
    assert_eq!(multiproof_root(5, &[], &[tree.root()]), Ok(tree.root()));
    assert_eq!(tree.multiproof(&[], 0).unwrap(), [EMPTY_ROOT; 0]);
    assert_eq!(multiproof_root(0, &[], &[]), Ok(EMPTY_ROOT));
    assert_eq!(multiproof_root(0, &[], &[EMPTY_ROOT]), Err(Error::TooLong { len: 1, used: 0 }));
}

#[test]
fn the_largest_size_is_bounded_work() {
    let hash = leaf_hash(b"x");
    // The last leaf of 2^64 - 1 is a subtree of its own and has one sibling fewer.
    for (index, used) in [(0, 64), (1, 64), (u64::MAX / 2, 64), (u64::MAX - 1, 63)] {
        let short = Err(Error::TooShort { len: 3 });
        assert_eq!(verify_inclusion(&hash, index, u64::MAX, &[hash; 3], &hash), short);
        let root = verify_inclusion(&hash, index, u64::MAX, &vec![hash; used], &hash);
        assert!(matches!(root, Err(Error::Root { .. })), "{root:?}");
        let long = Err(Error::TooLong { len: 65, used });
        assert_eq!(verify_inclusion(&hash, index, u64::MAX, &[hash; 65], &hash), long);
        assert!(multiproof_root(u64::MAX, &[(index, hash)], &[hash; 3]).is_err());
        assert!(multiproof_root(u64::MAX, &[(index, hash)], &vec![hash; used]).is_ok());
    }
    for old in [1, 2, 3, 1 << 63, u64::MAX - 1] {
        assert!(verify_consistency(old, u64::MAX, &[hash; 65], &hash, &hash).is_err());
        assert!(verify_consistency(old, u64::MAX, &[], &hash, &hash).is_err());
    }
}

#[test]
fn errors_carry_the_facts() {
    let tree: Tree = leaves(3).into_iter().collect();
    let proof = tree.inclusion_proof(1, 3).unwrap();
    let error = verify_inclusion(&leaf_hash(b"other"), 1, 3, &proof, &tree.root()).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("root at size 3 should be "), "{message}");
    assert!(message.contains(&hex::encode(tree.root())), "{message}");
}

prop_compose! {
    fn tree_and_leaves()(size in 1usize..700)(
        size in Just(size), wanted in proptest::collection::btree_set(0..size as u64, 0..=size.min(12)),
    ) -> (Vec<Hash>, Vec<u64>) {
        (leaves(size), wanted.into_iter().collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn multiproofs_hold_and_no_changed_one_does(
        (all, wanted) in tree_and_leaves(), grown in 0usize..300, at: prop::sample::Index, bit in 0usize..256,
    ) {
        let size = all.len() as u64;
        let mut tree: Tree = all.iter().copied().collect();
        (0..grown).for_each(|i| tree.push(leaf_hash(&i.to_le_bytes())));
        let root = mth(&all);
        let mut proof = tree.multiproof(&wanted, size).unwrap();
        let mut found: Vec<_> = wanted.iter().map(|i| (*i, all[*i as usize])).collect();
        prop_assert_eq!(multiproof_root(size, &found, &proof), Ok(root));
        if let [index] = wanted[..] {
            // The same hashes as an inclusion proof has, in another order.
            let mut single = tree.inclusion_proof(index, size).unwrap();
            let mut same = proof.clone();
            single.sort();
            same.sort();
            prop_assert_eq!(single, same);
        }

        let extra = [&proof[..], &[root]].concat();
        let long = Err(Error::TooLong { len: extra.len(), used: proof.len() });
        prop_assert_eq!(multiproof_root(size, &found, &extra), long);
        if let Some((_, short)) = proof.split_last() {
            let error = Err(Error::TooShort { len: short.len() });
            prop_assert_eq!(multiproof_root(size, &found, short), error);
        }
        let changed = at.index(proof.len() + found.len());
        match proof.get_mut(changed) {
            Some(hash) => hash[bit / 8] ^= 1 << (bit % 8),
            None => found[changed - proof.len()].1[bit / 8] ^= 1 << (bit % 8),
        }
        prop_assert_ne!(multiproof_root(size, &found, &proof), Ok(root));
    }

    #[test]
    fn inclusion_fails_for_any_other_index_or_hash(
        n in 2usize..500, index: prop::sample::Index, other: prop::sample::Index,
        at: prop::sample::Index, bit in 0usize..256,
    ) {
        let all = leaves(n);
        let tree: Tree = all.iter().copied().collect();
        let (index, other, size, root) = (index.index(n), other.index(n), n as u64, mth(&all));
        let mut proof = tree.inclusion_proof(index as u64, size).unwrap();
        let holds = |i: usize, leaf: &Hash, proof: &[Hash]| verify_inclusion(leaf, i as u64, size, proof, &root);
        prop_assert_eq!(holds(index, &all[index], &proof), Ok(()));
        if other != index {
            prop_assert!(holds(other, &all[index], &proof).is_err());
            prop_assert!(holds(index, &all[other], &proof).is_err());
        }
        let long = [&proof[..], &[root]].concat();
        let error = Err(Error::TooLong { len: long.len(), used: proof.len() });
        prop_assert_eq!(holds(index, &all[index], &long), error);
        let error = Err(Error::TooShort { len: proof.len() - 1 });
        prop_assert_eq!(holds(index, &all[index], &proof[..proof.len() - 1]), error);
        let at = at.index(proof.len());
        proof[at][bit / 8] ^= 1 << (bit % 8);
        let wrong_root = matches!(holds(index, &all[index], &proof), Err(Error::Root { .. }));
        prop_assert!(wrong_root);
    }

    #[test]
    fn consistency_fails_for_a_rewritten_past(n in 2usize..500, old: prop::sample::Index, forged: prop::sample::Index) {
        let all = leaves(n);
        let old = 1 + old.index(n);
        let mut rewritten = all.clone();
        rewritten[forged.index(old)] = leaf_hash(b"rewritten");
        let tree: Tree = rewritten.iter().copied().collect();
        let proof = tree.consistency_proof(old as u64, n as u64).unwrap();
        let (was, is) = (mth(&all[..old]), mth(&rewritten));
        prop_assert!(verify_consistency(old as u64, n as u64, &proof, &was, &is).is_err());
        prop_assert_eq!(verify_consistency(old as u64, n as u64, &proof, &mth(&rewritten[..old]), &is), Ok(()));
    }
}
