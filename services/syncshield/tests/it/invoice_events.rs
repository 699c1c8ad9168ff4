//! What happens to an invoice reaches the log in its form, once for each key, and only of an invoice that is there.

use kiki::clock::UnixMicros;
use kiki::framed::Scanner;
use kiki::leaf::{self, invoice_event::Event};
use syncshield::domain::ledger::{Item, Ledger, Recorded};
use syncshield::domain::refusal::Refusal;
use syncshield::domain::state::State;

const NOW: i64 = 1_770_000_000_000_000;

/// A client with an invoice, and another without.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new("test.local/log".into(), State::default());
    ledger.set_now(UnixMicros(NOW));
    for client in ["acme", "beta"] {
        let (campaign, currency, zone) = ("c".into(), "USD".into(), "UTC".into());
        ledger.put_campaign(client, leaf::Campaign { campaign, currency, zone, target_roas_ppm: 1, ..Default::default() }).unwrap();
    }
    let invoice = leaf::Invoice {
        number: "K2026-000001".into(),
        currency: "USD".into(),
        month: "2026-01".into(),
        document_sha256: vec![1; 32].into(),
        issued_at: Some(UnixMicros(NOW).into()),
        ..Default::default()
    };
    ledger.record("", 0, vec![("acme".into(), Item::Invoice(invoice))]).unwrap();
    ledger
}

fn event(key: &str, event: Event) -> leaf::InvoiceEvent {
    leaf::InvoiceEvent { key: key.into(), number: "K2026-000001".into(), actor: "ada".into(), event: Some(event) }
}

fn payment(amount_minor: i64) -> leaf::InvoicePayment {
    leaf::InvoicePayment { amount_minor, currency: "USD".into(), received_on: "2026-02-18".into(), reference: "wire 7".into() }
}

fn record(ledger: &mut Ledger, client: &str, event: leaf::InvoiceEvent) -> Result<Recorded, Refusal> {
    ledger.record("", 0, vec![(client.into(), Item::InvoiceEvent(event))]).map(|mut recorded| recorded.remove(0))
}

#[test]
fn a_key_has_one_effect_for_each_client() {
    let mut ledger = ledger();
    let paid = event("p-1", Event::Payment(payment(100)));
    let first = record(&mut ledger, "acme", paid.clone()).unwrap();
    let size = ledger.state.size;
    let again = record(&mut ledger, "acme", paid.clone()).unwrap();
    assert_eq!((again.index, again.client_seq, again.duplicate), (first.index, first.client_seq, true));
    let other = record(&mut ledger, "acme", event("p-1", Event::Payment(payment(101)))).unwrap_err();
    assert!(matches!(other, Refusal::KeyReused { .. }), "{other}");
    assert_eq!(ledger.state.size, size);
    // A new key is a new event, also of the same content: whether it counts is not the log's to say.
    assert!(!record(&mut ledger, "acme", leaf::InvoiceEvent { key: "p-2".into(), ..paid }).unwrap().duplicate);
}

#[test]
fn an_event_is_of_an_invoice_that_the_client_has() {
    let mut ledger = ledger();
    let paid = event("p-1", Event::Payment(payment(100)));
    let unknown = leaf::InvoiceEvent { number: "K2026-000002".into(), ..paid.clone() };
    assert!(matches!(record(&mut ledger, "acme", unknown), Err(Refusal::NotFound { what: "invoice", .. })));
    assert!(matches!(record(&mut ledger, "beta", paid), Err(Refusal::NotFound { what: "invoice", .. })));
}

