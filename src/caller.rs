//! Who calls. One interceptor makes the [`Caller`]; every domain call that touches a client takes it.
//!
//! Credentials come with a later version; until then the metadata `kiki-role` and `kiki-client` are taken at their
//! word, which is why the listeners are on loopback unless told otherwise. Without metadata the caller is the operator.

use tonic::{Request, Status};

use crate::ids::ClientId;
use crate::status::{self, Reason};

/// Metadata key of the role: `operator`, `service` or `tenant`.
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
    /// Another of the platform's services.
    Service,
    /// An advertiser: may act for itself alone.
    Tenant(ClientId),
}

impl Caller {
    /// The caller that the interceptor found.
    #[must_use]
    pub fn of<T>(request: &Request<T>) -> Self {
        // A call that passed no interceptor came from inside the process.
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
        match self {
            Self::Operator => Ok(()),
            Self::Service => Err(Reason::NotYours.status("this is for the operator alone, not for a service")),
            Self::Tenant(own) => Err(Reason::NotYours.status(format!("client: {own} is not the operator"))),
        }
    }
}

/// The interceptor: finds the caller and hands it on in the request's extensions.
///
/// # Errors
/// A role that does not exist, or a tenant without a client.
pub fn intercept(mut request: Request<()>) -> Result<Request<()>, Status> {
    let text = |key| request.metadata().get(key).map(|value| value.to_str().unwrap_or("?"));
    let caller = match text(ROLE) {
        None | Some("operator") => Caller::Operator,
        Some("service") => Caller::Service,
        Some("tenant") => {
            Caller::Tenant(ClientId::parse(text(CLIENT).unwrap_or_default()).map_err(|e| status::field(&format!("metadata {CLIENT}"), e))?)
        }
        Some(other) => return Err(status::field(&format!("metadata {ROLE}"), format!("{other:?} is no role"))),
    };
    request.extensions_mut().insert(caller);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(role: &'static str, client: &'static str) -> Result<Caller, Status> {
        let mut request = Request::new(());
        request.metadata_mut().insert(ROLE, role.parse().expect("ascii"));
        request.metadata_mut().insert(CLIENT, client.parse().expect("ascii"));
        intercept(request).map(|request| Caller::of(&request))
    }

    #[test]
    fn a_tenant_acts_for_itself_alone() {
        let tenant = call("tenant", "acme").expect("a tenant");
        assert!(tenant.act_for("acme").is_ok());
        assert!(Reason::NotYours.is(&tenant.act_for("globex").expect_err("not its own")));
        assert!(tenant.act_for_all().is_err());
        assert!(call("operator", "").expect("an operator").act_for_all().is_ok());
        assert!(tenant.operate().is_err() && call("service", "").expect("a service").operate().is_err());
    }

    #[test]
    fn refuses_unknown_roles_and_tenants_without_a_client() {
        assert!(call("root", "acme").is_err() && call("tenant", "").is_err());
    }
}
