//! A client goes from one log to another: what it may spend and which keys were used goes with it, and it is in one at a time.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use kiki::money::Micros;
use kiki::tlog::note::SigningKey;
use kiki::tlog::portable::PortableProof;
use kiki::tlog::{Checkpoint, Tree, leaf_hash};
use syncshield::domain::ledger::{Closing, Item, LeaseAsk, Ledger, Recorded, SlotOutcome};
use syncshield::domain::moving::{ELSEWHERE, Exported};
use syncshield::domain::refusal::Refusal;
use syncshield::domain::state::State;

const NOON: i64 = 1_770_000_000_000_000;

/// A log in memory, with what an auditor makes of it.
struct Side {
    ledger: Ledger,
    leaves: Vec<Vec<u8>>,
    key: SigningKey,
}

impl Side {
    fn new(log_id: &str, seed: u8) -> Self {
        let mut ledger = Ledger::new(log_id.into(), State::default());
        ledger.set_now(UnixMicros(NOON));
        Self { ledger, leaves: Vec::new(), key: SigningKey::new(log_id, &[seed; 32]).unwrap() }
    }

    fn id(&self) -> &str {
        self.key.verifying_key().name()
    }

    /// The proof of a leaf and the key under which it holds.
    fn prove(&mut self, index: u64) -> (String, String) {
        self.leaves.extend(self.ledger.take_pending().payloads().map(<[u8]>::to_vec));
        let tree: Tree = self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let checkpoint = Checkpoint { origin: self.id().to_owned(), size: tree.size(), root: tree.root() }.sign(&self.key).unwrap();
        let hashes = tree.inclusion_proof(index, tree.size()).unwrap();
        let proof = PortableProof { extra: self.leaves[index as usize].clone(), index, hashes, checkpoint };
        (proof.to_string(), self.key.verifying_key().to_string())
    }

    fn export(&mut self, to: &str) -> (Exported, String, String) {
        let exported = self.ledger.export_client("acme", to).unwrap();
        let (proof, key) = self.prove(exported.index);
        (exported, proof, key)
    }

    /// Folds the log anew, as an auditor does; what comes of it is what the ledger holds.
    fn audit(&mut self) {
        self.leaves.extend(self.ledger.take_pending().payloads().map(<[u8]>::to_vec));
        let mut state = State::default();
        for bytes in &self.leaves {
            let (head, body) = leaf::decode(bytes).unwrap();
            state.apply(&head, &body).unwrap();
        }
        assert_eq!(postcard::to_stdvec(&state).unwrap(), postcard::to_stdvec(&self.ledger.state).unwrap());
    }

    fn heads(&self) -> Vec<(String, u64)> {
        let heads = self.leaves.iter().map(|bytes| leaf::decode(bytes).unwrap().0);
        heads.filter(|head| head.client == "acme").map(|head| (head.log_id, head.client_seq)).collect()
    }
}

fn campaign() -> leaf::Campaign {
    leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    }
}

fn ask(key: &str, amount: i64) -> LeaseAsk {
    LeaseAsk {
        key: key.into(),
        client: "acme".into(),
        campaign: "c".into(),
        holder: "h".into(),
        amount: Micros::new(amount),
        least: Micros::new(1),
        mark: (1, amount * 1_000),
        ttl: Duration::from_secs(60),
        reservation: false,
        platform: String::new(),
    }
}

fn settlement(lease_id: u64, price_nanos: i64) -> Vec<Closing<leaf::Settlement>> {
    let time = Some(UnixMicros(NOON).into());
    let customer = vec![7; 16].into();
    let what = leaf::Settlement {
        max_nanos: price_nanos,
        price_nanos,
        bid_at: time,
        noticed_at: time,
        customer,
        predicted_ltv_micros: 5,
        ..Default::default()
    };
    vec![Closing { client: "acme".into(), campaign: "c".into(), lease_id, what }]
}

