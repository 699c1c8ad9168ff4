//! How fast a holder uses its leases up, so that the next one is as large as what it will bid.
//!
//! It goes up at once, so that a campaign that turns hot costs few small leases on the way, and down by halves, so that a
//! quiet minute does not make the next one expensive. Counted is what bids may cost at most: that is what a lease is used
//! up by, whatever is won.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::money::{Micros, NANOS_PER_MICRO};

/// A burst that was shorter counts as if it had taken so long: it says nothing of a minute.
const LEAST: Duration = Duration::from_secs(1);

/// What is used up in the life of a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burn {
    nanos: Option<i128>,
}

/// What was taken of a lease since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Nanos.
    pub nanos: i64,
    /// Since then.
    pub since: UnixMicros,
    /// How long the lease lives from a grant or renewal on.
    pub life: Duration,
}

impl Burn {
    /// Takes in what was taken up to now.
    pub fn note(&mut self, taken: Taken, now: UnixMicros) {
        let over = now.since(taken.since).max(LEAST).as_micros() as i128;
        let rate = i128::from(taken.nanos) * taken.life.as_micros() as i128 / over;
        self.nanos = Some(match self.nanos {
            Some(before) if before > rate => (before + rate) / 2,
            _ => rate,
        });
    }

    /// What is used up in the life of a lease; nothing before the first was looked at.
    #[must_use]
    pub fn in_a_life(self) -> Option<Micros> {
        self.nanos.map(|nanos| Micros::new(i64::try_from(nanos / NANOS_PER_MICRO).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000_000_000);

    fn noted(burn: &mut Burn, nanos: i64, seconds: u64) -> Option<i64> {
        let life = Duration::from_secs(60);
        burn.note(Taken { nanos, since: NOW, life }, NOW.plus(Duration::from_secs(seconds)));
        burn.in_a_life().map(Micros::get)
    }

    #[test]
    fn goes_up_at_once_and_down_by_halves() {
        let mut burn = Burn::default();
        assert_eq!(burn.in_a_life(), None);
        assert_eq!(noted(&mut burn, 10_000, 10), Some(60));
        assert_eq!(noted(&mut burn, 100_000, 10), Some(600));
        assert_eq!(noted(&mut burn, 0, 30), Some(300));
        assert_eq!(noted(&mut burn, 0, 30), Some(150));
    }

    #[test]
    fn a_burst_is_no_rate() {
        let mut burn = Burn::default();
        assert_eq!(noted(&mut burn, 10_000, 0), Some(600), "as if it had taken a second");
        assert_eq!(noted(&mut Burn { nanos: None }, i64::MAX, 0), Some(i64::MAX / 1_000 * 60 + 48), "and nothing overflows");
    }
}
