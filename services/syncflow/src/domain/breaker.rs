//! A circuit breaker without a lock: calls pass while the other side answers in time, are refused while it does not, and a
//! few probes find out when it answers again.
//!
//! - Closed: every call passes; the outcomes of a [`Window`] are counted. At [`Settings::min_calls`] or more, a share of
//!   failures of [`Settings::failure_ppm`] or of slow calls of [`Settings::slow_ppm`] opens it.
//! - Open: calls are refused until the pause is over. Each reopening doubles the pause, up to a limit, less a jitter.
//! - Half-open: as many calls pass as successes are missing. [`Settings::probes`] of them close it; a failed or slow one
//!   reopens it.
//! - Forced open, forced closed: as an operator said, until then; whatever calls come to.
//!
//! Invariants: there is one state, in one atomic word, and a change is one compare-and-swap of it. It can never stick: a
//! probe that is dropped gives its place back, and where the first of probes that overlap has not reported within
//! [`Settings::probe_timeout`], it reopens. An outcome of before a change of state is ignored. `tests/breaker_explored.rs`
//! takes small cases through the ways in which threads can meet.
//!
//! After resilience4j's CircuitBreaker (windows, slow calls, forced states); the probes' cap and time-out are ours.
//! Time is an argument, and may stand still. Deliberately not here: timeouts of the calls, retries, names, who forced it.

// Written out, because the exploration includes this file from its own place.
#[path = "breaker/permit.rs"]
mod permit;
#[path = "breaker/window.rs"]
mod window;
#[path = "breaker/word.rs"]
mod word;

use std::time::Duration;

use kiki::clock::UnixMicros;

use super::atomics::{AtomicU64, Ordering};
pub use permit::Permit;
use permit::Ticket;
pub use window::Window;
use window::{Counts, Tally};
pub use word::MAX_PROBES;
use word::{Mode, Word};

/// How a breaker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The outcomes that count while closed.
    pub window: Window,
    /// Outcomes below which it stays closed whatever they are.
    pub min_calls: u32,
    /// The share of failures, in parts per million, that opens it.
    pub failure_ppm: u32,
    /// A call that takes so long is slow.
    pub slow: Duration,
    /// The share of slow calls, in parts per million, that opens it.
    pub slow_ppm: u32,
    /// The first pause.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// By up to which share, in parts per million, a pause is shortened, so that not all come back at once.
    pub jitter_ppm: u32,
    /// Calls under way at once while half-open, and successes that close it: 1 to [`MAX_PROBES`].
    pub probes: u8,
    /// How long probes may take before they count as failed.
    pub probe_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Window::Calls(100),
            min_calls: 20,
            failure_ppm: 500_000,
            slow: Duration::from_secs(1),
            slow_ppm: 800_000,
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
            jitter_ppm: 200_000,
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
    /// Calls are refused, because somebody said so.
    ForcedOpen,
    /// Calls pass, because somebody said so.
    ForcedClosed,
}

impl State {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::ForcedClosed];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }

    const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Closed => Self::Closed,
            Mode::HalfOpen => Self::HalfOpen,
            Mode::ForcedOpen => Self::ForcedOpen,
            Mode::ForcedClosed => Self::ForcedClosed,
            Mode::OpenByFailures | Mode::OpenBySlowCalls | Mode::OpenByProbe | Mode::OpenByOverdue | Mode::OpenByTrip => Self::Open,
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

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    seed: u64,
    word: AtomicU64,
    counts: Counts,
    /// Bookkeeping that decides nothing, so the exploration need not see it.
    times: Times,
}

