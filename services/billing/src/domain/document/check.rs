//! What a document must be before any format of it is written.
//!
//! The rules that concern us, each with a message that names the term. The whole of EN 16931 and of
//! Peppol BIS 3 is checked where UBL and CII are written; what passes here fails there only for a code
//! that is not on its list, or where Peppol asks for more.

use std::collections::HashSet;

use super::{Adjustment, Document, Kind, Line, Party, Payment, Tax, TaxCategory};
use crate::domain::amount::AmountError;

/// Most lines: as many as an invoice has.
pub const LINES_MAX: usize = crate::domain::invoice::LINES_MAX;

/// Most adjustments of one document: a minimum and a cap of each campaign at worst, far fewer in truth.
pub const ADJUSTMENTS_MAX: usize = 100;

/// Most notes of one document.
pub const NOTES_MAX: usize = 20;

/// Most street lines that EN 16931 has terms for.
const ADDRESS_LINES_MAX: usize = 3;

/// Largest amount of a line or an adjustment, either sign. With 10,000 lines and 100 adjustments, sums stay near
/// 10^18, and doubled by a tax of 100 % still below the 9.2 x 10^18 of 64 bits, which readers may compute in.
pub const AMOUNT_MINOR_MAX: i128 = 100_000_000_000_000;

/// Longest text of one field.
pub const TEXT_CHARS_MAX: usize = 4_096;

/// 100 %.
const RATE_PPM_MAX: u32 = 1_000_000;

/// Why a document cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Something that must be there.
    #[error("{term} is missing: {rule}")]
    Missing {
        /// The term, with its number in EN 16931.
        term: &'static str,
        /// Who demands it.
        rule: &'static str,
    },
    /// Something that must not be as it is.
    #[error("{term} is {value:?}: {rule}")]
    Refused {
        /// The term, with its number in EN 16931.
        term: &'static str,
        /// What it was; the beginning of it where it is long.
        value: String,
        /// What it has to be.
        rule: &'static str,
    },
    /// More of something than a document may have.
    #[error("{term}: {count} given, at most {max} allowed")]
    TooMany {
        /// The term.
        term: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A sum that does not fit into 128 bits.
    #[error("{term} does not fit into 128 bits")]
    Overflow {
        /// The term.
        term: &'static str,
    },
    /// Not a currency that amounts can be printed in.
    #[error("invoice currency (BT-5): {0}")]
    Currency(#[from] AmountError),
}

type Checked = Result<(), DocumentError>;

fn missing(term: &'static str, rule: &'static str) -> Checked {
    Err(DocumentError::Missing { term, rule })
}

fn refused(term: &'static str, value: impl ToString, rule: &'static str) -> Checked {
    // Enough to find it by, and no more of what may be anything.
    Err(DocumentError::Refused { term, value: value.to_string().chars().take(64).collect(), rule })
}

fn at_most(term: &'static str, count: usize, max: usize) -> Checked {
    if count > max { Err(DocumentError::TooMany { term, count, max }) } else { Ok(()) }
}

fn text(term: &'static str, value: &str) -> Checked {
    let control = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
    if value.trim().is_empty() {
        return missing(term, "it must not be blank");
    }
    if value.chars().any(control) {
        return refused(term, value, "it must have no control characters");
    }
    if value.chars().count() > TEXT_CHARS_MAX {
        return refused(term, value, "it must have at most 4096 characters");
    }
    Ok(())
}

fn texts<'a>(items: impl IntoIterator<Item = (&'static str, &'a Option<String>)>) -> Checked {
    items.into_iter().try_for_each(|(term, value)| value.as_deref().map_or(Ok(()), |value| text(term, value)))
}

fn amount(term: &'static str, minor: i128) -> Checked {
    if minor.unsigned_abs() > AMOUNT_MINOR_MAX.unsigned_abs() {
        return refused(term, minor, "at most 100000000000000 minor units are allowed");
    }
    Ok(())
}

