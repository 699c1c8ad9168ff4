//! Sheets as messages.

use kiki::ids::CustomerKey;
use kiki::leaf::Int128;
use kiki::pb::billing::v1 as pb;

use crate::domain::books::{Leaves, Sums};
use crate::domain::bundle::sheets::{Figures, Holds, Sheet, SheetLine, Sheets, Totals};

/// Largest amount and largest count of one figure: so that the sums of a whole file, of at most 2^26 lines, fit into 127 and 63
/// bits, also in nanos.
const AMOUNT_MAX: u128 = 1 << 90;
const COUNT_MAX: u64 = 1 << 36;

/// As a message.
pub(super) fn message(sheets: &Sheets) -> pb::Sheets {
    pb::Sheets { campaigns: sheets.campaigns.clone(), sheets: sheets.sheets.iter().map(sheet).collect() }
}

fn sheet(sheet: &Sheet) -> pb::Sheet {
    let records = match sheet.holds {
        Holds::Spend { first, last } => pb::sheet::Records::Spend(pb::SpendSheet { first_seq: first, last_seq: last }),
        Holds::Customers { first, last } => {
            pb::sheet::Records::Customers(pb::CustomerSheet { first: first.0.to_vec().into(), last: last.0.to_vec().into() })
        }
    };
    pb::Sheet { records: Some(records), before: Some(figures(&sheet.before)), added: Some(figures(&sheet.added)) }
}

fn figures(figures: &Figures) -> pb::SheetFigures {
    let Totals { settled_nanos, settlements, conversions, outcome_micros, outcomes } = figures.totals;
    let line = |line: &SheetLine| pb::SheetLine {
        period: line.period,
        part: line.part,
        campaign: line.campaign,
        spend_nanos: amount(line.sums.spend_nanos),
        predicted_nanos: amount(line.sums.predicted_nanos),
        realised_nanos: amount(line.sums.realised_nanos),
        counted: line.sums.counted.count,
        valued: line.sums.valued.count,
    };
    pb::SheetFigures {
        records: figures.records,
        settled_nanos: amount(settled_nanos),
        settlements,
        conversions,
        outcome_micros: amount(outcome_micros),
        outcomes,
        lines: figures.lines.iter().map(line).collect(),
    }
}

/// None of 0: most figures are.
fn amount(amount: i128) -> Option<Int128> {
    (amount != 0).then(|| amount.into())
}

/// Reads what [`message`] makes.
pub(super) fn read(sheets: pb::Sheets) -> Result<Sheets, String> {
    let read = |(number, sheet)| read_sheet(sheet).map_err(|problem| format!("sheet {number}: {problem}"));
    let all = sheets.sheets.into_iter().enumerate().map(read).collect::<Result<_, String>>()?;
    Ok(Sheets { campaigns: sheets.campaigns, sheets: all })
}

fn read_sheet(sheet: pb::Sheet) -> Result<Sheet, String> {
    let key = |bytes: &[u8]| CustomerKey::from_bytes(bytes).ok_or("a customer is not 16 bytes");
    let holds = match sheet.records.ok_or("holds neither spend nor customers")? {
        pb::sheet::Records::Spend(spend) if spend.first_seq <= spend.last_seq => {
            Holds::Spend { first: spend.first_seq, last: spend.last_seq }
        }
        pb::sheet::Records::Customers(customers) if customers.first <= customers.last => {
            Holds::Customers { first: key(&customers.first)?, last: key(&customers.last)? }
        }
        _ => return Err("ends before it begins".to_owned()),
    };
    let figures = |figures: Option<pb::SheetFigures>| read_figures(figures.ok_or("has no figures")?);
    Ok(Sheet { holds, before: figures(sheet.before)?, added: figures(sheet.added)? })
}

fn read_figures(figures: pb::SheetFigures) -> Result<Figures, String> {
    let line = |line: pb::SheetLine| {
        let sums = Sums {
            spend_nanos: read_amount(line.spend_nanos.as_ref())?,
            predicted_nanos: read_amount(line.predicted_nanos.as_ref())?,
            realised_nanos: read_amount(line.realised_nanos.as_ref())?,
            counted: Leaves::counted(count(line.counted)?),
            valued: Leaves::counted(count(line.valued)?),
        };
        Ok(SheetLine { period: line.period, part: line.part, campaign: line.campaign, sums })
    };
    Ok(Figures {
        records: count(figures.records)?,
        totals: Totals {
            settled_nanos: read_amount(figures.settled_nanos.as_ref())?,
            settlements: count(figures.settlements)?,
            conversions: count(figures.conversions)?,
            outcome_micros: read_amount(figures.outcome_micros.as_ref())?,
            outcomes: count(figures.outcomes)?,
        },
        lines: figures.lines.into_iter().map(line).collect::<Result<_, String>>()?,
    })
}

fn read_amount(amount: Option<&Int128>) -> Result<i128, String> {
    let read = amount.map_or(0, i128::from);
    let fits = read.unsigned_abs() <= AMOUNT_MAX && (amount.is_none() || read != 0);
    fits.then_some(read).ok_or_else(|| format!("an amount of {read} is not within {AMOUNT_MAX}, or is a 0 that is written"))
}

fn count(count: u64) -> Result<u64, String> {
    (count <= COUNT_MAX).then_some(count).ok_or_else(|| format!("a count of {count} is above {COUNT_MAX}"))
}
