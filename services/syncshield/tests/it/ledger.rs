//! The budget under generated operations, with the invariants checked after every leaf.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use kiki::money::Micros;
use proptest::prelude::*;
use prost::Message as _;
use syncshield::domain::ledger::{Closing, Item, LeaseAsk, Ledger, SlotOutcome};
use syncshield::domain::refusal::Refusal;
use syncshield::domain::state::State;

const LOG: &str = "test.local/log";
const TTL: Duration = Duration::from_secs(60);
const NOON: i64 = 1_770_000_000_000_000;

fn campaign(total: i64, daily: i64) -> leaf::Campaign {
    leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "Europe/Berlin".into(),
        limit_total_micros: total,
        limit_daily_micros: daily,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    }
}

fn terms() -> leaf::Terms {
    leaf::Terms {
        currency: "USD".into(),
        client_name: "Acme".into(),
        baseline_ppm: 3_000_000,
        share_ppm: 100_000,
        basis: leaf::Basis::Predicted.into(),
        netting: leaf::Netting::Client.into(),
        zone: "Europe/Berlin".into(),
        horizon_days: 90,
        attribution: leaf::AttributionRule::LastBilledV1.into(),
        lookback_seconds: 86_400,
        ..Default::default()
    }
}

fn ledger(total: i64, daily: i64) -> Ledger {
    let mut ledger = Ledger::new(LOG.into(), State::default());
    ledger.set_now(UnixMicros(NOON));
    ledger.put_campaign("acme", campaign(total, daily)).unwrap();
    ledger.put_terms("acme", terms()).unwrap();
    ledger
}

fn ask(key: &str, amount: i64, least: i64) -> LeaseAsk {
    LeaseAsk {
        key: key.into(),
        client: "acme".into(),
        campaign: "c".into(),
        holder: "h".into(),
        amount: Micros::new(amount),
        least: Micros::new(least),
        mark: (0, 0),
        ttl: TTL,
        reservation: false,
        platform: String::new(),
    }
}

fn mark(lease_id: u64, epoch: u64, sequence: u32, amount_nanos: i64) -> leaf::SpendMark {
    leaf::SpendMark { lease_id, epoch, sequence, amount_nanos, campaign: "c".into() }
}

fn settlement(lease_id: u64, sequence: u32, max_nanos: i64, price_nanos: i64) -> Closing<leaf::Settlement> {
    let time = Some(UnixMicros(NOON).into());
    let what = leaf::Settlement { sequence, max_nanos, price_nanos, bid_at: time, noticed_at: time, ..Default::default() };
    Closing { client: "acme".into(), campaign: "c".into(), lease_id, what }
}

fn later(ledger: &mut Ledger, by: Duration) {
    let now = ledger.now().plus(by);
    ledger.set_now(now);
}

#[test]
fn grants_up_to_the_limit_and_not_a_micro_more() {
    let mut ledger = ledger(1_000, 0);
    assert_eq!(ledger.lease(&ask("a", 600, 1)).unwrap().lease.unwrap().amount.get(), 600);
    assert_eq!(ledger.lease(&ask("b", 600, 1)).unwrap().lease.unwrap().amount.get(), 400);
    assert!(matches!(ledger.lease(&ask("c", 1, 1)), Err(Refusal::Exhausted { available_nanos: 0, .. })));
}

#[test]
fn a_daily_limit_binds_until_the_clients_midnight() {
    let mut ledger = ledger(1_000, 300);
    ledger.lease(&ask("a", 1_000, 1)).unwrap();
    assert!(matches!(ledger.lease(&ask("b", 1, 1)), Err(Refusal::Exhausted { limit: "daily", .. })));
    later(&mut ledger, Duration::from_secs(86_400));
    assert_eq!(ledger.lease(&ask("c", 1_000, 1)).unwrap().lease.unwrap().amount.get(), 300);
}

