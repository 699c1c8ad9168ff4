//! The month over all clients: what was spent, earned and billed, a row a client and currency and
//! a total a currency. Nothing is added across currencies.

use std::collections::BTreeMap;

use serde::Serialize;

use super::amount::{Amount, NANO_PLACES, minor_places};
use super::fee::{FeeError, LineStatus, ratio, round_to};
use super::invoice::{Invoice, InvoiceError, Kind};

/// The summary, in the order of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The month, `2026-01`.
    pub period: String,
    /// One an invoice, by currency and client.
    pub clients: Vec<Row>,
    /// One a currency.
    pub totals: Vec<Row>,
}

/// One client, or one currency's total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Invoice number; empty on a total.
    pub invoice_id: String,
    /// The client's name; `total` on a total.
    pub client_name: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Lines summed, those held for review not among them.
    pub campaigns: u64,
    /// Lines held for review.
    pub held_for_review: u64,
    /// Settled spend.
    pub client_spend: Amount,
    /// Lifetime value of the customers acquired.
    pub ltv: Amount,
    /// LTV over spend, both summed first; none without spend.
    pub weighted_roas: Option<Amount>,
    /// Margin over baseline times spend in percent, both summed first.
    pub margin_improvement_pct: Option<Amount>,
    /// Margin above the baseline after netting.
    pub margin_recovered: Amount,
    /// What is billed.
    pub kiki_invoice_amount: Amount,
    /// Margin less fee.
    pub client_keeps: Amount,
}

/// Exact sums behind a row.
#[derive(Debug, Clone, Default)]
struct Sums {
    campaigns: u64,
    held: u64,
    spend_nanos: i128,
    ltv_nanos: i128,
    /// Baseline times spend in 10^-15 of the currency.
    owed_exact: i128,
    margin_minor: i128,
    fee_minor: i128,
}

/// Sums up a month's invoices.
pub fn summarise(period: &str, invoices: &[Invoice]) -> Result<Summary, InvoiceError> {
    let mut order: Vec<&Invoice> = invoices.iter().collect();
    order.sort_by(|a, b| (&a.currency, &a.client, &a.invoice_id).cmp(&(&b.currency, &b.client, &b.invoice_id)));
    let mut totals: BTreeMap<&str, Sums> = BTreeMap::new();
    let mut clients = Vec::with_capacity(order.len());
    for invoice in order {
        let sums = Sums::of(invoice)?;
        clients.push(sums.row(&invoice.invoice_id, &invoice.client_name, &invoice.currency)?);
        totals.entry(&invoice.currency).or_default().add(&sums)?;
    }
    let totals = totals.iter().map(|(currency, sums)| sums.row("", "total", currency));
    Ok(Summary { period: period.to_owned(), clients, totals: totals.collect::<Result<_, _>>()? })
}

impl Sums {
    fn of(invoice: &Invoice) -> Result<Self, InvoiceError> {
        let billed = invoice.total_invoice_amount.units();
        // A note is of another period's spend and value: here it changes what is billed, and no more.
        match invoice.kind {
            Kind::Invoice => {}
            Kind::CreditNote => return Ok(Self { fee_minor: -billed, ..Self::default() }),
            Kind::DebitNote => return Ok(Self { fee_minor: billed, ..Self::default() }),
        }
        let mut sums = Self { margin_minor: invoice.total_margin_recovered.units(), fee_minor: billed, ..Self::default() };
        for line in &invoice.line_items {
            if line.status == LineStatus::HeldForReview {
                sums.held += 1;
                continue;
            }
            let spend = line.client_spend_exact.units();
            let baseline_ppm = to_ppm(&line.baseline_roas)?;
            let owed = spend.checked_mul(baseline_ppm).ok_or(FeeError::Overflow { what: "baseline" })?;
            sums.campaigns += 1;
            sums.spend_nanos = add(sums.spend_nanos, spend)?;
            sums.ltv_nanos = add(sums.ltv_nanos, line.ltv_exact.units())?;
            sums.owed_exact = add(sums.owed_exact, owed)?;
        }
        Ok(sums)
    }

    fn add(&mut self, other: &Self) -> Result<(), FeeError> {
        self.campaigns += other.campaigns;
        self.held += other.held;
        self.spend_nanos = add(self.spend_nanos, other.spend_nanos)?;
        self.ltv_nanos = add(self.ltv_nanos, other.ltv_nanos)?;
        self.owed_exact = add(self.owed_exact, other.owed_exact)?;
        self.margin_minor = add(self.margin_minor, other.margin_minor)?;
        self.fee_minor = add(self.fee_minor, other.fee_minor)?;
        Ok(())
    }

    fn row(&self, invoice_id: &str, name: &str, currency: &str) -> Result<Row, InvoiceError> {
        let places = minor_places(currency)?;
        let rounded = |nanos| -> Result<Amount, InvoiceError> { Ok(Amount::new(round_to(nanos, NANO_PLACES, places)?, places)?) };
        let earned = self.ltv_nanos.checked_mul(1_000_000).ok_or(FeeError::Overflow { what: "ltv" })?;
        let roas = ratio(self.ltv_nanos, self.spend_nanos, 4)?;
        let improvement = ratio(add(earned, -self.owed_exact)?, self.owed_exact, 4)?;
        Ok(Row {
            invoice_id: invoice_id.to_owned(),
            client_name: name.to_owned(),
            currency: currency.to_owned(),
            campaigns: self.campaigns,
            held_for_review: self.held,
            client_spend: rounded(self.spend_nanos)?,
            ltv: rounded(self.ltv_nanos)?,
            weighted_roas: roas.map(|r| Amount::new(r, 4)).transpose()?,
            margin_improvement_pct: improvement.map(|r| Amount::new(r, 2)).transpose()?,
            margin_recovered: Amount::new(self.margin_minor, places)?,
            kiki_invoice_amount: Amount::new(self.fee_minor, places)?,
            client_keeps: Amount::new(self.margin_minor - self.fee_minor, places)?,
        })
    }
}

fn add(a: i128, b: i128) -> Result<i128, FeeError> {
    a.checked_add(b).ok_or(FeeError::Overflow { what: "summary" })
}

/// A baseline as printed, back in parts per million.
fn to_ppm(baseline: &str) -> Result<i128, InvoiceError> {
    let read = Amount::parse(baseline)?;
    let scale = 6_u32.checked_sub(read.places()).map(|places| 10_i128.pow(places));
    let ppm = scale.and_then(|scale| read.units().checked_mul(scale));
    Ok(ppm.ok_or(FeeError::Overflow { what: "baseline" })?)
}

impl Summary {
    /// Deterministic JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_else(|e| unreachable!("strings and integers only: {e}"));
        bytes.push(b'\n');
        bytes
    }

    /// Column names and rows of a table to print, the totals last.
    pub fn table(&self) -> ([&'static str; 9], Vec<[String; 9]>) {
        let header = ["invoice", "client", "cur", "spend", "ltv", "roas", "vs baseline %", "margin", "fee"];
        let optional = |amount: Option<Amount>| amount.map_or_else(|| "-".to_owned(), |a| a.to_string());
        let row = |row: &Row| {
            [
                row.invoice_id.clone(),
                row.client_name.clone(),
                row.currency.clone(),
                row.client_spend.to_string(),
                row.ltv.to_string(),
                optional(row.weighted_roas),
                optional(row.margin_improvement_pct),
                row.margin_recovered.to_string(),
                row.kiki_invoice_amount.to_string(),
            ]
        };
        (header, self.clients.iter().chain(&self.totals).map(row).collect())
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
