//! SyncShield's configuration.

use std::path::PathBuf;

use crate::store::Store;

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
    #[arg(long, env = "KIKI_LEASE_TTL_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub lease_ttl_secs: u64,
}
