//! The document of an invoice: what of it a receiver's books take in.

use jiff::ToSpan;
use jiff::civil::Date;

use super::{Adjustment, Contact, Document, DocumentError, Identifier, Kind, Line, Party, Payment, Period, Preceding, Tax, TaxCategory};
use crate::domain::amount::{Amount, AmountError};
use crate::domain::books::BoundKind;
use crate::domain::invoice::{self, Invoice};
use crate::domain::terms;

/// Why an invoice cannot be said in the standard's terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfInvoiceError {
    /// Its terms do not have what such a document needs.
    #[error("the terms have no {what}: PDF, CSV and JSON need none, UBL, CII and the imports do")]
    Terms {
        /// What.
        what: &'static str,
    },
    /// A field that cannot be read.
    #[error("{field} is {value:?}, which cannot be read")]
    Field {
        /// Its name in the invoice's JSON.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// Sums that are not what the invoice says.
    #[error("{field} is {stated}, but its lines and adjustments come to {computed}")]
    Differs {
        /// Its name in the invoice's JSON.
        field: &'static str,
        /// What the invoice says.
        stated: Amount,
        /// What it should say.
        computed: Amount,
    },
    /// What no format could say.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// An amount that cannot be printed.
    #[error(transparent)]
    Amount(#[from] AmountError),
}

impl Document {
    /// The document of an invoice.
    ///
    /// # Errors
    /// Terms without seller, buyer or tax, and an invoice whose totals are not those of its lines.
    pub fn of(invoice: &Invoice) -> Result<Self, OfInvoiceError> {
        let lacking = |what| OfInvoiceError::Terms { what };
        let seller = invoice.seller.as_ref().ok_or_else(|| lacking("seller"))?;
        let buyer = invoice.buyer.as_ref().ok_or_else(|| lacking("buyer"))?;
        let printed = invoice.tax.as_ref().ok_or_else(|| lacking("tax category"))?;
        let kind = kind(invoice.kind);
        let due_date = date("due_date", &invoice.due_date)?;
        let document = Self {
            kind,
            number: invoice.invoice_id.clone(),
            issue_date: date("issue_date", &invoice.issue_date)?,
            due_date: (kind != Kind::CreditNote).then_some(due_date),
            currency: invoice.currency.clone(),
            seller: party(&seller.party),
            buyer: party(buyer),
            // By which both sides know the account; a buyer without an order number expects that.
            buyer_reference: Some(invoice.client.clone()),
            preceding: preceding(invoice)?,
            period: Some(period(invoice)?),
            notes: vec![evidence(invoice)],
            lines: lines(invoice),
            adjustments: invoice.adjustments.iter().map(adjustment).collect(),
            tax: tax(printed)?,
            payment: payment(seller, invoice, kind),
        };
        document.check()?;
        document.agrees(invoice, printed.amount)?;
        Ok(document)
    }

    /// Whether the sums are those that the invoice states.
    fn agrees(&self, invoice: &Invoice, tax: Amount) -> Result<(), OfInvoiceError> {
        let totals = self.totals()?;
        let places = self.minor_places()?;
        let stated = [
            ("total_invoice_amount", invoice.total_invoice_amount, totals.net_minor),
            ("tax.amount", tax, totals.tax_minor),
            ("amount_due", invoice.amount_due, totals.payable_minor),
        ];
        for (field, stated, computed) in stated {
            let computed = Amount::new(computed, places)?;
            if stated != computed {
                return Err(OfInvoiceError::Differs { field, stated, computed });
            }
        }
        Ok(())
    }
}

fn kind(of: invoice::Kind) -> Kind {
    match of {
        invoice::Kind::Invoice => Kind::Invoice,
        invoice::Kind::CreditNote => Kind::CreditNote,
        invoice::Kind::DebitNote => Kind::DebitNote,
    }
}

fn date(field: &'static str, value: &str) -> Result<Date, OfInvoiceError> {
    value.parse().map_err(|_| OfInvoiceError::Field { field, value: value.to_owned() })
}

/// The first and the last day of the month.
pub(super) fn period(invoice: &Invoice) -> Result<Period, OfInvoiceError> {
    let unreadable = || OfInvoiceError::Field { field: "period", value: invoice.period.clone() };
    let first: Date = format!("{}-01", invoice.period).parse().map_err(|_| unreadable())?;
    let last = first.checked_add(1.month()).and_then(|next| next.checked_sub(1.day())).map_err(|_| unreadable())?;
    Ok(Period { first, last })
}

fn preceding(invoice: &Invoice) -> Result<Option<Preceding>, OfInvoiceError> {
    let Some(corrects) = &invoice.corrects else { return Ok(None) };
    let issue_date = corrects.issue_date.as_deref().map(|day| date("corrects.issue_date", day)).transpose()?;
    Ok(corrects.invoice_id.clone().map(|number| Preceding { number, issue_date }))
}

/// By what the invoice can be checked, whatever format it came in.
fn evidence(invoice: &Invoice) -> String {
    let of = &invoice.completeness;
    format!("Log {}, checkpoint of size {}, root {}", of.log_id, of.checkpoint_size, of.checkpoint_root)
}

/// What there is of a text that may be empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn identifier(id: &str, scheme: &str) -> Option<Identifier> {
    some(id).map(|id| Identifier { id, scheme: some(scheme) })
}

