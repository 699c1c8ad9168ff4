//! Access evidence: that somebody saw or made a client's document, called what leaves no other record, or was refused, is a record in
//! the log.
//!
//! A call waits for a place in a bounded queue and not for the log. What has queued up is recorded in the background, in batches that are
//! sent again until the log has taken them, each once.
//!
//! Deliberately not durable before the log has it: what is queued when the process is killed, some milliseconds' worth (seconds' for
//! refusals), is lost.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::ids::Key;
use crate::leaf;
use crate::pb::syncshield::v1 as pb;
use crate::pb::syncshield::v1::record_item::Body;
use crate::status;

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

/// An access and the client among whose leaves it is recorded.
type Noted = (String, leaf::Access);

/// Where calls note what they did.
#[derive(Debug, Clone)]
pub struct Accesses(mpsc::Sender<Noted>);

/// There is no place in the queue, as the log does not take what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access could not be recorded: the log does not take what waits")]
pub struct Unrecorded;

/// What records it.
#[derive(Debug)]
pub struct Recorder {
    queue: mpsc::Receiver<Noted>,
    source: String,
    source_seq: u64,
    pace: Duration,
    refused: IntCounter,
}

/// Both ends of a queue of a service's. Batches are at least `pace` apart, and those of one that are alike are one record with a count;
/// `refused` counts those that the log refused for good.
///
/// # Errors
/// The operating system has no randomness.
pub fn queue(service: &str, pace: Duration, refused: IntCounter) -> std::io::Result<(Accesses, Recorder)> {
    let random = Key::random().map_err(|e| std::io::Error::other(e.to_string()))?;
    let source = format!("{service}.{}", hex::encode(&random.bytes()[..SOURCE_BYTES]));
    let (sender, queue) = mpsc::channel(QUEUE);
    Ok((Accesses(sender), Recorder { queue, source, source_seq: 0, pace, refused }))
}

impl Accesses {
    /// Notes an access of a client's document; before it is given out.
    ///
    /// # Errors
    /// There is no place in the queue in time.
    pub async fn note(&self, client: &str, access: leaf::Access) -> Result<(), Unrecorded> {
        let place = tokio::time::timeout(PLACE, self.0.reserve()).await;
        place.map_err(|_| Unrecorded)?.map_err(|_| Unrecorded)?.send((client.to_owned(), access));
        Ok(())
    }

    /// Notes one if there is a place at once.
    ///
    /// # Errors
    /// There is none.
    pub fn note_now(&self, client: &str, access: leaf::Access) -> Result<(), Unrecorded> {
        self.0.try_send((client.to_owned(), access)).map_err(|_| Unrecorded)
    }
}

impl Recorder {
    /// Records by `send` until `last`: then what is left, and no more is noted.
    pub async fn run<F>(mut self, last: CancellationToken, send: impl Fn(pb::RecordRequest) -> F)
    where
        F: Future<Output = Result<(), Status>>,
    {
        let mut noted = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = self.queue.recv_many(&mut noted, BATCH) => if count == 0 { return },
                () = last.cancelled(), if !self.queue.is_closed() => self.queue.close(),
            }
            // A client that the log refuses holds up no other.
            let mut by_client: BTreeMap<String, Vec<leaf::Access>> = BTreeMap::new();
            for (client, access) in noted.drain(..) {
                add(by_client.entry(client).or_default(), access, self.pace);
            }
            for (client, accesses) in by_client {
                self.record(&client, accesses, &send).await;
            }
            let _ = tokio::time::timeout(self.pace, last.cancelled()).await;
        }
    }

    /// Sends a batch until the log has it, or refuses it for good.
    async fn record<F>(&mut self, client: &str, accesses: Vec<leaf::Access>, send: impl Fn(pb::RecordRequest) -> F)
    where
        F: Future<Output = Result<(), Status>>,
    {
        let count = accesses.len() as u64;
        let item = |access| pb::RecordItem { client: client.to_owned(), body: Some(Body::Access(access)) };
        let (source, source_seq) = (self.source.clone(), self.source_seq + 1);
        let request = pb::RecordRequest { items: accesses.into_iter().map(item).collect(), source, source_seq };
        let mut wait = BACKOFF.0;
        loop {
            match send(request.clone()).await {
                Ok(()) => {
                    self.source_seq += 1;
                    return;
                }
                Err(status) if !status::out_of_reach(&status) => {
                    tracing::error!(client, count, refused = status.message(), "the log does not take accesses");
                    self.refused.inc_by(count);
                    return;
                }
                Err(status) => tracing::warn!(%status, "accesses are not recorded yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }
}

/// Adds an access to a batch: where batches have a pace, to what is like it but for its time.
fn add(batch: &mut Vec<leaf::Access>, access: leaf::Access, pace: Duration) {
    let alike = |other: &leaf::Access| leaf::Access { at: access.at, count: access.count, ..other.clone() } == access;
    match batch.iter_mut().find(|other| !pace.is_zero() && alike(other)) {
        Some(other) => other.count = other.count.max(1) + 1,
        None => batch.push(access),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("refused", "refused").unwrap()
    }

    fn access(subject: &str) -> leaf::Access {
        leaf::Access { subject: subject.to_owned(), ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_place_in_the_queue_is_refused_rather_than_unrecorded() {
        let (accesses, mut recorder) = queue("test", Duration::ZERO, counter()).unwrap();
        let note = || accesses.note("acme", access("K2026-000001"));
        for _ in 0..QUEUE {
            note().await.unwrap();
        }
        let asked = tokio::time::Instant::now();
        assert_eq!(note().await, Err(Unrecorded));
        assert_eq!(asked.elapsed(), PLACE);
        assert_eq!(accesses.note_now("acme", access("K2026-000001")), Err(Unrecorded));
        // A place that comes free in time is taken.
        let (noted, received) = tokio::join!(note(), recorder.queue.recv());
        noted.unwrap();
        assert_eq!(received.unwrap().0, "acme");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_what_is_alike_is_one_record_and_it_is_sent_until_the_log_has_it() {
        let (accesses, recorder) = queue("test", Duration::from_secs(1), counter()).unwrap();
        for subject in ["a", "b", "a", "a"] {
            accesses.note_now(leaf::OPERATOR, access(subject)).unwrap();
        }
        let (sent, last) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let seen = sent.clone();
        let recording = tokio::spawn(recorder.run(last.clone(), move |request: pb::RecordRequest| {
            seen.lock().push(request);
            let answer = if seen.lock().len() == 1 { Err(Status::unavailable("a restart")) } else { Ok(()) };
            std::future::ready(answer)
        }));
        drop(accesses);
        recording.await.unwrap();
        let sent = sent.lock();
        assert_eq!((sent.len(), &sent[0]), (2, &sent[1]), "once more, and as it was");
        let counts = sent[1].items.iter().map(|item| match &item.body {
            Some(Body::Access(access)) => (access.subject.clone(), access.count),
            _ => panic!("not an access"),
        });
        assert_eq!(counts.collect::<Vec<_>>(), [("a".to_owned(), 3), ("b".to_owned(), 0)]);
    }
}
