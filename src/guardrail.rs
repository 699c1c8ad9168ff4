//! The guardrails that every bid passes: one compiled table, the same code in SyncShield's `Check`, on SyncFlow's
//! bid path and in the replay of a log, so that they cannot disagree.
//!
//! Invariants: no policy, no bid; a currency without a cap may not be bid in; every reason that applies is named, not
//! only the first, and so is every rule, but that conditions are asked only where nothing else refuses; the digest is that
//! of the document's bytes in the log.
//!
//! Not here: budgets (leases), the life cycle of policies, and the counting that frequency caps need.

mod condition;
mod consent;
mod frequency;
mod sample;
mod table;
mod vet;

use sha2::{Digest as _, Sha256};

use crate::clock::UnixMicros;
use crate::leaf;
use crate::money::{Currency, Micros, Nanos};
pub use consent::{Regulations, signals};
pub use frequency::{Cap, MAX_HOURS};
pub use sample::{Sample, sample};
pub use table::MAX_RULES;
use table::{Rule, Table};

/// Most entries of one list: 65,535 bytes of leaf hold about 6,500 names of ten bytes.
pub const MAX_ENTRIES: usize = 4_096;
/// Rules that a decision names at the most: 16 ids of 63 bytes are 1 KiB of the 64 that its leaf shares.
pub const MAX_NAMED: usize = 16;

/// A set of refusals: bit n stands for the refusal of value n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals(pub u32);

impl Refusals {
    /// None.
    pub const NONE: Self = Self(0);
    /// Those that a policy's table makes of a bid alone; the others are of budgets, floors, deadlines and frequency.
    pub const GUARDRAILS: Self = Self::NONE
        .with(leaf::Refusal::BidCap)
        .with(leaf::Refusal::Geo)
        .with(leaf::Refusal::Category)
        .with(leaf::Refusal::Domain)
        .with(leaf::Refusal::PlatformOff)
        .with(leaf::Refusal::BidFloor)
        .with(leaf::Refusal::LtvRange)
        .with(leaf::Refusal::Schedule)
        .with(leaf::Refusal::Consent)
        .with(leaf::Refusal::Condition);

    /// These and one more.
    #[must_use]
    pub const fn with(self, refusal: leaf::Refusal) -> Self {
        Self(self.0 | 1 << refusal as u32)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = leaf::Refusal> {
        (1..32).filter(move |bit| self.0 & 1 << bit != 0).filter_map(|bit| leaf::Refusal::try_from(bit).ok())
    }
}

/// What of a bid the policy looks at.
#[derive(Debug, Clone, Copy)]
pub struct Bid<'a> {
    /// The advertiser.
    pub client: &'a str,
    /// Its campaign.
    pub campaign: &'a str,
    /// The ad platform that the exchange belongs to.
    pub platform: &'a str,
    /// The currency bid in, and of the predicted value.
    pub currency: Currency,
    /// The price of the impression.
    pub price: Nanos,
    /// What the customer is expected to be worth.
    pub predicted_ltv: Micros,
    /// ISO 3166-1 alpha-3, or empty where unknown.
    pub country: &'a str,
    /// Content categories of the page or app.
    pub categories: List<'a>,
    /// Site domain, app bundle and app domain, as far as they are known.
    pub places: List<'a>,
    /// A bit for each `leaf::Signal` of the request: see [`signals`].
    pub signals: u32,
    /// When the bid is made.
    pub at: UnixMicros,
}

/// Texts that a bid brings along: a record's own, or those that a request is read from.
#[derive(Debug, Clone, Copy)]
pub enum List<'a> {
    /// Of a record.
    Kept(&'a [String]),
    /// Of a request.
    Read(&'a [&'a str]),
}

impl<'a> List<'a> {
    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let (kept, read): (&[String], &[&str]) = match self {
            Self::Kept(texts) => (texts, &[]),
            Self::Read(texts) => (&[], texts),
        };
        kept.iter().map(String::as_str).chain(read.iter().copied())
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Kept(texts) => texts.len(),
            Self::Read(texts) => texts.len(),
        }
    }
}

