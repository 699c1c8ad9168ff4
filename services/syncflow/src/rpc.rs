//! The gRPC face: decode, one call, encode.

mod breakers;
mod convert;
mod offer;
mod stream;

/// The routing of calls that `build.rs` makes.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, rustdoc::all)]
pub(crate) mod server {
    include!(concat!(env!("OUT_DIR"), "/kiki.syncflow.v1.SyncFlowService.rs"));
    pub(crate) use sync_flow_service_server::*;
}

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::caller::Caller;
use kiki::money::Nanos;
use kiki::pb::syncflow::v1 as pb;
use kiki::pb::syncshield::v1::GetBudgetRequest;
use kiki::runtime::Readers;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::receipt::Purpose;
use crate::engine::{Engine, Offered, Round};
use crate::error::Error;
use crate::load::Places;
use crate::notices::{Heard, MAX_ITEMS, Notices, Outcome, Why};
use crate::wire::Fields;
use offer::Offer;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) engine: Arc<Engine>,
    pub(crate) notices: Arc<Notices>,
    /// Where browsers reach the click redirect.
    pub(crate) public_url: Arc<str>,
    /// Ends the streams that have no end of their own.
    pub(crate) stop: CancellationToken,
    pub(crate) readers: Readers,
}

/// The places for streams of bids.
pub(crate) fn readers() -> Readers {
    Readers::new(stream::MAX_STREAMS, stream::STREAMS_OF_ONE)
}

#[tonic::async_trait]
impl server::SyncFlowService for Service {
    async fn bid(&self, request: Request<Bytes>) -> Result<Response<Vec<u8>>, Status> {
        Caller::of(&request).act_for_all()?;
        let (engine, call) = (&*self.engine, grpc_timeout(&request));
        let arrival = engine.metrics.stages.looked_at(request.extensions().get());
        let place = self.place(arrival.came)?;
        let pb::BidRequest { opportunity, await_durable } = convert::read(&request.into_inner())?;
        let opportunity = opportunity.ok_or_else(|| Error::field("opportunity", "is required"))?;
        let (opportunity, tmax) = convert::opportunity(format_args!("opportunity"), Offer::from(&opportunity), &engine.exchanges)?;
        let deadline = engine.deadline(arrival, tmax, call);
        let offered = [Offered { opportunity, deadline }];
        let mut round = Round::new(engine, 1);
        let prepared = round.prepare(&offered);
        let mut predictions = round.ask();
        let decided = round.decide(&prepared[0], &mut predictions).await;
        let (mut response, encoding) = (Vec::new(), Instant::now());
        convert::answer(&decided.answer, &offered[0].opportunity, engine, &self.public_url, &mut Fields(&mut response));
        engine.metrics.stages.encoded(&deadline, encoding);
        Some(place).filter(|_| !round.waited()).into_iter().for_each(|place| place.answered(&deadline));
        if await_durable {
            engine.recorder.wait(decided.ticket).await;
        }
        Ok(Response::new(response))
    }

    type BidStreamStream = ReceiverStream<Result<Vec<u8>, Status>>;

