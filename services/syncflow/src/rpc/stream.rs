//! `BidStream`: messages of opportunities in, answers in order, and how many of them are final.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use kiki::pb::syncflow::v1 as pb;
use kiki::runtime::Reader;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::convert;
use super::offer::{self, Offer};
use crate::deadline::{Arrival, Deadline};
use crate::engine::{Engine, Offered, Round};
use crate::error::Error;
use crate::load::Places;
use crate::wire::Fields;

/// Opportunities of one message.
const MAX_OPPORTUNITIES: usize = 256;
/// Answers that wait for a slow reader: 4 messages of 256 bids of 2 kB are 2 MB a stream.
const MAX_UNREAD: usize = 4;
/// Streams: all of them 2 GB while nobody reads.
pub(super) const MAX_STREAMS: usize = 1_024;
/// Those of one connection, where half of them are open.
pub(super) const STREAMS_OF_ONE: usize = 64;
/// Messages whose decisions are not durable yet. At this many no further one is read.
const MAX_UNACKNOWLEDGED: usize = 256;

/// The fields of `BidStreamResponse`.
const RESPONSES: u32 = 1;
const ACKNOWLEDGED: u32 = 2;
/// Bytes of messages that are answered together: of 256 opportunities as a rule.
const MAX_TOGETHER: usize = 24 << 10;
/// An answer's length, more or less: what room is made for.
const USUAL: usize = 1_024;

/// Bytes of `BidStreamResponse`.
type Answers = mpsc::Sender<Result<Vec<u8>, Status>>;

/// Answers a stream until it ends or its reader goes.
pub(super) fn answer(
    engine: Arc<Engine>,
    public_url: Arc<str>,
    messages: Streaming<Bytes>,
    place: Reader,
) -> ReceiverStream<Result<Vec<u8>, Status>> {
    let (answers, reader) = mpsc::channel(MAX_UNREAD);
    tokio::spawn(async move {
        let durable = engine.recorder.durable();
        let mut conversation = Conversation { engine, public_url, durable, answered: 0, acknowledged: 0, waiting: VecDeque::new() };
        if let Err(status) = conversation.run(messages, &answers).await {
            let _ = answers.send(Err(status)).await; // a reader that is gone needs no reason
        }
        drop(place);
    });
    ReceiverStream::new(reader)
}

fn gone<T>(_: mpsc::error::SendError<T>) -> Status {
    Status::cancelled("the reader is gone")
}

/// The opportunities of a message for which there is room. What is rare, prost reads, into `slow`.
fn offer_all<'m>(
    engine: &'m Engine,
    (message, slow): (&'m Bytes, &'m mut Option<pb::BidStreamRequest>),
    began: Instant,
    to: &mut Vec<Offered<'m>>,
) -> Result<Part, Status> {
    let (offers, count) = match offer::offers(message, MAX_OPPORTUNITIES) {
        Some(offers) => offers,
        None => {
            let all = &slow.insert(convert::read(message)?).opportunities;
            (all.iter().take(MAX_OPPORTUNITIES).map(Offer::from).collect(), all.len())
        }
    };
    if count > MAX_OPPORTUNITIES {
        return Err(Error::TooMany { path: "opportunities", count, limit: MAX_OPPORTUNITIES }.into());
    }
    let (places, before) = (engine.load.enter(count), to.len());
    for (at, offer) in offers.into_iter().enumerate().take(places.count()) {
        match convert::opportunity(format_args!("opportunities[{at}]"), offer, &engine.exchanges) {
            Ok((opportunity, tmax)) => {
                let deadline = Deadline { timed: false, ..engine.deadline(Arrival::at_once(began), tmax, None) };
                to.push(Offered { opportunity, deadline });
            }
            Err(error) => {
                to.truncate(before); // the whole message is refused
                return Err(error.into());
            }
        }
    }
    Ok(Part { count, places })
}

struct Conversation {
    engine: Arc<Engine>,
    public_url: Arc<str>,
    durable: watch::Receiver<u64>,
    answered: u64,
    acknowledged: u64,
    /// After which answer which ticket is due.
    waiting: VecDeque<(u64, u64)>,
}

/// What one message has of a round's opportunities.
struct Part {
    count: usize,
    places: Places,
}

