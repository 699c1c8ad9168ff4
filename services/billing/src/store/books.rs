//! A client's books from what the fold summed: the same that [`Books`] gives from all of its records.
//!
//! What a closing covers never changes. So what each adds to the lines of its own period and of earlier ones is worked
//! out once, when its drafts are drawn up, and kept; books as of a closing are the sums of what it and those before it
//! added. Each record is so read once or twice in all, however many months are closed behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use kiki::clock::UnixMicros;
use kiki::money::NANOS_PER_MICRO;

use super::engine::{Column, Row, insert_many, sql};
use super::hours::{Book, columns, joined};
use super::{Store, StoreError, corrupt, to_i64, to_u64};
use crate::domain::accounting::{Part, Period, Slot, Slots};
use crate::domain::books::{Account, Books, Campaigns, Leaves, Sums};
use crate::domain::terms::Basis;

/// Sequences of a client whose customers are looked at in one statement: it gives at most a row for each value in them,
/// and one for each value before that of a customer who is acquired in them.
const CUSTOMERS_STEP: u64 = 65_536;

/// A customer that was acquired twice was acquired by the first. Not as `NOT EXISTS`: PostgreSQL makes an anti-join of that, and reads
/// all of a client for it where a look at the index for each customer does.
macro_rules! acquired_first {
    () => {
        "a.client_seq = (SELECT MIN(e.client_seq) FROM record e WHERE e.client = a.client AND e.currency = a.currency
         AND e.customer = a.customer AND e.kind = 2 AND e.kind <> 1)"
    };
}

/// Of the customer of `a`, what `v` spent since.
macro_rules! spent_since {
    () => {
        "v.client = a.client AND v.currency = a.currency AND v.customer = a.customer AND v.kind = 3 AND v.kind <> 1
         AND v.at_micros >= a.at_micros"
    };
}

/// What a closing adds to lines, by the end of their part.
type Added = BTreeMap<UnixMicros, Campaigns>;

impl Store {
    /// The books as they stand at the closing of the last of `periods`, and as they stood at the closing before. `periods`
    /// are all of a client and currency up to that one, in the log's order.
    ///
    /// # Errors
    /// The engine's, or sums beyond 2^63 units of the currency.
    pub async fn books(&self, client: &str, periods: &[Period]) -> Result<(Books, Books), StoreError> {
        let (mut now, mut before) = (Books::new(periods), Books::new(periods));
        let Some(last) = periods.last() else { return Ok((now, before)) };
        let book = Book { client, currency: &last.closing.currency };
        let booked = self.booked(book).await?;
        for (i, period) in periods.iter().enumerate() {
            if !booked.contains(&period.closing.client_seq) {
                self.book(book, &periods[..=i]).await?;
            }
        }
        for (i, period) in periods.iter().enumerate() {
            if i + 1 == periods.len() {
                before = now.clone();
            }
            self.take_lines(book, period.closing.client_seq, &mut now).await?;
        }
        Ok((now, before))
    }

    /// The closings whose lines are in.
    async fn booked(&self, book: Book<'_>) -> Result<BTreeSet<u64>, StoreError> {
        let query = sql("SELECT client_seq FROM closing WHERE client = $1 AND currency = $2 AND booked = 1");
        let rows = query.bind(book.client).bind(book.currency).rows(&self.pool).await?;
        rows.iter().map(|row| to_u64("client_seq", row.get("client_seq")?)).collect()
    }

    /// Works out what the closing of the last of `periods` adds, and keeps it.
    async fn book(&self, book: Book<'_>, periods: &[Period]) -> Result<(), StoreError> {
        let seqs: Vec<u64> = std::iter::once(0).chain(periods.iter().map(|period| period.closing.client_seq)).collect();
        let between: Vec<Range<u64>> = seqs.windows(2).map(|pair| pair[0]..pair[1]).collect();
        let Some(since) = between.last() else { return Ok(()) };
        self.know_records().await?;
        let slots = Slots::of(periods);
        let mut added = Added::new();
        let late = self.first_hour(book, since.start).await?.unwrap_or(i64::MAX);
        for slot in slots.iter() {
            let of_this = slot.period + 1 == periods.len();
            // All of its own period is new; of earlier ones what stands behind the closing before, from its first hour on.
            let behind = match (of_this, slot.until.0 > late) {
                (true, _) => &between[..],
                (false, true) => std::slice::from_ref(since),
                (false, false) => continue,
            };
            let campaigns = added.entry(slot.until).or_default();
            for behind in behind {
                self.accounted(book, behind, slot.from.0..slot.until.0, campaigns).await?;
            }
            if of_this && since.start > 0 {
                self.spent_before(book, slot, since.start, campaigns).await?;
            }
        }
        self.spent_since(book, since, &slots, &mut added).await?;
        self.keep_lines(book, since.end, &added).await
    }

