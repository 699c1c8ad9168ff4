//! Portable proofs: one text that shows a third party, offline, that a leaf is in the log, as [C2SP tlog-proof] has it.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <the leaf, base64>
//! index 73894
//! <inclusion proof, base64, a hash a line>
//!
//! <checkpoint>
//! ```
//!
//! Our proofs carry the leaf itself in the `extra` line, so that the one file is enough. [`Growth`] is the same for the
//! proof that a log only grew, in the form in which it is sent to a witness ([C2SP tlog-witness]).
//!
//! [C2SP tlog-proof]: https://c2sp.org/tlog-proof
//! [C2SP tlog-witness]: https://c2sp.org/tlog-witness

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::note::VerifyingKey;
use super::{Checkpoint, Hash, checkpoint, leaf_hash, verify_consistency, verify_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// The most hashes that a proof has: the tlog-witness protocol's limit, one a level of a tree of 2^63 leaves.
const MAX_HASHES: usize = 63;

/// That a leaf is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortableProof {
    /// Where our proofs have the leaf's bytes. Believed only once the proof holds for it.
    pub extra: Vec<u8>,
    /// The leaf's index, from 0.
    pub index: u64,
    /// The inclusion proof.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, as it was issued.
    pub checkpoint: String,
}

/// That the log of `old` leaves is how the log of the checkpoint begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The size before; 0 where nothing was known, and then there is no proof.
    pub old: u64,
    /// The consistency proof.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, as it was issued.
    pub checkpoint: String,
}

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not of the form.
    #[error("malformed proof: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is not the log's.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// It does not prove what it says.
    #[error("proof: {0}")]
    Proof(#[from] super::Error),
}

impl PortableProof {
    /// Checks it for the leaf that it carries; the checkpoint that it leads to.
    ///
    /// # Errors
    /// A checkpoint that this key did not sign for this origin, or a proof that does not lead to it.
    pub fn verify(&self, origin: &str, key: &VerifyingKey) -> Result<Checkpoint, Error> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), origin, key)?;
        verify_inclusion(&leaf_hash(&self.extra), self.index, checkpoint.size, &self.hashes, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

impl Growth {
    /// Checks it against the root that the log had at the old size; the checkpoint that it leads to.
    ///
    /// # Errors
    /// A checkpoint that this key did not sign for this origin, or a proof that does not lead to it.
    pub fn verify(&self, old_root: &Hash, origin: &str, key: &VerifyingKey) -> Result<Checkpoint, Error> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), origin, key)?;
        verify_consistency(self.old, checkpoint.size, &self.hashes, old_root, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

fn write_hashes(f: &mut fmt::Formatter<'_>, hashes: &[Hash], checkpoint: &str) -> fmt::Result {
    hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
    write!(f, "\n{checkpoint}")
}

impl fmt::Display for PortableProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if !self.extra.is_empty() {
            writeln!(f, "extra {}", STANDARD.encode(&self.extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        write_hashes(f, &self.hashes, &self.checkpoint)
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        write_hashes(f, &self.hashes, &self.checkpoint)
    }
}

/// A number in its one decimal form, behind its name.
fn number(line: Option<&str>, name: &str) -> Option<u64> {
    let text = line?.strip_prefix(name)?.strip_prefix(' ')?;
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, Error> {
    let hashes: Vec<Hash> = lines
        .take(MAX_HASHES + 1)
        .map(|line| STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok()).ok_or(Error::Malformed("a line is not a hash")))
        .collect::<Result<_, _>>()?;
    if hashes.len() > MAX_HASHES { Err(Error::Malformed("more than 63 hashes")) } else { Ok(hashes) }
}

fn halves(text: &str) -> Result<(&str, &str), Error> {
    text.split_once("\n\n").ok_or(Error::Malformed("no empty line before the checkpoint"))
}

impl FromStr for PortableProof {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (head, checkpoint) = halves(text)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(Error::Malformed("does not begin with c2sp.org/tlog-proof@v1"));
        }
        let mut line = lines.next();
        let mut extra = Vec::new();
        if let Some(data) = line.and_then(|line| line.strip_prefix("extra ")) {
            extra = STANDARD.decode(data).map_err(|_| Error::Malformed("extra is not base64"))?;
            line = lines.next();
        }
        let index = number(line, "index").ok_or(Error::Malformed("no index"))?;
        Ok(Self { extra, index, hashes: hashes(lines)?, checkpoint: checkpoint.to_owned() })
    }
}