fn party(of: &terms::Party) -> Party {
    Party {
        name: of.name.clone(),
        registration: identifier(&of.registration_id, &of.registration_scheme),
        vat_id: some(&of.vat_id),
        address: of.address_lines.clone(),
        city: some(&of.city),
        postal_code: some(&of.postal_code),
        subdivision: some(&of.subdivision),
        country: of.country.clone(),
        contact: Contact { name: some(&of.contact_name), phone: some(&of.contact_phone), email: some(&of.contact_email) },
        endpoint: identifier(&of.endpoint_id, &of.endpoint_scheme),
    }
}

/// A line a campaign. A note on which only a bound changed has none, and a document has at least one: it says so. A credit by
/// agreement is one line.
fn lines(invoice: &Invoice) -> Vec<Line> {
    let parts = invoice.parts.len() > 1;
    let line = |(line, id): (&invoice::Line, usize)| Line {
        id: id.to_string(),
        name: line.campaign_id.clone(),
        description: Some(format!(
            "LTV {}, spend {}, baseline {}{}",
            line.ltv,
            line.client_spend,
            line.baseline_roas,
            if parts { format!(", part {} of the period", line.part) } else { String::new() }
        )),
        net_minor: line.kiki_invoice_amount.units(),
    };
    if let Some(agreed) = invoice.agreed() {
        // On one line, whatever was typed.
        let reason = agreed.reason.replace(char::is_control, " ");
        let (name, description) = (credit_on(invoice), some(reason.trim()));
        return vec![Line { id: "1".into(), name, description, net_minor: invoice.total_invoice_amount.units() }];
    }
    if invoice.line_items.is_empty() {
        let name = format!("Profit share {}", invoice.period);
        return vec![Line { id: "1".into(), name, description: Some("no line changed".into()), net_minor: 0 }];
    }
    invoice.line_items.iter().zip(1..).map(line).collect()
}

/// What a credit by agreement is called on its one line.
pub(super) fn credit_on(invoice: &Invoice) -> String {
    let number = invoice.corrects.as_ref().and_then(|corrects| corrects.invoice_id.as_deref());
    format!("Credit on {}", number.unwrap_or(&invoice.period))
}

pub(super) fn bound(kind: BoundKind) -> &'static str {
    match kind {
        BoundKind::Minimum => "Minimum fee",
        BoundKind::Cap => "Cap on the fee",
    }
}

fn adjustment(of: &invoice::Adjustment) -> Adjustment {
    let amount_minor = of.amount.units();
    Adjustment { charge: amount_minor >= 0, reason: bound(of.kind).into(), reason_code: None, amount_minor: amount_minor.abs() }
}

fn tax(of: &invoice::TaxPrinted) -> Result<Tax, OfInvoiceError> {
    let unreadable = |field, value: &str| OfInvoiceError::Field { field, value: value.to_owned() };
    let category = TaxCategory::ALL.into_iter().find(|category| category.code() == of.category);
    Ok(Tax {
        category: category.ok_or_else(|| unreadable("tax.category", &of.category))?,
        rate_ppm: of.rate_ppm().ok_or_else(|| unreadable("tax.rate_percentage", &of.rate_percentage))?,
        exemption_reason: some(&of.exemption_reason),
        exemption_code: some(&of.exemption_code),
    })
}

fn payment(seller: &terms::Seller, invoice: &Invoice, kind: Kind) -> Payment {
    let iban = some(&seller.iban).filter(|_| kind != Kind::CreditNote);
    let with_account = |text: Option<String>| text.filter(|_| iban.is_some());
    Payment {
        terms: (kind != Kind::CreditNote).then(|| format!("Payable by {}", invoice.due_date)),
        // 30: credit transfer, within SEPA or not.
        means_code: with_account(Some("30".into())),
        bic: with_account(some(&seller.bic)),
        account_name: with_account(some(&seller.account_name)),
        remittance: with_account(Some(invoice.invoice_id.clone())),
        iban,
    }
}

#[cfg(test)]
#[path = "of_invoice_tests.rs"]
mod tests;
