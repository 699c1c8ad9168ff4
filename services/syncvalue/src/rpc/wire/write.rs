//! Predictions, written as what all three answers are on the wire: field 1, as often as there are predictions.

use kiki::leaf::PredictionStatus;
use kiki::pb::syncvalue::v1 as pb;

use crate::domain::predictor::{MODEL, Prediction, Reason, Source};

/// A prediction's length, more or less: what room is made for.
const USUAL: usize = 96;

/// Writes predictions behind what is in `to`; `id` knows the models' ids, and `holds` for how many milliseconds the one at a place holds.
pub(in crate::rpc) fn predictions<'s>(
    predictions: &[Prediction],
    id: impl Fn(u32) -> &'s str,
    holds: impl Fn(usize) -> u32,
    to: &mut Vec<u8>,
) {
    to.reserve(predictions.len() * USUAL);
    // Who answered over which horizon is mostly the same as before.
    let (mut of, mut origin) = (None, Vec::new());
    for (place, prediction) in predictions.iter().enumerate() {
        if of != Some((prediction.horizon_days, prediction.source)) {
            of = Some((prediction.horizon_days, prediction.source));
            write_origin(prediction, &id, &mut origin);
        }
        let (mut head, mut tail) = (Fields::default(), Fields::default());
        head.amount(1, prediction.mean_micros);
        head.amount(2, prediction.q05_micros);
        head.amount(3, prediction.q95_micros);
        head.number(4, prediction.p_active_ppb.into());
        tail.amount(9, prediction.median_micros);
        tail.number(10, prediction.staleness_secs.into());
        tail.number(11, holds(place).into());
        to.push(1 << 3 | BYTES);
        let mut len = head.len + origin.len() + tail.len;
        while len >= 0x80 {
            to.push(len as u8 | 0x80);
            len >>= 7;
        }
        to.push(len as u8);
        [head.bytes(), &origin, tail.bytes()].iter().for_each(|part| to.extend_from_slice(part));
    }
}

/// Fields 5 to 8: horizon, model, status and reason.
fn write_origin<'s>(prediction: &Prediction, id: impl Fn(u32) -> &'s str, to: &mut Vec<u8>) {
    let (model, status, reason) = origin(prediction, id);
    let (mut horizon, mut rest) = (Fields::default(), Fields::default());
    horizon.number(5, prediction.horizon_days.into());
    if !model.is_empty() {
        horizon.push(6 << 3 | BYTES);
        horizon.varint(model.len() as u64);
    }
    rest.number(7, i32::from(status) as u64);
    rest.number(8, i32::from(reason) as u64);
    to.clear();
    [horizon.bytes(), model.as_bytes(), rest.bytes()].iter().for_each(|part| to.extend_from_slice(part));
}

/// A kind of field.
const BYTES: u8 = 2;

/// Some numbers as they are written: at most four, of at most 11 bytes each.
struct Fields {
    bytes: [u8; 48],
    len: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self { bytes: [0; 48], len: 0 }
    }
}

impl Fields {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn amount(&mut self, field: u8, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    /// A field of the kind varint; 0 is left out.
    fn number(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.push(field << 3);
            self.varint(value);
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
}

/// Whose word it is: the model's id, and why it is no model's.
fn origin<'s>(prediction: &Prediction, id: impl Fn(u32) -> &'s str) -> (&'s str, PredictionStatus, pb::FallbackReason) {
    match prediction.source {
        Source::Model(number) => (id(number), PredictionStatus::Ok, pb::FallbackReason::Unspecified),
        Source::Estimate(reason) => (MODEL, PredictionStatus::Fallback, reason_of(reason)),
    }
}

fn reason_of(reason: Reason) -> pb::FallbackReason {
    match reason {
        Reason::NoModel => pb::FallbackReason::NoModel,
        Reason::UnknownCustomer => pb::FallbackReason::UnknownCustomer,
        Reason::NoPopulation => pb::FallbackReason::NoPopulation,
        Reason::StateUnavailable => pb::FallbackReason::StateUnavailable,
        Reason::ModelFailed => pb::FallbackReason::ModelFailed,
    }
}

/// The same prediction as a message, for answers that hold more besides.
pub(in crate::rpc) fn message<'s>(prediction: &Prediction, id: impl Fn(u32) -> &'s str) -> pb::Prediction {
    let (model, status, reason) = origin(prediction, id);
    pb::Prediction {
        mean_micros: prediction.mean_micros,
        q05_micros: prediction.q05_micros,
        q95_micros: prediction.q95_micros,
        p_active_ppb: prediction.p_active_ppb,
        horizon_days: prediction.horizon_days,
        model: model.into(),
        status: status.into(),
        fallback_reason: reason.into(),
        median_micros: prediction.median_micros,
        staleness_seconds: prediction.staleness_secs,
        holds_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn prediction() -> impl Strategy<Value = Prediction> {
        let source = prop_oneof![
            (0..3_u32).prop_map(Source::Model),
            prop::sample::select(vec![
                Reason::NoModel,
                Reason::UnknownCustomer,
                Reason::NoPopulation,
                Reason::StateUnavailable,
                Reason::ModelFailed,
            ])
            .prop_map(Source::Estimate),
        ];
        let amount = || prop_oneof![Just(0), 0..=i64::MAX, any::<i64>(), 0..100_000_000_i64];
        let small = || prop_oneof![Just(0), any::<u32>(), 0..1_000_u32];
        ([amount(), amount(), amount(), amount()], [small(), small(), small()], source).prop_map(|(amounts, numbers, source)| {
            let ([mean_micros, median_micros, q05_micros, q95_micros], [p_active_ppb, horizon_days, staleness_secs]) = (amounts, numbers);
            Prediction { mean_micros, median_micros, q05_micros, q95_micros, p_active_ppb, horizon_days, source, staleness_secs }
        })
    }

    proptest! {
        #[test]
        fn writes_what_prost_does(of in prop::collection::vec(prediction(), 0..6), holds in prop::collection::vec(any::<u32>(), 6)) {
            let long = "x".repeat(200);
            let id = |number: u32| ["", "drnn-1", &long][number as usize];
            let mut bytes = Vec::new();
            predictions(&of, id, |place| holds[place], &mut bytes);
            let message = |(prediction, holds_ms)| pb::Prediction { holds_ms, ..message(prediction, id) };
            let messages: Vec<_> = of.iter().zip(holds).map(message).collect();
            prop_assert_eq!(&pb::PredictStreamResponse { predictions: messages.clone(), ..Default::default() }.encode_to_vec(), &bytes);
            prop_assert_eq!(pb::PredictBatchResponse::decode(&*bytes).unwrap().predictions, messages.clone());
            if let [one] = &messages[..] {
                prop_assert_eq!(pb::PredictResponse::decode(&*bytes).unwrap().prediction, Some(one.clone()));
            }
        }
    }
}
