//! Training: from a log of purchases to a [`Model`].
//!
//! [`data`] cuts the log into histories and what came after them, [`gradient`] is the network's way back, [`learn`] makes the loss small, and
//! [`metrics`] says what predictions were worth. A model's networks are each trained without one part of the customers (a fold),
//! which says when to stop, and what the networks without it predict of it says how far apart predictions should be ([`slope`]).
//! Together the networks have learnt from all.

pub mod data;
pub mod gradient;
pub mod learn;
pub mod metrics;
pub mod random;
pub mod slope;

use crate::domain::customer::Day;
use crate::domain::drift::Spread;
use crate::domain::fit::Table;
use crate::domain::model::given::replay;
use crate::domain::model::network::INPUTS;
use crate::domain::model::{Answer, Forecast, Member, Model, scaled, typical, weeks};
use crate::domain::predictor::expect;
use data::{Buyer, Cuts, Histories, History, Protocol};
use learn::{Kind, Learned, Progress, Settings};
use random::Random;
use slope::Outcome;

/// The fewest customers that a model is trained on: below, the estimate knows as much.
pub const MIN_BUYERS: usize = 200;

/// How a model is trained: chosen on the validation parts of the logs that README.md of the service names.
///
/// Most networks read the last week alone, whose numbers sum up the history, half of these with a layer of gates and half without; and most start
/// from a typical customer: on both logs that ranks best. Those that start from the customer's own estimate keep totals right where
/// labels reach less far than the question. [`FOLDS`] networks that stand together leave out one fold each.
#[must_use]
pub fn settings() -> Settings {
    let kind = |dilations: &[usize], own| Kind { dilations: dilations.into(), own };
    let (linear, gated, plain) = (|own| kind(&[], own), || kind(&[0], 0.0), || kind(&[1], 0.0));
    let members = vec![
        gated(),
        gated(),
        gated(),
        gated(),
        linear(0.0),
        linear(1.0),
        linear(0.0),
        linear(1.0),
        plain(),
        kind(&[1, 2, 4, 8], 0.0),
        plain(),
        linear(0.0),
    ];
    Settings { members, steps: 1_200, batch: 128, rate: 0.003, decay: 0.02, checks: 20, patience: 5 }
}

/// Parts of the customers, of which each network leaves out one.
pub const FOLDS: usize = 4;

/// Which weeks lend labels.
pub const CUTS: Cuts = Cuts { every: 2, after: 8, shortest: 8, fade: 0.9, reach: 4 };

/// Why no model was trained.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Too little to learn from.
    #[error("{0} customers came before the cut; a model takes at least {MIN_BUYERS}")]
    TooFew(usize),
    /// Nothing was ever paid.
    #[error("nothing was spent before the cut")]
    NoSpend,
    /// Nothing to learn from.
    #[error("no week before the cut has {} weeks behind it that were observed", CUTS.shortest)]
    NoLabels,
}

/// Everything that a training needs, made from the buyers once.
pub struct Prepared {
    /// One for each buyer.
    histories: Vec<History>,
    model: Model,
    seed: u64,
    settings: Settings,
    /// The customers with labels, in folds.
    folds: Vec<usize>,
}

impl Prepared {
    /// From the buyers, of whom those who lend labels train.
    ///
    /// # Errors
    /// Too little to learn from.
    pub fn new(buyers: &[Buyer], protocol: &Protocol, settings: Settings, seed: u64) -> Result<Self, Error> {
        if buyers.len() < MIN_BUYERS {
            return Err(Error::TooFew(buyers.len()));
        }
        let scales = data::scales(buyers, protocol.cut).ok_or(Error::NoSpend)?;
        let estimate = data::estimate(buyers, protocol).ok_or(Error::NoSpend)?;
        let mut histories = Histories::new(*protocol, scales, &estimate, CUTS);
        let mut histories: Vec<History> = buyers.iter().map(|buyer| histories.of(buyer)).collect();
        // Where some lend what came after the cut, the others have no labels of their own: they are who is predicted.
        if buyers.iter().any(|buyer| buyer.until > protocol.cut) {
            let unseen = histories.iter_mut().zip(buyers).filter(|(_, buyer)| buyer.until <= protocol.cut);
            unseen.for_each(|(history, _)| history.labels.clear());
        }
        if histories.iter().all(|history| history.labels.is_empty()) {
            return Err(Error::NoLabels);
        }
        let parts = settings.members.len().min(FOLDS) as u64;
        let folds = (0..histories.len()).map(|i| (Random(seed.wrapping_mul(1_000_003) ^ i as u64).bits() % parts) as usize);
        let folds = folds.collect();
        let table = Table::of(&estimate, protocol.horizon_days);
        let Protocol { cut, horizon_days, .. } = *protocol;
        let model = Model {
            id: String::new(),
            horizon_days,
            cut,
            scales,
            members: Vec::new(),
            given: None,
            level: 1.0,
            slope: 1.0,
            estimate,
            table,
        };
        Ok(Self { histories, model, seed, settings, folds })
    }

