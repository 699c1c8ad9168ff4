//! The gRPC clients of SyncShield and SyncValue, each with the state that makes it quick.

pub(crate) mod aside;
pub mod leases;
pub mod predictor;
pub mod recorder;
pub mod replicas;

use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::runtime;
use kiki::runtime::Channel;

/// SyncShield's client.
pub type Shield = SyncShieldServiceClient<Channel>;

/// A client of SyncShield that connects when it is first used.
///
/// # Errors
/// `address` is no URI.
pub fn shield(address: &str) -> std::io::Result<Shield> {
    Ok(shield_over(runtime::channel(address)?))
}

/// A client of SyncShield over a channel.
#[must_use]
pub fn shield_over(channel: Channel) -> Shield {
    let client = SyncShieldServiceClient::new(channel);
    client.max_decoding_message_size(runtime::MAX_MESSAGE).max_encoding_message_size(runtime::MAX_MESSAGE)
}

/// A pause before trying again: doubles from `FIRST` to `LAST`.
#[derive(Debug)]
pub(crate) struct Backoff(std::time::Duration);

impl Backoff {
    const FIRST: std::time::Duration = std::time::Duration::from_millis(20);
    const LAST: std::time::Duration = std::time::Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    pub(crate) fn next(&mut self) -> std::time::Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(Self::LAST);
        pause
    }
}
