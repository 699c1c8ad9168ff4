//! Every kind of document in every tax category and many shapes: what the schematron is run on.

use billing::domain::document::{Adjustment, Document, Identifier, Kind, Line, Party, Payment, Preceding, Tax, TaxCategory};

use crate::sample::{date, sample};

const KINDS: [(&str, Kind); 3] = [("invoice", Kind::Invoice), ("credit", Kind::CreditNote), ("debit", Kind::DebitNote)];

/// A name, and what it changes.
type Shape = (&'static str, fn(&mut Document));

const SHAPES: [Shape; 9] = [
    ("plain", |_| {}),
    ("adjusted", adjusted),
    ("twelve-lines", twelve_lines),
    ("not-peppol", |d| d.buyer_reference = None),
    ("no-account", |d| d.payment = Payment { terms: Some("Set off against the next invoice".into()), ..Payment::default() }),
    ("nothing-due", |d| d.lines.iter_mut().for_each(|line| line.net_minor = 0)),
    ("yen", |d| d.currency = "JPY".into()),
    ("at-home", at_home),
    ("bare", bare),
];

fn adjusted(document: &mut Document) {
    let adjustment = |charge, reason: &str, code: &str, amount_minor| Adjustment {
        charge,
        reason: reason.into(),
        reason_code: Some(code.into()),
        amount_minor,
    };
    document.adjustments = vec![adjustment(false, "Fee capped", "95", 12_345), adjustment(true, "Minimum fee", "FC", 50)];
}

fn twelve_lines(document: &mut Document) {
    let line = |i: i128| Line {
        id: i.to_string(),
        name: format!("campaign-{i}"),
        description: (i % 2 == 0).then(|| format!("LTV {i}.00, spend 1.00, baseline 3.0; Ærø, Łódź & <Brno>")),
        net_minor: [0, -1_234, 99, 333_333, 1, 7_777_777][usize::try_from(i % 6).unwrap()],
    };
    document.lines = (1..=12).map(line).collect();
}

/// Seller and buyer in one country, with the contact that the German rules ask for.
fn at_home(document: &mut Document) {
    document.seller.contact.phone = Some("+49 30 1234567".into());
    document.buyer = Party {
        name: "Käufer KG".into(),
        country: "DE".into(),
        city: Some("Köln".into()),
        postal_code: Some("50667".into()),
        address: vec!["Domplatz 1".into()],
        vat_id: document.buyer.vat_id.as_ref().map(|_| "DE987654321".into()),
        registration: Some(Identifier { id: "HRB 1".into(), scheme: None }),
        endpoint: Some(Identifier { id: "DE987654321".into(), scheme: Some("9930".into()) }),
        ..Party::default()
    };
}

/// Nothing but what must be there.
fn bare(document: &mut Document) {
    document.seller =
        Party { address: vec![], city: None, postal_code: None, contact: Default::default(), endpoint: None, ..document.seller.clone() };
    document.buyer = Party { address: vec![], city: None, postal_code: None, endpoint: None, ..document.buyer.clone() };
    document.buyer_reference = None;
    document.notes.clear();
    document.payment = Payment::default();
    document.due_date = Some(document.issue_date);
}

fn taxed(document: &mut Document, category: TaxCategory) {
    let (rate_ppm, reason) = match category {
        TaxCategory::Standard => (75_000, None),
        TaxCategory::ZeroRated => (0, None),
        TaxCategory::Exempt => (0, Some(("Exempt under article 132", "VATEX-EU-132"))),
        TaxCategory::ReverseCharge => (0, Some(("Reverse charge", "VATEX-EU-AE"))),
        TaxCategory::IntraCommunity => (0, Some(("Intra-Community supply", "VATEX-EU-IC"))),
        TaxCategory::Export => (0, Some(("Export outside the EU", "VATEX-EU-G"))),
        TaxCategory::OutOfScope => (0, Some(("Not subject to VAT", "VATEX-EU-O"))),
    };
    document.tax = Tax {
        category,
        rate_ppm,
        exemption_reason: reason.map(|(text, _)| text.into()),
        exemption_code: reason.map(|(_, code)| code.into()),
    };
    if category == TaxCategory::OutOfScope {
        document.seller.vat_id = None;
        document.buyer.vat_id = None;
        document.seller.endpoint = Some(Identifier { id: "4012345000009".into(), scheme: Some("0088".into()) });
    }
}

/// All of them, each with a name that is a file's.
pub(crate) fn all() -> Vec<(String, Document)> {
    let mut out = Vec::new();
    for (kind_name, kind) in KINDS {
        for category in TaxCategory::ALL {
            for (shape, change) in SHAPES {
                let mut document = sample();
                document.kind = kind;
                document.preceding =
                    (kind != Kind::Invoice).then(|| Preceding { number: "K2026-000001".into(), issue_date: Some(date("2026-02-01")) });
                taxed(&mut document, category);
                change(&mut document);
                document.due_date = document.due_date.filter(|_| kind != Kind::CreditNote);
                out.push((format!("{kind_name}-{}-{shape}", category.code()), document));
            }
        }
    }
    out
}
