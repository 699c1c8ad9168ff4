//! What a client's records come to, period by period, as they stand at a closing; and so what its invoice
//! bills, and what notes give back or add to earlier ones.
//!
//! A period's figures at a closing are a pure function of the records that the closing covers, in any
//! order. At its own closing they are its invoice. At each later closing they are worked out again: late
//! records come in; once the horizon of its customers is over, what was billed by prediction counts what
//! they spent; and a shortfall that changed is set off anew. Where the fee differs from what it was at the
//! closing before, the difference goes on one note. So the documents of a period always add up to its fee
//! as known last, and no document ever changes.
//!
//! LTV on the predicted basis is the sum of the predictions frozen when customers were acquired; on the
//! realised basis, of what the customers acquired in the period spent from their acquisition up to the
//! horizon, refunds included.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::money::NANOS_PER_MICRO;
use serde::{Deserialize, Serialize};

use super::accounting::{Closing, NoTerms, Part, Period, Slots, calendar};
use super::amount::{AmountError, minor_places};
use super::fee::{self, Carry, FeeError, FeeTerms, Fees, LineInput};
use super::record::{Entry, Record};
use super::terms::{Basis, Terms};

/// Leaves that a line lists one by one; of more it says how many. A thousand indices are some 8 KiB of a
/// document. Who has the client's leaves finds those of a line by its campaign and part.
pub const LEAVES_LISTED_MAX: u64 = 1_000;

/// The leaves that a figure is computed from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaves {
    /// How many.
    pub count: u64,
    /// Their indices, in any order; none where there are more than [`LEAVES_LISTED_MAX`].
    listed: Vec<u64>,
}

impl Leaves {
    /// So many, which are not listed yet.
    pub fn counted(count: u64) -> Self {
        Self { count, listed: Vec::new() }
    }

    /// Whether a line lists that many.
    pub fn are_listed(&self) -> bool {
        self.count <= LEAVES_LISTED_MAX
    }

    fn add(&mut self, leaf: u64) {
        self.count += 1;
        self.listed.push(leaf);
        self.cut();
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.listed.extend(&other.listed);
        self.cut();
    }

    fn cut(&mut self) {
        if !self.are_listed() {
            self.listed = Vec::new();
        }
    }

    /// The indices as inclusive ranges, ascending; none where there are more than [`LEAVES_LISTED_MAX`].
    pub fn ranges(&self) -> Vec<[u64; 2]> {
        let mut sorted = self.listed.clone();
        sorted.sort_unstable();
        let mut out: Vec<[u64; 2]> = Vec::new();
        for index in sorted {
            match out.last_mut() {
                Some([_, last]) if index == *last || index == *last + 1 => *last = index,
                _ => out.push([index, index]),
            }
        }
        out
    }
}

impl FromIterator<u64> for Leaves {
    fn from_iter<I: IntoIterator<Item = u64>>(leaves: I) -> Self {
        let mut out = Self::default();
        leaves.into_iter().for_each(|leaf| out.add(leaf));
        out
    }
}

/// One campaign's sums in one part of a period. Sums of 2^63 leaves of 64-bit micros fit into 128 bits of nanos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Settled spend.
    pub spend_nanos: i128,
    /// Predictions of the customers acquired.
    pub predicted_nanos: i128,
    /// What the customers acquired spent within the horizon.
    pub realised_nanos: i128,
    /// Of spend and acquisitions.
    pub counted: Leaves,
    /// Of what customers spent.
    pub valued: Leaves,
}

impl Sums {
    /// Adds others of the same campaign and part.
    pub fn merge(&mut self, other: &Self) {
        self.spend_nanos += other.spend_nanos;
        self.predicted_nanos += other.predicted_nanos;
        self.realised_nanos += other.realised_nanos;
        self.counted.merge(&other.counted);
        self.valued.merge(&other.valued);
    }
}

/// By campaign id.
pub type Campaigns = BTreeMap<String, Sums>;

