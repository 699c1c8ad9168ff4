//! Schedules: for each zone, the rules that refuse in each quarter of an hour of its week.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Mask, PolicyError, or, set};
use crate::clock::UnixMicros;
use crate::leaf;

/// Zones of one policy: each costs 672 masks, 172 kB at the most.
const MAX_ZONES: usize = 32;
const QUARTERS_OF_DAY: usize = 96;
const QUARTERS: usize = 7 * QUARTERS_OF_DAY;
/// The instants, seconds, between which a zone's offsets are looked up in a list of ours: the years 2020 to 2044. Bids of
/// other times ask the database, which takes ten times as long and says the same.
const LISTED: std::ops::Range<i64> = 1_577_836_800..2_366_841_600;
/// Windows of one rule: one for each hour of a week.
const MAX_WINDOWS: usize = 168;

#[derive(Debug, Clone, Default)]
pub(super) struct Zones(Vec<Zone>);

#[derive(Debug, Clone)]
struct Zone {
    name: String,
    zone: TimeZone,
    /// From which second which offset holds, in seconds; the first is the start of [`LISTED`].
    offsets: Vec<(i64, i32)>,
    rules: Mask,
    outside: Vec<Mask>,
}

impl Zones {
    pub(super) fn add(&mut self, rule: usize, schedule: &leaf::Schedule, path: &str, none: &Mask) -> Result<(), PolicyError> {
        let inside = quarters(schedule, path)?;
        let at = match self.0.iter().position(|zone| zone.name == schedule.zone) {
            Some(at) => at,
            None if self.0.len() == MAX_ZONES => {
                return Err(PolicyError::new(format!("{path}.zone"), format!("is one more than the {MAX_ZONES} that are taken")));
            }
            None => {
                let bad = |_| PolicyError::new(format!("{path}.zone"), format!("{:?} is not an IANA time zone", schedule.zone));
                let zone = TimeZone::get(&schedule.zone).map_err(bad)?;
                let (name, rules, outside) = (schedule.zone.clone(), none.clone(), vec![none.clone(); QUARTERS]);
                self.0.push(Zone { name, offsets: offsets(&zone), zone, rules, outside });
                self.0.len() - 1
            }
        };
        let zone = &mut self.0[at];
        set(&mut zone.rules, rule);
        let outside = zone.outside.iter_mut().zip(inside);
        outside.filter(|(_, inside)| !inside).for_each(|(mask, _)| set(mask, rule));
        Ok(())
    }

    /// The rules outside of whose windows `at` is.
    pub(super) fn check(&self, at: UnixMicros, scope: (&[u64], &[u64]), hit: &mut [u64]) {
        for zone in &self.0 {
            let mut rules = zone.rules.iter().zip(scope.0.iter().zip(scope.1));
            if rules.any(|(rules, (client, platform))| rules & client & platform != 0) {
                or(hit, zone.outside.get(zone.quarter(at)).unwrap_or(&zone.rules));
            }
        }
    }
}

impl Zone {
    /// Which quarter of an hour of the zone's week it is.
    fn quarter(&self, at: UnixMicros) -> usize {
        let second = at.0.div_euclid(1_000_000);
        let offset = if LISTED.contains(&second) {
            let behind = self.offsets.partition_point(|(from, _)| *from <= second);
            behind.checked_sub(1).and_then(|i| self.offsets.get(i)).map(|(_, offset)| *offset)
        } else {
            Timestamp::from_microsecond(at.0).ok().map(|instant| self.zone.to_offset(instant).seconds())
        };
        let Some(offset) = offset else { return QUARTERS };
        let local = second + i64::from(offset);
        let (day, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        // 1970-01-01 was a Thursday.
        (day + 3).rem_euclid(7) as usize * QUARTERS_OF_DAY + second as usize / 900
    }
}

/// The zone's offsets over [`LISTED`]: two changes a year at the most, or a handful more where it has moved its clocks.
fn offsets(zone: &TimeZone) -> Vec<(i64, i32)> {
    let Ok(start) = Timestamp::from_second(LISTED.start) else { return Vec::new() };
    let changes = zone.following(start).map(|change| (change.timestamp().as_second(), change.offset().seconds()));
    let first = (LISTED.start, zone.to_offset(start).seconds());
    std::iter::once(first).chain(changes.take_while(|(from, _)| *from < LISTED.end)).collect()
}

/// The quarters of the week that the windows cover.
fn quarters(schedule: &leaf::Schedule, path: &str) -> Result<[bool; QUARTERS], PolicyError> {
    let mut inside = [false; QUARTERS];
    if schedule.windows.is_empty() || schedule.windows.len() > MAX_WINDOWS {
        return Err(PolicyError::new(format!("{path}.windows"), format!("{}; 1 to {MAX_WINDOWS} are taken", schedule.windows.len())));
    }
    for (i, window) in schedule.windows.iter().enumerate() {
        let field = |name: &str| format!("{path}.windows[{i}].{name}");
        let (from, to) = (window.from_minute, window.to_minute);
        if from >= to || to > 1_440 || from % 15 != 0 || to % 15 != 0 {
            let problem = format!("{from} to {to}: multiples of 15, the first below the second, up to 1440");
            return Err(PolicyError::new(field("from_minute"), problem));
        }
        if window.days.is_empty() || window.days.iter().any(|day| !(1..=7).contains(day)) {
            return Err(PolicyError::new(field("days"), "are numbers from 1 (Monday) to 7 (Sunday), one at least"));
        }
        for day in &window.days {
            let start = (*day as usize - 1) * QUARTERS_OF_DAY;
            inside[start + from as usize / 15..start + to as usize / 15].fill(true);
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_offsets_are_the_databases() {
        for name in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"] {
            let zone = TimeZone::get(name).expect("a zone");
            let listed = Zone { name: name.into(), offsets: offsets(&zone), zone: zone.clone(), rules: Box::new([]), outside: vec![] };
            let asked = Zone { offsets: vec![], ..listed.clone() };
            let changes: Vec<i64> = listed.offsets.iter().map(|(from, _)| *from).collect();
            let around = changes.iter().flat_map(|at| [at - 1, *at, at + 1]).chain([LISTED.end - 1, LISTED.end, 0]);
            for second in around.chain((LISTED.start..LISTED.end).step_by(5_000_011)) {
                let instant = Timestamp::from_second(second).expect("an instant");
                let local = second + i64::from(zone.to_offset(instant).seconds());
                let quarter = (local.div_euclid(86_400) + 3).rem_euclid(7) * 96 + local.rem_euclid(86_400) / 900;
                assert_eq!(listed.quarter(UnixMicros(second * 1_000_000)), quarter as usize, "{name} at {second}");
            }
            assert_eq!(asked.quarter(UnixMicros(i64::MAX)), QUARTERS, "beyond time, all its rules refuse");
        }
    }
}