    /// Adds what was spent by customers of a part, where both stand before an earlier closing.
    async fn spent_before(&self, book: Book<'_>, slot: &Slot, closed_seq: u64, to: &mut Campaigns) -> Result<(), StoreError> {
        let query = sql(concat!(
            "SELECT a.campaign AS campaign, CAST(SUM(v.amount / 1000000) AS BIGINT) AS millions,
             CAST(SUM(v.amount % 1000000) AS BIGINT) AS rest, COUNT(*) AS leaves FROM record a CROSS JOIN record v
             WHERE a.client = $1 AND a.currency = $2 AND a.kind = 2 AND a.at_micros >= $4 AND a.at_micros < $5 AND a.client_seq < $3
             AND v.client_seq < $3 AND v.at_micros < a.at_micros + $6 AND ",
            spent_since!(),
            " AND ",
            acquired_first!(),
            " GROUP BY a.campaign"
        ));
        let query = query.bind(book.client).bind(book.currency).bind(to_i64("closed_seq", closed_seq)?);
        let query = query.bind(slot.from.0).bind(slot.until.0).bind(slot.horizon.as_micros() as i64);
        for row in &query.rows(&self.pool).await? {
            let micros = i128::from(row.get::<i64>("millions")?) * 1_000_000 + i128::from(row.get::<i64>("rest")?);
            let valued = Leaves::counted(to_u64("leaves", row.get("leaves")?)?);
            let sums = Sums { realised_nanos: micros * NANOS_PER_MICRO, valued, ..Sums::default() };
            to.entry(row.get("campaign")?).or_default().merge(&sums);
        }
        Ok(())
    }

    /// Adds what customers spent, where the later one of acquisition and spending stands between two closings.
    async fn spent_since(&self, book: Book<'_>, between: &Range<u64>, slots: &Slots, to: &mut Added) -> Result<(), StoreError> {
        for from in between.clone().step_by(CUSTOMERS_STEP as usize) {
            let until = between.end.min(from + CUSTOMERS_STEP);
            for row in &self.pairs(book, from..until).await? {
                let (since, at) = (UnixMicros(row.get("since")?), UnixMicros(row.get("at")?));
                // Who is acquired in a period that is not closed yet counts with its closing.
                let Some(slot) = slots.at(since).filter(|slot| slot.counts(since, at)) else { continue };
                let realised_nanos = i128::from(row.get::<i64>("amount")?) * NANOS_PER_MICRO;
                let sums = Sums { realised_nanos, valued: Leaves::counted(1), ..Sums::default() };
                to.entry(slot.until).or_default().entry(row.get("campaign")?).or_default().merge(&sums);
            }
        }
        Ok(())
    }

    /// Acquisitions with what the customer spent since, by the `client_seq` of the later one.
    async fn pairs(&self, book: Book<'_>, seqs: Range<u64>) -> Result<Vec<Row>, StoreError> {
        let query = sql(concat!(
            "SELECT a.campaign AS campaign, a.at_micros AS since, v.at_micros AS at, v.amount AS amount
             FROM record v CROSS JOIN record a WHERE v.client = $1 AND v.currency = $2 AND v.client_seq >= $3 AND v.client_seq < $4
             AND a.kind = 2 AND a.kind <> 1 AND a.client_seq < v.client_seq AND ",
            spent_since!(),
            " AND ",
            acquired_first!(),
            " UNION ALL
             SELECT a.campaign AS campaign, a.at_micros AS since, v.at_micros AS at, v.amount AS amount
             FROM record a CROSS JOIN record v WHERE a.client = $1 AND a.currency = $2 AND a.client_seq >= $3 AND a.client_seq < $4
             AND a.kind = 2 AND a.kind <> 1 AND v.client_seq < a.client_seq AND ",
            spent_since!(),
            " AND ",
            acquired_first!()
        ));
        let query = query.bind(book.client).bind(book.currency);
        query.bind(to_i64("client_seq", seqs.start)?).bind(to_i64("client_seq", seqs.end)?).rows(&self.pool).await
    }

    /// Keeps what a closing adds, unless somebody else did meanwhile.
    async fn keep_lines(&self, book: Book<'_>, closed_seq: u64, added: &Added) -> Result<(), StoreError> {
        let closed_seq = to_i64("closed_seq", closed_seq)?;
        let mut tx = self.write().await?;
        let first = sql("UPDATE closing SET booked = 1 WHERE client = $1 AND currency = $2 AND client_seq = $3 AND booked = 0");
        if first.bind(book.client).bind(book.currency).bind(closed_seq).execute(&mut tx).await? == 0 {
            return Ok(());
        }
        let lines: Vec<(i64, &String, &Sums)> =
            added.iter().flat_map(|(until, campaigns)| campaigns.iter().map(|(campaign, sums)| (until.0, campaign, sums))).collect();
        let (spend_units, spend_nanos) = columns(lines.iter().map(|line| line.2.spend_nanos))?;
        let (predicted_units, predicted_nanos) = columns(lines.iter().map(|line| line.2.predicted_nanos))?;
        let (realised_units, realised_nanos) = columns(lines.iter().map(|line| line.2.realised_nanos))?;
        let counts = |of: fn(&Sums) -> u64| lines.iter().map(|line| to_i64("leaves", of(line.2))).collect::<Result<_, _>>();
        let columns = [
            ("client", Column::Texts(vec![book.client; lines.len()])),
            ("currency", Column::Texts(vec![book.currency; lines.len()])),
            ("closed_seq", Column::Integers(vec![closed_seq; lines.len()])),
            ("until_micros", Column::Integers(lines.iter().map(|line| line.0).collect())),
            ("campaign", Column::Texts(lines.iter().map(|line| line.1.as_str()).collect())),
            ("spend_units", spend_units),
            ("spend_nanos", spend_nanos),
            ("predicted_units", predicted_units),
            ("predicted_nanos", predicted_nanos),
            ("realised_units", realised_units),
            ("realised_nanos", realised_nanos),
            ("counted", Column::Integers(counts(|sums| sums.counted.count)?)),
            ("valued", Column::Integers(counts(|sums| sums.valued.count)?)),
        ];
        insert_many(&mut tx, "line", &columns, "").await?;
        tx.commit().await
    }

