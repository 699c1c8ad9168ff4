#![allow(clippy::unwrap_used)]

#[path = "../../tests/common/place.rs"]
mod place;
#[path = "../../../kiki-cli/src/bench/postgres.rs"]
mod postgres;

#[path = "books_tests.rs"]
mod books;
#[path = "isolation_tests.rs"]
mod isolation;

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::leaf::{self, invoice_event, leaf::Body};
use kiki::tlog::{self, Checkpoint, Frontier, Tree};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::engine::{Row, sql};
use super::*;
use crate::domain::follow::{Believed, Follower};
use crate::domain::invoice::{build, tests::facts};
use crate::domain::record::{Entry, Record};
use place::Place;

const LOG: &str = "kiki.test/log";

fn sha256(document: &[u8]) -> prost::bytes::Bytes {
    Sha256::digest(document).to_vec().into()
}

/// Each case on both engines.
macro_rules! cases {
    ($($case:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Place::sqlite()).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Place::postgres().await).await;
            })*
        }
    };
}

cases! {
    fold_and_cursor_come_back_after_a_restart
    a_part_of_the_log_is_folded_once
    a_fold_that_fails_leaves_nothing_behind
    numbers_have_no_gaps_and_a_repeat_takes_none
    concurrent_finalising_takes_each_number_once
    a_draft_that_is_there_stays_as_it_is
    an_invoice_whose_answer_was_lost_is_known_as_recorded_from_the_log
    an_invoice_that_this_ledger_did_not_issue_takes_its_number_and_its_closing
    what_is_printed_as_signed_was_signed_and_a_clients_leaves_are_counted
    a_leaf_that_cannot_be_folded_is_named_with_its_client
    a_closing_that_says_something_else_than_the_leaves_before_it_stops_the_fold
    pages_go_through_all_invoices
    what_happens_to_an_invoice_counts_in_the_logs_order
    a_ledger_that_was_lost_comes_back_to_the_same_balances
    an_event_of_an_invoice_that_is_not_there_stops_the_fold
    a_credit_note_comes_off_the_invoice_that_it_corrects
    what_is_agreed_moves_once_and_its_note_says_the_same
}

