//! SyncShield's gRPC face over a log in memory: what Billing asks of it, and no more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiki::leaf::leaf::Body;
use kiki::pb::log::v1::Position;
use kiki::pb::syncshield::v1::record_item::Body as Item;
use kiki::pb::syncshield::v1::sync_shield_service_server::{SyncShieldService, SyncShieldServiceServer};
use kiki::pb::syncshield::v1::*;
use kiki::status::Reason;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::log::{LOG, Log};

type Answer<T> = Result<Response<T>, Status>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is done at a step.
pub type Step = Box<dyn FnMut() + Send>;

/// The fake.
#[derive(Clone)]
pub struct FakeShield {
    /// Its log.
    pub log: Arc<Mutex<Log>>,
    /// Size of its newest checkpoint.
    pub signed: Arc<Mutex<u64>>,
    /// Answers to so many Record calls of invoices are lost after they took effect.
    pub lost_answers: Arc<Mutex<u32>>,
    /// Invoices of these numbers are refused, as where the log holds another document of the number.
    pub refused_numbers: Arc<Mutex<Vec<String>>>,
    /// Leaves below it are no longer kept.
    pub begins_at: Arc<Mutex<u64>>,
    /// Proofs that were asked for.
    pub proofs: Arc<Mutex<u32>>,
    /// The answer to the next batch of accesses is lost after it took effect.
    pub loses_accesses: Arc<Mutex<bool>>,
    /// The last batch of each sender.
    pub sources: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Called before and after each thing that is done for Billing: a batch sent, a checkpoint signed, a record taken.
    pub at_step: Arc<Mutex<Option<Step>>>,
}

impl FakeShield {
    /// Over a log.
    pub fn new(log: Log) -> Self {
        let signed = Arc::new(Mutex::new(log.size()));
        Self {
            log: Arc::new(Mutex::new(log)),
            signed,
            lost_answers: Arc::default(),
            refused_numbers: Arc::default(),
            begins_at: Arc::default(),
            proofs: Arc::default(),
            loses_accesses: Arc::default(),
            sources: Arc::default(),
            at_step: Arc::default(),
        }
    }

    /// A batch of a sender's, once.
    fn take_accesses(&self, request: RecordRequest) -> Answer<RecordResponse> {
        if std::mem::take(&mut *self.loses_accesses.lock().unwrap()) {
            drop(self.take_batch(request));
            return Err(Status::unavailable("connection lost"));
        }
        self.take_batch(request)
    }

    fn take_batch(&self, request: RecordRequest) -> Answer<RecordResponse> {
        let mut sources = self.sources.lock().unwrap();
        let last = sources.entry(request.source).or_insert(0);
        if request.source_seq == *last {
            return Ok(Response::new(RecordResponse::default()));
        }
        assert_eq!(request.source_seq, *last + 1, "batches of a sender have no gap");
        *last = request.source_seq;
        for item in request.items {
            let Some(Item::Access(access)) = item.body else { return not_asked() };
            self.log.lock().unwrap().append(&item.client, Body::Access(access));
        }
        Ok(Response::new(RecordResponse::default()))
    }

