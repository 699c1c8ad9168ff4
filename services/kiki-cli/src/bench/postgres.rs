//! A PostgreSQL server of our own, on a free port in a temporary folder, stopped when it is dropped.
//!
//! It refuses to run as root, so root starts it as the user `postgres`.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often it is asked whether it answers, and how long apart: a minute in all, as recovery takes its time.
const ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(100);

/// The server.
pub(crate) struct Postgres {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Makes a database cluster and starts its server.
    #[allow(dead_code, reason = "the bench's half")]
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_in(&std::env::temp_dir())
    }

    fn start_in(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (programs, user) = (programs()?, user()?);
        let name = format!("kiki-postgres-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut postgres = Self { programs, user, folder, port, server: None };
        if let Some((uid, gid)) = postgres.user {
            std::os::unix::fs::chown(&postgres.folder, Some(uid), Some(gid))?;
        }
        let data = postgres.data();
        let made = postgres.command("initdb").arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "--no-sync"]).output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("initdb: {}", String::from_utf8_lossy(&made.stderr))));
        }
        postgres.run()?;
        Ok(postgres)
    }

    /// As [`Postgres::start`], in memory where there is enough: a database is made for many a test, and each is some 300 files. Where
    /// PostgreSQL is not installed, root installs it, once for all tests of a process.
    #[allow(dead_code, reason = "the tests' half")]
    pub(crate) fn start_or_install() -> Self {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(missing) = programs() {
            eprintln!("{missing}; installing it");
            let script = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql";
            let installed = Command::new("sh").args(["-c", script]).status();
            assert!(installed.is_ok_and(|status| status.success()), "{missing}, and apt-get could not install it");
        }
        drop(one_at_a_time);
        Self::start_in(&in_memory().unwrap_or_else(std::env::temp_dir)).unwrap_or_else(|error| panic!("PostgreSQL does not start: {error}"))
    }

    /// The address for `--store`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Where it listens, on loopback.
    #[allow(dead_code, reason = "the tests' half")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as a crash would.
    #[allow(dead_code, reason = "the tests' half")]
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.server.take().map_or(Ok(()), |mut server| server.kill().and_then(|()| server.wait()).map(drop))
    }

    /// Starts the server, also after a kill, and waits until it answers.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            // After a kill it does not start before the last of its old processes is gone.
            let ended = match &mut self.server {
                Some(server) => server.try_wait()?.is_some(),
                None => true,
            };
            if ended {
                let (data, port, log) = (self.data(), self.port.to_string(), std::fs::File::create(self.folder.join("log"))?);
                let mut command = self.command("postgres");
                command.arg("-D").arg(data).args(["-p", &port, "-c", "listen_addresses=127.0.0.1"]).arg("-k").arg(&self.folder);
                self.server = Some(command.stderr(log).spawn()?);
            }
            let asked = self.command("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status()?;
            if asked.success() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("PostgreSQL does not answer on port {}: {log}", self.port)))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // An immediate shutdown, which also ends its processes; where that fails, a crash.
            let asked = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            if !asked.is_ok_and(|status| status.success()) {
                drop(server.kill());
            }
            drop(server.wait());
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// The system's folder in memory, where 2 GiB and more are free there: containers often have 64 MB.
#[allow(dead_code, reason = "the tests' half")]
fn in_memory() -> Option<PathBuf> {
    const LEAST_KIB: u64 = 2 << 20;
    let folder = Path::new("/dev/shm");
    let said = Command::new("df").args(["-k", "--output=avail"]).arg(folder).output().ok()?;
    let free: u64 = String::from_utf8_lossy(&said.stdout).lines().last()?.trim().parse().ok()?;
    (free >= LEAST_KIB).then(|| folder.to_owned())
}

/// The folder of the newest version that is installed.
fn programs() -> io::Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    found.extend(std::env::var_os("PATH").iter().flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>()));
    found.sort_by_key(|path| std::cmp::Reverse(version(path)));
    let whole = |path: &PathBuf| ["initdb", "postgres", "pg_isready"].iter().all(|program| path.join(program).is_file());
    found.into_iter().find(whole).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "PostgreSQL is not installed (Debian: postgresql)"))
}

fn version(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}

/// The user and group that root runs it as; none where this is not root.
fn user() -> io::Result<Option<(u32, u32)>> {
    let me = std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta))?;
    if me != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let ids = users.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.first() == Some(&"postgres")).then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
    });
    ids.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no user postgres to run PostgreSQL as"))
}
