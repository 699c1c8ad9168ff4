//! Spend and acquisitions by campaign and hour: what a drafting reads instead of a month's records.
//!
//! Hours of UTC, because most bounds of periods fall between two of them; of an hour that one cuts the records
//! themselves are read. Records that stand behind a closing in the log are summed apart from those before it, so that
//! what a closing covers can be told for ever.

use std::collections::BTreeMap;
use std::ops::Range;

use kiki::money::NANOS_PER_MICRO;

use super::engine::{Column, Row, Tx, insert_many, sql};
use super::{Store, StoreError, corrupt, to_i64, to_u64};
use crate::domain::books::{Campaigns, Leaves, Sums};
use crate::domain::record::{Entry, Record};

/// Microseconds.
const HOUR: i64 = 3_600_000_000;

/// Nanos in a unit of a currency.
const UNIT: i128 = 1_000_000_000;

/// A client's books in one currency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Book<'a> {
    pub(super) client: &'a str,
    pub(super) currency: &'a str,
}

/// An amount in the two columns that hold it.
pub(super) fn split(nanos: i128) -> Result<(i64, i64), StoreError> {
    let units = i64::try_from(nanos.div_euclid(UNIT)).map_err(corrupt("amount"))?;
    Ok((units, nanos.rem_euclid(UNIT) as i64))
}

/// The amount that two columns of a row hold.
pub(super) fn joined(row: &Row, units: &str, nanos: &str) -> Result<i128, StoreError> {
    Ok(i128::from(row.get::<i64>(units)?) * UNIT + i128::from(row.get::<i64>(nanos)?))
}

/// The two columns of many amounts.
pub(super) fn columns<'c>(amounts: impl Iterator<Item = i128>) -> Result<(Column<'c>, Column<'c>), StoreError> {
    let (units, nanos) = amounts.map(split).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok((Column::Integers(units), Column::Integers(nanos)))
}

/// A row's key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hour<'a> {
    client: &'a str,
    currency: &'a str,
    closed_seq: i64,
    at: i64,
    campaign: &'a str,
}

/// What a fold adds to a row.
#[derive(Debug, Default)]
struct HourSums {
    spend_nanos: i128,
    predicted_nanos: i128,
    leaves: i64,
}

/// Adds records, each behind its closing, to the sums of their hours.
pub(super) async fn add(tx: &mut Tx<'_>, records: &[(i64, Record)]) -> Result<(), StoreError> {
    let mut hours: BTreeMap<Hour<'_>, HourSums> = BTreeMap::new();
    for (closed_seq, record) in records {
        let (campaign, spend_nanos, predicted_nanos) = match &record.entry {
            Entry::Spend { campaign, nanos, .. } => (campaign, i128::from(*nanos), 0),
            Entry::Acquired { campaign, predicted_micros, .. } => (campaign, 0, i128::from(*predicted_micros) * NANOS_PER_MICRO),
            Entry::Value { .. } => continue,
        };
        let (client, currency) = (&record.client, &record.currency);
        let hour = Hour { client, currency, closed_seq: *closed_seq, at: floor(record.at.0), campaign };
        let sums = hours.entry(hour).or_default();
        sums.spend_nanos += spend_nanos;
        sums.predicted_nanos += predicted_nanos;
        sums.leaves += 1;
    }
    let (spend_units, spend_nanos) = columns(hours.values().map(|sums| sums.spend_nanos))?;
    let (predicted_units, predicted_nanos) = columns(hours.values().map(|sums| sums.predicted_nanos))?;
    let columns = [
        ("client", Column::Texts(hours.keys().map(|hour| hour.client).collect())),
        ("currency", Column::Texts(hours.keys().map(|hour| hour.currency).collect())),
        ("closed_seq", Column::Integers(hours.keys().map(|hour| hour.closed_seq).collect())),
        ("at_hour", Column::Integers(hours.keys().map(|hour| hour.at).collect())),
        ("campaign", Column::Texts(hours.keys().map(|hour| hour.campaign).collect())),
        ("spend_units", spend_units),
        ("spend_nanos", spend_nanos),
        ("predicted_units", predicted_units),
        ("predicted_nanos", predicted_nanos),
        ("leaves", Column::Integers(hours.values().map(|sums| sums.leaves).collect())),
    ];
    let add = "ON CONFLICT (client, currency, closed_seq, at_hour, campaign) DO UPDATE SET
        spend_units = hour.spend_units + excluded.spend_units, spend_nanos = hour.spend_nanos + excluded.spend_nanos,
        predicted_units = hour.predicted_units + excluded.predicted_units,
        predicted_nanos = hour.predicted_nanos + excluded.predicted_nanos, leaves = hour.leaves + excluded.leaves";
    insert_many(tx, "hour", &columns, add).await
}

