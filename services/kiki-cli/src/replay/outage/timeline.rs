//! What an outage looked like from outside: a row for each stretch of bids that went the same way.

use kiki::clock::UnixMicros;
use kiki::leaf::PredictionStatus;
use kiki::pb::syncflow::v1::BreakerState;

use crate::breakers::{into_run, state};
use crate::error::Failure;
use crate::http::Http;

/// A bid, and where the breaker stood after it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: UnixMicros,
    pub(super) phase: &'static str,
    pub(super) platform: &'static str,
    pub(super) breaker: BreakerState,
    pub(super) prediction: PredictionStatus,
    pub(super) predicted_micros: i64,
    pub(super) price_nanos: i64,
}

impl Seen {
    fn stands_on(&self) -> &'static str {
        match self.prediction {
            PredictionStatus::Ok | PredictionStatus::Fallback => "SyncValue's answer",
            PredictionStatus::Median => "median x multiplier",
            PredictionStatus::Prior | PredictionStatus::Unspecified => "campaign's prior",
        }
    }

    /// Those with the same words stand in one row.
    fn row(&self) -> [&'static str; 3] {
        [self.phase, state(self.breaker), self.stands_on()]
    }
}

/// All bids of an outage.
#[derive(Debug)]
pub(super) struct Timeline {
    began: UnixMicros,
    seen: Vec<Seen>,
    /// How long the breaker was in each state, by the metric.
    seconds: Vec<(String, f64)>,
}

impl Timeline {
    pub(super) fn new(began: UnixMicros) -> Self {
        Self { began, seen: Vec::new(), seconds: Vec::new() }
    }

    pub(super) fn add(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    /// Reads the seconds in each state.
    pub(super) async fn seconds(&mut self, flow_http: &str) -> Result<(), Failure> {
        let answer = Http::new().get(&format!("{flow_http}/metrics")).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let line = |line: &str| {
            let (state, seconds) =
                line.strip_prefix(r#"syncflow_circuit_breaker_seconds_total{platform="syncvalue",state=""#)?.split_once(r#""} "#)?;
            Some((state.to_owned(), seconds.parse().ok()?))
        };
        self.seconds = text.lines().filter_map(line).collect();
        Ok(())
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!("{:<6} {:<14} {:<10} {:>5}  {:<20} CPM by platform", "time", "phase", "breaker", "bids", "priced on")];
        for stretch in self.seen.chunk_by(|one, next| one.row() == next.row()) {
            let [phase, breaker, stands_on] = stretch[0].row();
            let (time, count) = (into_run(self.began, stretch[0].at), stretch.len());
            lines.push(format!("{time:<6} {phase:<14} {breaker:<10} {count:>5}  {stands_on:<20} {}", prices(stretch)));
        }
        let states = self.seconds.iter().filter(|(_, seconds)| *seconds > 0.0).map(|(state, seconds)| format!("{state} {seconds:.1} s"));
        lines.push(format!("the breaker was {}", states.collect::<Vec<_>>().join(", ")));
        lines.join("\n")
    }

    /// What should have been otherwise.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let of = |phase: &'static str| self.seen.iter().filter(move |seen| seen.phase == phase);
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let answered = |seen: &Seen| matches!(seen.prediction, PredictionStatus::Ok | PredictionStatus::Fallback);
        let (closed, open) = (BreakerState::Closed, BreakerState::Open);
        check(
            of("healthy").all(|seen| answered(seen) && seen.breaker == closed),
            "a bid was not priced on SyncValue's answer while all was well",
        );
        check(of("slow").all(|seen| seen.prediction == PredictionStatus::Median), "a late prediction was not replaced by the median");
        check(of("slow").next_back().is_some_and(|seen| seen.breaker == open), "the breaker did not open within its window");
        check(of("open").all(|seen| seen.prediction == PredictionStatus::Median), "a bid was not made at the fallback price");
        check(of("recovery").next_back().is_some_and(|seen| seen.breaker == closed), "the breaker did not close after the recovery");
        check(
            of("healthy again").all(|seen| answered(seen) && seen.breaker == closed),
            "a bid was not priced on SyncValue's answer afterwards",
        );
        let medians: Vec<i64> = of("open").map(|seen| seen.predicted_micros).collect();
        check(medians.iter().all(|median| *median == medians[0]), "the median moved while nothing was predicted");
        let price = |platform| of("open").find(|seen| seen.platform == platform).map_or(0, |seen| seen.price_nanos);
        let whole = price("google_ads");
        let near = |price: i64, percent: i64| (price * 100 - whole * percent).abs() <= 300; // each is rounded down by itself
        check(
            whole > 0 && near(price("x"), 75) && near(price("tiktok"), 150),
            "fallback prices are not those of the platforms' multipliers",
        );
        let spent = |wanted: &str| self.seconds.iter().any(|(state, seconds)| state == wanted && *seconds > 0.0);
        check(spent("closed") && spent("open"), "the metric has no seconds of an open breaker");
        wrong
    }
}

