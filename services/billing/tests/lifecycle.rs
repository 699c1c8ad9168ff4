//! An invoice from its draft to its last cent, through Billing's gRPC face, with a fake of SyncShield behind it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;

use fake_shield::FakeShield;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::*;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use log::{DAY, FEBRUARY, JANUARY, Log, ONE};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

const ACME: &str = "draft-acme-USD-2026-01";
const NUMBER: &str = "K2026-000001";

struct World {
    client: BillingServiceClient<Channel>,
    shield: FakeShield,
    clock: VirtualClock,
    _data: tempfile::TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), billing::Error>>,
}

fn january() -> Log {
    let mut log = Log::new();
    for client in ["acme", "beta"] {
        log.terms(client, |_| {});
        log.bill(client, "spring", JANUARY + DAY, 36_368 * ONE, 1, 131_194_000_000);
        log.purchase(client, JANUARY + 2 * DAY, 1, 50_000_000);
    }
    log
}

impl World {
    async fn start(shield: FakeShield, clock: VirtualClock, approval_required: bool) -> Self {
        let data = tempfile::tempdir().unwrap();
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let log_key = shield.log.lock().unwrap().public().to_string();
        let config = billing::Config { approval_required, ..billing::Config::new(data.path(), shield.serve().await, log_key) };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(billing::serve(listeners, config, Clock::Virtual(clock.clone()), shutdown.clone()));
        Self { client: BillingServiceClient::new(channel(&address).unwrap()), shield, clock, _data: data, shutdown, task }
    }

