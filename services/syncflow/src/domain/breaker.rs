//! A circuit breaker: calls pass while the other side answers, are refused while it does not, and a few
//! probes find out when it answers again.
//!
//! - Closed: every call passes; the last [`Settings::window`] outcomes are counted. At
//!   [`Settings::min_calls`] or more, a share of failures of [`Settings::failure_ppm`] or more opens it.
//! - Open: calls are refused until the pause is over. Each reopening doubles the pause, up to a limit.
//! - Half-open: at most [`Settings::probes`] calls are under way at once. That many successes close it; one failure reopens it.
//!
//! Invariants: it can never stick. A probe that is dropped gives its place back; one that neither reports nor is
//! dropped within [`Settings::probe_timeout`] counts as a failure. An outcome of before a change of state is ignored.
//!
//! Time is an argument, and may stand still. Deliberately not here: timeouts of the calls, and retries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use parking_lot::Mutex;

/// How a breaker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Outcomes that are remembered while closed. One byte each: 100 are 100 bytes a breaker.
    pub window: usize,
    /// Outcomes below which it stays closed whatever they are.
    pub min_calls: usize,
    /// The share of failures, in parts per million, that opens it.
    pub failure_ppm: u32,
    /// The first pause.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Calls under way at once while half-open, and successes that close it.
    pub probes: usize,
    /// How long a probe may take before it counts as failed.
    pub probe_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 100,
            min_calls: 20,
            failure_ppm: 500_000,
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
            probes: 3,
            probe_timeout: Duration::from_secs(5),
        }
    }
}

/// What a breaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// Probes pass.
    HalfOpen,
}

impl State {
    /// All of them, in the order of their names' meaning.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The call may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker is {}", state.as_str())]
pub struct Refused {
    /// Open, or half-open with all its probes under way.
    pub state: State,
}

#[derive(Debug)]
enum Phase {
    Closed { failed: VecDeque<bool>, failures: usize },
    Open { until: UnixMicros },
    HalfOpen { under_way: Vec<(u64, UnixMicros)>, successes: usize },
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Raised by each change of state, so that an older call's outcome is known for what it is.
    generation: u64,
    next_call: u64,
    /// Openings since it was last closed.
    openings: u32,
    changes: u64,
}

/// A circuit breaker; a clone is the same breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: Settings,
    inner: Arc<Mutex<Inner>>,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let inner = Inner { phase: closed(), generation: 0, next_call: 0, openings: 0, changes: 0 };
        Self { settings, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// [`Refused`] while it is open, and while it is half-open with all its probes under way.
    pub fn admit(&self, now: UnixMicros) -> Result<Permit, Refused> {
        let mut inner = self.inner.lock();
        self.turn(&mut inner, now);
        let call = inner.next_call;
        match &mut inner.phase {
            Phase::Closed { .. } => {}
            Phase::Open { .. } => return Err(Refused { state: State::Open }),
            Phase::HalfOpen { under_way, .. } if under_way.len() >= self.settings.probes => {
                return Err(Refused { state: State::HalfOpen });
            }
            Phase::HalfOpen { under_way, .. } => under_way.push((call, now.plus(self.settings.probe_timeout))),
        }
        inner.next_call += 1;
        Ok(Permit { breaker: self.clone(), generation: inner.generation, call, done: false })
    }

    /// What it is doing at `now`.
    #[must_use]
    pub fn state(&self, now: UnixMicros) -> State {
        let mut inner = self.inner.lock();
        self.turn(&mut inner, now);
        match inner.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// How often its state has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.inner.lock().changes
    }

    /// What time alone changes: a pause that is over, a probe that is overdue.
    fn turn(&self, inner: &mut Inner, now: UnixMicros) {
        if let Phase::HalfOpen { under_way, .. } = &inner.phase
            && under_way.iter().any(|(_, due)| *due <= now)
        {
            self.open(inner, now);
        }
        if matches!(inner.phase, Phase::Open { until } if until <= now) {
            change(inner, Phase::HalfOpen { under_way: Vec::with_capacity(self.settings.probes), successes: 0 });
        }
    }

    fn open(&self, inner: &mut Inner, now: UnixMicros) {
        // 2^16 times the first pause is above any limit that makes sense; the shift cannot overflow.
        let pause = self.settings.pause.saturating_mul(1 << inner.openings.min(16)).min(self.settings.pause_max);
        inner.openings = inner.openings.saturating_add(1);
        change(inner, Phase::Open { until: now.plus(pause) });
    }

    fn report(&self, permit: &Permit, outcome: Outcome, now: UnixMicros) {
        let mut inner = self.inner.lock();
        if inner.generation != permit.generation {
            return;
        }
        let settings = self.settings;
        let mut opens = false;
        let mut closes = false;
        match &mut inner.phase {
            Phase::Closed { failed, failures } => {
                if outcome == Outcome::None {
                    return;
                }
                failed.push_back(outcome == Outcome::Failure);
                *failures += usize::from(outcome == Outcome::Failure);
                if failed.len() > settings.window {
                    *failures -= usize::from(failed.pop_front().unwrap_or(false));
                }
                let share = *failures as u64 * 1_000_000 >= failed.len() as u64 * u64::from(settings.failure_ppm);
                // A success never opens it, though with it the least number of calls may be reached.
                opens = outcome == Outcome::Failure && failed.len() >= settings.min_calls && share;
            }
            Phase::HalfOpen { under_way, successes } => {
                under_way.retain(|(call, _)| *call != permit.call);
                *successes += usize::from(outcome == Outcome::Success);
                opens = outcome == Outcome::Failure;
                closes = *successes >= settings.probes;
            }
            Phase::Open { .. } => {} // no permit is of an open generation
        }
        if opens {
            self.open(&mut inner, now);
        } else if closes {
            inner.openings = 0;
            change(&mut inner, closed());
        }
    }
}

fn closed() -> Phase {
    Phase::Closed { failed: VecDeque::new(), failures: 0 }
}

fn change(inner: &mut Inner, phase: Phase) {
    inner.phase = phase;
    inner.generation += 1;
    inner.changes += 1;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    None,
}

/// Leave to make one call. Dropped without an outcome (the caller lost interest) it counts for nothing.
#[derive(Debug)]
pub struct Permit {
    breaker: Breaker,
    generation: u64,
    call: u64,
    done: bool,
}

impl Permit {
    /// The other side answered.
    pub fn succeeded(mut self, now: UnixMicros) {
        self.done = true;
        self.breaker.report(&self, Outcome::Success, now);
    }