/// What the log says of one campaign in a part of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFacts {
    /// Campaign id.
    pub campaign: String,
    /// Settled spend in nanos.
    pub spend_nanos: i128,
    /// LTV in nanos, on the part's basis.
    pub ltv_nanos: i128,
    /// The leaves that were summed.
    pub leaves: Leaves,
}

/// A part of a period, accounted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartAccount {
    /// Its time and terms.
    pub part: Part,
    /// What LTV counts, as known at the closing: the realised value once it is over.
    pub basis: Basis,
    /// One a campaign, by campaign id.
    pub lines: Vec<LineFacts>,
    /// Shortfalls from before that are set off here.
    pub carried: Carry,
    /// What the lines are billed, in their order.
    pub fees: Fees,
}

/// What a bound on the fee added or took off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Which.
    pub kind: BoundKind,
    /// In minor units: above 0 for a minimum, below 0 for a cap.
    pub amount_minor: i128,
}

/// A bound on the fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundKind {
    /// The least that a period is billed.
    Minimum,
    /// The most.
    Cap,
}

/// A period, accounted for as of a closing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its parts.
    pub parts: Vec<PartAccount>,
    /// What the terms' minimum added or their cap took off.
    pub bound: Option<Bound>,
    /// Fee before tax, in minor units: of all lines, and the bound.
    pub fee_minor: i128,
}

impl Account {
    /// Whether there is anything to say of the period.
    pub fn is_empty(&self) -> bool {
        self.bound.is_none() && self.parts.iter().all(|part| part.lines.is_empty())
    }
}

/// Why a period's fee is no longer what it was billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Records of it came after its closing.
    LateRecords,
    /// It was billed by prediction, and what its customers spent up to the horizon is known now.
    TrueUp,
    /// A shortfall of an earlier period that is set off in it changed.
    CarriedShortfall,
    /// It did not change: a part of what was billed is given back by agreement.
    Agreed,
}

/// A period whose fee changed since the closing before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The period.
    pub period: Period,
    /// As at the closing before.
    pub before: Account,
    /// As at this closing.
    pub after: Account,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// What a closing gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The period that it closes.
    pub period: Period,
    /// For its invoice.
    pub account: Account,
    /// For notes, the oldest period first.
    pub changes: Vec<Change>,
}

/// Why nothing could be worked out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BooksError {
    /// The currency.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// A figure.
    #[error(transparent)]
    Fee(#[from] FeeError),
    /// The terms.
    #[error(transparent)]
    NoTerms(#[from] NoTerms),
    /// Nothing is closed.
    #[error("no period is closed")]
    NothingClosed,
}

/// What the last of `closings` gives. `closings` are all of a client and currency up to that one in the log's
/// order, `terms` all of theirs in order of version; of `records`, in any order, those count that are in that
/// currency and that the closing covers.
pub fn statement<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    closings: &[Closing],
    terms: &[Terms],
) -> Result<Statement, BooksError> {
    let periods = calendar(closings, terms)?;
    let covered = |closing: Option<&Closing>| Books::of(&periods, closing.map_or(0, |closing| closing.last_seq), records.clone());
    let (this, earlier) = closings.split_last().ok_or(BooksError::NothingClosed)?;
    let (now, before) = (covered(Some(this)), covered(earlier.last()));
    state(periods, &now, &before)
}

/// What the last of `periods` gives, the books being `now` as they stand at its closing and `before` as they stood at
/// the closing before.
pub fn state(mut periods: Vec<Period>, now: &Books, before: &Books) -> Result<Statement, BooksError> {
    let mut now = accounts(&periods, now)?;
    let (period, account) = periods.pop().zip(now.pop()).ok_or(BooksError::NothingClosed)?;
    let mut changes = Vec::new();
    for ((period, before), after) in periods.iter().zip(accounts(&periods, before)?).zip(now) {
        if before.fee_minor != after.fee_minor {
            let reasons = reasons(&before, &after);
            changes.push(Change { period: period.clone(), before, after, reasons });
        }
    }
    Ok(Statement { period, account, changes })
}

