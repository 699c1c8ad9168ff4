//! The receipt: what a notice or a purchase brings back, so that any instance can take it without having seen the bid.
//!
//! Bytes (integers big-endian), then text by base64url without padding:
//!
//! ```text
//!   0  version = 3                    54  deadline, micros (i64)
//!   1  key id                         62  P(conversion), parts per billion (u32)
//!   2  lease id (u64)                 66  horizon, days (u16)
//!  10  epoch (u64)                    68  policy digest, first 16 bytes
//!  18  sequence (u32)                 84  currency, 3 letters
//!  22  maximum price, nanos (i64)     87  1 where there is a customer, else 0
//!  30  predicted LTV, micros (i64)    88  customer's pseudonym, 16 bytes
//!  38  bid made at, micros (i64)     104  client, campaign, exchange, platform, model: packed ids
//!  46  lease granted at (i64)             market (u64), where the bid was shaded by one
//!                                    end-17  purpose: 0 notice, 1 click
//!                                    end-16  of the HMAC-SHA256 of all before the purpose: a notice's is the first half,
//!                                            a click's the second
//! ```
//!
//! A packed id is its length and then three of its 39 possible characters in each two bytes, so that the longest receipt
//! has 344 bytes and 459 characters: it always fits the 512 that notice addresses have room for.
//!
//! A click's address is seen by whoever is shown the ad. Its receipt moves no money: half of an HMAC says nothing of the other
//! half to who has not the key, so that neither receipt can be made from the other, and one HMAC does for both.
//!
//! Invariant: nothing of a receipt is looked at before its MAC was found right. It is not secret: whoever holds it can
//! read it. Not here: whether a slot was settled before, which is the log's to say.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kiki::clock::UnixMicros;
use kiki::ids::{self, CustomerKey, Key};
use kiki::money::{Currency, Micros, Nanos};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::shading::Market;

/// The longest receipt, in characters. The layout above needs at most 459.
pub const MAX_CHARS: usize = 512;

const VERSION: u8 = 3;
const IDS_AT: usize = 104;
const MAC_BYTES: usize = 16;
/// Five ids of at most 63 characters, each in 43 bytes, and a market.
const MAX_BYTES: usize = IDS_AT + 5 * 43 + 8 + 1 + MAC_BYTES;
/// The characters of an id; three of them are a number below 39^3 = 59,319, which fits 16 bits.
const ALPHABET: &[u8; 39] = b"abcdefghijklmnopqrstuvwxyz0123456789._-";
/// The place of each character in it; 0 for those that no id has.
const DIGITS: [u8; 256] = {
    let (mut digits, mut at) = ([0; 256], 0);
    while at < ALPHABET.len() {
        digits[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    digits
};

/// What a receipt is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The exchange's notices, which move money.
    Notice,
    /// The click's redirect and the purchases that follow, which move none.
    Click,
}

impl Purpose {
    const fn byte(self) -> u8 {
        match self {
            Self::Notice => 0,
            Self::Click => 1,
        }
    }

    /// Its half of a MAC.
    fn half(self, mac: &[u8; 2 * MAC_BYTES]) -> &[u8] {
        let (first, second) = mac.split_at(MAC_BYTES);
        match self {
            Self::Notice => first,
            Self::Click => second,
        }
    }
}

/// What a bid leaves in its notices and clicks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt<Id = String> {
    /// The advertiser.
    pub client: Id,
    /// Its campaign.
    pub campaign: Id,
    /// The exchange that the bid was made at.
    pub exchange: Id,
    /// The platform that the exchange belongs to.
    pub platform: Id,
    /// The model that predicted.
    pub model: Id,
    /// The lease that holds the money.
    pub lease_id: u64,
    /// Its epoch when the bid was made.
    pub epoch: u64,
    /// The slot under it.
    pub sequence: u32,
    /// What the impression may cost.
    pub max_price: Nanos,
    /// Its currency.
    pub currency: Currency,
    /// The customer, if the request named one.
    pub customer: Option<CustomerKey>,
    /// The prediction that the bid was made on.
    pub predicted_ltv: Micros,
    /// Its horizon.
    pub horizon_days: u16,
    /// P(conversion) that the price was made of, parts per billion.
    pub p_conversion_ppb: u32,
    /// The first half of the policy's digest.
    pub policy_digest: [u8; 16],
    /// When the bid was made.
    pub bid_at: UnixMicros,
    /// After this no notice is taken.
    pub deadline: UnixMicros,
    /// When the lease was granted.
    pub granted_at: UnixMicros,
    /// The market that the bid was shaded by.
    pub market: Option<Market>,
}

