#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const CREDIT: Event = Event::Credited { net_minor: 10, tax_minor: 0, settles: false };
const ALL: [Event; 7] = [Event::Sent, Event::Paid(40), Event::Disputed, Event::Resolved, Event::Voided, Event::WrittenOff, CREDIT];

fn after(events: &[Event]) -> Standing {
    events.iter().try_fold(Standing::issued(100, 0), |standing, event| standing.apply(*event)).unwrap()
}

#[test]
fn each_stage_allows_what_the_table_says_and_names_it_where_it_refuses() {
    let stages: [(&[Event], &str, &[Kind]); 7] = [
        (&[], "finalized", &[Kind::Send, Kind::Pay, Kind::Dispute, Kind::Void, Kind::WriteOff, Kind::Credit]),
        (&[Event::Sent], "sent", &[Kind::Send, Kind::Pay, Kind::Dispute, Kind::Void, Kind::WriteOff, Kind::Credit]),
        (&[Event::Paid(60)], "partly paid", &[Kind::Send, Kind::Pay, Kind::Dispute, Kind::WriteOff, Kind::Credit]),
        (
            &[Event::Paid(60), Event::Disputed],
            "partly paid and disputed",
            &[Kind::Send, Kind::Pay, Kind::Resolve, Kind::WriteOff, Kind::Credit],
        ),
        (&[Event::Paid(60), Event::Paid(40)], "paid", &[Kind::Dispute, Kind::Credit]),
        (&[Event::Disputed, Event::Voided], "void", &[]),
        (&[Event::Paid(1), Event::WrittenOff], "written off", &[]),
    ];
    for (events, name, allowed) in stages {
        let standing = after(events);
        assert_eq!(standing.allowed(), allowed, "{name}");
        for event in ALL {
            match standing.apply(event) {
                Ok(_) => assert!(allowed.contains(&event.kind()), "{name} took {event:?}"),
                Err(refused) => {
                    assert!(!allowed.contains(&event.kind()), "{refused}");
                    assert!(refused.to_string().contains(&format!("the invoice is {name}, which allows")), "{refused}");
                }
            }
        }
    }
    let refused = after(&[Event::Paid(100)]).apply(Event::Voided).unwrap_err();
    assert_eq!(refused.to_string(), "voiding is refused: the invoice is paid, which allows a dispute, a credit");
}

#[test]
fn no_more_is_paid_than_is_open() {
    let refused = after(&[Event::Paid(60)]).apply(Event::Paid(41)).unwrap_err();
    assert_eq!(refused.to_string(), "amount_minor: 41 is above the open amount of 40");
    for amount in [0, -1, i64::MIN] {
        assert!(matches!(after(&[]).apply(Event::Paid(amount)), Err(Refused::NoAmount { .. })));
    }
    assert!(after(&[]).apply(Event::Paid(i64::MAX)).is_err());
    assert_eq!(after(&[Event::Paid(60), Event::Paid(40)]).open_minor(), 0);
}

#[test]
fn an_invoice_of_nothing_is_neither_paid_nor_overdue() {
    let nothing = Standing::issued(0, 0);
    assert_eq!(nothing.allowed(), [Kind::Send, Kind::Dispute, Kind::Void]);
    assert!(!nothing.overdue("2026-03-20", "2027-01-01"));
}

#[test]
fn a_credit_note_takes_off_what_is_open_and_no_more() {
    let (part, applied) = after(&[Event::Sent]).credited(30, 0);
    assert_eq!((applied, part.open_minor(), part.stage), (30, 70, Stage::Sent));
    assert!(!part.allowed().contains(&Kind::Void));
    let (rest, applied) = part.apply(Event::Paid(60)).unwrap().credited(30, 0);
    assert_eq!((applied, rest.open_minor(), rest.stage), (10, 0, Stage::Paid));
    assert_eq!(after(&[Event::Paid(100)]).credited(30, 0).1, 0, "what was paid is owed back");
    assert_eq!(after(&[Event::Voided]).credited(30, 0), (after(&[Event::Voided]), 0));
    let (written_off, applied) = after(&[Event::Paid(90), Event::WrittenOff]).credited(30, 0);
    assert_eq!((applied, written_off.stage, written_off.open_minor()), (10, Stage::WrittenOff, 0));
    let note = Standing::issued(Standing::total_of(kiki::leaf::DocumentKind::CreditNote, 30), 0);
    assert_eq!((note.open_minor(), note.allowed()), (0, vec![Kind::Send]), "nobody pays a credit note");
}

