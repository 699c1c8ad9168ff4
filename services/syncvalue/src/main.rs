//! SyncValue as a process of its own.

use std::process::ExitCode;

use kiki::runtime::{Common, program, settings};

#[derive(clap::Parser)]
#[command(version, about = "SyncValue: what is this customer worth?")]
struct Args {
    /// Address of gRPC.
    #[arg(long, env = "KIKI_VALUE_GRPC", default_value = "127.0.0.1:50051")]
    grpc: String,
    /// Address of metrics.
    #[arg(long, env = "KIKI_VALUE_HTTP", default_value = "127.0.0.1:9091")]
    http: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    config: syncvalue::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { grpc, http, common, config } = settings();
    let names = ("syncvalue", syncvalue::SERVICE);
    program(names, (&grpc, &http), common, |listeners, clock, stop| syncvalue::serve(listeners, config, clock, stop)).await
}
