//! `kiki train`, `kiki predict` and `kiki evaluate`: models of lifetime value, on files alone.
//!
//! A log of purchases is CSV with the columns `cust,date,items,spend`, a row a customer and day. Days are UTC, and every date that is
//! named as an end is the first day that is not part of it any more.

mod svg;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use jiff::civil::Date;
use syncvalue::domain::customer::Day;
use syncvalue::domain::model::{Forecast, Model};
use syncvalue::store::folder::{self, Note};
use syncvalue::train::data::{Buyer, Log, Protocol, buyers};
use syncvalue::train::learn::{Progress, Settings};
use syncvalue::train::metrics::{Metrics, Outcome, deciles, gain, metrics};
use syncvalue::train::{Prepared, settings};

use crate::error::{Doing as _, Failure};
use crate::out;
use crate::replay::events::{DAY, Events};

/// Days that a log may span, with the day of the question: twenty years.
const MAX_DAYS: i64 = 7_305;

/// What a model is trained on, and where it goes.
#[derive(Debug, Clone, clap::Args)]
pub struct TrainArgs {
    /// Purchases, CSV of cust,date,items,spend.
    #[arg(long)]
    events: PathBuf,
    /// How far is predicted: days (90 or 90d) or weeks (39w).
    #[arg(long, default_value = "90d", value_parser = days)]
    horizon: u32,
    /// ISO 4217: the currency of the purchases, and the only one that the model then answers for.
    #[arg(long)]
    currency: Option<String>,
    /// The folder of the model; made where it is missing. A training that was interrupted goes on from what stands there.
    #[arg(long, default_value = DEFAULT_FOLDER)]
    out: PathBuf,
    /// Randomness: the same seed gives the same model.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of a network's training, at most: fewer are quicker, and worse.
    #[arg(long, default_value_t = settings().steps, value_parser = steps)]
    steps: usize,
}

/// The folder that a model is written to where no other is named.
pub(crate) const DEFAULT_FOLDER: &str = "kiki-model";

/// What is scored.
#[derive(Debug, Clone, clap::Args)]
pub struct PredictArgs {
    /// Folder of a model.
    #[arg(long)]
    model: PathBuf,
    /// Purchases, CSV of cust,date,items,spend.
    #[arg(long)]
    events: PathBuf,
    /// The first day that is not known; default: the day after the log's last.
    #[arg(long)]
    at: Option<Date>,
    /// Where the predictions go, CSV; default: standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What is evaluated.
#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArgs {
    /// Purchases, CSV of cust,date,items,spend.
    #[arg(long)]
    events: PathBuf,
    /// The first day.
    #[arg(long)]
    start: Date,
    /// The first day that is not known when predicting.
    #[arg(long)]
    calibration_end: Date,
    /// How many days from then on are predicted.
    #[arg(long, value_parser = clap::value_parser!(u32).range(7..=3650))]
    horizon_days: u32,
    /// Which customers may lend what came after the calibration's end: CSV of cust,part with the parts fit, val and test; test does not.
    /// Without it nobody does.
    #[arg(long)]
    split: Option<PathBuf>,
    /// Randomness: the same seed gives the same predictions.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of a network's training, at most: fewer are quicker, and worse.
    #[arg(long, default_value_t = settings().steps, value_parser = steps)]
    steps: usize,
    /// Where the predictions go, CSV; the figures' curves go beside it as SVG.
    #[arg(long)]
    predictions: PathBuf,
}

fn days(text: &str) -> Result<u32, String> {
    let (number, unit) = text.strip_suffix('w').map_or((text.strip_suffix('d').unwrap_or(text), 1), |weeks| (weeks, 7));
    let days = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    days.filter(|days| (7..=3_650).contains(days)).ok_or_else(|| format!("{text:?} is not 7 to 3650 days, such as 90d or 39w"))
}

fn steps(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|steps| (1..=1_000_000).contains(steps)).ok_or_else(|| format!("{text:?} is not 1 to 1000000"))
}

fn day_of(date: Date) -> i64 {
    i64::from((date - Date::constant(1970, 1, 1)).get_days())
}

