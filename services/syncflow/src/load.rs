//! The limit on bids under way and the queue before them, with their clock: whoever gets a place has to be answered, whoever gets
//! none is told at once.
//!
//! A bid is under way from when it is looked at; until then it has waited in its socket and in the runtime's queue. A bid that asks
//! nobody is over as soon as it is looked at, so that few are ever under way however long that queue is. So both are asked.
//!
//! What it costs to be turned away: over HTTP a head and an unread body, answered 204 with the reason `OVERLOADED`. Google's
//! and other exchanges count errors and late answers against a bidder, and send less; a 204 is an answer in time. Over gRPC it
//! is RESOURCE_EXHAUSTED with the time to wait; in a stream that one opportunity has no bid, and the stream goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::domain::limit::Limit;
use crate::domain::queue::Queue;

/// When one who was turned away may ask again: the bids under way are over by then.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What is under way and what waits.
#[derive(Debug)]
pub struct Load {
    limit: Limit,
    queue: Queue,
    began: Instant,
}

/// Places among the bids under way; they are free again once this is dropped.
#[derive(Debug)]
pub struct Places {
    load: Arc<Load>,
    count: u64,
}

/// Why a bid gets no place.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Crowded {
    /// So many are under way, which is as many as are let in.
    #[error("{0} are under way")]
    UnderWay(u64),
    /// A queue stands, and so many a second are let in.
    #[error("{0:.0} a second are let in")]
    Rate(f64),
    /// A queue has come to stand, and it has waited too long in it.
    #[error("this one has waited too long")]
    Waited,
}

impl Load {
    /// Nothing is under way.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { limit: Limit::default(), queue: Queue::default(), began: Instant::now() })
    }

    /// A place for a bid that came then.
    ///
    /// # Errors
    /// It is turned away, or there is no room.
    pub fn admit(self: &Arc<Self>, came: Instant) -> Result<Places, Crowded> {
        if self.turns_away(came) {
            return Err(Some(self.rate()).filter(|rate| rate.is_finite()).map_or(Crowded::Waited, Crowded::Rate));
        }
        self.place().ok_or_else(|| Crowded::UnderWay(self.limit()))
    }

    /// Whether a bid that came then is turned away, before it has a place: it waited too long, or more are let in than are served.
    #[must_use]
    pub fn turns_away(&self, came: Instant) -> bool {
        let now = Instant::now();
        self.queue.turns_away(now - came, now - self.began)
    }

    /// A place, unless there is no room.
    #[must_use]
    pub fn place(self: &Arc<Self>) -> Option<Places> {
        Some(self.enter(1)).filter(|place| place.count() == 1)
    }

    /// Places for as many of these as there is room for.
    #[must_use]
    pub fn enter(self: &Arc<Self>, count: usize) -> Places {
        Places { count: self.limit.enter(count as u64), load: self.clone() }
    }

    /// How many are let in.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.get()
    }

    /// How many a second are let in; infinite where no queue stands.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.queue.rate().per_second()
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.limit.under_way()
    }
}

impl Places {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The answers are there, of bids that went one after the other: the last one's time is not what the quickest took.
    pub fn answered_in_turn(self, deadline: &Deadline) {
        let (took, due) = (Instant::now() - deadline.began, deadline.predict - deadline.began);
        self.load.limit.took_their_turns(self.count, took, due);
    }

    /// The answer is there. Half of the time that it had is its due. Of a message of several it is the last one's, whose due is
    /// not what the quickest bid took.
    pub fn answered(self, deadline: &Deadline) {
        let now = Instant::now();
        let (took, due, now) = (now - deadline.began, deadline.predict - deadline.began, now - self.load.began);
        match self.count {
            1 => self.load.limit.took(took, due, now),
            count => self.load.limit.took_their_turns(count, took, due),
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.load.limit.leave(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_in_a_queue_that_stands_gets_no_place() {
        let (load, ms) = (Load::new(), Duration::from_millis(1));
        let (began, mut admitted) = (Instant::now(), Vec::new());
        for nth in 1..=60 {
            tokio::time::advance(ms).await;
            admitted.push(load.admit(began + ms * nth - ms * 8).map(drop));
        }
        assert!(admitted[..16].iter().all(Result::is_ok), "what is known yet is a pause: {admitted:?}");
        assert_eq!(admitted[16], Err(Crowded::Waited), "a queue stands");
        assert!(admitted[16..].iter().all(Result::is_err), "{admitted:?}");
        assert!(matches!(admitted[59], Err(Crowded::Rate(_))), "and still does: {:?}", admitted[59]);
        let place = load.admit(Instant::now());
        assert_eq!((place.is_ok(), load.under_way()), (true, 1), "who has just come gets one");
        drop(place);
        assert_eq!(load.under_way(), 0);
    }
}
