//! What SyncValue is told at its start.

use std::path::PathBuf;

use kiki::ids::Key;

use crate::domain::predictor::MAX_HORIZON_DAYS;
use crate::error::Error;
use crate::store::states::redis;

const CACHE_MIB: u32 = 256;
/// A quarter of the 100 ms that an exchange gives a bid as a rule.
const STATES_PATIENCE_MS: u64 = 25;
const STATES_TIMEOUT_MS: u64 = redis::TIMEOUT.as_millis() as u64;
const HORIZON_DAYS: u32 = 90;

/// Settings of SyncValue.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Folder for the events that were observed; made where it is missing.
    #[arg(long, env = "KIKI_VALUE_DATA", default_value = "kiki-data/syncvalue")]
    pub data: PathBuf,
    /// The key of the customers' pseudonyms, 64 hexadecimal digits, or the path of a file that holds them: the same for all services.
    #[arg(long, env = "KIKI_PSEUDONYM_KEY", value_parser = Key::given, hide_env_values = true)]
    pub pseudonym_key: Key,
    /// SyncShield's address, `http://host:port`, whose log is followed for outcomes; without it none is.
    #[arg(long, env = "KIKI_SHIELD")]
    pub shield: Option<String>,
    /// Folder whose folders are models, as `kiki train` writes them.
    #[arg(long, env = "KIKI_VALUE_MODELS", default_value = "kiki-models")]
    pub models: PathBuf,
    /// The model that answers for all until SetModels says otherwise: the name of a folder below that of the models. Without it the estimate does.
    #[arg(long, env = "KIKI_VALUE_MODEL")]
    pub model: Option<String>,
    /// Memory for what the networks remember of customers, MiB; what does not fit is made again when it is asked for.
    #[arg(long, env = "KIKI_VALUE_CACHE_MIB", default_value_t = CACHE_MIB, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub cache_mib: u32,
    /// Where several SyncValues keep their customers together: a Redis, `redis://[USER:PASSWORD@]HOST:PORT/`, or nodes of a Redis Cluster, with
    /// commas. Without it the customers are this process's own, in `data`.
    #[arg(long, env = "KIKI_VALUE_STATES", value_delimiter = ',', hide_env_values = true)]
    pub states: Vec<String>,
    /// How long a prediction waits for its customers from there, milliseconds, at most as long as a change may take; then it is made as for one who
    /// is not known.
    #[arg(long, env = "KIKI_VALUE_STATES_PATIENCE_MS", default_value_t = STATES_PATIENCE_MS, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub states_patience_ms: u64,
    /// How long a change of customers there may take in all, milliseconds, and a connection or one answer a quarter of that; then events are refused.
    #[arg(long, env = "KIKI_VALUE_STATES_TIMEOUT_MS", default_value_t = STATES_TIMEOUT_MS, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub states_timeout_ms: u64,
    /// The horizon of a prediction that names none, days.
    #[arg(long, env = "KIKI_VALUE_HORIZON_DAYS", default_value_t = HORIZON_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HORIZON_DAYS)))]
    pub horizon_days: u32,
}

impl Config {
    /// The defaults, with a folder for the events and the key of the pseudonyms.
    #[must_use]
    pub fn new(data: PathBuf, pseudonym_key: Key) -> Self {
        Self {
            models: data.join("models"),
            data,
            pseudonym_key,
            shield: None,
            model: None,
            cache_mib: CACHE_MIB,
            states: Vec::new(),
            states_patience_ms: STATES_PATIENCE_MS,
            states_timeout_ms: STATES_TIMEOUT_MS,
            horizon_days: HORIZON_DAYS,
        }
    }

    /// # Errors
    /// A prediction that would wait for its customers beyond the time of any call.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { states_patience_ms: patience, states_timeout_ms: timeout, .. } = self;
        if patience <= timeout {
            return Ok(());
        }
        let problem = format!("{patience} is longer than KIKI_VALUE_STATES_TIMEOUT_MS, {timeout}");
        Err(Error::Field { path: "KIKI_VALUE_STATES_PATIENCE_MS".to_owned(), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_waits_no_longer_than_any_call_may() {
        let config = |states_patience_ms| Config { states_patience_ms, ..Config::new("data".into(), Key::new([7; 32])) };
        assert!(config(STATES_TIMEOUT_MS).check().is_ok());
        let refused = config(STATES_TIMEOUT_MS + 1).check().map_err(|error| error.to_string());
        let why = "KIKI_VALUE_STATES_PATIENCE_MS: 1001 is longer than KIKI_VALUE_STATES_TIMEOUT_MS, 1000";
        assert_eq!(refused, Err(why.to_owned()));
    }
}
