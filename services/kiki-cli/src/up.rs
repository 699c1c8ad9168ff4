//! `kiki up`: the whole platform in one process, until it is told to stop.

use std::path::PathBuf;

use syncflow::config::{Deadlines, Venues};
use syncshield::witness::WitnessAt;

use crate::error::{Doing as _, Failure};
use crate::out;
use crate::platform::{Platform, PlatformConfig, Ports};

/// Runs all four services on loopback.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Data folder; made when it is not there.
    #[arg(long, env = "KIKI_DATA", default_value = "./kiki-data")]
    pub data: PathBuf,
    /// "default" (50051-50054, 8080-8082, 9091) or "auto" for whatever is free.
    #[arg(long, env = "KIKI_PORTS", default_value = "default")]
    pub ports: Ports,
    /// How long a budget lease lives, seconds.
    #[arg(long, env = "KIKI_LEASE_TTL_SECS", default_value_t = 60)]
    pub lease_ttl_secs: u64,
    /// The exchanges and their platforms, as SyncFlow takes them.
    #[command(flatten)]
    pub venues: Venues,
    /// How long a bid may take, as SyncFlow takes it.
    #[command(flatten)]
    pub deadlines: Deadlines,
    /// File of the log's last signed size; default: `signed-size` in the data folder. Best on another disk.
    #[arg(long, env = "KIKI_SIGNED_SIZE")]
    pub signed_size: Option<PathBuf>,
    /// Folder of the model that predicts values, as `kiki train` writes it. Models that are set later stand beside it.
    #[arg(long, env = "KIKI_MODEL")]
    pub model: Option<PathBuf>,
    /// Where SyncValue keeps its customers: a Redis, `redis://HOST:PORT/`, or nodes of a Redis Cluster, with commas. Without it they are in the data folder.
    #[arg(long, env = "KIKI_VALUE_STATES", value_delimiter = ',')]
    pub states: Vec<String>,
    /// A witness that cosigns the log's checkpoints, as `http://host:port+<its vkey>`. May be repeated.
    #[arg(long = "witness", env = "KIKI_WITNESSES", value_delimiter = ',')]
    pub witnesses: Vec<WitnessAt>,
}

/// Starts the platform, says where it is, and stays until SIGINT or SIGTERM.
///
/// # Errors
/// A service that did not start, or failed.
pub async fn run(args: Args) -> Result<(), Failure> {
    let config = PlatformConfig {
        ports: args.ports,
        lease_ttl_secs: args.lease_ttl_secs,
        venues: args.venues,
        deadlines: args.deadlines,
        signed_size: args.signed_size,
        model: args.model,
        states: args.states,
        witnesses: args.witnesses,
        ..PlatformConfig::new(args.data)
    };
    let data = config.data.display().to_string();
    let platform = Platform::start(config).await?;
    out::say(format_args!("{:<11} {:<23} HTTP", "service", "gRPC"));
    for (name, grpc, http) in platform.endpoints.rows() {
        out::say(format_args!("{name:<11} {:<23} {http}", grpc.trim_start_matches("http://")));
    }
    out::say(format_args!("data        {data}"));
    out::say("ready");
    kiki::runtime::shutdown_on_signal(platform.shutdown.clone());
    platform.join.await.doing("waiting for the services")?
}
