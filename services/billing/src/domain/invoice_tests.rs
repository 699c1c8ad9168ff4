#![allow(clippy::unwrap_used)]
use super::table::CSV_HEADER;
use super::*;
use crate::domain::books::tests::account_of;
use crate::domain::period::resolve;
use crate::domain::terms::{Tax, Terms};
use crate::domain::{books::LineFacts, fee};

pub(crate) const ONE: i128 = 1_000_000_000;

/// Terms of the product's documents: baseline 3.0, share 10 %.
pub(crate) fn terms() -> Terms {
    Terms {
        leaf: 1,
        version: 1,
        effective_from: UnixMicros(i64::MIN),
        baseline_ppm: 3_000_000,
        baseline_measured: false,
        evidence_leaf: None,
        share_ppm: 100_000,
        basis: Basis::Predicted,
        netting: Netting::Client,
        carry_shortfall: false,
        minimum_minor: 0,
        cap_minor: 0,
        tax: None,
        grace_seconds: 0,
        horizon_days: 365,
        attribution: leaf::AttributionRule::LastBilledV1,
        lookback_seconds: 30 * 86_400,
        zone: "UTC".into(),
        currency: "USD".into(),
        payment_days: 30,
        client_name: "Acme, Inc.".into(),
        seller: None,
        buyer: None,
    }
}

pub(crate) fn facts(lines: &[(&str, i128, i128)]) -> Facts {
    facts_under(terms(), lines)
}

/// January 2026 with lines of campaign, spend and LTV.
pub(crate) fn facts_under(terms: Terms, lines: &[(&str, i128, i128)]) -> Facts {
    let month: Month = "2026-01".parse().unwrap();
    let span = resolve(month, "UTC").unwrap();
    let line = |(i, &(campaign, spend, ltv)): (usize, &(&str, i128, i128))| LineFacts {
        campaign: campaign.into(),
        spend_nanos: spend * ONE,
        ltv_nanos: ltv * ONE,
        leaves: [10 * i as u64 + 5, 10 * i as u64, 10 * i as u64 + 1].into_iter().collect(),
    };
    Facts {
        invoice_id: number("K2026-", 1),
        client: "acme".into(),
        month,
        span,
        issued_at: span.end,
        account: account_of(terms, span, lines.iter().enumerate().map(line).collect()),
        correction: None,
        completeness: Completeness {
            log_id: "kiki.test/log".into(),
            first_client_seq: 1,
            last_client_seq: 40,
            checkpoint_size: 100,
            checkpoint_root: "00".repeat(32),
            period_closed_leaf: 41,
            sheets_sha256: None,
        },
    }
}

#[test]
fn prints_the_products_own_example() {
    let invoice = build(facts(&[("spring", 36_368, 131_194)])).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&invoice.to_json()).unwrap();
    assert_eq!(json["invoice_id"], "K2026-000001");
    assert_eq!(json["period"], "2026-01");
    assert_eq!(json["period_start"], "2026-01-01T00:00:00Z");
    assert_eq!(json["due_date"], "2026-03-03");
    assert_eq!(json["total_invoice_amount"], "2209.00");
    assert_eq!(json["total_margin_recovered"], "22090.00");
    assert_eq!(json["client_keeps"], "19881.00");
    let line = &json["line_items"][0];
    assert_eq!(line["client_spend"], "36368.00");
    assert_eq!(line["baseline_roas"], "3.0");
    assert_eq!(line["kiki_roas"], "3.6074");
    assert_eq!(line["margin_improvement_pct"], "20.25");
    assert_eq!(line["kiki_invoice_amount"], "2209.00");
    assert_eq!(line["leaves"], serde_json::json!([[0, 1], [5, 5]]));
    assert_eq!(line["leaf_count"], 3);
    assert_eq!(json["parts"][0]["terms"]["profit_share_percentage"], "10");
    assert_eq!(json["amount_due"], "2209.00");
    assert!(json.get("tax").is_none() && json.get("corrects").is_none(), "what is not there is not said");
}

#[test]
fn a_line_without_spend_has_no_ratio_and_is_held() {
    let invoice = build(facts(&[("idle", 0, 500)])).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&invoice.to_json()).unwrap();
    assert_eq!(json["line_items"][0]["status"], "held_for_review");
    assert!(json["line_items"][0]["kiki_roas"].is_null());
    assert_eq!(json["total_invoice_amount"], "0.00");
    assert_eq!(json["total_margin_recovered"], "0.00");
}