/// A client's records in a currency, in the log's order.
async fn records(store: &Store, client: &str, currency: &str) -> Vec<Record> {
    let rows = sql("SELECT leaf, client, client_seq, currency, at_micros, kind, campaign, customer, amount, count FROM record
         WHERE client = $1 AND currency = $2 ORDER BY client_seq");
    rows.bind(client).bind(currency).rows(&store.pool).await.unwrap().iter().map(record_of).collect()
}

fn record_of(row: &Row) -> Record {
    let (campaign, amount) = (row.get("campaign").unwrap(), row.get("amount").unwrap());
    let customer = || CustomerKey::from_bytes(row.get("customer").unwrap()).unwrap();
    let entry = match row.get::<i64>("kind").unwrap() {
        1 => Entry::Spend { campaign, nanos: amount, impressions: row.get::<i64>("count").unwrap().try_into().unwrap() },
        2 => Entry::Acquired { campaign, customer: customer(), predicted_micros: amount },
        _ => Entry::Value { customer: customer(), micros: amount },
    };
    let number = |column: &str| row.get::<i64>(column).unwrap().try_into().unwrap();
    let (client, currency) = (row.get("client").unwrap(), row.get("currency").unwrap());
    Record {
        leaf: number("leaf"),
        client,
        client_seq: number("client_seq"),
        currency,
        at: UnixMicros(row.get("at_micros").unwrap()),
        entry,
    }
}

async fn open(place: &Place) -> Store {
    Store::open(&place.store.parse().unwrap()).await.unwrap()
}

/// Folds once, in a turn of its own.
async fn fold(store: &Store, believed: &Believed) -> Result<(), StoreError> {
    store.turn().await?.fold(LOG, believed).await
}

fn settled(nanos: i64) -> Body {
    Body::Settlements(leaf::SettlementBatch {
        lease_id: 1,
        campaign: "spring".into(),
        currency: "USD".into(),
        granted_at: Some(UnixMicros(5).into()),
        settlements: vec![leaf::Settlement { price_nanos: nanos, ..Default::default() }; 2],
        ..Default::default()
    })
}

fn terms(version: u64) -> Body {
    Body::Terms(leaf::Terms {
        version,
        currency: "USD".into(),
        basis: leaf::Basis::Predicted.into(),
        netting: leaf::Netting::Client.into(),
        ..Default::default()
    })
}

/// What a follower that goes on from `frontier` believes of these bodies, all of one client.
fn believed(frontier: Frontier, bodies: Vec<Body>) -> Believed {
    believed_of("acme", frontier.size(), frontier, bodies)
}

/// What a follower that goes on from `frontier` believes of these bodies of a client that has `seq` leaves already.
fn believed_of(client: &str, seq: u64, frontier: Frontier, bodies: Vec<Body>) -> Believed {
    let start = frontier.size();
    let mut tree = frontier.clone();
    let heads = BTreeMap::from([(client.to_owned(), seq)]);
    let mut follower = Follower::new(LOG, frontier, heads);
    for (behind, body) in (1..).zip(bodies) {
        let index = start + behind - 1;
        let (log_id, client) = (LOG.to_owned(), client.to_owned());
        let leaf = leaf::Leaf { log_id, index, client, client_seq: seq + behind, body: Some(body), ..Default::default() };
        let bytes = leaf.encode_to_vec();
        tree.push(tlog::leaf_hash(&bytes));
        follower.push(index, &bytes).unwrap();
    }
    follower.checkpoint(&Checkpoint { origin: LOG.into(), size: tree.size(), root: tree.root() }).unwrap().unwrap()
}

fn draft(id: &str) -> InvoiceRow {
    let mut facts = facts(&[("spring", 36_368, 131_194)]);
    facts.invoice_id = id.to_owned();
    InvoiceRow {
        draft_id: id.to_owned(),
        number: None,
        client: "acme".into(),
        currency: "USD".into(),
        month: "2026-01".into(),
        document: build(facts).unwrap().to_json(),
        period_closed_seq: 9,
        corrects_seq: 0,
        issued_at: None,
        leaf: None,
    }
}

async fn fold_and_cursor_come_back_after_a_restart(place: Place) {
    let store = open(&place).await;
    let first = believed(Frontier::new(), vec![terms(1), settled(7), terms(2)]);
    fold(&store, &first).await.unwrap();
    store.close().await;
    let store = open(&place).await;
    let cursor = store.cursor(LOG).await.unwrap();
    assert_eq!((cursor.frontier.clone(), cursor.heads), (first.frontier, BTreeMap::from([("acme".to_owned(), 3)])));
    assert_eq!(store.signed(LOG).await.unwrap(), Some((3, cursor.frontier.root())));
    let records = records(&store, "acme", "USD").await;
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].client_seq, records[0].at), (2, UnixMicros(5)));
    assert_eq!(records[0].entry, Entry::Spend { campaign: "spring".into(), nanos: 14, impressions: 2 });
    let newest = store.newest_terms("", ("", ""), 9).await.unwrap();
    assert_eq!(newest.iter().map(|(c, t)| (c.as_str(), t.version, t.leaf)).collect::<Vec<_>>(), [("acme", 2, 2)]);
    assert_eq!(store.newest_terms("", ("acme", "USD"), 9).await.unwrap(), []);
    for (client, after, behind) in [("", ("", ""), 1), ("", ("acme", "USD"), 0), ("acme", ("acme", "EUR"), 1), ("beta", ("", ""), 0)] {
        assert_eq!(store.clients_behind(client, after).await.unwrap(), behind, "{client:?} behind {after:?}");
    }
    assert_eq!(store.terms("acme", "USD").await.unwrap().iter().map(|terms| terms.leaf).collect::<Vec<_>>(), [0, 2]);
}

