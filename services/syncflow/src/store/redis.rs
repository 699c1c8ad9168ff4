//! Impressions in a Redis that several SyncFlows share.
//!
//! For each customer and campaign, and for each customer over all campaigns, there are two sorted sets of slots by the
//! time of their bid: those open and those charged. One task sends everything in the order in which it came, many at a
//! time in one pipeline, so that a question always knows what was taken before it.
//!
//! Bounded: [`MAX_WAITING`] wait, a set has [`MAX_LISTED`] slots, and Redis forgets by itself what no cap can ask for. What
//! Redis does not answer within [`PATIENCE`] is let go and counted as unshared: nothing is sent twice, nothing is made up
//! for afterwards, and a cap is a soft limit.

use std::fmt::Write as _;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use kiki::clock::UnixMicros;
use kiki::guardrail::MAX_HOURS;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Counter, Counts};
use crate::domain::frequency::{Customer, Fate, Question, Shown};

/// What waits to be sent: at 10,000 bids a second, 0.4 s. Each has at most 1 kB, so 4 MB.
const MAX_WAITING: usize = 4_096;
/// What goes in one pipeline: 256 answers of a few bytes are there in a millisecond.
const MAX_BATCH: usize = 256;
/// Slots of one set: four times the highest cap.
const MAX_LISTED: isize = 4_096;
/// How long a pipeline or a connection may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long after a failure nothing is asked of it: nobody waits for a Redis that is gone.
const PAUSE: Duration = Duration::from_secs(1);

/// Enters a slot's fate in its two sets.
const TAKE: &str = "
local fate, at, slot = ARGV[1], ARGV[2], ARGV[3]
if fate == 'open' then
  if not redis.call('ZSCORE', KEYS[2], slot) then redis.call('ZADD', KEYS[1], at, slot) end
else
  redis.call('ZREM', KEYS[1], slot)
  if fate == 'charged' then redis.call('ZADD', KEYS[2], at, slot) end
end
for _, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[4])
  redis.call('ZREMRANGEBYRANK', key, 0, ARGV[5])
  redis.call('EXPIRE', key, ARGV[6])
end
return 0";

/// The shared counts.
#[derive(Debug)]
pub struct Redis {
    queue: mpsc::Sender<Job>,
    unshared: IntCounter,
}

#[derive(Debug)]
enum Job {
    Count { questions: Vec<Question>, now: UnixMicros, answer: oneshot::Sender<Vec<u32>> },
    Take { customer: Customer, shown: Shown, fate: Fate, now: UnixMicros },
}

impl Redis {
    /// The counts at `redis://HOST/`, and the task that talks to it. An open bid counts for `window` at the most.
    /// `unshared` counts what does not get there.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(
        url: &str,
        window: Duration,
        unshared: IntCounter,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = ()> + use<>), String> {
        let client = ::redis::Client::open(url).map_err(|error| format!("frequency: {error}"))?;
        let (queue, jobs) = mpsc::channel(MAX_WAITING);
        let talk = Talk { client, window, jobs, unshared: unshared.clone(), connection: None, again: Instant::now() };
        Ok((Self { queue, unshared }, async move {
            let _ = stop.run_until_cancelled(talk.run()).await;
        }))
    }
}

impl Counter for Redis {
    fn counts(&self, questions: Vec<Question>, now: UnixMicros) -> Counts<'_> {
        if questions.is_empty() {
            return Box::pin(async { Some(Vec::new()) }); // an empty pipeline is an error to Redis' client
        }
        let (answer, counts) = oneshot::channel();
        let sent = self.queue.try_send(Job::Count { questions, now, answer }).is_ok();
        Box::pin(async move { if sent { counts.await.ok() } else { None } })
    }

    fn take(&self, customer: &Customer, shown: &Shown, fate: Fate, now: UnixMicros) {
        let job = Job::Take { customer: customer.clone(), shown: shown.clone(), fate, now };
        if self.queue.try_send(job).is_err() {
            self.unshared.inc();
        }
    }
}

/// The task's half.
struct Talk {
    client: ::redis::Client,
    window: Duration,
    jobs: mpsc::Receiver<Job>,
    unshared: IntCounter,
    connection: Option<MultiplexedConnection>,
    again: Instant,
}

