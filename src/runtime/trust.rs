//! Whom a service believes to be whom. A call's credential is an API key in its metadata, else the client certificate of its
//! connection, by the SPIFFE id in it (SPIFFE's X509-SVID standard: one URI name, `spiffe://trust-domain/path`).
//!
//! Given neither identities nor API keys, a service takes every caller at its word ([`crate::caller`]). Beyond loopback it listens in
//! plaintext only if told to.

mod keys;
pub(super) mod tls;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tonic::Status;

use crate::caller::{self, Caller};
use crate::clock::{Clock, UnixMicros};
use crate::roles::{Granted, Role};
use crate::status::Reason;

use keys::Keys;
pub use keys::{ApiKey, KeyLine};
pub(super) use tls::Tls;

/// Identities that a service knows; each is an entry of a setting.
const IDENTITIES_MAX: usize = 1_000;

/// What a process shows to those whom it calls, and whom it believes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Credentials {
    /// The certificate that it shows, with its intermediates: a PEM file, which is read again when it changes.
    #[arg(long, env = "KIKI_TLS_CERT", requires = "tls_key", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, a PEM file.
    #[arg(long, env = "KIKI_TLS_KEY", requires = "tls_cert", global = true)]
    pub tls_key: Option<PathBuf>,
    /// The authorities whose certificates it believes, a PEM file.
    #[arg(long, env = "KIKI_TLS_CA", global = true)]
    pub tls_ca: Option<PathBuf>,
    /// The API key that it calls with, or the path of a file that holds it.
    #[arg(long, env = "KIKI_API_KEY", hide_env_values = true, value_parser = ApiKey::given, global = true)]
    pub api_key: Option<ApiKey>,
}

/// How a service tells its callers apart.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArgs {
    /// What it shows, and whom it believes.
    #[command(flatten)]
    pub credentials: Credentials,
    /// Plaintext beyond loopback: `true` for all that listens, where a mesh or a network that is its own encrypts; `http` for the HTTP
    /// side alone, where a proxy in front of it does.
    #[arg(long, env = "KIKI_PLAINTEXT", value_enum, default_value_t)]
    pub plaintext: Plaintext,
    /// Who callers with a client certificate are, as spiffe://DOMAIN/PATH=ROLE; ROLE is operator, finance, bidder, syncvalue, syncflow,
    /// syncshield, billing or tenant:CLIENT.
    #[arg(long, env = "KIKI_IDENTITIES", value_delimiter = ',')]
    pub identities: Vec<String>,
    /// File of API keys, a line each as `kiki api-key` prints it: id, role, SHA-256 of the key, until when. It is read again when it changes.
    #[arg(long, env = "KIKI_API_KEYS")]
    pub api_keys: Option<PathBuf>,
}

/// What may be in plaintext beyond loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Plaintext {
    /// Nothing.
    #[default]
    False,
    /// The HTTP side.
    Http,
    /// Both.
    True,
}

/// Settings of trust that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be used.
    #[error("{setting}: {path}: {problem}")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An entry that is not of its form.
    #[error("{setting}: {problem}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<TrustError> for std::io::Error {
    fn from(error: TrustError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

/// Whom a service believes to be whom. The default takes everybody at its word and has no TLS.
#[derive(Clone, Default)]
pub struct Trust(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tls: Option<Tls>,
    plaintext: Plaintext,
    identities: HashMap<String, Granted>,
    keys: Option<Keys>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("tls", &self.0.tls.is_some()).field("identities", &self.0.identities.len()).finish_non_exhaustive()
    }
}

/// A caller, by what it was told.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) caller: Caller,
    /// None where the caller was taken at its word: then what the domain allows is allowed.
    pub(super) role: Option<Role>,
    /// The SPIFFE id or the API key's id.
    pub(super) identity: Arc<str>,
}

/// One whom nobody knows: what it showed, as far as it is worth recording, and why that does not do.
#[derive(Debug)]
pub(super) struct Nobody {
    pub(super) identity: Arc<str>,
    pub(super) why: Box<Status>,
}

impl TrustArgs {
    /// Reads the files.
    ///
    /// # Errors
    /// The setting that cannot be, with the file or the entry.
    pub fn open(&self) -> Result<Trust, TrustError> {
        let tls = Tls::open(&self.credentials)?.filter(Tls::serves);
        if tls.is_some() && self.plaintext == Plaintext::True {
            let problem = "true, though KIKI_TLS_CERT is given: \"http\" leaves the HTTP side in plaintext".to_owned();
            return Err(TrustError::Setting { setting: "KIKI_PLAINTEXT", problem });
        }
        let keys = self.api_keys.as_deref().map(Keys::open).transpose()?;
        let identities = identities(&self.identities)?;
        if !identities.is_empty() && tls.as_ref().is_none_or(|tls| !tls.asks()) {
            let problem = "are of client certificates: KIKI_TLS_CERT and KIKI_TLS_CA are required".to_owned();
            return Err(TrustError::Setting { setting: "KIKI_IDENTITIES", problem });
        }
        Ok(Trust(Arc::new(Inner { tls, plaintext: self.plaintext, identities, keys })))
    }
}

/// Entries of the form `spiffe://...=role`.
fn identities(entries: &[String]) -> Result<HashMap<String, Granted>, TrustError> {
    let wrong = |problem: String| TrustError::Setting { setting: "KIKI_IDENTITIES", problem };
    if entries.len() > IDENTITIES_MAX {
        return Err(wrong(format!("{} entries are more than {IDENTITIES_MAX}", entries.len())));
    }
    let one = |entry: &String| {
        let parts = entry.trim().rsplit_once('=').filter(|(id, _)| id.starts_with("spiffe://"));
        let (id, role) = parts.ok_or_else(|| wrong(format!("{entry:?} is not spiffe://DOMAIN/PATH=ROLE")))?;
        Ok((id.to_owned(), role.parse().map_err(|e| wrong(format!("{entry:?}: {e}")))?))
    };
    entries.iter().filter(|entry| !entry.trim().is_empty()).map(one).collect()
}

