//! The invoice document, or the note that corrects one: a pure function of [`Facts`], printed as
//! deterministic JSON and CSV.
//!
//! Amounts are decimal strings, never JSON numbers, so that no reader's floats touch them. Every
//! line names the leaves of the log it was computed from, and carries its exact sums beside the
//! rounded ones, so that it can be recomputed from the document as well as from the log.
//!
//! A note says what has changed since the closing before: its lines carry the new figures, and beside
//! them the former ones; what they bill is the difference, on a credit note what is given back. A credit note by agreement has no
//! lines: it gives back a part of a document whose figures stand ([`Decision`]).

mod build;
mod credit;
mod number;
mod table;

use kiki::clock::UnixMicros;
use kiki::leaf;
use serde::{Deserialize, Serialize};

use super::amount::{Amount, AmountError};
use super::books::{Account, BoundKind, Change, Reason};
use super::fee::{FeeError, LineStatus, Netting};
use super::period::{Month, PeriodError, Span};
use super::terms::{Basis, Party, Seller};

pub use build::build;
pub use credit::Decision;
pub use number::{number, number_stem, ordinal};

/// The document's format: a reader that does not know it must not guess.
pub const SCHEMA: &str = "kiki.invoice/2";

/// Most lines of an invoice: a line a campaign, and a document of a few hundred bytes a line stays near 4 MiB.
pub const LINES_MAX: usize = 10_000;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bills a period.
    Invoice,
    /// Gives back a part of what an earlier period was billed. Its total is what is given back.
    CreditNote,
    /// Bills more of an earlier period.
    DebitNote,
}

impl Kind {
    /// As the log has it.
    pub fn to_leaf(self) -> leaf::DocumentKind {
        match self {
            Self::Invoice => leaf::DocumentKind::Invoice,
            Self::CreditNote => leaf::DocumentKind::CreditNote,
            Self::DebitNote => leaf::DocumentKind::DebitNote,
        }
    }
}

/// What shows that no leaf of the client was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// The log the client lives in.
    pub log_id: String,
    /// First `client_seq` that the closing covers.
    pub first_client_seq: u64,
    /// Last `client_seq` that it covers; between the two none is missing.
    pub last_client_seq: u64,
    /// Size of a signed checkpoint that covers them and the closing.
    pub checkpoint_size: u64,
    /// Root of that checkpoint, 64 hex digits. A bundle carries a later checkpoint, which covers the
    /// invoice's own leaf too: where the two sizes differ the bundle alone cannot verify this root.
    /// It can be compared with a checkpoint of this size that was kept elsewhere.
    pub checkpoint_root: String,
    /// Index of the leaf that closed the period; of a note, the period that it is drawn up with.
    pub period_closed_leaf: u64,
    /// Where the client has more leaves than a bundle holds: SHA-256 of its books by sheet, 64 hex digits, of which the bundle
    /// shows a sample down to the leaves. Lines then list no leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sheets_sha256: Option<String>,
}

/// Everything that a document is a function of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Number, or a draft's id.
    pub invoice_id: String,
    /// Client id.
    pub client: String,
    /// The month that is billed or corrected.
    pub month: Month,
    /// Its UTC instants.
    pub span: Span,
    /// When it was issued.
    pub issued_at: UnixMicros,
    /// What is billed: of a note, the period as known now.
    pub account: Account,
    /// Of a note.
    pub correction: Option<Correction>,
    /// The covered part of the log.
    pub completeness: Completeness,
}

/// The document that a note corrects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preceding {
    /// Its number.
    pub number: String,
    /// When it was issued.
    pub issued_at: UnixMicros,
}

/// What makes a document a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// The period as it was known at the closing before.
    pub before: Account,
    /// Why it changed.
    pub reasons: Vec<Reason>,
    /// The period's invoice; none where it had none, because there was nothing to bill.
    pub invoice: Option<Preceding>,
    /// The month with whose closing the note is drawn up.
    pub noted_in: Month,
}

