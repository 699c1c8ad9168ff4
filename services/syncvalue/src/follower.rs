//! Follows SyncShield's log: values reach the log first, and SyncValue from it.
//!
//! Outcomes become durable here together with the position behind them, before anything later is looked at; so that a
//! restart goes on where it was, and counts nothing twice.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clients::{Found, Stretch, Tail};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::record::{Followed, MAX_EVENTS};

/// Pauses between attempts: doubled from the first to the last, and back to the first where one got further.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Leaves without an outcome after which the position is written all the same: to read so many again takes under a second.
const MAX_UNWRITTEN: u64 = 65_536;

/// See the module.
pub(crate) struct Follower {
    shield: String,
    store: Arc<Store>,
    metrics: Metrics,
    at: Followed,
    written: u64,
}

impl Follower {
    /// Goes on where the store has got to.
    pub(crate) fn new(shield: String, store: Arc<Store>, metrics: Metrics) -> Self {
        let at = store.followed().borrow().clone().unwrap_or_default();
        metrics.followed(at.next_index);
        Self { shield, store, metrics, written: at.next_index, at }
    }

    /// Until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = PAUSES.0;
        loop {
            let before = self.at.next_index;
            let ended = tokio::select! {
                ended = self.follow() => ended,
                () = shutdown.cancelled() => return,
            };
            if self.at.next_index > before {
                pause = PAUSES.0;
            }
            match ended {
                Ok(()) => tracing::info!(next_index = self.at.next_index, "syncshield ended the stream"),
                Err(error) => {
                    tracing::warn!(%error, next_index = self.at.next_index, pause_ms = pause.as_millis(), "not following the log")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    /// One stream, up to its end.
    async fn follow(&mut self) -> Result<(), Error> {
        let mut tail = Tail::open(&self.shield, &self.at.log_id, self.at.next_index).await?;
        while let Some(stretch) = tail.next().await? {
            self.take(stretch).await?;
        }
        Ok(())
    }

    async fn take(&mut self, stretch: Stretch) -> Result<(), Error> {
        let Stretch { log_id, next_index, found } = stretch;
        let end = Followed { log_id, next_index };
        for part in found.chunks(MAX_EVENTS) {
            let behind = part.last().map_or(end.next_index, |(_, behind)| *behind);
            self.write(part.to_vec(), Followed { next_index: behind, ..end.clone() }).await?;
        }
        if end.next_index - self.written >= MAX_UNWRITTEN {
            self.write(Vec::new(), end).await?;
        } else if end.next_index > self.at.next_index {
            self.metrics.followed(end.next_index);
            self.store.passed(end.clone());
            self.at = end;
        }
        Ok(())
    }

    async fn write(&mut self, found: Vec<(Found, u64)>, at: Followed) -> Result<(), Error> {
        let (mut events, mut attributed, mut campaigns) = (Vec::new(), Vec::new(), Vec::new());
        for (found, behind) in found {
            match found {
                Found::Outcome(observed) => events.push((observed, behind)),
                Found::Attributed(customer, campaign) => {
                    attributed.push(customer);
                    campaigns.push(campaign);
                }
            }
        }
        let applied = self.store.follow(events, attributed.clone(), at.clone()).await?;
        // Once it is kept: what could not be is read again.
        attributed.iter().zip(&campaigns).for_each(|(customer, campaign)| self.metrics.attributed(customer, campaign));
        self.metrics.accuracy(&self.store);
        self.metrics.observed(&applied, &self.store);
        self.metrics.followed(at.next_index);
        self.written = at.next_index;
        self.at = at;
        Ok(())
    }
}
