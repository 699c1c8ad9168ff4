//! The circuit breakers of this instance, by name: one around SyncValue, and one for each platform that the configuration
//! names. Each stands by itself: what one platform does to its breaker, no other feels.
//!
//! A platform's call is a bid under way: one that has its slot in time is a success, one whose deadline passed a failure;
//! what is not bid on for other reasons says nothing of the platform. Who forced a breaker is kept here, beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::money::{Currency, Nanos};
use parking_lot::Mutex;

use crate::domain::breaker::{Breaker, Permit, Refused, Settings, State, Window};
use crate::domain::surge::{Bounds, Cause, Surge};
use crate::error::Error;

/// What the breaker around SyncValue is called.
pub const SYNCVALUE: &str = "syncvalue";
/// Who trips a breaker because of what its platform charges.
const SURGE_GUARD: &str = "syncflow";
/// The longest force.
const MAX_FORCE: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of an operator's name, and of a reason.
const MAX_OPERATOR: usize = 128;
const MAX_REASON: usize = 512;

/// A breaker with its name.
#[derive(Debug)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The breaker.
    pub breaker: Arc<Breaker>,
    /// Who last forced or tripped it, and why.
    told: Mutex<(String, String)>,
    /// What of the platform is a surge.
    bounds: Bounds,
    /// What it charged, by currency.
    charged: Mutex<BTreeMap<Currency, Surge>>,
}

/// Where a breaker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Why, in words.
    pub why: &'static str,
    /// Changes of state since the start.
    pub changes: u64,
    /// Who forced or tripped it; empty where nobody's word holds.
    pub operator: String,
    /// Their reason.
    pub reason: String,
}

/// What an operator wants of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// Calls are refused until then.
    Open(UnixMicros),
    /// Calls pass until then.
    Closed(UnixMicros),
    /// It goes by its calls again.
    Automatic,
    /// Open for one pause.
    Trip,
}

impl Named {
    fn status(&self, now: UnixMicros) -> Status {
        let (state, why) = (self.breaker.state(now), self.breaker.why(now));
        let told = matches!(state, State::ForcedOpen | State::ForcedClosed) || why == Breaker::TRIPPED;
        let (operator, reason) = if told { self.told.lock().clone() } else { Default::default() };
        Status { name: self.name.clone(), state, why, changes: self.breaker.changes(), operator, reason }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Breakers {
    syncvalue: Named,
    /// By platform: a bid finds its own without making a name. None is added later.
    platforms: BTreeMap<String, Named>,
    clock: Clock,
}

impl Breakers {
    /// One around SyncValue, and one for each of the platforms, of which some have bounds of what they may charge.
    #[must_use]
    pub fn new<'a>(platforms: impl Iterator<Item = &'a str>, surges: BTreeMap<String, Bounds>, seed: u64, clock: Clock) -> Self {
        let now = clock.now();
        let settings = Settings { window: Window::Time(Duration::from_secs(10)), ..Settings::default() };
        let named = |name: String, settings: Settings, bounds: Bounds, seed: u64| {
            let breaker = Arc::new(Breaker::new(settings, seed, now));
            Named { name, breaker, told: Mutex::default(), bounds, charged: Mutex::default() }
        };
        let syncvalue = named(SYNCVALUE.to_owned(), Settings::default(), Bounds::default(), seed);
        let platforms = (1..).zip(platforms).map(|(nth, platform)| {
            let bounds = surges.get(platform).copied().unwrap_or_default();
            (platform.to_owned(), named(format!("platform/{platform}"), settings, bounds, seed.wrapping_add(nth)))
        });
        Self { syncvalue, platforms: platforms.collect(), clock }
    }

    /// The one around SyncValue.
    #[must_use]
    pub fn syncvalue(&self) -> Arc<Breaker> {
        self.syncvalue.breaker.clone()
    }

    /// Asks to bid on a platform; one that the configuration does not name has no breaker, and is bid on.
    ///
    /// # Errors
    /// Its breaker refuses.
    pub fn admit(&self, platform: &str, now: UnixMicros) -> Result<Option<Permit<Arc<Breaker>>>, Refused> {
        self.platforms.get(platform).map(|one| one.breaker.admit_owned(now)).transpose()
    }

    /// A platform charged an impression. Where that is a surge, its breaker is tripped.
    pub fn charged(&self, platform: &str, currency: Currency, price: Nanos) {
        let Some(one) = self.platforms.get(platform) else { return };
        if one.bounds == Bounds::default() {
            return;
        }
        let now = self.clock.now();
        let cause = one.charged.lock().entry(currency).or_default().charged(price, one.bounds, now);
        if let Some(cause) = cause {
            let mut told = one.told.lock();
            if one.breaker.trip(now) {
                let why = match cause {
                    Cause::Velocity => "spend velocity: more a minute than the bound allows over its mean",
                    Cause::Jump => "CPM jump: impressions cost more than the bound allows over their mean",
                };
                *told = (SURGE_GUARD.to_owned(), why.to_owned());
                tracing::warn!("breaker {}: tripped by {} in {}", one.name, cause.as_str(), currency.code());
            }
        }
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Named> {
        self.platforms.values().chain([&self.syncvalue])
    }

    /// Where all of them stand.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        let now = self.clock.now();
        self.iter().map(|one| one.status(now)).collect()
    }

    /// Does what an operator wants.
    ///
    /// # Errors
    /// No breaker of that name; no operator or reason, or a long one; an end that is past or far.
    pub fn tell(&self, name: &str, what: Override, operator: &str, reason: &str) -> Result<Status, Error> {
        let now = self.clock.now();
        let one = self.iter().find(|one| one.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.iter().map(|one| one.name.as_str()).collect();
            Error::field("name", format!("{name:?} is none of {}", names.join(", ")))
        })?;
        for (field, text, limit) in [("operator", operator, MAX_OPERATOR), ("reason", reason, MAX_REASON)] {
            if !(1..=limit).contains(&text.len()) {
                return Err(Error::field(field, format!("has {} bytes; 1 to {limit} are taken", text.len())));
            }
        }
        if let Override::Open(until) | Override::Closed(until) = what
            && (until <= now || until > now.plus(MAX_FORCE))
        {
            return Err(Error::field("until", format!("is not within {} days from now", MAX_FORCE.as_secs() / 86_400)));
        }
        let mut told = one.told.lock(); // two operators come one after the other
        match what {
            Override::Open(until) => one.breaker.force(true, until, now),
            Override::Closed(until) => one.breaker.force(false, until, now),
            Override::Automatic => _ = one.breaker.release(now),
            Override::Trip => _ = one.breaker.trip(now),
        }
        *told = (operator.to_owned(), reason.to_owned());
        drop(told);
        tracing::warn!("breaker {name}: {what:?} by {operator}: {reason}");
        Ok(one.status(now))
    }
}
