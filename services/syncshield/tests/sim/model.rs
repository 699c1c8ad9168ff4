//! What the budgets should be, worked out the slow way: from what each lease and slot is, anew for each question.

use std::collections::{BTreeMap, BTreeSet};

use crate::op::{DAY, Did, Op, TTL};

#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    pub campaign: usize,
    pub amount: i128,
    pub expires: i64,
    pub day: i64,
    pub mark: (u32, i128),
    pub epoch: u64,
    pub returned: bool,
    pub slots: u32,
    /// Closed slots: what was held for each, and what it cost; a void slot has no cost.
    pub closed: BTreeMap<u32, (i128, Option<i128>)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Campaign {
    pub total: i128,
    pub daily: i128,
    pub paused: bool,
    pub version: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub campaigns: Vec<Campaign>,
    pub leases: BTreeMap<u64, Lease>,
    keys: BTreeMap<(usize, u64), u64>,
    /// When each holder of a campaign last took a lease.
    holders: BTreeMap<(usize, u64), i64>,
    sources: BTreeMap<u64, u64>,
    events: BTreeSet<u64>,
}

impl Lease {
    pub(crate) fn lives(&self, now: i64) -> bool {
        !self.returned && now < self.expires
    }

    /// Holds of closed slots below the mark.
    fn closed_holds(&self) -> (u32, i128) {
        let held = self.closed.values().filter(|(held, _)| *held >= 0);
        held.fold((0, 0), |(count, sum), (held, _)| (count + 1, sum + held))
    }

    pub(crate) fn holds(&self, now: i64) -> i128 {
        let most = if self.lives(now) { self.amount } else { self.mark.1 };
        let done = !self.lives(now) && self.closed_holds().0 >= self.mark.0;
        if done { 0 } else { (most - self.closed_holds().1).max(0) }
    }
}

impl Model {
    pub(crate) fn new(campaigns: usize) -> Self {
        Self { campaigns: vec![Campaign::default(); campaigns], ..Self::default() }
    }

    pub(crate) fn charged(&self, campaign: usize, day: Option<i64>) -> i128 {
        let of = self.leases.values().filter(|lease| lease.campaign == campaign && day.is_none_or(|day| lease.day == day));
        of.flat_map(|lease| lease.closed.values()).filter_map(|(_, price)| *price).sum()
    }

    pub(crate) fn held(&self, campaign: usize, day: Option<i64>, now: i64) -> i128 {
        let of = self.leases.values().filter(|lease| lease.campaign == campaign && day.is_none_or(|day| lease.day == day));
        of.map(|lease| lease.holds(now)).sum()
    }

    pub(crate) fn available(&self, campaign: usize, now: i64) -> i128 {
        let (day, limits) = (now - now.rem_euclid(DAY), &self.campaigns[campaign]);
        let total = limits.total - self.charged(campaign, None) - self.held(campaign, None, now);
        let daily = limits.daily - self.charged(campaign, Some(day)) - self.held(campaign, Some(day), now);
        if limits.daily > 0 { total.min(daily) } else { total }
    }