/// A receipt that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not of the form.
    #[error("receipt: {0}")]
    Malformed(&'static str),
    /// Made with a key that is not among ours.
    #[error("receipt: no key has the id {0}")]
    UnknownKey(u8),
    /// Changed on its way, or not made here.
    #[error("receipt: its authentication code is wrong")]
    BadMac,
    /// Made for something else.
    #[error("receipt: is not one of a {}", match .0 { Purpose::Notice => "notice", Purpose::Click => "click" })]
    WrongPurpose(Purpose),
    /// Past its deadline.
    #[error("receipt: {late_seconds} s past its deadline")]
    TooOld {
        /// How far past.
        late_seconds: u64,
    },
}

/// The keys that receipts are made and checked with. A key's id follows from the key, so that instances need to agree on keys alone.
#[derive(Clone)]
pub struct ReceiptKeys {
    current: u8,
    current_key: Hmac<Sha256>,
    keys: BTreeMap<u8, Hmac<Sha256>>,
}

impl std::fmt::Debug for ReceiptKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptKeys").field("current", &self.current).finish_non_exhaustive()
    }
}

impl ReceiptKeys {
    /// Makes receipts with `current`, and takes those of `old` as well.
    #[must_use]
    pub fn new(current: &Key, old: &[Key]) -> Self {
        // The current key goes in last: should two ids be the same, it is the one that is kept.
        let keys = old.iter().chain([current]).map(|key| (key_id(key), keyed(key))).collect();
        Self { current: key_id(current), current_key: keyed(current), keys }
    }

    /// The receipt as text, for each of the purposes alone, under the current key.
    #[must_use]
    pub fn seal<const N: usize>(&self, receipt: &Receipt<impl AsRef<str>>, purposes: [Purpose; N]) -> [String; N] {
        let mut bytes = receipt.encode(self.current);
        let (common, mac) = (bytes.len(), code(&self.current_key, &bytes));
        // Three bytes are four letters: what the receipts have in common is written once.
        let (threes, mut begin) = (common / 3 * 3, String::with_capacity(MAX_CHARS));
        URL_SAFE_NO_PAD.encode_string(&bytes[..threes], &mut begin);
        purposes.map(|purpose| {
            bytes.truncate(common);
            bytes.push(purpose.byte());
            bytes.extend_from_slice(purpose.half(&mac));
            let mut text = String::with_capacity(MAX_CHARS);
            text.push_str(&begin);
            URL_SAFE_NO_PAD.encode_string(&bytes[threes..], &mut text);
            text
        })
    }

    /// Reads a receipt that was made here, for that purpose, and not changed.
    ///
    /// # Errors
    /// [`ReceiptError`], all kinds but [`ReceiptError::TooOld`].
    pub fn open(&self, text: &str, purpose: Purpose) -> Result<Receipt, ReceiptError> {
        if text.len() > MAX_CHARS {
            return Err(ReceiptError::Malformed("longer than 512 characters"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ReceiptError::Malformed("not base64url"))?;
        let Some((body, mac)) = bytes.split_last_chunk::<MAC_BYTES>() else {
            return Err(ReceiptError::Malformed("too short"));
        };
        let [VERSION, key_id, ..] = body else {
            return Err(ReceiptError::Malformed("of another version"));
        };
        let key = self.keys.get(key_id).ok_or(ReceiptError::UnknownKey(*key_id))?;
        let Some((found, body)) = body.split_last() else {
            return Err(ReceiptError::Malformed("not of the layout"));
        };
        let made = [Purpose::Notice, Purpose::Click].into_iter().find(|made| made.byte() == *found).ok_or(ReceiptError::BadMac)?;
        if !bool::from(made.half(&code(key, body)).ct_eq(mac)) {
            return Err(ReceiptError::BadMac);
        }
        if made != purpose {
            return Err(ReceiptError::WrongPurpose(purpose));
        }
        Receipt::decode(body).ok_or(ReceiptError::Malformed("not of the layout"))
    }
}

fn code(key: &Hmac<Sha256>, bytes: &[u8]) -> [u8; 2 * MAC_BYTES] {
    key.clone().chain_update(bytes).finalize().into_bytes().into()
}

fn key_id(key: &Key) -> u8 {
    Sha256::digest([b"kiki receipt key id", key.bytes().as_slice()].concat())[0]
}

fn keyed(key: &Key) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.bytes()).unwrap_or_else(|_| unreachable!("hmac takes any key"))
}

