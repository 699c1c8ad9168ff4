//! The breaker's atomics under the ways in which two or three threads can meet. All of them, 6.4 million, in a minute:
//! `KIKI_EXPLORE=1 cargo test --release -p syncflow --test breaker_explored`; without that, some of each case.
//!
//! Shuttle runs the threads one at a time and chooses who goes on at each access to an atomic; `DfsScheduler` tries the
//! choices in order. It takes accesses for sequentially consistent: what weaker orderings would allow is not explored, and does not
//! matter here, because each word is complete in itself and none is read to learn of another.

#![allow(missing_docs, clippy::unwrap_used)]

mod atomics {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};

    /// Two outcomes meet in one bucket or in two. Each bucket more is a step more of every failure, at which nobody meets anybody.
    pub(crate) const BUCKETS: u64 = 2;
}

#[allow(dead_code, unreachable_pub, unused_imports, reason = "it is written to be a part of the service")]
#[path = "../src/domain/breaker.rs"]
mod breaker;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use breaker::{Breaker, Permit, Settings, State, Window};
use kiki::clock::UnixMicros;
use shuttle::scheduler::DfsScheduler;
use shuttle::{Config, Runner, thread};

const SETTINGS: Settings = Settings {
    window: Window::Calls(10),
    min_calls: 2,
    failure_ppm: 500_000,
    slow: Duration::from_secs(60),
    slow_ppm: 1_000_000,
    pause: Duration::from_secs(1),
    pause_max: Duration::from_secs(1),
    jitter_ppm: 0,
    probes: 1,
    probe_timeout: Duration::from_secs(5),
};
/// Schedules of a case, unless all are asked for: in order, and by chance with at most three forced changes of thread.
const IN_ORDER: usize = 50_000;
const BY_CHANCE: usize = 5_000;

type Shared = Arc<Breaker>;
type Probe = Permit<Shared>;

/// Tries all schedules of the case where `KIKI_EXPLORE` is set; else some.
fn explore(case: impl Fn() + Send + Sync + Copy + 'static) {
    let limit = std::env::var_os("KIKI_EXPLORE").is_none().then_some(IN_ORDER);
    let tried = Runner::new(DfsScheduler::new(limit, false), Config::default()).run(case);
    drop(writeln!(std::io::stdout(), "{}: {tried} schedules", std::thread::current().name().unwrap_or_default()));
    if limit.is_some() {
        shuttle::check_pct(case, BY_CHANCE, 3);
    }
}

fn at(seconds: i64) -> UnixMicros {
    UnixMicros(seconds * 1_000_000)
}

/// Open since 0; half-open from 1 on.
fn opened(probes: u8) -> Shared {
    let breaker = Breaker::new(Settings { probes, ..SETTINGS }, 0, at(0));
    for _ in 0..2 {
        breaker.admit(at(0)).unwrap().failed(at(0));
    }
    assert_eq!(breaker.state(at(0)), State::Open);
    Shared::new(breaker)
}