/// Beginning of an instant's hour.
fn floor(at: i64) -> i64 {
    at - at.rem_euclid(HOUR)
}

/// Beginning of the first hour that is not before an instant; the beginning of time is one.
fn ceil(at: i64) -> i64 {
    if at == i64::MIN { at } else { floor(at + HOUR - 1) }
}

impl Store {
    /// Adds what was accounted in `[from, until)` by records between two closings, whose `client_seq` stand in `behind`: the
    /// earlier one's up to the later one's.
    pub(super) async fn accounted(
        &self,
        book: Book<'_>,
        behind: &Range<u64>,
        at: Range<i64>,
        to: &mut Campaigns,
    ) -> Result<(), StoreError> {
        let (start, end) = (ceil(at.start), floor(at.end));
        if start > end {
            return self.of_hour(book, behind, at, to).await;
        }
        self.of_hour(book, behind, at.start..start, to).await?;
        self.of_hours(book, behind, &(start..end), to).await?;
        self.of_hour(book, behind, end..at.end, to).await
    }

    /// When the first hour begins in which records behind a closing were accounted.
    pub(super) async fn first_hour(&self, book: Book<'_>, closed_seq: u64) -> Result<Option<i64>, StoreError> {
        let query = sql("SELECT MIN(at_hour) AS at_hour FROM hour WHERE client = $1 AND currency = $2 AND closed_seq = $3");
        let query = query.bind(book.client).bind(book.currency).bind(to_i64("closed_seq", closed_seq)?);
        query.row(&self.pool).await?.map_or(Ok(None), |row| row.get("at_hour"))
    }

    async fn of_hours(&self, book: Book<'_>, behind: &Range<u64>, at: &Range<i64>, to: &mut Campaigns) -> Result<(), StoreError> {
        let rows = sql("SELECT campaign, CAST(SUM(spend_units) AS BIGINT) AS spend_units, CAST(SUM(spend_nanos) AS BIGINT) AS spend_nanos,
             CAST(SUM(predicted_units) AS BIGINT) AS predicted_units, CAST(SUM(predicted_nanos) AS BIGINT) AS predicted_nanos,
             CAST(SUM(leaves) AS BIGINT) AS leaves FROM hour
             WHERE client = $1 AND currency = $2 AND closed_seq = $3 AND at_hour >= $4 AND at_hour < $5 GROUP BY campaign")
        .bind(book.client)
        .bind(book.currency)
        .bind(to_i64("closed_seq", behind.start)?)
        .bind(at.start)
        .bind(at.end)
        .rows(&self.pool)
        .await?;
        for row in &rows {
            let sums = Sums {
                spend_nanos: joined(row, "spend_units", "spend_nanos")?,
                predicted_nanos: joined(row, "predicted_units", "predicted_nanos")?,
                counted: Leaves::counted(to_u64("leaves", row.get("leaves")?)?),
                ..Sums::default()
            };
            to.entry(row.get("campaign")?).or_default().merge(&sums);
        }
        Ok(())
    }

    /// Of a part of one hour, from its records.
    async fn of_hour(&self, book: Book<'_>, behind: &Range<u64>, at: Range<i64>, to: &mut Campaigns) -> Result<(), StoreError> {
        if at.is_empty() {
            return Ok(());
        }
        let rows = sql("SELECT campaign, kind, CAST(SUM(amount / 1000000) AS BIGINT) AS millions,
             CAST(SUM(amount % 1000000) AS BIGINT) AS rest, COUNT(*) AS leaves FROM record
             WHERE client = $1 AND currency = $2 AND kind <> 3 AND at_micros >= $5 AND at_micros < $6
             AND client_seq > $3 AND client_seq < $7 AND campaign IN
             (SELECT campaign FROM hour WHERE client = $1 AND currency = $2 AND closed_seq = $3 AND at_hour = $4)
             GROUP BY campaign, kind")
        .bind(book.client)
        .bind(book.currency)
        .bind(to_i64("closed_seq", behind.start)?)
        .bind(floor(at.start))
        .bind(at.start)
        .bind(at.end)
        .bind(to_i64("closed_seq", behind.end)?)
        .rows(&self.pool)
        .await?;
        for row in &rows {
            let amount = i128::from(row.get::<i64>("millions")?) * 1_000_000 + i128::from(row.get::<i64>("rest")?);
            let counted = Leaves::counted(to_u64("leaves", row.get("leaves")?)?);
            let sums = match row.get::<i64>("kind")? {
                1 => Sums { spend_nanos: amount, counted, ..Sums::default() },
                _ => Sums { predicted_nanos: amount * NANOS_PER_MICRO, counted, ..Sums::default() },
            };
            to.entry(row.get("campaign")?).or_default().merge(&sums);
        }
        Ok(())
    }
}
