#![allow(clippy::unwrap_used)]

use kiki::clock::UnixMicros;
use kiki::leaf;
use serde_json::Value;

#[path = "../../../../../tests/support/json_schema.rs"]
mod json_schema;

use super::super::imports::{Books, xero};
use super::super::pdf::{Content, render};
use super::super::readd::{differences, read};
use super::super::xml::{cii, ubl};
use super::*;
use crate::domain::books::Reason;
use crate::domain::invoice::tests::{facts_under, terms};
use crate::domain::invoice::{Correction, Decision, Facts, build};
use crate::domain::terms::Terms;

type Lines = [(&'static str, i128, i128)];

/// Terms with all that an electronic invoice needs.
fn full() -> Terms {
    let party = |name: &str, country: &str, vat_id: &str| terms::Party {
        name: name.into(),
        vat_id: vat_id.into(),
        address_lines: vec!["Street 1".into()],
        city: "City".into(),
        postal_code: "12345".into(),
        country: country.into(),
        ..terms::Party::default()
    };
    Terms {
        currency: "EUR".into(),
        tax: Some(terms::Tax { category: "S".into(), rate_ppm: 190_000, exemption_reason: String::new(), exemption_code: String::new() }),
        seller: Some(terms::Seller {
            party: party("KIKI GmbH", "DE", "DE123456789"),
            iban: "DE02120300000000202051".into(),
            bic: "BYLADEM1001".into(),
            account_name: "KIKI GmbH".into(),
            series: "K".into(),
        }),
        buyer: Some(party("Acme, Inc.", "DK", "DK87654321")),
        ..terms()
    }
}

fn invoice(terms: Terms, lines: &Lines) -> Invoice {
    build(facts_under(terms, lines)).unwrap()
}

fn note(terms: Terms, before: &Lines, after: &Lines) -> Invoice {
    let correction = Correction {
        before: facts_under(terms.clone(), before).account,
        reasons: vec![Reason::LateRecords, Reason::TrueUp],
        invoice: Some(invoice::Preceding { number: "K2026-000001".into(), issued_at: UnixMicros(1_769_904_000_000_000) }),
        noted_in: "2026-02".parse().unwrap(),
    };
    build(Facts { invoice_id: "K2026-000002".into(), correction: Some(correction), ..facts_under(terms, after) }).unwrap()
}

/// A credit by agreement on an invoice.
fn agreed(of: &Invoice, amount_minor: i64) -> Invoice {
    let tax_minor = i64::try_from(of.tax_on(amount_minor.into()).unwrap()).unwrap();
    let (reason, dispute_key) = ("Half of September's\tclicks were bots".into(), "d-1".into());
    let credited =
        leaf::InvoiceCredited { amount_minor, tax_minor, currency: of.currency.clone(), reason, leaves: vec![3, 4, 7], dispute_key };
    let decision = Decision { leaf: 90, client_seq: 41, actor: "ada".into(), credited, creditable_minor: 220_900 };
    of.credited(&decision, "K2026-C000001".into(), UnixMicros(1_770_000_000_000_000), (92, "ab".repeat(32))).unwrap()
}

/// A document of each kind, within bounds and without, with parties and without.
fn all() -> Vec<(&'static str, Invoice)> {
    let bounded = Terms { minimum_minor: 1_500, cap_minor: 2_500, ..full() };
    let exempt =
        terms::Tax { category: "AE".into(), rate_ppm: 0, exemption_reason: "Reverse charge".into(), exemption_code: "VATEX-EU-AE".into() };
    vec![
        ("invoice", invoice(full(), &[("a", 36_368, 131_194), ("b", 100, 90), ("held", 0, 5)])),
        ("capped", invoice(bounded.clone(), &[("a", 36_368, 131_194)])),
        ("raised", invoice(bounded.clone(), &[("a", 100, 400)])),
        ("exempt", invoice(Terms { tax: Some(exempt), ..full() }, &[("a", 100, 400)])),
        ("yen", invoice(Terms { currency: "JPY".into(), ..full() }, &[("a", 36_368, 131_194)])),
        ("credit", note(full(), &[("a", 100, 400), ("b", 100, 400)], &[("a", 100, 350), ("b", 100, 420)])),
        ("agreed", agreed(&invoice(full(), &[("a", 36_368, 131_194)]), 1_235)),
        ("debit", note(bounded, &[("a", 100, 400)], &[("a", 100, 700)])),
    ]
}

#[test]
fn a_credit_by_agreement_says_what_it_credits_and_why() {
    let billed = invoice(full(), &[("a", 36_368, 131_194)]);
    let note = agreed(&billed, 1_235);
    let document = Document::of(&note).unwrap();
    assert_eq!(document.preceding, Some(Preceding { number: billed.invoice_id.clone(), issue_date: Some("2026-02-01".parse().unwrap()) }));
    let [line] = &document.lines[..] else { panic!("{:?}", document.lines) };
    assert_eq!((line.net_minor, line.name.as_str()), (1_235, format!("Credit on {}", billed.invoice_id).as_str()));
    assert_eq!(line.description.as_deref(), Some("Half of September's clicks were bots"));
    // 12.35 at 19 % is 2.3465.
    assert_eq!((note.tax.as_ref().unwrap().amount.to_string(), note.amount_due.to_string()), ("2.35".into(), "14.70".into()));
    let corrects = note.corrects.as_ref().unwrap();
    assert_eq!((corrects.amount_before.to_string(), corrects.amount_after.to_string()), ("2209.00".into(), "2196.65".into()));
    assert_eq!(note.client_keeps.units() - billed.client_keeps.units(), 1_235);
    let rows = String::from_utf8(note.to_csv()).unwrap();
    assert_eq!(rows.lines().nth(1).unwrap(), "K2026-C000001,2026-01,2026-03-04,EUR,\"Acme, Inc.\",,,,,,,,12.35,agreed");
    let words = Content::of(&note).unwrap().calculation.remove(0).1;
    assert!(
        words.contains("2,209.00 before tax") && words.contains("Decided by ada (leaf 90 of the log)") && words.contains("d-1"),
        "{words}"
    );
    let decision = Decision {
        leaf: 90,
        client_seq: 41,
        actor: "ada".into(),
        credited: leaf::InvoiceCredited { amount_minor: 1_235, tax_minor: 234, ..Default::default() },
        creditable_minor: 220_900,
    };
    let bent = billed.credited(&decision, "K2026-C000001".into(), UnixMicros(0), (92, String::new())).unwrap_err();
    assert_eq!(bent.to_string(), "tax_minor is 234 but the tax at the document's rate is 235");
}

#[test]
fn every_invoice_becomes_a_document_that_comes_to_its_figures() {
    for (name, invoice) in all() {
        let document = Document::of(&invoice).unwrap_or_else(|error| panic!("{name}: {error}"));
        for xml in [ubl(&document).unwrap(), cii(&document).unwrap()] {
            let read = read(xml.as_bytes()).unwrap();
            assert_eq!(differences(&read), [], "{name}");
            let due = Amount::parse(&read.totals.due.to_string()).unwrap();
            let scale = 10_i128.pow(due.places() - invoice.amount_due.places());
            assert_eq!(due.units(), invoice.amount_due.units() * scale, "{name}");
        }
        let books = Books { item: "Profit share".into(), account_code: "200".into(), tax_name: "VAT".into() };
        assert!(xero(&[document], &books).is_ok(), "{name}");
    }
}

#[test]
fn every_invoice_has_pages_that_carry_its_cii() {
    for (name, invoice) in all() {
        let content = Content::of(&invoice).unwrap();
        assert!(content.cii.is_some(), "{name}");
        assert!(render(&content).unwrap().starts_with(b"%PDF"), "{name}");
        let total = content.totals.last().unwrap();
        assert!(content.due.1.ends_with(&total.1), "{name}: {total:?}");
    }
}

#[test]
fn without_parties_or_in_dinars_there_are_pages_and_no_cii() {
    let bare = invoice(terms(), &[("a", 36_368, 131_194)]);
    assert_eq!(Document::of(&bare).unwrap_err(), OfInvoiceError::Terms { what: "seller" });
    let dinars = invoice(Terms { currency: "KWD".into(), ..full() }, &[("a", 36_368, 131_194)]);
    for invoice in [bare, dinars] {
        let content = Content::of(&invoice).unwrap();
        assert!(content.cii.is_none());
        assert!(render(&content).is_ok());
    }
}

#[test]
fn a_total_that_is_not_that_of_the_lines_is_refused() {
    let mut wrong = invoice(full(), &[("a", 36_368, 131_194)]);
    wrong.amount_due = Amount::parse("2628.72").unwrap();
    assert_eq!(Document::of(&wrong).unwrap_err().to_string(), "amount_due is 2628.72, but its lines and adjustments come to 2628.71");
    wrong.line_items[0].kiki_invoice_amount = Amount::parse("2209.01").unwrap();
    assert!(Document::of(&wrong).unwrap_err().to_string().starts_with("total_invoice_amount is 2209.00"));
}

#[test]
fn every_invoice_is_as_the_schema_says_and_what_the_reader_refuses_it_refuses() {
    let schema: Value = serde_json::from_str(include_str!("../../../../../docs/invoice.schema.json")).unwrap();
    let faults = |json: &Value| json_schema::faults(&schema, &schema, json, "");
    let bare = ("bare", invoice(terms(), &[("a", 36_368, 131_194), ("held", 0, 5)]));
    let example = include_str!("../../../../../docs/invoice.example.json");
    assert_eq!(String::from_utf8(all()[0].1.to_json()).unwrap(), example);
    for (name, invoice) in all().into_iter().chain([bare]) {
        let json: Value = serde_json::from_slice(&invoice.to_json()).unwrap();
        assert_eq!(faults(&json), Vec::<String>::new(), "{name}");
        let wrong: [fn(&mut Value); 6] = [
            |json| json["discount"] = "5.00".into(),
            |json| json["amount_due"] = 5.into(),
            |json| json["amount_due"] = "1e3".into(),
            |json| json["kind"] = "receipt".into(),
            |json| drop(json.as_object_mut().unwrap().remove("line_items")),
            |json| {
                // A credit by agreement has no lines, and names leaves all the same.
                let of = if json["line_items"] == Value::Array(vec![]) { "/corrects/agreed" } else { "/line_items/0" };
                json.pointer_mut(of).unwrap()["leaves"] = serde_json::json!([[1, 2, 3]]);
            },
        ];
        for (i, change) in wrong.iter().enumerate() {
            let mut json = json.clone();
            change(&mut json);
            assert_ne!(faults(&json), Vec::<String>::new(), "{name}: change {i} by the schema");
            assert!(Invoice::from_json(json.to_string().as_bytes()).is_err(), "{name}: change {i} by the reader");
        }
    }
}
