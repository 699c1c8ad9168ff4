//! What predictions were worth, measured as the project's protocol for lifetime value has it.
//!
//! Ranks are midranks; equal predictions share what they predict. Sums run in the order of the customers given.

use crate::domain::model::Forecast;

/// A customer's prediction and what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// What was predicted, currency units.
    pub forecast: Forecast,
    /// What was spent.
    pub spend: f64,
    /// On how many days.
    pub count: f64,
    /// The week of the first purchase.
    pub cohort: i64,
}

/// The figures. Better is larger but for `brier`, `mae`, `decile_error` and `count_mae`; `below_q95` should be .95.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Metrics {
    /// Customers.
    pub customers: usize,
    /// Rank correlation of the mean with what was spent.
    pub spearman: f64,
    /// Gini of what was spent in the order of the mean, over that in its own order.
    pub ngini: f64,
    /// The chance that of a buyer and another the buyer has the higher P(active).
    pub auc: f64,
    /// Mean squared error of P(active).
    pub brier: f64,
    /// Mean absolute error of the median.
    pub mae: f64,
    /// Mean over ten deciles of the mean of |predicted - real| / real.
    pub decile_error: f64,
    /// 1 - |sum predicted - sum real| / sum real.
    pub total_accuracy: f64,
    /// Mean over acquisition weeks (of 20 customers or more) of that, at least 0.
    pub cohort_accuracy: f64,
    /// Share of what was spent that lies at or below the 95 % quantile.
    pub below_q95: f64,
    /// Mean absolute error of the number of purchase days.
    pub count_mae: f64,
}

/// A decile of customers by their predicted mean, from the lowest up.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Decile {
    /// Mean prediction.
    pub predicted: f64,
    /// Mean of what was spent.
    pub real: f64,
}

/// The figures of these outcomes.
#[must_use]
pub fn metrics(outcomes: &[Outcome]) -> Metrics {
    let n = outcomes.len() as f64;
    let predicted: Vec<f64> = outcomes.iter().map(|o| o.forecast.mean).collect();
    let real: Vec<f64> = outcomes.iter().map(|o| o.spend).collect();
    let active: Vec<f64> = outcomes.iter().map(|o| o.forecast.active).collect();
    let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / n;
    let deciles = deciles(outcomes);
    Metrics {
        customers: outcomes.len(),
        spearman: correlation(&ranks(&predicted), &ranks(&real)),
        ngini: gini(&real, &predicted) / gini(&real, &real),
        auc: auc(&real, &active),
        brier: mean(|o| (f64::from(u8::from(o.spend > 0.0)) - o.forecast.active).powi(2)),
        mae: mean(|o| (o.spend - o.forecast.median).abs()),
        decile_error: deciles.iter().map(|d| (d.predicted - d.real).abs() / d.real.max(1e-9)).sum::<f64>() / deciles.len() as f64,
        total_accuracy: accuracy(predicted.iter().sum(), real.iter().sum()),
        cohort_accuracy: cohort_accuracy(outcomes),
        below_q95: mean(|o| f64::from(u8::from(o.spend <= o.forecast.q95))),
        count_mae: mean(|o| (o.count - o.forecast.count).abs()),
    }
}

/// Ten parts of the customers by their predicted mean.
#[must_use]
pub fn deciles(outcomes: &[Outcome]) -> Vec<Decile> {
    let predicted: Vec<f64> = outcomes.iter().map(|o| o.forecast.mean).collect();
    let order = sorted(&predicted);
    // The first parts have one more where ten does not divide them.
    let (part, more) = (order.len() / 10, order.len() % 10);
    let mut rest = &order[..];
    let mut found = Vec::new();
    for i in 0..10 {
        let (these, behind) = rest.split_at(part + usize::from(i < more));
        rest = behind;
        let mean = |of: fn(&Outcome) -> f64| these.iter().map(|i| of(&outcomes[*i])).sum::<f64>() / these.len().max(1) as f64;
        found.push(Decile { predicted: mean(|o| o.forecast.mean), real: mean(|o| o.spend) });
    }
    found
}

/// The share of what was spent that the best so many of a hundred customers by predicted mean brought: 101 points from (0, 0) to (1, 1).
#[must_use]
pub fn gain(outcomes: &[Outcome]) -> Vec<(f64, f64)> {
    let predicted: Vec<f64> = outcomes.iter().map(|o| -o.forecast.mean).collect();
    let total: f64 = outcomes.iter().map(|o| o.spend).sum();
    let mut sum = 0.0;
    let sums: Vec<f64> = sorted(&predicted)
        .iter()
        .map(|i| {
            sum += outcomes[*i].spend;
            sum
        })
        .collect();
    let at = |percent: usize| sums.get((percent * sums.len()).div_ceil(100).wrapping_sub(1)).copied().unwrap_or(0.0);
    (0..=100).map(|percent| (percent as f64 / 100.0, at(percent) / total)).collect()
}

/// Indices by value, equal ones in their own order.
fn sorted(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    order
}

