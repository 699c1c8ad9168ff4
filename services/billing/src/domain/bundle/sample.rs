//! Which sheets of a client's books a bundle opens.
//!
//! Sheets are drawn twice over, each time with replacement: by their number of records, and by the money that they say, as
//! auditors draw monetary units (ISA 530, appendix 1, "value-weighted selection"). Where a share `f` of the records, or of the
//! money, stands on sheets that say something else than their leaves, `n` draws find none of them with a probability of
//! at most `(1 - f)^n`.
//!
//! The draws follow from the document, whose digest is in the log, the checkpoint behind it, and what the client sent to draw
//! them with. Whoever writes the log could write documents until one draws as it likes; so a client who wants more than that sends
//! a challenge, which nobody could foresee.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::sheets::Sheets;

/// Sheets of a client, about: with 100 campaigns in 12 periods, which are 1,200 lines of some 20 bytes, half of them fill 400 MB.
const SHEETS_MAX: u64 = 1 << 15;

/// Fewest records of a sheet.
const SHEET_MIN: u64 = 256;

/// Records that are opened, at most, where no sheet is much above its size: they and their proof fit into a bundle also where the
/// log is 10,000 times as long.
const OPENED_MAX: u64 = 1 << 17;

/// Draws by records, and again by money: of a share of 2 % nothing is found in one of 20 samples (0.98^149 = 0.049).
const DRAWS_MAX: u64 = 149;

/// Longest challenge, in bytes.
pub const CHALLENGE_MAX: usize = 64;

/// Records of a sheet, at least, where there are so many in all. A customer's records are not parted.
pub fn sheet_size(records: u64) -> u64 {
    records.div_ceil(SHEETS_MAX).max(SHEET_MIN)
}

/// How often sheets of so many records in all are drawn by records, and again by money.
pub fn draws(records: u64) -> u64 {
    (OPENED_MAX / (2 * sheet_size(records))).clamp(1, DRAWS_MAX)
}

/// The sheets that a document, its checkpoint and a challenge draw.
pub fn drawn(sheets: &Sheets, document: &[u8], checkpoint: &str, challenge: &[u8]) -> BTreeSet<usize> {
    let mut seed = Sha256::new();
    seed.update(b"kiki.sample/1\n");
    seed.update(Sha256::digest(document));
    seed.update(Sha256::digest(checkpoint));
    seed.update(challenge);
    let seed = seed.finalize();
    let both = |of: fn(&super::sheets::Figures) -> u128| sheets.sheets.iter().map(move |sheet| of(&sheet.before) + of(&sheet.added));
    let by_records = both(|figures| u128::from(figures.records));
    let by_money = both(super::sheets::Figures::money_nanos);
    let draws = draws(sheets.records());
    let mut drawn = BTreeSet::new();
    for (series, weights) in [(0_u8, sums(by_records)), (1, sums(by_money))] {
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
