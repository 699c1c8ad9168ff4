//! The pages, as PDF/A-3 and Factur-X.

use std::path::PathBuf;

use billing::domain::document::pdf::{ATTACHMENT, Bar, Content, Row, grouped, render};
use billing::domain::document::xml::cii;
use billing::domain::invoice::Invoice;

use crate::sample::{date, sample};

fn pair(label: &str, value: &str) -> (String, String) {
    (label.into(), value.into())
}

/// An invoice of so many lines in a currency of so many places.
fn content(lines: usize, currency: &str, places: u32) -> Content {
    let unit = 10_i128.pow(places);
    let of = |i: usize| {
        let i = i128::try_from(i).unwrap();
        let spend = (12_500 + 3_711 * i) * unit + 37 * i % unit;
        let ltv = spend * (25 + (i * 7) % 31) / 10;
        (
            format!("{}-{i:03}", ["spring-sale", "search-brand", "retargeting-eu", "video-prospecting"][usize::try_from(i % 4).unwrap()]),
            spend,
            ltv,
        )
    };
    let rows = (0..lines).map(of).map(|(campaign, spend, ltv)| Row {
        campaign,
        spend: grouped(spend, places),
        ltv: grouped(ltv, places),
        baseline: "3.0".into(),
        roas: grouped(ltv * 10_000 / spend, 4),
        margin: grouped(ltv - 3 * spend, places),
        fee: grouped((ltv - 3 * spend).max(0) / 10, places),
    });
    let bars = (0..lines).map(of).map(|(campaign, spend, ltv_minor)| Bar { campaign, ltv_minor, baseline_minor: 3 * spend });
    let amount = |minor: i128| grouped(minor * unit / 100, places);
    Content {
        title: "Invoice".into(),
        number: "K2026-000001".into(),
        issued: date("2026-02-01"),
        seller: ["KIKI GmbH", "Torstraße 1, 10119 Berlin, Germany", "VAT DE123456789 · HRB 123456 B", "billing@kiki.example"]
            .map(Into::into)
            .into(),
        buyer: ["Café Łódź & Søn A/S", "Strøget 7, 2. sal", "1160 København", "Denmark", "VAT DK87654321"].map(Into::into).into(),
        facts: vec![
            pair("Date of issue", "2026-02-01"),
            pair("Due date", "2026-03-03"),
            pair("Period", "2026-01-01 to 2026-01-31"),
            pair("Your reference", "PO 4711"),
        ],
        due: ("Amount due by 2026-03-03".into(), format!("{currency} {}", amount(262_871))),
        unit: format!("All amounts in {currency}"),
        rows: rows.collect(),
        totals: vec![
            pair("Sum of fees", &amount(233_245)),
            pair("Allowance: fee capped", &amount(-12_345)),
            pair("Net", &amount(220_900)),
            pair("VAT 19 %", &amount(41_971)),
            pair("Total", &amount(262_871)),
        ],
        payment: vec![
            pair("Terms", "Due in 30 days, by 2026-03-03"),
            pair("Account", "DE02 1203 0000 0000 2020 51 · BYLADEM1001 · KIKI GmbH"),
            pair("Reference", "K2026-000001"),
        ],
        notes: vec!["Predicted lifetime value over 180 days; trued up when it is realised.".into()],
        calculation: vec![
            pair(
                "Terms",
                "Version 3 of the terms, effective 2026-01-01: KIKI is paid 10 % of what the lifetime value of the customers acquired in the period exceeds 3.0 times the spend that acquired them.",
            ),
            pair("Lifetime value", "The prediction that was frozen when each customer was acquired, over 180 days: 139,368.00 in all."),
            pair("Baseline", "3.0 × 39,000.00 spend = 117,000.00: what the same spend earned before."),
            pair("Margin", "139,368.00 - 117,000.00 = 22,368.00. Campaigns below their baseline are set off against those above it."),
            pair("Fee", "10 % of 22,368.00 = 2,236.80, divided over the campaigns above their baseline by largest remainder."),
        ],
        bars: bars.collect(),
        places,
        verify: vec![
            pair("Log", "kiki-1, leaves 1,024 to 98,301, client sequence 1 to 88,412 without a gap"),
            pair("Checkpoint", "size 98,304, root 5f1c6e6b1d0a0a7d3c3b1f0e9d8c7b6a5f4e3d2c1b0a99887766554433221100"),
            pair("Command", "kiki invoice verify K2026-000001.bundle --log-key kiki-1.pub"),
            pair(
                "",
                "It recomputes every figure on these pages from the leaves of the log, offline, and says which line differs and by how much.",
            ),
        ],
        cii: None,
    }
}

