//! The records of the audit log, as the folds of several services read them.
//!
//! These are the generated types of `proto/kiki/log/v1/leaf.proto`: a leaf *is* its protobuf bytes, so a second set of
//! types beside them would only be a chance to differ. Domains may use this module; the RPC messages stay in [`crate::pb`].

pub use crate::pb::log::v1::*;
use prost::Message as _;

/// The longest leaf: entry bundles of C2SP tlog-tiles carry lengths in 16 bits.
pub const MAX_BYTES: usize = 65_535;
/// The client of leaves that are the operator's own: the policy.
pub const OPERATOR: &str = "kiki";

/// Bytes that are no leaf of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not a protobuf `Leaf`.
    #[error("not a leaf: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Without a body that this version knows. A fold that skipped it would silently be another fold.
    #[error("leaf {index} is of a kind that this version does not know")]
    UnknownBody {
        /// The leaf's index.
        index: u64,
    },
}

/// A leaf with the body that makes it one.
///
/// # Errors
/// [`LeafError`]: the bytes are no `Leaf`, or one of an unknown kind.
pub fn decode(bytes: &[u8]) -> Result<(Leaf, leaf::Body), LeafError> {
    let mut leaf = Leaf::decode(bytes)?;
    let body = leaf.body.take().ok_or(LeafError::UnknownBody { index: leaf.index })?;
    Ok((leaf, body))
}

/// As [`decode`], but of a batch of decisions that there is one, and not the decisions: for those who pass over them, which are most
/// of a log. A leaf that is not as the log writes it, the body behind all else, is read like any other.
///
/// # Errors
/// Those of [`decode`]; what is wrong with a decision is not seen.
pub fn decode_all_but_decisions(bytes: &[u8]) -> Result<(Leaf, leaf::Body), LeafError> {
    match before_decisions(bytes) {
        Some(head) => Ok((Leaf { body: None, ..Leaf::decode(head)? }, leaf::Body::Decisions(DecisionBatch::default()))),
        None => decode(bytes),
    }
}

