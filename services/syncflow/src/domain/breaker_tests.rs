//! The breaker on one thread: by example, and against a plain model of it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kiki::clock::UnixMicros;
use proptest::prelude::*;

use super::breaker::{Breaker, Permit, Settings, State, Window};

const SETTINGS: Settings = Settings {
    window: Window::Calls(10),
    min_calls: 4,
    failure_ppm: 500_000,
    slow: Duration::from_secs(4),
    slow_ppm: 500_000,
    pause: Duration::from_secs(1),
    pause_max: Duration::from_secs(3),
    jitter_ppm: 0,
    probes: 2,
    probe_timeout: Duration::from_secs(5),
};

fn at(seconds: i64) -> UnixMicros {
    UnixMicros(seconds * 1_000_000)
}

fn closed(settings: Settings) -> Breaker {
    Breaker::new(settings, 7, at(0))
}

fn opened(now: UnixMicros) -> Breaker {
    let breaker = closed(SETTINGS);
    for _ in 0..4 {
        breaker.admit(now).unwrap().failed(now);
    }
    assert_eq!((breaker.state(now), breaker.why(now)), (State::Open, "too many calls failed"));
    breaker
}

#[test]
fn stays_closed_below_the_least_calls_and_the_share() {
    let breaker = closed(SETTINGS);
    for _ in 0..3 {
        breaker.admit(at(0)).unwrap().failed(at(0));
    }
    assert_eq!(breaker.state(at(0)), State::Closed);
    let breaker = closed(SETTINGS);
    for call in 0..100 {
        let permit = breaker.admit(at(0)).unwrap();
        if call % 10 < 4 && call % 2 == 0 { permit.failed(at(0)) } else { permit.succeeded(at(0)) }
    }
    assert_eq!((breaker.state(at(0)), breaker.changes()), (State::Closed, 0));
}

#[test]
fn only_the_window_counts() {
    let breaker = closed(SETTINGS);
    for _ in 0..50 {
        breaker.admit(at(0)).unwrap().succeeded(at(0));
    }
    for _ in 0..4 {
        breaker.admit(at(0)).unwrap().failed(at(0));
    }
    assert_eq!(breaker.state(at(0)), State::Closed);
    breaker.admit(at(0)).unwrap().failed(at(0));
    assert_eq!(breaker.state(at(0)), State::Open);
    let breaker = closed(Settings { window: Window::Time(Duration::from_secs(10)), ..SETTINGS });
    for second in 0..12 {
        breaker.admit(at(second)).unwrap().succeeded(at(second));
    }
    // Of the seconds 11 to 20 one success counts: with it the third failure makes the four that are the least.
    for _ in 0..3 {
        assert_eq!(breaker.state(at(20)), State::Closed);
        breaker.admit(at(20)).unwrap().failed(at(20));
    }
    assert_eq!(breaker.state(at(20)), State::Open);
}

#[test]
fn a_full_bucket_keeps_its_shares_and_sees_the_turn() {
    let breaker = closed(Settings { window: Window::Time(Duration::from_secs(10)), ..SETTINGS });
    for _ in 0..100_000 {
        breaker.admit(at(0)).unwrap().succeeded(at(0));
    }
    let failures = (0..100_000).take_while(|_| breaker.admit(at(0)).map(|permit| permit.failed(at(0))).is_ok()).count();
    assert!((4_000..=8_192).contains(&failures), "opened after {failures}");
}

#[test]
fn calls_that_are_slow_open_it() {
    let breaker = closed(SETTINGS);
    for _ in 0..4 {
        breaker.admit(at(0)).unwrap().succeeded(at(3));
    }
    assert_eq!(breaker.state(at(3)), State::Closed);
    for _ in 0..4 {
        breaker.admit(at(0)).unwrap().succeeded(at(4));
    }
    assert_eq!((breaker.state(at(4)), breaker.why(at(4))), (State::Open, "too many calls were slow"));
    breaker.admit(at(5)).unwrap().succeeded(at(9));
    assert_eq!((breaker.state(at(9)), breaker.why(at(9))), (State::Open, "a probe failed or was slow"));
}

#[test]
fn refuses_while_open_then_lets_a_bounded_number_of_probes_through() {
    let breaker = opened(at(0));
    assert_eq!(breaker.admit(at(0)).unwrap_err().state, State::Open);
    let (first, second) = (breaker.admit(at(1)).unwrap(), breaker.admit(at(1)).unwrap());
    assert_eq!(breaker.admit(at(1)).unwrap_err().state, State::HalfOpen);
    first.succeeded(at(1));
    assert_eq!(breaker.state(at(1)), State::HalfOpen);
    second.succeeded(at(1));
    assert_eq!(breaker.state(at(1)), State::Closed);
}

#[test]
fn a_failed_probe_doubles_the_pause_up_to_its_limit() {
    let breaker = opened(at(0));
    let mut now = 1;
    for pause in [2, 3, 3] {
        breaker.admit(at(now)).unwrap().failed(at(now));
        assert_eq!(breaker.state(at(now + pause - 1)), State::Open);
        now += pause;
        assert_eq!(breaker.state(at(now)), State::HalfOpen);
    }
}