impl Correction {
    /// What makes a note of a change; with the period's account as it is known now.
    pub fn of(change: Change, invoice: Option<Preceding>, noted_in: Month) -> (Account, Self) {
        let Change { before, after, reasons, .. } = change;
        (after, Self { before, reasons, invoice, noted_in })
    }
}

/// Why no document could be drawn up.
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
    /// A period that an earlier one covers.
    #[error("the period has no time of its own")]
    NoPart,
    /// A field of a document that nobody here wrote.
    #[error("{field} is {value:?}, which cannot be read")]
    Unreadable {
        /// Its name in the JSON.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A tax that is not the one at the document's rate.
    #[error("tax_minor is {stated} but the tax at the document's rate is {computed}")]
    Tax {
        /// What the log says.
        stated: i64,
        /// What it should say.
        computed: i128,
    },
}

/// The document, in the order of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    /// [`SCHEMA`].
    pub schema: String,
    /// What it is.
    pub kind: Kind,
    /// Number such as `K2026-000001`, or a draft's id.
    pub invoice_id: String,
    /// Client id.
    pub client: String,
    /// The client's name in full.
    pub client_name: String,
    /// ISO 4217 code.
    pub currency: String,
    /// The month that is billed or corrected, `2026-01`.
    pub period: String,
    /// When it begins, in UTC.
    pub period_start: String,
    /// When it ends, in UTC: the first instant that is not in it any more.
    pub period_end: String,
    /// Date of issue in the client's zone.
    pub issue_date: String,
    /// Date by which it is to be paid, in the client's zone.
    pub due_date: String,
    /// Of a note: what it corrects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrects: Option<Corrects>,
    /// Sum of the lines' amounts and the adjustments, before tax; at least 0. By agreement: what is given back.
    pub total_invoice_amount: Amount,
    /// The tax on it, where the terms have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxPrinted>,
    /// Both together: what is to be paid or, of a credit note, given back.
    pub amount_due: Amount,
    /// Margin above the baseline of the whole period, after netting; at least 0.
    pub total_margin_recovered: Amount,
    /// What is missing to the baseline, after netting; at least 0.
    pub shortfall: Amount,
    /// Margin less the period's fee; by agreement, less what is billed of it.
    pub client_keeps: Amount,
    /// One a campaign and part, in order of part and campaign id; on a note, those that changed.
    pub line_items: Vec<Line>,
    /// What the terms' minimum added or their cap took off.
    pub adjustments: Vec<Adjustment>,
    /// The parts of the period, each under one version of the terms.
    pub parts: Vec<PartPrinted>,
    /// Who sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller: Option<Seller>,
    /// Whom it is sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<Party>,
    /// What shows that nothing was left out.
    pub completeness: Completeness,
}

/// What a note corrects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corrects {
    /// Number of the period's invoice; none where there was nothing to bill. By agreement: of what is credited.
    pub invoice_id: Option<String>,
    /// When that was issued, in the client's zone; none in a draft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue_date: Option<String>,
    /// The month with whose closing the note is drawn up; by agreement, what it credits.
    pub noted_in: String,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The period's fee before tax as computed so far. By agreement: what was billed and no credit note gave back.
    pub amount_before: Amount,
    /// The same with this note.
    pub amount_after: Amount,
    /// Of a credit by agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Agreed>,
}

/// Who agreed to a credit, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// Index of the leaf that says so.
    pub leaf: u64,
    /// Who decided it.
    pub actor: String,
    /// In words.
    pub reason: String,
    /// Key of the dispute that it settles.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dispute_key: String,
    /// The leaves that it is about, as inclusive ranges of indices.
    pub leaves: Vec<[u64; 2]>,
}

