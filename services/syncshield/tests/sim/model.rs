//! What the budgets should be, worked out the slow way: from what each lease and slot is, anew for each question.

use std::collections::{BTreeMap, BTreeSet};

use crate::op::{DAY, Did, Op, TTL, correction};

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
    /// A report closed what was open.
    pub reconciled: bool,
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
    /// Limits beside the campaigns' own: of the client (none) and of campaigns.
    bounds: BTreeMap<Option<usize>, Bound>,
    /// Corrections by key.
    corrections: BTreeSet<u64>,
    /// Leases that ended after the first and by the second instant are kept for their holders until the third.
    pub outage: Option<(i64, i64, i64)>,
}

#[derive(Debug, Clone, Default)]
struct Bound {
    total: i128,
    paused: bool,
    version: u64,
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

    fn may_come_back(&self, now: i64) -> bool {
        !self.lives(now) && !self.returned && !self.reconciled && now < self.day + DAY && self.closed_holds().0 < self.slots
    }

    /// What it holds again when it comes back.
    fn comes_back_with(&self, now: i64) -> i128 {
        (self.amount - self.closed_holds().1).max(0) - self.holds(now)
    }
}

impl Model {
    pub(crate) fn new(campaigns: usize) -> Self {
        Self { campaigns: vec![Campaign::default(); campaigns], ..Self::default() }
    }

    pub(crate) fn charged(&self, campaign: usize, day: Option<i64>) -> i128 {
        let of = self.leases.values().filter(|lease| lease.campaign == campaign && day.is_none_or(|day| lease.day == day));
        let settled: i128 = of.flat_map(|lease| lease.closed.values()).filter_map(|(_, price)| *price).sum();
        let corrected = self.corrections.iter().map(|key| correction(*key));
        let here = corrected.filter(|(of, _, at)| *of == campaign && day.is_none_or(|day| *at - at.rem_euclid(DAY) == day));
        settled + here.map(|(_, nanos, _)| i128::from(nanos)).sum::<i128>()
    }

    pub(crate) fn held(&self, campaign: usize, day: Option<i64>, now: i64) -> i128 {
        let of = self.leases.values().filter(|lease| lease.campaign == campaign && day.is_none_or(|day| lease.day == day));
        of.map(|lease| lease.holds(now)).sum()
    }

    /// Of all limits that bind a campaign; for a grant, without what is kept for holders.
    pub(crate) fn available(&self, campaign: usize, now: i64, grant: bool) -> i128 {
        let spent = |index| self.charged(index, None) + self.held(index, None, now) + if grant { self.kept(index, now) } else { 0 };
        let bounds = self.bounds.iter().filter(|(of, bound)| of.is_none_or(|of| of == campaign) && bound.total > 0);
        let left = bounds.map(|(of, bound)| match of {
            Some(index) => bound.total - spent(*index),
            None => bound.total - (0..self.campaigns.len()).map(spent).sum::<i128>(),
        });
        let kept = if grant { self.kept(campaign, now) } else { 0 };
        left.min().unwrap_or(i128::MAX).min(self.own_available(campaign, now) - kept)
    }

    fn is_kept(&self, lease: &Lease, now: i64) -> bool {
        let within = |(after, until, keeps)| after < lease.expires && lease.expires <= until && now < keeps;
        self.outage.is_some_and(within) && lease.may_come_back(now)
    }

    /// What nobody is granted: its holders may come back.
    fn kept(&self, campaign: usize, now: i64) -> i128 {
        let kept = self.leases.values().filter(|lease| lease.campaign == campaign && self.is_kept(lease, now));
        kept.map(|lease| lease.comes_back_with(now)).sum()
    }

    fn paused(&self, campaign: usize) -> bool {
        let bound = |of| self.bounds.get(&of).is_some_and(|bound: &Bound| bound.paused);
        self.campaigns[campaign].paused || bound(None) || bound(Some(campaign))
    }

    /// Of the campaign's own limits.
    pub(crate) fn own_available(&self, campaign: usize, now: i64) -> i128 {
        let (day, limits) = (now - now.rem_euclid(DAY), &self.campaigns[campaign]);
        let total = limits.total - self.charged(campaign, None) - self.held(campaign, None, now);
        let daily = limits.daily - self.charged(campaign, Some(day)) - self.held(campaign, Some(day), now);
        if limits.daily > 0 { total.min(daily) } else { total }
    }

    /// Whether it is about a campaign, or a client, that was never put.
    fn is_about_nothing(&self, op: &Op) -> bool {
        let known = |index: usize| self.campaigns[index].version > 0;
        match *op {
            Op::Bound { campaign: None, .. } | Op::Decisions { .. } | Op::Purchase { .. } => !(0..self.campaigns.len()).any(known),
            Op::Bound { campaign: Some(index), .. } | Op::Reconcile { campaign: index, .. } => !known(index),
            Op::Adjust { key } => !known(correction(key).0),
            _ => false,
        }
    }

