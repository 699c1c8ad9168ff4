//! One simulated history: holders, operators and faults of one seed, against the real log on a simulated disk.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::tlog::{Checkpoint, Hash, Tree, leaf_hash, note::SigningKey};
use parking_lot::Mutex;
use syncshield::domain::state::State;
use syncshield::store::disk::Disk as _;
use syncshield::store::{Hand, Log, Paths, segments};
use syncshield::{Error, audit};

use crate::disk::{End, Fault, SimDisk};
use crate::model::Model;
use crate::op::{CLIENT, DAY, Did, Op, START, TTL, ask, campaign};
use crate::rng::{Rng, Trace};

pub(crate) const LOG: &str = "sim.local/log";
const CAMPAIGNS: u64 = 2;

/// What a history came to, or the first thing that was wrong with it.
pub(crate) type Checked<T = ()> = Result<T, String>;

macro_rules! check {
    ($condition:expr, $($told:tt)*) => { if !$condition { return Err(format!($($told)*)) } };
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub trace: Trace,
    pub asked: u64,
    pub leaves: u64,
    pub crashes: u64,
    pub points: u64,
    pub full: u64,
    /// Requests whose commit was on its way while others ran.
    pub ahead: u64,
    /// Leases that came back after a start.
    pub back: u64,
}

/// A script of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub seed: u64,
    pub steps: usize,
    pub faults: BTreeMap<u64, Fault>,
    /// From this step on the disk lies about syncs, or trades frames.
    pub lies: Option<usize>,
    pub swaps: Option<usize>,
}

/// What the ledger did with a request, whether anybody heard of it or not.
#[derive(Clone)]
struct Attempt {
    op: Op,
    now: i64,
    before: u64,
    after: u64,
    did: Did,
}

type Answer = Pin<Box<dyn Future<Output = Result<Did, Error>>>>;

struct Sim {
    rng: Rng,
    disk: SimDisk,
    key: SigningKey,
    clock: VirtualClock,
    open: Option<(Log, Hand)>,
    model: Model,
    tape: Arc<Mutex<Vec<Attempt>>>,
    /// Requests that nobody knows the fate of: their senders send them again.
    again: Vec<Op>,
    signed: BTreeMap<u64, Hash>,
    /// Leaves that were acknowledged, at least.
    acknowledged: u64,
    next_key: u64,
    sources: [u64; 2],
    stats: Stats,
}

/// Runs a script.
pub(crate) fn run(plan: &Plan, key: &SigningKey) -> Checked<Stats> {
    let mut sim = Sim {
        rng: Rng::new(plan.seed),
        disk: SimDisk::new(plan.seed ^ 0x5eed, plan.faults.clone()),
        key: key.clone(),
        clock: VirtualClock::at(UnixMicros(START)),
        open: None,
        model: Model::new(CAMPAIGNS as usize),
        tape: Arc::default(),
        again: Vec::new(),
        signed: BTreeMap::new(),
        acknowledged: 0,
        next_key: 0,
        sources: [0; 2],
        stats: Stats::default(),
    };
    sim.start()?;
    for index in 0..CAMPAIGNS as usize {
        sim.ask(vec![Op::Limits { campaign: index, total: 4_000, daily: if index == 0 { 0 } else { 2_500 }, paused: false }])?;
    }
    for step in 0..plan.steps {
        if plan.lies == Some(step) {
            sim.disk.lie();
        }
        if plan.swaps == Some(step) {
            sim.disk.swap();
        }
        sim.step().map_err(|wrong| format!("step {step}: {wrong}"))?;
    }
    sim.end()
}

/// Random faults: on average one in `every` I/O points of the first `points`.
pub(crate) fn faults(seed: u64, points: u64, every: u64) -> BTreeMap<u64, Fault> {
    let mut rng = Rng::new(!seed);
    let mut faults = BTreeMap::new();
    let mut at = 0;
    loop {
        at += 1 + rng.below(2 * every);
        if at >= points {
            return faults;
        }
        faults.insert(at, [Fault::Crash, Fault::Crash, Fault::Fail, Fault::Full][rng.below(4) as usize]);
    }
}

