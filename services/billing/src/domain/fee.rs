//! The fee: `share x max(0, LTV - baseline x spend)`, exactly.
//!
//! All arithmetic is on `i128` with overflow checked. A margin is held in units of 10^-15 of the
//! currency (nanos times parts per million), a fee before rounding in 10^-21, so that nothing is
//! rounded before the one rounding to the currency's minor unit, half away from zero. An `i128`
//! then has room for fees up to 1.7e17 of the currency.
//!
//! Netting, as the terms say:
//! - per client (the default): while no line is below its baseline each line is billed
//!   `round(share x margin)`; as soon as one is, the whole is `round(share x max(0, net))`, spread
//!   over the winning lines in proportion to their margins, the odd units going to the largest
//!   remainders. A client who lost overall owes nothing.
//! - per campaign: each line is billed `round(share x max(0, margin))`.
//!
//! A shortfall that is carried from before is set off like a line that lost: of the client against the
//! net, of a campaign against its own margin.
//!
//! Invariants: the fees of the lines sum to the total; the order of lines changes nothing; no fee
//! is below zero; at or below the baseline the fee is zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Parts per million in one.
const PPM: i128 = 1_000_000;

/// Decimal places of a fee before rounding: 9 of the nanos, 6 of the baseline, 6 of the share.
const EXACT_FEE_PLACES: u32 = 21;

/// Decimal places of a margin before rounding: 9 of the nanos and 6 of the baseline.
const EXACT_MARGIN_PLACES: u32 = 15;

/// Over what gains and losses are set off against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Netting {
    /// Over all campaigns of the client.
    Client,
    /// Each campaign by itself.
    Campaign,
}

/// What of the terms the fee depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeTerms {
    /// Baseline return on ad spend, parts per million: 3.0 is 3,000,000. At least 0.
    pub baseline_ppm: i64,
    /// Share of the margin, parts per million: 10 % is 100,000. From 0 to 1,000,000.
    pub share_ppm: i64,
    /// What is set off against what.
    pub netting: Netting,
    /// Whether a shortfall is set off against later margins.
    pub carry_shortfall: bool,
    /// Decimal places of the currency's minor unit.
    pub minor_places: u32,
}

/// Shortfalls that are still to be set off, in 10^-15 of the currency; none is below 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carry {
    /// Of all campaigns together.
    pub client: i128,
    /// Of single campaigns, where each is netted by itself.
    pub campaigns: BTreeMap<String, i128>,
}

impl Carry {
    /// The whole of it.
    pub fn total(&self) -> Result<i128, FeeError> {
        sum("carried shortfall", self.campaigns.values().copied().chain([self.client]))
    }

    /// What is set off under a netting, in minor units, rounded half away from zero: for display.
    pub fn set_off_minor(&self, netting: Netting, minor_places: u32) -> Result<i128, FeeError> {
        let exact = match netting {
            Netting::Client => self.total()?,
            Netting::Campaign => sum("carried shortfall", self.campaigns.values().copied())?,
        };
        round_to(exact, EXACT_MARGIN_PLACES, minor_places)
    }

    fn of(&self, campaign: &str) -> i128 {
        self.campaigns.get(campaign).copied().unwrap_or(0)
    }
}

/// One campaign's sums over the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineInput {
    /// The campaign's id: equal remainders are broken by it.
    pub campaign: String,
    /// Settled spend in nanos of the currency.
    pub spend_nanos: i128,
    /// Lifetime value of the customers acquired, in nanos of the currency.
    pub ltv_nanos: i128,
}

/// How a line stands to its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineStatus {
    /// It earned more than the baseline.
    AboveBaseline,
    /// It earned the baseline or less.
    BelowBaseline,
    /// Value without spend has no return on spend: it is looked at by a person, not billed or netted.
    HeldForReview,
}

/// One line's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFee {
    /// How it stands to the baseline.
    pub status: LineStatus,
    /// LTV less baseline times spend, rounded to the minor unit; below zero is a shortfall.
    pub margin_minor: i128,
    /// What the line is billed, in minor units.
    pub fee_minor: i128,
}

