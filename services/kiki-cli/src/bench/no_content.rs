//! The least that an answer to an OpenRTB request costs: hyper, which reads the body and answers 204.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::child::Server;
use super::cores::Cores;
use crate::error::{Doing as _, Failure};
use crate::out;

/// Serves until it is killed.
pub(super) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.doing("listening")?;
    out::say(format_args!("http://{}", listener.local_addr().doing("listening")?));
    out::say("ready");
    loop {
        let (stream, _) = listener.accept().await.doing("accepting a connection")?;
        stream.set_nodelay(true).doing("a connection")?;
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    drop(request.into_body().collect().await); // one that broke off has nobody to answer
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Starts it as a process of its own, on these cores if there are any; its address.
pub(super) fn start_on(cores: Option<&Cores>) -> Result<(Server, String), Failure> {
    let (server, lines) = Server::start_on(cores, &["bench", "no-content-server"])?;
    let address = lines.into_iter().next().ok_or_else(|| Failure::new("the server of 204 named no address"))?;
    Ok((server, address))
}
