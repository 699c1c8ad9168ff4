//! A platform's report of what it charged, against what leases still hold.
//!
//! Expiry frees no money that may have been spent, so slots whose notice never came stay held. A report up to an instant
//! proves what became of them: what it names is settled, what it does not name is void. Live leases are never touched.
//! Everything that the report changes is a record that carries the report's digest.

use std::collections::{BTreeMap, BTreeSet};

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};

use super::adjust::{check_evidence, check_reason, excess};
use super::budget::{CampaignState, Lease, SlotState};
use super::ledger::Ledger;
use super::refusal::Refusal;

/// Slots that one request closes: those of a whole lease.
const MAX_SLOTS: usize = super::budget::MAX_SLOTS as usize;
/// Closed slots in one leaf: a void with its evidence takes at most 56 bytes, 42 KiB of the 64 that a leaf may have.
const MAX_PER_LEAF: usize = 768;
/// Leases that one report names.
pub const MAX_LEASES: usize = 1_024;

/// What a platform charged.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whose campaign.
    pub client: String,
    /// Which one.
    pub campaign: String,
    /// The leases' platform.
    pub platform: String,
    /// Leases that ended by then are covered.
    pub until: UnixMicros,
    /// What was charged on leases; nothing on one that is covered and not named.
    pub leases: BTreeMap<u64, Charged>,
    /// SHA-256 of the report.
    pub evidence: Vec<u8>,
    /// Why it is taken in.
    pub reason: String,
}

/// What was charged on one lease.
#[derive(Debug, Clone)]
pub enum Charged {
    /// Slots with their prices, nanos.
    Slots(BTreeMap<u32, i64>),
    /// In all, nanos.
    Total(i64),
}

/// What a report changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Slots that were settled.
    pub settled: u64,
    /// Slots that were voided.
    pub voided: u64,
    /// Leases whose total was corrected.
    pub adjusted: u32,
    /// What became free, nanos.
    pub freed: i128,
    /// Covered leases that the request had no room for.
    pub remaining: u32,
}

impl Report {
    fn covers(&self, lease: &Lease, now: UnixMicros) -> bool {
        lease.platform == self.platform && lease.ended(now).is_some_and(|ended| ended <= self.until)
    }

    /// What its total for a lease differs by from what was charged.
    fn delta(&self, id: u64, lease: &Lease) -> i128 {
        match self.leases.get(&id) {
            Some(Charged::Total(total)) => i128::from(*total) - lease.settled_nanos,
            _ => 0,
        }
    }

    /// The report fits the log as a whole, before any of it is taken in.
    fn check(&self, campaign: &CampaignState, last_lease_id: u64, now: UnixMicros) -> Result<(), Refusal> {
        check_evidence("evidence_sha256", &self.evidence)?;
        check_reason("reason", &self.reason)?;
        if self.until > now {
            return Err(Refusal::field("until", "is not in the past"));
        }
        if self.leases.len() > MAX_LEASES {
            return Err(Refusal::TooMany { field: "leases".into(), count: self.leases.len(), limit: MAX_LEASES });
        }
        let mut credits: BTreeMap<UnixMicros, i128> = BTreeMap::new();
        for (id, charged) in &self.leases {
            let Some(lease) = campaign.leases.get(id) else {
                // Nothing of it is open any more, or it never was.
                let known = (1..=last_lease_id).contains(id);
                known.then_some(()).ok_or_else(|| Refusal::NotFound { what: "lease", id: id.to_string() })?;
                continue;
            };
            if lease.platform != self.platform {
                let problem = format!("lease {id} is of the platform {:?}, and the report of {:?}", lease.platform, self.platform);
                return Err(Refusal::field("leases", problem));
            }
            match lease.ended(now) {
                None => return Err(Refusal::field("leases", format!("lease {id} has not ended"))),
                Some(ended) if ended > self.until => {
                    let (ended, until) = (instant(ended), instant(self.until));
                    return Err(Refusal::field("leases", format!("lease {id} ended at {ended}, and the report is until {until}")));
                }
                Some(_) => {}
            }
            let good = match charged {
                Charged::Slots(slots) => slots.iter().all(|(sequence, price)| *sequence < lease.slots && *price >= 0),
                Charged::Total(total) => *total >= 0,
            };
            good.then_some(())
                .ok_or_else(|| Refusal::field("leases", format!("lease {id} with a price below 0 or a slot that it has not")))?;
            *credits.entry(lease.day_start).or_default() += self.delta(*id, lease).min(0);
        }
        let all = credits.values().sum::<i128>();
        let days = credits.into_iter().map(|(day, nanos)| campaign.check_credit(nanos, &self.platform, day));
        let checked = days.collect::<Result<Vec<()>, String>>().map_err(|problem| Refusal::field("leases", problem));
        let platform = campaign.settled_nanos.min(if self.platform.is_empty() {
            campaign.settled_nanos
        } else {
            campaign.platforms.get(&self.platform).map_or(0, |p| p.settled_nanos)
        });
        if platform + all < 0 { Err(Refusal::field("leases", excess(all, platform, &campaign.currency))) } else { checked.map(drop) }
    }
}

