//! Channels to other services. A name that stands for several addresses, as that of a headless Kubernetes Service does for
//! its pods, is looked up again and again, and calls go to all of them: an HTTP/2 connection to the name itself would stay with
//! one of them for ever. Of two that are ready, one is taken by chance. Connections under TLS are made anew when the certificates change.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request, Response};
use tokio::sync::mpsc::Sender;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::transport::channel::{Change, ResponseFuture};
use tonic::transport::{self, Endpoint, Uri};
use tower::Service;

use super::trust::tls::Material;
use super::trust::{Credentials, Tls, TrustError};

/// How often a name is looked up, and certificates are looked at.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Addresses of a name that are used; more pods of one service than anybody has run.
const ADDRESSES_MAX: usize = 256;
/// Changes of addresses that wait to be taken.
const CHANGES: usize = 16;

/// A channel to a service, which calls with what the process has for a credential.
#[derive(Debug, Clone)]
pub struct Channel {
    inner: transport::Channel,
    bearer: Option<HeaderValue>,
}

impl From<transport::Channel> for Channel {
    fn from(inner: transport::Channel) -> Self {
        Self { inner, bearer: None }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> ResponseFuture {
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        super::traces::pass_on(request.headers_mut());
        self.inner.call(request)
    }
}

/// What a process calls with.
#[derive(Clone, Default)]
pub struct Calling {
    tls: Option<Tls>,
    bearer: Option<HeaderValue>,
}

impl Calling {
    /// Reads the files.
    ///
    /// # Errors
    /// The setting that cannot be, with its file.
    pub fn with(credentials: &Credentials) -> Result<Self, TrustError> {
        let key = |problem: String| TrustError::Setting { setting: "KIKI_API_KEY", problem };
        let sent = |key: &super::trust::ApiKey| HeaderValue::try_from(key.bearer());
        let mut bearer = credentials.api_key.as_ref().map(sent).transpose().map_err(|e| key(e.to_string()))?;
        if let Some(bearer) = &mut bearer {
            bearer.set_sensitive(true);
        }
        Ok(Self { tls: Tls::open(credentials)?, bearer })
    }

    /// A channel to another service, http://host:port or https://: connects when first used, and again after a failure.
    ///
    /// # Errors
    /// `address` is no URI, or is https without authorities to believe.
    pub fn channel(&self, address: &str) -> io::Result<Channel> {
        self.channel_as(address, None)
    }

    /// The same to one whose certificate is for another name than the address has.
    pub(super) fn channel_by(&self, address: &str, name: &str) -> io::Result<Channel> {
        self.channel_as(address, Some(name))
    }

    fn channel_as(&self, address: &str, name: Option<&str>) -> io::Result<Channel> {
        let named = endpoint(address.to_owned()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {e}")))?;
        let secure = named.uri().scheme_str() == Some("https");
        let tls = self.tls.clone().filter(|_| secure);
        if secure && tls.as_ref().is_none_or(|tls| !tls.asks()) {
            let problem = format!("is required for {address}");
            return Err(TrustError::Setting { setting: "KIKI_TLS_CA", problem }.into());
        }
        let certified = name.or(named.uri().host()).unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if tls.is_some() && ServerName::try_from(certified.as_str()).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: no certificate can be for {certified:?}")));
        }
        let tls = tls.map(|tls| (tls, certified));
        let inner = match (name_of(named.uri()), tls) {
            (None, None) => named.connect_lazy(),
            (Some(name), tls) => balanced(named, tls, move || look_up(name.clone())),
            (None, tls) => balanced(named, tls, || std::future::ready(Ok(BTreeSet::new()))),
        };
        Ok(Channel { inner, bearer: self.bearer.clone() })
    }

    /// A name that its own certificate is for.
    pub(super) fn own_name(&self) -> Option<String> {
        self.tls.as_ref()?.now().name().map(str::to_owned)
    }
}

/// What this process calls with.
static OWN: OnceLock<Calling> = OnceLock::new();

/// From now on this process calls with these credentials. For the start of a program: the first call holds.
///
/// # Errors
/// As [`Calling::with`].
pub fn call_with(credentials: &Credentials) -> Result<(), TrustError> {
    drop(OWN.set(Calling::with(credentials)?));
    Ok(())
}

pub(super) fn own() -> Calling {
    OWN.get().cloned().unwrap_or_default()
}

/// What this process says of itself in the header `authorization`, where it calls over HTTP.
#[must_use]
pub fn bearer() -> Option<HeaderValue> {
    own().bearer
}

/// A channel to another service, with what the process was told to call with.
///
/// # Errors
/// As [`Calling::channel`].
pub fn channel(address: &str) -> io::Result<Channel> {
    own().channel(address)
}

fn endpoint(address: String) -> Result<Endpoint, transport::Error> {
    Ok(Endpoint::from_shared(address)?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5)))
}

/// Host and port of a URI whose host is a name; none of an address, and of the machine itself.
fn name_of(uri: &Uri) -> Option<(String, u16)> {
    let host = uri.host()?;
    let is_one = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    (!is_one).then(|| (host.to_owned(), port))
}

async fn look_up((host, port): (String, u16)) -> io::Result<BTreeSet<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect())
}