#[test]
fn one_key_has_one_effect() {
    let mut ledger = ledger(1_000, 0);
    let first = ledger.lease(&ask("a", 600, 1)).unwrap();
    let again = ledger.lease(&ask("a", 600, 1)).unwrap();
    assert_eq!((first.lease_id, again.duplicate), (again.lease_id, true));
    assert_eq!(ledger.state.campaign("acme", "c").unwrap().committed(ledger.now(), None), 600_000);
}

#[test]
fn expiry_frees_only_what_lies_above_the_mark() {
    let mut ledger = ledger(1_000, 0);
    let id = ledger.lease(&ask("a", 1_000, 1)).unwrap().lease_id;
    ledger.mark("acme", mark(id, 1, 3, 250_000)).unwrap();
    later(&mut ledger, TTL);
    assert_eq!(ledger.lease(&ask("b", 1_000, 1)).unwrap().lease.unwrap().amount.get(), 750);
    // What was marked and open is settled late, against its hold.
    assert_eq!(ledger.settle(vec![settlement(id, 2, 100_000, 40_000)]), [SlotOutcome::Applied]);
    let campaign = ledger.state.campaign("acme", "c").unwrap();
    assert_eq!(campaign.settled_nanos, 40_000);
    assert_eq!(campaign.available(ledger.now(), UnixMicros(0)).nanos, 60_000);
}

#[test]
fn a_return_frees_what_was_not_used_and_ends_the_lease() {
    let mut ledger = ledger(1_000, 0);
    let id = ledger.lease(&ask("a", 1_000, 1)).unwrap().lease_id;
    ledger.mark("acme", mark(id, 1, 10, 500_000)).unwrap();
    let returned = leaf::LeaseReturned { lease_id: id, epoch: 1, sequence: 1, amount_nanos: 30_000, campaign: "c".into() };
    assert_eq!(ledger.give_back("acme", returned).unwrap(), 970_000);
    assert!(matches!(ledger.mark("acme", mark(id, 1, 11, 600_000)), Err(Refusal::LeaseEnded { .. })));
    assert_eq!(ledger.settle(vec![settlement(id, 0, 30_000, 30_000)]), [SlotOutcome::Applied]);
    assert_eq!(ledger.settle(vec![settlement(id, 0, 30_000, 30_000)]), [SlotOutcome::Duplicate]);
}

#[test]
fn a_stale_epoch_is_refused() {
    let mut ledger = ledger(1_000, 0);
    let id = ledger.lease(&ask("a", 1_000, 1)).unwrap().lease_id;
    assert_eq!(ledger.renew("acme", "c", id, 1, TTL).unwrap().epoch, 2);
    assert!(matches!(ledger.mark("acme", mark(id, 1, 1, 1)), Err(Refusal::StaleEpoch { epoch: 2, given: 1, .. })));
    assert!(matches!(ledger.renew("acme", "c", id, 1, TTL), Err(Refusal::StaleEpoch { .. })));
}

#[test]
fn a_charge_above_its_hold_is_taken_and_stops_grants() {
    let mut ledger = ledger(1_000, 0);
    let id = ledger.lease(&ask("a", 1_000, 1)).unwrap().lease_id;
    ledger.mark("acme", mark(id, 1, 1, 1_000_000)).unwrap();
    assert_eq!(ledger.settle(vec![settlement(id, 0, 1_000_000, 1_500_000)]), [SlotOutcome::Applied]);
    let state = ledger.state.campaign("acme", "c").unwrap();
    assert_eq!((state.settled_nanos, state.available(ledger.now(), UnixMicros(0)).nanos), (1_500_000, -500_000));
    assert!(matches!(ledger.lease(&ask("b", 1, 1)), Err(Refusal::Exhausted { .. })));
}