async fn a_part_of_the_log_is_folded_once(place: Place) {
    let store = open(&place).await;
    let first = believed(Frontier::new(), vec![settled(7)]);
    fold(&store, &first).await.unwrap();
    assert!(matches!(fold(&store, &first).await, Err(StoreError::CursorMoved { wanted: 0, found: 1 })));
    assert_eq!(records(&store, "acme", "USD").await.len(), 1);
}

async fn a_fold_that_fails_leaves_nothing_behind(place: Place) {
    let store = open(&place).await;
    let twice = believed(Frontier::new(), vec![settled(7), terms(1), terms(1)]);
    assert!(fold(&store, &twice).await.is_err());
    assert_eq!(store.cursor(LOG).await.unwrap().frontier.size(), 0);
    assert!(records(&store, "acme", "USD").await.is_empty());
}

async fn numbers_have_no_gaps_and_a_repeat_takes_none(place: Place) {
    let store = open(&place).await;
    let number_it = |invoice, number| Ok(crate::domain::invoice::Invoice { invoice_id: number, ..invoice });
    for id in ["draft-a", "draft-b", "draft-c"] {
        assert!(store.keep_draft(&draft(id)).await.unwrap().1);
    }
    let failed = store.finalize("draft-a", "K2026-", UnixMicros(1), |_, _| Err(corrupt("draft")("on purpose"))).await;
    assert!(failed.is_err());
    let mut numbers = Vec::new();
    for id in ["draft-b", "draft-b", "draft-a", "draft-c"] {
        let (row, fresh) = store.finalize(id, "K2026-", UnixMicros(1), number_it).await.unwrap().unwrap();
        assert_eq!(row.invoice().unwrap().invoice_id, row.number.clone().unwrap());
        numbers.push((row.number.unwrap(), fresh));
    }
    let wanted = [("K2026-000001", true), ("K2026-000001", false), ("K2026-000002", true), ("K2026-000003", true)];
    assert_eq!(numbers, wanted.map(|(number, fresh)| (number.to_owned(), fresh)));
    assert!(store.finalize("draft-z", "K2026-", UnixMicros(1), number_it).await.unwrap().is_none());
}

async fn concurrent_finalising_takes_each_number_once(place: Place) {
    let store = open(&place).await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let id = format!("draft-{i}");
        store.keep_draft(&draft(&id)).await.unwrap();
        let store = store.clone();
        tasks.spawn(async move { store.finalize(&id, "K2026-", UnixMicros(1), |invoice, _| Ok(invoice)).await.unwrap().unwrap().0.number });
    }
    let mut numbers = tasks.join_all().await;
    numbers.sort();
    let wanted: Vec<_> = (1..=20).map(|i| Some(crate::domain::invoice::number("K2026-", i))).collect();
    assert_eq!(numbers, wanted);
}

async fn a_draft_that_is_there_stays_as_it_is(place: Place) {
    let store = open(&place).await;
    store.keep_draft(&draft("draft-a")).await.unwrap();
    let other = InvoiceRow { document: b"{}".to_vec(), ..draft("draft-a") };
    assert_eq!(store.keep_draft(&other).await.unwrap(), (draft("draft-a"), false));
}

async fn an_invoice_whose_answer_was_lost_is_known_as_recorded_from_the_log(place: Place) {
    let store = open(&place).await;
    store.keep_draft(&draft("draft-a")).await.unwrap();
    let (row, _) = store.finalize("draft-a", "K2026-", UnixMicros(1), |invoice, _| Ok(invoice)).await.unwrap().unwrap();
    assert_eq!(store.unrecorded().await.unwrap(), std::slice::from_ref(&row));
    let number = row.number.unwrap();
    let leaf = Body::Invoice(leaf::Invoice { number: number.clone(), document_sha256: sha256(&row.document), ..Default::default() });
    fold(&store, &believed(Frontier::new(), vec![settled(1), leaf])).await.unwrap();
    assert!(store.unrecorded().await.unwrap().is_empty());
    assert_eq!(store.invoice(&number).await.unwrap().unwrap().leaf, Some(1));
}

