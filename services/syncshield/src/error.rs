//! SyncShield's errors, and the only place where they become a gRPC status.

use kiki::status::Reason;
use kiki::tlog;

use crate::domain::refusal::Refusal;

/// Why SyncShield did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The ledger refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many requests wait for the writer.
    #[error("{0} requests wait for the log; try again later")]
    QueueFull(usize),
    /// The writer is gone.
    #[error("the log is closed")]
    Stopped,
    /// A write failed: nothing more is taken until a restart has looked at the disk.
    #[error("the log cannot be written; nothing is granted")]
    Failed,
    /// There is no room on the disk; a later request may find some.
    #[error("the disk is full; nothing is granted")]
    Full,
    /// Other writers of the log were faster each time.
    #[error("other writers of the log were first {0} times; try again")]
    Contended(u32),
    /// The database did not do what it was asked.
    #[error("the log's database: {0}")]
    Database(String),
    /// The log was asked for more than it has.
    #[error("size {asked} was asked for, and the log has {size} leaves")]
    OutOfRange {
        /// The size or index that was asked for.
        asked: u64,
        /// What there is.
        size: u64,
    },
    /// Only the hash of the leaf is left.
    #[error("leaf {asked} was pruned; the log is kept from leaf {retained} on")]
    Pruned {
        /// The index that was asked for.
        asked: u64,
        /// The first that is left.
        retained: u64,
    },
    /// No policy was put yet.
    #[error("no policy is in force")]
    NoPolicy,
    /// Another process writes this log.
    #[error("another process holds {0}")]
    Locked(String),
    /// The log on disk is damaged.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The log is not the one that was signed: restored from an old backup, or rewritten.
    #[error("the log does not sign: {0}; restore all of it, or begin a log under another id")]
    Rewound(String),
    /// The signing key is missing or another log's.
    #[error("log key: {0}")]
    Key(String),
    /// A proof that the tree does not have.
    #[error("proof: {0}")]
    Proof(#[from] tlog::Error),
    /// A checkpoint that cannot be signed or read.
    #[error("{0}")]
    Checkpoint(#[from] tlog::checkpoint::Error),
    /// The keys of personal data cannot be read or written.
    #[error("subjects' keys: {0}")]
    SubjectKeys(String),
    /// Personal data that cannot be sealed or opened.
    #[error("{0}")]
    Sealed(#[from] kiki::sealed::Error),
    /// The file system or network.
    #[error("{0}")]
    Io(std::sync::Arc<std::io::Error>),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(std::sync::Arc::new(error))
    }
}

impl From<tlog::note::Error> for Error {
    fn from(error: tlog::note::Error) -> Self {
        Self::Key(error.to_string())
    }
}

fn reason_of(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::Field { .. } => Reason::FieldInvalid,
        Refusal::TooMany { .. } => Reason::TooMany,
        Refusal::NotFound { .. } => Reason::NotFound,
        Refusal::Inactive { .. } => Reason::CampaignInactive,
        Refusal::Exhausted { .. } => Reason::BudgetExhausted,
        Refusal::StaleEpoch { .. } => Reason::StaleEpoch,
        Refusal::LeaseEnded { .. } => Reason::LeaseEnded,
        Refusal::OutOfOrder(_) => Reason::OutOfOrder,
        Refusal::KeyReused { .. } => Reason::KeyReused,
        Refusal::PeriodOpen { .. } => Reason::PeriodOpen,
        Refusal::Moved { .. } | Refusal::CameFrom { .. } => Reason::ClientMoved,
        Refusal::Unfinished { .. } => Reason::ClientBusy,
    }
}

impl Error {
    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => reason_of(refusal),
            Self::QueueFull(_) | Self::Contended(_) => Reason::Overloaded,
            Self::Stopped | Self::Failed | Self::Full | Self::Database(_) | Self::SubjectKeys(_) => Reason::LogUnavailable,
            Self::OutOfRange { .. } | Self::Pruned { .. } | Self::Proof(_) => Reason::PositionOutOfRange,
            Self::NoPolicy => Reason::NotReady,
            Self::Damaged(_) | Self::Rewound(_) => Reason::LogInconsistent,
            Self::Key(_) | Self::Locked(_) | Self::Checkpoint(_) | Self::Io(_) => Reason::Internal,
            Self::Sealed(kiki::sealed::Error::TooLong(_)) => Reason::FieldInvalid,
            Self::Sealed(kiki::sealed::Error::Random(_)) => Reason::Internal,
            Self::Sealed(_) => Reason::LogInconsistent,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Refused(Refusal::Moved { client, to_log_id }) => {
                error.reason().status_with(error.to_string(), &[("client", client), ("log_id", to_log_id)])
            }
            _ => error.reason().status(error.to_string()),
        }
    }
}
