//! A customer's recurrent state: what the networks remember of the weeks that are over, so that a prediction costs one step.
//!
//! A state is only ever a short cut: it is used where the days that it was made of are still the first of the customer's days, and made anew
//! where they are not. Either way the outputs are the same to the bit.

use super::network::{INPUTS, OUTPUTS};
use super::reading::{Reading, first_week, week_of};
use super::serve::{Open, advance, peek_many, state_len};
use super::{Day, Model, given};
use crate::domain::customer::mix;

/// Of one customer and one model.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The first day of the first week that was read.
    began: i64,
    /// What is known before the open week.
    reading: Reading,
    /// Of the days that are in.
    digest: u64,
    /// Weeks that the networks have taken in.
    steps: u32,
    /// What they remember, one behind the other.
    hidden: Box<[f32]>,
}

/// What the networks say of a customer, and what the estimate knew by then.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Of each network.
    pub outs: Vec<[f32; OUTPUTS]>,
    /// The open week, as the networks read it.
    pub inputs: [f32; INPUTS],
    /// The customer, with the open week.
    pub reading: Reading,
}

fn digest(days: &[Day]) -> u64 {
    let words = |day: &Day| [day.day.cast_unsigned(), u64::from(day.items), day.spend_micros.cast_unsigned()];
    days.iter().flat_map(words).fold(days.len() as u64, |digest, word| mix(digest ^ word))
}

impl State {
    /// Nothing yet.
    fn begin(model: &Model, days: &[Day], end: i64) -> Option<Self> {
        let reading = Reading::begin(days, (end, model.cut), &model.scales)?;
        let given = model.given.iter().map(|given| given::state_len(&**given));
        let len = model.members.iter().map(|member| state_len(&member.layout)).chain(given).sum();
        Some(Self { began: reading.begins, digest: digest(&days[..reading.taken]), reading, steps: 0, hidden: vec![0.0; len].into() })
    }

    /// Whether it is a beginning of these days for a question about the day `end`.
    fn fits(&self, model: &Model, days: &[Day], end: i64) -> bool {
        let Reading { begins, taken, .. } = self.reading;
        first_week(days, (end, model.cut)) == Some(self.began)
            && begins <= week_of(end - 1, model.cut)
            && taken <= days.len()
            && days.get(taken).is_none_or(|next| next.day >= begins)
            && digest(&days[..taken]) == self.digest
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.hidden)
    }
}

/// A question to the networks.
#[derive(Debug)]
pub struct Asking<'a> {
    /// One of an earlier question; becomes that of this one.
    pub state: Option<State>,
    /// The customer's days, in order.
    pub days: &'a [Day],
    /// It is as of the end of the day before.
    pub end: i64,
}

impl Asking<'_> {
    /// Lets the networks take in the weeks that are over, which `steps` counts down: until that is 0, or no such week is left. Says
    /// whether none is left.
    pub fn catch_up(&mut self, model: &Model, steps: &mut u32) -> bool {
        let Self { state, days, end } = self;
        if !state.as_ref().is_some_and(|state| state.fits(model, days, *end)) {
            *state = State::begin(model, days, *end);
        }
        let Some(state) = state else { return true };
        let (estimate, before) = ((&model.estimate, &model.table), state.steps);
        while state.reading.begins + 7 < *end && *steps > 0 {
            *steps -= 1;
            let inputs = state.reading.close(days, *end, &model.scales, estimate);
            let mut rest = &mut *state.hidden;
            for member in &model.members {
                let (own, others) = rest.split_at_mut(state_len(&member.layout));
                advance(member, &mut { state.steps }, own, &inputs);
                rest = others;
            }
            if let Some(given) = &model.given {
                given::advance(&**given, &mut { state.steps }, rest, &inputs);
            }
            state.steps += 1;
        }
        if state.steps > before {
            state.digest = digest(&days[..state.reading.taken]);
        }
        state.reading.begins + 7 >= *end
    }

    /// The open week, as the networks read it. None where no day is before the end.
    fn open(&self, model: &Model) -> Option<Said> {
        let mut reading = self.state.as_ref()?.reading.clone();
        let inputs = reading.close(self.days, self.end, &model.scales, (&model.estimate, &model.table));
        Some(Said { outs: Vec::with_capacity(model.members.len()), inputs, reading })
    }
}