async fn an_invoice_that_this_ledger_did_not_issue_takes_its_number_and_its_closing(place: Place) {
    let store = open(&place).await;
    store.keep_draft(&draft("draft-a")).await.unwrap();
    store.keep_draft(&InvoiceRow { period_closed_seq: 12, ..draft("draft-b") }).await.unwrap();
    let invoice = |number: &str| leaf::Invoice { number: number.into(), period_closed_seq: 9, ..Default::default() };
    let leaves = ["K2026-000007", "K2026-000003", "of another form"].map(|number| Body::Invoice(invoice(number)));
    fold(&store, &believed(Frontier::new(), leaves.to_vec())).await.unwrap();
    let refused = store.finalize("draft-a", "K2026-", UnixMicros(1), |invoice, _| Ok(invoice)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Invoiced { number, leaf: 0 } if number == "K2026-000007"), "{refused}");
    let (row, _) = store.finalize("draft-b", "K2026-", UnixMicros(1), |invoice, _| Ok(invoice)).await.unwrap().unwrap();
    assert_eq!(row.number.as_deref(), Some("K2026-000008"));
    // The same number for another document is not this ledger's invoice.
    let number = row.number.clone().unwrap();
    let frontier = store.cursor(LOG).await.unwrap().frontier;
    fold(&store, &believed(frontier, vec![Body::Invoice(invoice(&number))])).await.unwrap();
    assert_eq!(store.unrecorded().await.unwrap(), [row]);
}

async fn what_is_printed_as_signed_was_signed_and_a_clients_leaves_are_counted(place: Place) {
    let store = open(&place).await;
    let bodies = [settled(1), Body::Decisions(leaf::DecisionBatch::default()), settled(2), settled(3)];
    let (mut follower, mut tree, mut bytes) = (Follower::new(LOG, Frontier::new(), BTreeMap::new()), Tree::new(), 0);
    for (index, body) in (0..).zip(bodies) {
        let (log_id, client) = (LOG.to_owned(), "acme".to_owned());
        let leaf = leaf::Leaf { log_id, index, client, client_seq: index + 1, body: Some(body), ..Default::default() }.encode_to_vec();
        tree.push(tlog::leaf_hash(&leaf));
        if index < 3 {
            bytes += leaf.len() as u64;
            follower.push(index, &leaf).unwrap();
        }
    }
    let proof = tree.multiproof(&[0, 1, 2], 4).unwrap();
    let believed = follower.proven(&Checkpoint { origin: LOG.into(), size: 4, root: tree.root() }, &proof).unwrap();
    fold(&store, &believed).await.unwrap();
    assert_eq!(store.cursor(LOG).await.unwrap().frontier.size(), 3);
    assert_eq!(store.signed(LOG).await.unwrap(), Some((4, tree.root())), "nobody signed the tree of 3");
    assert_eq!(store.extent("acme").await.unwrap(), (3, bytes));
    assert_eq!(store.extent("beta").await.unwrap(), (0, 0));
}

async fn a_leaf_that_cannot_be_folded_is_named_with_its_client(place: Place) {
    let bare = leaf::SettlementBatch { granted_at: None, ..Default::default() };
    let zoneless = leaf::Terms { version: 1, currency: "USD".into(), ..Default::default() };
    let spoilt = [Body::Settlements(bare), Body::Terms(zoneless), Body::PeriodClosed(leaf::PeriodClosed::default()), terms(1)];
    for body in spoilt {
        let store = open(&place).await;
        let refused = fold(&store, &believed(Frontier::new(), vec![terms(1), body])).await.unwrap_err();
        assert!(refused.to_string().starts_with("leaf 1 of client \"acme\" cannot be read: "), "{refused}");
    }
}

