//! The lease on one thread: by example, and against a plain model of it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::money::{Micros, Nanos};
use proptest::prelude::*;

use super::lease::{Grant, Lease, Mark, Refused, Window, amount_to_ask, least_to_ask, opening_mark};

/// The bound that `lease.rs` has on one lease.
const MAX_LEASE_MICROS: i64 = 9_000_000_000_000_000;

const SKEW: Duration = Duration::from_secs(1);
const NOW: UnixMicros = UnixMicros(1_000_000_000);

fn lease(amount_micros: i64, slots: u32, mark: Mark) -> Lease {
    Lease::new(
        Grant {
            lease_id: 7,
            epoch: 1,
            amount: Micros::new(amount_micros),
            granted_at: NOW,
            expires_at: NOW.plus(Duration::from_secs(60)),
            day_end: NOW.plus(Duration::from_secs(3_600)),
            slots,
            mark,
        },
        SKEW,
    )
}

#[test]
fn hands_out_slots_below_the_mark_alone() {
    let mut lease = lease(10, 100, Mark { sequence: 3, nanos: 2_000 });
    assert_eq!(lease.take(Nanos::new(900), NOW).unwrap().sequence, 0);
    assert_eq!(lease.take(Nanos::new(1_100), NOW).unwrap().sequence, 1);
    assert_eq!(lease.take(Nanos::new(1), NOW), Err(Refused::NeedsMark));
    assert_eq!(lease.next_mark(Nanos::new(100)), Mark { sequence: 15, nanos: 5_200 }, "room for 32 bids");
    assert_eq!(lease.next_mark(Nanos::new(1)), Mark { sequence: 15, nanos: 3_250 }, "an eighth of the lease");
    let next = lease.next_mark(Nanos::new(5_000));
    assert_eq!(next, Mark { sequence: 15, nanos: 10_000 }, "not above the lease");
    lease.marked(next);
    assert_eq!(lease.take(Nanos::new(5_000), NOW).unwrap().sequence, 2);
    assert_eq!(lease.used(), Mark { sequence: 3, nanos: 7_000 });
}

#[test]
fn a_price_above_what_is_left_needs_another_lease() {
    let mut lease = lease(10, 2, Mark { sequence: 2, nanos: 10_000 });
    assert_eq!(lease.take(Nanos::new(10_001), NOW), Err(Refused::NeedsLease));
    lease.take(Nanos::new(10_000), NOW).unwrap();
    assert_eq!(lease.take(Nanos::new(1), NOW), Err(Refused::NeedsLease));
    assert_eq!(lease.take(Nanos::ZERO, NOW).unwrap().sequence, 1);
    assert_eq!(lease.take(Nanos::ZERO, NOW), Err(Refused::NeedsLease), "no slot left");
}

#[test]
fn stops_before_its_end_by_the_clock_skew() {
    let mut lease = lease(10, 10, Mark { sequence: 10, nanos: 10_000 });
    let last = NOW.plus(Duration::from_secs(60) - SKEW);
    assert!(lease.take(Nanos::ZERO, UnixMicros(last.0 - 1)).is_ok());
    assert_eq!(lease.take(Nanos::ZERO, last), Err(Refused::Expired));
}

#[test]
fn stops_at_the_end_of_the_clients_day() {
    let lease = lease(10, 10, Mark { sequence: 10, nanos: 10_000 });
    let mut lease = Lease::new(Grant { day_end: NOW.plus(Duration::from_secs(5)), ..lease.grant().clone() }, SKEW);
    assert_eq!(lease.take(Nanos::ZERO, NOW.plus(Duration::from_secs(5))), Err(Refused::Expired));
}

#[test]
fn a_stale_epoch_is_explained_by_an_unanswered_renewal_and_by_that_alone() {
    let mut lease = lease(10, 10, Mark { sequence: 10, nanos: 10_000 });
    assert!(!lease.learn_epoch());
    lease.renewal_sent();
    assert!(lease.learn_epoch());
    assert_eq!(lease.grant().epoch, 2);
    assert!(!lease.learn_epoch(), "one renewal raises it once");
    lease.renewal_sent();
    lease.renewed(3, NOW.plus(Duration::from_secs(90)), NOW);
    assert!(!lease.learn_epoch(), "an answered one says the epoch itself");
    assert_eq!(lease.grant().epoch, 3);
}

