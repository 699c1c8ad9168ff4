//! Which sheets of a client's books a bundle opens.
//!
//! Sheets are drawn three times over, each time with replacement: by their number of records; those of spend by the spend that
//! they say; and those of customers by the money that they say, as auditors draw monetary units (ISA 530, appendix 4,
//! "monetary unit sampling"). Where a share `f` of what a series weighs stands on sheets that say something else than their
//! leaves, `n` draws find none of them with a probability of `(1 - f)^n`.
//!
//! The draws follow from the document, whose digest is in the log, and from a challenge of the client's. Only where the client
//! chose that itself, after the document was issued, could nobody foresee them, and only then do they prove anything to it:
//! without one, whoever drew up the document could have drawn up others until one drew as it liked.
//!
//! The constants are part of the format: with others, a document's sheets could not be drawn up again.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::sheets::{Holds, Sheet, Sheets};

/// Sheets of a client, about.
const SHEETS_MAX: u64 = 1 << 14;

/// Fewest records of a sheet.
const SHEET_MIN: u64 = 256;

/// Records that are opened, at most, where no sheet is much above its size: they and their proof fit into a bundle also where the
/// log is 400 times as long.
const OPENED_MAX: u64 = 240_000;

/// Draws of each series: of a share of 2 % nothing is found in one of 20 samples (0.98^149 = 0.049).
const DRAWS_MAX: u64 = 149;

/// By records, by spend and by customers' money.
pub const SERIES: u64 = 3;

/// Longest challenge, in bytes.
pub const CHALLENGE_MAX: usize = 64;

/// Records of a sheet, at least, where there are so many in all. A customer's records are not parted.
pub fn sheet_size(records: u64) -> u64 {
    records.div_ceil(SHEETS_MAX).max(SHEET_MIN)
}

/// How often sheets of so many records in all are drawn in each series.
pub fn draws(records: u64) -> u64 {
    (OPENED_MAX / (SERIES * sheet_size(records))).clamp(1, DRAWS_MAX)
}

/// The sheets that a document and a challenge draw.
pub fn drawn(sheets: &Sheets, document: &[u8], challenge: &[u8]) -> BTreeSet<usize> {
    let seed = Sha256::new().chain_update(b"kiki.sample/1\n").chain_update(Sha256::digest(document)).chain_update(challenge).finalize();
    let money = |of_spend: bool| {
        let counts = move |sheet: &Sheet| matches!(sheet.holds, Holds::Spend { .. }) == of_spend;
        sums(sheets.sheets.iter().map(move |sheet| if counts(sheet) { sheet.money_nanos() } else { 0 }))
    };
    let by_records = sums(sheets.sheets.iter().map(|sheet| u128::from(sheet.records())));
    let draws = draws(sheets.records());
    let mut drawn = BTreeSet::new();
    for (series, weights) in (0_u8..).zip([by_records, money(true), money(false)]) {
        let total = weights.last().copied().unwrap_or_default();
        for number in (0..draws).filter(|_| total > 0) {
            let digest = Sha256::new().chain_update(seed).chain_update([series]).chain_update(number.to_be_bytes()).finalize();
            let point = digest[..16].iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte)) % total;
            drawn.insert(weights.partition_point(|sum| *sum <= point));
        }
    }
    drawn
}

/// The sum of each weight and those before it.
fn sums(weights: impl Iterator<Item = u128>) -> Vec<u128> {
    weights
        .scan(0_u128, |sum, weight| {
            *sum = sum.saturating_add(weight);
            Some(*sum)
        })
        .collect()
}
