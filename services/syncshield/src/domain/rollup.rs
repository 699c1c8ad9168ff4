//! Rollups: what is left of leaves that are pruned, but for their hashes.
//!
//! The sums are a pure function of the leaves, so whoever still has them can check the records that say them. Not here:
//! which leaves may be pruned, and the files.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};

use super::ledger::Ledger;
use super::refusal::Refusal;
use super::state::{ClientState, State};

/// Rows of one leaf: some 120 bytes each, half of what a leaf may have.
const MAX_ROWS: usize = 256;
const DAY_MICROS: i64 = 86_400_000_000;

/// Campaign, platform, currency, start of the day.
type Key = (String, String, String, UnixMicros);

/// Sums over leaves, by client.
#[derive(Debug, Default)]
pub struct Sums(BTreeMap<String, Client>);

#[derive(Debug, Default)]
struct Client {
    last_seq: u64,
    rows: BTreeMap<Key, Row>,
}

#[derive(Debug, Default)]
struct Row {
    bids: u64,
    refused: BTreeMap<i32, u64>,
    impressions: u64,
    settled_nanos: i128,
    conversions: u64,
    outcomes: u64,
    outcome_micros: i128,
}

/// The midnight in UTC before an instant.
fn utc_day(at: Option<&prost_types::Timestamp>) -> UnixMicros {
    let at = UnixMicros::from_pb(at).unwrap_or_default();
    UnixMicros(at.0 - at.0.rem_euclid(DAY_MICROS))
}

impl Sums {
    /// Takes in the next leaf. A Rollup among them stands for what it sums.
    pub fn take_in(&mut self, head: &leaf::Leaf, body: &Body) {
        let client = self.0.entry(head.client.clone()).or_default();
        client.last_seq = head.client_seq;
        let instant = |at: &Option<prost_types::Timestamp>| UnixMicros::from_pb(at.as_ref()).unwrap_or_default();
        match body {
            Body::Decisions(b) => {
                for decision in &b.decisions {
                    let row = client.row(&b.campaign, &decision.platform, &b.currency, utc_day(decision.at.as_ref()));
                    row.bids += u64::from(decision.refusals == 0);
                    for bit in (0..32).filter(|bit| decision.refusals >> bit & 1 == 1) {
                        *row.refused.entry(bit).or_default() += 1;
                    }
                }
            }
            Body::Settlements(b) => {
                for settlement in &b.settlements {
                    let row = client.row(&b.campaign, &settlement.platform, &b.currency, instant(&b.day_start));
                    row.impressions += 1;
                    row.settled_nanos += i128::from(settlement.price_nanos);
                }
            }
            Body::SpendAdjustment(b) => {
                client.row(&b.campaign, &b.platform, &b.currency, instant(&b.day_start)).settled_nanos += i128::from(b.amount_nanos);
            }
            Body::Conversion(b) => client.row(&b.campaign, "", &b.currency, utc_day(b.occurred_at.as_ref())).conversions += 1,
            Body::Outcome(b) => {
                let row = client.row("", "", &b.currency, utc_day(b.occurred_at.as_ref()));
                row.outcomes += 1;
                row.outcome_micros += i128::from(b.value_micros);
            }
            Body::Rollup(b) => b.rows.iter().for_each(|row| client.merge(row)),
            _ => {}
        }
    }

    /// The records of these sums, at least one for each client that had a leaf. `like` says all but client and rows.
    #[must_use]
    pub fn rollups(self, like: &leaf::Rollup) -> Vec<(String, leaf::Rollup)> {
        let of_client = |(client, Client { last_seq, rows }): (String, Client)| {
            let rows: Vec<_> = rows.into_iter().map(row).collect();
            let parts: Vec<&[leaf::RollupRow]> = if rows.is_empty() { vec![&[]] } else { rows.chunks(MAX_ROWS).collect() };
            let record = |rows: &[leaf::RollupRow]| (client.clone(), leaf::Rollup { last_seq, rows: rows.to_vec(), ..like.clone() });
            parts.into_iter().map(record).collect::<Vec<_>>()
        };
        self.0.into_iter().flat_map(of_client).collect()
    }
}