#[test]
fn no_more_is_credited_than_was_billed_before_tax_whatever_is_paid_of_it() {
    let taxed = Standing::issued(119, 19);
    let credit = |standing: &Standing, net_minor, tax_minor| standing.apply(Event::Credited { net_minor, tax_minor, settles: false });
    let part = credit(&taxed, 60, 11).unwrap();
    assert_eq!((part.stage, part.open_minor(), part.creditable_minor), (Stage::Finalized, 48, 40));
    assert!(!part.allowed().contains(&Kind::Void), "what was credited would be taken back");
    let words = "amount_minor: 41 is above the 40 before tax that was billed and no credit note gave back";
    assert_eq!(credit(&part, 41, 8).unwrap_err().to_string(), words);
    assert_eq!(credit(&part, 0, 0), Err(Refused::NoAmount { amount_minor: 0 }));
    let all = credit(&part, 40, 8).unwrap();
    assert_eq!((all.stage, all.open_minor(), all.creditable_minor), (Stage::Paid, 0, 0));
    assert!(!all.allowed().contains(&Kind::Credit));
    // Of what is paid it is owed to the client; a note on the period counts as given back too.
    let paid = taxed.apply(Event::Paid(119)).unwrap();
    let (noted, _) = paid.credited(70, 13);
    assert_eq!((noted.stage, noted.creditable_minor), (Stage::Paid, 30));
    assert_eq!(credit(&noted, 30, 6).unwrap().stage, Stage::Paid);
    assert!(matches!(credit(&noted, 31, 6), Err(Refused::AboveBilled { .. })));
    let note = Standing::issued(-119, 19);
    assert!(credit(&note, 1, 0).is_err(), "nobody credits a credit note");
}

#[test]
fn a_credit_ends_the_dispute_that_it_settles() {
    let settled = Event::Credited { net_minor: 10, tax_minor: 0, settles: true };
    assert_eq!(after(&[]).apply(settled), Err(Refused::NotDisputed));
    assert!(!after(&[Event::Disputed, settled]).disputed);
    assert!(after(&[Event::Disputed, CREDIT]).disputed, "it says nothing of the dispute");
    let credited = leaf::InvoiceCredited { dispute_key: "d-1".into(), ..Default::default() };
    let event = |event| leaf::InvoiceEvent { number: "K2026-000001".into(), event: Some(event), ..Default::default() };
    let credit = event(invoice_event::Event::Credited(credited));
    let dispute = event(invoice_event::Event::Disputed(leaf::InvoiceDisputed::default()));
    assert_eq!(settles(&credit, Some(&dispute)), Ok(()));
    let elsewhere = leaf::InvoiceEvent { number: "K2026-000002".into(), ..dispute };
    for named in [None, Some(&elsewhere), Some(&credit)] {
        assert_eq!(settles(&credit, named), Err(Refused::NoDispute { key: "d-1".into() }));
    }
}

#[test]
fn what_is_open_after_the_due_date_is_overdue() {
    let sent = after(&[Event::Sent]);
    assert!(!sent.overdue("2026-03-20", "2026-03-20"));
    assert!(sent.overdue("2026-03-20", "2026-03-21"));
    assert!(!after(&[Event::Paid(100)]).overdue("2026-03-20", "2026-03-21"));
    assert!(!after(&[Event::WrittenOff]).overdue("2026-03-20", "2026-03-21"));
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        Just(Event::Sent),
        (-5_i64..130).prop_map(Event::Paid),
        Just(Event::Disputed),
        Just(Event::Resolved),
        Just(Event::Voided),
        Just(Event::WrittenOff),
    ];
    proptest::collection::vec(event, 0..40)
}

proptest! {
    #[test]
    fn whatever_comes_no_more_is_paid_than_was_invoiced_and_an_end_is_an_end(total in -10_i64..120, events in events()) {
        let mut standing = Standing::issued(total, 0);
        let mut paid = 0;
        for event in events {
            let ended = matches!(standing.stage, Stage::Void | Stage::WrittenOff);
            match standing.apply(event) {
                Ok(next) => {
                    prop_assert!(!ended);
                    if let Event::Paid(amount) = event {
                        paid += amount;
                    }
                    standing = next;
                }
                // The same event is refused again: nothing has changed.
                Err(refused) => prop_assert_eq!(standing.apply(event), Err(refused)),
            }
            prop_assert_eq!(standing.paid_minor, paid);
            prop_assert!(standing.paid_minor <= total.max(0) && standing.open_minor() >= 0);
            prop_assert!(total >= 0 || standing == Standing::issued(total, 0) || standing.stage == Stage::Sent);
            prop_assert_eq!(standing.stage == Stage::Paid, total > 0 && paid == total);
            prop_assert!(standing.stage != Stage::Void || paid == 0);
        }
    }
}
