//! The invoice document: a pure function of [`Facts`], printed as deterministic JSON and CSV.
//!
//! Amounts are decimal strings, never JSON numbers, so that no reader's floats touch them. Every
//! line names the leaves of the log it was computed from, and carries its exact sums beside the
//! rounded ones, so that it can be recomputed from the document as well as from the log.

use kiki::clock::UnixMicros;
use serde::{Deserialize, Serialize};

use super::amount::{Amount, AmountError, NANO_PLACES, minor_places, trimmed};
use super::fee::{FeeError, FeeTerms, Fees, LineInput, LineStatus, Netting, fees, improvement_pct_2dp, roas_4dp, round_to};
use super::period::{Month, PeriodError, Span, due_date, issue_date, utc};

/// The document's format: a reader that does not know it must not guess.
pub const SCHEMA: &str = "kiki.invoice/1";

/// Most lines of an invoice: a line a campaign, and a document of a few hundred bytes a line stays near 4 MiB.
pub const LINES_MAX: usize = 10_000;

/// What LTV the fee is taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The prediction that was frozen when the customer was acquired.
    Predicted,
    /// What the customer has spent up to the horizon.
    Realised,
}

/// The terms an invoice is drawn up under, as they stand in a leaf of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Index of their leaf.
    pub leaf: u64,
    /// Their version, which the closing of a period names.
    pub version: u64,
    /// Baseline return on ad spend, parts per million.
    pub baseline_ppm: i64,
    /// Index of the leaf that the baseline is evidenced by, where there is one.
    pub evidence_leaf: Option<u64>,
    /// Share of the margin, parts per million.
    pub share_ppm: i64,
    /// What LTV counts.
    pub basis: Basis,
    /// What is set off against what.
    pub netting: Netting,
    /// Days over which LTV counts.
    pub horizon_days: u32,
    /// Seconds within which a conversion is attributed to an impression.
    pub lookback_seconds: u32,
    /// IANA zone of the client.
    pub zone: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Calendar days from issue to due date.
    pub payment_days: u32,
    /// The client's name in full.
    pub client_name: String,
}

/// What the log says of one campaign in the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFacts {
    /// Campaign id.
    pub campaign: String,
    /// Settled spend in nanos.
    pub spend_nanos: i128,
    /// LTV in nanos.
    pub ltv_nanos: i128,
    /// Sorted indices of the leaves that were summed.
    pub leaves: Vec<u64>,
}

/// What shows that no leaf of the client was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// The log the client lives in.
    pub log_id: String,
    /// First `client_seq` that the period's closing covers.
    pub first_client_seq: u64,
    /// Last `client_seq` that it covers; between the two none is missing.
    pub last_client_seq: u64,
    /// Size of a signed checkpoint that covers them and the closing.
    pub checkpoint_size: u64,
    /// Root of that checkpoint, 64 hex digits. A bundle carries a later checkpoint, which covers the
    /// invoice's own leaf too: where the two sizes differ the bundle alone cannot verify this root.
    /// It can be compared with a checkpoint of this size that was kept elsewhere.
    pub checkpoint_root: String,
    /// Index of the leaf that closed the period.
    pub period_closed_leaf: u64,
}

/// Everything that an invoice is a function of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Invoice number, or a draft's id.
    pub invoice_id: String,
    /// Client id.
    pub client: String,
    /// The month.
    pub month: Month,
    /// Its UTC instants.
    pub span: Span,
    /// When it was issued.
    pub issued_at: UnixMicros,
    /// Terms in force.
    pub terms: Terms,
    /// One a campaign, in any order.
    pub lines: Vec<LineFacts>,
    /// The covered part of the log.
    pub completeness: Completeness,
}

/// Why no invoice could be drawn up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// An amount that cannot be printed.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// A fee that cannot be computed.
    #[error(transparent)]
    Fee(#[from] FeeError),
    /// A date that cannot be resolved.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// Too many campaigns.
    #[error("an invoice has at most {LINES_MAX} lines but {lines} campaigns had activity")]
    TooManyLines {
        /// How many.
        lines: usize,
    },
}

/// The invoice, in the order of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    /// [`SCHEMA`].
    pub schema: String,
    /// Number such as `K2026-000001`, or a draft's id.
    pub invoice_id: String,
    /// Client id.
    pub client: String,
    /// The client's name in full.
    pub client_name: String,
    /// ISO 4217 code.
    pub currency: String,
    /// The month, `2026-01`.
    pub period: String,
    /// When it begins, in UTC.
    pub period_start: String,
    /// When it ends, in UTC: the first instant that is not in it any more.
    pub period_end: String,
    /// Date of issue in the client's zone.
    pub issue_date: String,
    /// Date by which it is to be paid, in the client's zone.
    pub due_date: String,
    /// Sum of the lines' amounts.
    pub total_invoice_amount: Amount,
    /// Margin above the baseline, after netting; at least 0.
    pub total_margin_recovered: Amount,
    /// What is missing to the baseline, after netting; at least 0.
    pub shortfall: Amount,
    /// Margin less fee.
    pub client_keeps: Amount,
    /// One a campaign, by campaign id.
    pub line_items: Vec<Line>,
    /// The terms it was drawn up under.
    pub terms: TermsPrinted,
    /// What shows that nothing was left out.
    pub completeness: Completeness,
}