/// A channel to all addresses that a name has, or to the name where it has none; under TLS to those whose certificate is for a name.
fn balanced<F>(named: Endpoint, tls: Option<(Tls, String)>, look_up: impl Fn() -> F + Send + 'static) -> transport::Channel
where
    F: Future<Output = io::Result<BTreeSet<SocketAddr>>> + Send,
{
    let (channel, changes) = transport::Channel::balance_channel(CHANGES);
    tokio::spawn(async move {
        let (tls, certified) = tls.unzip();
        let (addresses, certified) = (BTreeSet::new(), certified.unwrap_or_default());
        let mut known = Known { named, certified, changes, addresses, by_name: false, material: None };
        while known.look(look_up().await, tls.as_ref().map(Tls::now)).await.is_some() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_UP) => {}
                () = known.changes.closed() => return, // nobody calls any more
            }
        }
    });
    channel
}

/// What a channel was told.
struct Known {
    named: Endpoint,
    /// What the certificates are to be for.
    certified: String,
    changes: Sender<Change<Option<SocketAddr>, Endpoint>>,
    addresses: BTreeSet<SocketAddr>,
    by_name: bool,
    material: Option<Arc<Material>>,
}

impl Known {
    /// Tells the channel which addresses came and went, and all of them again where the certificates changed; none where the channel is gone.
    async fn look(&mut self, found: io::Result<BTreeSet<SocketAddr>>, material: Option<Arc<Material>>) -> Option<()> {
        let anew = match (&self.material, &material) {
            (Some(had), Some(have)) => !Arc::ptr_eq(had, have),
            (had, have) => had.is_some() != have.is_some(),
        };
        self.material = material;
        // Whom a name server does not name because it fails is there still.
        let found = found.ok().filter(|found| !found.is_empty()).unwrap_or_else(|| self.addresses.clone());
        for address in &found {
            if anew || !self.addresses.contains(address) {
                self.insert(Some(*address)).await?;
            }
        }
        for gone in self.addresses.difference(&found).copied().map(Some).collect::<Vec<_>>() {
            self.changes.send(Change::Remove(gone)).await.ok()?;
        }
        // Calls fail by the name rather than wait for an address that may never come.
        if found.is_empty() && (anew || !self.by_name) {
            self.insert(None).await?;
        } else if !found.is_empty() && self.by_name {
            self.changes.send(Change::Remove(None)).await.ok()?;
        }
        (self.by_name, self.addresses) = (found.is_empty(), found);
        Some(())
    }

    async fn insert(&self, address: Option<SocketAddr>) -> Option<()> {
        let uri = self.named.uri();
        let at = match address {
            None => self.named.clone(),
            // The scheme and the address are of their form.
            Some(at) => endpoint(format!("{}://{at}", uri.scheme_str().unwrap_or("http"))).ok()?.origin(uri.clone()),
        };
        let at = match &self.material {
            None => at,
            Some(material) => {
                at.tls_config(material.connects_to(&self.certified)).inspect_err(|error| tracing::error!(%error, "no TLS")).ok()?
            }
        };
        self.changes.send(Change::Insert(address, at)).await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {

    use parking_lot::Mutex;
    use tokio_stream::wrappers::TcpListenerStream;
    use tokio_util::sync::CancellationToken;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    /// A server of health that says whether it answers to `service`.
    async fn pod(service: &'static str) -> (SocketAddr, CancellationToken) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        let server = tonic::transport::Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned()));
        (address, stop)
    }

    /// Which of two pods answers a call: the other does not know the name.
    async fn answers(client: &mut HealthClient<transport::Channel>, service: &str) -> Result<bool, tonic::Status> {
        match client.check(HealthCheckRequest { service: service.to_owned() }).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_go_to_every_address_of_a_name_and_follow_its_changes() {
        let ((one, _keep), (two, _keep_too)) = (pod("one").await, pod("two").await);
        let addresses = Arc::new(Mutex::new(BTreeSet::from([one])));
        let asked = addresses.clone();
        let named = endpoint("http://pods.example:1".to_owned()).unwrap();
        let mut client = HealthClient::new(balanced(named, None, move || std::future::ready(Ok(asked.lock().clone()))));
        for _ in 0..20 {
            assert!(answers(&mut client, "one").await.unwrap());
        }
        addresses.lock().insert(two);
        tokio::time::sleep(2 * LOOK_UP).await;
        let mut by_one = 0;
        for _ in 0..100 {
            by_one += u32::from(answers(&mut client, "one").await.unwrap());
        }
        assert!((10..=90).contains(&by_one), "{by_one} of 100 calls went to one of two");
        addresses.lock().remove(&one);
        tokio::time::sleep(2 * LOOK_UP).await;
        for _ in 0..20 {
            assert!(answers(&mut client, "two").await.unwrap());
        }
        // A name server that fails takes nobody away.
        addresses.lock().clear();
        tokio::time::sleep(2 * LOOK_UP).await;
        assert!(answers(&mut client, "two").await.unwrap());
    }

    #[tokio::test]
    async fn a_name_without_an_address_fails_and_does_not_wait() {
        let named = endpoint("http://nobody.invalid:1".to_owned()).unwrap();
        let mut client = HealthClient::new(balanced(named, None, || std::future::ready(Err(io::ErrorKind::NotFound.into()))));
        assert_eq!(answers(&mut client, "one").await.unwrap_err().code(), tonic::Code::Unavailable);
    }

    #[test]
    fn only_a_name_is_looked_up() {
        let of = |uri: &str| name_of(&uri.parse().unwrap());
        assert_eq!(of("http://kiki-syncvalue:50051"), Some(("kiki-syncvalue".into(), 50_051)));
        assert_eq!(of("https://value.example"), Some(("value.example".into(), 443)));
        for one in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert_eq!(of(one), None);
        }
    }
}
