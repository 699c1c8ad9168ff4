//! Errors on the wire: a gRPC code, a message for people, and a stable reason for programs.
//!
//! Each service maps its error enum here once. The reason travels as `google.rpc.ErrorInfo` with the domain `kiki`.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The stable reasons: programs match on these, so none is ever renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A field is missing, of the wrong form or out of its limits.
    FieldInvalid,
    /// A list or message is longer than its bound.
    TooMany,
    /// No such client, campaign, lease, invoice.
    NotFound,
    /// The caller may not act for that client.
    NotYours,
    /// No credential, or one that is not known, or has expired.
    Unauthenticated,
    /// The caller's role may not call that RPC.
    RoleMayNot,
    /// A grant would take the campaign above its limit.
    BudgetExhausted,
    /// The campaign is paused, or has no terms.
    CampaignInactive,
    /// The epoch is not the lease's own any more.
    StaleEpoch,
    /// The lease has ended.
    LeaseEnded,
    /// A mark, slot or return does not follow from what went before.
    OutOfOrder,
    /// The same key came with another content.
    KeyReused,
    /// The position is before what is retained or beyond the end.
    PositionOutOfRange,
    /// The log cannot take records: the disk failed or is full.
    LogUnavailable,
    /// No policy is in force, or the replica is too old.
    NotReady,
    /// A queue is full; try again later.
    Overloaded,
    /// The period has not ended, or its basis is not realised yet.
    PeriodOpen,
    /// What an invoice's status does not allow: the message says what it allows.
    InvoiceState,
    /// What an invoice lacks for what was asked of it: a seller for an e-invoice, say.
    InvoiceIncomplete,
    /// The client is in another log now: the facts `client` and `log_id` say which.
    ClientMoved,
    /// Something of the client may still be spent.
    ClientBusy,
    /// The log does not follow from what was seen before.
    LogInconsistent,
    /// A receipt that was not made here, or was changed.
    ReceiptInvalid,
    /// A notice after its deadline.
    TooLate,
    /// A dependency did not answer.
    DependencyUnavailable,
    /// A fault of ours.
    Internal,
}

impl Reason {
    /// The reason's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.parts().0
    }

    const fn parts(self) -> (&'static str, Code) {
        match self {
            Self::FieldInvalid => ("FIELD_INVALID", Code::InvalidArgument),
            Self::TooMany => ("TOO_MANY", Code::InvalidArgument),
            Self::NotFound => ("NOT_FOUND", Code::NotFound),
            Self::NotYours => ("NOT_YOURS", Code::PermissionDenied),
            Self::Unauthenticated => ("UNAUTHENTICATED", Code::Unauthenticated),
            Self::RoleMayNot => ("ROLE_MAY_NOT", Code::PermissionDenied),
            Self::BudgetExhausted => ("BUDGET_EXHAUSTED", Code::ResourceExhausted),
            Self::CampaignInactive => ("CAMPAIGN_INACTIVE", Code::FailedPrecondition),
            Self::StaleEpoch => ("STALE_EPOCH", Code::Aborted),
            Self::LeaseEnded => ("LEASE_ENDED", Code::FailedPrecondition),
            Self::OutOfOrder => ("OUT_OF_ORDER", Code::FailedPrecondition),
            Self::KeyReused => ("KEY_REUSED", Code::AlreadyExists),
            Self::PositionOutOfRange => ("POSITION_OUT_OF_RANGE", Code::OutOfRange),
            Self::LogUnavailable => ("LOG_UNAVAILABLE", Code::Unavailable),
            Self::NotReady => ("NOT_READY", Code::Unavailable),
            Self::Overloaded => ("OVERLOADED", Code::ResourceExhausted),
            Self::PeriodOpen => ("PERIOD_OPEN", Code::FailedPrecondition),
            Self::InvoiceState => ("INVOICE_STATE", Code::FailedPrecondition),
            Self::InvoiceIncomplete => ("INVOICE_INCOMPLETE", Code::FailedPrecondition),
            Self::ClientMoved => ("CLIENT_MOVED", Code::FailedPrecondition),
            Self::ClientBusy => ("CLIENT_BUSY", Code::FailedPrecondition),
            Self::LogInconsistent => ("LOG_INCONSISTENT", Code::DataLoss),
            Self::ReceiptInvalid => ("RECEIPT_INVALID", Code::InvalidArgument),
            Self::TooLate => ("TOO_LATE", Code::OutOfRange),
            Self::DependencyUnavailable => ("DEPENDENCY_UNAVAILABLE", Code::Unavailable),
            Self::Internal => ("INTERNAL", Code::Internal),
        }
    }

    /// The status that carries this reason.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        self.status_with(message, &[])
    }

    /// The same with facts for programs, by name.
    #[must_use]
    pub fn status_with(self, message: impl Into<String>, facts: &[(&str, &str)]) -> Status {
        let (name, code) = self.parts();
        let facts: std::collections::HashMap<String, String> =
            facts.iter().map(|(name, fact)| ((*name).to_owned(), (*fact).to_owned())).collect();
        Status::with_error_details(code, message, ErrorDetails::with_error_info(name, "kiki", facts))
    }

    /// The same, and when it may be tried again, as `google.rpc.RetryInfo`.
    #[must_use]
    pub fn status_to_retry(self, message: impl Into<String>, after: std::time::Duration) -> Status {
        let (name, code) = self.parts();
        let mut details = ErrorDetails::with_error_info(name, "kiki", std::collections::HashMap::<String, String>::new());
        details.set_retry_info(Some(after));
        Status::with_error_details(code, message, details)
    }

    /// Whether `status` carries this reason.
    #[must_use]
    pub fn is(self, status: &Status) -> bool {
        status.get_details_error_info().is_some_and(|info| info.domain == "kiki" && info.reason == self.as_str())
    }
}

/// Whether a service did not answer, rather than refuse: another attempt may do. That it does not know us is a matter between it and us,
/// until our credentials are put right, and not what whoever called us is told.
#[must_use]
pub fn out_of_reach(status: &Status) -> bool {
    let passes = [Reason::Overloaded, Reason::Unauthenticated, Reason::RoleMayNot];
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
        || passes.iter().any(|reason| reason.is(status))
}

/// A fact that a status carries for programs.
#[must_use]
pub fn fact(status: &Status, name: &str) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == "kiki")?.metadata.remove(name)
}

/// A field that is wrong, by its path: `status::field("items[3].sequence", "...")`.
#[must_use]
pub fn field(path: &str, problem: impl std::fmt::Display) -> Status {
    Reason::FieldInvalid.status(format!("{path}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_wire() {
        let status = Reason::BudgetExhausted.status("campaign c has 0 left");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(Reason::BudgetExhausted.is(&status) && !Reason::Internal.is(&status));
        let status = Reason::Overloaded.status_to_retry("full", std::time::Duration::from_millis(50));
        assert!(Reason::Overloaded.is(&status));
        assert_eq!(status.get_details_retry_info().and_then(|info| info.retry_delay).map(|delay| delay.as_millis()), Some(50));
        let status = Reason::ClientMoved.status_with("acme went", &[("client", "acme")]);
        assert_eq!((fact(&status, "client").as_deref(), fact(&status, "log_id")), (Some("acme"), None));
    }
}
