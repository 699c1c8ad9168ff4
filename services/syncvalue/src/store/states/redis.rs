//! States in a Redis, or a Redis Cluster, that several SyncValues share.
//!
//! A call is one pipeline to each node that has some of its keys, all at once; a change is a script that compares and sets on the
//! node. What fails is sent again, at most [`TRIES`] times, where that can help: after a lost connection, to the node that a
//! slot has moved to, or when the node says that it is not ready. Each call has ended after its time, which is stated ([`TIMEOUT`]). A node that is still silent
//! shortly before that does not take the answers of others with it.
//!
//! Sentinel is not asked: without a cluster the address must be that of the master.
//!
//! A node that cannot be reached is asked again after a pause of at most a second; in between, calls for it fail at once, and those
//! for other nodes go on. Nothing has to be restarted when it is back. A cluster must have `cluster-require-full-coverage no`,
//! or it stops as a whole where one master is lost that has no replica.
//!
//! **What a change that was acknowledged is worth** is Redis' matter:
//! - Without `appendonly yes` a restart loses all, or what came after the last snapshot.
//! - With `appendfsync always` it is on disk. With `everysec`, the default, a machine that fails loses up to two seconds; a
//!   process that is killed loses nothing, as a rule, because what was written is with the operating system.
//! - Replicas are told afterwards. A failover loses what the promoted one had not heard of yet, up to the replication's lag, and
//!   what a master that was cut off took until it noticed (`cluster-node-timeout`; `min-replicas-to-write` bounds it).
//!
//! In each of these a state goes *back* to an earlier number of events, or is absent. Nothing is counted twice by that: a change
//! computed from the lost state is refused, and who reads again sees by the number what is missing. An erased customer may come
//! back the same way: whoever must be sure erases again after a failover.
//!
//! `maxmemory` bounds Redis. With `maxmemory-policy noeviction`, the default, changes are refused when it is full; with
//! `allkeys-lru` or `allkeys-lfu` other states become absent instead.

mod command;
mod link;
mod slots;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::redis::{ConnectionInfo, Pipeline, ServerError, ServerErrorKind, Value};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Answers, Change, Error, Key, State, States, check_batch};
use command::Command;
use link::{Down, Link};
use slots::{Range, SLOTS};

/// How long a call may take in all, unless [`Redis::with_timeout`] or the call itself says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// How often a command is sent at most.
pub const TRIES: u32 = 4;
/// States that are read and written at a time: 256 MiB of the largest, 4 MiB of usual ones. Calls beyond that fail at once.
pub const MAX_IN_FLIGHT: usize = 4_096;
/// How long before the second try; each further one waits twice as long.
const BACKOFF: Duration = Duration::from_millis(10);
/// How long after the cluster was asked for its slots it is not asked again.
const MAP_PAUSE: Duration = Duration::from_millis(50);
/// Of a call's time, what a connection or the answers of one pipeline have: a quarter, a hundred times what a full one takes by default.
const ANSWER: u32 = 4;
/// Of a call's time, what is left when silent nodes are given up: an eighth.
const LATE: u32 = 8;

/// States in Redis.
pub struct Redis {
    /// The addresses that were given, and whose credentials all nodes take.
    seeds: Vec<Arc<Link>>,
    like: ConnectionInfo,
    links: Mutex<HashMap<String, Arc<Link>>>,
    map: RwLock<Option<Arc<Map>>>,
    /// When the map was last asked for, and why there was none. One asks at a time.
    asked: tokio::sync::Mutex<Option<(Instant, String)>>,
    room: Semaphore,
    timeout: Duration,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.names())
    }
}

/// Who serves what: ranges of slots in their order. One Redis serves all.
#[derive(Debug)]
struct Map(Vec<(Range, Arc<Link>)>);

impl Map {
    fn link(&self, slot: u16) -> Option<&Arc<Link>> {
        let at = self.0.partition_point(|(range, _)| range.last < slot);
        self.0.get(at).filter(|(range, _)| range.first <= slot).map(|(_, link)| link)
    }
}