async fn a_closing_that_says_something_else_than_the_leaves_before_it_stops_the_fold(place: Place) {
    let store = open(&place).await;
    let closing = |settled: i128, last_seq| {
        Body::PeriodClosed(leaf::PeriodClosed {
            currency: "USD".into(),
            month: "2026-01".into(),
            last_seq,
            period_start: Some(UnixMicros(0).into()),
            period_end: Some(UnixMicros(9).into()),
            settled_nanos: Some(settled.into()),
            settlements: 4,
            terms_version: 1,
            ..Default::default()
        })
    };
    let first = believed(Frontier::new(), vec![terms(1), settled(7)]);
    fold(&store, &first).await.unwrap();
    // One record was folded before, one comes with the closing.
    let with = |settled_nanos| believed(first.frontier.clone(), vec![settled(3), closing(settled_nanos, 3)]);
    let refused = fold(&store, &with(19)).await.unwrap_err().to_string();
    assert!(refused.ends_with("it closes with settled_nanos of 19 but the leaves before it give 20"), "{refused}");
    assert_eq!(store.cursor(LOG).await.unwrap().frontier.size(), 2);
    fold(&store, &with(20)).await.unwrap();
    assert_eq!(store.closings("acme", "USD").await.unwrap().len(), 1);
}

async fn pages_go_through_all_invoices(place: Place) {
    let store = open(&place).await;
    for i in 0..5 {
        store.keep_draft(&draft(&format!("draft-{i}"))).await.unwrap();
    }
    let mut page = Page { client: "acme".into(), limit: 2, ..Page::default() };
    let mut seen = Vec::new();
    loop {
        let rows = store.list(&page).await.unwrap();
        let Some(last) = rows.last() else { break };
        page.after.clone_from(&last.draft_id);
        seen.extend(rows.into_iter().map(|row| row.draft_id));
    }
    assert_eq!(seen, ["draft-0", "draft-1", "draft-2", "draft-3", "draft-4"]);
    assert!(store.list(&Page { month: "2026-02".into(), limit: 9, ..Page::default() }).await.unwrap().is_empty());
}

