//! A Redis of our own, on a free port in a temporary folder, stopped when it is dropped. It is part of the tests of several crates.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Ports that are tried: another process may take a free one before Redis does.
const ATTEMPTS: u32 = 8;

pub struct Server {
    port: u16,
    options: Vec<String>,
    folder: tempfile::TempDir,
    /// The process, and what it says.
    running: Option<(Child, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts one that keeps nothing on disk; where Redis is not installed, root installs it, once for all tests of a process.
    pub fn start_or_install() -> Self {
        Self::start_with(&["--appendonly", "no"])
    }

    /// As [`Server::start_or_install`], with options of its own.
    pub fn start_with(options: &[&str]) -> Self {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("Redis is missing; installing it");
            let script = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends redis-server";
            let installed = Command::new("sh").args(["-c", script]).status();
            assert!(installed.is_ok_and(|status| status.success()), "Redis is missing, and apt-get could not install it");
        }
        drop(one_at_a_time);
        (0..ATTEMPTS).find_map(|_| Self::start(options)).expect("Redis does not start")
    }

    fn start(options: &[&str]) -> Option<Self> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { port: free_port(), options, folder: tempfile::tempdir().unwrap(), running: None };
        server.run().then_some(server)
    }

    /// Starts it, also after a kill, and waits until it says that it is ready; false where it ended before.
    pub fn run(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(self.folder.path());
        let mut server = command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            if said.read_line(&mut line).unwrap() == 0 {
                server.wait().unwrap();
                return false;
            }
        }
        self.running = Some((server, said));
        true
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        if let Some((mut server, _said)) = self.running.take() {
            let _ = server.kill(); // it may have ended
            let _ = server.wait();
        }
    }

    /// The number of its process, for signals.
    #[allow(dead_code, reason = "not every test sends one")]
    pub fn process(&self) -> u32 {
        self.running.as_ref().unwrap().0.id()
    }

    #[allow(dead_code, reason = "most tests want the address")]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody has now: each of a process is another, and they are below those that the system hands out by itself, so
/// that it is still free when a server that was killed starts again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(61); // processes side by side have ports of their own
    let ports = std::iter::repeat_with(|| 10_000 + (start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16);
    ports.take(20_000).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("no port is free")
}
