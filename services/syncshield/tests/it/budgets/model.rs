//! A budget as one would write it on paper: all leases and charges in lists, every sum made anew. It shares nothing
//! with the fold but the leaves.

use std::collections::{BTreeMap, BTreeSet};

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use syncshield::domain::scopes::{At, Kind};
use syncshield::domain::state::State;

struct Lease {
    campaign: String,
    platform: String,
    day: UnixMicros,
    ends: UnixMicros,
    returned: bool,
    amount: i128,
    mark: (u32, i128),
    closed: BTreeSet<u32>,
    closed_nanos: i128,
}

struct Charge {
    campaign: String,
    platform: String,
    day: UnixMicros,
    lease: u64,
    nanos: i128,
}

#[derive(Default)]
pub(crate) struct Model {
    leases: BTreeMap<u64, Lease>,
    charges: Vec<Charge>,
    limits: BTreeMap<(String, String), leaf::Limits>,
    campaigns: BTreeMap<String, leaf::Campaign>,
    alerts: BTreeSet<(String, String, i32, bool, u64, i64, u32)>,
    /// Own totals that a charge took to a threshold: campaign, version, percent.
    due: BTreeSet<(String, u64, u32)>,
}

impl Lease {
    fn committed(&self, now: UnixMicros) -> i128 {
        let lives = !self.returned && now < self.ends;
        if lives {
            (self.amount - self.closed_nanos).max(0)
        } else if self.closed.range(..self.mark.0).count() as u32 == self.mark.0 {
            0
        } else {
            (self.mark.1 - self.closed_nanos).max(0)
        }
    }
}

fn time(time: &Option<prost_types::Timestamp>) -> UnixMicros {
    UnixMicros::from_pb(time.as_ref()).unwrap()
}

impl Model {
    pub(crate) fn take_in(&mut self, now: UnixMicros, body: &Body) {
        match body {
            Body::Campaign(b) => drop(self.campaigns.insert(b.campaign.clone(), b.clone())),
            Body::Limits(b) => drop(self.limits.insert((b.campaign.clone(), b.platform.clone()), b.clone())),
            Body::LeaseGranted(b) => {
                let lease = Lease {
                    campaign: b.campaign.clone(),
                    platform: b.platform.clone(),
                    day: time(&b.day_start),
                    ends: time(&b.expires_at),
                    returned: false,
                    amount: i128::from(b.amount_micros) * 1_000,
                    mark: (0, 0),
                    closed: BTreeSet::new(),
                    closed_nanos: 0,
                };
                assert!(self.leases.insert(b.lease_id, lease).is_none());
            }
            Body::LeaseRenewed(b) => self.leases.get_mut(&b.lease_id).unwrap().ends = time(&b.expires_at),
            Body::SpendMark(b) => self.leases.get_mut(&b.lease_id).unwrap().mark = (b.sequence, b.amount_nanos.into()),
            Body::LeaseReturned(b) => {
                let lease = self.leases.get_mut(&b.lease_id).unwrap();
                (lease.returned, lease.mark, lease.ends) = (true, (b.sequence, b.amount_nanos.into()), lease.ends.min(now));
            }
            Body::Settlements(b) => {
                for s in &b.settlements {
                    self.close(b.lease_id, s.sequence, s.max_nanos);
                    let lease = &self.leases[&b.lease_id];
                    let (campaign, platform, day) = (lease.campaign.clone(), lease.platform.clone(), lease.day);
                    self.charges.push(Charge { campaign, platform, day, lease: b.lease_id, nanos: s.price_nanos.into() });
                }
                self.note_due(&b.campaign);
            }
            Body::Voids(b) => b.voids.iter().for_each(|v| self.close(b.lease_id, v.sequence, v.max_nanos)),
            Body::SpendAdjustment(b) => {
                let (campaign, platform) = (b.campaign.clone(), b.platform.clone());
                self.charges.push(Charge { campaign, platform, day: time(&b.day_start), lease: b.lease_id, nanos: b.amount_nanos.into() });
                self.note_due(&b.campaign);
            }
            Body::BudgetAlert(b) => {
                let day = if b.limit() == leaf::LimitKind::Total { 0 } else { time(&b.day_start).0 };
                let alert = (b.campaign.clone(), b.platform.clone(), b.limit, b.own, b.version, day, b.threshold_percent);
                assert!(self.alerts.insert(alert), "alerted twice: {b:?}");
            }
            _ => {}
        }
    }

    fn close(&mut self, lease: u64, sequence: u32, max_nanos: i64) {
        let lease = self.leases.get_mut(&lease).unwrap();
        assert!(lease.closed.insert(sequence), "slot {sequence} closed twice");
        if sequence < lease.mark.0 {
            lease.closed_nanos += i128::from(max_nanos);
        }
    }