    /// Acme's January of 2,209.00 USD, final; and beta's, a draft.
    async fn issued() -> Self {
        let clock = VirtualClock::at(UnixMicros(FEBRUARY + 17 * DAY));
        let mut world = Self::start(FakeShield::new(january()), clock, false).await;
        world.draft().await;
        world.finalize(ACME).await.unwrap();
        world
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn draft(&mut self) {
        let request = DraftInvoicesRequest { month: "2026-01".into(), ..Default::default() };
        self.client.draft_invoices(request).await.unwrap();
    }

    async fn finalize(&mut self, id: &str) -> Result<InvoiceSummary, Status> {
        let request = FinalizeInvoiceRequest { invoice_id: id.into() };
        Ok(self.client.finalize_invoice(request).await?.into_inner().invoice.unwrap())
    }

    async fn approve(&mut self, id: &str, actor: &str) -> Result<InvoiceSummary, Status> {
        let request = ApproveInvoiceRequest { invoice_id: id.into(), actor: actor.into() };
        Ok(self.client.approve_invoice(request).await?.into_inner().invoice.unwrap())
    }

    async fn sent(&mut self, key: &str) -> Result<InvoiceSummary, Status> {
        let request = MarkSentRequest { key: key.into(), invoice_id: NUMBER.into(), actor: "ada".into(), to: "cfo@acme.example".into() };
        Ok(self.client.mark_sent(request).await?.into_inner().invoice.unwrap())
    }

    async fn pay(&mut self, key: &str, amount_minor: i64) -> Result<InvoiceSummary, Status> {
        let (key, invoice_id, actor, currency) = (key.into(), NUMBER.into(), "ada".into(), "USD".into());
        let (received_on, reference) = ("2026-02-18".into(), "wire 7".into());
        let request = RecordPaymentRequest { key, invoice_id, actor, amount_minor, currency, received_on, reference };
        Ok(self.client.record_payment(request).await?.into_inner().invoice.unwrap())
    }

    async fn dispute(&mut self, key: &str, leaves: &[u64]) -> Result<InvoiceSummary, Status> {
        let (key, invoice_id, actor) = (key.into(), NUMBER.into(), "eve".into());
        let request = DisputeInvoiceRequest { key, invoice_id, actor, leaves: leaves.to_vec(), reason: "not ours".into() };
        Ok(self.client.dispute_invoice(request).await?.into_inner().invoice.unwrap())
    }

    async fn resolve(&mut self, key: &str) -> Result<InvoiceSummary, Status> {
        let (key, invoice_id, actor) = (key.into(), NUMBER.into(), "ada".into());
        let request = ResolveDisputeRequest { key, invoice_id, actor, reason: "it was".into() };
        Ok(self.client.resolve_dispute(request).await?.into_inner().invoice.unwrap())
    }

    async fn void(&mut self, id: &str) -> Result<InvoiceSummary, Status> {
        let (key, invoice_id, actor) = ("void".into(), id.into(), "ada".into());
        let request = VoidInvoiceRequest { key, invoice_id, actor, reason: "drawn up twice".into() };
        Ok(self.client.void_invoice(request).await?.into_inner().invoice.unwrap())
    }

    async fn write_off(&mut self) -> Result<InvoiceSummary, Status> {
        let (key, invoice_id, actor) = ("rest".into(), NUMBER.into(), "ada".into());
        let request = WriteOffInvoiceRequest { key, invoice_id, actor, reason: "insolvent".into() };
        Ok(self.client.write_off_invoice(request).await?.into_inner().invoice.unwrap())
    }

    async fn get(&mut self, id: &str) -> GetInvoiceResponse {
        self.client.get_invoice(GetInvoiceRequest { invoice_id: id.into() }).await.unwrap().into_inner()
    }

    /// The accounts that are not at 0.
    async fn accounts(&mut self) -> Vec<(Account, i64)> {
        let balances = self.client.trial_balance(TrialBalanceRequest::default()).await.unwrap().into_inner().balances;
        assert_eq!(balances.iter().map(|balance| balance.balance_minor).sum::<i64>(), 0);
        let mut accounts: Vec<_> = balances.iter().map(|balance| (balance.account(), balance.balance_minor)).collect();
        accounts.retain(|(_, balance)| *balance != 0);
        accounts.sort();
        accounts
    }
}

/// Refused as what the invoice's status does not allow, in these words.
#[track_caller]
fn refused(answer: Result<InvoiceSummary, Status>, words: &str) {
    let status = answer.unwrap_err();
    assert!(status.code() == Code::FailedPrecondition && Reason::InvoiceState.is(&status), "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

fn standing(invoice: &InvoiceSummary) -> (InvoiceStatus, i64, i64, bool) {
    (invoice.status(), invoice.paid_minor, invoice.open_minor, invoice.disputed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_is_sent_disputed_overdue_and_paid_to_the_last_cent() {
    use Account::{Cash, Receivable, Revenue};
    let mut world = World::issued().await;
    let issued = world.get(NUMBER).await.invoice.unwrap();
    assert_eq!((standing(&issued), issued.due_date.as_str()), ((InvoiceStatus::Finalized, 0, 220_900, false), "2026-03-20"));
    let sent = world.sent("s-1").await.unwrap();
    assert_eq!(standing(&sent), (InvoiceStatus::Sent, 0, 220_900, false));
    assert_eq!(world.accounts().await, [(Receivable, 220_900), (Revenue, -220_900)]);
    let part = world.pay("p-1", 100_000).await.unwrap();
    assert_eq!(standing(&part), (InvoiceStatus::PartlyPaid, 100_000, 120_900, false));
    assert_eq!(world.pay("p-1", 100_000).await.unwrap(), part, "a repeat gives the same");
    refused(world.pay("p-2", 120_901).await, "amount_minor: 120901 is above the open amount of 120900");
    refused(world.void(NUMBER).await, "K2026-000001: voiding is refused: the invoice is partly paid, which allows sending, a payment");
    let reused = world.pay("p-1", 5).await.unwrap_err();
    assert!(Reason::KeyReused.is(&reused), "{reused:?}");

    assert_eq!(standing(&world.dispute("d-1", &[1, 2]).await.unwrap()), (InvoiceStatus::PartlyPaid, 100_000, 120_900, true));
    refused(world.dispute("d-2", &[]).await, "a dispute is refused: the invoice is partly paid and disputed");
    // The 20th of March ends in UTC.
    world.clock.advance_to(UnixMicros(FEBRUARY + 48 * DAY - 1));
    assert_eq!(world.get(NUMBER).await.invoice.unwrap().status(), InvoiceStatus::PartlyPaid);
    world.clock.advance_to(UnixMicros(FEBRUARY + 48 * DAY));
    assert_eq!(world.get(NUMBER).await.invoice.unwrap().status(), InvoiceStatus::Overdue);
    assert_eq!(standing(&world.resolve("r-1").await.unwrap()), (InvoiceStatus::Overdue, 100_000, 120_900, false));
    assert_eq!(standing(&world.pay("p-3", 120_900).await.unwrap()), (InvoiceStatus::Paid, 220_900, 0, false));
    assert_eq!(world.accounts().await, [(Revenue, -220_900), (Cash, 220_900)]);
    refused(world.pay("p-4", 1).await, "a payment is refused: the invoice is paid, which allows a dispute");

    let history = world.get(NUMBER).await.history;
    assert_eq!(history.iter().map(|h| h.event.as_ref().unwrap().key.as_str()).collect::<Vec<_>>(), ["s-1", "p-1", "d-1", "r-1", "p-3"]);
    assert!(history.iter().all(|h| h.refused.is_empty() && h.event.as_ref().unwrap().number == NUMBER));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_comes_back_from_the_log_where_the_ledger_was_lost() {
    let mut world = World::issued().await;
    world.pay("p-1", 1_000).await.unwrap();
    world.write_off().await.unwrap();
    refused(world.sent("s-1").await, "the invoice is written off, which allows nothing more");
    let accounts = world.accounts().await;
    assert_eq!(accounts, [(Account::Revenue, -220_900), (Account::Cash, 1_000), (Account::BadDebt, 219_900)]);
    let (shield, clock) = (world.shield.clone(), world.clock.clone());
    world.stop().await;
    let mut world = World::start(shield, clock, false).await;
    // Drafting waits until all that is signed is folded.
    world.draft().await;
    assert_eq!(world.accounts().await, accounts);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_of_which_nothing_is_paid_can_be_void() {
    let mut world = World::issued().await;
    assert_eq!(standing(&world.void(NUMBER).await.unwrap()), (InvoiceStatus::Void, 0, 0, false));
    assert_eq!(world.accounts().await, []);
    refused(world.void("draft-beta-USD-2026-01").await, "is a draft");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_becomes_final_once_it_is_approved_where_that_is_required() {
    let clock = VirtualClock::at(UnixMicros(FEBRUARY + DAY));
    let mut world = World::start(FakeShield::new(january()), clock, true).await;
    world.draft().await;
    refused(world.finalize(ACME).await, "draft-acme-USD-2026-01 is not approved");
    assert!(Reason::FieldInvalid.is(&world.approve(ACME, "").await.unwrap_err()));
    let approved = world.approve(ACME, "grace").await.unwrap();
    assert_eq!((approved.status(), approved.approved_by.as_str()), (InvoiceStatus::Approved, "grace"));
    assert_eq!(approved.approved_at.map(|at| at.seconds), Some((FEBRUARY + DAY) / 1_000_000));
    assert_eq!(world.approve(ACME, "heidi").await.unwrap(), approved, "the first counts");
    let finalized = world.finalize(ACME).await.unwrap();
    assert_eq!((finalized.status(), finalized.approved_by.as_str()), (InvoiceStatus::Finalized, "grace"));
    assert_eq!(world.finalize(ACME).await.unwrap(), finalized);
    world.stop().await;

    let mut world = World::issued().await;
    refused(world.approve(NUMBER, "late").await, "K2026-000001 is final");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_cites_the_clients_own_leaves_up_to_the_invoice() {
    let mut world = World::issued().await;
    let betas = world.shield.log.lock().unwrap().leaves.iter().position(|l| kiki::leaf::decode(l).unwrap().0.client == "beta").unwrap();
    let refused = world.dispute("d-1", &[betas as u64]).await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&refused) && refused.message().contains("is not the client's"), "{refused:?}");
    let end = world.shield.log.lock().unwrap().size();
    let refused = world.dispute("d-1", &[end]).await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&refused) && refused.message().contains("came after the invoice's own"), "{refused:?}");

    // The client may dispute its own invoice, and nobody else's; the rest is the platform's.
    let request = |client: &str, invoice_id: &str| {
        let dispute = DisputeInvoiceRequest { key: "d-2".into(), invoice_id: invoice_id.into(), actor: "cfo".into(), ..Default::default() };
        let mut request = tonic::Request::new(DisputeInvoiceRequest { reason: "not ours".into(), ..dispute });
        request.metadata_mut().insert(kiki::caller::ROLE, "tenant".parse().unwrap());
        request.metadata_mut().insert(kiki::caller::CLIENT, client.parse().unwrap());
        request
    };
    let not_yours = world.client.dispute_invoice(request("beta", NUMBER)).await.unwrap_err();
    assert!(Reason::NotYours.is(&not_yours), "{not_yours:?}");
    let disputed = world.client.dispute_invoice(request("acme", NUMBER)).await.unwrap().into_inner().invoice.unwrap();
    assert!(disputed.disputed);
    world.stop().await;
}