impl Trust {
    /// TLS for what speaks gRPC.
    pub(super) fn grpc_tls(&self) -> Option<Tls> {
        self.0.tls.clone()
    }

    /// TLS for what speaks HTTP.
    pub(super) fn http_tls(&self) -> Option<Tls> {
        self.0.tls.clone().filter(|_| self.0.plaintext == Plaintext::False)
    }

    /// Whether one may listen there.
    pub(super) fn listen(&self, grpc: SocketAddr, http: SocketAddr) -> Result<(), TrustError> {
        let open = |at: SocketAddr, plain: bool, told: bool| plain && !told && !at.ip().is_loopback();
        let setting = "KIKI_PLAINTEXT";
        if open(grpc, self.0.tls.is_none(), self.0.plaintext == Plaintext::True) {
            let problem = format!("{grpc} is beyond loopback: give KIKI_TLS_CERT and KIKI_TLS_KEY, or say \"true\" where others encrypt");
            return Err(TrustError::Setting { setting, problem });
        }
        if self.0.tls.is_some() && self.takes_all_at_their_word() && !grpc.ip().is_loopback() {
            let problem = format!("neither they nor KIKI_API_KEYS are given, and whoever reaches {grpc} would be the operator");
            return Err(TrustError::Setting { setting: "KIKI_IDENTITIES", problem });
        }
        if open(http, self.http_tls().is_none(), self.0.plaintext != Plaintext::False) {
            let problem = format!("{http} is beyond loopback: say \"http\" where a proxy in front of it encrypts");
            return Err(TrustError::Setting { setting, problem });
        }
        Ok(())
    }

    /// Whether callers are taken at their word.
    #[must_use]
    pub fn takes_all_at_their_word(&self) -> bool {
        self.0.identities.is_empty() && self.0.keys.is_none()
    }

    /// Who calls, with these headers, over a connection of one with this SPIFFE id.
    pub(super) fn who(&self, headers: &HeaderMap, spiffe: Option<&Arc<str>>) -> Result<Who, Nobody> {
        self.who_at(headers, spiffe, Clock::System.now())
    }

    fn who_at(&self, headers: &HeaderMap, spiffe: Option<&Arc<str>>, now: UnixMicros) -> Result<Who, Nobody> {
        let identity = || spiffe.cloned().unwrap_or_default();
        if self.takes_all_at_their_word() {
            let caller = caller::at_its_word(headers).map_err(|why| Nobody { identity: identity(), why: Box::new(why) })?;
            return Ok(Who { caller, role: None, identity: identity() });
        }
        let nobody = |identity, why: String| Nobody { identity, why: Box::new(Reason::Unauthenticated.status(why)) };
        if let (Some(keys), Some(given)) = (&self.0.keys, headers.get(AUTHORIZATION)) {
            let (id, granted) = keys.find(given.as_bytes(), now).map_err(|refused| nobody(refused.id, refused.why))?;
            return Ok(Who { caller: granted.caller, role: Some(granted.role), identity: id });
        }
        let Some(id) = spiffe else {
            return Err(nobody(identity(), "authorization: an API key or a client certificate is required".to_owned()));
        };
        let granted = self.0.identities.get(&**id).ok_or_else(|| nobody(id.clone(), format!("{id} has no role here")))?;
        Ok(Who { caller: granted.caller.clone(), role: Some(granted.role), identity: id.clone() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_it_is_plaintext_only_where_that_was_said() {
        let (near, far): (SocketAddr, SocketAddr) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        let trust = |plaintext| TrustArgs { plaintext, ..Default::default() }.open().unwrap();
        let cases = [(Plaintext::False, false, false), (Plaintext::Http, false, true), (Plaintext::True, true, true)];
        for (plaintext, grpc, http) in cases {
            let trust = trust(plaintext);
            assert!(trust.listen(near, near).is_ok());
            assert_eq!((trust.listen(far, near).is_ok(), trust.listen(near, far).is_ok()), (grpc, http), "{plaintext:?}");
        }
        let refused = trust(Plaintext::False).listen(far, near).unwrap_err().to_string();
        assert!(refused.starts_with("KIKI_PLAINTEXT: 0.0.0.0:1 is beyond loopback"), "{refused}");
    }

    #[test]
    fn identities_are_of_their_form_and_want_certificates() {
        for wrong in ["spiffe://kiki/flow", "flow=syncflow", "spiffe://kiki/flow=root", "spiffe://kiki/acme=tenant"] {
            let refused = identities(&[wrong.to_owned()]).unwrap_err().to_string();
            assert!(refused.starts_with("KIKI_IDENTITIES: ") && refused.contains(wrong), "{refused}");
        }
        let known = identities(&["spiffe://kiki/flow=syncflow".to_owned(), " spiffe://kiki/a=b=tenant:acme".to_owned(), String::new()]);
        let known = known.unwrap();
        assert_eq!((known.len(), known["spiffe://kiki/flow"].role, known["spiffe://kiki/a=b"].role), (2, Role::SyncFlow, Role::Tenant));
        let args = TrustArgs { identities: vec!["spiffe://kiki/flow=syncflow".to_owned()], ..Default::default() };
        assert!(args.open().unwrap_err().to_string().contains("KIKI_TLS_CA"));
    }
}
