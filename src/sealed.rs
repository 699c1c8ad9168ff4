//! Personal data in the log, sealed so that it can be erased: each subject has a key of its own, kept apart from the
//! log, and whoever destroys the key has erased the subject without touching a record or a proof.
//!
//! XChaCha20-Poly1305: its nonces have 192 bits, so random ones do not meet, however many writers there are and
//! whatever a crash forgot; and it is quick and constant in time on every processor. The associated data are the
//! record's log, client, field and key in the client's stream, and the key's id: a ciphertext opens in its own place
//! alone. A key's id is a digest of the key, so a ciphertext opens under one key alone, too.
//!
//! Not here: where keys are kept, and who may ask for them.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};

use crate::ids::Key;
use crate::leaf::Sealed;

/// The longest plaintext, bytes: an order reference and an address, not a document.
pub const MAX_PERSONAL: usize = 1_024;
/// The place of what is sealed with a purchase, as its leaf's field.
pub const PURCHASE: &str = "outcome.sealed";
/// Length of a key's id, bytes.
pub const KEY_ID: usize = 12;
const NONCE: usize = 24;
const TAG: usize = 16;

/// What names a key, and commits to it.
pub type KeyId = [u8; KEY_ID];

/// The place of sealed data: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The log's id.
    pub log_id: &'a str,
    /// Whose record.
    pub client: &'a str,
    /// The field's path in the leaf: `outcome.sealed`.
    pub field: &'a str,
    /// The record's own key in its client's stream, such as its `event_id`.
    pub record: &'a str,
}

/// Why data was not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too long to be sealed.
    #[error("personal data of {0} bytes; at most {MAX_PERSONAL} are taken")]
    TooLong(usize),
    /// The operating system has no randomness.
    #[error("no randomness: {0}")]
    Random(String),
    /// Not of the form of sealed data.
    #[error("sealed data has a key id of {KEY_ID} bytes, a nonce of {NONCE} and a ciphertext of {TAG} to {}", MAX_PERSONAL + TAG)]
    Form,
    /// Sealed under another key.
    #[error("the data is sealed under another key")]
    OtherKey,
    /// Changed, or taken from another place.
    #[error("the sealed data was changed, or is another record's")]
    Forged,
}

/// The name of a key.
#[must_use]
pub fn key_id(key: &Key) -> KeyId {
    let digest = Sha256::new().chain_update(b"kiki subject key\0").chain_update(key.bytes()).finalize();
    let mut id = [0; KEY_ID];
    id.copy_from_slice(&digest[..KEY_ID]);
    id
}

/// Whether data has the form of sealed data; whether it opens only its key can tell.
///
/// # Errors
/// [`Error::Form`].
pub fn check(sealed: &Sealed) -> Result<(), Error> {
    let good =
        sealed.key_id.len() == KEY_ID && sealed.nonce.len() == NONCE && (TAG..=MAX_PERSONAL + TAG).contains(&sealed.ciphertext.len());
    if good { Ok(()) } else { Err(Error::Form) }
}

/// Seals data for one place.
///
/// # Errors
/// More than [`MAX_PERSONAL`] bytes, or no randomness.
pub fn seal(key: &Key, place: Place<'_>, personal: &[u8]) -> Result<Sealed, Error> {
    if personal.len() > MAX_PERSONAL {
        return Err(Error::TooLong(personal.len()));
    }
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|e| Error::Random(e.to_string()))?;
    let id = key_id(key);
    let payload = Payload { msg: personal, aad: &associated(place, &id) };
    // It fails for plaintexts of 256 GiB, which were refused above.
    let ciphertext = cipher(key).encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::TooLong(personal.len()))?;
    Ok(Sealed { key_id: id.to_vec().into(), nonce: nonce.to_vec().into(), ciphertext: ciphertext.into() })
}