/// A command on its way.
struct Sent<'a> {
    command: &'a Command,
    /// Where the last answer sent it, and whether that node has to be told that it may take it.
    to: Option<(Arc<Link>, bool)>,
    /// Whether the script goes with it.
    whole: bool,
    /// The last one, which stands where the command is not open any more or there is no time left.
    answer: Option<Result<Value, Error>>,
    /// Whether it is to be sent (again).
    open: bool,
}

impl Sent<'_> {
    /// Nothing more is sent.
    fn end(&mut self, answer: Result<Value, Error>) {
        (self.open, self.answer) = (false, Some(answer));
    }
}

/// A pipeline's worth: where it goes, and which commands.
type Group = (Arc<Link>, Vec<usize>);

impl Redis {
    /// The Redis at `redis://[USER:PASSWORD@]HOST:PORT/`, or the cluster of which some nodes are given; the servers say which it
    /// is. Nothing is connected before the first call.
    ///
    /// # Errors
    /// None, or an address that is none.
    pub fn new(urls: &[String]) -> Result<Self, Error> {
        Self::with_timeout(urls, TIMEOUT)
    }

    /// The same, with so long for a call in all, and a quarter of that for a connection or the answers of one pipeline.
    ///
    /// # Errors
    /// As for [`Redis::new`].
    pub fn with_timeout(urls: &[String], timeout: Duration) -> Result<Self, Error> {
        let mut seeds = Vec::with_capacity(urls.len());
        let mut like = None;
        for url in urls {
            let (host, port, info) = link::parse(url)?;
            let link = Link::new(&host, port, &info, timeout / ANSWER).map_err(|error| Error::Address(error.to_string()))?;
            seeds.push(Arc::new(link));
            like.get_or_insert(info);
        }
        let like = like.ok_or_else(|| Error::Address("no address of a Redis was given".into()))?;
        let links = seeds.iter().map(|link| (link.name.clone(), link.clone())).collect();
        let (links, map, asked) = (Mutex::new(links), RwLock::default(), tokio::sync::Mutex::default());
        Ok(Self { seeds, like, links, map, asked, room: Semaphore::new(MAX_IN_FLIGHT), timeout })
    }

