//! What a witness checks before it cosigns a checkpoint, as [C2SP tlog-witness] has it: that the log signed it, and that
//! it continues what this witness cosigned last.
//!
//! It keeps nothing. The caller holds the last cosigned checkpoint of each log, judges and replaces it in one step, and
//! has the new one on disk before it answers.
//!
//! [C2SP tlog-witness]: https://c2sp.org/tlog-witness

use super::note::{self, Note, VerifyingKey};
use super::portable::Growth;
use super::{Checkpoint, EMPTY_ROOT, verify_consistency};

/// Why a witness does not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not of the form.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// The witness does not know the log.
    #[error("unknown log {0:?}")]
    UnknownLog(String),
    /// The log did not sign it.
    #[error("invalid signature: {0}")]
    Forbidden(note::Error),
    /// It does not start where this witness's last cosignature is.
    #[error("the latest cosigned checkpoint has {0} leaves")]
    Conflict(u64),
    /// It does not continue what was cosigned.
    #[error("consistency proof: {0}")]
    Inconsistent(String),
}

impl Refusal {
    /// The status of the HTTP answer.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Forbidden(_) => 403,
            Self::UnknownLog(_) => 404,
            Self::Conflict(_) => 409,
            Self::Inconsistent(_) => 422,
        }
    }
}

/// The log that a request is about: the origin of its checkpoint, not verified.
///
/// # Errors
/// A checkpoint that is not of the form.
pub fn origin(request: &Growth) -> Result<String, Refusal> {
    Ok(parse(request)?.1.origin)
}

fn parse(request: &Growth) -> Result<(Note, Checkpoint), Refusal> {
    // A note that cannot be read has no signature by a trusted key.
    let note = Note::parse(request.checkpoint.as_bytes()).map_err(Refusal::Forbidden)?;
    let checkpoint = note.text.parse().map_err(|e: super::checkpoint::Error| Refusal::Malformed(e.to_string()))?;
    Ok((note, checkpoint))
}

/// The note to cosign with its checkpoint, which takes the place of `latest`. One of the log's keys signed it: more than one
/// is known while the log goes over to another.
///
/// # Errors
/// Why it is not to be cosigned.
pub fn judge(request: &Growth, keys: &[VerifyingKey], latest: Option<&Checkpoint>) -> Result<(Note, Checkpoint), Refusal> {
    let (note, new) = parse(request)?;
    note.verify(&keys.iter().collect::<Vec<_>>()).map_err(Refusal::Forbidden)?;
    if request.old > new.size {
        return Err(Refusal::Malformed(format!("old size {} is beyond the checkpoint's {}", request.old, new.size)));
    }
    let latest_size = latest.map_or(0, |latest| latest.size);
    if request.old != latest_size {
        return Err(Refusal::Conflict(latest_size));
    }
    let wrong = |why: &str| Err(Refusal::Inconsistent(why.to_owned()));
    match latest {
        _ if new.size == 0 && new.root != EMPTY_ROOT => wrong("the empty tree has another root"),
        Some(latest) if latest.size > 0 => {
            let proven = verify_consistency(latest.size, new.size, &request.hashes, &latest.root, &new.root);
            proven.map(|()| (note, new)).map_err(|e| Refusal::Inconsistent(e.to_string()))
        }
        _ if !request.hashes.is_empty() => wrong("there is none from the empty tree"),
        _ => Ok((note, new)),
    }
}
