//! Scopes, windows, pauses, corrections and reconciliation: by example, and under generated operations with a simple
//! model beside the fold.

mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use kiki::money::Micros;
use model::Model;
use proptest::prelude::*;
use syncshield::domain::ledger::{Closing, Granted, LeaseAsk, Ledger, SlotOutcome};
use syncshield::domain::reconcile::{Charged, Reconciled, Report};
use syncshield::domain::refusal::Refusal;
use syncshield::domain::scopes::At;
use syncshield::domain::state::State;

const TTL: Duration = Duration::from_secs(60);
const NOON: i64 = 1_770_000_000_000_000;
const CAMPAIGNS: [&str; 2] = ["c", "d"];
const PLATFORMS: [&str; 2] = ["meta", "google"];

fn campaign(id: &str, total: i64, daily: i64) -> leaf::Campaign {
    leaf::Campaign {
        campaign: id.into(),
        currency: "USD".into(),
        zone: "Europe/Berlin".into(),
        limit_total_micros: total,
        limit_daily_micros: daily,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    }
}

fn ledger(total: i64) -> Ledger {
    let mut ledger = Ledger::new("test.local/log".into(), State::default());
    ledger.set_now(UnixMicros(NOON));
    for id in CAMPAIGNS {
        ledger.put_campaign("acme", campaign(id, total, 0)).unwrap();
    }
    ledger
}

fn limits(campaign: &str, platform: &str) -> leaf::Limits {
    leaf::Limits { campaign: campaign.into(), platform: platform.into(), currency: "USD".into(), ..Default::default() }
}

fn ask(key: &str, campaign: &str, platform: &str, holder: &str, amount: i64) -> LeaseAsk {
    LeaseAsk {
        key: key.into(),
        client: "acme".into(),
        campaign: campaign.into(),
        holder: holder.into(),
        amount: Micros::new(amount),
        least: Micros::new(1),
        mark: (0, 0),
        ttl: TTL,
        reservation: false,
        platform: platform.into(),
    }
}

fn amount(granted: Granted) -> i64 {
    granted.lease.unwrap().amount.get()
}

fn mark(ledger: &mut Ledger, campaign: &str, lease_id: u64, sequence: u32, amount_nanos: i64) -> Result<(), Refusal> {
    ledger.mark("acme", leaf::SpendMark { lease_id, epoch: 1, sequence, amount_nanos, campaign: campaign.into() })
}

fn settle(ledger: &mut Ledger, campaign: &str, lease_id: u64, sequence: u32, max_nanos: i64, price_nanos: i64) -> SlotOutcome {
    let time = Some(UnixMicros(NOON).into());
    let what = leaf::Settlement { sequence, max_nanos, price_nanos, bid_at: time, noticed_at: time, ..Default::default() };
    ledger.settle(vec![Closing { client: "acme".into(), campaign: campaign.into(), lease_id, what }]).remove(0)
}

fn later(ledger: &mut Ledger, by: Duration) {
    let now = ledger.now().plus(by);
    ledger.set_now(now);
}

fn adjustment(key: &str, campaign: &str, platform: &str, amount_nanos: i64, at: UnixMicros) -> leaf::SpendAdjustment {
    leaf::SpendAdjustment {
        key: key.into(),
        campaign: campaign.into(),
        platform: platform.into(),
        currency: "USD".into(),
        amount_nanos,
        kind: leaf::AdjustmentKind::Platform.into(),
        reason: "statement of the month".into(),
        evidence_sha256: vec![7; 32].into(),
        accounted_at: Some(at.into()),
        ..Default::default()
    }
}

fn report(campaign: &str, platform: &str, until: UnixMicros, leases: BTreeMap<u64, Charged>) -> Report {
    let (client, campaign, platform) = ("acme".into(), campaign.into(), platform.into());
    Report { client, campaign, platform, until, leases, evidence: vec![8; 32], reason: "daily report".into() }
}

fn bodies(ledger: &mut Ledger) -> Vec<Body> {
    ledger.take_pending().payloads().map(|bytes| leaf::decode(bytes).unwrap().1).collect()
}

