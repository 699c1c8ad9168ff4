//! Money that is set aside: leases and reservations, from their grant to their return.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use kiki::money::{Micros, NANOS_PER_MICRO};
use prost::Message as _;

use super::Ledger;
use crate::domain::budget::{CampaignState, Lease, MAX_LEASE_MICROS, MAX_SLOTS};
use crate::domain::document;
use crate::domain::refusal::Refusal;
use crate::domain::scopes::DEFAULT_WINDOW_SECONDS;
use crate::domain::state::check_epoch;

/// A lease or reservation that is asked for.
#[derive(Debug, Clone)]
pub struct LeaseAsk {
    /// One key has one effect.
    pub key: String,
    /// Whose budget.
    pub client: String,
    /// Which campaign's.
    pub campaign: String,
    /// Who will hold it.
    pub holder: String,
    /// The most that is of use.
    pub amount: Micros,
    /// The least that is of use.
    pub least: Micros,
    /// The mark to start with: slots and nanos.
    pub mark: (u32, i64),
    /// How long it lives.
    pub ttl: Duration,
    /// A single slot, marked at once.
    pub reservation: bool,
    /// The one platform that it is spent on, or empty.
    pub platform: String,
}

/// A lease as it stands.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Its number.
    pub lease_id: u64,
    /// Its state; of one that is forgotten since, none.
    pub lease: Option<Lease>,
    /// The key had been used: nothing was granted now.
    pub duplicate: bool,
}

impl Ledger {
    /// Sets money aside, or answers with what the key was granted before.
    ///
    /// # Errors
    /// No such campaign, paused, or less than `least` is left.
    pub fn lease(&mut self, ask: &LeaseAsk) -> Result<Granted, Refusal> {
        let campaign = self.state.campaign(&ask.client, &ask.campaign)?;
        if let Some(lease_id) = campaign.lease_of_key(&ask.key) {
            return Ok(Granted { lease_id, lease: campaign.leases.get(&lease_id).cloned(), duplicate: true });
        }
        let grant = self.grant(ask, campaign)?;
        let lease_id = grant.lease_id;
        self.append(&ask.client, ("", 0), Body::LeaseGranted(grant.clone()))?;
        if ask.mark.0 > 0 && !ask.reservation {
            let amount_nanos = ask.mark.1.min((grant.amount_micros).saturating_mul(NANOS_PER_MICRO as i64));
            let mark =
                leaf::SpendMark { lease_id, epoch: 1, sequence: ask.mark.0.min(MAX_SLOTS), amount_nanos, campaign: ask.campaign.clone() };
            self.append(&ask.client, ("", 0), Body::SpendMark(mark))?;
        }
        let lease = self.state.lease(&ask.client, &ask.campaign, lease_id)?.clone();
        Ok(Granted { lease_id, lease: Some(lease), duplicate: false })
    }

    fn grant(&self, ask: &LeaseAsk, campaign: &CampaignState) -> Result<leaf::LeaseGranted, Refusal> {
        self.check_active(&ask.client, &ask.campaign)?;
        if ask.amount <= Micros::ZERO || ask.least <= Micros::ZERO || ask.least > ask.amount {
            return Err(Refusal::field(
                "amount_micros",
                format!("{} with at least {}; both are above 0, the least not above the amount", ask.amount.get(), ask.least.get()),
            ));
        }
        if ask.mark.1 < 0 {
            return Err(Refusal::field("mark_nanos", "is below 0"));
        }
        let document = leaf::Campaign::decode(campaign.document.as_slice()).map_err(|e| Refusal::field("campaign", e))?;
        let (day_start, day_end) = document::local_day(&document.zone, self.now)?;
        self.state.check_running(&ask.client, &ask.campaign, &ask.platform)?;
        let available = self.state.available(self.at(day_start), &ask.client, &ask.campaign, &ask.platform)?;
        if ask.least.nanos() > available.nanos {
            let (available_nanos, limit) = (available.nanos, available.limit);
            return Err(Refusal::Exhausted { campaign: ask.campaign.clone(), limit, available_nanos, least_nanos: ask.least.nanos() });
        }
        let most = fair_share(self.now, campaign, ask, available.nanos).min(i128::from(MAX_LEASE_MICROS)) as i64;
        Ok(leaf::LeaseGranted {
            lease_id: self.state.last_lease_id + 1,
            epoch: 1,
            campaign: ask.campaign.clone(),
            holder: ask.holder.clone(),
            currency: campaign.currency.clone(),
            amount_micros: ask.amount.get().min(most),
            granted_at: Some(self.now.into()),
            expires_at: Some(self.now.plus(ask.ttl).min(day_end).into()),
            day_start: Some(day_start.into()),
            day_end: Some(day_end.into()),
            key: ask.key.clone(),
            reservation: ask.reservation,
            slots: if ask.reservation { 1 } else { MAX_SLOTS },
            platform: ask.platform.clone(),
        })
    }

