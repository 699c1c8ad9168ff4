//! A small HTTP client: connections stay open, answers are bounded, and nothing waits for ever.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::{Doing as _, Failure};

/// The longest answer that is read: a bid for each of 100 impressions with 64 KiB of markup.
const MAX_ANSWER: usize = 8 << 20;
/// How long an answer may take. The slowest is a notice that waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that keeps its connections.
#[derive(Debug, Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `x-kiki-no-bid`, where it is there.
    pub(crate) no_bid: Option<String>,
    pub(crate) body: Bytes,
}

/// How a body is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    pub(crate) kind: &'static str,
    pub(crate) gzip: bool,
}

impl Content {
    const JSON: Self = Self { kind: "application/json", gzip: false };
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// One that speaks HTTP/2 from the first byte, over one connection.
    pub(crate) fn http2() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).http2_only(true).build(connector))
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, url, Content::JSON, Bytes::new()).await
    }

    pub(crate) async fn post_json(&self, url: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        self.post(url, Content::JSON, body).await
    }

    pub(crate) async fn post(&self, url: &str, content: Content, body: Vec<u8>) -> Result<Answer, Failure> {
        self.send(Method::POST, url, content, body.into()).await
    }

    /// Puts a text, as the operator, where this process has a key for that.
    pub(crate) async fn put(&self, url: &str, text: String) -> Result<Answer, Failure> {
        let mut request = Request::put(url).header("content-type", "text/plain");
        if let Some(bearer) = kiki::runtime::bearer() {
            request = request.header("authorization", bearer);
        }
        self.answered(url, request.body(Full::new(text.into())).doing(url)?).await
    }

    async fn send(&self, method: Method, url: &str, content: Content, body: Bytes) -> Result<Answer, Failure> {
        let mut request =
            Request::builder().method(method).uri(url).header("content-type", content.kind).header("x-openrtb-version", "2.6");
        if content.gzip {
            request = request.header("content-encoding", "gzip");
        }
        self.answered(url, request.body(Full::new(body)).doing(url)?).await
    }

    async fn answered(&self, url: &str, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let exchange = async {
            let answer = self.0.request(request).await.doing(url)?;
            let status = answer.status();
            let no_bid = answer.headers().get("x-kiki-no-bid").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| Failure::new(format!("{url}: {e}")))?;
            Ok(Answer { status, no_bid, body: body.to_bytes() })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| Failure::new(format!("{url}: no answer in {} s", PATIENCE.as_secs())))?
    }
}
