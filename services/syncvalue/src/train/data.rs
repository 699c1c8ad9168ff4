//! A log of purchases, cut into what is known at the end of a week and what came after it.
//!
//! Weeks are counted back from the cut. A label is what came of a customer in the days behind a week: over the whole horizon,
//! or over as much of it as was observed; the estimate beside which the network is trained speaks of the same days.

use std::collections::{BTreeMap, HashMap};

use kiki::clock::UnixMicros;

use crate::domain::customer::{Customer, DAY_MICROS, Day, Event, EventId};
use crate::domain::fit::{Fit, Table};
use crate::domain::model::features::Scales;
use crate::domain::model::network::INPUTS;
use crate::domain::model::{scaled, typical, weeks};
use crate::domain::population::{Population, Standing};
use crate::domain::predictor::expect;

/// Each customer's days, by its id.
pub type Log = BTreeMap<String, Vec<Day>>;

/// What is asked of a log. Days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The first day.
    pub start: i64,
    /// The day after the last that is known when predicting.
    pub cut: i64,
    /// How far is predicted.
    pub horizon_days: u32,
}

/// A customer who came before the cut.
#[derive(Debug, Clone)]
pub struct Buyer {
    /// As the log names it.
    pub id: String,
    /// Days with a purchase, in order: what may be seen of them.
    pub days: Vec<Day>,
    /// The day after the last that was observed.
    pub until: i64,
}

impl Buyer {
    fn known(&self, cut: i64) -> &[Day] {
        &self.days[..self.days.partition_point(|day| day.day < cut)]
    }
}

/// The customers who came before the cut, by id. What may not be seen is left out here, before anything looks at it: what came after
/// the cut is kept only of customers who `lend` it, and of them up to the end of the horizon.
#[must_use]
pub fn buyers(log: &Log, protocol: &Protocol, lends: impl Fn(&str) -> bool) -> Vec<Buyer> {
    let buyer = |(id, days): (&String, &Vec<Day>)| {
        let until = if lends(id) { protocol.cut + i64::from(protocol.horizon_days) } else { protocol.cut };
        let mut days: Vec<Day> = days.iter().copied().filter(|day| (protocol.start..until).contains(&day.day)).collect();
        days.sort_by_key(|day| day.day);
        let came = days.first().is_some_and(|day| day.day < protocol.cut);
        came.then(|| Buyer { id: id.clone(), days, until })
    };
    log.iter().filter_map(buyer).collect()
}

/// What the values before the cut are measured in; none where nothing was bought.
#[must_use]
pub fn scales(buyers: &[Buyer], cut: i64) -> Option<Scales> {
    let known = || buyers.iter().flat_map(|buyer| buyer.known(cut));
    let days = known().count() as f64;
    let spend = known().map(|day| day.spend_micros as f64 / 1e6).sum::<f64>() / days;
    let items = known().map(|day| f64::from(day.items)).sum::<f64>() / days;
    (spend > 0.0).then_some(Scales { spend, items: if items > 0.0 { items } else { 1.0 } })
}

/// The estimate, from what is known of all customers at the cut; none where nobody bought.
#[must_use]
pub fn estimate(buyers: &[Buyer], protocol: &Protocol) -> Option<Fit> {
    let known = buyers.iter().enumerate().flat_map(|(i, buyer)| buyer.known(protocol.cut).iter().map(move |day| (day.day, i, day)));
    let mut days: Vec<(i64, usize, &Day)> = known.collect();
    days.sort_by_key(|(day, i, _)| (*day, *i));
    let (mut population, mut customers) = (Population::starting(protocol.start), vec![Customer::default(); buyers.len()]);
    for (at, i, day) in days {
        population.advance_to(at);
        let before = Standing::of(&customers[i]);
        let (id, midnight) = (EventId(day.day.cast_unsigned()), UnixMicros(day.day * DAY_MICROS));
        customers[i].observe(&Event { id, at: midnight, value_micros: day.spend_micros, items: day.items });
        population.seen(&before, &Standing::of(&customers[i]));
    }
    population.advance_to(protocol.cut);
    Fit::of(&population)
}

