//! What the circuit breaker costs a call while it is closed: `cargo bench -p syncflow --bench breaker`.
//!
//! Beside it, a mutex around a window of the last 100 outcomes, which it replaced.

#![allow(missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::Write as _;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kiki::clock::{UnixMicros, monotonic};
use parking_lot::Mutex;
use syncflow::domain::breaker::{Breaker, Permit, Refused, Settings, Window};

/// Calls of one thread in one run, and runs, of which the fastest counts: others had company.
const CALLS: i64 = 1_000_000;
const RUNS: usize = 7;
/// Calls of one microsecond: 4 million a second.
const CALLS_A_MICRO: i64 = 4;

fn main() {
    for threads in [1, 4] {
        let mutex = Arc::new(Mutex::new((VecDeque::new(), 0)));
        measure(&format!("mutex_count_100_ns_{threads}_threads"), threads, || {
            let mutex = mutex.clone();
            move |_| by_mutex(&mutex)
        });
        for (name, window) in [("count_100", Window::Calls(100)), ("time_10_s", Window::Time(Duration::from_secs(10)))] {
            let breaker = Arc::new(Breaker::new(Settings { window, ..Settings::default() }, 0, UnixMicros(0)));
            measure(&format!("{name}_ns_{threads}_threads"), threads, || {
                let breaker = breaker.clone();
                move |now| settle(breaker.admit(now), now)
            });
            measure(&format!("{name}_owned_ns_{threads}_threads"), threads, || {
                let breaker = breaker.clone();
                move |now| settle(breaker.admit_owned(now), now)
            });
        }
    }
}

/// Nanoseconds of a call, on each of so many threads at once.
fn measure<F: Fn(UnixMicros) + Send>(name: &str, threads: u32, calls: impl Fn() -> F) {
    let run = |_| {
        let start = monotonic();
        thread::scope(|scope| {
            for _ in 0..threads {
                let call = calls();
                scope.spawn(move || (0..CALLS).for_each(|n| call(black_box(UnixMicros(n / CALLS_A_MICRO)))));
            }
        });
        (monotonic() - start).as_nanos() * 10 / CALLS as u128
    };
    let fastest = (0..RUNS).map(run).min().unwrap_or_default();
    drop(writeln!(std::io::stdout(), "{name} {}.{}", fastest / 10, fastest % 10));
}

fn settle<B: Deref<Target = Breaker>>(admitted: Result<Permit<B>, Refused>, now: UnixMicros) {
    if let Ok(permit) = admitted {
        permit.succeeded(now);
    }
}

/// What a closed breaker did before: two turns of the lock, and a reference for the permit.
fn by_mutex(breaker: &Arc<Mutex<(VecDeque<bool>, usize)>>) {
    let permit = breaker.clone();
    black_box(breaker.lock().1);
    let mut inner = permit.lock();
    inner.0.push_back(false);
    if inner.0.len() > 100 {
        let failed = inner.0.pop_front().unwrap_or(false);
        inner.1 -= usize::from(failed);
    }
}
