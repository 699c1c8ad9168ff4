//! A JSON value that knows where it stands, so that every refusal names its field (`imp[0].banner.w`).
//!
//! Tolerance lives here and nowhere else: `null` and the empty string are "absent", a whole number may
//! come as `600.0`, `"600"` or a boolean. All of it occurs in real traffic. A field of another type is refused.

use std::fmt::Write as _;

use serde_json::Value;

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
pub(super) struct Node<'p, 'v> {
    parent: Option<&'p Node<'p, 'v>>,
    step: Step,
    value: &'v Value,
}

impl<'p, 'v> Node<'p, 'v> {
    pub(super) fn root(value: &'v Value) -> Self {
        Self { parent: None, step: Step::Root, value }
    }

    pub(super) fn inside(&'p self, value: &'v Value) -> Self {
        Self { parent: Some(self), step: Step::Inside, value }
    }

    pub(super) fn value(&self) -> &'v Value {
        self.value
    }

    /// The child of that name, unless it is absent or null.
    pub(super) fn get<'s>(&'s self, name: &'static str) -> Option<Node<'s, 'v>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Node { parent: Some(self), step: Step::Name(name), value })
    }

    pub(super) fn object<'s>(&'s self, name: &'static str) -> Result<Option<Node<'s, 'v>>, Malformed> {
        match self.get(name) {
            Some(node) if !node.value.is_object() => Err(node.wrong_type("an object")),
            other => Ok(other),
        }
    }

    /// An `ext`: where it is not an object (`""` and `1` occur) there is nothing in it for us.
    pub(super) fn ext<'s>(&'s self) -> Option<Node<'s, 'v>> {
        self.get("ext").filter(|ext| ext.value.is_object())
    }

    /// How many elements the array of that name has; 0 if it is absent.
    pub(super) fn len(&self, name: &'static str, max: usize) -> Result<usize, Malformed> {
        let Some(node) = self.get(name) else { return Ok(0) };
        match node.value.as_array() {
            None => Err(node.wrong_type("an array")),
            Some(list) if list.len() > max => Err(node.refuse(format!("has {} elements, at most {max} are accepted", list.len()))),
            Some(list) => Ok(list.len()),
        }
    }

    /// Calls `each` with every element of the array of that name.
    pub(super) fn each<T>(
        &self,
        name: &'static str,
        max: usize,
        mut each: impl FnMut(&Node<'_, 'v>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        if self.len(name, max)? == 0 {
            return Ok(Vec::new());
        }
        let Some(list) = self.get(name) else { return Ok(Vec::new()) };
        let elements = list.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let at = |(index, value)| Node { parent: Some(&list), step: Step::Index(index), value };
        elements.iter().enumerate().map(at).map(|node| each(&node)).collect()
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'v str>, Malformed> {
        let Some(node) = self.get(name) else { return Ok(None) };
        let text = node.value.as_str().ok_or_else(|| node.wrong_type("a string"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A string that must be there and not be empty, of at most `max` bytes.
    pub(super) fn required_text(&self, name: &'static str, max: usize) -> Result<String, Malformed> {
        let Some(text) = self.text(name)? else {
            return Err(self.refuse_child(name, "is required and must not be empty"));
        };
        if text.len() > max {
            return Err(self.refuse_child(name, format!("has {} bytes, at most {max} are accepted", text.len())));
        }
        Ok(text.to_owned())
    }

    /// Strings, bounded by the body's size.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, Malformed> {
        self.each(name, usize::MAX, |node| node.value.as_str().map(str::to_owned).ok_or_else(|| node.wrong_type("a string")))
    }

    /// This value as a whole number.
    pub(super) fn as_int(&self) -> Result<Option<i64>, Malformed> {
        let wrong = || self.wrong_type("a whole number");
        match self.value {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(i64::from(*flag))),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => text.parse().map(Some).map_err(|_| wrong()),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Ok(Some(whole)),
                None => decimal::whole(&number.to_string()).map(Some).ok_or_else(wrong),
            },
            _ => Err(wrong()),
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
        let text = match node.value {
            Value::Number(number) => number.to_string(),
            Value::String(text) if text.is_empty() => return Ok(0),
            Value::String(text) => text.clone(),
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
        Node { parent: Some(self), step: Step::Name(name), value: self.value }.refuse(message)
    }

    fn wrong_type(&self, wanted: &str) -> Malformed {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
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
