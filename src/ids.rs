//! Ids: strings of a stated form and length, a type for each kind.
//!
//! The form is 1 to 63 characters of `a-z 0-9 . _ -`, the first of them a letter or digit: it fits a DNS label, a file
//! name, a Prometheus label and a URL path without escaping. A customer's own id is free text that never reaches the
//! log; there it is a [`CustomerKey`].

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The longest id, in bytes.
pub const MAX_ID: usize = 63;
/// The longest customer id, in bytes.
pub const MAX_CUSTOMER: usize = 128;

/// An id that is not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not an id: 1 to {MAX_ID} characters of a-z 0-9 . _ -, the first a letter or digit")]
pub struct IdError {
    /// The field that held it.
    pub field: &'static str,
    /// Its first characters.
    pub value: String,
}

/// Checks the form that all ids share.
///
/// # Errors
/// Names `field` where `value` is not of the form.
pub fn check(field: &'static str, value: &str) -> Result<(), IdError> {
    let letter = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = (1..=MAX_ID).contains(&value.len())
        && value.as_bytes().first().is_some_and(letter)
        && value.bytes().all(|b| letter(&b) || matches!(b, b'.' | b'_' | b'-'));
    if good { Ok(()) } else { Err(IdError { field, value: value.chars().take(80).collect() }) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $field:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the form.
            ///
            /// # Errors
            /// Names the field where the value is not of the form.
            pub fn parse(value: &str) -> Result<Self, IdError> {
                check($field, value)?;
                Ok(Self(value.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// An advertiser; the unit of sharding and of isolation.
    ClientId = "client";
    /// A campaign of a client.
    CampaignId = "campaign";
    /// An ad platform: `google_ads`, `tradedesk`.
    PlatformId = "platform";
    /// An exchange that sends bid requests.
    ExchangeId = "exchange";
    /// Who holds a lease: an instance of SyncFlow.
    HolderId = "holder";
}

/// A customer's keyed pseudonym: what leaves and receipts carry in place of the customer's own id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CustomerKey(pub [u8; 16]);

impl CustomerKey {
    /// From a leaf's bytes; none where there are not 16.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// A secret of 32 bytes, written as 64 hex digits; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// From its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A new one from the operating system.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The key that a setting gives: its 64 hexadecimal digits, or the path of a file that holds them, as a container has its secrets.
    ///
    /// # Errors
    /// Neither. What was given is not repeated: it may be a secret with a slip in it.
    pub fn given(text: &str) -> Result<Self, KeyError> {
        text.parse().or_else(|KeyError| std::fs::read_to_string(text).map_err(|_| KeyError)?.parse())
    }
}

impl std::str::FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| KeyError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// Text that is no [`Key`]; it may be a secret and is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits, or the path of a file that holds them")]
pub struct KeyError;

/// Makes pseudonyms: the first 16 bytes of HMAC-SHA256(key, client 0x00 customer).
#[derive(Clone)]
pub struct Pseudonyms {
    keyed: Hmac<Sha256>,
}

impl Pseudonyms {
    /// From the key that all of an operator's services share.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        // HMAC takes a key of any length, so this cannot fail.
        Self { keyed: Hmac::new_from_slice(key.bytes()).unwrap_or_else(|_| unreachable!("hmac takes any key")) }
    }

    /// The pseudonym of a client's customer. An id cannot contain 0x00, so two pairs never run together.
    #[must_use]
    pub fn of(&self, client: &str, customer: &str) -> CustomerKey {
        let mut mac = self.keyed.clone();
        mac.update(client.as_bytes());
        mac.update(&[0]);
        mac.update(customer.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        CustomerKey(key)
    }
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms")
    }
}

/// Checks a customer's own id: 1 to 128 bytes without control characters.
///
/// # Errors
/// Names the field; the value is personal data and is not repeated.
pub fn check_customer(value: &str) -> Result<(), CustomerError> {
    let good = (1..=MAX_CUSTOMER).contains(&value.len()) && !value.chars().any(char::is_control);
    if good { Ok(()) } else { Err(CustomerError { len: value.len() }) }
}

/// A customer id that is not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("customer: an id of {len} bytes; 1 to {MAX_CUSTOMER} bytes without control characters are taken")]
pub struct CustomerError {
    /// Its length in bytes.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_form() {
        for good in ["a", "acme", "google_ads", "2026-01.x"] {
            assert!(ClientId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", ".a", "a b", "ä", &"a".repeat(64), "a/b", "a\0"] {
            assert!(ClientId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_customer_has_another_pseudonym_at_each_client() {
        let names = Pseudonyms::new(&Key::new([7; 32]));
        assert_eq!(names.of("acme", "c1"), names.of("acme", "c1"));
        assert_ne!(names.of("acme", "c1"), names.of("globex", "c1"));
        assert_ne!(names.of("acme", "c1"), Pseudonyms::new(&Key::new([8; 32])).of("acme", "c1"));
    }
}
