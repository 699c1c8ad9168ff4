//! Sheets as messages.

use std::collections::BTreeSet;

use kiki::ids::CustomerKey;
use kiki::leaf::Int128;
use kiki::pb::billing::v1 as pb;
use prost::Message as _;

use super::count;
use crate::domain::bundle::limits::LINES_MAX;
use crate::domain::bundle::sheets::{Figures, Holds, Sheet, SheetLine, Sheets, Totals};

/// Largest amount and largest count of one figure: so that the sums of a whole file, of at most 2^26 lines, fit into 127 and 63
/// bits, also in nanos.
const AMOUNT_MAX: u128 = 1 << 90;
const COUNT_MAX: u64 = 1 << 36;

/// Most sheets and campaigns: eight times as many as are drawn up of a client, and more than documents have lines.
const SHEETS_MAX: u64 = 1 << 17;
const CAMPAIGNS_MAX: u64 = 1 << 17;

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
        spend_nanos: amount(line.spend_nanos),
        predicted_nanos: amount(line.predicted_nanos),
        realised_nanos: amount(line.realised_nanos),
        counted: line.counted,
        valued: line.valued,
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

/// Reads what [`message`] makes, in its one encoding.
pub(super) fn read(encoded: &[u8]) -> Result<Sheets, String> {
    let limits = [(vec![&[1][..]], CAMPAIGNS_MAX), (vec![&[2][..]], SHEETS_MAX), (vec![&[2][..], &[3, 4], &[7]], LINES_MAX)];
    for (path, max) in limits {
        match count(encoded, &path) {
            Some(found) if found <= max => {}
            Some(found) => return Err(format!("have {found} of what is at most {max}")),
            None => return Err("are no message".to_owned()),
        }
    }
    let sheets = pb::Sheets::decode(encoded).map_err(|e| e.to_string())?;
    if sheets.encode_to_vec() != encoded {
        return Err("are not in their one encoding".to_owned());
    }
    if sheets.campaigns.iter().collect::<BTreeSet<_>>().len() != sheets.campaigns.len() {
        return Err("name a campaign twice".to_owned());
    }
    let names = &sheets.campaigns;
    let read = |(number, sheet)| read_sheet(sheet, names).map_err(|problem| format!("have sheet {number}, which {problem}"));
    let all = sheets.sheets.into_iter().enumerate().map(read).collect::<Result<_, String>>()?;
    Ok(Sheets { campaigns: sheets.campaigns, sheets: all })
}

fn read_sheet(sheet: pb::Sheet, names: &[String]) -> Result<Sheet, String> {
    let key = |bytes: &[u8]| CustomerKey::from_bytes(bytes).ok_or("has a customer that is not 16 bytes");
    let holds = match sheet.records.ok_or("holds neither spend nor customers")? {
        pb::sheet::Records::Spend(spend) if spend.first_seq <= spend.last_seq => {
            Holds::Spend { first: spend.first_seq, last: spend.last_seq }
        }
        pb::sheet::Records::Customers(customers) if customers.first <= customers.last => {
            Holds::Customers { first: key(&customers.first)?, last: key(&customers.last)? }
        }
        _ => return Err("ends before it begins".to_owned()),
    };
    let figures = |figures: Option<pb::SheetFigures>| read_figures(figures.ok_or("has no figures")?, names);
    Ok(Sheet { holds, before: figures(sheet.before)?, added: figures(sheet.added)? })
}

fn read_figures(figures: pb::SheetFigures, names: &[String]) -> Result<Figures, String> {
    let lines = figures.lines.iter().map(|line| read_line(line, names)).collect::<Result<Vec<_>, String>>()?;
    let key = |line: &SheetLine| (line.period, line.part, &names[line.campaign as usize]);
    if !lines.is_sorted_by(|a, b| key(a) < key(b)) {
        return Err("has lines that are not in order of period, part and campaign".to_owned());
    }
    Ok(Figures {
        records: read_count(figures.records)?,
        totals: Totals {
            settled_nanos: read_amount(figures.settled_nanos.as_ref())?,
            settlements: read_count(figures.settlements)?,
            conversions: read_count(figures.conversions)?,
            outcome_micros: read_amount(figures.outcome_micros.as_ref())?,
            outcomes: read_count(figures.outcomes)?,
        },
        lines,
    })
}

fn read_line(line: &pb::SheetLine, names: &[String]) -> Result<SheetLine, String> {
    let read = SheetLine {
        period: line.period,
        part: line.part,
        campaign: line.campaign,
        spend_nanos: read_amount(line.spend_nanos.as_ref())?,
        predicted_nanos: read_amount(line.predicted_nanos.as_ref())?,
        realised_nanos: read_amount(line.realised_nanos.as_ref())?,
        counted: read_count(line.counted)?,
        valued: read_count(line.valued)?,
    };
    if line.campaign as usize >= names.len() {
        return Err(format!("has a line of campaign {}, which is not there", line.campaign));
    }
    if read.is_empty() { Err("has a line that adds nothing".to_owned()) } else { Ok(read) }
}

fn read_amount(amount: Option<&Int128>) -> Result<i128, String> {
    let read = amount.map_or(0, i128::from);
    let fits = read.unsigned_abs() <= AMOUNT_MAX && (amount.is_none() || read != 0);
    fits.then_some(read).ok_or_else(|| format!("an amount of {read} is not within {AMOUNT_MAX}, or is a 0 that is written"))
}

fn read_count(count: u64) -> Result<u64, String> {
    (count <= COUNT_MAX).then_some(count).ok_or_else(|| format!("a count of {count} is above {COUNT_MAX}"))
}