    /// Trains network `member`, which leaves out its fold of the customers.
    pub fn member(&self, member: usize, told: impl FnMut(Progress)) -> Learned {
        let mut fold = (Vec::new(), Vec::new());
        for (history, of) in self.histories.iter().zip(&self.folds) {
            if *of == member % FOLDS { fold.1.push(history) } else { fold.0.push(history) }
        }
        let kind = &self.settings.members[member];
        learn::learn((&fold.0, &fold.1), kind, &self.settings, self.seed.wrapping_mul(1_000).wrapping_add(member as u64), told)
    }

    /// The networks that the model will have.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.settings.members
    }

    /// The model of these networks. Its id is made from what it is.
    #[must_use]
    pub fn model(&self, members: Vec<Member>) -> Model {
        let id = Model::id_of(&members, self.model.horizon_days);
        let mut model = Model { id, members, ..self.model.clone() };
        model.slope = slope::kept(slope::slope(&self.held_out(&model)));
        // All customers together are expected to spend what the means alone say.
        let add = |sums: (f64, f64), answer: &Answer| (sums.0 + answer.mean, sums.1 + answer.spend().powf(model.slope));
        let sums = answers(&model, &self.known()).iter().fold((0.0, 0.0), add);
        model.level = sums.0 / sums.1;
        model
    }

    /// What each customer's labels say, beside what those networks predicted of them that did not learn from the customer.
    fn held_out(&self, model: &Model) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for fold in 0..FOLDS {
            let members: Vec<Member> = model.members.iter().skip(fold).step_by(FOLDS).cloned().collect();
            let part = Model { members, ..self.model.clone() };
            let held_out: Vec<&History> = self.histories.iter().zip(&self.folds).filter(|(_, of)| **of == fold).map(|(h, _)| h).collect();
            let outs: Vec<_> =
                part.members.iter().map(|member| learn::run_to_labels(&member.parameters, &member.layout, &held_out)).collect();
            for (i, history) in held_out.iter().enumerate() {
                for (j, label) in history.labels.iter().enumerate() {
                    let said: Vec<_> = outs.iter().map(|outs| outs[i][j]).collect();
                    let predicted = part.answer(&said, &label.expected, &label.typical).spend();
                    outcomes.push(Outcome { predicted, spent: f64::from(label.spend), weight: f64::from(label.weight) });
                }
            }
        }
        outcomes
    }

    fn known(&self) -> Vec<Known<'_>> {
        self.histories.iter().map(|history| (&*history.inputs, history.expected)).collect()
    }

    /// How each number that a model reads is spread over the buyers at the cut.
    #[must_use]
    pub fn spreads(&self) -> Vec<Spread> {
        let last = || self.histories.iter().filter_map(|history| history.inputs.last());
        (0..INPUTS).map(|input| Spread::of(last().map(|inputs| inputs[input]).collect())).collect()
    }

    /// What a model makes of each buyer behind the cut.
    #[must_use]
    pub fn forecasts(&self, model: &Model) -> Vec<Forecast> {
        forecasts(model, &self.known())
    }
}

/// What a model makes of customers on the day `at`, before anything of it happened. Each has at least one day before it.
#[must_use]
pub fn predict(model: &Model, customers: &[&[Day]], at: i64) -> Vec<Forecast> {
    let Model { scales, estimate, table, cut, .. } = model;
    let known = |days: &&[Day]| {
        let mut expected = [0.0; 3];
        let inputs = weeks(days, (at, *cut), scales, (estimate, table), |week, customer| {
            if week == 0 {
                expected = scaled(expect(estimate, table, customer, at - 1).unwrap_or_default(), scales);
            }
        });
        (inputs, expected)
    };
    let known: Vec<_> = customers.iter().map(known).collect();
    let known: Vec<_> = known.iter().map(|(inputs, expected)| (&**inputs, *expected)).collect();
    forecasts(model, &known)
}

/// A customer's weeks, and what the estimate expects behind them.
type Known<'a> = (&'a [[f32; INPUTS]], [f32; 3]);

fn forecasts(model: &Model, known: &[Known<'_>]) -> Vec<Forecast> {
    answers(model, known).iter().map(|answer| model.forecast_of(answer)).collect()
}

fn answers(model: &Model, known: &[Known<'_>]) -> Vec<Answer> {
    let inputs: Vec<_> = known.iter().map(|(inputs, _)| *inputs).collect();
    let mut outs: Vec<_> = model.members.iter().map(|member| learn::run(&member.parameters, &member.layout, &inputs)).collect();
    // Where one that was brought along fails, it corrects nothing.
    outs.extend(model.given.iter().map(|given| inputs.iter().map(|weeks| replay(&**given, weeks).unwrap_or_default()).collect()));
    let typical = typical(&model.estimate, &model.table, &model.scales);
    let of =
        |(i, (_, expected)): (usize, &Known<'_>)| model.answer(&outs.iter().map(|outs| outs[i]).collect::<Vec<_>>(), expected, &typical);
    known.iter().enumerate().map(of).collect()
}