#[test]
fn asks_for_a_share_of_the_budget_and_room_for_some_bids() {
    let burning =
        |burn, total, daily, price| amount_to_ask(Micros::new(total), Micros::new(daily), Nanos::new(price), Micros::new(burn)).get();
    let ask = |total, daily, price| burning(0, total, daily, price);
    assert_eq!(burning(40, 6_400, 0, 1_000), 80, "twice what is burnt");
    assert_eq!(burning(10, 6_400, 0, 1_000), 65, "room for 64 bids and what rounding takes");
    assert_eq!(burning(i64::MAX, 6_400, 0, 1_000), 400, "a 16th at the most");
    assert_eq!(ask(6_400, 640, 1_000), 40, "of the limit that binds");
    assert_eq!(ask(6_400, 0, 1_000_000), 1_000, "or what one bid takes");
    assert_eq!(ask(6_400, 0, 0), 1);
    assert_eq!(burning(i64::MAX, i64::MAX, 0, i64::MAX), i64::MAX / 1_000 + 1);
    assert_eq!(burning(i64::MAX, i64::MAX, 0, 1), MAX_LEASE_MICROS);
    assert_eq!(least_to_ask(Nanos::new(1)), Micros::new(1));
    assert_eq!(least_to_ask(Nanos::new(1_001)), Micros::new(2));
    assert_eq!(opening_mark(Micros::new(80), Nanos::new(1)).nanos, 10_000);
}

fn taken(window: &Window, nanos: i64, now: UnixMicros) -> Option<u32> {
    window.take(Nanos::new(nanos), now).map(|slot| slot.sequence)
}

#[test]
fn a_windows_slots_follow_those_of_before_and_end_at_the_mark() {
    let mut lease = lease(10, 100, Mark { sequence: 3, nanos: 2_000 });
    assert_eq!(lease.take(Nanos::new(900), NOW).unwrap().sequence, 0);
    let window = lease.open().unwrap();
    assert_eq!(taken(&window, 1_101, NOW), None);
    assert_eq!(taken(&window, 1_100, NOW), Some(1));
    assert_eq!(taken(&window, 1, NOW), None, "no money");
    assert_eq!(lease.used(), Mark { sequence: 2, nanos: 2_000 });
    assert_eq!(taken(&window, 0, NOW), Some(2));
    assert_eq!(taken(&window, 0, NOW), None, "no slot");
    assert_eq!(taken(&window, -1, NOW), None);
    assert_eq!(lease.take(Nanos::new(1), NOW), Err(Refused::NeedsMark));
    assert!(lease.open().is_none(), "nothing is left below the mark");
    lease.marked(Mark { sequence: 9, nanos: 3_000 });
    let slot = lease.open().unwrap().take(Nanos::new(1_000), NOW).unwrap();
    assert_eq!((slot.lease_id, slot.epoch, slot.sequence, slot.granted_at), (7, 1, 3, NOW));
    assert_eq!(lease.used(), Mark { sequence: 4, nanos: 3_000 });
}

#[test]
fn a_window_that_was_shut_or_replaced_gives_nothing_and_loses_nothing() {
    let mut lease = lease(10, 100, Mark { sequence: 50, nanos: 9_000 });
    let first = lease.open().unwrap();
    assert_eq!(taken(&first, 10, NOW), Some(0));
    let second = lease.open().unwrap();
    assert_eq!((taken(&first, 10, NOW), taken(&second, 10, NOW)), (None, Some(1)));
    lease.renewed(2, NOW.plus(Duration::from_secs(90)), NOW);
    assert_eq!(taken(&second, 0, NOW), None, "it would have the old epoch");
    let third = lease.open().unwrap();
    assert_eq!(third.take(Nanos::new(10), NOW).map(|slot| (slot.epoch, slot.sequence)), Some((2, 2)));
    lease.shut();
    assert_eq!((taken(&third, 0, NOW), lease.used()), (None, Mark { sequence: 3, nanos: 30 }));
}

