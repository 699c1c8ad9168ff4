#![allow(clippy::unwrap_used)]
use super::*;

use crate::domain::invoice::tests::terms;

const DAY: i64 = 86_400_000_000;

#[test]
fn a_period_is_billable_when_its_late_records_and_what_it_is_billed_by_are_in() {
    let part = |days: std::ops::Range<i64>, terms| Part { from: UnixMicros(days.start * DAY), until: UnixMicros(days.end * DAY), terms };
    let predicted = Terms { horizon_days: 30, ..terms() };
    let realised = Terms { basis: Basis::Realised, ..predicted.clone() };
    assert_eq!(billable_from(&[part(0..30, predicted.clone())]), Some(UnixMicros(30 * DAY)));
    assert_eq!(billable_from(&[part(0..30, realised.clone())]), Some(UnixMicros(60 * DAY)));
    // Realised value of the first half is known two weeks after the month; the grace is the last part's.
    let graced = Terms { grace_seconds: 3 * 86_400, ..predicted };
    assert_eq!(billable_from(&[part(0..14, realised), part(14..30, graced)]), Some(UnixMicros(47 * DAY)));
    assert_eq!(billable_from(&[]), None);
}
