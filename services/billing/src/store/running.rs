//! What a client's leaves come to so far, in each currency: a closing says it too, and must say the same.

use std::collections::BTreeMap;

use kiki::leaf;
use kiki::money::NANOS_PER_MICRO;

use super::engine::{Column, Row, Tx, insert_many, sql};
use super::fold::unreadable;
use super::hours::{columns, joined};
use super::{StoreError, corrupt, to_i64};
use crate::domain::record::{Entry, Record};

/// Of one client in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Totals {
    /// `client_seq` of its newest closing; 0 before the first.
    closed_seq: i64,
    settled_nanos: i128,
    settlements: i64,
    conversions: i64,
    outcome_nanos: i128,
    outcomes: i64,
}

/// Those that a fold has touched, by client and currency.
#[derive(Debug, Default)]
pub(super) struct Running(BTreeMap<String, BTreeMap<String, Totals>>);

impl Running {
    /// Takes a record in; gives `client_seq` of the closing behind which it stands.
    pub(super) async fn take(&mut self, tx: &mut Tx<'_>, record: &Record) -> Result<i64, StoreError> {
        let totals = self.of(tx, &record.client, &record.currency).await?;
        match &record.entry {
            Entry::Spend { nanos, impressions, .. } => {
                totals.settled_nanos += i128::from(*nanos);
                totals.settlements += i64::from(*impressions);
            }
            Entry::Acquired { .. } => totals.conversions += 1,
            Entry::Value { micros, .. } => {
                totals.outcome_nanos += i128::from(*micros) * NANOS_PER_MICRO;
                totals.outcomes += 1;
            }
        }
        Ok(totals.closed_seq)
    }

    /// Takes a closing in.
    ///
    /// # Errors
    /// It says something else than the leaves before it.
    pub(super) async fn close(&mut self, tx: &mut Tx<'_>, header: &leaf::Leaf, closed: &leaf::PeriodClosed) -> Result<(), StoreError> {
        let totals = self.of(tx, &header.client, &closed.currency).await?;
        for (field, says, gives) in [
            ("settled_nanos", closed.settled_nanos.as_ref().map_or(0, i128::from), totals.settled_nanos),
            ("settlements", closed.settlements.into(), totals.settlements.into()),
            ("conversions", closed.conversions.into(), totals.conversions.into()),
            ("outcome_micros", closed.outcome_micros.as_ref().map_or(0, i128::from), totals.outcome_nanos / NANOS_PER_MICRO),
            ("outcomes", closed.outcomes.into(), totals.outcomes.into()),
        ] {
            if says != gives {
                return Err(unreadable(header, format!("it closes with {field} of {says} but the leaves before it give {gives}")));
            }
        }
        totals.closed_seq = to_i64("client_seq", header.client_seq)?;
        Ok(())
    }

    async fn of(&mut self, tx: &mut Tx<'_>, client: &str, currency: &str) -> Result<&mut Totals, StoreError> {
        if !self.0.get(client).is_some_and(|of| of.contains_key(currency)) {
            let query =
                sql("SELECT closed_seq, settled_units, settled_nanos, settlements, conversions, outcome_units, outcome_nanos, outcomes
                 FROM running WHERE client = $1 AND currency = $2");
            let row = query.bind(client).bind(currency).row(tx).await?;
            let totals = row.as_ref().map(totals_of).transpose()?.unwrap_or_default();
            self.0.entry(client.to_owned()).or_default().insert(currency.to_owned(), totals);
        }
        let totals = self.0.get_mut(client).and_then(|of| of.get_mut(currency));
        totals.ok_or_else(|| corrupt("running total")("it is gone"))
    }

    /// Keeps them.
    pub(super) async fn keep(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let all = || self.0.iter().flat_map(|(client, of)| of.iter().map(move |(currency, totals)| (client, currency, totals)));
        let integers = |of: fn(&Totals) -> i64| Column::Integers(all().map(|(.., totals)| of(totals)).collect());
        let (settled_units, settled_nanos) = columns(all().map(|(.., totals)| totals.settled_nanos))?;
        let (outcome_units, outcome_nanos) = columns(all().map(|(.., totals)| totals.outcome_nanos))?;
        let columns = [
            ("client", Column::Texts(all().map(|(client, ..)| client.as_str()).collect())),
            ("currency", Column::Texts(all().map(|(_, currency, _)| currency.as_str()).collect())),
            ("closed_seq", integers(|totals| totals.closed_seq)),
            ("settled_units", settled_units),
            ("settled_nanos", settled_nanos),
            ("settlements", integers(|totals| totals.settlements)),
            ("conversions", integers(|totals| totals.conversions)),
            ("outcome_units", outcome_units),
            ("outcome_nanos", outcome_nanos),
            ("outcomes", integers(|totals| totals.outcomes)),
        ];
        let replace = "ON CONFLICT (client, currency) DO UPDATE SET closed_seq = excluded.closed_seq,
            settled_units = excluded.settled_units, settled_nanos = excluded.settled_nanos, settlements = excluded.settlements,
            conversions = excluded.conversions, outcome_units = excluded.outcome_units, outcome_nanos = excluded.outcome_nanos,
            outcomes = excluded.outcomes";
        insert_many(tx, "running", &columns, replace).await
    }
}

fn totals_of(row: &Row) -> Result<Totals, StoreError> {
    Ok(Totals {
        closed_seq: row.get("closed_seq")?,
        settled_nanos: joined(row, "settled_units", "settled_nanos")?,
        settlements: row.get("settlements")?,
        conversions: row.get("conversions")?,
        outcome_nanos: joined(row, "outcome_units", "outcome_nanos")?,
        outcomes: row.get("outcomes")?,
    })
}
