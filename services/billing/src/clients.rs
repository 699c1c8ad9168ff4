//! SyncShield, as Billing asks it.

use std::time::Duration;

use kiki::caller;
use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::pb::log::v1::Position;
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::record_item::Body;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::runtime::Channel;
use kiki::status::Reason;
use kiki::tlog::Hash;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status, Streaming};

use crate::domain::bundle::BundleLeaf;
use crate::domain::bundle::limits::TooLarge;
use crate::domain::period::{Month, Span};
use crate::error::Error;

/// How long an answer may take: the slowest is the proof of a million leaves.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest answer: 1,048,576 leaf hashes and as many of the proof at 34 bytes are 68 MiB.
const ANSWER_MAX: usize = 72 << 20;

type Intercept = fn(Request<()>) -> Result<Request<()>, Status>;

/// SyncShield.
#[derive(Debug, Clone)]
pub struct Shield {
    client: SyncShieldServiceClient<InterceptedService<Channel, Intercept>>,
    log_id: String,
}

fn as_service(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert(caller::ROLE, MetadataValue::from_static("service"));
    Ok(request)
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

impl Shield {
    /// At an address; connects when it is first asked.
    pub fn new(address: &str, log_id: &str) -> Result<Self, Error> {
        let channel = kiki::runtime::channel(address)?;
        let client = SyncShieldServiceClient::with_interceptor(channel, as_service as Intercept);
        Ok(Self { client: client.max_decoding_message_size(ANSWER_MAX), log_id: log_id.to_owned() })
    }

    /// Leaves from an index on: of one client or (empty) of all, and then what comes if `follow`.
    pub async fn tail(&self, from: u64, client: &str, follow: bool) -> Result<Streaming<pb::TailResponse>, Error> {
        let from = Some(Position { log_id: self.log_id.clone(), index: from });
        let request = pb::TailRequest { from, client: client.to_owned(), follow, without_decisions: false };
        Ok(self.client.clone().tail(request).await?.into_inner())
    }

    /// A signed checkpoint of at least a size, as it came: text and the size that it says.
    pub async fn checkpoint(&self, min_size: u64) -> Result<(String, u64), Error> {
        let answer = self.head(min_size).await?;
        Ok((answer.checkpoint, answer.size))
    }

    /// As [`Shield::checkpoint`], with every change of the log's key.
    pub async fn head(&self, min_size: u64) -> Result<pb::GetCheckpointResponse, Error> {
        let request = timed(pb::GetCheckpointRequest { min_size, cosigned: false });
        Ok(self.client.clone().get_checkpoint(request).await?.into_inner())
    }

    /// As [`Shield::head`], with witnesses' cosignatures where one of at least that size has any by now.
    pub async fn witnessed(&self, min_size: u64) -> Result<pb::GetCheckpointResponse, Error> {
        let request = timed(pb::GetCheckpointRequest { min_size, cosigned: true });
        match self.client.clone().get_checkpoint(request).await {
            Err(status) if Reason::NotFound.is(&status) => self.head(min_size).await,
            answer => Ok(answer?.into_inner()),
        }
    }

    /// The multiproof of leaves in the tree of a size.
    pub async fn proof(&self, indices: Vec<u64>, size: u64) -> Result<Vec<Hash>, Error> {
        let request = timed(pb::GetProofRequest { log_id: self.log_id.clone(), indices, size });
        let answer = self.client.clone().get_proof(request).await?.into_inner();
        let hash = |bytes: &[u8]| Hash::try_from(bytes).map_err(|_| Error::Answer("a hash that is not 32 bytes"));
        answer.proof.iter().map(|bytes| hash(bytes)).collect()
    }

    /// Closes a client's month; a repeat answers with the first. Gives the leaf's index.
    pub async fn close_period(&self, client: &str, currency: &str, month: Month, span: Span) -> Result<u64, Error> {
        let body = Body::ClosePeriod(pb::ClosePeriod {
            currency: currency.to_owned(),
            month: month.to_string(),
            period_start: Some(span.start.into()),
            period_end: Some(span.end.into()),
        });
        self.record(client, body).await
    }

    /// Records an invoice; a repeat of its number answers with the first. Gives the leaf's index.
    pub async fn record_invoice(&self, client: &str, invoice: leaf::Invoice) -> Result<u64, Error> {
        self.record(client, Body::Invoice(invoice)).await
    }

    /// Records what happened to an invoice; a repeat of its key answers with the first. Gives the leaf's index.
    pub async fn record_event(&self, client: &str, event: leaf::InvoiceEvent) -> Result<u64, Error> {
        self.record(client, Body::InvoiceEvent(event)).await
    }

    /// Records accesses of a client's documents as one batch of a sender; a batch that came before has no second effect.
    pub async fn record_accesses(&self, accesses: pb::RecordRequest) -> Result<(), Status> {
        self.client.clone().record(timed(accesses)).await.map(drop)
    }

    async fn record(&self, client: &str, body: Body) -> Result<u64, Error> {
        let item = pb::RecordItem { client: client.to_owned(), body: Some(body) };
        let request = timed(pb::RecordRequest { items: vec![item], ..Default::default() });
        let answer = self.client.clone().record(request).await?.into_inner();
        let position = answer.results.into_iter().next().and_then(|result| result.position);
        Ok(position.ok_or(Error::Answer("a record without a position"))?.index)
    }

    /// A client's leaves up to and with an index of which `keep` says so, with decisions or without; an error above `bytes_max`.
    pub async fn client_leaves(
        &self,
        client: &str,
        last: u64,
        bytes_max: usize,
        without_decisions: bool,
        keep: impl Fn(&pb::TailEntry) -> bool,
    ) -> Result<Vec<BundleLeaf>, Error> {
        let from = Some(Position { log_id: self.log_id.clone(), index: 0 });
        let request = pb::TailRequest { from, client: client.to_owned(), follow: false, without_decisions };
        let mut stream = self.client.clone().tail(request).await?.into_inner();
        let (mut leaves, mut bytes) = (Vec::new(), 0);
        while let Some(message) = stream.message().await? {
            for entry in message.entries.into_iter().take_while(|entry| entry.index <= last).filter(&keep) {
                bytes += entry.leaf.len();
                if bytes > bytes_max {
                    let (found, max) = (bytes as u64, bytes_max as u64);
                    return Err(TooLarge { what: "bytes", found, max }.into());
                }
                leaves.push(bundle_leaf(entry));
            }
            if message.next_index > last {
                break;
            }
        }
        Ok(leaves)
    }

    /// One leaf of whomever.
    pub async fn leaf(&self, index: u64) -> Result<BundleLeaf, Error> {
        let mut stream = self.tail(index, "", false).await?;
        while let Some(message) = stream.message().await? {
            if let Some(entry) = message.entries.into_iter().find(|entry| entry.index == index) {
                return Ok(bundle_leaf(entry));
            }
        }
        Err(Error::Answer("a tail without the leaf that it was to begin with"))
    }
}

fn bundle_leaf(entry: pb::TailEntry) -> BundleLeaf {
    BundleLeaf { index: entry.index, hash: kiki::tlog::leaf_hash(&entry.leaf), leaf: entry.leaf.to_vec() }
}

/// The leaf of an invoice.
pub fn invoice_leaf(number: &str, invoice: &crate::domain::invoice::Invoice, issued: Issued) -> Result<leaf::Invoice, Error> {
    let minor = |units: i128| i64::try_from(units).map_err(|_| Error::Answer("no total of 64 bits"));
    let total_minor = minor(invoice.total_invoice_amount.units())?;
    let tax_minor = minor(invoice.tax.as_ref().map_or(0, |tax| tax.amount.units()))?;
    Ok(leaf::Invoice {
        number: number.to_owned(),
        currency: invoice.currency.clone(),
        // The month that was closed: a note corrects an earlier one.
        month: invoice.closing_month().to_owned(),
        document_sha256: issued.document_sha256.to_vec().into(),
        total_minor,
        issued_at: Some(issued.at.into()),
        period_closed_seq: issued.period_closed_seq,
        kind: invoice.kind.to_leaf().into(),
        corrects_seq: issued.corrects_seq,
        tax_minor,
    })
}

/// What an invoice's leaf says beside the document itself.
#[derive(Debug, Clone, Copy)]
pub struct Issued {
    /// SHA-256 of the document.
    pub document_sha256: [u8; 32],
    /// When it became final.
    pub at: UnixMicros,
    /// `client_seq` of the closing that it is computed from.
    pub period_closed_seq: u64,
    /// Of a note, `client_seq` of the closing of the period that it corrects, or of the credit that was agreed; 0 of an invoice.
    pub corrects_seq: u64,
}
