//! A SyncShield and a SyncValue that keep their word in memory, and check that SyncFlow keeps its.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_server::{SyncShieldService, SyncShieldServiceServer};
use kiki::pb::syncshield::v1::{self as shield, record_item};
use kiki::pb::syncvalue::v1 as value;
use kiki::pb::syncvalue::v1::sync_value_service_server::{SyncValueService, SyncValueServiceServer};
use kiki::status::Reason;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A lease as the log knows it.
#[derive(Debug, Clone)]
pub struct Leased {
    pub epoch: u64,
    pub amount_nanos: i64,
    pub mark: (u32, i64),
    pub expires_at: UnixMicros,
    /// What each closed slot held, and what it was charged.
    pub closed: BTreeMap<u32, (i64, Option<i64>)>,
    pub returned: bool,
}

impl Leased {
    /// What of the budget it takes: all of it while it may be spent, what was marked once it cannot grow.
    fn committed(&self) -> i64 {
        let freed: i64 = self.closed.values().map(|(held, _)| held).sum();
        (if self.returned { self.mark.1 } else { self.amount_nanos }) - freed
    }
}

/// What SyncShield knows, and what it was told.
#[derive(Debug, Default)]
pub struct State {
    pub budget_nanos: i64,
    pub settled_nanos: i64,
    pub leases: BTreeMap<u64, Leased>,
    pub grants: u64,
    pub refusals: u64,
    pub renewals: u64,
    pub marks: u64,
    pub settlements: Vec<leaf::Settlement>,
    pub voids: Vec<leaf::Void>,
    pub decisions: Vec<(String, leaf::Decision)>,
    pub policy_digests: BTreeSet<Vec<u8>>,
    pub batches: BTreeMap<String, u64>,
    pub purchases: Vec<(String, shield::Purchase)>,
    pub counts: shield::CampaignCounts,
    /// The next so many batches are recorded and their answers lost.
    pub lose_answers: u32,
    /// The budget is paused.
    pub paused: bool,
    /// How often a lease was asked for while it was.
    pub asked_paused: u32,
    /// The platform of each lease.
    pub platforms: BTreeMap<u64, String>,
    /// The next so many returns, and renewals, are made and their answers lost.
    pub lose_returns: u32,
    pub lose_renewals: u32,
    /// The next so many marks, renewals and returns are refused by a full queue.
    pub overloaded: u32,
    /// Leases, marks and renewals find nobody there, and how often leases did.
    pub lost: bool,
    pub asked_lost: u32,
    /// The next so many renewals find nobody there.
    pub away: u32,
    /// After a start: ended leases are renewed.
    pub keeps_ended: bool,
    pub returns: Vec<shield::ReturnRequest>,
    keys: BTreeMap<String, u64>,
}