    /// It failed, or was too late.
    pub fn failed(mut self, now: UnixMicros) {
        self.done = true;
        self.breaker.report(&self, Outcome::Failure, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.done {
            self.breaker.report(self, Outcome::None, UnixMicros::default());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const SETTINGS: Settings = Settings {
        window: 10,
        min_calls: 4,
        failure_ppm: 500_000,
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(3),
        probes: 2,
        probe_timeout: Duration::from_secs(5),
    };

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros(seconds * 1_000_000)
    }

    fn opened(now: UnixMicros) -> Breaker {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..4 {
            breaker.admit(now).unwrap().failed(now);
        }
        assert_eq!(breaker.state(now), State::Open);
        breaker
    }

    #[test]
    fn stays_closed_below_the_least_calls_and_the_share() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            breaker.admit(at(0)).unwrap().failed(at(0));
        }
        assert_eq!(breaker.state(at(0)), State::Closed);
        let breaker = Breaker::new(SETTINGS);
        for call in 0..100 {
            let permit = breaker.admit(at(0)).unwrap();
            if call % 10 < 4 && call % 2 == 0 { permit.failed(at(0)) } else { permit.succeeded(at(0)) }
        }
        assert_eq!((breaker.state(at(0)), breaker.changes()), (State::Closed, 0));
    }

    #[test]
    fn only_the_window_counts() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..50 {
            breaker.admit(at(0)).unwrap().succeeded(at(0));
        }
        for _ in 0..5 {
            breaker.admit(at(0)).unwrap().failed(at(0));
        }
        assert_eq!(breaker.state(at(0)), State::Open);
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
        assert_eq!(breaker.state(at(6)), State::Open);
        lost.succeeded(at(6)); // too late: of another generation
        assert_eq!(breaker.state(at(6)), State::Open);
        assert_eq!(breaker.state(at(8)), State::HalfOpen);
    }

    #[test]
    fn an_outcome_of_before_it_opened_changes_nothing() {
        let breaker = Breaker::new(SETTINGS);
        let old = breaker.admit(at(0)).unwrap();
        for _ in 0..4 {
            breaker.admit(at(0)).unwrap().failed(at(0));
        }
        assert_eq!(breaker.state(at(1)), State::HalfOpen);
        old.failed(at(1));
        assert_eq!(breaker.state(at(1)), State::HalfOpen);
    }

    proptest! {
        /// Whatever happened, a healthy other side gets its calls back.
        #[test]
        fn never_sticks(steps in prop::collection::vec((0..4_u8, 0..3_i64), 0..200)) {
            let breaker = Breaker::new(SETTINGS);
            let mut now = 0;
            let mut held = Vec::new();
            for (step, passes) in steps {
                now += passes;
                match (step, breaker.admit(at(now))) {
                    (_, Err(_)) => {}
                    (0, Ok(permit)) => permit.succeeded(at(now)),
                    (1, Ok(permit)) => permit.failed(at(now)),
                    (2, Ok(permit)) => held.push(permit),
                    (_, Ok(permit)) => drop(permit),
                }
                prop_assert!(held.len() < 200);
            }
            // A lost probe costs its timeout and one longest pause; then two probes succeed.
            now += 9;
            let _ = breaker.state(at(now));
            now += 9;
            for _ in 0..2 {
                if let Ok(permit) = breaker.admit(at(now)) { permit.succeeded(at(now)); }
            }
            prop_assert_eq!(breaker.state(at(now)), State::Closed);
        }
    }
}
