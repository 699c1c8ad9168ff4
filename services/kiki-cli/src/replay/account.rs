//! What the log says of the run, read through SyncShield's own Tail, and what the services counted meanwhile.

use std::collections::BTreeMap;

use kiki::leaf::{self, PredictionStatus, leaf::Body};
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{GetCheckpointRequest, TailRequest};
use kiki::runtime::Channel;
use kiki::tlog::note::VerifyingKey;
use kiki::tlog::{Checkpoint, Frontier, leaf_hash};

use crate::error::{Doing as _, Failure, rpc};
use crate::http::Http;

/// How often more is read, because the log grew before it was signed: reading an invoice is recorded within a second of it, and each of
/// these waits for a signature.
const ROUNDS: u32 = 10;

/// Sums over the log.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) leaves: u64,
    /// Charged nanos by "client/campaign".
    pub(crate) settled: BTreeMap<String, i128>,
    pub(crate) settlements: u64,
    /// Bids that were recorded, and refusals.
    pub(crate) bids: u64,
    pub(crate) refusals: u64,
    /// Bids by how their prediction came about.
    pub(crate) fallback: u64,
    pub(crate) prior: u64,
    pub(crate) median: u64,
    /// Customers acquired, and what they were predicted to be worth, micros.
    pub(crate) conversions: u64,
    pub(crate) predicted_ltv_micros: i128,
    pub(crate) outcomes: u64,
    /// The tree over the leaves.
    tree: Frontier,
    log_id: String,
}

impl Account {
    /// Bids that a trained model priced.
    pub(crate) fn by_model(&self) -> u64 {
        self.bids - self.fallback - self.median - self.prior
    }

    /// Reads the whole log.
    pub(crate) async fn read(channel: Channel, log_id: &str) -> Result<Self, Failure> {
        let mut account = Self { log_id: log_id.to_owned(), ..Self::default() };
        account.read_on(&mut shield(channel)).await?;
        Ok(account)
    }

    /// Reads what came since.
    async fn read_on(&mut self, shield: &mut SyncShieldServiceClient<Channel>) -> Result<(), Failure> {
        let failed = |status: tonic::Status| rpc("reading the log", &status);
        let from = Some(kiki::pb::log::v1::Position { log_id: self.log_id.clone(), index: self.leaves });
        let mut tail = shield.tail(TailRequest { from, ..Default::default() }).await.map_err(failed)?.into_inner();
        while let Some(message) = tail.message().await.map_err(failed)? {
            for entry in &message.entries {
                self.take(&entry.leaf).doing(format_args!("leaf {}", entry.index))?;
            }
        }
        Ok(())
    }

    /// Reads on until a checkpoint covers just what was read; how many leaves its signature is over.
    ///
    /// # Errors
    /// It is not signed by this key, or over other leaves.
    pub(crate) async fn signed(&mut self, channel: Channel, key: &VerifyingKey) -> Result<u64, String> {
        let mut shield = shield(channel);
        for _ in 0..ROUNDS {
            let request = GetCheckpointRequest { min_size: self.leaves, ..Default::default() };
            let answer = shield.get_checkpoint(request).await.map_err(|s| rpc("asking for a checkpoint", &s).to_string())?.into_inner();
            let signed = Checkpoint::open(answer.checkpoint.as_bytes(), &self.log_id, key).map_err(|e| e.to_string())?;
            match signed.size == self.leaves {
                true if signed.root == self.tree.root() => return Ok(signed.size),
                true => return Err(format!("the {} leaves that were read are not those that are signed", self.leaves)),
                false => self.read_on(&mut shield).await.map_err(|failure| failure.to_string())?,
            }
        }
        Err(format!("it grew after each of {ROUNDS} readings"))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), leaf::LeafError> {
        let (head, body) = leaf::decode(bytes)?;
        self.leaves += 1;
        self.tree.push(leaf_hash(bytes));
        match body {
            Body::Settlements(batch) => {
                self.settlements += batch.settlements.len() as u64;
                let sum: i128 = batch.settlements.iter().map(|s| i128::from(s.price_nanos)).sum();
                *self.settled.entry(format!("{}/{}", head.client, batch.campaign)).or_default() += sum;
            }
            Body::Decisions(batch) => {
                for decision in &batch.decisions {
                    if decision.refusals != 0 {
                        self.refusals += 1;
                        continue;
                    }
                    self.bids += 1;
                    self.fallback += u64::from(decision.prediction_status() == PredictionStatus::Fallback);
                    self.median += u64::from(decision.prediction_status() == PredictionStatus::Median);
                    self.prior += u64::from(decision.prediction_status() == PredictionStatus::Prior);
                }
            }
            Body::Conversion(conversion) => {
                self.conversions += 1;
                self.predicted_ltv_micros += i128::from(conversion.predicted_ltv_micros);
            }
            Body::Outcome(_) => self.outcomes += 1,
            _ => {}
        }
        Ok(())
    }
}

fn shield(channel: Channel) -> SyncShieldServiceClient<Channel> {
    SyncShieldServiceClient::new(channel).max_decoding_message_size(kiki::runtime::MAX_MESSAGE)
}

/// What SyncFlow counted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counters {
    /// Predictions that really came late: a run with any depends on the machine.
    pub(crate) late: u64,
    /// How often circuit breakers changed state.
    pub(crate) breaker_changes: u64,
}

impl Counters {
    /// Reads SyncFlow's metrics.
    pub(crate) async fn read(flow_http: &str) -> Result<Self, Failure> {
        let answer = Http::new().get(&format!("{flow_http}/metrics")).await?;
        let text = String::from_utf8_lossy(&answer.body);
        Ok(Self { late: sum(&text, "syncflow_predictions_late_total"), breaker_changes: sum(&text, "syncflow_circuit_breaker_changes") })
    }
}

/// The sum of a metric over its labels.
pub(crate) fn sum(text: &str, name: &str) -> u64 {
    let value = |line: &str| {
        line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])).and_then(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
    };
    text.lines().filter_map(value).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# HELP a_total x\na_total{p=\"x\"} 2\na_total{p=\"y\"} 3\na_total_more 9\nb 7\n";
        assert_eq!((sum(text, "a_total"), sum(text, "b"), sum(text, "c")), (5, 7, 0));
    }
}
