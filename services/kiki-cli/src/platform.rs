//! The four services in one process, on loopback, through the same `serve` functions that the binaries use.
//!
//! Invariants: it is ready only when every service's health check says so; whichever service ends first ends the rest, and
//! its error is the platform's; SyncFlow stops first and SyncShield last, so that decisions are flushed and leases given
//! back before the log closes.

mod services;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::ids::Key;
use kiki::lock::LockedFile;
use kiki::runtime::Listeners;
use syncflow::config::{Deadlines, Venues};
use syncshield::witness::WitnessAt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Doing as _, Failure};
use crate::keys::Keys;
use services::Services;

/// How long a service may take until it is ready. Most of it is for reading a long log: at the 500,000 leaves a second
/// that a fold reads, a minute is 30 million.
pub const START: Duration = Duration::from_secs(60);

/// How long a service that does not answer may take to end with an error of its own.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Which ports the services listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ports {
    /// 50051 to 50054, 8080 to 8082 and 9091.
    #[default]
    Default,
    /// Whatever is free.
    Auto,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            "auto" => Ok(Self::Auto),
            _ => Err("ports are \"default\" or \"auto\"".to_owned()),
        }
    }
}

/// How a platform is started.
#[derive(Debug, Clone)]
pub struct PlatformConfig {
    /// The data folder; made when it is not there.
    pub data: PathBuf,
    /// What "now" is, for all services.
    pub clock: Clock,
    /// Where they listen.
    pub ports: Ports,
    /// How long a budget lease lives, seconds.
    pub lease_ttl_secs: u64,
    /// Exchanges and the ad platforms that they belong to.
    pub venues: Venues,
    /// How long a bid may take.
    pub deadlines: Deadlines,
    /// Name of SyncFlow's instance; random where there is none.
    pub holder: Option<String>,
    /// File of the log's last signed size; in the data folder where there is none.
    pub signed_size: Option<PathBuf>,
    /// Folder of the model that predicts values; the estimate does where there is none.
    pub model: Option<PathBuf>,
    /// Where SyncFlow reaches SyncValue, if that is not where it listens.
    pub value_at: Option<String>,
    /// Addresses of the Redis, or the nodes of the cluster, that has the customers; the data folder where there is none.
    pub states: Vec<String>,
    /// Witnesses that cosign the log's checkpoints.
    pub witnesses: Vec<WitnessAt>,
}

impl PlatformConfig {
    /// A platform on `data` with the system's clock and the usual ports.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            clock: Clock::System,
            ports: Ports::Default,
            lease_ttl_secs: 60,
            venues: Venues::default(),
            deadlines: Deadlines::default(),
            holder: None,
            signed_size: None,
            model: None,
            value_at: None,
            states: Vec::new(),
            witnesses: Vec::new(),
        }
    }
}

/// Where the services listen, as `http://` addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// SyncValue, gRPC.
    pub value: String,
    /// SyncValue, metrics.
    pub value_http: String,
    /// SyncFlow, gRPC.
    pub flow: String,
    /// SyncFlow, OpenRTB, notices and metrics.
    pub flow_http: String,
    /// SyncShield, gRPC.
    pub shield: String,
    /// SyncShield, HTTP.
    pub shield_http: String,
    /// Billing, gRPC.
    pub billing: String,
    /// Billing, HTTP.
    pub billing_http: String,
}

impl Endpoints {
    /// A line a service: its name, what it answers, its two addresses.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, &str, &str); 4] {
        [
            ("syncvalue", &self.value, &self.value_http),
            ("syncflow", &self.flow, &self.flow_http),
            ("syncshield", &self.shield, &self.shield_http),
            ("billing", &self.billing, &self.billing_http),
        ]
    }

    /// From the table of them that `kiki up` prints.
    ///
    /// # Errors
    /// A service that is not in it.
    pub fn of_table(lines: &[String]) -> Result<Self, Failure> {
        let row = |name: &str| {
            let mut words = lines.iter().map(|line| line.split_whitespace()).find_map(|mut words| (words.next()? == name).then_some(words));
            let mut word = || words.as_mut()?.next();
            match (word(), word()) {
                (Some(grpc), Some(http)) => Ok((format!("http://{grpc}"), http.to_owned())),
                _ => Err(Failure::new(format!("kiki up named no addresses of {name}"))),
            }
        };
        let [(value, value_http), (flow, flow_http), (shield, shield_http), (billing, billing_http)] =
            [row("syncvalue")?, row("syncflow")?, row("syncshield")?, row("billing")?];
        Ok(Self { value, value_http, flow, flow_http, shield, shield_http, billing, billing_http })
    }
}