/// Up to when horizons are over: what was trued up stays so, also where a skipped month is closed behind a later one.
fn known_until(periods: &[Period]) -> UnixMicros {
    periods.iter().map(|period| period.closing.span.end).max().unwrap_or_default()
}

fn reasons(before: &Account, after: &Account) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let parts = || before.parts.iter().zip(&after.parts);
    let of_same_basis = |(before, after): (&PartAccount, &PartAccount)| before.basis == after.basis && before.lines != after.lines;
    let spent = |part: &PartAccount| part.lines.iter().map(|line| (line.campaign.clone(), line.spend_nanos)).collect::<Vec<_>>();
    if parts().any(of_same_basis) || parts().any(|(before, after)| spent(before) != spent(after)) {
        reasons.push(Reason::LateRecords);
    }
    if parts().any(|(before, after)| before.basis != after.basis) {
        reasons.push(Reason::TrueUp);
    }
    if parts().any(|(before, after)| before.carried != after.carried) {
        reasons.push(Reason::CarriedShortfall);
    }
    reasons
}

/// The sums of a client's records in one currency, by period, part and campaign.
#[derive(Debug, Clone)]
pub struct Books {
    slots: Slots,
    sums: Vec<Vec<Campaigns>>,
}

impl Books {
    /// Empty ones.
    pub fn new(periods: &[Period]) -> Self {
        let sums = periods.iter().map(|period| vec![Campaigns::new(); period.parts.len()]).collect();
        Self { slots: Slots::of(periods), sums }
    }

    /// Of the records up to a sequence.
    pub(super) fn of<'r>(periods: &[Period], last_seq: u64, records: impl Iterator<Item = &'r Record> + Clone) -> Self {
        let mut books = Self::new(periods);
        let currency = periods.last().map_or("", |period| &period.closing.currency);
        let records = records.filter(|record| record.currency == currency && record.client_seq <= last_seq);
        let mut acquired: BTreeMap<CustomerKey, (UnixMicros, &'r str)> = BTreeMap::new();
        for record in records.clone() {
            match &record.entry {
                Entry::Spend { campaign, nanos, .. } => books.add(record.at, campaign, |sums| {
                    sums.spend_nanos += i128::from(*nanos);
                    sums.counted.add(record.leaf);
                }),
                Entry::Acquired { campaign, customer, predicted_micros } => {
                    books.add(record.at, campaign, |sums| {
                        sums.predicted_nanos += i128::from(*predicted_micros) * NANOS_PER_MICRO;
                        sums.counted.add(record.leaf);
                    });
                    acquired.entry(*customer).or_insert((record.at, campaign));
                }
                Entry::Value { .. } => {}
            }
        }
        for record in records {
            if let Entry::Value { customer, micros } = &record.entry
                && let Some((since, campaign)) = acquired.get(customer)
                && books.slots.at(*since).is_some_and(|slot| slot.counts(*since, record.at))
            {
                books.add(*since, campaign, |sums| {
                    sums.realised_nanos += i128::from(*micros) * NANOS_PER_MICRO;
                    sums.valued.add(record.leaf);
                });
            }
        }
        books
    }

    /// All lines: period and part of it, both from 0, campaign and sums.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, usize, &str, &Sums)> {
        let parts =
            self.sums.iter().enumerate().flat_map(|(period, parts)| parts.iter().enumerate().map(move |(part, sums)| (period, part, sums)));
        parts.flat_map(|(period, part, campaigns)| campaigns.iter().map(move |(campaign, sums)| (period, part, campaign.as_str(), sums)))
    }

    /// The campaigns of a part of a period; none where there is no such part.
    pub(super) fn part(&self, period: usize, part: usize) -> Option<&Campaigns> {
        self.sums.get(period)?.get(part)
    }

    /// The same, to change them.
    pub(super) fn part_mut(&mut self, period: usize, part: usize) -> Option<&mut Campaigns> {
        self.sums.get_mut(period)?.get_mut(part)
    }

    /// Changes the sums of a campaign at an instant; nothing where the instant is not closed yet.
    pub fn add(&mut self, at: UnixMicros, campaign: &str, change: impl FnOnce(&mut Sums)) {
        let Some(slot) = self.slots.at(at) else { return };
        let campaigns = &mut self.sums[slot.period][slot.part];
        match campaigns.get_mut(campaign) {
            Some(sums) => change(sums),
            None => change(campaigns.entry(campaign.to_owned()).or_default()),
        }
    }
}

