//! Billing from its gRPC face to the log and back, with a fake of SyncShield behind it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;

use billing::domain::invoice::Invoice;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf::{DocumentKind, leaf::Body};
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use fake_shield::FakeShield;
use log::{DAY, FEBRUARY, JANUARY, Log, ONE};

struct Running {
    client: BillingServiceClient<Channel>,
    http: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), billing::Error>>,
}

impl Running {
    async fn start(data: &std::path::Path, shield: &FakeShield, clock: &VirtualClock) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let http = listeners.http.local_addr().unwrap().to_string();
        let log_key = shield.log.lock().unwrap().public().to_string();
        let config = billing::Config::new(data, shield.serve().await, log_key);
        let shutdown = CancellationToken::new();
        let clock = Clock::Virtual(clock.clone());
        let task = tokio::spawn(billing::serve(listeners, config, clock, shutdown.clone()));
        Self { client: BillingServiceClient::new(channel(&address).unwrap()), http, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn draft(&mut self) -> DraftInvoicesResponse {
        let request = DraftInvoicesRequest { month: "2026-01".into(), ..Default::default() };
        self.client.draft_invoices(request).await.unwrap().into_inner()
    }

    async fn finalize(&mut self, id: &str) -> Result<InvoiceSummary, tonic::Status> {
        let request = FinalizeInvoiceRequest { invoice_id: id.into() };
        Ok(self.client.finalize_invoice(request).await?.into_inner().invoice.unwrap())
    }

    async fn get(&mut self, id: &str) -> (InvoiceSummary, Invoice) {
        let answer = self.client.get_invoice(GetInvoiceRequest { invoice_id: id.into() }).await.unwrap().into_inner();
        (answer.invoice.unwrap(), Invoice::from_json(&answer.json).unwrap())
    }

    async fn bundle(&mut self, id: &str) -> Result<Vec<u8>, tonic::Status> {
        let request = GetProofBundleRequest { invoice_id: id.into(), ..Default::default() };
        let mut stream = self.client.get_proof_bundle(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            bytes.extend_from_slice(&message.chunk);
        }
        Ok(bytes)
    }

    async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(&self.http).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    }
}

/// The product's own example in January, another client below its baseline, and one that has to wait.
fn january() -> Log {
    let mut log = Log::new();
    log.terms("acme", |_| {});
    log.terms("beta", |terms| terms.zone = "America/New_York".into());
    log.terms("gamma", |terms| terms.basis = kiki::leaf::Basis::Realised.into());
    for (client, spend, value) in [("acme", 36_368, 131_194), ("beta", 1_000, 2_630), ("gamma", 10, 100)] {
        log.bill(client, "spring", JANUARY + DAY, spend * ONE, 1, value * 1_000_000);
        log.purchase(client, JANUARY + 2 * DAY, 1, 50_000_000);
    }
    log
}

