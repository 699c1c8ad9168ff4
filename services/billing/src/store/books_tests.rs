//! The ledger's books are those that all records give, whatever came when.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::domain::accounting::{Closing, calendar};
use crate::domain::books::{Account, Statement, state, statement};
use crate::domain::terms::Terms;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const PERIOD: i64 = 30 * DAY;

/// Something of a client's log: when it was recorded, and the leaf.
type Happened = (i64, Body);

/// A leaf of spend, of an acquisition or of value.
fn happened() -> impl Strategy<Value = Happened> {
    // Near a period's end, at one, or anywhere; and how much later it was recorded.
    let at = prop_oneof![(0..5_i64, -HOUR..HOUR).prop_map(|(i, off)| i * PERIOD + off), (0..5_i64).prop_map(|i| i * PERIOD), 0..5 * PERIOD];
    let late = prop_oneof![Just(0), 0..2 * HOUR, 0..40 * DAY];
    (at, late, 0..3_u8, 0..5_u8, -3_000_000_i64..9_000_000, 0..3_u8).prop_map(|(at, late, kind, customer, amount, campaign)| {
        let (campaign, currency, occurred_at) = (format!("c{campaign}"), "USD".to_owned(), Some(UnixMicros(at).into()));
        let customer = vec![customer; 16].into();
        let body = match kind {
            0 => Body::SpendAdjustment(leaf::SpendAdjustment {
                campaign,
                currency,
                amount_nanos: amount * 777_777_777,
                accounted_at: occurred_at,
                ..Default::default()
            }),
            1 => Body::Conversion(leaf::Conversion {
                campaign,
                currency,
                customer,
                occurred_at,
                predicted_ltv_micros: amount,
                ..Default::default()
            }),
            _ => Body::Outcome(leaf::Outcome { currency, customer, occurred_at, value_micros: amount, ..Default::default() }),
        };
        (at + late, body)
    })
}

/// The first terms, and others in force from any instant and known from another.
fn all_terms() -> impl Strategy<Value = Vec<Happened>> {
    let new = (-DAY..5 * PERIOD, prop_oneof![-PERIOD..DAY, (0..5_i64).prop_map(|i| i * HOUR)], 5..70_u32, any::<bool>());
    prop::collection::vec(new, 0..3).prop_map(|mut changes| {
        changes.sort_unstable();
        let changes = changes.into_iter().map(|(known, off, horizon, realised)| (known, Some(known + off), horizon, realised));
        let all = std::iter::once((-2 * DAY, None, 20, false)).chain(changes);
        let body = |(version, (known, from, horizon_days, realised)): (u64, (i64, Option<i64>, u32, bool))| {
            let basis = if realised { leaf::Basis::Realised } else { leaf::Basis::Predicted };
            let terms = leaf::Terms {
                version,
                currency: "USD".into(),
                basis: basis.into(),
                netting: leaf::Netting::Client.into(),
                share_ppm: 1_000_000,
                horizon_days,
                carry_shortfall: true,
                effective_from: from.map(|at| UnixMicros(at).into()),
                ..Default::default()
            };
            (known, Body::Terms(terms))
        };
        (1..).zip(all).map(body).collect()
    })
}

/// A client's log: six periods, one of which is closed out of its turn.
fn a_log() -> impl Strategy<Value = Vec<Body>> {
    let offsets = prop::collection::vec(prop_oneof![Just(0), Just(HOUR / 2), -HOUR..HOUR], 6);
    let grace = prop_oneof![Just(0), 0..3 * DAY];
    (prop::collection::vec(happened(), 1..60), all_terms(), offsets, grace, any::<bool>()).prop_map(|(all, terms, offsets, grace, swap)| {
        let mut all: Vec<(i64, Option<usize>, Option<Body>)> =
            all.into_iter().chain(terms).map(|(at, body)| (at, None, Some(body))).collect();
        for i in 0..6 {
            let which = if swap { [0, 2, 1, 3, 4, 5][i] } else { i };
            all.push(((i as i64 + 1) * PERIOD + HOUR + grace, Some(which), None));
        }
        all.sort_by_key(|(at, ..)| *at);
        let mut so_far = leaf::PeriodClosed { currency: "USD".into(), first_seq: 1, ..Default::default() };
        let (mut settled, mut spent) = (0_i128, 0_i128);
        let leaf = |(seq, (_, closes, body)): (u64, (i64, Option<usize>, Option<Body>))| {
            match &body {
                Some(Body::Terms(terms)) => so_far.terms_version = terms.version,
                Some(Body::SpendAdjustment(adjustment)) => settled += i128::from(adjustment.amount_nanos),
                Some(Body::Conversion(_)) => so_far.conversions += 1,
                Some(Body::Outcome(outcome)) => {
                    spent += i128::from(outcome.value_micros);
                    so_far.outcomes += 1;
                }
                _ => {}
            }
            let end = |i: usize| UnixMicros((i as i64 + 1) * PERIOD + offsets[i]);
            body.unwrap_or_else(|| {
                let i = closes.unwrap();
                Body::PeriodClosed(leaf::PeriodClosed {
                    month: format!("1970-{:02}", i + 1),
                    last_seq: seq - 1,
                    period_start: Some(UnixMicros(i as i64 * PERIOD - HOUR).into()),
                    period_end: Some(end(i).into()),
                    settled_nanos: Some(settled.into()),
                    outcome_micros: Some(spent.into()),
                    ..so_far.clone()
                })
            })
        };
        (1..).zip(all).map(leaf).collect()
    })
}