#[test]
fn decisions_stand_in_the_log_as_they_came_and_nothing_else_is_taken_for_them() {
    let mut ledger = ledger(1_000, 0);
    let decision = leaf::Decision { model: "m".into(), price_nanos: 7, ..Default::default() };
    let batch = leaf::DecisionBatch { campaign: "c".into(), decisions: vec![decision; 300], ..Default::default() };
    let item = |bytes: Vec<u8>| vec![("acme".to_owned(), Item::Decisions(bytes.into()))];
    let _ = ledger.take_pending();
    ledger.record("flow-1", 1, item(batch.encode_to_vec())).unwrap();
    let leaves = ledger.take_pending();
    let bytes = leaves.payloads().next().unwrap();
    let leaf = leaf::Leaf::decode(bytes).unwrap();
    assert_eq!(leaf.encode_to_vec(), bytes, "as prost writes it");
    assert_eq!(leaf.body, Some(leaf::leaf::Body::Decisions(batch)));
    let refused = ledger.record("flow-1", 2, item(vec![0x22, 5, 1])).unwrap_err();
    assert!(refused.to_string().contains("items[0].decisions"), "{refused}");
    let long = leaf::DecisionBatch { campaign: "c".repeat(leaf::MAX_BYTES), ..Default::default() };
    assert!(matches!(ledger.record("flow-1", 2, item(long.encode_to_vec())), Err(Refusal::TooMany { .. })));
}

#[test]
fn a_batch_sent_again_has_no_second_effect() {
    let mut ledger = ledger(1_000, 0);
    let batch = leaf::DecisionBatch { campaign: "c".into(), ..Default::default() };
    let items = || vec![("acme".to_owned(), Item::Decisions(batch.encode_to_vec().into()))];
    let first = ledger.record("flow-1", 1, items()).unwrap();
    let again = ledger.record("flow-1", 1, items()).unwrap();
    assert_eq!((first[0].index, again[0].duplicate), (again[0].index, true));
    assert!(matches!(ledger.record("flow-1", 3, items()), Err(Refusal::OutOfOrder(_))));
    assert!(!ledger.record("flow-1", 2, items()).unwrap()[0].duplicate);
}

#[test]
fn a_purchase_is_taken_once_and_acquires_its_customer_once() {
    let mut ledger = ledger(1_000_000, 0);
    let id = ledger.lease(&ask("a", 1_000, 1)).unwrap().lease_id;
    ledger.mark("acme", mark(id, 1, 2, 2_000)).unwrap();
    let mut closing = settlement(id, 0, 1_000, 900);
    closing.what.customer = vec![9; 16].into();
    closing.what.predicted_ltv_micros = 77;
    ledger.settle(vec![closing]);
    let purchase = |event: &str, after: i64| {
        let occurred_at = Some(UnixMicros(NOON + after).into());
        let customer = vec![9; 16].into();
        let outcome =
            leaf::Outcome { event_id: event.into(), occurred_at, customer, currency: "USD".into(), value_micros: 5, ..Default::default() };
        vec![("acme".to_owned(), Item::Purchase(outcome))]
    };
    assert_eq!(ledger.record("", 0, purchase("e1", 10)).unwrap()[0].attributed_campaign, "c");
    assert!(ledger.record("", 0, purchase("e1", 10)).unwrap()[0].duplicate);
    assert_eq!(ledger.record("", 0, purchase("e2", 20)).unwrap()[0].attributed_campaign, "");
    let totals = &ledger.state.clients["acme"].totals["USD"];
    assert_eq!((totals.outcomes, totals.conversions, totals.outcome_micros), (2, 1, 10));
}

