//! Which cores a process runs on.

use std::fmt;
use std::io;
use std::process::{Child, Command};
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::sync::oneshot;

use crate::error::{Doing as _, Failure};

/// The most cores that there may be, by their numbers.
const MAX: usize = CpuSet::MAX_CPU;

/// Some cores, as `taskset` writes them: "0", "1-3", "0,2".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores(Vec<usize>);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no list of cores such as 0 or 1-3 or 0,2, each below {MAX}");
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to): (usize, usize) = from.parse().ok().zip(to.parse().ok()).filter(|(_, to)| *to < MAX).ok_or_else(bad)?;
            cores.extend(from..=to);
        }
        if cores.is_empty() { Err(bad()) } else { Ok(Self(cores)) }
    }
}

/// How many cores this process may use.
pub(super) fn here() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first so many cores of the machine, and one at least.
pub(super) fn first(count: usize) -> Cores {
    Cores((0..count.max(1)).collect())
}

/// All but these; where there are no others, the same.
pub(super) fn but_first(count: usize) -> Cores {
    let rest = Cores((count.max(1)..here()).collect());
    if rest.0.is_empty() { first(count) } else { rest }
}

impl Cores {
    fn set(&self) -> CpuSet {
        let mut set = CpuSet::new();
        self.0.iter().for_each(|core| set.set(*core));
        set
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
    }
}

/// Starts a process, on these cores if there are any. It inherits them from the thread that starts it, which ends with this.
///
/// # Errors
/// The program did not start, or the cores are not there.
pub(super) fn spawn_on(cores: Option<&Cores>, command: &mut Command) -> io::Result<Child> {
    let Some(cores) = cores else { return command.spawn() };
    let set = cores.set();
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            sched_setaffinity(None, &set)?;
            command.spawn()
        });
        started.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it failed")))
    })
}

/// Runs something to its end on a runtime of its own, whose threads are on these cores.
///
/// # Errors
/// The cores are not there, or what ran there failed.
pub(super) async fn run_on<T, F>(cores: &Cores, work: impl FnOnce() -> F + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (set, threads, (done, ended)) = (cores.set(), cores.0.len(), oneshot::channel());
    // Threads inherit the cores of the one that starts them.
    std::thread::spawn(move || {
        let ran = sched_setaffinity(None, &set).map_err(io::Error::from).and_then(|()| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
            Ok(runtime.block_on(work()))
        });
        drop(done.send(ran));
    });
    ended.await.doing(format_args!("what ran on core {cores}"))?.doing(format_args!("running on core {cores}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_written_as_lists_and_ranges() {
        for (text, cores) in [("0", vec![0]), ("1-3", vec![1, 2, 3]), ("0,2", vec![0, 2]), ("0-1,3", vec![0, 1, 3])] {
            assert_eq!(text.parse(), Ok(Cores(cores)), "{text}");
        }
        for text in ["", "a", "3-1", "1-", "99999", "0,"] {
            assert!(text.parse::<Cores>().is_err(), "{text}");
        }
        assert_eq!(Cores(vec![0, 2]).to_string(), "0,2");
        assert_eq!((first(0), first(2)), (Cores(vec![0]), Cores(vec![0, 1])));
        assert_eq!(but_first(here()), first(here()), "there are no others");
    }

    #[test]
    fn a_process_runs_where_it_was_started() -> io::Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "grep Cpus_allowed_list /proc/self/status"]).stdout(std::process::Stdio::piped());
        let output = spawn_on(Some(&Cores(vec![0])), &mut command)?.wait_with_output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout).split_whitespace().last(), Some("0"));
        assert!(spawn_on(Some(&Cores(vec![MAX - 1])), &mut command).is_err(), "a core that is not there");
        Ok(())
    }

    #[tokio::test]
    async fn a_runtime_runs_where_it_is_told() -> Result<(), Failure> {
        let status = || async { tokio::spawn(async { std::fs::read_to_string("/proc/thread-self/status") }).await };
        let status = run_on(&Cores(vec![0]), status).await?.doing("the task")?.doing("reading")?;
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(str::trim);
        assert_eq!(cores, Some("0"));
        assert!(run_on(&Cores(vec![MAX - 1]), || async {}).await.is_err(), "a core that is not there");
        Ok(())
    }
}
