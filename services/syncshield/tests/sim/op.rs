//! What holders and operators ask, how it is asked of the ledger, and how answers are compared.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::money::Micros;
use prost::Message as _;
use syncshield::domain::ledger::{Closing, Item, LeaseAsk, Ledger, SlotOutcome};
use syncshield::domain::reconcile::{Charged, Report};
use syncshield::domain::refusal::Refusal;

pub(crate) const DAY: i64 = 86_400_000_000;
pub(crate) const TTL: i64 = 60_000_000;
pub(crate) const START: i64 = 1_770_000_000_000_000;
pub(crate) const CLIENT: &str = "acme";

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Limits {
        campaign: usize,
        total: i64,
        daily: i64,
        paused: bool,
    },
    Lease {
        campaign: usize,
        key: u64,
        amount: i64,
        least: i64,
        mark: (u32, i64),
        reservation: bool,
    },
    Renew {
        lease: u64,
        epoch: u64,
    },
    Mark {
        lease: u64,
        epoch: u64,
        mark: (u32, i64),
    },
    Return {
        lease: u64,
        epoch: u64,
        used: (u32, i64),
    },
    Settle {
        lease: u64,
        slots: Vec<(u32, i64, i64)>,
    },
    Void {
        lease: u64,
        slots: Vec<(u32, i64)>,
    },
    Decisions {
        source: u64,
        seq: u64,
    },
    Purchase {
        event: u64,
    },
    /// Limits of the client (none), or of a campaign; 0 for none.
    Bound {
        campaign: Option<usize>,
        total: i64,
        paused: bool,
    },
    /// A correction: all of it follows from its key.
    Adjust {
        key: u64,
    },
    /// A report up to now: one slot of one lease is charged, if that is of the campaign, and nothing else.
    Reconcile {
        campaign: usize,
        charged: Option<(u64, u32, i64)>,
    },
}

