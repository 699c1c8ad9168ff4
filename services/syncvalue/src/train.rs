//! Training: from a log of purchases to a [`Model`].
//!
//! [`data`] cuts the log into histories and what came after them, [`gradient`] is the network's way back, [`learn`] makes the loss small, and
//! [`metrics`] says what predictions were worth. A model's networks are each trained without one part of the customers (a fold),
//! which says when to stop; together they have learnt from all.

pub mod data;
pub mod gradient;
pub mod learn;
pub mod metrics;
pub mod random;

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

/// The fewest customers that a model is trained on: below, the estimate knows as much.
pub const MIN_BUYERS: usize = 200;

/// How a model is trained: chosen on the validation parts of the logs that README.md of the service names.
///
/// Half of the networks and more read the last week alone, whose numbers sum up the history, and most start from a typical customer: on both
/// logs that ranks best. Those that start from the customer's own estimate keep totals right where labels reach less far than the question.
#[must_use]
pub fn settings() -> Settings {
    let last = |own| Kind { dilations: Vec::new(), own };
    let plain = |own| Kind { dilations: vec![1], own };
    let dilated = Kind { dilations: vec![1, 2, 4, 8], own: 0.0 };
    let members = [last(0.0), last(1.0), plain(0.0), last(0.0), plain(1.0), last(0.0)];
    let more = [last(0.0), last(1.0), plain(0.0), last(0.0), last(1.0), dilated];
    let members = members.into_iter().chain(more).collect();
    Settings { members, steps: 1_200, batch: 128, rate: 0.003, decay: 0.2, checks: 20, patience: 5 }
}

/// Which weeks lend labels.
pub const CUTS: Cuts = Cuts { every: 2, after: 8, weight: 0.3, shortest: 8 };

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
        let parts = settings.members.len() as u64;
        let folds = (0..histories.len()).map(|i| (Random(seed.wrapping_mul(1_000_003) ^ i as u64).bits() % parts) as usize);
        let folds = folds.collect();
        let table = Table::of(&estimate, protocol.horizon_days);
        let Protocol { cut, horizon_days, .. } = *protocol;
        let model = Model { id: String::new(), horizon_days, cut, scales, members: Vec::new(), given: None, level: 1.0, estimate, table };
        Ok(Self { histories, model, seed, settings, folds })
    }

    /// Trains network `member`, which leaves out its fold of the customers.
    pub fn member(&self, member: usize, told: impl FnMut(Progress)) -> Learned {
        let mut fold = (Vec::new(), Vec::new());
        for (history, of) in self.histories.iter().zip(&self.folds) {
            if *of == member { fold.1.push(history) } else { fold.0.push(history) }
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
        // All customers together are expected to spend what the means alone say.
        let sums = answers(&model, &self.known()).iter().fold((0.0, 0.0), |sums, answer| (sums.0 + answer.mean, sums.1 + answer.spend()));
        model.level = sums.0 / sums.1;
        model
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