#[derive(Clone)]
pub struct Shield {
    pub state: Arc<Mutex<State>>,
    pub policy: watch::Sender<Option<leaf::Policy>>,
    pub campaigns: watch::Sender<Vec<shield::ClientCampaign>>,
    /// Whoever holds it keeps leases, marks and renewals unanswered.
    pub leases_wait: Arc<Semaphore>,
    /// The platform whose leases are never answered, and that one was asked for.
    pub mute: watch::Sender<(&'static str, bool)>,
    clock: Clock,
    ttl: Duration,
}

impl Shield {
    pub async fn start(clock: Clock, ttl: Duration, budget_nanos: i64) -> (Self, String) {
        let shield = Self::new(clock, ttl, budget_nanos);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(SyncShieldServiceServer::new(shield.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (shield, address)
    }

    /// The same without a socket: under paused time nothing but time itself takes time.
    pub fn start_in_memory(clock: Clock, ttl: Duration, budget_nanos: i64) -> (Self, tonic::transport::Channel) {
        let shield = Self::new(clock, ttl, budget_nanos);
        let (connections, incoming) = mpsc::channel::<Result<tokio::io::DuplexStream, std::io::Error>>(1);
        let server = tonic::transport::Server::builder().add_service(SyncShieldServiceServer::new(shield.clone()));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        let connect = move |_: tonic::transport::Uri| {
            let (here, there) = tokio::io::duplex(64 << 10);
            let connections = connections.clone();
            async move {
                connections.send(Ok(there)).await.unwrap();
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(here))
            }
        };
        let endpoint = tonic::transport::Endpoint::from_static("http://memory");
        (shield, endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
    }

    fn new(clock: Clock, ttl: Duration, budget_nanos: i64) -> Self {
        let state = Arc::new(Mutex::new(State { budget_nanos, ..Default::default() }));
        Self {
            state,
            policy: watch::Sender::new(None),
            campaigns: watch::Sender::new(vec![]),
            leases_wait: Arc::new(Semaphore::new(1)),
            mute: watch::Sender::new(("", false)),
            clock,
            ttl,
        }
    }

    fn grant(&self, client: String, campaign: String, id: u64, lease: &Leased) -> Option<shield::Grant> {
        let now = self.clock.now();
        Some(shield::Grant {
            lease_id: id,
            epoch: lease.epoch,
            client,
            campaign,
            currency: "USD".into(),
            amount_micros: lease.amount_nanos / 1_000,
            granted_at: Some(now.into()),
            expires_at: Some(lease.expires_at.into()),
            day_end: Some(now.plus(Duration::from_secs(86_400)).into()),
            slots: 65_536,
            mark_sequence: lease.mark.0,
            mark_nanos: lease.mark.1,
        })
    }
}

fn live(state: &mut State, id: u64, epoch: u64) -> Result<&mut Leased, Status> {
    let lease = state.leases.get_mut(&id).ok_or_else(|| Reason::NotFound.status("no lease"))?;
    if lease.returned {
        return Err(Reason::LeaseEnded.status("returned"));
    }
    if lease.epoch != epoch {
        return Err(Reason::StaleEpoch.status("stale"));
    }
    Ok(lease)
}

/// A live lease that has not come to its end either.
fn unexpired(state: &mut State, id: u64, epoch: u64, now: UnixMicros) -> Result<&mut Leased, Status> {
    busy(state)?;
    let lease = live(state, id, epoch)?;
    if now >= lease.expires_at { Err(Reason::LeaseEnded.status("expired")) } else { Ok(lease) }
}

fn busy(state: &mut State) -> Result<(), Status> {
    let full = state.overloaded > 0;
    state.overloaded -= u32::from(full);
    if full { Err(Reason::Overloaded.status("the queue is full")) } else { Ok(()) }
}

fn gone(state: &State) -> Result<(), Status> {
    if state.lost { Err(Status::unavailable("nobody is there")) } else { Ok(()) }
}

fn lost(left: &mut u32) -> Result<(), Status> {
    let lose = *left > 0;
    *left -= u32::from(lose);
    if lose { Err(Status::unavailable("the answer is lost")) } else { Ok(()) }
}

/// Closes a slot that was marked, once.
fn close(state: &mut State, id: u64, sequence: u32, max: i64, charge: Option<i64>) -> shield::SlotStatus {
    let Some(lease) = state.leases.get_mut(&id) else { return shield::SlotStatus::Refused };
    assert!(sequence < lease.mark.0, "slot {sequence} of lease {id} is above the mark {:?}", lease.mark);
    match lease.closed.get(&sequence) {
        Some((_, before)) if *before == charge => shield::SlotStatus::Duplicate,
        Some(_) => shield::SlotStatus::Conflict,
        None => {
            lease.closed.insert(sequence, (max, charge));
            shield::SlotStatus::Applied
        }
    }
}

fn result(status: shield::SlotStatus) -> shield::SlotResult {
    let reason = if status == shield::SlotStatus::Conflict { "closed before with another effect" } else { "" };
    shield::SlotResult { status: status.into(), reason: reason.into() }
}

#[tonic::async_trait]
impl SyncShieldService for Shield {
    async fn lease(&self, request: Request<shield::LeaseRequest>) -> Answer<shield::LeaseResponse> {
        let ask = request.into_inner();
        drop(self.leases_wait.acquire().await.unwrap());
        if self.mute.borrow().0 == ask.platform {
            self.mute.send_modify(|mute| mute.1 = true);
            return std::future::pending().await;
        }
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.lost {
            state.asked_lost += 1;
        }
        gone(&state)?;
        if state.paused {
            state.asked_paused += 1;
            return Err(Reason::CampaignInactive.status("campaign spring is paused with its client"));
        }
        let id = match state.keys.get(&ask.key) {
            Some(id) => *id,
            None => {
                let taken: i64 = state.leases.values().map(Leased::committed).sum();
                let available = state.budget_nanos - state.settled_nanos - taken;
                if ask.least_micros * 1_000 > available {
                    state.refusals += 1;
                    return Err(Reason::BudgetExhausted.status(format!("{available} left")));
                }
                state.grants += 1;
                let id = state.grants;
                let amount_nanos = (ask.amount_micros * 1_000).min(available / 1_000 * 1_000);
                let mark = (ask.mark_sequence, ask.mark_nanos.min(amount_nanos));
                let expires_at = now.plus(self.ttl);
                let closed = BTreeMap::new();
                state.leases.insert(id, Leased { epoch: 1, amount_nanos, mark, expires_at, closed, returned: false });
                state.keys.insert(ask.key.clone(), id);
                state.platforms.insert(id, ask.platform.clone());
                id
            }
        };
        let grant = self.grant(ask.client, ask.campaign, id, &state.leases[&id]);
        Ok(Response::new(shield::LeaseResponse { grant, counts: Some(state.counts), budget: None }))
    }

    async fn renew(&self, request: Request<shield::RenewRequest>) -> Answer<shield::RenewResponse> {
        drop(self.leases_wait.acquire().await.unwrap());
        let ask = request.into_inner();
        let mut state = self.state.lock();
        if state.paused {
            return Err(Reason::CampaignInactive.status("campaign spring is paused with its client"));
        }
        lost(&mut state.away)?;
        gone(&state)?;
        state.renewals += 1;
        let now = if state.keeps_ended { UnixMicros(0) } else { self.clock.now() };
        let lease = unexpired(&mut state, ask.lease_id, ask.epoch, now)?;
        lease.epoch += 1;
        lease.expires_at = self.clock.now().plus(self.ttl);
        let grant = self.grant(ask.client, ask.campaign, ask.lease_id, &lease.clone());
        lost(&mut state.lose_renewals)?;
        Ok(Response::new(shield::RenewResponse { grant, counts: Some(state.counts), budget: None }))
    }

    async fn mark(&self, request: Request<shield::MarkRequest>) -> Answer<shield::MarkResponse> {
        drop(self.leases_wait.acquire().await.unwrap());
        let ask = request.into_inner();
        let mut state = self.state.lock();
        gone(&state)?;
        state.marks += 1;
        let lease = unexpired(&mut state, ask.lease_id, ask.epoch, self.clock.now())?;
        assert!(ask.amount_nanos <= lease.amount_nanos, "a mark above its lease");
        lease.mark = (lease.mark.0.max(ask.sequence), lease.mark.1.max(ask.amount_nanos));
        Ok(Response::new(shield::MarkResponse { sequence: lease.mark.0, amount_nanos: lease.mark.1 }))
    }

    async fn r#return(&self, request: Request<shield::ReturnRequest>) -> Answer<shield::ReturnResponse> {
        let ask = request.into_inner();
        let mut state = self.state.lock();
        state.returns.push(ask.clone());
        busy(&mut state)?;
        let lease = live(&mut state, ask.lease_id, ask.epoch)?;
        assert!(ask.sequence <= lease.mark.0 && ask.amount_nanos <= lease.mark.1, "used above the mark");
        (lease.returned, lease.mark) = (true, (ask.sequence, ask.amount_nanos));
        let freed_nanos = lease.amount_nanos - ask.amount_nanos;
        lost(&mut state.lose_returns)?;
        Ok(Response::new(shield::ReturnResponse { freed_nanos }))
    }

    async fn settle(&self, request: Request<shield::SettleRequest>) -> Answer<shield::SettleResponse> {
        let mut state = self.state.lock();
        let mut results = Vec::new();
        for item in request.into_inner().items {
            let settlement = item.settlement.unwrap();
            let status = close(&mut state, item.lease_id, settlement.sequence, settlement.max_nanos, Some(settlement.price_nanos));
            if status == shield::SlotStatus::Applied {
                state.settled_nanos += settlement.price_nanos;
                state.settlements.push(settlement);
            }
            results.push(result(status));
        }
        Ok(Response::new(shield::SettleResponse { results }))
    }

    async fn void(&self, request: Request<shield::VoidRequest>) -> Answer<shield::VoidResponse> {
        let mut state = self.state.lock();
        let mut results = Vec::new();
        for item in request.into_inner().items {
            let void = item.void.unwrap();
            let status = close(&mut state, item.lease_id, void.sequence, void.max_nanos, None);
            if status == shield::SlotStatus::Applied {
                state.voids.push(void);
            }
            results.push(result(status));
        }
        Ok(Response::new(shield::VoidResponse { results }))
    }

    async fn record(&self, request: Request<shield::RecordRequest>) -> Answer<shield::RecordResponse> {
        let shield::RecordRequest { source, source_seq, items } = request.into_inner();
        let mut state = self.state.lock();
        let results = vec![shield::RecordResult::default(); items.len()];
        if !source.is_empty() {
            let last = state.batches.entry(source).or_default();
            if source_seq <= *last {
                return Ok(Response::new(shield::RecordResponse { results }));
            }
            assert_eq!(source_seq, *last + 1, "batches are gapless");
            *last = source_seq;
        }
        for item in items {
            match item.body.unwrap() {
                record_item::Body::Decisions(batch) => {
                    let batch = leaf::DecisionBatch::decode(batch).unwrap();
                    assert!(batch.decisions.len() <= 256);
                    state.policy_digests.insert(batch.policy_digest.to_vec());
                    let campaign = batch.campaign;
                    state.decisions.extend(batch.decisions.into_iter().map(|decision| (campaign.clone(), decision)));
                }
                record_item::Body::Purchase(purchase) => state.purchases.push((item.client, purchase)),
                other => panic!("{other:?}"),
            }
        }
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(shield::RecordResponse { results }))
    }

