//! Another's figures against the log's.
//!
//! A platform prints rounded amounts, so a row of its report stands for whatever rounds to it: half a unit of the last decimal to either side, for each
//! of the rows that add up to a figure. The decimals are those of the column: the most that any row of the currency has, and at least its minor
//! unit, because programs drop zeros at the end. A figure that is not there at all counts as one row of 0.
//!
//! A counter is exact, but what came shortly before an hour's end may have been scraped in the next one. So it agrees with whatever lies
//! between the log's hour without its own last moments, and that hour with those of the one before.

use std::collections::BTreeMap;

use super::{Cell, Figure, Key, Totals};
use crate::domain::amount::{Amount, NANO_PLACES, minor_places};

/// Rows that are held against the log at once: each day of a month for 2,000 campaigns.
pub const ROWS_MAX: usize = 65_536;

/// A row of another's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose, and of when.
    pub key: Key,
    /// How much, as it was printed.
    pub amount: Amount,
    /// How many impressions, where it says.
    pub items: Option<u64>,
}

/// How far a figure may be off beyond what its rounding explains: by the larger of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// In the currency's minor unit.
    pub minor: u32,
    /// Of the log's figure, parts per million.
    pub ppm: u32,
}

/// How they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The log has nothing of it.
    MissingInLog,
    /// The other has nothing of it.
    MissingThere,
    /// Both have it, with another amount.
    Amount,
}

impl Kind {
    /// In a word, for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingInLog => "missing_in_log",
            Self::MissingThere => "missing_there",
            Self::Amount => "amount",
        }
    }
}

/// A figure that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose, and of when.
    pub key: Key,
    /// How they differ.
    pub kind: Kind,
    /// The log's, with its leaves.
    pub log: Cell,
    /// The other's, nanos.
    pub other_nanos: i128,
    /// The other's impressions, where all of its rows say.
    pub other_items: Option<u64>,
}

/// Both sides in one currency, nanos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// The log's.
    pub log_nanos: i128,
    /// The other's.
    pub other_nanos: i128,
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Figures that either side has.
    pub compared: usize,
    /// By currency.
    pub totals: BTreeMap<String, Sums>,
    /// In the order of their keys.
    pub differences: Vec<Difference>,
}

/// A row that no comparison can be made with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rows[{row}].{field}: {problem}")]
pub struct ClaimError {
    /// Which row, from 0.
    pub row: usize,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// What the rows of one key add up to.
#[derive(Debug, Clone, Default)]
struct Other {
    nanos: i128,
    rows: u32,
    items: Option<u64>,
}

/// Holds rows against the log's totals. Rows of one key add up.
///
/// # Errors
/// A currency without a minor unit, or an amount with more than nine decimals.
pub fn compare(totals: &Totals, claims: &[Claim], tolerance: Tolerance) -> Result<Comparison, ClaimError> {
    let (others, places) = added_up(claims)?;
    // Of a counter, slot 0 is the hour ahead of those that are compared.
    let first = if matches!(totals.figure(), Figure::PlatformSpend { .. }) { 0 } else { 1 };
    let cells = || totals.cells().iter().filter(|(key, _)| key.slot >= first);
    let mut keys: Vec<&Key> = cells().map(|(key, _)| key).chain(others.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut comparison = Comparison { compared: keys.len(), ..Comparison::default() };
    let nothing = (Cell::default(), Other::default());
    for key in keys {
        let cell = totals.cells().get(key).unwrap_or(&nothing.0);
        let other = others.get(key).unwrap_or(&nothing.1);
        let sums = comparison.totals.entry(key.currency.clone()).or_default();
        sums.log_nanos += cell.nanos;
        sums.other_nanos += other.nanos;
        let minor = minor_places(&key.currency).unwrap_or(0);
        let exact = if first == 0 { places.get(key.currency.as_str()).copied().unwrap_or(minor) } else { NANO_PLACES };
        let before = key.slot.checked_sub(1).filter(|_| first > 0).and_then(|slot| totals.cells().get(&Key { slot, ..key.clone() }));
        let carried = before.map_or(0, |before| before.late_nanos);
        if agrees(cell, carried, other, exact, tolerance.nanos(cell.nanos, minor)) {
            continue;
        }
        let kind = match (totals.cells().contains_key(key), others.contains_key(key)) {
            (false, _) => Kind::MissingInLog,
            (true, false) => Kind::MissingThere,
            (true, true) => Kind::Amount,
        };
        let (log, other_nanos, other_items) = (cell.clone(), other.nanos, other.items);
        comparison.differences.push(Difference { key: key.clone(), kind, log, other_nanos, other_items });
    }
    Ok(comparison)
}

/// Decimals by currency.
type Places<'c> = BTreeMap<&'c str, u32>;

/// Sums by key, and the decimals that each currency is printed with.
fn added_up(claims: &[Claim]) -> Result<(BTreeMap<Key, Other>, Places<'_>), ClaimError> {
    let mut others: BTreeMap<Key, Other> = BTreeMap::new();
    let mut places = Places::new();
    for (row, claim) in claims.iter().enumerate() {
        let bad = |field, problem| ClaimError { row, field, problem };
        let minor = minor_places(&claim.key.currency).map_err(|e| bad("currency", e.to_string()))?;
        let most = places.entry(&claim.key.currency).or_insert(minor);
        *most = (*most).max(claim.amount.places());
        let more = NANO_PLACES.checked_sub(claim.amount.places());
        let nanos = more.and_then(|more| claim.amount.units().checked_mul(10_i128.pow(more)));
        let nanos =
            nanos.ok_or_else(|| bad("amount", format!("{} has more than {NANO_PLACES} decimals, or is too large", claim.amount)))?;
        let other = others.entry(claim.key.clone()).or_default();
        // At most 65,536 of 96 bits each.
        other.nanos += nanos;
        other.items = if other.rows == 0 { claim.items } else { other.items.zip(claim.items).and_then(|(a, b)| a.checked_add(b)) };
        other.rows += 1;
    }
    Ok((others, places))
}

/// Whether a figure is within what rounding, scrapes and the tolerance explain. In half nanos, because that is what rounding to nine decimals
/// leaves open.
fn agrees(cell: &Cell, carried: i128, other: &Other, places: u32, tolerance_nanos: i128) -> bool {
    let unit = if places >= NANO_PLACES { 0 } else { 10_i128.pow(NANO_PLACES - places) };
    let open = unit * i128::from(other.rows.max(1)) + 2 * tolerance_nanos;
    let lowest = 2 * (cell.nanos - cell.late_nanos) - open;
    let highest = 2 * (cell.nanos + carried) + open;
    (lowest..=highest).contains(&(2 * other.nanos))
}

impl Tolerance {
    /// For a figure of so many nanos of a currency with so many places.
    fn nanos(self, figure: i128, minor_places: u32) -> i128 {
        let absolute = i128::from(self.minor) * 10_i128.pow(NANO_PLACES.saturating_sub(minor_places));
        // Sums are of at most 2^80 nanos: 2^17 leaves of a slot with 2^63 each.
        let relative = figure.abs() / 1_000_000 * i128::from(self.ppm) + figure.abs() % 1_000_000 * i128::from(self.ppm) / 1_000_000;
        absolute.max(relative)
    }
}
