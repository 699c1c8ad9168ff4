//! The numbers of invoices and notes: gapless for each seller, year and kind of document.

use super::Kind;

/// What the numbers of one seller, year and kind of document have in common: `K2026-`, `K2026-C` of credit notes,
/// `K2026-D` of debit notes.
pub fn number_stem(series: &str, year: i16, kind: Kind) -> String {
    let mark = match kind {
        Kind::Invoice => "",
        Kind::CreditNote => "C",
        Kind::DebitNote => "D",
    };
    format!("{series}{year:04}-{mark}")
}

/// A document's number: stem and 6 digits. With a series of three letters and 7 digits it has 16 characters, which
/// accounting systems take (Zuora's limit).
pub fn number(stem: &str, ordinal: u64) -> String {
    format!("{stem}{ordinal:06}")
}

/// Stem and ordinal of a number; nothing of what [`number`] does not write.
pub fn ordinal(text: &str) -> Option<(&str, u64)> {
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (stem, ordinal) = text.split_at(text.len() - digits);
    let ordinal = ordinal.parse().ok()?;
    (stem.contains('-') && number(stem, ordinal) == text).then_some((stem, ordinal))
}
