//! gRPC: decode, one call of the ledger, encode.

mod admin;
mod budgets;
mod convert;
mod policy;
mod streams;
mod subjects;

use std::pin::Pin;
use std::time::Duration;

use kiki::caller::Caller;
use kiki::leaf;
use kiki::money::Micros;
use kiki::pb::syncshield::v1 as pb;
use kiki::runtime::Readers;
use kiki::status::{self, Reason};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub use streams::CAMPAIGNS_A_MESSAGE;

use crate::domain::ledger::{Closing, LeaseAsk, Ledger, MAX_ITEMS};
use crate::domain::refusal::Refusal;
use crate::shadow;
use crate::store::Log;
use crate::subjects::Subjects;
pub(crate) use admin::Admin;
use budgets::{View, view};
pub(crate) use convert::check;
use convert::{items, recorded, slot_results};

/// Indices of one proof: 32 MiB of hashes at the most.
const MAX_PROOF: usize = 1 << 20;

type Answer<T> = Result<Response<T>, Status>;
type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(crate) struct Service {
    log: Log,
    subjects: Subjects,
    lease_ttl: Duration,
    readers: Readers,
    shutdown: CancellationToken,
}

impl Service {
    pub(crate) fn new(log: Log, subjects: Subjects, config: &crate::Config, shutdown: CancellationToken) -> Self {
        let readers = Readers::new(streams::MAX_READERS, streams::READERS_OF_ONE);
        Self { log, subjects, lease_ttl: Duration::from_secs(config.lease_ttl_secs), readers, shutdown }
    }

    fn at(&self, index: u64) -> Option<leaf::Position> {
        Some(leaf::Position { log_id: self.log.id().to_owned(), index })
    }

    async fn leased(&self, ask: LeaseAsk) -> Result<(bool, View), Status> {
        convert::check_key("key", &ask.key)?;
        convert::check_key("holder", &ask.holder)?;
        if !ask.platform.is_empty() {
            convert::check_key("platform", &ask.platform)?;
        }
        let run = move |ledger: &mut Ledger| {
            let granted = ledger.lease(&ask)?;
            let lease = granted.lease.ok_or(Refusal::LeaseEnded { lease_id: granted.lease_id })?;
            Ok((granted.duplicate, view(ledger, &ask.client, &ask.campaign, Some((granted.lease_id, &lease)))?))
        };
        Ok(self.log.run(run).await?)
    }
}

