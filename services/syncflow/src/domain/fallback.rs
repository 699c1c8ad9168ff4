//! What a bid stands on when SyncValue does not say what its customer is worth: the median of what it said of the campaign's
//! customers lately, times the platform's multiplier, as the product's documents have it; else the campaign's prior.
//!
//! The median, because values of customers are skewed and a mean of a few follows the largest of them. The multiplier is of the
//! price alone: what is recorded as predicted, and what an invoice may count, is the median itself. An outage of ours on
//! a platform with a multiplier above 1 must not raise our fee.
//!
//! [`Recent`] is written by every prediction that comes in time and read while none does. It has no lock: a slot is two
//! words, each complete in itself, and a median of values that were overwritten meanwhile is one of recent values all the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use kiki::leaf;
use kiki::money::{Micros, PPM};

use super::auction::Prediction;
use super::targeting::Campaign;

/// The model's name where the median stood in.
pub const MEDIAN_MODEL: &str = "recent-median";
/// Predictions that count: a kilobyte a campaign, and some minutes of a quiet one.
const WINDOW: usize = 64;
/// No prediction yet. SyncValue predicts no such value.
const EMPTY: i64 = i64::MIN;

/// What the product's documents set; any other platform has 1.
const MULTIPLIERS: [(&str, u32); 7] = [
    ("google_ads", 1_000_000),
    ("meta", 1_000_000),
    ("tradedesk", 1_000_000),
    ("amazon", 1_000_000),
    ("x", 750_000),
    ("linkedin", 1_200_000),
    ("tiktok", 1_500_000),
];

/// What became of asking SyncValue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicted {
    /// It said so.
    Said(Prediction),
    /// Nobody can say: the request names no customer, or one that SyncValue has never seen.
    Unknown,
    /// It was late, failed, or is not asked because its circuit breaker is open.
    Missing,
}

/// The value that a bid of the campaign stands on. What was said goes among the recent predictions. `multiplier_ppm`: the
/// platform's.
#[must_use]
pub fn settled(predicted: Predicted, campaign: &Campaign, multiplier_ppm: impl FnOnce() -> u32) -> Prediction {
    match predicted {
        Predicted::Said(prediction) => {
            campaign.recent.note(prediction.ltv, prediction.q05);
            prediction
        }
        Predicted::Unknown => Prediction::prior(campaign),
        Predicted::Missing => match campaign.recent.median() {
            None => Prediction::prior(campaign),
            Some((ltv, q05)) => {
                let (model, status) = (MEDIAN_MODEL.into(), leaf::PredictionStatus::Median);
                Prediction { ltv, q05: Some(q05), model, status, multiplier_ppm: multiplier_ppm() }
            }
        },
    }
}

/// So many times the value, rounded down.
#[must_use]
pub fn times(value: Micros, multiplier_ppm: u32) -> Micros {
    let product = (i128::from(value.get()) * i128::from(multiplier_ppm)).div_euclid(PPM);
    Micros::new(i64::try_from(product).unwrap_or(if product < 0 { i64::MIN } else { i64::MAX }))
}

/// The latest predictions of a campaign.
#[derive(Debug)]
pub struct Recent {
    next: AtomicUsize,
    /// Means, and 5 % quantiles; the mean again where there is no interval.
    means: [AtomicI64; WINDOW],
    quantiles: [AtomicI64; WINDOW],
}

impl Default for Recent {
    fn default() -> Self {
        let empty = || std::array::from_fn(|_| AtomicI64::new(EMPTY));
        Self { next: AtomicUsize::new(0), means: empty(), quantiles: empty() }
    }
}

impl Recent {
    /// A prediction came in time.
    pub fn note(&self, mean: Micros, q05: Option<Micros>) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % WINDOW;
        self.means[at].store(mean.get(), Ordering::Relaxed);
        self.quantiles[at].store(q05.unwrap_or(mean).get(), Ordering::Relaxed);
    }

    /// The medians of the means and of the quantiles, of two middle values the lower; nothing before the first prediction.
    #[must_use]
    pub fn median(&self) -> Option<(Micros, Micros)> {
        Some((median(&self.means)?, median(&self.quantiles)?))
    }
}