impl Talk {
    async fn run(mut self) {
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        while self.jobs.recv_many(&mut jobs, MAX_BATCH).await > 0 {
            // Who asked hears that there is no answer, as their senders are dropped.
            let answered = tokio::time::timeout(PATIENCE, self.send(&jobs)).await;
            let failure = match answered {
                Ok(Ok(counts)) => {
                    deliver(std::mem::take(&mut jobs), counts);
                    continue;
                }
                Ok(Err(None)) => None,
                Ok(Err(Some(error))) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} ms", PATIENCE.as_millis())),
            };
            if let Some(failure) = failure {
                tracing::warn!("frequency caps are held by this process alone: Redis: {failure}");
                self.connection = None;
                self.again = Instant::now() + PAUSE;
            }
            let lost = jobs.drain(..).filter(|job| matches!(job, Job::Take { .. })).count();
            self.unshared.inc_by(lost as u64);
        }
    }

    /// Sends all in one pipeline; an error without a cause is the pause after one.
    async fn send(&mut self, jobs: &[Job]) -> Result<Vec<i64>, Option<::redis::RedisError>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None if Instant::now() < self.again => return Err(None),
            none => none.insert(self.client.get_multiplexed_async_connection().await.map_err(Some)?),
        };
        let mut pipe = ::redis::pipe();
        for job in jobs {
            match job {
                Job::Count { questions, now, .. } => questions.iter().for_each(|question| ask(&mut pipe, question, *now, self.window)),
                Job::Take { customer, shown, fate, now } => take(&mut pipe, customer, shown, *fate, *now),
            }
        }
        pipe.query_async(connection).await.map_err(Some)
    }
}

/// The sets of a customer: of one campaign, or of all.
fn keys(customer: &Customer, campaign: Option<&str>) -> [String; 2] {
    let mut name = format!("kiki:frequency:{{{}:", customer.client);
    for byte in customer.key.0 {
        let _ = write!(name, "{byte:02x}"); // a string takes everything
    }
    let campaign = campaign.unwrap_or("*"); // no campaign's name
    ["open", "charged"].map(|of| format!("{name}}}:{campaign}:{of}"))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn ask(pipe: &mut ::redis::Pipeline, question: &Question, now: UnixMicros, open: Duration) {
    let window = Duration::from_secs(u64::from(question.hours) * 3_600);
    for (key, window) in keys(&question.customer, question.campaign.as_deref()).iter().zip([window.min(open), window]) {
        pipe.cmd("ZCOUNT").arg(key).arg(format!("({}", now.0.saturating_sub(micros(window)))).arg("+inf");
    }
}

fn take(pipe: &mut ::redis::Pipeline, customer: &Customer, shown: &Shown, fate: Fate, now: UnixMicros) {
    let fate = match fate {
        Fate::Open => "open",
        Fate::Charged => "charged",
        Fate::Lost => "lost",
    };
    let longest = Duration::from_secs(u64::from(MAX_HOURS) * 3_600);
    for campaign in [Some(shown.campaign.as_str()), None] {
        let command = pipe.cmd("EVAL").arg(TAKE).arg(2).arg(&keys(customer, campaign)).arg(fate).arg(shown.at.0);
        command.arg(format!("{}.{}", shown.slot.0, shown.slot.1)).arg(now.0.saturating_sub(micros(longest)));
        command.arg(-MAX_LISTED - 1).arg(longest.as_secs());
    }
}

/// Hands each count to who asked: two numbers a question, and two a change that nobody waits for.
fn deliver(jobs: Vec<Job>, numbers: Vec<i64>) {
    let mut numbers = numbers.into_iter();
    let mut sum = || u32::try_from(numbers.by_ref().take(2).sum::<i64>()).unwrap_or(u32::MAX);
    for job in jobs {
        match job {
            Job::Take { .. } => drop(sum()),
            Job::Count { questions, answer, .. } => {
                let counts = questions.iter().map(|_| sum()).collect();
                let _ = answer.send(counts); // who asked may have given up
            }
        }
    }
}
