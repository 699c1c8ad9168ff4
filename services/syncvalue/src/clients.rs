//! SyncShield's client: its log, as far as SyncValue cares.

use kiki::caller;
use kiki::clock::UnixMicros;
use kiki::ids::{ClientId, CustomerKey};
use kiki::leaf::{self, Conversion, Leaf, Outcome, Position, leaf::Body};
use kiki::money::Currency;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{TailRequest, TailResponse};
use kiki::runtime::{self, Channel, MAX_MESSAGE};
use prost_types::Timestamp;
use tonic::Streaming;
use tonic::metadata::MetadataValue;

use crate::domain::accuracy::Attributed;
use crate::domain::customer::{DAY_MICROS, Event, EventId};
use crate::domain::market::{MarketId, Observed};
use crate::error::Error;

/// A stream of the log's leaves, checked to be the next ones of one log.
pub(crate) struct Tail {
    stream: Streaming<TailResponse>,
    log_id: String,
    next_index: u64,
    /// The last Outcome's event and value: its Conversion, if there is one, is the next leaf.
    last: Option<(EventId, i64)>,
}

/// What one message of the stream brought.
pub(crate) struct Stretch {
    /// The log that it is of; empty while no leaf of it was seen.
    pub(crate) log_id: String,
    /// The index behind the stretch.
    pub(crate) next_index: u64,
    /// What is of use here, each with the index behind its leaf.
    pub(crate) found: Vec<(Found, u64)>,
}

/// What the log says of customers.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Outcome(Observed),
    /// To a campaign.
    Attributed(Attributed, String),
}