    /// A campaign that its own document pauses grants, renews and marks nothing.
    fn check_active(&self, client: &str, campaign: &str) -> Result<(), Refusal> {
        let paused = self.state.campaign(client, campaign)?.paused;
        if paused { Err(Refusal::Inactive { campaign: campaign.to_owned(), why: "is paused" }) } else { Ok(()) }
    }

    /// Extends a lease and raises its epoch.
    ///
    /// # Errors
    /// It has ended, or the epoch is not its own.
    pub fn renew(&mut self, client: &str, campaign: &str, lease_id: u64, epoch: u64, ttl: Duration) -> Result<Lease, Refusal> {
        let lease = self.renewable(client, campaign, lease_id, epoch)?;
        self.check_active(client, campaign)?;
        let expires_at = self.now.plus(ttl).min(lease.day_end).max(lease.expires_at);
        let renewed = leaf::LeaseRenewed { lease_id, epoch: epoch + 1, expires_at: Some(expires_at.into()), campaign: campaign.to_owned() };
        self.append(client, ("", 0), Body::LeaseRenewed(renewed))?;
        self.state.lease(client, campaign, lease_id).cloned()
    }

    /// Moves a lease's mark; one that is not above what stands changes nothing.
    ///
    /// # Errors
    /// It has ended, the epoch is not its own, or the mark lies beyond the lease.
    pub fn mark(&mut self, client: &str, mark: leaf::SpendMark) -> Result<(), Refusal> {
        let lease = self.state.live_lease(self.now, client, &mark.campaign, mark.lease_id)?;
        check_epoch(mark.lease_id, lease.epoch, mark.epoch)?;
        if mark.sequence <= lease.mark_sequence && i128::from(mark.amount_nanos) <= lease.mark_nanos {
            return Ok(());
        }
        self.check_active(client, &mark.campaign)?;
        self.append(client, ("", 0), Body::SpendMark(mark)).map(drop)
    }

    /// Ends a lease at what was used of it. Says what became free, nanos.
    ///
    /// # Errors
    /// It was returned, the epoch is not its own, or more was used than marked.
    pub fn give_back(&mut self, client: &str, returned: leaf::LeaseReturned) -> Result<i128, Refusal> {
        let (campaign, lease_id) = (returned.campaign.clone(), returned.lease_id);
        let before = self.state.lease(client, &campaign, lease_id)?.committed(self.now);
        self.append(client, ("", 0), Body::LeaseReturned(returned))?;
        let after = self.state.lease(client, &campaign, lease_id)?.committed(self.now);
        Ok(before - after)
    }
}

/// The most that a lease gets, micros: what is left, and where others spend from it too, half of an even part of that; so a budget
/// that runs out is shared rather than taken by who comes first. Never less than the least that is of use.
fn fair_share(now: UnixMicros, campaign: &CampaignState, ask: &LeaseAsk, available_nanos: i128) -> i128 {
    let available = available_nanos / NANOS_PER_MICRO;
    let others = campaign.other_holders(now, &ask.holder, DEFAULT_WINDOW_SECONDS) as i128;
    if ask.reservation || others == 0 { available } else { (available / (2 * (others + 1))).max(ask.least.get().into()) }
}
