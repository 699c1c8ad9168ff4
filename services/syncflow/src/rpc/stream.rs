//! `BidStream`: messages of opportunities in, answers in order, and how many of them are final.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use kiki::pb::syncflow::v1 as pb;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::convert;
use super::offer::{self, Offer};
use crate::deadline::Deadline;
use crate::engine::{Engine, Offered, Round};
use crate::error::Error;
use crate::wire::Fields;

/// Opportunities of one message.
const MAX_OPPORTUNITIES: usize = 256;
/// Answers that wait for a slow reader: 16 messages of 256 bids of 2 kB are 8 MB a stream.
const MAX_UNREAD: usize = 16;
/// Messages whose decisions are not durable yet. At this many no further one is read.
const MAX_UNACKNOWLEDGED: usize = 256;

/// The fields of `BidStreamResponse`.
const RESPONSES: u32 = 1;
const ACKNOWLEDGED: u32 = 2;
/// An answer's length, more or less: what room is made for.
const USUAL: usize = 1_024;

/// Bytes of `BidStreamResponse`.
type Answers = mpsc::Sender<Result<Vec<u8>, Status>>;

/// Answers a stream until it ends or its reader goes.
pub(super) fn answer(engine: Arc<Engine>, public_url: Arc<str>, messages: Streaming<Bytes>) -> ReceiverStream<Result<Vec<u8>, Status>> {
    let (answers, reader) = mpsc::channel(MAX_UNREAD);
    tokio::spawn(async move {
        let durable = engine.recorder.durable();
        let mut conversation = Conversation { engine, public_url, durable, answered: 0, acknowledged: 0, waiting: VecDeque::new() };
        if let Err(status) = conversation.run(messages, &answers).await {
            let _ = answers.send(Err(status)).await; // a reader that is gone needs no reason
        }
    });
    ReceiverStream::new(reader)
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

impl Conversation {
    async fn run(&mut self, mut messages: Streaming<Bytes>, answers: &Answers) -> Result<(), Status> {
        let gone = |_| Status::cancelled("the reader is gone");
        let mut open = true;
        while open || !self.waiting.is_empty() {
            tokio::select! {
                biased;
                message = messages.message(), if open && self.waiting.len() < MAX_UNACKNOWLEDGED => match message? {
                    None => open = false,
                    Some(message) => {
                        let mut response = self.answer(&message).await?;
                        Fields(&mut response).number(ACKNOWLEDGED, self.acknowledge());
                        answers.send(Ok(response)).await.map_err(gone)?;
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

    /// The bytes of the answers to a message.
    async fn answer(&mut self, message: &Bytes) -> Result<Vec<u8>, Status> {
        let engine = self.engine.clone();
        let read; // what is rare is read by prost
        let offers = match offer::offers(message, MAX_OPPORTUNITIES) {
            Some(offers) => offers,
            None => {
                read = convert::read::<pb::BidStreamRequest>(message)?.opportunities;
                (read.iter().take(MAX_OPPORTUNITIES).map(Offer::from).collect(), read.len())
            }
        };
        Ok(self.decide(&engine, offers).await?)
    }

    async fn decide<'m>(&mut self, engine: &'m Engine, (offers, count): (Vec<Offer<'m>>, usize)) -> Result<Vec<u8>, Error> {
        if count > MAX_OPPORTUNITIES {
            return Err(Error::TooMany { path: "opportunities", count, limit: MAX_OPPORTUNITIES });
        }
        let places = engine.load.enter(count);
        let (began, timed) = (Instant::now(), self.answered as usize / count.max(1) % count.max(1));
        let mut offered = Vec::with_capacity(places.count());
        for (at, offer) in offers.into_iter().enumerate().take(places.count()) {
            let (opportunity, tmax) = convert::opportunity(format_args!("opportunities[{at}]"), offer, &engine.exchanges)?;
            // One of a message, by and by each place in it: the clock and the histograms cost some tenths of a microsecond.
            let deadline = Deadline { timed: at == timed, ..engine.deadline(began, tmax, None) };
            offered.push(Offered { opportunity, deadline });
        }
        let mut round = Round::new(engine, offered.len());
        let prepared = round.prepare(&offered);
        let mut predictions = round.ask();
        let mut responses = Vec::with_capacity(count * USUAL);
        let (mut ticket, last) = (0, offered.last().map(|offered| offered.deadline));
        for prepared in &prepared {
            let decided = round.decide(prepared, &mut predictions).await;
            ticket = ticket.max(decided.ticket);
            let Offered { opportunity, deadline } = prepared.offered;
            let encoding = deadline.timed.then(Instant::now);
            Fields(&mut responses).message(RESPONSES, |to| convert::answer(&decided.answer, opportunity, engine, &self.public_url, to));
            encoding.inspect(|encoding| engine.metrics.stages.encoded(deadline, *encoding));
        }
        drop(round);
        for _ in places.count()..count {
            engine.metrics.turned_away.inc();
            Fields(&mut responses).message(RESPONSES, convert::turned_away);
        }
        places.answered(&last.unwrap_or_else(|| engine.deadline(began, None, None)));
        self.answered += count as u64;
        self.waiting.push_back((self.answered, ticket));
        Ok(responses)
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
