//! A Redis of our own, on a free port in a temporary folder, stopped when it is dropped.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Ports that are tried: another process may take a free one before Redis does.
const ATTEMPTS: u32 = 8;

pub struct Server {
    port: u16,
    server: Child,
    _said: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one; where Redis is not installed, root installs it, once for all tests of a process.
    pub fn start_or_install() -> Self {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("Redis is missing; installing it");
            let script = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends redis-server";
            let installed = Command::new("sh").args(["-c", script]).status();
            assert!(installed.is_ok_and(|status| status.success()), "Redis is missing, and apt-get could not install it");
        }
        drop(one_at_a_time);
        (0..ATTEMPTS).find_map(|_| Self::start()).expect("Redis does not start")
    }

    /// Starts one and waits until it says that it is ready; none where it ended before.
    fn start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        let mut server = command.arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            if said.read_line(&mut line).unwrap() == 0 {
                server.wait().unwrap();
                return None;
            }
        }
        Some(Self { port, server, _said: said, _folder: folder })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.server.kill(); // it may have ended
        let _ = self.server.wait();
    }
}