/// Takes a lease, spends one slot of it and gives the rest back.
fn spend(ledger: &mut Ledger, key: &str, micros: i64) -> u64 {
    let lease_id = ledger.lease(&ask(key, micros)).unwrap().lease_id;
    assert_eq!(ledger.settle(settlement(lease_id, micros * 1_000)), [SlotOutcome::Applied]);
    let returned = leaf::LeaseReturned { lease_id, epoch: 1, sequence: 1, amount_nanos: micros * 1_000, campaign: "c".into() };
    ledger.give_back("acme", returned).unwrap();
    ledger.seal();
    lease_id
}

fn purchase(ledger: &mut Ledger, event_id: &str) -> Result<Recorded, Refusal> {
    let outcome = leaf::Outcome {
        event_id: event_id.into(),
        occurred_at: Some(UnixMicros(NOON).into()),
        customer: vec![7; 16].into(),
        currency: "USD".into(),
        value_micros: 1,
        ..Default::default()
    };
    Ok(ledger.record("", 0, vec![("acme".into(), Item::Purchase(outcome))])?.remove(0))
}

fn evidence() -> leaf::Evidence {
    leaf::Evidence {
        title: "before".into(),
        document_sha256: vec![1; 32].into(),
        currency: "USD".into(),
        period_start: Some(UnixMicros(0).into()),
        period_end: Some(UnixMicros(1).into()),
        ..Default::default()
    }
}

/// Two logs; in the first acme has spent 600 of its 1,000.
fn sides() -> (Side, Side, u64) {
    let (mut from, to) = (Side::new("test.local/a", 1), Side::new("test.local/b", 2));
    from.ledger.put_campaign("acme", campaign()).unwrap();
    from.ledger.record("", 0, vec![("acme".into(), Item::Evidence(evidence()))]).unwrap();
    from.ledger.seal();
    let lease_id = spend(&mut from.ledger, "first", 600);
    purchase(&mut from.ledger, "order-1").unwrap();
    from.ledger.seal();
    (from, to, lease_id)
}

#[test]
fn a_client_goes_on_in_the_other_log_with_its_limits_and_its_keys() {
    let (mut from, mut to, lease_id) = sides();
    // Others have leases there, with numbers that the client's own must not be mixed up with.
    to.ledger.put_campaign("other", campaign()).unwrap();
    to.ledger.seal();
    let destroyed = [9; kiki::sealed::KEY_ID];
    from.ledger.erased("acme", &destroyed, "article 17").unwrap();
    from.ledger.seal();
    let (Exported { state, .. }, proof, key) = from.export("test.local/b");
    let arrived = to.ledger.import_client(&proof, &key, &state).unwrap();
    to.ledger.seal();

    let erased = to.ledger.erased("acme", &destroyed, "article 17").unwrap();
    assert_eq!((erased.index, erased.duplicate), (ELSEWHERE, true));
    assert_eq!(to.ledger.lease(&ask("first", 600)).unwrap().lease_id, lease_id, "the key was used in the other log");
    assert!(matches!(to.ledger.lease(&ask("second", 401)), Ok(granted) if granted.lease.as_ref().unwrap().amount.get() == 400));
    assert!(matches!(to.ledger.lease(&ask("third", 1)), Err(Refusal::Exhausted { available_nanos: 0, .. })));
    assert_eq!(to.ledger.settle(settlement(lease_id, 600_000)), [SlotOutcome::Duplicate]);
    let again = purchase(&mut to.ledger, "order-1").unwrap();
    assert_eq!((again.index, again.duplicate), (ELSEWHERE, true));
    assert!(!purchase(&mut to.ledger, "order-2").unwrap().duplicate);
    assert!(to.ledger.lease(&ask("second", 401)).unwrap().lease_id > lease_id);
    to.ledger.seal();

    from.audit();
    to.audit();
    let seqs: Vec<u64> = from.heads().iter().chain(&to.heads()).map(|(_, seq)| *seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "gapless across both logs");
    assert_eq!(arrived.client_seq, from.heads().len() as u64 + 1);
}