#[test]
fn pauses_are_shortened_by_the_jitter_of_the_seed() {
    let pause = |seed| {
        let breaker = Breaker::new(Settings { jitter_ppm: 200_000, ..SETTINGS }, seed, at(0));
        breaker.trip(at(0));
        (0..).find(|ms| breaker.state(UnixMicros(ms * 1_000)) == State::HalfOpen).unwrap()
    };
    let pauses: Vec<i64> = (0..20).map(pause).collect();
    assert!(pauses.iter().all(|ms| (800..=1_000).contains(ms)), "{pauses:?}");
    assert!(pauses.iter().collect::<std::collections::HashSet<_>>().len() > 10, "{pauses:?}");
    assert_eq!(pause(3), pauses[3]);
}

#[test]
fn a_dropped_probe_gives_its_place_back() {
    let breaker = opened(at(0));
    for _ in 0..10 {
        drop((breaker.admit(at(1)).unwrap(), breaker.admit(at(1)).unwrap()));
    }
    assert_eq!(breaker.state(at(1)), State::HalfOpen);
}

#[test]
fn a_probe_that_never_reports_counts_as_failed() {
    let breaker = opened(at(0));
    let lost = breaker.admit(at(1)).unwrap();
    assert_eq!(breaker.state(at(5)), State::HalfOpen);
    assert_eq!((breaker.state(at(6)), breaker.why(at(6))), (State::Open, "a probe did not report in time"));
    lost.succeeded(at(6)); // too late: of another generation
    assert_eq!(breaker.state(at(6)), State::Open);
    assert_eq!(breaker.state(at(8)), State::HalfOpen);
}

#[test]
fn an_outcome_of_before_it_opened_changes_nothing() {
    let breaker = closed(SETTINGS);
    let old = breaker.admit(at(0)).unwrap();
    for _ in 0..4 {
        breaker.admit(at(0)).unwrap().failed(at(0));
    }
    assert_eq!(breaker.state(at(1)), State::HalfOpen);
    old.failed(at(1));
    assert_eq!(breaker.state(at(1)), State::HalfOpen);
}

#[test]
fn a_force_holds_until_its_end_or_its_release() {
    let breaker = closed(SETTINGS);
    breaker.force(true, at(10), at(0));
    assert_eq!(breaker.admit(at(9)).unwrap_err().state, State::ForcedOpen);
    assert!(!breaker.trip(at(9)), "it is open already");
    assert_eq!(breaker.state(at(10)), State::HalfOpen);
    breaker.force(false, at(20), at(10));
    for _ in 0..100 {
        breaker.admit(at(11)).unwrap().failed(at(11));
    }
    assert_eq!(breaker.state(at(19)), State::ForcedClosed);
    assert!(breaker.release(at(19)) && !breaker.release(at(19)));
    assert_eq!(breaker.state(at(19)), State::Closed);
    breaker.force(true, at(30), at(20));
    assert!(breaker.release(at(21)));
    assert_eq!(breaker.state(at(21)), State::HalfOpen);
}

#[test]
fn tells_how_long_it_was_in_each_state() {
    let breaker = opened(at(4)); // closed for 4 s, open for 1, half-open for 2
    assert_eq!(breaker.state(at(5)), State::HalfOpen);
    let spent = breaker.times(at(7)).map(|time| time.as_secs());
    assert_eq!((spent, breaker.changes()), ([4, 1, 2, 0, 0], 2));
}

/// What a breaker is, written for reading: lists and loops.
struct Model {
    settings: Settings,
    now: i64,
    state: State,
    due: i64,
    openings: u32,
    generation: u32,
    under_way: u8,
    succeeded: u8,
    /// Bucket, failed, slow.
    calls: Vec<(i64, bool, bool)>,
    counted: i64,
}

impl Model {
    fn enter(&mut self, state: State, due: i64) {
        (self.state, self.due, self.under_way, self.succeeded) = (state, due, 0, 0);
        self.generation += 1;
        self.calls.clear();
        if state == State::Closed {
            self.openings = 0;
        }
    }

    fn open(&mut self) {
        let pause = (self.settings.pause * 2_u32.pow(self.openings)).min(self.settings.pause_max);
        self.openings = (self.openings + 1).min(15);
        self.enter(State::Open, self.now + pause.as_secs() as i64);
    }

    fn turn(&mut self) {
        if self.state == State::HalfOpen && self.under_way > 0 && self.due <= self.now {
            self.open();
        } else if matches!(self.state, State::Open | State::ForcedOpen) && self.due <= self.now {
            self.enter(State::HalfOpen, 0);
        } else if self.state == State::ForcedClosed && self.due <= self.now {
            self.enter(State::Closed, 0);
        }
    }

    fn admit(&mut self) -> Option<(u32, i64)> {
        let passes = match self.state {
            State::Closed | State::ForcedClosed => true,
            State::Open | State::ForcedOpen => false,
            State::HalfOpen => self.under_way + self.succeeded < self.settings.probes,
        };
        if passes && self.state == State::HalfOpen {
            if self.under_way == 0 {
                self.due = self.now + self.settings.probe_timeout.as_secs() as i64;
            }
            self.under_way += 1;
        }
        passes.then_some((self.generation, self.now))
    }

