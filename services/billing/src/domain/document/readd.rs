//! Reading UBL and CII, and adding them up again to the cent.
//!
//! The schematron of EN 16931 lets a tax amount be off by anything below 1.00 and Peppol's lets a line be
//! off by 0.02. Here every figure follows from others or is reported: nothing is tolerated.

use en16931::invoice::{DocumentAllowanceCharge, LineAllowanceCharge};
use en16931::{Invoice, InvoiceAmount, InvoiceLine, Percentage};
use en16931_formats::report::Kind;
use rust_decimal::{Decimal, RoundingStrategy};

use crate::domain::amount::minor_places;

/// Largest document that is read: 10,000 lines of about 1.2 KB are 12 MB, and our writer's own stay below.
pub const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than [`BYTES_MAX`].
    #[error("the document has {bytes} bytes, at most {BYTES_MAX} are read")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Neither UBL nor CII.
    #[error("neither UBL nor CII: {0}")]
    Unreadable(String),
    /// A value that cannot be held as it is, or stands twice: what remains would add up to something else.
    #[error("{0}")]
    Malformed(String),
}

/// A figure that does not follow from the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at} is {stated}, but {from} gives {computed}")]
pub struct Difference {
    /// The term, with its group where it may stand more than once, such as `BG-25[2]/BT-131`.
    pub at: String,
    /// What the document says.
    pub stated: Decimal,
    /// What it follows from.
    pub from: &'static str,
    /// What that comes to; what an absent figure is compared to, too.
    pub computed: Decimal,
}

/// Reads a UBL `Invoice` or `CreditNote`, or a CII document.
///
/// # Errors
/// Where it is no such document, or has a value that cannot be represented exactly.
pub fn read(bytes: &[u8]) -> Result<Invoice, ReadError> {
    if bytes.len() > BYTES_MAX {
        return Err(ReadError::TooLarge { bytes: bytes.len() });
    }
    let read = en16931_formats::read(bytes).map_err(|error| ReadError::Unreadable(error.to_string()))?;
    let unsafe_to_add = |kind| matches!(kind, Kind::Malformed | Kind::Duplicate);
    match read.entries.iter().find(|entry| unsafe_to_add(entry.kind)) {
        Some(entry) => Err(ReadError::Malformed(entry.to_string())),
        None => Ok(read.invoice),
    }
}

/// Every figure that does not follow from the others; none if it adds up.
pub fn differences(invoice: &Invoice) -> Vec<Difference> {
    let mut found = prices(invoice);
    found.extend(sums(invoice));
    found
}

/// What does not follow inside a line or an adjustment: net amounts from quantity and price, parts from their base and
/// percentage. Peppol demands it (R120, R040, R046) and so do we; EN 16931 alone does not, and some of its examples break it.
pub fn prices(invoice: &Invoice) -> Vec<Difference> {
    let rounding = Rounding::of(invoice);
    let mut found = Found::default();
    for (i, line) in invoice.lines.iter().enumerate() {
        let at = |term: &str| format!("BG-25[{}]/{term}", i + 1);
        found.compare(at("BT-131"), line.net_amount.into_decimal(), "BT-129 x BT-146 / BT-149 + BT-141 - BT-136", line_net(line));
        if let Some(gross) = line.price.gross_price {
            let discount = line.price.price_discount.map_or(Decimal::ZERO, |discount| discount.into_decimal());
            let net = gross.into_decimal().saturating_sub(discount);
            found.compare(at("BT-146"), line.price.net_price.into_decimal(), "BT-148 - BT-147", net);
        }
        for (term, parts) in [("BT-136", &line.allowances), ("BT-141", &line.charges)] {
            for part in parts {
                found.part(at(term), part.amount, rounding.percentage_of(part.base_amount, part.percentage));
            }
        }
    }
    for (group, parts) in [("BG-20", &invoice.allowances), ("BG-21", &invoice.charges)] {
        for (i, part) in parts.iter().enumerate() {
            found.part(format!("{group}[{}]", i + 1), part.amount, rounding.percentage_of(part.base_amount, part.percentage));
        }
    }
    found.0
}

