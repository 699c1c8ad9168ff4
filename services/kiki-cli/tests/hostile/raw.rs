//! HTTP/2 by hand (RFC 9113), with headers that are never indexed (RFC 7541, 6.2.2): what no client's library would send.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::host;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags; `ACK` is that of SETTINGS and PING.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const ENHANCE_YOUR_CALM: u32 = 11;
pub const FRAME_SIZE_ERROR: u32 = 6;

/// The head of a frame, which may say what it likes of its length.
pub fn head(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [head(payload.len(), kind, flags, stream), payload.to_vec()].concat()
}

/// A header field.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        assert!(text.len() < 127, "one byte of length");
        [&[text.len() as u8], text.as_bytes()].concat()
    };
    [vec![0], string(name), string(value)].concat()
}

/// The fields of a call.
pub fn call(path: &str) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "kiki"), ("content-type", "application/grpc")];
    [fields.map(|(name, value)| field(name, value)).concat(), field("te", "trailers")].concat()
}

/// A message of gRPC.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// What a GOAWAY or an RST_STREAM says of why.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection.
pub struct Raw(pub TcpStream);

impl Raw {
    /// Opens one, with so many bytes of each answer that may be sent before more are asked for.
    pub async fn open(address: &str, window: u32) -> Self {
        let mut tcp = TcpStream::connect(host(address)).await.expect("a connection");
        let setting = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
        tcp.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &setting)[..]].concat()).await.unwrap();
        Self(tcp)
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Calls, with what there is of the request's body.
    pub async fn call(&mut self, stream: u32, path: &str, body: &[u8], flags: u8) -> io::Result<()> {
        let body = if body.is_empty() { Vec::new() } else { frame(DATA, flags, stream, body) };
        self.send(&[frame(HEADERS, END_HEADERS, stream, &call(path)), body].concat()).await
    }

    /// The next frame; none where the connection has ended. What must be acknowledged is.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
            let answer = if kind == PING { &payload[..] } else { &[] };
            let _ = self.send(&frame(kind, ACK, 0, answer)).await; // it may be over
        }
        Some(Frame { kind, flags, payload })
    }

    /// The first frame of one of these kinds, unless the connection ends before.
    pub async fn until(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// Why the connection was ended, where that was said and came through.
    pub async fn ended(mut self) -> Option<u32> {
        let why = self.until(&[GOAWAY]).await?.code();
        while self.next().await.is_some() {}
        Some(why)
    }
}
