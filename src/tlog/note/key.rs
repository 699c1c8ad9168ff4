//! Ed25519 keys of notes, and their text forms.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::Signer;
use sha2::{Digest, Sha256};

use super::{Error, Signature};

/// The signature type of plain Ed25519.
const ED25519: u8 = 0x01;
/// What the text form of a private key starts with, so that it is not taken for the public one.
const PRIVATE: &str = "PRIVATE+KEY+";

/// A key name is not empty and has neither Unicode spaces nor `+`; nor control characters, because it
/// becomes part of a note.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+' || c < ' ')
}

/// The public key of a note's signer.
///
/// Its text form is the C2SP vkey, `<name>+<id in hex>+base64(0x01 || public key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    id: u32,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifyingKey {
    fn new(name: &str, key: ed25519_dalek::VerifyingKey) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::Key("name is empty or has a space, a control character or a plus"));
        }
        let id = id(name, ED25519, key.as_bytes());
        Ok(Self { name: name.to_owned(), id, key })
    }

    /// The key of a name and its 32 bytes.
    pub(super) fn from_bytes(name: &str, public: &[u8; 32]) -> Result<Self, Error> {
        let public = ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| Error::Key("not a point on the curve"))?;
        if public.is_weak() {
            return Err(Error::Key("a weak point, under which anything verifies"));
        }
        Self::new(name, public)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The name that stands in signature lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id: the first 4 bytes of `SHA-256(name || "\n" || 0x01 || public key)`, big-endian.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether a signature says that it is by this key.
    pub(super) fn names(&self, signature: &Signature) -> bool {
        signature.name == self.name && signature.id == self.id
    }

    /// Whether the signature over the text is by this key. Strict: no weak keys, one form per signature.
    pub(super) fn verifies(&self, text: &str, signature: &Signature) -> bool {
        self.verifies_bytes(text.as_bytes(), &signature.bytes)
    }

    pub(super) fn verifies_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature).is_ok_and(|s| self.key.verify_strict(message, &s).is_ok())
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.name, self.id, ED25519, self.key.as_bytes()))
    }
}

impl FromStr for VerifyingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, public) = split(text, ED25519)?;
        let key = Self::from_bytes(name, &public)?;
        // Also holds the id to the key, and hex and base64 to their one form.
        if key.to_string() != text {
            return Err(Error::Key("its id is not that of its name and bytes"));
        }
        Ok(key)
    }
}

/// The private key of a note's signer.
///
/// Its text form is that of Go's `sumdb/note`, `PRIVATE+KEY+<name>+<id in hex>+base64(0x01 || seed)`. There
/// is no `Display`, and `Debug` shows the public key only, so that it does not slip into a log.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    public: VerifyingKey,
}

impl SigningKey {
    /// The key of a name and a secret seed of 32 random bytes.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, Error> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = VerifyingKey::new(name, key.verifying_key())?;
        Ok(Self { key, public })
    }

    /// The public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// The secret text form.
    pub fn to_secret_text(&self) -> String {
        format!("{PRIVATE}{}", join(self.public.name(), self.public.id, ED25519, self.key.as_bytes()))
    }

    pub(super) fn sign(&self, text: &str) -> Signature {
        Signature { name: self.public.name.clone(), id: self.public.id, bytes: self.sign_bytes(text.as_bytes()).to_vec() }
    }

    pub(super) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl FromStr for SigningKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix(PRIVATE).ok_or(Error::Key("no PRIVATE+KEY+ before it"))?;
        let (name, seed) = split(rest, ED25519)?;
        let key = Self::new(name, &seed)?;
        if key.to_secret_text() != text {
            return Err(Error::Key("its id is not that of its name and bytes"));
        }
        Ok(key)
    }
}

/// The id of a key: the first 4 bytes of `SHA-256(name || "\n" || type || key)`.
pub(super) fn id(name: &str, kind: u8, key: &[u8; 32]) -> u32 {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(key).finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

pub(super) fn join(name: &str, id: u32, kind: u8, key: &[u8; 32]) -> String {
    let key = STANDARD.encode([&[kind], &key[..]].concat());
    format!("{name}+{id:08x}+{key}")
}

/// The name and the 32 bytes of a text form of this type; the id is for the caller to check.
pub(super) fn split(text: &str, kind: u8) -> Result<(&str, [u8; 32]), Error> {
    // Base64 may contain a plus; names and ids do not.
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Error::Key("not of the form name+id+key"));
    };
    let key = STANDARD.decode(key).map_err(|_| Error::Key("not base64"))?;
    match key.split_first() {
        Some((found, key)) if *found == kind => {
            let key = key.try_into().map_err(|_| Error::Key("not 32 bytes after its type"))?;
            Ok((name, key))
        }
        _ if kind == ED25519 => Err(Error::Key("not of signature type 0x01, ed25519")),
        _ => Err(Error::Key("not of signature type 0x04, a witness's")),
    }
}
