//! SyncValue as a process of its own, on free ports.

use std::path::{Path, PathBuf};

use kiki::clock::Clock;
use kiki::ids::{Key, Pseudonyms};
use kiki::runtime::Listeners;
use tokio_util::sync::CancellationToken;

use super::child::Server;
use crate::error::{Doing as _, Failure};
use crate::out;

/// The key of the customers' pseudonyms: nobody's secret.
const KEY: Key = Key::new([7; 32]);
/// The horizon of a prediction that names none.
pub(super) const HORIZON_DAYS: u32 = 90;

/// Where it keeps its events.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Data folder.
    #[arg(long)]
    data: PathBuf,
    /// Folder of the model that answers.
    #[arg(long)]
    model: PathBuf,
}

/// Serves until it is killed.
pub(super) async fn serve(args: Args) -> Result<(), Failure> {
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.doing("listening")?;
    out::say(format_args!("http://{}", listeners.grpc.local_addr().doing("listening")?));
    out::say(format_args!("http://{}", listeners.http.local_addr().doing("listening")?));
    out::say("ready");
    let named = || Failure::new(format!("{}: not the folder of a model", args.model.display()));
    let (models, model) = args.model.parent().zip(args.model.file_name()).ok_or_else(named)?;
    let config = syncvalue::Config {
        horizon_days: HORIZON_DAYS,
        models: models.into(),
        model: Some(model.to_string_lossy().into_owned()),
        ..syncvalue::Config::new(args.data, KEY)
    };
    syncvalue::serve(listeners, config, Clock::System, CancellationToken::new()).await.doing("serving")
}

/// Starts it as a process of its own, with its events in `data` and the model in `model`; the addresses of gRPC and of its metrics.
pub(super) fn start(data: &Path, model: &Path) -> Result<(Server, String, String), Failure> {
    let [data, model] = [data, model].map(|path| path.display().to_string());
    let (server, lines) = Server::start(&["bench", "value-server", "--data", &data, "--model", &model])?;
    match <[String; 2]>::try_from(lines) {
        Ok([grpc, http]) => Ok((server, grpc, http)),
        Err(lines) => Err(Failure::new(format!("SyncValue named {} addresses, not two", lines.len()))),
    }
}

/// The pseudonyms under which it knows its customers.
pub(super) fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&KEY)
}