impl<Id: AsRef<str>> Receipt<Id> {
    fn encode(&self, key_id: u8) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_BYTES);
        out.extend_from_slice(&[VERSION, key_id]);
        out.extend_from_slice(&self.lease_id.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        for number in [self.max_price.get(), self.predicted_ltv.get(), self.bid_at.0, self.granted_at.0, self.deadline.0] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.p_conversion_ppb.to_be_bytes());
        out.extend_from_slice(&self.horizon_days.to_be_bytes());
        out.extend_from_slice(&self.policy_digest);
        out.extend_from_slice(self.currency.code().as_bytes());
        out.push(u8::from(self.customer.is_some()));
        out.extend_from_slice(&self.customer.map_or([0; 16], |customer| customer.0));
        for id in [&self.client, &self.campaign, &self.exchange, &self.platform, &self.model] {
            pack(&mut out, id.as_ref());
        }
        if let Some(market) = self.market {
            out.extend_from_slice(&market.get().to_be_bytes());
        }
        out
    }
}

impl Receipt {
    /// Whether a notice that comes at `now` is taken.
    ///
    /// # Errors
    /// [`ReceiptError::TooOld`] after the deadline.
    pub fn check_deadline(&self, now: UnixMicros) -> Result<(), ReceiptError> {
        let late = now.since(self.deadline);
        if late.is_zero() { Ok(()) } else { Err(ReceiptError::TooOld { late_seconds: late.as_secs() }) }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut rest = body.get(2..)?;
        let receipt = Self {
            lease_id: u64::from_be_bytes(take(&mut rest)?),
            epoch: u64::from_be_bytes(take(&mut rest)?),
            sequence: u32::from_be_bytes(take(&mut rest)?),
            max_price: Nanos::new(i64::from_be_bytes(take(&mut rest)?)),
            predicted_ltv: Micros::new(i64::from_be_bytes(take(&mut rest)?)),
            bid_at: UnixMicros(i64::from_be_bytes(take(&mut rest)?)),
            granted_at: UnixMicros(i64::from_be_bytes(take(&mut rest)?)),
            deadline: UnixMicros(i64::from_be_bytes(take(&mut rest)?)),
            p_conversion_ppb: u32::from_be_bytes(take(&mut rest)?),
            horizon_days: u16::from_be_bytes(take(&mut rest)?),
            policy_digest: take(&mut rest)?,
            currency: Currency::parse(std::str::from_utf8(&take::<3>(&mut rest)?).ok()?).ok()?,
            customer: match (take::<1>(&mut rest)?, take::<16>(&mut rest)?) {
                ([0], _) => None,
                (_, key) => Some(CustomerKey(key)),
            },
            client: unpack(&mut rest)?,
            campaign: unpack(&mut rest)?,
            exchange: unpack(&mut rest)?,
            platform: unpack(&mut rest)?,
            model: unpack(&mut rest)?,
            market: if rest.is_empty() { None } else { Some(Market::new(u64::from_be_bytes(take(&mut rest)?))?) },
        };
        rest.is_empty().then_some(receipt)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn pack(out: &mut Vec<u8>, id: &str) {
    let digit = |byte: Option<&u8>| byte.map_or(0, |byte| u16::from(DIGITS[usize::from(*byte)]));
    // Ids were checked when they came in; a longer one would be cut here rather than break the layout.
    let id = &id.as_bytes()[..id.len().min(ids::MAX_ID)];
    out.push(id.len() as u8);
    for three in id.chunks(3) {
        const BASE: u16 = ALPHABET.len() as u16;
        let number = digit(three.first()) + BASE * (digit(three.get(1)) + BASE * digit(three.get(2)));
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn unpack(rest: &mut &[u8]) -> Option<String> {
    let [len] = take::<1>(rest)?;
    let mut id = String::with_capacity(usize::from(len) + 2);
    while id.len() < usize::from(len) {
        let mut number = usize::from(u16::from_be_bytes(take(rest)?));
        for _ in 0..3 {
            id.push(char::from(ALPHABET[number % ALPHABET.len()]));
            number /= ALPHABET.len();
        }
    }
    id.truncate(usize::from(len));
    ids::check("receipt", &id).ok()?;
    Some(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> Key {
        hex(byte).parse().unwrap()
    }

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(32)
    }

    fn receipt() -> Receipt {
        Receipt {
            client: "acme".into(),
            campaign: "spring-2026".into(),
            exchange: "ssp_1".into(),
            platform: "tradedesk".into(),
            model: "rfv-1".into(),
            lease_id: u64::MAX,
            epoch: 3,
            sequence: 99,
            max_price: Nanos::new(1_234_567),
            currency: Currency::USD,
            customer: Some(CustomerKey([7; 16])),
            predicted_ltv: Micros::new(-5),
            horizon_days: 90,
            p_conversion_ppb: 2_000_000,
            policy_digest: [9; 16],
            bid_at: UnixMicros(1),
            deadline: UnixMicros(10_000_000),
            granted_at: UnixMicros(-1),
            market: None,
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        let keys = ReceiptKeys::new(&key(1), &[]);
        for customer in [None, Some(CustomerKey([7; 16]))] {
            let receipt = Receipt { customer, ..receipt() };
            for purpose in [Purpose::Notice, Purpose::Click] {
                assert_eq!(keys.open(&keys.seal(&receipt, [purpose])[0], purpose).as_ref(), Ok(&receipt));
            }
        }
    }

    #[test]
    fn the_predicted_value_stands_where_the_layout_says() {
        let keys = ReceiptKeys::new(&key(1), &[]);
        let [text] = keys.seal(&receipt(), [Purpose::Notice]);
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(bytes[30..38], (-5_i64).to_be_bytes());
        assert_eq!(&bytes[84..87], b"USD");
    }

    #[test]
    fn the_longest_fits_its_bound() {
        let long = "z".repeat(ids::MAX_ID);
        let longest = Receipt {
            client: long.clone(),
            campaign: long.clone(),
            exchange: long.clone(),
            platform: long.clone(),
            model: long,
            market: Some(Market::MAX),
            ..receipt()
        };
        let keys = ReceiptKeys::new(&key(1), &[]);
        let [text] = keys.seal(&longest, [Purpose::Click]);
        assert_eq!(text.len(), 459);
        assert_eq!(keys.open(&text, Purpose::Click), Ok(longest));
    }

    #[test]
    fn one_changed_bit_anywhere_is_refused() {
        let keys = ReceiptKeys::new(&key(1), &[]);
        let bytes = URL_SAFE_NO_PAD.decode(&keys.seal(&receipt(), [Purpose::Notice])[0]).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(keys.open(&URL_SAFE_NO_PAD.encode(changed), Purpose::Notice).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(keys.open(&URL_SAFE_NO_PAD.encode(&bytes[..len]), Purpose::Notice).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn takes_what_an_old_key_made_and_nobody_elses() {
        let keys = ReceiptKeys::new(&key(1), &[]);
        let [text] = keys.seal(&receipt(), [Purpose::Notice]);
        assert!(ReceiptKeys::new(&key(2), &[key(1)]).open(&text, Purpose::Notice).is_ok());
        let other = ReceiptKeys::new(&key(2), &[]).open(&text, Purpose::Notice).unwrap_err();
        assert_eq!(other, ReceiptError::UnknownKey(key_id(&key(1))));
        // A forger who knows the key's id, and not the key.
        let keys = ReceiptKeys::new(&key(1), &[]);
        let mut forged = receipt().encode(key_id(&key(1)));
        forged.extend_from_slice(&[0; MAC_BYTES]);
        assert_eq!(keys.open(&URL_SAFE_NO_PAD.encode(forged), Purpose::Notice), Err(ReceiptError::BadMac));
    }

    #[test]
    fn is_taken_for_its_own_purpose_alone_and_cannot_be_turned_into_the_other() {
        let keys = ReceiptKeys::new(&key(1), &[]);
        for (made, other) in [(Purpose::Click, Purpose::Notice), (Purpose::Notice, Purpose::Click)] {
            let [text] = keys.seal(&receipt(), [made]);
            assert_eq!(keys.open(&text, other), Err(ReceiptError::WrongPurpose(other)));
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let at = bytes.len() - MAC_BYTES - 1;
            bytes[at] = other.byte();
            assert_eq!(keys.open(&URL_SAFE_NO_PAD.encode(bytes), other), Err(ReceiptError::BadMac));
        }
    }

    #[test]
    fn is_too_old_after_its_deadline_and_not_at_it() {
        assert_eq!(receipt().check_deadline(UnixMicros(10_000_000)), Ok(()));
        assert_eq!(receipt().check_deadline(UnixMicros(13_000_000)), Err(ReceiptError::TooOld { late_seconds: 3 }));
    }

    proptest! {
        #[test]
        fn packed_ids_come_back(id in "[a-z0-9][a-z0-9._-]{0,62}") {
            let mut packed = Vec::new();
            pack(&mut packed, &id);
            let mut rest = packed.as_slice();
            prop_assert_eq!(unpack(&mut rest), Some(id));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9_-]{0,520}") {
            let _ = ReceiptKeys::new(&key(1), &[]).open(&text, Purpose::Notice);
        }
    }
}
