//! SyncFlow as a process of its own.

use std::process::ExitCode;

use kiki::runtime::{Common, program, settings};

#[derive(clap::Parser)]
#[command(version, about = "SyncFlow: what do we bid, where, and is that platform healthy?")]
struct Args {
    /// Address of gRPC.
    #[arg(long, env = "KIKI_FLOW_GRPC", default_value = "127.0.0.1:50052")]
    grpc: String,
    /// Address of HTTP: OpenRTB, notices, clicks and metrics.
    #[arg(long, env = "KIKI_FLOW_HTTP", default_value = "127.0.0.1:8080")]
    http: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    config: syncflow::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { grpc, http, common, config } = settings();
    let names = ("syncflow", syncflow::SERVICE);
    program(names, (&grpc, &http), common, |listeners, clock, stop| syncflow::serve(listeners, config, clock, stop)).await
}