/// What a policy says to a bid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Why not; none where it is allowed.
    pub refusals: Refusals,
    /// Which rules refuse, by their place in [`Policy::rule_ids`].
    pub rules: Vec<u16>,
}

/// A policy, compiled.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its version, from 1.
    pub version: u64,
    /// SHA-256 of the document's bytes.
    pub digest: [u8; 32],
    table: Table,
}

/// A policy that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy.{field}: {problem}")]
pub struct PolicyError {
    /// The field's path.
    pub field: String,
    /// What is wrong, with the limit.
    pub problem: String,
}

impl PolicyError {
    fn new(field: impl Into<String>, problem: impl ToString) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

impl Policy {
    /// Compiles a policy document.
    ///
    /// # Errors
    /// Names the first field that is out of its limits.
    pub fn compile(document: &leaf::Policy) -> Result<Self, PolicyError> {
        if document.proposed && document.author.is_empty() {
            return Err(PolicyError::new("author", "is missing"));
        }
        if document.author.len() > 255 {
            return Err(PolicyError::new("author", format!("has {} bytes; at most 255 are taken", document.author.len())));
        }
        table::check_caps(document)?;
        let rules = table::lists(document).into_iter().map(Ok);
        let rules = rules.chain(document.rules.iter().enumerate().map(|(i, rule)| Rule::read(&format!("rules[{i}]"), rule)));
        let rules: Vec<Rule<'_>> = rules.collect::<Result<_, _>>()?;
        Ok(Self { version: document.version, digest: digest(document), table: Table::build(&rules)? })
    }

    /// Compiles a document that is new, and so must also not name countries or categories that no request has. What is
    /// in the log was taken by the rules of its day: for that there is [`Policy::compile`].
    ///
    /// # Errors
    /// As [`Policy::compile`]; or names the value that matches nothing.
    pub fn accept(document: &leaf::Policy) -> Result<Self, PolicyError> {
        let compiled = Self::compile(document)?;
        vet::vet(document).map(|()| compiled)
    }

    /// Every reason that speaks against the bid.
    #[must_use]
    pub fn check(&self, bid: &Bid<'_>) -> Refusals {
        self.verdict(bid).refusals
    }

    /// Every reason and every rule that speaks against the bid. An allowed one costs no allocation.
    #[must_use]
    pub fn verdict(&self, bid: &Bid<'_>) -> Verdict {
        self.table.verdict(bid)
    }

    /// Whether any bid has a frequency cap.
    #[must_use]
    pub fn caps_frequency(&self) -> bool {
        self.table.caps_frequency()
    }

    /// The frequency caps that are for a campaign's bids. Whoever counts impressions holds them; a verdict says nothing of them.
    #[must_use]
    pub fn caps(&self, client: &str, campaign: &str) -> Vec<Cap> {
        self.table.caps(client, campaign)
    }

    /// The ids of all rules; those of the document's lists are the lists' names, and may stand several times.
    #[must_use]
    pub fn rule_ids(&self) -> &[String] {
        &self.table.ids
    }

    /// The ids of the rules that refuse, each once, at most [`MAX_NAMED`].
    #[must_use]
    pub fn named(&self, verdict: &Verdict) -> Vec<String> {
        let mut named: Vec<String> = verdict.rules.iter().map(|rule| self.table.ids[usize::from(*rule)].clone()).collect();
        named.dedup(); // a list's rules stand side by side
        named.truncate(MAX_NAMED);
        named
    }