#[test]
fn a_charge_after_a_void_is_a_conflict_and_not_a_repetition() {
    let mut ledger = ledger(1_000, 0);
    let id = ledger.lease(&ask("a", 1_000, 1)).unwrap().lease_id;
    ledger.mark("acme", mark(id, 1, 2, 2_000)).unwrap();
    let void = || Closing {
        client: "acme".into(),
        campaign: "c".into(),
        lease_id: id,
        what: leaf::Void { max_nanos: 1_000, ..Default::default() },
    };
    assert_eq!(ledger.void(vec![void()]), [SlotOutcome::Applied]);
    assert_eq!(ledger.void(vec![void()]), [SlotOutcome::Duplicate]);
    assert!(matches!(ledger.settle(vec![settlement(id, 0, 1_000, 900)])[..], [SlotOutcome::Conflict(_)]));
    ledger.settle(vec![settlement(id, 1, 1_000, 900)]);
    let back = leaf::LeaseReturned { lease_id: id, epoch: 1, sequence: 2, amount_nanos: 2_000, campaign: "c".into() };
    ledger.give_back("acme", back).unwrap();
    // Nor once the lease is done and another has come.
    ledger.lease(&ask("b", 100, 1)).unwrap();
    assert!(matches!(ledger.settle(vec![settlement(id, 0, 1_000, 900)])[..], [SlotOutcome::Conflict(_)]));
    assert_eq!(ledger.settle(vec![settlement(id, 1, 1_000, 900)]), [SlotOutcome::Duplicate]);
}

#[test]
fn a_campaign_keeps_its_currency_and_its_days() {
    let mut ledger = ledger(1_000, 0);
    for changed in
        [leaf::Campaign { currency: "EUR".into(), ..campaign(1_000, 0) }, leaf::Campaign { zone: "UTC".into(), ..campaign(1_000, 0) }]
    {
        assert!(matches!(ledger.put_campaign("acme", changed), Err(Refusal::Field { .. })));
    }
}

#[test]
fn a_closing_is_invoiced_once_and_a_number_has_one_document() {
    let mut ledger = ledger(1_000, 0);
    let invoice = |number: &str, digest: u8| {
        let issued_at = Some(UnixMicros(NOON).into());
        let (currency, month) = ("USD".to_owned(), "2026-01".to_owned());
        let document_sha256 = vec![digest; 32].into();
        let invoice = leaf::Invoice {
            number: number.into(),
            currency,
            month,
            document_sha256,
            issued_at,
            period_closed_seq: 3,
            ..Default::default()
        };
        vec![("acme".to_owned(), Item::Invoice(invoice))]
    };
    assert!(!ledger.record("", 0, invoice("K1", 1)).unwrap()[0].duplicate);
    assert!(ledger.record("", 0, invoice("K1", 1)).unwrap()[0].duplicate);
    assert!(matches!(ledger.record("", 0, invoice("K1", 2)), Err(Refusal::KeyReused { .. })));
    assert!(matches!(ledger.record("", 0, invoice("K2", 1)), Err(Refusal::KeyReused { .. })));
}

#[test]
fn a_period_is_corrected_once_with_each_closing() {
    let mut ledger = ledger(1_000, 0);
    let note = |number: &str, closed: u64, corrects_seq: u64, kind: leaf::DocumentKind| {
        let note = leaf::Invoice {
            number: number.into(),
            currency: "USD".into(),
            month: "2026-01".into(),
            document_sha256: vec![number.len() as u8; 32].into(),
            issued_at: Some(UnixMicros(NOON).into()),
            period_closed_seq: closed,
            kind: kind.into(),
            corrects_seq,
            ..Default::default()
        };
        vec![("acme".to_owned(), Item::Invoice(note))]
    };
    use leaf::DocumentKind::{CreditNote, DebitNote, Invoice};
    for (number, closed, corrects, kind) in
        [("K1", 5, 0, Invoice), ("C1", 5, 3, CreditNote), ("D1", 5, 4, DebitNote), ("D2", 6, 3, DebitNote)]
    {
        assert!(!ledger.record("", 0, note(number, closed, corrects, kind)).unwrap()[0].duplicate, "{number}");
    }
    assert!(matches!(ledger.record("", 0, note("C22", 5, 3, CreditNote)), Err(Refusal::KeyReused { .. })));
    for (kind, corrects) in [(CreditNote, 0), (Invoice, 3)] {
        let refused = ledger.record("", 0, note("K333", 9, corrects, kind)).unwrap_err().to_string();
        assert!(refused.contains("items[0].corrects_seq"), "{refused}");
    }
}