    fn take(&self, item: RecordItem) -> Answer<RecordResponse> {
        let mut log = self.log.lock().unwrap();
        let known = |log: &Log, wanted: &dyn Fn(&Body) -> bool| {
            let bodies = log.leaves.iter().map(|bytes| kiki::leaf::decode(bytes).unwrap());
            bodies.filter(|(header, _)| header.client == item.client).find(|(_, body)| wanted(body)).map(|(header, _)| header.index)
        };
        let (index, lost) = match item.body.unwrap() {
            Item::ClosePeriod(_) if known(&log, &|body| matches!(body, Body::ClientMoved(_))).is_some() => {
                return Err(Reason::ClientMoved.status("the client went to log kiki.test/log-2"));
            }
            Item::ClosePeriod(close) => {
                let same = |body: &Body| matches!(body, Body::PeriodClosed(c) if c.month == close.month);
                let micros = |t: &Option<prost_types::Timestamp>| t.as_ref().map(|t| t.seconds * 1_000_000).unwrap();
                let bounds = (micros(&close.period_start), micros(&close.period_end));
                let found = known(&log, &same);
                (found.unwrap_or_else(|| log.close(&item.client, &close.month, bounds.0, bounds.1)), false)
            }
            Item::Invoice(invoice) => {
                if self.refused_numbers.lock().unwrap().contains(&invoice.number) {
                    return Err(Reason::KeyReused.status("another document has this number"));
                }
                let same = |body: &Body| matches!(body, Body::Invoice(i) if i.number == invoice.number);
                let found = known(&log, &same);
                let mut lost = self.lost_answers.lock().unwrap();
                let loses = *lost > 0;
                *lost = lost.saturating_sub(1);
                (found.unwrap_or_else(|| log.append(&item.client, Body::Invoice(invoice))), loses)
            }
            Item::InvoiceEvent(event) => {
                let same = |body: &Body| matches!(body, Body::InvoiceEvent(e) if e.key == event.key);
                let found = known(&log, &same);
                (found.unwrap_or_else(|| log.append(&item.client, Body::InvoiceEvent(event))), false)
            }
            _ => return not_asked(),
        };
        if lost {
            return Err(Status::unavailable("connection lost"));
        }
        let position = Some(Position { log_id: LOG.into(), index });
        let result = RecordResult { position, client_seq: log.header(index).client_seq, ..Default::default() };
        Ok(Response::new(RecordResponse { results: vec![result] }))
    }

    fn step(&self) {
        if let Some(at_step) = self.at_step.lock().unwrap().as_mut() {
            at_step();
        }
    }

    /// Serves on a free port until the runtime ends.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = SyncShieldServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    }

    /// A batch of the tail, as SyncShield sends it.
    fn batch(&self, next: &mut u64, sent: &mut u64, client: &str) -> Option<TailResponse> {
        /// Small, so that a tail has several.
        const BATCH: u64 = 7;
        let log = self.log.lock().unwrap();
        let signed = *self.signed.lock().unwrap();
        let (from, until) = (*next, log.size().min(*next + BATCH));
        *next = until;
        let checkpoint = if signed > *sent && signed <= until { log.signed(signed) } else { String::new() };
        if from == until && checkpoint.is_empty() {
            return None;
        }
        if !checkpoint.is_empty() {
            *sent = signed;
        }
        let wanted = |index: &u64| client.is_empty() || log.header(*index).client == client;
        let entry = |index| TailEntry { index, leaf: log.leaves[index as usize].clone().into() };
        let entries = (from..until).filter(wanted).map(entry).collect();
        Some(TailResponse { entries, next_index: until, checkpoint })
    }
}

fn not_asked<T>() -> Answer<T> {
    Err(Reason::Internal.status("billing does not ask this"))
}

#[tonic::async_trait]
impl SyncShieldService for FakeShield {
    type TailStream = Out<TailResponse>;
    type WatchPolicyStream = Out<WatchPolicyResponse>;
    type WatchCampaignsStream = Out<WatchCampaignsResponse>;