/// Name and content of what is written where `KIKI_DOCUMENTS_DIR` says, to be looked at.
fn all() -> Vec<(&'static str, Content)> {
    let long =
        "A campaign whose name somebody wrote as a whole sentence, with a-very-long-hyphenated-identifier-that-has-no-space-anywhere-in-it";
    let mut credit = content(2, "EUR", 2);
    credit.title = "Credit note".into();
    credit.due = ("Credited to you".into(), "EUR 2,628.71".into());
    credit.facts.push(pair("Corrects", "Invoice K2026-000001 of 2026-02-01"));
    let mut names = content(5, "EUR", 2);
    names.rows[1].campaign = long.into();
    names.bars[1].campaign = long.into();
    names.buyer[0] = "Gesellschaft für außergewöhnlich lange Firmennamen und deren Abkürzungen mit beschränkter Haftung & Co. KG".into();
    names.seller[0] = "Ångström Žižek Ðorđević Limited Liability Partnership of the Northern Hemisphere".into();
    names.bars[3].ltv_minor = -4_000_000;
    let mut foreign = content(3, "JPY", 0);
    foreign.buyer[0] = "株式会社キキ (Kiki K.K.)".into();
    let example = Invoice::from_json(include_bytes!("../../../../docs/invoice.example.json")).unwrap();
    let mut attached = content(2, "EUR", 2);
    attached.cii = Some(cii(&sample()).unwrap());
    let huge = {
        let mut huge = content(2, "KWD", 3);
        for row in &mut huge.rows {
            for cell in [&mut row.spend, &mut row.ltv, &mut row.margin, &mut row.fee] {
                *cell = "-1,234,567,890,123.456".to_owned();
            }
        }
        huge
    };
    vec![
        ("one-line", content(1, "EUR", 2)),
        ("twelve-lines", content(12, "USD", 2)),
        ("two-hundred-lines", content(200, "EUR", 2)),
        ("credit-note", credit),
        ("long-names", names),
        ("yen", foreign),
        ("dinar", huge),
        ("factur-x", attached),
        ("example", Content::of(&example).unwrap()),
    ]
}

#[test]
fn every_shape_is_a_valid_pdf_a_of_the_same_bytes_each_time() {
    let folder = std::env::var_os("KIKI_DOCUMENTS_DIR").map(PathBuf::from);
    for (name, content) in all() {
        let pdf = render(&content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(pdf.starts_with(b"%PDF-1."), "{name}");
        assert_eq!(render(&content).unwrap(), pdf, "{name}");
        let Some(folder) = &folder else { continue };
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(format!("{name}.pdf")), pdf).unwrap();
    }
}

#[test]
fn a_factur_x_file_names_what_it_carries() {
    let mut content = content(1, "EUR", 2);
    let plain = render(&content).unwrap();
    content.cii = Some(cii(&sample()).unwrap());
    let pdf = render(&content).unwrap();
    let has = |pdf: &[u8], text: &str| pdf.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&pdf, "<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>"));
    assert!(has(&pdf, &format!("<fx:DocumentFileName>{ATTACHMENT}</fx:DocumentFileName>")));
    assert!(has(&pdf, "/AFRelationship"));
    assert!(!has(&plain, "factur-x"));
}