/// Waits until so many connections hold, or wait for, the right to fold.
async fn until_asked(probe: &sqlx::PgPool, granted: bool, wanted: i64) {
    let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7020109 AND granted = $1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while sqlx::query_scalar::<_, i64>(count).bind(granted).fetch_one(probe).await.unwrap() != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn of_two_processes_one_folds_and_the_other_hears_of_it_and_goes_on_from_there() {
    let place = Place::postgres().await;
    let (one, two) = (open(&place).await, open(&place).await);
    let probe = sqlx::PgPool::connect(&place.store).await.unwrap();
    let mut turn = one.turn().await.unwrap();
    let mut changes = two.changes().await.unwrap();
    let next = tokio::spawn({
        let two = two.clone();
        async move { two.turn().await.unwrap() }
    });
    until_asked(&probe, false, 1).await;
    let first = believed(Frontier::new(), vec![terms(1), settled(7)]);
    turn.fold(LOG, &first).await.unwrap();
    changes.next().await.unwrap();
    assert_eq!(two.folded(LOG).await.unwrap(), 2);
    assert!(!next.is_finished(), "two have the turn");
    // The database ends the connection of a process that died.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7020109 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query(end).execute(&probe).await.unwrap();
    let mut turn_of_two = next.await.unwrap();
    let frontier = two.cursor(LOG).await.unwrap().frontier;
    let second = believed(frontier, vec![settled(8)]);
    assert!(turn.fold(LOG, &second).await.is_err(), "who lost the turn folds nothing");
    turn_of_two.fold(LOG, &second).await.unwrap();
    assert_eq!(records(&one, "acme", "USD").await.len(), 2);
}

fn invoice_of(total_minor: i64) -> Body {
    let (number, currency) = ("K2026-000001".to_owned(), "USD".to_owned());
    Body::Invoice(leaf::Invoice { number, currency, total_minor, period_closed_seq: 9, ..Default::default() })
}

fn event(key: &str, event: invoice_event::Event) -> Body {
    let (key, number, actor) = (key.to_owned(), "K2026-000001".to_owned(), "ada".to_owned());
    Body::InvoiceEvent(leaf::InvoiceEvent { key, number, actor, event: Some(event) })
}

fn payment(key: &str, amount_minor: i64, currency: &str) -> Body {
    let (currency, received_on, reference) = (currency.to_owned(), "2026-02-18".to_owned(), String::new());
    event(key, invoice_event::Event::Payment(leaf::InvoicePayment { amount_minor, currency, received_on, reference }))
}

fn reason() -> String {
    "as agreed".to_owned()
}

/// An invoice of 100.00: sent, paid twice above what is open, disputed, and its rest written off.
fn a_life() -> Vec<Body> {
    vec![
        invoice_of(10_000),
        event("sent", invoice_event::Event::Sent(leaf::InvoiceSent { to: "cfo@acme.example".into() })),
        payment("first", 6_000, "USD"),
        payment("second", 6_000, "USD"),
        payment("third", 10, "EUR"),
        event("disputed", invoice_event::Event::Disputed(leaf::InvoiceDisputed { leaves: vec![0], reason: reason() })),
        event("void", invoice_event::Event::Voided(leaf::InvoiceVoided { reason: reason() })),
        event("rest", invoice_event::Event::WrittenOff(leaf::InvoiceWrittenOff { reason: reason() })),
    ]
}

async fn balances_of(store: &Store) -> Vec<(&'static str, i64)> {
    store.balances().await.unwrap().into_iter().map(|balance| (balance.account.name(), balance.balance_minor)).collect()
}

async fn what_happens_to_an_invoice_counts_in_the_logs_order(place: Place) {
    let store = open(&place).await;
    fold(&store, &believed(Frontier::new(), a_life())).await.unwrap();
    let events = store.events("acme", "K2026-000001").await.unwrap();
    let refused: Vec<_> = events.iter().map(|event| event.refused.clone().unwrap_or_default()).collect();
    let wanted = [
        "",
        "",
        "amount_minor: 6000 is above the open amount of 4000",
        "currency: \"EUR\" is not the invoice's USD",
        "",
        "voiding is refused: the invoice is partly paid and disputed, which allows sending, a payment, a dispute's end, a write-off, a credit",
        "",
    ];
    assert_eq!(refused, wanted);
    assert_eq!(store.refused_events().await.unwrap(), 3);
    assert_eq!(balances_of(&store).await, [("bad_debt", 4_000), ("cash", 6_000), ("receivable", 0), ("revenue", -10_000)]);
    let second = store.event_by_key("acme", "second").await.unwrap().unwrap();
    assert_eq!((second.leaf, second.refused.as_deref()), (3, Some(wanted[2])));
    assert!(store.event_by_key("beta", "second").await.unwrap().is_none(), "keys are each client's own");
}

async fn a_ledger_that_was_lost_comes_back_to_the_same_balances(place: Place) {
    let store = open(&place).await;
    // Leaf by leaf here, and above in one fold: it comes to the same.
    let mut frontier = Frontier::new();
    for body in a_life() {
        let one = believed(frontier, vec![body]);
        fold(&store, &one).await.unwrap();
        frontier = one.frontier;
        assert_eq!(balances_of(&store).await.iter().map(|(_, balance)| balance).sum::<i64>(), 0);
    }
    assert_eq!(balances_of(&store).await, [("bad_debt", 4_000), ("cash", 6_000), ("receivable", 0), ("revenue", -10_000)]);
}

async fn an_event_of_an_invoice_that_is_not_there_stops_the_fold(place: Place) {
    let store = open(&place).await;
    for bodies in [vec![payment("first", 1, "USD")], vec![invoice_of(9), Body::InvoiceEvent(leaf::InvoiceEvent::default())]] {
        let refused = fold(&store, &believed(Frontier::new(), bodies)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unreadable(_)), "{refused}");
    }
    assert_eq!(store.folded(LOG).await.unwrap(), 0);
}

