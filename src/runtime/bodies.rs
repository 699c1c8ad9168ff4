//! Bodies of requests on their way in and of answers on their way out: what they may take of memory and of time.
//!
//! A message is gathered until it is whole. Of each the first bytes are free, so that common calls are served whatever else goes on;
//! what is beyond that comes out of a room that all share, and who sends too slowly is given up. What of an answer its client does not
//! take is marked, so that the connection can be cut ([`super::accept`]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::MAX_MESSAGE;
use super::shares::{Own, Part, Shared};
use crate::status::Reason;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of each message that come out of no room: at most 512 MB with the most calls that there may be.
const FREE: usize = 64 << 10;
/// Bytes beyond that of all messages that are not whole yet, and as many of answers that are not handed on yet, gRPC's of a service and
/// HTTP's each: 32 of the longest messages, and 3 of the longest proofs.
const ROOM: usize = 256 << 20;
/// What one connection has of it where half of it is taken: 4 of the longest messages.
const ROOM_OF_ONE: usize = 32 << 20;
/// How long a message may take from its beginning to its end: the longest take 2.2 Mbit/s then.
const WHOLE: Duration = Duration::from_secs(30);
/// When what found no room may be tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of an answer that are handed on at once: HTTP/2 keeps them until they are sent, however long that takes.
const HANDED_ON: usize = 64 << 10;

/// The room for the bodies of one side of a service.
#[derive(Debug, Clone)]
pub(super) struct Room {
    arriving: Arc<Shared>,
    leaving: Arc<Shared>,
}

impl Default for Room {
    fn default() -> Self {
        Self { arriving: Shared::arriving(ROOM, ROOM_OF_ONE), leaving: Shared::leaving(ROOM, ROOM_OF_ONE) }
    }
}

fn no_room(of: &str) -> BoxError {
    let why = format!("more than {ROOM} bytes of {of}, or half of them and {ROOM_OF_ONE} of this connection's");
    Reason::Overloaded.status_to_retry(why, RETRY).into()
}

/// A request's body while it comes in.
#[derive(Debug)]
pub(super) struct Arriving<B> {
    body: B,
    room: Part,
    messages: Messages,
    /// Whether messages go on to come: then it may be silent between them.
    streams: bool,
    /// Whether more of a message, or the end of its only one, is owed.
    owed: bool,
    /// From when it is too late for that.
    late: Option<Pin<Box<Sleep>>>,
}

/// Where in the body a message is.
#[derive(Debug)]
enum Messages {
    /// The body is one; so many bytes of it are here. Who serves HTTP bounds its time.
    One(usize),
    Many(Prefixed),
}

impl<B> Arriving<B> {
    /// A call's. Unless messages go on to come it owes one, and the end behind it, from its beginning.
    pub(super) fn grpc(body: B, (room, own): (&Room, &Arc<Own>), streams: bool) -> Self {
        let room = Part::none(room.arriving.clone(), own.clone());
        Self { body, room, messages: Messages::Many(Prefixed::default()), streams, owed: !streams, late: None }
    }

    /// One over HTTP.
    pub(super) fn http(body: B, (room, own): (&Room, &Arc<Own>)) -> Self {
        let room = Part::none(room.arriving.clone(), own.clone());
        Self { body, room, messages: Messages::One(0), streams: false, owed: false, late: None }
    }

    /// Makes room for what came.
    fn take(&mut self, data: &[u8]) -> Result<(), BoxError> {
        let gathered = match &mut self.messages {
            Messages::One(gathered) => {
                *gathered += data.len();
                *gathered
            }
            Messages::Many(prefixed) => {
                let before = prefixed.gathered;
                let gathered = prefixed.pass(data);
                self.owed = gathered > 0 || !self.streams;
                if self.streams && gathered < before + data.len() {
                    self.late = None; // one is whole, and the next has its own time
                }
                prefixed.takes()
            }
        };
        if self.room.set(gathered.saturating_sub(FREE)) { Ok(()) } else { Err(no_room("messages that are not whole yet")) }
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if this.owed {
                ready!(this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(WHOLE))).as_mut().poll(cx));
                let late = Status::deadline_exceeded(format!("the request was not whole in {} s", WHOLE.as_secs()));
                return Poll::Ready(Some(Err(late.into())));
            }
            return Poll::Pending;
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            frame.data_ref().map_or(Ok(()), |data| this.take(data))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Before each of gRPC's messages: whether it is compressed, and its length (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).
const PREFIX: usize = 5;

