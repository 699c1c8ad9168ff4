//! The auction between our own campaigns: what each would pay, what speaks against it, and who goes first.

use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::guardrail::{self, Refusals, Verdict};
use kiki::ids::CustomerKey;
use kiki::leaf;
use kiki::money::{Micros, Nanos, PPM};

use super::creative::Creative;
use super::fallback;
use super::opportunity::Opportunity;
use super::pacing;
use super::pricing;
use super::shading::{self, Market, Markets};
use super::targeting::Campaign;

/// The model's name where the campaign's own prior stood in.
pub const PRIOR_MODEL: &str = "prior";

/// What the customer is expected to be worth, and how we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// Expected lifetime value.
    pub ltv: Micros,
    /// Its 5 % quantile, where there is an interval.
    pub q05: Option<Micros>,
    /// The model that said so.
    pub model: Arc<str>,
    /// Whether it was a trained model, SyncValue's fallback, the median of recent predictions or the campaign's prior.
    pub status: leaf::PredictionStatus,
    /// How many times its value is priced, parts per million: a million but for a median.
    pub multiplier_ppm: u32,
}

impl Prediction {
    /// The campaign's own prior.
    #[must_use]
    pub fn prior(campaign: &Campaign) -> Self {
        let (ltv, model, status) = (campaign.prior_ltv, PRIOR_MODEL.into(), leaf::PredictionStatus::Prior);
        Self { ltv, q05: None, model, status, multiplier_ppm: PPM as u32 }
    }
}

/// What the log has counted for a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Impressions that were charged.
    pub billed: u64,
    /// Customers that were acquired.
    pub conversions: u64,
}

/// Where a campaign stands when it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// What the log has counted.
    pub counts: Counts,
    /// What pacing divides its bids by less one, parts per million.
    pub lambda_ppm: u64,
    /// What is known of first-price markets.
    pub markets: &'a Markets,
}

/// A campaign that fits an opportunity.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'a> {
    /// The campaign's place among those that the caller knows.
    pub place: usize,
    /// The campaign.
    pub campaign: &'a Arc<Campaign>,
    /// Which of its creatives it would show.
    pub creative: usize,
    /// The customer as the client knows them, if the request named one.
    pub customer: Option<CustomerKey>,
}

/// A campaign's bid, before its budget was asked.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The campaign's place among those that the caller knows.
    pub place: usize,
    /// The campaign.
    pub campaign: &'a Arc<Campaign>,
    /// Which of its creatives it would show.
    pub creative: usize,
    /// The customer as the client knows them, if the request named one.
    pub customer: Option<CustomerKey>,
    /// What it was priced on.
    pub prediction: Prediction,
    /// What of the predicted value was priced.
    pub priced_ltv: Micros,
    /// P(conversion), parts per billion.
    pub p_conversion_ppb: u32,
    /// What the impression is worth, before pacing, shading and the campaign's cap.
    pub value: Nanos,
    /// What pacing divided that by less one, parts per million.
    pub lambda_ppm: u64,
    /// The market by which it was shaded.
    pub market: Option<Market>,
    /// What it would pay.
    pub price: Nanos,
    /// What speaks against it; none if it may bid.
    pub refusals: Refusals,
    /// The ids of the rules that refuse.
    pub rules: Vec<String>,
}

impl Candidate<'_> {
    /// What it would show.
    #[must_use]
    pub fn creative(&self) -> &Creative {
        &self.campaign.creatives[self.creative]
    }

    /// Whether its price is more than the value and the cap tell: it was paced or shaded.
    #[must_use]
    pub fn reckoned(&self) -> bool {
        self.campaign.pacing.is_some() || self.market.is_some()
    }
}

/// Prices a campaign that fits, and holds it against the floor and the guardrails. None of this depends on who the customer is.
#[must_use]
pub fn candidate<'a>(
    opportunity: &Opportunity<'_>,
    Fit { place, campaign, creative, customer }: Fit<'a>,
    prediction: Prediction,
    Standing { counts, lambda_ppm, markets }: Standing<'_>,
    policy: &guardrail::Policy,
    now: UnixMicros,
) -> Candidate<'a> {
    let p_conversion_ppb = pricing::p_conversion_ppb(campaign.prior_p_conversion_ppb, counts.billed, counts.conversions);
    let target_roas_ppm = campaign.target_roas_ppm;
    let cautious = pricing::cautious(prediction.ltv, prediction.q05, campaign.caution_ppm);
    let priced_ltv = fallback::times(cautious, prediction.multiplier_ppm);
    let value = pricing::worth(&pricing::Valuation { p_conversion_ppb, ltv: priced_ltv, target_roas_ppm });
    let paced = pacing::paced(value, lambda_ppm);
    let shaded = campaign.shading.zip(shading::market(opportunity, campaign.currency)).map(|(exploration_ppm, market)| {
        let question = shading::Question { value: paced, least: opportunity.floor, exploration_ppm, key: opportunity.key };
        (market, markets.offer(market, &question))
    });
    let price = pricing::capped(shaded.map_or(paced, |(_, offer)| offer), campaign.bid_cap);
    let market = shaded.map(|(market, _)| market);
    let verdict = check(opportunity, campaign, (price, prediction.ltv), policy, now);
    let (mut refusals, rules) = (verdict.refusals, policy.named(&verdict));
    // A price of 0 is no offer, even where there is no floor.
    if price == Nanos::ZERO || price < opportunity.floor {
        refusals = refusals.with(leaf::Refusal::BelowFloor);
    }
    Candidate {
        place,
        campaign,
        creative,
        customer,
        prediction,
        priced_ltv,
        p_conversion_ppb,
        value,
        lambda_ppm,
        market,
        price,
        refusals,
        rules,
    }
}

