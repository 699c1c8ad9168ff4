//! What becomes of an invoice after it was issued: a state machine over what the log says.
//!
//! The log decides: of two events that exclude each other the earlier one counts, and the later one is kept as refused
//! and changes no money. So [`Standing::apply`] is asked twice, before an event is recorded and when it is folded.
//!
//! A void invoice says that nothing was owed for its period, whatever is known of the period later: no note follows on it, and it is
//! not billed anew. A note that had its number before stays. Who would have the client pay less, credits that.
//!
//! Deliberately not here: drafts and their approval, which are not in the log; and lateness, which depends on the day it
//! is asked on ([`Standing::overdue`]).

use std::fmt;

use kiki::leaf::{self, invoice_event};

/// What happened to an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was sent to the client.
    Sent,
    /// The client paid so much of it, in the currency's minor unit, above 0.
    Paid(i64),
    /// The client disputes it.
    Disputed,
    /// The dispute was settled, and the invoice stands.
    Resolved,
    /// It is void: nothing was owed.
    Voided,
    /// What is open will not be paid.
    WrittenOff,
    /// A part of it is given back by agreement.
    Credited {
        /// Before tax, in the currency's minor unit, above 0.
        net_minor: i64,
        /// The tax on it.
        tax_minor: i64,
        /// Whether that settles a dispute.
        settles: bool,
    },
}

/// An event without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Event::Sent`].
    Send,
    /// [`Event::Paid`].
    Pay,
    /// [`Event::Disputed`].
    Dispute,
    /// [`Event::Resolved`].
    Resolve,
    /// [`Event::Voided`].
    Void,
    /// [`Event::WrittenOff`].
    WriteOff,
    /// [`Event::Credited`].
    Credit,
}

/// Where an invoice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has its number and bytes.
    Finalized,
    /// It was sent, and nothing of it is paid.
    Sent,
    /// A part of it is paid.
    PartlyPaid,
    /// All of it is paid, or what was open is credited.
    Paid,
    /// It is void.
    Void,
    /// What was open is written off.
    WrittenOff,
}

/// What may happen in each stage. A dispute is a flag beside it: only a disputed invoice has one resolved, and one that is
/// disputed is not disputed again.
const ALLOWED: [(Stage, &[Kind]); 6] = [
    (Stage::Finalized, &[Kind::Send, Kind::Pay, Kind::Dispute, Kind::Resolve, Kind::Void, Kind::WriteOff, Kind::Credit]),
    // A second letter is no fault.
    (Stage::Sent, &[Kind::Send, Kind::Pay, Kind::Dispute, Kind::Resolve, Kind::Void, Kind::WriteOff, Kind::Credit]),
    // What was paid would have to be given back first: no void.
    (Stage::PartlyPaid, &[Kind::Send, Kind::Pay, Kind::Dispute, Kind::Resolve, Kind::WriteOff, Kind::Credit]),
    // What is given back of it is owed to the client.
    (Stage::Paid, &[Kind::Dispute, Kind::Resolve, Kind::Credit]),
    (Stage::Void, &[]),
    (Stage::WrittenOff, &[]),
];

/// An invoice's standing: all of it follows from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub stage: Stage,
    /// Whether it is disputed.
    pub disputed: bool,
    /// What was invoiced with tax, in the currency's minor unit; of a credit note, which nobody pays, below 0.
    pub total_minor: i64,
    /// What was paid of it.
    pub paid_minor: i64,
    /// What credit notes took off what was open of it.
    pub credited_minor: i64,
    /// What was billed before tax and no credit note gave back, which is the most that one may; 0 of a credit note.
    pub creditable_minor: i64,
}

/// Why an event does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not in this stage.
    #[error("{kind} is refused: the invoice is {stage}{}, which allows {}", and_disputed(.disputed), list(.allowed))]
    Stage {
        /// What was to happen.
        kind: Kind,
        /// Where the invoice stands.
        stage: Stage,
        /// Whether it is disputed.
        disputed: bool,
        /// What may happen.
        allowed: Vec<Kind>,
    },
    /// More than is open.
    #[error("amount_minor: {amount_minor} is above the open amount of {open_minor}")]
    AboveOpen {
        /// What was to be paid.
        amount_minor: i64,
        /// What is open.
        open_minor: i64,
    },
    /// A payment or a credit in another currency.
    #[error("currency: {paid:?} is not the invoice's {invoiced}")]
    Currency {
        /// That of the payment or credit.
        paid: String,
        /// That of the invoice.
        invoiced: String,
    },
    /// No payment and no credit.
    #[error("amount_minor: {amount_minor} is not above 0")]
    NoAmount {
        /// What was to be paid or given back.
        amount_minor: i64,
    },
    /// More than was billed.
    #[error("amount_minor: {amount_minor} is above the {creditable_minor} before tax that was billed and no credit note gave back")]
    AboveBilled {
        /// What was to be given back.
        amount_minor: i64,
        /// What may be.
        creditable_minor: i64,
    },
    /// A credit that settles what is no dispute.
    #[error("dispute_key: the invoice is not disputed")]
    NotDisputed,
    /// A credit that settles another dispute.
    #[error("dispute_key: {key:?} is no dispute of the invoice")]
    NoDispute {
        /// The key.
        key: String,
    },
}

