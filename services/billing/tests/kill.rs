//! Billing killed at every step of closing a month and of a credit, on both engines: one number each, the same bytes, no gap.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;
#[path = "common/place.rs"]
mod place;
#[path = "../../kiki-cli/src/bench/postgres.rs"]
mod postgres;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use fake_shield::FakeShield;
use kiki::leaf::leaf::Body;
use log::{DAY, JANUARY, Log, ONE};
use place::Place;
use process::Process;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

/// More steps than closing the month has.
const STEPS_MAX: u32 = 200;

/// Months that are closed at once: they wait more than they work.
const AT_ONCE: u32 = 6;

/// A month of two clients.
fn january() -> Log {
    let mut log = Log::new();
    for (client, spend, value) in [("acme", 36_368, 131_194), ("beta", 1_000, 9_630)] {
        log.terms(client, |_| {});
        log.bill(client, "spring", JANUARY + DAY, spend * ONE, 1, value * 1_000_000);
        log.purchase(client, JANUARY + 2 * DAY, 1, 50_000_000);
    }
    log
}

/// What was heard of invoices: their documents by number.
type Heard = BTreeMap<String, Vec<u8>>;

/// Closes the month and credits a part of an invoice, or as much of it as there is a process for.
async fn close_month(process: &mut Process, heard: &mut Heard) -> Result<(), tonic::Status> {
    for draft in process.draft().await? {
        let number = process.finalize(&draft.invoice_id).await?.number;
        let document = process.document(&number).await?;
        let before = heard.insert(number.clone(), document.clone());
        assert!(before.is_none_or(|before| before == document), "{number} changed");
        process.bundle(&number).await?;
    }
    // A part of the first one is given back.
    let first = heard.keys().next().cloned().unwrap_or_default();
    let note = process.credit(&first, 1_000).await?;
    let document = process.document(&note.number).await?;
    let before = heard.insert(note.number.clone(), document.clone());
    assert!(before.is_none_or(|before| before == document), "{} changed", note.number);
    process.bundle(&note.number).await.map(drop)
}

/// What the log holds of it: closings by client, and digests of invoices by number.
fn recorded(shield: &FakeShield) -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
    let (mut closings, mut invoices) = (Vec::new(), BTreeMap::new());
    for bytes in &shield.log.lock().unwrap().leaves {
        let (header, body) = kiki::leaf::decode(bytes).unwrap();
        match body {
            Body::PeriodClosed(_) => closings.push(header.client),
            Body::Invoice(invoice) => {
                assert!(invoices.insert(invoice.number.clone(), invoice.document_sha256.to_vec()).is_none(), "{} twice", invoice.number);
            }
            _ => {}
        }
    }
    (closings, invoices)
}

/// Kills the process at one step and lets another finish. Says whether there was such a step.
async fn killed_at(step: u32, place: Place) -> bool {
    let shield = FakeShield::new(january());
    let (address, key) = (shield.serve().await, shield.log.lock().unwrap().public());
    let mut process = Process::start(&place, &address, &key.to_string()).await;
    let (steps, killed, child) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)), process.child.clone());
    let was_killed = killed.clone();
    *shield.at_step.lock().unwrap() = Some(Box::new(move || {
        if steps.fetch_add(1, SeqCst) + 1 == step {
            was_killed.store(true, SeqCst);
            process::kill(&child);
        }
    }));
    let mut heard = Heard::new();
    let first = close_month(&mut process, &mut heard).await;
    assert!(first.is_ok() || killed.load(SeqCst), "step {step}: {first:?}");
    *shield.at_step.lock().unwrap() = None;
    process.kill();
    let mut process = Process::start(&place, &address, &key.to_string()).await;
    close_month(&mut process, &mut heard).await.unwrap();

    let (closings, invoices) = recorded(&shield);
    assert_eq!(closings.len(), 2, "step {step}: {closings:?}");
    let numbers: Vec<&str> = invoices.keys().map(|number| &number[5..]).collect();
    assert_eq!(numbers, ["-000001", "-000002", "-C000001"], "step {step}");
    for (number, document) in &heard {
        assert_eq!(invoices[number], Sha256::digest(document).to_vec(), "step {step}: {number}");
        let report = billing::verify_bundle(&process.bundle(number).await.unwrap(), &key).unwrap();
        assert_eq!(report.invoice.to_json(), *document);
    }
    assert_eq!(heard.len(), 3);
    killed.load(SeqCst)
}

/// Kills it at every step there is, each in a place of its own; gives how many there are.
async fn killed_at_every_step(place: impl AsyncFn() -> Place) -> u32 {
    let mut steps = 0;
    loop {
        let mut months = JoinSet::new();
        for step in 1..=AT_ONCE {
            months.spawn(killed_at(steps + step, place().await));
        }
        let killed = months.join_all().await.into_iter().filter(|killed| *killed).count() as u32;
        steps += killed;
        assert!(steps < STEPS_MAX);
        if killed < AT_ONCE {
            return steps;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_month_closes_once_however_often_billing_dies() {
    let steps = killed_at_every_step(async || Place::sqlite()).await;
    println!("sqlite: killed at each of {steps} steps");
    assert!(steps > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_month_closes_once_however_often_billing_dies() {
    // One place is kept, so that the server outlives each month.
    let _kept = Place::postgres().await;
    let steps = killed_at_every_step(async || Place::postgres().await).await;
    println!("postgres: killed at each of {steps} steps");
    assert!(steps > 10);
}
