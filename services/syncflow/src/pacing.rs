//! The pacers of the campaigns that are paced: asked by each of their bids, told of each charge, and of what the log says
//! was spent in all whenever a lease is granted or renewed. So several SyncFlows that share a budget each pace the whole.
//!
//! They are kept in memory: a new process begins anew, at a share of the value, and is told what was spent by its first lease.

use std::collections::HashMap;
use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::money::Nanos;
use kiki::pb::syncshield::v1::Budget;
use parking_lot::Mutex;

use crate::domain::pacing::Pacer;
use crate::domain::receipt::Receipt;
use crate::domain::targeting::Campaign;
use crate::metrics::Metrics;

/// The pacers, by client and campaign; as many as there are campaigns at SyncShield at the most.
#[derive(Debug)]
pub struct Pacing {
    pacers: Mutex<HashMap<(String, String), Pacer>>,
    metrics: Metrics,
}

impl Pacing {
    /// No pacers yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { pacers: Mutex::default(), metrics })
    }

    /// What the campaign's bids are divided by less one, parts per million; 0 where it is not paced.
    #[must_use]
    pub fn lambda_ppm(&self, campaign: &Campaign, now: UnixMicros) -> u64 {
        let Some(plan) = &campaign.pacing else { return 0 };
        let key = (campaign.client.clone(), campaign.id.clone());
        self.pacers.lock().entry(key).or_insert_with(|| Pacer::new(plan, now)).lambda_ppm(plan, now)
    }

    /// An impression was charged.
    pub fn charged(&self, receipt: &Receipt, price: Nanos) {
        self.tell(&receipt.client, &receipt.campaign, |pacer| pacer.charged(price, receipt.granted_at));
    }

    /// What the log says of a budget, in the day that ends then.
    pub fn told(&self, budget: &Budget, day_end: UnixMicros) {
        let settled = budget.settled_today_nanos.as_ref().map_or(0, i128::from);
        self.tell(&budget.client, &budget.campaign, |pacer| pacer.total(settled, day_end));
    }

    fn tell(&self, client: &str, campaign: &str, word: impl FnOnce(&mut Pacer)) {
        let key = (client.to_owned(), campaign.to_owned());
        if let Some(pacer) = self.pacers.lock().get_mut(&key) {
            word(pacer);
            self.metrics.paced(client, campaign, pacer.divisor());
        }
    }
}
