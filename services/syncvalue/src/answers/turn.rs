//! How long a message of questions keeps the thread that it came on.
//!
//! A thread of calls does one thing at a time. A customer of whom nothing is kept takes up to 520 steps of every network, so that 1,024 of them in one
//! message would hold up all other calls of that thread for a second and more. So a message goes on for [`STEPS`] steps and then lets the
//! others go first: they wait for that, and it is answered later by what they take. If its caller has gone by then, it ends there.

use crate::domain::model::Model;
use crate::domain::model::state::{Asking, Said, say};

/// A step is a week of one customer into the networks of a model, or what they say of it: 2 us of the twelve that are trained.
const STEPS: u32 = 128;

/// Steps that a customer's answer takes. A network that was brought along reads all of its weeks for each.
fn answer(model: &Model) -> u32 {
    let weeks = model.given.as_ref().map_or(0, |given| given.weeks());
    u32::try_from(weeks).unwrap_or(u32::MAX).saturating_add(1)
}

/// What is left of a message's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    steps: u32,
}

impl Turn {
    pub(crate) const fn new() -> Self {
        Self { steps: STEPS }
    }

    /// How many customers are asked about together.
    pub(crate) fn together(model: &Model) -> usize {
        (STEPS / answer(model)).max(1) as usize
    }

    /// What the networks say of at most [`Turn::together`] customers: as [`crate::domain::model::state::ask`], and others go first in between.
    pub(crate) async fn ask(&mut self, model: &Model, askings: &mut [Asking<'_>]) -> Vec<Option<Said>> {
        for asking in &mut *askings {
            while !asking.catch_up(model, &mut self.steps) {
                self.over().await;
            }
        }
        let steps = answer(model).saturating_mul(askings.len() as u32);
        if self.steps < steps {
            self.over().await;
        }
        self.steps = self.steps.saturating_sub(steps);
        say(model, askings)
    }

    /// Everyone else who is ready goes first.
    async fn over(&mut self) {
        tokio::task::yield_now().await;
        self.steps = STEPS;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::domain::customer::Day;
    use crate::domain::fit::{Fit, Numbers, Table};
    use crate::domain::model::Member;
    use crate::domain::model::features::Scales;
    use crate::domain::model::given::Given;
    use crate::domain::model::network::{INPUTS, Layout, OUTPUTS};
    use crate::domain::model::state::ask;
    use crate::domain::population::{CLASSES, WEEKS};
    use crate::train::learn::begin;

    /// Reads so many weeks, and says nothing of them.
    #[derive(Debug)]
    struct Reads(usize);

    impl Given for Reads {
        fn weeks(&self) -> usize {
            self.0
        }

        fn outputs(&self, _: &[[f32; INPUTS]]) -> Result<[f32; OUTPUTS], String> {
            Ok([0.0; OUTPUTS])
        }
    }

    fn model(given: Option<Arc<dyn Given>>) -> Model {
        let rate = vec![0.01; CLASSES * WEEKS];
        let estimate = Fit::from_numbers(&Numbers { rate, customers: 50, spend: 3e7, first_spend: 2e7, scatter: 1.0 }).unwrap();
        let (layout, table) = (Layout::new(&[1, 2]), Table::of(&estimate, 90));
        let members = vec![Member { parameters: begin(&layout, 1), layout, own: 1.0 }];
        let scales = Scales { spend: 30.0, items: 2.0 };
        Model { id: String::new(), horizon_days: 90, cut: 0, scales, members, given, level: 1.0, slope: 1.0, estimate, table }
    }

    /// How often somebody else had a turn while these were asked about, weeks behind their one purchase; each says what it says without a turn.
    async fn turns(model: &Model, weeks: &[i64]) -> u32 {
        let day = [Day { day: 7, items: 1, spend_micros: 9_000_000 }];
        let askings = || weeks.iter().map(|weeks| Asking { state: None, days: &day, end: 8 + 7 * weeks }).collect::<Vec<_>>();
        let counted = Arc::new(AtomicU32::new(0));
        let other = counted.clone();
        let other = tokio::spawn(async move {
            loop {
                tokio::task::yield_now().await;
                other.fetch_add(1, Ordering::Relaxed);
            }
        });
        tokio::task::yield_now().await; // the other has begun
        let before = counted.load(Ordering::Relaxed);
        let said = Turn::new().ask(model, &mut askings()).await;
        other.abort();
        assert_eq!(said, ask(model, &mut askings()));
        counted.load(Ordering::Relaxed) - before
    }

    #[tokio::test]
    async fn others_have_a_turn_every_128_steps() {
        let model = model(None);
        assert_eq!(Turn::together(&model), 128);
        // The week of the purchase is a step, and what is said is one.
        assert_eq!(turns(&model, &[126]).await, 0);
        assert_eq!(turns(&model, &[128]).await, 1);
        assert_eq!(turns(&model, &[500]).await, 3);
        // 128 turns and a half of weeks; the answers are no turn more.
        assert_eq!(turns(&model, &[257; 64]).await, 128);
        assert_eq!(turns(&model, &[0; 128]).await, 0);
    }

    #[tokio::test]
    async fn a_network_that_reads_all_its_weeks_each_time_has_as_many_customers_a_turn_as_that_leaves() {
        for (weeks, together) in [(1, 64), (31, 4), (63, 2), (127, 1), (520, 1)] {
            let model = model(Some(Arc::new(Reads(weeks))));
            assert_eq!(Turn::together(&model), together);
            assert_eq!(turns(&model, &vec![1; together]).await, 1, "{weeks}");
        }
    }
}