/// Campaign, nanos and instant of a correction.
pub(crate) fn correction(key: u64) -> (usize, i64, i64) {
    let nanos = if key.is_multiple_of(3) { 40_000 } else { -30_000 };
    ((key % 2) as usize, nanos, START + (key % 4) as i64 * DAY)
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Did {
    Version(u64),
    Granted {
        lease: u64,
        duplicate: bool,
    },
    Renewed(u64, i64),
    Done,
    Freed(i128),
    /// a(pplied), d(uplicate), r(efused), one letter a slot.
    Slots(String),
    Recorded {
        duplicate: bool,
    },
    Reconciled {
        settled: u64,
        voided: u64,
        freed: i128,
    },
    Refused,
}

pub(crate) fn campaign(index: usize) -> String {
    format!("c{index}")
}

/// Asks the ledger; `of` is the campaign that a lease belongs to.
pub(crate) fn ask(ledger: &mut Ledger, op: &Op, of: usize) -> Did {
    run(ledger, op, campaign(of)).unwrap_or(Did::Refused)
}

fn run(ledger: &mut Ledger, op: &Op, of: String) -> Result<Did, Refusal> {
    let ttl = Duration::from_micros(TTL as u64);
    let client = CLIENT.to_owned();
    let time = Some(UnixMicros(START).into());
    Ok(match *op {
        Op::Limits { campaign: index, total, daily, paused } => {
            let document = leaf::Campaign {
                campaign: campaign(index),
                currency: "USD".into(),
                zone: "UTC".into(),
                limit_total_micros: total,
                limit_daily_micros: daily,
                paused,
                target_roas_ppm: 3_000_000,
                ..Default::default()
            };
            Did::Version(ledger.put_campaign(CLIENT, document)?.1)
        }
        Op::Lease { campaign: index, key, amount, least, mark, reservation } => {
            let (key, holder) = (format!("k{key}"), format!("h{}", key % 3));
            let (amount, least) = (Micros::new(amount), Micros::new(least));
            let granted = ledger.lease(&LeaseAsk {
                key,
                client,
                campaign: campaign(index),
                holder,
                amount,
                least,
                mark,
                ttl,
                reservation,
                platform: String::new(),
            })?;
            Did::Granted { lease: granted.lease_id, duplicate: granted.duplicate }
        }
        Op::Renew { lease, epoch } => {
            let lease = ledger.renew(CLIENT, &of, lease, epoch, ttl)?;
            Did::Renewed(lease.epoch, lease.expires_at.0)
        }
        Op::Mark { lease: lease_id, epoch, mark: (sequence, amount_nanos) } => {
            ledger.mark(CLIENT, leaf::SpendMark { lease_id, epoch, sequence, amount_nanos, campaign: of })?;
            Did::Done
        }
        Op::Return { lease: lease_id, epoch, used: (sequence, amount_nanos) } => {
            Did::Freed(ledger.give_back(CLIENT, leaf::LeaseReturned { lease_id, epoch, sequence, amount_nanos, campaign: of })?)
        }
        Op::Settle { lease: lease_id, ref slots } => {
            let settlement = |&(sequence, max_nanos, price_nanos): &(u32, i64, i64)| {
                let what = leaf::Settlement { sequence, max_nanos, price_nanos, bid_at: time, noticed_at: time, ..Default::default() };
                Closing { client: client.clone(), campaign: of.clone(), lease_id, what }
            };
            slot_answers(ledger.settle(slots.iter().map(settlement).collect()))
        }
        Op::Void { lease: lease_id, ref slots } => {
            let void = |&(sequence, max_nanos): &(u32, i64)| {
                let what = leaf::Void { sequence, max_nanos, ..Default::default() };
                Closing { client: client.clone(), campaign: of.clone(), lease_id, what }
            };
            slot_answers(ledger.void(slots.iter().map(void).collect()))
        }
        Op::Bound { campaign: of, total, paused } => {
            let campaign = of.map_or_else(String::new, campaign);
            let limits = leaf::Limits {
                campaign,
                currency: "USD".into(),
                limit_total_micros: total,
                zone: "UTC".into(),
                paused,
                ..Default::default()
            };
            Did::Version(ledger.put_limits(CLIENT, limits, None)?.1)
        }
        Op::Adjust { key } => {
            let (index, amount_nanos, at) = correction(key);
            let kind = if amount_nanos < 0 { leaf::AdjustmentKind::InvalidTraffic } else { leaf::AdjustmentKind::Platform };
            let adjustment = leaf::SpendAdjustment {
                key: format!("a{key}"),
                campaign: campaign(index),
                currency: "USD".into(),
                amount_nanos,
                kind: kind.into(),
                reason: "statement".into(),
                evidence_sha256: vec![7; 32].into(),
                accounted_at: Some(UnixMicros(at).into()),
                ..Default::default()
            };
            Did::Recorded { duplicate: ledger.adjust(CLIENT, adjustment)?.duplicate }
        }
        Op::Reconcile { campaign: index, charged } => {
            let (campaign, platform, evidence, reason) = (campaign(index), String::new(), vec![8; 32], "report".into());
            let leases = charged.map(|(lease, slot, price)| (lease, Charged::Slots(BTreeMap::from([(slot, price)]))));
            let until = ledger.now();
            let report = Report { client, campaign, platform, until, leases: leases.into_iter().collect(), evidence, reason };
            let done = ledger.reconcile(&report)?;
            Did::Reconciled { settled: done.settled, voided: done.voided, freed: done.freed }
        }
        Op::Decisions { source, seq } => {
            let batch = |index| leaf::DecisionBatch { campaign: campaign(index), ..Default::default() }.encode_to_vec();
            let batch = |index| Item::Decisions(batch(index).into());
            let items = vec![(client.clone(), batch(0)), (client, batch(1))];
            Did::Recorded { duplicate: ledger.record(&format!("flow-{source}"), seq, items)?[0].duplicate }
        }
        Op::Purchase { event } => {
            let customer = vec![(event % 7) as u8; 16].into();
            let event_id = format!("e{event}");
            let outcome =
                leaf::Outcome { event_id, occurred_at: time, customer, currency: "USD".into(), value_micros: 5, ..Default::default() };
            Did::Recorded { duplicate: ledger.record("", 0, vec![(client, Item::Purchase(outcome))])?[0].duplicate }
        }
    })
}

fn slot_answers(outcomes: Vec<SlotOutcome>) -> Did {
    let letter = |outcome: &SlotOutcome| match outcome {
        SlotOutcome::Applied => 'a',
        SlotOutcome::Duplicate => 'd',
        SlotOutcome::Conflict(_) => 'c',
        SlotOutcome::Refused(_) => 'r',
    };
    Did::Slots(outcomes.iter().map(letter).collect())
}

impl Op {
    /// The lease that it is about; 0 for none.
    pub(crate) fn lease(&self) -> u64 {
        match self {
            Self::Renew { lease, .. }
            | Self::Mark { lease, .. }
            | Self::Return { lease, .. }
            | Self::Settle { lease, .. }
            | Self::Void { lease, .. } => *lease,
            _ => 0,
        }
    }
}
