//! What a bid pays for its own safety: `cargo bench -p syncflow --bench resilience`. Nanoseconds each, the fastest of seven runs.

#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write as _;
use std::thread;

use kiki::clock::monotonic;
use kiki::money::Micros;
use syncflow::deadline::{Arrival, Deadline};
use syncflow::domain::fallback::Recent;
use syncflow::domain::limit::Limit;
use syncflow::metrics::Metrics;
use tokio::time::{Duration, Instant};

const CALLS: i64 = 1_000_000;
const RUNS: usize = 7;

fn main() {
    let metrics = Metrics::new(&kiki::runtime::Metrics::new());
    for threads in [1, 4] {
        let recent = Recent::default();
        measure("recent_prediction_noted", threads, |n| recent.note(Micros::new(n % 1_000), Some(Micros::new(n % 500))));
        measure("median_of_64_taken", threads, |_| _ = black_box(recent.median()));
        let deadline = Deadline::new(Arrival::at_once(Instant::now()), Duration::from_secs(1));
        measure("deadline_checked_by_the_clock", threads, |_| _ = black_box(deadline.too_late_to_bid(Instant::now())));
        let (limit, due) = (Limit::default(), Duration::from_millis(50));
        measure("place_taken_judged_and_left", threads, |n| {
            let _ = limit.enter(1); // one at a time on each thread: there is room
            limit.took(Duration::from_micros(200), due, Duration::from_micros(n as u64));
            limit.leave(1);
        });
        // As one bid does that is timed: three stages and the whole.
        measure("all_stages_timed", threads, |_| {
            let asked = Instant::now();
            metrics.stages.predict.observe(asked.elapsed().as_secs_f64());
            metrics.stages.guard.observe(asked.elapsed().as_secs_f64());
            metrics.stages.encoded(&deadline, Instant::now());
        });
    }
}

/// Nanoseconds of a call, on each of so many threads at once.
fn measure(name: &str, threads: u32, call: impl Fn(i64) + Sync) {
    let run = |_| {
        let start = monotonic();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..CALLS).for_each(|n| call(black_box(n))));
            }
        });
        (monotonic() - start).as_nanos() * 10 / CALLS as u128
    };
    let fastest = (0..RUNS).map(run).min().unwrap_or_default();
    drop(writeln!(std::io::stdout(), "{name}_{threads}_threads {}.{}", fastest / 10, fastest % 10));
}
