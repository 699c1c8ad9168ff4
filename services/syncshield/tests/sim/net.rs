//! tonic over turmoil's network.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// A connection as tonic takes it.
pub(crate) struct Connection(turmoil::net::TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connections of a listener, for tonic to serve.
pub(crate) fn incoming(listener: turmoil::net::TcpListener) -> impl tokio_stream::Stream<Item = io::Result<Connection>> {
    let (send, accepted) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if send.send(Ok(Connection(connection))).await.is_err() {
                break;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(accepted)
}

/// A channel to a host's port; it connects when it is first used, and again when the connection broke.
pub(crate) fn channel(endpoint: Endpoint, host: &'static str) -> Channel {
    let connect =
        move |_: tonic::codegen::http::Uri| async move { Ok::<_, io::Error>(TokioIo::new(turmoil::net::TcpStream::connect(host).await?)) };
    endpoint.connect_with_connector_lazy(tower::service_fn(connect))
}