    async fn get_budget(&self, request: Request<shield::GetBudgetRequest>) -> Answer<shield::GetBudgetResponse> {
        let ask = request.into_inner();
        let settled_nanos = Some(i128::from(self.state.lock().settled_nanos).into());
        let budget = shield::Budget { client: ask.client, campaign: ask.campaign, settled_nanos, ..Default::default() };
        Ok(Response::new(shield::GetBudgetResponse { budget: Some(budget), limits: vec![] }))
    }

    type WatchPolicyStream = Stream_<shield::WatchPolicyResponse>;

    async fn watch_policy(&self, _: Request<shield::WatchPolicyRequest>) -> Answer<Self::WatchPolicyStream> {
        let policies = tokio_stream::wrappers::WatchStream::new(self.policy.subscribe());
        Ok(Response::new(Box::pin(policies.map(|policy| {
            let digest = policy.as_ref().map(|policy| kiki::guardrail::digest(policy).to_vec()).unwrap_or_default();
            Ok(shield::WatchPolicyResponse { policy, digest: digest.into() })
        }))))
    }

    type WatchCampaignsStream = Stream_<shield::WatchCampaignsResponse>;

    async fn watch_campaigns(&self, _: Request<shield::WatchCampaignsRequest>) -> Answer<Self::WatchCampaignsStream> {
        let all = tokio_stream::wrappers::WatchStream::new(self.campaigns.subscribe());
        Ok(Response::new(Box::pin(all.map(|campaigns| Ok(shield::WatchCampaignsResponse { campaigns, snapshot: true })))))
    }

