//! Bundles with a sample: an honest one passes, and what the sheets say otherwise than the leaves is found and named.

use billing::bundle::{encode_sheets, sheets_sha256};
use billing::domain::accounting::{Period, calendar};
use billing::domain::bundle::Sample;
use billing::domain::bundle::sample::{drawn, draws, sheet_size};
use billing::domain::bundle::sheets::{Figures, Holds, Sheet, Sheets, Totals, Writer};
use billing::domain::record::{Entry, Record};
use kiki::ids::CustomerKey;

use super::*;

/// Records of a sheet: few, so that there are several.
const PER_SHEET: usize = 3;

/// Acme's periods, and its books in sheets.
fn sheets(log: &Log) -> (Vec<Period>, Sheets) {
    let (mut closings, mut terms, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for (header, body) in own(log) {
        match &body {
            Body::PeriodClosed(closed) => closings.push(Closing::of(&header, closed).unwrap()),
            Body::Terms(body) => terms.push(Terms::of(header.index, body).unwrap()),
            _ => records.extend(record::of(&header, &body).unwrap()),
        }
    }
    let periods = calendar(&closings, &terms).unwrap();
    let customer = |record: &Record| match record.entry {
        Entry::Spend { .. } => None,
        Entry::Acquired { customer, .. } | Entry::Value { customer, .. } => Some(customer),
    };
    records.retain(|record| record.client_seq <= closings.last().unwrap().last_seq);
    records.sort_by_key(|record| (customer(record), record.client_seq));
    let mut writer = Writer::new(&periods);
    let (spend, customers): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| customer(record).is_none());
    spend.chunks(PER_SHEET).for_each(|sheet| writer.add(sheet));
    customers.chunk_by(|a, b| customer(a) == customer(b)).for_each(|sheet| writer.add(sheet));
    let sheets = writer.finish();
    (periods, sheets)
}

/// Issues a document of the last closing that is proven by sheets, as `bend` left them, and gives its bundle.
fn sampled(log: &mut Log, mut document: Invoice, corrects_seq: u64, bend: impl FnOnce(&mut Sheets)) -> Bundle {
    let mut sheets = sheets(log).1;
    bend(&mut sheets);
    let sha256 = sheets_sha256(&encode_sheets(&sheets));
    document.completeness.sheets_sha256 = Some(hex::encode(sha256));
    document.line_items.iter_mut().for_each(|line| line.leaves.clear());
    let total_minor = i64::try_from(document.total_invoice_amount.units()).unwrap();
    let (kind, number) = (document.kind.to_leaf().into(), document.invoice_id.clone());
    let document = document.to_json();
    let document_sha256 = Sha256::digest(&document).to_vec().into();
    issue_as(log, leaf::Invoice { number, document_sha256, total_minor, kind, corrects_seq, ..Default::default() });
    let sample = Sample { sheets, sha256, challenge: b"a client's own".to_vec() };
    let drawn = drawn(&sample.sheets, &document, &sample.challenge);
    let hidden = |index| {
        let (header, body) = leaf::decode(&log.leaves[index as usize]).unwrap();
        match record::of(&header, &body).unwrap() {
            Some(record) => sample.sheets.of(&record).is_none_or(|at| !drawn.contains(&at)),
            None => matches!(body, Body::LeaseGranted(_) | Body::Decisions(_)),
        }
    };
    let bundle = bundle(log, &document, hidden);
    Bundle { sample: Some(sample), ..bundle }
}

/// January's invoice by sample.
fn january(bend: impl FnOnce(&mut Sheets)) -> (Log, Bundle) {
    let mut log = month(|_| {});
    let document = invoice(&log);
    let bundle = sampled(&mut log, document, 0, bend);
    (log, bundle)
}

#[test]
fn an_invoice_by_sample_has_the_figures_of_one_by_all_leaves() {
    let (log, bundle) = january(|_| {});
    let report = verify_bundle(&encode(bundle.clone()), &log.public()).unwrap();
    assert_eq!(report.invoice.total_invoice_amount.to_string(), "5.70");
    let seen = report.sampled.unwrap();
    assert_eq!((seen.sheets, seen.records), ((8, 8), (18, 18)), "so few are all drawn");
    assert_eq!(seen.draws, 149);
    assert!((report.leaves as usize) < honest().1.leaves.len(), "leases are not shown");
    assert_eq!(decode(&encode(bundle.clone())), Ok(bundle));
}

#[test]
fn a_note_by_sample_has_both_figures() {
    let mut log = noted(|_| {}).0;
    log.bill("acme", "spring", JANUARY + 22 * DAY, ONE, 71, 9_000_000);
    log.purchase("acme", JANUARY + 23 * DAY, 71, 5_000_000);
    log.close("acme", "2026-03", FEBRUARY + 28 * DAY, FEBRUARY + 59 * DAY);
    let (note, corrects_seq) = documents(&log).remove(1);
    let bundle = sampled(&mut log, Invoice { invoice_id: "K2026-D000002".into(), ..note }, corrects_seq, |_| {});
    let report = verify_bundle(&encode(bundle), &log.public()).unwrap();
    let corrects = report.invoice.corrects.unwrap();
    assert_eq!((corrects.amount_before.to_string().as_str(), corrects.amount_after.to_string().as_str()), ("6.50", "7.10"));
}

