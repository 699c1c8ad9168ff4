//! `kiki invoice export` writes invoices that were fetched as JSON in the formats that others read.

use std::path::{Path, PathBuf};

use billing::domain::document::imports::{Books, quickbooks, quickbooks_us, xero};
use billing::domain::document::pdf::{Content, render};
use billing::domain::document::{Document, xml};
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
    match args.format {
        Format::Ubl => {
            each(args, &invoices, "ubl.xml", |invoice| Ok(xml::ubl(&document(invoice)?).doing(&invoice.invoice_id)?.into_bytes()))
        }
        Format::Cii => {
            each(args, &invoices, "cii.xml", |invoice| Ok(xml::cii(&document(invoice)?).doing(&invoice.invoice_id)?.into_bytes()))
        }
        Format::Pdf => each(args, &invoices, "pdf", |invoice| {
            let content = Content::of(invoice).doing(&invoice.invoice_id)?;
            render(&content).doing(&invoice.invoice_id)
        }),
        Format::Xero | Format::Quickbooks | Format::QuickbooksUs => import(args, &invoices),
    }
}

fn read(path: &Path) -> Result<Invoice, Failure> {
    let doing = format!("reading {}", path.display());
    Invoice::from_json(&std::fs::read(path).doing(&doing)?).doing(&doing)
}

fn document(invoice: &Invoice) -> Result<Document, Failure> {
    Document::of(invoice).doing(&invoice.invoice_id)
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

type Read<'a> = (&'a PathBuf, Invoice);

fn each(args: &Args, invoices: &[Read<'_>], ending: &str, bytes: impl Fn(&Invoice) -> Result<Vec<u8>, Failure>) -> Result<(), Failure> {
    for (path, invoice) in invoices {
        write(args, path, &format!("{}.{ending}", name(invoice)?), &bytes(invoice)?)?;
    }
    Ok(())
}

fn import(args: &Args, invoices: &[Read<'_>]) -> Result<(), Failure> {
    let documents = invoices.iter().map(|(_, invoice)| document(invoice)).collect::<Result<Vec<_>, _>>()?;
    let books = Books { item: args.item.clone(), account_code: args.account.clone(), tax_name: args.tax_name.clone() };
    if args.tax_name.is_empty() && args.format != Format::QuickbooksUs {
        return Err(Failure::new("name the tax rate as the books show it, with --tax-name: the import asks for it"));
    }
    let (file, bytes) = match args.format {
        Format::Quickbooks => ("quickbooks.csv", quickbooks(&documents, &books)),
        Format::QuickbooksUs => ("quickbooks-us.csv", quickbooks_us(&documents, &books)),
        _ => ("xero.csv", xero(&documents, &books)),
    };
    write(args, invoices.first().map_or(Path::new(""), |(path, _)| path), file, &bytes.doing("the import")?)
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
