//! What happens to an invoice after it was issued, as it may reach the log.
//!
//! The log's writer holds an event to its form, its key, and that there is such an invoice. Whether it counts (a payment
//! above what is open does not) is a fold of the events before it, which is Billing's.

use kiki::leaf::{self, invoice_event::Event};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::adjust::check_reason;
use super::document::{currency, within};
use super::refusal::Refusal;
use super::state::{ClientState, State};

/// The longest key, characters.
const MAX_KEY: usize = 64;
/// The longest name of an actor, bytes.
const MAX_ACTOR: usize = 100;
/// The longest address that an invoice was sent to, and the longest reference of a payment, bytes.
const MAX_TEXT: usize = 200;
/// The most leaves that a dispute or a credit cites: 256 indices are at most 2,560 bytes.
const MAX_LEAVES: usize = 256;

/// An event's content, by which a repeated key is told from a reused one.
#[must_use]
pub fn digest(event: &leaf::InvoiceEvent) -> [u8; 32] {
    Sha256::digest(event.encode_to_vec()).into()
}

/// Checks an event's form.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check(path: &str, event: &leaf::InvoiceEvent) -> Result<(), Refusal> {
    let field = |name: &str| format!("{path}.{name}");
    check_key(&field("key"), &event.key)?;
    within(&field("actor bytes"), event.actor.len(), 1, MAX_ACTOR)?;
    match &event.event {
        None => Err(Refusal::field(field("event"), "is missing")),
        Some(Event::Sent(sent)) => within(&field("sent.to bytes"), sent.to.len(), 1, MAX_TEXT),
        Some(Event::Payment(payment)) => {
            within(&field("payment.amount_minor"), payment.amount_minor, 1, i64::MAX)?;
            currency(&field("payment.currency"), &payment.currency)?;
            if payment.received_on.len() != 10 || payment.received_on.parse::<jiff::civil::Date>().is_err() {
                return Err(Refusal::field(field("payment.received_on"), "is not a day like 2026-02-18"));
            }
            within(&field("payment.reference bytes"), payment.reference.len(), 0, MAX_TEXT)
        }
        Some(Event::Disputed(disputed)) => {
            check_leaves(&field("disputed.leaves"), &disputed.leaves)?;
            check_reason(&field("disputed.reason"), &disputed.reason)
        }
        Some(Event::DisputeResolved(resolved)) => check_reason(&field("dispute_resolved.reason"), &resolved.reason),
        Some(Event::Voided(voided)) => check_reason(&field("voided.reason"), &voided.reason),
        Some(Event::WrittenOff(written_off)) => check_reason(&field("written_off.reason"), &written_off.reason),
        Some(Event::Credited(credited)) => check_credited(&field("credited"), credited),
    }
}

fn check_credited(path: &str, credited: &leaf::InvoiceCredited) -> Result<(), Refusal> {
    let field = |name: &str| format!("{path}.{name}");
    within(&field("amount_minor"), credited.amount_minor, 1, i64::MAX)?;
    within(&field("tax_minor"), credited.tax_minor, 0, i64::MAX - credited.amount_minor)?;
    currency(&field("currency"), &credited.currency)?;
    check_leaves(&field("leaves"), &credited.leaves)?;
    if !credited.dispute_key.is_empty() {
        check_key(&field("dispute_key"), &credited.dispute_key)?;
    }
    check_reason(&field("reason"), &credited.reason)
}

fn check_leaves(field: &str, leaves: &[u64]) -> Result<(), Refusal> {
    within(field, leaves.len(), 0, MAX_LEAVES)?;
    if leaves.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Refusal::field(field, "are not ascending")) }
}

fn check_key(field: &str, key: &str) -> Result<(), Refusal> {
    let good = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(()) } else { Err(Refusal::field(field, format!("must be 1 to {MAX_KEY} printable ASCII characters"))) }
}

/// Checks an event that is to be recorded of a client: its form, its invoice, and that its key is new or came with the same.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_new(state: &ClientState, path: &str, event: &leaf::InvoiceEvent) -> Result<(), Refusal> {
    check(path, event)?;
    match state.invoice_events.get(&event.key) {
        Some(known) if known.digest != digest(event) => Err(Refusal::KeyReused { what: "invoice event", key: event.key.clone() }),
        _ if !state.invoices.contains_key(&event.number) => Err(Refusal::NotFound { what: "invoice", id: event.number.clone() }),
        _ => Ok(()),
    }
}

impl State {
    /// An event is of an invoice of the client, and its key is new.
    pub(super) fn check_invoice_event(&self, client: &str, event: &leaf::InvoiceEvent) -> Result<(), Refusal> {
        check("invoice_event", event)?;
        let known = self.clients.get(client);
        if known.is_some_and(|of| of.invoice_events.contains_key(&event.key)) {
            return Err(Refusal::KeyReused { what: "invoice event", key: event.key.clone() });
        }
        let of = known.filter(|of| of.invoices.contains_key(&event.number));
        of.map(drop).ok_or_else(|| Refusal::NotFound { what: "invoice", id: event.number.clone() })
    }
}