#[test]
fn terms_name_evidence_that_is_the_clients_own() {
    let mut ledger = ledger(1_000, 0);
    let naming = |index| leaf::Terms { baseline_evidence: Some(leaf::Position { log_id: LOG.into(), index }), ..terms() };
    assert!(matches!(ledger.put_terms("acme", naming(0)), Err(Refusal::Field { .. })));
    let evidence = leaf::Evidence { document_sha256: vec![1; 32].into(), currency: "USD".into(), ..Default::default() };
    let index = ledger.record("", 0, vec![("acme".into(), Item::Evidence(evidence))]).unwrap()[0].index;
    assert_eq!(ledger.put_terms("acme", naming(index)).unwrap().1, 2);
}

#[test]
fn what_no_fold_could_read_never_reaches_the_log() {
    let mut ledger = ledger(1_000, 0);
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let outcome = leaf::Outcome { event_id: "e".into(), customer: vec![1; 16].into(), currency: "USD".into(), ..Default::default() };
    let close = leaf::PeriodClosed { currency: "USD".into(), period_start: time(1), period_end: time(2), ..Default::default() };
    for item in [
        Item::Purchase(leaf::Outcome { occurred_at: time(i64::MAX), ..outcome.clone() }),
        Item::Purchase(leaf::Outcome { occurred_at: time(1), value_micros: i64::MAX, ..outcome }),
        Item::ClosePeriod(leaf::PeriodClosed { month: "x".into(), ..close.clone() }),
        Item::ClosePeriod(leaf::PeriodClosed { month: "2026-13".into(), ..close }),
        Item::Evidence(leaf::Evidence {
            title: "x".repeat(201),
            currency: "USD".into(),
            document_sha256: vec![1; 32].into(),
            ..Default::default()
        }),
    ] {
        let size = ledger.state.size;
        assert!(matches!(ledger.record("", 0, vec![("acme".into(), item.clone())]), Err(Refusal::Field { .. })), "{item:?}");
        assert_eq!(ledger.state.size, size);
    }
}

#[test]
fn a_period_closes_once_and_not_before_its_end() {
    let mut ledger = ledger(1_000, 0);
    let close = |end: i64| {
        let (start, end) = (Some(UnixMicros(NOON - 10).into()), Some(UnixMicros(end).into()));
        let period = leaf::PeriodClosed {
            currency: "USD".into(),
            month: "2026-02".into(),
            period_start: start,
            period_end: end,
            ..Default::default()
        };
        vec![("acme".to_owned(), Item::ClosePeriod(period))]
    };
    assert!(matches!(ledger.record("", 0, close(NOON + 1)), Err(Refusal::PeriodOpen { .. })));
    let first = ledger.record("", 0, close(NOON)).unwrap();
    let again = ledger.record("", 0, close(NOON)).unwrap();
    assert_eq!((first[0].client_seq, again[0].client_seq, again[0].duplicate), (3, 3, true));
    assert!(matches!(ledger.record("", 0, close(NOON - 5)), Err(Refusal::KeyReused { .. })));
}