/// SyncShield's client, which connects when it is first used.
pub(crate) fn shield(address: &str) -> Result<SyncShieldServiceClient<Channel>, Error> {
    let channel = runtime::channel(address).map_err(|e| Error::Shield(format!("{address}: {e}")))?;
    Ok(SyncShieldServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

/// A call as one of the platform's services, where callers are taken at their word.
pub(crate) fn as_service<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(caller::ROLE, MetadataValue::from_static("service"));
    request
}

impl Tail {
    /// Follows the log of the SyncShield at `shield` from an index on. An empty `log_id` takes whichever log is there.
    pub(crate) async fn open(shield: &str, log_id: &str, next_index: u64) -> Result<Self, Error> {
        let mut client = self::shield(shield)?;
        let from = Position { log_id: log_id.into(), index: next_index };
        let request = TailRequest { from: Some(from), client: String::new(), follow: true, without_decisions: true };
        let stream = client.tail(as_service(request)).await.map_err(refused)?.into_inner();
        Ok(Self { stream, log_id: log_id.into(), next_index, last: None })
    }

    /// The next stretch, or none at the stream's end.
    pub(crate) async fn next(&mut self) -> Result<Option<Stretch>, Error> {
        let Some(message) = self.stream.message().await.map_err(refused)? else { return Ok(None) };
        let mut found = Vec::new();
        for entry in &message.entries {
            let (leaf, body) = self.checked(entry.index, &entry.leaf)?;
            match body {
                Body::Outcome(outcome) => {
                    let observed = observed(&leaf, &outcome).map_err(|e| inconsistent(entry.index, e))?;
                    self.last = Some((observed.event.id, observed.event.value_micros));
                    found.push((Found::Outcome(observed), self.next_index));
                }
                Body::Conversion(conversion) => {
                    let attributed = attributed(&leaf, &conversion, self.last).map_err(|e| inconsistent(entry.index, e))?;
                    found.push((Found::Attributed(attributed, conversion.campaign), self.next_index));
                }
                _ => {}
            }
        }
        if message.next_index < self.next_index {
            return Err(inconsistent(message.next_index, "the stream went back"));
        }
        self.next_index = message.next_index;
        Ok(Some(Stretch { log_id: self.log_id.clone(), next_index: self.next_index, found }))
    }

    /// A leaf of this log behind the one before. Decisions between them are not sent.
    fn checked(&mut self, index: u64, bytes: &[u8]) -> Result<(Leaf, Body), Error> {
        let (leaf, body) = leaf::decode_all_but_decisions(bytes).map_err(|e| inconsistent(index, e))?;
        if index < self.next_index || leaf.index != index {
            return Err(inconsistent(index, format!("index {} or more was to come, and the leaf says {}", self.next_index, leaf.index)));
        }
        if self.log_id.is_empty() {
            self.log_id.clone_from(&leaf.log_id);
        }
        if self.log_id != leaf.log_id {
            return Err(inconsistent(index, format!("it is of {:?}, and {:?} was followed", leaf.log_id, self.log_id)));
        }
        self.next_index = index + 1;
        Ok((leaf, body))
    }
}

fn refused(status: tonic::Status) -> Error {
    Error::Shield(format!("tail: {}", status.message()))
}

fn inconsistent(index: u64, why: impl std::fmt::Display) -> Error {
    Error::LogInconsistent(format!("leaf {index}: {why}"))
}

/// The event of an Outcome leaf.
fn observed(leaf: &Leaf, outcome: &Outcome) -> Result<Observed, String> {
    let (market, customer) = whose(leaf, &outcome.currency, &outcome.customer)?;
    let at = happened_at(leaf, outcome.occurred_at.as_ref())?;
    let event = Event { id: EventId::of(&outcome.event_id), at, value_micros: outcome.value_micros, items: 0 };
    Ok(Observed { market, customer, event })
}

/// What a Conversion leaf says; `last` is the Outcome before it.
fn attributed(leaf: &Leaf, conversion: &Conversion, last: Option<(EventId, i64)>) -> Result<Attributed, String> {
    let (market, customer) = whose(leaf, &conversion.currency, &conversion.customer)?;
    let at = happened_at(leaf, conversion.occurred_at.as_ref())?;
    let event = EventId::of(&conversion.event_id);
    let value_micros = last.filter(|(id, _)| *id == event).map_or(0, |(_, value)| value);
    let (predicted_micros, horizon_days) = (conversion.predicted_ltv_micros, conversion.horizon_days);
    Ok(Attributed { market, customer, event, at, value_micros, predicted_micros, horizon_days })
}

/// When what a leaf tells of happened. What says to be of later than a day after its record counts as of then, so that no mistaken date can age
/// all other customers, or let them mature.
fn happened_at(leaf: &Leaf, occurred_at: Option<&Timestamp>) -> Result<UnixMicros, String> {
    let occurred_at = UnixMicros::from_pb(occurred_at).ok_or("occurred_at: missing")?;
    let recorded_at = UnixMicros::from_pb(leaf.recorded_at.as_ref()).ok_or("recorded_at: missing")?;
    Ok(occurred_at.min(UnixMicros(recorded_at.0.saturating_add(DAY_MICROS))))
}

fn whose(leaf: &Leaf, currency: &str, customer: &[u8]) -> Result<(MarketId, CustomerKey), String> {
    let client = ClientId::parse(&leaf.client).map_err(|e| e.to_string())?;
    let currency = Currency::parse(currency).map_err(|e| e.to_string())?;
    let customer = CustomerKey::from_bytes(customer).ok_or("customer: not 16 bytes")?;
    Ok((MarketId { client, currency }, customer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_far_off_counts_as_of_a_day_after_its_record() {
        let leaf = Leaf { recorded_at: Some(UnixMicros(5).into()), ..Leaf::default() };
        let at = |micros: i64| happened_at(&leaf, Some(&UnixMicros(micros).into()));
        assert_eq!(
            [3, DAY_MICROS + 5, 400 * DAY_MICROS].map(at),
            [Ok(UnixMicros(3)), Ok(UnixMicros(DAY_MICROS + 5)), Ok(UnixMicros(DAY_MICROS + 5))]
        );
        assert!(happened_at(&leaf, None).is_err());
    }
}
