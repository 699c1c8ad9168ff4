//! The offline check of a bundle: an honest one passes, and every way to bend one is found and named.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "common/log.rs"]
mod log;
#[path = "bundle/sampled.rs"]
mod sampled;

use billing::bundle::{decode, encode};
use billing::domain::accounting::Closing;
use billing::domain::books::{Statement, statement};
use billing::domain::bundle::{Bundle, BundleLeaf};
use billing::domain::invoice::{Completeness, Correction, Decision, Facts, Invoice, Preceding, build};
use billing::domain::record;
use billing::domain::terms::Terms;
use billing::{Finding, Place, verify_bundle};
use kiki::clock::UnixMicros;
use kiki::leaf::{self, invoice_event, leaf::Body};
use kiki::tlog::note::SigningKey;
use kiki::tlog::{Checkpoint, leaf_hash};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use log::{DAY, FEBRUARY, JANUARY, LOG, Log, ONE};

const NUMBER: &str = "K2026-000001";
const ISSUED: i64 = FEBRUARY + DAY;

/// Acme's January among another client's leaves, with evidence for its baseline that is the operator's.
fn month(cut: impl FnOnce(&mut Log)) -> Log {
    let mut log = Log::new();
    let evidence = log.append("kiki", Body::Evidence(leaf::Evidence { title: "before".into(), ..Default::default() }));
    log.terms("acme", |terms| {
        terms.baseline_evidence = Some(leaf::Position { log_id: LOG.into(), index: evidence });
    });
    log.terms("beta", |_| {});
    for i in 0..6 {
        log.bill("acme", if i % 2 == 0 { "spring" } else { "autumn" }, JANUARY + i * DAY, (i + 1) * ONE, i as u8, 20_000_000);
        log.bill("beta", "other", JANUARY, ONE, 1, 0);
        log.purchase("acme", JANUARY + (i + 1) * DAY, i as u8, 5_000_000);
    }
    cut(&mut log);
    log.close("acme", "2026-01", JANUARY, FEBRUARY);
    log
}

fn own(log: &Log) -> Vec<(leaf::Leaf, Body)> {
    log.leaves.iter().map(|bytes| leaf::decode(bytes).unwrap()).filter(|(header, _)| header.client == "acme").collect()
}

/// What the last closing gives, drawn up as the service does: its invoice, and the notes on earlier periods.
fn documents(log: &Log) -> Vec<(Invoice, u64)> {
    let leaves = own(log);
    let records: Vec<_> = leaves.iter().filter_map(|(header, body)| record::of(header, body).unwrap()).collect();
    let closings = leaves.iter().filter_map(|(header, body)| match body {
        Body::PeriodClosed(closed) => Some(Closing::of(header, closed).unwrap()),
        _ => None,
    });
    let terms = leaves.iter().filter_map(|(header, body)| match body {
        Body::Terms(terms) => Some(Terms::of(header.index, terms).unwrap()),
        _ => None,
    });
    let (closings, terms) = (closings.collect::<Vec<_>>(), terms.collect::<Vec<_>>());
    let Statement { period, account, changes } = statement(records.iter(), &closings, &terms).unwrap();
    let size = log.size();
    let closing = period.closing;
    let built = |of: &Closing, account, correction: Option<Correction>| {
        build(Facts {
            invoice_id: if correction.is_some() { "K2026-C000001".into() } else { NUMBER.into() },
            client: "acme".into(),
            month: of.month,
            span: of.span,
            issued_at: UnixMicros(ISSUED),
            account,
            correction,
            completeness: Completeness {
                log_id: LOG.into(),
                first_client_seq: closing.first_seq,
                last_client_seq: closing.last_seq,
                checkpoint_size: size,
                checkpoint_root: hex::encode(log.tree.root_at(size).unwrap()),
                period_closed_leaf: closing.leaf,
                sheets_sha256: None,
            },
        })
        .unwrap()
    };
    let mut documents = vec![(built(&closing, account, None), 0)];
    for change in changes {
        let of = change.period.closing.clone();
        let preceding = Preceding { number: NUMBER.into(), issued_at: UnixMicros(ISSUED) };
        let (account, correction) = Correction::of(change, Some(preceding), closing.month);
        documents.push((built(&of, account, Some(correction)), of.client_seq));
    }
    documents
}