    type TailStream = Stream_<shield::TailResponse>;

    async fn check(&self, _: Request<shield::CheckRequest>) -> Answer<shield::CheckResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn reserve(&self, _: Request<shield::ReserveRequest>) -> Answer<shield::ReserveResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn tail(&self, _: Request<shield::TailRequest>) -> Answer<Self::TailStream> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn get_checkpoint(&self, _: Request<shield::GetCheckpointRequest>) -> Answer<shield::GetCheckpointResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn get_proof(&self, _: Request<shield::GetProofRequest>) -> Answer<shield::GetProofResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn get_consistency(&self, _: Request<shield::GetConsistencyRequest>) -> Answer<shield::GetConsistencyResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn put_campaign(&self, _: Request<shield::PutCampaignRequest>) -> Answer<shield::PutCampaignResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn put_terms(&self, _: Request<shield::PutTermsRequest>) -> Answer<shield::PutTermsResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn validate_policy(&self, _: Request<shield::ValidatePolicyRequest>) -> Answer<shield::ValidatePolicyResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn stage_policy(&self, _: Request<shield::StagePolicyRequest>) -> Answer<shield::StagePolicyResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn get_policy(&self, _: Request<shield::GetPolicyRequest>) -> Answer<shield::GetPolicyResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn explain(&self, _: Request<shield::ExplainRequest>) -> Answer<shield::ExplainResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn put_limits(&self, _: Request<shield::PutLimitsRequest>) -> Answer<shield::PutLimitsResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn adjust(&self, _: Request<shield::AdjustRequest>) -> Answer<shield::AdjustResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn unseal(&self, _: Request<shield::UnsealRequest>) -> Answer<shield::UnsealResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn erase_subject(&self, _: Request<shield::EraseSubjectRequest>) -> Answer<shield::EraseSubjectResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn reconcile(&self, _: Request<shield::ReconcileRequest>) -> Answer<shield::ReconcileResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn put_policy(&self, _: Request<shield::PutPolicyRequest>) -> Answer<shield::PutPolicyResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
}

/// What SyncValue does with a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Manner {
    /// Answers with this.
    Answers(value::Prediction),
    /// Never answers.
    Hangs,
    /// Refuses the stream.
    Fails,
    /// Answers with this after so long.
    Slow(value::Prediction, Duration),
    /// Breaks the stream at every other message.
    Flaky(value::Prediction),
}

