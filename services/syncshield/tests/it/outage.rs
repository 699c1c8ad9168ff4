//! Leases that ran out while SyncShield was down: their holders may come back, and until they might not, nobody else gets
//! what they had.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::money::Micros;
use syncshield::domain::ledger::{Closing, LeaseAsk, Ledger, SlotOutcome};
use syncshield::domain::reconcile::Report;
use syncshield::domain::refusal::Refusal;
use syncshield::domain::scopes::At;
use syncshield::domain::state::State;

const TTL: Duration = Duration::from_secs(60);
const NOON: i64 = 1_770_000_000_000_000;

fn campaign(id: &str, total: i64) -> leaf::Campaign {
    leaf::Campaign {
        campaign: id.into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: total,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new("test.local/log".into(), State::default());
    ledger.set_now(UnixMicros(NOON));
    ledger.put_campaign("acme", campaign("c", 1_000)).unwrap();
    ledger
}

fn ask(key: &str, campaign: &str, holder: &str, amount: i64) -> LeaseAsk {
    LeaseAsk {
        key: key.into(),
        client: "acme".into(),
        campaign: campaign.into(),
        holder: holder.into(),
        amount: Micros::new(amount),
        least: Micros::new(1),
        mark: (2, 100_000),
        ttl: TTL,
        reservation: false,
        platform: "meta".into(),
    }
}

fn later(ledger: &mut Ledger, seconds: u64) {
    let now = ledger.now().plus(Duration::from_secs(seconds));
    ledger.set_now(now);
}

/// SyncShield stops now and starts again after so many seconds: all that is left is the fold.
fn restart(before: &Ledger, down: u64) -> Ledger {
    let mut ledger = Ledger::new("test.local/log".into(), before.state.clone());
    ledger.set_now(before.now().plus(Duration::from_secs(down)));
    ledger.wait_for_holders(TTL);
    ledger
}

fn granted(ledger: &mut Ledger, key: &str, campaign: &str, holder: &str, amount: i64) -> Result<i64, Refusal> {
    Ok(ledger.lease(&ask(key, campaign, holder, amount))?.lease.unwrap().amount.get())
}

/// A lease of 800 of the 1,000 micros, 100 of them marked, and an outage longer than its life.
fn after_an_outage() -> (Ledger, u64) {
    let mut before = ledger();
    let id = before.lease(&ask("a", "c", "h", 800)).unwrap().lease_id;
    (restart(&before, 600), id)
}

#[test]
fn the_holder_of_a_lease_that_ended_in_the_outage_renews_it_and_goes_on() {
    let (mut ledger, id) = after_an_outage();
    let mark = |epoch| leaf::SpendMark { lease_id: id, epoch, sequence: 9, amount_nanos: 800_000, campaign: "c".into() };
    assert_eq!(ledger.mark("acme", mark(1)), Err(Refusal::LeaseEnded { lease_id: id }), "first it is renewed");
    assert_eq!(ledger.renew("acme", "c", id, 2, TTL).unwrap_err(), Refusal::StaleEpoch { lease_id: id, epoch: 1, given: 2 });
    let lease = ledger.renew("acme", "c", id, 1, TTL).unwrap();
    assert_eq!((lease.epoch, lease.expires_at), (2, ledger.now().plus(TTL)));
    ledger.mark("acme", mark(2)).unwrap();
    // It is a lease like any other again, also to who knows nothing of the outage.
    let state = &ledger.state;
    assert_eq!(state.campaign("acme", "c").unwrap().committed(ledger.now(), None), 800_000);
}

#[test]
fn nobody_else_gets_its_money_until_one_lease_life_after_the_start() {
    let (mut ledger, id) = after_an_outage();
    assert_eq!(ledger.kept(ledger.state.campaign("acme", "c").unwrap()), 700_000, "what is above the mark");
    later(&mut ledger, 59);
    assert_eq!(granted(&mut ledger, "b", "c", "other", 1_000), Ok(200));
    assert!(matches!(granted(&mut ledger, "d", "c", "other", 1), Err(Refusal::Exhausted { available_nanos: 0, .. })));
    later(&mut ledger, 1);
    assert_eq!(ledger.kept(ledger.state.campaign("acme", "c").unwrap()), 0);
    // The mark stays held: it may have been spent.
    assert_eq!(granted(&mut ledger, "e", "c", "other", 1_000), Ok(700));
    assert_eq!(ledger.renew("acme", "c", id, 1, TTL).unwrap_err(), Refusal::LeaseEnded { lease_id: id });
}

#[test]
fn other_campaigns_and_what_nobody_held_are_granted_at_once() {
    let (mut ledger, _) = after_an_outage();
    assert_eq!(granted(&mut ledger, "b", "c", "h", 150), Ok(150), "also to the same holder");
    ledger.put_campaign("acme", campaign("new", 500)).unwrap();
    assert_eq!(granted(&mut ledger, "n", "new", "h", 500), Ok(500));
}

#[test]
fn a_lease_that_ended_before_the_outage_is_not_kept() {
    let mut before = ledger();
    let id = before.lease(&ask("a", "c", "h", 800)).unwrap().lease_id;
    later(&mut before, 61);
    before.put_campaign("acme", campaign("other", 1)).unwrap(); // SyncShield was there to hear of a renewal
    let mut ledger = restart(&before, 5);
    assert_eq!(granted(&mut ledger, "b", "c", "h", 1_000), Ok(900), "all but the mark");
    assert_eq!(ledger.renew("acme", "c", id, 1, TTL).unwrap_err(), Refusal::LeaseEnded { lease_id: id });
}

#[test]
fn what_was_given_back_or_reported_on_does_not_come_back() {
    let (mut ledger, id) = after_an_outage();
    let returned = leaf::LeaseReturned { lease_id: id, epoch: 1, sequence: 0, amount_nanos: 0, campaign: "c".into() };
    ledger.give_back("acme", returned).unwrap();
    assert_eq!(ledger.renew("acme", "c", id, 1, TTL).unwrap_err(), Refusal::LeaseEnded { lease_id: id });

    let (mut ledger, id) = after_an_outage();
    let (client, campaign, platform) = ("acme".into(), "c".into(), "meta".into());
    let (until, leases) = (ledger.now(), std::collections::BTreeMap::new());
    let report = Report { client, campaign, platform, until, leases, evidence: vec![8; 32], reason: "daily report".into() };
    assert_eq!(ledger.reconcile(&report).unwrap().voided, 2);
    assert_eq!(ledger.renew("acme", "c", id, 1, TTL).unwrap_err(), Refusal::LeaseEnded { lease_id: id });
    assert_eq!(granted(&mut ledger, "b", "c", "other", 1_000), Ok(1_000));
}

#[test]
fn no_renewal_of_an_ended_lease_takes_what_was_granted_since() {
    let (mut ledger, id) = after_an_outage();
    // Another writer of the same log, which was up all the time, knows of no outage.
    let mut up = Ledger::new("test.local/log".into(), ledger.state.clone());
    up.set_now(ledger.now());
    assert_eq!(granted(&mut up, "b", "c", "other", 500), Ok(500));
    ledger = ledger.anew(up.state.clone());
    ledger.set_now(up.now());
    let refused = ledger.renew("acme", "c", id, 1, TTL).unwrap_err();
    assert!(matches!(refused, Refusal::Exhausted { available_nanos: 400_000, least_nanos: 700_000, .. }), "{refused}");
    let campaign = ledger.state.campaign("acme", "c").unwrap();
    assert_eq!(campaign.committed(ledger.now(), None), 600_000, "500 granted and 100 marked");
}

#[test]
fn it_counts_in_a_window_with_all_that_was_charged_on_it() {
    let mut before = ledger();
    let limits = leaf::Limits {
        campaign: "c".into(),
        currency: "USD".into(),
        limit_window_micros: 900,
        window_seconds: 300,
        zone: "UTC".into(),
        ..Default::default()
    };
    before.put_limits("acme", limits, None).unwrap();
    let id = before.lease(&ask("a", "c", "h", 800)).unwrap().lease_id;
    let time = Some(UnixMicros(NOON).into());
    let what = leaf::Settlement { max_nanos: 60_000, price_nanos: 50_000, bid_at: time, noticed_at: time, ..Default::default() };
    let closing = Closing { client: "acme".into(), campaign: "c".into(), lease_id: id, what };
    assert_eq!(before.settle(vec![closing]), [SlotOutcome::Applied]);
    let mut ledger = restart(&before, 600);
    let window = |ledger: &Ledger, at: At| {
        let standings = ledger.state.clients["acme"].standings(at, "c", |_| true);
        standings.iter().find(|standing| standing.name() == "window").unwrap().available()
    };
    let unaware = At { outage: None, ..ledger.at(UnixMicros(0)) };
    assert_eq!(window(&ledger, unaware), 900_000, "its window is over");
    assert_eq!(window(&ledger, ledger.at(UnixMicros(0))), 900_000 - 740_000 - 50_000);
    ledger.renew("acme", "c", id, 1, TTL).unwrap();
    assert_eq!(window(&ledger, unaware), 900_000 - 740_000 - 50_000);
}
