//! Billing as a process of its own.

use std::process::ExitCode;

use kiki::runtime::{Common, program, settings};

#[derive(clap::Parser)]
#[command(version, about = "Billing: what does the client owe, and how can they check it themselves?")]
struct Args {
    /// Address of gRPC.
    #[arg(long, env = "KIKI_BILLING_GRPC", default_value = "127.0.0.1:50054")]
    grpc: String,
    /// Address of HTTP and metrics.
    #[arg(long, env = "KIKI_BILLING_HTTP", default_value = "127.0.0.1:8082")]
    http: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    config: billing::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { grpc, http, common, config } = settings();
    let names = ("billing", billing::SERVICE);
    program(names, (&grpc, &http), common, |listeners, clock, stop| billing::serve(listeners, config, clock, stop)).await
}
