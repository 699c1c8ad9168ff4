//! What the replicas of bidders are made of: campaigns and policy, as the fold has them.

use kiki::leaf;

use crate::domain::state::State;

/// Campaigns and policy.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Campaigns by client and id, with the horizon of the client's terms in their currency (0: no terms).
    pub campaigns: Vec<CatalogEntry>,
    /// The policy in force.
    pub policy: Option<(leaf::Policy, kiki::guardrail::Policy)>,
    /// The policy that is held against decisions without refusing.
    pub shadow: Option<kiki::guardrail::Policy>,
}

/// One campaign of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogEntry {
    /// Whose it is.
    pub client: String,
    /// The document.
    pub campaign: leaf::Campaign,
    /// LTV horizon of the terms, days.
    pub horizon_days: u32,
    /// Charged impressions when the catalog was made.
    pub billed_impressions: u64,
    /// Customers acquired by then.
    pub conversions: u64,
}

impl Catalog {
    /// The catalog of a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let decode = |bytes: &[u8]| <leaf::Campaign as prost::Message>::decode(bytes).ok();
        let mut campaigns = Vec::new();
        for (client, of) in state.clients.iter().filter(|(_, of)| of.left.is_none()) {
            for campaign in of.campaigns.values() {
                let Some(document) = decode(&campaign.document) else { continue };
                let horizon_days = state.terms(client, &document.currency).map_or(0, |terms| terms.horizon_days);
                let (billed_impressions, conversions) = (campaign.billed_impressions, campaign.conversions);
                campaigns.push(CatalogEntry { client: client.clone(), campaign: document, horizon_days, billed_impressions, conversions });
            }
        }
        let compiled = |version| {
            let document = state.policies.document(version)?;
            kiki::guardrail::Policy::compile(&document).ok().map(|compiled| (document, compiled))
        };
        let shadow = compiled(state.policies.shadow).map(|(_, compiled)| compiled);
        Self { campaigns, policy: compiled(state.policies.active), shadow }
    }
}
