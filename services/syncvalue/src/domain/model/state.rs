//! A customer's recurrent state: what the networks remember of the weeks that are over, so that a prediction costs one step.
//!
//! A state is only ever a short cut: it is used where the days that it was made of are still the first of the customer's days, and made anew
//! where they are not. Either way the outputs are the same to the bit.

use super::network::{INPUTS, OUTPUTS};
use super::reading::{Reading, first_week, week_of};
use super::serve::{advance, peek, state_len};
use super::{Day, Member, Model};
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
        let len = model.members.iter().map(|member| state_len(&member.layout)).sum();
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
/// question, and becomes that of this one. None where no day is before `end`.
pub fn ask(model: &Model, state: &mut Option<State>, days: &[Day], end: i64) -> Option<Said> {
    if !state.as_ref().is_some_and(|state| state.fits(model, days, end)) {
        *state = State::begin(model, days, end);
    }
    let state = state.as_mut()?;
    let estimate = (&model.estimate, &model.table);
    while state.reading.begins + 7 < end {
        let inputs = state.reading.close(days, end, &model.scales, estimate);
        each_member(model, &mut state.hidden, |member, hidden| advance(member, &mut { state.steps }, hidden, &inputs));
        state.steps += 1;
        state.digest = digest(&days[..state.reading.taken]);
    }
    let mut reading = state.reading.clone();
    let inputs = reading.close(days, end, &model.scales, estimate);
    let mut outs = Vec::with_capacity(model.members.len());
    each_member(model, &mut state.hidden, |member, hidden| outs.push(peek(member, state.steps, hidden, &inputs)));
    Some(Said { outs, inputs, reading })
}

fn each_member(model: &Model, mut hidden: &mut [f32], mut each: impl FnMut(&Member, &mut [f32])) {
    for member in &model.members {
        let (own, rest) = hidden.split_at_mut(state_len(&member.layout));
        each(member, own);
        hidden = rest;
    }
}
