//! What stands between SyncFlow and SyncValue in an outage: it hands on bytes, those of the answers as late as it is told.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Doing as _, Failure};

/// Bytes that are handed on at once.
const CHUNK: usize = 64 << 10;

/// A relay; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where it listens.
    pub(super) address: String,
    upstream: Arc<OnceLock<String>>,
    held: watch::Sender<Duration>,
    _stop: DropGuard,
}

impl Relay {
    /// Listens; what connects before it is known where to is refused.
    pub(super) async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.doing("starting a relay")?;
        let address = format!("http://{}", listener.local_addr().doing("starting a relay")?);
        let (upstream, held) = (Arc::new(OnceLock::new()), watch::Sender::new(Duration::ZERO));
        let stop = CancellationToken::new();
        let serving = serve(listener, upstream.clone(), held.subscribe());
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        Ok(Self { address, upstream, held, _stop: stop.drop_guard() })
    }

    /// Where to; said once.
    pub(super) fn to(&self, address: &str) {
        let _ = self.upstream.set(address.trim_start_matches("http://").to_owned()); // a second word changes nothing
    }

    /// Holds answers for so long from now on; what is held already goes at once.
    pub(super) fn hold(&self, time: Duration) {
        self.held.send_replace(time);
    }
}

async fn serve(listener: TcpListener, upstream: Arc<OnceLock<String>>, held: watch::Receiver<Duration>) {
    let mut connections = tokio::task::JoinSet::new(); // they end with it; a platform makes a few
    while let Ok((client, _)) = listener.accept().await {
        let Some(upstream) = upstream.get() else { continue };
        let Ok(server) = TcpStream::connect(upstream).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true)); // only slower without
        let (mut asking, answering) = client.into_split();
        let (answers, mut asked) = server.into_split();
        connections.spawn(async move { copy(&mut asking, &mut asked).await.map(drop) });
        connections.spawn(hand_on(answers, answering, held.clone()));
    }
}

async fn hand_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<Duration>) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let time = *held.borrow_and_update();
        if time > Duration::ZERO {
            let _ = tokio::time::timeout(time, held.changed()).await; // either way it is time
        }
        to.write_all(&chunk[..length]).await?;
    }
}
