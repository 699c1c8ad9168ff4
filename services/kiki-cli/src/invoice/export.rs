//! `kiki invoice export` writes invoices that were fetched as JSON in the formats that others read.

use std::path::{Path, PathBuf};

use billing::domain::document::export::{self, ExportError, Import};
use billing::domain::document::imports::Books;
use billing::domain::invoice::Invoice;

use crate::error::{Doing as _, Failure};
use crate::out;

/// Which invoices, as what.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// What to write. The imports hold all the invoices in one file, the others have a file each.
    #[arg(long, value_enum)]
    format: Format,
    /// Folder for the files. Default: that of each invoice; of an import, that of the first.
    #[arg(long)]
    out: Option<PathBuf>,
    /// QuickBooks' product or service.
    #[arg(long, default_value = "Profit share")]
    item: String,
    /// Xero's account code.
    #[arg(long, default_value = "200")]
    account: String,
    /// The tax rate's name in the books, in full. Only the imports need it.
    #[arg(long, default_value = "")]
    tax_name: String,
    /// Invoices as JSON.
    #[arg(required = true)]
    invoices: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// UBL 2.1 under EN 16931, and under Peppol BIS Billing 3 where both parties have an electronic address.
    Ubl,
    /// CII D16B under EN 16931.
    Cii,
    /// Pages as PDF/A-3, with the CII inside where there is one (Factur-X).
    Pdf,
    /// Xero's import of sales invoices.
    Xero,
    /// QuickBooks Online's import of invoices, outside the United States.
    Quickbooks,
    /// QuickBooks Online's import of invoices, in the United States.
    QuickbooksUs,
}

/// Runs `kiki invoice export`.
///
/// # Errors
/// An invoice that cannot be read or said in that format, or a file that cannot be written.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let invoices: Vec<_> = args.invoices.iter().map(|path| Ok((path, read(path)?))).collect::<Result<_, Failure>>()?;
    let books = Books { item: args.item.clone(), account_code: args.account.clone(), tax_name: args.tax_name.clone() };
    match args.format.of() {
        export::Format::Import(import) => {
            let file = import.file(invoices.iter().map(|(_, invoice)| invoice), &books).map_err(named)?;
            write(args, invoices.first().map_or(Path::new(""), |(path, _)| path), import.name(), &file)
        }
        format => invoices.iter().try_for_each(|(path, invoice)| {
            let file = format.file(invoice, &books).map_err(named)?;
            write(args, path, &format!("{}.{}", name(invoice)?, args.format.ending()), &file)
        }),
    }
}

impl Format {
    fn of(self) -> export::Format {
        match self {
            Self::Ubl => export::Format::Ubl,
            Self::Cii => export::Format::Cii,
            Self::Pdf => export::Format::Pdf,
            Self::Xero => export::Format::Import(Import::Xero),
            Self::Quickbooks => export::Format::Import(Import::Quickbooks),
            Self::QuickbooksUs => export::Format::Import(Import::QuickbooksUs),
        }
    }

    /// The end of the name of an invoice's own file.
    fn ending(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Cii => "cii.xml",
            _ => "ubl.xml",
        }
    }
}

/// In the command's own words.
fn named(error: ExportError) -> Failure {
    match error {
        ExportError::TaxName => Failure::new("name the tax rate as the books show it, with --tax-name: the import asks for it"),
        error => Failure::new(error.to_string()),
    }
}

fn read(path: &Path) -> Result<Invoice, Failure> {
    let doing = format!("reading {}", path.display());
    Invoice::from_json(&std::fs::read(path).doing(&doing)?).doing(&doing)
}

/// A number is part of a file's name: what comes from a file is not trusted to be one.
fn name(invoice: &Invoice) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let number = invoice.invoice_id.as_str();
    if number.bytes().all(plain) { Ok(number) } else { Err(Failure::new(format!("{number:?} is no invoice number"))) }
}

fn write(args: &Args, beside: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let folder = args.out.as_deref().or(beside.parent()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).doing(format_args!("making {}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, bytes).doing(format_args!("writing {}", path.display()))?;
    out::say(path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../docs/invoice.example.json");

    fn exported(format: Format, change: impl FnOnce(&mut Args)) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.json");
        std::fs::write(&path, EXAMPLE).unwrap();
        let out = folder.path().join("made");
        let [item, account, tax_name] = ["Profit share", "200", "19% VAT"].map(str::to_owned);
        let mut args = Args { format, out: Some(out.clone()), item, account, tax_name, invoices: vec![path] };
        change(&mut args);
        run(&args).map_err(|failure| failure.to_string())?;
        let written = std::fs::read_dir(out).unwrap().next().unwrap().unwrap().path();
        Ok(std::fs::read(written).unwrap())
    }

    #[test]
    fn an_invoice_is_written_in_every_format() {
        let begins = [
            (Format::Ubl, "<?xml"),
            (Format::Cii, "<?xml"),
            (Format::Pdf, "%PDF"),
            (Format::Xero, "*ContactName"),
            (Format::Quickbooks, "*InvoiceNo"),
        ];
        for (format, begin) in begins {
            assert!(exported(format, |_| {}).unwrap().starts_with(begin.as_bytes()), "{format:?}");
        }
    }

    #[test]
    fn what_a_format_cannot_say_is_named() {
        let us = exported(Format::QuickbooksUs, |_| {}).unwrap_err();
        assert_eq!(us, "the import: K2026-000001 has tax, for which QuickBooks Online's layout for the United States has no column");
        let nameless = exported(Format::Xero, |args| args.tax_name.clear()).unwrap_err();
        assert!(nameless.contains("--tax-name"), "{nameless}");
        let absent = exported(Format::Ubl, |args| args.invoices = vec!["/nowhere.json".into()]).unwrap_err();
        assert!(absent.starts_with("reading /nowhere.json"), "{absent}");
    }
}
