//! What fits into a bundle: known before an invoice takes its number, not found out behind it.

use super::sample::{SERIES, draws};
use super::sheets::{Sheet, Sheets};

/// Most leaves of a bundle: as many as SyncShield proves at once.
pub const LEAVES_MAX: u64 = 1 << 20;

/// Largest bundle: 1 GiB, or two million leaves of 500 bytes. It is read into memory as a whole.
pub const BYTES_MAX: u64 = 1 << 30;

/// Most hashes of a proof: 72 MiB, the longest answer that is taken of SyncShield, at 34 bytes each.
pub const PROOF_MAX: u64 = (72 << 20) / HASH_BYTES;

/// Leaves and bytes that are kept free for what the log takes in before the invoice's own leaf:
/// 65,536 leaves are some seconds of a client's heaviest traffic, and 1 KiB each is above the usual.
const SPARE: (u64, u64) = (1 << 16, 64 << 20);

/// Bytes beside a leaf's own: its index (up to 11), its hash (34) and the lengths (up to 12), rounded up.
const LEAF_OVERHEAD: u64 = 64;

/// A hash of the proof with its key and length.
const HASH_BYTES: u64 = 34;

/// A bundle above one of its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client's {what} are {found}, above the {max} that fit into a proof bundle")]
pub struct TooLarge {
    /// Of what there is too much.
    pub what: &'static str,
    /// How much.
    pub found: u64,
    /// The limit.
    pub max: u64,
}

/// Whether `leaves` leaves of together `bytes` bytes, scattered over a log of `log_size` leaves, fit into a
/// bundle with a document of `document` bytes, and leave room for what comes before the invoice's own leaf.
pub fn check(leaves: u64, bytes: u64, log_size: u64, document: u64) -> Result<(), TooLarge> {
    let at_most = |what, found, max| if found > max { Err(TooLarge { what, found, max }) } else { Ok(()) };
    at_most("leaves", leaves, LEAVES_MAX - SPARE.0)?;
    // At most the hash beside each leaf's path for every level above the one where the paths meet, and the
    // two edges of the tree; what the log grows by behind the last leaf adds to the right edge alone.
    let apart = log_size.div_ceil(leaves.max(1)).next_power_of_two().ilog2();
    let hashes = leaves * u64::from(apart) + 128;
    at_most("scattered leaves' proof hashes", hashes, PROOF_MAX)?;
    let file = bytes + leaves * LEAF_OVERHEAD + hashes * HASH_BYTES + document;
    at_most("bytes of leaves and proof", file, BYTES_MAX - SPARE.1)
}

/// Most leaves of a client whose bundle has them all, unless told otherwise: of 300 bytes, they are 150 MB.
pub const WHOLE_MAX: u64 = LEAVES_MAX / 2;

/// A document's size where it is not drawn up yet: 10,000 lines of 800 bytes.
const DOCUMENT: u64 = 8_000_000;

/// Whether the bundle of an invoice that is drawn up now has every leaf of the client: of at most `whole_max`, and where a sixteenth
/// more fits, which may come until it becomes final.
pub fn is_whole(leaves: u64, bytes: u64, log_size: u64, whole_max: u64) -> bool {
    leaves <= whole_max && check(leaves + leaves / 16, bytes + bytes / 16, log_size, DOCUMENT).is_ok()
}

/// Most lines of sheets: of 96 bytes in memory they are 800 MB.
pub const LINES_MAX: u64 = 1 << 23;

/// Largest sheets as they are encoded: half of a bundle.
pub const SHEETS_BYTES_MAX: u64 = BYTES_MAX / 2;

/// Whether a sample of `sheets`, which are `encoded` bytes long, of a client with leaves and bytes of `extent` fits into a bundle,
/// whatever is drawn.
pub fn check_sample(sheets: &Sheets, encoded: u64, extent: (u64, u64), log_size: u64) -> Result<(), TooLarge> {
    let at_most = |what, found, max| if found > max { Err(TooLarge { what, found, max }) } else { Ok(()) };
    at_most("lines of sheets", sheets.lines(), LINES_MAX)?;
    at_most("bytes of sheets", encoded, SHEETS_BYTES_MAX)?;
    let mut records: Vec<u64> = sheets.sheets.iter().map(Sheet::records).collect();
    records.sort_unstable_by(|a, b| b.cmp(a));
    let most = usize::try_from(SERIES * draws(sheets.records())).unwrap_or(usize::MAX);
    let opened = records.iter().take(most).sum::<u64>();
    // Records may be twice as long as the average leaf; where they are longer, the bundle's own length says so.
    let bytes = opened * 2 * extent.1.div_ceil(extent.0.max(1));
    check(opened, bytes, log_size, DOCUMENT + encoded)
}

#[cfg(test)]
mod tests {
    use kiki::tlog::{Tree, leaf_hash};

    use super::*;

    #[test]
    fn each_limit_is_named() {
        let what = |leaves, bytes, size| check(leaves, bytes, size, 1_000).map_err(|e| e.what);
        assert_eq!(what(LEAVES_MAX - SPARE.0, 400 << 20, LEAVES_MAX), Ok(()));
        assert_eq!(what(LEAVES_MAX - SPARE.0 + 1, 0, LEAVES_MAX), Err("leaves"));
        assert_eq!(what(900_000, 400 << 20, 1 << 30), Err("scattered leaves' proof hashes"));
        assert_eq!(what(10, BYTES_MAX - SPARE.1, 10), Err("bytes of leaves and proof"));
        assert_eq!(what(0, 0, 0), Ok(()));
    }

    #[test]
    fn what_is_drafted_whole_still_fits_when_more_came() {
        let most = (LEAVES_MAX - SPARE.0) * 16 / 17;
        assert!(is_whole(most, 200 << 20, LEAVES_MAX, u64::MAX) && !is_whole(most, 200 << 20, LEAVES_MAX, most - 1));
        assert!(!is_whole(most + 16, 200 << 20, LEAVES_MAX, u64::MAX) && check(most + 16, 200 << 20, LEAVES_MAX, DOCUMENT).is_ok());
    }

    #[test]
    fn a_proof_is_never_longer_than_it_is_taken_to_be() {
        let mut tree = Tree::new();
        (0..1_000_u64).for_each(|i| tree.push(leaf_hash(&i.to_be_bytes())));
        for step in [1_usize, 2, 3, 7, 8, 31, 100, 999] {
            let indices: Vec<u64> = (0..1_000).step_by(step).collect();
            let (leaves, hashes) = (indices.len() as u64, tree.multiproof(&indices, 1_000).map_or(u64::MAX, |p| p.len() as u64));
            let apart = 1_000_u64.div_ceil(leaves).next_power_of_two().ilog2();
            assert!(hashes <= leaves * u64::from(apart) + 128, "{step}: {hashes}");
        }
    }
}
