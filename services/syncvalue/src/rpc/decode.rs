//! From messages to what the domain knows, with every limit that a field has.

use kiki::caller::Caller;
use kiki::clock::UnixMicros;
use kiki::ids::{self, ClientId, CustomerKey, Pseudonyms};
use kiki::money::Currency;
use kiki::pb::syncvalue::v1 as pb;
use prost::Message;
use tonic::Status;

use super::wire::read::{self, Asking};
use crate::domain::customer::{self, Customer, DAY_MICROS, EventId, MAX_VALUE_MICROS};
use crate::domain::market::{MarketId, Observed, customer_of};
use crate::domain::predictor::MAX_HORIZON_DAYS;
use crate::error::Error;
use crate::store::states::Key;

/// Questions in one message: 1,024 of about 100 bytes; what SyncFlow sends together is 511 at the most.
pub(super) const MAX_REQUESTS: usize = 1_024;
/// Events in one message of Observe: 4,096 of at most 300 bytes are 1.2 MB of the 8 MiB that a message may have.
pub(super) const MAX_EVENTS: usize = 4_096;
/// Events of one history: a purchase a day for 270 years; 4 MB, 20 ms.
const MAX_HISTORY: usize = 100_000;
/// The longest event id, in bytes.
const MAX_EVENT_ID: usize = 63;
/// How far ahead of "now" an event may be: a day, for clocks that are wrong and zones that were mistaken for UTC.
const MAX_AHEAD_MICROS: i64 = DAY_MICROS;

/// Questions about one market, checked: it is looked up once for all of them.
pub(super) struct Questions<'m> {
    pub(super) market: MarketId,
    pub(super) questions: Vec<Question<'m>>,
}

/// A question, checked.
pub(super) struct Question<'m> {
    pub(super) subject: Subject,
    pub(super) horizon_days: u32,
    pub(super) at: UnixMicros,
    pub(super) campaign: &'m str,
}

/// Whose value is asked for.
pub(super) enum Subject {
    Customer(CustomerKey),
    History(Box<Customer>),
}

impl Questions<'_> {
    /// Who they are about, one for each; none for a history.
    pub(super) fn keys(&self) -> impl Iterator<Item = Option<Key>> {
        self.questions.iter().map(|question| Some(Key { market: self.market.clone(), customer: question.key()? }))
    }
}

impl Question<'_> {
    /// Whose value is asked for; none: of a history that nobody observed.
    pub(super) fn key(&self) -> Option<CustomerKey> {
        match &self.subject {
            Subject::Customer(key) => Some(*key),
            Subject::History(_) => None,
        }
    }
}

impl Questions<'_> {
    /// Whether one may join them. A history may take 20 ms, and a market cannot change while it is read: each is read alone.
    fn take(&self, asking: &Asking<'_>) -> bool {
        let short = !matches!(asking.subject, Some(read::Subject::History(_)));
        short && (asking.as_before || self.market.client.as_str() == asking.client && self.market.currency.code() == asking.currency)
    }
}

/// What prost makes of a message that [`read`] leaves to it.
pub(super) fn by_prost<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message).map_err(|e| Status::internal(e.to_string())) // as tonic says it of any message
}

/// What decoding needs to know of the service.
pub(super) struct Decoder<'a> {
    pub(super) caller: &'a Caller,
    pub(super) names: &'a Pseudonyms,
    pub(super) horizon_days: u32,
    pub(super) now: UnixMicros,
}