#[test]
fn a_window_ends_where_the_lease_ages_or_ends() {
    let mut lease = lease(10, 100, Mark { sequence: 50, nanos: 9_000 });
    let window = lease.open().unwrap();
    let third = NOW.plus(Duration::from_secs(40));
    assert_eq!((lease.ageing(third), taken(&window, 1, third)), (false, Some(0)));
    assert!(!lease.idle(third.plus(Duration::from_secs(18))), "the window says when the last was taken");
    let after = UnixMicros(third.0 + 1);
    assert_eq!((lease.ageing(after), taken(&window, 1, after)), (true, None));
    assert_eq!(lease.take(Nanos::new(1), after).unwrap().sequence, 1, "it may be taken of, and is to be renewed");
    // On the last lease of a day there is no renewal, and bids go on until its end less the skew.
    let day_end = NOW.plus(Duration::from_secs(60));
    let mut last = Lease::new(Grant { day_end, ..lease.grant().clone() }, SKEW);
    let window = last.open().unwrap();
    let end = UnixMicros(day_end.0 - SKEW.as_micros() as i64);
    assert_eq!(taken(&window, 1, UnixMicros(end.0 - 1)), Some(0));
    assert_eq!((last.expired(end), taken(&window, 1, end)), (true, None));
}

#[test]
fn a_far_mark_is_come_to_by_several_windows() {
    const MOST: i64 = (1 << 47) - 1;
    let mut lease = lease(MAX_LEASE_MICROS, 65_536, Mark { sequence: 65_536, nanos: i64::MAX });
    let window = lease.open().unwrap();
    assert_eq!((taken(&window, MOST + 1, NOW), taken(&window, MOST, NOW)), (None, Some(0)));
    let window = lease.open().unwrap();
    assert_eq!(taken(&window, MOST, NOW), Some(1));
    assert_eq!(lease.used(), Mark { sequence: 2, nanos: 2 * MOST });
    assert_eq!(lease.take(Nanos::new(MOST + 1), NOW).unwrap().sequence, 2, "the lease itself has room for it");
}

proptest! {
    #[test]
    fn never_spends_above_its_mark_or_amount(
        amount in 1..1_000_i64, slots in 1..50_u32, prices in prop::collection::vec(0..300_000_i64, 1..200),
    ) {
        let mut lease = lease(amount, slots, Mark::default());
        let mut sum = 0_i128;
        let mut taken = 0;
        for price in prices {
            let price = Nanos::new(price);
            if lease.take(price, NOW) == Err(Refused::NeedsMark) {
                let next = lease.next_mark(price);
                lease.marked(next);
                let slot = lease.take(price, NOW);
                prop_assert!(slot.is_ok(), "the next mark has room");
            } else if lease.used().sequence == taken {
                continue;
            }
            sum += price.wide();
            taken += 1;
            prop_assert_eq!(lease.used().sequence, taken);
            prop_assert!(sum <= i128::from(lease.grant().mark.nanos) && sum <= lease.grant().amount.nanos());
            prop_assert!(taken <= lease.grant().mark.sequence && taken <= slots);
        }
    }

    /// Whatever is opened, shut, marked and renewed in between: slots without a gap, and never above the mark.
    #[test]
    fn windows_and_the_lease_hand_out_one_row_of_slots(
        slots in 1..40_u32, steps in prop::collection::vec((0..8_u8, 0..3_000_i64, 0..3_000_000_i64), 1..200),
    ) {
        let mut lease = lease(20, slots, Mark::default());
        let mut windows: Vec<Arc<Window>> = Vec::new();
        let (mut used, mut now, mut epoch) = (Mark::default(), NOW, 1);
        for (what, price, later) in steps {
            now = UnixMicros(now.0 + later);
            let price = Nanos::new(price);
            let slot = match what {
                0 => { windows.extend(lease.open()); None }
                1 => { lease.shut(); None }
                2 => { let next = lease.next_mark(price); lease.marked(next); None }
                3 => { epoch += 1; lease.renewed(epoch, now.plus(Duration::from_secs(60)), now); None }
                4 => lease.take(price, now).ok(),
                // Any window that ever was, the newest most often.
                older => windows.iter().rev().nth(usize::from(older - 5)).and_then(|window| window.take(price, now)),
            };
            if let Some(slot) = slot {
                prop_assert_eq!((slot.sequence, slot.epoch), (used.sequence, epoch));
                used = Mark { sequence: used.sequence + 1, nanos: used.nanos + price.get() };
                prop_assert!(used.sequence <= lease.grant().mark.sequence && used.nanos <= lease.grant().mark.nanos);
                prop_assert!(i128::from(used.nanos) <= lease.grant().amount.nanos() && !lease.expired(now));
            }
            prop_assert_eq!(lease.used(), used);
        }
    }
}