/// The result for all lines of one client and currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fees {
    /// In the order of the input.
    pub lines: Vec<LineFee>,
    /// Margin over which the fee is taken, in minor units: per client the net of the lines as
    /// printed, per campaign the sum of what is above the baseline. At least 0.
    pub margin_minor: i128,
    /// How far the client (or, per campaign, the campaigns that lost) stayed below the baseline, in minor units.
    pub shortfall_minor: i128,
    /// Sum of the lines' fees, in minor units.
    pub fee_minor: i128,
    /// What is left to set off later; nothing where the terms carry nothing.
    pub carry: Carry,
}

/// Why no fee could be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeeError {
    /// A figure is beyond 128 bits.
    #[error("{what} overflows 128 bits")]
    Overflow {
        /// The figure.
        what: &'static str,
    },
    /// Terms outside their limits.
    #[error("{field} is {value} but must be from {min} to {max}")]
    Terms {
        /// The term.
        field: &'static str,
        /// Its value.
        value: i64,
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
}

/// Largest baseline: a thousandfold return on spend, parts per million.
pub const BASELINE_PPM_MAX: i64 = 1_000_000_000;
/// Largest share: all of the margin, parts per million.
pub const SHARE_PPM_MAX: i64 = 1_000_000;
/// Largest number of decimal places of a minor unit: ISO 4217 has none above 4.
pub const MINOR_PLACES_MAX: u32 = 4;

/// Computes the fee of every line and their total, with what is `carried` from before set off.
pub fn fees(lines: &[LineInput], terms: &FeeTerms, carried: &Carry) -> Result<Fees, FeeError> {
    check_terms(terms)?;
    let margins = lines.iter().map(|line| margin_exact(line, terms)).collect::<Result<Vec<_>, _>>()?;
    let statuses: Vec<_> = lines.iter().zip(&margins).map(|(line, &m)| status(line, m)).collect();
    let fee_minor = match terms.netting {
        Netting::Campaign => each_by_itself(lines, &margins, &statuses, terms, carried)?,
        Netting::Client => netted(lines, &margins, &statuses, terms, carried)?,
    };
    let carry = if terms.carry_shortfall { left(lines, &margins, &statuses, terms, carried)? } else { Carry::default() };
    let mut out = Vec::with_capacity(lines.len());
    for ((&status, &margin), fee) in statuses.iter().zip(&margins).zip(fee_minor) {
        let margin_minor = round_to(margin, EXACT_MARGIN_PLACES, terms.minor_places)?;
        out.push(LineFee { status, margin_minor, fee_minor: fee });
    }
    totals(lines, out, terms, carried, carry)
}

fn totals(inputs: &[LineInput], lines: Vec<LineFee>, terms: &FeeTerms, carried: &Carry, carry: Carry) -> Result<Fees, FeeError> {
    let counted = || inputs.iter().zip(&lines).filter(|(_, line)| line.status != LineStatus::HeldForReview);
    let (margin_minor, shortfall_minor) = match terms.netting {
        Netting::Client => {
            let set_off = carried.set_off_minor(terms.netting, terms.minor_places)?;
            let net = sum("net margin", counted().map(|(_, line)| line.margin_minor).chain([-set_off]))?;
            (net.max(0), (-net).max(0))
        }
        Netting::Campaign => {
            let net = |(input, line): (&LineInput, &LineFee)| {
                let set_off = round_to(carried.of(&input.campaign), EXACT_MARGIN_PLACES, terms.minor_places)?;
                sum("margin", [line.margin_minor, -set_off].into_iter())
            };
            let nets = counted().map(net).collect::<Result<Vec<_>, _>>()?;
            (sum("margin", nets.iter().map(|net| *net.max(&0)))?, sum("shortfall", nets.iter().map(|net| (-net).max(0)))?)
        }
    };
    let fee_minor = sum("fee", lines.iter().map(|line| line.fee_minor))?;
    Ok(Fees { lines, margin_minor, shortfall_minor, fee_minor, carry })
}

/// What is still below the baseline after this, in 10^-15 of the currency.
fn left(lines: &[LineInput], margins: &[i128], statuses: &[LineStatus], terms: &FeeTerms, carried: &Carry) -> Result<Carry, FeeError> {
    let counted = || (0..lines.len()).filter(|&i| statuses[i] != LineStatus::HeldForReview);
    match terms.netting {
        Netting::Client => {
            let net = sum("net margin", counted().map(|i| margins[i]).chain([-carried.total()?]))?;
            Ok(Carry { client: (-net).max(0), campaigns: BTreeMap::new() })
        }
        Netting::Campaign => {
            let mut carry = carried.clone();
            for i in counted() {
                let net = sum("margin", [margins[i], -carried.of(&lines[i].campaign)].into_iter())?;
                carry.campaigns.remove(&lines[i].campaign);
                if net < 0 {
                    carry.campaigns.insert(lines[i].campaign.clone(), -net);
                }
            }
            Ok(carry)
        }
    }
}

