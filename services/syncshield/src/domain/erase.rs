//! Erasures: the record that the key of a subject's personal data was destroyed.
//!
//! The record names the key and never the subject. It comes after the deed: the fold knows nothing of keys, and nothing
//! that it computes needs what was sealed. A key is destroyed once.

use kiki::leaf::{self, leaf::Body};
use kiki::sealed::KEY_ID;

use super::adjust::check_reason;
use super::ledger::{Ledger, Recorded};
use super::refusal::Refusal;
use super::state::State;

impl State {
    pub(super) fn check_erased(&self, client: &str, erased: &leaf::Erased) -> Result<(), Refusal> {
        if erased.key_id.len() != KEY_ID {
            return Err(Refusal::field("key_id", format!("{} bytes; a key's id has {KEY_ID}", erased.key_id.len())));
        }
        check_reason("reason", &erased.reason)?;
        match self.clients.get(client).and_then(|of| of.erased.get(erased.key_id.as_ref())) {
            Some(at) => Err(Refusal::OutOfOrder(format!("the key was destroyed, says leaf {}", at.index))),
            None => Ok(()),
        }
    }
}

impl Ledger {
    /// What can be checked before a key is destroyed: afterwards the record must not fail for it.
    ///
    /// # Errors
    /// No such client, or a reason out of its limits.
    pub fn check_erasure(&self, client: &str, reason: &str) -> Result<(), Refusal> {
        check_reason("reason", reason)?;
        let known = self.state.clients.contains_key(client);
        known.then_some(()).ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })
    }

    /// Records that a key was destroyed; a second time it answers with the record that there is.
    ///
    /// # Errors
    /// A reason or id out of its limits.
    pub fn erased(&mut self, client: &str, key_id: &[u8], reason: &str) -> Result<Recorded, Refusal> {
        if let Some(at) = self.state.clients.get(client).and_then(|of| of.erased.get(key_id)) {
            return Ok(Recorded { index: at.index, client_seq: at.client_seq, duplicate: true, ..Default::default() });
        }
        let body = leaf::Erased { key_id: key_id.to_vec().into(), reason: reason.to_owned() };
        self.append(client, ("", 0), Body::Erased(body))
    }
}
