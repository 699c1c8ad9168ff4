//! The SyncShield server.

use clap::Parser as _;
use kiki::clock::Clock;
use kiki::runtime::{Listeners, init_tracing, shutdown_on_signal};
use tokio_util::sync::CancellationToken;

#[derive(clap::Parser)]
#[command(version, about = "SyncShield: may we spend this, and what was done, provably?")]
struct Args {
    /// Address of gRPC.
    #[arg(long, env = "KIKI_SHIELD_GRPC", default_value = "127.0.0.1:50053")]
    grpc: String,
    /// Address of HTTP and metrics.
    #[arg(long, env = "KIKI_SHIELD_HTTP", default_value = "127.0.0.1:8081")]
    http: String,
    #[command(flatten)]
    config: syncshield::Config,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    init_tracing();
    let args = Args::parse();
    let shutdown = CancellationToken::new();
    shutdown_on_signal(shutdown.clone());
    let listeners = Listeners::bind(&args.grpc, &args.http).await?;
    Ok(syncshield::serve(listeners, args.config, Clock::System, shutdown).await?)
}
