//! A server as a child process of this very program, stopped when it is dropped.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::cores::{self, Cores};
use crate::error::{Doing as _, Failure};
use crate::platform::Endpoints;

/// How long it may take until it says that it is ready.
const START: Duration = Duration::from_secs(60);

pub(super) struct Server {
    child: Child,
}

/// All four services in one process.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Platform {
    /// Folder of the model that predicts, as `kiki train` writes it. Without it the estimate does, which needs none.
    #[arg(long)]
    pub(super) model: Option<PathBuf>,
}

impl Platform {
    /// Starts it on these cores, if there are any, with its data in that folder, and told so much more.
    pub(super) fn start(&self, cores: Option<&Cores>, data: &Path, more: &[&str]) -> Result<(Server, Endpoints), Failure> {
        let text = |path: &Path| path.display().to_string();
        let (data, model) = (text(data), self.model.as_deref().map(text));
        let mut command = vec!["up", "--ports", "auto", "--data", &data];
        model.iter().for_each(|model| command.extend(["--model", model]));
        command.extend(more);
        let (servers, lines) = Server::start_on(cores, &command)?;
        Ok((servers, Endpoints::of_table(&lines)?))
    }
}

impl Server {
    /// Starts `kiki ARGS` on any core.
    pub(super) fn start(args: &[&str]) -> Result<(Self, Vec<String>), Failure> {
        Self::start_on(None, args)
    }

    /// Starts `kiki ARGS`, on these cores if there are any, and gives the lines that it printed up to the one that says `ready`.
    pub(super) fn start_on(cores: Option<&Cores>, args: &[&str]) -> Result<(Self, Vec<String>), Failure> {
        let program = std::env::current_exe().doing("finding this program")?;
        let command = args.join(" ");
        let child = cores::spawn_on(cores, Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::piped()));
        let mut server = Self { child: child.doing(format_args!("starting kiki {command}"))? };
        let stdout = server.child.stdout.take().ok_or_else(|| Failure::new("the server's output is not ours to read"))?;
        let (said, hear) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
            drop(said.send(head));
            lines.for_each(drop); // read on, so that it never waits for its output
        });
        let lines = hear.recv_timeout(START).doing(format_args!("waiting for kiki {command} to be ready"))?;
        match server.child.try_wait().doing(format_args!("watching kiki {command}"))? {
            Some(status) => Err(Failure::new(format!("kiki {command} ended before it was ready: {status}"))),
            None => Ok((server, lines)),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
