//! Signed notes: text with signature lines, as [C2SP signed-note] has them.
//!
//! ```text
//! This is an example message.
//!
//! — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
//! ```
//!
//! Signatures are Ed25519 (0x01), and witnesses' are timestamped cosignatures (0x04, [`Witness`]); lines by
//! unknown keys are kept and ignored, as the specification asks. Text is to be used only after
//! [`Note::verify`].
//!
//! [C2SP signed-note]: https://c2sp.org/signed-note@v1.0.0

mod cosignature;
mod key;

pub use cosignature::{Cosigner, Witness};
pub use key::{SigningKey, VerifyingKey};

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

/// The most signatures that a note may have: what Go's `sumdb/note` takes. The specification asks for 16.
pub const MAX_SIGNATURES: usize = 100;

/// The largest note: 100 signatures of a post-quantum 5 kB are 100 * 4/3 * 5 kB = 667 kB; the text is small.
pub const MAX_NOTE_BYTES: usize = 1 << 20;

/// Why a note or a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not a signed note.
    #[error("malformed note: {0}")]
    Malformed(String),
    /// It is not a key in its text form. The key itself is not repeated, as it may be the private one.
    #[error("malformed key: {0}")]
    Key(&'static str),
    /// A signature under the name and id of a known key is not by that key.
    #[error("invalid signature for key {name}+{id:08x}")]
    InvalidSignature {
        /// The key's name.
        name: String,
        /// The key's id.
        id: u32,
    },
    /// None of the signatures is by a known key.
    #[error("none of the note's {signatures} signatures is by a known key")]
    Unverified {
        /// The signatures there are.
        signatures: usize,
    },
}

/// A note with its signatures, parsed but not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text that is signed; ends in a newline.
    pub text: String,
    /// The signatures, in the note's order.
    pub signatures: Vec<Signature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key that it is said to be by.
    pub name: String,
    /// The id of that key.
    pub id: u32,
    /// The signature proper, of the form that the key's type gives it.
    pub bytes: Vec<u8>,
}

impl Note {
    /// Signs a text.
    pub fn sign(text: &str, key: &SigningKey) -> Result<Self, Error> {
        check_text(text)?;
        Ok(Self { text: text.to_owned(), signatures: vec![key.sign(text)] })
    }

    /// Adds the signature of another key.
    pub fn add(&mut self, key: &SigningKey) {
        self.signatures.push(key.sign(&self.text));
    }

    /// Reads a note. Its text and signatures are well formed then, and no more.
    pub fn parse(note: &[u8]) -> Result<Self, Error> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(malformed(format!("{} bytes, over the limit of {MAX_NOTE_BYTES}", note.len())));
        }
        let note = std::str::from_utf8(note).map_err(|e| malformed(format!("not utf-8 at byte {}", e.valid_up_to())))?;
        let (text, lines) = note.rsplit_once("\n\n").ok_or_else(|| malformed("no empty line before signatures"))?;
        let text = &note[..=text.len()];
        check_text(text)?;
        let lines = lines.strip_suffix('\n').ok_or_else(|| malformed("no newline at the end of the signatures"))?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(malformed(format!("more than {MAX_SIGNATURES} signatures")));
        }
        let signatures = lines
            .split('\n')
            .zip(1..)
            .map(|(line, number)| parse_signature(line).map_err(|why| malformed(format!("signature line {number}: {why}"))));
        Ok(Self { text: text.to_owned(), signatures: signatures.collect::<Result<_, _>>()? })
    }

    /// Checks every signature that is by one of these keys, and returns how many of the keys signed: at
    /// least one. Signatures by unknown keys are ignored; one false signature under a known key's name
    /// and id condemns the note.
    pub fn verify(&self, keys: &[&VerifyingKey]) -> Result<usize, Error> {
        let mut signed = 0;
        for (i, key) in keys.iter().enumerate() {
            if keys[..i].contains(key) {
                continue;
            }
            let mut own = self.signatures.iter().filter(|s| key.names(s)).peekable();
            signed += usize::from(own.peek().is_some());
            if !own.all(|signature| key.verifies(&self.text, signature)) {
                return Err(Error::InvalidSignature { name: key.name().to_owned(), id: key.id() });
            }
        }
        if signed == 0 {
            return Err(Error::Unverified { signatures: self.signatures.len() });
        }
        Ok(signed)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = STANDARD.encode([&self.id.to_be_bytes(), &self.bytes[..]].concat());
        write!(f, "— {} {blob}", self.name)
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        parse_signature(line).map_err(malformed)
    }
}

fn malformed(why: impl Into<String>) -> Error {
    Error::Malformed(why.into())
}

fn check_text(text: &str) -> Result<(), Error> {
    if !text.ends_with('\n') {
        return Err(malformed("no newline at the end of the text"));
    }
    let control = |c: char| c < ' ' && c != '\n';
    match text.find(control) {
        Some(at) => Err(malformed(format!("control character at byte {at}"))),
        None => Ok(()),
    }
}

fn parse_signature(line: &str) -> Result<Signature, &'static str> {
    let line = line.strip_prefix("— ").ok_or("does not start with an em dash and a space")?;
    let (name, blob) = line.split_once(' ').ok_or("no space after the key name")?;
    if !key::is_name(name) {
        return Err("bad key name");
    }
    let blob = STANDARD.decode(blob).map_err(|_| "not base64")?;
    match blob.split_first_chunk() {
        Some((id, bytes)) if !bytes.is_empty() => {
            Ok(Signature { name: name.to_owned(), id: u32::from_be_bytes(*id), bytes: bytes.to_vec() })
        }
        _ => Err("shorter than a key id and a signature"),
    }
}

#[cfg(test)]
mod tests;
