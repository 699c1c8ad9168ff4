//! What each role may call: one table for all services. Whatever is not in it is refused, and for whom a role may act is another
//! question, which each call answers ([`crate::caller::Caller::act_for`]).

use std::fmt;
use std::str::FromStr;

use tonic::Status;

use crate::caller::Caller;
use crate::ids::ClientId;
use crate::leaf::OPERATOR;
use crate::status::Reason;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs the platform.
    Operator,
    /// Sends invoices and books what is paid.
    Finance,
    /// Bids through SyncFlow and asks SyncValue.
    Bidder,
    /// An advertiser, of its own alone.
    Tenant,
    /// The service SyncValue.
    SyncValue,
    /// The service SyncFlow.
    SyncFlow,
    /// The service SyncShield.
    SyncShield,
    /// The service Billing.
    Billing,
}

use Role::{Bidder, Billing, Finance, Operator, SyncFlow, SyncShield, SyncValue, Tenant};

/// All roles.
pub const ROLES: [Role; 8] = [Operator, Finance, Bidder, Tenant, SyncValue, SyncFlow, SyncShield, Billing];

/// The RPCs of a service, each with the roles that may call it. `true` where a call leaves no record of its own in the log: an access is
/// recorded then.
type Rpcs = &'static [(&'static str, &'static [Role], bool)];

/// Every RPC of every service.
pub const TABLE: &[(&str, Rpcs)] = &[
    (
        "kiki.syncvalue.v1.SyncValueService",
        &[
            ("Predict", &[Operator, Bidder, Tenant, SyncFlow], false),
            ("PredictBatch", &[Operator, Bidder, Tenant, SyncFlow], false),
            ("PredictStream", &[Operator, Bidder, Tenant, SyncFlow], false),
            ("Observe", &[Operator, Tenant], false),
            ("Explain", &[Operator, Bidder, Tenant], false),
            ("EraseCustomer", &[Operator, Tenant], true),
            ("GetModel", &[Operator, Bidder], false),
            ("SetModels", &[Operator], true),
        ],
    ),
    (
        "kiki.syncflow.v1.SyncFlowService",
        &[
            ("Bid", &[Operator, Bidder], false),
            ("BidStream", &[Operator, Bidder], false),
            ("Notify", &[Operator, Bidder], false),
            ("ReportConversions", &[Operator, Bidder, Tenant], false),
            ("GetBudget", &[Operator, Finance, Bidder, Tenant], false),
            ("WatchBreakers", &[Operator, Bidder], false),
            ("OverrideBreaker", &[Operator], true),
        ],
    ),
    (
        "kiki.syncshield.v1.SyncShieldService",
        &[
            ("Check", &[Operator, Bidder, Tenant, SyncFlow], false),
            ("Reserve", &[Operator, SyncFlow], false),
            ("Settle", &[Operator, SyncFlow], false),
            ("Void", &[Operator, SyncFlow], false),
            ("Lease", &[Operator, SyncFlow], false),
            ("Renew", &[Operator, SyncFlow], false),
            ("Mark", &[Operator, SyncFlow], false),
            ("Return", &[Operator, SyncFlow], false),
            ("GetBudget", &[Operator, Finance, Tenant, SyncFlow], false),
            ("Record", &[Operator, Tenant, SyncValue, SyncFlow, SyncShield, Billing], false),
            ("Tail", &[Operator, Finance, Tenant, SyncValue, SyncFlow, Billing], false),
            ("GetCheckpoint", &[Operator, Finance, Bidder, Tenant, SyncValue, SyncFlow, SyncShield, Billing], false),
            ("GetProof", &[Operator, Finance, Tenant, SyncShield, Billing], false),
            ("GetConsistency", &[Operator, Finance, Tenant, SyncShield, Billing], false),
            ("PutCampaign", &[Operator, Tenant], false),
            ("PutTerms", &[Operator, Finance], false),
            ("PutPolicy", &[Operator], false),
            ("ValidatePolicy", &[Operator, Tenant], false),
            ("StagePolicy", &[Operator], false),
            ("GetPolicy", &[Operator], false),
            ("Explain", &[Operator, Tenant], false),
            ("PutLimits", &[Operator, Tenant], false),
            ("Adjust", &[Operator, Finance], false),
            ("Reconcile", &[Operator, Finance], false),
            ("WatchPolicy", &[Operator, SyncFlow], false),
            ("WatchCampaigns", &[Operator, Finance, Tenant, SyncFlow], false),
            ("Unseal", &[Operator, Tenant], true),
            ("EraseSubject", &[Operator, Tenant], false),
        ],
    ),
    (
        "kiki.syncshield.v1.SyncShieldAdminService",
        &[("RotateKey", &[Operator], false), ("ExportClient", &[Operator], true), ("ImportClient", &[Operator], true)],
    ),
    (
        "kiki.billing.v1.BillingService",
        &[
            ("DraftInvoices", &[Operator, Finance], false),
            ("FinalizeInvoice", &[Operator, Finance], false),
            ("GetInvoice", &[Operator, Finance, Tenant], false),
            ("ListInvoices", &[Operator, Finance, Tenant], false),
            ("GetProofBundle", &[Operator, Finance, Tenant], false),
            ("ExportInvoice", &[Operator, Finance, Tenant], false),
            ("ApproveInvoice", &[Operator, Finance], false),
            ("MarkSent", &[Operator, Finance], false),
            ("RecordPayment", &[Operator, Finance], false),
            ("DisputeInvoice", &[Operator, Finance, Tenant], false),
            ("ResolveDispute", &[Operator, Finance], false),
            ("VoidInvoice", &[Operator, Finance], false),
            ("WriteOffInvoice", &[Operator, Finance], false),
            ("CreditInvoice", &[Operator, Finance], false),
            ("TrialBalance", &[Operator, Finance], false),
            ("Reconcile", &[Operator, Finance, Tenant], false),
        ],
    ),
];