/// What came of a customer behind one of its weeks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// Which of the history's weeks is the last that is known.
    pub step: usize,
    /// Spend, in units of [`Scales::spend`].
    pub spend: f32,
    /// Purchase days.
    pub count: f32,
    /// What the estimate expects over the same days, as [`scaled`] has it.
    pub expected: [f32; 3],
    /// The same of a typical customer.
    pub typical: [f32; 3],
    /// What it counts beside others.
    pub weight: f32,
}

/// A customer as the network sees it.
#[derive(Debug, Clone)]
pub struct History {
    /// Week by week, from that of the first purchase to that before the cut.
    pub inputs: Vec<[f32; INPUTS]>,
    /// What came after some of the weeks, in order.
    pub labels: Vec<Label>,
    /// What the estimate expects behind the cut, over the whole horizon.
    pub expected: [f32; 3],
}

/// Which weeks lend labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cuts {
    /// Every so many weeks, back from the cut.
    pub every: usize,
    /// None before so many weeks of the log are over.
    pub after: usize,
    /// The shortest stretch that is looked at, weeks.
    pub shortest: usize,
    /// What a week's label counts of that of the week behind it.
    pub fade: f32,
    /// The power of the share of the horizon that was observed, by which a label counts: what was seen of a short stretch says little of the whole.
    pub reach: i32,
}

/// Makes histories of customers.
pub struct Histories<'a> {
    protocol: Protocol,
    scales: Scales,
    fit: &'a Fit,
    whole: Table,
    cuts: Cuts,
    tables: HashMap<u32, (Table, [f32; 3])>,
}

impl<'a> Histories<'a> {
    /// Beside this estimate.
    #[must_use]
    pub fn new(protocol: Protocol, scales: Scales, fit: &'a Fit, cuts: Cuts) -> Self {
        Self { protocol, scales, fit, whole: Table::of(fit, protocol.horizon_days), cuts, tables: HashMap::new() }
    }

    /// One customer's.
    pub fn of(&mut self, buyer: &Buyer) -> History {
        let Self { protocol, scales, fit, whole, cuts, tables } = self;
        let total = ((protocol.cut - protocol.start) / 7) as usize;
        let (mut ends, mut expected) = (Vec::new(), [0.0; 3]);
        let inputs = weeks(&buyer.days, (protocol.cut, protocol.cut), scales, (fit, whole), |week, customer| {
            let end = protocol.cut - 7 * week as i64;
            if week == 0 {
                expected = scaled(expect(fit, whole, customer, end - 1).unwrap_or_default(), scales);
            }
            let horizon = (buyer.until - end).min(i64::from(protocol.horizon_days));
            if week.is_multiple_of(cuts.every) && total >= cuts.after + week && horizon >= 7 * cuts.shortest as i64 {
                let (table, typical) = tables.entry(horizon as u32).or_insert_with(|| {
                    let table = Table::of(fit, horizon as u32);
                    let typical = typical(fit, &table, scales);
                    (table, typical)
                });
                let expected = scaled(expect(fit, table, customer, end - 1).unwrap_or_default(), scales);
                ends.push((week, end, horizon, expected, *typical));
            }
        });
        let label = |&(week, end, horizon, expected, typical): &(usize, i64, i64, [f32; 3], [f32; 3])| {
            let after = &buyer.days[buyer.known(end).len()..];
            let after = &after[..after.partition_point(|day| day.day < end + horizon)];
            let spend = after.iter().map(|day| day.spend_micros as f64 / 1e6).sum::<f64>() / scales.spend;
            let weight = cuts.fade.powi(week as i32) * (horizon as f32 / protocol.horizon_days as f32).powi(cuts.reach);
            Label { step: inputs.len() - 1 - week, spend: spend as f32, count: after.len() as f32, expected, typical, weight }
        };
        let labels = ends.iter().map(label).collect();
        History { inputs, labels, expected }
    }
}
