//! The records of the event log: protobuf, so that a later version may add fields and still read these.
//!
//! A record is applied whole or not at all: what came from SyncShield's log stands in one record with the position behind it.

use kiki::clock::UnixMicros;
use kiki::ids::{ClientId, CustomerKey};
use kiki::money::Currency;
use prost::Message;

use crate::domain::accuracy::Attributed;
use crate::domain::customer::{Event, EventId};
use crate::domain::market::{MarketId, Observed};

/// The most events in one record. The largest event is 135 bytes (client 65, currency 5, customer 18, event id 9, at and value
/// 11 each, items 6, and its head 3, with room); 256 of them and a position are 35 kB of the 65 kB that a frame holds.
pub(crate) const MAX_EVENTS: usize = 256;

/// One frame of the log.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// What happened, in order; at most [`MAX_EVENTS`].
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<Observation>,
    /// Up to where SyncShield's log has been read with this record.
    #[prost(message, optional, tag = "2")]
    pub followed: Option<Followed>,
    /// A customer of a client who is to be forgotten, in all currencies. The record has no events then.
    #[prost(message, optional, tag = "3")]
    pub erased: Option<Erased>,
    /// Customers whom SyncShield's log says were attributed; together with the events at most [`MAX_EVENTS`].
    #[prost(message, repeated, tag = "4")]
    pub attributed: Vec<Attribution>,
}

/// A customer who was attributed to a campaign: see [`Attributed`].
#[derive(Clone, PartialEq, Message)]
pub struct Attribution {
    /// Whose, the purchase, when, and what it was worth.
    #[prost(message, optional, tag = "1")]
    pub purchase: Option<Observation>,
    /// What was predicted, micros.
    #[prost(sint64, tag = "2")]
    pub predicted_micros: i64,
    /// Over so many days.
    #[prost(uint32, tag = "3")]
    pub horizon_days: u32,
}

/// A customer who is to be forgotten.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Erased {
    /// The client.
    #[prost(string, tag = "1")]
    pub client: String,
    /// The customer's pseudonym, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub customer: Vec<u8>,
}

/// An event of a customer.
#[derive(Clone, PartialEq, Message)]
pub struct Observation {
    /// The client.
    #[prost(string, tag = "1")]
    pub client: String,
    /// ISO 4217.
    #[prost(string, tag = "2")]
    pub currency: String,
    /// The customer's pseudonym, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub customer: Vec<u8>,
    /// See [`EventId`].
    #[prost(fixed64, tag = "4")]
    pub event_id: u64,
    /// Microseconds since 1970.
    #[prost(sint64, tag = "5")]
    pub at: i64,
    /// Micros of the currency; negative for a refund.
    #[prost(sint64, tag = "6")]
    pub value_micros: i64,
    /// Units; 0 where unknown.
    #[prost(uint32, tag = "7")]
    pub items: u32,
}

/// A place in SyncShield's log.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Followed {
    /// Which log.
    #[prost(string, tag = "1")]
    pub log_id: String,
    /// The next index to be read.
    #[prost(uint64, tag = "2")]
    pub next_index: u64,
}

impl From<&Observed> for Observation {
    fn from(observed: &Observed) -> Self {
        Self {
            client: observed.market.client.as_str().into(),
            currency: observed.market.currency.code().into(),
            customer: observed.customer.0.to_vec(),
            event_id: observed.event.id.0,
            at: observed.event.at.0,
            value_micros: observed.event.value_micros,
            items: observed.event.items,
        }
    }
}

impl TryFrom<&Observation> for Observed {
    type Error = String;

    fn try_from(record: &Observation) -> Result<Self, String> {
        let client = ClientId::parse(&record.client).map_err(|e| e.to_string())?;
        let currency = Currency::parse(&record.currency).map_err(|e| e.to_string())?;
        let customer = CustomerKey::from_bytes(&record.customer).ok_or("customer: not 16 bytes")?;
        let event =
            Event { id: EventId(record.event_id), at: UnixMicros(record.at), value_micros: record.value_micros, items: record.items };
        Ok(Self { market: MarketId { client, currency }, customer, event })
    }
}

impl From<&Attributed> for Attribution {
    fn from(attributed: &Attributed) -> Self {
        let Attributed { market, customer, event, at, value_micros, predicted_micros, horizon_days } = attributed.clone();
        let event = Event { id: event, at, value_micros, items: 0 };
        Self { purchase: Some((&Observed { market, customer, event }).into()), predicted_micros, horizon_days }
    }
}

impl TryFrom<&Attribution> for Attributed {
    type Error = String;

    fn try_from(record: &Attribution) -> Result<Self, String> {
        let Observed { market, customer, event } = record.purchase.as_ref().ok_or("purchase: missing")?.try_into()?;
        let Event { id, at, value_micros, .. } = event;
        let Attribution { predicted_micros, horizon_days, .. } = *record;
        Ok(Self { market, customer, event: id, at, value_micros, predicted_micros, horizon_days })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_largest_record_fits_a_frame() {
        let observation = Observation {
            client: "c".repeat(kiki::ids::MAX_ID),
            currency: "USD".into(),
            customer: vec![255; 16],
            event_id: u64::MAX,
            at: i64::MIN,
            value_micros: i64::MIN,
            items: u32::MAX,
        };
        let followed = Some(Followed { log_id: "l".repeat(300), next_index: u64::MAX });
        let attribution = Attribution { purchase: Some(observation.clone()), predicted_micros: i64::MIN, horizon_days: u32::MAX };
        let events = Record { events: vec![observation.clone(); MAX_EVENTS], followed: followed.clone(), ..Record::default() };
        let attributed = Record { attributed: vec![attribution.clone(); MAX_EVENTS], followed, ..Record::default() };
        for record in [events, attributed] {
            assert!(record.encoded_len() <= kiki::framed::MAX_PAYLOAD, "{}", record.encoded_len());
        }
        let kept = Attribution::from(&Attributed::try_from(&attribution).unwrap());
        assert_eq!(kept, Attribution { purchase: Some(Observation { items: 0, ..observation.clone() }), ..attribution });
        let observed = Observed::try_from(&observation).unwrap();
        assert_eq!(Observation::from(&observed), observation);
    }
}