    /// Does it as it should be done at `now`, and says what should be answered.
    pub(crate) fn take(&mut self, now: i64, op: &Op) -> Did {
        match *op {
            Op::Limits { campaign, total, daily, paused } => {
                let limits = &mut self.campaigns[campaign];
                *limits =
                    Campaign { total: i128::from(total) * 1_000, daily: i128::from(daily) * 1_000, paused, version: limits.version + 1 };
                Did::Version(limits.version)
            }
            Op::Lease { campaign, key, amount, least, mark, reservation } => {
                self.lease(now, campaign, key, (amount, least), mark, reservation)
            }
            Op::Renew { lease: id, epoch } => match self.leases.get_mut(&id) {
                Some(lease) if lease.lives(now) && lease.epoch == epoch && !self.campaigns[lease.campaign].paused => {
                    lease.epoch += 1;
                    lease.expires = lease.expires.max((now + TTL).min(lease.day + DAY));
                    Did::Renewed(lease.epoch, lease.expires)
                }
                _ => Did::Refused,
            },
            Op::Mark { lease: id, epoch, mark } => match self.leases.get_mut(&id) {
                Some(lease) if lease.lives(now) && lease.epoch == epoch => {
                    let asked = (mark.0, i128::from(mark.1));
                    if asked.0 <= lease.mark.0 && asked.1 <= lease.mark.1 {
                        Did::Done
                    } else if self.campaigns[lease.campaign].paused {
                        Did::Refused
                    } else if asked.0 >= lease.mark.0 && asked.1 >= lease.mark.1 && asked.0 <= lease.slots && asked.1 <= lease.amount {
                        lease.mark = asked;
                        Did::Done
                    } else {
                        Did::Refused
                    }
                }
                _ => Did::Refused,
            },
            Op::Return { lease: id, epoch, used } => match self.leases.get_mut(&id) {
                Some(lease) if !lease.returned && lease.epoch == epoch => {
                    let (used, closed, before) = ((used.0, i128::from(used.1)), lease.closed_holds(), lease.holds(now));
                    if used.0 > lease.mark.0 || used.1 > lease.mark.1 || used.0 < closed.0 || used.1 < closed.1 {
                        return Did::Refused;
                    }
                    (lease.mark, lease.returned) = (used, true);
                    Did::Freed(before - lease.holds(now))
                }
                _ => Did::Refused,
            },
            Op::Settle { lease, ref slots } => self.close(lease, slots.iter().map(|(slot, max, price)| (*slot, *max, Some(*price)))),
            Op::Void { lease, ref slots } => self.close(lease, slots.iter().map(|(slot, max)| (*slot, *max, None))),
            Op::Decisions { source, seq } => {
                let last = self.sources.entry(source).or_default();
                let next = *last + 1;
                *last = if seq == next { next } else { *last };
                if seq > next || seq == 0 { Did::Refused } else { Did::Recorded { duplicate: seq < next } }
            }
            Op::Purchase { event } => Did::Recorded { duplicate: !self.events.insert(event) },
        }
    }

    fn lease(&mut self, now: i64, campaign: usize, key: u64, ask: (i64, i64), mark: (u32, i64), reservation: bool) -> Did {
        if let Some(lease) = self.keys.get(&(campaign, key)) {
            return Did::Granted { lease: *lease, duplicate: true };
        }
        let available = self.available(campaign, now);
        if self.campaigns[campaign].paused || i128::from(ask.1) * 1_000 > available {
            return Did::Refused;
        }
        // Where others took leases in the last ten minutes, at most half of an even part of what is left.
        let holder = key % 3;
        let recent = |((of, other), at): (&(usize, u64), &i64)| *of == campaign && *other != holder && *at > now - 600_000_000;
        let others = self.holders.iter().filter(|(of, at)| recent((of, at))).count() as i128;
        let fair = if reservation || others == 0 { available / 1_000 } else { (available / 1_000 / (2 * (others + 1))).max(ask.1.into()) };
        self.holders.insert((campaign, holder), now);
        let amount = i128::from(ask.0).min(fair) * 1_000;
        let day = now - now.rem_euclid(DAY);
        let id = self.leases.len() as u64 + 1;
        let (slots, mark) = if reservation { (1, (1, amount)) } else { (65_536, (mark.0, i128::from(mark.1).min(amount))) };
        let mark = if mark.0 == 0 { (0, 0) } else { mark };
        let expires = (now + TTL).min(day + DAY);
        self.leases.insert(id, Lease { campaign, amount, expires, day, mark, epoch: 1, slots, ..Lease::default() });
        self.keys.insert((campaign, key), id);
        Did::Granted { lease: id, duplicate: false }
    }

    fn close(&mut self, lease: u64, slots: impl Iterator<Item = (u32, i64, Option<i64>)>) -> Did {
        let Some(lease) = self.leases.get_mut(&lease) else { return Did::Slots(slots.map(|_| 'r').collect()) };
        let mut answers = Vec::new();
        for (slot, max, price) in slots {
            answers.push(match lease.closed.get(&slot) {
                _ if slot >= lease.slots => 'r',
                Some((_, before)) if before.is_some() == price.is_some() => 'd',
                Some(_) => 'c',
                None => {
                    // Nothing is held for a slot above the mark.
                    let held = if slot < lease.mark.0 { i128::from(max) } else { -1 };
                    lease.closed.insert(slot, (held, price.map(i128::from)));
                    'a'
                }
            });
        }
        Did::Slots(answers.into_iter().collect())
    }
}