/// The invoice of the last closing.
fn invoice(log: &Log) -> Invoice {
    documents(log).remove(0).0
}

/// Issues a document in the log.
fn issue(log: &mut Log, document: &[u8], total_minor: i64) {
    let document_sha256 = Sha256::digest(document).to_vec().into();
    let kind = leaf::DocumentKind::Invoice.into();
    issue_as(log, leaf::Invoice { number: NUMBER.into(), document_sha256, total_minor, kind, ..Default::default() });
    log.append("beta", Body::Evidence(leaf::Evidence::default()));
}

/// Issues a document of the last closing in the log.
fn issue_as(log: &mut Log, invoice: leaf::Invoice) {
    let closing = own(log).into_iter().rev().find_map(|(header, body)| match body {
        Body::PeriodClosed(closed) => Some((header.client_seq, closed.month)),
        _ => None,
    });
    let (period_closed_seq, month) = closing.unwrap();
    let issued_at = Some(UnixMicros(ISSUED).into());
    log.append("acme", Body::Invoice(leaf::Invoice { currency: "USD".into(), month, issued_at, period_closed_seq, ..invoice }));
}

/// The bundle of a document, without the leaves that `drop` names.
fn bundle(log: &Log, document: &[u8], drop: impl Fn(u64) -> bool) -> Bundle {
    let wanted = |index: &u64| (*index == 0 || log.header(*index).client == "acme") && !drop(*index);
    let indices: Vec<u64> = (0..log.size()).filter(wanted).collect();
    let leaf = |index: &u64| {
        let leaf = log.leaves[*index as usize].clone();
        BundleLeaf { index: *index, hash: leaf_hash(&leaf), leaf }
    };
    Bundle {
        invoice_json: document.to_vec(),
        checkpoint: log.signed(log.size()),
        rotations: log.rotations.clone(),
        leaves: indices.iter().map(leaf).collect(),
        proof: log.tree.multiproof(&indices, log.size()).unwrap(),
        sample: None,
    }
}

fn honest() -> (Log, Bundle) {
    made(|_| {})
}

/// Log and bundle of a month that a careless or dishonest writer cut, everything else consistent.
fn made(cut: impl FnOnce(&mut Log)) -> (Log, Bundle) {
    let mut log = month(cut);
    let invoice = invoice(&log);
    let document = invoice.to_json();
    issue(&mut log, &document, i64::try_from(invoice.total_invoice_amount.units()).unwrap());
    let bundle = bundle(&log, &document, |_| false);
    (log, bundle)
}

fn findings(log: &Log, bundle: Bundle) -> Vec<Finding> {
    verify_bundle(&encode(bundle), &log.public()).expect_err("something is off")
}

fn named(findings: &[Finding], place: &Place, part: &str) -> bool {
    findings.iter().any(|f| f.place == *place && f.problem.contains(part))
}

#[test]
fn an_honest_bundle_passes_and_reports_the_invoice() {
    let (log, bundle) = honest();
    let report = verify_bundle(&encode(bundle.clone()), &log.public()).unwrap();
    // 120 of LTV less 3 x 21 of spend is 57, and 10 % of it 5.70.
    assert_eq!(report.invoice.total_margin_recovered.to_string(), "57.00");
    assert_eq!(report.invoice.total_invoice_amount.to_string(), "5.70");
    assert_eq!((report.leaves, report.checkpoint_size), (bundle.leaves.len() as u64, log.size()));
    assert_eq!(decode(&encode(bundle.clone())), Ok(bundle));
}

#[test]
fn a_credit_lowers_the_spend_and_its_leaf_is_named() {
    let mut credit = 0;
    let (log, bundle) = made(|log| credit = log.adjust("acme", "spring", JANUARY, -ONE));
    let report = verify_bundle(&encode(bundle), &log.public()).unwrap();
    // 120 of LTV less 3 x 20 of spend is 60.
    assert_eq!(report.invoice.total_margin_recovered.to_string(), "60.00");
    let spring = report.invoice.line_items.iter().find(|line| line.campaign_id == "spring").unwrap();
    assert_eq!(spring.client_spend.to_string(), "8.00");
    assert!(spring.leaves.iter().any(|[first, last]| (*first..=*last).contains(&credit)));
}

