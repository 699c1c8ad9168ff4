//! A policy, terms, one campaign with more budget than a run can spend, and customers who have bought before.

use std::time::Duration;

use kiki::clock::Clock;
use kiki::leaf::{self, AttributionRule, Basis, CreativeFormat, Netting};
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::{BidRequest, BidStreamRequest, Opportunity, bid_response};
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{PutCampaignRequest, PutPolicyRequest, PutTermsRequest};
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::runtime::Channel;
use tokio::time::{Instant, sleep};

use super::customers::{CLIENT, CURRENCY, customer, observe};
use crate::error::{Doing as _, Failure, rpc};
use crate::platform::Endpoints;

/// The one campaign.
pub(crate) const CAMPAIGN: &str = "bench-campaign";
/// Opportunities of a message.
const MESSAGE: usize = 64;
/// How long the campaign may take to reach SyncFlow.
const READY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// SyncFlow's address.
    pub(crate) flow: String,
    customers: u32,
    /// What makes request ids of one run differ from those of another.
    pub(crate) run: u64,
}

impl Scene {
    /// Sets up a platform, and waits until it bids.
    pub(crate) async fn set(platform: &Endpoints, customers: u32) -> Result<Self, Failure> {
        let channel = |at: &str| kiki::runtime::channel(at).doing(at);
        // The events are observed first: the first bids are made on predictions already.
        observe(SyncValueServiceClient::new(channel(&platform.value)?), customers).await?;
        put(SyncShieldServiceClient::new(channel(&platform.shield)?)).await?;
        let scene = Self { flow: platform.flow.clone(), customers, run: 0 };
        scene.until_it_bids().await?;
        Ok(scene.next_run())
    }

    /// The same scene, with request ids that were not used yet.
    pub(crate) fn next_run(&self) -> Self {
        // Four bytes of the clock would do: runs are seconds apart.
        Self { run: Clock::System.now().0 as u64, ..self.clone() }
    }

    /// The opportunities `number` to `number + count`.
    pub(crate) fn request(&self, number: u64, count: usize) -> BidStreamRequest {
        BidStreamRequest { opportunities: (number..).take(count).map(|n| self.opportunity(n)).collect() }
    }

