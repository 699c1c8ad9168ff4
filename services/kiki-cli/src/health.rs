//! `kiki health`: whether services serve, for installations and tests of them.

use kiki::runtime::{Calling, Credentials, health_at};

use crate::error::{Doing as _, Failure};
use crate::out::say;

/// Which services.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Their addresses, http://HOST:PORT or https://.
    #[arg(required = true)]
    addresses: Vec<String>,
}

/// Asks each for its health over gRPC.
///
/// # Errors
/// The first that does not serve.
pub async fn run(args: &Args, credentials: &Credentials) -> Result<(), Failure> {
    let calling = Calling::with(credentials).doing("reading the credentials")?;
    for address in &args.addresses {
        health_at(&calling, address, "").await.doing("asking for health")?;
        say(format_args!("{address} serves"));
    }
    Ok(())
}