impl Document {
    /// Checks what every format relies on.
    ///
    /// # Errors
    /// The first rule that does not hold, naming the term and its number in EN 16931.
    pub fn check(&self) -> Result<(), DocumentError> {
        text("number (BT-1)", &self.number)?;
        self.minor_places()?;
        texts([("buyer reference (BT-10)", &self.buyer_reference)])?;
        at_most("notes (BG-1)", self.notes.len(), NOTES_MAX)?;
        self.notes.iter().try_for_each(|note| text("note (BT-22)", note))?;
        party(&self.seller, &SELLER)?;
        party(&self.buyer, &BUYER)?;
        if self.seller.registration.is_none() && self.seller.vat_id.is_none() {
            missing("seller's registration (BT-30) or VAT identifier (BT-31)", "BR-CO-26 of EN 16931 asks for one of them")?;
        }
        at_most("lines (BG-25)", self.lines.len(), LINES_MAX)?;
        lines(&self.lines)?;
        at_most("adjustments (BG-20, BG-21)", self.adjustments.len(), ADJUSTMENTS_MAX)?;
        self.adjustments.iter().try_for_each(adjustment)?;
        self.check_dates()?;
        self.check_tax()?;
        payment(&self.payment)?;
        self.check_payable()
    }

    fn check_dates(&self) -> Checked {
        if let Some(due) = self.due_date.filter(|due| *due < self.issue_date) {
            refused("due date (BT-9)", due, "it must not be before the date of issue (BT-2)")?;
        }
        if let Some(due) = self.due_date.filter(|_| self.kind == Kind::CreditNote) {
            refused("due date (BT-9)", due, "nobody pays a credit note, and UBL has no place for it on one")?;
        }
        if let Some(period) = self.period.filter(|period| period.last < period.first) {
            refused("last day of the period (BT-74)", period.last, "it must not be before the first (BT-73)")?;
        }
        self.preceding.as_ref().map_or(Ok(()), |preceding| text("preceding invoice (BT-25)", &preceding.number))
    }

    fn check_tax(&self) -> Checked {
        let Tax { category, rate_ppm, exemption_reason, exemption_code } = &self.tax;
        texts([("exemption reason (BT-120)", exemption_reason), ("exemption code (BT-121)", exemption_code)])?;
        let standard = *category == TaxCategory::Standard;
        if *rate_ppm > RATE_PPM_MAX || (*rate_ppm > 0) != standard {
            refused(
                "tax rate (BT-119) in parts per million",
                rate_ppm,
                "category S has a rate above 0 up to 1000000, every other category 0",
            )?;
        }
        let reason = exemption_reason.is_some() || exemption_code.is_some();
        match (reason, matches!(category, TaxCategory::Standard | TaxCategory::ZeroRated)) {
            (false, false) => missing("exemption reason (BT-120) or code (BT-121)", "categories E, AE, K, G and O state one")?,
            (true, true) => refused("exemption reason (BT-120) or code (BT-121)", category.code(), "categories S and Z state none")?,
            _ => {}
        }
        self.check_tax_parties()
    }

    fn check_tax_parties(&self) -> Checked {
        const SELLER_VAT: &str = "seller's VAT identifier (BT-31)";
        const BUYER_VAT: &str = "buyer's VAT identifier (BT-48)";
        let (seller, buyer) = (&self.seller.vat_id, &self.buyer.vat_id);
        if self.tax.category == TaxCategory::OutOfScope {
            for (term, id) in [(SELLER_VAT, seller), (BUYER_VAT, buyer)] {
                id.as_deref().map_or(Ok(()), |id| refused(term, id, "category O goes without VAT identifiers"))?;
            }
            return Ok(());
        }
        if seller.is_none() {
            missing(SELLER_VAT, "every category but O needs it")?;
        }
        match self.tax.category {
            TaxCategory::ReverseCharge if buyer.is_none() && self.buyer.registration.is_none() => {
                missing("buyer's VAT identifier (BT-48) or registration (BT-47)", "category AE needs one of them")
            }
            TaxCategory::IntraCommunity if buyer.is_none() => missing(BUYER_VAT, "category K needs it"),
            TaxCategory::IntraCommunity if self.period.is_none() => missing("period (BG-14)", "category K needs it"),
            _ => Ok(()),
        }
    }

    fn check_payable(&self) -> Checked {
        let payable = self.totals()?.payable_minor;
        if payable < 0 {
            return refused("amount due (BT-115) in minor units", payable, "below 0 it is a note of the other kind");
        }
        if payable > 0 && self.kind != Kind::CreditNote && self.due_date.is_none() && self.payment.terms.is_none() {
            return missing("due date (BT-9) or payment terms (BT-20)", "what is to be paid needs one of them");
        }
        Ok(())
    }
}

/// What a party's terms are called.
struct PartyTerms {
    name: &'static str,
    registration: &'static str,
    vat_id: &'static str,
    address: &'static str,
    country: &'static str,
    contact: &'static str,
    endpoint: &'static str,
}

