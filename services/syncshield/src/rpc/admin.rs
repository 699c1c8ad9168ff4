//! What the operator alone may do with a log.

use std::sync::Arc;

use kiki::caller::Caller;
use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::status;
use kiki::tlog::note::VerifyingKey;
use tonic::{Request, Response, Status};

use super::{Answer, Streaming, convert};
use crate::domain::moving::MAX_STATE;
use crate::store::Log;

/// A part of a client's state, well below the 4 MiB that a message may have.
const PART: usize = 1 << 20;

/// The service.
pub(crate) struct Admin {
    log: Log,
    /// The logs that clients are taken in from, by their keys.
    peers: Vec<VerifyingKey>,
}

impl Admin {
    pub(crate) fn new(log: Log, peers: Vec<VerifyingKey>) -> Self {
        Self { log, peers }
    }

    fn at(&self, index: u64) -> Option<leaf::Position> {
        Some(leaf::Position { log_id: self.log.id().to_owned(), index })
    }

    fn check_peer(&self, log_key: &str) -> Result<(), Status> {
        let key: VerifyingKey = log_key.parse().map_err(|e| status::field("log_key", e))?;
        if self.peers.contains(&key) {
            return Ok(());
        }
        Err(status::field("log_key", format!("{log_key} is not one of the {} logs that clients are taken in from", self.peers.len())))
    }
}

#[tonic::async_trait]
impl pb::sync_shield_admin_service_server::SyncShieldAdminService for Admin {
    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Answer<pb::RotateKeyResponse> {
        Caller::of(&request).operate()?;
        let pb::RotateKeyRequest { old_key, actor, reason } = request.into_inner();
        let rotated = self.log.rotate_key(old_key, actor, reason).await?;
        let position = self.at(rotated.change.index);
        Ok(Response::new(pb::RotateKeyResponse { position, new_key: rotated.change.new, duplicate: rotated.duplicate }))
    }

    type ExportClientStream = Streaming<pb::ExportClientResponse>;

    async fn export_client(&self, request: Request<pb::ExportClientRequest>) -> Answer<Self::ExportClientStream> {
        Caller::of(&request).operate()?;
        let pb::ExportClientRequest { client, to_log_id } = request.into_inner();
        convert::check_client(&client)?;
        let exported = self.log.run(move |ledger| ledger.export_client(&client, &to_log_id)).await?;
        let (proof, log_key) = self.log.prove(exported.index).await?;
        let first = pb::ExportClientResponse { proof, log_key, state: bytes::Bytes::new() };
        let state = bytes::Bytes::from(exported.state);
        let parts = (0..state.len()).step_by(PART).map(move |at| state.slice(at..state.len().min(at + PART)));
        let parts = parts.map(|state| pb::ExportClientResponse { state, ..Default::default() });
        Ok(Response::new(Box::pin(tokio_stream::iter(std::iter::once(first).chain(parts).map(Ok)))))
    }

    async fn import_client(&self, request: Request<tonic::Streaming<pb::ImportClientRequest>>) -> Answer<pb::ImportClientResponse> {
        Caller::of(&request).operate()?;
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or_else(|| status::field("proof", "is missing"))?;
        self.check_peer(&first.log_key)?;
        let mut state = first.state.to_vec();
        while let Some(part) = parts.message().await? {
            convert::at_most("state bytes", state.len() + part.state.len(), MAX_STATE)?;
            state.extend_from_slice(&part.state);
        }
        let carried = Arc::new((first.proof, first.log_key, state));
        let arrived = self.log.run(move |ledger| ledger.import_client(&carried.0, &carried.1, &carried.2)).await?;
        let (position, client_seq) = (self.at(arrived.index), arrived.client_seq);
        Ok(Response::new(pb::ImportClientResponse { position, client_seq, duplicate: arrived.duplicate }))
    }
}
