//! What can go wrong, and its only mapping to gRPC.

use std::path::PathBuf;

use kiki::status::{self, Reason};
use tonic::Status;

/// Why a call, or the service, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is missing, of the wrong form or out of its limits.
    #[error("{path}: {problem}")]
    Field {
        /// The field, by its path in the message.
        path: String,
        /// What is wrong, with the limit.
        problem: String,
    },
    /// A list is longer than its bound.
    #[error("{path}: {got} items; at most {limit} are taken")]
    TooMany {
        /// The field, by its path in the message.
        path: String,
        /// How many there were.
        got: usize,
        /// How many may be.
        limit: usize,
    },
    /// There is no room for a further customer, or client and currency.
    #[error("all {limit} {what} that fit are in use")]
    Full {
        /// Customers, or markets.
        what: &'static str,
        /// How many fit.
        limit: usize,
    },
    /// The event log failed once, and takes nothing more until a restart.
    #[error("the event log takes no more records: {0}")]
    LogFailed(String),
    /// The log has not been followed that far.
    #[error("index {asked} of the log was not reached within {waited_secs} s; followed to {followed}")]
    NotFollowed {
        /// The index that was asked for.
        asked: u64,
        /// The next index to be read.
        followed: u64,
        /// How long the call waited, seconds.
        waited_secs: u64,
    },
    /// A record of the event log is damaged, and there are good ones behind it.
    #[error("{}: {bad}, and there is a good record at byte {good}: the file was damaged, nothing was changed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is bad, and where.
        bad: kiki::framed::Bad,
        /// Where the good record is.
        good: u64,
    },
    /// A record that is whole, and means nothing here.
    #[error("{}: the record at byte {offset} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// Why.
        why: String,
    },
    /// Another process has the file.
    #[error("{}: another process is using it", .0.display())]
    InUse(PathBuf),
    /// Events of the embedded engine, in the folder of one that is to share its customers.
    #[error("{}: there are events that were observed without --states, and that would be missing; start with another folder", .0.display())]
    NotShared(PathBuf),
    /// The log does not follow from what was read before.
    #[error("syncshield's log: {0}")]
    LogInconsistent(String),
    /// SyncShield did not answer, or refused.
    #[error("syncshield: {0}")]
    Shield(String),
    /// A plan of models that was made from one that is not the last any more.
    #[error("plan.version: {asked}; the last is {now}")]
    Changed {
        /// What the change was made from.
        asked: u64,
        /// What is in force.
        now: u64,
    },
    /// What is known of a customer cannot be read or written.
    #[error(transparent)]
    States(#[from] crate::store::states::Error),
    /// Plans or a model that cannot be read.
    #[error("{0}")]
    Model(String),
    /// A file or a listener.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// A field that is wrong.
    pub(crate) fn field(path: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Field { path: path.into(), problem: problem.to_string() }
    }

    /// Names what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The same, of an item of a list.
    pub(crate) fn within(self, item: &str) -> Self {
        match self {
            Self::Field { path, problem } => Self::Field { path: format!("{item}.{path}"), problem },
            Self::TooMany { path, got, limit } => Self::TooMany { path: format!("{item}.{path}"), got, limit },
            other => other,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Field { path, problem } => return status::field(path, problem),
            Error::TooMany { .. } => Reason::TooMany,
            Error::Full { .. } => Reason::Overloaded,
            Error::LogFailed(_) => Reason::LogUnavailable,
            Error::NotFollowed { .. } => Reason::NotReady,
            Error::Changed { .. } => Reason::OutOfOrder,
            Error::States(_) => Reason::DependencyUnavailable,
            Error::LogInconsistent(_) => Reason::LogInconsistent,
            Error::Shield(_) => Reason::DependencyUnavailable,
            Error::Damaged { .. }
            | Error::Unreadable { .. }
            | Error::InUse(_)
            | Error::NotShared(_)
            | Error::Model(_)
            | Error::Io { .. } => Reason::Internal,
        };
        reason.status(error.to_string())
    }
}
