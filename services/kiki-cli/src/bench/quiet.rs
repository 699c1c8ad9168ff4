//! Measuring on a machine whose cores the host lends to others: what was measured meanwhile says nothing of the servers.
//!
//! Whether a measurement stands is decided by what the host took, never by what was measured.

use std::fs;

use crate::error::{Doing as _, Failure};

/// A measurement is made again at most so often; then the least disturbed of them stands.
const AGAIN: u32 = 20;

/// How much the host may take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Quiet {
    /// Percent of the cores' time that the host may give to others while something is measured (`steal` in /proc/stat); where it gives more, that is
    /// measured again, up to 20 times.
    #[arg(long, default_value_t = 100.0, value_parser = percent)]
    stolen_at_most: f64,
}

fn percent(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(|| "not a number from 0 to 100".to_owned())
}

/// What the host took while something was measured that stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Disturbed {
    /// Of the cores' time: the most of all measurements.
    pub(super) stolen_share: f64,
    /// Measurements that do not stand.
    pub(super) again: u32,
}

impl Disturbed {
    /// Of several runs.
    pub(super) fn of(runs: impl Iterator<Item = Self>) -> Self {
        runs.fold(Self::default(), |all, run| Self { stolen_share: all.stolen_share.max(run.stolen_share), again: all.again + run.again })
    }
}

/// As a report says it.
pub(super) fn line(stolen_share: f64, again: u32) -> String {
    format!("took at most {:.2} % of the cores' time meanwhile; measured again {again} times for that", stolen_share * 100.0)
}

impl Quiet {
    /// Measures until the machine was quiet meanwhile.
    pub(super) async fn measure<T>(
        &self,
        disturbed: &mut Disturbed,
        measure: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.measure_by(Ticks::now, disturbed, measure).await
    }

    async fn measure_by<T>(
        &self,
        mut ticks: impl FnMut() -> Result<Ticks, Failure>,
        disturbed: &mut Disturbed,
        mut measure: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (mut least, mut again) = (None::<(f64, T)>, 0);
        loop {
            let before = ticks()?;
            let measured = measure().await?;
            let stolen = ticks()?.stolen_since(before);
            let (share, measured) = match least {
                Some(least) if least.0 <= stolen => least,
                _ => (stolen, measured),
            };
            if share * 100.0 <= self.stolen_at_most || again == AGAIN {
                disturbed.again += again;
                disturbed.stolen_share = disturbed.stolen_share.max(share);
                return Ok(measured);
            }
            (least, again) = (Some((share, measured)), again + 1);
        }
    }
}

/// Time of all cores, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    stolen: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Result<Self, Failure> {
        let path = "/proc/stat";
        let text = fs::read_to_string(path).doing(format_args!("reading {path}"))?;
        Self::read(&text).ok_or_else(|| Failure::new(format!("{path}: not as proc(5) says")))
    }

    /// `cpu`, and behind it user, nice, system, idle, iowait, irq, softirq and steal; what a guest has of those is in them.
    fn read(stat: &str) -> Option<Self> {
        let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace().map(str::parse);
        let fields: Vec<u64> = fields.take(8).collect::<Result<_, _>>().ok()?;
        Some(Self { stolen: *fields.get(7)?, all: fields.iter().sum() })
    }

    /// A share.
    fn stolen_since(self, before: Self) -> f64 {
        self.stolen.saturating_sub(before.stolen) as f64 / self.all.saturating_sub(before.all).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_what_was_stolen_of_all_cores() {
        let [before, after] =
            [10, 60].map(|steal| format!("cpu  100 0 50 {} 0 0 0 {steal} 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n", 1_000 + steal * 19));
        let [before, after] = [before, after].map(|stat| Ticks::read(&stat).unwrap());
        assert_eq!(before, Ticks { stolen: 10, all: 1_350 });
        assert!((after.stolen_since(before) - 0.05).abs() < 1e-9);
        assert_eq!(before.stolen_since(before), 0.0);
        assert_eq!((Ticks::read("cpu 1 2 3"), Ticks::read("intr 1")), (None, None));
    }

    #[tokio::test]
    async fn what_stands_is_decided_by_the_host_alone() {
        // What the host takes of 100 ticks each time, the limit, and which measurement stands after how many.
        let cases: [(&[u64], f64, usize, u32); 4] =
            [(&[90], 100.0, 0, 0), (&[30, 5, 1], 5.0, 1, 1), (&[30, 2, 0], 0.0, 2, 2), (&[3, 2, 2, 9], 1.0, 1, AGAIN)];
        for (stolen, stolen_at_most, stands, again) in cases {
            let (mut now, mut looks, mut disturbed, mut made) = (Ticks { stolen: 0, all: 0 }, 0, Disturbed::default(), 0);
            let ticks = || {
                if looks % 2 == 1 {
                    now.stolen += stolen.get(looks / 2).unwrap_or(&50);
                    now.all += 100;
                }
                looks += 1;
                Ok(now)
            };
            let measure = async || {
                made += 1;
                Ok(made - 1)
            };
            let quiet = Quiet { stolen_at_most };
            let measured: usize = quiet.measure_by(ticks, &mut disturbed, measure).await.unwrap();
            assert_eq!((measured, disturbed.again), (stands, again), "{stolen:?}");
            assert!((disturbed.stolen_share - stolen[stands] as f64 / 100.0).abs() < 1e-9);
        }
        let failing = async || Err::<(), _>(Failure::new("no"));
        assert!(Quiet { stolen_at_most: 100.0 }.measure(&mut Disturbed::default(), failing).await.is_err());
    }

    #[test]
    fn a_limit_is_a_percentage() {
        assert_eq!(percent("0.5"), Ok(0.5));
        for no in ["-1", "101", "NaN", "all"] {
            assert!(percent(no).is_err(), "{no}");
        }
    }
}
