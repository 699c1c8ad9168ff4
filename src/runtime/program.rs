//! A service as a program: what all of them are told, and how they start and end.

use std::fmt::Display;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{Listeners, Serving, TraceArgs, TrustArgs, exit_code, health, init_tracing, listen, shutdown_on_signal, trace};
use crate::clock::Clock;

/// What every service is told beside its own settings.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// What "now" is: `system`, or `replay:2026-01-01T00:00:00Z`, a clock that stands there until `PUT /clock` moves it, as `kiki replay --against` does.
    #[arg(long, env = "KIKI_CLOCK", default_value = "system")]
    clock: Clock,
    /// `health`: asks the service that listens at the same address instead, and fails unless it serves.
    #[arg(value_parser = ["health"])]
    command: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    traces: TraceArgs,
}

/// Runs a service, by its short and its full name, on the addresses of gRPC and HTTP, until it is told to end by a signal.
pub async fn program<E: Display>(
    (name, service): (&str, &str),
    (grpc, http): (&str, &str),
    common: Common,
    serve: impl FnOnce(Listeners, Clock, CancellationToken) -> Serving<E>,
) -> ExitCode {
    init_tracing();
    let Common { clock, command, trust, traces } = common;
    if command.is_some() {
        return exit_code(health(grpc, service, &trust).await);
    }
    clock.announce();
    let shutdown = CancellationToken::new();
    shutdown_on_signal(shutdown.clone());
    let listeners = async {
        trace(name, &traces)?;
        listen(grpc, http, &trust).await
    };
    match listeners.await {
        Ok(listeners) => exit_code(serve(listeners, clock, shutdown).await),
        Err(error) => exit_code(Err(error)),
    }
}
