#![allow(clippy::unwrap_used)]
use super::*;
use kiki::ids::CustomerKey;
use proptest::prelude::*;

use crate::domain::fee::Netting;
use crate::domain::invoice::tests::terms;
use crate::domain::period::{Month, Span};

const DAY: i64 = 86_400_000_000;

/// One part with these lines.
pub(crate) fn account_of(terms: Terms, span: Span, lines: Vec<LineFacts>) -> Account {
    let part = Part { from: UnixMicros(i64::MIN), until: span.end, terms };
    let sums = |line: LineFacts| {
        let LineFacts { campaign, spend_nanos, ltv_nanos, leaves } = line;
        (campaign, Sums { spend_nanos, predicted_nanos: ltv_nanos, counted: leaves, ..Sums::default() })
    };
    let part = account_part(&part, &lines.into_iter().map(sums).collect(), span.end, Carry::default());
    account(vec![part.unwrap()]).unwrap()
}

fn record(leaf: u64, day: i64, entry: Entry) -> Record {
    Record { leaf, client: "acme".into(), client_seq: leaf + 1, currency: "USD".into(), at: UnixMicros(day * DAY), entry }
}

fn spend(leaf: u64, day: i64, nanos: i64) -> Record {
    record(leaf, day, Entry::Spend { campaign: "c".into(), nanos, impressions: 1 })
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
        terms_version: u64::MAX,
    }
}

fn stated(records: &[Record], closings: &[Closing], terms: &[Terms]) -> Statement {
    statement(records.iter(), closings, terms).unwrap()
}

/// Spend and LTV of an account.
fn figures(account: &Account) -> (i128, i128) {
    let lines = || account.parts.iter().flat_map(|part| &part.lines);
    (lines().map(|line| line.spend_nanos).sum(), lines().map(|line| line.ltv_nanos).sum())
}

/// Spend costs nothing, and all of the value is ours: a fee is what LTV says.
fn all_of_it() -> Terms {
    Terms { baseline_ppm: 0, share_ppm: 1_000_000, horizon_days: 36_500, ..terms() }
}

#[test]
fn a_month_that_was_never_closed_falls_into_the_next_that_is() {
    let records = [spend(0, 1, 1), spend(1, 35, 10), spend(2, 65, 100)];
    let closings = [closing(0, 1), closing(2, 9), closing(1, 12)];
    assert_eq!(figures(&stated(&records, &closings[..1], &[terms()]).account), (1, 0));
    assert_eq!(figures(&stated(&records, &closings[..2], &[terms()]).account), (110, 0));
    // Closing the skipped month afterwards finds nothing left.
    let late = stated(&records, &closings, &[terms()]);
    assert!(late.account.is_empty() && late.period.parts.is_empty() && late.changes.is_empty());
}

#[test]
fn predicted_ltv_counts_once_a_customer_and_names_its_leaves() {
    let records = [spend(0, 1, 7), value(1, 2, 1, 5), acquired(2, 2, 1, 90), value(3, 4, 1, 6)];
    let statement = stated(&records, &[closing(0, 10)], &[terms()]);
    assert_eq!(figures(&statement.account), (7, 90_000));
    assert_eq!(statement.account.parts[0].lines[0].leaves.ranges(), [[0, 0], [2, 2]]);
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
    let statement = stated(&records, &[closing(0, 10)], &[realised]);
    assert_eq!(figures(&statement.account), (0, 6_000));
    assert_eq!(statement.account.parts[0].lines[0].leaves.ranges(), [[1, 3]]);
}

#[test]
fn realised_value_after_the_periods_end_still_counts() {
    let realised = Terms { basis: Basis::Realised, horizon_days: 30, ..terms() };
    let records = [acquired(0, 29, 1, 0), value(1, 40, 1, 10)];
    assert_eq!(figures(&stated(&records, &[closing(0, 10)], &[realised]).account), (0, 10_000));
}

#[test]
fn another_currency_is_another_invoice() {
    let mut euro = spend(0, 1, 7);
    euro.currency = "EUR".into();
    assert!(stated(&[euro], &[closing(0, 10)], &[terms()]).account.is_empty());
}

