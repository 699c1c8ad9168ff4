//! Billing as a process of its own.

use clap::Parser;
use kiki::clock::Clock;
use kiki::runtime::{self, Listeners};
use tokio_util::sync::CancellationToken;

/// What does the client owe, and how can they check it themselves?
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to answer gRPC.
    #[arg(long, env = "KIKI_BILLING_GRPC", default_value = "127.0.0.1:50054")]
    grpc: String,
    /// Where to answer HTTP and metrics.
    #[arg(long, env = "KIKI_BILLING_HTTP", default_value = "127.0.0.1:8082")]
    http: String,
    #[command(flatten)]
    config: billing::Config,
}

#[tokio::main]
async fn main() -> Result<(), billing::Error> {
    runtime::init_tracing();
    let args = Args::parse();
    let listeners = Listeners::bind(&args.grpc, &args.http).await?;
    let shutdown = CancellationToken::new();
    runtime::shutdown_on_signal(shutdown.clone());
    billing::serve(listeners, args.config, Clock::System, shutdown).await
}
