//! Who sees or makes a client's documents is on record among the client's own leaves.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;

use fake_shield::FakeShield;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf::{self, AccessKind, AccessRole, leaf::Body};
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::*;
use kiki::runtime::{Listeners, channel};
use log::{DAY, FEBRUARY, JANUARY, Log, ONE};
use tokio_util::sync::CancellationToken;
use tonic::Request;

const NUMBER: &str = "K2026-000001";

fn january() -> Log {
    let mut log = Log::new();
    for client in ["acme", "beta"] {
        log.terms(client, |_| {});
        log.bill(client, "spring", JANUARY + DAY, 36_368 * ONE, 1, 131_194_000_000);
        log.purchase(client, JANUARY + 2 * DAY, 1, 50_000_000);
    }
    log
}

/// What is on record: client, role, tenant, kind and subject.
fn accesses(shield: &FakeShield) -> Vec<(String, AccessRole, String, AccessKind, String)> {
    let log = shield.log.lock().unwrap();
    let access = |bytes: &Vec<u8>| match leaf::decode(bytes).unwrap() {
        (header, Body::Access(access)) => {
            assert_eq!(access.at, Some(UnixMicros(FEBRUARY + DAY).into()));
            Some((header.client, access.role(), access.tenant.clone(), access.kind(), access.subject))
        }
        _ => None,
    };
    log.leaves.iter().filter_map(access).collect()
}

fn as_tenant<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(kiki::caller::ROLE, "tenant".parse().unwrap());
    request.metadata_mut().insert(kiki::caller::CLIENT, "acme".parse().unwrap());
    request
}

/// Drafts twice, finalises, reads in every way, and ends.
async fn a_day_at_the_office(shield: &FakeShield) -> (Vec<InvoiceSummary>, Vec<u8>) {
    let data = tempfile::tempdir().unwrap();
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
    let log_key = shield.log.lock().unwrap().public().to_string();
    let config = billing::Config::new(data.path(), shield.serve().await, log_key);
    let shutdown = CancellationToken::new();
    let clock = Clock::Virtual(VirtualClock::at(UnixMicros(FEBRUARY + DAY)));
    let task = tokio::spawn(billing::serve(listeners, config, clock, shutdown.clone()));
    let mut client = BillingServiceClient::new(channel(&address).unwrap());
    let draft = || DraftInvoicesRequest { month: "2026-01".into(), ..Default::default() };
    let drafts = client.draft_invoices(draft()).await.unwrap().into_inner().invoices;
    // Reading changes nothing of what is drafted.
    client.get_invoice(GetInvoiceRequest { invoice_id: drafts[0].invoice_id.clone() }).await.unwrap();
    assert_eq!(client.draft_invoices(draft()).await.unwrap().into_inner().invoices, drafts);
    client.finalize_invoice(FinalizeInvoiceRequest { invoice_id: drafts[0].invoice_id.clone() }).await.unwrap();
    client.get_invoice(as_tenant(GetInvoiceRequest { invoice_id: NUMBER.into() })).await.unwrap();
    client.list_invoices(ListInvoicesRequest { month: "2026-01".into(), ..Default::default() }).await.unwrap();
    let request = as_tenant(GetProofBundleRequest { invoice_id: NUMBER.into(), ..Default::default() });
    let mut stream = client.get_proof_bundle(request).await.unwrap().into_inner();
    let mut bundle = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        bundle.extend_from_slice(&message.chunk);
    }
    // What another's is not given out, and is not on record.
    client.get_invoice(as_tenant(GetInvoiceRequest { invoice_id: "draft-beta-USD-2026-01".into() })).await.unwrap_err();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    (drafts, bundle)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_and_generation_of_a_document_is_a_record_of_its_client() {
    let shield = FakeShield::new(january());
    let (_, bundle) = a_day_at_the_office(&shield).await;
    let mut seen = accesses(&shield);
    seen.sort_by_key(|(client, _, _, kind, subject)| (client.clone(), *kind as i32, subject.clone()));
    let one = |client: &str, role, kind, subject: &str| {
        let tenant = if role == AccessRole::Tenant { client.to_owned() } else { String::new() };
        (client.to_owned(), role, tenant, kind, subject.to_owned())
    };
    let (operator, tenant) = (AccessRole::Operator, AccessRole::Tenant);
    let (acmes, betas) = ("draft-acme-USD-2026-01", "draft-beta-USD-2026-01");
    let wanted = [
        one("acme", operator, AccessKind::Draft, acmes),
        one("acme", operator, AccessKind::Draft, acmes),
        one("acme", operator, AccessKind::Finalize, NUMBER),
        one("acme", tenant, AccessKind::GetInvoice, NUMBER),
        one("acme", operator, AccessKind::GetInvoice, acmes),
        one("acme", operator, AccessKind::List, "2026-01"),
        one("acme", tenant, AccessKind::Bundle, NUMBER),
        one("beta", operator, AccessKind::Draft, betas),
        one("beta", operator, AccessKind::Draft, betas),
        one("beta", operator, AccessKind::List, "2026-01"),
        // What was refused is the operator's own.
        ("kiki".to_owned(), tenant, "acme".to_owned(), AccessKind::Refused, "kiki.billing.v1.BillingService/GetInvoice".to_owned()),
    ];
    assert_eq!(seen, wanted);
    // They stand in the client's gapless sequence, and in its bundles, and change no figure.
    let report = billing::verify_bundle(&bundle, &shield.log.lock().unwrap().public()).unwrap();
    assert_eq!(report.invoice.total_invoice_amount.to_string(), "2209.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn accesses_whose_answer_was_lost_are_on_record_once() {
    let shield = FakeShield::new(january());
    *shield.loses_accesses.lock().unwrap() = true;
    a_day_at_the_office(&shield).await;
    assert!(!*shield.loses_accesses.lock().unwrap(), "an answer was lost");
    assert_eq!(accesses(&shield).len(), 11);
}