/// Runs the bodies at once, each on a thread of its own, and waits for all.
fn at_once(breaker: &Shared, bodies: &[fn(&Breaker)]) {
    let threads: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (breaker, body) = (breaker.clone(), *body);
            thread::spawn(move || body(&breaker))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn fails(breaker: &Breaker, now: UnixMicros) {
    if let Ok(permit) = breaker.admit(now) {
        permit.failed(now);
    }
}

/// Whatever happened, an answering other side closes it again.
fn recovers(breaker: &Breaker) {
    let mut now = 100;
    while breaker.state(at(now)) != State::Closed {
        if let Ok(permit) = breaker.admit(at(now)) {
            permit.succeeded(at(now));
        }
        now += 10;
        assert!(now < 200, "it sticks: {:?}", breaker.state(at(now)));
    }
}

/// The permits that are left when each of these has gone through `body` on a thread of its own, the last one on this one: a thread
/// less is a third of the schedules or less.
fn each_at_once(permits: Vec<Option<Probe>>, body: impl Fn(Option<Probe>) -> Option<Probe> + Clone + Send + 'static) -> Vec<Probe> {
    let mut permits = permits.into_iter();
    let last = permits.next_back().unwrap();
    let threads: Vec<_> = permits
        .map(|permit| {
            let body = body.clone();
            thread::spawn(move || body(permit))
        })
        .collect();
    let last = body(last);
    threads.into_iter().map(|thread| thread.join().unwrap()).chain([last]).flatten().collect()
}

#[test]
fn half_open_admits_as_many_as_its_probes_and_no_more() {
    for probes in [1, 2] {
        let case = move || {
            let breaker = opened(probes);
            let asking = breaker.clone();
            let held = each_at_once((0..=probes).map(|_| None).collect(), move |_| asking.admit_owned(at(1)).ok());
            assert_eq!(held.len(), usize::from(probes), "one is too many, and one alone");
            drop(held);
            assert_eq!(breaker.state(at(1)), State::HalfOpen);
            recovers(&breaker);
        };
        explore(case);
    }
}

/// One probe under way and one who wants it; two, and a third. Who has one gives it back and asks again.
#[test]
fn a_place_that_is_given_back_is_given_once() {
    for probes in [1, 2] {
        let case = move || {
            let breaker = opened(probes);
            let asking = breaker.clone();
            // Counted outside the breaker's own words, and not by shuttle's atomics: nothing more to interleave.
            let held = Arc::new(AtomicU8::new(probes));
            let permits = (0..probes).map(|_| breaker.admit_owned(at(1)).ok()).chain([None]).collect();
            let permits = each_at_once(permits, move |permit| {
                if permit.is_some() {
                    held.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
                let another = asking.admit_owned(at(1)).ok();
                assert!(another.is_none() || held.fetch_add(1, Ordering::SeqCst) < probes, "too many probes");
                another
            });
            assert_eq!(permits.len(), usize::from(probes), "a place was lost");
            drop(permits);
            assert_eq!(breaker.state(at(1)), State::HalfOpen);
            recovers(&breaker);
        };
        explore(case);
    }
}

/// Who still finds it open when another has turned it, been a probe and given that back.
#[test]
fn a_pause_ends_once_and_who_comes_late_undoes_nothing() {
    for probes in [1, 2] {
        let case = move || {
            let breaker = opened(probes);
            let asking = breaker.clone();
            each_at_once(vec![None, None], move |_| {
                drop(asking.admit_owned(at(1)));
                None
            });
            assert_eq!((breaker.state(at(1)), breaker.changes()), (State::HalfOpen, 2));
            let held: Vec<_> = (0..=probes).map_while(|_| breaker.admit_owned(at(1)).ok()).collect();
            assert_eq!(held.len(), usize::from(probes), "the places are all free again");
            drop(held);
            recovers(&breaker);
        };
        explore(case);
    }
}

#[test]
fn it_never_sticks_whatever_becomes_of_the_probes() {
    let case = || {
        let breaker = opened(1);
        at_once(
            &breaker,
            &[
                |breaker| fails(breaker, at(1)),
                |breaker| _ = breaker.admit(at(1)).map(std::mem::forget), // never reports, is never dropped
            ],
        );
        recovers(&breaker);
    };
    explore(case);
}

#[test]
fn a_success_a_failure_and_a_time_out_at_once_leave_one_of_their_states() {
    let case = || {
        let breaker = opened(2);
        let (first, second) = (breaker.admit_owned(at(1)).unwrap(), breaker.admit_owned(at(1)).unwrap());
        let threads = [thread::spawn(move || first.succeeded(at(2))), thread::spawn(move || second.failed(at(2)))];
        let turning = breaker.clone();
        let late = thread::spawn(move || _ = turning.state(at(6)));
        threads.into_iter().chain([late]).for_each(|thread| thread.join().unwrap());
        // A failed probe or the time-out opens it, and only one of them: closed, open, half-open, open. Where it was the
        // probe, that pause may be over by the other's time.
        assert!(matches!((breaker.state(at(2)), breaker.changes()), (State::Open, 3) | (State::HalfOpen, 4)));
        recovers(&breaker);
    };
    explore(case);
}

#[test]
fn an_outcome_of_an_older_generation_is_ignored() {
    let case = || {
        let breaker = Shared::new(Breaker::new(SETTINGS, 0, at(0)));
        let old = breaker.admit_owned(at(0)).unwrap();
        for _ in 0..2 {
            breaker.admit(at(0)).unwrap().failed(at(0));
        }
        let reporting = thread::spawn(move || old.failed(at(1)));
        breaker.admit(at(1)).unwrap().succeeded(at(1));
        reporting.join().unwrap();
        assert_eq!(breaker.state(at(1)), State::Closed);
        // Had the old failure got into the new counts, this one would be the second, and open it.
        breaker.admit(at(1)).unwrap().failed(at(1));
        assert_eq!((breaker.state(at(1)), breaker.changes()), (State::Closed, 3));
    };
    explore(case);
}

#[test]
fn a_force_wins_over_whatever_happens_beside_it() {
    for open in [true, false] {
        let case = move || {
            let breaker = Shared::new(Breaker::new(SETTINGS, 0, at(0)));
            breaker.admit(at(0)).unwrap().failed(at(0));
            let (failing, forcing) = (breaker.clone(), breaker.clone());
            let threads = [thread::spawn(move || fails(&failing, at(0))), thread::spawn(move || forcing.force(open, at(50), at(0)))];
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let forced = if open { State::ForcedOpen } else { State::ForcedClosed };
            assert_eq!(breaker.state(at(49)), forced);
            assert!(!breaker.trip(at(49)), "a force stays");
            recovers(&breaker);
        };
        explore(case);
    }
}

#[test]
fn no_outcome_of_a_closed_breaker_is_lost() {
    // The two that meet are the third and the fourth call: of the second bucket both, or one of the first and one of the second.
    for calls in [4, 6] {
        let case = move || {
            let settings = Settings { window: Window::Calls(calls), min_calls: 4, failure_ppm: 1_000_000, ..SETTINGS };
            let breaker = Shared::new(Breaker::new(settings, 0, at(0)));
            let fail: fn(&Breaker) = |breaker| breaker.admit(at(0)).unwrap().failed(at(0));
            for _ in 0..2 {
                fail(&breaker);
            }
            at_once(&breaker, &[fail, fail]);
            assert_eq!((breaker.state(at(0)), breaker.changes()), (State::Open, 1));
        };
        explore(case);
    }
}