#[test]
fn a_late_record_is_noted_on_its_own_period_with_the_next_closing() {
    // Leaf 3 belongs to the first period and comes after it was closed.
    let records =
        [spend(0, 1, 1), acquired(1, 2, 1, 5_000_000), acquired(3, 5, 2, 2_000_000), acquired(4, 31, 3, 1_000_000), spend(5, 31, 1)];
    let closings = [closing(0, 2), closing(1, 7)];
    let first = stated(&records, &closings[..1], &[all_of_it()]);
    assert_eq!((first.account.fee_minor, first.changes.len()), (500, 0));
    let second = stated(&records, &closings, &[all_of_it()]);
    assert_eq!(second.account.fee_minor, 100);
    let [change] = &second.changes[..] else { panic!("{second:?}") };
    assert_eq!((change.before.fee_minor, change.after.fee_minor), (500, 700));
    assert_eq!((&change.period, &change.reasons[..]), (&first.period, &[Reason::LateRecords][..]));
    // A credit for traffic that was invalid lowers what is owed: the same way.
    let credit = spend(8, 1, -1_000_000_000);
    let credited = [&records[..], &[credit]].concat();
    let third = stated(&credited, &[closing(0, 2), closing(1, 7), closing(2, 12)], &[Terms { baseline_ppm: 3_000_000, ..all_of_it() }]);
    let [change] = &third.changes[..] else { panic!("{third:?}") };
    assert_eq!(change.after.fee_minor - change.before.fee_minor, 0 - change.before.fee_minor, "value without spend is held for review");
}

#[test]
fn what_was_billed_by_prediction_is_trued_up_once_its_horizon_is_over() {
    let predicted = Terms { horizon_days: 30, ..all_of_it() };
    let records =
        [spend(0, 1, 1), value(1, 2, 1, 3_000_000), acquired(2, 2, 1, 5_000_000), value(4, 20, 1, 1_000_000), value(7, 65, 1, 9_000_000)];
    let closings = [closing(0, 3), closing(1, 6), closing(2, 9)];
    let fee = |i: usize| stated(&records, &closings[..=i], std::slice::from_ref(&predicted));
    assert_eq!((fee(0).account.fee_minor, fee(0).account.parts[0].basis), (500, Basis::Predicted));
    // The last customer of days 0..30 may spend until day 60: the second closing is just then.
    let [change] = &fee(1).changes[..] else { panic!("{:?}", fee(1)) };
    assert_eq!((change.before.fee_minor, change.after.fee_minor, &change.reasons[..]), (500, 400, &[Reason::TrueUp][..]));
    assert_eq!(change.after.parts[0].lines[0].leaves.ranges(), [[0, 2], [4, 4]]);
    assert!(fee(2).changes.is_empty(), "what comes behind the horizon counts nowhere");
}

#[test]
fn a_skipped_month_that_is_closed_late_takes_no_true_up_back() {
    let predicted = Terms { horizon_days: 40, ..all_of_it() };
    let records = [spend(0, 1, 1), value(1, 2, 1, 3_000_000), acquired(2, 2, 1, 5_000_000)];
    // Days 0..30, then 60..90, by when the first customers' horizon is over, and then the 30..60 that was skipped.
    let closings = [closing(0, 3), closing(2, 4), closing(1, 5)];
    let stated = |i: usize| stated(&records, &closings[..=i], std::slice::from_ref(&predicted)).changes;
    assert_eq!(stated(1).iter().map(|change| (change.before.fee_minor, change.after.fee_minor)).collect::<Vec<_>>(), [(500, 300)]);
    assert_eq!(stated(2), []);
}

