//! The log's keys: which one signs, and which signed before it.
//!
//! Invariants: a change names the key that signs until then, and a key that never signed before; the fold knows every
//! change. That both keys signed for it is not a matter of the fold: `kiki::rotation` checks the checkpoints.

use kiki::leaf::{KeyRotated, OPERATOR, leaf::Body};
use kiki::rotation::{self, MAX_ROTATIONS};
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Recorded};
use super::refusal::Refusal;

/// Bytes of a name and of a reason.
const MAX_TEXT: usize = 255;

/// Every change of the key that signs, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys(Vec<Change>);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where its leaf stands.
    pub index: u64,
    /// Its leaf's `client_seq`.
    pub client_seq: u64,
    /// The verifier key before.
    pub old: String,
    /// The verifier key after.
    pub new: String,
}

impl Keys {
    /// The changes so far.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.0
    }

    pub(super) fn check(&self, log_id: &str, client: &str, body: &KeyRotated) -> Result<(), Refusal> {
        if client != OPERATOR {
            return Err(Refusal::field("client", format!("a change of key is {OPERATOR}'s, not {client}'s")));
        }
        if self.0.len() >= MAX_ROTATIONS {
            return Err(Refusal::TooMany { field: "changes of key".into(), count: self.0.len() + 1, limit: MAX_ROTATIONS });
        }
        let (old, new) = rotation::keys(log_id, body).map_err(|problem| Refusal::field("key_rotated", problem))?;
        if old == new || self.0.iter().any(|change| change.old == body.new_key) {
            return Err(Refusal::field("new_key", format!("{} signed before", rotation::short(&new))));
        }
        match self.0.last() {
            Some(last) if last.new != body.old_key => {
                Err(Refusal::OutOfOrder(format!("{} is replaced, and {} signs", body.old_key, last.new)))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn put(&mut self, index: u64, client_seq: u64, body: &KeyRotated) {
        self.0.push(Change { index, client_seq, old: body.old_key.clone(), new: body.new_key.clone() });
    }
}

impl Ledger {
    /// Records that another key signs from here on. A change that was made already is answered once more.
    ///
    /// # Errors
    /// No actor or reason, or a key that does not follow.
    pub fn rotate_key(&mut self, body: KeyRotated) -> Result<Recorded, Refusal> {
        for (field, text) in [("actor", &body.actor), ("reason", &body.reason)] {
            if text.is_empty() || text.len() > MAX_TEXT {
                return Err(Refusal::field(field, format!("has {} bytes; 1 to {MAX_TEXT} are taken", text.len())));
            }
        }
        if let Some(done) = self.state.keys.changes().iter().find(|change| (&change.old, &change.new) == (&body.old_key, &body.new_key)) {
            let (index, client_seq) = (done.index, done.client_seq);
            return Ok(Recorded { index, client_seq, duplicate: true, ..Default::default() });
        }
        self.append(OPERATOR, ("", 0), Body::KeyRotated(body))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kiki::tlog::note::SigningKey;

    use super::*;
    use crate::domain::state::State;

    fn vkey(log_id: &str, seed: u8) -> String {
        SigningKey::new(log_id, &[seed; 32]).unwrap().verifying_key().to_string()
    }

    fn change(old: u8, new: u8) -> KeyRotated {
        let key = |seed| vkey("kiki.local/log-1", seed);
        KeyRotated { old_key: key(old), new_key: key(new), actor: "ada".into(), reason: "yearly".into() }
    }

    #[test]
    fn a_change_follows_the_one_before_and_is_made_once() {
        let mut ledger = Ledger::new("kiki.local/log-1".into(), State::default());
        assert!(!ledger.rotate_key(change(1, 2)).unwrap().duplicate);
        assert!(ledger.rotate_key(change(1, 2)).unwrap().duplicate);
        assert!(matches!(ledger.rotate_key(change(1, 3)), Err(Refusal::OutOfOrder(_))), "1 does not sign any more");
        assert!(matches!(ledger.rotate_key(change(2, 1)), Err(Refusal::Field { .. })), "1 signed before");
        assert!(matches!(ledger.rotate_key(change(2, 2)), Err(Refusal::Field { .. })));
        assert_eq!(ledger.rotate_key(change(2, 3)).unwrap().index, 1);
        assert_eq!(ledger.state.keys.changes().len(), 2);
    }

    #[test]
    fn refuses_keys_of_another_log_and_a_change_that_nobody_answers_for() {
        let mut ledger = Ledger::new("kiki.local/log-1".into(), State::default());
        let other = KeyRotated { new_key: vkey("kiki.local/log-2", 2), ..change(1, 2) };
        assert!(matches!(ledger.rotate_key(other), Err(Refusal::Field { .. })));
        assert!(matches!(ledger.rotate_key(KeyRotated { actor: String::new(), ..change(1, 2) }), Err(Refusal::Field { .. })));
        assert!(ledger.state.keys.changes().is_empty());
    }
}