#[test]
fn a_grant_is_held_against_every_scope_that_it_falls_in() {
    let mut ledger = ledger(1_000);
    ledger.put_limits("acme", leaf::Limits { limit_total_micros: 1_200, ..limits("", "") }, None).unwrap();
    ledger.put_limits("acme", leaf::Limits { limit_total_micros: 300, ..limits("c", "meta") }, None).unwrap();
    assert_eq!(amount(ledger.lease(&ask("a", "c", "meta", "h", 900)).unwrap()), 300, "the platform's limit");
    assert_eq!(amount(ledger.lease(&ask("b", "c", "google", "h", 900)).unwrap()), 700, "the campaign's own");
    assert_eq!(amount(ledger.lease(&ask("d", "d", "meta", "h", 900)).unwrap()), 200, "the client's");
    let refused = ledger.lease(&ask("e", "d", "meta", "h", 900)).unwrap_err();
    assert!(matches!(refused, Refusal::Exhausted { limit: "client's total", .. }), "{refused}");
    assert!(ledger.lease(&ask("f", "c", "", "h", 1)).is_err(), "a campaign with limits by platform wants a platform");
}

#[test]
fn a_daily_limit_of_the_client_ends_with_its_day() {
    let mut ledger = ledger(1_000);
    let daily = leaf::Limits { limit_daily_micros: 100, ..limits("", "") };
    assert!(ledger.put_limits("acme", leaf::Limits { zone: "UTC".into(), ..daily.clone() }, None).is_err(), "campaigns have other days");
    ledger.put_limits("acme", daily, None).unwrap();
    assert_eq!(amount(ledger.lease(&ask("a", "c", "meta", "h", 60)).unwrap()), 60);
    assert_eq!(amount(ledger.lease(&ask("b", "d", "meta", "h", 60)).unwrap()), 40);
    assert!(ledger.put_campaign("acme", leaf::Campaign { zone: "UTC".into(), ..campaign("c", 1, 0) }).is_err());
    later(&mut ledger, Duration::from_secs(86_400));
    assert_eq!(amount(ledger.lease(&ask("c", "d", "meta", "h", 60)).unwrap()), 60);
}

#[test]
fn a_window_counts_a_lease_until_the_window_after_its_end() {
    let mut ledger = ledger(1_000);
    ledger.put_limits("acme", leaf::Limits { limit_window_micros: 100, ..limits("c", "") }, None).unwrap();
    let id = ledger.lease(&ask("a", "c", "meta", "h", 100)).unwrap().lease_id;
    mark(&mut ledger, "c", id, 1, 80_000).unwrap();
    assert_eq!(settle(&mut ledger, "c", id, 0, 80_000, 70_000), SlotOutcome::Applied);
    later(&mut ledger, TTL);
    assert_eq!(amount(ledger.lease(&ask("b", "c", "meta", "h", 100)).unwrap()), 30, "what was not spent is free at its end");
    later(&mut ledger, Duration::from_secs(599));
    assert_eq!(amount(ledger.lease(&ask("c", "c", "meta", "h", 100)).unwrap()), 30, "the second lease left nothing behind");
    later(&mut ledger, TTL + Duration::from_secs(20));
    assert_eq!(amount(ledger.lease(&ask("d", "c", "meta", "h", 100)).unwrap()), 100);
}

#[test]
fn a_paused_scope_grants_renews_and_marks_nothing_and_settles_all() {
    for scope in [limits("", ""), limits("c", ""), limits("c", "meta")] {
        let mut ledger = ledger(1_000);
        let id = ledger.lease(&ask("a", "c", "meta", "h", 100)).unwrap().lease_id;
        mark(&mut ledger, "c", id, 1, 50_000).unwrap();
        ledger.put_limits("acme", leaf::Limits { paused: true, ..scope.clone() }, None).unwrap();
        assert!(matches!(ledger.lease(&ask("b", "c", "meta", "h", 1)), Err(Refusal::Inactive { .. })));
        assert!(matches!(ledger.renew("acme", "c", id, 1, TTL), Err(Refusal::Inactive { .. })));
        assert!(matches!(mark(&mut ledger, "c", id, 2, 60_000), Err(Refusal::Inactive { .. })));
        assert_eq!(settle(&mut ledger, "c", id, 0, 50_000, 50_000), SlotOutcome::Applied);
        ledger.put_limits("acme", scope, None).unwrap();
        assert!(ledger.renew("acme", "c", id, 1, TTL).is_ok());
    }
}