impl Breaker {
    /// A closed breaker. `seed` draws the jitter of its pauses.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: UnixMicros) -> Self {
        let settings = Settings { probes: settings.probes.clamp(1, MAX_PROBES), ..settings };
        Self { settings, seed, word: AtomicU64::new(Word::NEW.pack()), counts: Counts::new(settings.window), times: Times::new(now) }
    }

    /// What it is doing at `now`.
    #[must_use]
    pub fn state(&self, now: UnixMicros) -> State {
        State::of(self.turned(now).mode)
    }

    /// How often its state has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.times.changes.load(Ordering::Relaxed)
    }

    /// How long it has been in each state, in the order of [`State::ALL`].
    #[must_use]
    pub fn times(&self, now: UnixMicros) -> [Duration; State::ALL.len()] {
        self.times.read(self.state(now), now)
    }

    /// What [`Breaker::why`] says of one that was tripped.
    pub const TRIPPED: &str = "it was tripped";

    /// Why it is open, half-open or forced, in words; nothing while it is closed.
    #[must_use]
    pub fn why(&self, now: UnixMicros) -> &'static str {
        match self.turned(now).mode {
            Mode::Closed => "",
            Mode::HalfOpen => "finding out whether it answers again",
            Mode::ForcedOpen | Mode::ForcedClosed => "an operator said so",
            Mode::OpenByFailures => "too many calls failed",
            Mode::OpenBySlowCalls => "too many calls were slow",
            Mode::OpenByProbe => "a probe failed or was slow",
            Mode::OpenByOverdue => "a probe did not report in time",
            Mode::OpenByTrip => Self::TRIPPED,
        }
    }

    /// Opens it until `until` (forced open), or lets all calls pass until then (forced closed), whatever they come to. At
    /// most a year ahead.
    pub fn force(&self, open: bool, until: UnixMicros, now: UnixMicros) {
        let mode = if open { Mode::ForcedOpen } else { Mode::ForcedClosed };
        self.change(now, |word| Some(word.change(mode, word::due(now, until.since(now)))));
    }

    /// Ends a force: what was forced open is probed, what was forced closed counts from nothing. Whether there was one.
    pub fn release(&self, now: UnixMicros) -> bool {
        self.change(now, released)
    }

    /// Opens it for its next pause, for a reason of the caller's own. Whether it was closed or half-open; a force stays.
    pub fn trip(&self, now: UnixMicros) -> bool {
        self.change(now, |word| matches!(word.mode, Mode::Closed | Mode::HalfOpen).then(|| self.opened(word, Mode::OpenByTrip, now)))
    }

    /// The word, after what time alone has changed: a pause that is over, a probe that is overdue.
    fn turned(&self, now: UnixMicros) -> Word {
        loop {
            let word = Word::unpack(self.word.load(Ordering::Acquire));
            match self.turn(word, now) {
                None => return word,
                Some(next) => _ = self.swap(word, next, now),
            }
        }
    }

    fn turn(&self, word: Word, now: UnixMicros) -> Option<Word> {
        if word.mode == Mode::Closed || !word.is_over(now) {
            return None;
        }
        match word.mode {
            Mode::HalfOpen if word.under_way == 0 => None,
            Mode::HalfOpen => Some(self.opened(word, Mode::OpenByOverdue, now)),
            Mode::ForcedOpen | Mode::ForcedClosed => released(word),
            _ => Some(word.change(Mode::HalfOpen, 0)),
        }
    }

    /// Another mode, as `next` says of the mode that it finds.
    fn change(&self, now: UnixMicros, next: impl Fn(Word) -> Option<Word>) -> bool {
        loop {
            let word = self.turned(now);
            match next(word) {
                None => return false,
                Some(next) if self.swap(word, next, now) => return true,
                Some(_) => {}
            }
        }
    }

    /// Puts `next` where `word` is; whether it still was.
    fn swap(&self, word: Word, next: Word, now: UnixMicros) -> bool {
        let swapped = self.word.compare_exchange(word.pack(), next.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok();
        if swapped && word.generation != next.generation {
            self.times.changed(State::of(word.mode), now);
        }
        swapped
    }

    fn opened(&self, word: Word, why: Mode, now: UnixMicros) -> Word {
        let settings = self.settings;
        let pause = settings.pause.saturating_mul(1 << word.openings).min(settings.pause_max);
        // The draw is a share of 2^32; the jitter at most the whole pause.
        let draw = u128::from(mixed(self.seed ^ u64::from(word.generation)) >> 32);
        let jitter = (pause.as_micros() * u128::from(settings.jitter_ppm.min(1_000_000)) / 1_000_000 * draw) >> 32;
        word.opened(why, word::due(now, pause - Duration::from_micros(jitter as u64)))
    }

    fn admitted(&self, now: UnixMicros) -> Result<Ticket, Refused> {
        loop {
            let word = self.turned(now);
            let ticket = Ticket { generation: word.generation, at: now };
            match word.mode {
                Mode::Closed | Mode::ForcedClosed => return Ok(ticket),
                Mode::HalfOpen if word.under_way + word.succeeded < self.settings.probes => {
                    let due = if word.under_way == 0 { word::due(now, self.settings.probe_timeout) } else { word.due };
                    if self.swap(word, Word { under_way: word.under_way + 1, due, ..word }, now) {
                        return Ok(ticket);
                    }
                }
                mode => return Err(Refused { state: State::of(mode) }),
            }
        }
    }

    fn answered(&self, ticket: Ticket, failed: bool, now: UnixMicros) {
        let word = self.turned(now);
        if word.generation != ticket.generation {
            return;
        }
        let slow = now.since(ticket.at) >= self.settings.slow;
        match word.mode {
            Mode::Closed => {
                self.counts.add(word.generation, failed, slow, now);
                if (failed || slow)
                    && let Some(why) = self.verdict(self.counts.tally(word.generation, now), failed, slow)
                {
                    // A closed word changes with its generation alone: where this fails, another has opened or forced it.
                    self.swap(word, self.opened(word, why, now), now);
                }
            }
            Mode::HalfOpen => self.probed(ticket, failed || slow, now),
            _ => {} // forced closed counts nothing, and no ticket is of an open generation
        }
    }

    /// Whether so many failures or slow calls are too many. A success never opens it by its number alone.
    fn verdict(&self, tally: Tally, failed: bool, slow: bool) -> Option<Mode> {
        let Settings { min_calls, failure_ppm, slow_ppm, .. } = self.settings;
        let reaches = |count: u64, ppm: u32| tally.calls >= u64::from(min_calls) && count * 1_000_000 >= tally.calls * u64::from(ppm);
        if failed && reaches(tally.failed, failure_ppm) {
            Some(Mode::OpenByFailures)
        } else if slow && reaches(tally.slow, slow_ppm) {
            Some(Mode::OpenBySlowCalls)
        } else {
            None
        }
    }

    fn probed(&self, ticket: Ticket, failed: bool, now: UnixMicros) {
        self.change(now, |word| {
            if word.generation != ticket.generation {
                return None;
            }
            let succeeded = word.succeeded + 1;
            Some(match failed {
                true => self.opened(word, Mode::OpenByProbe, now),
                false if succeeded >= self.settings.probes => word.closed(),
                false => Word { under_way: word.under_way - 1, succeeded, ..word },
            })
        });
    }

    /// The ticket's call was not made, or nobody knows what came of it.
    fn abandoned(&self, ticket: Ticket) {
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(bits);
            if word.generation != ticket.generation || word.mode != Mode::HalfOpen {
                return;
            }
            let next = Word { under_way: word.under_way - 1, ..word };
            match self.word.compare_exchange(bits, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(changed) => bits = changed,
            }
        }
    }
}

