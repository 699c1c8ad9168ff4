//! Summaries, histories and balances on the wire.

use kiki::pb::billing::v1 as pb;
use kiki::pb::log::v1::Position;
use kiki::status;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::billing::Shown;
use crate::domain::document::export::{Format, Import};
use crate::domain::document::imports::Books;
use crate::domain::ledger::Account;
use crate::domain::lifecycle::Stage;
use crate::error::{Error, Postponed};
use crate::store::{Balance, EventRow};

/// Longest name of something in the seller's books, bytes: it stands on each line of a file of 10,000.
const NAME_MAX: usize = 200;

pub(super) fn summary(shown: &Shown) -> Result<pb::InvoiceSummary, Error> {
    let (row, invoice) = (&shown.row, &shown.invoice);
    let minor = |units: i128| i64::try_from(units).map_err(|_| Error::Answer("no total of 64 bits"));
    let standing = shown.standing;
    Ok(pb::InvoiceSummary {
        invoice_id: row.number.clone().unwrap_or_else(|| row.draft_id.clone()),
        number: row.number.clone().unwrap_or_default(),
        status: status_of(shown).into(),
        client: row.client.clone(),
        currency: row.currency.clone(),
        month: row.month.clone(),
        total_minor: minor(invoice.total_invoice_amount.units())?,
        document_sha256: Sha256::digest(&row.document).to_vec().into(),
        due_date: if row.number.is_some() { invoice.due_date.clone() } else { String::new() },
        paid_minor: standing.map_or(0, |standing| standing.paid_minor),
        open_minor: standing.map_or(0, |standing| standing.open_minor()),
        disputed: standing.is_some_and(|standing| standing.disputed),
        approved_by: shown.approval.as_ref().map(|approval| approval.actor.clone()).unwrap_or_default(),
        approved_at: shown.approval.as_ref().map(|approval| approval.at.into()),
        kind: invoice.kind.to_leaf().into(),
        tax_minor: minor(invoice.tax.as_ref().map_or(0, |tax| tax.amount.units()))?,
        corrects: invoice.corrects.as_ref().and_then(|corrects| corrects.invoice_id.clone()).unwrap_or_default(),
    })
}

fn status_of(shown: &Shown) -> pb::InvoiceStatus {
    match shown.stage() {
        None if shown.approval.is_some() => pb::InvoiceStatus::Approved,
        None => pb::InvoiceStatus::Draft,
        Some(_) if shown.overdue => pb::InvoiceStatus::Overdue,
        Some(Stage::Finalized) => pb::InvoiceStatus::Finalized,
        Some(Stage::Sent) => pb::InvoiceStatus::Sent,
        Some(Stage::PartlyPaid) => pb::InvoiceStatus::PartlyPaid,
        Some(Stage::Paid) => pb::InvoiceStatus::Paid,
        Some(Stage::Void) => pb::InvoiceStatus::Void,
        Some(Stage::WrittenOff) => pb::InvoiceStatus::WrittenOff,
    }
}

pub(super) fn format(format: pb::ExportFormat) -> Result<Format, Status> {
    Ok(match format {
        pb::ExportFormat::Unspecified => return Err(status::field("format", "is missing")),
        pb::ExportFormat::Ubl => Format::Ubl,
        pb::ExportFormat::Cii => Format::Cii,
        pb::ExportFormat::Pdf => Format::Pdf,
        pb::ExportFormat::Xero => Format::Import(Import::Xero),
        pb::ExportFormat::Quickbooks => Format::Import(Import::Quickbooks),
        pb::ExportFormat::QuickbooksUs => Format::Import(Import::QuickbooksUs),
    })
}

pub(super) fn books(request: pb::ExportInvoiceRequest) -> Result<Books, Status> {
    let pb::ExportInvoiceRequest { item, account_code, tax_name, .. } = request;
    for (field, text) in [("item", &item), ("account_code", &account_code), ("tax_name", &tax_name)] {
        if text.len() > NAME_MAX {
            return Err(status::field(field, format!("{} bytes; at most {NAME_MAX} are taken", text.len())));
        }
    }
    Ok(Books { item, account_code, tax_name })
}

pub(super) fn history(log_id: &str, event: EventRow) -> pb::InvoiceHistory {
    pb::InvoiceHistory {
        position: Some(Position { log_id: log_id.to_owned(), index: event.leaf }),
        recorded_at: Some(event.at.into()),
        event: Some(event.event),
        refused: event.refused.unwrap_or_default(),
    }
}

pub(super) fn balance(balance: Balance) -> pb::AccountBalance {
    let account = match balance.account {
        Account::Receivable => pb::Account::Receivable,
        Account::Revenue => pb::Account::Revenue,
        Account::TaxPayable => pb::Account::TaxPayable,
        Account::Cash => pb::Account::Cash,
        Account::BadDebt => pb::Account::BadDebt,
        Account::ClientCredit => pb::Account::ClientCredit,
    };
    pb::AccountBalance { currency: balance.currency, account: account.into(), balance_minor: balance.balance_minor }
}

impl From<Postponed> for pb::Postponed {
    fn from(postponed: Postponed) -> Self {
        let Postponed { client, currency, reason, until, .. } = postponed;
        Self { client, currency, reason, until: until.map(Into::into) }
    }
}