impl Event {
    /// Of a leaf; none where it is of no kind that is known.
    #[must_use]
    pub fn of(event: &leaf::InvoiceEvent) -> Option<Self> {
        use invoice_event::Event as Leaf;
        Some(match event.event.as_ref()? {
            Leaf::Sent(_) => Self::Sent,
            Leaf::Payment(payment) => Self::Paid(payment.amount_minor),
            Leaf::Disputed(_) => Self::Disputed,
            Leaf::DisputeResolved(_) => Self::Resolved,
            Leaf::Voided(_) => Self::Voided,
            Leaf::WrittenOff(_) => Self::WrittenOff,
            Leaf::Credited(credited) => Self::Credited {
                net_minor: credited.amount_minor,
                tax_minor: credited.tax_minor,
                settles: !credited.dispute_key.is_empty(),
            },
        })
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Sent => Kind::Send,
            Self::Paid(_) => Kind::Pay,
            Self::Disputed => Kind::Dispute,
            Self::Resolved => Kind::Resolve,
            Self::Voided => Kind::Void,
            Self::WrittenOff => Kind::WriteOff,
            Self::Credited { .. } => Kind::Credit,
        }
    }
}

impl Standing {
    /// Of an invoice or a note that was just issued, with the tax that is in its total.
    #[must_use]
    pub fn issued(total_minor: i64, tax_minor: i64) -> Self {
        let creditable_minor = total_minor.saturating_sub(tax_minor).max(0);
        Self { stage: Stage::Finalized, disputed: false, total_minor, paid_minor: 0, credited_minor: 0, creditable_minor }
    }

    /// What the total of a document of a kind counts as: a credit note's is below 0.
    #[must_use]
    pub fn total_of(kind: leaf::DocumentKind, gross_minor: i64) -> i64 {
        if kind == leaf::DocumentKind::CreditNote { gross_minor.saturating_neg() } else { gross_minor }
    }

    /// What may still be paid.
    #[must_use]
    pub fn open_minor(&self) -> i64 {
        match self.stage {
            Stage::Void | Stage::WrittenOff => 0,
            _ => self.unpaid_minor(),
        }
    }

    /// What neither was paid nor credited, whether it may still be paid or not.
    #[must_use]
    pub fn unpaid_minor(&self) -> i64 {
        self.total_minor.saturating_sub(self.paid_minor).saturating_sub(self.credited_minor).max(0)
    }

    /// What it is after a credit note, and how much of that, with tax, it took off; the rest is owed to the client.
    #[must_use]
    pub fn credited(&self, net_minor: i64, tax_minor: i64) -> (Self, i64) {
        if self.stage == Stage::Void {
            return (*self, 0);
        }
        let applied = net_minor.saturating_add(tax_minor).min(self.unpaid_minor()).max(0);
        let creditable_minor = self.creditable_minor.saturating_sub(net_minor).max(0);
        let mut next = Self { credited_minor: self.credited_minor + applied, creditable_minor, ..*self };
        if applied > 0 && next.open_minor() == 0 && self.stage != Stage::WrittenOff {
            next.stage = Stage::Paid;
        }
        (next, applied)
    }

    /// Whether its due date has passed, `today` and `due` being days as `2026-03-20` in the client's zone, and something is open.
    #[must_use]
    pub fn overdue(&self, due: &str, today: &str) -> bool {
        self.open_minor() > 0 && due < today
    }

    /// What may happen now.
    #[must_use]
    pub fn allowed(&self) -> Vec<Kind> {
        let in_stage = ALLOWED.iter().find(|(stage, _)| *stage == self.stage).map_or(&[][..], |(_, kinds)| kinds);
        let now = |kind: &&Kind| match kind {
            // A credit note is sent, and that is all.
            _ if self.total_minor < 0 => **kind == Kind::Send,
            // What was credited would be taken back twice.
            Kind::Void => self.credited_minor == 0,
            Kind::Dispute => !self.disputed,
            Kind::Resolve => self.disputed,
            Kind::Pay | Kind::WriteOff => self.open_minor() > 0,
            Kind::Credit => self.creditable_minor > 0,
            Kind::Send => true,
        };
        in_stage.iter().filter(now).copied().collect()
    }

