//! Who calls. What serves makes the [`Caller`] from a call's credentials ([`crate::runtime::Trust`]); every domain call that touches a
//! client takes it. What each role may call at all is [`crate::roles`].
//!
//! Where a service is given neither identities nor API keys, the metadata `kiki-role` and `kiki-client` are taken at their word, and
//! without them the caller is the operator: for one machine, whose listeners are on loopback.

use axum::http::HeaderMap;
use tonic::{Request, Status};

use crate::ids::ClientId;
use crate::leaf::AccessRole;
use crate::status::{self, Reason};

/// Metadata key of the role: `operator`, `finance`, `bidder`, `service` or `tenant`.
pub const ROLE: &str = "kiki-role";
/// Metadata key of a tenant's client.
pub const CLIENT: &str = "kiki-client";
/// Metadata key of a stream of predictions that is to say which customers changed: `changes`.
pub const WATCH: &str = "kiki-watch";

/// The one on whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Runs the platform: may act for every client.
    Operator,
    /// Sends its invoices and books what is paid.
    Finance,
    /// Bids for all clients.
    Bidder,
    /// Another of the platform's services.
    Service,
    /// An advertiser: may act for itself alone.
    Tenant(ClientId),
}

impl Caller {
    /// The caller that was found.
    #[must_use]
    pub fn of<T>(request: &Request<T>) -> Self {
        // A call that came over no listener came from inside the process.
        request.extensions().get::<Self>().cloned().unwrap_or(Self::Service)
    }

    /// Whether the caller may act for `client`.
    ///
    /// # Errors
    /// `NOT_YOURS` for another tenant's client.
    pub fn act_for(&self, client: &str) -> Result<(), Status> {
        match self {
            Self::Tenant(own) if own.as_str() != client => {
                Err(Reason::NotYours.status(format!("client: {own} may not act for {client:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller may see and do what concerns all clients.
    ///
    /// # Errors
    /// `NOT_YOURS` for a tenant.
    pub fn act_for_all(&self) -> Result<(), Status> {
        match self {
            Self::Tenant(own) => Err(Reason::NotYours.status(format!("client: {own} may not act for all clients"))),
            _ => Ok(()),
        }
    }

    /// Whether the caller runs the platform.
    ///
    /// # Errors
    /// `NOT_YOURS` for everybody else.
    pub fn operate(&self) -> Result<(), Status> {
        let not = |whom: &str| Err(Reason::NotYours.status(format!("this is for the operator alone, not for {whom}")));
        match self {
            Self::Operator => Ok(()),
            Self::Finance => not("finance"),
            Self::Bidder => not("a bidder"),
            Self::Service => not("a service"),
            Self::Tenant(own) => not(own.as_str()),
        }
    }

    /// How the log names the caller: its role, and a tenant's client.
    #[must_use]
    pub fn on_record(&self) -> (AccessRole, String) {
        match self {
            Self::Operator => (AccessRole::Operator, String::new()),
            Self::Finance => (AccessRole::Finance, String::new()),
            Self::Bidder => (AccessRole::Bidder, String::new()),
            Self::Service => (AccessRole::Service, String::new()),
            Self::Tenant(own) => (AccessRole::Tenant, own.as_str().to_owned()),
        }
    }
}

/// The caller that a call's metadata says it is.
///
/// # Errors
/// A role that does not exist, or a tenant without a client.
pub(crate) fn at_its_word(headers: &HeaderMap) -> Result<Caller, Status> {
    let text = |key| headers.get(key).map(|value| value.to_str().unwrap_or("?"));
    Ok(match text(ROLE) {
        None | Some("operator") => Caller::Operator,
        Some("finance") => Caller::Finance,
        Some("bidder") => Caller::Bidder,
        Some("service") => Caller::Service,
        Some("tenant") => {
            Caller::Tenant(ClientId::parse(text(CLIENT).unwrap_or_default()).map_err(|e| status::field(&format!("metadata {CLIENT}"), e))?)
        }
        Some(other) => return Err(status::field(&format!("metadata {ROLE}"), format!("{other:?} is no role"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(role: &'static str, client: &'static str) -> Result<Caller, Status> {
        let value = |text: &'static str| text.parse().expect("ascii");
        at_its_word(&HeaderMap::from_iter([(ROLE.parse().expect("ascii"), value(role)), (CLIENT.parse().expect("ascii"), value(client))]))
    }

    #[test]
    fn a_tenant_acts_for_itself_alone() {
        let tenant = call("tenant", "acme").expect("a tenant");
        assert!(tenant.act_for("acme").is_ok());
        assert!(Reason::NotYours.is(&tenant.act_for("globex").expect_err("not its own")));
        assert!(tenant.act_for_all().is_err());
        assert!(call("operator", "").expect("an operator").act_for_all().is_ok());
        for other in ["tenant", "service", "finance", "bidder"] {
            assert!(call(other, "acme").expect("a role").operate().is_err(), "{other}");
        }
    }

    #[test]
    fn refuses_unknown_roles_and_tenants_without_a_client() {
        assert!(call("root", "acme").is_err() && call("tenant", "").is_err());
    }
}
