//! SyncValue as a process of its own.

use clap::Parser;
use kiki::clock::Clock;
use kiki::runtime::{self, Listeners};
use tokio_util::sync::CancellationToken;

/// SyncValue: what is this customer worth?
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of gRPC.
    #[arg(long, env = "KIKI_VALUE_GRPC", default_value = "127.0.0.1:50051")]
    grpc: String,
    /// Address of the metrics.
    #[arg(long, env = "KIKI_VALUE_HTTP", default_value = "127.0.0.1:9091")]
    http: String,
    #[command(flatten)]
    config: syncvalue::Config,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    runtime::init_tracing();
    let shutdown = CancellationToken::new();
    runtime::shutdown_on_signal(shutdown.clone());
    let listeners = Listeners::bind(&args.grpc, &args.http).await?;
    Ok(syncvalue::serve(listeners, args.config, Clock::System, shutdown).await?)
}