/// Every number of a sheet.
fn numbers(figures: &mut Figures) -> Vec<Box<dyn FnMut() + '_>> {
    let Figures { records, totals, lines } = figures;
    let Totals { settled_nanos, settlements, conversions, outcome_micros, outcomes } = totals;
    let mut all: Vec<Box<dyn FnMut() + '_>> = Vec::new();
    for count in [records, settlements, conversions, outcomes] {
        all.push(Box::new(|| *count += 1));
    }
    for amount in [settled_nanos, outcome_micros] {
        all.push(Box::new(|| *amount += 1));
    }
    for line in lines {
        all.push(Box::new(|| line.spend_nanos += 1));
    }
    all
}

#[test]
fn every_number_of_a_sheet_is_checked() {
    let of = |sheet: &mut Sheet| numbers(&mut sheet.before).len() + numbers(&mut sheet.added).len();
    let counts: Vec<usize> = sheets(&month(|_| {})).1.sheets.iter_mut().map(of).collect();
    assert_eq!(counts.len(), 8);
    for (at, count) in counts.into_iter().enumerate() {
        for number in 0..count {
            let (log, bundle) = january(|sheets| {
                let Sheet { before, added, .. } = &mut sheets.sheets[at];
                numbers(before).into_iter().chain(numbers(added)).nth(number).unwrap()();
            });
            let found = findings(&log, bundle);
            assert!(found.iter().any(|f| f.place == Place::Sheet(at)), "number {number} of sheet {at}: {found:?}");
        }
    }
}

#[test]
fn a_line_that_is_moved_to_another_campaign_period_or_figure_is_found() {
    type Bend = fn(&mut Sheets);
    let bends: [Bend; 6] = [
        |s| s.campaigns.swap(0, 1),
        |s| s.sheets[0].added.lines[0].campaign ^= 1,
        |s| s.sheets[3].added.lines[0].predicted_nanos += 1,
        |s| s.sheets[3].added.lines[0].realised_nanos += 1,
        |s| s.sheets[3].added.lines.clear(),
        |s| s.sheets[3].added.lines[0].period = 7,
    ];
    for (i, bend) in bends.into_iter().enumerate() {
        let (log, bundle) = january(bend);
        let found = findings(&log, bundle);
        assert!(found.iter().any(|f| matches!(f.place, Place::Sheet(_) | Place::Leaf(_) | Place::File)), "bend {i}: {found:?}");
    }
}

#[test]
fn money_that_is_left_out_or_told_twice_is_not_what_the_closing_says() {
    type Bend = fn(&mut Sheets);
    let bends: [Bend; 3] = [|s| drop(s.sheets.pop()), |s| drop(s.sheets.remove(0)), |s| s.sheets[7].holds = s.sheets[6].holds];
    for (i, bend) in bends.into_iter().enumerate() {
        let (log, bundle) = january(bend);
        let found = findings(&log, bundle);
        let named = found.iter().any(|f| f.place == Place::Sheets || f.place == Place::Sheet(7));
        assert!(named, "bend {i}: {found:?}");
    }
    let (log, bundle) = january(|s| s.sheets.swap(0, 1));
    assert!(named(&findings(&log, bundle), &Place::Sheet(1), "does not follow"));
}

#[test]
fn a_leaf_of_a_sheet_that_was_drawn_is_missed_and_one_of_no_sheet_is_named() {
    let (log, honest) = january(|_| {});
    let is_spend = |leaf: &BundleLeaf| matches!(leaf::decode(&leaf.leaf).unwrap().1, Body::Settlements(_));
    let at = honest.leaves.iter().position(is_spend).unwrap();
    let without = |at: usize| {
        let gone = honest.leaves[at].index;
        let shown: Vec<u64> = honest.leaves.iter().map(|leaf| leaf.index).collect();
        Bundle { sample: honest.sample.clone(), ..bundle(&log, &honest.invoice_json, |index| index == gone || !shown.contains(&index)) }
    };
    assert!(named(&findings(&log, without(at)), &Place::Sheet(0), "added: says 3 records"));

    let mut log = month(|_| {});
    let late = log.bill("acme", "spring", JANUARY, ONE, 1, 0);
    let document = invoice(&log);
    let made = sampled(&mut log, document, 0, |_| {});
    let shown: Vec<u64> = made.leaves.iter().map(|leaf| leaf.index).collect();
    let more = bundle(&log, &made.invoice_json, |index| index != late && !shown.contains(&index));
    let found = findings(&log, Bundle { sample: made.sample, ..more });
    assert!(named(&found, &Place::Leaf(late), "is of no sheet that was drawn"), "{found:?}");
}