#[test]
fn a_lowered_limit_overcommits_and_stops_grants() {
    let mut ledger = ledger(1_000);
    ledger.lease(&ask("a", "c", "meta", "h", 500)).unwrap();
    let (_, version) = ledger.put_limits("acme", leaf::Limits { limit_total_micros: 100, ..limits("c", "meta") }, None).unwrap();
    assert_eq!(version, 1);
    let at = At { now: ledger.now(), day: UnixMicros(0), commitments: true, outage: None };
    let standings = ledger.state.clients["acme"].standings(at, "c", |_| true);
    assert_eq!(standings.iter().map(|s| s.available()).collect::<Vec<_>>(), [500_000, -400_000]);
    assert!(matches!(ledger.lease(&ask("b", "c", "meta", "h", 1)), Err(Refusal::Exhausted { limit: "platform's total", .. })));
    assert!(ledger.lease(&ask("c", "c", "google", "h", 1)).is_ok());
}

#[test]
fn a_credit_frees_what_it_gives_back_and_never_more_than_was_charged() {
    let mut ledger = ledger(100);
    let id = ledger.lease(&ask("a", "c", "meta", "h", 100)).unwrap().lease_id;
    mark(&mut ledger, "c", id, 1, 100_000).unwrap();
    settle(&mut ledger, "c", id, 0, 100_000, 100_000);
    assert!(ledger.lease(&ask("b", "c", "meta", "h", 1)).is_err());
    let now = ledger.now();
    let credit = leaf::SpendAdjustment { kind: leaf::AdjustmentKind::InvalidTraffic.into(), ..adjustment("k", "c", "meta", -30_000, now) };
    assert!(ledger.adjust("acme", leaf::SpendAdjustment { amount_nanos: 30_000, ..credit.clone() }).is_err(), "a credit is below 0");
    assert!(ledger.adjust("acme", adjustment("x", "c", "google", -1, now)).is_err(), "nothing was charged there");
    assert!(ledger.adjust("acme", adjustment("x", "c", "meta", -100_001, now)).is_err());
    assert!(ledger.adjust("acme", adjustment("x", "c", "meta", -1, now.plus(TTL))).is_err(), "in the future");
    assert!(ledger.adjust("acme", leaf::SpendAdjustment { evidence_sha256: vec![1].into(), ..credit.clone() }).is_err());
    let first = ledger.adjust("acme", credit.clone()).unwrap();
    let again = ledger.adjust("acme", credit.clone()).unwrap();
    assert_eq!((first.index, first.duplicate, again.duplicate), (again.index, false, true));
    assert!(matches!(ledger.adjust("acme", leaf::SpendAdjustment { amount_nanos: -1, ..credit }), Err(Refusal::KeyReused { .. })));
    assert_eq!(ledger.state.clients["acme"].totals["USD"].settled_nanos, 70_000);
    assert_eq!(amount(ledger.lease(&ask("c", "c", "meta", "h", 100)).unwrap()), 30);
}

#[test]
fn a_report_settles_what_it_proves_charged_and_frees_the_rest() {
    let mut ledger = ledger(1_000);
    let id = ledger.lease(&ask("a", "c", "meta", "h", 1_000)).unwrap().lease_id;
    mark(&mut ledger, "c", id, 4, 1_000_000).unwrap();
    settle(&mut ledger, "c", id, 0, 250_000, 200_000);
    let slots = BTreeMap::from([(id, Charged::Slots(BTreeMap::from([(0, 200_000), (2, 100_000)])))]);
    let early = report("c", "meta", ledger.now(), slots.clone());
    assert!(ledger.reconcile(&early).is_err(), "the lease lives");
    later(&mut ledger, TTL);
    let ask_more = LeaseAsk { least: Micros::new(51), ..ask("b", "c", "meta", "h", 1_000) };
    assert!(ledger.lease(&ask_more).is_err(), "the open slots are held, and 50 were saved on the first");
    let other = report("c", "google", ledger.now(), BTreeMap::new());
    assert_eq!(ledger.reconcile(&other).unwrap(), Reconciled::default());
    drop(ledger.take_pending());
    let report = report("c", "meta", ledger.now(), slots);
    let done = ledger.reconcile(&report).unwrap();
    assert_eq!(done, Reconciled { settled: 1, voided: 2, adjusted: 0, freed: 750_000, remaining: 0 });
    assert_eq!(ledger.reconcile(&report).unwrap(), Reconciled::default(), "a report that comes again changes nothing");
    assert_eq!(ledger.state.campaign("acme", "c").unwrap().settled_nanos, 300_000);
    let voids: Vec<_> = bodies(&mut ledger).into_iter().filter_map(|b| if let Body::Voids(v) = b { Some(v.voids) } else { None }).collect();
    assert_eq!(
        voids.concat().iter().map(|v| (v.sequence, v.max_nanos, v.evidence.len())).collect::<Vec<_>>(),
        [(1, 325_000, 32), (3, 325_000, 32)]
    );
    assert_eq!(amount(ledger.lease(&ask("c", "c", "meta", "h", 1_000)).unwrap()), 700);
}

