//! Reservations that are settled, each step durable before the next.

use std::time::Duration;

use kiki::clock::{Clock, monotonic};
use kiki::leaf;
use kiki::money::Micros;
use syncshield::domain::ledger::{Closing, LeaseAsk, SlotOutcome};
use syncshield::store::Log;

use crate::error::{Doing as _, Failure};

/// Holders at the same time: they share commits, as bidders do.
const HOLDERS: usize = 256;

/// The campaign that all of it is for.
pub(super) async fn campaign(log: &Log) -> Result<(), Failure> {
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000_000_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    log.run(move |ledger| ledger.put_campaign("acme", campaign)).await.doing("putting the campaign").map(drop)
}

/// Pairs of a reservation and its settlement a second.
pub(super) async fn reserve_and_settle(log: &Log, time: Duration) -> Result<f64, Failure> {
    campaign(log).await?;
    let start = monotonic();
    let holders: Vec<_> = (0..HOLDERS).map(|holder| tokio::spawn(hold(log.clone(), holder, time))).collect();
    let mut pairs = 0;
    for holder in holders {
        pairs += holder.await.doing("reserving")??;
    }
    Ok(pairs as f64 / start.elapsed().as_secs_f64())
}

async fn hold(log: Log, holder: usize, time: Duration) -> Result<u64, Failure> {
    let (start, mut pairs, amount) = (monotonic(), 0, Micros::new(1_000));
    while start.elapsed() < time {
        let ask = LeaseAsk {
            key: format!("{holder}-{pairs}"),
            client: "acme".into(),
            campaign: "c".into(),
            holder: format!("h{holder}"),
            amount,
            least: amount,
            mark: (1, 0),
            ttl: Duration::from_secs(60),
            reservation: true,
            platform: String::new(),
        };
        let lease_id = log.run(move |ledger| ledger.lease(&ask)).await.doing("reserving")?.lease_id;
        let now = Some(Clock::System.now().into());
        let what = leaf::Settlement {
            sequence: 0,
            max_nanos: 1_000_000,
            price_nanos: 700_000,
            bid_at: now,
            noticed_at: now,
            ..Default::default()
        };
        let close = Closing { client: "acme".into(), campaign: "c".into(), lease_id, what };
        let closed = log.run(move |ledger| Ok(ledger.settle(vec![close]))).await.doing("settling")?;
        if closed != [SlotOutcome::Applied] {
            return Err(Failure::new(format!("settling lease {lease_id}: {closed:?}")));
        }
        pairs += 1;
    }
    Ok(pairs)
}
