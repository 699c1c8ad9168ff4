//! An invoice from its draft to its last cent, through Billing's gRPC face, with a fake of SyncShield behind it.
#![allow(clippy::unwrap_used, clippy::explicit_write, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;
#[path = "../../../tests/support/python.rs"]
mod python;

use fake_shield::FakeShield;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf::{self, invoice_event, leaf::Body};
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use log::{DAY, FEBRUARY, JANUARY, Log, ONE};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
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

    /// Gives a part back by agreement: the invoice and the note.
    async fn credit(&mut self, change: impl FnOnce(&mut CreditInvoiceRequest)) -> Result<(InvoiceSummary, InvoiceSummary), Status> {
        let (key, invoice_id, actor, currency) = ("c-1".into(), NUMBER.into(), "ada".into(), "USD".into());
        let (reason, leaves) = ("half of the clicks were bots".into(), vec![1, 2]);
        let mut request =
            CreditInvoiceRequest { key, invoice_id, actor, amount_minor: 10_000, currency, reason, leaves, dispute_key: String::new() };
        change(&mut request);
        let answer = self.client.credit_invoice(request).await?.into_inner();
        Ok((answer.invoice.unwrap(), answer.credit_note.unwrap()))
    }

    async fn export(&mut self, invoice_id: &str, format: ExportFormat, tax_name: &str) -> Result<Vec<u8>, Status> {
        let (invoice_id, tax_name) = (invoice_id.into(), tax_name.into());
        let request = ExportInvoiceRequest { invoice_id, format: format.into(), tax_name, ..Default::default() };
        let mut stream = self.client.export_invoice(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            bytes.extend_from_slice(&message.chunk);
        }
        Ok(bytes)
    }

    async fn bundle(&mut self, number: &str) -> Vec<u8> {
        let request = GetProofBundleRequest { invoice_id: number.into(), ..Default::default() };
        let mut stream = self.client.get_proof_bundle(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            bytes.extend_from_slice(&message.chunk);
        }
        bytes
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
    refused(world.pay("p-4", 1).await, "a payment is refused: the invoice is paid, which allows a dispute, a credit");

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
    assert!(Reason::FieldInvalid.is(&refused) && refused.message().contains("came after"), "{refused:?}");

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

/// The same January with a tax of 19 %, from a seller to a buyer: 2,628.71 USD.
async fn taxed() -> World {
    let mut log = Log::new();
    log.terms("acme", |terms| {
        terms.tax = Some(leaf::Tax { category: "S".into(), rate_ppm: 190_000, ..Default::default() });
        let party = |name: &str, country: &str, vat_id: &str| {
            let (city, postal_code) = ("Town".into(), "12345".into());
            Some(leaf::Party { name: name.into(), country: country.into(), vat_id: vat_id.into(), city, postal_code, ..Default::default() })
        };
        terms.seller = Some(leaf::Seller { party: party("KIKI GmbH", "DE", "DE123456789"), ..Default::default() });
        terms.buyer = party("Acme, Inc.", "DK", "DK87654321");
    });
    log.bill("acme", "spring", JANUARY + DAY, 36_368 * ONE, 1, 131_194_000_000);
    log.purchase("acme", JANUARY + 2 * DAY, 1, 50_000_000);
    let clock = VirtualClock::at(UnixMicros(FEBRUARY + 17 * DAY));
    let mut world = World::start(FakeShield::new(log), clock, false).await;
    world.draft().await;
    world.finalize(ACME).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_given_back_by_agreement_and_its_note_proves_itself() {
    use Account::{Cash, ClientCredit, Receivable, Revenue, TaxPayable};
    let mut world = taxed().await;
    world.dispute("d-1", &[1, 2]).await.unwrap();
    let settled = world.credit(|credit| credit.dispute_key = "d-1".into()).await.unwrap();
    let (invoice, note) = &settled;
    assert_eq!(standing(invoice), (InvoiceStatus::Finalized, 0, 250_971, false));
    assert_eq!((note.number.as_str(), note.corrects.as_str(), note.total_minor, note.tax_minor), ("K2026-C000001", NUMBER, 10_000, 1_900));
    assert_eq!(world.accounts().await, [(Receivable, 250_971), (Revenue, -210_900), (TaxPayable, -40_071)]);
    assert_eq!(world.credit(|credit| credit.dispute_key = "d-1".into()).await.unwrap(), settled, "a repeat gives the same");
    let reused = world.credit(|credit| credit.amount_minor = 5).await.unwrap_err();
    assert!(Reason::KeyReused.is(&reused), "{reused:?}");

    // What is paid can be given back too, and is the client's then.
    assert_eq!(world.pay("p-1", 250_971).await.unwrap().status(), InvoiceStatus::Paid);
    let (invoice, second) = world.credit(|credit| (credit.key, credit.amount_minor) = ("c-2".into(), 5_000)).await.unwrap();
    assert_eq!((standing(&invoice), second.number.as_str()), ((InvoiceStatus::Paid, 250_971, 0, false), "K2026-C000002"));
    assert_eq!(world.accounts().await, [(Revenue, -205_900), (TaxPayable, -39_121), (Cash, 250_971), (ClientCredit, -5_950)]);

    let key = world.shield.log.lock().unwrap().public();
    for (number, before, after) in [("K2026-C000001", "2209.00", "2109.00"), ("K2026-C000002", "2109.00", "2059.00")] {
        let bundle = world.bundle(number).await;
        script_verifies(&key.to_string(), &bundle);
        let corrects = billing::verify_bundle(&bundle, &key).unwrap().invoice.corrects.unwrap();
        assert_eq!((corrects.amount_before.to_string().as_str(), corrects.amount_after.to_string().as_str()), (before, after));
        assert_eq!(corrects.issue_date.as_deref(), Some("2026-02-18"));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_that_does_not_apply_takes_no_number() {
    let mut world = taxed().await;
    let words = "amount_minor: 220901 is above the 220900 before tax that was billed";
    refused(world.credit(|credit| credit.amount_minor = 220_901).await.map(|(invoice, _)| invoice), words);
    refused(world.credit(|credit| credit.currency = "EUR".into()).await.map(|(invoice, _)| invoice), "\"EUR\" is not the invoice's USD");
    let words = "dispute_key: the invoice is not disputed";
    refused(world.credit(|credit| credit.dispute_key = "d-1".into()).await.map(|(invoice, _)| invoice), words);
    let end = world.shield.log.lock().unwrap().size() + 9;
    let beyond = world.credit(|credit| credit.leaves = vec![end]).await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&beyond) && beyond.message().contains("came after"), "{beyond:?}");
    let (_, all) = world.credit(|credit| credit.amount_minor = 220_900).await.unwrap();
    assert_eq!(
        (all.number.as_str(), all.total_minor, all.tax_minor),
        ("K2026-C000001", 220_900, 41_971),
        "to the cent, and the first number"
    );
    assert_eq!(world.accounts().await, []);
    refused(world.void(NUMBER).await, "voiding is refused: the invoice is paid");
    let again = world.credit(|credit| (credit.key, credit.invoice_id) = ("c-2".into(), "K2026-C000001".into())).await;
    refused(again.map(|(invoice, _)| invoice), "K2026-C000001: a credit is refused: the invoice is finalized, which allows sending");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_that_is_in_the_log_has_its_note_though_nobody_asks_again() {
    let mut world = taxed().await;
    let issued = std::sync::Arc::new(tokio::sync::Notify::new());
    let (log, told) = (world.shield.log.clone(), issued.clone());
    *world.shield.at_step.lock().unwrap() = Some(Box::new(move || {
        let is_note =
            |bytes: &Vec<u8>| matches!(leaf::decode(bytes).unwrap().1, Body::Invoice(invoice) if invoice.number == "K2026-C000001");
        if log.lock().unwrap().leaves.iter().any(is_note) {
            told.notify_one();
        }
    }));
    let (currency, reason) = ("USD".into(), "as agreed".into());
    let credited = leaf::InvoiceCredited { amount_minor: 10_000, tax_minor: 1_900, currency, reason, ..Default::default() };
    let event = Some(invoice_event::Event::Credited(credited));
    let event = leaf::InvoiceEvent { key: "c-1".into(), number: NUMBER.into(), actor: "ada".into(), event };
    let index = world.shield.log.lock().unwrap().append("acme", Body::InvoiceEvent(event));
    *world.shield.signed.lock().unwrap() = index + 1;
    issued.notified().await;
    assert_eq!(world.get("K2026-C000001").await.invoice.unwrap().total_minor, 10_000);
    world.stop().await;
}

/// tests/verify_bundle.py, which shares no code with us, says so too; and names a figure that was changed.
fn script_verifies(key: &str, bundle: &[u8]) {
    let Some(python) = python::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (good, bent) = (folder.path().join("good.bundle"), folder.path().join("bent.bundle"));
    std::fs::write(&good, bundle).unwrap();
    let said = br#""amount_after": "2"#;
    let at = bundle.windows(said.len()).position(|window| window == said).unwrap();
    let mut other = bundle.to_vec();
    other[at + said.len() - 1] = b'3';
    std::fs::write(&bent, other).unwrap();
    for (file, works, words) in [(good, true, ": good: K2026-C"), (bent, false, "corrects.amount_after: is \"3")] {
        let script = std::path::Path::new(ROOT).join("tests/verify_bundle.py");
        let output = std::process::Command::new(&python).arg(script).args(["--key", key]).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() == works && text.contains(words), "{text}");
    }
}

/// January's invoice, what came late of it, and the draft of February's note on it.
async fn noted() -> (World, String) {
    let mut world = World::issued().await;
    let size = {
        let mut log = world.shield.log.lock().unwrap();
        log.bill("acme", "spring", JANUARY + 3 * DAY, ONE, 2, 1_000_000_000);
        log.purchase("acme", JANUARY + 4 * DAY, 2, 50_000_000);
        log.size()
    };
    *world.shield.signed.lock().unwrap() = size;
    world.clock.advance_to(UnixMicros(FEBRUARY + 30 * DAY));
    let drafts = world.february().await;
    let note = drafts.iter().find(|draft| draft.kind() != leaf::DocumentKind::Invoice).unwrap();
    assert_eq!(note.total_minor, 9_970);
    (world, note.invoice_id.clone())
}

impl World {
    async fn february(&mut self) -> Vec<InvoiceSummary> {
        let request = DraftInvoicesRequest { month: "2026-02".into(), client: "acme".into(), ..Default::default() };
        self.client.draft_invoices(request).await.unwrap().into_inner().invoices
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_whose_invoice_is_void_has_no_note() {
    let (mut world, note) = noted().await;
    world.void(NUMBER).await.unwrap();
    refused(world.finalize(&note).await, "K2026-000001, which draft-acme-USD-2026-02-2026-01 corrects, is void: nothing was owed");
    assert_eq!(world.february().await, [], "nor is it drafted any more");
    assert_eq!(world.accounts().await, []);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_on_the_period_takes_nothing_back_that_was_agreed() {
    let (mut world, note) = noted().await;
    world.credit(|_| {}).await.unwrap();
    let note = world.finalize(&note).await.unwrap();
    assert_eq!((note.total_minor, note.corrects.as_str()), (9_970, NUMBER), "the difference between two computed fees");
    let key = world.shield.log.lock().unwrap().public();
    for number in [note.number.as_str(), "K2026-C000001"] {
        billing::verify_bundle(&world.bundle(number).await, &key).unwrap();
    }
    assert_eq!(world.accounts().await, [(Account::Receivable, 220_870), (Account::Revenue, -220_870)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_goes_out_in_every_format_or_says_what_it_lacks() {
    let mut world = taxed().await;
    world.credit(|_| {}).await.unwrap();
    let formats = [
        (ExportFormat::Ubl, "<?xml", "<cbc:ID>K2026-C000001</cbc:ID>"),
        (ExportFormat::Cii, "<?xml", "K2026-C000001"),
        (ExportFormat::Pdf, "%PDF", "%PDF"),
        (ExportFormat::Xero, "*ContactName", "-100.00"),
    ];
    for (format, begin, part) in formats {
        let file = world.export("K2026-C000001", format, "19% VAT").await.unwrap();
        let text = String::from_utf8_lossy(&file);
        assert!(text.starts_with(begin) && text.contains(part), "{format:?}: {text}");
    }
    assert!(world.export(NUMBER, ExportFormat::Quickbooks, "19% VAT").await.unwrap().starts_with(b"*InvoiceNo"));
    let nameless = world.export(NUMBER, ExportFormat::Xero, "").await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&nameless) && nameless.message().contains("tax_name"), "{nameless:?}");
    let none = world.export(NUMBER, ExportFormat::Unspecified, "").await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&none) && none.message().contains("format"), "{none:?}");
    let lacking = |answer: Result<Vec<u8>, Status>, words: &str| {
        let status = answer.unwrap_err();
        assert!(status.code() == Code::FailedPrecondition && status.message().contains(words), "{status:?}");
    };
    lacking(world.export("K2026-C000001", ExportFormat::Quickbooks, "19% VAT").await, "is a credit note");
    lacking(world.export(NUMBER, ExportFormat::QuickbooksUs, "").await, "has tax");
    world.stop().await;

    let mut world = World::issued().await;
    lacking(world.export(NUMBER, ExportFormat::Ubl, "").await, "K2026-000001: the terms have no seller");
    assert!(world.export(NUMBER, ExportFormat::Pdf, "").await.unwrap().starts_with(b"%PDF"));
    lacking(world.export("draft-beta-USD-2026-01", ExportFormat::Pdf, "").await, "is a draft");
    world.stop().await;
}
