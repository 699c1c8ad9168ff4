//! Differences to be read, and as JSON. Amounts are exact: at least the currency's own decimals, and as many more as there are.

use billing::domain::amount::minor_places;
use kiki::clock::UnixMicros;
use kiki::leaf::Int128;
use kiki::money::decimal;
use kiki::pb::billing::v1 as pb;
use serde_json::{Value, json};

use crate::out;

/// Leaves that a line of text names; `--json` has more.
const LEAVES_SHOWN: usize = 4;

/// The other side.
#[derive(Debug)]
pub(super) struct Other {
    /// What its column is called.
    pub(super) name: &'static str,
    /// Whose figures, and of when.
    pub(super) heading: String,
}

fn nanos(sum: Option<&Int128>) -> i128 {
    sum.map_or(0, i128::from)
}

/// Nanos of a currency, with no more zeros at the end than its minor unit has.
fn exact(nanos: i128, currency: &str) -> String {
    let text = decimal(nanos, 9);
    let least = minor_places(currency).unwrap_or(0) as usize;
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let kept = part.trim_end_matches('0').len().max(least.min(part.len()));
    if kept == 0 { whole.to_owned() } else { format!("{whole}.{}", &part[..kept]) }
}

const fn kind(difference: &pb::FigureDifference) -> &'static str {
    const MISSING_IN_LOG: i32 = pb::DifferenceKind::MissingInLog as i32;
    const MISSING_THERE: i32 = pb::DifferenceKind::MissingThere as i32;
    match difference.kind {
        MISSING_IN_LOG => "missing in the log",
        MISSING_THERE => "missing there",
        _ => "amount",
    }
}

/// The day, or the hour that it begins with.
fn when(difference: &pb::FigureDifference) -> String {
    if !difference.day.is_empty() {
        return difference.day.clone();
    }
    let from = UnixMicros::from_pb(difference.from.as_ref()).unwrap_or_default();
    jiff::Timestamp::from_microsecond(from.0).map_or_else(|_| from.0.to_string(), |from| from.to_string())
}

fn leaves(difference: &pb::FigureDifference) -> String {
    let shown = difference.leaves.iter().take(LEAVES_SHOWN).map(u64::to_string).collect::<Vec<_>>().join(", ");
    match difference.leaf_count.saturating_sub(LEAVES_SHOWN as u64) {
        0 => shown,
        more => format!("{shown} and {} more", out::grouped(more)),
    }
}

pub(super) fn text(other: &Other, summary: &pb::ReconcileSummary, differences: &[pb::FigureDifference]) -> String {
    let until = summary.until.clone().unwrap_or_default();
    let agreed = match summary.different {
        0 => "all agree".to_owned(),
        different => format!("{} differ", out::grouped(different.into())),
    };
    let mut rows = vec![
        ("log", format!("{}, up to leaf {}", until.log_id, out::grouped(until.index))),
        ("figures", format!("{} compared, {agreed}", out::grouped(summary.compared.into()))),
    ];
    for total in &summary.totals {
        let (log, theirs) = (nanos(total.log_nanos.as_ref()), nanos(total.other_nanos.as_ref()));
        let [log, theirs, by] = [log, theirs, theirs - log].map(|nanos| exact(nanos, &total.currency));
        rows.push((&total.currency, format!("{log} in the log, {theirs} there: {by}")));
    }
    let head = out::table(&other.heading, &rows);
    if differences.is_empty() { head } else { format!("{head}\n{}", lines(other, differences)) }
}