impl FromStr for Growth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (head, checkpoint) = halves(text)?;
        let mut lines = head.split('\n');
        let old = number(lines.next(), "old").ok_or(Error::Malformed("no old size"))?;
        Ok(Self { old, hashes: hashes(lines)?, checkpoint: checkpoint.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tlog::Tree;
    use crate::tlog::note::SigningKey;

    const ORIGIN: &str = "kiki.local/log-1";

    fn log(size: u64) -> (Tree, SigningKey, String) {
        let tree: Tree = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let key = SigningKey::new(ORIGIN, &[7; 32]).unwrap();
        let note = Checkpoint { origin: ORIGIN.to_owned(), size, root: tree.root() }.sign(&key).unwrap();
        (tree, key, note)
    }

    #[test]
    fn a_proof_comes_back_from_its_text_and_holds() {
        let (tree, key, checkpoint) = log(9);
        for index in 0..9u64 {
            let hashes = tree.inclusion_proof(index, 9).unwrap();
            let proof = PortableProof { extra: index.to_be_bytes().to_vec(), index, hashes, checkpoint: checkpoint.clone() };
            let read: PortableProof = proof.to_string().parse().unwrap();
            assert_eq!(read, proof);
            assert_eq!(read.verify(ORIGIN, key.verifying_key()).unwrap().size, 9);
            let other = PortableProof { extra: b"another".to_vec(), ..proof };
            assert!(matches!(other.verify(ORIGIN, key.verifying_key()), Err(Error::Proof(_))));
        }
    }

    #[test]
    fn growth_comes_back_from_its_text_and_holds_from_the_old_root_alone() {
        let (tree, key, checkpoint) = log(9);
        let growth = Growth { old: 6, hashes: tree.consistency_proof(6, 9).unwrap(), checkpoint };
        let read: Growth = growth.to_string().parse().unwrap();
        assert_eq!(read, growth);
        assert!(read.verify(&tree.root_at(6).unwrap(), ORIGIN, key.verifying_key()).is_ok());
        assert!(matches!(read.verify(&tree.root_at(5).unwrap(), ORIGIN, key.verifying_key()), Err(Error::Proof(_))));
    }

    /// The texts of the reference implementation's own test.
    #[test]
    fn texts_are_those_of_the_reference() {
        let (h1, h2) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        for (extra, index, hashes, text) in [
            (&b""[..], 5, vec![[1; 32], [2; 32]], format!("c2sp.org/tlog-proof@v1\nindex 5\n{h1}\n{h2}\n\ntest checkpoint\n")),
            (b"extra information", 10, vec![[1; 32]], {
                let extra = STANDARD.encode("extra information");
                format!("c2sp.org/tlog-proof@v1\nextra {extra}\nindex 10\n{h1}\n\ntest checkpoint\n")
            }),
            (b"", 0, vec![], "c2sp.org/tlog-proof@v1\nindex 0\n\ntest checkpoint\n".to_owned()),
        ] {
            let proof = PortableProof { extra: extra.to_vec(), index, hashes, checkpoint: "test checkpoint\n".to_owned() };
            assert_eq!(proof.to_string(), text);
            assert_eq!(text.parse(), Ok(proof));
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        let hash = STANDARD.encode([1; 32]);
        for bad in [
            "wrong-header\nindex 0\n\ncheckpoint\n".to_owned(),
            "c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n".to_owned(),
            "c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n".to_owned(),
            "c2sp.org/tlog-proof@v1\nindex notanumber\n\ncheckpoint\n".to_owned(),
            "c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n".to_owned(),
            "c2sp.org/tlog-proof@v1\nindex 05\n\ncheckpoint\n".to_owned(),
            "c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\ncheckpoint\n".to_owned(),
            format!("c2sp.org/tlog-proof@v1\nindex 0\n{}\n\ncheckpoint\n", STANDARD.encode([0; 64])),
            format!("c2sp.org/tlog-proof@v1\nindex 0\n{}\ncheckpoint\n", format!("{hash}\n").repeat(64)),
            "c2sp.org/tlog-proof@v1\nindex 0\n".to_owned(),
        ] {
            assert!(bad.parse::<PortableProof>().is_err(), "{bad}");
        }
        for bad in ["old 01\n\nx", "old\n\nx", "old -1\n\nx", "old 1\nx\n\nx", "old 1\n"] {
            assert!(bad.parse::<Growth>().is_err(), "{bad}");
        }
    }
}
