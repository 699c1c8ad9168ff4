//! What was answered lately: the same opportunity again has the same answer, and no second slot.
//!
//! The answers of a message lie side by side in one [`Batch`], and the memory knows where each opportunity's is. It has two
//! generations: when as many opportunities have been asked as one holds, the older is forgotten as a whole. So nothing is made for
//! a bid alone; and what was forgotten is let go bit by bit, because nobody should wait for all of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{Answer, Decided};

/// Opportunities of a generation: at 10,000 a second, five seconds, which is longer than an exchange repeats one. As many as fill
/// a table of 65,536 places. Answers of 256 bytes, and where each is, are less than 20 MB a generation.
pub(crate) const GENERATION: usize = 57_344;
/// A generation ends after that long, because its bids hold the campaigns as they were.
const AGE: Duration = Duration::from_secs(60);
/// Batches of the forgotten that go with each message: more than a message brings, so that they end before the next ones come.
const LET_GO: usize = 2;

pub(super) type Key = [u8; 16];

/// Places for the answers of a message.
type Batch = Arc<[OnceCell<Decided>]>;

/// Where an opportunity's answer is, or will be.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    batch: Batch,
    place: usize,
}

/// The memory. Answers of a moment (not ready, too late) are not kept.
#[derive(Debug, Default)]
pub struct Memo(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    younger: Generation,
    older: Generation,
    /// How many opportunities the younger one was asked of, and since when.
    asked: usize,
    began: UnixMicros,
    forgotten: Vec<Batch>,
}

#[derive(Debug, Default)]
struct Generation {
    /// Which batch, and which place in it. Keys are halves of SHA-256: a quick hash will do.
    places: HashMap<Key, (u32, u32), foldhash::fast::RandomState>,
    batches: Vec<Batch>,
}

impl Memo {
    /// The places of a message's opportunities: those that they have, or new ones.
    pub(super) fn cells(&self, keys: impl ExactSizeIterator<Item = Key>, now: UnixMicros) -> Vec<Cell> {
        if keys.len() == 0 {
            return Vec::new();
        }
        let batch: Batch = (0..keys.len()).map(|_| OnceCell::new()).collect();
        let mut cells = Vec::with_capacity(keys.len());
        let mut generations = self.0.lock();
        generations.turn(keys.len(), now);
        let Generations { younger, older, forgotten, .. } = &mut *generations;
        let number = younger.batches.len() as u32;
        younger.batches.push(batch);
        for (place, key) in (0..).zip(keys) {
            let known = older.cell(&key);
            cells.push(known.unwrap_or_else(|| {
                let (batch, place) = *younger.places.entry(key).or_insert((number, place));
                Cell { batch: younger.batches[batch as usize].clone(), place: place as usize }
            }));
        }
        let gone: [Option<Batch>; LET_GO] = std::array::from_fn(|_| forgotten.pop());
        drop(generations);
        drop(gone);
        cells
    }
}

impl Generation {
    fn cell(&self, key: &Key) -> Option<Cell> {
        let (batch, place) = *self.places.get(key)?;
        Some(Cell { batch: self.batches[batch as usize].clone(), place: place as usize })
    }
}

impl Generations {
    /// Makes room for so many, where need be in a new generation.
    fn turn(&mut self, count: usize, now: UnixMicros) {
        self.asked += count;
        if self.asked > GENERATION || now.since(self.began) >= AGE {
            self.began = now;
            std::mem::swap(&mut self.older, &mut self.younger);
            self.younger.places.clear();
            self.forgotten.append(&mut self.younger.batches);
            self.asked = count;
        }
    }
}

/// An answer, where it is kept or by itself.
#[derive(Debug)]
pub enum Answered<'a> {
    /// In the memory.
    Kept(&'a Decided),
    /// Of a moment.
    Passing(Decided),
}

impl std::ops::Deref for Answered<'_> {
    type Target = Decided;

    fn deref(&self) -> &Decided {
        match self {
            Self::Kept(decided) => decided,
            Self::Passing(decided) => decided,
        }
    }
}

impl Cell {
    fn once(&self) -> &OnceCell<Decided> {
        &self.batch[self.place]
    }

    /// Whether its answer is there.
    pub(super) fn answered(&self) -> bool {
        self.once().initialized()
    }