async fn started(log: Log, now: i64) -> (tempfile::TempDir, FakeShield, VirtualClock, Running) {
    let (data, shield) = (tempfile::tempdir().unwrap(), FakeShield::new(log));
    let clock = VirtualClock::at(UnixMicros(now));
    let running = Running::start(data.path(), &shield, &clock).await;
    (data, shield, clock, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_becomes_invoices_that_verify_offline() {
    let (_data, shield, _clock, mut billing) = started(january(), FEBRUARY + 17 * DAY).await;
    let drafted = billing.draft().await;
    let names: Vec<_> = drafted.invoices.iter().map(|i| (i.invoice_id.as_str(), i.total_minor)).collect();
    assert_eq!(names, [("draft-acme-USD-2026-01", 220_900), ("draft-beta-USD-2026-01", 0)]);
    assert_eq!(drafted.postponed[0].client, "gamma");
    assert_eq!(billing.draft().await.invoices, drafted.invoices, "a repeat gives the same drafts");

    let acme = billing.finalize(&drafted.invoices[0].invoice_id).await.unwrap();
    let beta = billing.finalize(&drafted.invoices[1].invoice_id).await.unwrap();
    assert_eq!((acme.number.as_str(), beta.number.as_str()), ("K2026-000001", "K2026-000002"));
    assert_eq!(billing.finalize(&drafted.invoices[0].invoice_id).await.unwrap(), acme);
    assert_eq!(billing.draft().await.invoices[0], acme);
    let (summary, invoice) = billing.get("K2026-000001").await;
    assert_eq!(summary, acme);
    assert_eq!((invoice.issue_date.as_str(), invoice.due_date.as_str()), ("2026-02-18", "2026-03-20"));
    assert_eq!(invoice.total_invoice_amount.to_string(), "2209.00");
    assert_eq!(billing.get("draft-beta-USD-2026-01").await.1.period_start, "2026-01-01T05:00:00Z");

    let key = shield.log.lock().unwrap().public();
    for number in ["K2026-000001", "K2026-000002"] {
        let bundle = billing.bundle(number).await.unwrap();
        let report = billing::verify_bundle(&bundle, &key).unwrap();
        assert_eq!(report.invoice, billing.get(number).await.1);
    }
    let listed = billing.client.list_invoices(ListInvoicesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.invoices, [acme, beta]);
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_month_is_postponed_and_not_closed() {
    let (_data, shield, clock, mut billing) = started(january(), FEBRUARY - 1).await;
    let drafted = billing.draft().await;
    assert!(drafted.invoices.is_empty());
    assert_eq!(drafted.postponed.len(), 3);
    let leaves = shield.log.lock().unwrap().size();
    assert_eq!(leaves, january().size(), "nothing was recorded");
    // February began in UTC; in New York it begins five hours later.
    clock.advance_to(UnixMicros(FEBRUARY));
    assert_eq!(billing.draft().await.invoices.len(), 1);
    // The realised basis waits for the horizon of 90 days.
    clock.advance_to(UnixMicros(FEBRUARY + 90 * DAY));
    let drafted = billing.draft().await;
    assert_eq!((drafted.invoices.len(), drafted.postponed.len()), (3, 0));
    assert_eq!(drafted.invoices[2].total_minor, 200, "10 % of 50 less 3 x 10");
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_whose_answer_was_lost_is_recorded_once_also_across_a_restart() {
    let (data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    *shield.lost_answers.lock().unwrap() = 1;
    let lost = billing.finalize(&id).await.unwrap_err();
    assert!(Reason::DependencyUnavailable.is(&lost), "{lost:?}");
    let before = billing.get(&id).await;
    billing.stop().await;

    let mut billing = Running::start(data.path(), &shield, &clock).await;
    let finalized = billing.finalize(&id).await.unwrap();
    assert_eq!((finalized.clone(), billing.get(&finalized.number).await.1), before);
    let bundle = billing.bundle(&finalized.number).await.unwrap();
    billing::verify_bundle(&bundle, &shield.log.lock().unwrap().public()).unwrap();
    let issued = shield
        .log
        .lock()
        .unwrap()
        .leaves
        .iter()
        .filter(|l| matches!(kiki::leaf::decode(l).unwrap().1, kiki::leaf::leaf::Body::Invoice(_)))
        .count();
    assert_eq!(issued, 1);
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_record_is_billed_on_a_note_that_verifies_and_the_invoice_stays() {
    let (_data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    let (_, january) = billing.get(&id).await;
    {
        let mut log = shield.log.lock().unwrap();
        log.bill("acme", "spring", JANUARY + 3 * DAY, 5 * ONE, 2, 0);
        log.bill("acme", "spring", FEBRUARY + DAY, 7 * ONE, 2, 0);
    }
    clock.advance_to(UnixMicros(FEBRUARY + 28 * DAY));
    let request = DraftInvoicesRequest { month: "2026-02".into(), client: "acme".into(), ..Default::default() };
    // The drafting first waits for what is signed, and closing signs all that came before it.
    let drafted = billing.client.draft_invoices(request.clone()).await.unwrap().into_inner().invoices;
    let ids: Vec<_> = drafted.iter().map(|invoice| (invoice.invoice_id.as_str(), invoice.kind(), invoice.total_minor)).collect();
    let note = "draft-acme-USD-2026-02-2026-01";
    assert_eq!(ids, [("draft-acme-USD-2026-02", DocumentKind::Invoice, 0), (note, DocumentKind::CreditNote, 150)]);
    let spend = |invoice: &Invoice| invoice.line_items[0].client_spend.to_string();
    assert_eq!(spend(&billing.get("draft-acme-USD-2026-02").await.1), "7.00");
    assert_eq!(spend(&billing.get(note).await.1), "36373.00");
    assert_eq!(billing.get(&id).await.1, january, "a draft of a closed period stays as it is");

    let refused = billing.finalize(note).await.unwrap_err();
    assert!(Reason::PeriodOpen.is(&refused) && refused.message().contains(&id), "{refused:?}");
    assert_eq!(billing.finalize(&id).await.unwrap().number, "K2026-000001");
    let issued = billing.finalize(note).await.unwrap();
    assert_eq!((issued.number.as_str(), issued.corrects.as_str()), ("K2026-C000001", "K2026-000001"));
    assert_eq!(billing.finalize(note).await.unwrap(), issued);
    assert_eq!(billing.client.draft_invoices(request).await.unwrap().into_inner().invoices[1], issued);
    let bundle = billing.bundle("K2026-C000001").await.unwrap();
    let report = billing::verify_bundle(&bundle, &shield.log.lock().unwrap().public()).unwrap();
    // 10 % of 3 x 5 less.
    assert_eq!(report.invoice.amount_due.to_string(), "1.50");
    assert!(billing.metrics().await.contains(r#"kiki_ooaS_revenue_total_micros{currency="USD",month="2026-01"} 2207500000"#));
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_waits_for_its_late_records_as_long_as_its_terms_say() {
    let mut log = Log::new();
    log.terms("acme", |terms| terms.grace_seconds = 2 * 86_400);
    log.bill("acme", "spring", JANUARY + DAY, ONE, 1, 10_000_000);
    let (_data, _shield, clock, mut billing) = started(log, FEBRUARY + DAY).await;
    let waiting = billing.draft().await.postponed.remove(0);
    assert_eq!(
        (waiting.reason.as_str(), waiting.until.unwrap().seconds),
        ("the month's late records are waited for", (FEBRUARY + 2 * DAY) / 1_000_000)
    );
    clock.advance_to(UnixMicros(FEBRUARY + 2 * DAY));
    assert_eq!(billing.draft().await.invoices.len(), 1);
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_caught_up_with_by_proof() {
    let mut log = january();
    for _ in 0..40_000 {
        log.append("kiki", kiki::leaf::leaf::Body::Evidence(kiki::leaf::Evidence::default()));
    }
    let (_data, shield, _clock, mut billing) = started(log, FEBRUARY + DAY).await;
    assert_eq!(billing.draft().await.invoices[0].total_minor, 220_900);
    assert!(*shield.proofs.lock().unwrap() > 0, "no checkpoint lay on the way, so a proof was needed");
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_lost_issues_no_invoice_again_and_no_number_twice() {
    let (_data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    billing.draft().await;
    billing.finalize("draft-acme-USD-2026-01").await.unwrap();
    billing.stop().await;

    let size = shield.log.lock().unwrap().size();
    *shield.signed.lock().unwrap() = size;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut billing = Running::start(elsewhere.path(), &shield, &clock).await;
    let drafted = billing.draft().await;
    let names: Vec<_> = drafted.invoices.iter().map(|i| i.invoice_id.as_str()).collect();
    assert_eq!(names, ["draft-beta-USD-2026-01"]);
    let acme = drafted.postponed.iter().find(|postponed| postponed.client == "acme").unwrap();
    assert!(acme.reason.contains("was invoiced as K2026-000001") && acme.until.is_none(), "{acme:?}");
    assert_eq!(billing.finalize("draft-beta-USD-2026-01").await.unwrap().number, "K2026-000002");
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_an_older_day_finalises_no_draft_that_was_invoiced_since() {
    let (data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    billing.stop().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(data.path().join("ledger.db"), copy.path().join("ledger.db")).unwrap();
    let mut billing = Running::start(data.path(), &shield, &clock).await;
    billing.finalize(&id).await.unwrap();
    billing.stop().await;

    let mut billing = Running::start(copy.path(), &shield, &clock).await;
    let size = shield.log.lock().unwrap().size();
    *shield.signed.lock().unwrap() = size;
    let refused = billing.finalize(&id).await.unwrap_err();
    assert!(Reason::KeyReused.is(&refused) && refused.message().contains("K2026-000001"), "{refused:?}");
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_the_log_refuses_for_ever_holds_up_no_other() {
    let (data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let ids: Vec<_> = billing.draft().await.invoices.into_iter().map(|i| i.invoice_id).collect();
    *shield.refused_numbers.lock().unwrap() = vec!["K2026-000001".into(), "K2026-000002".into()];
    for id in &ids {
        assert!(Reason::KeyReused.is(&billing.finalize(id).await.unwrap_err()));
    }
    assert!(billing.metrics().await.contains("kiki_billing_unrecorded_invoices 2"));
    billing.stop().await;
    // From here on the log refuses the first alone.
    shield.refused_numbers.lock().unwrap().pop();
    let mut billing = Running::start(data.path(), &shield, &clock).await;
    let shown = async {
        while !billing.metrics().await.contains("kiki_billing_unrecorded_invoices 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), shown).await.expect("the second is recorded at the start");
    billing.bundle("K2026-000002").await.unwrap();
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_bundle_could_hold_takes_no_number() {
    let (data, _shield, _clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data.path().join("ledger.db"));
    let ledger = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let set = |bytes: i64| sqlx::query("UPDATE client_head SET bytes = $1 WHERE client = 'acme'").bind(bytes).execute(&ledger);
    set(1 << 30).await.unwrap();
    let refused = billing.finalize(&id).await.unwrap_err();
    assert!(Reason::TooMany.is(&refused) && refused.message().contains("proof bundle"), "{refused:?}");
    assert!(billing.get(&id).await.0.number.is_empty());
    set(1 << 20).await.unwrap();
    assert_eq!(billing.finalize(&id).await.unwrap().number, "K2026-000001");
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_whose_evidence_is_none_of_the_clients_are_not_drafted() {
    let evidence = || Body::Evidence(kiki::leaf::Evidence::default());
    let named = |log: &mut Log, client: &str, index: u64| {
        let position = kiki::leaf::Position { log_id: log::LOG.into(), index };
        log.terms(client, |terms| terms.baseline_evidence = Some(position));
        log.bill(client, "spring", JANUARY + DAY, ONE, 1, 1_000_000);
    };
    let mut log = Log::new();
    let (operators, betas) = (log.append("kiki", evidence()), log.append("beta", evidence()));
    named(&mut log, "acme", operators);
    named(&mut log, "beta", betas);
    named(&mut log, "cora", betas);
    named(&mut log, "dora", 2);
    named(&mut log, "elsa", 1_000_000);
    let (_data, shield, _clock, mut billing) = started(log, FEBRUARY + DAY).await;
    let drafted = billing.draft().await;
    assert_eq!(drafted.invoices.iter().map(|i| i.client.as_str()).collect::<Vec<_>>(), ["acme", "beta"]);
    let reasons = ["it is another client's", "it is of another kind", "the log is shorter"];
    assert_eq!(drafted.postponed.len(), reasons.len());
    for (postponed, reason) in drafted.postponed.iter().zip(reasons) {
        assert!(postponed.reason.contains(reason), "{postponed:?}");
    }
    let closed = |bytes: &Vec<u8>| matches!(kiki::leaf::decode(bytes).unwrap().1, Body::PeriodClosed(_));
    assert_eq!(shield.log.lock().unwrap().leaves.iter().filter(|bytes| closed(bytes)).count(), 2, "new terms can mend it");
    for invoice in drafted.invoices {
        let number = billing.finalize(&invoice.invoice_id).await.unwrap().number;
        billing.bundle(&number).await.unwrap();
    }
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_cannot_be_read_is_named_with_its_client() {
    let mut log = january();
    let at = log.append("beta", Body::Outcome(kiki::leaf::Outcome::default()));
    let (_data, _shield, _clock, mut billing) = started(log, FEBRUARY + DAY).await;
    let request = DraftInvoicesRequest { month: "2026-01".into(), client: "acme".into(), ..Default::default() };
    let refused = billing.client.draft_invoices(request).await.unwrap_err();
    assert!(Reason::LogInconsistent.is(&refused), "{refused:?}");
    assert!(refused.message().contains(&format!("leaf {at} of client \"beta\"")), "{refused:?}");
    let metric = format!(r#"kiki_billing_unreadable_leaf{{client="beta"}} {at}"#);
    assert!(billing.metrics().await.contains(&metric));
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rewritten_is_billed_no_further() {
    let (data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    billing.draft().await;
    billing.stop().await;
    // Another history of the same length and key: one price is higher.
    let mut other = january();
    other.bill("acme", "spring", JANUARY + DAY, ONE, 9, 0);
    for _ in 0..40 {
        other.purchase("beta", JANUARY + 5 * DAY, 3, 1);
    }
    let rewritten = FakeShield::new(other);
    let mut billing = Running::start(data.path(), &rewritten, &clock).await;
    let request = DraftInvoicesRequest { month: "2026-01".into(), ..Default::default() };
    let refused = billing.client.draft_invoices(request).await.unwrap_err();
    assert!(Reason::LogInconsistent.is(&refused), "{refused:?}");
    let refused = billing.finalize("draft-acme-USD-2026-01").await.unwrap_err();
    assert!(Reason::LogInconsistent.is(&refused), "{refused:?}");
    assert!(billing.metrics().await.contains("kiki_billing_log_fault 1"));
    drop(shield);
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_key_changes_is_followed_and_its_bundles_verify_under_the_first_key() {
    let (_data, shield, _clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let first = shield.log.lock().unwrap().public();
    billing.draft().await;
    {
        let mut log = shield.log.lock().unwrap();
        log.rotate(8);
        log.purchase("acme", JANUARY + 6 * DAY, 9, 1);
        *shield.signed.lock().unwrap() = log.size();
    }
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    billing.finalize(&id).await.unwrap();
    let bundle = billing.bundle(&id).await.unwrap();
    assert!(billing::verify_bundle(&bundle, &first).is_ok());
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_in_two_logs_is_postponed_and_holds_up_no_other() {
    let mut log = january();
    log.append("beta", Body::ClientMoved(kiki::leaf::ClientMoved::default()));
    let (_data, _shield, _clock, mut billing) = started(log, FEBRUARY + 17 * DAY).await;
    let drafted = billing.draft().await;
    assert_eq!(drafted.invoices.iter().map(|invoice| invoice.client.as_str()).collect::<Vec<_>>(), ["acme"]);
    let beta = drafted.postponed.iter().find(|postponed| postponed.client == "beta").unwrap();
    assert_eq!(beta.reason, "the client went to log kiki.test/log-2");
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_money_once_and_again_after_a_restart() {
    let (data, shield, clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    billing.finalize(&id).await.unwrap();
    billing.finalize(&id).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            billing.stop().await;
            billing = Running::start(data.path(), &shield, &clock).await;
            billing.get(&id).await;
        }
        let text = billing.metrics().await;
        for line in [
            r#"kiki_ooaS_revenue_total_micros{currency="USD",month="2026-01"} 2209000000"#,
            r#"kiki_ooaS_margin_recovered_micros{campaign_id="spring",currency="USD"} 22090000000"#,
            r#"kiki_ooaS_invoices_generated_total{status="finalized"} 1"#,
            r#"kiki_ooaS_profit_share_percentage{client="acme",currency="USD"} 10"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_drafted_page_by_page_and_a_page_that_is_asked_for_again_gives_the_same() {
    let (_data, _shield, _clock, mut billing) = started(january(), FEBRUARY + 17 * DAY).await;
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            || DraftInvoicesRequest { month: "2026-01".into(), page_size: 1, page_token: page_token.clone(), ..Default::default() };
        let page = billing.client.draft_invoices(request()).await.unwrap().into_inner();
        assert_eq!(billing.client.draft_invoices(request()).await.unwrap().into_inner(), page);
        page_token = page.next_page_token.clone();
        pages.push(page);
        if page_token.is_empty() {
            break;
        }
    }
    let clients = |page: &DraftInvoicesResponse| page.invoices.first().map(|draft| draft.client.clone()).unwrap_or_default();
    assert_eq!(
        pages.iter().map(|page| (clients(page), page.remaining)).collect::<Vec<_>>(),
        [("acme".to_owned(), 2), ("beta".to_owned(), 1), (String::new(), 0)]
    );
    assert_eq!(pages[2].postponed[0].client, "gamma");
    let whole = billing.draft().await;
    assert_eq!(whole.invoices, [&pages[0].invoices[..], &pages[1].invoices[..]].concat());
    for request in [
        DraftInvoicesRequest { month: "2026-01".into(), page_size: 1_001, ..Default::default() },
        DraftInvoicesRequest { month: "2026-01".into(), page_token: "acme".into(), ..Default::default() },
    ] {
        assert!(Reason::FieldInvalid.is(&billing.client.draft_invoices(request).await.unwrap_err()));
    }
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_currencies_of_one_client_that_a_page_has_no_room_for_come_on_the_next() {
    let mut log = january();
    log.terms("acme", |terms| (terms.currency, terms.basis) = ("EUR".into(), kiki::leaf::Basis::Realised.into()));
    let (_data, _shield, _clock, mut billing) = started(log, FEBRUARY + 17 * DAY).await;
    let mut request = DraftInvoicesRequest { month: "2026-01".into(), client: "acme".into(), page_size: 1, ..Default::default() };
    let euros = billing.client.draft_invoices(request.clone()).await.unwrap().into_inner();
    assert_eq!(euros.postponed.iter().map(|wait| (wait.client.as_str(), wait.currency.as_str())).collect::<Vec<_>>(), [("acme", "EUR")]);
    assert_eq!(euros.remaining, 1, "beta and gamma are not asked for");
    request.page_token = euros.next_page_token;
    let dollars = billing.client.draft_invoices(request).await.unwrap().into_inner();
    assert_eq!(dollars.invoices.iter().map(|draft| draft.invoice_id.as_str()).collect::<Vec<_>>(), ["draft-acme-USD-2026-01"]);
    assert_eq!((dollars.remaining, dollars.next_page_token.as_str()), (0, ""));
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_is_malformed_unknown_or_another_clients() {
    let (_data, _shield, _clock, mut billing) = started(january(), FEBRUARY + DAY).await;
    let month = DraftInvoicesRequest { month: "2026-1".into(), ..Default::default() };
    let refused = billing.client.draft_invoices(month).await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&refused) && refused.message().contains("month"), "{refused:?}");
    assert!(Reason::NotFound.is(&billing.finalize("draft-x-USD-2026-01").await.unwrap_err()));
    let id = billing.draft().await.invoices[0].invoice_id.clone();
    assert!(Reason::PeriodOpen.is(&billing.bundle(&id).await.unwrap_err()), "a draft has no proof");
    let page = ListInvoicesRequest { page_size: 1_001, ..Default::default() };
    assert!(Reason::FieldInvalid.is(&billing.client.list_invoices(page).await.unwrap_err()));
    let mut request = tonic::Request::new(GetInvoiceRequest { invoice_id: id });
    request.metadata_mut().insert(kiki::caller::ROLE, "tenant".parse().unwrap());
    request.metadata_mut().insert(kiki::caller::CLIENT, "beta".parse().unwrap());
    assert!(Reason::NotYours.is(&billing.client.get_invoice(request).await.unwrap_err()));
    billing.stop().await;
}
