#![allow(clippy::unwrap_used)]
use super::*;
use crate::domain::period::resolve;

pub(crate) const ONE: i128 = 1_000_000_000;

/// Terms of the product's documents: baseline 3.0, share 10 %.
pub(crate) fn terms() -> Terms {
    Terms {
        leaf: 1,
        version: 1,
        baseline_ppm: 3_000_000,
        evidence_leaf: None,
        share_ppm: 100_000,
        basis: Basis::Predicted,
        netting: Netting::Client,
        horizon_days: 365,
        lookback_seconds: 30 * 86_400,
        zone: "UTC".into(),
        currency: "USD".into(),
        payment_days: 30,
        client_name: "Acme, Inc.".into(),
    }
}

pub(crate) fn facts(lines: &[(&str, i128, i128)]) -> Facts {
    let month: Month = "2026-01".parse().unwrap();
    let span = resolve(month, "UTC").unwrap();
    let line = |(i, &(campaign, spend, ltv)): (usize, &(&str, i128, i128))| LineFacts {
        campaign: campaign.into(),
        spend_nanos: spend * ONE,
        ltv_nanos: ltv * ONE,
        leaves: vec![10 * i as u64, 10 * i as u64 + 1, 10 * i as u64 + 5],
    };
    Facts {
        invoice_id: number(2026, 1),
        client: "acme".into(),
        month,
        span,
        issued_at: span.end,
        terms: terms(),
        lines: lines.iter().enumerate().map(line).collect(),
        completeness: Completeness {
            log_id: "kiki.test/log".into(),
            first_client_seq: 1,
            last_client_seq: 40,
            checkpoint_size: 100,
            checkpoint_root: "00".repeat(32),
            period_closed_leaf: 41,
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
    assert_eq!(json["terms"]["profit_share_percentage"], "10");
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
    let mut back = facts(&[("a", 100, 400), ("b", 100, 250)]);
    back.lines.reverse();
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
        let mut facts = facts(&[("a", 36_368, 131_194)]);
        facts.terms.currency = currency.into();
        assert_eq!(build(facts).unwrap().total_invoice_amount.to_string(), fee);
    }
}

#[test]
fn csv_has_a_row_a_line_and_no_formulas() {
    let mut facts = facts(&[("a", 36_368, 131_194), ("b", 0, 500)]);
    facts.terms.client_name = "=cmd(), \"x\"".into();
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
fn numbers_fit_into_sixteen_characters() {
    assert_eq!(number(2026, 42), "K2026-000042");
    assert!(number(9_997, 9_999_999_999).len() <= 16);
}

#[test]
fn refuses_an_unknown_field() {
    let mut json: serde_json::Value = serde_json::from_slice(&build(facts(&[])).unwrap().to_json()).unwrap();
    json["discount"] = "5.00".into();
    assert!(Invoice::from_json(json.to_string().as_bytes()).is_err());
}
