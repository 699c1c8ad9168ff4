//! When bytes came, as the kernel saw it. What waits in a socket or in the runtime's queue has come, though nobody has read it yet:
//! a server that has more to do than it can learns from this how late it is, before it has done any of the work.
//!
//! Linux says with a read when the last of its bytes reached the machine (`SO_TIMESTAMPNS`, socket(7) and the kernel's
//! Documentation/networking/timestamping.rst). That is on the system's clock, from which only a difference is taken, at once. Where
//! the kernel says nothing, as for a connection's first bytes now and then, bytes have come when they are read.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, cmsg_space, recvmsg, setsockopt, sockopt};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::{Clock, UnixMicros, monotonic};

/// Bytes of one read at the most: what is read into is zeroed first.
const MOST: usize = 32 << 10;
/// Nothing waits longer; where it seems so, the system's clock was set.
const LONGEST: Duration = Duration::from_secs(10);

/// When the bytes that were last read from a connection had come. Where several requests share a connection it is that of the last to
/// be read, and says too little of the others.
#[derive(Debug, Clone)]
pub(super) struct Arrivals(Arc<Last>);

#[derive(Debug)]
struct Last {
    opened: Instant,
    /// Nanoseconds from then until the bytes came.
    came: AtomicU64,
}

impl Arrivals {
    fn new() -> Self {
        Self(Arc::new(Last { opened: monotonic(), came: AtomicU64::new(0) }))
    }

    /// How long ago the bytes came that were read last.
    pub(super) fn waited(&self) -> Duration {
        self.0.opened.elapsed().saturating_sub(Duration::from_nanos(self.0.came.load(Ordering::Relaxed)))
    }

    /// Bytes were read that had come so long ago.
    fn read(&self, ago: Duration) {
        let came = self.0.opened.elapsed().saturating_sub(ago);
        self.0.came.store(u64::try_from(came.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A connection that knows when its bytes came.
pub(super) struct Connection {
    tcp: TcpStream,
    arrivals: Arrivals,
}

impl Connection {
    /// Without Nagle's algorithm. Where the options cannot be set the connection is gone, which its first read says.
    pub(super) fn new(tcp: TcpStream) -> Self {
        drop(tcp.set_nodelay(true));
        let _ = setsockopt(&tcp, sockopt::ReceiveTimestampns, &true);
        Self { tcp, arrivals: Arrivals::new() }
    }

    pub(super) fn arrivals(&self) -> Arrivals {
        self.arrivals.clone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tcp.fmt(f)
    }
}

/// Room for one time, as the kernel aligns it.
#[repr(align(8))]
struct Control([u8; cmsg_space::<TimeSpec>()]);

/// Reads what is there: how much, and when it came on the system's clock, if that is said.
fn receive(tcp: &TcpStream, room: &mut [u8], flags: MsgFlags) -> io::Result<(usize, Option<TimeSpec>)> {
    let (mut control, mut room) = (Control([0; _]), [IoSliceMut::new(room)]);
    let message = recvmsg::<()>(tcp.as_raw_fd(), &mut room, Some(&mut control.0), flags)?;
    let came = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at),
        _ => None,
    });
    Ok((message.bytes, came))
}

/// How long ago it was this on the system's clock.
fn ago(came: TimeSpec) -> Duration {
    let ago = Clock::System.now().since(UnixMicros(came.num_microseconds()));
    if ago < LONGEST { ago } else { Duration::ZERO }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled_to(buffer.remaining().min(MOST));
            let mut got = None;
            let tried = self.tcp.try_io(Interest::READABLE, || {
                let (read, came) = receive(&self.tcp, room, MsgFlags::empty())?;
                got = Some((read, came));
                // A read that leaves room has emptied the socket: that saves the read that would find nothing, as in tokio's own.
                if (1..room.len()).contains(&read) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (got, tried) {
                (Some((read, came)), _) => {
                    self.arrivals.read(came.map_or(Duration::ZERO, ago));
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                (None, _) => {}
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn pair() -> (TcpStream, Connection) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), Connection::new(accepted.unwrap().0))
    }

    #[tokio::test]
    async fn bytes_have_come_after_they_were_sent_and_by_when_they_are_read() {
        let (mut client, mut server) = pair().await;
        let arrivals = server.arrivals.clone();
        for _ in 0..200 {
            let sent = monotonic();
            client.write_all(b"late").await.unwrap();
            server.read_exact(&mut [0; 4]).await.unwrap();
            let read = monotonic();
            let came = arrivals.0.opened + Duration::from_nanos(arrivals.0.came.load(Ordering::Relaxed));
            // The system's clock is read to the microsecond, and a moment after the other.
            assert!((sent - Duration::from_micros(2)..=read).contains(&came), "sent {sent:?}, came {came:?}, read {read:?}");
        }
    }

    #[test]
    fn it_was_as_long_ago_as_the_system_s_clock_has_gone_on_since() {
        let now = TimeSpec::microseconds(Clock::System.now().0);
        let earlier = now - TimeSpec::milliseconds(250);
        assert!((Duration::from_millis(250)..LONGEST).contains(&ago(earlier)), "{:?}", ago(earlier));
        assert_eq!(ago(now - TimeSpec::seconds(11)), Duration::ZERO, "the clock was set forward");
        assert_eq!(ago(now + TimeSpec::seconds(3_600)), Duration::ZERO, "the clock was set back");
    }

    /// The kernel is asked beside the connection (`MSG_PEEK`) whether it took the time: it begins to when it likes.
    #[tokio::test]
    async fn what_lay_in_the_socket_has_waited() {
        const LAY: Duration = Duration::from_micros(200);
        let (mut client, mut server) = pair().await;
        assert!(getsockopt(&server.tcp, sockopt::ReceiveTimestampns).unwrap(), "it is asked to");
        let (arrivals, mut timed, mut seen) = (server.arrivals.clone(), 0_u32, 0_u32);
        for _ in 0..5_000 {
            client.write_all(b"late").await.unwrap();
            server.tcp.readable().await.unwrap();
            let lies = monotonic();
            let said = receive(&server.tcp, &mut [0; 4], MsgFlags::MSG_PEEK).unwrap().1;
            while lies.elapsed() < LAY {
                std::hint::spin_loop();
            }
            server.read_exact(&mut [0; 4]).await.unwrap();
            let came = arrivals.0.opened + Duration::from_nanos(arrivals.0.came.load(Ordering::Relaxed));
            timed += u32::from(said.is_some());
            seen += u32::from(said.is_some() && came <= lies);
            if timed == 100 {
                break;
            }
        }
        if timed == 0 {
            println!("the kernel takes no times: that they are seen was not checked");
        }
        // The machine may stop this thread between two clocks, but not every other time.
        assert!(2 * seen >= timed, "{seen} of {timed} that the kernel had a time for");
    }

    #[tokio::test]
    async fn nothing_is_lost_of_what_is_longer_than_a_read_and_the_end_is_seen() {
        let (client, mut server) = pair().await;
        let sent: Vec<u8> = (0..5 * MOST + 7).map(|n| (n % 251) as u8).collect();
        let (mut reader, mut writer) = client.into_split();
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(&bytes).await.unwrap();
            drop(writer); // the end
        });
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }
}
