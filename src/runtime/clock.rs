//! `PUT /clock`: moves the clock of a service that does not stand on the system's, for a replay.
//!
//! On the system's clock the route is not there. It is the operator's: whoever moves the clock moves what is late, what has ended and which
//! month can be closed.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::put;
use prometheus::IntGauge;

use super::identified::operator;
use super::{Metrics, Trust};
use crate::clock::{Clock, UnixMicros, VirtualClock};

/// The longest body that is read, bytes: sixteen digits to the year 2286 and eighteen to the last, with room for a line's end.
const MAX_BODY: usize = 32;
/// The last instant that a clock is moved to: the end of the year 9999, the last that a timestamp can say.
const LAST: UnixMicros = UnixMicros(253_402_300_799_999_999);

/// The routes, with `PUT /clock` where the clock is virtual, and the metric `kiki_clock_virtual` there.
///
/// The body is the instant, microseconds since 1970 in digits. 204: it stands there now. 400: the body is none. 401 and 403: the caller is
/// not the operator. 409: it stands later, and stays.
pub fn movable(http: Router, clock: &Clock, metrics: &Metrics, trust: &Trust) -> Router {
    let Clock::Virtual(clock) = clock else { return http };
    metrics.add(IntGauge::new("kiki_clock_virtual", "1 where the clock is not the system's and a replay moves it")).set(1);
    http.merge(metrics.identified(Router::new().route("/clock", put(moved)).with_state(clock.clone()), trust))
}

async fn moved(State(clock): State<VirtualClock>, extensions: Extensions, body: Body) -> Response {
    if let Err(status) = operator(&extensions) {
        let unknown = status.code() == tonic::Code::Unauthenticated;
        let code = if unknown { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        return said(code, "authorization", status.message());
    }
    let instant = to_bytes(body, MAX_BODY).await.ok().and_then(|body| instant(&body));
    let Some(instant) = instant else {
        return said(StatusCode::BAD_REQUEST, "body", &format!("not microseconds since 1970, from 0 to {}", LAST.0));
    };
    let stands = clock.advance_to(instant);
    if stands > instant {
        return said(StatusCode::CONFLICT, "body", &format!("the clock stands at {} and does not go back to {}", stands.0, instant.0));
    }
    StatusCode::NO_CONTENT.into_response()
}

fn instant(body: &[u8]) -> Option<UnixMicros> {
    let digits = std::str::from_utf8(body).ok()?.trim_end();
    let micros: u64 = if digits.starts_with('+') { None } else { digits.parse().ok() }?;
    i64::try_from(micros).ok().map(UnixMicros).filter(|instant| *instant <= LAST)
}

fn said(status: StatusCode, field: &str, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "field": field, "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn put(http: &Router, body: &str) -> StatusCode {
        let request = Request::put("/clock").body(Body::from(body.to_owned())).unwrap();
        http.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_virtual_clock_is_moved_on_and_never_back() {
        let (clock, metrics) = (VirtualClock::at(UnixMicros(10)), Metrics::new());
        let http = movable(Router::new(), &Clock::Virtual(clock.clone()), &metrics, &Trust::default());
        assert_eq!((put(&http, "1767225600000000\n").await, clock.now()), (StatusCode::NO_CONTENT, UnixMicros(1_767_225_600_000_000)));
        assert_eq!(put(&http, "1767225600000000").await, StatusCode::NO_CONTENT, "where it stands");
        assert_eq!(put(&http, "1767225599999999").await, StatusCode::CONFLICT);
        let long = "1".repeat(1 << 20);
        for wrong in ["", "now", "-1", "+1", "1.5", " 1", "253402300800000000", "99999999999999999999", &long] {
            assert_eq!(put(&http, wrong).await, StatusCode::BAD_REQUEST, "{wrong:.30}");
        }
        assert_eq!(clock.now(), UnixMicros(1_767_225_600_000_000));
        assert!(metrics.text().contains("\nkiki_clock_virtual 1\n"));
    }

    #[tokio::test]
    async fn nobody_but_the_operator_moves_it() {
        let (clock, metrics) = (VirtualClock::default(), Metrics::new());
        let http = movable(Router::new(), &Clock::Virtual(clock.clone()), &metrics, &Trust::default());
        let tenant = Request::put("/clock").header("kiki-role", "tenant").header("kiki-client", "acme");
        let answer = http.oneshot(tenant.body(Body::from("5")).unwrap()).await.unwrap();
        assert_eq!((answer.status(), clock.now()), (StatusCode::FORBIDDEN, UnixMicros(0)));
    }

    #[tokio::test]
    async fn the_systems_clock_is_nobodys_to_move() {
        let metrics = Metrics::new();
        let http = movable(Router::new(), &Clock::System, &metrics, &Trust::default());
        assert_eq!(put(&http, "1767225600000000").await, StatusCode::NOT_FOUND);
        assert!(!metrics.text().contains("kiki_clock_virtual"));
    }
}