impl Conversation {
    async fn run(&mut self, mut messages: Streaming<Bytes>, answers: &Answers) -> Result<(), Status> {
        let mut open = true;
        while open || !self.waiting.is_empty() {
            tokio::select! {
                biased;
                message = messages.message(), if open && self.waiting.len() < MAX_UNACKNOWLEDGED => match message? {
                    None => open = false,
                    Some(first) => {
                        // What has come meanwhile goes with it: the way to SyncValue and back costs as much as some tens of bids.
                        let (mut together, mut bytes) = (vec![first], 0);
                        let end = loop {
                            bytes += together.last().map_or(0, Bytes::len);
                            if bytes >= MAX_TOGETHER || self.waiting.len() + together.len() >= MAX_UNACKNOWLEDGED {
                                break None;
                            }
                            tokio::select! {
                                biased;
                                next = messages.message() => match next {
                                    Ok(Some(next)) => together.push(next),
                                    end => break Some(end),
                                },
                                () = std::future::ready(()) => break None,
                            }
                        };
                        self.answer(&together, answers).await?;
                        if let Some(end) = end {
                            end?;
                            open = false;
                        }
                    }
                },
                changed = self.durable.changed(), if !self.waiting.is_empty() => {
                    changed.map_err(|_| Status::unavailable("the service is stopping"))?;
                    let before = self.acknowledged;
                    if self.acknowledge() > before {
                        let mut response = Vec::new();
                        Fields(&mut response).number(ACKNOWLEDGED, self.acknowledged);
                        answers.send(Ok(response)).await.map_err(gone)?;
                    }
                }
                () = answers.closed() => return Ok(()),
            }
        }
        Ok(())
    }

    /// Answers messages, each by itself, in as few rounds as there is room for.
    async fn answer(&mut self, mut messages: &[Bytes], answers: &Answers) -> Result<(), Status> {
        while !messages.is_empty() {
            messages = &messages[self.round(messages, answers).await?..];
        }
        Ok(())
    }

    /// Answers the first of them in one round, and says how many. Those before a message that is refused are answered before that is said.
    async fn round(&mut self, messages: &[Bytes], answers: &Answers) -> Result<usize, Status> {
        let (engine, began) = (self.engine.clone(), Instant::now());
        let mut slow = vec![None; messages.len()];
        let (mut offered, mut parts, mut refused) = (Vec::new(), Vec::new(), None);
        for message in messages.iter().zip(&mut slow) {
            match offer_all(&engine, message, began, &mut offered) {
                Ok(part) => parts.push(part),
                Err(status) => {
                    refused = Some(status);
                    break;
                }
            }
            if parts.last().is_some_and(|part| part.places.count() < part.count) {
                break; // the others have room once these are answered
            }
        }
        let taken = parts.len();
        if let Some(timed) = (self.answered as usize).checked_rem(offered.len()) {
            // One of a round, by and by each place in it: the clock and the histograms cost some tenths of a microsecond.
            offered[timed].deadline.timed = true;
        }
        self.decide(&engine, &offered, (parts, began), answers).await?;
        refused.map_or(Ok(taken), Err)
    }

    async fn decide(
        &mut self,
        engine: &Engine,
        offered: &[Offered<'_>],
        (parts, began): (Vec<Part>, Instant),
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut round = Round::new(engine, offered.len());
        let prepared = round.prepare(offered);
        let (mut predictions, mut rest) = (round.ask(), prepared.as_slice());
        let mut unsent = Vec::new();
        for Part { count, places } in parts {
            let (own, others) = rest.split_at(places.count());
            rest = others;
            let (mut response, mut ticket) = (Vec::with_capacity(count * USUAL), 0);
            for prepared in own {
                let decided = round.decide(prepared, &mut predictions).await;
                ticket = ticket.max(decided.ticket);
                let Offered { opportunity, deadline } = prepared.offered;
                let encoding = deadline.timed.then(Instant::now);
                let one = |to: &mut Fields<'_>| convert::answer(&decided.answer, opportunity, engine, &self.public_url, to);
                Fields(&mut response).message(RESPONSES, one);
                encoding.inspect(|encoding| engine.metrics.stages.encoded(deadline, *encoding));
            }
            for _ in own.len()..count {
                engine.metrics.turned_away.inc();
                Fields(&mut response).message(RESPONSES, convert::turned_away);
            }
            let deadline = own.last().map_or_else(|| engine.deadline(Arrival::at_once(began), None, None), |last| last.offered.deadline);
            match (round.waited(), offered.len()) {
                (true, _) => drop(places),
                (false, 1) => places.answered(&deadline),
                (false, _) => places.answered_in_turn(&deadline),
            }
            self.answered += count as u64;
            self.waiting.push_back((self.answered, ticket));
            Fields(&mut response).number(ACKNOWLEDGED, self.acknowledge());
            unsent.push(response);
            if let ([response], Ok(room)) = (&mut *unsent, answers.try_reserve()) {
                room.send(Ok(std::mem::take(response)));
                unsent.clear();
            }
        }
        // A reader that is slow is waited for when all places are free again.
        for response in unsent {
            answers.send(Ok(response)).await.map_err(gone)?;
        }
        Ok(())
    }

    /// How many answers are final by now.
    fn acknowledge(&mut self) -> u64 {
        let durable = *self.durable.borrow_and_update();
        while let Some((answered, _)) = self.waiting.pop_front_if(|(_, ticket)| *ticket <= durable) {
            self.acknowledged = answered;
        }
        self.acknowledged
    }
}
