//! The command against a real `kiki up`.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../../../../tests/support/acme.rs"]
mod acme;
mod breakers;
mod budget;
mod counters;
#[path = "../../../../tests/support/prometheus.rs"]
mod prometheus;
mod reconcile;
#[path = "../../../../tests/support/redis.rs"]
mod server;
mod spend;
mod states;
mod venues;
mod witness;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use kiki_cli::platform::Endpoints;

/// A process of the command, killed at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command and reads what it says until it is ready.
fn start(command: &mut Command) -> (Running, Vec<String>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| line != "ready").collect();
    (Running(child), said)
}

/// A platform of its own.
struct Up {
    _running: Running,
    /// SyncShield's addresses.
    shield: String,
    http: String,
    /// Everybody's.
    at: Endpoints,
    dir: tempfile::TempDir,
}

fn up(more: &[&str]) -> Up {
    up_in(tempfile::tempdir().unwrap(), more)
}

fn up_in(dir: tempfile::TempDir, more: &[&str]) -> Up {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
    command.args(["up", "--ports", "auto", "--lease-ttl-secs", "1", "--data"]).arg(dir.path().join("data")).args(more);
    let (running, said) = start(&mut command);
    let at = Endpoints::of_table(&said).unwrap();
    let http = at.shield_http.trim_start_matches("http://").to_owned();
    Up { _running: running, shield: at.shield.clone(), http, at, dir }
}
