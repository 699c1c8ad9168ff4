//! A customer's recurrent state: what the networks remember of the weeks that are over, so that a prediction costs one step.
//!
//! A state is only ever a short cut: it is used where the days that it was made of are still the first of the customer's days, and made anew
//! where they are not. Either way the outputs are the same to the bit.

use super::network::{INPUTS, OUTPUTS};
use super::reading::{Reading, first_week, week_of};
use super::serve::{advance, peek, state_len};
use super::{Day, Member, Model, given};
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

/// What the networks say of a customer with these days, in order, as of the end of the day before `end`; `state` is one of an earlier
/// question, and becomes that of this one. None where no day is before `end`, or a network that was brought along fails.
pub fn ask(model: &Model, state: &mut Option<State>, days: &[Day], end: i64) -> Option<Said> {
    if !state.as_ref().is_some_and(|state| state.fits(model, days, end)) {
        *state = State::begin(model, days, end);
    }
    let state = state.as_mut()?;
    let estimate = (&model.estimate, &model.table);
    while state.reading.begins + 7 < end {
        let inputs = state.reading.close(days, end, &model.scales, estimate);
        let rest = each_member(model, &mut state.hidden, |member, hidden| advance(member, &mut { state.steps }, hidden, &inputs));
        if let Some(given) = &model.given {
            given::advance(&**given, &mut { state.steps }, rest, &inputs);
        }
        state.steps += 1;
        state.digest = digest(&days[..state.reading.taken]);
    }
    let mut reading = state.reading.clone();
    let inputs = reading.close(days, end, &model.scales, estimate);
    let mut outs = Vec::with_capacity(model.members.len());
    let rest = each_member(model, &mut state.hidden, |member, hidden| outs.push(peek(member, state.steps, hidden, &inputs)));
    if let Some(given) = &model.given {
        outs.push(given::peek(&**given, state.steps, rest, &inputs).ok()?);
    }
    Some(Said { outs, inputs, reading })
}

/// Each member with its part of the state; what remains is that of a network that was brought along.
fn each_member<'a>(model: &Model, mut hidden: &'a mut [f32], mut each: impl FnMut(&Member, &mut [f32])) -> &'a mut [f32] {
    for member in &model.members {
        let (own, rest) = hidden.split_at_mut(state_len(&member.layout));
        each(member, own);
        hidden = rest;
    }
    hidden
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::features::Scales;
    use super::super::given::Given;
    use super::super::network::Layout;
    use super::super::{Fit, Table, weeks};
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
        let members: Vec<_> = [(1, &[1, 2, 4, 8][..]), (2, &[1]), (3, &[3, 5]), (4, &[])].map(member).into();
        let (table, given): (_, Option<Arc<dyn Given>>) = (Table::of(&estimate, 90), Some(Arc::new(Five)));
        Model {
            id: String::new(),
            horizon_days: 90,
            cut: 3,
            scales: Scales { spend: 30.0, items: 2.0 },
            members,
            given,
            level: 1.0,
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
                let said = ask(&model, &mut state, &days, end).map(|said| said.outs);
                prop_assert_eq!(&said, &whole(&model, &days, end));
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
            let mut state = None;
            let said = ask(&model, &mut state, &days, end).unwrap();
            assert!(state.unwrap().steps < 520);
            assert_eq!(Some(said.outs), whole(&model, &days, end));
        }
        assert_eq!(ask(&model, &mut None, &days, -700_000), None);
    }
}