    fn names(&self) -> String {
        self.seeds.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Sends the commands and gives their answers, in their order.
    async fn run(&self, commands: &[Command], patience: Duration) -> Vec<Result<Value, Error>> {
        if commands.is_empty() {
            return Vec::new();
        }
        let Ok(_room) = self.room.try_acquire_many(u32::try_from(commands.len()).unwrap_or(u32::MAX)) else {
            return vec![Err(Error::Busy { limit: MAX_IN_FLIGHT }); commands.len()];
        };
        let sent = |command| Sent { command, to: None, whole: false, answer: None, open: true };
        let mut all: Vec<_> = commands.iter().map(sent).collect();
        // What was answered by then stays answered.
        let end = Instant::now() + patience;
        let _in_time = timeout_at(end, self.tries(&mut all, end - patience / LATE)).await;
        let late = || Error::Unavailable { node: self.names(), why: format!("no answer within {} ms", patience.as_millis()) };
        all.into_iter().map(|sent| sent.answer.unwrap_or_else(|| Err(late()))).collect()
    }

    /// Nodes that are silent at `late` are not waited for.
    async fn tries(&self, all: &mut [Sent<'_>], late: Instant) {
        for again in 0..TRIES {
            if again > 0 {
                tokio::time::sleep(BACKOFF * (1 << (again - 1))).await;
            }
            let map = match self.map().await {
                Ok(map) => map,
                Err(error) => return all.iter_mut().filter(|sent| sent.open).for_each(|sent| sent.end(Err(error.clone()))),
            };
            let (groups, mut stale) = groups(all, &map);
            let sending = groups.iter().map(|(link, which)| timeout_at(late, link.send(|script| pipeline(all, which, script))));
            let answers = together(sending.collect()).await;
            for ((link, which), answers) in groups.iter().zip(answers) {
                match answers {
                    Ok(answers) => stale |= self.take(all, link, which, answers),
                    Err(_) => which.iter().for_each(|&at| all[at].end(Err(link.silent()))),
                }
            }
            if stale {
                self.ask_for_map(Some(&map)).await;
            }
            if all.iter().all(|sent| !sent.open) {
                return;
            }
        }
    }

    /// Takes a pipeline's answers; whether they say that another node may serve its slots by now.
    fn take(&self, all: &mut [Sent<'_>], link: &Arc<Link>, which: &[usize], answers: Result<Vec<Value>, Down>) -> bool {
        match answers {
            Ok(answers) => {
                // A command that was sent on has an answer to ASKING ahead of its own.
                let mut answers = answers.into_iter();
                let mut stale = false;
                for &at in which {
                    let sent = &mut all[at];
                    if matches!(sent.to, Some((_, true))) {
                        answers.next();
                    }
                    stale |= self.settle(sent, link, answers.next().unwrap_or(Value::Nil));
                }
                stale
            }
            Err(down) => {
                let (again, error) = match down {
                    Down::Lost(error) => (true, error),
                    Down::Waiting(error) => (false, error),
                };
                for &at in which {
                    (all[at].to, all[at].open, all[at].answer) = (None, again, Some(Err(error.clone())));
                }
                again
            }
        }
    }

    /// Takes one answer; whether it says that the map is old.
    fn settle(&self, sent: &mut Sent<'_>, link: &Arc<Link>, answer: Value) -> bool {
        let Value::ServerError(error) = answer else {
            sent.end(Ok(answer));
            return false;
        };
        let (node, why) = (link.name.clone(), said(&error));
        sent.to = None;
        sent.answer = Some(Err(Error::Unavailable { node: node.clone(), why: why.clone() }));
        match error.kind() {
            Some(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                let to = error.details().and_then(slots::redirect);
                let to = to.and_then(|(host, port)| self.link(host.unwrap_or(&link.host), port).ok());
                sent.to = to.map(|to| (to, kind == ServerErrorKind::Ask));
                kind == ServerErrorKind::Moved
            }
            Some(ServerErrorKind::NoScript) => {
                sent.whole = true;
                false
            }
            Some(ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown) => true,
            Some(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain) => false,
            _ => {
                sent.end(Err(Error::Refused { node, why }));
                false
            }
        }
    }

    /// The map; the first call waits for it.
    async fn map(&self) -> Result<Arc<Map>, Error> {
        if let Some(map) = self.map.read().clone() {
            return Ok(map);
        }
        let why = self.ask_for_map(None).await;
        self.map.read().clone().ok_or_else(|| Error::Unavailable { node: self.names(), why })
    }

    /// Asks for a newer map than `old`, unless there is one; why there is none still.
    async fn ask_for_map(&self, old: Option<&Arc<Map>>) -> String {
        let mut asked = self.asked.lock().await;
        let now = self.map.read().clone();
        if now.as_ref().map(Arc::as_ptr) != old.map(Arc::as_ptr) {
            return String::new();
        }
        if let Some((at, why)) = &*asked
            && at.elapsed() < MAP_PAUSE
        {
            return why.clone();
        }
        let masters = now.iter().flat_map(|map| map.0.iter().map(|(_, link)| link));
        let known: BTreeMap<_, _> = masters.chain(&self.seeds).map(|link| (&link.name, link)).collect();
        let mut failures = Vec::new();
        for link in known.into_values() {
            match self.map_of(link).await {
                Ok(map) => {
                    *self.map.write() = Some(Arc::new(map));
                    failures.clear();
                    break;
                }
                Err(why) => failures.push(why),
            }
        }
        let why = failures.join("; ");
        *asked = Some((Instant::now(), why.clone()));
        why
    }

    /// The map as a node sees it.
    async fn map_of(&self, link: &Arc<Link>) -> Result<Map, String> {
        let slots = |_: &str| {
            let mut pipeline = ::redis::pipe();
            pipeline.cmd("CLUSTER").arg("SLOTS");
            pipeline
        };
        let answer = link.send(slots).await.map_err(|down| down.why())?.pop();
        let ranges = match answer.unwrap_or(Value::Nil) {
            // "This instance has cluster support disabled", or a proxy that does not know the command.
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ResponseError) => {
                return match self.seeds.as_slice() {
                    [_] => Ok(Map(vec![(Range { first: 0, last: SLOTS - 1, host: None, port: 0 }, link.clone())])),
                    _ => Err(format!("{} is no cluster, and several addresses were given", link.name)),
                };
            }
            Value::ServerError(error) => return Err(said(&error)),
            answer => slots::ranges(&answer).ok_or("the answer to CLUSTER SLOTS cannot be read")?,
        };
        let mut map = Vec::with_capacity(ranges.len());
        for range in ranges {
            let master = self.link(range.host.as_deref().unwrap_or(&link.host), range.port).map_err(|error| error.to_string())?;
            map.push((range, master));
        }
        let serves = |link: &Arc<Link>| map.iter().map(|(_, master)| master).chain(&self.seeds).any(|one| one.name == link.name);
        self.links.lock().retain(|_, link| serves(link));
        Ok(Map(map))
    }

    fn link(&self, host: &str, port: u16) -> Result<Arc<Link>, Error> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&link::name(host, port)) {
            return Ok(link.clone());
        }
        let link = Arc::new(Link::new(host, port, &self.like, self.timeout / ANSWER).map_err(|error| Error::Address(error.to_string()))?);
        links.insert(link.name.clone(), link.clone());
        Ok(link)
    }
}

