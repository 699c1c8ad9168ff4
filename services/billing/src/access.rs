//! Access evidence: that somebody saw or made a client's document is a record among the client's own.
//!
//! A call waits for a place in a bounded queue and not for the log. What has queued up is recorded at once in the
//! background, in batches that are sent again until the log has taken them, each once. Where the log is out of reach the
//! queue fills, and then calls fail rather than go unrecorded.
//!
//! Deliberately not durable before the log has it: what is queued when the process is killed, some milliseconds' worth,
//! is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::caller::Caller;
use kiki::clock::UnixMicros;
use kiki::ids::Key;
use kiki::leaf::{self, AccessKind, AccessRole};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clients::Shield;
use crate::error::{Error, out_of_reach};
use crate::metrics::Metrics;

/// Accesses that wait: at 200 bytes 800 KiB, and of one list of 1,000 clients four times.
const QUEUE: usize = 4_096;
/// Accesses of one request: a quarter of what SyncShield takes at once.
const BATCH: usize = 256;
/// How long a call waits for a place: a restart of SyncShield takes less.
const PLACE: Duration = Duration::from_secs(10);
/// Waits between attempts to record: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Bytes of what tells this process from all others.
const SOURCE_BYTES: usize = 8;

/// An access and the client whose document it is.
type Noted = (String, leaf::Access);

/// Where calls note what they give out.
#[derive(Debug, Clone)]
pub struct Accesses(mpsc::Sender<Noted>);

/// What records it.
#[derive(Debug)]
pub struct Recorder {
    queue: mpsc::Receiver<Noted>,
    shield: Shield,
    metrics: Metrics,
    source: String,
    source_seq: u64,
}

/// Both ends of the queue.
///
/// # Errors
/// The operating system has no randomness.
pub fn queue(shield: Shield, metrics: Metrics) -> Result<(Accesses, Recorder), Error> {
    let random = Key::random().map_err(|e| std::io::Error::other(e.to_string()))?;
    let source = format!("billing.{}", hex::encode(&random.bytes()[..SOURCE_BYTES]));
    let (sender, queue) = mpsc::channel(QUEUE);
    Ok((Accesses(sender), Recorder { queue, shield, metrics, source, source_seq: 0 }))
}

impl Accesses {
    /// Notes that a client's document was given out; before it is.
    ///
    /// # Errors
    /// There is no place in the queue, as the log does not take what is in it.
    pub async fn note(&self, caller: &Caller, kind: AccessKind, at: UnixMicros, client: &str, subject: &str) -> Result<(), Error> {
        let place = tokio::time::timeout(PLACE, self.0.reserve()).await;
        let place = place.map_err(|_| Error::Unrecorded)?.map_err(|_| Error::Stopped)?;
        let (role, tenant) = match caller {
            Caller::Operator => (AccessRole::Operator, String::new()),
            Caller::Service => (AccessRole::Service, String::new()),
            Caller::Tenant(own) => (AccessRole::Tenant, own.as_str().to_owned()),
        };
        let (role, kind, at) = (role.into(), kind.into(), Some(at.into()));
        place.send((client.to_owned(), leaf::Access { role, tenant, kind, subject: subject.to_owned(), at }));
        Ok(())
    }
}

impl Recorder {
    /// Records until `last`: then what is left, and no more is noted.
    pub async fn run(mut self, last: CancellationToken) {
        let mut noted = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = self.queue.recv_many(&mut noted, BATCH) => if count == 0 { return },
                () = last.cancelled(), if !self.queue.is_closed() => self.queue.close(),
            }
            // A client that the log refuses holds up no other.
            let mut by_client: BTreeMap<String, Vec<leaf::Access>> = BTreeMap::new();
            for (client, access) in noted.drain(..) {
                by_client.entry(client).or_default().push(access);
            }
            for (client, accesses) in by_client {
                self.record(&client, accesses).await;
            }
        }
    }

    /// Sends a batch until the log has it, or refuses it for good.
    async fn record(&mut self, client: &str, accesses: Vec<leaf::Access>) {
        let mut wait = BACKOFF.0;
        loop {
            match self.shield.record_accesses(client, &accesses, (&self.source, self.source_seq + 1)).await {
                Ok(()) => {
                    self.source_seq += 1;
                    return;
                }
                Err(Error::Shield(status)) if !out_of_reach(&status) => {
                    tracing::error!(client, count = accesses.len(), refused = status.message(), "the log does not take accesses");
                    self.metrics.refused_accesses.inc_by(accesses.len() as u64);
                    return;
                }
                Err(error) => tracing::warn!(%error, "accesses are not recorded yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_place_in_the_queue_is_refused_rather_than_unrecorded() {
        let shield = Shield::new("http://127.0.0.1:1", "kiki.test/log").unwrap();
        let (accesses, mut recorder) = queue(shield, Metrics::new(&kiki::runtime::Metrics::new())).unwrap();
        let note = || accesses.note(&Caller::Operator, AccessKind::GetInvoice, UnixMicros(1), "acme", "K2026-000001");
        for _ in 0..QUEUE {
            note().await.unwrap();
        }
        let asked = tokio::time::Instant::now();
        assert!(matches!(note().await, Err(Error::Unrecorded)));
        assert_eq!(asked.elapsed(), PLACE);
        // A place that comes free in time is taken.
        let (noted, received) = tokio::join!(note(), recorder.queue.recv());
        noted.unwrap();
        assert_eq!(received.unwrap().0, "acme");
    }
}