impl Client {
    fn merge(&mut self, more: &leaf::RollupRow) {
        let sum = |sum: &Option<leaf::Int128>| sum.as_ref().map_or(0, i128::from);
        let day = UnixMicros::from_pb(more.day_start.as_ref()).unwrap_or_default();
        let row = self.row(&more.campaign, &more.platform, &more.currency, day);
        row.bids += more.bids;
        more.refused.iter().for_each(|refused| *row.refused.entry(refused.reason).or_default() += refused.count);
        row.impressions += more.impressions;
        row.settled_nanos += sum(&more.settled_nanos);
        row.conversions += more.conversions;
        row.outcomes += more.outcomes;
        row.outcome_micros += sum(&more.outcome_micros);
    }

    fn row(&mut self, campaign: &str, platform: &str, currency: &str, day: UnixMicros) -> &mut Row {
        self.rows.entry((campaign.to_owned(), platform.to_owned(), currency.to_owned(), day)).or_default()
    }
}

fn row(((campaign, platform, currency, day), row): (Key, Row)) -> leaf::RollupRow {
    leaf::RollupRow {
        campaign,
        platform,
        currency,
        day_start: Some(day.into()),
        bids: row.bids,
        refused: row.refused.into_iter().map(|(reason, count)| leaf::RefusalCount { reason, count }).collect(),
        impressions: row.impressions,
        settled_nanos: Some(row.settled_nanos.into()),
        conversions: row.conversions,
        outcomes: row.outcomes,
        outcome_micros: Some(row.outcome_micros.into()),
    }
}

impl ClientState {
    /// Whether nothing more is computed from the client's leaves: its campaigns are paused, nothing is open, and all that
    /// counts has been invoiced.
    ///
    /// # Errors
    /// What is still to come, for people.
    pub fn check_ended(&self, now: UnixMicros) -> Result<(), String> {
        for (id, campaign) in &self.campaigns {
            if !campaign.paused {
                return Err(format!("campaign {id} is not paused"));
            }
            if campaign.committed(now, None) > 0 {
                return Err(format!("campaign {id} has slots that are not closed"));
            }
        }
        for (currency, totals) in &self.totals {
            let closings = self.closed.iter().filter(|((of, _), _)| of == currency).map(|(_, closed)| closed.at.client_seq);
            let invoiced = closings.filter(|seq| self.invoiced.contains_key(&(*seq, 0))).max().unwrap_or_default();
            if invoiced < totals.last_seq {
                return Err(format!("its records in {currency} up to number {} are not invoiced", totals.last_seq));
            }
        }
        Ok(())
    }
}

impl State {
    pub(super) fn check_rollup(&self, client: &str, rollup: &leaf::Rollup) -> Result<(), Refusal> {
        let of = self.clients.get(client).ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        if rollup.first >= rollup.last || rollup.last > self.size || rollup.last < of.rolled_up {
            let (first, last, done) = (rollup.first, rollup.last, of.rolled_up);
            return Err(Refusal::OutOfOrder(format!("rollup of [{first}, {last}): {} leaves, up to {done} rolled up", self.size)));
        }
        let good = rollup.state_sha256.len() == 32 && rollup.last_seq <= of.seq;
        good.then_some(()).ok_or_else(|| Refusal::field("rollup", "has no digest of 32 bytes, or a last_seq that is not there"))
    }
}

impl Ledger {
    /// Records sums of leaves that are about to be pruned.
    ///
    /// # Errors
    /// A range that does not follow.
    pub fn roll_up(&mut self, rollups: Vec<(String, leaf::Rollup)>) -> Result<(), Refusal> {
        rollups.into_iter().try_for_each(|(client, rollup)| self.append(&client, ("", 0), Body::Rollup(rollup)).map(drop))
    }
}