/// The accounts of all periods as of the last one's closing, the oldest first: a shortfall is carried from part to part.
fn accounts(periods: &[Period], books: &Books) -> Result<Vec<Account>, BooksError> {
    let end = known_until(periods);
    let mut carried = Carry::default();
    let mut out = Vec::with_capacity(periods.len());
    for (period, sums) in periods.iter().zip(&books.sums) {
        let mut parts = Vec::with_capacity(period.parts.len());
        for (part, campaigns) in period.parts.iter().zip(sums) {
            let account = account_part(part, campaigns, end, carried)?;
            carried = account.fees.carry.clone();
            parts.push(account);
        }
        out.push(account(parts)?);
    }
    Ok(out)
}

fn account_part(part: &Part, campaigns: &Campaigns, end: UnixMicros, carried: Carry) -> Result<PartAccount, BooksError> {
    let terms = &part.terms;
    let basis = if part.matures() <= end { Basis::Realised } else { terms.basis };
    let line = |(campaign, sums): (&String, &Sums)| {
        let mut leaves = sums.counted.clone();
        let ltv_nanos = match basis {
            Basis::Predicted => sums.predicted_nanos,
            Basis::Realised => {
                leaves.merge(&sums.valued);
                sums.realised_nanos
            }
        };
        LineFacts { campaign: campaign.clone(), spend_nanos: sums.spend_nanos, ltv_nanos, leaves }
    };
    let lines: Vec<LineFacts> = campaigns.iter().map(line).collect();
    let input = |line: &LineFacts| LineInput { campaign: line.campaign.clone(), spend_nanos: line.spend_nanos, ltv_nanos: line.ltv_nanos };
    let inputs: Vec<LineInput> = lines.iter().map(input).collect();
    let fee_terms = FeeTerms {
        baseline_ppm: terms.baseline_ppm,
        share_ppm: terms.share_ppm,
        netting: terms.netting,
        carry_shortfall: terms.carry_shortfall,
        minor_places: minor_places(&terms.currency)?,
    };
    let fees = fee::fees(&inputs, &fee_terms, &carried)?;
    Ok(PartAccount { part: part.clone(), basis, lines, carried, fees })
}

/// The parts together, within the bounds of the terms at the period's end.
fn account(parts: Vec<PartAccount>) -> Result<Account, BooksError> {
    let overflow = FeeError::Overflow { what: "fee" };
    let earned = parts.iter().try_fold(0_i128, |sum, part| sum.checked_add(part.fees.fee_minor)).ok_or(overflow)?;
    let bounds = parts.last().map_or((0, 0), |last| (i128::from(last.part.terms.minimum_minor), i128::from(last.part.terms.cap_minor)));
    let bound = match bounds {
        (minimum, _) if earned < minimum => Some(Bound { kind: BoundKind::Minimum, amount_minor: minimum - earned }),
        (_, cap) if cap > 0 && earned > cap => Some(Bound { kind: BoundKind::Cap, amount_minor: cap - earned }),
        _ => None,
    };
    let fee_minor = earned + bound.map_or(0, |bound| bound.amount_minor);
    Ok(Account { parts, bound, fee_minor })
}

#[cfg(test)]
#[path = "books_tests.rs"]
pub(crate) mod tests;