    /// What the policy says to a recorded decision. Where the decision is abridged, it may say too little.
    #[must_use]
    pub fn judge(&self, client: &str, batch: &leaf::DecisionBatch, decision: &leaf::Decision) -> Option<Verdict> {
        let currency = Currency::parse(&batch.currency).ok()?;
        Some(self.verdict(&Bid {
            client,
            campaign: &batch.campaign,
            platform: &decision.platform,
            currency,
            price: Nanos::new(decision.price_nanos),
            predicted_ltv: Micros::new(decision.predicted_ltv_micros),
            country: &decision.country,
            categories: List::Kept(&decision.categories),
            places: List::Kept(&decision.places),
            signals: decision.signals,
            at: UnixMicros::from_pb(decision.at.as_ref())?,
        }))
    }
}

/// SHA-256 of the policy's bytes as they stand in the log.
#[must_use]
pub fn digest(document: &leaf::Policy) -> [u8; 32] {
    Sha256::digest(prost::Message::encode_to_vec(document)).into()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::compile(&leaf::Policy {
            version: 1,
            bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 5_000_000 }],
            blocked_countries: vec!["PRK".into()],
            blocked_categories: vec!["IAB7".into(), "iab25-3".into()],
            blocked_domains: vec!["bad.example".into()],
            platforms_off: vec!["x".into()],
            ..Default::default()
        })
        .expect("a policy")
    }

    fn bid() -> Bid<'static> {
        Bid {
            client: "acme",
            campaign: "c",
            platform: "meta",
            currency: Currency::USD,
            price: Nanos::new(5_000_000),
            predicted_ltv: Micros::new(1),
            country: "DEU",
            categories: List::Read(&[]),
            places: List::Read(&[]),
            signals: 0,
            at: UnixMicros(0),
        }
    }

    fn refusals(change: impl FnOnce(&mut Bid<'_>)) -> Vec<leaf::Refusal> {
        let mut bid = bid();
        change(&mut bid);
        policy().check(&bid).iter().collect()
    }

    #[test]
    fn allows_what_no_rule_speaks_against() {
        assert_eq!(refusals(|_| {}), []);
        assert_eq!(policy().check(&Bid { places: List::Read(&["notbad.example"]), ..bid() }), Refusals::NONE);
    }

    #[test]
    fn names_every_reason() {
        let policy = policy();
        let verdict = policy.verdict(&Bid {
            platform: "x",
            price: Nanos::new(5_000_001),
            country: "PRK",
            categories: List::Read(&["IAB7-39"]),
            places: List::Read(&["com.good", "www.BAD.example"]),
            ..bid()
        });
        use leaf::Refusal::{BidCap, Category, Domain, Geo, PlatformOff};
        let named = ["bid_caps", "blocked_countries", "blocked_categories", "blocked_domains", "platforms_off"];
        assert_eq!(policy.named(&verdict), named);
        assert_eq!(verdict.refusals.iter().collect::<Vec<_>>(), [BidCap, Geo, Category, Domain, PlatformOff]);
    }

    #[test]
    fn refuses_a_currency_without_a_cap() {
        let jpy = Currency::parse("JPY").expect("a currency");
        assert_eq!(refusals(|bid| bid.currency = jpy), [leaf::Refusal::BidCap]);
    }

    #[test]
    fn a_cap_is_not_held_against_what_was_decided() {
        let kind = Some(leaf::policy_rule::Kind::Frequency(leaf::Frequency { most: 1, hours: 1 }));
        let rules = vec![leaf::PolicyRule { id: "once".into(), kind, ..Default::default() }];
        let caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 5_000_000 }];
        let policy = Policy::compile(&leaf::Policy { bid_caps: caps, rules, ..Default::default() }).expect("a policy");
        let refusals = Refusals::NONE.with(leaf::Refusal::Frequency);
        let decision = leaf::Decision { at: Some(UnixMicros(0).into()), refusals: refusals.0, ..Default::default() };
        let batch = leaf::DecisionBatch { currency: "USD".into(), ..Default::default() };
        assert_eq!(policy.judge("acme", &batch, &decision), Some(Verdict::default()));
        assert!(refusals.and(Refusals::GUARDRAILS).is_empty(), "so policies that both let it through agree");
        assert_eq!(refusals.iter().collect::<Vec<_>>(), [leaf::Refusal::Frequency]);
    }

    #[test]
    fn a_bad_document_names_its_field() {
        let bad = leaf::Policy { bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 0 }], ..Default::default() };
        assert_eq!(Policy::compile(&bad).expect_err("a cap of 0").field, "bid_caps[0].cap_nanos");
    }
}
