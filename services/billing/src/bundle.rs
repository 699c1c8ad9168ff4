//! The proof bundle as a file: `kiki.billing.v1.ProofBundle`, in its one encoding.

mod sheets;

use kiki::pb::billing::v1 as pb;
use kiki::tlog::Hash;
use kiki::tlog::note::VerifyingKey;
use kiki::wire::{BYTES, Reader};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::domain::bundle::sample::CHALLENGE_MAX;
use crate::domain::bundle::sheets::Sheets;
use crate::domain::bundle::{self, Bundle, BundleLeaf, Finding, Place, Report, Sample, limits};

/// The format of a bundle with every leaf, and of one with a sample.
const WHOLE: u32 = 1;
const SAMPLED: u32 = 2;

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

/// A client's sheets in their one encoding.
pub fn encode_sheets(sheets: &Sheets) -> Vec<u8> {
    sheets::message(sheets).encode_to_vec()
}

/// SHA-256 of encoded sheets.
pub fn sheets_sha256(encoded: &[u8]) -> Hash {
    Sha256::digest(encoded).into()
}

/// The file's bytes.
pub fn encode(bundle: Bundle) -> Vec<u8> {
    let leaf = |l: BundleLeaf| pb::BundleLeaf { index: l.index, leaf: l.leaf.into(), hash: l.hash.to_vec().into() };
    let format = if bundle.sample.is_some() { SAMPLED } else { WHOLE };
    let (sheets, challenge) = bundle.sample.map(|sample| (encode_sheets(&sample.sheets), sample.challenge)).unwrap_or_default();
    pb::ProofBundle {
        format,
        invoice_json: bundle.invoice_json.into(),
        checkpoint: bundle.checkpoint,
        leaves: bundle.leaves.into_iter().map(leaf).collect(),
        proof: bundle.proof.iter().map(|hash| hash.to_vec().into()).collect(),
        // Nothing vouches for this field, so nothing is said in it.
        software: String::new(),
        rotations: bundle.rotations,
        sheets: sheets.into(),
        challenge: challenge.into(),
    }
    .encode_to_vec()
}

/// Reads a file. It has one encoding, so that every byte of it is checked by something.
pub fn decode(bytes: &[u8]) -> Result<Bundle, String> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(format!("is {} bytes long, above the limit of {BUNDLE_BYTES_MAX}", bytes.len()));
    }
    for (what, number, max) in [("leaves", 4, limits::LEAVES_MAX), ("hashes", 5, limits::PROOF_MAX)] {
        let found = count(bytes, &[&[number]]).ok_or("is not a bundle")?;
        if found > max {
            return Err(format!("has {found} {what}, above the limit of {max}"));
        }
    }
    let read = pb::ProofBundle::decode(bytes).map_err(|e| format!("is not a bundle: {e}"))?;
    if !read.software.is_empty() {
        return Err("software is set, which nothing vouches for".to_owned());
    }
    if read.encode_to_vec() != bytes {
        return Err("is not in its one encoding".to_owned());
    }
    let sample = match (read.format, read.sheets.is_empty() && read.challenge.is_empty()) {
        (WHOLE, true) => None,
        (WHOLE, false) => return Err("is of format 1 and has sheets or a challenge".to_owned()),
        (SAMPLED, _) => Some(decode_sample(&read.sheets, read.challenge.to_vec())?),
        (format, _) => return Err(format!("is of format {format} but this version reads {WHOLE} and {SAMPLED}")),
    };
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
        sample,
    })
}

fn decode_sample(encoded: &[u8], challenge: Vec<u8>) -> Result<Sample, String> {
    if challenge.len() > CHALLENGE_MAX {
        return Err(format!("challenge is {} bytes long, above the limit of {CHALLENGE_MAX}", challenge.len()));
    }
    let sheets = sheets::read(encoded).map_err(|problem| format!("sheets {problem}"))?;
    Ok(Sample { sheets, sha256: sheets_sha256(encoded), challenge })
}

/// How many messages there are in fields of the first numbers of `path`, in them in fields of the second, and so on: known before
/// they are read, since one of two bytes takes a hundred in memory. None of what is no message.
fn count(message: &[u8], path: &[&[u32]]) -> Option<u64> {
    let Some((numbers, rest)) = path.split_first() else { return Some(1) };
    let (mut reader, mut found) = (Reader(message), 0);
    while let Some((number, kind)) = reader.key()? {
        if kind == BYTES && numbers.contains(&number) {
            found += count(reader.bytes()?, rest)?;
        } else {
            reader.skip(kind)?;
        }
    }
    Some(found)
}
