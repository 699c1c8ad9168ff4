//! Certificates, keys and authorities from files, which are read again when they change: a rotation needs no restart, and connections
//! that were made before it go on.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use x509_cert::Certificate as Parsed;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{Credentials, TrustError};
use crate::clock::monotonic;

/// How often files are looked at, at the most.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a file of certificates: a few hundred authorities.
const FILE_MAX: u64 = 1 << 20;
/// What the longest SPIFFE id may have (SPIFFE-ID, section 2.3: 2,048 bytes; the log takes 255).
const SPIFFE_MAX: usize = 255;

/// What was read from files, as they now are.
pub(super) struct Changing<T> {
    paths: Vec<PathBuf>,
    now: ArcSwap<T>,
    looked: Mutex<(Instant, Stamps)>,
}

/// When each file was changed, in nanoseconds, its length and its inode; none where it is not there.
type Stamps = Vec<Option<(i64, i64, u64, u64)>>;

impl<T> Changing<T> {
    pub(super) fn new(paths: Vec<PathBuf>, read: T) -> Self {
        let looked = Mutex::new((monotonic(), stamps(&paths)));
        Self { paths, now: ArcSwap::from_pointee(read), looked }
    }

    /// What the files say. Where they cannot be used, what they said before holds, and they are read again at the next look.
    pub(super) fn get(&self, read: impl FnOnce() -> Result<T, TrustError>) -> Arc<T> {
        // Whoever finds another looking takes what is there.
        if let Some(mut looked) = self.looked.try_lock().filter(|looked| looked.0.elapsed() >= LOOK) {
            looked.0 = monotonic();
            let stamps = stamps(&self.paths);
            if stamps != looked.1 {
                match read() {
                    Ok(read) => {
                        self.now.store(Arc::new(read));
                        looked.1 = stamps;
                    }
                    Err(error) => tracing::warn!(%error, "what was read before holds"),
                }
            }
        }
        self.now.load_full()
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    let stamp = |path: &PathBuf| std::fs::metadata(path).ok().map(|file| (file.mtime(), file.mtime_nsec(), file.len(), file.ino()));
    paths.iter().map(stamp).collect()
}

/// TLS by the files that settings name.
#[derive(Clone)]
pub(in crate::runtime) struct Tls(Arc<Files>);

struct Files {
    own: Option<(PathBuf, PathBuf)>,
    ca: Option<PathBuf>,
    now: Changing<Material>,
    /// Unix time of the end of the certificate that is shown.
    expiry: IntGauge,
}

/// What the files say.
pub(in crate::runtime) struct Material {
    server: Option<Arc<ServerConfig>>,
    client: ClientTlsConfig,
    /// The first DNS name of the certificate.
    name: Option<String>,
}

impl Tls {
    /// By the settings, if they name a file.
    pub(in crate::runtime) fn open(settings: &Credentials) -> Result<Option<Self>, TrustError> {
        // An empty setting is none: compose files have no other way to say so.
        let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let (own, ca) = (given(&settings.tls_cert).zip(given(&settings.tls_key)), given(&settings.tls_ca));
        let paths: Vec<PathBuf> = own.iter().flat_map(|(cert, key)| [cert, key]).chain(&ca).cloned().collect();
        if paths.is_empty() {
            return Ok(None);
        }
        let expiry = IntGauge::new("kiki_tls_certificate_expiry_seconds", "Unix time of the end of the certificate that is shown");
        let expiry = expiry.unwrap_or_else(|e| unreachable!("a constant metric: {e}"));
        let read = read(own.as_ref(), ca.as_deref(), &expiry)?;
        Ok(Some(Self(Arc::new(Files { own, ca, now: Changing::new(paths, read), expiry }))))
    }

    /// Whether there is a certificate to show.
    pub(super) fn serves(&self) -> bool {
        self.0.own.is_some()
    }

