//! `kiki put purchases`: a client's purchases from a CSV file.
//!
//! The columns, in any order among others: `event_id` (unique for the client), `customer` (the client's own id),
//! `currency`, `value` in units of the currency (negative for a refund), `occurred_at` (RFC 3339); and, where there is
//! something, `receipt` (from the click) and `personal`, which reaches the log sealed. A purchase that is reported
//! again changes nothing.

use std::path::Path;

use kiki::clock::UnixMicros;
use kiki::ids::check_customer;
use kiki::money::parse_decimal;
use kiki::pb::syncflow::v1 as pb;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use serde::Deserialize;

use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// Purchases of one request: SyncFlow takes no more at once.
const MAX_BATCH: usize = 1_024;

#[derive(Debug, Deserialize)]
struct Row {
    event_id: String,
    customer: String,
    currency: String,
    value: String,
    occurred_at: String,
    #[serde(default)]
    receipt: String,
    #[serde(default)]
    personal: String,
}

/// Reports the purchases of a file.
///
/// # Errors
/// A row that cannot be read, and then nothing is reported; or what SyncFlow refused.
pub async fn put(addr: &str, client: &str, file: &Path) -> Result<(), Failure> {
    let csv = std::fs::read(file).doing(format_args!("reading {}", file.display()))?;
    let purchases = read(client, &csv).map_err(|problem| Failure::new(format!("{}: {problem}", file.display())))?;
    let mut flow = SyncFlowServiceClient::new(kiki::runtime::channel(addr).doing(addr)?);
    let (mut known, mut acquired) = (0, 0);
    for (batch, before) in purchases.chunks(MAX_BATCH).zip((0..).step_by(MAX_BATCH)) {
        let request = pb::ReportConversionsRequest { conversions: batch.to_vec() };
        let doing = format!("{before} purchases are recorded; reporting the {} behind them", batch.len());
        let answer = flow.report_conversions(request).await.map_err(|status| rpc(doing, &status))?.into_inner();
        known += answer.results.iter().filter(|result| result.duplicate).count();
        acquired += answer.results.iter().filter(|result| !result.duplicate && !result.attributed_campaign.is_empty()).count();
    }
    let rows = [
        ("recorded", (purchases.len() - known).to_string()),
        ("known before", known.to_string()),
        ("acquired a customer", acquired.to_string()),
    ];
    out::say(out::table(&format!("purchases of {client}"), &rows));
    Ok(())
}

fn read(client: &str, csv: &[u8]) -> Result<Vec<pb::ReportedConversion>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(csv);
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    reader
        .records()
        .map(|record| {
            let record = record.map_err(|error| error.to_string())?;
            let line = record.position().map_or(0, csv::Position::line);
            let row: Row = record.deserialize(Some(&header)).map_err(|error| error.to_string())?;
            let wrong = |column: &str, problem: &dyn std::fmt::Display| format!("line {line}, column {column}: {problem}");
            check_customer(&row.customer).map_err(|error| wrong("customer", &error))?;
            let value_micros = parse_decimal(row.value.trim(), 6).map_err(|error| wrong("value", &error))?;
            let occurred_at: jiff::Timestamp = row.occurred_at.trim().parse().map_err(|error: jiff::Error| wrong("occurred_at", &error))?;
            Ok(pb::ReportedConversion {
                client: client.to_owned(),
                event_id: row.event_id,
                customer: row.customer,
                currency: row.currency,
                value_micros,
                occurred_at: Some(UnixMicros(occurred_at.as_microsecond()).into()),
                receipt: row.receipt,
                personal: row.personal.into_bytes().into(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn purchases_are_read_by_their_columns() {
        let csv = b"value,event_id,shop,customer,currency,occurred_at\n-59.90,order-1,x,ada,USD,2026-01-31T12:00:00+01:00\n";
        let expected = pb::ReportedConversion {
            client: "acme".into(),
            event_id: "order-1".into(),
            customer: "ada".into(),
            currency: "USD".into(),
            value_micros: -59_900_000,
            occurred_at: Some(UnixMicros(1_769_857_200_000_000).into()),
            ..Default::default()
        };
        assert_eq!(read("acme", csv).unwrap(), [expected]);
        let example = read("acme", include_bytes!("../../../docs/clients/purchases.csv")).unwrap();
        assert_eq!((example[0].event_id.as_str(), &example[0].personal[..]), ("order-1", &b"ada@shop.example"[..]));
        assert!(example[1].personal.is_empty());
    }

    #[test]
    fn an_error_names_row_and_column() {
        let error = |row: &str| read("acme", format!("event_id,customer,currency,value,occurred_at\n{row}\n").as_bytes()).unwrap_err();
        assert!(error("e,c,USD,5 USD,2026-01-31T12:00:00Z").starts_with("line 2, column value: "));
        assert!(error("e,c,USD,5,yesterday").starts_with("line 2, column occurred_at: "));
        assert!(error(",,USD,5,2026-01-31T12:00:00Z").starts_with("line 2, column customer: "));
        assert!(read("acme", b"event_id,customer,currency,value\ne,c,USD,5\n").unwrap_err().contains("occurred_at"));
    }
}
