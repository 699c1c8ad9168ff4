//! Reconciliations: a client's leaves, read from the log as they are, against another's figures.
//!
//! The ledger keeps neither platforms nor the times of notices, so this reads the leaves themselves, one message of the tail at a time, up
//! to what the ledger has folded: those leaves were hashed and found to be as signed. None may be missing among them.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, client_moved::Side, leaf::Body};
use kiki::pb::syncshield::v1::TailEntry;
use kiki::status::Reason;

use super::Billing;
use crate::domain::period::{Span, utc};
use crate::domain::reconcile::compare::{Claim, Comparison, Tolerance, compare};
use crate::domain::reconcile::slots::Slots;
use crate::domain::reconcile::{Figure, Totals, recorded};
use crate::error::Error;

/// What is to be reconciled.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose figures.
    pub client: String,
    /// Which.
    pub figure: Figure,
    /// Of when.
    pub slots: Slots,
    /// How long before a slot's end another's clock may have what comes in the next one.
    pub late: Duration,
    /// The other side.
    pub claims: Vec<Claim>,
    /// How far off it may be.
    pub tolerance: Tolerance,
}

/// How it came out.
#[derive(Debug)]
pub struct Reconciled {
    /// The leaves below it were looked at.
    pub until: u64,
    /// The slots that differences name.
    pub slots: Slots,
    /// Both sides.
    pub comparison: Comparison,
}

impl Question {
    /// What stands in the record that somebody asked it: at most 100 bytes.
    #[must_use]
    pub fn subject(&self) -> String {
        let name = match &self.figure {
            Figure::PlatformSpend { platform } => platform,
            Figure::CountedSpend => "counted spend",
            Figure::CountedLtv => "counted ltv",
        };
        let last = self.slots.count() - 1;
        match self.slots.day(0).zip(self.slots.day(last)) {
            Some((first, last)) => format!("{name} {first} {last}"),
            None => {
                let Span { start, end } = self.slots.all();
                let instant = |at| utc(at).unwrap_or_default();
                format!("{name} {} {}", instant(start), instant(end))
            }
        }
    }

    /// Whether a leaf that is recorded then, and all after it, are of no slot.
    fn is_past(&self, recorded_at: UnixMicros) -> bool {
        match self.figure {
            // A notice may come late, and a correction at any time.
            Figure::PlatformSpend { .. } => false,
            Figure::CountedSpend | Figure::CountedLtv => recorded_at >= self.slots.all().end,
        }
    }
}

impl Billing {
    /// Holds another's figures against the log's, up to its newest checkpoint.
    ///
    /// # Errors
    /// The log has nothing of the client, no longer has all that is asked about, has a gap, or is out of reach; or there are too many figures.
    pub async fn reconciled(&self, question: Question) -> Result<Reconciled, Error> {
        let _permit = self.reconciliations.acquire().await.map_err(|_| Error::Stopped)?;
        self.sound()?;
        let (_, until) = self.shield.checkpoint(0).await?;
        self.folded(until).await?;
        if self.store.extent(&question.client).await?.0 == 0 {
            return Err(Error::Field { field: "client", problem: format!("the log has nothing of {:?}", question.client) });
        }
        let totals = self.totals(&question, until).await?;
        let comparison = compare(&totals, &question.claims, question.tolerance)?;
        self.metrics.reconciled(&question.figure, &comparison);
        Ok(Reconciled { until, slots: question.slots, comparison })
    }

    /// Sums the client's leaves below `until`.
    async fn totals(&self, question: &Question, until: u64) -> Result<Totals, Error> {
        let mut totals = Totals::new(question.figure.clone(), question.slots.clone(), question.late);
        // Nothing that is recorded before a slot begins is of it.
        let from = self.first_since(question.slots.all().start, until).await?;
        if from == until {
            return Ok(totals);
        }
        let mut stream = self.shield.tail(from, &question.client, false).await?;
        let mut sequence = None;
        while let Some(message) = stream.message().await? {
            for entry in message.entries.iter().take_while(|entry| entry.index < until) {
                let (header, body) = self.next_leaf(&question.client, entry, &mut sequence)?;
                if question.is_past(recorded(&header)?) {
                    return Ok(totals);
                }
                totals.take(&header, &body)?;
            }
            if message.next_index >= until {
                return Ok(totals);
            }
        }
        Err(Error::Answer("a tail that ends before the log does"))
    }

    /// Reads the client's next leaf: the one behind that of `sequence`.
    fn next_leaf(&self, client: &str, entry: &TailEntry, sequence: &mut Option<u64>) -> Result<(leaf::Leaf, Body), Error> {
        let fault = |problem: String| Error::Fault(format!("leaf {}: {problem}", entry.index));
        let (header, body) = leaf::decode_all_but_decisions(&entry.leaf).map_err(|e| fault(e.to_string()))?;
        if header.index != entry.index || header.log_id != self.key.name() || header.client != client {
            return Err(fault(format!("says that it is leaf {} of {:?} in log {:?}", header.index, header.client, header.log_id)));
        }
        // Who comes from another log goes on where it left that.
        let arrives = matches!(&body, Body::ClientMoved(moved) if matches!(moved.side, Some(Side::Arrived(_))));
        if let Some(before) = sequence.filter(|before| header.client_seq != before + 1 && !arrives) {
            return Err(fault(format!("{client:?} is at client_seq {} but the leaf has {}", before + 1, header.client_seq)));
        }
        *sequence = Some(header.client_seq);
        Ok((header, body))
    }

    /// Index of the first leaf below `size` that was recorded at an instant or later: the log is in that order, so that halving finds it.
    async fn first_since(&self, at: UnixMicros, size: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (0, size);
        // Why the leaf ahead of `low` cannot be read, where that is so: then what stood there may be of the time that is asked about.
        let mut pruned = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.shield.leaf(middle).await {
                Ok(found) => {
                    let (header, _) =
                        leaf::decode_all_but_decisions(&found.leaf).map_err(|e| Error::Fault(format!("leaf {middle}: {e}")))?;
                    if recorded(&header)? >= at {
                        high = middle;
                    } else {
                        (low, pruned) = (middle + 1, None);
                    }
                }
                Err(Error::Shield(status)) if Reason::PositionOutOfRange.is(&status) => (low, pruned) = (middle + 1, Some(status)),
                Err(error) => return Err(error),
            }
        }
        pruned.map_or(Ok(low), |status| Err(Error::Shield(status)))
    }
}
