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
