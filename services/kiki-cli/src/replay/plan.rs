//! What a run is: its input, its month, its instants, its money. Everything later is a function of this.

use std::path::{Path, PathBuf};

use billing::domain::period::{Month, Span, resolve};
use kiki::clock::UnixMicros;
use kiki::money::parse_decimal;
use serde::{Deserialize, Serialize};
use syncvalue::store::folder;

use super::auction::LATEST_HOURS;
use super::clients::{CLIENTS, Client, History};
use super::events::{DAY, Events};
use super::requests::Requests;
use super::{Args, generate};
use crate::error::{Doing as _, Failure};
use crate::model::DEFAULT_FOLDER;

/// Marks a folder as a replay's own, so that the next run may replace it; says how it was run, so that it can go on.
pub(crate) const MARKER: &str = "replay.json";
/// What the marker holds until the run is planned.
pub(crate) const UNPLANNED: &[u8] = b"{}";
/// Days after the month in which all its notices are in, and it is invoiced.
const SETTLED_DAYS: i64 = 3;
const _: () = assert!(LATEST_HOURS < SETTLED_DAYS * 24);

/// The arguments of a run as its marker keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) rounds: u64,
    pub(crate) currency: String,
    pub(crate) month: String,
    /// The whole budget, micros of the currency.
    pub(crate) budget_micros: i64,
    /// The files that the run reads.
    pub(crate) events: PathBuf,
    pub(crate) requests: PathBuf,
    /// SHA-256 of the two, hex.
    pub(crate) events_sha256: String,
    pub(crate) requests_sha256: String,
    /// Folder of the model that predicts values; empty: the estimate does.
    #[serde(default)]
    pub(crate) model: PathBuf,
    /// It is played against services that run elsewhere.
    #[serde(default)]
    pub(crate) against: bool,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) events: Events,
    pub(crate) requests: Requests,
    /// The month of each of [`CLIENTS`], in its zone.
    pub(crate) spans: [Span; 2],
    /// History of each.
    pub(crate) histories: [History; 2],
    /// The run begins: the first of the clients' months does. Purchases before are history.
    pub(crate) begin: UnixMicros,
    /// Requests are spread over [begin, end): until the last of the clients' months ends.
    pub(crate) end: UnixMicros,
    /// When invoices are drawn up: once all notices are in, and again once the last value is realised.
    pub(crate) invoiced_at: [UnixMicros; 2],
    /// Customers that requests may come from: those whose first purchase is before `end`.
    pub(crate) candidates: Vec<usize>,
}

impl Plan {
    /// A new run in `dir`, which is there and empty.
    ///
    /// # Errors
    /// Input that cannot be read, or that has no month to invoice.
    pub(crate) fn new(args: &Args, dir: &Path) -> Result<Self, Failure> {
        let given = |given: &Option<PathBuf>, own: &str, make: fn(&Path, u64) -> Result<(), Failure>| match given {
            Some(path) => std::path::absolute(path).doing(format_args!("finding {}", path.display())),
            None => {
                // Beside the data, relative to the folder, so that the folder can be moved.
                make(&dir.join(own), args.seed)?;
                Ok(PathBuf::from(own))
            }
        };
        let settings = Settings {
            seed: args.seed,
            rounds: args.rounds,
            currency: kiki::money::Currency::parse(&args.currency).doing("--currency")?.to_string(),
            month: args.month.clone().unwrap_or_default(),
            budget_micros: args.budget.as_ref().map_or(Ok(0), |text| parse_decimal(text, 6)).doing("--budget")?,
            events: given(&args.events, "events.csv", generate::events)?,
            requests: given(&args.requests, "requests.jsonl", generate::requests)?,
            model: PathBuf::new(),
            against: args.against.against,
            events_sha256: String::new(),
            requests_sha256: String::new(),
        };
        if settings.budget_micros < 0 || (args.budget.is_some() && settings.budget_micros == 0) {
            return Err(Failure::new("--budget: must be above 0"));
        }
        let mut plan = Self::read(dir, settings)?;
        if !plan.settings.against {
            plan.settings.model = model(args.model.as_deref(), &plan.settings.events_sha256)?;
        }
        let marker = serde_json::to_vec_pretty(&plan.settings).doing("writing the marker")?;
        // Renamed into place: a run that is cut off here has begun or has not.
        let (beside, path) = (dir.join("replay.json.new"), dir.join(MARKER));
        std::fs::write(&beside, marker).and_then(|()| std::fs::rename(&beside, &path)).doing(format_args!("writing {}", path.display()))?;
        Ok(plan)
    }