    /// `failed` is none for a call that was dropped.
    fn report(&mut self, (generation, since): (u32, i64), failed: Option<bool>) {
        if generation != self.generation {
            return;
        }
        let slow = self.now - since >= self.settings.slow.as_secs() as i64;
        match (self.state, failed) {
            (State::Closed, Some(failed)) => self.count(failed, slow),
            (State::HalfOpen, None) => self.under_way -= 1,
            (State::HalfOpen, Some(failed)) if failed || slow => self.open(),
            (State::HalfOpen, _) => {
                self.under_way -= 1;
                self.succeeded += 1;
                if self.succeeded == self.settings.probes {
                    self.enter(State::Closed, 0);
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, failed: bool, slow: bool) {
        let bucket = match self.settings.window {
            Window::Calls(calls) => self.counted / i64::from(calls / 10),
            Window::Time(time) => self.now / (time.as_secs() as i64 / 10),
        };
        self.counted += 1;
        self.calls.push((bucket, failed, slow));
        self.calls.retain(|(of, ..)| *of > bucket - 10);
        let reaches = |count: usize, ppm: u32| {
            self.calls.len() >= self.settings.min_calls as usize && count * 1_000_000 >= self.calls.len() * ppm as usize
        };
        let failures = self.calls.iter().filter(|(_, failed, _)| *failed).count();
        let slows = self.calls.iter().filter(|(.., slow)| *slow).count();
        if (failed && reaches(failures, self.settings.failure_ppm)) || (slow && reaches(slows, self.settings.slow_ppm)) {
            self.open();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    Admit,
    /// Of the call under way at this place: it succeeded, failed or was dropped.
    Report(prop::sample::Index, Option<bool>),
    Force(bool, i64),
    Release,
    Trip,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let report = (any::<prop::sample::Index>(), any::<Option<bool>>());
    let step = prop_oneof![
        2 => (1..4_i64).prop_map(Step::Wait),
        8 => Just(Step::Admit),
        8 => report.prop_map(|(place, outcome)| Step::Report(place, outcome)),
        1 => any::<(bool, u8)>().prop_map(|(open, seconds)| Step::Force(open, i64::from(seconds % 8) + 1)),
        1 => Just(Step::Release),
        1 => Just(Step::Trip),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// On one thread it does what the model does, and at the end a healthy other side gets its calls back.
    #[test]
    fn does_what_the_model_does_and_never_sticks(steps in steps(), by_time in any::<bool>()) {
        let window = if by_time { Window::Time(Duration::from_secs(20)) } else { Window::Calls(20) };
        let settings = Settings { window, ..SETTINGS };
        let breaker = closed(settings);
        let mut model = Model {
            settings, now: 0, state: State::Closed, due: 0, openings: 0, generation: 0, under_way: 0, succeeded: 0, calls: vec![], counted: 0,
        };
        let mut held: Vec<(Permit<&Breaker>, (u32, i64))> = Vec::new();
        for step in steps {
            let now = at(model.now);
            match step {
                Step::Wait(seconds) => model.now += seconds,
                Step::Admit => {
                    let (permit, ticket) = (breaker.admit(now), model.admit());
                    prop_assert_eq!(permit.is_ok(), ticket.is_some());
                    held.extend(permit.ok().zip(ticket));
                }
                Step::Report(place, outcome) if !held.is_empty() => {
                    let (permit, ticket) = held.swap_remove(place.index(held.len()));
                    match outcome {
                        None => drop(permit),
                        Some(true) => permit.failed(now),
                        Some(false) => permit.succeeded(now),
                    }
                    model.report(ticket, outcome);
                }
                Step::Report(..) => {}
                Step::Force(open, seconds) => {
                    breaker.force(open, at(model.now + seconds), now);
                    model.enter(if open { State::ForcedOpen } else { State::ForcedClosed }, model.now + seconds);
                }
                Step::Release => match model.state {
                    State::ForcedOpen => { prop_assert!(breaker.release(now)); model.enter(State::HalfOpen, 0) }
                    State::ForcedClosed => { prop_assert!(breaker.release(now)); model.enter(State::Closed, 0) }
                    _ => prop_assert!(!breaker.release(now)),
                },
                Step::Trip => {
                    let trips = matches!(model.state, State::Closed | State::HalfOpen);
                    prop_assert_eq!(breaker.trip(now), trips);
                    if trips { model.open() }
                }
            }
            model.turn();
            prop_assert_eq!((breaker.state(at(model.now)), breaker.changes()), (model.state, u64::from(model.generation)));
        }
        // A force ends within 8 s; lost probes cost their time-out and one longest pause; then two probes succeed.
        for now in [model.now + 8, model.now + 16, model.now + 24] {
            for _ in 0..2 {
                if let Ok(permit) = breaker.admit(at(now)) { permit.succeeded(at(now)) }
            }
        }
        prop_assert_eq!(breaker.state(at(model.now + 24)), State::Closed);
    }
}
