//! The bound of memory, and what has to go.

use prometheus::IntCounter;
use proptest::prelude::*;
use syncvalue::store::states::memory::{LEAST, Memory};
use syncvalue::store::states::{Error, Key, States};

use crate::{change, get, put, state};

/// The smallest memory, and its counter of evictions.
fn memory() -> (Memory, IntCounter) {
    let evictions = IntCounter::new("evictions", "states that had to go").unwrap();
    (Memory::new(LEAST, evictions.clone()).unwrap(), evictions)
}

/// Customers of one shard: pseudonyms that end alike.
fn neighbour(n: u64) -> Key {
    crate::key("acme", u128::from(n) << 8)
}

#[test]
fn a_memory_without_room_for_the_largest_states_is_refused() {
    let evictions = IntCounter::new("evictions", "states that had to go").unwrap();
    assert_eq!(Memory::new(LEAST - 1, evictions).unwrap_err(), Error::TooSmall { got: LEAST - 1, least: LEAST });
}

#[tokio::test]
async fn the_bound_holds_and_evictions_are_counted() {
    let (memory, evictions) = memory();
    let keys: Vec<_> = (0..20_000_u128).map(|n| crate::key("acme", n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))).collect();
    for key in &keys {
        assert_eq!(put(&memory, change(key, 0, state(1, vec![0; 1_000]))).await, Ok(true));
        assert!(memory.bytes() <= LEAST);
    }
    let mut there = 0;
    for key in &keys {
        there += u64::from(get(&memory, key).await.unwrap().is_some());
    }
    assert_eq!(there + evictions.get(), keys.len() as u64);
    assert!(memory.bytes() > LEAST * 9 / 10 && there > 2_500, "{there} states in {} of {LEAST} bytes", memory.bytes());
    for key in &keys {
        memory.erase(key).await.unwrap();
    }
    assert_eq!(memory.bytes(), 0);
}

#[tokio::test]
async fn what_is_read_stays_and_what_is_not_goes() {
    let (memory, evictions) = memory();
    let read = neighbour(0);
    assert_eq!(put(&memory, change(&read, 0, state(1, "read"))).await, Ok(true));
    for n in 1..1_000 {
        assert_eq!(put(&memory, change(&neighbour(n), 0, state(1, vec![0; 4_000]))).await, Ok(true));
        assert!(get(&memory, &read).await.unwrap().is_some(), "gone with the {n}th");
    }
    assert!(evictions.get() > 900);
    assert_eq!(get(&memory, &neighbour(1)).await, Ok(None));
    assert!(get(&memory, &neighbour(999)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_evicted_is_absent_to_its_next_change() {
    let (memory, evictions) = memory();
    assert_eq!(put(&memory, change(&neighbour(0), 0, state(5, "first"))).await, Ok(true));
    for n in 1..40 {
        assert_eq!(put(&memory, change(&neighbour(n), 0, state(1, vec![0; 4_000]))).await, Ok(true));
    }
    assert!(evictions.get() > 0);
    assert_eq!(get(&memory, &neighbour(0)).await, Ok(None));
    assert_eq!(put(&memory, change(&neighbour(0), 5, state(6, "second"))).await, Ok(false));
}

#[tokio::test]
async fn a_state_that_grows_makes_room_for_itself() {
    let (memory, evictions) = memory();
    for n in 0..60 {
        assert_eq!(put(&memory, change(&neighbour(n), 0, state(1, vec![0; 500]))).await, Ok(true));
    }
    assert_eq!(evictions.get(), 0);
    let largest = state(2, vec![1; syncvalue::store::states::MAX_BYTES]);
    assert_eq!(put(&memory, change(&neighbour(30), 1, largest.clone())).await, Ok(true));
    assert_eq!((evictions.get(), get(&memory, &neighbour(30)).await), (59, Ok(Some(largest))));
}

proptest! {
    /// Against a table without a bound: what is there is right, and the bytes are those of what is there.
    #[test]
    fn what_is_there_is_what_was_put(steps in prop::collection::vec((0_u64..40, 0_usize..9_000, 0_u8..10), 1..400)) {
        let (memory, evictions) = memory();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut table = std::collections::HashMap::new();
            let mut empty = None;
            for (n, len, what) in steps {
                let key = neighbour(n);
                let there = get(&memory, &key).await.unwrap();
                prop_assert!(there.is_none() || there.as_ref() == table.get(&n));
                if what == 0 {
                    memory.erase(&key).await.unwrap();
                    table.remove(&n);
                    continue;
                }
                let expected = there.map_or(0, |there| there.events);
                let new = state(expected + 1, vec![what; len]);
                prop_assert_eq!(put(&memory, change(&key, expected, new.clone())).await, Ok(true));
                prop_assert_eq!(get(&memory, &key).await, Ok(Some(new.clone())));
                table.insert(n, new);
            }
            let mut bytes = 0;
            for n in 0..40 {
                let before = memory.bytes();
                let there = get(&memory, &neighbour(n)).await.unwrap();
                memory.erase(&neighbour(n)).await.unwrap();
                let freed = before - memory.bytes();
                let Some(there) = there else {
                    prop_assert_eq!(freed, 0);
                    continue;
                };
                // All states take the same besides their bytes.
                prop_assert_eq!(*empty.get_or_insert(freed - there.bytes.len()), freed - there.bytes.len());
                bytes += freed;
            }
            prop_assert_eq!(memory.bytes(), 0);
            prop_assert!(evictions.get() > 0 || bytes <= LEAST / 64);
            Ok(())
        })?;
    }
}
