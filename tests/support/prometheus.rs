//! A Prometheus of our own, on a free port in a temporary folder, stopped when it is dropped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::server::free_port;

/// Ports that are tried: another process may take a free one before Prometheus does.
const ATTEMPTS: u32 = 8;
/// Ten scrapes a second. What is to be scraped is read again at once when it changes, and taken up within some seconds.
const CONFIG: &str = "
global: { scrape_interval: 100ms, scrape_timeout: 100ms }
scrape_configs: [{ job_name: kiki, file_sd_configs: [{ files: [targets.json] }] }]
";

pub struct Server {
    port: u16,
    folder: tempfile::TempDir,
    running: Option<Child>,
}

impl Server {
    /// Starts one that scrapes nothing yet; where Prometheus is not installed, root installs it, once for all tests of a process.
    pub fn start_or_install() -> Self {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("Prometheus is missing; installing it");
            let script = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends prometheus";
            let installed = Command::new("sh").args(["-c", script]).status();
            assert!(installed.is_ok_and(|status| status.success()), "Prometheus is missing, and apt-get could not install it");
        }
        drop(one_at_a_time);
        (0..ATTEMPTS).find_map(|_| Self::start()).expect("Prometheus does not start")
    }

    /// Starts it and waits until it says that it is ready; none where it ended before.
    fn start() -> Option<Self> {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        fs::write(folder.path().join("config.yml"), CONFIG).unwrap();
        fs::write(folder.path().join("targets.json"), "[]").unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.path().join("config.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = said.any(|line| line.contains("Server is ready to receive web requests."));
        let server = Self { port, folder, running: Some(child) };
        // It goes on to say things, and must not wait for a reader.
        std::thread::spawn(move || said.for_each(drop));
        ready.then_some(server)
    }

    /// Scrapes these from here on, each address as the instance of that name: the series go on where another address had it before.
    pub fn scrape(&self, instances: &[(&str, &str)]) {
        let target = |(name, address): &(&str, &str)| {
            let address = address.trim_start_matches("http://");
            format!(r#"{{"targets":["{address}"],"labels":{{"instance":"{name}"}}}}"#)
        };
        let targets = instances.iter().map(target).collect::<Vec<_>>().join(",");
        // Whole or not at all: it may look at any moment.
        let next = self.folder.path().join("next");
        fs::write(&next, format!("[{targets}]")).unwrap();
        fs::rename(next, self.folder.path().join("targets.json")).unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut server) = self.running.take() {
            let _ = server.kill(); // it may have ended
            let _ = server.wait();
        }
    }
}