/// One campaign of an invoice, in the order of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The client's name in full.
    pub client_name: String,
    /// Campaign id.
    pub campaign_id: String,
    /// Settled spend.
    pub client_spend: Amount,
    /// Settled spend to the nano.
    pub client_spend_exact: Amount,
    /// Lifetime value of the customers acquired.
    pub ltv: Amount,
    /// The same to the nano.
    pub ltv_exact: Amount,
    /// Baseline return on ad spend, such as `3.0`.
    pub baseline_roas: String,
    /// LTV over spend, 4 places; none without spend.
    pub kiki_roas: Option<Amount>,
    /// Margin over baseline times spend in percent, 2 places; none without spend or baseline.
    pub margin_improvement_pct: Option<Amount>,
    /// Margin above the baseline; below zero on a line that stayed below.
    pub margin_recovered: Amount,
    /// What this line is billed.
    pub kiki_invoice_amount: Amount,
    /// How it stands to its baseline.
    pub status: LineStatus,
    /// Leaves it was computed from, as inclusive ranges of indices.
    pub leaves: Vec<[u64; 2]>,
}

/// The terms as printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermsPrinted {
    /// Such as `3.0`.
    pub baseline_roas: String,
    /// Percent, such as `10`.
    pub profit_share_percentage: String,
    /// What LTV counts.
    pub basis: Basis,
    /// What is set off against what.
    pub netting: Netting,
    /// Days over which LTV counts.
    pub horizon_days: u32,
    /// Seconds within which a conversion is attributed to an impression.
    pub lookback_seconds: u32,
    /// The client's zone.
    pub zone: String,
    /// Calendar days to pay.
    pub payment_days: u32,
    /// Their version.
    pub version: u64,
    /// Index of the terms' leaf.
    pub leaf: u64,
    /// Index of the baseline's evidence, where there is one.
    pub evidence_leaf: Option<u64>,
}

/// Draws up the invoice.
pub fn build(mut facts: Facts) -> Result<Invoice, InvoiceError> {
    if facts.lines.len() > LINES_MAX {
        return Err(InvoiceError::TooManyLines { lines: facts.lines.len() });
    }
    facts.lines.sort_by(|a, b| a.campaign.cmp(&b.campaign));
    let terms = &facts.terms;
    let places = minor_places(&terms.currency)?;
    let fee_terms = FeeTerms { baseline_ppm: terms.baseline_ppm, share_ppm: terms.share_ppm, netting: terms.netting, minor_places: places };
    let inputs: Vec<_> = facts.lines.iter().map(LineFacts::input).collect();
    let result = fees(&inputs, &fee_terms)?;
    Ok(Invoice {
        schema: SCHEMA.to_owned(),
        client_name: terms.client_name.clone(),
        currency: terms.currency.clone(),
        period: facts.month.to_string(),
        period_start: utc(facts.span.start)?,
        period_end: utc(facts.span.end)?,
        issue_date: issue_date(facts.issued_at, &terms.zone)?,
        due_date: due_date(facts.issued_at, &terms.zone, terms.payment_days)?,
        total_invoice_amount: Amount::new(result.fee_minor, places)?,
        total_margin_recovered: Amount::new(result.margin_minor, places)?,
        shortfall: Amount::new(result.shortfall_minor, places)?,
        client_keeps: Amount::new(result.margin_minor - result.fee_minor, places)?,
        line_items: lines(&facts, &result, places)?,
        terms: terms.printed(),
        invoice_id: facts.invoice_id,
        client: facts.client,
        completeness: facts.completeness,
    })
}

