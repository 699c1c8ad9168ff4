//! A platform's report of spend as a CSV file.
//!
//! Four columns, in any order among others: `date` is a day of the ad account's zone (2026-01-31), `campaign` the campaign's id here,
//! `currency` its ISO 4217 code, `spend` what was charged, in units of the currency with at most nine decimals: below 0 for a
//! credit. `impressions`, where there is such a column, is how many; it may be empty. Rows of one date, campaign and currency (a
//! report by creative, say) add up.

use billing::domain::amount::{Amount, minor_places};
use billing::domain::period::Month;
use billing::domain::reconcile::compare::ROWS_MAX;
use billing::domain::reconcile::slots::Day;
use kiki::pb::billing::v1::SpendRow;

use crate::error::{Doing as _, Failure};

/// Decimals of an amount: nanos of the currency.
const PLACES_MAX: u32 = 9;

/// A row of the report.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Its place in the file; the header is 1.
    pub(super) number: usize,
    pub(super) day: Day,
    pub(super) spend: SpendRow,
}

/// The first and last day of a month.
///
/// # Errors
/// None that a month that was read can have.
pub(super) fn days_of(month: Month) -> Result<(Day, Day), Failure> {
    let last = (28..=31).rev().find_map(|day| format!("{month}-{day}").parse().ok());
    let last = last.ok_or_else(|| Failure::new(format!("{month} has no last day")))?;
    Ok((format!("{month}-01").parse().doing(month)?, last))
}

/// Reads a report. `name` is what errors call it.
///
/// # Errors
/// The row and column that cannot be taken.
pub(super) fn read(name: &str, csv: &[u8]) -> Result<Vec<Row>, Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
    let header = reader.headers().map_err(|error| Failure::new(format!("{name}: {error}")))?.clone();
    let find = |column: &str| header.iter().position(|found| found == column);
    let needed = |column: &str| {
        let found = || header.iter().collect::<Vec<_>>();
        find(column).ok_or_else(|| Failure::new(format!("{name}: row 1: no column {column:?} among {:?}", found())))
    };
    let [date, campaign, currency, spend] = [needed("date")?, needed("campaign")?, needed("currency")?, needed("spend")?];
    let impressions = find("impressions");
    let mut rows = Vec::new();
    for (number, record) in (2..).zip(reader.records()) {
        let record = record.map_err(|error| Failure::new(format!("{name}: row {number}: {error}")))?;
        let text = |at: usize| record.get(at).unwrap_or_default();
        let wrong = |at: usize, problem: &str| {
            Failure::new(format!("{name}: row {number}, column {}: {:?} {problem}", header.get(at).unwrap_or_default(), text(at)))
        };
        if rows.len() >= ROWS_MAX {
            return Err(wrong(date, &format!("is one too many: {ROWS_MAX} rows are taken; sum them up, or take fewer days")));
        }
        let day: Day = text(date).parse().map_err(|_| wrong(date, "is not a day such as 2026-01-31"))?;
        kiki::ids::check("campaign", text(campaign)).map_err(|_| wrong(campaign, "is not a campaign's id"))?;
        minor_places(text(currency)).map_err(|_| wrong(currency, "is not an ISO 4217 currency"))?;
        let amount = Amount::parse(text(spend)).ok().filter(|amount| amount.places() <= PLACES_MAX);
        amount.ok_or_else(|| wrong(spend, "is not an amount such as 1234.56, with at most 9 decimals"))?;
        let impressions = match impressions.filter(|at| !text(*at).is_empty()) {
            Some(at) => Some(text(at).parse().map_err(|_| wrong(at, "is not a whole number"))?),
            None => None,
        };
        let [day_text, campaign, currency, amount] = [date, campaign, currency, spend].map(|at| text(at).to_owned());
        rows.push(Row { number, day, spend: SpendRow { day: day_text, campaign, currency, amount, impressions } });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn columns_are_read_in_any_order_among_others() {
        let csv = "spend,Ad Set,campaign,date,impressions,currency\n1234.5,a, spring ,2026-01-31,7,USD\n-0.001,b,spring,2026-02-01,,JPY\n";
        let rows = read("r.csv", csv.as_bytes()).unwrap();
        let row = |number, day: &str, currency: &str, amount: &str, impressions| Row {
            number,
            day: day.parse().unwrap(),
            spend: SpendRow { day: day.into(), campaign: "spring".into(), currency: currency.into(), amount: amount.into(), impressions },
        };
        assert_eq!(rows, [row(2, "2026-01-31", "USD", "1234.5", Some(7)), row(3, "2026-02-01", "JPY", "-0.001", None)]);
        // As spreadsheets write it, with a byte order mark.
        assert_eq!(read("r.csv", "\u{feff}date,campaign,currency,spend\n".as_bytes()).unwrap(), []);
    }

    #[test]
    fn an_error_names_row_and_column() {
        let said = |csv: &str| read("r.csv", csv.as_bytes()).unwrap_err().to_string();
        assert_eq!(said("date,campaign,spend\n"), r#"r.csv: row 1: no column "currency" among ["date", "campaign", "spend"]"#);
        let row = |row: &str| said(&format!("date,campaign,currency,spend,impressions\n2026-01-01,a,USD,1,\n{row}\n"));
        for (wrong, column, problem) in [
            ("31/01/2026,a,USD,1,", "date", r#""31/01/2026" is not a day such as 2026-01-31"#),
            ("2026-01-01,A B,USD,1,", "campaign", r#""A B" is not a campaign's id"#),
            ("2026-01-01,a,usd,1,", "currency", r#""usd" is not an ISO 4217 currency"#),
            ("2026-01-01,a,USD,$1,", "spend", r#""$1" is not an amount such as 1234.56, with at most 9 decimals"#),
            ("2026-01-01,a,USD,\"1,234.56\",", "spend", r#""1,234.56" is not an amount such as 1234.56, with at most 9 decimals"#),
            ("2026-01-01,a,USD,0.0000000001,", "spend", r#""0.0000000001" is not an amount such as 1234.56, with at most 9 decimals"#),
            ("2026-01-01,a,USD,1,many", "impressions", r#""many" is not a whole number"#),
        ] {
            assert_eq!(row(wrong), format!("r.csv: row 3, column {column}: {problem}"));
        }
        assert!(row("2026-01-01,a").starts_with("r.csv: row 3: "));
    }

    #[test]
    fn no_more_rows_are_taken_than_billing_takes() {
        let csv = |rows: usize| format!("date,campaign,currency,spend\n{}", "2026-01-01,a,USD,1\n".repeat(rows));
        assert_eq!(read("r.csv", csv(ROWS_MAX).as_bytes()).unwrap().len(), ROWS_MAX);
        let said = read("r.csv", csv(ROWS_MAX + 1).as_bytes()).unwrap_err().to_string();
        assert!(said.starts_with("r.csv: row 65538, column date: \"2026-01-01\" is one too many"), "{said}");
    }

    #[test]
    fn a_month_has_its_last_day() {
        let last = |month: &str| days_of(month.parse().unwrap()).map(|(first, last)| format!("{first} {last}")).unwrap();
        assert_eq!(last("2024-02"), "2024-02-01 2024-02-29");
        assert_eq!(last("2026-02"), "2026-02-01 2026-02-28");
        assert_eq!(last("2026-12"), "2026-12-01 2026-12-31");
    }
}