/// What the networks say, of several customers at a time. None of one of whom no day is before the end, or for whom a network that was brought along
/// fails.
pub fn ask(model: &Model, askings: &mut [Asking<'_>]) -> Vec<Option<Said>> {
    for asking in &mut *askings {
        while !asking.catch_up(model, &mut { u32::MAX }) {}
    }
    say(model, askings)
}

/// The second half of [`ask`], behind [`Asking::catch_up`] of each until no week is left.
#[must_use]
pub fn say(model: &Model, askings: &[Asking<'_>]) -> Vec<Option<Said>> {
    let mut all: Vec<Option<Said>> = askings.iter().map(|asking| asking.open(model)).collect();
    let states = || askings.iter().filter_map(|asking| asking.state.as_ref());
    let (mut at, mut outs) = (0, vec![[0.0; OUTPUTS]; all.iter().flatten().count()]);
    for member in &model.members {
        let customers = states().zip(all.iter().flatten());
        let open = customers.map(|(state, said)| Open { steps: state.steps, state: &state.hidden[at..], inputs: &said.inputs });
        let open: Vec<Open<'_>> = open.collect();
        peek_many(member, &open, &mut outs);
        all.iter_mut().flatten().zip(&outs).for_each(|(said, out)| said.outs.push(*out));
        at += state_len(&member.layout);
    }
    if let Some(given) = &model.given {
        for (asking, place) in askings.iter().zip(&mut all) {
            let customer = asking.state.as_ref().zip(place.as_ref());
            let out = customer.map(|(state, said)| given::peek(&**given, state.steps, &state.hidden[at..], &said.inputs));
            match (out, place.as_mut()) {
                (Some(Ok(out)), Some(said)) => said.outs.push(out),
                _ => *place = None,
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::features::Scales;
    use super::super::given::Given;
    use super::super::network::Layout;
    use super::super::{Fit, Member, Table, weeks};
    use super::*;
    use crate::domain::fit::Numbers;
    use crate::domain::population::{CLASSES, WEEKS};
    use crate::train::learn::{begin, run};

    fn model() -> Model {
        let rate = vec![0.01; CLASSES * WEEKS];
        let estimate = Fit::from_numbers(&Numbers { rate, customers: 50, spend: 3e7, first_spend: 2e7, scatter: 1.0 }).unwrap();
        let member = |(seed, dilations): (u64, &[usize])| {
            let layout = Layout::new(dilations);
            Member { parameters: begin(&layout, seed), layout, own: 1.0 }
        };
        let members: Vec<_> = [(1, &[1, 2, 4, 8][..]), (2, &[1]), (3, &[3, 5]), (4, &[]), (5, &[0, 2])].map(member).into();
        let (table, given): (_, Option<Arc<dyn Given>>) = (Table::of(&estimate, 90), Some(Arc::new(Five)));
        Model {
            id: String::new(),
            horizon_days: 90,
            cut: 3,
            scales: Scales { spend: 30.0, items: 2.0 },
            members,
            given,
            level: 1.0,
            slope: 1.0,
            estimate,
            table,
        }
    }

    /// Reads five weeks, each number with a weight of its own.
    #[derive(Debug)]
    struct Five;

    impl Given for Five {
        fn weeks(&self) -> usize {
            5
        }

        fn outputs(&self, weeks: &[[f32; INPUTS]]) -> Result<[f32; OUTPUTS], String> {
            let sum = weeks.as_flattened().iter().enumerate().map(|(i, x)| x * i as f32).sum();
            Ok([sum; OUTPUTS])
        }
    }

    /// The outputs as training has them: over the whole history.
    fn whole(model: &Model, days: &[Day], end: i64) -> Option<Vec<[f32; OUTPUTS]>> {
        let inputs = weeks(days, (end, model.cut), &model.scales, (&model.estimate, &model.table), |_, _| ());
        if inputs.is_empty() {
            return None;
        }
        let members = model.members.iter().map(|member| run(&member.parameters, &member.layout, &[&inputs])[0]);
        Some(members.chain([given::replay(&Five, &inputs).unwrap()]).collect())
    }

    fn day((day, items, spend): (i64, u32, i64)) -> Day {
        Day { day, items, spend_micros: spend * 1_000_000 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_kept_state_says_what_the_whole_history_does(
            mut days in prop::collection::vec((0..900_i64, 0..5_u32, 0..200_i64), 1..30),
            late in prop::collection::vec((0..900_i64, 0..5_u32, 0..200_i64), 0..4),
            mut ends in prop::collection::vec(1..1_000_i64, 1..12),
            forwards in any::<bool>(),
        ) {
            days.sort_unstable();
            days.dedup_by_key(|day| day.0);
            if forwards {
                ends.sort_unstable();
            }
            let (model, mut state) = (model(), None);
            let mut days: Vec<Day> = days.into_iter().map(day).collect();
            let mut late = late.into_iter();
            for end in ends {
                // Beside one of whom nothing is kept.
                let mut askings = [Asking { state: None, days: &days, end }, Asking { state, days: &days, end }];
                let said = ask(&model, &mut askings).into_iter().map(|said| said.map(|said| said.outs));
                prop_assert!(said.into_iter().all(|outs| outs == whole(&model, &days, end)));
                let [_, asked] = askings;
                state = asked.state;
                // A purchase that comes late is no part of what was kept.
                if let Some(new) = late.next()
                    && let Err(place) = days.binary_search_by_key(&new.0, |day| day.day)
                {
                    days.insert(place, day(new));
                }
            }
        }
    }

    #[test]
    fn a_date_that_is_far_off_costs_520_steps_at_the_most() {
        let model = model();
        let days: Vec<Day> = (0..1_000).map(|i| day((i * 7 - 700_000, 1, 5))).collect();
        for end in [-699_000, -690_000, 0, 2_000_000] {
            let mut asking = [Asking { state: None, days: &days, end }];
            let said = ask(&model, &mut asking).remove(0).unwrap();
            assert!(asking[0].state.as_ref().unwrap().steps < 520);
            assert_eq!(Some(said.outs), whole(&model, &days, end));
        }
        assert_eq!(ask(&model, &mut [Asking { state: None, days: &days, end: -700_000 }]), [None]);
    }
}