/// An RPC of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rpc {
    /// The service's full name.
    pub service: &'static str,
    /// The RPC's name.
    pub name: &'static str,
    /// Who may call it.
    pub roles: &'static [Role],
    /// Whether each call is recorded.
    pub recorded: bool,
    /// Whether the caller sends a stream.
    pub streams: bool,
}

/// The RPCs to which a stream is sent.
const STREAMS: [&str; 4] = ["PredictStream", "Observe", "BidStream", "ImportClient"];

/// The table's RPCs.
pub fn rpcs() -> impl Iterator<Item = Rpc> {
    let of_service = |&(service, rpcs): &'static (&str, Rpcs)| {
        rpcs.iter().map(move |&(name, roles, recorded)| Rpc { service, name, roles, recorded, streams: STREAMS.contains(&name) })
    };
    TABLE.iter().flat_map(of_service)
}

impl Rpc {
    /// As HTTP/2 has it: `/service/name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }

    /// Whether a role may call it.
    ///
    /// # Errors
    /// `ROLE_MAY_NOT`.
    pub fn allows(&self, role: Role) -> Result<(), Status> {
        if self.roles.contains(&role) { Ok(()) } else { Err(Reason::RoleMayNot.status(format!("{role} may not call {}", self.name))) }
    }
}

/// Whether a role may call an RPC, by its names.
///
/// # Errors
/// `ROLE_MAY_NOT`, also where there is no such RPC.
pub fn may(role: Role, service: &str, name: &str) -> Result<(), Status> {
    let none = || Reason::RoleMayNot.status(format!("{role} may not call {name}"));
    rpcs().find(|rpc| rpc.service == service && rpc.name == name).ok_or_else(none)?.allows(role)
}

/// A role as a setting gives it, with a tenant's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The role.
    pub role: Role,
    /// What the domain knows of it.
    pub caller: Caller,
}

/// Not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: operator, finance, bidder, syncvalue, syncflow, syncshield, billing or tenant:CLIENT")]
pub struct NoRole(String);

impl FromStr for Granted {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        let no_role = || NoRole(text.chars().take(80).collect());
        if let Some(client) = text.strip_prefix("tenant:") {
            // The operator's own leaves say who was refused what.
            let client = ClientId::parse(client).ok().filter(|client| client.as_str() != OPERATOR).ok_or_else(no_role)?;
            return Ok(Self { role: Tenant, caller: Caller::Tenant(client) });
        }
        let named = |role: &Role| *role != Tenant && role.to_string() == text;
        let role = ROLES.into_iter().find(named).ok_or_else(no_role)?;
        let caller = match role {
            Operator => Caller::Operator,
            Finance => Caller::Finance,
            Bidder => Caller::Bidder,
            _ => Caller::Service,
        };
        Ok(Self { role, caller })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator => "operator",
            Finance => "finance",
            Bidder => "bidder",
            Tenant => "tenant",
            SyncValue => "syncvalue",
            SyncFlow => "syncflow",
            SyncShield => "syncshield",
            Billing => "billing",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_every_rpc_once_and_no_other() {
        let table: Vec<(String, bool)> = rpcs().map(|rpc| (rpc.path(), rpc.streams)).collect();
        let named: BTreeSet<(String, bool)> = table.iter().cloned().collect();
        assert_eq!(named.len(), table.len(), "one is there twice");
        assert_eq!(named, crate::pb::rpcs().into_iter().collect());
        assert!(rpcs().all(|rpc| rpc.roles.contains(&Operator)));
    }

    #[test]
    fn a_role_reads_as_it_is_written_and_a_tenant_has_a_client() {
        for role in ROLES.into_iter().filter(|role| *role != Tenant) {
            assert_eq!(role.to_string().parse::<Granted>().unwrap().role, role);
        }
        let tenant: Granted = "tenant:acme".parse().unwrap();
        assert_eq!((tenant.role, tenant.caller), (Tenant, Caller::Tenant(ClientId::parse("acme").unwrap())));
        for wrong in ["tenant", "tenant:", "tenant:A", "tenant:kiki", "Operator", "root", ""] {
            assert!(wrong.parse::<Granted>().is_err(), "{wrong}");
        }
    }
}