    async fn tail(&self, request: Request<TailRequest>) -> Answer<Self::TailStream> {
        let request = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let shield = self.clone();
        let mut next = request.from.map_or(0, |from| from.index);
        if next > self.log.lock().unwrap().size() {
            return Err(Reason::PositionOutOfRange.status("beyond the end"));
        }
        if next < *self.begins_at.lock().unwrap() {
            return Err(Reason::PositionOutOfRange.status("pruned"));
        }
        tokio::spawn(async move {
            let mut sent = 0;
            loop {
                while let Some(batch) = shield.batch(&mut next, &mut sent, &request.client) {
                    shield.step();
                    if sender.send(Ok(batch)).await.is_err() {
                        return;
                    }
                }
                if !request.follow {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await; // the fake looks again now and then
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn get_checkpoint(&self, request: Request<GetCheckpointRequest>) -> Answer<GetCheckpointResponse> {
        self.step();
        let min_size = request.into_inner().min_size;
        let log = self.log.lock().unwrap();
        let mut signed = self.signed.lock().unwrap();
        if min_size > *signed {
            *signed = log.size();
        }
        if min_size > *signed {
            return Err(Reason::PositionOutOfRange.status("the log is shorter"));
        }
        Ok(Response::new(GetCheckpointResponse { checkpoint: log.signed(*signed), size: *signed, rotations: log.rotations.clone() }))
    }

    async fn get_proof(&self, request: Request<GetProofRequest>) -> Answer<GetProofResponse> {
        let request = request.into_inner();
        *self.proofs.lock().unwrap() += 1;
        let proof = self.log.lock().unwrap().tree.multiproof(&request.indices, request.size).unwrap();
        Ok(Response::new(GetProofResponse { proof: proof.iter().map(|h| h.to_vec().into()).collect() }))
    }

    async fn record(&self, request: Request<RecordRequest>) -> Answer<RecordResponse> {
        self.step();
        let mut request = request.into_inner();
        let recorded = match request.source.as_str() {
            "" => self.take(request.items.remove(0)),
            _ => self.take_accesses(request),
        };
        self.step();
        recorded
    }

    async fn check(&self, _: Request<CheckRequest>) -> Answer<CheckResponse> {
        not_asked()
    }
    async fn reserve(&self, _: Request<ReserveRequest>) -> Answer<ReserveResponse> {
        not_asked()
    }
    async fn settle(&self, _: Request<SettleRequest>) -> Answer<SettleResponse> {
        not_asked()
    }
    async fn void(&self, _: Request<VoidRequest>) -> Answer<VoidResponse> {
        not_asked()
    }
    async fn lease(&self, _: Request<LeaseRequest>) -> Answer<LeaseResponse> {
        not_asked()
    }
    async fn renew(&self, _: Request<RenewRequest>) -> Answer<RenewResponse> {
        not_asked()
    }
    async fn mark(&self, _: Request<MarkRequest>) -> Answer<MarkResponse> {
        not_asked()
    }
    async fn r#return(&self, _: Request<ReturnRequest>) -> Answer<ReturnResponse> {
        not_asked()
    }
    async fn get_budget(&self, _: Request<GetBudgetRequest>) -> Answer<GetBudgetResponse> {
        not_asked()
    }
    async fn put_campaign(&self, _: Request<PutCampaignRequest>) -> Answer<PutCampaignResponse> {
        not_asked()
    }
    async fn put_terms(&self, _: Request<PutTermsRequest>) -> Answer<PutTermsResponse> {
        not_asked()
    }
    async fn validate_policy(&self, _: Request<ValidatePolicyRequest>) -> Answer<ValidatePolicyResponse> {
        not_asked()
    }
    async fn stage_policy(&self, _: Request<StagePolicyRequest>) -> Answer<StagePolicyResponse> {
        not_asked()
    }
    async fn get_policy(&self, _: Request<GetPolicyRequest>) -> Answer<GetPolicyResponse> {
        not_asked()
    }
    async fn explain(&self, _: Request<ExplainRequest>) -> Answer<ExplainResponse> {
        not_asked()
    }
    async fn put_limits(&self, _: Request<PutLimitsRequest>) -> Answer<PutLimitsResponse> {
        not_asked()
    }
    async fn adjust(&self, _: Request<AdjustRequest>) -> Answer<AdjustResponse> {
        not_asked()
    }
    async fn unseal(&self, _: Request<UnsealRequest>) -> Answer<UnsealResponse> {
        not_asked()
    }
    async fn erase_subject(&self, _: Request<EraseSubjectRequest>) -> Answer<EraseSubjectResponse> {
        not_asked()
    }
    async fn reconcile(&self, _: Request<ReconcileRequest>) -> Answer<ReconcileResponse> {
        not_asked()
    }
    async fn get_consistency(&self, _: Request<GetConsistencyRequest>) -> Answer<GetConsistencyResponse> {
        not_asked()
    }
    async fn put_policy(&self, _: Request<PutPolicyRequest>) -> Answer<PutPolicyResponse> {
        not_asked()
    }
    async fn watch_policy(&self, _: Request<WatchPolicyRequest>) -> Answer<Self::WatchPolicyStream> {
        not_asked()
    }
    async fn watch_campaigns(&self, _: Request<WatchCampaignsRequest>) -> Answer<Self::WatchCampaignsStream> {
        not_asked()
    }
}
