//! Plans of models, between messages and what the domain knows.

use kiki::clock::UnixMicros;
use kiki::pb::syncvalue::v1 as pb;

use crate::domain::customer::DAY_MICROS;
use crate::domain::serving::{Plan, Serving};

pub(super) fn decode(plan: pb::ModelPlan) -> Plan {
    let pb::ModelPlan { client, currency, version, serving, candidate, candidate_share_ppm, campaign_share_ppm, shadow_ppm } = plan;
    let campaign_share_ppm = campaign_share_ppm.into_iter().collect();
    Plan { client, currency, version, serving, candidate, candidate_share_ppm, campaign_share_ppm, shadow_ppm }
}

pub(super) fn encode(plan: &Plan) -> pb::ModelPlan {
    let Plan { client, currency, version, serving, candidate, candidate_share_ppm, campaign_share_ppm, shadow_ppm } = plan.clone();
    let campaign_share_ppm = campaign_share_ppm.into_iter().collect();
    pb::ModelPlan { client, currency, version, serving, candidate, candidate_share_ppm, campaign_share_ppm, shadow_ppm }
}

/// The models of a plan.
pub(super) fn infos(serving: &Serving) -> Vec<pb::ModelInfo> {
    let both = [&serving.serving, &serving.candidate];
    let info = |loaded: &std::sync::Arc<crate::domain::serving::Loaded>| pb::ModelInfo {
        folder: loaded.folder.clone(),
        id: loaded.model.id.clone(),
        horizon_days: loaded.model.horizon_days,
        currency: loaded.currency.map(|currency| currency.code().to_owned()).unwrap_or_default(),
        trained_to: Some(UnixMicros(loaded.model.cut.saturating_mul(DAY_MICROS)).into()),
    };
    both.into_iter().flatten().map(info).collect()
}
