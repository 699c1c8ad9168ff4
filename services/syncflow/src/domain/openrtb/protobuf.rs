//! A document in protobuf as a [`Tape`], by the numbers of the same table that JSON is read by.
//!
//! As every reader of protobuf does: unknown fields are passed over, an object that comes in several parts is all of them
//! together, and elements of a list need not stand side by side. A field of another wire type than its own is an error.

use std::borrow::Cow;
use std::ops::Range;

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::shape::{Field, Kind, Shape};
use super::tape::{Tape, Value};

/// A field as it was found: which one of its shape, and its bytes or number.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    field: &'static Field,
    raw: Raw<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
}

/// Reads a message.
///
/// # Errors
/// Says what of its bytes is not protobuf, or not the field that its number says.
pub(super) fn tape<'a>(bytes: &'a [u8], document: &'static Field) -> Result<Tape<'a>, String> {
    let mut reader = Reader { tape: Tape::for_bytes(bytes.len() * 2), found: Vec::with_capacity(64) };
    reader.found.push(Found { field: document, raw: Raw::Bytes(bytes) });
    reader.object(0..1)?;
    Ok(reader.tape)
}

struct Reader<'a> {
    tape: Tape<'a>,
    /// What was found of the objects that are being read, an outer one's before an inner one's.
    found: Vec<Found<'a>>,
}

impl<'a> Reader<'a> {
    /// An object of one or more parts. Deep only as the tables are.
    fn object(&mut self, parts: Range<usize>) -> Result<(), String> {
        let opened = self.tape.open(self.found[parts.start].field.name, Value::Object);
        let first = self.found.len();
        for part in parts {
            let Found { field, raw } = self.found[part];
            if let (Raw::Bytes(bytes), Some(shape)) = (raw, field.shape) {
                self.scan(bytes, shape)?;
            }
        }
        // Fields of one number side by side, in their order; most writers have them so.
        self.found[first..].sort_by_key(|found| found.field.number);
        let last = self.found.len();
        let mut at = first;
        while at < last {
            let number = self.found[at].field.number;
            let same = self.found[at..last].iter().take_while(|found| found.field.number == number).count();
            self.field(at..at + same)?;
            at += same;
        }
        self.found.truncate(first);
        self.tape.close(opened);
        Ok(())
    }

    /// Finds a part's fields.
    fn scan(&mut self, mut bytes: &'a [u8], shape: &'static Shape) -> Result<(), String> {
        let text = |error: DecodeError| error.to_string();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).map_err(text)?;
            let Some(field) = shape.fields.iter().find(|field| field.number == number) else {
                skip_field(wire, number, &mut bytes, DecodeContext::default()).map_err(text)?;
                continue;
            };
            let raw = match wire {
                WireType::Varint => Raw::Number(decode_varint(&mut bytes).map_err(text)?),
                WireType::SixtyFourBit => {
                    let (number, rest) = bytes.split_first_chunk().ok_or_else(|| format!("{} is cut off", field.name))?;
                    bytes = rest;
                    Raw::Number(u64::from_le_bytes(*number))
                }
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).map_err(text)?;
                    let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len());
                    let (inside, rest) = bytes.split_at(length.ok_or_else(|| format!("{} is cut off", field.name))?);
                    bytes = rest;
                    if field.kind == Kind::Text {
                        Raw::Text(std::str::from_utf8(inside).map_err(|error| format!("{}: {error}", field.name))?)
                    } else {
                        Raw::Bytes(inside)
                    }
                }
                other => return Err(format!("{} has the wire type {other:?}", field.name)),
            };
            if !fits(field, wire) {
                return Err(format!("{} has the wire type {wire:?}", field.name));
            }
            self.found.push(Found { field, raw });
        }
        Ok(())
    }

    /// All that was found of one field.
    fn field(&mut self, found: Range<usize>) -> Result<(), String> {
        let field = self.found[found.start].field;
        match (field.many, field.kind) {
            (true, _) => self.array(field, found),
            (false, Kind::Object) => self.object(found),
            (false, _) => {
                self.scalar(self.found[found.end - 1]); // the last counts
                Ok(())
            }
        }
    }

    fn array(&mut self, field: &'static Field, found: Range<usize>) -> Result<(), String> {
        let opened = self.tape.open(field.name, Value::Array);
        for at in found {
            match (field.kind, self.found[at].raw) {
                (Kind::Object, _) => self.object(at..at + 1)?,
                (Kind::Whole, Raw::Bytes(packed)) => self.packed(field, packed)?,
                _ => self.scalar(self.found[at]),
            }
        }
        self.tape.close(opened);
        Ok(())
    }

    fn packed(&mut self, field: &'static Field, mut packed: &'a [u8]) -> Result<(), String> {
        while !packed.is_empty() {
            let number = decode_varint(&mut packed).map_err(|error| format!("{}: {error}", field.name))?;
            self.scalar(Found { field, raw: Raw::Number(number) });
        }
        Ok(())
    }

    fn scalar(&mut self, Found { field, raw }: Found<'a>) {
        let value = match raw {
            Raw::Text(text) => Value::Text(Cow::Borrowed(text)),
            Raw::Number(bits) if field.kind == Kind::Double => Value::Double(f64::from_bits(bits)),
            Raw::Number(number) if field.kind == Kind::Flag => Value::Flag(number != 0),
            Raw::Number(number) => Value::Whole(i64::from(number as i32)), // an int32 is the low half of its varint
            Raw::Bytes(_) => return,                                       // an object or numbers, which do not come here
        };
        self.tape.push(field.name, value);
    }
}

/// Whether a field may come in that wire type; lists of numbers may come packed.
fn fits(field: &Field, wire: WireType) -> bool {
    match field.kind {
        Kind::Text | Kind::Object => wire == WireType::LengthDelimited,
        Kind::Double => wire == WireType::SixtyFourBit,
        Kind::Flag => wire == WireType::Varint,
        Kind::Whole => wire == WireType::Varint || (field.many && wire == WireType::LengthDelimited),
    }
}
