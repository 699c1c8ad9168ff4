//! Frequency caps: at most so many impressions of one customer in so many hours.
//!
//! The table says which caps a bid has; how many impressions there were, whoever counts them says. A cap of a campaign
//! counts that campaign's impressions, one without a campaign all of its client's. A customer is one client's: their
//! pseudonyms differ between clients, so that no cap can count across them.

use super::PolicyError;
use super::table::Mask;
use crate::leaf;

/// The longest window of a cap, 30 days: what is older never counts, and nobody has to remember it.
pub const MAX_HOURS: u32 = 720;
/// The highest cap: a customer has a list of their impressions, and counting walks it.
const MAX_MOST: u32 = 1_000;

/// One cap that is for a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// The rule, by its place in [`super::Policy::rule_ids`].
    pub rule: u16,
    /// Impressions that one customer may have.
    pub most: u32,
    /// In so many hours.
    pub hours: u32,
    /// Whether the campaign's own impressions count, or all of its client's.
    pub of_campaign: bool,
}

impl Cap {
    pub(super) fn read(path: &str, frequency: &leaf::Frequency, rule: &leaf::PolicyRule) -> Result<Self, PolicyError> {
        let leaf::Frequency { most, hours } = *frequency;
        for (name, value, limit) in [("most", most, MAX_MOST), ("hours", hours, MAX_HOURS)] {
            if !(1..=limit).contains(&value) {
                return Err(PolicyError::new(format!("{path}.{name}"), format!("{value} is not within 1 to {limit}")));
            }
        }
        Ok(Self { rule: 0, most, hours, of_campaign: !rule.campaign.is_empty() })
    }
}

/// The caps of a policy.
#[derive(Debug, Clone)]
pub(super) struct Caps {
    /// In the order of their rules.
    caps: Vec<Cap>,
    rules: Mask,
}

impl Caps {
    pub(super) fn new(words: usize) -> Self {
        Self { caps: Vec::new(), rules: vec![0; words].into_boxed_slice() }
    }

    /// Adds a rule's cap; rules come in their order.
    pub(super) fn add(&mut self, rule: usize, cap: Cap) {
        super::table::set(&mut self.rules, rule);
        self.caps.push(Cap { rule: rule as u16, ..cap }); // below MAX_RULES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.caps.is_empty()
    }

    /// The caps among these rules.
    pub(super) fn of(&self, scope: &[u64]) -> Vec<Cap> {
        let mut found = Vec::new();
        if self.caps.is_empty() {
            return found;
        }
        for (word, (rules, scope)) in self.rules.iter().zip(scope).enumerate() {
            let mut bits = rules & scope;
            while bits != 0 {
                let rule = word * 64 + bits.trailing_zeros() as usize;
                let at = self.caps.binary_search_by_key(&rule, |cap| cap.rule.into());
                found.extend(at.ok().and_then(|at| self.caps.get(at)));
                bits &= bits - 1;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::guardrail::Policy;
    use crate::leaf::{self, policy_rule::Kind};

    fn rule(id: &str, (client, campaign, platform): (&str, &str, &str), (most, hours): (u32, u32)) -> leaf::PolicyRule {
        let kind = Some(Kind::Frequency(leaf::Frequency { most, hours }));
        let (client, campaign, platform) = (client.into(), campaign.into(), platform.into());
        leaf::PolicyRule { id: id.into(), client, campaign, platform, kind, ..Default::default() }
    }

    fn compile(rules: Vec<leaf::PolicyRule>) -> Result<Policy, crate::guardrail::PolicyError> {
        Policy::compile(&leaf::Policy { rules, ..Default::default() })
    }

    #[test]
    fn a_campaign_has_its_own_caps_its_clients_and_everybodys() {
        let mut rules: Vec<_> = (0..70).map(|n| rule(&format!("other-{n}"), ("other", "", ""), (1, 1))).collect();
        rules.extend([
            rule("all", ("", "", ""), (9, 720)),
            rule("acme", ("acme", "", ""), (5, 24)),
            rule("spring", ("acme", "spring", ""), (3, 24)),
        ]);
        let policy = compile(rules).expect("a policy");
        let caps = |client, campaign| {
            let caps = policy.caps(client, campaign);
            let said = caps.iter().map(|cap| (policy.rule_ids()[usize::from(cap.rule)].clone(), cap.most, cap.of_campaign));
            said.collect::<Vec<_>>()
        };
        let said = |id: &str, most, of_campaign| (id.to_owned(), most, of_campaign);
        assert_eq!(caps("acme", "spring"), [said("all", 9, false), said("acme", 5, false), said("spring", 3, true)]);
        assert_eq!(caps("acme", "autumn"), [said("all", 9, false), said("acme", 5, false)]);
        assert_eq!(caps("else", "spring"), [said("all", 9, false)]);
        assert_eq!(caps("other", "x").len(), 71);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let field = |platform, cap| compile(vec![rule("r", ("acme", "", platform), cap)]).expect_err("out of bounds").field;
        assert_eq!(field("", (0, 24)), "rules[0].frequency.most");
        assert_eq!(field("", (1_001, 24)), "rules[0].frequency.most");
        assert_eq!(field("", (3, 0)), "rules[0].frequency.hours");
        assert_eq!(field("", (3, 721)), "rules[0].frequency.hours");
        assert_eq!(field("meta", (3, 24)), "rules[0].platform");
    }
}
