//! Spend on a platform, for the tests of what is said of it.

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::Channel;

/// A lease of 100 dollars of the campaign `spring` on meta, with three slots of ten below its mark.
pub(crate) async fn leased_on_meta(shield: &mut SyncShieldServiceClient<Channel>) -> u64 {
    let campaign = leaf::Campaign {
        campaign: "spring".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    shield.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    let lease = LeaseRequest {
        key: "k".into(),
        client: "acme".into(),
        campaign: "spring".into(),
        holder: "h".into(),
        amount_micros: 100_000_000,
        least_micros: 1,
        mark_sequence: 3,
        mark_nanos: 30_000_000_000,
        platform: "meta".into(),
    };
    shield.lease(lease).await.unwrap().into_inner().grant.unwrap().lease_id
}

/// Charges a slot of the lease, bid on and noticed at an instant. Whose platform it is the log knows by the lease.
pub(crate) async fn settle(shield: &mut SyncShieldServiceClient<Channel>, lease_id: u64, sequence: u32, price_nanos: i64, at: UnixMicros) {
    let (bid_at, noticed_at) = (Some(at.into()), Some(at.into()));
    let settlement = leaf::Settlement { sequence, max_nanos: 10_000_000_000, price_nanos, bid_at, noticed_at, ..Default::default() };
    let items = vec![SettleItem { client: "acme".into(), campaign: "spring".into(), lease_id, settlement: Some(settlement) }];
    shield.settle(SettleRequest { items }).await.unwrap();
}
