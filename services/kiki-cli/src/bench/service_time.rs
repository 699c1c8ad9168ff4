//! The time inside the server, from its own histogram.

use bytes::Bytes;

use crate::error::{Doing as _, Failure};

/// Calls by how long they took.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServiceTime {
    /// A bucket's end in microseconds, and how many calls took no longer; the last end is infinite.
    buckets: Vec<(f64, u64)>,
}

impl ServiceTime {
    /// Reads the text of `/metrics`: the histogram of that name, and of its series those whose labels hold `label`, added up.
    pub(super) fn read(text: &Bytes, metric: &str, label: &str) -> Result<Self, Failure> {
        let text = std::str::from_utf8(text).doing("reading the metrics")?;
        let series = format!("{metric}_bucket{{");
        let lines = text.lines().filter(|line| line.starts_with(&series) && line.contains(label));
        let bucket = |line: &str| {
            let end: f64 = line.split_once("le=\"")?.1.split_once('"')?.0.parse().ok()?;
            Some((end * 1e6, line.rsplit_once(' ')?.1.parse().ok()?))
        };
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for line in lines {
            let (end, calls) = bucket(line).ok_or_else(|| Failure::new(format!("no bucket of a histogram: {line}")))?;
            match buckets.iter_mut().find(|known| known.0.total_cmp(&end).is_eq()) {
                Some(known) => known.1 += calls,
                None => buckets.push((end, calls)),
            }
        }
        if buckets.len() > 1 { Ok(Self { buckets }) } else { Err(Failure::new(format!("no {metric} of {label}"))) }
    }

    /// The calls since an earlier reading.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.iter().zip(&earlier.buckets);
        Self { buckets: buckets.map(|(now, then)| (now.0, now.1.saturating_sub(then.1))).collect() }
    }

    /// The time within which a share of the calls ended, microseconds: between the ends of a bucket in proportion. Beyond the
    /// last finite end it is that end.
    pub(super) fn quantile_us(&self, share: f64) -> f64 {
        let wanted = share * self.buckets.last().map_or(0, |last| last.1) as f64;
        let (mut from, mut below) = (0.0, 0.0);
        for (end, calls) in &self.buckets {
            let calls = *calls as f64;
            if calls >= wanted && calls > below {
                return if end.is_finite() { from + (end - from) * (wanted - below) / (calls - below) } else { from };
            }
            (from, below) = (*end, calls);
        }
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: &str = "syncvalue_service_seconds";
    const TEXT: &str = "# TYPE syncvalue_service_seconds histogram
syncvalue_service_seconds_bucket{rpc=\"Predict\",le=\"0.000001\"} 10
syncvalue_service_seconds_bucket{rpc=\"Predict\",le=\"0.000002\"} 90
syncvalue_service_seconds_bucket{rpc=\"Predict\",le=\"+Inf\"} 100
syncvalue_service_seconds_bucket{rpc=\"PredictStream\",le=\"0.000001\"} 7
syncvalue_service_seconds_bucket{rpc=\"PredictStream\",le=\"+Inf\"} 7
syncvalue_service_seconds_sum{rpc=\"Predict\"} 1
";

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let time = ServiceTime::read(&TEXT.into(), METRIC, "rpc=\"Predict\"").expect("a histogram");
        assert!((time.quantile_us(0.05) - 0.5).abs() < 1e-9 && (time.quantile_us(0.5) - 1.5).abs() < 1e-9, "{time:?}");
        assert!((time.quantile_us(0.99) - 2.0).abs() < 1e-9, "beyond the last end it is that end");
        assert_eq!(time.since(&time).quantile_us(0.5), f64::INFINITY, "of no calls there is none");
    }

    #[test]
    fn a_server_without_it_is_told() {
        assert!(ServiceTime::read(&TEXT.into(), METRIC, "Explain").is_err());
        assert!(ServiceTime::read(&TEXT.into(), "syncvalue_service", "Predict").is_err());
    }

    #[test]
    fn series_are_added_up() {
        let both = ServiceTime::read(&TEXT.into(), METRIC, "").expect("a histogram");
        assert_eq!(both.buckets, [(1.0, 17), (2.0, 90), (f64::INFINITY, 107)]);
    }
}