#[test]
fn a_reported_total_becomes_an_adjustment() {
    let mut ledger = ledger(1_000);
    let mut ids = Vec::new();
    for key in ["a", "b"] {
        let id = ledger.lease(&ask(key, "c", "meta", "h", 400)).unwrap().lease_id;
        mark(&mut ledger, "c", id, 2, 400_000).unwrap();
        settle(&mut ledger, "c", id, 0, 200_000, 200_000);
        ids.push(id);
    }
    later(&mut ledger, TTL);
    let totals = |a, b| BTreeMap::from([(ids[0], Charged::Total(a)), (ids[1], Charged::Total(b))]);
    let bad = report("c", "meta", ledger.now(), totals(-1, 0));
    let before = format!("{:?}", ledger.state);
    assert!(ledger.reconcile(&bad).is_err());
    assert_eq!(format!("{:?}", ledger.state), before);
    let good = report("c", "meta", ledger.now(), totals(150_000, 230_000));
    assert_eq!(ledger.reconcile(&good).unwrap(), Reconciled { settled: 0, voided: 2, adjusted: 2, freed: 400_000, remaining: 0 });
    assert_eq!(ledger.state.campaign("acme", "c").unwrap().settled_nanos, 380_000);
    assert_eq!(ledger.reconcile(&good).unwrap().adjusted, 0);
}

#[test]
fn each_part_of_a_limit_is_alerted_once_a_version() {
    let mut ledger = ledger(100);
    let id = ledger.lease(&ask("a", "c", "meta", "h", 100)).unwrap().lease_id;
    mark(&mut ledger, "c", id, 10, 100_000).unwrap();
    let mut alerts = Vec::new();
    for slot in 0..10 {
        settle(&mut ledger, "c", id, slot, 10_000, 10_000);
        let raised = bodies(&mut ledger).into_iter().filter_map(|b| if let Body::BudgetAlert(a) = b { Some(a) } else { None });
        alerts.extend(raised.map(|alert| (slot, alert.threshold_percent)));
    }
    assert_eq!(alerts, [(6, 70), (8, 90), (9, 100)]);
    ledger.put_campaign("acme", campaign("c", 120, 0)).unwrap();
    let raised =
        bodies(&mut ledger).into_iter().filter(|b| matches!(b, Body::BudgetAlert(a) if a.version == 2 && a.threshold_percent == 70));
    assert_eq!(raised.count(), 1, "83 % of the new limit");
}

#[test]
fn a_budget_that_runs_out_is_shared_between_its_holders() {
    let mut ledger = ledger(1_000);
    assert_eq!(amount(ledger.lease(&ask("a", "c", "meta", "h1", 800)).unwrap()), 800, "alone");
    assert_eq!(amount(ledger.lease(&ask("b", "c", "meta", "h2", 800)).unwrap()), 50, "a half of an even part of 200");
    assert_eq!(amount(ledger.lease(&ask("c", "c", "meta", "h3", 800)).unwrap()), 25, "of three");
    let least = LeaseAsk { least: Micros::new(100), ..ask("d", "c", "meta", "h1", 800) };
    assert_eq!(amount(ledger.lease(&least).unwrap()), 100, "the least that is of use");
    later(&mut ledger, Duration::from_secs(601));
    assert_eq!(amount(ledger.lease(&ask("e", "c", "meta", "h2", 1_000)).unwrap()), 1_000, "the others are gone");
}

