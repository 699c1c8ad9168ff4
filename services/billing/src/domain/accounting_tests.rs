#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

use crate::domain::invoice::tests::terms;

const DAY: i64 = 86_400_000_000;

fn spend(leaf: u64, day: i64, nanos: i64) -> Record {
    record(leaf, day, Entry::Spend { campaign: "c".into(), nanos, impressions: 1 })
}

fn record(leaf: u64, day: i64, entry: Entry) -> Record {
    Record { leaf, client: "acme".into(), client_seq: leaf + 1, currency: "USD".into(), at: UnixMicros(day * DAY), entry }
}

fn acquired(leaf: u64, day: i64, customer: u8, predicted_micros: i64) -> Record {
    let customer = CustomerKey([customer; 16]);
    record(leaf, day, Entry::Acquired { campaign: "c".into(), customer, predicted_micros })
}

fn value(leaf: u64, day: i64, customer: u8, micros: i64) -> Record {
    record(leaf, day, Entry::Value { customer: CustomerKey([customer; 16]), micros })
}

/// Days 0..30 are the first period, 30..60 the second, and so on.
fn closing(period: i64, last_seq: u64) -> Closing {
    Closing {
        leaf: last_seq,
        client_seq: last_seq + 1,
        currency: "USD".into(),
        month: "1970-01".parse().unwrap(),
        span: Span { start: UnixMicros(period * 30 * DAY), end: UnixMicros((period + 1) * 30 * DAY) },
        first_seq: 1,
        last_seq,
        terms_version: 1,
    }
}

#[test]
fn every_record_is_billed_exactly_once() {
    // Leaf 3 belongs to the first period and comes after it was closed; leaf 4 is of a later period.
    let records = [spend(0, 1, 1), spend(1, 29, 10), spend(3, 5, 100), spend(4, 70, 1_000), spend(5, 31, 10_000)];
    let closings = [closing(0, 2), closing(1, 7), closing(2, 9)];
    let mut sums = Vec::new();
    for (i, closing) in closings.iter().enumerate() {
        let lines = lines(records.iter(), closing, &closings[..i], &terms());
        sums.push(lines.iter().map(|l| l.spend_nanos).sum::<i128>());
    }
    assert_eq!(sums, [11, 10_100, 1_000]);
}

#[test]
fn a_month_that_was_never_closed_falls_into_the_next_that_is() {
    let records = [spend(0, 1, 1), spend(1, 35, 10), spend(2, 65, 100)];
    let closings = [closing(0, 1), closing(2, 9)];
    assert_eq!(lines(records.iter(), &closings[1], &closings[..1], &terms())[0].spend_nanos, 110);
    // Closing the skipped month afterwards finds nothing left.
    let late = closing(1, 12);
    assert!(lines(records.iter(), &late, &closings, &terms()).is_empty());
}

#[test]
fn predicted_ltv_counts_once_a_customer_and_names_its_leaves() {
    let records = [spend(0, 1, 7), value(1, 2, 1, 5), acquired(2, 2, 1, 90), value(3, 4, 1, 6)];
    let lines = lines(records.iter(), &closing(0, 10), &[], &terms());
    assert_eq!((lines[0].spend_nanos, lines[0].ltv_nanos), (7, 90_000));
    assert_eq!(lines[0].leaves, [0, 2]);
}

#[test]
fn realised_ltv_runs_from_the_acquisition_to_the_horizon_and_takes_refunds() {
    let realised = Terms { basis: Basis::Realised, horizon_days: 10, ..terms() };
    let records = [
        value(0, 1, 1, 1),  // before the acquisition
        value(1, 2, 1, 10), // the purchase that acquired
        acquired(2, 2, 1, 999),
        value(3, 11, 1, -4),    // a refund on the last day
        value(4, 12, 1, 100),   // at the horizon
        value(5, 3, 2, 1_000),  // a customer nobody acquired
        value(20, 3, 1, 7_000), // recorded after the closing
    ];
    let lines = lines(records.iter(), &closing(0, 10), &[], &realised);
    assert_eq!(lines[0].ltv_nanos, 6_000);
    assert_eq!(lines[0].leaves, [1, 2, 3]);
}