/// A running platform.
#[derive(Debug)]
pub struct Platform {
    /// Where its services listen.
    pub endpoints: Endpoints,
    /// What "now" is to them.
    pub clock: Clock,
    /// Cancelled to stop it, and when a service has failed.
    pub shutdown: CancellationToken,
    /// Ends when every service has.
    pub join: JoinHandle<Result<(), Failure>>,
}

impl Platform {
    /// Starts the services and waits until each says that it is ready.
    ///
    /// # Errors
    /// A port that is taken, keys or data that cannot be read, or the service that did not start.
    pub async fn start(config: PlatformConfig) -> Result<Self, Failure> {
        let keys = Keys::open(&config.data)?;
        let lock = lock(&config.data)?;
        let (bound, endpoints) = bind(config.ports).await?;
        let [value, flow, shield, billing] = bound;
        let clock = config.clock.clone();
        let mut services = Services::new()?;

        let settings = syncshield::Config {
            lease_ttl_secs: config.lease_ttl_secs,
            signed_size: config.signed_size.clone(),
            witnesses: config.witnesses.clone(),
            ..syncshield::Config::new(&config.data, LOG_ID)
        };
        services.spawn(SHIELD, |stop| syncshield::serve(shield, settings, clock.clone(), stop));
        // It makes the log's key, which Billing reads.
        services.ready(SHIELD, &endpoints.shield).await?;

        let settings = syncvalue::Config {
            shield: Some(endpoints.shield.clone()),
            horizon_days: HORIZON_DAYS,
            states: config.states.clone(),
            ..value_settings(&config, keys.pseudonym.clone())?
        };
        services.spawn(VALUE, |stop| syncvalue::serve(value, settings, clock.clone(), stop));
        services.ready(VALUE, &endpoints.value).await?;

        let settings = flow_settings(&config, &keys, &endpoints);
        services.spawn(FLOW, |stop| syncflow::serve(flow, settings, clock.clone(), stop));
        let log_key = config.data.join("log.pub").display().to_string();
        let settings = billing::Config::new(config.data.join("billing"), endpoints.shield.clone(), log_key);
        services.spawn(BILLING, |stop| billing::serve(billing, settings, clock.clone(), stop));
        services.ready(FLOW, &endpoints.flow).await?;
        services.ready(BILLING, &endpoints.billing).await?;

        let shutdown = CancellationToken::new();
        let supervised = services.supervise(shutdown.clone());
        let join = tokio::spawn(async move {
            let ended = supervised.await;
            drop(lock);
            ended
        });
        Ok(Self { endpoints, clock, shutdown, join })
    }

    /// Stops the services in order and waits for them.
    ///
    /// # Errors
    /// The first service that failed.
    pub async fn stop(self) -> Result<(), Failure> {
        self.shutdown.cancel();
        self.join.await.doing("waiting for the services")?
    }
}

/// Origin of the log's checkpoints.
pub const LOG_ID: &str = "kiki.local/log-1";
/// SyncValue's own horizon where a question names none, days.
const HORIZON_DAYS: u32 = 90;

/// The services, in the order in which they are stopped: those that write to the log before the log.
const FLOW: usize = 0;
const VALUE: usize = 1;
const BILLING: usize = 2;
const SHIELD: usize = 3;
const NAMES: [&str; 4] = ["syncflow", "syncvalue", "billing", "syncshield"];
const HEALTH_NAMES: [&str; 4] = [
    "kiki.syncflow.v1.SyncFlowService",
    "kiki.syncvalue.v1.SyncValueService",
    "kiki.billing.v1.BillingService",
    "kiki.syncshield.v1.SyncShieldService",
];

fn value_settings(config: &PlatformConfig, pseudonym_key: Key) -> Result<syncvalue::Config, Failure> {
    let settings = syncvalue::Config::new(config.data.join("syncvalue"), pseudonym_key);
    let Some(folder) = &config.model else { return Ok(settings) };
    let folder = folder.canonicalize().doing(format_args!("finding the model {}", folder.display()))?;
    let (Some(models), Some(model)) = (folder.parent(), folder.file_name().and_then(|name| name.to_str())) else {
        return Err(Failure::new(format!("{}: not the name of a folder", folder.display())));
    };
    Ok(syncvalue::Config { models: models.into(), model: Some(model.to_owned()), ..settings })
}

