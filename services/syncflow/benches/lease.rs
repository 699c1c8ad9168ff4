//! What a slot of a budget lease costs a bid: `cargo bench -p syncflow --bench lease`.
//!
//! Beside the window of atomics the locks that it replaced: a mutex around the lease, and tokio's, which a bid may hold across
//! a call.

#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kiki::clock::{UnixMicros, monotonic};
use kiki::money::{Micros, Nanos};
use parking_lot::Mutex;
use syncflow::domain::lease::{Grant, Lease, Mark, Slot};

/// Slots of one thread in one run, and runs, of which the fastest counts: others had company. A window has 131,071 slots.
const CALLS: u32 = 30_000;
const RUNS: usize = 61;
const NOW: UnixMicros = UnixMicros(1_000_000);

fn main() {
    for threads in [1, 4] {
        measure(&format!("mutex_ns_{threads}_threads"), threads, || {
            let lease = Mutex::new(lease());
            move || lease.lock().take(Nanos::new(1), NOW).ok()
        });
        measure(&format!("tokio_mutex_ns_{threads}_threads"), threads, || {
            let lease = Arc::new(tokio::sync::Mutex::new(lease()));
            move || loop {
                if let Ok(mut lease) = lease.clone().try_lock_owned() {
                    return lease.take(Nanos::new(1), NOW).ok();
                }
                std::hint::spin_loop();
            }
        });
        measure(&format!("window_ns_{threads}_threads"), threads, || {
            let mut lease = lease();
            let window = ArcSwapOption::new(lease.open());
            move || window.load().as_ref()?.take(Nanos::new(1), NOW)
        });
    }
}

/// A lease that lasts for a run.
fn lease() -> Lease {
    let (slots, nanos) = (131_071, 1_000_000_000);
    let grant = Grant {
        lease_id: 1,
        epoch: 1,
        amount: Micros::new(1_000_000),
        granted_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(60)),
        day_end: NOW.plus(Duration::from_secs(600)),
        slots,
        mark: Mark { sequence: slots, nanos },
    };
    Lease::new(grant, Duration::from_secs(1))
}

/// Nanoseconds of a slot, on each of so many threads at once.
fn measure<F: Fn() -> Option<Slot> + Sync>(name: &str, threads: u32, leased: impl Fn() -> F) {
    let run = |_| {
        let take = leased();
        let all = || (0..CALLS).filter(|_| black_box(take()).is_some()).count() as u32;
        let start = monotonic();
        let taken: u32 = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
        });
        assert_eq!(taken, threads * CALLS, "the lease ran out");
        (monotonic() - start).as_nanos() * 10 / u128::from(CALLS)
    };
    let fastest = (0..RUNS).map(run).min().unwrap_or_default();
    drop(writeln!(std::io::stdout(), "{name} {}.{}", fastest / 10, fastest % 10));
}