fn median(slots: &[AtomicI64; WINDOW]) -> Option<Micros> {
    let mut values = [EMPTY; WINDOW];
    let mut count = 0;
    for value in slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|value| *value != EMPTY) {
        values[count] = value;
        count += 1;
    }
    let middle = count.checked_sub(1)? / 2;
    Some(Micros::new(*values[..count].select_nth_unstable(middle).1))
}

/// The platforms' multipliers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipliers(BTreeMap<String, u32>);

impl Default for Multipliers {
    fn default() -> Self {
        Self(MULTIPLIERS.map(|(platform, ppm)| (platform.to_owned(), ppm)).into())
    }
}

impl Multipliers {
    /// The documents' own, but for those that are named.
    #[must_use]
    pub fn with(named: impl IntoIterator<Item = (String, u32)>) -> Self {
        let mut all = Self::default();
        all.0.extend(named);
        all
    }

    /// The platform's, parts per million.
    #[must_use]
    pub fn of(&self, platform: &str) -> u32 {
        self.0.get(platform).copied().unwrap_or(PPM as u32)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn campaign() -> Campaign {
        let leaf = leaf::Campaign { campaign: "spring".into(), currency: "USD".into(), prior_ltv_micros: 7, ..Default::default() };
        Campaign::compile("acme", &leaf, 90).unwrap()
    }

    fn said(ltv: i64) -> Predicted {
        let (ltv, q05) = (Micros::new(ltv), Some(Micros::new(ltv / 2)));
        let status = leaf::PredictionStatus::Ok;
        Predicted::Said(Prediction { ltv, q05, model: "drnn-1".into(), status, multiplier_ppm: PPM as u32 })
    }

    #[test]
    fn a_missing_prediction_is_the_median_of_recent_ones_and_before_them_the_prior() {
        let campaign = campaign();
        let missing = || settled(Predicted::Missing, &campaign, || 1_500_000);
        assert_eq!(missing(), Prediction::prior(&campaign));
        for ltv in [10, 1_000, 20, 30] {
            assert_eq!(settled(said(ltv), &campaign, || 1_500_000).ltv.get(), ltv);
        }
        let fallback = missing();
        assert_eq!((fallback.ltv, fallback.q05), (Micros::new(20), Some(Micros::new(10))), "of two middle values the lower");
        assert_eq!((fallback.status, &*fallback.model), (leaf::PredictionStatus::Median, MEDIAN_MODEL));
        assert_eq!(fallback.multiplier_ppm, 1_500_000);
        assert_eq!(settled(Predicted::Unknown, &campaign, || 1_500_000), Prediction::prior(&campaign), "a stranger is no fallback");
    }

    #[test]
    fn the_multiplier_is_rounded_down_and_bounded() {
        let times = |value, ppm| times(Micros::new(value), ppm).get();
        assert_eq!((times(3, 750_000), times(3, 1_500_000), times(3, 0), times(-3, 750_000)), (2, 4, 0, -3));
        assert_eq!((times(i64::MAX, u32::MAX), times(i64::MIN, u32::MAX)), (i64::MAX, i64::MIN));
    }

    #[test]
    fn multipliers_are_the_documents_unless_others_are_named() {
        let all = Multipliers::with([("x".to_owned(), 500_000), ("y".to_owned(), 2_000_000)]);
        assert_eq!(["x", "y", "tiktok", "another"].map(|platform| all.of(platform)), [500_000, 2_000_000, 1_500_000, 1_000_000]);
        assert_eq!(MULTIPLIERS.map(|(platform, _)| Multipliers::default().of(platform)), MULTIPLIERS.map(|(_, ppm)| ppm));
    }

    proptest! {
        #[test]
        fn the_median_is_of_the_last_predictions_alone(values in prop::collection::vec(-1_000..1_000_i64, 1..200)) {
            let recent = Recent::default();
            values.iter().for_each(|value| recent.note(Micros::new(*value), None));
            let mut last = values[values.len().saturating_sub(WINDOW)..].to_vec();
            last.sort_unstable();
            let expected = Micros::new(last[(last.len() - 1) / 2]);
            prop_assert_eq!(recent.median(), Some((expected, expected)));
        }
    }
}
