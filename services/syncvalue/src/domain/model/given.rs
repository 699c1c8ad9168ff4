//! A network that was brought along in place of ours: of any kind, as long as it reads a customer's last weeks and puts out what ours do.
//!
//! What it reads of a customer is kept like a state of ours ([`super::serve`]): a ring of its last weeks' numbers, the one of the week number `n`
//! (from 0) at `n % weeks`, with zeros for the weeks before the customer's first. So both are served in the same way; a week that is over
//! costs nothing here, and a prediction costs the whole network.

use std::fmt::Debug;

use super::network::{INPUTS, OUTPUTS};

/// A network that was brought along.
pub trait Given: Debug + Send + Sync {
    /// Weeks that it reads; at least 1.
    fn weeks(&self) -> usize;

    /// What it puts out behind the last of [`weeks`](Self::weeks) weeks, oldest first: finite.
    ///
    /// # Errors
    /// What it said instead.
    fn outputs(&self, weeks: &[[f32; INPUTS]]) -> Result<[f32; OUTPUTS], String>;
}

/// Floats of a customer's state.
#[must_use]
pub fn state_len(given: &dyn Given) -> usize {
    given.weeks() * INPUTS
}

/// Takes in one week behind `steps` others. `state` has [`state_len`] floats.
pub fn advance(given: &dyn Given, steps: &mut u32, state: &mut [f32], inputs: &[f32; INPUTS]) {
    let slot = *steps as usize % given.weeks();
    state.as_chunks_mut().0[slot] = *inputs;
    *steps = steps.saturating_add(1);
}

/// What comes out behind one week more, which may go on: the state stays as it is.
///
/// # Errors
/// What the network said instead.
pub fn peek(given: &dyn Given, steps: u32, state: &[f32], inputs: &[f32; INPUTS]) -> Result<[f32; OUTPUTS], String> {
    let slot = steps as usize % given.weeks();
    let (ring, _) = state.as_chunks::<INPUTS>();
    // The oldest is the one that this week would take the place of.
    let mut weeks = [&ring[slot + 1..], &ring[..slot]].concat();
    weeks.push(*inputs);
    given.outputs(&weeks)
}

/// What comes out behind the last of a customer's weeks; without any, zeros, which correct nothing.
///
/// # Errors
/// What the network said instead.
pub fn replay(given: &dyn Given, inputs: &[[f32; INPUTS]]) -> Result<[f32; OUTPUTS], String> {
    if inputs.is_empty() {
        return Ok([0.0; OUTPUTS]);
    }
    let last = &inputs[inputs.len().saturating_sub(given.weeks())..];
    let mut weeks = vec![[0.0; INPUTS]; given.weeks() - last.len()];
    weeks.extend(last);
    given.outputs(&weeks)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Puts out the first number of each of its weeks.
    #[derive(Debug)]
    struct Echo(usize);

    impl Given for Echo {
        fn weeks(&self) -> usize {
            self.0
        }

        fn outputs(&self, weeks: &[[f32; INPUTS]]) -> Result<[f32; OUTPUTS], String> {
            assert_eq!(weeks.len(), self.0);
            let mut out = [0.0; OUTPUTS];
            out.iter_mut().zip(weeks).for_each(|(out, week)| *out = week[0]);
            Ok(out)
        }
    }

    #[test]
    fn it_reads_the_last_weeks_and_zeros_before_the_first() {
        for reads in [1, 3, 8] {
            let given = Echo(reads);
            let (mut state, mut steps, mut seen) = (vec![0.0; state_len(&given)], 0, Vec::new());
            for week in 1..20 {
                let inputs = [week as f32; INPUTS];
                seen.push(inputs);
                let expected: [f32; OUTPUTS] =
                    std::array::from_fn(|i| if i < reads { (week + 1 + i as i32 - reads as i32).max(0) as f32 } else { 0.0 });
                assert_eq!(peek(&given, steps, &state, &inputs).unwrap(), expected);
                assert_eq!(replay(&given, &seen).unwrap(), expected);
                advance(&given, &mut steps, &mut state, &inputs);
            }
        }
        assert_eq!(replay(&Echo(3), &[]).unwrap(), [0.0; OUTPUTS]);
    }
}
