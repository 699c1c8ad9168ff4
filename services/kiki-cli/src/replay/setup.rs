//! What stands before the first request: the policy, the clients with their terms and campaigns, and the customers' history.

use std::time::Duration;

use kiki::leaf::{BidCap, Policy};
use kiki::pb::log::v1::CreativeFormat;
use kiki::pb::syncflow::v1 as flow;
use kiki::pb::syncshield::v1 as shield;
use kiki::pb::syncvalue::v1 as value;
use kiki::runtime::Channel;
use shield::sync_shield_service_client::SyncShieldServiceClient;
use tokio_stream::StreamExt as _;

use super::account::sum;
use super::clients::{CLIENTS, client_of};
use super::events::Purchase;
use super::plan::Plan;
use crate::error::{Failure, rpc};
use crate::http::Http;
use crate::out;
use crate::platform::Endpoints;

/// Events in one message, as SyncValue bounds them.
const MESSAGE: usize = 4_096;
/// How long SyncFlow may take to take in what was put.
const TAKEN_IN: Duration = Duration::from_secs(30);
/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Puts policy, evidence, terms and campaigns.
pub(crate) async fn put(plan: &Plan, channel: Channel) -> Result<(), Failure> {
    let mut shield = SyncShieldServiceClient::new(channel);
    let failed = |what: &'static str| move |status: tonic::Status| rpc(what, &status);
    let settings = &plan.settings;
    // No impression may cost more than 100 times what one is worth at the start.
    let cap = plan.typical_nanos().saturating_mul(100).max(1);
    let policy = Policy {
        bid_caps: vec![BidCap { currency: settings.currency.clone(), cap_nanos: cap }],
        blocked_countries: vec!["PRK".to_owned()],
        blocked_categories: vec!["IAB25".to_owned(), "IAB26".to_owned()],
        blocked_domains: vec!["blocked.example".to_owned()],
        ..Policy::default()
    };
    shield
        .put_policy(shield::PutPolicyRequest { policy: Some(policy), ..Default::default() })
        .await
        .map_err(failed("putting the policy"))?;
    for (client, history) in CLIENTS.iter().zip(&plan.histories) {
        for line in client.campaigns {
            let campaign = client.campaign(line, history, &settings.currency, settings.budget_micros);
            let request = shield::PutCampaignRequest { client: client.id.to_owned(), campaign: Some(campaign) };
            shield.put_campaign(request).await.map_err(failed("putting a campaign"))?;
        }
        let evidence = client.evidence(history, &settings.currency, plan.begin, plan.events.digest);
        let item = shield::RecordItem { client: client.id.to_owned(), body: Some(shield::record_item::Body::Evidence(evidence)) };
        let request = shield::RecordRequest { items: vec![item], ..Default::default() };
        let recorded = shield.record(request).await.map_err(failed("recording the baseline's evidence"))?.into_inner();
        let evidence = recorded.results.into_iter().next().and_then(|result| result.position);
        let terms = client.terms(&settings.currency, evidence, plan.begin);
        let request = shield::PutTermsRequest { client: client.id.to_owned(), terms: Some(terms) };
        shield.put_terms(request).await.map_err(failed("putting terms"))?;
    }
    Ok(())
}

/// Gives SyncValue the purchases before the month.
pub(crate) async fn observe(plan: &Plan, channel: Channel) -> Result<u64, Failure> {
    let history = plan.events.between(kiki::clock::UnixMicros(i64::MIN), plan.begin);
    let bar = out::bar("customer history", history.len() as u64);
    let messages: Vec<value::ObserveRequest> =
        history.chunks(MESSAGE).map(|some| value::ObserveRequest { events: some.iter().map(|p| observed(plan, p)).collect() }).collect();
    let mut client = value::sync_value_service_client::SyncValueServiceClient::new(channel);
    let mut answers = client.observe(tokio_stream::iter(messages)).await.map_err(|s| rpc("observing the history", &s))?.into_inner();
    let mut taken = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|s| rpc("observing the history", &s))?;
        let some = u64::from(answer.applied) + u64::from(answer.duplicates);
        taken += some;
        bar.inc(some);
    }
    bar.finish_and_clear();
    if taken != history.len() as u64 {
        return Err(Failure::new(format!("observing the history: {taken} of {} purchases were taken", history.len())));
    }
    Ok(taken)
}

fn observed(plan: &Plan, purchase: &Purchase) -> value::ObservedEvent {
    let customer = &plan.events.customers[purchase.customer];
    value::ObservedEvent {
        client: client_of(customer).id.to_owned(),
        customer: customer.clone(),
        currency: plan.settings.currency.clone(),
        event: Some(value::Event {
            event_id: purchase.event_id(),
            occurred_at: Some(purchase.at.into()),
            value_micros: purchase.value_micros,
            items: purchase.items,
        }),
    }
}

/// Waits until SyncFlow bids on all that was put: which decisions a run makes must not depend on how fast that was. The log has no
/// campaigns but these, and each is put once: what is left to wait for is all of them, their terms and a policy. That they are fresh, an
/// opportunity that no campaign fits says.
pub(crate) async fn taken_in(at: &Endpoints) -> Result<(), Failure> {
    let mut client = flow::sync_flow_service_client::SyncFlowServiceClient::new(super::open(&at.flow)?);
    let http = Http::new();
    let looking = async {
        while !(known(&http, &at.flow_http).await? && ready(&mut client).await?) {
            tokio::time::sleep(LOOK_EVERY).await; // between two looks; the replicas come by streams that nobody else sees
        }
        Ok(())
    };
    tokio::time::timeout(TAKEN_IN, looking).await.map_err(|_| Failure::new("syncflow did not take in the campaigns"))?
}

/// Whether SyncFlow counts all campaigns, with their terms, and a policy.
async fn known(http: &Http, flow_http: &str) -> Result<bool, Failure> {
    let answer = http.get(&format!("{flow_http}/metrics")).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let campaigns: usize = CLIENTS.iter().map(|client| client.campaigns.len()).sum();
    let [known, without_terms, policy] =
        ["syncflow_campaigns", "syncflow_campaigns_without_terms", "syncflow_policy_version"].map(|name| sum(&text, name));
    Ok(known == campaigns as u64 && without_terms == 0 && policy > 0)
}

async fn ready(client: &mut flow::sync_flow_service_client::SyncFlowServiceClient<Channel>) -> Result<bool, Failure> {
    let opportunity = flow::Opportunity {
        request_id: "is-it-ready".to_owned(),
        imp_id: "1".to_owned(),
        exchange: super::auction::EXCHANGES[0].id.to_owned(),
        // No campaign has a creative of this size.
        format: CreativeFormat::Banner.into(),
        width: 1,
        height: 1,
        ..Default::default()
    };
    let request = flow::BidRequest { opportunity: Some(opportunity), await_durable: false };
    let answer = client.bid(request).await.map_err(|s| rpc("asking whether syncflow is ready", &s))?.into_inner();
    Ok(match answer.result {
        Some(flow::bid_response::Result::NoBid(no_bid)) => no_bid.reason() == flow::NoBidReason::NoMatch,
        _ => false,
    })
}
