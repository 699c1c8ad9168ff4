//! SyncFlow's errors, and the only mapping to `tonic::Status`.

use kiki::status::{self, Reason};
use tonic::Status;

use crate::domain::receipt::ReceiptError;
use crate::load::{Crowded, RETRY_AFTER};

/// What can go wrong outside a decision.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration says something that cannot be.
    #[error("configuration: {0}")]
    Config(String),
    /// A field of a request is out of its form or limits.
    #[error("{path}: {problem}")]
    Field {
        /// Its path.
        path: String,
        /// What is wrong, with the limit.
        problem: String,
    },
    /// A list is longer than its bound.
    #[error("{path}: {count} elements; at most {limit} are taken")]
    TooMany {
        /// The list.
        path: &'static str,
        /// How many came.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// More bids come than are answered in time.
    #[error("more bids come than are answered in time: {0}")]
    Overloaded(Crowded),
    /// A receipt that is not taken.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// Another service answered with an error, or not at all.
    #[error("{service}: {}", .status.message())]
    Dependency {
        /// Which.
        service: &'static str,
        /// Its answer, whose reason is handed on.
        status: Box<Status>,
    },
    /// A listener failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// An address that is none.
    #[error("address: {0}")]
    Address(#[from] tonic::transport::Error),
}

impl Error {
    /// A field of a request.
    pub(crate) fn field(path: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Field { path: path.into(), problem: problem.to_string() }
    }

    /// SyncShield's answer.
    pub(crate) fn shield(status: Status) -> Self {
        Self::Dependency { service: "syncshield", status: Box::new(status) }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Field { path, problem } => status::field(&path, problem),
            Error::TooMany { .. } => Reason::TooMany.status(message),
            Error::Overloaded(_) => Reason::Overloaded.status_to_retry(message, RETRY_AFTER),
            Error::Receipt(ReceiptError::TooOld { .. }) => Reason::TooLate.status(message),
            Error::Receipt(
                ReceiptError::Malformed(_) | ReceiptError::UnknownKey(_) | ReceiptError::BadMac | ReceiptError::WrongPurpose(_),
            ) => Reason::ReceiptInvalid.status(message),
            // What the other service says of the request is the answer; what says that it is not there is not.
            Error::Dependency { status, .. } if !unreachable(&status) => *status,
            Error::Dependency { .. } => Reason::DependencyUnavailable.status(message),
            Error::Config(_) | Error::Io(_) | Error::Address(_) => Reason::Internal.status(message),
        }
    }
}

/// Whether a call failed for want of an answer rather than by one.
pub(crate) fn unreachable(status: &Status) -> bool {
    let answers = [Reason::LogUnavailable, Reason::NotReady, Reason::Overloaded];
    status::out_of_reach(status) && !answers.iter().any(|reason| reason.is(status))
}
