//! UBL and CII: written for every shape, read again, added up to the cent.

use std::path::PathBuf;

use billing::domain::document::readd::{differences, read};
use billing::domain::document::xml::{XmlError, cii, ubl};
use billing::domain::document::{Document, Identifier, TEXT_CHARS_MAX};
use proptest::prelude::*;

use crate::sample::sample;
use crate::shapes;

type Writer = fn(&Document) -> Result<String, XmlError>;

const SYNTAXES: [(&str, Writer); 2] = [("ubl", ubl), ("cii", cii)];

#[test]
fn every_shape_is_written_the_same_each_time_and_adds_up_when_it_is_read() {
    // `.ci/schematron` runs the official rules over what is left here.
    let folder = std::env::var_os("KIKI_DOCUMENTS_DIR").map(PathBuf::from);
    for (name, document) in shapes::all() {
        for (syntax, write) in SYNTAXES {
            let xml = write(&document).unwrap_or_else(|error| panic!("{name} as {syntax}: {error}"));
            assert_eq!(write(&document).unwrap(), xml, "{name} as {syntax}");
            assert_eq!(differences(&read(xml.as_bytes()).unwrap()), [], "{name} as {syntax}");
            let Some(folder) = &folder else { continue };
            std::fs::create_dir_all(folder).unwrap();
            let peppol = if syntax == "ubl" && document.is_for_peppol() { "peppol-" } else { "" };
            std::fs::write(folder.join(format!("{name}.{peppol}{syntax}.xml")), xml).unwrap();
        }
    }
}

#[test]
fn what_is_read_is_what_was_written() {
    let document = sample();
    for (syntax, write) in SYNTAXES {
        let read = read(write(&document).unwrap().as_bytes()).unwrap();
        assert_eq!(read.number.as_deref(), Some("K2026-000001"), "{syntax}");
        assert_eq!(read.buyer.name.as_deref(), Some("Café Łódź & Søn A/S"), "{syntax}");
        assert_eq!(read.lines[1].item.name.as_deref(), Some("autumn <b> & more"), "{syntax}");
        assert_eq!(read.totals.due.to_string(), "2628.71", "{syntax}");
        assert_eq!(read.invoicing_period.unwrap().end.unwrap().to_string(), "2026-01-31", "{syntax}");
        assert_eq!(read.payment.unwrap().account_identifier(), Some("DE02120300000000202051"), "{syntax}");
    }
}

#[test]
fn refuses_what_the_standard_cannot_say() {
    for (syntax, write) in SYNTAXES {
        let refusal = |change: fn(&mut Document)| {
            let mut document = sample();
            change(&mut document);
            write(&document).unwrap_err().to_string()
        };
        let dinar = refusal(|d| d.currency = "KWD".into());
        assert_eq!(dinar, "KWD has 3 decimal places, but EN 16931 says amounts with at most 2 (BR-DEC): send the PDF or JSON instead");
        assert!(refusal(|d| d.buyer.country = "ZZ".into()).starts_with("BR-CL-14 at BG-7/BT-55:"), "{syntax}");
        assert!(refusal(|d| d.payment.means_code = Some("999".into())).starts_with("BR-CL-16"), "{syntax}");
        assert!(refusal(|d| d.lines.clear()).starts_with("line (BG-25) is missing"), "{syntax}");
    }
    let mut peppol = sample();
    peppol.buyer.endpoint = Some(Identifier { id: "x".into(), scheme: Some("0000".into()) });
    assert!(ubl(&peppol).unwrap_err().to_string().starts_with("PEPPOL-EN16931-CL008"));
}

/// Every amount that stands in a document, as byte ranges.
fn amounts(xml: &str) -> Vec<std::ops::Range<usize>> {
    let text_of = |tag: &str| -> Vec<std::ops::Range<usize>> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = xml[from..].find(tag).map(|at| from + at) {
            let start = at + xml[at..].find('>').unwrap() + 1;
            let end = start + xml[start..].find('<').unwrap();
            if !xml[..at].ends_with('/') && xml[start..end].parse::<rust_decimal::Decimal>().is_ok() {
                found.push(start..end);
            }
            from = at + tag.len();
        }
        found
    };
    ["Amount", "TotalAmount"].iter().flat_map(|tag| text_of(tag)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_amount_that_is_off_by_one_cent_is_found(shape in 0_usize..189, syntax in 0_usize..2, pick in any::<prop::sample::Index>(), up in any::<bool>()) {
        let (name, document) = shapes::all().swap_remove(shape);
        let xml = SYNTAXES[syntax].1(&document).unwrap();
        let places = amounts(&xml);
        let place = pick.get(&places).clone();
        let cent = rust_decimal::Decimal::new(if up { 1 } else { -1 }, 2);
        let stated: rust_decimal::Decimal = xml[place.clone()].parse().unwrap();
        let mutated = format!("{}{}{}", &xml[..place.start], stated + cent, &xml[place.end..]);
        let found = differences(&read(mutated.as_bytes()).unwrap());
        prop_assert!(!found.is_empty(), "{name}: {} made {} went unseen", &xml[place.start.saturating_sub(60)..place.end], stated + cent);
    }
}

#[test]
fn a_difference_names_the_figure_and_what_it_should_follow_from() {
    let xml = ubl(&sample()).unwrap();
    let wrong = xml.replace(">2628.71</cbc:PayableAmount>", ">2628.72</cbc:PayableAmount>");
    let found: Vec<_> = differences(&read(wrong.as_bytes()).unwrap()).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["BT-115 is 2628.72, but BT-112 - BT-113 + BT-114 gives 2628.71"]);
    let wrong = xml.replace(">419.71</cbc:TaxAmount>", ">419.72</cbc:TaxAmount>");
    let found: Vec<_> = differences(&read(wrong.as_bytes()).unwrap()).iter().map(ToString::to_string).collect();
    assert_eq!(found[0], "BG-23[1]/BT-117 is 419.72, but BT-116 x BT-119 gives 419.71");
}

#[test]
fn hostile_documents_are_refused_or_differ_and_never_overflow() {
    let xml = ubl(&sample()).unwrap();
    let huge = "79228162514264337593543950335";
    let quantity = xml.replacen("unitCode=\"C62\">1<", &format!("unitCode=\"C62\">{huge}<"), 1);
    assert_ne!(quantity, xml);
    assert!(!differences(&read(quantity.as_bytes()).unwrap()).is_empty());
    assert!(read(b"<Invoice/>").is_err());
    assert!(read(xml.replace(">2628.71</cbc:PayableAmount>", ">2628.715</cbc:PayableAmount>").as_bytes()).is_err());
    assert!(read(&vec![b' '; billing::domain::document::readd::BYTES_MAX + 1]).is_err());
}

#[test]
fn the_longest_texts_are_written() {
    let mut document = sample();
    document.buyer.name = "ß".repeat(TEXT_CHARS_MAX);
    for (_, write) in SYNTAXES {
        let read = read(write(&document).unwrap().as_bytes()).unwrap();
        assert_eq!(read.buyer.name.map(|name| name.chars().count()), Some(TEXT_CHARS_MAX));
    }
}
