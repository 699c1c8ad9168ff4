//! SyncValue's answers, read where they stand: of each message two numbers, a status and a model, which is the same all along.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use kiki::ids::{self, CustomerKey};
use kiki::leaf::PredictionStatus;
use kiki::money::Micros;
use kiki::pb::syncvalue::v1::{self as pb, FallbackReason};
use kiki::wire::{BYTES, Reader, VARINT};
use prost::Message as _;

/// What a bid needs of a `Prediction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) mean: Micros,
    pub(super) q05: Micros,
    /// None where it is not named in the form that the log takes.
    pub(super) model: Option<Arc<str>>,
    pub(super) status: PredictionStatus,
    pub(super) fallback_reason: FallbackReason,
    pub(super) holds_ms: u32,
}

/// The fields of a `Prediction` as they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fields<'m> {
    mean_micros: i64,
    q05_micros: i64,
    model: &'m str,
    status: i32,
    fallback_reason: i32,
    holds_ms: u32,
}

impl<'m> From<&'m pb::Prediction> for Fields<'m> {
    fn from(prediction: &'m pb::Prediction) -> Self {
        let pb::Prediction { mean_micros, q05_micros, model, status, fallback_reason, holds_ms, .. } = prediction;
        let (status, fallback_reason, holds_ms) = (*status, *fallback_reason, *holds_ms);
        Self { mean_micros: *mean_micros, q05_micros: *q05_micros, model, status, fallback_reason, holds_ms }
    }
}

/// Takes the first so many answers off a message; none where it has fewer.
pub(super) fn split(message: &mut Bytes, count: usize) -> Option<Bytes> {
    let (mut rest, mut found) = (Reader(message), 0);
    while found < count {
        match rest.key()? {
            Some((1, BYTES)) => found += rest.bytes().map(|_| 1)?,
            Some((1, _)) | None => return None,
            Some((_, kind)) => rest.skip(kind)?,
        }
    }
    let taken = message.len() - rest.0.len();
    let answers = message.slice(..taken);
    message.advance(taken);
    Some(answers)
}

/// Whom what was said before no longer holds of, by a message that says that; nobody where it begins with an answer. None: it is neither.
pub(super) fn changes(message: &[u8]) -> Option<Option<Changes>> {
    if matches!(Reader(message).key(), Some(Some((1, _)))) {
        return Some(None);
    }
    match pb::PredictStreamResponse::decode(message).ok()? {
        told if told.all_changed => Some(Some(Changes::All)),
        told if told.changed.is_empty() => None,
        told => told.changed.iter().map(|customer| CustomerKey::from_bytes(customer)).collect::<Option<_>>().map(Changes::Of).map(Some),
    }
}

/// Whom what was said before no longer holds of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changes {
    Of(Vec<CustomerKey>),
    All,
}

/// Reads a `PredictStreamResponse`; none where it is no such message.
pub(super) fn read(message: &[u8]) -> Option<Vec<Said>> {
    match each(message) {
        Some(all) => Some(said(all.into_iter())),
        // What is rare, or wrong.
        None => pb::PredictStreamResponse::decode(message).ok().map(|all| said(all.predictions.iter().map(Fields::from))),
    }
}

fn said<'m>(all: impl ExactSizeIterator<Item = Fields<'m>>) -> Vec<Said> {
    let mut before: (&str, Option<Arc<str>>) = ("", None);
    let mut list = Vec::with_capacity(all.len());
    for Fields { mean_micros, q05_micros, model, status, fallback_reason, holds_ms } in all {
        if model != before.0 {
            before = (model, ids::check("model", model).is_ok().then(|| model.into()));
        }
        list.push(Said {
            mean: Micros::new(mean_micros),
            q05: Micros::new(q05_micros),
            model: before.1.clone(),
            status: PredictionStatus::try_from(status).unwrap_or_default(),
            fallback_reason: FallbackReason::try_from(fallback_reason).unwrap_or_default(),
            holds_ms,
        });
    }
    list
}

fn each(message: &[u8]) -> Option<Vec<Fields<'_>>> {
    let (mut all, mut rest) = (Vec::new(), Reader(message));
    while let Some(key) = rest.key()? {
        match key {
            (1, BYTES) => {
                let bytes = rest.bytes()?;
                if all.is_empty() {
                    all.reserve(rest.0.len() / (bytes.len() + 1) + 1); // they are of about one length
                }
                all.push(one(bytes)?);
            }
            (1..=3, _) => return None, // what changed comes by itself
            (_, kind) => rest.skip(kind)?,
        }
    }
    Some(all)
}

