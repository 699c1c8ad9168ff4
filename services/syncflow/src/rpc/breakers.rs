//! `WatchBreakers` and `OverrideBreaker`.

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::pb::syncflow::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::breakers::{Breakers, Override, Status};
use crate::domain::breaker::State;
use crate::error::Error;

/// How often the breakers are looked at: a pause ends by time alone, of which nobody sends word.
const LOOK: Duration = Duration::from_millis(100);

/// Where all stand, then those that changed. One message waits for a slow reader; what changes meanwhile comes with the next.
pub(super) fn watch(breakers: Arc<Breakers>, stop: CancellationToken) -> ReceiverStream<Result<pb::WatchBreakersResponse, tonic::Status>> {
    let (messages, reader) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK);
        let mut known: Vec<Status> = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = messages.closed() => return,
                _ = looks.tick() => {}
            }
            let Ok(place) = messages.try_reserve() else { continue };
            let now = breakers.statuses();
            let fresh: Vec<_> = now.iter().filter(|one| !known.contains(one)).cloned().map(status).collect();
            if !fresh.is_empty() {
                place.send(Ok(pb::WatchBreakersResponse { breakers: fresh }));
                known = now;
            }
        }
    });
    ReceiverStream::new(reader)
}

pub(super) fn what(request: &pb::OverrideBreakerRequest) -> Result<Override, Error> {
    let until = || UnixMicros::from_pb(request.until.as_ref()).ok_or_else(|| Error::field("until", "is required to force"));
    match request.r#override() {
        pb::BreakerOverride::Unspecified => Err(Error::field("override", "is required")),
        pb::BreakerOverride::ForceOpen => Ok(Override::Open(until()?)),
        pb::BreakerOverride::ForceClosed => Ok(Override::Closed(until()?)),
        pb::BreakerOverride::Automatic => Ok(Override::Automatic),
        pb::BreakerOverride::Trip => Ok(Override::Trip),
    }
}

pub(super) fn status(status: Status) -> pb::BreakerStatus {
    let Status { name, state, why, changes, operator, reason } = status;
    let state = match state {
        State::Closed => pb::BreakerState::Closed,
        State::Open => pb::BreakerState::Open,
        State::HalfOpen => pb::BreakerState::HalfOpen,
        State::ForcedOpen => pb::BreakerState::ForcedOpen,
        State::ForcedClosed => pb::BreakerState::ForcedClosed,
    };
    pb::BreakerStatus { name, state: state.into(), why: why.to_owned(), changes, operator, reason }
}
