//! Hostile clients against a real `kiki up`, in a process of its own, so that its memory can be seen: each kind at gRPC and at HTTP, while
//! a good client calls all services. Whatever they do, memory stays below a stated bound, the good client's calls all succeed, each of them
//! gets the answer that it should or is cut off, and the log verifies at the end.
//!
//! What bounds each of them stands in ARCHITECTURE.md, "What a hostile client meets". No test asks how fast anything is: times bound what
//! would hang, and are those of the services where a client is cut off for its slowness.
//!
//! ```text
//! cargo test -p kiki-cli --test hostile                                         with all tests
//! KIKI_HOSTILE=10 cargo test --release -p kiki-cli --test hostile -- --nocapture    ten times as many of what is sent
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code)] // other tests use the rest
#[path = "../../../../tests/support/acme.rs"]
mod acme;
mod frames;
mod good;
mod many;
mod messages;
mod patience;
mod raw;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiki_cli::platform::Endpoints;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What would be a hang.
const HANG: Duration = Duration::from_secs(150);

/// How many times what a normal run sends is sent.
fn times() -> usize {
    std::env::var("KIKI_HOSTILE").ok().map_or(1, |times| times.parse().expect("KIKI_HOSTILE: how many times a normal run"))
}

/// Waits, but not for ever.
async fn soon<T>(what: &str, done: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, done).await.unwrap_or_else(|_| panic!("{what}: nothing came of it in {} s", HANG.as_secs()))
}

/// Host and port.
fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// A platform, and its good client.
struct Scene {
    platform: Platform,
    at: Endpoints,
    dir: tempfile::TempDir,
    /// KiB of memory, the most before anything hostile came. What it is at a moment depends on when the allocator gives back what the start took.
    before: u64,
    stop: CancellationToken,
    good: JoinHandle<()>,
    /// How many rounds the good client has made.
    made: watch::Receiver<u64>,
}

/// The process, killed at the end.
struct Platform(Child);

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Scene {
    async fn start() -> Self {
        files();
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.args(["up", "--ports", "auto", "--data"]).arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut platform = Platform(command.spawn().unwrap());
        let lines = BufReader::new(platform.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said: Vec<String> = lines.take_while(|line| line != "ready").collect();
        let at = Endpoints::of_table(&said).unwrap();
        soon("a good round before all", good::round(&at)).await;
        let (before, stop) = (most_memory(&platform.0), CancellationToken::new());
        let (count, made) = watch::channel(0);
        let good = tokio::spawn(good::rounds(at.clone(), count, stop.clone()));
        Self { platform, at, dir, before, stop, good, made }
    }

    /// What has come so far was not hostile.
    fn count_from_here(&mut self) {
        self.before = most_memory(&self.platform.0);
    }

    /// Waits until the good client has made so many rounds more, from their beginning to their end.
    async fn rounds(&self, more: u64) {
        let (mut made, now) = (self.made.clone(), *self.made.borrow());
        soon("rounds of the good client", made.wait_for(|made| *made > now + more)).await.expect("the good client is served");
    }

    /// The good client has never failed, memory never grew by more than so many MiB, the platform ends as asked, and its log verifies.
    async fn end(mut self, what: &str, most_mib: u64) {
        self.stop.cancel();
        soon("the good client's last round", self.good).await.expect("the good client was served throughout");
        let rounds = *self.made.borrow();
        let grew = most_memory(&self.platform.0).saturating_sub(self.before) / 1024;
        println!("{what}: memory grew by {grew} MiB at the most, {rounds} rounds of the good client");
        assert!(grew <= most_mib, "{what}: memory grew by {grew} MiB, more than {most_mib}");
        assert!(self.platform.0.try_wait().unwrap().is_none(), "the platform has ended");
        let pid = rustix::process::Pid::from_child(&self.platform.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || self.platform.0.wait().unwrap());
        assert!(soon("the platform's end", ended).await.unwrap().success());
        let (key, data) = (self.dir.path().join("log.pub"), self.dir.path());
        let mut verify = Command::new(env!("CARGO_BIN_EXE_kiki"));
        let verified = verify.args(["audit", "verify", "--log-key"]).arg(key).arg(data).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}

/// KiB, the most that the process ever had (proc(5)).
fn most_memory(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// As many file descriptors as there may be; the platform takes the same.
fn files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}
