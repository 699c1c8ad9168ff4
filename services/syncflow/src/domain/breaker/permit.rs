//! Leave to make one call.

use std::ops::Deref;
use std::sync::Arc;

use kiki::clock::UnixMicros;

use super::{Breaker, Refused};

/// Which generation let the call pass, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) generation: u16,
    pub(super) at: UnixMicros,
}

/// Leave to make one call. Dropped without an outcome (the caller lost interest) it counts for nothing.
#[derive(Debug)]
pub struct Permit<B: Deref<Target = Breaker>> {
    breaker: B,
    /// None once it is settled.
    ticket: Option<Ticket>,
}

impl Breaker {
    /// Asks to make a call.
    ///
    /// # Errors
    /// [`Refused`] while it is open, and while it is half-open with all its probes under way.
    pub fn admit(&self, now: UnixMicros) -> Result<Permit<&Self>, Refused> {
        Ok(Permit { ticket: Some(self.admitted(now)?), breaker: self })
    }

    /// Asks to make a call that outlives the reference.
    ///
    /// # Errors
    /// As [`Breaker::admit`].
    pub fn admit_owned(self: &Arc<Self>, now: UnixMicros) -> Result<Permit<Arc<Self>>, Refused> {
        Ok(Permit { ticket: Some(self.admitted(now)?), breaker: self.clone() })
    }
}

impl<B: Deref<Target = Breaker>> Permit<B> {
    /// The other side answered; where that took [`super::Settings::slow`] or longer, it counts as slow.
    pub fn succeeded(self, now: UnixMicros) {
        self.settle(false, now);
    }

    /// It failed, or was too late.
    pub fn failed(self, now: UnixMicros) {
        self.settle(true, now);
    }

    fn settle(mut self, failed: bool, now: UnixMicros) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker.answered(ticket, failed, now);
        }
    }
}

impl<B: Deref<Target = Breaker>> Drop for Permit<B> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker.abandoned(ticket);
        }
    }
}
