//! Why Billing refused or failed, and the only place where that becomes a gRPC status.

use kiki::clock::UnixMicros;
use kiki::status::{Reason, out_of_reach};
use tonic::Status;

use crate::domain::accounting::{ClosingError, NoTerms};
use crate::domain::books::BooksError;
use crate::domain::bundle::limits::TooLarge;
use crate::domain::document::export::ExportError;
use crate::domain::follow::Unreadable;
use crate::domain::invoice::InvoiceError;
use crate::domain::period::PeriodError;
use crate::domain::reconcile::{TotalsError, compare::ClaimError};
use crate::store::StoreError;

/// Why Billing refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SyncShield refused, or did not answer.
    #[error("syncshield: {}", .0.message())]
    Shield(Box<Status>),
    /// SyncShield answered with what no request asked for.
    #[error("syncshield answered {0}")]
    Answer(&'static str),
    /// The log does not follow from what was seen before, or is not as signed.
    #[error("the log can no longer be followed: {0}")]
    Fault(String),
    /// The log holds a leaf that cannot be read.
    #[error("the log can no longer be followed: {0}")]
    Unreadable(Unreadable),
    /// The fold has not come as far as is needed.
    #[error("the fold is at leaf {have} of the {need} that are needed; try again")]
    Behind {
        /// Leaves folded.
        have: u64,
        /// Leaves needed.
        need: u64,
    },
    /// No such draft or invoice.
    #[error("no draft or invoice {id:?}")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// A field of the request is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// Its path.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The invoice is not final.
    #[error("{id} is a draft: only an invoice has a proof, or goes out in other formats")]
    Draft {
        /// The draft's id.
        id: String,
    },
    /// Only a final invoice is sent, paid or disputed.
    #[error("{id} is a draft: nothing happens to it before it is final")]
    Unissued {
        /// The draft's id.
        id: String,
    },
    /// Only a draft is approved.
    #[error("{number} is final: only a draft is approved")]
    Final {
        /// The invoice's number.
        number: String,
    },
    /// A draft that nobody approved.
    #[error("{id} is not approved: a draft becomes final once it is")]
    NotApproved {
        /// The draft's id.
        id: String,
    },
    /// What happened to an invoice does not follow from where it stands.
    #[error("{number}: {why}")]
    Refused {
        /// The invoice's number.
        number: String,
        /// Why, and what is allowed.
        why: String,
    },
    /// An access that cannot be recorded.
    #[error("the log takes no record of who sees invoices; try again")]
    Unrecorded(#[from] kiki::access::Unrecorded),
    /// A key that had its effect with another content.
    #[error("key: {key:?} is that of leaf {leaf}, which says otherwise")]
    KeyReused {
        /// The key.
        key: String,
        /// Index of the leaf that had it.
        leaf: u64,
    },
    /// A note on an invoice that is still a draft.
    #[error("{id}, which it corrects, is a draft: that becomes final first")]
    NotFinal {
        /// The draft's id.
        id: String,
    },
    /// A note on an invoice that is void.
    #[error("{number}, which {id} corrects, is void: nothing was owed, and no note follows")]
    Void {
        /// The draft's id.
        id: String,
        /// The invoice's number.
        number: String,
    },
    /// A bundle above one of its limits.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The baseline's evidence is none that a bundle could show.
    #[error("terms name leaf {leaf} as their baseline's evidence but {problem}")]
    Evidence {
        /// Index of the leaf.
        leaf: u64,
        /// Why it is none.
        problem: String,
    },
    /// The invoice cannot be drawn up.
    #[error(transparent)]
    Invoice(#[from] InvoiceError),
    /// A period's figures cannot be worked out.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// A leaf that cannot be reconciled, or too many figures.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// A row that the log cannot be held against.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The month cannot be resolved.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// A closing in the log that cannot be read.
    #[error(transparent)]
    Closing(#[from] ClosingError),
    /// The log's key.
    #[error("{0}")]
    Key(String),
    /// An invoice that a format cannot say.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file or socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The address of SyncShield.
    #[error("shield: {0}")]
    Address(#[from] tonic::transport::Error),
    /// A task of ours died.
    #[error("a task ended before its time")]
    Stopped,
}

/// Why a client's month is not invoiced, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postponed {
    /// Client id.
    pub client: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Why.
    pub reason: String,
    /// Until when; none where no time mends it.
    pub until: Option<UnixMicros>,
    /// What somebody has to mend; nothing where it is merely not due.
    pub fault: Option<&'static str>,
}

/// What postpones a client until somebody mends it, as the metric has it.
pub const POSTPONED_FOR: [&str; 4] = ["evidence", "client_moved", "too_large", "invoiced"];

impl From<NoTerms> for Error {
    fn from(error: NoTerms) -> Self {
        BooksError::from(error).into()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Shield(Box::new(status))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Shield(status) if out_of_reach(&status) => Reason::DependencyUnavailable.status(text),
            Error::Shield(status) => *status,
            Error::Fault(_) | Error::Unreadable(_) => Reason::LogInconsistent.status(text),
            Error::Unrecorded(_) => Reason::DependencyUnavailable.status(text),
            Error::Behind { .. } => Reason::NotReady.status(text),
            Error::NotFound { .. } => Reason::NotFound.status(text),
            Error::Field { .. } => Reason::FieldInvalid.status(text),
            Error::Draft { .. } | Error::NotFinal { .. } => Reason::PeriodOpen.status(text),
            Error::Unissued { .. } | Error::Final { .. } | Error::NotApproved { .. } | Error::Refused { .. } | Error::Void { .. } => {
                Reason::InvoiceState.status(text)
            }
            Error::Store(StoreError::Invoiced { .. }) | Error::KeyReused { .. } => Reason::KeyReused.status(text),
            Error::Evidence { .. } | Error::Claim(_) | Error::Export(ExportError::TaxName) => Reason::FieldInvalid.status(text),
            // A document is what it is: a format that has no words for it is no fault of ours.
            Error::Export(_) => Reason::InvoiceIncomplete.status(text),
            Error::TooLarge(_) | Error::Totals(TotalsError::TooMany) => Reason::TooMany.status(text),
            Error::Totals(TotalsError::Field { .. }) => Reason::LogInconsistent.status(text),
            Error::Store(_)
            | Error::Answer(_)
            | Error::Invoice(_)
            | Error::Books(_)
            | Error::Period(_)
            | Error::Closing(_)
            | Error::Key(_)
            | Error::Io(_)
            | Error::Address(_)
            | Error::Stopped => {
                tracing::error!(error = %text, "internal error");
                Reason::Internal.status(text)
            }
        }
    }
}
