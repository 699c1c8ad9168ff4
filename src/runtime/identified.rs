//! Who calls over HTTP. It is for each route to say which RPC it stands for; those that are for everybody do not ask.

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{Extensions, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tonic::Status;

use super::Metrics;
use super::accept::Peer;
use super::trust::{Nobody, Trust, Who};
use crate::caller::Caller;
use crate::roles;
use crate::status::Reason;

/// Who was found, among a request's extensions.
#[derive(Debug, Clone)]
struct Found(std::sync::Arc<Result<Who, Nobody>>);

impl Metrics {
    /// The routes, whose handlers may ask by [`caller_of`] who calls. Those who are refused are recorded with the calls over gRPC.
    pub fn identified(&self, http: Router, trust: &Trust) -> Router {
        let (calls, trust) = (self.calls.clone(), trust.clone());
        http.layer(from_fn(move |mut request: Request, next: Next| {
            let peer = request.extensions().get::<ConnectInfo<Peer>>();
            let who = trust.who(request.headers(), peer.and_then(|ConnectInfo(peer)| peer.spiffe.as_ref()));
            let found = Found(who.into());
            request.extensions_mut().insert(found.clone());
            // The route, not the path: whoever makes up paths makes up no records.
            let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            let asked = format!("{} {route}", request.method());
            let calls = calls.clone();
            async move {
                let answer: Response = next.run(request).await;
                match answer.status() {
                    StatusCode::UNAUTHORIZED => calls.refused(&asked, "UNAUTHENTICATED", &found.0),
                    StatusCode::FORBIDDEN => calls.refused(&asked, "PERMISSION_DENIED", &found.0),
                    _ => {}
                }
                answer
            }
        }))
    }
}

/// Who calls, if an RPC is theirs to call.
///
/// # Errors
/// Nobody that is known, or a role that may not.
pub fn caller_of(extensions: &Extensions, service: &str, rpc: &str) -> Result<Caller, Status> {
    let who = found(extensions)?;
    if let Some(role) = who.role {
        roles::may(role, service, rpc)?;
    }
    Ok(who.caller)
}

/// Whether the operator calls, for what no RPC stands for.
pub(super) fn operator(extensions: &Extensions) -> Result<(), Status> {
    found(extensions)?.caller.operate()
}

fn found(extensions: &Extensions) -> Result<Who, Status> {
    let nobody = || Reason::Unauthenticated.status("authorization: an API key or a client certificate is required");
    match &*extensions.get::<Found>().ok_or_else(nobody)?.0 {
        Ok(who) => Ok(who.clone()),
        Err(nobody) => Err((*nobody.why).clone()),
    }
}