/// A customer's rows of one day are one; refunds take from the day's spend, down to nothing.
fn log_of(events: &Events) -> Log {
    let mut days: BTreeMap<(usize, i64), (u32, i64)> = BTreeMap::new();
    for purchase in &events.purchases {
        let day = days.entry((purchase.customer, purchase.at.0.div_euclid(DAY))).or_default();
        *day = (day.0.saturating_add(purchase.items), day.1.saturating_add(purchase.value_micros));
    }
    let mut log = Log::new();
    for ((customer, day), (items, spend)) in days {
        let day = Day { day, items, spend_micros: spend.max(0) };
        log.entry(events.customers[customer].clone()).or_default().push(day);
    }
    log
}

/// The first day of a log, and the day after its last.
fn span(log: &Log) -> (i64, i64) {
    let days = || log.values().flatten().map(|day| day.day);
    (days().min().unwrap_or_default(), days().max().unwrap_or_default() + 1)
}

/// A network takes a step for each week of a customer, so that a date that is centuries off would cost memory without end.
fn check_span((start, end): (i64, i64), of: &Path) -> Result<(), Failure> {
    let days = end - start;
    let problem = || Failure::new(format!("{}: {days} days from the first to the last; at most {MAX_DAYS} are taken", of.display()));
    (days <= MAX_DAYS).then_some(()).ok_or_else(problem)
}

/// Trains the networks, one after the other; those that stand in `kept` already are taken from there.
fn trained(prepared: &Prepared, kept: Option<&Path>) -> Result<(Model, Vec<serde_json::Value>), Failure> {
    let (mut members, mut told) = (Vec::new(), Vec::new());
    let kinds = prepared.kinds();
    for (member, kind) in kinds.iter().enumerate() {
        let bar = out::bar("training", settings().checks as u64);
        let path = kept.map(|folder| folder.join(format!("network-{member}.safetensors")));
        let before = path.as_deref().map(|path| folder::load_member(kind, path)).transpose().doing("going on")?.flatten();
        let network = if let Some(before) = before {
            before
        } else {
            let learned = prepared.member(member, |progress| show(&bar, (member, kinds.len()), &progress));
            told.push(serde_json::json!({ "network": member, "held_out_loss": learned.held_out, "best": learned.best }));
            if let Some(path) = &path {
                folder::save_member(&learned.member, path).doing("keeping a network")?;
            }
            learned.member
        };
        bar.finish_and_clear();
        members.push(network);
    }
    Ok((prepared.model(members), told))
}

fn show(bar: &ProgressBar, (member, of): (usize, usize), progress: &Progress) {
    bar.set_position(progress.checks as u64);
    bar.set_message(format!("{} of {of}: {:.4} {:.4}", member + 1, progress.loss, progress.held_out));
}

/// Runs `kiki train`.
///
/// # Errors
/// A log that cannot be read or is too small, or a folder that cannot be written.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    if let Some(code) = &args.currency {
        kiki::money::Currency::parse(code).doing("--currency")?;
    }
    let events = Events::read(&args.events)?;
    let log = log_of(&events);
    let (start, cut) = span(&log);
    check_span((start, cut), &args.events)?;
    let protocol = Protocol { start, cut, horizon_days: args.horizon };
    let buyers = buyers(&log, &protocol, |_| false);
    let settings = Settings { steps: args.steps, ..settings() };
    let prepared = Prepared::new(&buyers, &protocol, settings.clone(), args.seed).doing(args.events.display())?;
    // What is trained by other data or settings is no part of this.
    let what = serde_json::json!({
        "events_sha256": hex::encode(events.digest), "start": start, "cut": cut, "horizon_days": args.horizon, "seed": args.seed,
        "settings": settings, "version": env!("CARGO_PKG_VERSION"),
    });
    let kept = args.out.join("training");
    begin_or_go_on(&kept, &what)?;
    let (model, networks) = trained(&prepared, Some(&kept))?;
    let card = serde_json::json!({ "customers": buyers.len(), "days": log.values().map(Vec::len).sum::<usize>(), "of": what, "networks": networks });
    let note = Note { currency: args.currency.clone(), inputs: prepared.spreads(), trained: card };
    folder::save(&model, note, &args.out).doing("writing the model")?;
    std::fs::remove_dir_all(&kept).doing(format_args!("removing {}", kept.display()))?;
    let rows = [
        ("model", model.id),
        ("customers", out::grouped(buyers.len() as u64)),
        ("horizon", format!("{} days", args.horizon)),
        ("networks", prepared.kinds().len().to_string()),
        ("folder", args.out.display().to_string()),
    ];
    out::say(out::table("trained", &rows));
    Ok(())
}

