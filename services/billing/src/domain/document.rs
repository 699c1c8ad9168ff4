//! An invoice or a note as EN 16931-1 means it: parties, lines, adjustments, one tax, how to pay.
//!
//! Pure data from which every format is written, so that no two formats can tell different figures.
//! Amounts are integer minor units of the currency, and totals are derived here and nowhere else.
//! BT and BG are the standard's own numbers of its terms.
//!
//! It is not the invoice: how a fee came about, with its exact sums and leaves, stands in
//! [`super::invoice`]. Two things of the standard are left out because no fee needs them: more than
//! one tax category in a document, and quantities other than one.

mod check;
pub mod export;
pub mod imports;
mod of_invoice;
pub mod pdf;
pub mod readd;
pub mod xml;

use jiff::civil::Date;

use super::amount::{AmountError, minor_places};
use super::fee;

pub use check::{ADJUSTMENTS_MAX, AMOUNT_MINOR_MAX, DocumentError, LINES_MAX, NOTES_MAX, TEXT_CHARS_MAX};
pub use of_invoice::OfInvoiceError;

/// What a document is, by its type code (BT-3, UNTDID 1001).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 380.
    Invoice,
    /// 381. Its amounts are positive, and what they say is that the buyer owes less.
    CreditNote,
    /// 383: the buyer owes more than an invoice said. In UBL an `Invoice` with this code.
    DebitNote,
}

impl Kind {
    /// The type code (BT-3).
    pub fn type_code(self) -> &'static str {
        match self {
            Self::Invoice => "380",
            Self::CreditNote => "381",
            Self::DebitNote => "383",
        }
    }
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Invoice, credit note or debit note.
    pub kind: Kind,
    /// Its number (BT-1).
    pub number: String,
    /// Date of issue (BT-2).
    pub issue_date: Date,
    /// Date by which it is to be paid (BT-9). What is to be paid needs this or payment terms; a credit note has none.
    pub due_date: Option<Date>,
    /// ISO 4217 code (BT-5).
    pub currency: String,
    /// Who is paid (BG-4).
    pub seller: Party,
    /// Who pays (BG-7).
    pub buyer: Party,
    /// What the buyer asked to see on it (BT-10). Peppol demands one.
    pub buyer_reference: Option<String>,
    /// The invoice that a note corrects (BG-3).
    pub preceding: Option<Preceding>,
    /// What it is billed for (BG-14).
    pub period: Option<Period>,
    /// Free text (BG-1).
    pub notes: Vec<String>,
    /// At least one (BG-25).
    pub lines: Vec<Line>,
    /// A cap that took off, a minimum that was added (BG-20, BG-21).
    pub adjustments: Vec<Adjustment>,
    /// The tax on all of it (BG-23).
    pub tax: Tax,
    /// How to pay (BG-16).
    pub payment: Payment,
}

/// A seller (BG-4) or buyer (BG-7).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Party {
    /// Registered name (BT-27, BT-44).
    pub name: String,
    /// Number in a register of companies (BT-30, BT-47), with its scheme from ISO 6523 where it has one.
    pub registration: Option<Identifier>,
    /// VAT identifier with its country prefix (BT-31, BT-48).
    pub vat_id: Option<String>,
    /// Street lines, at most three (BT-35, BT-36, BT-162; BT-50, BT-51, BT-163).
    pub address: Vec<String>,
    /// City (BT-37, BT-52).
    pub city: Option<String>,
    /// Postal code (BT-38, BT-53).
    pub postal_code: Option<String>,
    /// State or province (BT-39, BT-54).
    pub subdivision: Option<String>,
    /// ISO 3166-1 alpha-2 (BT-40, BT-55).
    pub country: String,
    /// Whom to ask (BG-6, BG-9).
    pub contact: Contact,
    /// Electronic address (BT-34, BT-49) with its scheme from the EAS list. Peppol demands one of both parties.
    pub endpoint: Option<Identifier>,
}

/// An identifier and the scheme it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier {
    /// Such as `DE123456789`.
    pub id: String,
    /// Such as `0088`, or none.
    pub scheme: Option<String>,
}

/// Whom to ask (BG-6, BG-9).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// Person or department (BT-41, BT-56).
    pub name: Option<String>,
    /// Telephone number (BT-42, BT-57).
    pub phone: Option<String>,
    /// E-mail address (BT-43, BT-58).
    pub email: Option<String>,
}

/// The invoice that a note corrects (BG-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preceding {
    /// Its number (BT-25).
    pub number: String,
    /// Its date of issue (BT-26), where it is known.
    pub issue_date: Option<Date>,
}

/// Days, both of which are in it (BG-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// First day (BT-73).
    pub first: Date,
    /// Last day (BT-74).
    pub last: Date,
}