fn lines(facts: &Facts, result: &Fees, places: u32) -> Result<Vec<Line>, InvoiceError> {
    let terms = &facts.terms;
    let mut out = Vec::with_capacity(facts.lines.len());
    for (line, fee) in facts.lines.iter().zip(&result.lines) {
        let (spend, ltv) = (line.spend_nanos, line.ltv_nanos);
        let improvement = improvement_pct_2dp(spend, ltv, terms.baseline_ppm)?;
        out.push(Line {
            client_name: terms.client_name.clone(),
            campaign_id: line.campaign.clone(),
            client_spend: Amount::new(round_to(spend, NANO_PLACES, places)?, places)?,
            client_spend_exact: Amount::new(spend, NANO_PLACES)?,
            ltv: Amount::new(round_to(ltv, NANO_PLACES, places)?, places)?,
            ltv_exact: Amount::new(ltv, NANO_PLACES)?,
            baseline_roas: trimmed(terms.baseline_ppm, 6, 1),
            kiki_roas: roas_4dp(spend, ltv)?.map(|r| Amount::new(r, 4)).transpose()?,
            margin_improvement_pct: improvement.map(|r| Amount::new(r, 2)).transpose()?,
            margin_recovered: Amount::new(fee.margin_minor, places)?,
            kiki_invoice_amount: Amount::new(fee.fee_minor, places)?,
            status: fee.status,
            leaves: ranges(&line.leaves),
        });
    }
    Ok(out)
}

impl LineFacts {
    fn input(&self) -> LineInput {
        LineInput { campaign: self.campaign.clone(), spend_nanos: self.spend_nanos, ltv_nanos: self.ltv_nanos }
    }
}

impl Terms {
    fn printed(&self) -> TermsPrinted {
        TermsPrinted {
            baseline_roas: trimmed(self.baseline_ppm, 6, 1),
            profit_share_percentage: trimmed(self.share_ppm, 4, 0),
            basis: self.basis,
            netting: self.netting,
            horizon_days: self.horizon_days,
            lookback_seconds: self.lookback_seconds,
            zone: self.zone.clone(),
            payment_days: self.payment_days,
            version: self.version,
            leaf: self.leaf,
            evidence_leaf: self.evidence_leaf,
        }
    }
}

/// Sorted indices as inclusive ranges; a repeated index counts once.
pub fn ranges(sorted: &[u64]) -> Vec<[u64; 2]> {
    let mut out: Vec<[u64; 2]> = Vec::new();
    for &index in sorted {
        match out.last_mut() {
            Some([_, last]) if index == *last || index == *last + 1 => *last = index,
            _ => out.push([index, index]),
        }
    }
    out
}

/// The number of an invoice: `K<year>-<6 digits>`, at most 16 characters.
pub fn number(year: i16, ordinal: u64) -> String {
    format!("K{year:04}-{ordinal:06}")
}

/// Year and ordinal of a number; nothing of what [`number`] does not write.
pub fn ordinal(text: &str) -> Option<(i16, u64)> {
    let (year, ordinal) = text.strip_prefix('K')?.split_once('-')?;
    let (year, ordinal) = (year.parse().ok()?, ordinal.parse().ok()?);
    (number(year, ordinal) == text).then_some((year, ordinal))
}

impl Invoice {
    /// The document's bytes: the same invoice gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_else(|e| unreachable!("strings and integers only: {e}"));
        bytes.push(b'\n');
        bytes
    }

    /// Reads a document; unknown fields are refused.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// A header and a row a line.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let written = writer
            .write_record(CSV_HEADER)
            .and_then(|()| self.line_items.iter().try_for_each(|line| writer.write_record(self.csv_row(line))));
        debug_assert!(written.is_ok(), "rows of one length into memory");
        writer.into_inner().unwrap_or_default()
    }

    fn csv_row(&self, line: &Line) -> [String; 14] {
        let optional = |amount: Option<Amount>| amount.map(|a| a.to_string()).unwrap_or_default();
        [
            self.invoice_id.clone(),
            self.period.clone(),
            self.due_date.clone(),
            self.currency.clone(),
            plain_cell(&line.client_name),
            line.campaign_id.clone(),
            line.client_spend.to_string(),
            line.ltv.to_string(),
            line.baseline_roas.clone(),
            optional(line.kiki_roas),
            optional(line.margin_improvement_pct),
            line.margin_recovered.to_string(),
            line.kiki_invoice_amount.to_string(),
            line.status.name().to_owned(),
        ]
    }
}

const CSV_HEADER: [&str; 14] = [
    "invoice_id",
    "period",
    "due_date",
    "currency",
    "client_name",
    "campaign_id",
    "client_spend",
    "ltv",
    "baseline_roas",
    "kiki_roas",
    "margin_improvement_pct",
    "margin_recovered",
    "kiki_invoice_amount",
    "status",
];

/// A name that a spreadsheet would take for a formula is made text.
fn plain_cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

impl LineStatus {
    /// The name as printed in JSON and CSV.
    pub fn name(self) -> &'static str {
        match self {
            Self::AboveBaseline => "above_baseline",
            Self::BelowBaseline => "below_baseline",
            Self::HeldForReview => "held_for_review",
        }
    }
}

#[cfg(test)]
#[path = "invoice_tests.rs"]
pub(crate) mod tests;
