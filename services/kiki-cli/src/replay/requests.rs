//! The bid requests: a JSON document a line, either a bare body or `{"request": body, ...}`.

use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::{Doing as _, Failure};

/// Longest file: 100,000 requests of 10 kB.
const MAX_BYTES: u64 = 1 << 30;
/// Milliseconds that the exchange says it waits.
const TMAX_MS: u32 = 1_000;

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The body of the bid request.
    pub(crate) body: Value,
    /// The file itself says that the request is to be refused: it has an `expected_status`, and none below 400.
    pub(crate) known_bad: bool,
}

/// A file of requests.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    /// In the file's order.
    pub(crate) lines: Vec<Line>,
    /// SHA-256 of the file.
    pub(crate) digest: [u8; 32],
}

impl Requests {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the line that is not JSON.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let size = std::fs::metadata(path).doing(format_args!("reading {name}"))?.len();
        if size > MAX_BYTES {
            return Err(Failure::new(format!("{name} has {size} bytes; at most {MAX_BYTES} are taken")));
        }
        let bytes = std::fs::read(path).doing(format_args!("reading {name}"))?;
        let mut lines = Vec::new();
        for (number, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if !text.iter().all(u8::is_ascii_whitespace) {
                lines.push(Line::parse(text).doing(format_args!("{name}, line {number}"))?);
            }
        }
        if lines.is_empty() {
            return Err(Failure::new(format!("{name} has no request")));
        }
        Ok(Self { lines, digest: Sha256::digest(&bytes).into() })
    }
}

impl Line {
    fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(text)?;
        let known_bad = value.get("expected_status").is_some_and(|status| status.as_i64().is_none_or(|status| status >= 400));
        // A bid request has no member "request" of its own.
        let body = value.get_mut("request").map(Value::take).unwrap_or(value);
        Ok(Self { body, known_bad })
    }

    /// The body as the exchange sends it: under an id of its own, for a customer, with the time it waits.
    ///
    /// A currency other than OpenRTB's own is that of the whole exchange: its requests accept it and state floors in it.
    pub(crate) fn addressed(&self, id: &str, customer: &str, currency: &str) -> Vec<u8> {
        let mut body = self.body.clone();
        if let Value::Object(fields) = &mut body {
            fields.insert("id".to_owned(), json!(id));
            fields.insert("tmax".to_owned(), json!(TMAX_MS));
            let user = fields.entry("user").or_insert(Value::Null);
            if user.is_null() {
                *user = Value::Object(Map::new());
            }
            if let Value::Object(user) = user {
                user.insert("buyeruid".to_owned(), json!(customer));
            }
            if currency != "USD" {
                fields.insert("cur".to_owned(), json!([currency]));
                for imp in fields.get_mut("imp").and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Value::Object(imp) = imp {
                        imp.insert("bidfloorcur".to_owned(), json!(currency));
                    }
                }
            }
        }
        // A document of strings and numbers that was read can be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// The floor of an impression, nanos (= CPM micros), where it states one in `currency`.
    pub(crate) fn floor_nanos(&self, imp: &str, currency: &str) -> i64 {
        let imps = self.body.get("imp").and_then(Value::as_array).into_iter().flatten();
        let floor = |imp: &Value| {
            let stated = imp.get("bidfloorcur").and_then(Value::as_str).unwrap_or("USD");
            let cpm = imp.get("bidfloor").and_then(Value::as_f64)?;
            (stated == currency || currency != "USD").then_some((cpm * 1e6).ceil() as i64)
        };
        let same = |value: &&Value| value.get("id").and_then(Value::as_str) == Some(imp);
        imps.into_iter().find(same).and_then(floor).unwrap_or(0).max(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_is_a_body_or_holds_one() {
        let bare = Line::parse(br#"{"id":"a","imp":[]}"#).unwrap();
        let held = Line::parse(br#"{"expected_status":400,"request":{"id":"a","imp":[]}}"#).unwrap();
        assert_eq!(bare.body, held.body);
        assert_eq!((bare.known_bad, held.known_bad), (false, true));
        assert!(Line::parse(b"{").is_err());
    }

    #[test]
    fn a_body_is_addressed_to_a_customer() {
        let line = Line::parse(br#"{"id":"a","user":null,"imp":[{"id":"1","bidfloor":0.111}]}"#).unwrap();
        let sent: Value = serde_json::from_slice(&line.addressed("0-1", "c", "EUR")).unwrap();
        assert_eq!(
            sent,
            json!({"id":"0-1","tmax":1000,"user":{"buyeruid":"c"},"cur":["EUR"],"imp":[{"id":"1","bidfloor":0.111,"bidfloorcur":"EUR"}]})
        );
        assert_eq!((line.floor_nanos("1", "USD"), line.floor_nanos("2", "USD")), (111_000, 0));
        assert_eq!(Line { body: json!([1]), known_bad: true }.addressed("0-1", "c", "USD"), b"[1]");
    }
}