/// A training that was interrupted left its networks and what they are of.
fn begin_or_go_on(kept: &Path, what: &serde_json::Value) -> Result<(), Failure> {
    let note = kept.join("training.json");
    let name = note.display();
    let before: Option<serde_json::Value> = std::fs::read(&note).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if before.as_ref() == Some(what) {
        return Ok(());
    }
    if kept.exists() {
        // What somebody else keeps under that name is not ours to remove.
        if before.is_none() {
            return Err(Failure::new(format!("{} is there already, and is no interrupted training", kept.display())));
        }
        std::fs::remove_dir_all(kept).doing(format_args!("removing {}", kept.display()))?;
    }
    std::fs::create_dir_all(kept).doing(format_args!("making {}", kept.display()))?;
    std::fs::write(&note, what.to_string()).doing(format_args!("writing {name}"))
}

/// Runs `kiki predict`.
///
/// # Errors
/// A model or log that cannot be read, or an output that cannot be written.
pub fn predict(args: &PredictArgs) -> Result<(), Failure> {
    let (model, _) = folder::load(&args.model).doing("reading the model")?;
    let log = log_of(&Events::read(&args.events)?);
    let at = args.at.map_or_else(|| span(&log).1, day_of);
    check_span((span(&log).0, at), &args.events)?;
    let known = log.iter().filter(|(_, days)| days.first().is_some_and(|first| first.day < at));
    let (ids, days): (Vec<&str>, Vec<&[Day]>) = known.map(|(id, days)| (id.as_str(), &**days)).unzip();
    let text = csv_of(&ids, &syncvalue::train::predict(&model, &days, at));
    match &args.out {
        Some(path) => std::fs::write(path, text).doing(format_args!("writing {}", path.display())),
        None => {
            out::say(text.trim_end());
            Ok(())
        }
    }
}

fn csv_of(ids: &[&str], forecasts: &[Forecast]) -> String {
    let mut text = String::from("cust,mean,median,p_active,q05,q95,count\n");
    for (id, f) in ids.iter().zip(forecasts) {
        text += &format!("{id},{},{},{},{},{},{}\n", f.mean, f.median, f.active, f.q05, f.q95, f.count);
    }
    text
}

/// Runs `kiki evaluate`.
///
/// # Errors
/// A file that cannot be read or is too small, dates that leave nothing, or an output that cannot be written.
pub fn evaluate(args: &EvaluateArgs) -> Result<(), Failure> {
    let protocol = Protocol { start: day_of(args.start), cut: day_of(args.calibration_end), horizon_days: args.horizon_days };
    if protocol.cut < protocol.start + 7 {
        return Err(Failure::new(format!("--calibration-end {}: less than a week after --start {}", args.calibration_end, args.start)));
    }
    check_span((protocol.start, protocol.cut), &args.events)?;
    let log = log_of(&Events::read(&args.events)?);
    let split = args.split.as_deref().map(read_split).transpose()?;
    let lends = |id: &str| split.as_ref().is_some_and(|split| split.get(id).copied().unwrap_or(false));
    let buyers = buyers(&log, &protocol, lends);
    if let Some(split) = &args.split {
        let lenders = buyers.iter().filter(|buyer| buyer.until > protocol.cut).count();
        if lenders == 0 || lenders == buyers.len() {
            let name = split.display();
            return Err(Failure::new(format!("{name}: {lenders} of the {} customers lend, and both kinds are needed", buyers.len())));
        }
    }
    let prepared =
        Prepared::new(&buyers, &protocol, Settings { steps: args.steps, ..settings() }, args.seed).doing(args.events.display())?;
    let (model, _) = trained(&prepared, None)?;
    let forecasts = prepared.forecasts(&model);
    let ids: Vec<&str> = buyers.iter().map(|buyer| buyer.id.as_str()).collect();
    let path = &args.predictions;
    std::fs::write(path, csv_of(&ids, &forecasts)).doing(format_args!("writing {}", path.display()))?;

    let outcomes = scored(&log, &buyers, &forecasts, &protocol);
    if outcomes.iter().all(|outcome| outcome.spend <= 0.0) {
        out::say(format_args!("{} is written; nothing was spent afterwards, so that there is nothing to score", path.display()));
        return Ok(());
    }
    let figures = metrics(&outcomes);
    for (ending, picture) in [("calibration.svg", svg::calibration(&deciles(&outcomes))), ("gain.svg", svg::gain(&gain(&outcomes)))] {
        let path = path.with_extension(ending);
        std::fs::write(&path, picture).doing(format_args!("writing {}", path.display()))?;
    }
    out::say(table_of(&model, &figures, split.is_some()));
    Ok(())
}

