//! What was answered lately: the same opportunity again has the same answer, and no second slot.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{Answer, Answered};

/// Opportunities remembered: at 10,000 a second, the last six seconds, which is longer than an exchange repeats one.
/// A bid with what its receipts are made of has less than 700 bytes, so 46 MB at most.
pub(crate) const MAX_ENTRIES: usize = 65_536;

type Key = [u8; 16];

/// Where an opportunity's answer is, or will be.
pub(crate) type Cell = Arc<OnceCell<Answered>>;

/// The memory. Answers of a moment (not ready, too late) are not kept.
#[derive(Debug, Default)]
pub struct Memo {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cells: HashMap<Key, Cell, foldhash::fast::RandomState>,
    order: VecDeque<Key>,
}

impl Memo {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The opportunity's place, made where there is none.
    pub(crate) fn cell(&self, key: Key) -> Cell {
        let mut inner = self.inner.lock();
        if let Some(cell) = inner.cells.get(&key) {
            return cell.clone();
        }
        if inner.order.len() >= MAX_ENTRIES
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.cells.remove(&oldest);
        }
        let cell = Arc::new(OnceCell::new());
        inner.cells.insert(key, cell.clone());
        inner.order.push_back(key);
        cell
    }
}

/// The answer that is there, else the one that `decide` makes. Of several at once one decides, and the others wait.
pub(crate) async fn answer(cell: &Cell, decide: impl Future<Output = Answered>) -> Answered {
    let decide = async {
        let answered = decide.await;
        match &*answered.answer {
            Answer::NoBid(reason, _) if reason.passing() => Err(answered),
            _ => Ok(answered),
        }
    };
    match cell.get_or_try_init(|| decide).await {
        Ok(answered) => answered.clone(),
        Err(passing) => passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Reason;

    async fn ask(memo: &Memo, key: u8, reason: Reason, ticket: u64) -> u64 {
        answer(&memo.cell([key; 16]), async { Answered::no_bid(reason, String::new(), ticket) }).await.ticket
    }

    #[tokio::test]
    async fn the_same_opportunity_has_the_same_answer() {
        let memo = Memo::new();
        assert_eq!(ask(&memo, 1, Reason::Budget, 1).await, 1);
        assert_eq!(ask(&memo, 1, Reason::Budget, 2).await, 1);
        assert_eq!(ask(&memo, 2, Reason::Budget, 3).await, 3);
    }

    #[tokio::test]
    async fn an_answer_of_a_moment_is_not_kept() {
        let memo = Memo::new();
        assert_eq!(ask(&memo, 1, Reason::NotReady, 1).await, 1);
        assert!(!memo.cell([1; 16]).initialized());
        assert_eq!(ask(&memo, 1, Reason::NoMatch, 2).await, 2);
        assert!(memo.cell([1; 16]).initialized());
    }

    #[tokio::test]
    async fn forgets_the_oldest_beyond_its_bound() {
        let memo = Memo::new();
        for n in 0..=MAX_ENTRIES as u128 {
            drop(memo.cell(n.to_be_bytes()));
        }
        let inner = memo.inner.lock();
        assert_eq!((inner.cells.len(), inner.order.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(!inner.cells.contains_key(&0_u128.to_be_bytes()));
    }
}