#[test]
fn a_correction_that_the_closing_left_out_is_found() {
    let adjustment = leaf::SpendAdjustment {
        key: "k".into(),
        campaign: "spring".into(),
        currency: "USD".into(),
        amount_nanos: -ONE,
        accounted_at: Some(UnixMicros(JANUARY).into()),
        ..Default::default()
    };
    let (log, bundle) = made(|log| {
        log.append("acme", Body::SpendAdjustment(adjustment));
    });
    let findings = findings(&log, bundle);
    assert!(findings.iter().any(|f| f.problem.contains("leaves give")), "{findings:?}");
}

#[test]
fn a_bundle_is_verified_across_changes_of_the_logs_key() {
    let first = Log::new().public();
    let (log, bundle) = made(|log| {
        log.rotate(8);
        log.rotate(9);
    });
    assert_ne!(log.public(), first);
    let file = encode(bundle.clone());
    assert!(verify_bundle(&file, &first).is_ok(), "the changes lead from the first key");
    assert!(verify_bundle(&file, &log.public()).is_ok(), "the newest needs none of them");
    let stranger = SigningKey::new(LOG, &[5; 32]).unwrap();
    for (key, rotations) in [(stranger.verifying_key(), bundle.rotations.clone()), (&first, String::new())] {
        let findings = verify_bundle(&encode(Bundle { rotations, ..bundle.clone() }), key).unwrap_err();
        assert_eq!(findings[0].place, Place::Checkpoint, "{findings:?}");
    }
    let at = file.windows(20).rposition(|window| window == &bundle.rotations.as_bytes()[..20]).unwrap();
    for at in at - bundle.rotations.len() / 2..file.len() {
        let mut bent = file.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(verify_bundle(&bent, &first).is_err(), "byte {at} of {}", file.len());
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let (log, bundle) = honest();
    let file = encode(bundle);
    for at in 0..file.len() {
        let mut bent = file.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(verify_bundle(&bent, &log.public()).is_err(), "byte {at} of {}", file.len());
    }
}

#[test]
fn a_changed_leaf_is_named() {
    let (log, mut bundle) = honest();
    let changed = &mut bundle.leaves[5];
    let (index, last) = (changed.index, changed.leaf.len() - 1);
    changed.leaf[last] ^= 1;
    assert!(named(&findings(&log, bundle), &Place::Leaf(index), "its bytes hash to"));
}

#[test]
fn a_leaf_removed_with_its_proof_is_named_by_the_one_behind_it() {
    let (log, full) = honest();
    for dropped in full.leaves.iter().map(|leaf| leaf.index).filter(|index| *index != 0) {
        let without = bundle(&log, &full.invoice_json, |index| index == dropped);
        let findings = findings(&log, without);
        let behind = full.leaves.iter().map(|leaf| leaf.index).find(|index| *index > dropped);
        match behind {
            Some(behind) => assert!(named(&findings, &Place::Leaf(behind), "leaves are missing"), "{dropped}: {findings:?}"),
            // Without the invoice's own leaf nothing issues the document.
            None => assert!(named(&findings, &Place::Field("invoice_id".into()), "does not issue"), "{findings:?}"),
        }
    }
}

#[test]
fn missing_evidence_and_strangers_leaves_are_named() {
    let (log, full) = honest();
    let without = bundle(&log, &full.invoice_json, |index| index == 0);
    assert!(named(&findings(&log, without), &Place::Leaf(0), "evidence"));

    let strange = (0..log.size()).find(|index| log.header(*index).client == "beta").unwrap();
    let mut indices: Vec<u64> = full.leaves.iter().map(|leaf| leaf.index).collect();
    indices.push(strange);
    indices.sort_unstable();
    let mut with = full.clone();
    let leaf = log.leaves[strange as usize].clone();
    with.leaves.push(BundleLeaf { index: strange, hash: leaf_hash(&leaf), leaf });
    with.leaves.sort_by_key(|leaf| leaf.index);
    with.proof = log.tree.multiproof(&indices, log.size()).unwrap();
    assert!(named(&findings(&log, with), &Place::Leaf(strange), "does not concern"));
}

#[test]
fn a_changed_amount_names_the_line_and_both_figures() {
    let (log, mut bundle) = honest();
    let text = String::from_utf8(bundle.invoice_json).unwrap();
    let was = invoice(&log).line_items[0].kiki_invoice_amount.to_string();
    let amount = |amount: &str| format!(r#""kiki_invoice_amount": "{amount}""#);
    bundle.invoice_json = text.replacen(&amount(&was), &amount("9.99"), 1).into_bytes();
    let findings = findings(&log, bundle);
    let line = Place::Line("autumn".into());
    assert!(named(&findings, &line, "9.99") && named(&findings, &line, &was), "{findings:?}");
    assert!(named(&findings, &Place::Field("json".into()), "SHA-256"), "{findings:?}");
}

#[test]
fn an_invoice_that_the_log_vouches_for_but_its_leaves_do_not_give_is_refused() {
    let mut log = month(|_| {});
    let mut false_one = invoice(&log);
    false_one.line_items.remove(0);
    let document = false_one.to_json();
    issue(&mut log, &document, 0);
    let bundle = bundle(&log, &document, |_| false);
    assert!(named(&findings(&log, bundle), &Place::Line("autumn".into()), "is missing from the invoice"));
}

#[test]
fn a_leaf_that_issues_another_total_than_its_document_is_named() {
    let mut log = month(|_| {});
    let document = invoice(&log).to_json();
    let at = log.size();
    issue(&mut log, &document, 571);
    let bundle = bundle(&log, &document, |_| false);
    assert!(named(
        &findings(&log, bundle),
        &Place::Leaf(at),
        "issues DOCUMENT_KIND_INVOICE of 571 and 0 minor units but the log gives DOCUMENT_KIND_INVOICE of 570 and 0 minor units"
    ));
}

#[test]
fn a_consistent_bundle_signed_with_another_key_is_refused() {
    let (log, mut bundle) = honest();
    let other = SigningKey::new(LOG, &[9; 32]).unwrap();
    let size = log.size();
    bundle.checkpoint = Checkpoint { origin: LOG.into(), size, root: log.tree.root() }.sign(&other).unwrap();
    let findings = findings(&log, bundle);
    assert!(findings.iter().any(|f| f.place == Place::Checkpoint), "{findings:?}");
}

#[test]
fn a_conversion_that_attribution_does_not_give_is_named() {
    let mut at = 0;
    let (log, bundle) = made(|log| {
        let conversion = leaf::Conversion {
            event_id: "invented".into(),
            occurred_at: Some(UnixMicros(JANUARY + 9 * DAY).into()),
            customer: vec![77; 16].into(),
            campaign: "spring".into(),
            currency: "USD".into(),
            predicted_ltv_micros: 1_000_000_000,
            ..Default::default()
        };
        at = log.append("acme", Body::Conversion(conversion));
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "attribution does not give"));
}

#[test]
fn a_conversion_of_another_value_or_left_out_is_named() {
    let outcome = |event: &str| leaf::Outcome {
        event_id: event.into(),
        occurred_at: Some(UnixMicros(JANUARY + 9 * DAY).into()),
        customer: vec![50; 16].into(),
        currency: "USD".into(),
        value_micros: 1,
        ..Default::default()
    };
    let mut at = 0;
    let (log, bundle) = made(|log| {
        log.bill("acme", "spring", JANUARY + 8 * DAY, ONE, 50, 3_000_000);
        at = log.append("acme", Body::Outcome(outcome("x")));
        log.append("acme", Body::Evidence(leaf::Evidence::default()));
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "no conversion follows"));

    let (log, bundle) = made(|log| {
        log.bill("acme", "spring", JANUARY + 8 * DAY, ONE, 50, 3_000_000);
        log.append("acme", Body::Outcome(outcome("x")));
        let conversion = leaf::Conversion {
            event_id: "x".into(),
            occurred_at: Some(UnixMicros(JANUARY + 9 * DAY).into()),
            customer: vec![50; 16].into(),
            campaign: "spring".into(),
            currency: "USD".into(),
            predicted_ltv_micros: 300_000_000,
            ..Default::default()
        };
        at = log.append("acme", Body::Conversion(conversion));
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "at 300000000 but attribution gives spring at 3000000"));
}

#[test]
fn a_second_invoice_of_one_closing_is_named_with_the_first() {
    let mut log = month(|_| {});
    let document = invoice(&log).to_json();
    let first = log.size();
    issue(&mut log, &document, 570);
    let second = log.size();
    issue(&mut log, &document, 570);
    let bundle = bundle(&log, &document, |_| false);
    assert!(named(&findings(&log, bundle), &Place::Leaf(second), &format!("again: leaf {first} did already")));
}

/// The decision of the bid for slot 0 of a lease, as `bill` settles it.
fn decided(lease_id: u64, change: impl FnOnce(&mut leaf::Decision)) -> Body {
    let mut decision = leaf::Decision {
        lease_id,
        price_nanos: ONE,
        predicted_ltv_micros: 3_000_000,
        model: "m".into(),
        customer: vec![50; 16].into(),
        ..Default::default()
    };
    change(&mut decision);
    Body::Decisions(leaf::DecisionBatch { decisions: vec![decision], ..Default::default() })
}

/// A settlement with its decision behind it: the lease's and the settlement's index, log and bundle.
fn settled_and_decided(change: impl FnOnce(&mut leaf::Decision)) -> (u64, u64, Log, Bundle) {
    let (mut lease, mut settled) = (0, 0);
    let (log, bundle) = made(|log| {
        lease = log.size();
        settled = log.bill("acme", "spring", JANUARY, ONE, 50, 3_000_000);
        log.append("acme", decided(lease, change));
    });
    (lease, settled, log, bundle)
}

#[test]
fn a_settlement_whose_figures_differ_from_its_decision_is_named() {
    let (_, _, log, bundle) = settled_and_decided(|_| {});
    let report = verify_bundle(&encode(bundle), &log.public()).unwrap();
    assert_eq!(report.settlements_without_decision, 6, "those of the month itself; a decision may come behind");

    let (lease, settled, log, bundle) = settled_and_decided(|decision| decision.predicted_ltv_micros = 2_000_000);
    let problem = format!("slot 0 of lease {lease} is settled with predicted_ltv_micros 3000000 but was decided with 2000000");
    assert!(named(&findings(&log, bundle), &Place::Leaf(settled), &problem));
    let (_, settled, log, bundle) = settled_and_decided(|decision| decision.price_nanos -= 1);
    assert!(named(&findings(&log, bundle), &Place::Leaf(settled), "max_nanos"));
    let (_, settled, log, bundle) = settled_and_decided(|decision| decision.model = "n".into());
    assert!(named(&findings(&log, bundle), &Place::Leaf(settled), "with model m but was decided with n"));
    let (_, settled, log, bundle) = settled_and_decided(|decision| decision.customer = vec![51; 16].into());
    assert!(named(&findings(&log, bundle), &Place::Leaf(settled), "customer"));
    // A refusal holds no slot, whatever its fields say.
    let (_, _, log, bundle) = settled_and_decided(|decision| (decision.refusals, decision.price_nanos) = (2, 7));
    assert_eq!(verify_bundle(&encode(bundle), &log.public()).unwrap().settlements_without_decision, 7);
}

#[test]
fn a_slot_that_is_decided_twice_and_otherwise_is_named() {
    let mut at = 0;
    let (log, bundle) = made(|log| {
        let lease = log.grant("acme", "spring", JANUARY);
        log.append("acme", decided(lease, |_| {}));
        log.append("acme", decided(lease, |_| {}));
        at = log.append("acme", decided(lease, |decision| decision.price_nanos += 1));
    });
    assert_eq!(findings(&log, bundle).iter().map(|f| f.place.clone()).collect::<Vec<_>>(), [Place::Leaf(at)]);
}

#[test]
fn a_settlement_that_is_not_under_its_lease_as_granted_is_named() {
    type Change = fn(&mut leaf::SettlementBatch);
    let changes: [(&str, Change); 5] = [
        ("campaign is not that", |batch| batch.campaign = "autumn".into()),
        ("currency is not that", |batch| batch.currency = "EUR".into()),
        ("granted_at is not that", |batch| batch.granted_at = Some(UnixMicros(JANUARY + 1).into())),
        ("day_start is not that", |batch| batch.day_start = None),
        ("was not granted before", |batch| batch.lease_id += 1_000),
    ];
    for (problem, change) in changes {
        let mut at = 0;
        let (log, bundle) = made(|log| {
            let mut batch = leaf::SettlementBatch {
                lease_id: log.grant("acme", "spring", JANUARY),
                campaign: "spring".into(),
                currency: "USD".into(),
                granted_at: Some(UnixMicros(JANUARY).into()),
                day_start: Some(UnixMicros(JANUARY).into()),
                settlements: vec![leaf::Settlement { price_nanos: ONE, ..Default::default() }],
            };
            change(&mut batch);
            at = log.append("acme", Body::Settlements(batch));
        });
        assert!(named(&findings(&log, bundle), &Place::Leaf(at), problem), "{problem}");
    }
}

#[test]
fn a_lease_that_is_granted_twice_is_named() {
    let mut at = 0;
    let (log, bundle) = made(|log| {
        log.grant("acme", "spring", JANUARY);
        let again = own(log).into_iter().find(|(_, body)| matches!(body, Body::LeaseGranted(_))).unwrap().1;
        at = log.append("acme", again);
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "a second time"));
}

#[test]
fn an_impression_or_outcome_that_counts_twice_is_named() {
    let mut at = 0;
    let (log, bundle) = made(|log| {
        let body = own(log).into_iter().find(|(_, body)| matches!(body, Body::Settlements(_))).unwrap().1;
        at = log.append("acme", body);
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "settled a second time"));
    let (log, bundle) = made(|log| {
        let body = own(log).into_iter().find(|(_, body)| matches!(body, Body::Outcome(_))).unwrap().1;
        at = log.append("acme", body);
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "repeats the outcome"));
}

#[test]
fn totals_that_the_leaves_do_not_give_are_named() {
    // Appended behind the writer's back: the closing's totals do not know it.
    let (log, bundle) = made(|log| {
        let batch = leaf::SettlementBatch {
            lease_id: 9,
            campaign: "spring".into(),
            currency: "USD".into(),
            granted_at: Some(UnixMicros(JANUARY).into()),
            settlements: vec![leaf::Settlement { price_nanos: ONE, ..Default::default() }],
            ..Default::default()
        };
        log.append("acme", Body::Settlements(batch));
    });
    let closed = own(&log).into_iter().find(|(_, body)| matches!(body, Body::PeriodClosed(_))).unwrap().0.index;
    assert!(named(&findings(&log, bundle), &Place::Leaf(closed), "but its client's leaves give"));
}

/// January with its invoice, a purchase of then that came late, February, and the note on January: its leaf's index too.
fn noted(bend: impl FnOnce(&mut leaf::Invoice)) -> (Log, Bundle, u64) {
    let mut log = month(|_| {});
    let january = invoice(&log).to_json();
    issue(&mut log, &january, 570);
    log.bill("acme", "spring", JANUARY + 20 * DAY, ONE, 70, 11_000_000);
    log.purchase("acme", JANUARY + 21 * DAY, 70, 5_000_000);
    log.close("acme", "2026-02", FEBRUARY, FEBRUARY + 28 * DAY);
    let (note, corrects_seq) = documents(&log).remove(1);
    assert_eq!((note.period.as_str(), note.total_invoice_amount.to_string().as_str()), ("2026-01", "0.80"));
    let document = Invoice { invoice_id: "K2026-D000001".into(), ..note }.to_json();
    let mut leaf = leaf::Invoice {
        number: "K2026-D000001".into(),
        document_sha256: Sha256::digest(&document).to_vec().into(),
        total_minor: 80,
        kind: leaf::DocumentKind::DebitNote.into(),
        corrects_seq,
        ..Default::default()
    };
    bend(&mut leaf);
    let at = log.size();
    issue_as(&mut log, leaf);
    let bundle = bundle(&log, &document, |_| false);
    (log, bundle, at)
}

#[test]
fn a_note_verifies_with_both_figures_and_the_invoice_that_it_corrects() {
    let (log, bundle, _) = noted(|_| {});
    let report = verify_bundle(&encode(bundle), &log.public()).unwrap();
    let corrects = report.invoice.corrects.unwrap();
    assert_eq!(corrects.invoice_id.as_deref(), Some(NUMBER));
    assert_eq!((corrects.amount_before.to_string().as_str(), corrects.amount_after.to_string().as_str()), ("5.70", "6.50"));
    let before = report.invoice.line_items[0].before.as_ref().unwrap();
    assert_eq!((report.invoice.line_items[0].campaign_id.as_str(), before.ltv_exact.to_string().as_str()), ("spring", "60.000000000"));
}

/// January with its invoice, a dispute of it, and the credit note by which that was settled.
fn agreed(bend: impl FnOnce(&mut Vec<invoice_event::Event>, &mut leaf::Invoice)) -> (Log, Bundle, u64) {
    let mut log = month(|_| {});
    let january = invoice(&log);
    issue(&mut log, &january.to_json(), 570);
    let of_january = own(&log).pop().unwrap();
    let Body::Invoice(issued) = of_january.1 else { panic!("no invoice") };
    let (currency, reason, dispute_key) = ("USD".into(), "half of it".into(), "1".into());
    let credited = leaf::InvoiceCredited { amount_minor: 285, tax_minor: 0, currency, reason, leaves: vec![1, 2, 5], dispute_key };
    let disputed = invoice_event::Event::Disputed(leaf::InvoiceDisputed { leaves: vec![1], reason: "bots".into() });
    let mut events = vec![disputed, invoice_event::Event::Credited(credited.clone())];
    let (total_minor, kind) = (credited.amount_minor, leaf::DocumentKind::CreditNote.into());
    let mut note = leaf::Invoice { number: "K2026-C000001".into(), total_minor, kind, ..Default::default() };
    bend(&mut events, &mut note);
    for (key, event) in (1..).zip(events) {
        let event = leaf::InvoiceEvent { key: format!("{key}"), number: NUMBER.into(), actor: "ada".into(), event: Some(event) };
        log.append("acme", Body::InvoiceEvent(event));
    }
    let decision = own(&log).pop().unwrap().0;
    let signed = (log.size(), hex::encode(log.tree.root()));
    let decided = Decision { leaf: decision.index, client_seq: decision.client_seq, actor: "ada".into(), credited, creditable_minor: 570 };
    let document = january.credited(&decided, "K2026-C000001".into(), UnixMicros(ISSUED), signed).unwrap().to_json();
    note.document_sha256 = Sha256::digest(&document).to_vec().into();
    (note.corrects_seq, note.period_closed_seq) = (decision.client_seq, issued.period_closed_seq);
    let at = log.size();
    issue_as(&mut log, note);
    let bundle = bundle(&log, &document, |_| false);
    (log, bundle, at)
}

#[test]
fn a_credit_by_agreement_verifies_with_who_decided_it_and_why() {
    let (log, bundle, _) = agreed(|_, _| {});
    let report = verify_bundle(&encode(bundle), &log.public()).unwrap();
    let corrects = report.invoice.corrects.unwrap();
    assert_eq!((corrects.invoice_id.as_deref(), corrects.issue_date.as_deref()), (Some(NUMBER), Some("2026-02-02")));
    assert_eq!((corrects.amount_before.to_string().as_str(), corrects.amount_after.to_string().as_str()), ("5.70", "2.85"));
    let agreed = corrects.agreed.unwrap();
    assert_eq!((agreed.actor.as_str(), agreed.reason.as_str(), agreed.dispute_key.as_str()), ("ada", "half of it", "1"));
    assert_eq!(agreed.leaves, [[1, 2], [5, 5]]);
}

#[test]
fn a_credit_that_the_log_did_not_agree_to_is_named() {
    let other = |text: &str, with: &str| {
        let (log, mut bundle, _) = agreed(|_, _| {});
        let json = String::from_utf8(bundle.invoice_json).unwrap();
        assert!(json.contains(text), "{json}");
        bundle.invoice_json = json.replacen(text, with, 1).into_bytes();
        findings(&log, bundle).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let changed = [
        (r#""total_invoice_amount": "2.85""#, r#""total_invoice_amount": "2.86""#, "total_invoice_amount"),
        (r#""amount_before": "5.70""#, r#""amount_before": "5.71""#, "corrects.amount_before"),
        (r#""reason": "half of it""#, r#""reason": "all of it""#, "corrects.agreed.reason"),
        (r#""actor": "ada""#, r#""actor": "eve""#, "corrects.agreed.actor"),
        (r#""issue_date": "2026-02-02""#, r#""issue_date": "2026-02-03""#, "issue_date"),
    ];
    for (text, with, field) in changed {
        let found = other(text, with);
        assert!(found.contains(&format!("invoice {field}: is ")) && found.contains("SHA-256"), "{found}");
    }
    // A credit that does not count: the invoice is void, or less was billed.
    let (log, bundle, at) = agreed(|events, _| events[0] = invoice_event::Event::Voided(leaf::InvoiceVoided { reason: "x".into() }));
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "changed"));
    let (log, bundle, at) = agreed(|events, _| {
        let invoice_event::Event::Credited(credited) = &mut events[1] else { panic!("no credit") };
        credited.amount_minor = 571;
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "changed"));
    // One of another tax, and a leaf of another amount.
    let (log, bundle, at) = agreed(|events, _| {
        let invoice_event::Event::Credited(credited) = &mut events[1] else { panic!("no credit") };
        credited.tax_minor = 1;
    });
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "tax_minor is 1 but the tax at the document's rate is 0"));
    let (log, bundle, at) = agreed(|_, note| note.total_minor = 284);
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "DOCUMENT_KIND_CREDIT_NOTE of 284"));
}

#[test]
fn a_note_of_another_kind_amount_or_period_than_the_log_gives_is_named() {
    let (log, bundle, at) = noted(|leaf| leaf.kind = leaf::DocumentKind::CreditNote.into());
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "DOCUMENT_KIND_CREDIT_NOTE of 80"));
    let (log, bundle, at) = noted(|leaf| leaf.tax_minor = 15);
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "of 80 and 15 minor units"));
    let (log, bundle, at) = noted(|leaf| leaf.corrects_seq += 1);
    assert!(named(&findings(&log, bundle), &Place::Leaf(at), "changed"));
    let (log, mut bundle, _) = noted(|_| {});
    let text = String::from_utf8(bundle.invoice_json).unwrap();
    bundle.invoice_json = text.replacen(r#""amount_before": "5.70""#, r#""amount_before": "5.60""#, 1).into_bytes();
    assert!(named(&findings(&log, bundle), &Place::Field("corrects.amount_before".into()), r#"is "5.60" but the log gives "5.70""#));
}

#[test]
fn a_baseline_that_its_evidence_does_not_bear_is_named() {
    let evidence = leaf::Evidence {
        title: "2025".into(),
        currency: "USD".into(),
        spend_micros: 1_000_000,
        value_micros: 3_100_000,
        horizon_days: 90,
        attribution: leaf::AttributionRule::LastBilledV1.into(),
        ..Default::default()
    };
    for (baseline_ppm, borne) in [(3_100_000, true), (3_000_000, false)] {
        let mut index = 0;
        let (log, bundle) = made(|log| {
            index = log.append("acme", Body::Evidence(evidence.clone()));
            log.terms("acme", |terms| {
                terms.baseline_evidence = Some(leaf::Position { log_id: LOG.into(), index });
                (terms.baseline_ppm, terms.baseline_measured) = (baseline_ppm, true);
            });
        });
        // The first terms' evidence is not these terms'.
        let bundle = self::bundle(&log, &bundle.invoice_json, |index| index == 0);
        let verified = verify_bundle(&encode(bundle), &log.public());
        match verified {
            Ok(_) => assert!(borne),
            Err(findings) => assert!(!borne && named(&findings, &Place::Leaf(index), "gives a baseline of 3100000"), "{findings:?}"),
        }
    }
}

#[test]
fn a_file_of_more_leaves_than_may_be_is_refused_before_they_are_read() {
    let bytes = b"\x22\x00".repeat((1 << 20) + 1);
    let findings = verify_bundle(&bytes, &Log::new().public()).unwrap_err();
    assert!(findings[0].problem.contains("1048577 leaves, above the limit of 1048576"), "{findings:?}");
}

#[test]
fn a_file_that_is_no_bundle_is_refused_with_a_reason() {
    let (log, _) = honest();
    for bytes in [&b""[..], b"\xff\xff", b"{}", b"\x08\x03", b"\x08\x01\x4a\x01x"] {
        let findings = verify_bundle(bytes, &log.public()).unwrap_err();
        assert_eq!(findings[0].place, Place::File, "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_bytes_never_pass_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(verify_bundle(&bytes, &Log::new().public()).is_err());
    }
}