#[test]
fn same_facts_give_the_same_bytes_and_read_back() {
    let forth = build(facts(&[("a", 100, 400), ("b", 100, 250)])).unwrap();
    let back = facts(&[("b", 100, 250), ("a", 100, 400)]);
    assert_ne!(forth.line_items[0].leaves, build(back).unwrap().line_items[0].leaves, "the leaves are those of the line");
    let back = facts(&[("a", 100, 400), ("b", 100, 250)]);
    assert_eq!(forth.to_json(), build(back).unwrap().to_json());
    assert_eq!(Invoice::from_json(&forth.to_json()).unwrap(), forth);
}

#[test]
fn totals_are_sums_of_the_printed_lines() {
    let invoice = build(facts(&[("a", 101, 407), ("b", 33, 250), ("c", 10, 7)])).unwrap();
    let fees: i128 = invoice.line_items.iter().map(|l| l.kiki_invoice_amount.units()).sum();
    let margins: i128 = invoice.line_items.iter().map(|l| l.margin_recovered.units()).sum();
    assert_eq!(fees, invoice.total_invoice_amount.units());
    assert_eq!(margins, invoice.total_margin_recovered.units());
}

#[test]
fn amounts_follow_the_currencys_minor_unit() {
    for (currency, fee) in [("JPY", "2209"), ("KWD", "2209.000")] {
        let facts = facts_under(Terms { currency: currency.into(), ..terms() }, &[("a", 36_368, 131_194)]);
        assert_eq!(build(facts).unwrap().total_invoice_amount.to_string(), fee);
    }
}

#[test]
fn csv_has_a_row_a_line_and_no_formulas() {
    let name = Terms { client_name: "=cmd(), \"x\"".into(), ..terms() };
    let facts = facts_under(name, &[("a", 36_368, 131_194), ("b", 0, 500)]);
    let text = String::from_utf8(build(facts).unwrap().to_csv()).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), CSV_HEADER);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(&rows[0][4], "'=cmd(), \"x\"");
    assert_eq!((&rows[0][12], &rows[1][13]), ("2209.00", "held_for_review"));
    assert_eq!(&rows[1][9], "");
}

#[test]
fn numbers_fit_into_sixteen_characters_and_say_what_they_number() {
    let stem = |kind| number_stem("K", 2026, kind);
    assert_eq!(number(&stem(Kind::Invoice), 42), "K2026-000042");
    assert_eq!(number(&stem(Kind::CreditNote), 1), "K2026-C000001");
    assert_eq!(number(&stem(Kind::DebitNote), 1), "K2026-D000001");
    assert_eq!(number(&number_stem("ABC", 9_997, Kind::CreditNote), 9_999_999).len(), 16);
    assert_eq!(ordinal("K2026-C1000000"), Some(("K2026-C", 1_000_000)));
    for text in ["K2026-42", "000042", "K2026-", "", "K2026-0000042", "of another form"] {
        assert_eq!(ordinal(text), None, "{text}");
    }
}

#[test]
fn tax_is_rounded_once_and_added() {
    let tax = Tax { category: "S".into(), rate_ppm: 190_000, exemption_reason: String::new(), exemption_code: String::new() };
    let taxed = Terms { tax: Some(tax), ..terms() };
    let invoice = build(facts_under(taxed, &[("a", 36_368, 131_194)])).unwrap();
    let printed = invoice.tax.unwrap();
    // 19 % of 2,209.00 is 419.71.
    assert_eq!((printed.rate_percentage.as_str(), printed.amount.to_string().as_str()), ("19", "419.71"));
    assert_eq!(invoice.amount_due.to_string(), "2628.71");
    assert_eq!((fee::tax(50, 10_000), fee::tax(-50, 10_000), fee::tax(49, 10_000)), (Ok(1), Ok(-1), Ok(0)), "half away from zero");
}

