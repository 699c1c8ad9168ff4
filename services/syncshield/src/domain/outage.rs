//! A restart gives holders time to come back: their leases ran out while nobody could renew them.
//!
//! For one lease's life after a start the ledger grants nobody what such leases had set aside, and renews them as if
//! they had not ended. The fold knows nothing of it: there a lease ends by the clock alone, and a renewal of an ended one
//! is taken in where what it sets aside again is free in every scope, as with a grant. A lease that was given back, whose
//! day is over, or whose open slots a platform's report has closed, does not come back.
//!
//! Who was down is told from the log: between its last leaf and the start. A log that was quiet before it stopped makes
//! that a little too long, and keeps what ended then a lease's life longer than needed.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf;

use super::budget::{CampaignState, Lease, Span};
use super::ledger::Ledger;
use super::refusal::Refusal;
use super::scopes::At;
use super::state::{State, check_epoch};

/// When SyncShield was down, and until when it waits for holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The last leaf before it.
    pub after: UnixMicros,
    /// The start.
    pub until: UnixMicros,
    /// Leases that ended in between are kept for their holders until then.
    pub keeps_until: UnixMicros,
}

impl Outage {
    /// Whether it kept the lease from being renewed, and the holder may still come.
    fn keeps(&self, lease: &Lease, now: UnixMicros) -> bool {
        let within = self.after < lease.expires_at && lease.expires_at <= self.until;
        within && now < self.keeps_until && lease.may_come_back(now)
    }
}

impl Lease {
    /// Whether it ended in a way that a renewal can undo.
    fn may_come_back(&self, now: UnixMicros) -> bool {
        let room = self.closed_slots < self.slots;
        !self.lives(now) && !self.returned && !self.reconciled && now < self.day_end && room
    }

    /// What counting it as live adds to what a span bounds, nanos.
    fn coming_back(&self, now: UnixMicros, span: Span) -> i128 {
        let live = (self.amount.nanos() - self.closed_nanos).max(0);
        match span {
            Span::Day(day) if day != self.day_start => 0,
            // It left the window, and comes back with all that was charged on it.
            Span::Window(seconds) if !self.in_window(now, seconds) => live + self.settled_nanos,
            _ => live - self.committed(now),
        }
    }
}

impl CampaignState {
    /// What is kept for holders after an outage, over a span and on one platform or all.
    pub(super) fn kept_in(&self, now: UnixMicros, platform: Option<&str>, span: Span, outage: Outage) -> i128 {
        let kept = self.leases.values().filter(|lease| platform.is_none_or(|p| lease.platform == p) && outage.keeps(lease, now));
        kept.map(|lease| lease.coming_back(now, span)).sum()
    }
}

impl State {
    /// A renewal follows the epoch. Of a lease that has ended it is a grant: what it sets aside again must be free.
    pub(super) fn check_renewal(&self, now: UnixMicros, client: &str, renewed: &leaf::LeaseRenewed) -> Result<(), Refusal> {
        let lease = self.lease(client, &renewed.campaign, renewed.lease_id)?;
        self.check_running(client, &renewed.campaign, &lease.platform)?;
        if renewed.epoch != lease.epoch + 1 {
            return Err(Refusal::StaleEpoch { lease_id: renewed.lease_id, epoch: lease.epoch, given: renewed.epoch });
        }
        if lease.lives(now) {
            return Ok(());
        }
        if !lease.may_come_back(now) {
            return Err(Refusal::LeaseEnded { lease_id: renewed.lease_id });
        }
        let at = At { now, day: lease.day_start, commitments: true, outage: None };
        for standing in self.clients[client].standings(at, &renewed.campaign, |platform| platform == lease.platform) {
            let (asked, available) = (lease.coming_back(now, standing.span), standing.available());
            if asked > available {
                let (campaign, limit) = (renewed.campaign.clone(), standing.name());
                return Err(Refusal::Exhausted { campaign, limit, available_nanos: available, least_nanos: asked });
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// Leases that ended since the last leaf are kept for their holders, as long as a lease lives.
    pub fn wait_for_holders(&mut self, ttl: Duration) {
        let (after, until) = (self.state.recorded_at, self.now());
        self.outage = Some(Outage { after, until, keeps_until: until.plus(ttl) });
    }

    /// The outage after which holders are waited for, while they are.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage.filter(|outage| self.now() < outage.keeps_until)
    }

    /// How a budget is looked at to grant from it.
    #[must_use]
    pub fn at(&self, day: UnixMicros) -> At {
        At { now: self.now(), day, commitments: true, outage: self.outage() }
    }

    /// What a campaign's money is kept for holders who may come back, nanos.
    #[must_use]
    pub fn kept(&self, campaign: &CampaignState) -> i128 {
        self.outage().map_or(0, |outage| campaign.kept_in(self.now(), None, Span::Total, outage))
    }

    /// A lease that its holder may renew: it lives, or ended in the outage.
    pub(super) fn renewable(&self, client: &str, campaign: &str, lease_id: u64, epoch: u64) -> Result<&Lease, Refusal> {
        let lease = self.state.lease(client, campaign, lease_id)?;
        if !lease.lives(self.now()) && !self.outage().is_some_and(|outage| outage.keeps(lease, self.now())) {
            return Err(Refusal::LeaseEnded { lease_id });
        }
        check_epoch(lease_id, lease.epoch, epoch)?;
        Ok(lease)
    }
}