#[test]
fn who_left_is_refused_everything_and_told_where_it_went() {
    let (mut from, _, lease_id) = sides();
    from.export("test.local/b");
    let size = from.ledger.state.size;
    let moved =
        |refused: Refusal| assert!(matches!(&refused, Refusal::Moved { to_log_id, .. } if to_log_id == "test.local/b"), "{refused}");
    moved(from.ledger.lease(&ask("first", 600)).unwrap_err());
    moved(from.ledger.lease(&ask("second", 1)).unwrap_err());
    moved(purchase(&mut from.ledger, "order-1").unwrap_err());
    moved(from.ledger.put_campaign("acme", campaign()).unwrap_err());
    moved(from.ledger.export_client("acme", "test.local/c").unwrap_err());
    let SlotOutcome::Refused(why) = from.ledger.settle(settlement(lease_id, 600_000)).remove(0) else { panic!("not refused") };
    assert!(why.contains("test.local/b"), "{why}");
    assert_eq!(from.ledger.state.size, size);
}

#[test]
fn a_client_that_may_still_spend_does_not_go() {
    let (mut from, _, _) = sides();
    let lease_id = from.ledger.lease(&ask("open", 100)).unwrap().lease_id;
    let refused = from.ledger.export_client("acme", "test.local/b").unwrap_err();
    assert_eq!(refused.to_string(), "client acme has 1 live leases and 1 open slots; it goes when there are none");
    from.ledger.set_now(UnixMicros(NOON + 61_000_000));
    let refused = from.ledger.export_client("acme", "test.local/b").unwrap_err();
    assert!(matches!(refused, Refusal::Unfinished { leases: 0, slots: 1, .. }), "what is below the mark may have been spent: {refused}");
    assert_eq!(from.ledger.settle(settlement(lease_id, 100_000)), [SlotOutcome::Applied]);
    from.ledger.export_client("acme", "test.local/b").unwrap();
    assert!(matches!(from.ledger.export_client("nobody", "test.local/b"), Err(Refusal::NotFound { .. })));
    assert!(matches!(Side::new("test.local/b", 2).ledger.export_client("acme", "test.local/b"), Err(Refusal::NotFound { .. })));
}

#[test]
fn a_leaving_is_answered_again_and_taken_in_once() {
    let (mut from, mut to, _) = sides();
    let (exported, proof, key) = from.export("test.local/b");
    from.ledger.set_now(UnixMicros(NOON + 1_000_000));
    assert_eq!(from.ledger.export_client("acme", "test.local/b").unwrap(), exported);
    let first = to.ledger.import_client(&proof, &key, &exported.state).unwrap();
    let again = to.ledger.import_client(&proof, &key, &exported.state).unwrap();
    assert_eq!((again.index, again.client_seq, again.duplicate, first.duplicate), (first.index, first.client_seq, true, false));
    to.ledger.lease(&ask("second", 1)).unwrap();
    assert!(to.ledger.import_client(&proof, &key, &exported.state).unwrap().duplicate, "also after it went on");
    to.ledger.seal();
    to.audit();
}

#[test]
fn what_is_not_as_it_left_is_not_taken_in_and_leaves_nothing_behind() {
    let (mut from, mut to, _) = sides();
    let (Exported { state, .. }, proof, key) = from.export("test.local/b");
    let mut bent = state.clone();
    bent[40] ^= 1;
    let stranger = SigningKey::new("test.local/a", &[9; 32]).unwrap().verifying_key().to_string();
    let mut early = Side::new("test.local/b", 2);
    early.ledger.set_now(UnixMicros(NOON - 1));
    let mut third = Side::new("test.local/c", 3);
    let refuses = |side: &mut Side, proof: &str, key: &str, state: &[u8]| {
        let refused = side.ledger.import_client(proof, key, state);
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!((side.ledger.state.size, side.ledger.state.clients.len(), side.ledger.state.arriving.len()), (0, 0, 0));
    };
    refuses(&mut to, &proof, &key, &bent);
    refuses(&mut to, &proof, &key, &state[..state.len() - 1]);
    refuses(&mut to, &proof, &key, &[]);
    refuses(&mut to, &proof, &stranger, &state);
    refuses(&mut to, &proof.replacen("index ", "index 1", 1), &key, &state);
    refuses(&mut early, &proof, &key, &state);
    refuses(&mut third, &proof, &key, &state);
    // Who is there since before is not replaced.
    to.ledger.put_campaign("acme", campaign()).unwrap();
    assert!(matches!(to.ledger.import_client(&proof, &key, &state), Err(Refusal::OutOfOrder(_))));
}

