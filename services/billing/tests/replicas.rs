//! Several Billings on one PostgreSQL: one folds, all serve, and one that dies is replaced.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

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

use fake_shield::FakeShield;
use kiki::pb::billing::v1::{Account, InvoiceStatus, TrialBalanceRequest};
use kiki::status::Reason;
use log::{DAY, JANUARY, Log, ONE};
use place::Place;
use process::Process;

/// A month of a few clients.
fn january() -> Log {
    let mut log = Log::new();
    for i in 0..4_u8 {
        let client = format!("client-{i}");
        log.terms(&client, |_| {});
        log.bill(&client, "spring", JANUARY + DAY, i64::from(i + 1) * ONE, 1, 90_000_000);
        log.purchase(&client, JANUARY + 2 * DAY, 1, 50_000_000);
    }
    log
}

struct Two {
    place: Place,
    shield: FakeShield,
    address: String,
    processes: [Process; 2],
}

async fn two() -> Two {
    let (place, shield) = (Place::postgres().await, FakeShield::new(january()));
    let (address, key) = (shield.serve().await, shield.log.lock().unwrap().public().to_string());
    // Both at once make the schema, too.
    let (one, two) = tokio::join!(Process::start(&place, &address, &key), Process::start(&place, &address, &key));
    Two { place, shield, address, processes: [one, two] }
}

/// Which of them folds, once one does.
async fn folding(processes: &[Process]) -> usize {
    loop {
        for (index, process) in processes.iter().enumerate() {
            if process.metric("kiki_billing_folding").await == 1 {
                return index;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_folds_both_serve_and_an_invoice_that_both_finalise_is_one() {
    let mut two = two().await;
    let folds = folding(&two.processes).await;
    let other = 1 - folds;
    // Who does not fold drafts: it hears that what it closed is folded.
    let drafts = two.processes[other].draft().await.unwrap();
    assert_eq!(drafts.len(), 4);
    assert_eq!(two.processes[other].metric("kiki_billing_folding").await, 0);
    let [one, two] = &mut two.processes;
    let mut numbers = Vec::new();
    for draft in drafts {
        let (mine, yours) = tokio::join!(one.finalize(&draft.invoice_id), two.finalize(&draft.invoice_id));
        let (mine, yours) = (mine.unwrap(), yours.unwrap());
        assert_eq!(mine, yours);
        assert_eq!(one.document(&mine.number).await.unwrap(), two.document(&mine.number).await.unwrap());
        assert_eq!(one.bundle(&mine.number).await.unwrap().len(), two.bundle(&mine.number).await.unwrap().len());
        numbers.push(mine.number[5..].to_owned());
    }
    assert_eq!(numbers, ["-000001", "-000002", "-000003", "-000004"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_payments_of_one_open_amount_that_race_pay_it_once() {
    let mut two = two().await;
    let [one, two] = &mut two.processes;
    for draft in one.draft().await.unwrap() {
        let number = one.finalize(&draft.invoice_id).await.unwrap().number;
        let (keys, total) = ([format!("one-{number}"), format!("two-{number}")], draft.total_minor);
        let (mine, yours) = tokio::join!(one.pay(&keys[0], &number, total), two.pay(&keys[1], &number, total));
        let (paid, refused) = match (mine, yours) {
            (Ok(paid), Err(refused)) | (Err(refused), Ok(paid)) => (paid, refused),
            other => panic!("{other:?}"),
        };
        assert!(Reason::InvoiceState.is(&refused) && refused.message().contains("the invoice is paid"), "{refused:?}");
        assert_eq!((paid.status(), paid.paid_minor, paid.open_minor), (InvoiceStatus::Paid, total, 0));
    }
    let balances = two.client.trial_balance(TrialBalanceRequest::default()).await.unwrap().into_inner().balances;
    assert_eq!(balances.iter().map(|balance| balance.balance_minor).sum::<i64>(), 0);
    let receivable = balances.iter().find(|balance| balance.account() == Account::Receivable).unwrap();
    assert_eq!(receivable.balance_minor, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_one_that_folds_is_killed_the_other_goes_on() {
    let mut two = two().await;
    let folds = folding(&two.processes).await;
    let folded = two.processes[folds].metric("kiki_billing_folded_leaves").await;
    two.processes[folds].kill();
    let survivor = &mut two.processes[1 - folds];
    let drafts = survivor.draft().await.unwrap();
    assert_eq!(drafts.len(), 4);
    assert!(survivor.metric("kiki_billing_folded_leaves").await > folded);
    assert_eq!(survivor.metric("kiki_billing_folding").await, 1);
    // A third one comes, and what was drafted is there.
    let key = two.shield.log.lock().unwrap().public().to_string();
    let mut third = Process::start(&two.place, &two.address, &key).await;
    assert_eq!(third.draft().await.unwrap(), drafts);
}
