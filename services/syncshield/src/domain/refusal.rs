//! Why a request or a leaf is refused.

/// Refusals of the ledger, with the facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is out of its form or limits.
    #[error("{field}: {problem}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong, with the limit.
        problem: String,
    },
    /// More than a bound allows.
    #[error("{field}: {count}; at most {limit} are taken")]
    TooMany {
        /// The list's path.
        field: String,
        /// How many came.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// No such thing.
    #[error("no {what} {id:?}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The campaign is paused.
    #[error("campaign {campaign} {why}")]
    Inactive {
        /// The campaign.
        campaign: String,
        /// Why it does not spend.
        why: &'static str,
    },
    /// A grant would go above a limit.
    #[error("campaign {campaign} has {available_nanos} nanos left of its {limit} limit, {least_nanos} were asked for")]
    Exhausted {
        /// The campaign.
        campaign: String,
        /// Which limit binds: total or daily.
        limit: &'static str,
        /// What is left, below 0 where the scope is overcommitted.
        available_nanos: i128,
        /// The least that was asked for.
        least_nanos: i128,
    },
    /// The epoch is an older one, or was never given.
    #[error("lease {lease_id} is in epoch {epoch}, not {given}")]
    StaleEpoch {
        /// The lease.
        lease_id: u64,
        /// Its epoch.
        epoch: u64,
        /// The epoch that came.
        given: u64,
    },
    /// The lease ended by return or expiry.
    #[error("lease {lease_id} has ended")]
    LeaseEnded {
        /// The lease.
        lease_id: u64,
    },
    /// Something does not follow from what went before.
    #[error("{0}")]
    OutOfOrder(String),
    /// The key came before with another content.
    #[error("{what} {key:?} was recorded with other content")]
    KeyReused {
        /// What kind of key.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// The client is in another log now.
    #[error("client {client} went to log {to_log_id}")]
    Moved {
        /// The client.
        client: String,
        /// The log that it is in.
        to_log_id: String,
    },
    /// The client was in another log before.
    #[error("the client came from log {log_id}; an invoice needs all of its leaves in one log, so no period of it is closed here")]
    CameFrom {
        /// That log.
        log_id: String,
    },
    /// Something of the client may still be spent.
    #[error("client {client} has {leases} live leases and {slots} open slots; it goes when there are none")]
    Unfinished {
        /// The client.
        client: String,
        /// Leases that live.
        leases: usize,
        /// Slots below a mark that are open.
        slots: usize,
    },
    /// The period has not ended.
    #[error("the period ends at {end_micros} us since 1970, and it is {now_micros}")]
    PeriodOpen {
        /// Its end.
        end_micros: i64,
        /// Now.
        now_micros: i64,
    },
}

impl Refusal {
    /// A field's refusal.
    pub(crate) fn field(field: impl Into<String>, problem: impl ToString) -> Self {
        Self::Field { field: field.into(), problem: problem.to_string() }
    }
}
