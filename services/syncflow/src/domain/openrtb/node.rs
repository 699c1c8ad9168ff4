//! A value that knows where it stands, so that every refusal names its field (`imp[0].banner.w`).
//!
//! Tolerance lives here and nowhere else: `null` and the empty string are "absent", a whole number may
//! come as `600.0`, `"600"` or a boolean. All of it occurs in real traffic. A field of another type is refused.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::tape::{Entry, Tape, Value};
use super::{Malformed, decimal};

/// One step of a path.
#[derive(Clone, Copy)]
enum Step {
    Root,
    Name(&'static str),
    Index(usize),
    /// A document inside a string (native markup): same place, another value.
    Inside,
}

/// A value and the path to it. Paths are chained on the stack and printed only for an error.
#[derive(Clone, Copy)]
pub(super) struct Node<'p, 't> {
    parent: Option<&'p Node<'p, 't>>,
    step: Step,
    tape: &'t Tape<'t>,
    entry: &'t Entry<'t>,
    /// Where what is inside of it begins on the tape.
    inside: usize,
}

impl<'p, 't> Node<'p, 't> {
    /// The document; none where there is nothing at all.
    pub(super) fn root(tape: &'t Tape<'t>) -> Option<Self> {
        Some(Self { parent: None, step: Step::Root, tape, entry: tape.entries.first()?, inside: 1 })
    }

    /// A document that stood inside this text.
    pub(super) fn document(&'p self, tape: &'t Tape<'t>) -> Option<Self> {
        Some(Self { parent: Some(self), step: Step::Inside, ..Self::root(tape)? })
    }

    pub(super) fn text_here(&self) -> Option<&'t str> {
        match &self.entry.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_object(&self) -> bool {
        self.entry.value == Value::Object
    }

    /// Calls `each` with what is inside of this object or array, in order, and where it stands on the tape.
    fn walk(&self, mut each: impl FnMut(usize, &'t Entry<'t>)) {
        let mut at = self.inside;
        while at < self.entry.end {
            let entry = &self.tape.entries[at];
            each(at, entry);
            at = entry.end;
        }
    }

    /// The child of that name, unless it is absent or null. Of two, the last.
    pub(super) fn get<'s>(&'s self, name: &'static str) -> Option<Node<'s, 't>> {
        let mut found = None;
        self.walk(|at, entry| {
            if entry.name == name {
                found = Some((at, entry));
            }
        });
        let (at, entry) = found.filter(|(_, entry)| entry.value != Value::Null)?;
        Some(Node { parent: Some(self), step: Step::Name(name), tape: self.tape, entry, inside: at + 1 })
    }

