//! A decision as the log keeps it: with what of the opportunity any policy can be held against afterwards; bounded, because
//! 256 decisions share a leaf of 64 KiB.

use kiki::clock::UnixMicros;
use kiki::guardrail::Refusals;
use smallvec::SmallVec;

use crate::clients::recorder::{Entry, Recorder};
use crate::clients::replicas::View;
use crate::domain::auction::Candidate;
use crate::domain::lease::Slot;
use crate::domain::opportunity::Opportunity;
use crate::domain::shading::Market;
use crate::wire::Fields;

/// Categories of one decision, and bytes of each.
const MAX_CATEGORIES: (usize, usize) = (16, 64);
/// Names of one place, and bytes of each: a domain has at most 253.
const MAX_PLACES: (usize, usize) = (4, 255);

/// The decisions of one opportunity, until they are handed on.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// When they were made.
    pub(super) at: UnixMicros,
    /// The bytes of each `kiki.log.v1.Decision`, one behind the other.
    bytes: Vec<u8>,
    /// Of each its campaign's place in the view, and where it ends.
    ends: SmallVec<[(usize, usize); 2]>,
}

impl Decisions {
    /// Those of another opportunity. What was not handed on of the one before is forgotten.
    pub(super) fn begin(&mut self, at: UnixMicros) {
        self.at = at;
        self.bytes.clear();
        self.ends.clear();
    }

    /// What was decided for one campaign: refused, or a bid, which has a slot.
    pub(super) fn add(&mut self, opportunity: &Opportunity<'_>, candidate: &Candidate<'_>, refusals: Refusals, slot: Option<&Slot>) {
        Decision { at: self.at, opportunity, candidate, refusals, slot }.encode(&mut self.bytes);
        self.ends.push((candidate.place, self.bytes.len()));
    }

    /// Hands them on. The recorder's ticket; 0 where there are none.
    pub(super) fn push(&mut self, recorder: &Recorder, view: &View) -> u64 {
        if self.ends.is_empty() {
            return 0;
        }
        let mut begin = 0;
        let entry = |(campaign, end): &(usize, usize)| {
            let decision = &self.bytes[std::mem::replace(&mut begin, *end)..*end];
            Entry { campaign: &view.campaigns[*campaign].campaign, policy_digest: &view.policy.digest, decision }
        };
        recorder.push(self.ends.iter().map(entry))
    }
}

/// What was decided for one campaign.
struct Decision<'a, 'o> {
    at: UnixMicros,
    opportunity: &'a Opportunity<'o>,
    candidate: &'a Candidate<'a>,
    refusals: Refusals,
    slot: Option<&'a Slot>,
}

impl Decision<'_, '_> {
    /// Writes a `kiki.log.v1.Decision`.
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { opportunity, candidate, .. } = self;
        let (categories, some_categories) = bounded(&opportunity.categories, MAX_CATEGORIES);
        let (places, some_places) = bounded(&opportunity.places, MAX_PLACES);
        let mut to = Fields(out);
        to.message(1, |to| to.timestamp(self.at));
        to.text(2, opportunity.exchange);
        to.text(3, opportunity.platform);
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
        to.text(15, &candidate.creative().id);
        to.text(16, opportunity.country);
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
    }
}

/// What fits of a list, and whether something did not.
fn bounded<'a>(list: &'a [&'a str], (count, bytes): (usize, usize)) -> (impl Iterator<Item = &'a str>, bool) {
    let kept = list.iter().copied().filter(move |entry| entry.len() <= bytes).take(count);
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
    use smallvec::smallvec;

    use super::*;
    use crate::domain::auction::Prediction;
    use crate::domain::targeting::Campaign;

    fn campaign() -> Arc<Campaign> {
        let creatives = vec![leaf::Creative { creative: "banner".into(), ..Default::default() }];
        let leaf = leaf::Campaign { campaign: "spring".into(), currency: "USD".into(), creatives, ..Default::default() };
        Arc::new(Campaign::compile("acme", &leaf, 90).unwrap())
    }

    fn candidate(campaign: &Arc<Campaign>) -> Candidate<'_> {
        let (ltv, status) = (Micros::new(-7), leaf::PredictionStatus::Ok);
        let prediction = Prediction { ltv, q05: None, model: "drnn-1".into(), status, multiplier_ppm: 1_000_000 };
        Candidate {
            place: 0,
            campaign,
            creative: 0,
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

    fn opportunity(categories: usize, place: &str) -> Opportunity<'_> {
        Opportunity {
            key: [3; 16],
            exchange: "ssp",
            platform: "tradedesk",
            country: "USA",
            categories: smallvec!["IAB1"; categories],
            places: smallvec![place],
            signals: 6,
            ..Default::default()
        }
    }

    fn decided(opportunity: &Opportunity<'_>, slot: Option<&Slot>) -> leaf::Decision {
        let (at, campaign) = (UnixMicros(1_700_000_000_123_456), campaign());
        let refusals = Refusals::NONE.with(leaf::Refusal::Budget);
        let mut bytes = Vec::new();
        Decision { at, opportunity, candidate: &candidate(&campaign), refusals, slot }.encode(&mut bytes);
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
        assert_eq!(decided(&opportunity(2, "xxx"), Some(&slot)), expected);
    }

    #[test]
    fn what_is_cut_is_marked() {
        assert!(!decided(&opportunity(16, &"x".repeat(255)), None).abridged);
        let long = decided(&opportunity(17, &"x".repeat(256)), None);
        assert_eq!((long.abridged, long.categories.len(), long.places.len()), (true, 16, 0));
    }
}
