//! SyncValue as a process of its own, on free ports.

use std::path::PathBuf;

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
}

/// Serves until it is killed.
pub(super) async fn serve(args: Args) -> Result<(), Failure> {
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.doing("listening")?;
    out::say(format_args!("http://{}", listeners.grpc.local_addr().doing("listening")?));
    out::say(format_args!("http://{}", listeners.http.local_addr().doing("listening")?));
    out::say("ready");
    let config = syncvalue::Config { horizon_days: HORIZON_DAYS, ..syncvalue::Config::new(args.data, KEY) };
    syncvalue::serve(listeners, config, Clock::System, CancellationToken::new()).await.doing("serving")
}

/// Starts it as a process of its own; the addresses of gRPC and of its metrics.
pub(super) fn start(data: &std::path::Path) -> Result<(Server, String, String), Failure> {
    let (server, lines) = Server::start(&["bench", "value-server", "--data", &data.display().to_string()])?;
    match <[String; 2]>::try_from(lines) {
        Ok([grpc, http]) => Ok((server, grpc, http)),
        Err(lines) => Err(Failure::new(format!("SyncValue named {} addresses, not two", lines.len()))),
    }
}

/// The pseudonyms under which it knows its customers.
pub(super) fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&KEY)
}
