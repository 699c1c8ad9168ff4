//! The embedded engine: one thread makes what is waiting durable in the event log, and only then applies it and answers, in the order of the
//! log; so that a restart, which applies the log's records in order, comes to the same state. After a failed write it takes nothing more.

use std::path::Path;
use std::sync::Arc;

use kiki::ids::CustomerKey;
use tokio::sync::mpsc;

use super::wal::Wal;
use super::{Applied, Done, Job, MAX_GROUP, State, Work, answer};
use crate::domain::customer::Effect;
use crate::domain::market::Observed;
use crate::error::Error;

/// Reads the event log in `folder` back, and starts the writer of `waiting`.
pub(super) fn start(folder: &Path, state: &Arc<State>, waiting: mpsc::Receiver<Work>) -> Result<(), Error> {
    let wal = Wal::open(folder, |record| {
        state.judge_again(&record)?;
        for observation in &record.events {
            state.observe(&Observed::try_from(observation)?);
        }
        if let Some(erased) = &record.erased {
            state.erase(erased);
        }
        state.follow(record.followed);
        Ok(())
    })?;
    let writer = Writer { state: state.clone(), wal, waiting, failed: None };
    let thread = std::thread::Builder::new().name("syncvalue-log".into());
    thread.spawn(move || writer.run()).map_err(Error::io("cannot start the writer"))?;
    Ok(())
}

struct Writer {
    state: Arc<State>,
    wal: Wal,
    waiting: mpsc::Receiver<Work>,
    failed: Option<String>,
}

impl Writer {
    /// Until it is closed, or every sender is gone.
    fn run(mut self) {
        let mut work = Vec::new();
        while self.waiting.blocking_recv_many(&mut work, MAX_GROUP) > 0 {
            let (mut group, mut closing) = (Vec::new(), None);
            for work in work.drain(..) {
                match work {
                    Work::Take(job, done) if closing.is_none() => group.push((job, done)),
                    Work::Take(..) => {} // whoever waits for it sees its sender gone
                    Work::Close(done) => closing = Some(done),
                }
            }
            self.commit(group);
            if let Some(done) = closing {
                drop(self);
                done.send(()).ok();
                return;
            }
        }
    }

    fn commit(&mut self, group: Vec<(Job, Done)>) {
        let (mut records, mut taken, mut coming) = (Vec::new(), Vec::new(), 0);
        for (mut job, done) in group {
            let mut outcome = Applied::default();
            if let Some(reason) = &self.failed {
                answer(done, Err(Error::LogFailed(reason.clone())));
                continue;
            }
            if let Err(full) = self.state.room(&job.events, &mut coming) {
                if job.followed.is_none() {
                    answer(done, Err(full));
                    continue;
                }
                // The log goes on whatever we have room for: known customers count, new ones stay unknown.
                let all = job.events.len();
                job.events.retain(|event| !self.state.is_new(event));
                outcome.dropped = (all - job.events.len()) as u32;
            }
            records.extend(job.records());
            taken.push((job, done, outcome));
        }
        if !records.is_empty()
            && let Err(error) = self.wal.append(&records)
        {
            tracing::error!(%error, "the event log failed; nothing more is taken until a restart");
            self.failed = Some(error.to_string());
        }
        let mut changed = Vec::new();
        let apply = |(job, done, outcome): (Job, Done, Applied)| match &self.failed {
            None => (done, Ok(self.state.apply(&job, outcome, &mut changed))),
            Some(reason) => (done, Err(Error::LogFailed(reason.clone()))),
        };
        let applied: Vec<_> = taken.into_iter().map(apply).collect();
        self.state.changes.tell_of(changed);
        for (done, result) in applied {
            answer(done, result);
        }
    }
}

impl State {
    /// Whom it is about goes behind `changed`.
    fn apply(&self, job: &Job, mut outcome: Applied, changed: &mut Vec<CustomerKey>) -> Applied {
        for event in &job.events {
            match self.observe(event) {
                Effect::Duplicate => outcome.duplicates += 1,
                Effect::Acquired | Effect::Returned | Effect::Adjusted => outcome.applied += 1,
            }
        }
        if let Some(erased) = &job.erased {
            outcome.erased = self.erase(erased);
            outcome.known = outcome.erased.len() as u32;
        }
        changed.extend(job.events.iter().map(|event| event.customer));
        changed.extend(job.erased.iter().filter_map(|erased| CustomerKey::from_bytes(&erased.customer)));
        self.judge(job);
        self.follow(job.followed.clone());
        outcome
    }
}
