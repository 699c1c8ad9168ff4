//! The model: its sums, and what it refuses.

use billing::domain::document::*;

use crate::sample::{date, sample};

fn refusal(change: impl FnOnce(&mut Document)) -> String {
    let mut document = sample();
    change(&mut document);
    document.check().unwrap_err().to_string()
}

#[test]
fn totals_are_derived_and_the_tax_is_rounded_once() {
    let mut document = sample();
    document.check().unwrap();
    let of = |document: &Document| document.totals().unwrap();
    assert_eq!(of(&document).tax_minor, 41_971);
    document.adjustments = vec![
        Adjustment { charge: false, reason: "Cap".into(), reason_code: None, amount_minor: 900 },
        Adjustment { charge: true, reason: "Minimum".into(), reason_code: None, amount_minor: 50 },
    ];
    // 19 % of 2,200.50 is 418.095: away from zero.
    let totals = of(&document);
    let expected = Totals {
        lines_minor: 220_900,
        allowances_minor: 900,
        charges_minor: 50,
        net_minor: 220_050,
        tax_minor: 41_810,
        payable_minor: 261_860,
    };
    assert_eq!(totals, expected);
}

#[test]
fn refuses_what_no_format_could_say_and_names_the_term() {
    let party = |d: &mut Document| d.buyer.vat_id = Some("87654321".into());
    let cases: [(&str, String); 17] = [
        ("BT-1)", refusal(|d| d.number = " ".into())),
        ("BT-5", refusal(|d| d.currency = "XAU".into())),
        ("BT-22", refusal(|d| d.notes = vec!["bell \u{7}".into()])),
        ("BT-27", refusal(|d| d.seller.name = String::new())),
        ("BT-44", refusal(|d| d.buyer.name = "x".repeat(TEXT_CHARS_MAX + 1))),
        ("BT-55", refusal(|d| d.buyer.country = "dk".into())),
        ("BT-48", refusal(party)),
        ("BT-49", refusal(|d| d.buyer.endpoint = Some(Identifier { id: "1".into(), scheme: None }))),
        ("BG-25", refusal(|d| d.lines.clear())),
        ("BT-126", refusal(|d| d.lines[1].id = "1".into())),
        ("BT-131", refusal(|d| d.lines[0].net_minor = AMOUNT_MINOR_MAX + 1)),
        ("BT-9", refusal(|d| d.due_date = Some(date("2026-01-31")))),
        ("BT-74", refusal(|d| d.period = Some(Period { first: date("2026-02-01"), last: date("2026-01-31") }))),
        ("BT-9", refusal(|d| d.kind = Kind::CreditNote)),
        ("BT-115", refusal(|d| d.lines[0].net_minor = -1)),
        ("BT-20", refusal(|d| (d.due_date, d.payment.terms) = (None, None))),
        ("BT-81", refusal(|d| d.payment.means_code = None)),
    ];
    for (term, message) in cases {
        assert!(message.contains(term), "{term}: {message}");
    }
    let many = vec![sample().lines[0].clone(); LINES_MAX + 1];
    assert_eq!(refusal(|d| d.lines = many), "lines (BG-25): 10001 given, at most 10000 allowed");
}

#[test]
fn each_tax_category_says_what_it_needs() {
    let tax = |category, rate_ppm, reason: Option<&str>| Tax {
        category,
        rate_ppm,
        exemption_reason: reason.map(Into::into),
        exemption_code: None,
    };
    use TaxCategory::*;
    for (change, term) in [
        (tax(Standard, 0, None), "BT-119"),
        (tax(Standard, 190_000, Some("why")), "BT-120"),
        (tax(ZeroRated, 190_000, None), "BT-119"),
        (tax(Exempt, 0, None), "BT-120"),
        (tax(Export, 0, None), "BT-120"),
        (tax(OutOfScope, 0, Some("not subject to VAT")), "BT-31"),
    ] {
        let message = refusal(|d| d.tax = change.clone());
        assert!(message.contains(term), "{change:?}: {message}");
    }
    for category in [ReverseCharge, IntraCommunity] {
        let message = refusal(|d| {
            d.tax = tax(category, 0, Some("reverse charge"));
            d.buyer.vat_id = None;
        });
        assert!(message.contains("BT-48"), "{message}");
    }
    let without_seller = refusal(|d| d.seller.vat_id = None);
    assert_eq!(without_seller, "seller's VAT identifier (BT-31) is missing: every category but O needs it");
}