    /// The run that was cut off in `dir`; none where it did not get as far as its marker.
    ///
    /// # Errors
    /// A marker that cannot be read, input that has changed since, or a platform of the other kind.
    pub(crate) fn resume(dir: &Path, against: bool) -> Result<Option<Self>, Failure> {
        let path = dir.join(MARKER);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.doing(format_args!("reading {}", path.display()))?,
        };
        if bytes == UNPLANNED {
            return Ok(None);
        }
        let settings: Settings = serde_json::from_slice(&bytes).doing(format_args!("reading {}", path.display()))?;
        if settings.against != against {
            let with = if settings.against { "with" } else { "without" };
            return Err(Failure::new(format!("--resume: this replay began {with} --against")));
        }
        let plan = Self::read(dir, settings.clone())?;
        if plan.settings != settings {
            return Err(Failure::new("the input is not the one that this replay began with: its files have changed"));
        }
        Ok(Some(plan))
    }

    fn read(dir: &Path, mut settings: Settings) -> Result<Self, Failure> {
        let events = Events::read(&dir.join(&settings.events))?;
        let requests = Requests::read(&dir.join(&settings.requests))?;
        settings.events_sha256 = hex::encode(events.digest);
        settings.requests_sha256 = hex::encode(requests.digest);
        let month: Month = if settings.month.is_empty() { first_month(&events)? } else { settings.month.parse().doing("--month")? };
        settings.month = month.to_string();
        let span = |client: &Client| resolve(month, client.zone).doing("finding the month's bounds");
        let spans = [span(&CLIENTS[0])?, span(&CLIENTS[1])?];
        let begin = spans[0].start.min(spans[1].start);
        let end = spans[0].end.max(spans[1].end);
        let candidates =
            first_purchases(&events).into_iter().filter(|(_, first)| *first < end).map(|(customer, _)| customer).collect::<Vec<_>>();
        if candidates.is_empty() {
            return Err(Failure::new(format!("no customer has bought before the end of {month}")));
        }
        let histories = [CLIENTS[0].history(&events, begin), CLIENTS[1].history(&events, begin)];
        let settled = UnixMicros(end.0 + SETTLED_DAYS * DAY);
        let horizon =
            CLIENTS.iter().filter(|c| c.basis == kiki::leaf::Basis::Realised).map(|c| i64::from(c.horizon_days)).max().unwrap_or(0);
        let realised = UnixMicros(end.0 + (horizon + 1) * DAY).max(settled);
        let mut plan = Self {
            dir: dir.to_owned(),
            settings,
            events,
            requests,
            spans,
            histories,
            begin,
            end,
            invoiced_at: [settled, realised],
            candidates,
        };
        if plan.settings.budget_micros == 0 {
            plan.settings.budget_micros = plan.ample_budget();
        }
        Ok(plan)
    }

    /// How many requests the run sends.
    pub(crate) fn requests_total(&self) -> u64 {
        self.settings.rounds * self.requests.lines.len() as u64
    }

    /// When request `number` (over all rounds) is sent: evenly through the month.
    pub(crate) fn request_at(&self, number: u64) -> UnixMicros {
        let span = i128::from(self.end.0 - self.begin.0);
        let into = span * (2 * i128::from(number) + 1) / (2 * i128::from(self.requests_total()));
        UnixMicros(self.begin.0 + into as i64)
    }

    /// What an impression is worth before anything was seen, over all campaigns: the middle of what others bid.
    pub(crate) fn typical_nanos(&self) -> i64 {
        let worths = CLIENTS
            .iter()
            .zip(&self.histories)
            .flat_map(|(client, history)| client.campaigns.iter().map(|line| line.typical_nanos(history)));
        let (sum, count) = worths.fold((0_i128, 0_i128), |(sum, count), worth| (sum + i128::from(worth), count + 1));
        (sum / count.max(1)) as i64
    }

    /// What every request would cost at twice the typical price, in whole units: more than a run spends.
    fn ample_budget(&self) -> i64 {
        let whole = i128::from(self.requests_total()) * i128::from(self.typical_nanos()) * 2 / 1_000_000_000 + 1;
        i64::try_from(whole * 1_000_000).unwrap_or(i64::MAX / 2)
    }
}

/// The folder of the model: the one that is given, or the one that `kiki train` writes where no other is named, if it was trained on
/// these purchases.
fn model(given: Option<&Path>, events_sha256: &str) -> Result<PathBuf, Failure> {
    let folder = given.unwrap_or(Path::new(DEFAULT_FOLDER));
    let name = folder.display();
    let trained_on = |card: &folder::Card| card.trained["of"]["events_sha256"] == events_sha256;
    match (folder::load(folder), given) {
        (Ok((_, card)), None) if !trained_on(&card) => Ok(PathBuf::new()),
        (Ok(_), _) => std::path::absolute(folder).doing(format_args!("finding {name}")),
        (Err(_), None) => Ok(PathBuf::new()),
        (Err(error), Some(_)) => Err(Failure::new(format!("--model: {error}"))),
    }
}