fn released(word: Word) -> Option<Word> {
    match word.mode {
        Mode::ForcedOpen => Some(word.change(Mode::HalfOpen, 0)),
        Mode::ForcedClosed => Some(word.closed()),
        _ => None,
    }
}

/// `splitmix64`'s output function (Steele, Lea and Flood, OOPSLA 2014): neighbours become unlike.
const fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// How often and how long.
#[derive(Debug)]
struct Times {
    changes: std::sync::atomic::AtomicU64,
    /// Microseconds.
    since: std::sync::atomic::AtomicI64,
    /// Microseconds in each state, without the present one.
    spent: [std::sync::atomic::AtomicU64; State::ALL.len()],
}

impl Times {
    fn new(now: UnixMicros) -> Self {
        Self { changes: 0.into(), since: now.0.into(), spent: Default::default() }
    }

    fn changed(&self, from: State, now: UnixMicros) {
        let since = UnixMicros(self.since.swap(now.0, Ordering::Relaxed));
        self.spent[from as usize].fetch_add(now.since(since).as_micros() as u64, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, state: State, now: UnixMicros) -> [Duration; State::ALL.len()] {
        let mut spent = self.spent.each_ref().map(|micros| Duration::from_micros(micros.load(Ordering::Relaxed)));
        spent[state as usize] += now.since(UnixMicros(self.since.load(Ordering::Relaxed)));
        spent
    }
}
