//! Files that QuickBooks Online and Xero import, in their own layouts: a row a line, each with its invoice's head.
//!
//! Amounts are net of tax, with the tax of each row beside them, so that the file comes to the document's totals to the minor unit.
//! The layouts are those of the templates that both offer for download. Neither takes what stands here as more than a
//! draft: whoever imports it looks at it first.

use jiff::civil::Date;

use super::{AMOUNT_MINOR_MAX, Document, DocumentError, Kind};
use crate::domain::amount::{Amount, AmountError};
use crate::domain::fee;

/// Most invoices of a file for Xero, by its public help.
pub const XERO_DOCUMENTS_MAX: usize = 500;

/// Most invoices of a file for QuickBooks Online, by its public help.
pub const QUICKBOOKS_DOCUMENTS_MAX: usize = 100;

/// Xero's sales invoices.
pub const XERO_HEADER: [&str; 29] = [
    "*ContactName",
    "EmailAddress",
    "POAddressLine1",
    "POAddressLine2",
    "POAddressLine3",
    "POAddressLine4",
    "POCity",
    "PORegion",
    "POPostalCode",
    "POCountry",
    "*InvoiceNumber",
    "Reference",
    "*InvoiceDate",
    "*DueDate",
    "Total",
    "InventoryItemCode",
    "*Description",
    "*Quantity",
    "*UnitAmount",
    "Discount",
    "*AccountCode",
    "*TaxType",
    "TaxAmount",
    "TrackingName1",
    "TrackingOption1",
    "TrackingName2",
    "TrackingOption2",
    "Currency",
    "BrandingTheme",
];

/// QuickBooks Online's invoices in the United States.
pub const QUICKBOOKS_US_HEADER: [&str; 13] = [
    "*InvoiceNo",
    "*Customer",
    "*InvoiceDate",
    "*DueDate",
    "Terms",
    "Location",
    "Memo",
    "Item(Product/Service)",
    "ItemDescription",
    "ItemQuantity",
    "ItemRate",
    "*ItemAmount",
    "Service Date",
];

/// QuickBooks Online's invoices elsewhere.
pub const QUICKBOOKS_GLOBAL_HEADER: [&str; 15] = [
    "*InvoiceNo",
    "*Customer",
    "*InvoiceDate",
    "*DueDate",
    "Terms",
    "Location",
    "Memo",
    "*Item(Product/Service)",
    "ItemDescription",
    "ItemQuantity",
    "ItemRate",
    "*ItemAmount",
    "*Item Tax Code",
    "Item Tax Amount",
    "Currency",
];

/// What things are called in the seller's own books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// QuickBooks' product or service, such as `Profit share`.
    pub item: String,
    /// Xero's account code, such as `200`.
    pub account_code: String,
    /// The tax rate's name, in full as the books show it, such as `20% (VAT on Income)`.
    pub tax_name: String,
}

/// Why there is no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BooksError {
    /// A document that cannot be written in any format.
    #[error("{number}: {error}")]
    Document {
        /// Its number.
        number: String,
        /// Why.
        error: DocumentError,
    },
    /// An amount that cannot be printed.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// More documents than one file may have.
    #[error("{given} documents given, at most {max} fit into one file")]
    TooMany {
        /// How many.
        given: usize,
        /// The limit.
        max: usize,
    },
    /// QuickBooks imports invoices and not credit notes.
    #[error("{number} is a credit note, which QuickBooks Online's import of invoices does not take: enter it there as a credit memo")]
    CreditNote {
        /// Its number.
        number: String,
    },
    /// QuickBooks' layout for the United States has no column for tax.
    #[error("{number} has tax, for which QuickBooks Online's layout for the United States has no column")]
    Tax {
        /// Its number.
        number: String,
    },
}

/// Xero's import of sales invoices. A credit note has its amounts below zero, and the import makes it one by that.
///
/// # Errors
/// A document that is not whole, or too many of them.
pub fn xero(documents: &[Document], books: &Books) -> Result<Vec<u8>, BooksError> {
    file(&XERO_HEADER, documents, XERO_DOCUMENTS_MAX, |document, row| {
        let buyer = &document.buyer;
        let address = |i: usize| buyer.address.get(i).map_or("", String::as_str);
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        let sign = if document.kind == Kind::CreditNote { -1 } else { 1 };
        let preceding = document.preceding.as_ref().map(|preceding| preceding.number.clone());
        let reference = [document.buyer_reference.clone(), preceding].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let texts = |values: Vec<String>| values.into_iter().map(|value| plain(&value));
        let mut cells = Vec::with_capacity(XERO_HEADER.len());
        cells.extend(texts(vec![
            buyer.name.clone(),
            optional(&buyer.contact.email),
            address(0).into(),
            address(1).into(),
            address(2).into(),
        ]));
        cells.extend(texts(vec![String::new(), optional(&buyer.city), optional(&buyer.subdivision), optional(&buyer.postal_code)]));
        cells.extend(texts(vec![buyer.country.clone(), document.number.clone(), reference]));
        cells.extend([
            day_first(document.issue_date),
            day_first(document.due_date.unwrap_or(document.issue_date)),
            String::new(),
            String::new(),
        ]);
        cells.extend([plain(&row.description), "1".to_owned(), document.amount(sign * row.net_minor)?, String::new()]);
        cells.extend([plain(&books.account_code), plain(&books.tax_name), document.amount(sign * row.tax_minor)?]);
        cells.extend([String::new(), String::new(), String::new(), String::new(), document.currency.clone(), String::new()]);
        Ok(cells)
    })
}

