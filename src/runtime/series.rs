//! A counter by names that only running tells: campaigns come and go, and Prometheus keeps a series for each.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{CounterVec, Opts};

use super::Metrics;

/// Series of one counter: at some 150 bytes of text each, 2.4 MB a scrape.
pub const SERIES_MAX: usize = 16_384;

/// What names are counted under that came once there were [`SERIES_MAX`] series. No id is like it.
pub const OTHER: &str = "(other)";

/// A counter with a bound on its series; a clone counts into the same.
#[derive(Debug, Clone)]
pub struct Series {
    counter: CounterVec,
    known: Arc<Mutex<HashSet<String>>>,
    most: usize,
}

impl Series {
    /// Registers it. The last label is the currency, which stays where names are [`OTHER`]: amounts of several do not add up.
    #[must_use]
    pub fn register(metrics: &Metrics, name: &str, help: &str, labels: &[&str]) -> Self {
        let counter = metrics.add(CounterVec::new(Opts::new(name, help), labels));
        Self { counter, known: Arc::default(), most: SERIES_MAX }
    }

    /// Counts more, in the labels' order. An amount is shown, never computed with.
    pub fn add(&self, labels: &[&str], more: f64) {
        if self.fits(labels) {
            return self.counter.with_label_values(labels).inc_by(more);
        }
        let last = labels.len().saturating_sub(1);
        let others: Vec<&str> = labels.iter().enumerate().map(|(at, label)| if at < last { OTHER } else { label }).collect();
        self.counter.with_label_values(&others).inc_by(more);
    }

    /// Whether these labels have a series, or get one.
    fn fits(&self, labels: &[&str]) -> bool {
        let key = labels.join("\0");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&key) || (known.len() < self.most && known.insert(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_count_under_one() {
        let metrics = Metrics::new();
        let series = Series { most: 2, ..Series::register(&metrics, "spend_total", "spend", &["campaign", "currency"]) };
        for campaign in ["a", "b", "c", "a", "d"] {
            series.clone().add(&[campaign, "USD"], 1.5);
        }
        let text = metrics.text();
        for line in [
            r#"spend_total{campaign="a",currency="USD"} 3"#,
            r#"spend_total{campaign="b",currency="USD"} 1.5"#,
            r#"spend_total{campaign="(other)",currency="USD"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("spend_total{").count(), 3);
    }
}
