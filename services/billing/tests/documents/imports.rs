//! Files for QuickBooks Online and Xero.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use billing::domain::amount::Amount;
use billing::domain::document::imports::*;
use billing::domain::document::{Document, Kind, TaxCategory};
use proptest::prelude::*;

use crate::sample::sample;
use crate::shapes;

fn books() -> Books {
    Books { item: "Profit share".into(), account_code: "200".into(), tax_name: "19% (VAT on Income)".into() }
}

fn untaxed(mut document: Document) -> Document {
    document.tax.category = TaxCategory::ZeroRated;
    document.tax.rate_ppm = 0;
    document
}

fn rows(csv: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    reader.records().map(|record| record.unwrap().iter().map(ToOwned::to_owned).collect()).collect()
}

/// The sum of a column, in minor units.
fn sum(rows: &[Vec<String>], column: &str) -> i128 {
    let at = rows[0].iter().position(|name| name == column).unwrap();
    rows[1..].iter().map(|row| Amount::parse(&row[at]).unwrap().units()).sum()
}

#[test]
fn headers_are_those_of_the_templates() {
    let Some(folder) = std::env::var_os("KIKI_CONFORMANCE_DATA").map(|folder| PathBuf::from(folder).join("billing/accounting_csv")) else {
        println!("headers of QuickBooks and Xero were not compared: KIKI_CONFORMANCE_DATA is not set");
        return;
    };
    let headers: [(&str, &[&str]); 3] = [
        ("xero_sales_invoice_header.csv", &XERO_HEADER),
        ("qbo_us_header.csv", &QUICKBOOKS_US_HEADER),
        ("qbo_global_tax_header.csv", &QUICKBOOKS_GLOBAL_HEADER),
    ];
    for (file, header) in headers {
        let Ok(theirs) = std::fs::read_to_string(folder.join(file)) else {
            println!("the header {file} was not compared: it is not there");
            continue;
        };
        assert_eq!(theirs.trim_end().split(',').collect::<Vec<_>>(), header, "{file}");
    }
}

#[test]
fn xero_has_a_row_a_line_with_its_tax() {
    let rows = rows(&xero(&[sample()], &books()).unwrap());
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0], XERO_HEADER);
    let cell = |row: usize, name: &str| rows[row][XERO_HEADER.iter().position(|column| *column == name).unwrap()].as_str();
    let expected = [
        ("*ContactName", "Café Łódź & Søn A/S"),
        ("POAddressLine1", "Strøget 7"),
        ("POCity", "København"),
        ("POCountry", "DK"),
        ("*InvoiceNumber", "K2026-000001"),
        ("Reference", "PO 4711"),
        ("*InvoiceDate", "01/02/2026"),
        ("*DueDate", "03/03/2026"),
        ("*Description", "spring-sale"),
        ("*Quantity", "1"),
        ("*UnitAmount", "2209.00"),
        ("*AccountCode", "200"),
        ("*TaxType", "19% (VAT on Income)"),
        ("TaxAmount", "419.71"),
        ("Currency", "EUR"),
    ];
    for (name, value) in expected {
        assert_eq!(cell(1, name), value, "{name}");
    }
}

#[test]
fn a_credit_note_is_below_zero_in_xero_and_refused_for_quickbooks() {
    let (_, note) = shapes::all().into_iter().find(|(name, _)| name == "credit-S-adjusted").unwrap();
    assert_eq!(note.kind, Kind::CreditNote);
    let totals = note.totals().unwrap();
    let rows = rows(&xero(std::slice::from_ref(&note), &books()).unwrap());
    assert_eq!(sum(&rows, "*UnitAmount"), -totals.net_minor);
    assert_eq!(sum(&rows, "TaxAmount"), -totals.tax_minor);
    assert_eq!(rows[1][11], "PO 4711 K2026-000001", "the reference names the invoice it corrects");
    assert_eq!(quickbooks(&[note], &books()), Err(BooksError::CreditNote { number: "K2026-000001".into() }));
}

#[test]
fn quickbooks_dates_follow_the_country_and_tax_needs_its_column() {
    let global = rows(&quickbooks(&[sample()], &books()).unwrap());
    assert_eq!(global[1][2..4], ["01/02/2026", "03/03/2026"]);
    assert_eq!(global[1][11..], ["2209.00", "19% (VAT on Income)", "419.71", "EUR"]);
    let us = rows(&quickbooks_us(&[untaxed(sample())], &books()).unwrap());
    assert_eq!(us[1][2..4], ["02/01/2026", "03/03/2026"]);
    assert_eq!(us[1][11..], ["2209.00", "01/31/2026"]);
    assert_eq!(quickbooks_us(&[sample()], &books()), Err(BooksError::Tax { number: "K2026-000001".into() }));
}

#[test]
fn no_text_is_a_formula_and_no_cell_has_two_lines() {
    let mut document = sample();
    document.buyer.name = "=cmd|' /C calc'!A0".into();
    document.lines[0].name = " +1\n@SUM(A1)".into();
    document.lines[1].name = "-2".into();
    document.notes = vec!["@x".into()];
    for file in [xero(&[document.clone()], &books()).unwrap(), quickbooks(&[document.clone()], &books()).unwrap()] {
        let numbers = |cell: &String| Amount::parse(cell).is_ok();
        for cell in rows(&file).iter().flatten().filter(|cell| !numbers(cell)) {
            assert!(!cell.trim_start().starts_with(['=', '+', '-', '@']) && !cell.contains('\n'), "{cell:?}");
        }
    }
}

#[test]
fn a_file_has_no_more_than_the_import_takes() {
    let many = vec![sample(); XERO_DOCUMENTS_MAX + 1];
    assert_eq!(xero(&many, &books()), Err(BooksError::TooMany { given: 501, max: 500 }));
    assert!(quickbooks(&many[..QUICKBOOKS_DOCUMENTS_MAX], &books()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_to_the_documents_totals(nets in prop::collection::vec(-1_000_000_i128..1_000_000, 1..40), rate_ppm in 1_u32..400_000) {
        let mut document = sample();
        document.tax.rate_ppm = rate_ppm;
        let lines = nets.iter().zip(1..).map(|(net_minor, id)| {
            let mut line = document.lines[0].clone();
            (line.id, line.net_minor) = (id.to_string(), *net_minor);
            line
        });
        document.lines = lines.collect();
        // Whatever the lines come to, a document asks for at least nothing.
        let mut rest = document.lines[0].clone();
        (rest.id, rest.net_minor) = ("rest".into(), 40_000_000);
        document.lines.push(rest);
        let totals = document.totals().unwrap();
        let rows = rows(&xero(std::slice::from_ref(&document), &books()).unwrap());
        prop_assert_eq!(sum(&rows, "*UnitAmount"), totals.net_minor);
        prop_assert_eq!(sum(&rows, "TaxAmount"), totals.tax_minor);
    }
}