impl Decoder<'_> {
    /// The questions of one message, of which there are `count`, in order; those behind one another that are about one market
    /// stand together.
    pub(super) fn questions<'m>(&self, all: &[Asking<'m>], count: usize) -> Result<Vec<Questions<'m>>, Status> {
        bounded("requests", count, MAX_REQUESTS)?;
        let mut runs: Vec<Questions<'m>> = Vec::new();
        for (i, asking) in all.iter().enumerate() {
            let within = |e: Error| e.within(&format!("requests[{i}]"));
            let run = match runs.last_mut().filter(|last| last.take(asking)) {
                Some(last) => last,
                None => {
                    self.caller.act_for(asking.client)?;
                    let market = market(asking.client, asking.currency).map_err(within)?;
                    let room = if i == 0 { all.len() } else { 0 }; // as a rule they are all about one
                    runs.push_mut(Questions { market, questions: Vec::with_capacity(room) })
                }
            };
            let question = match run.questions.last() {
                Some(Question { horizon_days, at, campaign, .. }) if asking.as_before => {
                    let (horizon_days, at, campaign) = (*horizon_days, *at, *campaign);
                    self.subject(asking, at).map(|subject| Question { subject, horizon_days, at, campaign })
                }
                _ => self.question(asking),
            };
            run.questions.push(question.map_err(within)?);
        }
        Ok(runs)
    }

    /// One question.
    pub(super) fn single<'m>(&self, asking: &Asking<'m>) -> Result<Questions<'m>, Status> {
        self.caller.act_for(asking.client)?;
        let market = market(asking.client, asking.currency)?;
        Ok(Questions { market, questions: vec![self.question(asking)?] })
    }

    fn question<'m>(&self, asking: &Asking<'m>) -> Result<Question<'m>, Error> {
        let Asking { campaign, horizon_days, .. } = *asking;
        let at = match &asking.at {
            None => self.now,
            at => UnixMicros::from_pb(at.as_ref()).ok_or_else(|| Error::field("at", "not a time in the years 1 to 9999"))?,
        };
        let horizon_days = if horizon_days == 0 { self.horizon_days } else { horizon_days };
        if horizon_days > MAX_HORIZON_DAYS {
            return Err(Error::field("horizon_days", format!("{horizon_days}; 1 to {MAX_HORIZON_DAYS} are taken")));
        }
        let subject = self.subject(asking, at)?;
        if campaign.len() > ids::MAX_ID {
            return Err(Error::field("campaign", format!("{} bytes; at most {} are taken", campaign.len(), ids::MAX_ID)));
        }
        Ok(Question { subject, horizon_days, at, campaign })
    }

    // Not inlined, it hands each key over through memory at an odd address, which costs as much as the rest of a question's check.
    #[inline(always)]
    fn subject(&self, asking: &Asking<'_>, at: UnixMicros) -> Result<Subject, Error> {
        Ok(match asking.subject {
            None => return Err(Error::field("subject", "one of customer, customer_key and history is needed")),
            Some(read::Subject::Customer(customer)) => Subject::Customer(self.named(asking.client, customer)?),
            Some(read::Subject::Key(key)) => Subject::Customer(key_of(key)?),
            Some(read::Subject::History(history)) => Subject::History(Box::new(customer_of(history_of(history, at)?))),
        })
    }

    /// The events of one message of Observe.
    pub(super) fn observed(&self, request: &pb::ObserveRequest) -> Result<Vec<Observed>, Status> {
        bounded("events", request.events.len(), MAX_EVENTS)?;
        let each = |(i, observed): (usize, &pb::ObservedEvent)| {
            self.caller.act_for(&observed.client)?;
            Ok(self.event(observed).map_err(|e| e.within(&format!("events[{i}]")))?)
        };
        request.events.iter().enumerate().map(each).collect()
    }

    /// The customer who is to be forgotten.
    pub(super) fn erased(&self, request: &pb::EraseCustomerRequest) -> Result<(ClientId, CustomerKey), Status> {
        use pb::erase_customer_request::Subject;
        self.caller.act_for(&request.client)?;
        let client = client(&request.client)?;
        let customer = match &request.subject {
            None => return Err(Error::field("subject", "one of customer and customer_key is needed").into()),
            Some(Subject::Customer(customer)) => self.named(&request.client, customer)?,
            Some(Subject::CustomerKey(key)) => key_of(key)?,
        };
        Ok((client, customer))
    }

    fn event(&self, observed: &pb::ObservedEvent) -> Result<Observed, Error> {
        let market = market(&observed.client, &observed.currency)?;
        let event = observed.event.as_ref().ok_or_else(|| Error::field("event", "missing"))?;
        let event = event_of(event, self.now).map_err(|e| e.within("event"))?;
        Ok(Observed { market, customer: self.named(&observed.client, &observed.customer)?, event })
    }

    fn named(&self, client: &str, customer: &str) -> Result<CustomerKey, Error> {
        // The error says `customer: ` itself.
        ids::check_customer(customer).map_err(|e| Error::field("customer", e.to_string().trim_start_matches("customer: ")))?;
        Ok(self.names.of(client, customer))
    }
}

fn key_of(key: &[u8]) -> Result<CustomerKey, Error> {
    CustomerKey::from_bytes(key).ok_or_else(|| Error::field("customer_key", format!("{} bytes; 16 are taken", key.len())))
}

fn market(client: &str, currency: &str) -> Result<MarketId, Error> {
    Ok(MarketId { client: self::client(client)?, currency: Currency::parse(currency).map_err(|e| Error::field("currency", e))? })
}

fn client(client: &str) -> Result<ClientId, Error> {
    ClientId::parse(client).map_err(|e| Error::field(e.field, e.to_string().trim_start_matches("client: ")))
}

fn history_of(history: &pb::History, at: UnixMicros) -> Result<Vec<customer::Event>, Error> {
    bounded("history.events", history.events.len(), MAX_HISTORY)?;
    let each = |(i, event)| event_of(event, at).map_err(|e| e.within(&format!("history.events[{i}]")));
    history.events.iter().enumerate().map(each).collect()
}

fn event_of(event: &pb::Event, now: UnixMicros) -> Result<customer::Event, Error> {
    let id = &event.event_id;
    if !(1..=MAX_EVENT_ID).contains(&id.len()) || id.chars().any(char::is_control) {
        return Err(Error::field("event_id", format!("{} bytes; 1 to {MAX_EVENT_ID} without control characters are taken", id.len())));
    }
    let at = UnixMicros::from_pb(event.occurred_at.as_ref())
        .ok_or_else(|| Error::field("occurred_at", "missing, or not a time in the years 1 to 9999"))?;
    if at.0 > now.0.saturating_add(MAX_AHEAD_MICROS) {
        let ahead = (at.0 - now.0) / 1_000_000;
        return Err(Error::field("occurred_at", format!("{ahead} s ahead of now; at most {} are taken", MAX_AHEAD_MICROS / 1_000_000)));
    }
    let value_micros = event.value_micros;
    if !(-MAX_VALUE_MICROS..=MAX_VALUE_MICROS).contains(&value_micros) {
        return Err(Error::field("value_micros", format!("{value_micros}; {MAX_VALUE_MICROS} either way are taken")));
    }
    Ok(customer::Event { id: EventId::of(id), at, value_micros, items: event.items })
}

fn bounded(path: &str, got: usize, limit: usize) -> Result<(), Error> {
    if got <= limit { Ok(()) } else { Err(Error::TooMany { path: path.into(), got, limit }) }
}
