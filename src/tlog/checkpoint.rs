//! Checkpoints: "the log of this origin has this size and this root", signed, as [C2SP tlog-checkpoint] has
//! them.
//!
//! ```text
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```
//!
//! Extension lines are accepted and not kept: no verifier acts on them, and we write none.
//!
//! [C2SP tlog-checkpoint]: https://c2sp.org/tlog-checkpoint

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::Hash;
use super::note::{self, Note, SigningKey, VerifyingKey};

/// The head of a log. Its text form (`Display`, `FromStr`) is what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: its log id. Not empty, one line.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    /// The root over those leaves.
    pub root: Hash,
}

/// Why a checkpoint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The note around it is malformed, or not signed by the key.
    #[error("checkpoint: {0}")]
    Note(#[from] note::Error),
    /// The signed text is not a checkpoint.
    #[error("malformed checkpoint: {0}")]
    Malformed(&'static str),
    /// It is of another log.
    #[error("checkpoint is of log {found:?}, not of {wanted:?}")]
    Origin {
        /// The origin that was to be.
        wanted: String,
        /// The origin in the checkpoint.
        found: String,
    },
}

impl Checkpoint {
    /// The signed note. An error where the origin does not fit on its line.
    pub fn sign(&self, key: &SigningKey) -> Result<String, Error> {
        let text = self.to_string();
        if text.parse::<Self>()? != *self {
            return Err(Error::Malformed("origin is not one line"));
        }
        Ok(Note::sign(&text, key)?.to_string())
    }

    /// The note signed by two keys, as where the one takes over from the other.
    pub fn sign_by_both(&self, old: &SigningKey, new: &SigningKey) -> Result<String, Error> {
        let mut note = Note::parse(self.sign(old)?.as_bytes())?;
        note.add(new);
        Ok(note.to_string())
    }

    /// Reads a signed note, and believes it only if this key signed it and it is of this origin. The
    /// origin need not be the key's name.
    pub fn open(note: &[u8], origin: &str, key: &VerifyingKey) -> Result<Self, Error> {
        let note = Note::parse(note)?;
        note.verify(&[key])?;
        let checkpoint: Self = note.text.parse()?;
        if checkpoint.origin != origin {
            let (wanted, found) = (origin.to_owned(), checkpoint.origin);
            return Err(Error::Origin { wanted, found });
        }
        Ok(checkpoint)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, size, root } = self;
        write!(f, "{origin}\n{size}\n{}\n", STANDARD.encode(root))
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_suffix('\n').ok_or(Error::Malformed("no newline at its end"))?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [origin, size, root, ..] = lines[..] else {
            return Err(Error::Malformed("fewer than three lines"));
        };
        if lines.contains(&"") {
            return Err(Error::Malformed("empty line"));
        }
        let number: u64 = size.parse().map_err(|_| Error::Malformed("size is not a u64"))?;
        if number.to_string() != size {
            return Err(Error::Malformed("size has a sign or leading zeroes"));
        }
        let root = STANDARD.decode(root).map_err(|_| Error::Malformed("root is not base64"))?;
        let root = root.try_into().map_err(|_| Error::Malformed("root is not 32 bytes"))?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tlog::leaf_hash;

    /// A head of the Go checksum database, whose key is not named like its origin.
    const SUMDB_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    const SUMDB: &str = "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n\
        — sum.golang.org Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n";

    fn ours() -> (SigningKey, Checkpoint) {
        let key = SigningKey::new("kiki.local/log-1", &[7; 32]).unwrap();
        let origin = "kiki.local/log-1".to_owned();
        (key, Checkpoint { origin, size: 42, root: leaf_hash(b"root") })
    }

    #[test]
    fn opens_a_head_of_a_public_log() {
        let key = SUMDB_KEY.parse().unwrap();
        let head = Checkpoint::open(SUMDB.as_bytes(), "go.sum database tree", &key).unwrap();
        assert_eq!(head.size, 35_225_469);
    }

    #[test]
    fn opens_what_it_signed() {
        let (key, checkpoint) = ours();
        let note = checkpoint.sign(&key).unwrap();
        let opened = Checkpoint::open(note.as_bytes(), "kiki.local/log-1", key.verifying_key());
        assert_eq!(opened.unwrap(), checkpoint);
    }

    #[test]
    fn refuses_another_log_and_another_key() {
        let (key, checkpoint) = ours();
        let note = checkpoint.sign(&key).unwrap();
        let other = Checkpoint::open(note.as_bytes(), "kiki.local/log-2", key.verifying_key());
        let message = r#"checkpoint is of log "kiki.local/log-1", not of "kiki.local/log-2""#;
        assert_eq!(other.unwrap_err().to_string(), message);

        let other = SigningKey::new("kiki.local/log-1", &[8; 32]).unwrap();
        let refused = Checkpoint::open(note.as_bytes(), "kiki.local/log-1", other.verifying_key());
        assert_eq!(refused, Err(note::Error::Unverified { signatures: 1 }.into()));
    }

    #[test]
    fn refuses_every_flipped_bit() {
        let (key, checkpoint) = ours();
        let note = checkpoint.sign(&key).unwrap().into_bytes();
        for bit in 0..note.len() * 8 {
            let mut flipped = note.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let opened = Checkpoint::open(&flipped, &checkpoint.origin, key.verifying_key());
            assert!(opened.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn refuses_to_sign_an_origin_that_is_not_one_line() {
        let (key, checkpoint) = ours();
        for origin in ["", "a\nb", "a\n1", "tab\t", "end\n"] {
            let bad = Checkpoint { origin: origin.to_owned(), ..checkpoint.clone() };
            assert!(bad.sign(&key).is_err(), "{origin:?}");
        }
    }

    #[test]
    fn text_has_one_form() {
        let root = "TszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=";
        let text = format!("go.sum database tree\n123456789012\n{root}\n");
        let parsed: Checkpoint = text.parse().unwrap();
        assert_eq!((parsed.size, parsed.root), (123_456_789_012, leaf_hash(b"hello world")));
        assert_eq!(parsed.to_string(), text);
        assert_eq!(format!("{text}extension\n").parse::<Checkpoint>().unwrap(), parsed);
        for bad in [
            format!("o\n012\n{root}\n"),
            format!("o\n+12\n{root}\n"),
            format!("o\n-1\n{root}\n"),
            format!("o\n0xabcdef\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("o\n12\n{root}"),
            format!("o\n12\n{root}\n\n"),
            format!("\n12\n{root}\n"),
            format!("o\r\n12\r\n{root}\r\n"),
            "o\n12\n".to_owned(),
            "o\n12\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBTOOBIG=\n".to_owned(),
            "o\n12\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0\n".to_owned(),
            "o\n12\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBQ==\n".to_owned(),
        ] {
            assert!(bad.parse::<Checkpoint>().is_err(), "{bad:?}");
        }
    }
}