#[test]
fn a_leaf_that_breaks_a_rule_is_refused_and_changes_nothing() {
    let mut ledger = ledger(1_000, 0);
    ledger.lease(&ask("a", 900, 1)).unwrap();
    let pending = ledger.take_pending();
    let leaves: Vec<_> = pending.payloads().collect();
    let mut state = State::default();
    for bytes in &leaves {
        let (head, body) = leaf::decode(bytes).unwrap();
        state.apply(&head, &body).unwrap();
    }
    let (head, body) = leaf::decode(leaves[2]).unwrap();
    let Body::LeaseGranted(grant) = body else { panic!("the third leaf is the grant") };
    let next = leaf::Leaf { index: state.size, client_seq: 4, ..head };
    let before = format!("{state:?}");
    for (head, grant) in [
        (leaf::Leaf { index: 9, ..next.clone() }, leaf::LeaseGranted { lease_id: 2, amount_micros: 50, ..grant.clone() }),
        (leaf::Leaf { client_seq: 5, ..next.clone() }, leaf::LeaseGranted { lease_id: 2, amount_micros: 50, ..grant.clone() }),
        (next.clone(), leaf::LeaseGranted { lease_id: 2, amount_micros: 101, ..grant.clone() }),
        (next, leaf::LeaseGranted { lease_id: 1, amount_micros: 50, ..grant }),
    ] {
        assert!(state.apply(&head, &Body::LeaseGranted(grant)).is_err());
        assert_eq!(format!("{state:?}"), before);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Lease { key: u8, amount: i64 },
    Mark { lease: usize, slots: u32, nanos: i64 },
    Return { lease: usize },
    Renew { lease: usize },
    Settle { lease: usize, slot: u32, part: u8 },
    Void { lease: usize, slot: u32 },
    Wait { seconds: u64 },
    Limit { total: i64, daily: i64 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let lease = 0..6_usize;
    let op = prop_oneof![
        3 => (0..40_u8, 1..600_i64).prop_map(|(key, amount)| Op::Lease { key, amount }),
        3 => (lease.clone(), 1..6_u32, 1..200_000_i64).prop_map(|(lease, slots, nanos)| Op::Mark { lease, slots, nanos }),
        1 => lease.clone().prop_map(|lease| Op::Return { lease }),
        1 => lease.clone().prop_map(|lease| Op::Renew { lease }),
        6 => (lease.clone(), 0..8_u32, 0..=100_u8).prop_map(|(lease, slot, part)| Op::Settle { lease, slot, part }),
        3 => (lease, 0..8_u32).prop_map(|(lease, slot)| Op::Void { lease, slot }),
        1 => (1..90_u64).prop_map(|seconds| Op::Wait { seconds }),
        1 => (0..3_000_i64, 0..1_500_i64).prop_map(|(total, daily)| Op::Limit { total, daily }),
    ];
    prop::collection::vec(op, 1..120)
}

/// A holder as SyncFlow is one: it gives each slot below its mark a price, and never more than it marked.
#[derive(Default)]
struct Holder {
    id: u64,
    epoch: u64,
    prices: Vec<i64>,
}

/// The first notice closes the slot; the same again repeats it; another contradicts it.
fn check_outcome(outcome: &[SlotOutcome], was_charged: bool, charges: bool, seen: &mut BTreeSet<(u64, u32)>, slot: (u64, u32)) {
    let expected = match (seen.insert(slot), was_charged == charges) {
        (true, _) => matches!(outcome, [SlotOutcome::Applied]),
        (false, true) => matches!(outcome, [SlotOutcome::Duplicate]),
        (false, false) => matches!(outcome, [SlotOutcome::Conflict(_)]),
    };
    assert!(expected, "{slot:?} {was_charged} {charges}: {outcome:?}");
}

fn run(ops: &[Op]) -> (Ledger, i128) {
    let mut ledger = ledger(1_000, 700);
    let mut holders: Vec<Holder> = Vec::new();
    let mut charged = 0;
    let mut closed = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for op in ops {
        match *op {
            Op::Lease { key, amount } => {
                if let Ok(granted) = ledger.lease(&ask(&format!("k{key}"), amount, 1))
                    && !granted.duplicate
                {
                    holders.push(Holder { id: granted.lease_id, epoch: 1, prices: Vec::new() });
                }
            }
            Op::Mark { lease, slots, nanos } => {
                let Some(holder) = holders.iter_mut().rev().nth(lease) else { continue };
                let sum = holder.prices.iter().sum::<i64>() + i64::from(slots) * nanos;
                if ledger.mark("acme", mark(holder.id, holder.epoch, holder.prices.len() as u32 + slots, sum)).is_ok() {
                    holder.prices.extend(std::iter::repeat_n(nanos, slots as usize));
                }
            }
            Op::Return { lease } => {
                let Some(holder) = holders.iter().rev().nth(lease) else { continue };
                let (sequence, amount_nanos) = (holder.prices.len() as u32, holder.prices.iter().sum());
                let returned =
                    leaf::LeaseReturned { lease_id: holder.id, epoch: holder.epoch, sequence, amount_nanos, campaign: "c".into() };
                drop(ledger.give_back("acme", returned));
            }
            Op::Renew { lease } => {
                let Some(holder) = holders.iter_mut().rev().nth(lease) else { continue };
                if ledger.renew("acme", "c", holder.id, holder.epoch, TTL).is_ok() {
                    holder.epoch += 1;
                }
            }
            Op::Settle { lease, slot, part } => {
                let Some(holder) = holders.iter().rev().nth(lease) else { continue };
                let Some(max) = holder.prices.get(slot as usize) else { continue };
                let price = max * i64::from(part) / 100;
                let outcome = ledger.settle(vec![settlement(holder.id, slot, *max, price)]);
                let before = *closed.entry((holder.id, slot)).or_insert(true);
                charged += if outcome == [SlotOutcome::Applied] { i128::from(price) } else { 0 };
                check_outcome(&outcome, before, true, &mut seen, (holder.id, slot));
            }
            Op::Void { lease, slot } => {
                let Some(holder) = holders.iter().rev().nth(lease) else { continue };
                let Some(max) = holder.prices.get(slot as usize) else { continue };
                let what = leaf::Void { sequence: slot, max_nanos: *max, ..Default::default() };
                let outcome = ledger.void(vec![Closing { client: "acme".into(), campaign: "c".into(), lease_id: holder.id, what }]);
                let before = *closed.entry((holder.id, slot)).or_insert(false);
                check_outcome(&outcome, before, false, &mut seen, (holder.id, slot));
            }
            Op::Wait { seconds } => later(&mut ledger, Duration::from_secs(seconds)),
            Op::Limit { total, daily } => {
                ledger.put_campaign("acme", campaign(total, daily)).unwrap();
            }
        }
    }
    (ledger, charged)
}

/// The most that may have been spent at any time, by what the leaves themselves say, against the limit in force.
fn check_prefixes(leaves: &kiki::framed::Frames) {
    let mut state = State::default();
    for bytes in leaves.payloads() {
        let (head, body) = leaf::decode(bytes).unwrap();
        state.apply(&head, &body).unwrap();
        let now = UnixMicros::from_pb(head.recorded_at.as_ref()).unwrap();
        if let Body::LeaseGranted(grant) = body {
            let campaign = state.campaign("acme", "c").unwrap();
            let day = UnixMicros::from_pb(grant.day_start.as_ref()).unwrap();
            assert!(campaign.settled_nanos + campaign.committed(now, None) <= campaign.limit_total.nanos());
            assert!(
                campaign.limit_daily == Micros::ZERO
                    || campaign.settled_on(day) + campaign.committed(now, Some(day)) <= campaign.limit_daily.nanos()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_grant_goes_above_a_limit_and_every_charge_counts_once(ops in ops()) {
        let (mut ledger, charged) = run(&ops);
        let leaves = ledger.take_pending();
        prop_assert_eq!(ledger.state.campaign("acme", "c").unwrap().settled_nanos, charged);
        check_prefixes(&leaves);
        let highest = ops.iter().fold(1_000, |most, op| if let Op::Limit { total, .. } = op { most.max(*total) } else { most });
        prop_assert!(charged <= i128::from(highest) * 1_000);
    }

    #[test]
    fn the_fold_of_the_leaves_is_the_state(ops in ops(), cut in 0..100_usize) {
        let (mut ledger, _) = run(&ops);
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