/// Money is moved by the platform's own services alone: a tenant that could close its own slots could set its own fee.
#[tonic::async_trait]
impl pb::sync_shield_service_server::SyncShieldService for Service {
    async fn check(&self, request: Request<pb::CheckRequest>) -> Answer<pb::CheckResponse> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        caller.act_for(&request.client)?;
        Ok(Response::new(convert::check(&self.log, &request)?))
    }

    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Answer<pb::ReserveResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for_all()?;
        if r.max_nanos <= 0 {
            return Err(status::field("max_nanos", format!("{} is not above 0", r.max_nanos)));
        }
        // A hold is in whole micros: up, so that it covers the price.
        let amount = Micros::new(r.max_nanos / 1_000 + i64::from(r.max_nanos % 1_000 > 0));
        let (ttl, least) = (self.lease_ttl, amount);
        let ask = LeaseAsk {
            key: r.key,
            client: r.client,
            campaign: r.campaign,
            holder: r.holder,
            amount,
            least,
            mark: (1, 0),
            ttl,
            reservation: true,
            platform: r.platform,
        };
        let (duplicate, view) = self.leased(ask).await?;
        Ok(Response::new(pb::ReserveResponse { grant: view.grant, duplicate }))
    }

    async fn lease(&self, request: Request<pb::LeaseRequest>) -> Answer<pb::LeaseResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for_all()?;
        let (amount, least) = (Micros::new(r.amount_micros), Micros::new(r.least_micros));
        let (ttl, mark) = (self.lease_ttl, (r.mark_sequence, r.mark_nanos));
        let (key, client, campaign, holder, platform) = (r.key, r.client, r.campaign, r.holder, r.platform);
        let ask = LeaseAsk { key, client, campaign, holder, amount, least, mark, ttl, reservation: false, platform };
        let (_, View { grant, counts, budget }) = self.leased(ask).await?;
        Ok(Response::new(pb::LeaseResponse { grant, counts, budget }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Answer<pb::RenewResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for_all()?;
        let ttl = self.lease_ttl;
        let run = move |ledger: &mut Ledger| {
            let lease = ledger.renew(&r.client, &r.campaign, r.lease_id, r.epoch, ttl)?;
            view(ledger, &r.client, &r.campaign, Some((r.lease_id, &lease)))
        };
        let View { grant, counts, budget } = self.log.run(run).await?;
        Ok(Response::new(pb::RenewResponse { grant, counts, budget }))
    }

    async fn mark(&self, request: Request<pb::MarkRequest>) -> Answer<pb::MarkResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for_all()?;
        let (sequence, amount_nanos) = (r.sequence, r.amount_nanos);
        let mark = leaf::SpendMark { lease_id: r.lease_id, epoch: r.epoch, sequence, amount_nanos, campaign: r.campaign };
        self.log.run(move |ledger| ledger.mark(&r.client, mark)).await?;
        Ok(Response::new(pb::MarkResponse { sequence, amount_nanos }))
    }

    async fn r#return(&self, request: Request<pb::ReturnRequest>) -> Answer<pb::ReturnResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for_all()?;
        let returned = leaf::LeaseReturned {
            lease_id: r.lease_id,
            epoch: r.epoch,
            sequence: r.sequence,
            amount_nanos: r.amount_nanos,
            campaign: r.campaign,
        };
        let freed = self.log.run(move |ledger| ledger.give_back(&r.client, returned)).await?;
        Ok(Response::new(pb::ReturnResponse { freed_nanos: i64::try_from(freed).unwrap_or(i64::MAX) }))
    }

    async fn settle(&self, request: Request<pb::SettleRequest>) -> Answer<pb::SettleResponse> {
        let caller = Caller::of(&request);
        let items = request.into_inner().items;
        caller.act_for_all()?;
        convert::at_most("items", items.len(), MAX_ITEMS)?;
        let mut closings = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let what = convert::settlement(i, item.settlement)?;
            closings.push(Closing { client: item.client, campaign: item.campaign, lease_id: item.lease_id, what });
        }
        let outcomes = self.log.run(move |ledger| Ok(ledger.settle(closings))).await?;
        Ok(Response::new(pb::SettleResponse { results: slot_results(outcomes) }))
    }

    async fn void(&self, request: Request<pb::VoidRequest>) -> Answer<pb::VoidResponse> {
        let caller = Caller::of(&request);
        let items = request.into_inner().items;
        caller.act_for_all()?;
        convert::at_most("items", items.len(), MAX_ITEMS)?;
        let mut closings = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let what = convert::void(i, item.void)?;
            closings.push(Closing { client: item.client, campaign: item.campaign, lease_id: item.lease_id, what });
        }
        let outcomes = self.log.run(move |ledger| Ok(ledger.void(closings))).await?;
        Ok(Response::new(pb::VoidResponse { results: slot_results(outcomes) }))
    }

    async fn get_budget(&self, request: Request<pb::GetBudgetRequest>) -> Answer<pb::GetBudgetResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for(&r.client)?;
        Ok(Response::new(self.log.run(move |ledger| budgets::get(ledger, &r.client, &r.campaign)).await?))
    }

    async fn record(&self, request: Request<pb::RecordRequest>) -> Answer<pb::RecordResponse> {
        let caller = Caller::of(&request);
        let mut r = request.into_inner();
        if !r.source.is_empty() {
            convert::check_key("source", &r.source)?;
        }
        let personal = subjects::take(&mut r.items)?;
        let mut items = items(&caller, r.items)?;
        subjects::seal(&self.log, &self.subjects, &mut items, personal).await?;
        let (source, source_seq) = (r.source, r.source_seq);
        let judged = shadow::judge(&self.log.catalog().borrow(), &items);
        let results = self.log.run(move |ledger| ledger.record(&source, source_seq, items)).await?;
        if let Some((version, counts)) = judged.filter(|_| !results.iter().any(|recorded| recorded.duplicate)) {
            self.log.shadow().add(version, &counts);
        }
        Ok(Response::new(pb::RecordResponse { results: results.into_iter().map(|r| recorded(self.log.id(), r)).collect() }))
    }

    type TailStream = Streaming<pb::TailResponse>;

    async fn tail(&self, request: Request<pb::TailRequest>) -> Answer<Self::TailStream> {
        let (caller, reader) = (Caller::of(&request), self.readers.enter(&request)?);
        let r = request.into_inner();
        if r.client.is_empty() {
            caller.act_for_all()?
        } else {
            caller.act_for(&r.client)?
        }
        let from = convert::position(&self.log, "from", r.from.clone())?;
        Ok(Response::new(streams::tail(self.log.clone(), from, r, reader, self.shutdown.clone())))
    }

    async fn get_checkpoint(&self, request: Request<pb::GetCheckpointRequest>) -> Answer<pb::GetCheckpointResponse> {
        // First, so that they lead no further than the checkpoint's key: the first checkpoint behind a change is by both.
        let rotations = self.log.rotations().to_string();
        let pb::GetCheckpointRequest { min_size, cosigned } = request.into_inner();
        let signed = match self.log.cosigned_checkpoint().filter(|signed| cosigned && signed.size >= min_size) {
            Some(signed) => (*signed).clone(),
            None if cosigned => return Err(Reason::NotFound.status("no witness has cosigned a checkpoint of that size yet")),
            None => self.log.checkpoint(min_size).await?,
        };
        Ok(Response::new(pb::GetCheckpointResponse { checkpoint: signed.note.to_string(), size: signed.size, rotations }))
    }

    async fn get_proof(&self, request: Request<pb::GetProofRequest>) -> Answer<pb::GetProofResponse> {
        let r = request.into_inner();
        convert::at_most("indices", r.indices.len(), MAX_PROOF)?;
        convert::check_log(&self.log, "log_id", &r.log_id)?;
        let log = self.log.clone();
        let proof = tokio::task::spawn_blocking(move || log.proof(&r.indices, r.size)).await;
        let proof = proof.map_err(|e| Reason::Internal.status(e.to_string()))??;
        Ok(Response::new(pb::GetProofResponse { proof: proof.into_iter().map(|hash| hash.to_vec().into()).collect() }))
    }

    async fn get_consistency(&self, request: Request<pb::GetConsistencyRequest>) -> Answer<pb::GetConsistencyResponse> {
        let r = request.into_inner();
        convert::check_log(&self.log, "log_id", &r.log_id)?;
        let new_size = if r.new_size == 0 { self.log.checkpoint(0).await?.size } else { r.new_size };
        let proof = self.log.consistency_proof(r.old_size, new_size)?;
        Ok(Response::new(pb::GetConsistencyResponse { proof: proof.into_iter().map(|hash| hash.to_vec().into()).collect(), new_size }))
    }

    async fn put_campaign(&self, request: Request<pb::PutCampaignRequest>) -> Answer<pb::PutCampaignResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for(&r.client)?;
        convert::check_client(&r.client)?;
        let campaign = r.campaign.ok_or_else(|| status::field("campaign", "is missing"))?;
        let (recorded, version) = self.log.run(move |ledger| ledger.put_campaign(&r.client, campaign)).await?;
        Ok(Response::new(pb::PutCampaignResponse { position: self.at(recorded.index), version }))
    }

    async fn put_terms(&self, request: Request<pb::PutTermsRequest>) -> Answer<pb::PutTermsResponse> {
        // A tenant does not set its own fee.
        Caller::of(&request).act_for_all()?;
        let r = request.into_inner();
        convert::check_client(&r.client)?;
        let terms = r.terms.ok_or_else(|| status::field("terms", "is missing"))?;
        let (recorded, version) = self.log.run(move |ledger| ledger.put_terms(&r.client, terms)).await?;
        Ok(Response::new(pb::PutTermsResponse { position: self.at(recorded.index), version }))
    }

    async fn put_policy(&self, request: Request<pb::PutPolicyRequest>) -> Answer<pb::PutPolicyResponse> {
        Caller::of(&request).act_for_all()?;
        let r = request.into_inner();
        let policy = r.policy.ok_or_else(|| status::field("policy", "is missing"))?;
        let (recorded, compiled) = self.log.run(move |ledger| ledger.put_policy_as(policy, r.activate_now)).await?;
        let digest = compiled.digest.to_vec().into();
        Ok(Response::new(pb::PutPolicyResponse { position: self.at(recorded.index), version: compiled.version, digest }))
    }

    async fn validate_policy(&self, request: Request<pb::ValidatePolicyRequest>) -> Answer<pb::ValidatePolicyResponse> {
        Ok(Response::new(policy::validate(request.into_inner().policy)?))
    }

    async fn stage_policy(&self, request: Request<pb::StagePolicyRequest>) -> Answer<pb::StagePolicyResponse> {
        Caller::of(&request).act_for_all()?;
        Ok(Response::new(policy::stage(&self.log, request.into_inner()).await?))
    }

    async fn get_policy(&self, request: Request<pb::GetPolicyRequest>) -> Answer<pb::GetPolicyResponse> {
        Caller::of(&request).act_for_all()?;
        Ok(Response::new(policy::get(&self.log, request.into_inner().version).await?))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Answer<pb::ExplainResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for(&r.client)?;
        Ok(Response::new(policy::explain(&self.log, r).await?))
    }

    async fn put_limits(&self, request: Request<pb::PutLimitsRequest>) -> Answer<pb::PutLimitsResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for(&r.client)?;
        let limits = r.limits.ok_or_else(|| status::field("limits", "is missing"))?;
        let (recorded, version) = self.log.run(move |ledger| ledger.put_limits(&r.client, limits, r.expected_version)).await?;
        Ok(Response::new(pb::PutLimitsResponse { position: self.at(recorded.index), version }))
    }

    async fn adjust(&self, request: Request<pb::AdjustRequest>) -> Answer<pb::AdjustResponse> {
        // A tenant does not correct its own spend: its fee is computed from it.
        Caller::of(&request).act_for_all()?;
        let r = request.into_inner();
        let adjustment = r.adjustment.ok_or_else(|| status::field("adjustment", "is missing"))?;
        let recorded = self.log.run(move |ledger| ledger.adjust(&r.client, adjustment)).await?;
        Ok(Response::new(pb::AdjustResponse { position: self.at(recorded.index), duplicate: recorded.duplicate }))
    }

    async fn reconcile(&self, request: Request<pb::ReconcileRequest>) -> Answer<pb::ReconcileResponse> {
        Caller::of(&request).act_for_all()?;
        let report = budgets::report(request.into_inner())?;
        let done = self.log.run(move |ledger| ledger.reconcile(&report)).await?;
        Ok(Response::new(budgets::reconciled(done)))
    }

    async fn unseal(&self, request: Request<pb::UnsealRequest>) -> Answer<pb::UnsealResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for(&r.client)?;
        Ok(Response::new(subjects::unseal(&self.log, &self.subjects, r).await?))
    }

    async fn erase_subject(&self, request: Request<pb::EraseSubjectRequest>) -> Answer<pb::EraseSubjectResponse> {
        let caller = Caller::of(&request);
        let r = request.into_inner();
        caller.act_for(&r.client)?;
        Ok(Response::new(subjects::erase(&self.log, &self.subjects, r).await?))
    }

    type WatchPolicyStream = Streaming<pb::WatchPolicyResponse>;

    async fn watch_policy(&self, request: Request<pb::WatchPolicyRequest>) -> Answer<Self::WatchPolicyStream> {
        Caller::of(&request).act_for_all()?;
        let reader = self.readers.enter(&request)?;
        Ok(Response::new(streams::watch_policy(&self.log, reader, self.shutdown.clone())))
    }

    type WatchCampaignsStream = Streaming<pb::WatchCampaignsResponse>;

    async fn watch_campaigns(&self, request: Request<pb::WatchCampaignsRequest>) -> Answer<Self::WatchCampaignsStream> {
        let (caller, reader) = (Caller::of(&request), self.readers.enter(&request)?);
        let client = request.into_inner().client;
        if client.is_empty() {
            caller.act_for_all()?
        } else {
            caller.act_for(&client)?
        }
        Ok(Response::new(streams::watch_campaigns(&self.log, client, reader, self.shutdown.clone())))
    }
}
