//! Asking a service whether it serves: for a container's health check, where there is no shell and no other program.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Calling, Channel, TrustArgs};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the service that listens on an address, as it was told to it, for the health of `service`. One that shows a certificate is asked
/// by the name in it.
///
/// # Errors
/// It does not serve, or not in time.
pub async fn health(listens_on: &str, service: &str, trust: &TrustArgs) -> io::Result<()> {
    let address = reached_at(listens_on);
    if trust.credentials.tls_cert.is_none() {
        return health_at(&Calling::default(), &format!("http://{address}"), service).await;
    }
    let calling = Calling::with(&trust.credentials)?;
    match calling.own_name() {
        Some(name) => {
            let channel = calling.channel_by(&format!("https://{address}"), &name)?;
            ask(channel, &address, service).await
        }
        None => health_at(&calling, &format!("https://{address}"), service).await,
    }
}

/// Asks the service at an address, http://host:port or https://, for the health of `service`; that of all where it is empty.
///
/// # Errors
/// It does not serve, or not in time.
pub async fn health_at(calling: &Calling, address: &str, service: &str) -> io::Result<()> {
    ask(calling.channel(address)?, address, service).await
}

async fn ask(channel: Channel, address: &str, service: &str) -> io::Result<()> {
    let failed = |e: &dyn std::fmt::Display| io::Error::other(format!("{service} on {address}: {e}"));
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(channel);
    let answer = tokio::time::timeout(PATIENCE, client.check(request)).await.map_err(|_| failed(&"no answer in time"))?;
    match answer.map_err(|status| failed(&status.message()))?.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(failed(&other.as_str_name())),
    }
}

/// Where a listener is reached from its own machine: every address means the machine's own.
fn reached_at(listens_on: &str) -> String {
    match listens_on.parse::<SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() => {
            let own = if at.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
            SocketAddr::new(own, at.port()).to_string()
        }
        _ => listens_on.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_at_the_machines_own() {
        assert_eq!(reached_at("0.0.0.0:50051"), "127.0.0.1:50051");
        assert_eq!(reached_at("[::]:50051"), "[::1]:50051");
        assert_eq!(reached_at("10.0.0.1:50051"), "10.0.0.1:50051");
        assert_eq!(reached_at("value.example:50051"), "value.example:50051");
    }

    #[tokio::test]
    async fn one_that_serves_is_healthy_and_one_that_drains_knows_not_the_name_or_is_gone_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let trust = TrustArgs::default();
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("kiki", tonic_health::ServingStatus::Serving).await;
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        health(&address, "kiki", &trust).await.unwrap();
        assert!(health(&address, "other", &trust).await.unwrap_err().to_string().contains("not registered"), "not its name");
        reporter.set_service_status("kiki", tonic_health::ServingStatus::NotServing).await;
        assert!(health(&address, "kiki", &trust).await.unwrap_err().to_string().ends_with("NOT_SERVING"));
        serving.abort();
        drop(serving.await);
        assert!(health(&address, "kiki", &trust).await.is_err());
    }
}