#[test]
fn a_client_comes_back_and_its_periods_are_closed_nowhere_but_where_all_of_it_is() {
    let (mut from, mut to, lease_id) = sides();
    let (Exported { state, .. }, proof, key) = from.export("test.local/b");
    to.ledger.import_client(&proof, &key, &state).unwrap();
    to.ledger.seal();
    let second = spend(&mut to.ledger, "second", 100);
    let (Exported { state, .. }, back, to_key) = to.export("test.local/a");
    assert!(from.ledger.import_client(&proof, &key, &state).is_err(), "its own leaving is no arrival");
    from.ledger.import_client(&back, &to_key, &state).unwrap();
    from.ledger.seal();
    assert!(from.ledger.lease(&ask("second", 100)).unwrap().duplicate);
    assert_eq!(from.ledger.lease(&ask("third", 400)).unwrap().lease.unwrap().amount.get(), 300);
    assert!(from.ledger.lease(&ask("third", 400)).unwrap().lease_id > second.max(lease_id));
    from.ledger.seal();
    let refused = to.ledger.import_client(&proof, &key, &state).unwrap();
    assert!(refused.duplicate, "the first arrival was; it has gone on since");

    let terms = leaf::Terms {
        currency: "USD".into(),
        client_name: "Acme".into(),
        baseline_ppm: 1,
        share_ppm: 1,
        basis: leaf::Basis::Predicted.into(),
        netting: leaf::Netting::Client.into(),
        zone: "UTC".into(),
        horizon_days: 90,
        attribution: leaf::AttributionRule::LastBilledV1.into(),
        lookback_seconds: 86_400,
        ..Default::default()
    };
    from.ledger.put_terms("acme", terms).unwrap();
    let month = leaf::PeriodClosed {
        currency: "USD".into(),
        month: "2026-01".into(),
        period_start: Some(UnixMicros(1_767_225_600_000_000).into()),
        period_end: Some(UnixMicros(1_769_904_000_000_000).into()),
        ..Default::default()
    };
    let refused = from.ledger.record("", 0, vec![("acme".into(), Item::ClosePeriod(month))]).unwrap_err();
    assert!(matches!(&refused, Refusal::CameFrom { log_id } if log_id == "test.local/b"), "{refused}");
    from.ledger.seal();
    from.audit();
    to.audit();
}

#[test]
fn a_state_of_many_parts_arrives_whole_or_the_fold_refuses_it() {
    let (mut from, mut to, _) = sides();
    for i in 0..4_000 {
        purchase(&mut from.ledger, &format!("an-order-of-a-long-name-so-that-there-are-several-parts-{i}")).unwrap();
        from.ledger.seal();
    }
    let (Exported { state, .. }, proof, key) = from.export("test.local/b");
    to.ledger.import_client(&proof, &key, &state).unwrap();
    to.ledger.seal();
    to.audit();
    let parts = to.leaves.clone();
    assert!(parts.len() > 3, "{} bytes in {} parts", state.len(), parts.len());
    let fold = |order: &[usize]| {
        let mut state = State::default();
        order.iter().enumerate().try_for_each(|(index, part)| {
            let (mut head, body) = leaf::decode(&parts[*part]).unwrap();
            (head.index, head.client_seq) = (index as u64, head.client_seq - *part as u64 + index as u64);
            state.apply(&head, &body)
        })
    };
    assert!(fold(&(0..parts.len()).collect::<Vec<_>>()).is_ok());
    assert!(fold(&[1]).is_err() && fold(&[0, 2]).is_err() && fold(&[0, 0]).is_err());
    // While it arrives, nothing else of it is taken.
    let mut state = State::default();
    let (head, body) = leaf::decode(&parts[0]).unwrap();
    state.apply(&head, &body).unwrap();
    let other = leaf::Leaf { index: 1, client_seq: 1, ..head };
    assert!(state.apply(&other, &Body::Evidence(evidence())).is_err());
}