/// Opens what was sealed for this place under this key.
///
/// # Errors
/// [`Error::Form`], [`Error::OtherKey`] or [`Error::Forged`].
pub fn open(key: &Key, place: Place<'_>, sealed: &Sealed) -> Result<Vec<u8>, Error> {
    check(sealed)?;
    let id = key_id(key);
    if sealed.key_id.as_ref() != id {
        return Err(Error::OtherKey);
    }
    let nonce: [u8; NONCE] = sealed.nonce.as_ref().try_into().map_err(|_| Error::Form)?;
    let payload = Payload { msg: &sealed.ciphertext, aad: &associated(place, &id) };
    cipher(key).decrypt(&XNonce::from(nonce), payload).map_err(|_| Error::Forged)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key.bytes()).into())
}

/// A version, then each part behind its length, u32le: no two places run together.
fn associated(place: Place<'_>, id: &KeyId) -> Vec<u8> {
    let mut bytes = b"kiki sealed v1\0".to_vec();
    for part in [place.log_id.as_bytes(), place.client.as_bytes(), place.field.as_bytes(), place.record.as_bytes(), id] {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PLACE: Place<'static> = Place { log_id: "test/log", client: "acme", field: "outcome.sealed", record: "order-1" };

    fn key(byte: u8) -> Key {
        Key::new([byte; 32])
    }

    #[test]
    fn opens_under_its_key_in_its_place() {
        for personal in [&b""[..], b"ada@example.com", &[7; MAX_PERSONAL]] {
            let sealed = seal(&key(1), PLACE, personal).unwrap();
            assert_eq!(open(&key(1), PLACE, &sealed).unwrap(), personal);
            assert_eq!(sealed.ciphertext.len(), personal.len() + TAG);
        }
    }

    #[test]
    fn opens_in_no_other_place() {
        let sealed = seal(&key(1), PLACE, b"ada@example.com").unwrap();
        let others = [
            Place { log_id: "test/log2", ..PLACE },
            Place { client: "acm", ..PLACE },
            Place { field: "other.sealed", ..PLACE },
            Place { record: "order-2", ..PLACE },
            // The same bytes, parted elsewhere.
            Place { client: "acmeo", field: "utcome.sealed", ..PLACE },
        ];
        for place in others {
            assert_eq!(open(&key(1), place, &sealed), Err(Error::Forged), "{place:?}");
        }
    }

    #[test]
    fn a_changed_byte_anywhere_does_not_open() {
        let sealed = seal(&key(1), PLACE, b"ada@example.com").unwrap();
        assert_eq!(open(&key(2), PLACE, &sealed), Err(Error::OtherKey));
        for at in 0..sealed.ciphertext.len() {
            let mut ciphertext = sealed.ciphertext.to_vec();
            ciphertext[at] ^= 1;
            assert_eq!(open(&key(1), PLACE, &Sealed { ciphertext: ciphertext.into(), ..sealed.clone() }), Err(Error::Forged));
        }
        // The id of another key, put in its place, does not make that key's ciphertext of it.
        let renamed = Sealed { key_id: key_id(&key(2)).to_vec().into(), ..sealed.clone() };
        assert_eq!(open(&key(2), PLACE, &renamed), Err(Error::Forged));
        let short = Sealed { nonce: sealed.nonce.slice(1..), ..sealed };
        assert_eq!(open(&key(1), PLACE, &short), Err(Error::Form));
    }

    #[test]
    fn the_same_data_is_never_sealed_alike_and_never_too_long() {
        let seal_once = || seal(&key(1), PLACE, b"ada@example.com").unwrap();
        assert_ne!(seal_once().ciphertext, seal_once().ciphertext);
        assert_eq!(seal(&key(1), PLACE, &[0; MAX_PERSONAL + 1]), Err(Error::TooLong(MAX_PERSONAL + 1)));
    }

    /// Sealed by Python's `cryptography`: its ChaCha20Poly1305 under the subkey of an HChaCha20 written out in Python.
    #[test]
    fn opens_what_another_implementation_sealed() {
        let hex = |text: &str| hex::decode(text).unwrap().into();
        let sealed = Sealed {
            key_id: hex("90e623fbca983fc838addb40"),
            nonce: hex("000102030405060708090a0b0c0d0e0f1011121314151617"),
            ciphertext: hex("c973cac59f643ac855abe469858dc278cd553c89b39a361fe423de1b7a244f"),
        };
        assert_eq!(open(&key(7), PLACE, &sealed).unwrap(), b"ada@example.com");
    }
}
