//! The guardrails that every bid passes: one compiled table, the same code in SyncShield's `Check` and on SyncFlow's
//! bid path, so that they cannot disagree.
//!
//! Invariants: no policy, no bid; a currency without a cap may not be bid in; every reason that applies is named, not
//! only the first; the digest is that of the document's bytes in the log.
//!
//! Not here: budgets (leases), and the life cycle of policies.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use crate::leaf;
use crate::money::{Currency, Nanos};

/// Most entries of one list: 65,535 bytes of leaf hold about 6,500 names of ten bytes.
pub const MAX_ENTRIES: usize = 4_096;

/// A set of refusals: bit n stands for the refusal of value n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals(pub u32);

impl Refusals {
    /// None.
    pub const NONE: Self = Self(0);

    /// These and one more.
    #[must_use]
    pub const fn with(self, refusal: leaf::Refusal) -> Self {
        Self(self.0 | 1 << refusal as u32)
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
    /// The ad platform that the exchange belongs to.
    pub platform: &'a str,
    /// The currency bid in.
    pub currency: Currency,
    /// The price of the impression.
    pub price: Nanos,
    /// ISO 3166-1 alpha-3, or empty where unknown.
    pub country: &'a str,
    /// Content categories of the page or app.
    pub categories: &'a [String],
    /// Site domain or app bundle, or empty.
    pub domain: &'a str,
}

/// A policy, compiled.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its version, from 1.
    pub version: u64,
    /// SHA-256 of the document's bytes.
    pub digest: [u8; 32],
    caps: HashMap<Currency, Nanos>,
    countries: HashSet<String>,
    categories: HashSet<String>,
    domains: HashSet<String>,
    platforms_off: HashSet<String>,
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

impl Policy {
    /// Compiles a policy document.
    ///
    /// # Errors
    /// Names the first field that is out of its limits.
    pub fn compile(document: &leaf::Policy) -> Result<Self, PolicyError> {
        let error = |field: String, problem: String| PolicyError { field, problem };
        let mut caps = HashMap::new();
        for (i, cap) in document.bid_caps.iter().enumerate() {
            let currency = Currency::parse(&cap.currency).map_err(|e| error(format!("bid_caps[{i}].currency"), e.to_string()))?;
            if cap.cap_nanos <= 0 {
                return Err(error(format!("bid_caps[{i}].cap_nanos"), format!("{} is not above 0", cap.cap_nanos)));
            }
            if caps.insert(currency, Nanos::new(cap.cap_nanos)).is_some() {
                return Err(error(format!("bid_caps[{i}].currency"), format!("{currency} has a cap already")));
            }
        }
        let set = |field: &str, list: &[String]| {
            if list.len() > MAX_ENTRIES {
                return Err(error(field.into(), format!("{} entries; at most {MAX_ENTRIES} are taken", list.len())));
            }
            if let Some(i) = list.iter().position(|entry| entry.is_empty() || entry.len() > 255) {
                return Err(error(format!("{field}[{i}]"), "must have 1 to 255 bytes".into()));
            }
            Ok(list.iter().map(|entry| entry.to_lowercase()).collect::<HashSet<_>>())
        };
        Ok(Self {
            version: document.version,
            digest: digest(document),
            caps,
            countries: set("blocked_countries", &document.blocked_countries)?,
            categories: set("blocked_categories", &document.blocked_categories)?,
            domains: set("blocked_domains", &document.blocked_domains)?,
            platforms_off: set("platforms_off", &document.platforms_off)?,
        })
    }

    /// Every reason that speaks against the bid.
    #[must_use]
    pub fn check(&self, bid: &Bid<'_>) -> Refusals {
        let mut refusals = Refusals::NONE;
        if self.caps.get(&bid.currency).is_none_or(|cap| bid.price > *cap) {
            refusals = refusals.with(leaf::Refusal::BidCap);
        }
        if contains(&self.countries, bid.country) {
            refusals = refusals.with(leaf::Refusal::Geo);
        }
        if bid.categories.iter().any(|category| self.blocks_category(category)) {
            refusals = refusals.with(leaf::Refusal::Category);
        }
        if self.blocks_domain(bid.domain) {
            refusals = refusals.with(leaf::Refusal::Domain);
        }
        if contains(&self.platforms_off, bid.platform) {
            refusals = refusals.with(leaf::Refusal::PlatformOff);
        }
        refusals
    }

    /// A blocked tier-1 category (`IAB7`) blocks its tier-2 ones (`IAB7-39`).
    fn blocks_category(&self, category: &str) -> bool {
        let tier1 = category.split_once('-').map_or("", |(tier1, _)| tier1);
        contains(&self.categories, category) || contains(&self.categories, tier1)
    }

    /// A blocked name blocks its subdomains; a bundle is matched whole or by its leading labels' absence alike.
    fn blocks_domain(&self, domain: &str) -> bool {
        let mut rest = domain;
        loop {
            if contains(&self.domains, rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => return false,
            }
        }
    }
}

/// Membership without a copy where the value is lower case already, as nearly all are.
fn contains(set: &HashSet<String>, value: &str) -> bool {
    if set.is_empty() || value.is_empty() {
        return false;
    }
    if value.bytes().any(|b| b.is_ascii_uppercase()) { set.contains(&value.to_lowercase()) } else { set.contains(value) }
}

/// SHA-256 of the policy's bytes as they stand in the log.
#[must_use]
pub fn digest(document: &leaf::Policy) -> [u8; 32] {
    Sha256::digest(prost::Message::encode_to_vec(document)).into()
}

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
        })
        .expect("a policy")
    }

    fn refusals(change: impl FnOnce(&mut Bid<'_>)) -> Vec<leaf::Refusal> {
        let mut bid = Bid {
            platform: "meta",
            currency: Currency::USD,
            price: Nanos::new(5_000_000),
            country: "DEU",
            categories: &[],
            domain: "good.example",
        };
        change(&mut bid);
        policy().check(&bid).iter().collect()
    }

    #[test]
    fn allows_what_no_rule_speaks_against() {
        assert_eq!(refusals(|_| {}), []);
        assert_eq!(refusals(|bid| bid.domain = "notbad.example"), []);
    }

    #[test]
    fn names_every_reason() {
        let categories = ["IAB7-39".to_owned()];
        let all = policy().check(&Bid {
            platform: "x",
            currency: Currency::USD,
            price: Nanos::new(5_000_001),
            country: "PRK",
            categories: &categories,
            domain: "www.BAD.example",
        });
        use leaf::Refusal::{BidCap, Category, Domain, Geo, PlatformOff};
        assert_eq!(all.iter().collect::<Vec<_>>(), [BidCap, Geo, Category, Domain, PlatformOff]);
    }

    #[test]
    fn refuses_a_currency_without_a_cap() {
        let jpy = Currency::parse("JPY").expect("a currency");
        assert_eq!(refusals(|bid| bid.currency = jpy), [leaf::Refusal::BidCap]);
    }

    #[test]
    fn a_bad_document_names_its_field() {
        let bad = leaf::Policy { bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 0 }], ..Default::default() };
        assert_eq!(Policy::compile(&bad).expect_err("a cap of 0").field, "bid_caps[0].cap_nanos");
    }
}
