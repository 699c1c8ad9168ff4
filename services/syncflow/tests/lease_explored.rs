//! The lease's atomics under the ways in which two or three threads can meet, all of them: the cases are small.
//! `cargo test --release -p syncflow --test lease_explored`.
//!
//! Shuttle runs the threads one at a time and chooses who goes on at each access to an atomic or a lock; `check_dfs` tries
//! all choices. It takes accesses for sequentially consistent: what weaker orderings would allow is not explored. The money
//! and the slots are one word, complete in itself; the other word is read by nobody who hands out a slot.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod atomics {
    pub(crate) use shuttle::sync::atomic::{AtomicI64, AtomicU64, Ordering};
}

mod burn {
    pub(crate) use syncflow::domain::burn::Taken;
}

#[allow(dead_code, unreachable_pub, reason = "it is written to be a part of the service")]
#[path = "../src/domain/lease.rs"]
mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::money::{Micros, Nanos};
use lease::{Grant, Lease, Mark, Refused, Slot, Window};
use shuttle::sync::Mutex;
use shuttle::thread;

const NOW: UnixMicros = UnixMicros(1_000_000_000);

/// A lease of 100 micros with that mark.
fn leased(sequence: u32, nanos: i64) -> Lease {
    let (expires_at, day_end) = (NOW.plus(Duration::from_secs(60)), NOW.plus(Duration::from_secs(3_600)));
    let mark = Mark { sequence, nanos };
    let grant = Grant { lease_id: 7, epoch: 1, amount: Micros::new(100), granted_at: NOW, expires_at, day_end, slots: 9, mark };
    Lease::new(grant, Duration::ZERO)
}

/// Tries every schedule of the case, and says how many there were.
fn explore(name: &str, case: impl Fn() + Send + Sync + 'static) {
    let schedules = Arc::new(AtomicU64::new(0));
    let counted = schedules.clone();
    shuttle::check_dfs(
        move || {
            counted.fetch_add(1, Ordering::Relaxed);
            case();
        },
        None,
    );
    let schedules = schedules.load(Ordering::Relaxed);
    println!("{name}: {schedules} schedules");
    assert!(schedules > 10, "{name} has no more than {schedules} schedules");
}

/// Each thread takes slots at its prices; what all of them got, with the price of each.
fn taken_at_once(window: &Arc<Window>, prices: &'static [&'static [i64]]) -> Vec<thread::JoinHandle<Vec<(Slot, i64)>>> {
    let take = |prices: &'static [i64]| {
        let window = window.clone();
        let take = move |price: &i64| window.take(Nanos::new(*price), NOW).map(|slot| (slot, *price));
        thread::spawn(move || prices.iter().filter_map(take).collect())
    };
    prices.iter().map(|prices| take(prices)).collect()
}

fn all(threads: Vec<thread::JoinHandle<Vec<(Slot, i64)>>>) -> Vec<(Slot, i64)> {
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

/// The slots are 0, 1, 2 and so on, each once; their prices add up to what the lease says was used.
fn in_one_row(taken: &mut [(Slot, i64)], used: Mark) {
    taken.sort_by_key(|(slot, _)| slot.sequence);
    let sequences: Vec<u32> = taken.iter().map(|(slot, _)| slot.sequence).collect();
    assert_eq!(sequences, (0..used.sequence).collect::<Vec<_>>());
    assert_eq!(taken.iter().map(|(_, price)| price).sum::<i64>(), used.nanos);
}

#[test]
fn slots_are_given_once_and_never_above_the_mark() {
    explore("three slots, two threads that want four", || {
        let mut lease = leased(3, 1_000);
        let mut taken = all(taken_at_once(&lease.open().unwrap(), &[&[10, 10], &[10, 10]]));
        assert_eq!(taken.len(), 3);
        in_one_row(&mut taken, lease.used());
    });
    explore("money for two of three", || {
        let mut lease = leased(9, 25);
        let mut taken = all(taken_at_once(&lease.open().unwrap(), &[&[10], &[10], &[10]]));
        assert_eq!(taken.len(), 2);
        in_one_row(&mut taken, lease.used());
    });
    explore("a large bid and small ones", || {
        let mut lease = leased(9, 25);
        let mut taken = all(taken_at_once(&lease.open().unwrap(), &[&[20], &[10, 5]]));
        in_one_row(&mut taken, lease.used());
        assert!(lease.used().nanos >= 15 && lease.used().nanos <= 25, "{:?}", lease.used());
    });
}

#[test]
fn who_shuts_it_knows_what_was_taken() {
    explore("two takers and a return", || {
        let mut lease = leased(9, 1_000);
        let window = lease.open().unwrap();
        let threads = taken_at_once(&window, &[&[10, 20], &[40]]);
        lease.shut();
        let returned = lease.used(); // what a return would say
        let mut taken = all(threads);
        in_one_row(&mut taken, returned);
        assert!(window.take(Nanos::ZERO, NOW).is_none(), "a slot after the return");
        assert_eq!(lease.used(), returned);
    });
}

/// As bids do: by the window, and where that has no room by the lease under its lock, which moves the mark and opens another.
#[test]
fn a_mark_that_moves_beside_bids_leaves_one_row_of_slots() {
    struct Account {
        window: Mutex<Option<Arc<Window>>>,
        lease: Mutex<Lease>,
    }
    fn bid(account: &Account, price: i64) -> Slot {
        let price = Nanos::new(price);
        let by_window = || account.window.lock().unwrap().clone().and_then(|window| window.take(price, NOW));
        if let Some(slot) = by_window() {
            return slot;
        }
        let mut lease = account.lease.lock().unwrap();
        if let Some(slot) = by_window() {
            return slot;
        }
        let slot = lease.take(price, NOW).unwrap_or_else(|refused| {
            assert_eq!(refused, Refused::NeedsMark);
            let Mark { sequence, nanos } = lease.grant().mark;
            lease.marked(Mark { sequence: sequence + 1, nanos: nanos + price.get() });
            lease.take(price, NOW).unwrap()
        });
        *account.window.lock().unwrap() = lease.open();
        slot
    }
    explore("two bidders, room for one below the mark", || {
        let mut lease = leased(1, 10);
        let window = Mutex::new(lease.open());
        let account = Arc::new(Account { window, lease: Mutex::new(lease) });
        let bidders = [10, 30].map(|price| {
            let account = account.clone();
            thread::spawn(move || (bid(&account, price), price))
        });
        let mut taken: Vec<_> = bidders.into_iter().map(|bidder| bidder.join().unwrap()).collect();
        let lease = account.lease.lock().unwrap();
        in_one_row(&mut taken, lease.used());
        let mark = lease.grant().mark;
        assert!(lease.used().sequence <= mark.sequence && lease.used().nanos <= mark.nanos);
    });
}
