//! Invoices of a client with more leaves than a bundle may have whole: the same money, proven by a sample, on either engine.
#![allow(clippy::unwrap_used, clippy::explicit_write, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;
#[path = "common/place.rs"]
mod place;
#[path = "../../kiki-cli/src/bench/postgres.rs"]
mod postgres;
#[path = "../../../tests/support/python.rs"]
mod python;

use billing::domain::invoice::Invoice;
use fake_shield::FakeShield;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use log::{DAY, FEBRUARY, JANUARY, Log, ONE};
use place::Place;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const CUSTOMERS: u8 = 200;

/// January of a client with some 1,600 leaves, and another's beside it.
fn january() -> Log {
    let mut log = Log::new();
    log.terms("acme", |terms| terms.horizon_days = 20);
    log.terms("beta", |_| {});
    for i in 0..CUSTOMERS {
        let (at, campaign) = (JANUARY + i64::from(i) * DAY / 10, ["spring", "autumn", "launch"][usize::from(i) % 3]);
        log.bill("acme", campaign, at, (i64::from(i) + 1) * ONE / 100, i, 7_000_000 + i64::from(i));
        log.bill("beta", "other", at, ONE, i, 5_000_000);
        log.purchase("acme", at + DAY, i, 5_000_000 + i64::from(i));
        log.purchase("acme", at + 2 * DAY, i, -1_000_000);
        log.adjust("acme", campaign, at, -ONE / 1_000);
    }
    log
}

struct World {
    client: BillingServiceClient<Channel>,
    shield: FakeShield,
    clock: VirtualClock,
    place: Place,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), billing::Error>>,
}

impl World {
    async fn start(place: Place, whole_bundle_max: u64) -> Self {
        let (shield, clock) = (FakeShield::new(january()), VirtualClock::at(UnixMicros(FEBRUARY + DAY)));
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let log_key = shield.log.lock().unwrap().public().to_string();
        let store = Some(place.store.parse().unwrap());
        let config = billing::Config { store, whole_bundle_max, ..billing::Config::new("", shield.serve().await, log_key) };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(billing::serve(listeners, config, Clock::Virtual(clock.clone()), shutdown.clone()));
        Self { client: BillingServiceClient::new(channel(&address).unwrap()), shield, clock, place, shutdown, task }
    }

    /// Closes acme's month: the numbers of what is final then.
    async fn close(&mut self, month: &str) -> Vec<String> {
        let request = DraftInvoicesRequest { month: month.into(), client: "acme".into(), ..Default::default() };
        let drafted = self.client.draft_invoices(request).await.unwrap().into_inner();
        assert!(drafted.postponed.is_empty(), "{:?}", drafted.postponed);
        let mut numbers = Vec::new();
        for draft in drafted.invoices {
            let request = FinalizeInvoiceRequest { invoice_id: draft.invoice_id };
            numbers.push(self.client.finalize_invoice(request).await.unwrap().into_inner().invoice.unwrap().number);
        }
        numbers
    }

    async fn bundle(&mut self, number: &str, challenge: &[u8]) -> Result<Vec<u8>, Status> {
        let request = GetProofBundleRequest { invoice_id: number.into(), challenge: challenge.to_vec().into() };
        let mut stream = self.client.get_proof_bundle(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            bytes.extend_from_slice(&message.chunk);
        }
        Ok(bytes)
    }

    /// January, what came late of it, February with the notes on it, and a credit by agreement: all documents by number.
    async fn documents(&mut self) -> Vec<Invoice> {
        let mut numbers = self.close("2026-01").await;
        let size = {
            let mut log = self.shield.log.lock().unwrap();
            log.bill("acme", "spring", JANUARY + 20 * DAY, ONE, 250, 9_000_000);
            log.purchase("acme", JANUARY + 21 * DAY, 250, 50_000_000);
            log.bill("acme", "autumn", FEBRUARY + DAY, ONE, 251, 9_000_000);
            log.purchase("acme", FEBRUARY + 2 * DAY, 251, 50_000_000);
            log.size()
        };
        *self.shield.signed.lock().unwrap() = size;
        self.clock.advance_to(UnixMicros(FEBRUARY + 30 * DAY));
        numbers.extend(self.close("2026-02").await);
        let (key, invoice_id, actor, currency, reason) = ("c".into(), numbers[0].clone(), "ada".into(), "USD".into(), "bots".into());
        let request = CreditInvoiceRequest { key, invoice_id, actor, amount_minor: 100, currency, reason, ..Default::default() };
        numbers.push(self.client.credit_invoice(request).await.unwrap().into_inner().credit_note.unwrap().number);
        let mut documents = Vec::new();
        for number in numbers {
            let request = GetInvoiceRequest { invoice_id: number };
            documents.push(Invoice::from_json(&self.client.get_invoice(request).await.unwrap().into_inner().json).unwrap());
        }
        documents
    }