#[derive(Debug, Clone)]
enum Op {
    Lease { key: u8, campaign: usize, platform: usize, holder: u8, amount: i64 },
    Mark { lease: usize, slots: u32, nanos: i64 },
    Return { lease: usize },
    Renew { lease: usize },
    Settle { lease: usize, slot: u32, part: u8 },
    Void { lease: usize, slot: u32 },
    Wait { seconds: u64 },
    Limits { scope: usize, total: i64, daily: i64, window: i64, paused: bool },
    Campaign { campaign: usize, total: i64, daily: i64 },
    Adjust { campaign: usize, platform: usize, nanos: i64 },
    Reconcile { campaign: usize, platform: usize, lease: usize, price: i64, total: bool },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (lease, two) = (0..6_usize, 0..2_usize);
    let limit = || prop_oneof![2 => Just(0_i64), 3 => 1..1_500_i64];
    let op = prop_oneof![
        5 => (any::<u8>(), two.clone(), two.clone(), 0..3_u8, 1..600_i64)
            .prop_map(|(key, campaign, platform, holder, amount)| Op::Lease { key, campaign, platform, holder, amount }),
        5 => (lease.clone(), 1..5_u32, 1..100_000_i64).prop_map(|(lease, slots, nanos)| Op::Mark { lease, slots, nanos }),
        1 => lease.clone().prop_map(|lease| Op::Return { lease }),
        1 => lease.clone().prop_map(|lease| Op::Renew { lease }),
        8 => (lease.clone(), 0..6_u32, 0..=100_u8).prop_map(|(lease, slot, part)| Op::Settle { lease, slot, part }),
        3 => (lease.clone(), 0..6_u32).prop_map(|(lease, slot)| Op::Void { lease, slot }),
        3 => prop_oneof![3 => 1..90_u64, 1 => 300..40_000_u64].prop_map(|seconds| Op::Wait { seconds }),
        2 => (0..7_usize, limit(), limit(), limit(), prop::bool::weighted(0.1))
            .prop_map(|(scope, total, daily, window, paused)| Op::Limits { scope, total, daily, window, paused }),
        1 => (two.clone(), 0..3_000_i64, limit()).prop_map(|(campaign, total, daily)| Op::Campaign { campaign, total, daily }),
        1 => (two.clone(), two.clone(), -50_000..20_000_i64).prop_map(|(campaign, platform, nanos)| Op::Adjust { campaign, platform, nanos }),
        1 => (two.clone(), two, lease, 0..120_000_i64, any::<bool>())
            .prop_map(|(campaign, platform, lease, price, total)| Op::Reconcile { campaign, platform, lease, price, total }),
    ];
    prop::collection::vec(op, 1..150)
}

/// A holder as SyncFlow is one: it gives each slot below its mark a price, and never more than it marked.
struct Holder {
    id: u64,
    campaign: &'static str,
    platform: &'static str,
    epoch: u64,
    prices: Vec<i64>,
}

struct World {
    ledger: Ledger,
    holders: Vec<Holder>,
    step: usize,
}

impl World {
    fn holder(&mut self, from_last: usize) -> Option<&mut Holder> {
        self.holders.iter_mut().rev().nth(from_last)
    }

    fn money(&mut self, op: &Op) {
        match *op {
            Op::Lease { key, campaign, platform, holder, amount } => {
                let (campaign, platform) = (CAMPAIGNS[campaign], PLATFORMS[platform]);
                let ask = ask(&format!("k{key}"), campaign, platform, &format!("h{holder}"), amount);
                if let Ok(Granted { lease_id: id, duplicate: false, .. }) = self.ledger.lease(&ask) {
                    self.holders.push(Holder { id, campaign, platform, epoch: 1, prices: Vec::new() });
                }
            }
            Op::Limits { scope, total, daily, window, paused } => {
                let scopes = [("", ""), ("c", ""), ("d", ""), ("c", "meta"), ("c", "google"), ("d", "meta"), ("d", "google")];
                let set = leaf::Limits {
                    limit_total_micros: total,
                    limit_daily_micros: daily,
                    limit_window_micros: window,
                    paused,
                    ..limits(scopes[scope].0, scopes[scope].1)
                };
                self.ledger.put_limits("acme", set, None).unwrap();
            }
            Op::Campaign { campaign: id, total, daily } => {
                self.ledger.put_campaign("acme", campaign(CAMPAIGNS[id], total, daily)).unwrap();
            }
            Op::Adjust { campaign, platform, nanos } => {
                let now = self.ledger.now();
                drop(
                    self.ledger
                        .adjust("acme", adjustment(&format!("a{}", self.step), CAMPAIGNS[campaign], PLATFORMS[platform], nanos, now)),
                );
            }
            Op::Reconcile { campaign, platform, lease, price, total } => {
                let named = self.holder(lease).map(|holder| holder.id).unwrap_or(1);
                let charged = if total { Charged::Total(price) } else { Charged::Slots(BTreeMap::from([(1, price), (3, price / 2)])) };
                let leases = BTreeMap::from([(named, charged)]);
                let now = self.ledger.now();
                let mut report = report(CAMPAIGNS[campaign], PLATFORMS[platform], now, leases);
                if self.ledger.reconcile(&report).is_err() {
                    report.leases.clear();
                    self.ledger.reconcile(&report).unwrap();
                }
            }
            _ => self.holding(op),
        }
    }

