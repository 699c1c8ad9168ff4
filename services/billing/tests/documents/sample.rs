//! Documents to write.

use billing::domain::document::{Contact, Document, Identifier, Kind, Line, Party, Payment, Period, Tax, TaxCategory};
use jiff::civil::Date;

pub(crate) fn date(text: &str) -> Date {
    text.parse().unwrap()
}

fn id(id: &str, scheme: &str) -> Option<Identifier> {
    Some(Identifier { id: id.to_owned(), scheme: Some(scheme.to_owned()) })
}

/// An invoice of two lines, with what every format asks for.
pub(crate) fn sample() -> Document {
    let line = |id: &str, name: &str, net_minor| Line { id: id.into(), name: name.into(), description: None, net_minor };
    Document {
        kind: Kind::Invoice,
        number: "K2026-000001".into(),
        issue_date: date("2026-02-01"),
        due_date: Some(date("2026-03-03")),
        currency: "EUR".into(),
        seller: Party {
            name: "KIKI GmbH".into(),
            registration: id("HRB 123456 B", "0204").map(|i| Identifier { scheme: None, ..i }),
            vat_id: Some("DE123456789".into()),
            address: vec!["Torstraße 1".into()],
            city: Some("Berlin".into()),
            postal_code: Some("10119".into()),
            subdivision: None,
            country: "DE".into(),
            contact: Contact { name: Some("Billing".into()), phone: None, email: Some("billing@kiki.example".into()) },
            endpoint: id("DE123456789", "9930"),
        },
        buyer: Party {
            name: "Café Łódź & Søn A/S".into(),
            vat_id: Some("DK87654321".into()),
            address: vec!["Strøget 7".into(), "2. sal".into()],
            city: Some("København".into()),
            postal_code: Some("1160".into()),
            country: "DK".into(),
            endpoint: id("DK87654321", "0184"),
            ..Party::default()
        },
        buyer_reference: Some("PO 4711".into()),
        preceding: None,
        period: Some(Period { first: date("2026-01-01"), last: date("2026-01-31") }),
        notes: vec!["Log kiki-1, checkpoint 1234".into()],
        lines: vec![line("1", "spring-sale", 220_900), line("2", "autumn <b> & more", 0)],
        adjustments: vec![],
        tax: Tax { category: TaxCategory::Standard, rate_ppm: 190_000, exemption_reason: None, exemption_code: None },
        payment: Payment {
            terms: Some("Due in 30 days".into()),
            means_code: Some("30".into()),
            iban: Some("DE02120300000000202051".into()),
            bic: Some("BYLADEM1001".into()),
            account_name: Some("KIKI GmbH".into()),
            remittance: Some("K2026-000001".into()),
        },
    }
}