/// The lowest and the highest price of each platform, in units of the currency: an impression's nanos are a CPM's micros.
fn prices(stretch: &[Seen]) -> String {
    let mut platforms: Vec<&str> = stretch.iter().map(|seen| seen.platform).collect();
    platforms.sort_unstable();
    platforms.dedup();
    let one = |platform: &str| {
        let prices = || stretch.iter().filter(|seen| seen.platform == platform).map(|seen| seen.price_nanos);
        let (low, high) = (prices().min().unwrap_or(0), prices().max().unwrap_or(0));
        let cpm = |nanos: i64| format!("{}.{:02}", nanos / 1_000_000, nanos / 10_000 % 100);
        if low == high { format!("{platform} {}", cpm(low)) } else { format!("{platform} {}-{}", cpm(low), cpm(high)) }
    };
    platforms.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(
        second: i64,
        phase: &'static str,
        platform: &'static str,
        breaker: BreakerState,
        prediction: PredictionStatus,
        price: i64,
    ) -> Seen {
        let at = UnixMicros(second * 1_000_000);
        Seen { at, phase, platform, breaker, prediction, predicted_micros: 1, price_nanos: price }
    }

    fn outage() -> Timeline {
        let (closed, open) = (BreakerState::Closed, BreakerState::Open);
        let (said, median) = (PredictionStatus::Fallback, PredictionStatus::Median);
        let mut timeline = Timeline::new(UnixMicros(0));
        timeline.add(seen(0, "healthy", "x", closed, said, 2_000_000));
        timeline.add(seen(1, "healthy", "x", closed, said, 3_000_000));
        timeline.add(seen(2, "slow", "x", open, median, 1_500_000));
        for (platform, price) in [("google_ads", 2_000_000), ("x", 1_500_000), ("tiktok", 3_000_000)] {
            timeline.add(seen(63, "open", platform, open, median, price));
        }
        timeline.add(seen(70, "recovery", "x", closed, said, 2_000_000));
        timeline.add(seen(71, "healthy again", "x", closed, said, 2_000_000));
        timeline.seconds = vec![("closed".into(), 3.0), ("open".into(), 67.5), ("forced_open".into(), 0.0)];
        timeline
    }

    #[test]
    fn a_stretch_is_a_row_with_its_prices() {
        let text = outage().text();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 7);
        assert_eq!(rows[1], "00:00  healthy        closed         2  SyncValue's answer   x 2.00-3.00");
        assert_eq!(rows[3], "01:03  open           open           3  median x multiplier  google_ads 2.00, tiktok 3.00, x 1.50");
        assert_eq!(rows[6], "the breaker was closed 3.0 s, open 67.5 s");
    }

    #[test]
    fn what_should_have_been_otherwise_is_named() {
        assert_eq!(outage().wrong(), [""; 0]);
        let changed = |change: fn(&mut Seen)| {
            let mut timeline = outage();
            timeline.seen.iter_mut().filter(|seen| seen.phase == "open" && seen.platform == "x").for_each(change);
            timeline.wrong()
        };
        assert_eq!(changed(|seen| seen.prediction = PredictionStatus::Prior), ["a bid was not made at the fallback price"]);
        assert_eq!(changed(|seen| seen.price_nanos += 9), ["fallback prices are not those of the platforms' multipliers"]);
        assert_eq!(changed(|seen| seen.predicted_micros = 2), ["the median moved while nothing was predicted"]);
        assert_eq!(Timeline::new(UnixMicros(0)).wrong().len(), 4, "a timeline of nothing");
    }
}