#[test]
fn new_terms_split_the_period_and_come_too_late_for_a_closed_one() {
    let at = |day: i64| UnixMicros(day * DAY);
    let old = Terms { effective_from: at(0), ..all_of_it() };
    let new = Terms { version: 2, effective_from: at(15), share_ppm: 500_000, ..all_of_it() };
    let records = [spend(0, 1, 1), acquired(1, 14, 1, 1_000_000), acquired(2, 15, 2, 4_000_000), spend(3, 16, 1)];
    let one = |known| Closing { terms_version: known, ..closing(0, 10) };
    let split = stated(&records, &[one(2)], &[old.clone(), new.clone()]).account;
    let parts: Vec<_> = split.parts.iter().map(|p| (p.part.until, p.part.terms.version, p.fees.fee_minor)).collect();
    assert_eq!(parts, [(at(15), 1, 100), (at(30), 2, 200)]);
    let whole = stated(&records, &[one(1)], &[old.clone(), new.clone()]).account;
    assert_eq!((whole.parts.len(), whole.fee_minor), (1, 500));
    // From before the first terms on, and up to the day: nothing is without terms.
    let early = Terms { version: 3, effective_from: at(-5), share_ppm: 250_000, ..all_of_it() };
    let all = calendar(&[one(3)], &[old, new, early]).unwrap().remove(0).parts;
    let cuts: Vec<_> = all.iter().map(|part| (part.from, part.until, part.terms.version)).collect();
    assert_eq!(cuts, [(UnixMicros(i64::MIN), at(-5), 1), (at(-5), at(30), 3)], "a newer version goes before older ones");
    assert!(calendar(&[one(0)], &[terms()]).is_err(), "a closing under no terms");
}

#[test]
fn a_late_record_that_changes_a_carried_shortfall_changes_the_next_period_too() {
    let carrying = Terms { baseline_ppm: 1_000_000, share_ppm: 1_000_000, carry_shortfall: true, horizon_days: 36_500, ..terms() };
    let records = [
        spend(0, 1, 3_000_000_000),
        acquired(1, 2, 1, 1_000_000), // 2.00 short
        spend(3, 31, 1_000_000_000),
        acquired(4, 32, 2, 9_000_000), // 8.00 above
        acquired(6, 3, 3, 1_500_000),  // late, of the first period: 0.50 short
    ];
    let closings = [closing(0, 2), closing(1, 5), closing(2, 8)];
    let at = |i: usize| stated(&records, &closings[..=i], std::slice::from_ref(&carrying));
    assert_eq!((at(0).account.fee_minor, at(1).account.fee_minor), (0, 600));
    let third = at(2);
    let [change] = &third.changes[..] else { panic!("{third:?}") };
    assert_eq!((change.period.closing.span, change.reasons[..].to_vec()), (closings[1].span, vec![Reason::CarriedShortfall]));
    assert_eq!((change.before.fee_minor, change.after.fee_minor), (600, 750));
}

#[test]
fn a_minimum_is_owed_by_who_did_nothing_and_each_campaign_nets_as_the_terms_say() {
    let least = Terms { minimum_minor: 700, ..terms() };
    let idle = stated(&[], &[closing(0, 1)], std::slice::from_ref(&least)).account;
    assert_eq!((idle.fee_minor, idle.is_empty()), (700, false));
    let each = Terms { netting: Netting::Campaign, ..all_of_it() };
    let mut other = acquired(1, 1, 1, -4_000_000);
    other.entry = Entry::Acquired { campaign: "d".into(), customer: CustomerKey([1; 16]), predicted_micros: -4_000_000 };
    let records = [spend(0, 1, 1), other, acquired(2, 2, 2, 6_000_000)];
    assert_eq!(stated(&records, &[closing(0, 9)], &[each]).account.fee_minor, 600);
    assert_eq!(stated(&records, &[closing(0, 9)], &[all_of_it()]).account.fee_minor, 200);
}