/// The guardrails.
fn check(
    opportunity: &Opportunity<'_>,
    campaign: &Campaign,
    (price, predicted_ltv): (Nanos, Micros),
    policy: &guardrail::Policy,
    at: UnixMicros,
) -> Verdict {
    policy.verdict(&guardrail::Bid {
        client: &campaign.client,
        campaign: &campaign.id,
        platform: opportunity.platform,
        currency: campaign.currency,
        price,
        predicted_ltv,
        country: opportunity.country,
        categories: guardrail::List::Read(&opportunity.categories),
        places: guardrail::List::Read(&opportunity.places),
        signals: opportunity.signals,
        at,
    })
}

/// Those that may bid go first, the highest price before the others, equal prices by client and campaign; then those that may not,
/// in their order.
pub fn rank(candidates: &mut [Candidate<'_>]) {
    candidates.sort_by(|one, other| {
        let refused = |candidate: &Candidate<'_>| !candidate.refusals.is_empty();
        let (first, second) = (one.campaign, other.campaign);
        let by_name = || (&first.client, &first.id).cmp(&(&second.client, &second.id));
        match (refused(one), refused(other)) {
            (false, false) => other.price.cmp(&one.price).then_with(by_name),
            (one, other) => one.cmp(&other),
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use smallvec::smallvec;

    use super::*;
    use crate::domain::openrtb::Size;
    use crate::domain::opportunity::Shape;

    fn policy() -> guardrail::Policy {
        guardrail::Policy::compile(&leaf::Policy {
            version: 1,
            bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 50_000_000 }],
            blocked_domains: vec!["bad.example".into()],
            ..Default::default()
        })
        .unwrap()
    }

    fn campaign(id: &str) -> Arc<Campaign> {
        let leaf = leaf::Campaign {
            campaign: id.into(),
            currency: "USD".into(),
            target_roas_ppm: 2_000_000,
            prior_p_conversion_ppb: 1_000_000,
            creatives: vec![leaf::Creative { creative: "c".into(), ..Default::default() }],
            ..Default::default()
        };
        Arc::new(Campaign::compile("acme", &leaf, 90).unwrap())
    }

    fn bid<'a>(campaign: &'a Arc<Campaign>, ltv_micros: i64, opportunity: &Opportunity<'_>) -> Candidate<'a> {
        let prediction = Prediction { ltv: Micros::new(ltv_micros), ..Prediction::prior(campaign) };
        let standing = Standing { counts: Counts::default(), lambda_ppm: 0, markets: &Markets::default() };
        let fit = Fit { place: 0, campaign, creative: 0, customer: None };
        candidate(opportunity, fit, prediction, standing, &policy(), UnixMicros(0))
    }

    fn opportunity() -> Opportunity<'static> {
        let shapes = smallvec![Shape::Banner(smallvec![Size { w: 1, h: 1 }])];
        Opportunity { shapes, floor: Nanos::new(1_000), ..Default::default() }
    }

    fn refusals(candidate: &Candidate<'_>) -> Vec<leaf::Refusal> {
        candidate.refusals.iter().collect()
    }

    #[test]
    fn holds_a_price_against_floor_and_cap() {
        let a = campaign("a");
        assert_eq!(bid(&a, 100_000_000, &opportunity()).price, Nanos::new(50_000_000));
        assert_eq!(refusals(&bid(&a, 100_000_000, &opportunity())), []);
        assert_eq!(refusals(&bid(&a, 100_000_002, &opportunity())), [leaf::Refusal::BidCap]);
        assert_eq!(refusals(&bid(&a, 1_998, &opportunity())), [leaf::Refusal::BelowFloor]);
        let free = Opportunity { floor: Nanos::ZERO, ..opportunity() };
        assert_eq!(refusals(&bid(&a, 1, &free)), [leaf::Refusal::BelowFloor], "0 is no offer");
    }

    #[test]
    fn an_app_is_blocked_by_its_bundle_or_its_domain() {
        for places in [["bad.example", "com.good"], ["com.good", "www.bad.example"]] {
            let a = campaign("a");
            let candidate = bid(&a, 1_000_000, &Opportunity { places: places.into(), ..opportunity() });
            assert_eq!(refusals(&candidate), [leaf::Refusal::Domain]);
        }
    }

    #[test]
    fn the_highest_price_goes_first_and_ties_go_by_name() {
        let campaigns = ["b", "low", "c", "none", "a"].map(campaign);
        let offers = campaigns.iter().zip([1_000_000, 10, 2_000_000, 9, 1_000_000]);
        let mut all: Vec<_> = offers.map(|(campaign, ltv)| bid(campaign, ltv, &opportunity())).collect();
        rank(&mut all);
        let names: Vec<_> = all.iter().map(|one| (one.campaign.id.as_str(), one.refusals.is_empty())).collect();
        assert_eq!(names, [("c", true), ("a", true), ("b", true), ("low", false), ("none", false)]);
    }
}