/// What came of those who are scored: of all, or, where some lent what came after the cut, of the others, with all means times the one factor
/// that makes the total right for those who lent.
fn scored(log: &Log, buyers: &[Buyer], forecasts: &[Forecast], protocol: &Protocol) -> Vec<Outcome> {
    let holdout = protocol.cut..protocol.cut + i64::from(protocol.horizon_days);
    let real = |buyer: &Buyer| {
        let days = log[&buyer.id].iter().filter(|day| holdout.contains(&day.day));
        days.fold((0.0, 0.0), |(spend, count), day| (spend + day.spend_micros as f64 / 1e6, count + 1.0))
    };
    let lent = |buyer: &Buyer| buyer.until > protocol.cut;
    let of_lenders = buyers.iter().zip(forecasts).filter(|(buyer, _)| lent(buyer));
    let sums = of_lenders.fold((0.0, 0.0), |(predicted, spent), (buyer, f)| (predicted + f.mean, spent + real(buyer).0));
    let factor = if sums.0 > 0.0 { sums.1 / sums.0 } else { 1.0 };
    let outcome = |(buyer, f): (&Buyer, &Forecast)| {
        let (spend, count) = real(buyer);
        let cohort = (buyer.days[0].day - protocol.start) / 7;
        Outcome { forecast: Forecast { mean: f.mean * factor, ..*f }, spend, count, cohort }
    };
    let unseen = buyers.iter().zip(forecasts).filter(|(buyer, _)| !lent(buyer));
    unseen.map(outcome).collect()
}

fn read_split(path: &Path) -> Result<HashMap<String, bool>, Failure> {
    let name = path.display();
    let mut reader = csv::Reader::from_path(path).doing(format_args!("reading {name}"))?;
    let mut parts = HashMap::new();
    for (row, record) in (1..).zip(reader.records()) {
        let record = record.doing(format_args!("reading {name}"))?;
        let (Some(id), Some(part), 2) = (record.get(0), record.get(1), record.len()) else {
            return Err(Failure::new(format!("{name}: row {row}: not cust,part")));
        };
        let lends = match part {
            "fit" | "val" => true,
            "test" => false,
            other => return Err(Failure::new(format!("{name}: row {row}, part: {other:?} is not fit, val or test"))),
        };
        parts.insert(id.to_owned(), lends);
    }
    Ok(parts)
}

fn table_of(model: &Model, figures: &Metrics, split: bool) -> String {
    let share = |x: f64| format!("{x:.4}");
    let rows = [
        ("model", model.id.clone()),
        ("scored", format!("{} customers{}", out::grouped(figures.customers as u64), if split { " who lent nothing" } else { "" })),
        ("spearman", share(figures.spearman)),
        ("ngini", share(figures.ngini)),
        ("auc", share(figures.auc)),
        ("brier", share(figures.brier)),
        ("mae of the median", share(figures.mae)),
        ("error by decile", share(figures.decile_error)),
        ("total accuracy", share(figures.total_accuracy)),
        ("cohort accuracy", share(figures.cohort_accuracy)),
        ("at or below q95", share(figures.below_q95)),
        ("mae of the count", share(figures.count_mae)),
    ];
    out::table("evaluated", &rows)
}