/// One line each under a heading, figures to the right.
fn lines(other: &Other, differences: &[pb::FigureDifference]) -> String {
    let mut rows = vec![["when", "campaign", "cur", "log", other.name, "difference", "what", "leaves"].map(str::to_owned)];
    for difference in differences {
        let (log, theirs) = (nanos(difference.log_nanos.as_ref()), nanos(difference.other_nanos.as_ref()));
        let amount = |nanos| exact(nanos, &difference.currency);
        rows.push([
            when(difference),
            difference.campaign.clone(),
            difference.currency.clone(),
            amount(log),
            amount(theirs),
            amount(theirs - log),
            kind(difference).to_owned(),
            leaves(difference),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let cell = |(column, text): (usize, &String)| match column {
        3..=5 => format!("{text:>width$}", width = widths[column]),
        _ => format!("{text:<width$}", width = widths[column]),
    };
    let line = |row: &[String; 8]| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned();
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn json(summary: &pb::ReconcileSummary, differences: &[pb::FigureDifference]) -> String {
    let until = summary.until.clone().unwrap_or_default();
    let sides = |log: Option<&Int128>, theirs: Option<&Int128>| {
        let (log, theirs) = (nanos(log), nanos(theirs));
        [log, theirs, theirs - log].map(|nanos| decimal(nanos, 9))
    };
    let total = |total: &pb::ReconciledTotal| {
        let [log, theirs, by] = sides(total.log_nanos.as_ref(), total.other_nanos.as_ref());
        json!({ "currency": total.currency, "log": log, "other": theirs, "difference": by })
    };
    let one = |difference: &pb::FigureDifference| -> Value {
        let [log, theirs, by] = sides(difference.log_nanos.as_ref(), difference.other_nanos.as_ref());
        json!({
            "when": when(difference), "campaign": difference.campaign, "currency": difference.currency, "what": kind(difference),
            "log": log, "other": theirs, "difference": by, "log_items": difference.log_items, "other_items": difference.other_items,
            "leaves": difference.leaves, "leaf_count": difference.leaf_count,
        })
    };
    json!({
        "log_id": until.log_id, "log_size": until.index, "compared": summary.compared, "different": summary.different,
        "totals": summary.totals.iter().map(total).collect::<Vec<_>>(),
        "differences": differences.iter().map(one).collect::<Vec<_>>(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference() -> pb::FigureDifference {
        pb::FigureDifference {
            kind: pb::DifferenceKind::Amount.into(),
            campaign: "spring".into(),
            currency: "USD".into(),
            day: "2026-01-03".into(),
            log_nanos: Some(36_368_000_001_i128.into()),
            other_nanos: Some(36_400_000_000_i128.into()),
            leaves: vec![17, 19, 23, 29, 31],
            leaf_count: 65,
            ..Default::default()
        }
    }

    #[test]
    fn a_table_names_what_differs_and_its_leaves() {
        let summary = pb::ReconcileSummary {
            until: Some(kiki::leaf::Position { log_id: "kiki.test/log".into(), index: 1_234 }),
            compared: 31,
            different: 1,
            totals: vec![pb::ReconciledTotal {
                currency: "USD".into(),
                log_nanos: Some(100_000_000_001_i128.into()),
                other_nanos: Some(100_032_000_000_i128.into()),
            }],
        };
        let other = Other { name: "platform", heading: "acme on meta".into() };
        assert_eq!(
            text(&other, &summary, &[difference()]),
            "acme on meta
  log      kiki.test/log, up to leaf 1,234
  figures  31 compared, 1 differ
  USD      100.000000001 in the log, 100.032 there: 0.031999999
when        campaign  cur           log  platform   difference  what    leaves
2026-01-03  spring    USD  36.368000001     36.40  0.031999999  amount  17, 19, 23, 29 and 61 more"
        );
        assert!(text(&other, &pb::ReconcileSummary::default(), &[]).ends_with("  figures  0 compared, all agree"));
    }

    #[test]
    fn amounts_are_exact_with_at_least_the_minor_unit() {
        let shown = [(1_500_000_000, "USD"), (-1, "USD"), (0, "USD"), (2_000_000_000, "JPY"), (2_500_000_000, "JPY"), (1, "KWD")];
        assert_eq!(shown.map(|(nanos, currency)| exact(nanos, currency)), ["1.50", "-0.000000001", "0.00", "2", "2.5", "0.000000001"]);
    }
}