fn paths() -> Paths {
    Paths::new(Path::new("/sim"))
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

impl Sim {
    fn step(&mut self) -> Checked {
        match self.rng.below(40) {
            0 => self.restart(End::Kill, true),
            1 => self.restart(End::PowerLoss, true),
            2 => self.restart(End::PowerLoss, false),
            3..6 => {
                let least = if self.rng.one_in(4) { 0 } else { self.acknowledged };
                self.sign(least)
            }
            6 => {
                if let Some((_, hand)) = &mut self.open {
                    hand.snapshot();
                }
                self.revive()
            }
            7 => {
                self.disk.lose(&paths().snapshot());
                Ok(())
            }
            8..11 => {
                let wait = if self.rng.one_in(12) { DAY } else { 80_000_000 };
                self.wait(wait);
                Ok(())
            }
            _ => {
                let many = 1 + self.rng.below(4);
                let asked = (0..many).map(|_| self.draw()).collect();
                self.ask(asked)
            }
        }
    }

    fn wait(&mut self, most: i64) {
        let by = 1 + self.rng.below(most as u64) as i64;
        self.clock.advance_to(UnixMicros(self.clock.now().0 + by));
    }

    fn lease(&mut self) -> u64 {
        // Mostly the latest, sometimes any, or 0, which is none.
        let count = self.model.leases.len() as u64;
        if count == 0 || self.rng.one_in(4) { self.rng.below(count + 1) } else { count - self.rng.below(count.min(5)) }
    }

    fn epoch(&mut self, lease: u64) -> u64 {
        let epoch = self.model.leases.get(&lease).map_or(1, |lease| lease.epoch);
        if self.rng.one_in(12) { epoch.saturating_sub(1) } else { epoch }
    }

    fn draw(&mut self) -> Op {
        if !self.again.is_empty() && !self.rng.one_in(3) {
            return self.again.remove(0);
        }
        let campaign = self.rng.below(CAMPAIGNS) as usize;
        match self.rng.below(28) {
            24..28 => self.draw_treasury(campaign),
            0 => {
                let (total, daily) = (1 + self.rng.below(9_000) as i64, self.rng.below(4_000) as i64);
                Op::Limits { campaign, total, daily: if self.rng.one_in(2) { 0 } else { daily }, paused: self.rng.one_in(6) }
            }
            1..6 => self.draw_lease(campaign),
            6..8 => {
                let lease = self.lease();
                Op::Renew { lease, epoch: self.epoch(lease) }
            }
            8..12 => {
                let lease = self.lease();
                let mark = self.model.leases.get(&lease).map_or((0, 0), |lease| (lease.mark.0, lease.mark.1 as i64));
                let mark = (mark.0 + self.rng.below(4) as u32, mark.1 + self.rng.below(300_000) as i64);
                Op::Mark { lease, epoch: self.epoch(lease), mark }
            }
            12 => {
                let lease = self.lease();
                let mark = self.model.leases.get(&lease).map_or((0, 0), |lease| (lease.mark.0, lease.mark.1 as i64));
                let used = if self.rng.one_in(2) { mark } else { (mark.0 / 2, mark.1 / 2) };
                Op::Return { lease, epoch: self.epoch(lease), used }
            }
            13..18 => {
                let (lease, slots) = self.slots();
                let mut price = |max: i64| if self.rng.one_in(30) { max * 2 } else { self.rng.below(max as u64 + 1) as i64 };
                Op::Settle { lease, slots: slots.into_iter().map(|(slot, max)| (slot, max, price(max))).collect() }
            }
            18..20 => {
                let (lease, slots) = self.slots();
                Op::Void { lease, slots }
            }
            20..22 => {
                let source = self.rng.below(2);
                let sent = &mut self.sources[source as usize];
                *sent += u64::from(!self.rng.one_in(4)); // or the same batch again
                Op::Decisions { source, seq: *sent }
            }
            _ => Op::Purchase { event: self.rng.below(40) },
        }
    }

    /// What operators do to budgets, besides campaigns' own limits.
    fn draw_treasury(&mut self, campaign: usize) -> Op {
        match self.rng.below(4) {
            0 => {
                let total = if self.rng.one_in(4) { 0 } else { 1 + self.rng.below(12_000) as i64 };
                Op::Bound { campaign: self.rng.one_in(2).then_some(campaign), total, paused: self.rng.one_in(6) }
            }
            1 => Op::Adjust { key: self.rng.below(12) },
            _ => {
                let charged = self.rng.one_in(2).then(|| (self.lease(), self.rng.below(4) as u32, self.rng.below(200_000) as i64));
                Op::Reconcile { campaign, charged }
            }
        }
    }

    fn draw_lease(&mut self, campaign: usize) -> Op {
        self.next_key += u64::from(!self.rng.one_in(4)); // or the same key again
        let amount = 1 + self.rng.below(1_500) as i64;
        let least = 1 + if self.rng.one_in(2) { self.rng.below(amount as u64) as i64 } else { 0 };
        let mark = if self.rng.one_in(2) { (1 + self.rng.below(3) as u32, self.rng.below(400_000) as i64) } else { (0, 0) };
        Op::Lease { campaign, key: self.next_key, amount, least, mark, reservation: self.rng.one_in(4) }
    }

    /// Slots as a holder has them: below the mark, none above its share of it; now and then one that was never marked.
    fn slots(&mut self) -> (u64, Vec<(u32, i64)>) {
        let lease = self.lease();
        let mark = self.model.leases.get(&lease).map_or((0, 0), |lease| lease.mark);
        let share = 1 + mark.1 as i64 / i64::from(mark.0.max(1));
        let above = if self.rng.one_in(20) { 3 } else { 0 };
        let many = 1 + self.rng.below(3);
        let slots = (0..many).map(|_| (self.rng.below(u64::from((mark.0 + above).max(1))) as u32, share - 1)).collect();
        (lease, slots)
    }

    /// Sends requests that share a commit, and holds each answer against the model's.
    fn ask(&mut self, ops: Vec<Op>) -> Checked {
        let Some((log, hand)) = &mut self.open else { return Err("not open".into()) };
        self.stats.asked += ops.len() as u64;
        let from = self.tape.lock().len();
        let mut waiting: Vec<Answer> = Vec::new();
        for op in &ops {
            let (log, op, tape) = (log.clone(), op.clone(), self.tape.clone());
            let of = self.model.leases.get(&op.lease()).map_or(0, |lease| lease.campaign);
            waiting.push(Box::pin(async move {
                log.run(move |ledger| {
                    let (now, before) = (ledger.now().0, ledger.state.size);
                    let did = ask(ledger, &op, of);
                    tape.lock().push(Attempt { op, now, before, after: ledger.state.size, did: did.clone() });
                    Ok(did)
                })
                .await
            }));
        }
        // The first so many may be on their way to the disk while the others run.
        let ahead = if ops.len() > 1 && self.rng.one_in(3) { 1 + self.rng.below(ops.len() as u64 - 1) as usize } else { 0 };
        let mut answers: Vec<Option<Result<Did, Error>>> = waiting[..ahead].iter_mut().map(|_| None).collect();
        for answer in &mut waiting[..ahead] {
            check!(poll(answer).is_none(), "an answer before its turn");
        }
        if ahead > 0 {
            hand.turn_ahead();
            answers = waiting[..ahead].iter_mut().map(poll).collect();
            check!(!answers.iter().any(|answer| matches!(answer, Some(Ok(_)))), "an answer before its commit");
        }
        let ran_ahead = self.tape.lock().len() - from;
        for answer in &mut waiting[ahead..] {
            check!(poll(answer).is_none(), "an answer before its turn");
        }
        hand.turn();
        answers.resize_with(waiting.len(), || None);
        let late =
            answers.into_iter().zip(&mut waiting).map(|(early, answer)| early.or_else(|| poll(answer)).ok_or("no answer after the commit"));
        let answers: Vec<_> = late.collect::<Result<_, _>>()?;
        self.stats.ahead += ahead as u64;
        self.judge_both(ops, answers, (from, from + ran_ahead), ahead)
    }

    /// Judges what went ahead and what ran behind it.
    fn judge_both(&mut self, mut ops: Vec<Op>, mut answers: Vec<Result<Did, Error>>, tape: (usize, usize), ahead: usize) -> Checked {
        let (from, to) = tape;
        let lost = answers[..ahead].iter().any(|answer| matches!(answer, Err(error) if !matches!(error, Error::Full)));
        if ahead > 0 && !lost {
            let (behind, behind_answers) = (ops.split_off(ahead), answers.split_off(ahead));
            let built_on_nothing = to > from && answers.iter().all(Result::is_err) && behind_answers.iter().any(Result::is_ok);
            check!(!built_on_nothing, "built on what found no room, and answered: {behind_answers:?}");
            let later = self.tape.lock().split_off(to);
            self.judge(ops, answers, from)?;
            self.tape.lock().extend(later);
            (ops, answers) = (behind, behind_answers);
        }
        let whole = answers.iter().all(Result::is_ok);
        self.judge(ops, answers, from)?;
        let size = self.open.as_ref().map_or(0, |(log, _)| *log.committed().borrow());
        check!(!whole || size == self.acknowledged, "{size} leaves are committed, {} acknowledged", self.acknowledged);
        Ok(())
    }

    fn judge(&mut self, ops: Vec<Op>, answers: Vec<Result<Did, Error>>, from: usize) -> Checked {
        for (op, answer) in ops.iter().zip(&answers) {
            self.stats.trace.note(format!("{op:?} {answer:?}").as_bytes());
        }
        if answers.iter().all(Result::is_ok) {
            let attempts = self.tape.lock().split_off(from);
            check!(attempts.len() == ops.len(), "{} of {} requests ran", attempts.len(), ops.len());
            for (attempt, answer) in attempts.into_iter().zip(answers) {
                check!(Ok(&attempt.did) == answer.as_ref().map_err(|_| ()), "{:?} was answered with {answer:?}", attempt.did);
                self.acknowledged = attempt.after;
                self.hold_against_model(attempt)?;
            }
            return Ok(());
        }
        check!(answers.iter().all(Result::is_err), "one commit, two fates: {answers:?}");
        self.again.extend(ops);
        if answers.iter().all(|answer| matches!(answer, Err(Error::Full))) {
            // Nothing of it happened, and nothing of it will.
            self.tape.lock().truncate(from);
            self.stats.full += 1;
            return Ok(());
        }
        self.revive()
    }

    fn hold_against_model(&mut self, attempt: Attempt) -> Checked {
        let Attempt { op, now, did, .. } = attempt;
        let ended = self.model.leases.get(&op.lease()).is_some_and(|lease| !lease.lives(now));
        self.stats.back += u64::from(ended && matches!(did, Did::Renewed(..)));
        let due = self.model.take(now, &op);
        check!(did == due, "{op:?} at {now} was answered with {did:?}, due was {due:?}");
        if let (Op::Lease { campaign, .. }, Did::Granted { duplicate: false, .. }) = (&op, &did) {
            let left = self.model.available(*campaign, now, true);
            check!(left >= 0, "{op:?} took {} nanos above a limit", -left);
        }
        Ok(())
    }

    /// Signs `least` leaves or more, and holds the checkpoint against all others.
    fn sign(&mut self, least: u64) -> Checked {
        let Some((log, hand)) = &mut self.open else { return Err("not open".into()) };
        let log = log.clone();
        let mut answer: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { log.checkpoint(least).await });
        let first = poll(&mut answer);
        hand.turn();
        let signed = match first.or_else(|| poll(&mut answer)).ok_or("no checkpoint after the turn")? {
            Ok(signed) => signed,
            Err(_) => return self.revive(),
        };
        check!(signed.size >= least, "signed {} leaves where {least} were asked for", signed.size);
        self.stats.trace.note(signed.note.as_bytes());
        let opened = Checkpoint::open(signed.note.as_bytes(), LOG, self.key.verifying_key()).map_err(|e| e.to_string())?;
        let before = self.signed.insert(opened.size, opened.root);
        check!(before.is_none_or(|root| root == opened.root), "two roots were signed for {} leaves", opened.size);
        check!(opened.size == signed.size, "a checkpoint of {} leaves says {}", signed.size, opened.size);
        Ok(())
    }

    /// Restarts where the disk crashed or the writer gave up.
    fn revive(&mut self) -> Checked {
        let mut probe: Pin<Box<dyn Future<Output = _>>> = match &self.open {
            Some((log, _)) => {
                let log = log.clone();
                Box::pin(async move { log.run(|_| Ok(())).await })
            }
            None => return self.restart(End::PowerLoss, false),
        };
        let first = poll(&mut probe);
        if let Some((_, hand)) = &mut self.open {
            hand.turn();
        }
        let alive = !self.disk.is_dead() && matches!(first.or_else(|| poll(&mut probe)), Some(Ok(()) | Err(Error::Full)));
        let end = if self.rng.one_in(2) { End::Kill } else { End::PowerLoss };
        if alive { Ok(()) } else { self.restart(end, false) }
    }

    /// Ends the process, in good order or not, and starts the next one.
    fn restart(&mut self, end: End, close: bool) -> Checked {
        self.stats.crashes += 1;
        if let Some((log, mut hand)) = self.open.take().filter(|_| close) {
            let mut closed: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move { log.close().await });
            let first = poll(&mut closed);
            hand.turn();
            check!(first.or_else(|| poll(&mut closed)).is_some(), "the log did not close");
        }
        self.open = None;
        let acknowledged = self.leaves(self.acknowledged)?;
        self.disk.restart(end);
        // The next machine's clock may be behind.
        let back = if self.rng.one_in(3) { self.rng.below(100_000_000) as i64 } else { 0 };
        self.clock = VirtualClock::at(UnixMicros(self.clock.now().0 - back));
        self.start()?;
        let kept = self.leaves(self.acknowledged)?;
        check!(kept == acknowledged, "acknowledged leaves are not what they were");
        self.settle_the_unknown()?;
        self.wait_for_holders()?;
        self.hold_state_against_model()
    }

    /// Recovers; a fault in the middle of that is one more crash.
    fn start(&mut self) -> Checked {
        for _ in 0..100 {
            match Log::open_by_hand(Arc::new(self.disk.clone()), &paths(), self.key.clone(), Clock::Virtual(self.clock.clone())) {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                Err(Error::Io(_)) => {
                    self.stats.crashes += 1;
                    let end = if self.rng.one_in(2) { End::Kill } else { End::PowerLoss };
                    self.disk.restart(end);
                }
                Err(error) => return Err(format!("the log does not start: {error}")),
            }
        }
        Err("the log does not start after a hundred times".into())
    }

    /// As a start does it. The model hears of it however the disk answers.
    fn wait_for_holders(&mut self) -> Checked {
        let Some((log, hand)) = &mut self.open else { return Err("not open".into()) };
        let (log, outage) = (log.clone(), Arc::new(Mutex::new(None)));
        let told = outage.clone();
        let asked = async move {
            log.run(move |ledger| {
                ledger.wait_for_holders(Duration::from_micros(TTL as u64));
                *told.lock() = ledger.outage();
                Ok(())
            })
            .await
        };
        let mut answer: Pin<Box<dyn Future<Output = _>>> = Box::pin(asked);
        check!(poll(&mut answer).is_none(), "an answer before its turn");
        hand.turn();
        self.model.outage = outage.lock().map(|o| (o.after.0, o.until.0, o.keeps_until.0));
        match poll(&mut answer) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => self.revive(),
            None => Err("no answer".into()),
        }
    }

    /// What was never acknowledged is there from its first request to one of them, each whole, or it is not there.
    fn settle_the_unknown(&mut self) -> Checked {
        let size = self.open.as_ref().map_or(0, |(log, _)| *log.committed().borrow());
        check!(size >= self.acknowledged, "{size} leaves are left of {} that were acknowledged", self.acknowledged);
        let signed = self.signed.keys().last().copied().unwrap_or_default();
        check!(size >= signed, "{size} leaves are left of {signed} that were signed");
        let attempts = std::mem::take(&mut *self.tape.lock());
        for attempt in attempts {
            if attempt.after <= size && attempt.after > attempt.before {
                self.hold_against_model(attempt)?;
            } else {
                check!(size <= attempt.before || attempt.after <= size, "half of {:?} is there", attempt.op);
            }
        }
        self.acknowledged = size;
        self.stats.trace.note(&size.to_le_bytes());
        Ok(())
    }

    fn hold_state_against_model(&mut self) -> Checked {
        match self.compared()? {
            Ok(()) => Ok(()),
            Err(_) => self.revive(),
        }
    }

    /// Holds the state against the model, where the log answers.
    fn compared(&mut self) -> Checked<Result<(), Error>> {
        let Some((log, hand)) = &mut self.open else { return Err("not open".into()) };
        let (log, model) = (log.clone(), self.model.clone());
        let asked = async move { log.run(move |ledger| Ok(compare(&ledger.state, ledger.now().0, &model))).await };
        let mut answer: Pin<Box<dyn Future<Output = _>>> = Box::pin(asked);
        check!(poll(&mut answer).is_none(), "an answer before its turn");
        hand.turn();
        match poll(&mut answer) {
            Some(Ok(compared)) => compared.map(Ok),
            Some(Err(error)) => Ok(Err(error)),
            None => Err("no answer".into()),
        }
    }

    /// The first leaves, as they stand.
    fn leaves(&self, size: u64) -> Checked<Vec<Vec<u8>>> {
        let mut leaves = Vec::new();
        for (_, path) in segments::list(&self.disk, &paths().log()).map_err(|e| e.to_string())? {
            let bytes = self.disk.read(&path).map_err(|e| e.to_string())?;
            let frames = kiki::framed::Scanner::new(&bytes).map_while(Result::ok);
            leaves.extend(frames.map(|(_, payload)| payload.to_vec()));
        }
        check!(leaves.len() as u64 >= size, "{} leaves are left of {size} that were acknowledged", leaves.len());
        leaves.truncate(size as usize);
        Ok(leaves)
    }

    /// Everything in the end, on a disk that is well again: the log takes requests and signs; a strict audit, all
    /// checkpoints against the tree, the state against the model.
    fn end(mut self) -> Checked<Stats> {
        self.disk.heal();
        self.revive()?;
        self.compared()?.map_err(|error| format!("the disk is well, and the log says: {error}"))?;
        self.sign(self.acknowledged)?;
        check!(self.signed.contains_key(&self.acknowledged), "the disk is well, and {} leaves were not signed", self.acknowledged);
        let report = audit::verify_on(&self.disk, Path::new("/sim"), self.key.verifying_key()).map_err(|e| e.to_string())?;
        check!(report.leaves == self.acknowledged, "the audit found {} leaves, not {}", report.leaves, self.acknowledged);
        let mut tree = Tree::new();
        self.leaves(self.acknowledged)?.iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
        for (size, root) in &self.signed {
            check!(tree.root_at(*size).ok() == Some(*root), "the checkpoint of {size} leaves is of another log");
        }
        (self.stats.leaves, self.stats.points) = (report.leaves, self.disk.points());
        self.stats.trace.note(report.root.as_bytes());
        Ok(self.stats)
    }
}

fn compare(state: &State, now: i64, model: &Model) -> Checked {
    for (index, limits) in model.campaigns.iter().enumerate().filter(|(_, limits)| limits.version > 0) {
        let found = state.campaign(CLIENT, &campaign(index)).map_err(|e| e.to_string())?;
        let day = now - now.rem_euclid(DAY);
        let available = found.available(UnixMicros(now), UnixMicros(day)).nanos;
        let due = (model.charged(index, None), model.held(index, None, now), model.own_available(index, now), limits.version);
        let is = (found.settled_nanos, found.committed(UnixMicros(now), None), available, found.version);
        check!(is == due, "campaign {index} at {now}: (charged, held, available, version) are {is:?}, due {due:?}");
        for (id, lease) in model.leases.iter().filter(|(_, lease)| lease.campaign == index) {
            let is = found.leases.get(id).map(|l| (l.epoch, l.expires_at.0, l.mark_sequence, l.mark_nanos, l.returned));
            let due = Some((lease.epoch, lease.expires, lease.mark.0, lease.mark.1, lease.returned));
            check!(is == due, "lease {id}: (epoch, expiry, mark, returned) are {is:?}, due {due:?}");
        }
    }
    Ok(())
}
