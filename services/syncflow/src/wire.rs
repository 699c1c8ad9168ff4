//! Protobuf, written from what is borrowed: what each bid leaves would otherwise be copied into a message, text by text, to be
//! copied once more from there. Who writes gives the fields in the order of their numbers, as prost does.

use kiki::clock::UnixMicros;
use prost_types::Timestamp;

/// Kinds of a field.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
/// Bytes that are kept free for a message's length.
const GUESS: usize = 2;

/// The fields of one message, written behind what is in the buffer.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a mut Vec<u8>);

impl Fields<'_> {
    /// A field of the kind varint; 0 is left out.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint((field << 3 | VARINT).into());
            self.varint(value);
        }
    }

    /// An int32 or int64.
    pub(crate) fn signed(&mut self, field: u32, value: impl Into<i64>) {
        self.number(field, value.into().cast_unsigned());
    }

    /// A fixed64; 0 is left out.
    pub(crate) fn fixed(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint((field << 3 | FIXED64).into());
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A string; an empty one is left out.
    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// Bytes; none are left out.
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.entry(field, bytes);
        }
    }

    /// An entry of a list of strings, bytes or encoded messages: it is there even where it is empty.
    pub(crate) fn entry(&mut self, field: u32, bytes: &[u8]) {
        self.varint((field << 3 | BYTES).into());
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A string in parts, of which some come again: `part` is each in turn.
    pub(crate) fn parts<'p>(&mut self, field: u32, parts: impl Iterator<Item = &'p str> + Clone) {
        self.varint((field << 3 | BYTES).into());
        self.varint(parts.clone().map(str::len).sum::<usize>() as u64);
        parts.for_each(|part| self.0.extend_from_slice(part.as_bytes()));
    }

    /// A message of what `write` writes.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Fields<'_>)) {
        self.varint((field << 3 | BYTES).into());
        // The length stands before what it is the length of. Most messages of some size have one of two bytes.
        let at = self.0.len();
        self.0.extend_from_slice(&[0; GUESS]);
        write(&mut Fields(self.0));
        let (mut length, mut rest) = ([0; 10], self.0.len() - at - GUESS);
        let mut bytes = 0;
        loop {
            length[bytes] = (rest & 0x7F) as u8 | if rest >= 0x80 { 0x80 } else { 0 };
            rest >>= 7;
            bytes += 1;
            if rest == 0 {
                break;
            }
        }
        if bytes != GUESS {
            let end = self.0.len();
            self.0.resize(end.max(end + bytes - GUESS), 0);
            self.0.copy_within(at + GUESS..end, at + bytes);
            self.0.truncate(end + bytes - GUESS);
        }
        self.0[at..at + bytes].copy_from_slice(&length[..bytes]);
    }

    /// The fields of a `google.protobuf.Timestamp`.
    pub(crate) fn timestamp(&mut self, at: UnixMicros) {
        let Timestamp { seconds, nanos } = at.into();
        self.signed(1, seconds);
        self.signed(2, nanos);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiki::leaf;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn writes_what_prost_writes(price: i64, lease_id: u64, model: String, places: Vec<String>, market: u64, customer: Vec<u8>, long in 0_usize..40_000) {
            let decision = leaf::Decision { price_nanos: price, lease_id, model, places, customer: customer.into(), shading_market: market, ..Default::default() };
            let batch = leaf::DecisionBatch { campaign: "c".repeat(long), decisions: vec![decision.clone()], ..Default::default() };
            let mut out = Vec::new();
            Fields(&mut out).message(1, |batch| {
                batch.text(1, &"c".repeat(long));
                batch.message(4, |to| {
                    to.bytes(5, &decision.customer);
                    to.signed(6, decision.price_nanos);
                    to.text(9, &decision.model);
                    to.number(12, decision.lease_id);
                    decision.places.iter().for_each(|place| to.entry(18, place.as_bytes()));
                    to.fixed(24, decision.shading_market);
                });
            });
            let mut expected = Vec::new();
            prost::encoding::message::encode(1, &batch, &mut expected);
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn an_empty_message_is_there() {
        let mut out = Vec::new();
        Fields(&mut out).message(1, |_| {});
        assert_eq!(out, [10, 0]);
    }
}