/// The first whole month with at least a third of the purchases before it.
fn first_month(events: &Events) -> Result<Month, Failure> {
    let third = events.purchases[(events.purchases.len() - 1) / 3].at;
    let month = Month::containing(third, "UTC").doing("finding the month")?.next();
    let last = events.purchases[events.purchases.len() - 1].at;
    let end = resolve(month, "UTC").doing("finding the month")?.end;
    if last.0 < end.0 - DAY {
        return Err(Failure::new("the purchases cover no whole month with a third of them before it; name one with --month"));
    }
    Ok(month)
}

/// Each customer with its first purchase, in order of time.
fn first_purchases(events: &Events) -> Vec<(usize, UnixMicros)> {
    let mut seen = vec![false; events.customers.len()];
    let mut first = Vec::with_capacity(seen.len());
    for purchase in &events.purchases {
        if !std::mem::replace(&mut seen[purchase.customer], true) {
            first.push((purchase.customer, purchase.at));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Against;
    use super::*;

    fn args() -> Args {
        Args {
            data: "unused".into(),
            events: None,
            requests: None,
            seed: 3,
            budget: None,
            rounds: 2,
            month: None,
            currency: "USD".into(),
            model: None,
            resume: false,
            scenario: None,
            against: Against::default(),
        }
    }

    fn plan(args: &Args, rows: &[&str]) -> (tempfile::TempDir, Result<Plan, Failure>) {
        let dir = tempfile::tempdir().unwrap();
        let (events, requests) = (dir.path().join("e.csv"), dir.path().join("r.jsonl"));
        std::fs::write(&events, format!("cust,date,items,spend\n{}\n", rows.join("\n"))).unwrap();
        std::fs::write(&requests, "{\"id\":\"1\"}\n{\"id\":\"2\"}\n").unwrap();
        let args = Args { events: Some(events), requests: Some(requests), ..args.clone() };
        let plan = Plan::new(&args, dir.path());
        (dir, plan)
    }

    const ROWS: [&str; 6] =
        ["a,2026-01-05,1,5", "b,2026-01-20,1,5", "a,2026-02-02,1,5", "c,2026-02-20,1,5", "b,2026-03-01,1,5", "d,2026-04-30,1,5"];

    #[test]
    fn the_month_is_the_first_with_a_third_of_the_purchases_before_it() {
        let (_dir, plan) = plan(&args(), &ROWS);
        let plan = plan.unwrap();
        assert_eq!(plan.settings.month, "2026-02");
        // From midnight in Berlin to midnight in New York.
        assert_eq!((plan.begin, plan.end), (UnixMicros(1_769_900_400_000_000), UnixMicros(1_772_341_200_000_000)));
        let names: Vec<&str> = plan.candidates.iter().map(|c| plan.events.customers[*c].as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn requests_are_spread_evenly_over_all_rounds() {
        let (_dir, plan) = plan(&args(), &ROWS);
        let plan = plan.unwrap();
        let times: Vec<i64> = (0..plan.requests_total()).map(|number| plan.request_at(number).0).collect();
        assert_eq!(times.len(), 4);
        let span = plan.end.0 - plan.begin.0;
        assert_eq!(times[0] - plan.begin.0, span / 8);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == span / 4));
    }

    #[test]
    fn a_run_is_resumed_as_it_began_unless_its_input_changed() {
        let (dir, began) = plan(&args(), &ROWS);
        assert!(Plan::resume(dir.path(), true).unwrap_err().to_string().contains("without --against"));
        let resumed = Plan::resume(dir.path(), false).unwrap().unwrap();
        assert_eq!(resumed.settings, began.unwrap().settings);
        std::fs::write(dir.path().join("r.jsonl"), "{}\n").unwrap();
        assert!(Plan::resume(dir.path(), false).unwrap_err().to_string().contains("changed"));
        std::fs::write(dir.path().join(MARKER), UNPLANNED).unwrap();
        assert!(Plan::resume(dir.path(), false).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let refused = |change: fn(&mut Args)| {
            let mut args = args();
            change(&mut args);
            plan(&args, &ROWS).1.unwrap_err().to_string()
        };
        assert!(refused(|args| args.budget = Some("0".into())).contains("--budget"));
        assert!(refused(|args| args.budget = Some("1e9".into())).contains("--budget"));
        assert!(refused(|args| args.currency = "XYZ".into()).contains("--currency"));
        assert!(refused(|args| args.month = Some("2026-13".into())).contains("--month"));
        assert!(refused(|args| args.month = Some("2025-11".into())).contains("no customer"));
        assert!(plan(&args(), &ROWS[..2]).1.unwrap_err().to_string().contains("no whole month"));
    }
}
