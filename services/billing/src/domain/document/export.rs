//! An invoice in the formats that others read: one list, for the command and for the service.

use super::imports::{Books, BooksError, quickbooks, quickbooks_us, xero};
use super::pdf::{Content, PdfError, render};
use super::xml::{self, XmlError};
use super::{Document, OfInvoiceError};
use crate::domain::invoice::Invoice;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// UBL 2.1 under EN 16931, and under Peppol BIS Billing 3 where both parties have an electronic address.
    Ubl,
    /// CII D16B under EN 16931.
    Cii,
    /// Pages as PDF/A-3, with the CII inside where there is one (Factur-X).
    Pdf,
    /// For an accounting program.
    Import(Import),
}

/// An accounting program's import, of which one file holds many invoices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    /// Xero's sales invoices.
    Xero,
    /// QuickBooks Online's invoices, outside the United States.
    Quickbooks,
    /// QuickBooks Online's invoices, in the United States.
    QuickbooksUs,
}

/// Why an invoice has no file of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// It cannot be said in the standard's terms.
    #[error("{number}: {error}")]
    Document {
        /// Its number.
        number: String,
        /// Why.
        error: OfInvoiceError,
    },
    /// No XML.
    #[error("{number}: {error}")]
    Xml {
        /// Its number.
        number: String,
        /// Why.
        error: XmlError,
    },
    /// No pages.
    #[error("{number}: {error}")]
    Pdf {
        /// Its number.
        number: String,
        /// Why.
        error: PdfError,
    },
    /// No import.
    #[error("the import: {0}")]
    Books(#[from] BooksError),
    /// The name of a tax rate that the import asks for.
    #[error("tax_name is missing: the import asks for the tax rate's name, in full as the books show it")]
    TaxName,
}

impl Import {
    /// The file's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xero => "xero.csv",
            Self::Quickbooks => "quickbooks.csv",
            Self::QuickbooksUs => "quickbooks-us.csv",
        }
    }

    /// The file.
    ///
    /// # Errors
    /// What one of the invoices, or the books, lack for it.
    pub fn file<'a>(self, invoices: impl IntoIterator<Item = &'a Invoice>, books: &Books) -> Result<Vec<u8>, ExportError> {
        let documents = invoices.into_iter().map(document).collect::<Result<Vec<_>, _>>()?;
        if books.tax_name.is_empty() && self != Self::QuickbooksUs {
            return Err(ExportError::TaxName);
        }
        let write = match self {
            Self::Xero => xero,
            Self::Quickbooks => quickbooks,
            Self::QuickbooksUs => quickbooks_us,
        };
        Ok(write(&documents, books)?)
    }
}

impl Format {
    /// One invoice. `books` is what an import needs.
    ///
    /// # Errors
    /// What it lacks for the format.
    pub fn file(self, invoice: &Invoice, books: &Books) -> Result<Vec<u8>, ExportError> {
        let number = || invoice.invoice_id.clone();
        let xml_error = |error| ExportError::Xml { number: number(), error };
        match self {
            Self::Ubl => Ok(xml::ubl(&document(invoice)?).map_err(xml_error)?.into_bytes()),
            Self::Cii => Ok(xml::cii(&document(invoice)?).map_err(xml_error)?.into_bytes()),
            Self::Pdf => {
                let content = Content::of(invoice).map_err(|error| ExportError::Document { number: number(), error })?;
                render(&content).map_err(|error| ExportError::Pdf { number: number(), error })
            }
            Self::Import(import) => import.file([invoice], books),
        }
    }
}

fn document(invoice: &Invoice) -> Result<Document, ExportError> {
    Document::of(invoice).map_err(|error| ExportError::Document { number: invoice.invoice_id.clone(), error })
}
