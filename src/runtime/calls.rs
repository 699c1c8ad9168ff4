//! What every call to a service passes: who calls is found and whether its role may, and it is counted: rate, errors and duration of each
//! RPC, and how many are under way.
//!
//! A call's duration is the time to the head of its answer; a stream's says how long it took to open. It is handled, with a code, once its
//! trailers went out; where the caller is gone before that it is CANCELLED. What is refused, and what leaves no other record, is noted
//! among the accesses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tonic::Status;
use tower::{Layer, Service};

use super::accept::Peer;
use super::bodies::{Arriving, BoxError, Leaving, Room};
use super::shares::{Own, Part, Shared};
use super::traces;
use super::trust::{Nobody, Trust, Who};
use crate::access::Accesses;
use crate::clock::{Clock, monotonic};
use crate::leaf::{self, AccessKind, AccessRole};
use crate::roles::{self, Rpc as Named};
use crate::status::Reason;

/// Buckets from 25 us to 5 s: bids are in the first ten, closing a month in the last.
const BUCKETS: [f64; 17] =
    [25e-6, 50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.5, 1.0, 5.0];

/// gRPC's codes by number (github.com/grpc/grpc, doc/statuscodes.md).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const OK: usize = 0;
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
const PERMISSION_DENIED: usize = 7;
const UNAUTHENTICATED: usize = 16;

/// Calls and streams of one service that are under way: at the 64 kB or so that one takes which waits, 512 MB.
const MAX_CALLS: usize = 8_192;
/// Of these those of one connection, where half of them are under way: so 64 connections beside the greedy ones have theirs.
const CALLS_OF_ONE: usize = 64;
/// When a call that found no place may be tried again: most calls take less than a tenth of it.
const RETRY: Duration = Duration::from_millis(100);
/// Health checks are anybody's: a kubelet has no certificate.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// What the calls of one service pass.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    counters: Arc<Counters>,
    trust: Trust,
    under_way: Arc<Shared>,
    room: Room,
}

#[derive(Debug)]
struct Counters {
    duration: HistogramVec,
    handled: IntCounterVec,
    in_flight: IntGaugeVec,
    /// The paths that there are, each with its place: what else is asked for is not counted, so that nobody can make up series.
    paths: HashMap<String, usize>,
    rpcs: Vec<(Named, OnceLock<Rpc>)>,
    /// Where accesses are noted, once there is somebody who records them.
    accesses: OnceLock<(Accesses, Clock)>,
    unrecorded: IntCounter,
}

/// One RPC's, from its first call on.
#[derive(Debug)]
struct Rpc {
    path: String,
    duration: Histogram,
    in_flight: IntGauge,
    handled: [OnceLock<IntCounter>; CODES.len()],
}

impl Counters {
    /// Notes an access, where somebody records them.
    fn note(&self, kind: AccessKind, subject: &str, code: &str, who: &Result<Who, Nobody>) {
        let Some((accesses, clock)) = self.accesses.get() else { return };
        let ((role, tenant), identity) = match who {
            Ok(who) => (who.caller.on_record(), &who.identity),
            Err(nobody) => ((AccessRole::Anonymous, String::new()), &nobody.identity),
        };
        let (role, kind, at) = (role.into(), kind.into(), Some(clock.now().into()));
        let (subject, identity, code) = (subject.to_owned(), identity.to_string(), code.to_owned());
        if accesses.note_now(leaf::OPERATOR, leaf::Access { role, tenant, kind, subject, at, identity, code, count: 0 }).is_err() {
            self.unrecorded.inc();
        }
    }
}