/// The tax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaxPrinted {
    /// UNCL5305.
    pub category: String,
    /// Percent, such as `19`.
    pub rate_percentage: String,
    /// Rounded half away from zero, once.
    pub amount: Amount,
    /// Why none is charged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub exemption_reason: String,
    /// The same by its code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub exemption_code: String,
}

/// A bound on the fee that made a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    /// Which.
    pub kind: BoundKind,
    /// What it adds to this document's total; below 0 what it takes off.
    pub amount: Amount,
}

/// A part of the period, in the order of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartPrinted {
    /// When it begins, in UTC; of a client's first period, that period's beginning: records from before are in it.
    pub from: String,
    /// When it ends, in UTC.
    pub until: String,
    /// What LTV counts in it, as known now.
    pub basis: Basis,
    /// Shortfalls from before that are set off in it.
    pub carried_shortfall: Amount,
    /// Margin above the baseline, after netting; at least 0.
    pub margin_recovered: Amount,
    /// What is missing to the baseline, after netting; at least 0.
    pub shortfall: Amount,
    /// Fee of its lines as known now.
    pub fee: Amount,
    /// Its terms.
    pub terms: TermsPrinted,
}

/// One campaign in one part, in the order of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which part, from 1.
    pub part: u32,
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
    /// What this line is billed; on a note, the difference to what it was billed so far, on a credit note what is given back.
    pub kiki_invoice_amount: Amount,
    /// How it stands to its baseline.
    pub status: LineStatus,
    /// On a note: the line as it was known so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// How many leaves it was computed from.
    pub leaf_count: u64,
    /// Those leaves, as inclusive ranges of indices; none where there are more than 1,000.
    pub leaves: Vec<[u64; 2]>,
}

/// A line as it was known at the closing before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// What LTV counted.
    pub basis: Basis,
    /// Settled spend to the nano.
    pub client_spend_exact: Amount,
    /// Lifetime value to the nano.
    pub ltv_exact: Amount,
    /// Margin above the baseline.
    pub margin_recovered: Amount,
    /// What the line was billed.
    pub kiki_invoice_amount: Amount,
}

/// The terms as printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermsPrinted {
    /// Such as `3.0`.
    pub baseline_roas: String,
    /// Whether the evidence gives it.
    pub baseline_measured: bool,
    /// Percent, such as `10`.
    pub profit_share_percentage: String,
    /// What LTV counts.
    pub basis: Basis,
    /// What is set off against what.
    pub netting: Netting,
    /// Whether a shortfall is set off against later margins.
    pub carry_shortfall: bool,
    /// Least that a period is billed before tax, where there is a least.
    pub minimum: Option<Amount>,
    /// Most that a period is billed before tax, where there is a most.
    pub cap: Option<Amount>,
    /// Days over which LTV counts.
    pub horizon_days: u32,
    /// Seconds within which a conversion is attributed to an impression.
    pub lookback_seconds: u32,
    /// Seconds that a period waits for late records.
    pub grace_seconds: u32,
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

impl Invoice {
    /// The terms in force at the period's end; none in what no version wrote.
    pub fn terms(&self) -> Option<&TermsPrinted> {
        self.parts.last().map(|part| &part.terms)
    }

    /// What it says of the agreement, where it is a credit by one.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.corrects.as_ref()?.agreed.as_ref()
    }

    /// The month of the closing that it is computed from.
    pub fn closing_month(&self) -> &str {
        self.corrects.as_ref().map_or(&self.period, |corrects| &corrects.noted_in)
    }

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
}

impl TaxPrinted {
    /// The rate in parts per million; none where it is not as it is printed here.
    pub fn rate_ppm(&self) -> Option<u32> {
        let percent = Amount::parse(&self.rate_percentage).ok()?;
        // A percent is 10,000 parts per million.
        let shift = 4_u32.checked_sub(percent.places()).and_then(|places| 10_i128.checked_pow(places))?;
        u32::try_from(percent.units().checked_mul(shift)?).ok()
    }
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
