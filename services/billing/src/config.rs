//! Billing's configuration.

use std::path::{Path, PathBuf};

use kiki::tlog::note::VerifyingKey;

use crate::domain::bundle::limits::WHOLE_MAX;
use crate::error::Error;
use crate::store::Address;

/// What Billing is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Folder of the ledger.
    #[arg(long, env = "KIKI_BILLING_DATA", default_value = "kiki-data/billing")]
    pub data: PathBuf,
    /// Where the ledger is kept: `file:DIR` (instead of the data folder), or `postgres://USER:PASSWORD@HOST/DATABASE`, which
    /// several Billings may share.
    #[arg(long, env = "KIKI_BILLING_STORE", hide_env_values = true)]
    pub store: Option<Address>,
    /// A draft becomes final only once it was approved.
    #[arg(long, env = "KIKI_BILLING_APPROVAL_REQUIRED")]
    pub approval_required: bool,
    /// Of a client with more leaves than so many the proof bundle has its books sheet by sheet, and leaves by sample.
    #[arg(long, env = "KIKI_BILLING_WHOLE_BUNDLE_MAX", default_value_t = WHOLE_MAX)]
    pub whole_bundle_max: u64,
    /// Where SyncShield answers gRPC.
    #[arg(long, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    pub shield: String,
    /// The log's public key, `name+hash+base64`, or the path of a file that holds it. Its name is the log's id.
    #[arg(long, env = "KIKI_LOG_KEY", default_value = "kiki-data/syncshield/log.pub")]
    pub log_key: String,
}

impl Config {
    /// The defaults, for a ledger in a folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, shield: String, log_key: String) -> Self {
        Self { data: data.into(), store: None, approval_required: false, whole_bundle_max: WHOLE_MAX, shield, log_key }
    }

    /// Where the ledger is kept.
    #[must_use]
    pub fn address(&self) -> Address {
        self.store.clone().unwrap_or_else(|| Address::Folder(self.data.clone()))
    }

    /// The log's public key.
    ///
    /// # Errors
    /// Neither a key nor a file that holds one.
    pub fn key(&self) -> Result<VerifyingKey, Error> {
        let given = self.log_key.trim();
        if let Ok(key) = given.parse() {
            return Ok(key);
        }
        let text = std::fs::read_to_string(Path::new(given))
            .map_err(|e| Error::Key(format!("log_key is neither a key nor a file to read: {e}")))?;
        text.trim().parse().map_err(|e| Error::Key(format!("log_key: {given}: {e}")))
    }
}