/// The stretches of equal values, each as the indices in it.
fn ties<'a>(values: &'a [f64], order: &'a [usize]) -> impl Iterator<Item = &'a [usize]> {
    order.chunk_by(|a, b| values[*a] == values[*b])
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let (order, mut ranks, mut before) = (sorted(values), vec![0.0; values.len()], 0);
    for tie in ties(values, &order) {
        let rank = before as f64 + (tie.len() as f64 + 1.0) / 2.0;
        tie.iter().for_each(|i| ranks[*i] = rank);
        before += tie.len();
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - ma) * (b - mb);
        aa += (a - ma).powi(2);
        bb += (b - mb).powi(2);
    }
    ab / (aa * bb).sqrt()
}

/// 2 x the mean of the share of `y` that the top k by `p` have, over all k, - 1; equal p share their mean y.
fn gini(y: &[f64], p: &[f64]) -> f64 {
    let down: Vec<f64> = p.iter().map(|p| -p).collect();
    let order = sorted(&down);
    let total: f64 = y.iter().sum();
    let (mut sum, mut area) = (0.0, 0.0);
    for tie in ties(&down, &order) {
        let mean = tie.iter().map(|i| y[*i]).sum::<f64>() / tie.len() as f64;
        for _ in tie {
            sum += mean;
            area += sum / total;
        }
    }
    2.0 * area / y.len() as f64 - 1.0
}

fn auc(y: &[f64], p: &[f64]) -> f64 {
    let ranks = ranks(p);
    let bought = y.iter().filter(|y| **y > 0.0).count() as f64;
    let sum: f64 = ranks.iter().zip(y).filter(|(_, y)| **y > 0.0).map(|(rank, _)| rank).sum();
    (sum - bought * (bought + 1.0) / 2.0) / (bought * (y.len() as f64 - bought))
}

fn accuracy(predicted: f64, real: f64) -> f64 {
    1.0 - (predicted - real).abs() / real
}

fn cohort_accuracy(outcomes: &[Outcome]) -> f64 {
    let mut cohorts = std::collections::BTreeMap::<i64, (usize, f64, f64)>::new();
    for o in outcomes {
        let cohort = cohorts.entry(o.cohort).or_default();
        *cohort = (cohort.0 + 1, cohort.1 + o.forecast.mean, cohort.2 + o.spend);
    }
    let counted = cohorts.values().filter(|(many, _, real)| *many >= 20 && *real > 0.0);
    let (count, sum) = counted.fold((0.0, 0.0), |(n, sum), (_, predicted, real)| (n + 1.0, sum + accuracy(*predicted, *real).max(0.0)));
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(mean: f64, spend: f64) -> Outcome {
        let forecast = Forecast { mean, median: mean / 2.0, active: mean / 10.0, q05: 0.0, q95: 2.0 * mean, count: 1.0 };
        Outcome { forecast, spend, count: 1.0, cohort: 0 }
    }

    #[test]
    fn ranks_share_ties_and_a_perfect_order_is_worth_one() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        let outcomes: Vec<_> = (0..20).map(|i| outcome(f64::from(i) / 4.0, f64::from(i))).collect();
        let figures = metrics(&outcomes);
        assert!((figures.spearman - 1.0).abs() < 1e-12 && (figures.ngini - 1.0).abs() < 1e-12 && (figures.auc - 1.0).abs() < 1e-12);
        // A quarter of what was spent was predicted, in all and in each decile and cohort.
        assert!((figures.total_accuracy - 0.25).abs() < 1e-12 && (figures.cohort_accuracy - 0.25).abs() < 1e-12);
        assert!((figures.decile_error - 0.75).abs() < 1e-12, "{}", figures.decile_error);
    }

    /// Worked out by hand: order by prediction 3, 2, 1 with spends 0, 4, 6; of the total 10 the top k have 0, .4, 1, so G = 2 x 1.4/3 - 1;
    /// in their own order .6, 1, 1, so 2 x 2.6/3 - 1.
    #[test]
    fn gini_is_that_of_the_formula() {
        let outcomes = [outcome(3.0, 0.0), outcome(2.0, 4.0), outcome(1.0, 6.0)];
        assert!((metrics(&outcomes).ngini - (2.0 * 1.4 / 3.0 - 1.0) / (2.0 * 2.6 / 3.0 - 1.0)).abs() < 1e-12);
        assert_eq!(metrics(&outcomes).auc, 0.0);
        // One alike for all says nothing.
        let same: Vec<_> = [0.0, 4.0, 6.0, 2.0].map(|spend| outcome(1.0, spend)).into();
        assert!((metrics(&same).ngini - 0.25 / gini(&[0.0, 4.0, 6.0, 2.0], &[0.0, 4.0, 6.0, 2.0])).abs() < 1e-12);
        assert_eq!(metrics(&same).auc, 0.5);
    }

    #[test]
    fn the_gain_goes_from_nothing_to_all() {
        let outcomes: Vec<_> = (1..=10).map(|i| outcome(f64::from(i), f64::from(i))).collect();
        let gain = gain(&outcomes);
        assert_eq!((gain[0], gain[100]), ((0.0, 0.0), (1.0, 1.0)));
        assert!((gain[10].1 - 10.0 / 55.0).abs() < 1e-12 && gain.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }
}