#[test]
fn a_line_of_many_leaves_says_how_many() {
    let leaves: Leaves = (0..LEAVES_LISTED_MAX).rev().collect();
    assert_eq!((leaves.count, leaves.ranges()), (1_000, vec![[0, 999]]));
    let mut more = leaves.clone();
    more.merge(&[5_000].into_iter().collect());
    assert_eq!((more.count, more.ranges()), (1_001, vec![]));
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

/// What each closing's documents bill: its invoice, and the differences on its notes.
fn documents(records: &[Record], closings: &[Closing], terms: &[Terms]) -> Vec<Vec<i128>> {
    let of = |i: usize| {
        let Statement { account, changes, .. } = stated(records, &closings[..=i], terms);
        let notes = changes.iter().map(|change| change.after.fee_minor - change.before.fee_minor);
        std::iter::once(account.fee_minor).chain(notes).collect()
    };
    (0..closings.len()).map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_client_that_changes_its_zone_and_terms_has_each_instant_billed_exactly_once(
        zones in prop::collection::vec(0..ZONES.len(), 121),
        // Within a day of a month's end in some zone, to the microsecond, or anywhere; and how much later it was recorded.
        records in prop::collection::vec((0..120_usize, 0..ZONES.len(), prop_oneof![-DAY..DAY, -2..3_i64, -30 * DAY..0], 0..70 * DAY), 1..30),
        changes in prop::collection::vec((0..120_usize, prop_oneof![-2..3_i64, -30 * DAY..0]), 0..4),
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
        let seq_at = |end: UnixMicros| times.iter().filter(|(recorded, _)| *recorded < end.0).count() as u64 * 2;
        // Each acquires a customer whose value is a bit of its own, and spends: value without spend is not billed.
        let mut records: Vec<Record> = (0_u64..).zip(&times).flat_map(|(i, (_, at))| {
            let of = |record| Record { at: UnixMicros(*at), ..record };
            [of(spend(2 * i, 0, 1)), of(acquired(2 * i + 1, 0, i as u8, 10_000 << i))]
        }).collect();
        // A month behind them all, by when the last has come.
        let closings = ten_years(&zones, |end| if end >= start(120, 0) { 2 * times.len() as u64 } else { seq_at(end) });
        let terms: Vec<Terms> = std::iter::once(all_of_it()).chain((2..).zip(&changes).map(|(version, (month, off))| {
            Terms { version, effective_from: UnixMicros(start(*month, 2).0 + off), ..all_of_it() }
        })).collect();
        let billed = documents(&records, &closings, &terms);
        // A document adds bits: all of them are billed, and none twice.
        let all = || billed.iter().flatten();
        prop_assert_eq!(all().sum::<i128>(), (1_i128 << times.len()) - 1);
        prop_assert_eq!(all().fold(0, |all, bits| all | bits), (1_i128 << times.len()) - 1);
        let middle = order.index(records.len());
        records.rotate_left(middle);
        records.reverse();
        prop_assert_eq!(documents(&records, &closings, &terms), billed, "their order changes nothing");
    }

    #[test]
    fn the_documents_of_a_period_add_up_to_its_fee_as_known_last(
        // Day of accounting, day of recording behind it, customer, amount; spend, acquisition or value.
        raw in prop::collection::vec((0..150_i64, 0..90_i64, 0..6_u8, -3_000_000..9_000_000_i64, 0..3_u8), 1..40),
        carry_shortfall in any::<bool>(),
        by_campaign in any::<bool>(),
        bounds in prop_oneof![Just((0, 0)), Just((500, 0)), Just((0, 900)), Just((500, 900))],
    ) {
        let netting = if by_campaign { Netting::Campaign } else { Netting::Client };
        let (minimum_minor, cap_minor) = bounds;
        let terms = [Terms { horizon_days: 45, netting, carry_shortfall, minimum_minor, cap_minor, ..terms() }];
        let mut raw = raw;
        raw.sort_by_key(|(day, late, ..)| day + late);
        let mut known = std::collections::BTreeSet::new();
        let records: Vec<Record> = (0..).zip(&raw).map(|(leaf, (day, _, customer, amount, kind))| match kind {
            0 => spend(leaf, *day, *amount * 100),
            1 if known.insert(*customer) => acquired(leaf, *day, *customer, amount.abs()),
            _ => value(leaf, *day, *customer, *amount),
        }).collect();
        let seq = |day: i64| raw.iter().filter(|(at, late, ..)| at + late < day).count() as u64;
        let closings: Vec<Closing> = (0..9).map(|i| closing(i, seq((i + 1) * 30))).collect();
        let total: i128 = documents(&records, &closings, &terms).iter().flatten().sum();
        let periods = calendar(&closings, &terms).unwrap();
        let last = closings.last().unwrap();
        let books = Books::of(&periods, last.last_seq, records.iter());
        let known_last = accounts(&periods, &books).unwrap();
        prop_assert_eq!(total, known_last.iter().map(|account| account.fee_minor).sum::<i128>());
        for account in known_last {
            let fees: i128 = account.parts.iter().map(|part| part.fees.fee_minor).sum();
            prop_assert_eq!(account.fee_minor, fees + account.bound.map_or(0, |bound| bound.amount_minor));
            prop_assert!(account.fee_minor >= minimum_minor.into() && (cap_minor == 0 || account.fee_minor <= cap_minor.into()));
        }
    }
}