/// Where in a row of those one is.
#[derive(Debug, Default)]
struct Prefixed {
    prefix: [u8; PREFIX],
    /// Bytes of a message that are here, its prefix included.
    gathered: usize,
}

impl Prefixed {
    /// What a message takes that is not whole: tonic makes room for all of it once it has its prefix, unless it refuses it as too long. The
    /// bytes that came are not all of that, but a page of memory can be 2 MiB.
    fn takes(&self) -> usize {
        let whole = self.whole();
        if self.gathered >= PREFIX && whole <= PREFIX + MAX_MESSAGE { whole } else { self.gathered }
    }

    /// Its length, once its prefix is here.
    fn whole(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        PREFIX.saturating_add(u32::from_be_bytes(length) as usize)
    }

    /// Goes on by so many bytes. What has come of a message that is not whole then.
    fn pass(&mut self, mut data: &[u8]) -> usize {
        while !data.is_empty() {
            if let Some(prefix) = self.prefix.get_mut(self.gathered..) {
                let taken = prefix.len().min(data.len());
                prefix[..taken].copy_from_slice(&data[..taken]);
                self.gathered += taken;
                data = &data[taken..];
            }
            if self.gathered >= PREFIX {
                let whole = self.whole();
                let taken = data.len().min(whole - self.gathered);
                self.gathered += taken;
                data = &data[taken..];
                if self.gathered == whole {
                    *self = Self::default();
                }
            }
        }
        self.gathered
    }
}

/// An answer's body while it goes out.
#[derive(Debug)]
pub(super) struct Leaving<R> {
    body: R,
    /// Of a frame that is handed on in parts.
    rest: Bytes,
    room: Part,
    own: Arc<Own>,
    /// The turn in which a part was handed on, until the next is asked for.
    unread: Option<usize>,
}

impl<R> Leaving<R> {
    pub(super) fn new(body: R, room: &Room, own: Arc<Own>) -> Self {
        Self { body, rest: Bytes::new(), room: Part::none(room.leaving.clone(), own.clone()), own, unread: None }
    }

    fn was_taken(&mut self) {
        if let Some(turn) = self.unread.take() {
            self.own.unread.end(turn);
        }
    }

    /// Hands on what is at most so long; the rest waits.
    fn hand_on(&mut self, mut data: Bytes) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.rest = if data.len() > HANDED_ON { data.split_off(HANDED_ON) } else { Bytes::new() };
        if !self.room.set(self.rest.len()) {
            return Poll::Ready(Some(Err(no_room("answers that are not read"))));
        }
        self.unread = Some(self.own.unread.begin());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl<R> Body for Leaving<R>
where
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.was_taken();
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return self.hand_on(rest);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.hand_on(data),
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            end => Poll::Ready(end.map(|end| end.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl<R> Drop for Leaving<R> {
    fn drop(&mut self) {
        self.was_taken();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::poll_fn;

    use super::*;

    /// Frames that are there, and then nothing for ever, or the end.
    struct Frames(VecDeque<Vec<u8>>, bool);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame.into())))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    async fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Result<usize, B::Error>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.map(|frame| frame.map(|frame| frame.into_data().unwrap().len()))
    }

    fn status(error: BoxError) -> Status {
        *error.downcast::<Status>().unwrap()
    }

