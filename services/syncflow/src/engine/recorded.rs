//! A decision as the log keeps it: with what of the opportunity any policy can be held against afterwards; bounded, because
//! 256 decisions share a leaf of 64 KiB.

use kiki::clock::UnixMicros;
use kiki::guardrail::Refusals;

use crate::domain::auction::Candidate;
use crate::domain::lease::Slot;
use crate::domain::opportunity::Opportunity;
use crate::domain::shading::Market;
use crate::wire::Fields;

/// Categories of one decision, and bytes of each.
const MAX_CATEGORIES: (usize, usize) = (16, 64);
/// Names of one place, and bytes of each: a domain has at most 253.
const MAX_PLACES: (usize, usize) = (4, 255);
/// A decision's length, more or less: what room is made for.
const USUAL: usize = 224;

/// What was decided for one campaign.
pub(super) struct Decision<'a> {
    pub(super) at: UnixMicros,
    pub(super) opportunity: &'a Opportunity,
    pub(super) candidate: &'a Candidate,
    /// None for a bid, which has a slot.
    pub(super) refusals: Refusals,
    pub(super) slot: Option<&'a Slot>,
}

impl Decision<'_> {
    /// The bytes of `kiki.log.v1.Decision`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { opportunity, candidate, .. } = self;
        let (categories, some_categories) = bounded(&opportunity.categories, MAX_CATEGORIES);
        let (places, some_places) = bounded(&opportunity.places, MAX_PLACES);
        let mut out = Vec::with_capacity(USUAL);
        let mut to = Fields(&mut out);
        to.message(1, |to| to.timestamp(self.at));
        to.text(2, &opportunity.exchange);
        to.text(3, &opportunity.platform);
        to.bytes(4, &opportunity.key);
        to.bytes(5, candidate.customer.as_ref().map_or(&[], |key| &key.0));
        to.signed(6, candidate.price.get());
        to.number(7, candidate.p_conversion_ppb.into());
        to.signed(8, candidate.prediction.ltv.get());
        to.text(9, &candidate.prediction.model);
        to.signed(10, i32::from(candidate.prediction.status));
        to.number(11, self.refusals.0.into());
        if let Some(slot) = self.slot {
            to.number(12, slot.lease_id);
            to.number(13, slot.epoch);
            to.number(14, slot.sequence.into());
        }
        to.text(15, &candidate.creative.id);
        to.text(16, &opportunity.country);
        categories.for_each(|category| to.entry(17, category.as_bytes()));
        places.for_each(|place| to.entry(18, place.as_bytes()));
        to.number(19, opportunity.signals.into());
        candidate.rules.iter().for_each(|rule| to.entry(20, rule.as_bytes()));
        to.number(21, (some_categories || some_places).into());
        if candidate.reckoned() {
            to.signed(22, candidate.value.get());
        }
        to.number(23, candidate.lambda_ppm);
        to.fixed(24, candidate.market.map_or(0, Market::get));
        if candidate.priced_ltv != candidate.prediction.ltv {
            to.signed(25, candidate.priced_ltv.get());
        }
        out
    }
}

/// What fits of a list, and whether something did not.
fn bounded(list: &[String], (count, bytes): (usize, usize)) -> (impl Iterator<Item = &String>, bool) {
    let kept = list.iter().filter(move |entry| entry.len() <= bytes).take(count);
    let abridged = kept.clone().count() < list.len();
    (kept, abridged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use kiki::ids::CustomerKey;
    use kiki::leaf;
    use kiki::money::{Micros, Nanos};
    use prost::Message as _;

    use super::*;
    use crate::domain::auction::Prediction;
    use crate::domain::targeting::Campaign;

    fn candidate() -> Candidate {
        let creatives = vec![leaf::Creative { creative: "banner".into(), ..Default::default() }];
        let leaf = leaf::Campaign { campaign: "spring".into(), currency: "USD".into(), creatives, ..Default::default() };
        let campaign = Arc::new(Campaign::compile("acme", &leaf, 90).unwrap());
        let creative = campaign.creatives[0].clone();
        let (ltv, status) = (Micros::new(-7), leaf::PredictionStatus::Ok);
        let prediction = Prediction { ltv, q05: None, model: "drnn-1".into(), status, multiplier_ppm: 1_000_000 };
        Candidate {
            campaign,
            creative,
            customer: Some(CustomerKey([8; 16])),
            prediction,
            priced_ltv: Micros::new(-9),
            p_conversion_ppb: 5,
            value: Nanos::new(12_000_000),
            lambda_ppm: 250_000,
            market: Market::new(0x1234),
            price: Nanos::new(9_000_000),
            refusals: Refusals::NONE,
            rules: vec!["r1".into(), "r2".into()],
        }
    }

    fn opportunity(categories: usize, place: usize) -> Opportunity {
        Opportunity {
            key: [3; 16],
            exchange: "ssp".into(),
            platform: "tradedesk".into(),
            country: "USA".into(),
            categories: vec!["IAB1".into(); categories],
            places: vec!["x".repeat(place)],
            signals: 6,
            ..Default::default()
        }
    }

    fn decided(opportunity: &Opportunity, slot: Option<&Slot>) -> leaf::Decision {
        let (at, candidate) = (UnixMicros(1_700_000_000_123_456), candidate());
        let refusals = Refusals::NONE.with(leaf::Refusal::Budget);
        let bytes = Decision { at, opportunity, candidate: &candidate, refusals, slot }.encode();
        let decision = leaf::Decision::decode(bytes.as_slice()).unwrap();
        assert_eq!(decision.encode_to_vec(), bytes, "as prost writes it");
        decision
    }

    #[test]
    fn has_all_of_its_fields() {
        let slot = Slot { lease_id: 77, epoch: 2, sequence: 300, granted_at: UnixMicros(0) };
        let expected = leaf::Decision {
            at: Some(UnixMicros(1_700_000_000_123_456).into()),
            exchange: "ssp".into(),
            platform: "tradedesk".into(),
            opportunity: vec![3; 16].into(),
            customer: vec![8; 16].into(),
            price_nanos: 9_000_000,
            p_conversion_ppb: 5,
            predicted_ltv_micros: -7,
            model: "drnn-1".into(),
            prediction_status: leaf::PredictionStatus::Ok.into(),
            refusals: Refusals::NONE.with(leaf::Refusal::Budget).0,
            lease_id: 77,
            epoch: 2,
            sequence: 300,
            creative: "banner".into(),
            country: "USA".into(),
            categories: vec!["IAB1".into(), "IAB1".into()],
            places: vec!["xxx".into()],
            signals: 6,
            rules: vec!["r1".into(), "r2".into()],
            abridged: false,
            value_nanos: 12_000_000,
            pacing_lambda_ppm: 250_000,
            shading_market: 0x1234,
            priced_ltv_micros: -9,
        };
        assert_eq!(decided(&opportunity(2, 3), Some(&slot)), expected);
    }

    #[test]
    fn what_is_cut_is_marked() {
        assert!(!decided(&opportunity(16, 255), None).abridged);
        let long = decided(&opportunity(17, 256), None);
        assert_eq!((long.abridged, long.categories.len(), long.places.len()), (true, 16, 0));
    }
}