#[test]
fn a_minimum_and_a_cap_are_shown_beside_the_lines() {
    let lines = [("a", 36_368, 131_194)];
    let bounded = |minimum_minor, cap_minor| build(facts_under(Terms { minimum_minor, cap_minor, ..terms() }, &lines)).unwrap();
    let shown = |invoice: &Invoice| {
        let adjustments = invoice.adjustments.iter().map(|a| (a.kind, a.amount.to_string())).collect::<Vec<_>>();
        (invoice.total_invoice_amount.to_string(), adjustments, invoice.line_items[0].kiki_invoice_amount.to_string())
    };
    let line = || "2209.00".to_owned();
    assert_eq!(shown(&bounded(220_900, 220_900)), ("2209.00".into(), vec![], line()));
    assert_eq!(shown(&bounded(300_000, 0)), ("3000.00".into(), vec![(BoundKind::Minimum, "791.00".into())], line()));
    assert_eq!(shown(&bounded(0, 100_000)), ("1000.00".into(), vec![(BoundKind::Cap, "-1209.00".into())], line()));
    let idle = build(facts_under(Terms { minimum_minor: 500, ..terms() }, &[])).unwrap();
    assert_eq!((idle.total_invoice_amount.to_string().as_str(), idle.line_items.len()), ("5.00", 0));
}

/// A note on January, drawn up with February, of what `before` became.
fn note(terms: &Terms, before: &[(&str, i128, i128)], after: &[(&str, i128, i128)]) -> Invoice {
    let correction = Correction {
        before: facts_under(terms.clone(), before).account,
        reasons: vec![Reason::LateRecords],
        invoice: Some(Preceding { number: "K2026-000001".into(), issued_at: resolve("2026-02".parse().unwrap(), "UTC").unwrap().start }),
        noted_in: "2026-02".parse().unwrap(),
    };
    build(Facts { correction: Some(correction), ..facts_under(terms.clone(), after) }).unwrap()
}

#[test]
fn a_credit_note_says_what_is_given_back_and_both_figures() {
    let note = note(&terms(), &[("a", 100, 400), ("b", 100, 400), ("c", 10, 40)], &[("a", 100, 350), ("b", 100, 420), ("c", 10, 40)]);
    assert_eq!(note.kind, Kind::CreditNote);
    assert_eq!((note.total_invoice_amount.to_string().as_str(), note.amount_due.to_string().as_str()), ("3.00", "3.00"));
    let lines: Vec<_> = note.line_items.iter().map(|l| (l.campaign_id.as_str(), l.kiki_invoice_amount.to_string())).collect();
    assert_eq!(lines, [("a", "5.00".to_owned()), ("b", "-2.00".to_owned())], "what did not change is not on it");
    let before = note.line_items[0].before.as_ref().unwrap();
    assert_eq!((before.ltv_exact.to_string().as_str(), before.kiki_invoice_amount.to_string().as_str()), ("400.000000000", "10.00"));
    let corrects = note.corrects.unwrap();
    assert_eq!((corrects.amount_before.to_string().as_str(), corrects.amount_after.to_string().as_str()), ("21.00", "18.00"));
    assert_eq!((corrects.invoice_id.as_deref(), corrects.noted_in.as_str()), (Some("K2026-000001"), "2026-02"));
}

#[test]
fn a_debit_note_bills_the_difference_within_the_bounds() {
    let bounded = Terms { minimum_minor: 1_500, cap_minor: 2_500, ..terms() };
    // 10.00 was raised to the minimum of 15.00; 40.00 is cut to the cap of 25.00.
    let note = note(&bounded, &[("a", 100, 400)], &[("a", 100, 700)]);
    assert_eq!((note.kind, note.total_invoice_amount.to_string().as_str()), (Kind::DebitNote, "10.00"));
    let adjustments: Vec<_> = note.adjustments.iter().map(|a| (a.kind, a.amount.to_string())).collect();
    assert_eq!(adjustments, [(BoundKind::Minimum, "-5.00".to_owned()), (BoundKind::Cap, "-15.00".to_owned())]);
    let sum: i128 =
        note.line_items.iter().map(|l| l.kiki_invoice_amount.units()).chain(note.adjustments.iter().map(|a| a.amount.units())).sum();
    assert_eq!(sum, note.total_invoice_amount.units());
}

#[test]
fn refuses_an_unknown_field() {
    let mut json: serde_json::Value = serde_json::from_slice(&build(facts(&[])).unwrap().to_json()).unwrap();
    json["discount"] = "5.00".into();
    assert!(Invoice::from_json(json.to_string().as_bytes()).is_err());
}
