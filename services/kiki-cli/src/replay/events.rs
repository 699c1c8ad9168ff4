//! The customers' purchases: a CSV of `cust,date,items,spend`, a row a customer and day.
//!
//! Every purchase is taken to happen at 12:00:00 UTC of its day, and its id is `order-<row>`, rows counted from 1
//! without the header. Both are rules that a script can follow.

use std::collections::HashMap;
use std::path::Path;

use jiff::civil::Date;
use kiki::clock::UnixMicros;
use kiki::ids::check_customer;
use kiki::money::parse_decimal;
use sha2::{Digest as _, Sha256};

use crate::error::{Doing as _, Failure};

/// Longest file: 20 million rows of 50 bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// One purchase, or refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purchase {
    /// Its row, from 1.
    pub(crate) row: u64,
    /// Index in [`Events::customers`].
    pub(crate) customer: usize,
    /// 12:00:00 UTC of its day.
    pub(crate) at: UnixMicros,
    /// Units bought.
    pub(crate) items: u32,
    /// What was paid, micros; negative for a refund.
    pub(crate) value_micros: i64,
}

impl Purchase {
    /// Its id, unique in the file, and no personal data.
    pub(crate) fn event_id(&self) -> String {
        format!("order-{}", self.row)
    }
}

/// A file of purchases.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    /// Customers' own ids, in the order of their first row.
    pub(crate) customers: Vec<String>,
    /// Purchases by time, then row.
    pub(crate) purchases: Vec<Purchase>,
    /// SHA-256 of the file.
    pub(crate) digest: [u8; 32],
}

impl Events {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the row and column that cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let size = std::fs::metadata(path).doing(format_args!("reading {name}"))?.len();
        if size > MAX_BYTES {
            return Err(Failure::new(format!("{name} has {size} bytes; at most {MAX_BYTES} are taken")));
        }
        let bytes = std::fs::read(path).doing(format_args!("reading {name}"))?;
        Self::parse(&bytes).map_err(|why| Failure::new(format!("{name}: {why}")))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().map_err(|e| e.to_string())?.clone();
        let column = |name: &str| header.iter().position(|h| h == name).ok_or_else(|| format!("there is no column {name:?}"));
        let columns = [column("cust")?, column("date")?, column("items")?, column("spend")?];
        let mut events = Self { customers: Vec::new(), purchases: Vec::new(), digest: Sha256::digest(bytes).into() };
        let mut index = HashMap::new();
        for (row, record) in (1..).zip(reader.records()) {
            let record = record.map_err(|e| e.to_string())?;
            let [customer, date, items, spend] = columns.map(|at| record.get(at).unwrap_or_default());
            let wrong = |what: &str, why: String| format!("row {row}, {what}: {why}");
            check_customer(customer).map_err(|e| wrong("cust", e.to_string()))?;
            let date: Date = date.parse().map_err(|e: jiff::Error| wrong("date", e.to_string()))?;
            let customer = *index.entry(customer.to_owned()).or_insert_with(|| {
                events.customers.push(customer.to_owned());
                events.customers.len() - 1
            });
            events.purchases.push(Purchase {
                row,
                customer,
                at: noon(date),
                items: items.parse::<f64>().map_err(|e| wrong("items", e.to_string()))?.max(0.0) as u32,
                value_micros: parse_decimal(spend, 6).map_err(|e| wrong("spend", e.to_string()))?,
            });
        }
        if events.purchases.is_empty() {
            return Err("there is no purchase".to_owned());
        }
        events.purchases.sort_by_key(|purchase| (purchase.at, purchase.row));
        Ok(events)
    }

    /// The purchases with `from <= at < to`.
    pub(crate) fn between(&self, from: UnixMicros, to: UnixMicros) -> &[Purchase] {
        let start = self.purchases.partition_point(|p| p.at < from);
        let end = self.purchases.partition_point(|p| p.at < to);
        &self.purchases[start..end.max(start)]
    }
}

/// 12:00:00 UTC of a day.
pub(crate) fn noon(date: Date) -> UnixMicros {
    let days = i64::from((date - Date::constant(1970, 1, 1)).get_days());
    UnixMicros(days * DAY + DAY / 2)
}

/// The first 12:00:00 UTC at or after an instant.
pub(crate) fn noon_at_or_after(at: UnixMicros) -> UnixMicros {
    UnixMicros(at.0 + (DAY / 2 - at.0).rem_euclid(DAY))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_become_purchases_at_noon() {
        let events = Events::parse(b"cust,date,items,spend\n7,1970-01-03,2,1.5\n8,1970-01-02,1,-0.25\n7,1970-01-03,0,3\n").unwrap();
        assert_eq!(events.customers, ["7", "8"]);
        let first = events.purchases[0];
        assert_eq!((first.row, first.customer, first.at, first.value_micros), (2, 1, UnixMicros(DAY * 3 / 2), -250_000));
        assert_eq!(events.purchases.iter().map(Purchase::event_id).collect::<Vec<_>>(), ["order-2", "order-1", "order-3"]);
        assert_eq!(events.between(UnixMicros(DAY * 2), UnixMicros(DAY * 5)).len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let why = |text: &str| Events::parse(text.as_bytes()).unwrap_err();
        assert!(why("cust,date,items\n").contains("\"spend\""));
        assert!(why("cust,date,items,spend\na,2020-01-01,1,1\nb,2020-13-01,1,1\n").starts_with("row 2, date"));
        assert!(why("cust,date,items,spend\na,2020-01-01,1,1e3\n").starts_with("row 1, spend"));
        assert!(why("cust,date,items,spend\n").contains("no purchase"));
    }
}