/// Whether bytes are a [`DecisionBatch`]. What prost would build of it is not built, as long as there are only fields that are known.
///
/// # Errors
/// What is wrong with them.
pub fn check_decisions(bytes: &[u8]) -> Result<(), prost::DecodeError> {
    if known(bytes, BATCH).is_some() { Ok(()) } else { DecisionBatch::decode(bytes).map(drop) }
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Number,
    Fixed64,
    Bytes,
    Text,
    Message(&'static [Holds]),
}

/// The fields of a [`DecisionBatch`], from the first.
const BATCH: &[Holds] = &[Holds::Text, Holds::Text, Holds::Bytes, Holds::Message(DECISION)];
/// Those of a [`Decision`].
const DECISION: &[Holds] = {
    use Holds::{Bytes, Fixed64, Message, Number, Text};
    &[
        Message(&[Number, Number]), // at
        Text,
        Text,
        Bytes,
        Bytes, // exchange, platform, opportunity, customer
        Number,
        Number,
        Number, // price, chance, lifetime value
        Text,
        Number,
        Number, // model, its status, refusals
        Number,
        Number,
        Number, // lease, epoch, sequence
        Text,
        Text,
        Text,
        Text, // creative, country, categories, places
        Number,
        Text,
        Number, // signals, rules, abridged
        Number,
        Number,
        Fixed64,
        Number, // value, pacing, market, priced value
    ]
};

/// Whether all fields are among these, and hold what they should.
fn known(mut rest: &[u8], fields: &[Holds]) -> Option<()> {
    while !rest.is_empty() {
        let key = prost::decode_length_delimiter(&mut rest).ok()?;
        match (*fields.get((key >> 3).checked_sub(1)?)?, key & 7) {
            (Holds::Number, 0) => drop(prost::encoding::decode_varint(&mut rest).ok()?),
            (Holds::Fixed64, 1) => rest = rest.get(8..)?,
            (holds @ (Holds::Bytes | Holds::Text | Holds::Message(_)), 2) => {
                let length = prost::decode_length_delimiter(&mut rest).ok()?;
                let (value, behind) = rest.split_at_checked(length)?;
                match holds {
                    Holds::Text => drop(std::str::from_utf8(value).ok()?),
                    Holds::Message(fields) => known(value, fields)?,
                    _ => {}
                }
                rest = behind;
            }
            _ => return None,
        }
    }
    Some(())
}

/// What stands before a batch of decisions that goes up to the leaf's end.
fn before_decisions(bytes: &[u8]) -> Option<&[u8]> {
    const DECISIONS: usize = 16;
    let mut rest = bytes;
    loop {
        let head = &bytes[..bytes.len() - rest.len()];
        let key = prost::decode_length_delimiter(&mut rest).ok()?;
        let length = prost::decode_length_delimiter(&mut rest).ok()?; // or a number's value
        match (key >> 3, key & 7) {
            (DECISIONS, 2) => return (length == rest.len()).then_some(head),
            (_, 0) => {}
            (_, 2) => rest = rest.get(length..)?,
            _ => return None,
        }
    }
}

impl From<i128> for Int128 {
    fn from(value: i128) -> Self {
        Self { high: (value >> 64) as i64, low: value as u64 }
    }
}

impl From<&Int128> for i128 {
    fn from(value: &Int128) -> Self {
        (i128::from(value.high) << 64) | i128::from(value.low)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(body: leaf::Body) -> Leaf {
        Leaf { log_id: "log".into(), index: 300, client: "acme".into(), continued: true, body: Some(body), ..Default::default() }
    }

    fn decisions() -> leaf::Body {
        let decision = Decision { price_nanos: 5, model: "m".into(), ..Default::default() };
        leaf::Body::Decisions(DecisionBatch { campaign: "spring".into(), decisions: vec![decision; 3], ..Default::default() })
    }

    #[test]
    fn passes_over_decisions_and_nothing_else() {
        let (head, body) = decode_all_but_decisions(&leaf(decisions()).encode_to_vec()).unwrap();
        assert_eq!((head.index, head.client.as_str(), head.continued), (300, "acme", true));
        assert_eq!(body, leaf::Body::Decisions(DecisionBatch::default()));
        let mark = leaf::Body::SpendMark(SpendMark { campaign: "spring".into(), sequence: 9, ..Default::default() });
        assert_eq!(decode_all_but_decisions(&leaf(mark.clone()).encode_to_vec()).unwrap().1, mark);
    }

    #[test]
    fn what_is_not_in_the_logs_order_is_read_in_full() {
        let bytes = leaf(decisions()).encode_to_vec();
        let tail = Leaf { client: "late".into(), ..Default::default() }.encode_to_vec();
        let (head, body) = decode_all_but_decisions(&[bytes, tail].concat()).unwrap();
        assert_eq!((head.client.as_str(), body), ("late", decisions()));
    }

    #[test]
    fn every_field_of_a_decision_is_known() {
        let text = || "x".to_owned();
        let decision = Decision {
            at: Some(prost_types::Timestamp { seconds: -1, nanos: 2 }),
            exchange: text(),
            platform: text(),
            opportunity: vec![0xFF].into(),
            customer: vec![0xFF].into(),
            price_nanos: -1,
            p_conversion_ppb: 1,
            predicted_ltv_micros: 1,
            model: text(),
            prediction_status: 1,
            refusals: 1,
            lease_id: 1,
            epoch: 1,
            sequence: 1,
            creative: text(),
            country: text(),
            categories: vec![text()],
            places: vec![text()],
            signals: 1,
            rules: vec![text()],
            abridged: true,
            value_nanos: 1,
            pacing_lambda_ppm: 1,
            shading_market: 1,
            priced_ltv_micros: 1,
        };
        let digest = vec![0xFF].into();
        let batch = DecisionBatch { campaign: text(), currency: text(), policy_digest: digest, decisions: vec![decision] };
        assert!(known(&batch.encode_to_vec(), BATCH).is_some());
    }

    proptest! {
        #[test]
        fn a_batch_is_what_prost_reads_as_one(at in 0_usize..40, with: u8, cut in 0_usize..20) {
            let leaf::Body::Decisions(batch) = decisions() else { unreachable!() };
            let mut bytes = batch.encode_to_vec();
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            prop_assert_eq!(check_decisions(&bytes).is_ok(), DecisionBatch::decode(bytes.as_slice()).is_ok());
        }

        #[test]
        fn any_bytes_have_the_head_that_they_have_in_full(cut in 0_usize..80, at in 0_usize..80, with: u8) {
            let mut bytes = leaf(decisions()).encode_to_vec();
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            if let Ok((full, _)) = decode(&bytes) {
                prop_assert_eq!(decode_all_but_decisions(&bytes).map(|(head, _)| head), Ok(full));
            }
        }
    }
}