    fn note_due(&mut self, campaign: &str) {
        let document = &self.campaigns[campaign];
        let settled: i128 = self.charges.iter().filter(|c| c.campaign == campaign).map(|c| c.nanos).sum();
        for percent in [70, 90, 100] {
            if document.limit_total_micros > 0 && settled * 100 >= i128::from(document.limit_total_micros) * 1_000 * i128::from(percent) {
                self.due.insert((campaign.to_owned(), document.version, percent));
            }
        }
    }

    /// What was charged and is committed in a scope, over a span.
    fn used(&self, now: UnixMicros, scope: (&str, &str), kind: Kind, day: UnixMicros, seconds: i64) -> (i128, i128) {
        let inside =
            |campaign: &str, platform: &str| (scope.0.is_empty() || scope.0 == campaign) && (scope.1.is_empty() || scope.1 == platform);
        let recent = |id: &u64| self.leases.get(id).is_some_and(|l| l.ends.0 + seconds * 1_000_000 > now.0);
        let settled = self.charges.iter().filter(|c| inside(&c.campaign, &c.platform)).filter(|c| match kind {
            Kind::Total => true,
            Kind::Daily => c.day == day,
            Kind::Window => recent(&c.lease),
        });
        let committed = self.leases.iter().filter(|(_, l)| inside(&l.campaign, &l.platform)).filter(|(id, l)| match kind {
            Kind::Total => true,
            Kind::Daily => l.day == day,
            Kind::Window => recent(id),
        });
        (settled.map(|c| c.nanos).sum(), committed.map(|(_, l)| l.committed(now)).sum())
    }

    /// A grant keeps all limits that it falls under, and nothing is granted, renewed or marked where it is paused.
    pub(crate) fn check(&self, now: UnixMicros, body: &Body) {
        let id = match body {
            Body::LeaseGranted(b) => b.lease_id,
            Body::LeaseRenewed(b) => b.lease_id,
            Body::SpendMark(b) => b.lease_id,
            _ => return,
        };
        let lease = &self.leases[&id];
        let scopes = [("", ""), (&lease.campaign, ""), (&lease.campaign, &lease.platform)];
        for scope in scopes {
            let Some(limits) = self.limits.get(&(scope.0.to_owned(), scope.1.to_owned())) else { continue };
            assert!(!limits.paused, "{scope:?} is paused: {body:?}");
            if matches!(body, Body::LeaseGranted(_)) {
                self.keeps(now, scope, Kind::Total, lease.day, limits.limit_total_micros, 0);
                self.keeps(now, scope, Kind::Daily, lease.day, limits.limit_daily_micros, 0);
                self.keeps(now, scope, Kind::Window, lease.day, limits.limit_window_micros, limits.window_seconds.into());
            }
        }
        if matches!(body, Body::LeaseGranted(_)) {
            let document = &self.campaigns[&lease.campaign];
            let (settled, committed) = self.used(now, scopes[1], Kind::Total, lease.day, 0);
            assert!(settled + committed <= i128::from(document.limit_total_micros) * 1_000);
            self.keeps(now, scopes[1], Kind::Daily, lease.day, document.limit_daily_micros, 0);
        }
    }

    fn keeps(&self, now: UnixMicros, scope: (&str, &str), kind: Kind, day: UnixMicros, limit: i64, seconds: i64) {
        let (settled, committed) = self.used(now, scope, kind, day, seconds);
        assert!(limit == 0 || settled + committed <= i128::from(limit) * 1_000, "{scope:?} {kind:?}: {settled} + {committed} > {limit}");
    }

    /// The fold sums up what the lists do.
    pub(crate) fn compare(&self, now: UnixMicros, state: &State) {
        let Some(client) = state.clients.get("acme") else { return };
        let day = self.leases.values().next_back().map_or(UnixMicros(0), |lease| lease.day);
        for campaign in self.campaigns.keys() {
            for standing in client.standings(At { now, day, commitments: true, outage: None }, campaign, |_| true) {
                let scope = (standing.scope.campaign.as_str(), standing.scope.platform.as_str());
                let seconds = self.limits.get(&(scope.0.to_owned(), scope.1.to_owned())).map_or(0, |l| l.window_seconds.into());
                let (settled, committed) = self.used(now, scope, standing.kind, day, seconds);
                assert_eq!(standing.committed, committed, "{standing:?}");
                if standing.kind == Kind::Window {
                    // Ended leases are kept in buckets, which count up to ten seconds too long.
                    let (longer, _) = self.used(now, scope, standing.kind, day, seconds + 10);
                    assert!((settled..=longer).contains(&standing.settled), "{standing:?}: {settled} to {longer}");
                } else {
                    assert_eq!(standing.settled, settled, "{standing:?}");
                }
            }
        }
    }

    /// What was due was alerted.
    pub(crate) fn check_alerts(&self) {
        for (campaign, version, percent) in &self.due {
            let alert = (campaign.clone(), String::new(), leaf::LimitKind::Total.into(), true, *version, 0, *percent);
            assert!(self.alerts.contains(&alert), "{campaign} was not alerted at {percent} % of version {version}");
        }
    }
}