#[derive(Clone)]
pub struct Value {
    pub manner: Arc<Mutex<Manner>>,
    pub asked: Arc<Mutex<Vec<value::PredictRequest>>>,
    /// The stream that was opened last, for what nobody asked for, and whether it watches.
    pub stream: Arc<Mutex<Option<(PredictSender, bool)>>>,
    address: std::net::SocketAddr,
    /// Its process, which is a thread with a runtime of its own.
    life: Arc<Mutex<Option<Life>>>,
}

/// Weak, because a stream ends with its last sender.
pub type PredictSender = mpsc::WeakSender<Result<value::PredictStreamResponse, Status>>;

/// What ends it, and the thread.
type Life = (tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>);

impl Value {
    pub async fn start(manner: Manner) -> (Self, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let value =
            Self { manner: Arc::new(Mutex::new(manner)), asked: Arc::default(), stream: Arc::default(), address, life: Arc::default() };
        value.live_on(listener);
        (value, format!("http://{address}"))
    }

    /// Starts again, at the address that it had.
    pub fn live(&self) {
        self.live_on(std::net::TcpListener::bind(self.address).unwrap());
    }

    fn live_on(&self, listener: std::net::TcpListener) {
        let server = tonic::transport::Server::builder().add_service(SyncValueServiceServer::new(self.clone()));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! { served = serving => served.unwrap(), _ = ended => {} }
            });
        }); // the runtime and its connections end with the thread
        *self.life.lock() = Some((end, thread));
    }

    /// Ends in the middle of whatever it does.
    pub fn die(&self) {
        let (end, thread) = self.life.lock().take().unwrap();
        drop(end);
        thread.join().unwrap();
    }
}

#[tonic::async_trait]
impl SyncValueService for Value {
    type PredictStreamStream = ReceiverStream<Result<value::PredictStreamResponse, Status>>;
    type ObserveStream = ReceiverStream<Result<value::ObserveResponse, Status>>;

    async fn predict_stream(&self, request: Request<Streaming<value::PredictStreamRequest>>) -> Answer<Self::PredictStreamStream> {
        if *self.manner.lock() == Manner::Fails {
            return Err(Status::internal("fails"));
        }
        let watches = request.metadata().get(kiki::caller::WATCH).is_some_and(|value| value == "changes");
        let mut messages = request.into_inner();
        let (answers, reader) = mpsc::channel(8);
        *self.stream.lock() = Some((answers.downgrade(), watches));
        let value = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                value.asked.lock().extend(message.requests.iter().cloned());
                let manner = value.manner.lock().clone();
                match manner {
                    Manner::Answers(prediction) => {
                        let predictions = vec![prediction; message.requests.len()];
                        if answers.send(Ok(value::PredictStreamResponse { predictions, ..Default::default() })).await.is_err() {
                            return;
                        }
                    }
                    Manner::Slow(prediction, time) => {
                        tokio::time::sleep(time).await; // this is what slow means
                        let predictions = vec![prediction; message.requests.len()];
                        let _ = answers.send(Ok(value::PredictStreamResponse { predictions, ..Default::default() })).await;
                    }
                    Manner::Flaky(prediction) if value.asked.lock().len().is_multiple_of(2) => {
                        let predictions = vec![prediction; message.requests.len()];
                        let _ = answers.send(Ok(value::PredictStreamResponse { predictions, ..Default::default() })).await;
                    }
                    Manner::Hangs => {}
                    Manner::Fails | Manner::Flaky(_) => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(reader)))
    }

    async fn predict(&self, _: Request<value::PredictRequest>) -> Answer<value::PredictResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn predict_batch(&self, _: Request<value::PredictBatchRequest>) -> Answer<value::PredictBatchResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn observe(&self, _: Request<Streaming<value::ObserveRequest>>) -> Answer<Self::ObserveStream> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn explain(&self, _: Request<value::ExplainRequest>) -> Answer<value::ExplainResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn erase_customer(&self, _: Request<value::EraseCustomerRequest>) -> Answer<value::EraseCustomerResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn get_model(&self, _: Request<value::GetModelRequest>) -> Answer<value::GetModelResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
    async fn set_models(&self, _: Request<value::SetModelsRequest>) -> Answer<value::SetModelsResponse> {
        Err(Status::unimplemented("not asked by SyncFlow"))
    }
}
