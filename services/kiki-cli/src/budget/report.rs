//! A platform's report as a CSV file.
//!
//! Two columns, in any order among others: `bid` is a bid's id (LEASE-SLOT, as it stood in the bid) or a lease's number;
//! `price` is what was charged for that impression, or for all of the lease, in units of the currency with at most nine
//! decimals. A lease is named by its slots or by its total, not by both.

use std::collections::{BTreeMap, BTreeSet};

use kiki::pb::syncshield::v1::{ChargedSlot, LeaseReport};

use crate::error::Failure;

/// Leases that one report may name, and slots in all: SyncShield takes no more at once.
const MAX_LEASES: usize = 1_024;
const MAX_SLOTS: usize = 65_536;

/// Reads a report. `name` is what errors call it.
///
/// # Errors
/// The row and column that cannot be taken.
pub fn read(name: &str, csv: &[u8]) -> Result<Vec<LeaseReport>, Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
    let header = reader.headers().map_err(|error| Failure::new(format!("{name}: {error}")))?.clone();
    let column = |column: &str| {
        let at = header.iter().position(|found| found == column);
        at.ok_or_else(|| Failure::new(format!("{name}: row 1: no column {column:?} among {:?}", header.iter().collect::<Vec<_>>())))
    };
    let (bid, price) = (column("bid")?, column("price")?);
    let mut leases: BTreeMap<u64, LeaseReport> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut slots = 0;
    for (row, record) in (2..).zip(reader.records()) {
        let record = record.map_err(|error| Failure::new(format!("{name}: row {row}: {error}")))?;
        let wrong = |column: &str, problem: &str| {
            let text = record.get(if column == "bid" { bid } else { price }).unwrap_or_default();
            Failure::new(format!("{name}: row {row}, column {column}: {text:?} {problem}"))
        };
        let (id, slot) = parse_bid(record.get(bid).unwrap_or_default()).ok_or_else(|| wrong("bid", "is not LEASE-SLOT or LEASE"))?;
        let nanos = kiki::money::parse_decimal(record.get(price).unwrap_or_default(), 9).ok().filter(|nanos| *nanos >= 0);
        let nanos = nanos.ok_or_else(|| wrong("price", "is not an amount of 0 or more with at most 9 decimals"))?;
        if !seen.insert((id, slot)) {
            return Err(wrong("bid", "was named before"));
        }
        let lease = leases.entry(id).or_insert_with(|| LeaseReport { lease_id: id, ..Default::default() });
        add(lease, slot, nanos).map_err(|problem| wrong("bid", problem))?;
        slots += usize::from(slot.is_some());
        if leases.len() > MAX_LEASES || slots > MAX_SLOTS {
            return Err(wrong("bid", "is one too many: a report names at most 1,024 leases and 65,536 bids; take an earlier --until"));
        }
    }
    Ok(leases.into_values().collect())
}

fn parse_bid(text: &str) -> Option<(u64, Option<u32>)> {
    match text.split_once('-') {
        Some((lease, slot)) => Some((lease.parse().ok()?, Some(slot.parse().ok()?))),
        None => Some((text.parse().ok()?, None)),
    }
}

fn add(lease: &mut LeaseReport, slot: Option<u32>, price_nanos: i64) -> Result<(), &'static str> {
    match slot {
        Some(_) if lease.total_nanos.is_some() => Err("is a bid of a lease that has a total"),
        Some(sequence) => {
            lease.slots.push(ChargedSlot { sequence, price_nanos });
            Ok(())
        }
        None if !lease.slots.is_empty() => Err("is the total of a lease of which bids are named"),
        None => {
            lease.total_nanos = Some(price_nanos);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn bids_and_totals_are_read_in_any_order_of_columns() {
        let leases = read("r.csv", b"price,day,bid\n0.0125, mon ,7-3\n1.5,tue,8\n0,tue,7-4\n").unwrap();
        let slot = |sequence, price_nanos| ChargedSlot { sequence, price_nanos };
        let by_bid = LeaseReport { lease_id: 7, slots: vec![slot(3, 12_500_000), slot(4, 0)], total_nanos: None };
        let total = LeaseReport { lease_id: 8, slots: vec![], total_nanos: Some(1_500_000_000) };
        assert_eq!(leases, [by_bid, total]);
        assert_eq!(read("r.csv", b"bid,price\n").unwrap(), [], "a report of nothing charged");
    }

    #[test]
    fn an_error_names_row_and_column() {
        let said = |csv: &str| read("r.csv", csv.as_bytes()).unwrap_err().to_string();
        assert_eq!(said("bid,cost\n"), "r.csv: row 1: no column \"price\" among [\"bid\", \"cost\"]");
        assert_eq!(said("bid,price\n7-1,1\nseven,1\n"), "r.csv: row 3, column bid: \"seven\" is not LEASE-SLOT or LEASE");
        let price = "r.csv: row 2, column price: \"-1\" is not an amount of 0 or more with at most 9 decimals";
        assert_eq!(said("bid,price\n7-1,-1\n"), price);
        assert_eq!(said("bid,price\n7-1,1\n7-1,1\n"), "r.csv: row 3, column bid: \"7-1\" was named before");
        assert_eq!(said("bid,price\n7-1,1\n7,1\n"), "r.csv: row 3, column bid: \"7\" is the total of a lease of which bids are named");
        assert_eq!(said("bid,price\n7,1\n7-1,1\n"), "r.csv: row 3, column bid: \"7-1\" is a bid of a lease that has a total");
        assert!(said("bid,price\n7-1\n").starts_with("r.csv: row 2: "));
    }

    #[test]
    fn no_more_is_taken_than_syncshield_takes() {
        let rows = |leases: usize| (1..=leases).fold("bid,price\n".to_owned(), |csv, lease| csv + &format!("{lease},1\n"));
        assert_eq!(read("r.csv", rows(1_024).as_bytes()).unwrap().len(), 1_024);
        let said = read("r.csv", rows(1_025).as_bytes()).unwrap_err().to_string();
        assert!(said.starts_with("r.csv: row 1026, column bid: \"1025\" is one too many"), "{said}");
    }
}