    /// Adds what a closing added to the books.
    async fn take_lines(&self, book: Book<'_>, closed_seq: u64, books: &mut Books) -> Result<(), StoreError> {
        let rows = sql("SELECT until_micros, campaign, spend_units, spend_nanos, predicted_units, predicted_nanos, realised_units,
             realised_nanos, counted, valued FROM line WHERE client = $1 AND currency = $2 AND closed_seq = $3")
        .bind(book.client)
        .bind(book.currency)
        .bind(to_i64("closed_seq", closed_seq)?)
        .rows(&self.pool)
        .await?;
        for row in &rows {
            let sums = Sums {
                spend_nanos: joined(row, "spend_units", "spend_nanos")?,
                predicted_nanos: joined(row, "predicted_units", "predicted_nanos")?,
                realised_nanos: joined(row, "realised_units", "realised_nanos")?,
                counted: Leaves::counted(to_u64("leaves", row.get("counted")?)?),
                valued: Leaves::counted(to_u64("leaves", row.get("valued")?)?),
            };
            // The last instant of its part.
            let within = UnixMicros(row.get::<i64>("until_micros")? - 1);
            books.add(within, row.get("campaign")?, |line| line.merge(&sums));
        }
        Ok(())
    }

    /// Names the leaves of an account's lines as of a closing, where they are few enough to be listed.
    ///
    /// # Errors
    /// The engine's, or records that are not those that the line was summed from.
    pub async fn name_leaves(&self, client: &str, last_seq: u64, account: &mut Account) -> Result<(), StoreError> {
        for part in &mut account.parts {
            for line in part.lines.iter_mut().filter(|line| line.leaves.count > 0 && line.leaves.are_listed()) {
                let book = Book { client, currency: &part.part.terms.currency };
                let mut leaves = self.counted(book, &part.part, &line.campaign, last_seq).await?;
                if part.basis == Basis::Realised {
                    leaves.extend(self.valued(book, &part.part, &line.campaign, last_seq).await?);
                }
                if leaves.len() as u64 != line.leaves.count {
                    let problem = format!("{} leaves of {} were summed but {} are there", line.leaves.count, line.campaign, leaves.len());
                    return Err(corrupt("line")(problem));
                }
                line.leaves = leaves.into_iter().collect();
            }
        }
        Ok(())
    }

    async fn counted(&self, book: Book<'_>, part: &Part, campaign: &str, last_seq: u64) -> Result<Vec<u64>, StoreError> {
        let query = sql("SELECT leaf FROM record WHERE client = $1 AND currency = $2 AND campaign = $3 AND kind <> 3
             AND at_micros >= $4 AND at_micros < $5 AND client_seq <= $6");
        let query = query.bind(book.client).bind(book.currency).bind(campaign).bind(part.from.0).bind(part.until.0);
        indices(&query.bind(to_i64("client_seq", last_seq)?).rows(&self.pool).await?)
    }

    async fn valued(&self, book: Book<'_>, part: &Part, campaign: &str, last_seq: u64) -> Result<Vec<u64>, StoreError> {
        let query = sql(concat!(
            "SELECT v.leaf AS leaf FROM record a CROSS JOIN record v
             WHERE a.client = $1 AND a.currency = $2 AND a.campaign = $3 AND a.kind <> 3 AND a.kind = 2
             AND a.at_micros >= $4 AND a.at_micros < $5 AND a.client_seq <= $6
             AND v.client_seq <= $6 AND v.at_micros < a.at_micros + $7 AND ",
            spent_since!(),
            " AND ",
            acquired_first!()
        ));
        let query = query.bind(book.client).bind(book.currency).bind(campaign).bind(part.from.0).bind(part.until.0);
        let query = query.bind(to_i64("client_seq", last_seq)?).bind(part.horizon().as_micros() as i64);
        indices(&query.rows(&self.pool).await?)
    }
}

fn indices(rows: &[Row]) -> Result<Vec<u64>, StoreError> {
    rows.iter().map(|row| to_u64("leaf", row.get("leaf")?)).collect()
}