    async fn bid_stream(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Self::BidStreamStream>, Status> {
        Caller::of(&request).act_for_all()?;
        let reader = self.readers.enter(&request)?;
        Ok(Response::new(stream::answer(self.engine.clone(), self.public_url.clone(), request.into_inner(), reader)))
    }

    async fn notify(&self, request: Request<pb::NotifyRequest>) -> Result<Response<pb::NotifyResponse>, Status> {
        let caller = Caller::of(&request);
        let notices = request.into_inner().notices;
        bounded("notices", notices.len())?;
        let mut results = vec![pb::NoticeResult::default(); notices.len()];
        let (mut taken, mut places) = (Vec::new(), Vec::new());
        for (at, notice) in notices.iter().enumerate() {
            let word = convert::word(at, notice)?;
            match self.notices.receipts.open(&notice.receipt, Purpose::Notice) {
                Ok(receipt) => {
                    caller.act_for(&receipt.client)?;
                    let min_to_win = Some(Nanos::new(notice.min_to_win_nanos));
                    taken.push(Heard { receipt, word, min_to_win });
                    places.push(at);
                }
                Err(error) => results[at] = convert::outcome(&Outcome::Refused(Why::Receipt(error))),
            }
        }
        for (at, outcome) in places.into_iter().zip(self.notices.take(&taken).await?) {
            results[at] = convert::outcome(&outcome);
        }
        Ok(Response::new(pb::NotifyResponse { results }))
    }

    async fn report_conversions(
        &self,
        request: Request<pb::ReportConversionsRequest>,
    ) -> Result<Response<pb::ReportConversionsResponse>, Status> {
        let caller = Caller::of(&request);
        let conversions = request.into_inner().conversions;
        bounded("conversions", conversions.len())?;
        conversions.iter().try_for_each(|conversion| caller.act_for(&conversion.client))?;
        let purchases = conversions.into_iter().enumerate().map(convert::purchase).collect::<Result<_, _>>()?;
        let results = self.notices.report(purchases).await?.into_iter().map(convert::conversion).collect();
        Ok(Response::new(pb::ReportConversionsResponse { results }))
    }

    async fn get_budget(&self, request: Request<pb::GetBudgetRequest>) -> Result<Response<pb::GetBudgetResponse>, Status> {
        let caller = Caller::of(&request);
        let pb::GetBudgetRequest { client, campaign } = request.into_inner();
        caller.act_for(&client)?;
        let mut shield = self.notices.shield.clone();
        let answer = shield.get_budget(GetBudgetRequest { client, campaign }).await.map_err(Error::shield)?;
        let budget = answer.into_inner().budget;
        budget.iter().for_each(|budget| self.engine.metrics.budget(budget));
        Ok(Response::new(pb::GetBudgetResponse { budget }))
    }

    type WatchBreakersStream = ReceiverStream<Result<pb::WatchBreakersResponse, Status>>;

    async fn watch_breakers(&self, request: Request<pb::WatchBreakersRequest>) -> Result<Response<Self::WatchBreakersStream>, Status> {
        Caller::of(&request).act_for_all()?;
        Ok(Response::new(breakers::watch(self.engine.breakers.clone(), self.stop.clone())))
    }

    async fn override_breaker(
        &self,
        request: Request<pb::OverrideBreakerRequest>,
    ) -> Result<Response<pb::OverrideBreakerResponse>, Status> {
        Caller::of(&request).operate()?;
        let request = request.into_inner();
        let what = breakers::what(&request)?;
        let status = self.engine.breakers.tell(&request.name, what, &request.operator, &request.reason)?;
        Ok(Response::new(pb::OverrideBreakerResponse { breaker: Some(breakers::status(status)) }))
    }
}

impl Service {
    /// A place among the bids under way for one that came then.
    fn place(&self, came: Instant) -> Result<Places, Error> {
        self.engine.load.admit(came).map_err(|crowded| {
            self.engine.metrics.turned_away.inc();
            Error::Overloaded(crowded)
        })
    }
}

fn bounded(path: &'static str, count: usize) -> Result<(), Error> {
    if count > MAX_ITEMS { Err(Error::TooMany { path, count, limit: MAX_ITEMS }) } else { Ok(()) }
}

/// How long the caller will wait, by the header that gRPC has for it: at most eight digits and a unit.
fn grpc_timeout<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|number| *number < 100_000_000)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_the_timeout_that_a_caller_sets() {
        for (text, expected) in [
            ("100m", Some(Duration::from_millis(100))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("", None),
            ("5", None),
            ("-1m", None),
            ("123456789m", None),
            ("1x", None),
        ] {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(grpc_timeout(&request), expected, "{text:?}");
        }
    }
}