fn flow_settings(config: &PlatformConfig, keys: &Keys, endpoints: &Endpoints) -> syncflow::Config {
    syncflow::Config {
        shield: endpoints.shield.clone(),
        value: config.value_at.as_ref().unwrap_or(&endpoints.value).clone(),
        pseudonym_key: keys.pseudonym.clone(),
        receipt_key: keys.receipt.clone(),
        holder: config.holder.clone(),
        public_url: endpoints.flow_http.clone(),
        venues: config.venues.clone(),
        notice_window_secs: NOTICE_WINDOW_SECS,
        frequency: None, // one process counts for itself
        frequency_budget_ms: 5,
        record: syncflow::config::Record::All,
        clock_skew_ms: 1_000,
        deadlines: config.deadlines.clone(),
    }
}

/// How long after a bid its notices are taken, seconds: a week.
pub const NOTICE_WINDOW_SECS: u64 = 604_800;

/// The file that a running platform holds locked.
pub(crate) const LOCK: &str = "lock";

/// One platform a folder: the lock is the operating system's, which a killed process gives up.
pub(crate) fn lock(data: &Path) -> Result<LockedFile, Failure> {
    let path = data.join(LOCK);
    let file = File::create(&path).doing(format_args!("opening {}", path.display()))?;
    LockedFile::lock(file)
        .doing(format_args!("locking {}", path.display()))?
        .ok_or_else(|| Failure::new(format!("{} is in use by another process", data.display())))
}

/// Binds all ports before any service starts: an address that is taken is known before anything was done.
async fn bind(ports: Ports) -> Result<([Listeners; 4], Endpoints), Failure> {
    let one = async |grpc: u16, http: u16| {
        let (grpc, http) = match ports {
            Ports::Default => (grpc, http),
            Ports::Auto => (0, 0),
        };
        let listeners = Listeners::bind(&format!("127.0.0.1:{grpc}"), &format!("127.0.0.1:{http}")).await.doing("binding the ports")?;
        let address =
            |listener: &tokio::net::TcpListener| listener.local_addr().map(|at| format!("http://{at}")).doing("binding the ports");
        let addresses = (address(&listeners.grpc)?, address(&listeners.http)?);
        Ok::<_, Failure>((listeners, addresses))
    };
    let (value, (value_grpc, value_http)) = one(50_051, 9_091).await?;
    let (flow, (flow_grpc, flow_http)) = one(50_052, 8_080).await?;
    let (shield, (shield_grpc, shield_http)) = one(50_053, 8_081).await?;
    let (billing, (billing_grpc, billing_http)) = one(50_054, 8_082).await?;
    let endpoints = Endpoints {
        value: value_grpc,
        value_http,
        flow: flow_grpc,
        flow_http,
        shield: shield_grpc,
        shield_http,
        billing: billing_grpc,
        billing_http,
    };
    Ok(([value, flow, shield, billing], endpoints))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(data: &Path) -> PlatformConfig {
        PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(data) }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn starts_stops_and_starts_again_on_the_same_folder() {
        let data = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let platform = Platform::start(config(data.path())).await.unwrap();
            let busy = Platform::start(config(data.path())).await.unwrap_err().to_string();
            assert!(busy.contains("in use"), "{busy}");
            platform.stop().await.unwrap();
        }
        assert!(data.path().join("log.pub").exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_cannot_start_is_named_and_stops_the_rest() {
        let data = tempfile::tempdir().unwrap();
        Platform::start(config(data.path())).await.unwrap().stop().await.unwrap();
        std::fs::write(data.path().join("log.pub"), "no key").unwrap();
        std::fs::remove_dir_all(data.path().join("billing")).unwrap();
        std::fs::write(data.path().join("billing"), "no folder").unwrap();
        let failure = Platform::start(config(data.path())).await.unwrap_err().to_string();
        assert!(failure.contains("billing") || failure.contains("syncshield"), "{failure}");
        // What had started let go of the folder.
        drop(lock(data.path()).unwrap());
    }
}
