//! The same measurement on the first so many cores of the machine, by this program as a process of its own: its threads, the servers
//! that it starts and the echoes inherit the cores.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use super::{Args, Platform};
use crate::bench::cores;
use crate::error::{Doing as _, Failure};
use crate::out;

/// On each number of cores in turn. Each prints what it found.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    for count in args.cores.iter().map(|count| usize::from(*count)) {
        let program = std::env::current_exe().doing("finding this program")?;
        let mut command = Command::new(program);
        command.args(without_cores(args)).stdin(Stdio::null()).stdout(Stdio::piped());
        let run = move || cores::spawn_on(Some(&cores::first(count)), &mut command)?.wait_with_output();
        let output = tokio::task::spawn_blocking(run).await.doing("a run")?.doing(format_args!("on {count} cores"))?;
        if !output.status.success() {
            return Err(Failure::new(format!("on {count} cores: {}", output.status)));
        }
        out::say(String::from_utf8_lossy(&output.stdout).trim_end());
    }
    Ok(())
}

/// What one run is asked for.
fn without_cores(args: &Args) -> Vec<OsString> {
    // All of them by name, so that one that is added is not forgotten here.
    let Args { seconds, batch, streams, window: _, customers, cores: _, events_per_second, platform: Platform { model }, scratch, json } =
        args;
    let mut command: Vec<OsString> = vec!["bench".into(), "bids".into()];
    let mut say = |name: &str, value: String| command.extend([name.into(), value.into()]);
    say("--seconds", seconds.to_string());
    say("--batch", batch.to_string());
    say("--streams", streams.to_string());
    say("--window", args.window().to_string());
    say("--customers", customers.to_string());
    say("--events-per-second", events_per_second.to_string());
    model.iter().for_each(|model| command.extend(["--model".into(), model.into()]));
    command.extend(["--scratch".into(), scratch.into()]);
    command.extend(json.then(|| "--json".into()));
    command
}
