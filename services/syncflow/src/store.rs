//! Where impressions are counted: in this process's memory, and in Redis where several SyncFlows count together.
//!
//! One suite of behaviours runs on both: `tests/service/frequency/conformance.rs`.

pub mod redis;

use std::fmt::Debug;
use std::pin::Pin;

use kiki::clock::UnixMicros;

use crate::domain::frequency::{Customer, Fate, Memory, Question, Shown};

/// The counts, in the questions' order; none where the store cannot say.
pub type Counts<'a> = Pin<Box<dyn Future<Output = Option<Vec<u32>>> + Send + 'a>>;

/// What counts for frequency caps: [`crate::domain::frequency`] says what that is.
pub trait Counter: Debug + Send + Sync {
    /// How many bids count for each question. It may take long; whoever asks has a time budget.
    fn counts(&self, questions: Vec<Question>, now: UnixMicros) -> Counts<'_>;

    /// Takes in what became of a bid, without waiting; the same twice counts once. What is asked afterwards knows it.
    fn take(&self, customer: &Customer, shown: &Shown, fate: Fate, now: UnixMicros);
}

impl Counter for Memory {
    fn counts(&self, questions: Vec<Question>, now: UnixMicros) -> Counts<'_> {
        Box::pin(async move { Some(questions.iter().map(|question| self.count(question, now)).collect()) })
    }

    fn take(&self, customer: &Customer, shown: &Shown, fate: Fate, now: UnixMicros) {
        let _forgotten = Self::take(self, customer, shown, fate, now);
    }
}
