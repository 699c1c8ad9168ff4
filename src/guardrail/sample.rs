//! A policy of any number of rules of every kind, and a bid that it allows: what benchmarks check.

use super::{Bid, List};
use crate::clock::UnixMicros;
use crate::leaf::{self, policy_rule::Kind};
use crate::money::{Currency, Micros, Nanos};

/// A policy with a bid.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The policy.
    pub policy: leaf::Policy,
    categories: Vec<String>,
    places: Vec<String>,
}

impl Sample {
    /// The same with so many rules more that have a condition.
    #[must_use]
    pub fn with_conditions(mut self, count: usize) -> Self {
        let condition = "country == 'DEU' && cpm_micros > predicted_ltv_micros / 10 && !('IAB7' in categories)";
        let rule = |i| leaf::PolicyRule { id: format!("condition-{i}"), condition: condition.into(), ..Default::default() };
        self.policy.rules.extend((0..count).map(rule));
        self
    }

    /// A bid that every rule lets through.
    #[must_use]
    pub fn bid(&self) -> Bid<'_> {
        Bid {
            client: "client-1",
            campaign: "campaign-1",
            platform: "platform-1",
            currency: Currency::USD,
            price: Nanos::new(2_000_000),
            predicted_ltv: Micros::new(50_000_000),
            country: "DEU",
            categories: List::Kept(&self.categories),
            places: List::Kept(&self.places),
            signals: 0,
            at: UnixMicros(1_770_000_000_000_000),
        }
    }
}

/// `count` rules, a third of them for one client or platform each; the lists of the document are five of them.
#[must_use]
pub fn sample(count: usize) -> Sample {
    let rules = (0..count.saturating_sub(6)).map(rule).collect();
    let policy = leaf::Policy {
        version: 1,
        bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 50_000_000 }],
        blocked_countries: vec!["PRK".into()],
        blocked_categories: vec!["IAB25".into()],
        blocked_domains: vec!["bad.example".into()],
        platforms_off: vec!["off".into()],
        rules,
        ..Default::default()
    };
    let places = ["com.example.app", "news.site.example"].map(str::to_owned).to_vec();
    Sample { policy, categories: ["IAB1-2", "IAB19"].map(str::to_owned).to_vec(), places }
}

fn rule(i: usize) -> leaf::PolicyRule {
    let amount = |least, most| leaf::AmountRange { currency: "USD".into(), least, most };
    let names = |allow, names: [String; 2]| leaf::NameList { allow, names: names.to_vec() };
    let n = i as i64;
    let kind = match i % 8 {
        0 => Kind::Price(amount(1 + n, 20_000_000 + n)),
        1 => Kind::PredictedLtv(amount(1 + n, 500_000_000 + n)),
        2 => Kind::Countries(names(
            i % 16 == 2,
            ["DEU".into(), format!("X{:02}", i % 100)].map(|c| if i % 16 == 2 { c } else { format!("Y{c}") }),
        )),
        3 => Kind::Categories(names(false, [format!("IAB7-{i}"), format!("IAB9-{i}")])),
        4 => Kind::Places(names(false, [format!("bad{i}.example"), format!("com.bad{i}")])),
        5 => Kind::PlatformOff(leaf::PlatformOff {}),
        6 => {
            let windows = vec![leaf::Window { days: (1..=7).collect(), from_minute: 0, to_minute: 1_440 }];
            let zone = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"][i / 8 % 4].into();
            Kind::Schedule(leaf::Schedule { zone, windows })
        }
        _ => Kind::Consent(leaf::Consent { refuse: vec![leaf::Signal::Coppa.into(), leaf::Signal::TcfRefused.into()] }),
    };
    let client = if i % 3 == 1 { format!("client-{}", i % 50) } else { String::new() };
    let platform = if i % 8 == 5 {
        format!("off-{i}")
    } else if i % 3 == 2 {
        format!("platform-{}", i % 20)
    } else {
        String::new()
    };
    leaf::PolicyRule { id: format!("rule-{i}"), client, platform, kind: Some(kind), ..Default::default() }
}