const SELLER: PartyTerms = PartyTerms {
    name: "seller's name (BT-27)",
    registration: "seller's registration (BT-30)",
    vat_id: "seller's VAT identifier (BT-31)",
    address: "seller's address (BG-5)",
    country: "seller's country (BT-40)",
    contact: "seller's contact (BG-6)",
    endpoint: "seller's electronic address (BT-34)",
};

const BUYER: PartyTerms = PartyTerms {
    name: "buyer's name (BT-44)",
    registration: "buyer's registration (BT-47)",
    vat_id: "buyer's VAT identifier (BT-48)",
    address: "buyer's address (BG-8)",
    country: "buyer's country (BT-55)",
    contact: "buyer's contact (BG-9)",
    endpoint: "buyer's electronic address (BT-49)",
};

fn party(party: &Party, terms: &PartyTerms) -> Checked {
    text(terms.name, &party.name)?;
    if party.country.len() != 2 || !party.country.bytes().all(|b| b.is_ascii_uppercase()) {
        refused(terms.country, &party.country, "it is two capital letters of ISO 3166-1")?;
    }
    at_most(terms.address, party.address.len(), ADDRESS_LINES_MAX)?;
    party.address.iter().try_for_each(|line| text(terms.address, line))?;
    let places = [&party.city, &party.postal_code, &party.subdivision];
    texts(places.map(|place| (terms.address, place)))?;
    let contact = [&party.contact.name, &party.contact.phone, &party.contact.email];
    texts(contact.map(|part| (terms.contact, part)))?;
    for (term, identifier) in [(terms.registration, &party.registration), (terms.endpoint, &party.endpoint)] {
        let Some(identifier) = identifier else { continue };
        text(term, &identifier.id)?;
        texts([(term, &identifier.scheme)])?;
    }
    if party.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme.is_none()) {
        missing(terms.endpoint, "it needs its scheme from the EAS list")?;
    }
    let Some(vat_id) = &party.vat_id else { return Ok(()) };
    text(terms.vat_id, vat_id)?;
    if !vat_id.as_bytes().get(..2).is_some_and(|prefix| prefix.iter().all(u8::is_ascii_uppercase)) {
        refused(terms.vat_id, vat_id, "it begins with the country's two capital letters")?;
    }
    Ok(())
}

fn lines(lines: &[Line]) -> Checked {
    if lines.is_empty() {
        missing("line (BG-25)", "a document has at least one")?;
    }
    let mut ids = HashSet::with_capacity(lines.len());
    for line in lines {
        text("line's id (BT-126)", &line.id)?;
        text("line's name (BT-153)", &line.name)?;
        texts([("line's description (BT-154)", &line.description)])?;
        amount("line's net amount (BT-131)", line.net_minor)?;
        if !ids.insert(&line.id) {
            refused("line's id (BT-126)", &line.id, "no two lines have the same")?;
        }
    }
    Ok(())
}

fn adjustment(adjustment: &Adjustment) -> Checked {
    let (reason, code, of) = match adjustment.charge {
        true => ("charge's reason (BT-104)", "charge's reason code (BT-105)", "charge (BT-99)"),
        false => ("allowance's reason (BT-97)", "allowance's reason code (BT-98)", "allowance (BT-92)"),
    };
    text(reason, &adjustment.reason)?;
    texts([(code, &adjustment.reason_code)])?;
    amount(of, adjustment.amount_minor)?;
    if adjustment.amount_minor < 0 {
        refused(of, adjustment.amount_minor, "it is at least 0, because whether it adds or takes is said beside it")?;
    }
    Ok(())
}

fn payment(payment: &Payment) -> Checked {
    let Payment { terms, means_code, iban, bic, account_name, remittance } = payment;
    texts([
        ("payment terms (BT-20)", terms),
        ("payment means code (BT-81)", means_code),
        ("account (BT-84)", iban),
        ("BIC (BT-86)", bic),
        ("account name (BT-85)", account_name),
        ("remittance information (BT-83)", remittance),
    ])?;
    if iban.is_some() != means_code.is_some() {
        let term = if iban.is_some() { "payment means code (BT-81)" } else { "account (BT-84)" };
        missing(term, "a code and an account go together")?;
    }
    if iban.is_none() && (bic.is_some() || account_name.is_some()) {
        missing("account (BT-84)", "a BIC or an account's name says nothing without it")?;
    }
    Ok(())
}