fn one(message: &[u8]) -> Option<Fields<'_>> {
    let (mut fields, mut rest) = (Fields::default(), Reader(message));
    while let Some(key) = rest.key()? {
        match key {
            (1, VARINT) => fields.mean_micros = rest.varint()?.cast_signed(),
            (2, VARINT) => fields.q05_micros = rest.varint()?.cast_signed(),
            (6, BYTES) => fields.model = rest.text()?,
            (7, VARINT) => fields.status = rest.varint()? as i32, // as prost: what is more than 32 bits is cut off
            (8, VARINT) => fields.fallback_reason = rest.varint()? as i32,
            (11, VARINT) => fields.holds_ms = rest.varint()? as u32,
            (3..=5 | 9..=10, VARINT) => drop(rest.varint()?),
            (1..=11, _) => return None,
            (_, kind) => rest.skip(kind)?,
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn prediction() -> impl Strategy<Value = pb::Prediction> {
        let numbers = (any::<i64>(), any::<i64>(), any::<i64>(), any::<u32>(), any::<u32>());
        (numbers, "[a-z]{0,3}|\\PC{0,5}", -2..9, -2..9, any::<i64>()).prop_map(
            |(numbers, model, status, fallback_reason, median_micros)| {
                let (mean_micros, q05_micros, q95_micros, p_active_ppb, horizon_days) = numbers;
                let (staleness_seconds, holds_ms) = (p_active_ppb, horizon_days);
                pb::Prediction {
                    mean_micros,
                    q05_micros,
                    q95_micros,
                    p_active_ppb,
                    horizon_days,
                    model,
                    status,
                    fallback_reason,
                    median_micros,
                    staleness_seconds,
                    holds_ms,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn reads_what_prost_reads(predictions in prop::collection::vec(prediction(), 0..6), at: prop::sample::Index, byte: u8) {
            let expected = said(predictions.iter().map(Fields::from));
            let mut bytes = pb::PredictStreamResponse { predictions, ..Default::default() }.encode_to_vec();
            prop_assert_eq!(each(&bytes).map(|all| said(all.into_iter())), Some(expected));
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                let prost = pb::PredictStreamResponse::decode(&*bytes).ok().map(|all| said(all.predictions.iter().map(Fields::from)));
                prop_assert!(each(&bytes).is_none() || each(&bytes).map(|all| said(all.into_iter())) == prost);
                prop_assert_eq!(read(&bytes), prost);
            }
        }

        #[test]
        fn what_changed_is_no_answer(predictions in prop::collection::vec(prediction(), 0..3), who: [u8; 16], all_changed: bool) {
            let answers = pb::PredictStreamResponse { predictions, ..Default::default() };
            prop_assert_eq!(changes(&answers.encode_to_vec()), (!answers.predictions.is_empty()).then_some(None));
            let told = |customer: Vec<u8>| pb::PredictStreamResponse { changed: vec![customer.into()], all_changed, ..Default::default() };
            let expected = if all_changed { Changes::All } else { Changes::Of(vec![CustomerKey(who)]) };
            prop_assert_eq!(changes(&told(who.to_vec()).encode_to_vec()), Some(Some(expected)));
            prop_assert_eq!(changes(&told(vec![1; 15]).encode_to_vec()), all_changed.then_some(Some(Changes::All)));
            prop_assert_eq!(changes(&[0x12, 0x7f]), None);
        }

        #[test]
        fn calls_get_their_own_answers(predictions in prop::collection::vec(prediction(), 0..9), first in 0..10_usize) {
            let all = predictions.len();
            let expected = said(predictions.iter().map(Fields::from));
            let mut message = Bytes::from(pb::PredictStreamResponse { predictions, ..Default::default() }.encode_to_vec());
            match split(&mut message, first) {
                Some(taken) => {
                    prop_assert_eq!(read(&taken).unwrap(), &expected[..first]);
                    prop_assert_eq!(read(&split(&mut message, all - first).unwrap()).unwrap(), &expected[first..]);
                    prop_assert!(message.is_empty());
                }
                None => prop_assert!(first > all),
            }
        }
    }
}