    fn holding(&mut self, op: &Op) {
        let (Op::Mark { lease, .. } | Op::Return { lease } | Op::Renew { lease } | Op::Settle { lease, .. } | Op::Void { lease, .. }) = *op
        else {
            if let Op::Wait { seconds } = *op {
                later(&mut self.ledger, Duration::from_secs(seconds));
            }
            return;
        };
        let Some(holder) = self.holders.iter_mut().rev().nth(lease) else { return };
        let (lease_id, epoch, campaign) = (holder.id, holder.epoch, holder.campaign.to_owned());
        let (used, sum) = (holder.prices.len() as u32, holder.prices.iter().sum::<i64>());
        match *op {
            Op::Mark { slots, nanos, .. } => {
                let amount_nanos = sum + i64::from(slots) * nanos;
                let mark = leaf::SpendMark { lease_id, epoch, sequence: used + slots, amount_nanos, campaign };
                if self.ledger.mark("acme", mark).is_ok() {
                    holder.prices.extend(std::iter::repeat_n(nanos, slots as usize));
                }
            }
            Op::Return { .. } => {
                let returned = leaf::LeaseReturned { lease_id, epoch, sequence: used, amount_nanos: sum, campaign };
                drop(self.ledger.give_back("acme", returned));
            }
            Op::Renew { .. } if self.ledger.renew("acme", &campaign, lease_id, epoch, TTL).is_ok() => holder.epoch += 1,
            Op::Settle { slot, part, .. } => {
                let Some(max) = holder.prices.get(slot as usize).copied() else { return };
                settle(&mut self.ledger, &campaign, lease_id, slot, max, max * i64::from(part) / 100);
            }
            Op::Void { slot, .. } => {
                let Some(max_nanos) = holder.prices.get(slot as usize).copied() else { return };
                let what = leaf::Void { sequence: slot, max_nanos, ..Default::default() };
                drop(self.ledger.void(vec![Closing { client: "acme".into(), campaign, lease_id, what }]));
            }
            _ => {}
        }
        debug_assert!(PLATFORMS.contains(&holder.platform));
    }
}

fn run(ops: &[Op]) -> Ledger {
    let mut world = World { ledger: ledger(1_000), holders: Vec::new(), step: 0 };
    for op in ops {
        world.step += 1;
        world.money(op);
    }
    world.ledger
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn what_the_leaves_say_keeps_every_limit_of_every_scope(ops in ops()) {
        let mut ledger = run(&ops);
        let mut model = Model::default();
        let mut state = State::default();
        for bytes in ledger.take_pending().payloads() {
            let (head, body) = leaf::decode(bytes).unwrap();
            let now = UnixMicros::from_pb(head.recorded_at.as_ref()).unwrap();
            state.apply(&head, &body).unwrap();
            model.take_in(now, &body);
            model.check(now, &body);
            model.compare(now, &state);
        }
        model.check_alerts();
        prop_assert_eq!(format!("{state:?}"), format!("{:?}", ledger.state));
    }

    #[test]
    fn a_snapshot_and_the_leaves_behind_it_give_the_same_state(ops in ops(), cut in 0..100_usize) {
        let mut ledger = run(&ops);
        let pending = ledger.take_pending();
        let leaves: Vec<_> = pending.payloads().collect();
        let fold = |from: State, leaves: &[&[u8]]| leaves.iter().fold(from, |mut state, bytes| {
            let (head, body) = leaf::decode(bytes).unwrap();
            state.apply(&head, &body).unwrap();
            state
        });
        let cut = cut * leaves.len() / 100;
        let snapshot = postcard::to_stdvec(&fold(State::default(), &leaves[..cut])).unwrap();
        let restarted = fold(postcard::from_bytes(&snapshot).unwrap(), &leaves[cut..]);
        prop_assert_eq!(format!("{restarted:?}"), format!("{:?}", ledger.state));
    }
}