/// As RFC 3339.
fn instant(at: UnixMicros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| format!("{} us", at.0), |at| at.to_string())
}

impl Ledger {
    /// Takes in a platform's report.
    ///
    /// # Errors
    /// A report that does not fit the log: nothing of it was taken in then.
    pub fn reconcile(&mut self, report: &Report) -> Result<Reconciled, Refusal> {
        let campaign = self.state.campaign(&report.client, &report.campaign)?;
        report.check(campaign, self.state.last_lease_id, self.now())?;
        let wanted = |(id, lease): &(&u64, &Lease)| {
            report.covers(lease, self.now()) && (lease.open_slots().next().is_some() || report.leases.contains_key(id))
        };
        let covered: Vec<u64> = campaign.leases.iter().filter(wanted).map(|(id, _)| *id).collect();
        let before = campaign.committed(self.now(), None);
        let mut done = Reconciled::default();
        if !covered.is_empty() {
            self.note_evidence(report)?;
        }
        let mut room = MAX_SLOTS;
        for (i, id) in covered.iter().enumerate() {
            let lease = self.state.lease(&report.client, &report.campaign, *id)?.clone();
            let open = lease.open_slots().count();
            if open > room {
                done.remaining = u32::try_from(covered.len() - i).unwrap_or(u32::MAX);
                break;
            }
            room -= open;
            self.reconcile_lease(report, *id, &lease, &mut done)?;
        }
        done.freed = before - self.state.campaign(&report.client, &report.campaign)?.committed(self.now(), None);
        Ok(done)
    }

    /// The report stands in the log once, by its digest.
    fn note_evidence(&mut self, report: &Report) -> Result<(), Refusal> {
        if self.state.clients.get(&report.client).is_some_and(|of| of.evidence.contains_key(&report.evidence)) {
            return Ok(());
        }
        let document_sha256 = report.evidence.clone().into();
        let evidence = leaf::Evidence { title: report.reason.clone(), document_sha256, ..Default::default() };
        self.append(&report.client, ("", 0), Body::Evidence(evidence)).map(drop)
    }

