//! Who answered, from the server's own counters.

use bytes::Bytes;

use crate::error::{Doing as _, Failure};

/// Predictions, and questions that the cache was asked, since the server began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counts {
    predictions: u64,
    by_model: u64,
    asked: u64,
    from_cache: u64,
}

impl Counts {
    /// Reads the text of `/metrics`.
    pub(super) fn read(text: &Bytes) -> Result<Self, Failure> {
        let text = std::str::from_utf8(text).doing("reading the metrics")?;
        let [predictions, asked] = ["syncvalue_predictions_total{", "syncvalue_cache_answers_total{"].map(|name| {
            let lines = text.lines().filter_map(move |line| line.strip_prefix(name));
            move |label: &str| lines.clone().filter(|line| line.contains(label)).filter_map(value).sum::<u64>()
        });
        let read = Self { predictions: predictions(""), by_model: predictions("\"ok\""), asked: asked(""), from_cache: asked("\"hit\"") };
        if read.predictions > 0 { Ok(read) } else { Err(Failure::new("no syncvalue_predictions_total")) }
    }

    /// What was counted since an earlier reading.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            predictions: self.predictions - earlier.predictions,
            by_model: self.by_model - earlier.by_model,
            asked: self.asked - earlier.asked,
            from_cache: self.from_cache - earlier.from_cache,
        }
    }

    /// Of all predictions, those that a model made.
    pub(super) fn share_by_model(&self) -> f64 {
        self.by_model as f64 / self.predictions.max(1) as f64
    }

    /// Of those for whom a model was to answer, those whose answer was known already.
    pub(super) fn share_from_cache(&self) -> f64 {
        self.from_cache as f64 / self.asked.max(1) as f64
    }
}

fn value(line: &str) -> Option<u64> {
    line.rsplit_once(' ')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE syncvalue_predictions_total counter
syncvalue_predictions_total{reason=\"no_model\"} 10
syncvalue_predictions_total{reason=\"ok\"} 30
syncvalue_cache_answers_total{result=\"hit\"} 27
syncvalue_cache_answers_total{result=\"miss\"} 3
";

    #[test]
    fn shares_are_of_all_that_were_counted() {
        let counts = Counts::read(&TEXT.into()).expect("counters");
        assert!((counts.share_by_model() - 0.75).abs() < 1e-9 && (counts.share_from_cache() - 0.9).abs() < 1e-9, "{counts:?}");
        let none = counts.since(&counts);
        assert_eq!([none.share_by_model(), none.share_from_cache()], [0.0, 0.0]);
        assert!(Counts::read(&"".into()).is_err());
    }
}