    /// The answer that is there, else the one that `decide` makes. Of several at once one decides, and the others wait.
    pub(super) async fn answer(&self, decide: impl Future<Output = Decided>) -> Answered<'_> {
        let decide = async {
            let decided = decide.await;
            match &decided.answer {
                Answer::NoBid(reason, _) if reason.passing() => Err(decided),
                _ => Ok(decided),
            }
        };
        match self.once().get_or_try_init(|| decide).await {
            Ok(decided) => Answered::Kept(decided),
            Err(passing) => Answered::Passing(passing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Reason;

    fn cell(memo: &Memo, key: u128) -> Cell {
        at(memo, key, UnixMicros(0))
    }

    fn at(memo: &Memo, key: u128, now: UnixMicros) -> Cell {
        memo.cells([key.to_be_bytes()].into_iter(), now).remove(0)
    }

    async fn ask(memo: &Memo, key: u128, reason: Reason, ticket: u64) -> u64 {
        cell(memo, key).answer(async { Decided::no_bid(reason, String::new(), ticket) }).await.ticket
    }

    #[tokio::test]
    async fn the_same_opportunity_has_the_same_answer() {
        let memo = Memo::default();
        assert_eq!(ask(&memo, 1, Reason::Budget, 1).await, 1);
        assert_eq!(ask(&memo, 1, Reason::Budget, 2).await, 1);
        assert_eq!(ask(&memo, 2, Reason::Budget, 3).await, 3);
    }

    #[tokio::test]
    async fn the_answers_of_a_message_have_places_of_their_own() {
        let memo = Memo::default();
        ask(&memo, 3, Reason::Budget, 9).await;
        let cells = memo.cells([1, 2, 1, 3].map(u128::to_be_bytes).into_iter(), UnixMicros(0));
        let mut tickets = Vec::new();
        for (cell, ticket) in cells.iter().zip(1..) {
            tickets.push(cell.answer(async { Decided::no_bid(Reason::Budget, String::new(), ticket) }).await.ticket);
        }
        assert_eq!(tickets, [1, 2, 1, 9]);
    }

    #[tokio::test]
    async fn an_answer_of_a_moment_is_not_kept() {
        let memo = Memo::default();
        assert_eq!(ask(&memo, 1, Reason::NotReady, 1).await, 1);
        assert!(!cell(&memo, 1).answered());
        assert_eq!(ask(&memo, 1, Reason::NoMatch, 2).await, 2);
        assert!(cell(&memo, 1).answered());
    }

    #[tokio::test]
    async fn remembers_the_last_generation_and_forgets_the_one_before() {
        let (memo, generation) = (Memo::default(), GENERATION as u128);
        ask(&memo, 0, Reason::Budget, 1).await;
        let asked = |from: u128, to: u128| (from..to).for_each(|key| drop(cell(&memo, key)));
        asked(1, 2 * generation - 1);
        assert!(cell(&memo, 0).answered(), "of the last {GENERATION} and more");
        asked(2 * generation, 3 * generation);
        assert!(!cell(&memo, 0).answered());
    }

    #[tokio::test]
    async fn forgets_what_is_old_however_few_are_asked() {
        let memo = Memo::default();
        ask(&memo, 0, Reason::Budget, 1).await;
        let after = |ages: u64| UnixMicros(0).plus(AGE * ages as u32);
        assert!(at(&memo, 0, after(1)).answered());
        assert!(!at(&memo, 0, after(2)).answered());
        assert_eq!(memo.cells(std::iter::empty(), after(2)).len(), 0, "of nothing nothing is kept");
        assert_eq!(memo.0.lock().younger.batches.len(), 1);
    }

    #[test]
    fn holds_no_more_than_three_generations_whatever_is_asked() {
        let memo = Memo::default();
        for n in 0..5 * GENERATION as u128 / 64 {
            // One of each message is new.
            drop(memo.cells((0..64_u8).map(|i| if i == 0 { n + 64 } else { i.into() }.to_be_bytes()), UnixMicros(0)));
        }
        let Generations { younger, older, forgotten, .. } = &*memo.0.lock();
        let cells = [&younger.batches, &older.batches, forgotten].map(|batches| batches.iter().map(|batch| batch.len()).sum::<usize>());
        assert!(cells.iter().all(|cells| *cells <= GENERATION), "{cells:?}");
        assert!(younger.places.len() + older.places.len() < 2 * GENERATION);
    }
}
