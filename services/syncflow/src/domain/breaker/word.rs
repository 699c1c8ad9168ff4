//! The breaker's state as one word of 64 bits: whoever wants to change it compares and swaps the whole of it.
//!
//! | bits | |
//! |---|---|
//! | 4 | [`Mode`] |
//! | 4 | openings since it was last closed, at most 15 |
//! | 3 | probes under way |
//! | 3 | probes that succeeded |
//! | 13 | generation, raised by each change of mode |
//! | 37 | when the mode is over, milliseconds, of which the lower 37 bits: 4.3 years |
//!
//! Generations come around after 8,192 changes. With pauses of a second that is an hour or more; a call under way that
//! long would have to meet its own number.

use std::time::Duration;

use kiki::clock::UnixMicros;

/// Probes at once, at most: three bits.
pub const MAX_PROBES: u8 = 7;
/// The number of generations.
pub(super) const GENERATIONS: u16 = 1 << 13;
const MAX_OPENINGS: u8 = 15;
const DUE_BITS: u32 = 37;
const DUE_MASK: u64 = (1 << DUE_BITS) - 1;

/// What the breaker does, and where it is open, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Closed,
    HalfOpen,
    ForcedOpen,
    ForcedClosed,
    OpenByFailures,
    OpenBySlowCalls,
    OpenByProbe,
    OpenByOverdue,
    OpenByTrip,
}

impl Mode {
    const ALL: [Self; 9] = [
        Self::Closed,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::ForcedClosed,
        Self::OpenByFailures,
        Self::OpenBySlowCalls,
        Self::OpenByProbe,
        Self::OpenByOverdue,
        Self::OpenByTrip,
    ];
}

/// The word, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) mode: Mode,
    pub(super) openings: u8,
    pub(super) under_way: u8,
    pub(super) succeeded: u8,
    pub(super) generation: u16,
    /// The end of a pause, of a force, or of the time that probes have. Of no meaning while closed.
    pub(super) due: u64,
}

impl Word {
    pub(super) const NEW: Self = Self { mode: Mode::Closed, openings: 0, under_way: 0, succeeded: 0, generation: 0, due: 0 };

    pub(super) fn pack(self) -> u64 {
        (self.mode as u64)
            | u64::from(self.openings) << 4
            | u64::from(self.under_way) << 8
            | u64::from(self.succeeded) << 11
            | u64::from(self.generation) << 14
            | self.due << 27
    }

    pub(super) fn unpack(bits: u64) -> Self {
        Self {
            // Only `pack` makes such bits.
            mode: Mode::ALL.get((bits & 15) as usize).copied().unwrap_or(Mode::Closed),
            openings: (bits >> 4 & 15) as u8,
            under_way: (bits >> 8 & 7) as u8,
            succeeded: (bits >> 11 & 7) as u8,
            generation: (bits >> 14) as u16 & (GENERATIONS - 1),
            due: bits >> 27,
        }
    }

    /// The next generation, in another mode, without probes.
    pub(super) fn change(self, mode: Mode, due: u64) -> Self {
        let generation = (self.generation + 1) % GENERATIONS;
        Self { mode, under_way: 0, succeeded: 0, generation, due, ..self }
    }

    /// Closed anew: the next pause is the first one again.
    pub(super) fn closed(self) -> Self {
        Self { openings: 0, ..self.change(Mode::Closed, 0) }
    }

    /// Open once more.
    pub(super) fn opened(self, why: Mode, due: u64) -> Self {
        Self { openings: (self.openings + 1).min(MAX_OPENINGS), ..self.change(why, due) }
    }

    /// Whether `due` is over. Right for times that are less than two years apart.
    pub(super) fn is_over(self, now: UnixMicros) -> bool {
        millis(now).wrapping_sub(self.due) & DUE_MASK < 1 << (DUE_BITS - 1)
    }
}

/// So long after `now`, as the word has it; rounded up.
pub(super) fn due(now: UnixMicros, after: Duration) -> u64 {
    let after = after.as_micros().div_ceil(1_000) as u64;
    millis(now).wrapping_add(after.min(1 << (DUE_BITS - 2))) & DUE_MASK
}

fn millis(now: UnixMicros) -> u64 {
    now.0.div_euclid(1_000) as u64 & DUE_MASK
}
