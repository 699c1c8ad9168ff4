//! A document as a flat list of the values that are read, borrowed from its bytes.
//!
//! One pass over the bytes makes it, in one allocation: no tree, and no copy of a text but of those that were written with
//! escapes. Fields that no table names ([`shape`](super::shape)) are passed over where they stand; they may hold anything that
//! is JSON, or any field of protobuf.
//!
//! Of a name that an object has twice, the last counts. What has to be text or a number is kept as what it is, and refused by
//! whoever reads it, who can say where it stands.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::shape::{Field, Shape};

/// A value; objects and arrays have theirs behind them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Flag(bool),
    Whole(i64),
    /// A fraction, or a whole number beyond 64 bits.
    Double(f64),
    Text(Cow<'a, str>),
    Array,
    Object,
}

/// A value in its place: its name in the object that it stands in, and where the next value beside it stands.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'static str,
    pub(super) value: Value<'a>,
    pub(super) end: usize,
}

/// The values in the order of the document, each object's and array's own right behind it. The first is the document.
#[derive(Debug, Default)]
pub(super) struct Tape<'a> {
    pub(super) entries: Vec<Entry<'a>>,
}

/// Bytes of a document for each value that is read of it, in collected traffic.
const BYTES_A_VALUE: usize = 24;

impl<'a> Tape<'a> {
    /// With room for what a document of so many bytes usually has.
    pub(super) fn for_bytes(bytes: usize) -> Self {
        Self { entries: Vec::with_capacity((bytes / BYTES_A_VALUE).clamp(16, 1_024)) }
    }

    /// Reads JSON.
    pub(super) fn json(text: &'a str, document: &'static Field) -> Result<Self, serde_json::Error> {
        let mut tape = Self::for_bytes(text.len());
        let mut json = serde_json::Deserializer::from_str(text);
        Place { tape: &mut tape, field: document, element: false }.deserialize(&mut json)?;
        json.end()?;
        Ok(tape)
    }

    pub(super) fn push(&mut self, name: &'static str, value: Value<'a>) {
        let end = self.entries.len() + 1;
        self.entries.push(Entry { name, value, end });
    }

    /// Begins an object or an array, which [`Tape::close`] ends.
    pub(super) fn open(&mut self, name: &'static str, value: Value<'a>) -> usize {
        self.push(name, value);
        self.entries.len() - 1
    }

    pub(super) fn close(&mut self, opened: usize) {
        self.entries[opened].end = self.entries.len();
    }
}

/// Where the next value goes.
struct Place<'t, 'a> {
    tape: &'t mut Tape<'a>,
    field: &'static Field,
    /// It is inside the field's array.
    element: bool,
}

impl<'a> Place<'_, 'a> {
    fn put<E>(self, value: Value<'a>) -> Result<(), E> {
        self.tape.push(self.field.name, value);
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Place<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Place<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<(), E> {
        self.put(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.put(Value::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => self.visit_f64(number as f64), // no field is as large; the reader's refusal tells about what it was
        }
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.put(Value::Double(number))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.put(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        let Self { tape, field, element } = self;
        let opened = tape.open(field.name, Value::Array);
        if field.many && !element {
            while array.next_element_seed(Place { tape, field, element: true })?.is_some() {}
        } else {
            while array.next_element::<IgnoredAny>()?.is_some() {}
        }
        tape.close(opened);
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { tape, field, .. } = self;
        let opened = tape.open(field.name, Value::Object);
        while let Some(field) = object.next_key_seed(Name { of: field.shape })? {
            match field {
                Some(field) => object.next_value_seed(Place { tape, field, element: false })?,
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        tape.close(opened);
        Ok(())
    }
}

/// Finds the field of a name, if it is read.
struct Name {
    of: Option<&'static Shape>,
}

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.of.and_then(|shape| shape.fields.iter().find(|field| field.name == name)))
    }
}
