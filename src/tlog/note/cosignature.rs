//! Cosignatures: a witness says that, at a time, this was the largest tree it had seen of this log, and that every one
//! before it was how this one begins. [C2SP tlog-cosignature], of type `cosignature/v1` with Ed25519.
//!
//! [C2SP tlog-cosignature]: https://c2sp.org/tlog-cosignature

use std::{fmt, str::FromStr};

use super::key::{self, SigningKey, VerifyingKey};
use super::{Error, Note, Signature};

/// The signature type of a timestamped Ed25519 cosignature.
const COSIGNATURE: u8 = 0x04;

/// The public key of a witness. Its text form is the C2SP vkey, `<name>+<id in hex>+base64(0x04 || public key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    id: u32,
    key: VerifyingKey,
}

impl Witness {
    fn new(key: VerifyingKey) -> Self {
        Self { id: key::id(key.name(), COSIGNATURE, key.bytes()), key }
    }

    /// The name that stands in signature lines.
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// When this witness cosigned the note, seconds since 1970; none where it did not.
    ///
    /// # Errors
    /// A signature under the witness's name and id that is not by it.
    pub fn cosigned_at(&self, note: &Note) -> Result<Option<u64>, Error> {
        let mut own = note.signatures.iter().filter(|s| s.name == self.name() && s.id == self.id);
        own.try_fold(None, |latest, signature| {
            let at =
                self.verify(&note.text, signature).ok_or_else(|| Error::InvalidSignature { name: self.name().to_owned(), id: self.id })?;
            Ok(latest.max(Some(at)))
        })
    }

    fn verify(&self, text: &str, signature: &Signature) -> Option<u64> {
        let (time, signature) = signature.bytes.split_first_chunk()?;
        let time = u64::from_be_bytes(*time);
        // Zero would be a statement without a time, and the specification ends at 2^63 - 1.
        let sane = time > 0 && i64::try_from(time).is_ok();
        (sane && self.key.verifies_bytes(&message(text, time), signature)).then_some(time)
    }
}

/// A witness's own key: it cosigns.
#[derive(Clone, Debug)]
pub struct Cosigner {
    key: SigningKey,
    witness: Witness,
}

impl Cosigner {
    /// Cosigns with this key. The key should sign nothing else.
    pub fn new(key: SigningKey) -> Self {
        let witness = Witness::new(key.verifying_key().clone());
        Self { key, witness }
    }

    /// The public half.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Cosigns a checkpoint's text, which the caller has verified, at a time in seconds since 1970.
    pub fn cosign(&self, text: &str, time: u64) -> Signature {
        let signature = self.key.sign_bytes(&message(text, time));
        let bytes = [&time.to_be_bytes()[..], &signature].concat();
        Signature { name: self.witness.name().to_owned(), id: self.witness.id, bytes }
    }
}

fn message(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key::join(self.name(), self.id, COSIGNATURE, self.key.bytes()))
    }
}

impl FromStr for Witness {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, public) = key::split(text, COSIGNATURE)?;
        let witness = Self::new(VerifyingKey::from_bytes(name, &public)?);
        if witness.to_string() != text {
            return Err(Error::Key("its id is not that of its name and bytes"));
        }
        Ok(witness)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn cosigner(name: &str) -> Cosigner {
        Cosigner::new(SigningKey::new(name, &[9; 32]).unwrap())
    }

    fn note(signatures: Vec<Signature>) -> Note {
        Note { text: TEXT.to_owned(), signatures }
    }

    #[test]
    fn a_cosignature_verifies_under_its_key_at_its_time_alone() {
        let cosigner = cosigner("witness.example.com/w1");
        let witness: Witness = cosigner.witness().to_string().parse().unwrap();
        assert_eq!(&witness, cosigner.witness());
        let good = cosigner.cosign(TEXT, 1_679_315_147);
        assert_eq!(good.bytes.len(), 8 + 64);
        let read = Note::parse(note(vec![good.clone()]).to_string().as_bytes()).unwrap();
        assert_eq!(witness.cosigned_at(&read), Ok(Some(1_679_315_147)));
        for bit in 0..good.bytes.len() * 8 {
            let mut flipped = good.clone();
            flipped.bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(witness.cosigned_at(&note(vec![flipped])).is_err(), "bit {bit}");
        }
        assert!(witness.cosigned_at(&note(vec![cosigner.cosign(TEXT, 0)])).is_err(), "without a time");
        let mut other = note(vec![good]);
        other.text = other.text.replace("20852163", "20852164");
        assert!(witness.cosigned_at(&other).is_err());
    }

    #[test]
    fn others_cosignatures_are_ignored_and_keys_of_another_type_refused() {
        let (one, two) = (cosigner("w/1"), cosigner("w/2"));
        assert_eq!(two.witness().cosigned_at(&note(vec![one.cosign(TEXT, 5)])), Ok(None));
        // A log's key and a witness's, of the same bytes and name, have different ids and types.
        let log = SigningKey::new("w/1", &[9; 32]).unwrap();
        assert_ne!(log.verifying_key().id(), one.witness().id);
        assert!(log.verifying_key().to_string().parse::<Witness>().is_err());
        assert!(one.witness().to_string().parse::<VerifyingKey>().is_err());
    }
}
