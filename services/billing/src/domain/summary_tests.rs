#![allow(clippy::unwrap_used)]
use super::*;
use crate::domain::invoice::build;
use crate::domain::invoice::tests::{facts, facts_under, terms};
use crate::domain::terms::Terms;

#[test]
fn weighs_ratios_by_spend_and_never_adds_currencies() {
    let mut euro = facts_under(Terms { currency: "EUR".into(), ..terms() }, &[("e", 1_000, 4_470)]);
    euro.client = "euro".into();
    let mut second = facts(&[("b", 100_000, 350_000), ("idle", 0, 77)]);
    second.client = "beta".into();
    let invoices: Vec<_> = [facts(&[("a", 45_000, 166_210)]), second, euro].into_iter().map(|f| build(f).unwrap()).collect();
    let summary = summarise("2026-01", &invoices).unwrap();
    let usd = summary.totals.iter().find(|r| r.currency == "USD").unwrap();
    assert_eq!(usd.client_spend.to_string(), "145000.00");
    assert_eq!(usd.ltv.to_string(), "516210.00");
    assert_eq!(usd.weighted_roas.unwrap().to_string(), "3.5601");
    assert_eq!(usd.margin_improvement_pct.unwrap().to_string(), "18.67");
    assert_eq!(usd.margin_recovered.to_string(), "81210.00");
    assert_eq!(usd.kiki_invoice_amount.to_string(), "8121.00");
    assert_eq!((usd.campaigns, usd.held_for_review), (2, 1));
    assert_eq!(summary.totals.len(), 2);
    assert_eq!(summary.table().1.len(), 5);
}

#[test]
fn a_note_changes_what_is_billed_and_nothing_else() {
    let mut credit = build(facts(&[("a", 100, 400)])).unwrap();
    credit.kind = Kind::CreditNote;
    let summary = summarise("2026-01", &[build(facts(&[("a", 100, 500)])).unwrap(), credit]).unwrap();
    let total = &summary.totals[0];
    assert_eq!((total.client_spend.to_string().as_str(), total.margin_recovered.to_string().as_str()), ("100.00", "200.00"));
    assert_eq!((total.kiki_invoice_amount.to_string().as_str(), total.client_keeps.to_string().as_str()), ("10.00", "190.00"));
}

#[test]
fn an_empty_month_has_no_rows() {
    let summary = summarise("2026-01", &[]).unwrap();
    assert!(summary.clients.is_empty() && summary.totals.is_empty());
}