    /// The ledger in its folder.
    async fn ledger(&self) -> sqlx::SqlitePool {
        let folder = self.place.store.strip_prefix("file:").unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(std::path::Path::new(folder).join("ledger.db"));
        sqlx::SqlitePool::connect_with(options).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// What `tests/verify_bundle.py`, which shares no code with us, says of a bundle.
fn script(python: &std::path::Path, key: &str, bundle: &[u8]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.bundle");
    std::fs::write(&file, bundle).unwrap();
    let script = std::path::Path::new(ROOT).join("tests/verify_bundle.py");
    let output = std::process::Command::new(python).arg(script).args(["--key", key]).arg(file).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// What a document says of money: its own digest, and so the log's roots behind it, differ.
fn but_for_the_proof(mut document: Invoice) -> Invoice {
    document.completeness.sheets_sha256 = None;
    document.completeness.checkpoint_root.clear();
    document.line_items.iter_mut().for_each(|line| line.leaves.clear());
    document
}

async fn documents_by_sample_are_those_by_all_leaves(place: Place) {
    let mut by_leaves = World::start(Place::sqlite(), u64::MAX).await;
    let wanted = by_leaves.documents().await;
    assert!(wanted.iter().all(|document| document.completeness.sheets_sha256.is_none()));
    let kinds: Vec<_> = wanted.iter().map(|document| format!("{:?}", document.kind)).collect();
    assert_eq!(kinds, ["Invoice", "Invoice", "CreditNote", "CreditNote"], "the horizon of January is over at the end of February");
    by_leaves.stop().await;

    let mut world = World::start(place, 0).await;
    let documents = world.documents().await;
    let key = world.shield.log.lock().unwrap().public();
    for (document, wanted) in documents.into_iter().zip(wanted) {
        let bundle = world.bundle(&document.invoice_id, b"mine").await.unwrap();
        let report = billing::verify_bundle(&bundle, &key).unwrap();
        assert_eq!(report.invoice, document);
        assert!(report.sampled.unwrap().sheets.1 > 3);
        assert_eq!(but_for_the_proof(document), but_for_the_proof(wanted));
        let Some(python) = python::python() else { continue };
        let (works, text) = script(&python, &key.to_string(), &bundle);
        assert!(works && text.contains(": good: "), "{text}");
        the_script_finds_what_is_changed(&python, &key.to_string(), &bundle);
    }
    let too_long = world.bundle("K2026-000001", &[0; 65]).await.unwrap_err();
    assert!(too_long.message().contains("challenge: is 65 bytes; at most 64 are taken"), "{too_long:?}");
    world.stop().await;
}

/// A figure of the document, one of a sheet, and the challenge, which draws other sheets or changes nothing but is in no signature.
fn the_script_finds_what_is_changed(python: &std::path::Path, key: &str, bundle: &[u8]) {
    use prost::Message as _;
    let read = ProofBundle::decode(bundle).unwrap();
    let mut sheets = Sheets::decode(&read.sheets[..]).unwrap();
    sheets.sheets[0].added.as_mut().unwrap().settlements += 1;
    let other = ProofBundle { sheets: sheets.encode_to_vec().into(), ..read }.encode_to_vec();
    let (works, text) = script(python, key, &other);
    assert!(!works, "{text}");
    for words in ["sheet 0: added: says", "sheets: give", "completeness.sheets_sha256: is"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_documents_by_sample_are_those_by_all_leaves() {
    documents_by_sample_are_those_by_all_leaves(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_documents_by_sample_are_those_by_all_leaves() {
    documents_by_sample_are_those_by_all_leaves(Place::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_whose_client_grew_out_of_a_bundle_becomes_final_by_sample() {
    let mut world = World::start(Place::sqlite(), u64::MAX).await;
    let request = DraftInvoicesRequest { month: "2026-01".into(), client: "acme".into(), ..Default::default() };
    let draft = world.client.draft_invoices(request).await.unwrap().into_inner().invoices.remove(0);
    let set = "UPDATE client_head SET client_seq = 2000000, bytes = 2000000 WHERE client = 'acme'";
    sqlx::query(set).execute(&world.ledger().await).await.unwrap();
    let request = FinalizeInvoiceRequest { invoice_id: draft.invoice_id };
    let invoice = world.client.finalize_invoice(request).await.unwrap().into_inner().invoice.unwrap();
    assert_eq!((invoice.number.as_str(), invoice.total_minor), ("K2026-000001", draft.total_minor));
    let key = world.shield.log.lock().unwrap().public();
    let report = billing::verify_bundle(&world.bundle("K2026-000001", b"").await.unwrap(), &key).unwrap();
    assert!(report.sampled.is_some() && report.invoice.line_items.iter().all(|line| line.leaves.is_empty()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_longer_those_of_the_document_give_no_bundle() {
    let mut world = World::start(Place::sqlite(), 0).await;
    let number = world.close("2026-01").await.remove(0);
    let first = "(SELECT MIN(client_seq) FROM record WHERE kind = 1)";
    let change = format!("UPDATE record SET amount = amount + 1 WHERE kind = 1 AND client_seq = {first}");
    sqlx::query(sqlx::AssertSqlSafe(change)).execute(&world.ledger().await).await.unwrap();
    let refused = world.bundle(&number, b"").await.unwrap_err();
    assert!(Reason::LogInconsistent.is(&refused) && refused.message().contains("other sheets than K2026-000001"), "{refused:?}");
    world.stop().await;
}
