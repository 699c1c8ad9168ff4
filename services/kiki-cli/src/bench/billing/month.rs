//! January of many clients, as a log has it: ten campaigns each, twenty customers a campaign; and one client more.

use std::path::Path;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf::{self, AttributionRule, Basis, Netting};
use kiki::money::Micros;
use syncshield::domain::ledger::{Closing, Item, LeaseAsk, Ledger, SlotOutcome};
use syncshield::domain::refusal::Refusal;
use syncshield::store::{Log, Paths, Store};

use crate::error::{Doing as _, Failure};

pub(super) const LOG_ID: &str = "bench.local/billing";
pub(super) const MONTH: &str = "2026-01";
/// 2026-01-10T12:00:00Z
pub(super) const DURING: UnixMicros = UnixMicros(1_768_046_400_000_000);
/// 2026-02-02T12:00:00Z
pub(super) const BEHIND: UnixMicros = UnixMicros(1_770_033_600_000_000);
/// Campaigns of a client.
pub(super) const CAMPAIGNS_EACH: u64 = 10;
/// Customers of a client.
const CUSTOMERS_EACH: u64 = 20 * CAMPAIGNS_EACH;
/// Leaves of a customer: a lease, its charge, a purchase and the conversion; all but the lease are records of Billing's.
pub(super) const LEAVES_EACH: u64 = 4;
const RECORDS_EACH: u64 = 3;
/// Customers that are written down in one step: each purchase is an item, of which 1,024 are taken at once.
const STEP: u64 = 1_000;

/// How long a lease lives.
const LEASE_TTL: Duration = Duration::from_secs(60);

const CURRENCY: &str = "USD";

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Month {
    /// Clients.
    pub(super) clients: u64,
    /// Customers of the one client more.
    pub(super) large: u64,
    /// Of a client with more leaves than so many the bundle has a sample.
    pub(super) whole_bundle_max: u64,
}

impl Month {
    /// Campaigns of all clients.
    pub(super) fn campaigns(&self) -> u64 {
        (self.clients + 1) * CAMPAIGNS_EACH
    }

    /// Fills a log in a folder; gives how many records of Billing's are in it.
    pub(super) async fn fill(&self, data: &Path, clock: VirtualClock) -> Result<u64, Failure> {
        std::fs::create_dir_all(data).doing(format_args!("making {}", data.display()))?;
        let log = Log::open_in(&Store::Files(None), &Paths::new(data), LOG_ID, Clock::Virtual(clock.clone())).doing("opening the log")?;
        let small = (0..self.clients).map(|n| (format!("client-{n:06}"), CUSTOMERS_EACH));
        for (client, customers) in small.chain([("large".to_owned(), self.large)]) {
            write_down(&log, &clock, client, customers).await?;
        }
        log.close().await;
        Ok((self.clients * CUSTOMERS_EACH + self.large) * RECORDS_EACH)
    }
}

async fn write_down(log: &Log, clock: &VirtualClock, client: String, customers: u64) -> Result<(), Failure> {
    let of = client.clone();
    log.run(move |ledger| open(ledger, &of, customers)).await.doing("putting terms and campaigns")?;
    for first in (0..customers).step_by(STEP as usize) {
        let (of, numbers, now) = (client.clone(), first..customers.min(first + STEP), clock.now());
        let charged = log.run(move |ledger| charge(ledger, &of, numbers, now)).await.doing("leasing and settling")?;
        if let Some(refused) = charged.iter().find(|outcome| **outcome != SlotOutcome::Applied) {
            return Err(Failure::new(format!("settling: {refused:?}")));
        }
        let purchases: Vec<_> = (first..customers.min(first + STEP)).map(|n| (client.clone(), Item::Purchase(purchase(n, now)))).collect();
        log.run(move |ledger| ledger.record("", 0, purchases)).await.doing("recording purchases")?;
        // What was leased has expired by the next step, as it would have over a month.
        clock.advance_to(now.plus(LEASE_TTL * 2));
    }
    Ok(())
}

fn campaign_of(number: u64) -> String {
    format!("campaign-{}", number % CAMPAIGNS_EACH)
}

fn customer_of(number: u64) -> Vec<u8> {
    u128::from(number).to_be_bytes().to_vec()
}

fn open(ledger: &mut Ledger, client: &str, customers: u64) -> Result<(), Refusal> {
    let terms = leaf::Terms {
        currency: CURRENCY.to_owned(),
        client_name: format!("{client}, Inc."),
        baseline_ppm: 3_000_000,
        share_ppm: 100_000,
        basis: Basis::Predicted.into(),
        netting: Netting::Client.into(),
        zone: "UTC".to_owned(),
        payment_days: 30,
        horizon_days: 90,
        attribution: AttributionRule::LastBilledV1.into(),
        lookback_seconds: 604_800,
        ..Default::default()
    };
    ledger.put_terms(client, terms)?;
    for number in 0..CAMPAIGNS_EACH {
        let campaign = leaf::Campaign {
            campaign: campaign_of(number),
            currency: CURRENCY.to_owned(),
            zone: "UTC".to_owned(),
            limit_total_micros: 1_000 * i64::try_from(customers).unwrap_or(i64::MAX),
            target_roas_ppm: 3_000_000,
            ..Default::default()
        };
        ledger.put_campaign(client, campaign)?;
    }
    Ok(())
}

/// An impression for each customer, reserved and charged.
fn charge(ledger: &mut Ledger, client: &str, customers: std::ops::Range<u64>, now: UnixMicros) -> Result<Vec<SlotOutcome>, Refusal> {
    let mut closings = Vec::new();
    for number in customers {
        let ask = LeaseAsk {
            key: number.to_string(),
            client: client.to_owned(),
            campaign: campaign_of(number),
            holder: "bench".to_owned(),
            amount: Micros::new(1_000),
            least: Micros::new(1_000),
            mark: (1, 0),
            ttl: LEASE_TTL,
            reservation: true,
            platform: String::new(),
        };
        let lease_id = ledger.lease(&ask)?.lease_id;
        let what = leaf::Settlement {
            max_nanos: 1_000_000,
            price_nanos: 700_000 + number as i64 % 1_000,
            bid_at: Some(now.into()),
            noticed_at: Some(now.into()),
            exchange: "bench".to_owned(),
            platform: "meta".to_owned(),
            customer: customer_of(number).into(),
            predicted_ltv_micros: 2_500 + number as i64 % 1_000,
            model: "bench".to_owned(),
            horizon_days: 90,
            ..Default::default()
        };
        closings.push(Closing { client: client.to_owned(), campaign: campaign_of(number), lease_id, what });
    }
    Ok(ledger.settle(closings))
}

fn purchase(number: u64, now: UnixMicros) -> leaf::Outcome {
    leaf::Outcome {
        event_id: number.to_string(),
        occurred_at: Some(now.into()),
        customer: customer_of(number).into(),
        currency: CURRENCY.to_owned(),
        value_micros: 2_000 + number as i64 % 2_000,
        ..Default::default()
    }
}
