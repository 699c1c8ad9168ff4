//! The driver: streams of batches, each with a bounded number of batches that are not final yet.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::error::{Doing as _, Failure, rpc};

/// How long a stream may be silent while it owes an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Latencies up to a minute, to three figures.
const LONGEST_US: u64 = 60_000_000;

/// How a run is driven.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) batch: usize,
    /// Batches of one stream that are sent and not final.
    pub(super) window: usize,
    pub(super) duration: Duration,
}

/// What one message from the server says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// How many items it answers, and how many of those count.
    pub(super) answered: usize,
    pub(super) counted: u64,
    /// How many items of the stream are final by now.
    pub(super) acknowledged: u64,
    pub(super) bytes: usize,
}

/// What came of a run, or of one stream of it.
pub(super) struct Measured {
    /// Items that count and are final, and those that were answered and do not count.
    pub(super) items: u64,
    pub(super) others: u64,
    /// From the first request to the last word.
    pub(super) elapsed: Duration,
    pub(super) received_bytes: u64,
    /// From a batch's request to its answer, and to its being final; microseconds, an entry an item.
    pub(super) answer_us: Histogram<u64>,
    pub(super) final_us: Histogram<u64>,
}

impl Measured {
    pub(super) fn new() -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).doing("making a histogram");
        Ok(Self { items: 0, others: 0, elapsed: Duration::ZERO, received_bytes: 0, answer_us: histogram()?, final_us: histogram()? })
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.items += other.items;
        self.others += other.others;
        self.received_bytes += other.received_bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.answer_us.add(&other.answer_us).and_then(|()| self.final_us.add(&other.final_us)).doing("adding up latencies")
    }

    /// A call of one item, which is final when it is answered, and counts or does not.
    pub(super) fn add_call(&mut self, took: Duration, bytes: usize, counts: bool) {
        *(if counts { &mut self.items } else { &mut self.others }) += 1;
        self.received_bytes += bytes as u64;
        self.answer_us.saturating_record(took.as_micros().try_into().unwrap_or(u64::MAX).max(1));
    }

    /// Items that count and those that do not.
    pub(super) fn answered(&self) -> u64 {
        self.items + self.others
    }

    pub(super) fn items_per_second(&self) -> f64 {
        self.items as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Waits for all streams of a run and adds up what they measured.
pub(super) async fn together(streams: Vec<tokio::task::JoinHandle<Result<Measured, Failure>>>) -> Result<Measured, Failure> {
    let mut sum = Measured::new()?;
    for stream in streams {
        sum.add(&stream.await.doing("a stream")??)?;
    }
    Ok(sum)
}

/// So many callers, each of which calls again when it was answered: what the server can take. A call gives the length of its
/// answer, and whether that counts.
pub(super) async fn saturated<F>(
    callers: usize,
    duration: Duration,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Measured, Failure>
where
    F: Future<Output = Result<(usize, bool), Failure>> + Send,
{
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let call = call.clone();
        tokio::spawn(async move {
            let mut measured = Measured::new()?;
            while start.elapsed() < duration {
                let sent = Instant::now();
                let (bytes, counts) = call(caller).await?;
                measured.add_call(sent.elapsed(), bytes, counts);
            }
            measured.elapsed = start.elapsed();
            Ok(measured)
        })
    });
    together(callers.collect()).await
}

struct Batch {
    sent: Instant,
    /// The items of the stream that are final when this batch is.
    end: u64,
    counted: u64,
}

/// Drives one stream for the load's duration, then waits for what is still on its way.
pub(super) async fn stream<Q, A, F>(
    load: Load,
    open: impl FnOnce(ReceiverStream<Q>) -> F,
    mut batch: impl FnMut(u64) -> Q,
    hear: impl Fn(&A) -> Heard,
) -> Result<Measured, Failure>
where
    F: Future<Output = Result<Response<Streaming<A>>, Status>>,
{
    let (send, requests) = mpsc::channel(load.window);
    let mut measured = Measured::new()?;
    let mut unanswered: VecDeque<Batch> = VecDeque::new();
    let mut open_ended: VecDeque<Batch> = VecDeque::new(); // answered, not final
    let mut sent = 0;
    let start = Instant::now();
    // The first request is there before the stream is opened: some servers answer a stream's head with its first message.
    send.try_send(batch(sent)).doing("sending a batch")?;
    sent += load.batch as u64;
    unanswered.push_back(Batch { sent: start, end: sent, counted: 0 });
    let mut answers = open(ReceiverStream::new(requests)).await.map_err(|status| rpc("opening a stream", &status))?.into_inner();
    loop {
        while unanswered.len() + open_ended.len() < load.window && start.elapsed() < load.duration {
            let request = batch(sent);
            sent += load.batch as u64;
            unanswered.push_back(Batch { sent: Instant::now(), end: sent, counted: 0 });
            send.send(request).await.doing("sending a batch")?;
        }
        if unanswered.is_empty() && open_ended.is_empty() {
            break;
        }
        let answer = timeout(SILENCE, answers.message()).await.doing("waiting for an answer")?;
        let answer = answer.map_err(|status| rpc("reading a stream", &status))?.ok_or_else(|| Failure::new("the stream ended"))?;
        let heard = hear(&answer);
        measured.received_bytes += heard.bytes as u64;
        if heard.answered > 0 {
            let mut batch = unanswered.pop_front().ok_or_else(|| Failure::new("an answer to nothing"))?;
            measured.answer_us.saturating_record_n(micros(batch.sent), heard.answered as u64);
            measured.others += heard.answered as u64 - heard.counted;
            batch.counted = heard.counted;
            open_ended.push_back(batch);
        }
        while let Some(batch) = open_ended.pop_front_if(|batch| batch.end <= heard.acknowledged) {
            measured.items += batch.counted;
            measured.final_us.saturating_record_n(micros(batch.sent), load.batch as u64);
        }
    }
    measured.elapsed = start.elapsed();
    Ok(measured)
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros().try_into().unwrap_or(u64::MAX).max(1)
}
