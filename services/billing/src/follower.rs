//! The task that follows the log into the ledger.
//!
//! Of several Billings on one ledger one has the turn to do that; the others wait for theirs, and hear
//! from the ledger how far it has come.
//!
//! A lost connection is taken up again from the ledger's own cursor. A log that contradicts itself,
//! its signature or what was believed before is not: the task stops for good and says why, and
//! nothing is drafted or finalised on such a log.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use kiki::status::Reason;
use kiki::tlog::note::{self, VerifyingKey};
use kiki::tlog::{Checkpoint, checkpoint};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::billing::{Billing, counts, credits};
use crate::clients::Shield;
use crate::domain::follow::{Believed, Fault, Follower};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Turn};

/// Waits between attempts to connect: doubled from the first to the last, so that a restart of
/// SyncShield is noticed within a tenth of a second and an outage costs one attempt in 5 s.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How far the ledger has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Leaves that a signed checkpoint covers and that are folded.
    pub folded: u64,
    /// Why the log is followed no longer.
    pub fault: Option<String>,
}

/// The follower's parts.
#[derive(Debug)]
pub struct Following {
    /// Where it folds into.
    pub store: Store,
    /// Whom it follows.
    pub shield: Shield,
    /// The log's key; its name is the log's id.
    pub key: VerifyingKey,
    /// Whom it tells.
    pub progress: watch::Sender<Progress>,
    /// What it counts.
    pub metrics: Metrics,
    /// Whose unrecorded invoices it sees to once SyncShield answers.
    pub billing: Billing,
    /// Whether credits may be without their notes.
    pub uncredited: AtomicBool,
}

impl Following {
    /// Follows until `shutdown` or a fault of the log.
    pub async fn run(self, shutdown: CancellationToken) {
        let follows = shutdown.run_until_cancelled(self.in_turns());
        tokio::select! {
            _ = follows => {}
            () = self.listen() => {}
        }
        self.metrics.folding.set(0);
    }