    /// What an invoice in a currency is after the event of a leaf; `event` is [`Event::of`] it.
    ///
    /// # Errors
    /// The event does not apply: it changes nothing then.
    pub fn apply_in(&self, currency: &str, leaf: &leaf::InvoiceEvent, event: Event) -> Result<Self, Refused> {
        let stated = match &leaf.event {
            Some(invoice_event::Event::Payment(payment)) => payment.currency.as_str(),
            Some(invoice_event::Event::Credited(credited)) => credited.currency.as_str(),
            _ => currency,
        };
        if stated != currency {
            return Err(Refused::Currency { paid: stated.to_owned(), invoiced: currency.to_owned() });
        }
        self.apply(event)
    }

    /// What it is after an event.
    ///
    /// # Errors
    /// The event does not apply: it changes nothing then.
    pub fn apply(&self, event: Event) -> Result<Self, Refused> {
        let (kind, allowed) = (event.kind(), self.allowed());
        if !allowed.contains(&kind) {
            return Err(Refused::Stage { kind, stage: self.stage, disputed: self.disputed, allowed });
        }
        let (mut next, open_minor) = (*self, self.open_minor());
        match event {
            Event::Sent if self.stage == Stage::Finalized => next.stage = Stage::Sent,
            Event::Sent => {}
            Event::Paid(amount_minor) if amount_minor <= 0 => return Err(Refused::NoAmount { amount_minor }),
            Event::Paid(amount_minor) if amount_minor > open_minor => return Err(Refused::AboveOpen { amount_minor, open_minor }),
            Event::Paid(amount_minor) => {
                next.paid_minor += amount_minor;
                next.stage = if amount_minor == open_minor { Stage::Paid } else { Stage::PartlyPaid };
            }
            Event::Disputed => next.disputed = true,
            Event::Resolved => next.disputed = false,
            // Nothing is left to dispute.
            Event::Voided => (next.stage, next.disputed) = (Stage::Void, false),
            Event::WrittenOff => (next.stage, next.disputed) = (Stage::WrittenOff, false),
            Event::Credited { net_minor, tax_minor, settles } => {
                self.may_credit(net_minor, settles)?;
                next = self.credited(net_minor, tax_minor).0;
                next.disputed &= !settles;
            }
        }
        Ok(next)
    }

    fn may_credit(&self, amount_minor: i64, settles: bool) -> Result<(), Refused> {
        let creditable_minor = self.creditable_minor;
        match amount_minor {
            ..=0 => Err(Refused::NoAmount { amount_minor }),
            _ if amount_minor > creditable_minor => Err(Refused::AboveBilled { amount_minor, creditable_minor }),
            _ if settles && !self.disputed => Err(Refused::NotDisputed),
            _ => Ok(()),
        }
    }
}

/// Whether a credit names as settled what is a dispute: the event of that key, among those that count.
///
/// # Errors
/// It does not.
pub fn settles(leaf: &leaf::InvoiceEvent, named: Option<&leaf::InvoiceEvent>) -> Result<(), Refused> {
    match &leaf.event {
        Some(invoice_event::Event::Credited(credited)) if !credited.dispute_key.is_empty() => {
            let is_dispute =
                |named: &&leaf::InvoiceEvent| named.number == leaf.number && matches!(named.event, Some(invoice_event::Event::Disputed(_)));
            named.filter(is_dispute).map(drop).ok_or_else(|| Refused::NoDispute { key: credited.dispute_key.clone() })
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send => "sending",
            Self::Pay => "a payment",
            Self::Dispute => "a dispute",
            Self::Resolve => "a dispute's end",
            Self::Void => "voiding",
            Self::WriteOff => "a write-off",
            Self::Credit => "a credit",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finalized => "finalized",
            Self::Sent => "sent",
            Self::PartlyPaid => "partly paid",
            Self::Paid => "paid",
            Self::Void => "void",
            Self::WrittenOff => "written off",
        })
    }
}

fn and_disputed(disputed: &bool) -> &'static str {
    if *disputed { " and disputed" } else { "" }
}

fn list(kinds: &[Kind]) -> String {
    match kinds {
        [] => "nothing more".to_owned(),
        kinds => kinds.iter().map(Kind::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