    /// Whether there are authorities by which certificates of others are believed.
    pub(in crate::runtime) fn asks(&self) -> bool {
        self.0.ca.is_some()
    }

    pub(in crate::runtime) fn expiry(&self) -> IntGauge {
        self.0.expiry.clone()
    }

    /// What the files say now; the same until they change.
    pub(in crate::runtime) fn now(&self) -> Arc<Material> {
        self.0.now.get(|| read(self.0.own.as_ref(), self.0.ca.as_deref(), &self.0.expiry))
    }
}

impl Material {
    /// Accepts connections; none where there is no certificate to show.
    pub(in crate::runtime) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.server.clone().map(TlsAcceptor::from)
    }

    /// Connects to a server of that name.
    pub(in crate::runtime) fn connects_to(&self, name: &str) -> ClientTlsConfig {
        self.client.clone().domain_name(name)
    }

    /// A name that the certificate is for.
    pub(in crate::runtime) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

fn read(own: Option<&(PathBuf, PathBuf)>, ca: Option<&Path>, expiry: &IntGauge) -> Result<Material, TrustError> {
    let (mut client, mut roots) = (ClientTlsConfig::new(), RootCertStore::empty());
    if let Some(path) = ca {
        let wrong = |problem: String| wrong("KIKI_TLS_CA", path, problem);
        let pem = bytes(path).map_err(wrong)?;
        for certificate in certificates(&pem).map_err(wrong)? {
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
        client = client.ca_certificate(Certificate::from_pem(pem));
    }
    let Some((cert, key)) = own else { return Ok(Material { server: None, client, name: None }) };
    let wrong_cert = |problem: String| wrong("KIKI_TLS_CERT", cert, problem);
    let wrong_key = |problem: String| wrong("KIKI_TLS_KEY", key, problem);
    let pem = bytes(cert).map_err(wrong_cert)?;
    let chain = certificates(&pem).map_err(wrong_cert)?;
    let first = Parsed::from_der(&chain[0]).map_err(|e| wrong_cert(e.to_string()))?;
    let key_pem = bytes(key).map_err(wrong_key)?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| wrong_key(e.to_string()))?;
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong_cert(e.to_string()))?;
    let server = if ca.is_some() {
        // Who has no certificate may have an API key; each call is asked.
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).allow_unauthenticated().build();
        server.with_client_cert_verifier(verifier.map_err(|e| wrong_cert(e.to_string()))?)
    } else {
        server.with_no_client_auth()
    };
    let mut server = server.with_single_cert(chain, private).map_err(|e| wrong_key(e.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session that is resumed shows no certificate: one that has expired since would do.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    expiry.set(first.tbs_certificate().validity().not_after.to_unix_duration().as_secs().cast_signed());
    let name = names(&first).into_iter().find_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    });
    Ok(Material { server: Some(Arc::new(server)), client: client.identity(Identity::from_pem(pem, key_pem)), name })
}

fn wrong(setting: &'static str, path: &Path, problem: String) -> TrustError {
    TrustError::File { setting, path: path.display().to_string(), problem }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > FILE_MAX {
        return Err(format!("{size} bytes are more than {FILE_MAX}"));
    }
    std::fs::read(path).map_err(|e| e.to_string())
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    if all.is_empty() { Err("has no certificate".to_owned()) } else { Ok(all) }
}

fn names(certificate: &Parsed) -> Vec<GeneralName> {
    match certificate.tbs_certificate().get_extension::<SubjectAltName>() {
        Ok(Some((_, names))) => names.0,
        _ => Vec::new(),
    }
}

/// The SPIFFE id of a certificate that was verified: of its URI names the only one (X509-SVID, section 2).
pub(in crate::runtime) fn spiffe_id(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let parsed = Parsed::from_der(certificate).ok()?;
    let names = names(&parsed);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    let (only, None) = (uris.next()?, uris.next()) else { return None };
    (only.starts_with("spiffe://") && only.len() <= SPIFFE_MAX).then(|| only.into())
}
