//! SyncShield's configuration.

use std::path::PathBuf;

use crate::store::Store;
use kiki::tlog::note::VerifyingKey;

use crate::witness::WitnessAt;

/// How long a lease lives unless it is told otherwise, seconds.
const LEASE_TTL_SECS: u64 = 60;

/// What SyncShield is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Folder of the log, its key and its public key.
    #[arg(long, env = "KIKI_SHIELD_DATA", default_value = "kiki-data/syncshield")]
    pub data: PathBuf,
    /// Where the log is kept: `file:DIR` (instead of the data folder), or `postgres://USER:PASSWORD@HOST/DATABASE`, which
    /// several SyncShields with the same key may share.
    #[arg(long, env = "KIKI_SHIELD_STORE", hide_env_values = true)]
    pub store: Option<Store>,
    /// The log's id: the origin of its checkpoints and the name of its key.
    #[arg(long, env = "KIKI_LOG_ID", default_value = "kiki.local/log-1")]
    pub log_id: String,
    /// How long a lease lives unless it is renewed, seconds.
    #[arg(long, env = "KIKI_LEASE_TTL_SECS", default_value_t = LEASE_TTL_SECS, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub lease_ttl_secs: u64,
    /// File of the last signed size; default: `signed-size` in the data folder. On another disk than the log it also
    /// tells when the whole folder was restored from an old backup.
    #[arg(long, env = "KIKI_SIGNED_SIZE")]
    pub signed_size: Option<PathBuf>,
    /// A witness that cosigns the checkpoints, as `http://host:port+<its vkey>`. Any number.
    #[arg(long = "witness", env = "KIKI_WITNESSES", value_delimiter = ',')]
    pub witnesses: Vec<WitnessAt>,
    /// The key of another log that clients may come from, as they move from SyncShield to SyncShield. Any number.
    #[arg(long = "peer-log", env = "KIKI_PEER_LOGS", value_delimiter = ',')]
    pub peer_logs: Vec<VerifyingKey>,
}

impl Config {
    /// The defaults, for a log in a folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, log_id: &str) -> Self {
        let log_id = log_id.to_owned();
        Self {
            data: data.into(),
            store: None,
            log_id,
            lease_ttl_secs: LEASE_TTL_SECS,
            signed_size: None,
            witnesses: Vec::new(),
            peer_logs: Vec::new(),
        }
    }
}