/// The open commands by the node that they go to. What no node serves is answered; whether there is any.
fn groups(all: &mut [Sent<'_>], map: &Map) -> (Vec<Group>, bool) {
    let mut groups: HashMap<*const Link, Group> = HashMap::new();
    let mut unserved = false;
    for (at, sent) in all.iter_mut().enumerate().filter(|(_, sent)| sent.open) {
        let slot = slots::slot(&sent.command.key);
        match sent.to.as_ref().map(|(link, _)| link).or_else(|| map.link(slot)) {
            Some(link) => groups.entry(Arc::as_ptr(link)).or_insert_with(|| (link.clone(), Vec::new())).1.push(at),
            None => {
                sent.end(Err(Error::NoMaster { slot }));
                unserved = true;
            }
        }
    }
    (groups.into_values().collect(), unserved)
}

fn pipeline(all: &[Sent<'_>], which: &[usize], script: &str) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(which.len());
    for sent in which.iter().map(|&at| &all[at]) {
        if matches!(sent.to, Some((_, true))) {
            pipeline.cmd("ASKING");
        }
        sent.command.add(&mut pipeline, script, sent.whole);
    }
    pipeline
}

/// Waits for all of them at once.
async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if running.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

/// What a server says is wrong, in a line.
fn said(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end().to_owned()
}

impl States for Redis {
    fn get_within<'a>(&'a self, keys: &'a [Key], patience: Duration) -> Answers<'a, Option<State>> {
        Box::pin(async move {
            if let Err(error) = check_batch(keys.len()) {
                return vec![Err(error); keys.len()];
            }
            let commands: Vec<_> = keys.iter().map(Command::get).collect();
            let answers = self.run(&commands, patience).await;
            commands.iter().zip(answers).map(|(command, answer)| command.state(answer?)).collect()
        })
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> Answers<'a, Option<State>> {
        self.get_within(keys, self.timeout)
    }

    fn put(&self, changes: Vec<Change>) -> Answers<'_, bool> {
        Box::pin(async move {
            if let Err(error) = check_batch(changes.len()) {
                return vec![Err(error); changes.len()];
            }
            let checked: Vec<_> = changes.iter().map(Change::check).collect();
            let good = changes.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
            let commands: Vec<_> = good.map(|(change, _)| Command::put(change)).collect();
            let answers = self.run(&commands, self.timeout).await;
            let mut done = commands.iter().zip(answers).map(|(command, answer)| command.done(&answer?));
            checked.into_iter().map(|checked| checked.and_then(|()| done.next().unwrap_or(Ok(false)))).collect()
        })
    }

    fn erase<'a>(&'a self, keys: &'a [Key]) -> Answers<'a, bool> {
        Box::pin(async move {
            if let Err(error) = check_batch(keys.len()) {
                return vec![Err(error); keys.len()];
            }
            let commands: Vec<_> = keys.iter().map(Command::erase).collect();
            let answers = self.run(&commands, self.timeout).await;
            commands.iter().zip(answers).map(|(command, answer)| command.done(&answer?)).collect()
        })
    }
}