/// The accounts, with a line's leaves in order.
fn sorted(mut statement: Statement) -> Statement {
    let sort = |account: &mut Account| {
        for line in account.parts.iter_mut().flat_map(|part| &mut part.lines) {
            line.leaves = line.leaves.ranges().into_iter().flat_map(|[first, last]| first..=last).collect();
        }
    };
    sort(&mut statement.account);
    for change in &mut statement.changes {
        sort(&mut change.before);
        sort(&mut change.after);
    }
    statement
}

/// What the ledger's books give for a closing.
async fn stated(store: &Store, client: &str, closings: &[Closing], terms: &[Terms]) -> Statement {
    let periods = calendar(closings, terms).unwrap();
    let (now, before) = store.books(client, &periods).await.unwrap();
    let mut statement = state(periods, &now, &before).unwrap();
    let (last, earlier) = closings.split_last().unwrap();
    store.name_leaves(client, last.last_seq, &mut statement.account).await.unwrap();
    for change in &mut statement.changes {
        store.name_leaves(client, last.last_seq, &mut change.after).await.unwrap();
        store.name_leaves(client, earlier.last().unwrap().last_seq, &mut change.before).await.unwrap();
    }
    statement
}

/// Folds the log of a client behind what is there, in steps of so many leaves.
async fn fold_all(store: &Store, client: &str, bodies: &[Body], step: usize) {
    let mut seq = 0;
    for bodies in bodies.chunks(step) {
        let cursor = store.cursor(LOG).await.unwrap();
        let believed = super::believed_of(client, seq, cursor.frontier, bodies.to_vec());
        seq += bodies.len() as u64;
        fold(store, &believed).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_on_sqlite_are_those_that_all_records_give() {
    the_books_are_those_that_all_records_give(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_on_postgres_are_those_that_all_records_give() {
    the_books_are_those_that_all_records_give(Place::postgres().await).await;
}

async fn the_books_are_those_that_all_records_give(place: Place) {
    let store = open(&place).await;
    let handle = tokio::runtime::Handle::current();
    let client = std::cell::Cell::new(0);
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        let cases = (a_log(), 1..80_usize, any::<bool>());
        let tested = runner.run(&cases, |(bodies, step, at_once)| {
            client.set(client.get() + 1);
            let client = format!("client-{}", client.get());
            handle.block_on(async {
                fold_all(&store, &client, &bodies, step).await;
                let records = records(&store, &client, "USD").await;
                let (closings, terms) = (store.closings(&client, "USD").await.unwrap(), store.terms(&client, "USD").await.unwrap());
                // The books of each closing in their turn; or of the last at first, as after a lost ledger.
                let order: Vec<usize> = if at_once { (1..=closings.len()).rev().collect() } else { (1..=closings.len()).collect() };
                for many in order {
                    let wanted = statement(records.iter(), &closings[..many], &terms).unwrap();
                    let given = stated(&store, &client, &closings[..many], &terms).await;
                    prop_assert_eq!(sorted(given), sorted(wanted), "closing {}", many);
                }
                Ok(())
            })
        });
        tested.unwrap();
    });
    store.close().await;
}

#[tokio::test]
async fn postgres_knows_what_was_folded_before_a_clients_customers_are_looked_up() {
    const SETTLED: u64 = 300;
    let place = Place::postgres().await;
    let store = open(&place).await;
    let closed = leaf::PeriodClosed {
        currency: "USD".into(),
        month: "1970-01".into(),
        first_seq: 1,
        last_seq: SETTLED + 1,
        period_start: Some(UnixMicros(0).into()),
        period_end: Some(UnixMicros(9).into()),
        settled_nanos: Some((i128::from(SETTLED) * 14).into()),
        settlements: SETTLED * 2,
        terms_version: 1,
        ..Default::default()
    };
    let mut bodies = vec![super::terms(1)];
    bodies.extend((0..SETTLED).map(|_| super::settled(7)));
    bodies.push(Body::PeriodClosed(closed));
    fold_all(&store, "acme", &bodies, bodies.len()).await;
    let (closings, terms) = (store.closings("acme", "USD").await.unwrap(), store.terms("acme", "USD").await.unwrap());
    store.books("acme", &calendar(&closings, &terms).unwrap()).await.unwrap();
    let known = sql("SELECT CAST(reltuples AS BIGINT) AS records FROM pg_class WHERE oid = 'record'::regclass");
    assert_eq!(known.row(&store.pool).await.unwrap().unwrap().get::<i64>("records").unwrap(), SETTLED as i64);
}