/// What does not follow in the tax and the totals (BG-22, BG-23), as EN 16931 defines them.
pub fn sums(invoice: &Invoice) -> Vec<Difference> {
    let rounding = Rounding::of(invoice);
    let mut found = Found::default();
    for (i, group) in invoice.vat_breakdown.iter().enumerate() {
        let at = |term: &str| format!("BG-23[{}]/{term}", i + 1);
        let taxable = taxable(invoice, group.category.as_str(), group.rate);
        found.compare(at("BT-116"), group.taxable_amount.into_decimal(), "BT-131 + BT-99 - BT-92 of its category and rate", taxable);
        let tax = rounding.percentage_of(Some(group.taxable_amount), group.rate).unwrap_or(Decimal::ZERO);
        found.compare(at("BT-117"), group.tax_amount.into_decimal(), "BT-116 x BT-119", tax);
    }
    totals(invoice, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn compare(&mut self, at: impl Into<String>, stated: Decimal, from: &'static str, computed: Decimal) {
        if stated != computed {
            self.0.push(Difference { at: at.into(), stated, from, computed });
        }
    }

    /// An amount that may state what it is a percentage of.
    fn part(&mut self, at: String, stated: InvoiceAmount, computed: Option<Decimal>) {
        let stated = stated.into_decimal();
        self.compare(at, stated, "its base and percentage", computed.unwrap_or(stated));
    }
}

fn totals(invoice: &Invoice, found: &mut Found) {
    let totals = &invoice.totals;
    let stated = |amount: Option<InvoiceAmount>| amount.unwrap_or(InvoiceAmount::ZERO).into_decimal();
    let line_total = totals.line_total.into_decimal();
    let (allowances, charges) = (stated(totals.allowance_total), stated(totals.charge_total));
    let (net, tax) = (totals.taxable_total.into_decimal(), stated(totals.vat_total));
    let gross = totals.gross_total.into_decimal();
    let amounts = |parts: &[DocumentAllowanceCharge]| parts.iter().map(|part| part.amount.into_decimal()).sum::<Decimal>();
    let due = gross - stated(totals.paid) + stated(totals.rounding);
    found.compare("BT-106", line_total, "the sum of BT-131", invoice.lines.iter().map(|line| line.net_amount.into_decimal()).sum());
    found.compare("BT-107", allowances, "the sum of BT-92", amounts(&invoice.allowances));
    found.compare("BT-108", charges, "the sum of BT-99", amounts(&invoice.charges));
    found.compare("BT-109", net, "BT-106 - BT-107 + BT-108", line_total - allowances + charges);
    found.compare("BT-110", tax, "the sum of BT-117", invoice.vat_breakdown.iter().map(|group| group.tax_amount.into_decimal()).sum());
    found.compare("BT-112", gross, "BT-109 + BT-110", net + tax);
    found.compare("BT-115", totals.due.into_decimal(), "BT-112 - BT-113 + BT-114", due);
}

/// How taxes and percentages are rounded: to the currency's minor unit, and to cents where that is finer or not known.
#[derive(Clone, Copy)]
struct Rounding {
    places: u32,
}

impl Rounding {
    fn of(invoice: &Invoice) -> Self {
        let currency = invoice.currency.as_ref().map_or("", |code| code.as_str());
        Self { places: minor_places(currency).map_or(2, |places| places.min(2)) }
    }

    fn round(self, exact: Decimal) -> Decimal {
        exact.round_dp_with_strategy(self.places, RoundingStrategy::MidpointAwayFromZero)
    }

    fn percentage_of(self, base: Option<InvoiceAmount>, percentage: Option<Percentage>) -> Option<Decimal> {
        Some(self.round(base?.into_decimal().saturating_mul(percentage?.into_decimal()) / Decimal::ONE_HUNDRED))
    }
}

/// In cents whatever the currency: a price may have more places than its amounts, but not fewer.
/// Quantities and prices of others may be of any size: what overflows saturates, and then differs from any amount.
fn line_net(line: &InvoiceLine) -> Decimal {
    let base = line.price.base_quantity.map_or(Decimal::ONE, |quantity| quantity.into_decimal());
    let product = line.quantity.into_decimal().saturating_mul(line.price.net_price.into_decimal());
    let gross = product.checked_div(base).unwrap_or(Decimal::MAX);
    let sum = |parts: &[LineAllowanceCharge]| parts.iter().map(|part| part.amount.into_decimal()).sum::<Decimal>();
    Rounding { places: 2 }.round(gross).saturating_add(sum(&line.charges)).saturating_sub(sum(&line.allowances))
}

/// What a category's tax is on. Rates compare by value, and none is like 0: category O may say either.
fn taxable(invoice: &Invoice, category: &str, rate: Option<Percentage>) -> Decimal {
    let same = |vat: &en16931::invoice::LineVat| {
        vat.category.as_str() == category && vat.rate.unwrap_or(Percentage::ZERO) == rate.unwrap_or(Percentage::ZERO)
    };
    let amounts =
        |parts: &[DocumentAllowanceCharge]| parts.iter().filter(|p| same(&p.vat)).map(|p| p.amount.into_decimal()).sum::<Decimal>();
    let lines: Decimal = invoice.lines.iter().filter(|line| same(&line.vat)).map(|line| line.net_amount.into_decimal()).sum();
    lines + amounts(&invoice.charges) - amounts(&invoice.allowances)
}