impl Calls {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let duration =
            HistogramOpts::new("kiki_rpc_duration_seconds", "time from the call's head to its answer's, by RPC").buckets(BUCKETS.to_vec());
        let duration = HistogramVec::new(duration, &["rpc"])?;
        let handled = IntCounterVec::new(Opts::new("kiki_rpc_handled_total", "calls that ended, by RPC and gRPC code"), &["rpc", "code"])?;
        let in_flight = IntGaugeVec::new(Opts::new("kiki_rpc_in_flight", "calls and streams that are under way, by RPC"), &["rpc"])?;
        let unrecorded = IntCounter::new("kiki_unrecorded_accesses_total", "accesses and refusals that are not in the log")?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(handled.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(unrecorded.clone()))?;
        let rpcs: Vec<_> = roles::rpcs().map(|named| (named, OnceLock::new())).collect();
        let paths = rpcs.iter().zip(0..).map(|((named, _), at)| (named.path(), at)).collect();
        let counters = Counters { duration, handled, in_flight, paths, rpcs, accesses: OnceLock::new(), unrecorded };
        Ok(Self { counters: Arc::new(counters), trust: Trust::default(), under_way: under_way(), room: Room::default() })
    }

    /// The same, and whom it believes.
    pub(super) fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Notes refusals, and what leaves no other record, from now on.
    pub(super) fn note_to(&self, accesses: Accesses, clock: Clock) {
        drop(self.counters.accesses.set((accesses, clock)));
    }

    /// What could not be noted.
    pub(super) fn unrecorded(&self) -> IntCounter {
        self.counters.unrecorded.clone()
    }

    /// Notes that a request over HTTP was refused.
    pub(super) fn refused(&self, asked: &str, code: &'static str, who: &Result<Who, Nobody>) {
        self.counters.note(AccessKind::Refused, asked, code, who);
    }

    /// A call begins, if there is such an RPC.
    fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Call> {
        let at = *self.counters.paths.get(path)?;
        let Named { service, name, .. } = self.counters.rpcs[at].0;
        let span = traces::begin(service, name, headers);
        let call = Call { counters: self.counters.clone(), at, code: CANCELLED, who: None, span };
        call.rpc().in_flight.inc();
        Some(call)
    }

    /// Whether a call may go on, and who makes it; and its place among those that are under way.
    fn admit<B>(&self, call: &mut Option<Call>, request: &mut Request<B>, own: &Arc<Own>) -> Result<Option<Part>, Status> {
        if call.is_none() && request.uri().path().starts_with(HEALTH) {
            return Ok(None);
        }
        let Some(place) = place(&self.under_way, own) else {
            let why = format!("more than {MAX_CALLS} calls are under way, or half of them and {CALLS_OF_ONE} of this connection's");
            return Err(Reason::Overloaded.status_to_retry(why, RETRY));
        };
        let spiffe = request.extensions().get::<Peer>().and_then(|peer| peer.spiffe.as_ref());
        let who = self.trust.who(request.headers(), spiffe);
        let admitted = match (&who, &call) {
            (Ok(Who { role: Some(role), .. }), Some(call)) => call.named().allows(*role),
            (Ok(_), _) => Ok(()),
            (Err(nobody), _) => Err((*nobody.why).clone()),
        };
        if let Ok(who) = &who {
            request.extensions_mut().insert(who.caller.clone());
        }
        if let Some(call) = call {
            call.who = Some(who);
        }
        admitted.map(|()| Some(place))
    }
}

/// What may be under way on one side of a service.
pub(super) fn under_way() -> Arc<Shared> {
    Shared::calls(MAX_CALLS, CALLS_OF_ONE)
}

/// A place among that, if there is one for the connection.
pub(super) fn place(under_way: &Arc<Shared>, own: &Arc<Own>) -> Option<Part> {
    let mut place = Part::none(under_way.clone(), own.clone());
    place.set(1).then_some(place)
}

/// A call under way. It is handled when this is dropped.
#[derive(Debug)]
struct Call {
    counters: Arc<Counters>,
    at: usize,
    code: usize,
    who: Option<Result<Who, Nobody>>,
    span: Option<Context>,
}

impl Call {
    fn named(&self) -> &Named {
        &self.counters.rpcs[self.at].0
    }

    fn rpc(&self) -> &Rpc {
        let (named, rpc) = &self.counters.rpcs[self.at];
        rpc.get_or_init(|| {
            let path = named.path();
            let duration = self.counters.duration.with_label_values(&[&path]);
            let in_flight = self.counters.in_flight.with_label_values(&[&path]);
            Rpc { path, duration, in_flight, handled: [const { OnceLock::new() }; CODES.len()] }
        })
    }

