//! A method of a server and what it is asked, driven in three ways: streams, as many calls as it takes, and so many calls a
//! second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiki::clock::monotonic;
use kiki::runtime::Channel;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::drive::{self, Heard, Load, Measured};
use super::raw;
use crate::error::{Doing as _, Failure, rpc};

/// Calls of [`Target::paced`] that are under way at the most: 0.8 s of 5,000 a second. Beyond it the pace waits, and the wait counts.
const MAX_UNDER_WAY: usize = 4_096;

#[derive(Clone)]
pub(super) struct Target {
    channels: Vec<Channel>,
    path: &'static str,
    /// Asked in a scattered order, again and again.
    requests: Arc<[Bytes]>,
    number: Arc<AtomicU64>,
}

impl Target {
    /// The method at `path` of the server at `address`, over so many connections. There is one request at least.
    pub(super) fn new(address: &str, connections: u16, path: &'static str, requests: Vec<Bytes>) -> Result<Self, Failure> {
        let channels: Result<Vec<_>, _> = (0..connections).map(|_| kiki::runtime::channel(address).doing(address)).collect();
        Ok(Self { channels: channels?, path, requests: requests.into(), number: Arc::default() })
    }

    fn request(&self) -> Bytes {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let place = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % self.requests.len() as u64;
        self.requests[place as usize].clone()
    }

    /// A stream on each connection. Every answer is final and counts for a whole batch.
    pub(super) async fn streams(&self, load: Load) -> Result<Measured, Failure> {
        let batch = load.batch as u64;
        let streams = self.channels.iter().cloned().map(|channel| {
            let target = self.clone();
            let answered = AtomicU64::new(0);
            let hear = move |answer: &Bytes| {
                let acknowledged = answered.fetch_add(batch, Ordering::Relaxed) + batch;
                Heard { answered: load.batch, counted: batch, acknowledged, bytes: answer.len() }
            };
            let path = self.path;
            let open = move |requests| raw::stream(channel, path, requests);
            tokio::spawn(drive::stream(load, open, move |_| target.request(), hear))
        });
        drive::together(streams.collect()).await
    }

    /// `in_flight` calls at any time on each connection: what the server can take.
    pub(super) async fn saturated(&self, in_flight: u16, duration: Duration) -> Result<Measured, Failure> {
        let target = self.clone();
        let call = move |caller: usize| {
            let target = target.clone();
            async move {
                let channel = &target.channels[caller % target.channels.len()];
                target.call(channel).await.map(|bytes| (bytes, true))
            }
        };
        drive::saturated(usize::from(in_flight) * self.channels.len(), duration, call).await
    }

    /// `per_second` calls, whether or not those before were answered. A call's time is from when it was due, so that what waits
    /// behind a slow one counts as slow too.
    pub(super) async fn paced(&self, per_second: u32, duration: Duration) -> Result<Measured, Failure> {
        let (heard, mut calls) = mpsc::channel(MAX_UNDER_WAY);
        let (room, target, runtime) = (Arc::new(Semaphore::new(MAX_UNDER_WAY)), self.clone(), Handle::current());
        let start = monotonic();
        tokio::task::spawn_blocking(move || {
            let due = (0..).map(|number| start + Duration::from_secs(number) / per_second).take_while(|due| *due < start + duration);
            for (due, channel) in due.zip(target.channels.iter().cycle()) {
                std::thread::sleep(due.saturating_duration_since(monotonic())); // exact to 60 us; the runtime's timers are to 1 ms
                let Ok(permit) = runtime.block_on(room.clone().acquire_owned()) else { break };
                let (target, channel, heard) = (target.clone(), channel.clone(), heard.clone());
                if heard.is_closed() {
                    break; // a call failed
                }
                runtime.spawn(async move {
                    let answered = target.call(&channel).await.map(|bytes| (due.elapsed(), bytes));
                    drop(permit);
                    drop(heard.send(answered).await);
                });
            }
        });
        let mut measured = Measured::new()?;
        while let Some(call) = calls.recv().await {
            let (took, bytes) = call?;
            measured.add_call(took, bytes, true);
        }
        measured.elapsed = start.elapsed();
        Ok(measured)
    }

    async fn call(&self, channel: &Channel) -> Result<usize, Failure> {
        let answer = raw::unary(channel.clone(), self.path, self.request()).await;
        answer.map(|answer| answer.len()).map_err(|status| rpc(self.path, &status))
    }
}