#[test]
fn realised_value_after_the_periods_end_still_counts() {
    let realised = Terms { basis: Basis::Realised, horizon_days: 30, ..terms() };
    let records = [acquired(0, 29, 1, 0), value(1, 40, 1, 10)];
    let lines = lines(records.iter(), &closing(0, 10), &[], &realised);
    assert_eq!(lines[0].ltv_nanos, 10_000);
    let span = closing(0, 10).span;
    assert_eq!(billable_from(span, Basis::Realised, 30), UnixMicros(60 * DAY));
    assert_eq!(billable_from(span, Basis::Predicted, 30), span.end);
}

#[test]
fn another_currency_is_another_invoice() {
    let mut euro = spend(0, 1, 7);
    euro.currency = "EUR".into();
    assert!(lines([euro].iter(), &closing(0, 10), &[], &terms()).is_empty());
}

/// Zones from UTC-12 to UTC+14, some of which change their clocks, at midnight too; or moved across the date line.
const ZONES: [&str; 8] =
    ["Etc/GMT+12", "Etc/GMT-14", "UTC", "Europe/Berlin", "America/Asuncion", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"];

/// The closings of ten years from 2010 on, each month in the zone that the client has then. What a closing covers by `client_seq` is
/// what had come when the month was over, in whatever zone.
fn ten_years(zones: &[usize], seq_at: impl Fn(UnixMicros) -> u64) -> Vec<Closing> {
    let mut month: Month = "2010-01".parse().unwrap();
    let each = |zone: &usize| {
        let this = month;
        month = month.next();
        let span = crate::domain::period::resolve(this, ZONES[*zone]).unwrap();
        Closing { month: this, span, last_seq: seq_at(span.end), ..closing(0, 0) }
    };
    zones.iter().map(each).collect()
}

proptest! {
    #[test]
    fn a_client_that_changes_its_zone_has_each_instant_billed_exactly_once(
        zones in prop::collection::vec(0..ZONES.len(), 121),
        // Within a day of a month's end in some zone, to the microsecond, or anywhere; and how much later it was recorded.
        records in prop::collection::vec((0..120_usize, 0..ZONES.len(), prop_oneof![-DAY..DAY, -2..3_i64, -30 * DAY..0], 0..40 * DAY), 1..40),
        order in any::<prop::sample::Index>(),
    ) {
        let start = |month: usize, zone: usize| {
            let month: Month = format!("{}-{:02}", 2010 + month / 12, 1 + month % 12).parse().unwrap();
            crate::domain::period::resolve(month, ZONES[zone]).unwrap().start
        };
        let mut times: Vec<(i64, i64)> = records.iter().map(|(month, zone, off, late)| {
            let at = start(*month, *zone).0 + off;
            (at + late, at)
        }).collect();
        times.sort_unstable(); // the log has them in the order in which they came
        let seq_at = |end: UnixMicros| times.iter().filter(|(recorded, _)| *recorded < end.0).count() as u64;
        let mut records: Vec<Record> = (0..).zip(&times).map(|(leaf, (_, at))| Record { at: UnixMicros(*at), ..spend(leaf, 0, 1 << leaf) }).collect();
        // A month behind them all, by when the last has come.
        let closings = ten_years(&zones, |end| if end >= start(120, 0) { times.len() as u64 } else { seq_at(end) });
        let sums = |records: &[Record]| -> Vec<i128> {
            let of = |(i, closing)| lines(records.iter(), closing, &closings[..i], &terms()).iter().map(|line| line.spend_nanos).sum();
            closings.iter().enumerate().map(of).collect()
        };
        let billed = sums(&records);
        // Each record is a bit of its own: all of them, and none twice.
        prop_assert_eq!(billed.iter().sum::<i128>(), (1_i128 << times.len()) - 1);
        prop_assert_eq!(billed.iter().fold(0, |all, sum| all | sum), (1_i128 << times.len()) - 1);
        let middle = order.index(records.len());
        records.rotate_left(middle);
        records.reverse();
        prop_assert_eq!(sums(&records), billed, "their order changes nothing");
    }
}
