//! What an impression is worth: P(conversion) x predicted lifetime value / target return.
//!
//! The units cancel: a probability in parts per billion times micros, over a return in parts per million, is nanos per
//! impression. So the price is one integer division, rounded down, with no float and nothing to round twice.
//!
//! P(conversion) is our own estimate, the mean of a Beta posterior: the campaign's prior counts as
//! [`PRIOR_IMPRESSIONS`] impressions, and what the log has billed and attributed counts as itself.

use kiki::money::{Micros, Nanos, PPM};

/// How many billed impressions a campaign's prior weighs as much as.
pub const PRIOR_IMPRESSIONS: u64 = 1_000;

/// Parts per billion in a certainty.
const CERTAIN_PPB: u128 = 1_000_000_000;

/// P(conversion) of one impression, parts per billion, rounded down.
#[must_use]
pub fn p_conversion_ppb(prior_ppb: u32, billed: u64, conversions: u64) -> u32 {
    let prior = u128::from(prior_ppb).min(CERTAIN_PPB) * u128::from(PRIOR_IMPRESSIONS);
    let seen = u128::from(conversions.min(billed)) * CERTAIN_PPB;
    let mean = (prior + seen) / (u128::from(PRIOR_IMPRESSIONS) + u128::from(billed));
    u32::try_from(mean).unwrap_or(u32::MAX)
}

/// What is priced of a prediction: its mean, less a share of the distance to its 5 % quantile, rounded down. That is the mean of
/// the two as the share weighs them; so an uncertain prediction bids less than a certain one of the same mean. Without an
/// interval, or where the quantile is above the mean, it is the mean.
#[must_use]
pub fn cautious(mean: Micros, q05: Option<Micros>, caution_ppm: u32) -> Micros {
    let Some(q05) = q05.filter(|q05| *q05 < mean) else { return mean };
    let distance = i128::from(mean.get()) - i128::from(q05.get());
    let off = ((distance * i128::from(caution_ppm) + PPM - 1) / PPM).min(distance);
    Micros::new(i64::try_from(i128::from(mean.get()) - off).unwrap_or(i64::MAX)) // between the two, which fit
}

/// What goes into a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valuation {
    /// P(conversion), parts per billion.
    pub p_conversion_ppb: u32,
    /// Predicted lifetime value of a customer who converts.
    pub ltv: Micros,
    /// The return that is asked for, parts per million; 0 or less is worth no bid.
    pub target_roas_ppm: i64,
}

/// What the impression is worth, rounded down; never below 0.
#[must_use]
pub fn worth(valuation: &Valuation) -> Nanos {
    if valuation.target_roas_ppm <= 0 || valuation.ltv <= Micros::ZERO {
        return Nanos::ZERO;
    }
    let worth = i128::from(valuation.p_conversion_ppb) * i128::from(valuation.ltv.get());
    Nanos::new(i64::try_from(worth / i128::from(valuation.target_roas_ppm)).unwrap_or(i64::MAX))
}

/// The most that an impression of the campaign may cost; a cap of 0 is none.
#[must_use]
pub fn capped(price: Nanos, cap: Nanos) -> Nanos {
    if cap > Nanos::ZERO { price.min(cap) } else { price }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_in_a_thousand_of_300_at_3x_is_a_tenth() {
        let valuation = Valuation { p_conversion_ppb: 1_000_000, ltv: Micros::new(300_000_000), target_roas_ppm: 3_000_000 };
        assert_eq!(worth(&valuation), Nanos::new(100_000_000)); // 0.10 an impression, a CPM of 100
        assert_eq!(worth(&Valuation { target_roas_ppm: 0, ..valuation }), Nanos::ZERO);
        assert_eq!(worth(&Valuation { ltv: Micros::new(-1), ..valuation }), Nanos::ZERO);
    }

    #[test]
    fn a_cap_is_the_most_and_0_is_none() {
        let price = Nanos::new(7);
        assert_eq!([9, 5, 0].map(|cap| capped(price, Nanos::new(cap)).get()), [7, 5, 7]);
    }

    #[test]
    fn caution_goes_from_the_mean_to_the_quantile() {
        let (mean, q05) = (Micros::new(1_000), Some(Micros::new(200)));
        assert_eq!([0, 250_000, 1_000_000, u32::MAX].map(|caution| cautious(mean, q05, caution).get()), [1_000, 800, 200, 200]);
        assert_eq!(cautious(mean, q05, 1), Micros::new(999), "rounded down");
        assert_eq!(cautious(mean, None, 1_000_000), mean);
        assert_eq!(cautious(mean, Some(Micros::new(2_000)), 1_000_000), mean);
        assert_eq!(cautious(Micros::new(i64::MAX), Some(Micros::new(i64::MIN)), 1_000_000), Micros::new(i64::MIN));
    }

    #[test]
    fn the_prior_gives_way_to_what_was_seen() {
        assert_eq!(p_conversion_ppb(2_000_000, 0, 0), 2_000_000);
        assert_eq!(p_conversion_ppb(2_000_000, 1_000, 4), 3_000_000);
        assert_eq!(p_conversion_ppb(2_000_000, 1_000_000_000, 5_000_000), 4_999_997);
        assert_eq!(p_conversion_ppb(u32::MAX, 10, 99), 1_000_000_000);
    }

    proptest! {
        #[test]
        fn is_never_above_what_the_return_allows(p in 0..=1_000_000_000_u32, ltv in 0..=i64::MAX, roas in 1..=i64::MAX) {
            let worth = worth(&Valuation { p_conversion_ppb: p, ltv: Micros::new(ltv), target_roas_ppm: roas });
            prop_assert!(worth.wide() * i128::from(roas) <= i128::from(p) * i128::from(ltv));
            prop_assert!(worth >= Nanos::ZERO);
        }

        #[test]
        fn a_probability_stays_one(prior: u32, billed: u64, conversions: u64) {
            prop_assert!(p_conversion_ppb(prior, billed, conversions) <= 1_000_000_000);
        }
    }
}
