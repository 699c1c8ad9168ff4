//! SyncShield as a process of its own.

use std::process::ExitCode;

use kiki::runtime::{Common, program, settings};

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
    common: Common,
    #[command(flatten)]
    config: syncshield::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { grpc, http, common, config } = settings();
    let names = ("syncshield", syncshield::SERVICE);
    program(names, (&grpc, &http), common, |listeners, clock, stop| syncshield::serve(listeners, config, clock, stop)).await
}
