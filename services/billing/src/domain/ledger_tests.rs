#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Balances after an invoice and events, of which those that do not apply are left out.
fn books(fee: i64, tax: i64, events: &[Event]) -> BTreeMap<Account, i64> {
    let (mut standing, mut balances) = (Standing::issued(fee + tax, tax), BTreeMap::new());
    let mut post = |entries: Vec<Entry>| {
        balanced("entries", entries.iter().map(|entry| entry.amount_minor)).unwrap();
        for entry in entries {
            let balance = balances.entry(entry.account).or_insert(0);
            *balance = added(*balance, entry).unwrap();
        }
        balanced("accounts", balances.values().copied()).unwrap();
    };
    post(issued(fee, tax).unwrap());
    for event in events {
        if let Ok(next) = standing.apply(*event) {
            post(moved(&standing, tax, *event).unwrap());
            standing = next;
        }
    }
    balances.retain(|_, balance| *balance != 0);
    balances
}

#[test]
fn each_event_moves_what_it_should() {
    use Account::{BadDebt, Cash, Receivable, Revenue, TaxPayable};
    let of = |events: &[Event]| books(100, 19, events).into_iter().collect::<Vec<_>>();
    assert_eq!(of(&[]), [(Receivable, 119), (Revenue, -100), (TaxPayable, -19)]);
    assert_eq!(of(&[Event::Sent, Event::Disputed]), of(&[]));
    assert_eq!(of(&[Event::Paid(119)]), [(Revenue, -100), (TaxPayable, -19), (Cash, 119)]);
    assert_eq!(of(&[Event::Paid(19), Event::WrittenOff]), [(Revenue, -100), (TaxPayable, -19), (Cash, 19), (BadDebt, 100)]);
    let credit = Event::Credited { net_minor: 50, tax_minor: 10, settles: false };
    assert_eq!(of(&[credit]), [(Receivable, 59), (Revenue, -50), (TaxPayable, -9)]);
    assert_eq!(of(&[Event::Paid(119), credit]), [(Revenue, -50), (TaxPayable, -9), (Cash, 119), (Account::ClientCredit, -60)]);
    assert_eq!(of(&[Event::Voided]), []);
    assert_eq!(books(0, 0, &[Event::Voided]), BTreeMap::new());
}

#[test]
fn a_credit_note_comes_off_what_is_open_and_the_rest_is_the_clients() {
    let sent = Standing::issued(119, 19);
    let moves = |before: Option<&Standing>, applied| {
        let entries = credited(before, applied, 100, 19).unwrap();
        balanced("entries", entries.iter().map(|entry| entry.amount_minor)).unwrap();
        entries.into_iter().map(|entry| (entry.account, entry.amount_minor)).collect::<Vec<_>>()
    };
    let revenue_and_tax = [(Account::Revenue, 100), (Account::TaxPayable, 19)];
    let with = |rest: &[(Account, i64)]| [&revenue_and_tax[..], rest].concat();
    assert_eq!(moves(Some(&sent), 119), with(&[(Account::Receivable, -119)]));
    assert_eq!(moves(Some(&sent), 20), with(&[(Account::Receivable, -20), (Account::ClientCredit, -99)]));
    assert_eq!(moves(None, 0), with(&[(Account::ClientCredit, -119)]));
    let written_off = sent.apply(Event::WrittenOff).unwrap();
    assert_eq!(moves(Some(&written_off), 119), with(&[(Account::BadDebt, -119)]));
}

#[test]
fn what_does_not_add_up_is_named() {
    let sum = balanced("entries", [1, -2]).unwrap_err();
    assert_eq!(sum.to_string(), "the ledger's entries sum to -1 and not to 0");
    assert!(balanced("entries", [i64::MAX, i64::MAX, -i64::MAX, -i64::MAX]).is_ok(), "sums are of 128 bits");
    let full = added(i64::MAX, Entry { account: Account::Cash, amount_minor: 1 }).unwrap_err();
    assert_eq!(full.to_string(), "the ledger's account cash would be at 9223372036854775808, which is more than 64 bits");
    assert!(issued(i64::MAX, 1).is_err() && issued(i64::MAX, 0).is_ok());
}

#[test]
fn accounts_are_found_by_their_names() {
    for account in Account::ALL {
        assert_eq!(Account::named(account.name()), Some(account));
    }
    assert_eq!(Account::named("petty_cash"), None);
}

proptest! {
    #[test]
    fn the_trial_balance_is_zero_after_every_operation_and_what_is_open_is_receivable(
        fee in -1_000_i64..1_000,
        tax_percent in 0_i64..100,
        events in proptest::collection::vec(prop_oneof![
            Just(Event::Sent), (1_i64..400).prop_map(Event::Paid), Just(Event::Disputed), Just(Event::Voided), Just(Event::WrittenOff),
            (1_i64..400, 0_i64..40).prop_map(|(net_minor, tax_minor)| Event::Credited { net_minor, tax_minor, settles: false }),
        ], 0..20),
    ) {
        let tax = fee * tax_percent / 100;
        let (balances, total) = (books(fee, tax, &events), fee + tax);
        let standing = events.iter().fold(Standing::issued(total, tax), |standing, event| standing.apply(*event).unwrap_or(standing));
        if total >= 0 {
            prop_assert_eq!(balances.get(&Account::Receivable).copied().unwrap_or(0), standing.open_minor());
        }
        prop_assert_eq!(balances.get(&Account::Cash).copied().unwrap_or(0), standing.paid_minor);
    }
}