/// QuickBooks Online's import of invoices outside the United States, dates with the day first.
///
/// # Errors
/// A credit note, a document that is not whole, or too many of them.
pub fn quickbooks(documents: &[Document], books: &Books) -> Result<Vec<u8>, BooksError> {
    file(&QUICKBOOKS_GLOBAL_HEADER, documents, QUICKBOOKS_DOCUMENTS_MAX, |document, row| {
        let mut cells = quickbooks_cells(document, row, books, day_first)?;
        cells.extend([plain(&books.tax_name), document.amount(row.tax_minor)?, document.currency.clone()]);
        Ok(cells)
    })
}

/// QuickBooks Online's import of invoices in the United States, dates with the month first. Amounts are in the currency
/// of the books, because the layout names none.
///
/// # Errors
/// As [`quickbooks`], and a document with tax.
pub fn quickbooks_us(documents: &[Document], books: &Books) -> Result<Vec<u8>, BooksError> {
    file(&QUICKBOOKS_US_HEADER, documents, QUICKBOOKS_DOCUMENTS_MAX, |document, row| {
        if document.tax.rate_ppm != 0 {
            return Err(BooksError::Tax { number: document.number.clone() });
        }
        let mut cells = quickbooks_cells(document, row, books, month_first)?;
        cells.push(document.period.map_or_else(String::new, |period| month_first(period.last)));
        Ok(cells)
    })
}

fn quickbooks_cells(document: &Document, row: &BookRow, books: &Books, day: fn(Date) -> String) -> Result<Vec<String>, BooksError> {
    if document.kind == Kind::CreditNote {
        return Err(BooksError::CreditNote { number: document.number.clone() });
    }
    let amount = document.amount(row.net_minor)?;
    let due = document.due_date.unwrap_or(document.issue_date);
    let terms = document.payment.terms.clone().unwrap_or_default();
    Ok(vec![
        plain(&document.number),
        plain(&document.buyer.name),
        day(document.issue_date),
        day(due),
        plain(&terms),
        String::new(),
        plain(&document.notes.join(" ")),
        plain(&books.item),
        plain(&row.description),
        "1".to_owned(),
        amount.clone(),
        amount,
    ])
}

/// A line or an adjustment.
struct BookRow {
    description: String,
    net_minor: i128,
    tax_minor: i128,
}

impl Document {
    /// Lines, then charges and allowances as lines. The tax of the rows so far is rounded, and a row has what that adds: so the
    /// rows come to the document's tax, and none is off by more than one minor unit.
    fn book_rows(&self) -> Result<Vec<BookRow>, DocumentError> {
        let overflow = |_| DocumentError::Overflow { term: "BT-110" };
        let line = |line: &super::Line| match &line.description {
            Some(description) => (format!("{}: {description}", line.name), line.net_minor),
            None => (line.name.clone(), line.net_minor),
        };
        let adjustment = |a: &super::Adjustment| (a.reason.clone(), if a.charge { a.amount_minor } else { -a.amount_minor });
        let (mut net_sum, mut tax_sum) = (0, 0);
        let mut rows = Vec::with_capacity(self.lines.len() + self.adjustments.len());
        for (description, net_minor) in self.lines.iter().map(line).chain(self.adjustments.iter().map(adjustment)) {
            // Checked documents stay far below what 128 bits hold.
            debug_assert!(net_minor.abs() <= AMOUNT_MINOR_MAX, "a checked document");
            net_sum += net_minor;
            let tax = fee::tax(net_sum, self.tax.rate_ppm).map_err(overflow)?;
            rows.push(BookRow { description, net_minor, tax_minor: tax - tax_sum });
            tax_sum = tax;
        }
        Ok(rows)
    }

    fn amount(&self, minor: i128) -> Result<String, BooksError> {
        Ok(Amount::new(minor, self.minor_places()?)?.to_string())
    }
}

fn file(
    header: &[&str],
    documents: &[Document],
    max: usize,
    cells: impl Fn(&Document, &BookRow) -> Result<Vec<String>, BooksError>,
) -> Result<Vec<u8>, BooksError> {
    if documents.len() > max {
        return Err(BooksError::TooMany { given: documents.len(), max });
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    let into_memory = |written: csv::Result<()>| written.unwrap_or_else(|error| unreachable!("rows of one length into memory: {error}"));
    into_memory(writer.write_record(header));
    for document in documents {
        let named = |error| BooksError::Document { number: document.number.clone(), error };
        document.check().map_err(named)?;
        for row in document.book_rows().map_err(named)? {
            into_memory(writer.write_record(cells(document, &row)?));
        }
    }
    Ok(writer.into_inner().unwrap_or_else(|error| unreachable!("into memory: {error}")))
}

/// A text on one line that no spreadsheet takes for a formula.
fn plain(text: &str) -> String {
    let text = text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    if text.trim_start().starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text }
}

fn day_first(date: Date) -> String {
    format!("{:02}/{:02}/{:04}", date.day(), date.month(), date.year())
}

fn month_first(date: Date) -> String {
    format!("{:02}/{:02}/{:04}", date.month(), date.day(), date.year())
}