    fn reconcile_lease(&mut self, report: &Report, id: u64, lease: &Lease, done: &mut Reconciled) -> Result<(), Refusal> {
        let mut held = lease.committed(self.now());
        let mut closed = BTreeSet::new();
        if let Some(Charged::Slots(slots)) = report.leases.get(&id) {
            let mut settlements = Vec::new();
            for (sequence, price) in slots.iter().filter(|(sequence, _)| lease.slot(**sequence) == SlotState::Open) {
                let below = *sequence < lease.mark_sequence;
                let max_nanos = if below { i128::from(*price).min(held) } else { 0 };
                held -= max_nanos;
                settlements.push(settlement(report, lease, *sequence, max_nanos as i64, *price, self.now()));
                closed.insert(*sequence);
            }
            done.settled += settlements.len() as u64;
            self.write_settlements(report, id, lease, settlements)?;
        }
        let delta = report.delta(id, lease);
        if delta != 0 {
            self.correct(report, id, lease, delta)?;
            done.adjusted += 1;
        }
        let open: Vec<u32> = lease.open_slots().filter(|sequence| !closed.contains(sequence)).collect();
        done.voided += open.len() as u64;
        self.write_voids(report, id, &open, held)
    }

    fn write_settlements(&mut self, report: &Report, id: u64, lease: &Lease, all: Vec<leaf::Settlement>) -> Result<(), Refusal> {
        let currency = self.state.campaign(&report.client, &report.campaign)?.currency.clone();
        for settlements in all.chunks(MAX_PER_LEAF / 3) {
            let batch = leaf::SettlementBatch {
                lease_id: id,
                campaign: report.campaign.clone(),
                currency: currency.clone(),
                granted_at: Some(lease.granted_at.into()),
                day_start: Some(lease.day_start.into()),
                settlements: settlements.to_vec(),
            };
            self.append(&report.client, ("", 0), Body::Settlements(batch))?;
        }
        Ok(())
    }

    /// The log knows what all open slots hold, not what each does: each gives back an even part.
    fn write_voids(&mut self, report: &Report, id: u64, open: &[u32], held: i128) -> Result<(), Refusal> {
        let (each, rest) = (held / open.len().max(1) as i128, held % open.len().max(1) as i128);
        for (n, chunk) in open.chunks(MAX_PER_LEAF).enumerate() {
            let void = |(i, sequence): (usize, &u32)| leaf::Void {
                sequence: *sequence,
                max_nanos: (each + if n + i == 0 { rest } else { 0 }) as i64, // a lease's nanos fit 63 bits
                loss_reason: 0,
                evidence: report.evidence.clone().into(),
            };
            let voids = chunk.iter().enumerate().map(void).collect();
            let batch = leaf::VoidBatch { lease_id: id, campaign: report.campaign.clone(), voids };
            self.append(&report.client, ("", 0), Body::Voids(batch))?;
        }
        Ok(())
    }

    fn correct(&mut self, report: &Report, id: u64, lease: &Lease, delta: i128) -> Result<(), Refusal> {
        let amount_nanos = i64::try_from(delta).map_err(|_| Refusal::field("leases", format!("lease {id} is off by {delta} nanos")))?;
        let adjustment = leaf::SpendAdjustment {
            key: format!("reconciled.{id}.{}", self.state.size),
            campaign: report.campaign.clone(),
            platform: report.platform.clone(),
            currency: self.state.campaign(&report.client, &report.campaign)?.currency.clone(),
            amount_nanos,
            kind: leaf::AdjustmentKind::Reconciled.into(),
            reason: report.reason.clone(),
            evidence_sha256: report.evidence.clone().into(),
            accounted_at: Some(lease.granted_at.into()),
            day_start: Some(lease.day_start.into()),
            lease_id: id,
        };
        self.append(&report.client, ("", 0), Body::SpendAdjustment(adjustment)).map(drop)
    }
}

fn settlement(report: &Report, lease: &Lease, sequence: u32, max_nanos: i64, price_nanos: i64, now: UnixMicros) -> leaf::Settlement {
    leaf::Settlement {
        sequence,
        max_nanos,
        price_nanos,
        bid_at: Some(lease.granted_at.into()),
        noticed_at: Some(now.into()),
        platform: report.platform.clone(),
        excess: price_nanos > max_nanos || sequence >= lease.mark_sequence,
        ..Default::default()
    }
}