fn check_terms(terms: &FeeTerms) -> Result<(), FeeError> {
    let places = i64::from(terms.minor_places);
    for (field, value, max) in [
        ("baseline_ppm", terms.baseline_ppm, BASELINE_PPM_MAX),
        ("share_ppm", terms.share_ppm, SHARE_PPM_MAX),
        ("minor_places", places, i64::from(MINOR_PLACES_MAX)),
    ] {
        if !(0..=max).contains(&value) {
            return Err(FeeError::Terms { field, value, min: 0, max });
        }
    }
    Ok(())
}

/// LTV less baseline times spend, in 10^-15 of the currency.
fn margin_exact(line: &LineInput, terms: &FeeTerms) -> Result<i128, FeeError> {
    let overflow = FeeError::Overflow { what: "margin" };
    let value = line.ltv_nanos.checked_mul(PPM).ok_or(overflow.clone())?;
    let owed = line.spend_nanos.checked_mul(i128::from(terms.baseline_ppm)).ok_or(overflow.clone())?;
    value.checked_sub(owed).ok_or(overflow)
}

/// Value without spend is held. A negative value without spend (refunds of earlier customers) is
/// not: leaving it out would raise our fee.
fn status(line: &LineInput, margin: i128) -> LineStatus {
    if line.spend_nanos <= 0 && margin > 0 {
        LineStatus::HeldForReview
    } else if margin > 0 {
        LineStatus::AboveBaseline
    } else {
        LineStatus::BelowBaseline
    }
}

fn fee_of(margin: i128, terms: &FeeTerms) -> Result<i128, FeeError> {
    let exact = margin.max(0).checked_mul(i128::from(terms.share_ppm));
    round_to(exact.ok_or(FeeError::Overflow { what: "fee" })?, EXACT_FEE_PLACES, terms.minor_places)
}

fn each_by_itself(
    lines: &[LineInput],
    margins: &[i128],
    statuses: &[LineStatus],
    terms: &FeeTerms,
    carried: &Carry,
) -> Result<Vec<i128>, FeeError> {
    let billed = |i: usize| match statuses[i] {
        LineStatus::HeldForReview => Ok(0),
        LineStatus::AboveBaseline | LineStatus::BelowBaseline => {
            let net = sum("margin", [margins[i], -carried.of(&lines[i].campaign)].into_iter());
            fee_of(net?, terms)
        }
    };
    (0..lines.len()).map(billed).collect()
}

fn netted(
    lines: &[LineInput],
    margins: &[i128],
    statuses: &[LineStatus],
    terms: &FeeTerms,
    carried: &Carry,
) -> Result<Vec<i128>, FeeError> {
    let counted = || (0..lines.len()).filter(|&i| statuses[i] != LineStatus::HeldForReview);
    let set_off = carried.total()?;
    if set_off == 0 && !counted().any(|i| margins[i] < 0) {
        return each_by_itself(lines, margins, statuses, terms, carried);
    }
    let net = sum("net margin", counted().map(|i| margins[i]).chain([-set_off]))?;
    let total = fee_of(net, terms)?;
    let winners: Vec<usize> = counted().filter(|&i| margins[i] > 0).collect();
    let weights: Vec<Weight<'_>> = winners.iter().map(|&i| Weight { weight: margins[i], key: &lines[i].campaign }).collect();
    let mut out = vec![0; lines.len()];
    if total > 0 {
        for (&i, part) in winners.iter().zip(allocate(total, &weights)?) {
            out[i] = part;
        }
    }
    Ok(out)
}

/// A claim to a part of a total.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    /// Above 0.
    pub weight: i128,
    /// Breaks ties between equal remainders, the smaller first.
    pub key: &'a str,
}

