//! The connection to one node: made when it is needed, again after it was lost, and not tried for a while where that fails.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, RedisError, Value};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::super::Error;
use super::command::SCRIPT;

/// Pipelines that wait to be written to one connection: as many as there can be states in flight.
const QUEUE: usize = 4_096;
/// After the first failed connection nothing is tried for so long; each further one doubles it, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// A node of a cluster, or the one Redis.
#[derive(Debug)]
pub(super) struct Link {
    /// Host and port.
    pub(super) name: String,
    pub(super) host: String,
    client: Client,
    /// How long a connection, or the answers of one pipeline, may take.
    answer: Duration,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    connection: Option<Connection>,
    /// Connections that were made.
    made: u64,
    /// Connections that failed since.
    failed: u32,
    /// When the next one may be tried, and why the last one failed.
    again: Instant,
    why: String,
}

#[derive(Debug, Clone)]
struct Connection {
    redis: MultiplexedConnection,
    number: u64,
    /// The script's name on this server.
    script: Arc<str>,
}

/// Why a pipeline has no answers.
#[derive(Debug)]
pub(super) enum Down {
    /// Nothing was tried: too soon after the last failure.
    Waiting(Error),
    /// It was tried.
    Lost(Error),
}

impl Down {
    /// The reason alone.
    pub(super) fn why(self) -> String {
        match self {
            Self::Waiting(Error::Unavailable { why, .. }) | Self::Lost(Error::Unavailable { why, .. }) => why,
            Self::Waiting(other) | Self::Lost(other) => other.to_string(),
        }
    }
}

impl Link {
    /// To `host`, with the credentials of `like`; a connection, or the answers of one pipeline, may take `answer`.
    ///
    /// # Errors
    /// An address that is none.
    pub(super) fn new(host: &str, port: u16, like: &ConnectionInfo, answer: Duration) -> Result<Self, RedisError> {
        let info = like.clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port));
        Ok(Self {
            name: name(host, port),
            host: host.to_owned(),
            client: Client::open(info)?,
            answer,
            open: Arc::new(Mutex::new(Open { connection: None, made: 0, failed: 0, again: Instant::now(), why: String::new() })),
        })
    }

    /// Sends what `pipeline` makes of the script's name, and gives the answers in order; errors of the server are among them.
    pub(super) async fn send(self: &Arc<Self>, pipeline: impl FnOnce(&str) -> Pipeline) -> Result<Vec<Value>, Down> {
        let mut connection = self.connection().await?;
        let pipeline = pipeline(&connection.script);
        let sent = connection.redis.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        match sent {
            Ok(answers) if answers.len() == pipeline.len() => Ok(answers),
            Ok(answers) => Err(self.lost(&connection, format!("{} answers to {} commands", answers.len(), pipeline.len())).await),
            Err(error) => Err(self.lost(&connection, self.said(&error)).await),
        }
    }

    async fn connection(self: &Arc<Self>) -> Result<Connection, Down> {
        let open = self.open.clone().lock_owned().await;
        if let Some(connection) = &open.connection {
            return Ok(connection.clone());
        }
        if Instant::now() < open.again {
            return Err(Down::Waiting(self.unavailable(format!("{}; not tried again yet", open.why))));
        }
        // A task of its own, so that a connection comes about whoever has the patience to wait for it.
        let made = tokio::spawn(self.clone().open(open)).await;
        made.unwrap_or_else(|stopped| Err(Down::Lost(self.unavailable(stopped.to_string()))))
    }

    async fn open(self: Arc<Self>, mut open: OwnedMutexGuard<Open>) -> Result<Connection, Down> {
        let why = match tokio::time::timeout(self.answer, self.connect()).await {
            Ok(Ok((redis, script))) => {
                (open.made, open.failed) = (open.made + 1, 0);
                let connection = Connection { redis, number: open.made, script: script.into() };
                return Ok(open.connection.insert(connection).clone());
            }
            Ok(Err(error)) => self.said(&error),
            Err(_) => format!("no connection within {} ms", self.answer.as_millis()),
        };
        open.pause(&why);
        Err(Down::Lost(self.unavailable(why)))
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, String), RedisError> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.answer)).set_response_timeout(Some(self.answer));
        let config = config.set_pipeline_buffer_size(QUEUE);
        let mut redis = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let script = ::redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut redis).await?;
        Ok((redis, script))
    }

    /// Lets go of a connection, so that the next call makes a new one.
    async fn lost(&self, connection: &Connection, why: String) -> Down {
        let mut open = self.open.lock().await;
        if open.connection.as_ref().is_some_and(|now| now.number == connection.number) {
            open.connection = None;
        }
        Down::Lost(self.unavailable(why))
    }

    /// Says that it did not answer in time.
    pub(super) fn silent(&self) -> Error {
        self.unavailable("no answer in time".into())
    }

    /// What went wrong, in a line.
    fn said(&self, error: &RedisError) -> String {
        if error.is_timeout() { format!("no answer within {} ms", self.answer.as_millis()) } else { error.to_string() }
    }

    fn unavailable(&self, why: String) -> Error {
        Error::Unavailable { node: self.name.clone(), why }
    }
}

impl Open {
    /// Nothing is tried for a while.
    fn pause(&mut self, why: &str) {
        let pause = PAUSE.0.saturating_mul(1 << self.failed.min(10)).min(PAUSE.1);
        (self.failed, self.again, self.why) = (self.failed.saturating_add(1), Instant::now() + pause, why.to_owned());
    }
}

/// Host and port as one.
pub(super) fn name(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// Host, port and credentials of an address.
///
/// # Errors
/// Not `redis://HOST:PORT/`. The text is not repeated: it may hold a password.
pub(super) fn parse(url: &str) -> Result<(String, u16, ConnectionInfo), Error> {
    let info = url.into_connection_info().map_err(|error| Error::Address(error.to_string()))?;
    match info.addr().clone() {
        ConnectionAddr::Tcp(host, port) => Ok((host, port, info)),
        _ => Err(Error::Address("an address is redis://HOST:PORT/".into())),
    }
}
