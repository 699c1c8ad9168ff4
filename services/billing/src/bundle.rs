//! The proof bundle as a file: `kiki.billing.v1.ProofBundle`, in its one encoding.

use kiki::pb::billing::v1 as pb;
use kiki::tlog::Hash;
use kiki::tlog::note::VerifyingKey;
use prost::Message as _;

use crate::domain::bundle::{self, Bundle, BundleLeaf, Finding, Place, Report};

/// The format written here.
const FORMAT: u32 = 1;

/// Largest bundle.
pub const BUNDLE_BYTES_MAX: usize = bundle::limits::BYTES_MAX as usize;

/// Checks an invoice's bundle offline under the log's public key, which comes from elsewhere than
/// the bundle: proof, completeness, attribution, and every figure recomputed from the leaves.
///
/// # Errors
/// Everything that was found off, with the leaf, line or field where.
pub fn verify_bundle(bytes: &[u8], log_key: &VerifyingKey) -> Result<Report, Vec<Finding>> {
    let bundle = decode(bytes).map_err(|problem| vec![Finding { place: Place::File, problem }])?;
    bundle::verify(&bundle, log_key)
}

/// The file's bytes.
pub fn encode(bundle: Bundle) -> Vec<u8> {
    let leaf = |l: BundleLeaf| pb::BundleLeaf { index: l.index, leaf: l.leaf.into(), hash: l.hash.to_vec().into() };
    pb::ProofBundle {
        format: FORMAT,
        invoice_json: bundle.invoice_json.into(),
        checkpoint: bundle.checkpoint,
        leaves: bundle.leaves.into_iter().map(leaf).collect(),
        proof: bundle.proof.iter().map(|hash| hash.to_vec().into()).collect(),
        // Nothing vouches for this field, so nothing is said in it.
        software: String::new(),
        rotations: bundle.rotations,
    }
    .encode_to_vec()
}

/// Reads a file. It has one encoding, so that every byte of it is checked by something.
pub fn decode(bytes: &[u8]) -> Result<Bundle, String> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(format!("is {} bytes long, above the limit of {BUNDLE_BYTES_MAX}", bytes.len()));
    }
    let read = pb::ProofBundle::decode(bytes).map_err(|e| format!("is not a bundle: {e}"))?;
    if read.format != FORMAT {
        return Err(format!("is of format {} but this version reads {FORMAT}", read.format));
    }
    if !read.software.is_empty() {
        return Err("software is set, which nothing vouches for".to_owned());
    }
    if read.encode_to_vec() != bytes {
        return Err("is not in its one encoding".to_owned());
    }
    let hash = |bytes: &[u8], what: &str| Hash::try_from(bytes).map_err(|_| format!("{what} is not 32 bytes"));
    let leaf = |leaf: pb::BundleLeaf| {
        let hash = hash(&leaf.hash, &format!("hash of leaf {}", leaf.index))?;
        Ok(BundleLeaf { index: leaf.index, leaf: leaf.leaf.to_vec(), hash })
    };
    Ok(Bundle {
        invoice_json: read.invoice_json.to_vec(),
        checkpoint: read.checkpoint,
        rotations: read.rotations,
        leaves: read.leaves.into_iter().map(leaf).collect::<Result<_, String>>()?,
        proof: read.proof.iter().map(|bytes| hash(bytes, "a hash of the proof")).collect::<Result<_, _>>()?,
    })
}