/// Splits `total` (at least 0) in proportion to the weights: each gets its floor, then the units
/// left over go one each to the largest remainders, then to the smaller key. The parts sum to
/// `total`. No weights: no parts.
pub fn allocate(total: i128, weights: &[Weight<'_>]) -> Result<Vec<i128>, FeeError> {
    let overflow = || FeeError::Overflow { what: "allocation" };
    // Weights are multiples of a large common factor (nanos x ppm): without it the products stay small.
    let divisor = weights.iter().fold(0, |acc, w| gcd(acc, w.weight));
    if divisor == 0 {
        return Ok(Vec::new());
    }
    let scaled: Vec<i128> = weights.iter().map(|w| w.weight / divisor).collect();
    let whole = sum("allocation", scaled.iter().copied())?;
    let mut parts = Vec::with_capacity(scaled.len());
    let mut remainders = Vec::with_capacity(scaled.len());
    for (i, weight) in scaled.iter().enumerate() {
        let product = total.checked_mul(*weight).ok_or_else(overflow)?;
        parts.push(product / whole);
        remainders.push((product % whole, i));
    }
    let left = total - sum("allocation", parts.iter().copied())?;
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| weights[a.1].key.cmp(weights[b.1].key)));
    let left = usize::try_from(left).map_err(|_| overflow())?;
    for &(_, i) in remainders.iter().take(left) {
        parts[i] += 1;
    }
    Ok(parts)
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn sum(what: &'static str, items: impl Iterator<Item = i128>) -> Result<i128, FeeError> {
    items.into_iter().try_fold(0_i128, i128::checked_add).ok_or(FeeError::Overflow { what })
}

/// Rounds `units` of `10^-from` to units of `10^-to`, half away from zero.
pub fn round_to(units: i128, from: u32, to: u32) -> Result<i128, FeeError> {
    let overflow = FeeError::Overflow { what: "rounding" };
    let unit = 10_i128.checked_pow(from.checked_sub(to).ok_or(overflow.clone())?).ok_or(overflow)?;
    Ok(div_round(units, unit))
}

/// `a / b` for `b` above 0, rounded half away from zero.
fn div_round(a: i128, b: i128) -> i128 {
    let (quotient, remainder) = (a / b, a % b);
    // |remainder| < b, so the subtraction cannot overflow where doubling could.
    if remainder.unsigned_abs() >= b.unsigned_abs() - remainder.unsigned_abs() { quotient + a.signum() } else { quotient }
}

/// The tax on a net amount, both in minor units: rounded half away from zero, once.
pub fn tax(net_minor: i128, rate_ppm: u32) -> Result<i128, FeeError> {
    let exact = net_minor.checked_mul(i128::from(rate_ppm)).ok_or(FeeError::Overflow { what: "tax" })?;
    Ok(div_round(exact, PPM))
}

/// `numerator / denominator` as an integer count of `10^-places`, from exact sums, for display
/// only; nothing where the denominator is not above zero.
pub fn ratio(numerator: i128, denominator: i128, places: u32) -> Result<Option<i128>, FeeError> {
    if denominator <= 0 {
        return Ok(None);
    }
    let scale = 10_i128.checked_pow(places).ok_or(FeeError::Overflow { what: "ratio" })?;
    let scaled = numerator.checked_mul(scale).ok_or(FeeError::Overflow { what: "ratio" })?;
    Ok(Some(div_round(scaled, denominator)))
}

/// Return on ad spend, LTV over spend, in 10^-4.
pub fn roas_4dp(spend_nanos: i128, ltv_nanos: i128) -> Result<Option<i128>, FeeError> {
    ratio(ltv_nanos, spend_nanos, 4)
}

/// How much more than the baseline was earned, percent in 10^-2: margin over baseline times spend.
pub fn improvement_pct_2dp(spend_nanos: i128, ltv_nanos: i128, baseline_ppm: i64) -> Result<Option<i128>, FeeError> {
    let overflow = || FeeError::Overflow { what: "improvement" };
    let owed = spend_nanos.checked_mul(i128::from(baseline_ppm)).ok_or_else(overflow)?;
    let value = ltv_nanos.checked_mul(PPM).ok_or_else(overflow)?;
    // 4 places of a ratio are 2 places of a percentage.
    ratio(value.checked_sub(owed).ok_or_else(overflow)?, owed, 4)
}

/// What the client keeps over what they pay, percent in 10^-2; nothing where nothing is paid.
pub fn roi_pct_2dp(margin_minor: i128, fee_minor: i128) -> Result<Option<i128>, FeeError> {
    ratio(margin_minor - fee_minor, fee_minor, 4)
}

#[cfg(test)]
#[path = "fee_tests.rs"]
mod tests;