    /// Does it as it should be done at `now`, and says what should be answered.
    pub(crate) fn take(&mut self, now: i64, op: &Op) -> Did {
        if self.is_about_nothing(op) {
            return Did::Refused;
        }
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
            Op::Renew { lease: id, epoch } => self.renew(now, id, epoch),
            Op::Mark { lease: id, epoch, mark } => {
                let paused = self.leases.get(&id).is_some_and(|lease| self.paused(lease.campaign));
                match self.leases.get_mut(&id) {
                    Some(lease) if lease.lives(now) && lease.epoch == epoch => {
                        let asked = (mark.0, i128::from(mark.1));
                        if asked.0 <= lease.mark.0 && asked.1 <= lease.mark.1 {
                            Did::Done
                        } else if paused {
                            Did::Refused
                        } else if asked.0 >= lease.mark.0 && asked.1 >= lease.mark.1 && asked.0 <= lease.slots && asked.1 <= lease.amount {
                            lease.mark = asked;
                            Did::Done
                        } else {
                            Did::Refused
                        }
                    }
                    _ => Did::Refused,
                }
            }
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
            Op::Bound { campaign, total, paused } => {
                let bound = self.bounds.entry(campaign).or_default();
                *bound = Bound { total: i128::from(total) * 1_000, paused, version: bound.version + 1 };
                Did::Version(bound.version)
            }
            Op::Adjust { key } => self.adjust(now, key),
            Op::Reconcile { campaign, charged } => self.reconcile(now, campaign, charged),
        }
    }

    fn lease(&mut self, now: i64, campaign: usize, key: u64, ask: (i64, i64), mark: (u32, i64), reservation: bool) -> Did {
        if let Some(lease) = self.keys.get(&(campaign, key)) {
            return Did::Granted { lease: *lease, duplicate: true };
        }
        let available = self.available(campaign, now, true);
        if self.paused(campaign) || i128::from(ask.1) * 1_000 > available {
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

    fn renew(&mut self, now: i64, id: u64, epoch: u64) -> Did {
        let Some(lease) = self.leases.get(&id) else { return Did::Refused };
        let fits = if lease.lives(now) {
            true
        } else {
            self.is_kept(lease, now) && lease.comes_back_with(now) <= self.available(lease.campaign, now, false)
        };
        if !fits || lease.epoch != epoch || self.paused(lease.campaign) {
            return Did::Refused;
        }
        let expires = lease.expires.max((now + TTL).min(lease.day + DAY));
        self.leases.insert(id, Lease { epoch: epoch + 1, expires, ..lease.clone() });
        Did::Renewed(epoch + 1, expires)
    }

    /// No more is taken back than was charged, in all and on the day.
    fn adjust(&mut self, now: i64, key: u64) -> Did {
        let (campaign, nanos, at) = correction(key);
        if self.corrections.contains(&key) {
            return Did::Recorded { duplicate: true };
        }
        let charged = self.charged(campaign, None).min(self.charged(campaign, Some(at - at.rem_euclid(DAY))));
        if at > now || (nanos < 0 && charged + i128::from(nanos) < 0) {
            return Did::Refused;
        }
        self.corrections.insert(key);
        Did::Recorded { duplicate: false }
    }

    /// Ended leases: the slot that was charged is settled, the open ones below the mark are free.
    fn reconcile(&mut self, now: i64, campaign: usize, charged: Option<(u64, u32, i64)>) -> Did {
        if let Some((id, slot, _)) = charged {
            match self.leases.get(&id) {
                None => return Did::Refused,
                Some(lease) if lease.campaign == campaign && (lease.lives(now) || slot >= lease.slots) => return Did::Refused,
                Some(_) => {}
            }
        }
        let before = self.held(campaign, None, now);
        let (mut settled, mut voided) = (0, 0);
        for (id, lease) in self.leases.iter_mut().filter(|(_, lease)| lease.campaign == campaign && !lease.lives(now)) {
            let mut held = lease.holds(now);
            if let Some((_, slot, price)) = charged.filter(|(of, slot, _)| of == id && !lease.closed.contains_key(slot)) {
                let below = slot < lease.mark.0;
                let share = if below { held.min(price.into()) } else { 0 };
                held -= share;
                lease.closed.insert(slot, (if below { share } else { -1 }, Some(price.into())));
                settled += 1;
            }
            for slot in 0..lease.mark.0 {
                if let std::collections::btree_map::Entry::Vacant(open) = lease.closed.entry(slot) {
                    lease.reconciled = true;
                    open.insert((std::mem::take(&mut held), None)); // how it is divided shows nowhere
                    voided += 1;
                }
            }
        }
        Did::Reconciled { settled, voided, freed: before - self.held(campaign, None, now) }
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
