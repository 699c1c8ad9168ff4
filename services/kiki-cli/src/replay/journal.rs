//! The exchange's own ledger, `exchange.jsonl`: what it was answered, what it charged, what it has told us, what was reported.
//!
//! An entry is one line, written by one call before the replay goes on, so that a process killed at any moment leaves
//! at most one torn line, which the next start cuts. A charge is written before its notice goes out: the exchange is owed
//! the money whether or not we hear of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use kiki::clock::UnixMicros;
use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, Failure};

/// The ledger's file name.
pub(crate) const FILE: &str = "exchange.jsonl";

/// A line of the ledger. Instants are microseconds since 1970, prices nanos an impression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// Clients, campaigns and terms are in force, and the history is observed.
    Ready {
        /// When.
        at: UnixMicros,
    },
    /// What a request was answered.
    Answer(Answer),
    /// What the exchange charges for an impression.
    Charge(Charge),
    /// Every notice of a round was sent and answered.
    Sent {
        /// The round.
        at: UnixMicros,
    },
    /// The purchases of a day were reported.
    Reported {
        /// 12:00:00 UTC of the day.
        at: UnixMicros,
    },
    /// Drafts were asked for and what could be was finalised.
    Invoiced {
        /// When.
        at: UnixMicros,
    },
}

/// An answer to one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) round: u64,
    /// Its line, from 0.
    pub(crate) line: u64,
    pub(crate) at: UnixMicros,
    pub(crate) exchange: String,
    /// The customer's own id.
    pub(crate) customer: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// Why there is no bid, or what was malformed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) bids: Vec<Bid>,
}

/// A bid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bid {
    pub(crate) imp: String,
    pub(crate) client: String,
    pub(crate) campaign: String,
    pub(crate) currency: String,
    pub(crate) price_nanos: i64,
    pub(crate) receipt: String,
    /// The receipt in the link that its markup leads to.
    pub(crate) click: String,
    /// Paths of the win, bill and loss notices, `${RECEIPT}` in the receipt's place.
    pub(crate) notices: [String; 3],
}

/// An impression that was paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) round: u64,
    pub(crate) line: u64,
    pub(crate) imp: String,
    pub(crate) exchange: String,
    pub(crate) client: String,
    pub(crate) campaign: String,
    pub(crate) currency: String,
    /// The customer's own id.
    pub(crate) customer: String,
    pub(crate) bid_at: UnixMicros,
    /// The round that its notice went out with.
    pub(crate) notified_at: UnixMicros,
    pub(crate) price_nanos: i64,
    pub(crate) receipt: String,
    /// The receipt that a click on it brings.
    pub(crate) click: String,
}

/// What the ledger of an earlier process says.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Answers by (round, line).
    pub(crate) answers: HashMap<(u64, u64), Answer>,
    /// Charges by (round, line, imp).
    pub(crate) charges: BTreeMap<(u64, u64, String), Charge>,
    /// Rounds of notices that are done.
    pub(crate) sent: BTreeSet<UnixMicros>,
    /// Days that were reported.
    pub(crate) reported: BTreeSet<UnixMicros>,
    /// Whether the set-up is done.
    pub(crate) ready: bool,
    /// Instants at which invoices were drafted.
    pub(crate) invoiced: BTreeSet<UnixMicros>,
    /// The last instant that anything was done at.
    pub(crate) until: UnixMicros,
}

impl Past {
    fn take(&mut self, entry: Entry) {
        let at = match entry {
            Entry::Ready { at } => {
                self.ready = true;
                at
            }
            Entry::Answer(answer) => {
                let at = answer.at;
                self.answers.insert((answer.round, answer.line), answer);
                at
            }
            Entry::Charge(charge) => {
                let at = charge.notified_at;
                self.charges.insert((charge.round, charge.line, charge.imp.clone()), charge);
                at
            }
            Entry::Sent { at } => {
                self.sent.insert(at);
                at
            }
            Entry::Reported { at } => {
                self.reported.insert(at);
                at
            }
            Entry::Invoiced { at } => {
                self.invoiced.insert(at);
                at
            }
        };
        self.until = self.until.max(at);
    }
}

/// The ledger, open at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    line: Vec<u8>,
}

impl Journal {
    /// Opens the ledger in `dir`, cuts a torn last line, and reads what is there.
    ///
    /// # Errors
    /// A file that cannot be read or written, or a line that is damaged.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Past), Failure> {
        let path = dir.join(FILE);
        let name = path.display();
        let file = OpenOptions::new().create(true).append(true).open(&path).doing(format_args!("opening {name}"))?;
        let bytes = std::fs::read(&path).doing(format_args!("reading {name}"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).doing(format_args!("cutting a torn line of {name}"))?;
        }
        let mut past = Past::default();
        for (number, line) in (1..).zip(bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty())) {
            past.take(serde_json::from_slice(line).doing(format_args!("{name}, line {number}"))?);
        }
        Ok((Self { file, line: Vec::new() }, past))
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry).doing("writing the exchange's ledger")?;
        self.line.push(b'\n');
        self.file.write_all(&self.line).doing("writing the exchange's ledger")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(line: u64) -> Entry {
        Entry::Answer(Answer { line, at: UnixMicros(line as i64), status: 204, reason: "NO_MATCH".into(), ..Answer::default() })
    }

    #[test]
    fn what_was_written_is_read_again_and_a_torn_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, past) = Journal::open(dir.path()).unwrap();
        assert!(past.answers.is_empty() && !past.ready);
        for entry in [Entry::Ready { at: UnixMicros(0) }, answer(1), answer(2)] {
            journal.add(&entry).unwrap();
        }
        journal.file.write_all(b"{\"type\":\"answer\",\"rou").unwrap();
        let (mut journal, past) = Journal::open(dir.path()).unwrap();
        assert_eq!((past.answers.len(), past.ready, past.until), (2, true, UnixMicros(2)));
        journal.add(&answer(3)).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().1.answers.len(), 3);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"type\":\"sent\",\"at\":5}\n{}\n").unwrap();
        assert!(Journal::open(dir.path()).unwrap_err().to_string().contains("line 2"));
    }
}