    pub(super) fn object<'s>(&'s self, name: &'static str) -> Result<Option<Node<'s, 't>>, Malformed> {
        match self.get(name) {
            Some(node) if !node.is_object() => Err(node.wrong_type("an object")),
            other => Ok(other),
        }
    }

    /// An `ext`: where it is not an object (`""` and `1` occur) there is nothing in it for us.
    pub(super) fn ext<'s>(&'s self) -> Option<Node<'s, 't>> {
        self.get("ext").filter(Node::is_object)
    }

    /// The array of that name and how many elements it has, at most `max`.
    fn array<'s>(&'s self, name: &'static str, max: usize) -> Result<Option<(Node<'s, 't>, usize)>, Malformed> {
        let Some(node) = self.get(name) else { return Ok(None) };
        if node.entry.value != Value::Array {
            return Err(node.wrong_type("an array"));
        }
        let mut count = 0;
        node.walk(|_, _| count += 1);
        if count > max {
            return Err(node.refuse(format!("has {count} elements, at most {max} are accepted")));
        }
        Ok(Some((node, count)))
    }

    /// How many elements the array of that name has; 0 if it is absent.
    pub(super) fn len(&self, name: &'static str, max: usize) -> Result<usize, Malformed> {
        Ok(self.array(name, max)?.map_or(0, |(_, count)| count))
    }

    /// Calls `each` with every element of the array of that name.
    pub(super) fn each<T>(
        &self,
        name: &'static str,
        max: usize,
        mut each: impl FnMut(&Node<'_, 't>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let Some((array, count)) = self.array(name, max)? else { return Ok(Vec::new()) };
        let mut found = Vec::with_capacity(count);
        let mut at = array.inside;
        while at < array.entry.end {
            let entry = &self.tape.entries[at];
            let step = Step::Index(found.len());
            found.push(each(&Node { parent: Some(&array), step, tape: self.tape, entry, inside: at + 1 })?);
            at = entry.end;
        }
        Ok(found)
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'t str>, Malformed> {
        let Some(node) = self.get(name) else { return Ok(None) };
        let text = node.text_here().ok_or_else(|| node.wrong_type("a string"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A string that must be there and not be empty, of at most `max` bytes.
    pub(super) fn required_text(&self, name: &'static str, max: usize) -> Result<&'t str, Malformed> {
        let Some(text) = self.text(name)? else {
            return Err(self.refuse_child(name, "is required and must not be empty"));
        };
        if text.len() > max {
            return Err(self.refuse_child(name, format!("has {} bytes, at most {max} are accepted", text.len())));
        }
        Ok(text)
    }

    /// Strings, bounded by the body's size.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<&'t str>, Malformed> {
        self.each(name, usize::MAX, |node| node.text_here().ok_or_else(|| node.wrong_type("a string")))
    }

    /// This value as a whole number.
    pub(super) fn as_int(&self) -> Result<Option<i64>, Malformed> {
        let wrong = || self.wrong_type("a whole number");
        match &self.entry.value {
            Value::Null => Ok(None),
            Value::Flag(flag) => Ok(Some(i64::from(*flag))),
            Value::Text(text) if text.is_empty() => Ok(None),
            Value::Text(text) => text.parse().map(Some).map_err(|_| wrong()),
            Value::Whole(whole) => Ok(Some(*whole)),
            Value::Double(number) => decimal::whole(&number.to_string()).map(Some).ok_or_else(wrong),
            Value::Array | Value::Object => Err(wrong()),
        }
    }

    pub(super) fn int(&self, name: &'static str) -> Result<Option<i64>, Malformed> {
        self.get(name).map_or(Ok(None), |node| node.as_int())
    }

    /// A whole number of 0..=`u32::MAX`.
    pub(super) fn count(&self, name: &'static str) -> Result<Option<u32>, Malformed> {
        let Some(number) = self.int(name)? else { return Ok(None) };
        u32::try_from(number).map(Some).map_err(|_| self.refuse_child(name, format!("must be from 0 to {}, got {number}", u32::MAX)))
    }

    /// A 0 or a 1.
    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Malformed> {
        match self.int(name)? {
            None => Ok(None),
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            Some(other) => Err(self.refuse_child(name, format!("must be 0 or 1, got {other}"))),
        }
    }

    /// A CPM in millionths, rounded up: a bid at what it says is never below what was written.
    pub(super) fn cpm_micros(&self, name: &'static str) -> Result<i64, Malformed> {
        let Some(node) = self.get(name) else { return Ok(0) };
        let text = match &node.entry.value {
            Value::Whole(number) => Cow::Owned(number.to_string()),
            // The shortest decimal that means this double, which is what was written.
            Value::Double(number) => Cow::Owned(number.to_string()),
            Value::Text(text) if text.is_empty() => return Ok(0),
            Value::Text(text) => Cow::Borrowed(&**text),
            _ => return Err(node.wrong_type("a number")),
        };
        match decimal::micros_rounded_up(&text) {
            Some(micros) if micros >= 0 => Ok(micros),
            Some(_) => Err(node.refuse(format!("must not be negative, got {text}"))),
            None => Err(node.refuse(format!("must be a number below 9,223,372,036,854, got {text}"))),
        }
    }

    pub(super) fn refuse(&self, message: impl Into<String>) -> Malformed {
        let mut field = String::new();
        self.write_path(&mut field);
        Malformed { field, message: message.into() }
    }

    pub(super) fn refuse_child(&self, name: &'static str, message: impl Into<String>) -> Malformed {
        Node { parent: Some(self), step: Step::Name(name), ..*self }.refuse(message)
    }

    fn wrong_type(&self, wanted: &str) -> Malformed {
        let found = match self.entry.value {
            Value::Null => "null",
            Value::Flag(_) => "a boolean",
            Value::Whole(_) | Value::Double(_) => "a number",
            Value::Text(_) => "a string",
            Value::Array => "an array",
            Value::Object => "an object",
        };
        self.refuse(format!("must be {wanted}, got {found}"))
    }

    fn write_path(&self, path: &mut String) {
        if let Some(parent) = self.parent {
            parent.write_path(path);
        }
        match self.step {
            Step::Root | Step::Inside => {}
            Step::Index(index) => {
                let _ = write!(path, "[{index}]"); // writing to a String cannot fail
            }
            Step::Name(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
        }
    }
}