#[test]
fn sheets_and_document_belong_together() {
    let field = Place::Field("completeness.sheets_sha256".into());
    let (log, bundle) = january(|_| {});
    let mut other = bundle.clone();
    other.sample.as_mut().unwrap().sheets.sheets[0].added.records += 1;
    assert!(named(&findings(&log, other), &field, "is \""));
    let (log, whole) = honest();
    let found = findings(&log, Bundle { sample: bundle.sample.clone(), ..whole });
    assert!(found.iter().any(|f| f.place == field && f.problem.contains("is null")), "{found:?}");
    let found = findings(&log, Bundle { sample: None, ..bundle });
    assert!(!found.is_empty());
}

/// So many sheets of a record each, whose spend is `nanos` by number.
fn a_record_each(count: u64, nanos: impl Fn(u64) -> i128) -> Sheets {
    let figures = |number| Figures { records: 1, totals: Totals { settled_nanos: nanos(number), ..Totals::default() }, lines: Vec::new() };
    let sheet = |number| Sheet { holds: Holds::Spend { first: number, last: number }, before: Figures::default(), added: figures(number) };
    Sheets { campaigns: Vec::new(), sheets: (0..count).map(sheet).collect() }
}

#[test]
fn what_is_much_of_the_money_is_drawn_though_it_is_few_records() {
    let sheets = a_record_each(100_000, |number| if number == 77 { 40_000 } else { 1 });
    // Some 29 % of the money: nothing of it in 149 draws has a probability of 10^-22.
    for document in 0..50_u8 {
        assert!(drawn(&sheets, &[document], b"").contains(&77));
    }
}

#[test]
fn who_sends_another_challenge_draws_another_sample() {
    let sheets = a_record_each(100_000, |_| 1);
    let first = drawn(&sheets, b"d", b"");
    assert_eq!(drawn(&sheets, b"d", b""), first);
    // By records and by spend; there are no customers.
    assert!((285..=298).contains(&first.len()), "{}", first.len());
    for other in [drawn(&sheets, b"e", b""), drawn(&sheets, b"d", b"x")] {
        assert!(other.intersection(&first).count() < 20);
    }
}

#[test]
fn a_sample_is_bounded_however_many_records_there_are() {
    let opened = |records| 3 * draws(records) * sheet_size(records);
    assert_eq!((sheet_size(1_000_000), draws(1_000_000)), (256, 149));
    assert_eq!((sheet_size(10_000_000), draws(10_000_000)), (611, 130));
    assert_eq!((sheet_size(100_000_000), draws(100_000_000)), (6_104, 13));
    assert!([1, 1_000_000, 10_000_000, 100_000_000].into_iter().all(|records| opened(records) <= 240_000));
    assert!(drawn(&Sheets::default(), b"", b"").is_empty(), "of nothing nothing is drawn");
}

#[test]
fn a_sheet_that_says_what_its_records_cannot_come_to_is_found_unseen() {
    type Bend = fn(&mut Sheet);
    let bends: [(usize, Bend, &str); 8] = [
        (0, |s| s.added = Figures::default(), "has no records"),
        (0, |s| s.before.totals.outcomes = 1, "says something of no records"),
        (0, |s| s.added.totals.outcomes = 1, "of spend says something of customers"),
        (0, |s| s.added.lines[0].realised_nanos = 1, "of spend says something of customers"),
        (0, |s| s.added.lines[0].counted = 99, "has more records than there are"),
        (3, |s| s.added.totals.settled_nanos = 1, "of customers says something of spend"),
        (3, |s| s.added.totals.outcomes += 1, "of customers says something of spend"),
        (3, |s| s.added.lines[0].valued = 99, "counts more leaves than there are"),
    ];
    for (at, bend, problem) in bends {
        let (log, bundle) = january(|sheets| bend(&mut sheets.sheets[at]));
        assert!(named(&findings(&log, bundle), &Place::Sheet(at), problem), "{problem}");
    }
}

#[test]
fn leaves_that_do_not_follow_each_other_are_named() {
    let (log, mut bundle) = january(|_| {});
    let leaves = bundle.leaves.len();
    bundle.leaves.swap(leaves - 3, leaves - 4);
    assert!(findings(&log, bundle).iter().any(|f| f.problem.contains("runs back")));
}

#[test]
fn a_customers_sheet_is_found_by_its_key() {
    let sheets = sheets(&month(|_| {})).1;
    let key = CustomerKey([9; 16]);
    let entry = Entry::Value { customer: key, micros: 1 };
    let stranger = Record { leaf: 0, client: "acme".into(), client_seq: 1, currency: "USD".into(), at: UnixMicros(0), entry };
    assert_eq!(sheets.of(&stranger), None);
}