#[test]
fn what_is_out_of_its_form_is_named_and_leaves_nothing() {
    let mut ledger = ledger();
    let size = ledger.state.size;
    let pay = |change: fn(&mut leaf::InvoicePayment)| {
        let mut payment = payment(100);
        change(&mut payment);
        event("k", Event::Payment(payment))
    };
    let dispute = |leaves: Vec<u64>, reason: &str| event("k", Event::Disputed(leaf::InvoiceDisputed { leaves, reason: reason.into() }));
    let long = "x".repeat(501);
    let credit = |change: fn(&mut leaf::InvoiceCredited)| {
        let (currency, reason) = ("USD".into(), "agreed".into());
        let mut credited = leaf::InvoiceCredited { amount_minor: 1, currency, reason, ..Default::default() };
        change(&mut credited);
        event("k", Event::Credited(credited))
    };
    let cases = [
        ("key", leaf::InvoiceEvent { key: "x".repeat(65), ..pay(|_| {}) }),
        ("key", leaf::InvoiceEvent { key: "a b".into(), ..pay(|_| {}) }),
        ("key", leaf::InvoiceEvent { key: String::new(), ..pay(|_| {}) }),
        ("actor", leaf::InvoiceEvent { actor: String::new(), ..pay(|_| {}) }),
        ("actor", leaf::InvoiceEvent { actor: "x".repeat(101), ..pay(|_| {}) }),
        ("event", leaf::InvoiceEvent { event: None, ..pay(|_| {}) }),
        ("sent.to", event("k", Event::Sent(leaf::InvoiceSent::default()))),
        ("payment.amount_minor", pay(|payment| payment.amount_minor = 0)),
        ("payment.currency", pay(|payment| payment.currency = "usd".into())),
        ("payment.received_on", pay(|payment| payment.received_on = "2026-02-30".into())),
        ("payment.received_on", pay(|payment| payment.received_on = "2026-02-18T00:00:00Z".into())),
        ("payment.reference", pay(|payment| payment.reference = "x".repeat(201))),
        ("credited.amount_minor", credit(|credited| credited.amount_minor = 0)),
        ("credited.tax_minor", credit(|credited| credited.tax_minor = -1)),
        ("credited.tax_minor", credit(|credited| credited.tax_minor = i64::MAX)),
        ("credited.currency", credit(|credited| credited.currency = "usd".into())),
        ("credited.leaves", credit(|credited| credited.leaves = vec![2, 2])),
        ("credited.dispute_key", credit(|credited| credited.dispute_key = "a b".into())),
        ("credited.reason", credit(|credited| credited.reason.clear())),
        ("disputed.leaves", dispute((0..257).collect(), "why")),
        ("disputed.leaves", dispute(vec![2, 1], "why")),
        ("disputed.reason", dispute(vec![1], "")),
        ("dispute_resolved.reason", event("k", Event::DisputeResolved(leaf::InvoiceDisputeResolved { reason: long.clone() }))),
        ("voided.reason", event("k", Event::Voided(leaf::InvoiceVoided { reason: long.clone() }))),
        ("written_off.reason", event("k", Event::WrittenOff(leaf::InvoiceWrittenOff { reason: long }))),
    ];
    for (field, event) in cases {
        let refusal = record(&mut ledger, "acme", event).unwrap_err().to_string();
        assert!(refusal.contains(&format!("items[0].invoice_event.{field}")), "{field}: {refusal}");
    }
    assert_eq!(ledger.state.size, size);
}

#[test]
fn an_auditor_folds_the_same_and_refuses_a_key_that_comes_twice() {
    let mut ledger = ledger();
    record(&mut ledger, "acme", event("p-1", Event::Payment(payment(100)))).unwrap();
    let mut state = State::default();
    let mut last = None;
    for frame in Scanner::new(ledger.take_pending().bytes()) {
        let (head, body) = leaf::decode(frame.unwrap().1).unwrap();
        state.apply(&head, &body).unwrap();
        last = Some((head, body));
    }
    assert_eq!(state.clients["acme"].invoice_events, ledger.state.clients["acme"].invoice_events);
    let (head, body) = last.unwrap();
    let again = leaf::Leaf { index: head.index + 1, client_seq: head.client_seq + 1, ..head };
    assert!(matches!(state.apply(&again, &body), Err(Refusal::KeyReused { .. })));
}

type Change = fn(&mut leaf::Access);

fn access(change: Change) -> leaf::Access {
    let mut access = leaf::Access {
        role: leaf::AccessRole::Tenant.into(),
        tenant: "acme".into(),
        kind: leaf::AccessKind::GetInvoice.into(),
        subject: "K2026-000001".into(),
        at: Some(UnixMicros(NOW).into()),
        ..Default::default()
    };
    change(&mut access);
    access
}

#[test]
fn accesses_come_in_batches_of_a_sender_each_once() {
    let mut ledger = ledger();
    let batch = || vec![("acme".to_owned(), Item::Access(access(|_| {}))), ("beta".to_owned(), Item::Access(access(|_| {})))];
    let first = ledger.record("billing.1", 1, batch()).unwrap();
    let again = ledger.record("billing.1", 1, batch()).unwrap();
    assert!(again.iter().all(|recorded| recorded.duplicate) && again[0].index == first[0].index);
    assert!(matches!(ledger.record("", 0, batch()), Err(Refusal::Field { .. })));
    let cases: [(&str, Change); 6] = [
        ("role", |access| access.role = 0),
        ("kind", |access| access.kind = 99),
        ("tenant", |access| access.tenant.clear()),
        ("tenant", |access| access.role = leaf::AccessRole::Operator.into()),
        ("subject", |access| access.subject.clear()),
        ("at", |access| access.at = None),
    ];
    for (field, change) in cases {
        let item = vec![("acme".to_owned(), Item::Access(access(change)))];
        let refusal = ledger.record("billing.1", 2, item).unwrap_err().to_string();
        assert!(refusal.contains(&format!("items[0].access.{field}")), "{field}: {refusal}");
    }
}