    /// Has its turn until a fault of the log.
    async fn in_turns(&self) {
        let mut wait = BACKOFF.0;
        loop {
            let before = self.progress.borrow().folded;
            if let Err(error) = self.follow().await {
                if let Some(fault) = fault(&error) {
                    return self.stop(fault, &error);
                }
                tracing::warn!(%error, "tail broke off");
                self.metrics.fold_error.set(1);
            }
            self.metrics.folding.set(0);
            wait = if self.progress.borrow().folded > before { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Tells what others fold, for ever.
    async fn listen(&self) {
        loop {
            let Err(error) = self.hear().await;
            tracing::warn!(%error, "what other processes fold is not heard");
            tokio::time::sleep(BACKOFF.1).await;
        }
    }

    async fn hear(&self) -> Result<Infallible, StoreError> {
        let mut changes = self.store.changes().await?;
        loop {
            self.tell(self.store.folded(self.key.name()).await?);
            changes.next().await?;
        }
    }

    /// Waits for its turn and follows one stream to its end.
    async fn follow(&self) -> Result<(), Error> {
        let mut turn = self.store.turn().await?;
        self.metrics.folding.set(1);
        let cursor = self.store.cursor(self.key.name()).await?;
        self.tell(cursor.frontier.size());
        let mut follower = Follower::new(self.key.name(), cursor.frontier, cursor.heads);
        let mut stream = self.shield.tail(follower.next_index(), "", true).await?;
        if let Err(error) = self.billing.record_rest().await {
            // The next connection tries again; the fold does not wait for it.
            tracing::warn!(%error, "invoices are not recorded yet");
        }
        self.uncredited.store(true, Relaxed);
        self.credit().await;
        while let Some(message) = stream.message().await? {
            for entry in &message.entries {
                follower.push(entry.index, &entry.leaf).map_err(refused)?;
            }
            if !message.checkpoint.is_empty() {
                let checkpoint = self.open(&message.checkpoint).await?;
                if let Some(believed) = follower.checkpoint(&checkpoint).map_err(broken)? {
                    self.fold(&mut turn, &believed).await?;
                }
            }
            if follower.wants_checkpoint() {
                self.catch_up(&mut turn, &mut follower).await?;
            }
        }
        Ok(())
    }

    /// Far behind the log's end: its newest checkpoint, and a proof that what waits is in it.
    async fn catch_up(&self, turn: &mut Turn, follower: &mut Follower) -> Result<(), Error> {
        let (note, _) = self.shield.checkpoint(follower.next_index()).await?;
        let checkpoint = self.open(&note).await?;
        let proof = self.shield.proof(follower.waiting().collect(), checkpoint.size).await?;
        let believed = follower.proven(&checkpoint, &proof).map_err(broken)?;
        self.fold(turn, &believed).await
    }

    /// A checkpoint under the log's key, or under the one that took over from it with its signature.
    async fn open(&self, note: &str) -> Result<Checkpoint, Error> {
        let open = |key: &VerifyingKey| Checkpoint::open(note.as_bytes(), key.name(), key);
        match open(&self.key) {
            Err(checkpoint::Error::Note(note::Error::Unverified { .. })) => {
                let rotations = self.shield.head(0).await?.rotations;
                open(&kiki::rotation::newest(&rotations, &self.key).map_err(broken)?).map_err(broken)
            }
            opened => opened.map_err(broken),
        }
    }

    async fn fold(&self, turn: &mut Turn, believed: &Believed) -> Result<(), Error> {
        turn.fold(self.key.name(), believed).await?;
        if believed.leaves.iter().any(|leaf| counts(leaf.body.as_ref())) {
            self.billing.count_unrecorded().await?;
            self.billing.count_course().await?;
        }
        self.tell(believed.frontier.size());
        if believed.leaves.iter().any(|leaf| leaf.body.as_ref().is_some_and(credits)) {
            self.uncredited.store(true, Relaxed);
        }
        self.credit().await;
        Ok(())
    }

    /// Issues what credit notes are due, where there may be any.
    async fn credit(&self) {
        if !self.uncredited.load(Relaxed) {
            return;
        }
        match self.billing.credit_notes().await {
            Ok(issued) => self.uncredited.store(!issued, Relaxed),
            // What is folded next tries again, and so does who asked for them.
            Err(error) => tracing::warn!(%error, "credit notes are not issued yet"),
        }
    }

    /// Two tell of it, and what one heard may be older than what the other did.
    fn tell(&self, folded: u64) {
        let further = self.progress.send_if_modified(|progress| {
            let further = progress.folded < folded;
            progress.folded = progress.folded.max(folded);
            further
        });
        if further {
            self.metrics.folded.set(i64::try_from(folded).unwrap_or(i64::MAX));
            self.metrics.fold_error.set(0);
        }
    }

    fn stop(&self, fault: String, error: &Error) {
        if let Error::Unreadable(leaf) | Error::Store(StoreError::Unreadable(leaf)) = error {
            self.metrics.unreadable(leaf);
        }
        tracing::error!(fault, "the log is followed no longer");
        self.metrics.fault.set(1);
        self.progress.send_modify(|progress| progress.fault = Some(fault));
    }
}

fn refused(fault: Fault) -> Error {
    match fault {
        Fault::Unreadable(leaf) => Error::Unreadable(leaf),
        fault => broken(fault),
    }
}

fn broken(fault: impl std::fmt::Display) -> Error {
    Error::Fault(fault.to_string())
}

/// Whether an error is the log's own, which no further attempt mends.
fn fault(error: &Error) -> Option<String> {
    match error {
        Error::Fault(fault) => Some(fault.clone()),
        Error::Unreadable(leaf) => Some(leaf.to_string()),
        Error::Store(
            StoreError::Corrupt { .. } | StoreError::Unreadable(_) | StoreError::Unbalanced(_) | StoreError::CursorMoved { .. },
        ) => Some(error.to_string()),
        // The log no longer reaches, or no longer keeps, what was believed.
        Error::Shield(status) if Reason::PositionOutOfRange.is(status) => Some(error.to_string()),
        _ => None,
    }
}