    pub(crate) fn opportunity(&self, number: u64) -> Opportunity {
        Opportunity {
            request_id: format!("{:x}-{number:08x}", self.run),
            imp_id: "1".to_owned(),
            exchange: "bench-exchange".to_owned(),
            customer: customer((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % u64::from(self.customers)),
            country: "USA".to_owned(),
            domain: "news.example".to_owned(),
            categories: vec!["IAB12".to_owned()],
            format: CreativeFormat::Banner.into(),
            width: 300,
            height: 250,
            floor_nanos: 1_000,
            currency: CURRENCY.to_owned(),
            ..Opportunity::default()
        }
    }

    /// Asks for a bid for each customer, one message behind the other: SyncFlow knows then what they are worth, for as long as that holds.
    pub(super) async fn bid_for_each(&self) -> Result<(), Failure> {
        let mut flow = SyncFlowServiceClient::new(kiki::runtime::channel(&self.flow).doing(&self.flow)?);
        let mut bids = 0;
        let of = |number: u32| Opportunity { customer: customer(number.into()), ..self.opportunity(number.into()) };
        for from in (0..self.customers).step_by(MESSAGE) {
            let opportunities = (from..self.customers).take(MESSAGE).map(of).collect();
            let message = tokio_stream::once(BidStreamRequest { opportunities });
            let failed = |status: tonic::Status| rpc("bidding for each customer", &status);
            let mut answers = flow.bid_stream(message).await.map_err(failed)?.into_inner();
            while let Some(answer) = answers.message().await.map_err(failed)? {
                bids += answer.responses.iter().filter(|one| matches!(one.result, Some(bid_response::Result::Bid(_)))).count();
            }
        }
        if bids == 0 { Err(Failure::new("no customer was bid for")) } else { Ok(()) }
    }

    async fn until_it_bids(&self) -> Result<(), Failure> {
        let mut flow = SyncFlowServiceClient::new(kiki::runtime::channel(&self.flow).doing(&self.flow)?);
        let end = Instant::now() + READY;
        for number in 0.. {
            let request = BidRequest { opportunity: Some(self.opportunity(number)), await_durable: true };
            let answer = flow.bid(request).await.map_err(|status| rpc("the first bid", &status))?.into_inner().result;
            match answer {
                Some(bid_response::Result::Bid(_)) => break,
                answer if Instant::now() > end => return Err(Failure::new(format!("no bid after {READY:?}: {}", why(answer)))),
                _ => sleep(Duration::from_millis(50)).await, // polls: there is no call that waits for a campaign
            }
        }
        Ok(())
    }
}

fn why(answer: Option<bid_response::Result>) -> String {
    match answer {
        Some(bid_response::Result::NoBid(no)) => format!("{}: {}", no.reason().as_str_name(), no.detail),
        _ => "an answer without a result".to_owned(),
    }
}

/// A policy, and terms and a campaign of the bench's client.
pub(crate) async fn put(mut shield: SyncShieldServiceClient<Channel>) -> Result<(), Failure> {
    let policy = leaf::Policy {
        bid_caps: vec![leaf::BidCap { currency: CURRENCY.to_owned(), cap_nanos: 20_000_000 }],
        blocked_countries: vec!["PRK".to_owned()],
        blocked_categories: vec!["IAB25".to_owned()],
        blocked_domains: vec!["blocked.example".to_owned()],
        ..leaf::Policy::default()
    };
    shield
        .put_policy(PutPolicyRequest { policy: Some(policy), ..Default::default() })
        .await
        .map_err(|status| rpc("putting a policy", &status))?;
    let terms = leaf::Terms {
        currency: CURRENCY.to_owned(),
        client_name: "Bench".to_owned(),
        baseline_ppm: 3_000_000,
        share_ppm: 100_000,
        basis: Basis::Predicted.into(),
        netting: Netting::Client.into(),
        zone: "UTC".to_owned(),
        payment_days: 30,
        horizon_days: 90,
        attribution: AttributionRule::LastBilledV1.into(),
        lookback_seconds: 2_592_000,
        ..leaf::Terms::default()
    };
    let terms = PutTermsRequest { client: CLIENT.to_owned(), terms: Some(terms) };
    shield.put_terms(terms).await.map_err(|status| rpc("putting terms", &status))?;
    let campaign = PutCampaignRequest { client: CLIENT.to_owned(), campaign: Some(campaign()) };
    shield.put_campaign(campaign).await.map_err(|status| rpc("putting a campaign", &status))?;
    Ok(())
}

/// At a price of about 1 per thousand, the budget of a billion lasts for a million million bids.
fn campaign() -> leaf::Campaign {
    let creative = leaf::Creative {
        creative: "banner".to_owned(),
        crid: "bench-1".to_owned(),
        adomain: vec!["bench.example".to_owned()],
        format: CreativeFormat::Banner.into(),
        width: 300,
        height: 250,
        markup: "<a href=\"${KIKI_CLICK}\"><img src=\"https://bench.example/300x250.png\"></a>".to_owned(),
        click_url: "https://bench.example/".to_owned(),
        ..leaf::Creative::default()
    };
    leaf::Campaign {
        campaign: CAMPAIGN.to_owned(),
        name: "Bench".to_owned(),
        currency: CURRENCY.to_owned(),
        limit_total_micros: 1_000_000_000_000_000,
        target_roas_ppm: 3_000_000,
        prior_p_conversion_ppb: 20_000,
        prior_ltv_micros: 30_000_000,
        creatives: vec![creative],
        zone: "UTC".to_owned(),
        ..leaf::Campaign::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opportunities_of_a_run_are_all_different_and_customers_are_spread() {
        let scene = Scene { flow: String::new(), customers: 100, run: 7 };
        let batch = [scene.request(0, 64), scene.request(64, 64)].map(|request| request.opportunities).concat();
        let distinct = |of: fn(&Opportunity) -> &String| batch.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!(distinct(|o| &o.request_id), 128);
        assert!(distinct(|o| &o.customer) > 50);
        let other = Scene { run: 8, ..scene.clone() };
        assert_ne!(scene.request(0, 1), other.request(0, 1));
    }
}