    /// Takes the code from a head or from trailers that have one.
    fn says(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = code.to_str().ok().and_then(|code| code.parse().ok()).filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        }
    }

    /// What is to be recorded of it, if anything is.
    fn on_record(&self) -> Option<(AccessKind, &'static str, &Result<Who, Nobody>)> {
        let (kind, code) = match self.code {
            PERMISSION_DENIED | UNAUTHENTICATED => (AccessKind::Refused, CODES[self.code]),
            OK if self.named().recorded => (AccessKind::Call, ""),
            _ => return None,
        };
        Some((kind, code, self.who.as_ref()?))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let rpc = self.rpc();
        rpc.in_flight.dec();
        let handled = || self.counters.handled.with_label_values(&[rpc.path.as_str(), CODES[self.code]]);
        rpc.handled[self.code].get_or_init(handled).inc();
        if let Some(span) = &self.span {
            traces::end(span, self.code, CODES[self.code]);
        }
        if let Some((kind, code, who)) = self.on_record() {
            self.counters.note(kind, &rpc.path[1..], code, who);
        }
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { inner, calls: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    inner: S,
    calls: Calls,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<Arriving<B>>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = Response<Answer<R>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut call = self.calls.begin(request.uri().path(), request.headers());
        let start = monotonic();
        let own = request.extensions().get::<Peer>().map(|peer| peer.own.clone()).unwrap_or_default();
        let answer = self.calls.admit(&mut call, &mut request, &own).map(|place| {
            let streams = call.as_ref().is_some_and(|call| call.named().streams);
            (self.inner.call(request.map(|body| Arriving::grpc(body, (&self.calls.room, &own), streams))), place)
        });
        let room = self.calls.room.clone();
        Box::pin(async move {
            let span = call.as_ref().and_then(|call| call.span.clone());
            let (answer, place) = match (answer, span) {
                (Ok((answer, place)), Some(span)) => (answer.with_context(span).await?, place),
                (Ok((answer, place)), None) => (answer.await?, place),
                (Err(refused), _) => (refused.into_http(), None),
            };
            if let Some(call) = &mut call {
                call.rpc().duration.observe(start.elapsed().as_secs_f64());
                call.says(answer.headers());
            }
            Ok(answer.map(|body| Answer { body: Leaving::new(body, &room, own), call, _place: place }))
        })
    }
}

/// An answer's body, which ends its call.
#[derive(Debug)]
pub(super) struct Answer<R> {
    body: Leaving<R>,
    call: Option<Call>,
    _place: Option<Part>,
}

impl<R> Body for Answer<R>
where
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(call), Some(Ok(frame))) = (&mut self.call, &frame)
            && let Some(trailers) = frame.trailers_ref()
        {
            call.says(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_has_a_path_and_nothing_else_is_counted() {
        let calls = Calls::new(&Registry::new()).unwrap();
        assert!(calls.begin("/kiki.syncflow.v1.SyncFlowService/Bid", &HeaderMap::new()).is_some());
        assert!(calls.begin("/kiki.syncflow.v1.SyncFlowService/Made-up", &HeaderMap::new()).is_none());
        assert!(calls.begin("/grpc.health.v1.Health/Check", &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_call_is_under_way_until_it_is_handled_with_its_code() {
        let registry = Registry::new();
        let calls = Calls::new(&registry).unwrap();
        let path = "/kiki.syncflow.v1.SyncFlowService/Bid";
        let (mut good, gone) = (calls.begin(path, &HeaderMap::new()).unwrap(), calls.begin(path, &HeaderMap::new()).unwrap());
        assert_eq!(good.rpc().in_flight.get(), 2);
        good.says(&HeaderMap::from_iter([("grpc-status".parse().unwrap(), "8".parse().unwrap())]));
        drop((good, gone));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in
            ["kiki_rpc_in_flight{rpc=\"PATH\"} 0", "{code=\"RESOURCE_EXHAUSTED\",rpc=\"PATH\"} 1", "{code=\"CANCELLED\",rpc=\"PATH\"} 1"]
        {
            assert!(text.contains(&line.replace("PATH", path)), "{text}");
        }
    }
}