async fn a_credit_note_comes_off_the_invoice_that_it_corrects(place: Place) {
    let store = open(&place).await;
    let note = |number: &str, kind: leaf::DocumentKind, fee: i64, tax: i64| {
        let invoice = leaf::Invoice { total_minor: fee, tax_minor: tax, ..Default::default() };
        let (number, currency) = (number.to_owned(), "USD".to_owned());
        Body::Invoice(leaf::Invoice { number, currency, kind: kind.into(), period_closed_seq: 20, corrects_seq: 9, ..invoice })
    };
    let Body::Invoice(invoice) = invoice_of(10_000) else { panic!("no invoice") };
    let taxed = Body::Invoice(leaf::Invoice { tax_minor: 1_900, ..invoice });
    let bodies = vec![
        taxed,
        payment("first", 11_000, "USD"),
        note("K2026-C000001", leaf::DocumentKind::CreditNote, 1_000, 190),
        note("K2026-D000001", leaf::DocumentKind::DebitNote, 100, 19),
    ];
    fold(&store, &believed(Frontier::new(), bodies)).await.unwrap();
    // 900 were open; what is given back beyond that is the client's.
    let wanted = [("cash", 11_000), ("client_credit", -290), ("receivable", 119), ("revenue", -9_100), ("tax_payable", -1_729)];
    assert_eq!(balances_of(&store).await, wanted);
}

fn credited(key: &str, amount_minor: i64, tax_minor: i64, dispute_key: &str) -> Body {
    let (currency, dispute_key) = ("USD".to_owned(), dispute_key.to_owned());
    let credited = leaf::InvoiceCredited { amount_minor, tax_minor, currency, reason: reason(), dispute_key, ..Default::default() };
    event(key, invoice_event::Event::Credited(credited))
}

async fn what_is_agreed_moves_once_and_its_note_says_the_same(place: Place) {
    let store = open(&place).await;
    let Body::Invoice(invoice) = invoice_of(10_000) else { panic!("no invoice") };
    let taxed = Body::Invoice(leaf::Invoice { tax_minor: 1_900, ..invoice });
    let note = |fee: i64, tax: i64| {
        let (number, currency, kind) = ("K2026-C000001".to_owned(), "USD".to_owned(), leaf::DocumentKind::CreditNote.into());
        let note = leaf::Invoice { number, currency, kind, total_minor: fee, tax_minor: tax, ..Default::default() };
        Body::Invoice(leaf::Invoice { period_closed_seq: 9, corrects_seq: 4, ..note })
    };
    let dispute = event("disputed", invoice_event::Event::Disputed(leaf::InvoiceDisputed { leaves: vec![0], reason: reason() }));
    let decided = vec![
        taxed,
        payment("first", 11_000, "USD"),
        dispute,
        credited("agreed", 1_000, 190, "disputed"),
        credited("too much", 9_001, 1_710, ""),
        credited("settled", 1, 0, "disputed"),
        credited("no dispute", 1, 0, "first"),
    ];
    let decided = believed(Frontier::new(), decided);
    fold(&store, &decided).await.unwrap();
    // 900 were open; what is given back beyond that is the client's.
    let wanted = [("cash", 11_000), ("client_credit", -290), ("receivable", 0), ("revenue", -9_000), ("tax_payable", -1_710)];
    assert_eq!(balances_of(&store).await, wanted);
    let refused: Vec<_> = store.events("acme", "K2026-000001").await.unwrap().into_iter().filter_map(|event| event.refused).collect();
    let words = [
        "amount_minor: 9001 is above the 9000 before tax that was billed and no credit note gave back",
        "dispute_key: the invoice is not disputed",
        "dispute_key: \"first\" is no dispute of the invoice",
    ];
    assert_eq!(refused, words);
    let unnoted = store.unnoted_credits().await.unwrap();
    assert_eq!(unnoted.iter().map(|(_, event)| (event.client_seq, event.creditable_minor)).collect::<Vec<_>>(), [(4, 10_000)]);
    for (fee, tax) in [(1_000, 189), (999, 190)] {
        let bent = believed(decided.frontier.clone(), vec![note(fee, tax)]);
        assert!(matches!(fold(&store, &bent).await, Err(StoreError::Unreadable(_))));
    }
    fold(&store, &believed(decided.frontier, vec![note(1_000, 190)])).await.unwrap();
    assert_eq!(balances_of(&store).await, wanted, "the note moves nothing more");
    assert!(store.unnoted_credits().await.unwrap().is_empty(), "the log holds the note, whoever issued it");
}
