//! The SyncFlow service.

use clap::Parser;
use kiki::clock::Clock;
use kiki::runtime::{self, Listeners};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(version, about = "SyncFlow: what do we bid, where, and is that platform healthy?")]
struct Args {
    /// Where gRPC listens.
    #[arg(long, env = "KIKI_FLOW_GRPC", default_value = "127.0.0.1:50052")]
    grpc: String,
    /// Where HTTP listens: OpenRTB, notices, clicks and metrics.
    #[arg(long, env = "KIKI_FLOW_HTTP", default_value = "127.0.0.1:8080")]
    http: String,
    #[command(flatten)]
    config: syncflow::Config,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    runtime::init_tracing();
    let args = Args::parse();
    let shutdown = CancellationToken::new();
    runtime::shutdown_on_signal(shutdown.clone());
    let listeners = Listeners::bind(&args.grpc, &args.http).await?;
    Ok(syncflow::serve(listeners, args.config, Clock::System, shutdown).await?)
}