    #[test]
    fn only_what_has_come_of_the_last_message_is_gathered_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = [3, 0, 70, 9].into_iter().flat_map(message).collect();
        let ends = [8, 13, 88, 102];
        for cut in 1..=bytes.len() {
            let (mut prefixed, mut at) = (Prefixed::default(), 0);
            for part in bytes.chunks(cut) {
                at += part.len();
                let whole = ends.into_iter().filter(|end| *end <= at).max().unwrap_or(0);
                assert_eq!(prefixed.pass(part), at - whole, "{at} by {cut}");
            }
        }
    }

    #[tokio::test]
    async fn long_messages_that_are_not_whole_fill_the_room_and_short_ones_need_none() {
        let (shared, own) = (|| Shared::arriving(3 * FREE, 3 * FREE), Arc::new(Own::default()));
        let room = Room { arriving: shared(), leaving: shared() };
        let long = || Frames([message(3 * FREE)[..100].to_vec()].into(), false);
        let arriving = |frames| Arriving::grpc(frames, (&room, &own), false);
        let (mut one, mut two) = (arriving(long()), arriving(long()));
        assert_eq!(next(&mut one).await.unwrap().unwrap(), 100);
        let refused = status(next(&mut two).await.unwrap().unwrap_err());
        assert!(Reason::Overloaded.is(&refused), "{refused:?}");
        assert!(next(&mut arriving(Frames([message(FREE - PREFIX)].into(), true))).await.unwrap().is_ok());
        drop(one);
        assert!(next(&mut arriving(long())).await.unwrap().is_ok(), "there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_owes_a_message_and_a_stream_the_rest_of_one() {
        let (room, own) = (Room::default(), Arc::new(Own::default()));
        let silent = || Frames(VecDeque::new(), false);
        let late = |error| status(error).code() == tonic::Code::DeadlineExceeded;
        assert!(late(next(&mut Arriving::grpc(silent(), (&room, &own), false)).await.unwrap().unwrap_err()));
        let mut endless = Arriving::grpc(Frames([message(3)].into(), false), (&room, &own), false);
        assert!(next(&mut endless).await.unwrap().is_ok());
        assert!(late(next(&mut endless).await.unwrap().unwrap_err()), "its end is owed");
        let mut stream = Arriving::grpc(silent(), (&room, &own), true);
        assert!(tokio::time::timeout(10 * WHOLE, next(&mut stream)).await.is_err(), "it may be silent");
        let mut stream = Arriving::grpc(Frames([message(3), message(3)[..4].to_vec()].into(), false), (&room, &own), true);
        assert!(next(&mut stream).await.unwrap().is_ok() && next(&mut stream).await.unwrap().is_ok());
        assert!(late(next(&mut stream).await.unwrap().unwrap_err()));
    }

    #[tokio::test]
    async fn an_answer_goes_in_parts_and_is_unread_until_the_next_is_asked_for() {
        let own = Arc::new(Own::default());
        let mut answer = Leaving::new(Frames([vec![0; 2 * HANDED_ON + 1]].into(), true), &Room::default(), own.clone());
        for part in [HANDED_ON, HANDED_ON, 1] {
            assert_eq!(next(&mut answer).await.unwrap().unwrap(), part);
            assert!(!own.unread.turn());
            assert!(own.unread.turn(), "nobody takes it");
        }
        assert!(next(&mut answer).await.is_none());
        assert!(!own.unread.turn() && !own.unread.turn());
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_find_no_more_than_their_room() {
        let (room, own) = (Room::default(), Arc::new(Own::default()));
        let long = || Leaving::new(Frames([vec![0; ROOM / 2]].into(), true), &room, own.clone());
        let (mut one, mut two, mut three) = (long(), long(), long());
        assert!(next(&mut one).await.unwrap().is_ok());
        let refused = status(next(&mut two).await.unwrap().unwrap_err());
        assert!(Reason::Overloaded.is(&refused), "{refused:?}");
        drop((one, two));
        assert!(next(&mut three).await.unwrap().is_ok(), "there is room again");
    }
}
