//! Cosignatures for checkpoints: each new checkpoint goes to every configured witness with the proof that it continues
//! what that witness saw last, and its cosignature is added to the note that is served.
//!
//! A witness that does not answer holds up nobody; who wants a quorum waits for it or asks again. A witness that saw a
//! larger tree than the log has is the sign of a log that was restored from an old backup, and is told as an error.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kiki::runtime::Metrics;
use kiki::tlog::note::{Note, Signature, Witness};
use kiki::tlog::portable::Growth;
use prometheus::{IntGauge, IntGaugeVec, Opts};
use tokio_util::sync::CancellationToken;

use crate::store::{Log, Signed};

/// How often a witness's task looks for a new checkpoint: they come once a second.
const LOOK: Duration = Duration::from_millis(200);
/// How long a witness may take to answer. It has one small file to sync.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a witness that failed is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest answer that is read: 100 signature lines of a kilobyte.
const MAX_ANSWER: usize = 100 << 10;

/// Where a witness is, and its key: `http://host:port+<vkey>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessAt {
    url: String,
    key: Witness,
}

impl FromStr for WitnessAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (url, key) = text.split_once('+').ok_or("is not of the form http://host:port+name+id+key")?;
        if !url.starts_with("http://") {
            return Err("witness urls start with http://; put a TLS proxy in front of one that is far away".into());
        }
        Ok(Self { url: url.trim_end_matches('/').to_owned(), key: key.parse().map_err(|e| format!("{e}"))? })
    }
}

/// Keeps the log's newest checkpoint cosigned by one witness.
pub(crate) async fn keep_cosigned(log: Log, at: WitnessAt, gauges: Gauges, shutdown: CancellationToken) {
    let (cosigned, ahead) = gauges.of(at.key.name());
    let mut known = Known { client: Client::builder(TokioExecutor::new()).build_http(), at, size: 0, cosigned: None, ahead };
    let mut pause = LOOK;
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let Some(signed) = log.newest_checkpoint().filter(|signed| known.cosigned != Some(signed.size)) else {
            pause = LOOK;
            continue;
        };
        pause = match shutdown.run_until_cancelled(known.cosign(&log, &signed)).await {
            Some(Err(error)) => {
                tracing::warn!(witness = known.at.key.name(), size = signed.size, %error, "not cosigned");
                PAUSE
            }
            Some(Ok(())) => {
                cosigned.set(i64::try_from(signed.size).unwrap_or(i64::MAX));
                LOOK
            }
            None => LOOK,
        };
    }
}

/// How far each witness has come.
#[derive(Debug, Clone)]
pub(crate) struct Gauges {
    cosigned: IntGaugeVec,
    ahead: IntGaugeVec,
}

impl Gauges {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauges = |name: &str, help: &str| metrics.add(IntGaugeVec::new(Opts::new(name, help), &["witness"]));
        Self {
            cosigned: gauges("syncshield_log_cosigned_leaves", "leaves that the newest checkpoint covers which the witness cosigned"),
            ahead: gauges("syncshield_witness_ahead", "1 where the witness has seen more leaves than the log has"),
        }
    }

    fn of(&self, witness: &str) -> (IntGauge, IntGauge) {
        (self.cosigned.with_label_values(&[witness]), self.ahead.with_label_values(&[witness]))
    }
}

struct Known {
    client: Client<HttpConnector, Full<Bytes>>,
    at: WitnessAt,
    /// The size that the witness is thought to have seen.
    size: u64,
    /// The size whose cosignature is in the note.
    cosigned: Option<u64>,
    ahead: IntGauge,
}

impl Known {
    async fn cosign(&mut self, log: &Log, signed: &Signed) -> Result<(), String> {
        // What it saw last is known from its first answer on, so a second try is the last.
        for _ in 0..2 {
            let hashes = match self.size {
                0 => Vec::new(),
                old => log.consistency_proof(old, signed.size).map_err(|e| e.to_string())?,
            };
            let request = Growth { old: self.size, hashes, checkpoint: signed.note.to_string() };
            let (status, body) = self.post(request.to_string()).await?;
            match status {
                StatusCode::OK => {
                    let line = self.own(signed, &body)?;
                    self.size = signed.size;
                    log.cosign(signed.clone(), line).await.map_err(|e| e.to_string())?;
                    self.cosigned = Some(signed.size);
                    self.ahead.set(0);
                    return Ok(());
                }
                StatusCode::CONFLICT => {
                    self.size = body.trim().parse().map_err(|_| format!("answered 409 with {body:?}"))?;
                    if self.size > signed.size {
                        let seen = std::mem::take(&mut self.size);
                        self.ahead.set(1);
                        return Err(format!("the witness has seen {seen} leaves, and the log has {}: was it restored?", signed.size));
                    }
                }
                _ => return Err(format!("answered {status}: {}", body.trim())),
            }
        }
        Err(format!("answered 409 twice, last with {}", self.size))
    }

    /// The witness's own signature among the lines, verified; others are ignored.
    fn own(&self, signed: &Signed, lines: &str) -> Result<Signature, String> {
        let text = Note::parse(signed.note.as_bytes()).map_err(|e| e.to_string())?.text;
        let mut found = Err("answered without its cosignature".to_owned());
        for line in lines.lines() {
            let signature: Signature = line.parse().map_err(|e| format!("{e}"))?;
            let note = Note { text: text.clone(), signatures: vec![signature.clone()] };
            if self.at.key.cosigned_at(&note).map_err(|e| e.to_string())?.is_some() {
                found = Ok(signature);
            }
        }
        found
    }

    async fn post(&self, body: String) -> Result<(StatusCode, String), String> {
        let request = Request::post(format!("{}/add-checkpoint", self.at.url)).body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| e.to_string())?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| e.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| format!("no answer in {} s", PATIENCE.as_secs()))?
    }
}