/// One line (BG-25): quantity 1 of unit C62, "one".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Unlike any other line's (BT-126).
    pub id: String,
    /// What was sold (BT-153).
    pub name: String,
    /// More of it (BT-154).
    pub description: Option<String>,
    /// Net amount (BT-131). May be 0. Below 0 it takes away from the document, on a credit note too, and
    /// is written as a quantity of -1, because a price (BT-146) is never negative.
    pub net_minor: i128,
}

/// Something taken off or added at the end (BG-20, BG-21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Whether it is added (BG-21) rather than taken off (BG-20).
    pub charge: bool,
    /// Why (BT-97, BT-104).
    pub reason: String,
    /// UNTDID 5189 for an allowance (BT-98), UNTDID 7161 for a charge (BT-105).
    pub reason_code: Option<String>,
    /// At least 0 (BT-92, BT-99).
    pub amount_minor: i128,
}

/// The tax on the whole document (BG-23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tax {
    /// What kind of tax it is (BT-118).
    pub category: TaxCategory,
    /// Parts per million, whole percents or down to 0.0001 (BT-119). Above 0 for the standard rate alone.
    pub rate_ppm: u32,
    /// Why no tax is due, in words (BT-120).
    pub exemption_reason: Option<String>,
    /// The same as a code of the VATEX list (BT-121).
    pub exemption_code: Option<String>,
}

/// Tax categories (BT-118), the subset of UNTDID 5305 that a service can be billed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaxCategory {
    /// S: standard or reduced rate.
    Standard,
    /// Z: rate of zero.
    ZeroRated,
    /// E: exempt.
    Exempt,
    /// AE: the buyer accounts for it.
    ReverseCharge,
    /// K: supply within the European Economic Area.
    IntraCommunity,
    /// G: export.
    Export,
    /// O: outside the scope of VAT.
    OutOfScope,
}

impl TaxCategory {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Standard, Self::ZeroRated, Self::Exempt, Self::ReverseCharge, Self::IntraCommunity, Self::Export, Self::OutOfScope];

    /// The code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Standard => "S",
            Self::ZeroRated => "Z",
            Self::Exempt => "E",
            Self::ReverseCharge => "AE",
            Self::IntraCommunity => "K",
            Self::Export => "G",
            Self::OutOfScope => "O",
        }
    }
}

/// How to pay (BG-16, BT-20).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payment {
    /// In words (BT-20).
    pub terms: Option<String>,
    /// UNTDID 4461 (BT-81): 30 credit transfer, 58 SEPA credit transfer. Needed where an account is given.
    pub means_code: Option<String>,
    /// IBAN, or another account number where there is none (BT-84).
    pub iban: Option<String>,
    /// BIC (BT-86).
    pub bic: Option<String>,
    /// In whose name the account is (BT-85).
    pub account_name: Option<String>,
    /// What to write on the transfer (BT-83).
    pub remittance: Option<String>,
}

/// A document's sums (BG-22), in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Sum of the lines (BT-106).
    pub lines_minor: i128,
    /// Sum of what was taken off (BT-107).
    pub allowances_minor: i128,
    /// Sum of what was added (BT-108).
    pub charges_minor: i128,
    /// Net: what the tax is on (BT-109, BT-116).
    pub net_minor: i128,
    /// Tax (BT-110, BT-117).
    pub tax_minor: i128,
    /// With tax (BT-112), which is what is to be paid (BT-115).
    pub payable_minor: i128,
}

impl Document {
    /// Decimal places of an amount: those of the currency's minor unit.
    pub fn minor_places(&self) -> Result<u32, AmountError> {
        minor_places(&self.currency)
    }

    /// The sums. The tax is computed on the net sum and rounded once.
    pub fn totals(&self) -> Result<Totals, DocumentError> {
        let adjusted = |charge| self.adjustments.iter().filter(move |a| a.charge == charge).map(|a| a.amount_minor);
        let lines_minor = sum("BT-106", self.lines.iter().map(|line| line.net_minor))?;
        let allowances_minor = sum("BT-107", adjusted(false))?;
        let charges_minor = sum("BT-108", adjusted(true))?;
        let net_minor = sum("BT-109", [lines_minor, charges_minor, allowances_minor.saturating_neg()].into_iter())?;
        let tax_minor = fee::tax(net_minor, self.tax.rate_ppm).map_err(|_| DocumentError::Overflow { term: "BT-110" })?;
        let payable_minor = sum("BT-112", [net_minor, tax_minor].into_iter())?;
        Ok(Totals { lines_minor, allowances_minor, charges_minor, net_minor, tax_minor, payable_minor })
    }
}

fn sum(term: &'static str, amounts: impl Iterator<Item = i128>) -> Result<i128, DocumentError> {
    amounts.into_iter().try_fold(0_i128, i128::checked_add).ok_or(DocumentError::Overflow { term })
}
