//! Which customers changed, told to whoever watches: after the change, and before the call that made it is answered.
//!
//! So what somebody answered from a customer as it was, and says before it looks here again, is put right by what it finds here.

use std::sync::Arc;

use kiki::ids::CustomerKey;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

/// Changes that a watcher may be behind by, one for each group that was written together. Who is further behind has to take all for changed.
const KEPT: usize = 256;
/// Customers that are named at once; where more changed, all count as changed. So what is kept takes 16 MiB at the most.
pub const MAX_NAMED: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Changes(broadcast::Sender<Change>);

/// What changed at once; none: all customers.
type Change = Option<Arc<[CustomerKey]>>;

/// What changed since it was made, or last asked.
#[derive(Debug)]
pub struct Watch(broadcast::Receiver<Change>);

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// These customers; of whichever client, since a pseudonym is of one.
    pub customers: Vec<CustomerKey>,
    /// Everybody.
    pub all: bool,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    pub(super) fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// These customers changed, if there are any.
    pub(super) fn tell_of(&self, customers: Vec<CustomerKey>) {
        match customers.len() {
            0 => {}
            1..=MAX_NAMED => drop(self.0.send(Some(customers.into()))), // nobody may be watching
            _ => self.tell_all(),
        }
    }

    /// Everybody did.
    pub(super) fn tell_all(&self) {
        drop(self.0.send(None));
    }
}

impl Changed {
    fn add(&mut self, change: Change) {
        match change {
            Some(customers) => self.customers.extend_from_slice(&customers),
            None => self.all = true,
        }
    }
}

impl Watch {
    /// The next change; none once nothing changes any more.
    pub async fn next(&mut self) -> Option<Changed> {
        let mut changed = Changed::default();
        match self.0.recv().await {
            Ok(change) => changed.add(change),
            Err(RecvError::Lagged(_)) => changed.all = true,
            Err(RecvError::Closed) => return None,
        }
        Some(changed)
    }

    /// Adds what else has changed.
    pub fn and(&mut self, changed: &mut Changed) {
        loop {
            match self.0.try_recv() {
                Ok(change) => changed.add(change),
                Err(TryRecvError::Lagged(_)) => changed.all = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        changed.all |= changed.customers.len() > MAX_NAMED;
        if changed.all {
            changed.customers = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn customers(of: std::ops::Range<u16>) -> Vec<CustomerKey> {
        of.map(|n| CustomerKey([(n % 251) as u8; 16])).collect()
    }

    #[tokio::test]
    async fn who_is_told_of_too_much_takes_all_for_changed() {
        let changes = Changes::new();
        changes.tell_of(customers(0..1)); // nobody heard it
        let mut watch = changes.watch();
        changes.tell_of(customers(1..2));
        changes.tell_of(Vec::new()); // nothing to hear
        changes.tell_of(customers(2..5));
        let mut changed = watch.next().await.unwrap();
        watch.and(&mut changed);
        assert_eq!(changed, Changed { customers: customers(1..5), all: false });
        changes.tell_of(customers(0..4_096));
        assert_eq!(watch.next().await.unwrap().customers.len(), 4_096);
        changes.tell_of(customers(0..4_097)); // is not kept
        assert_eq!(watch.next().await, Some(Changed { customers: Vec::new(), all: true }));
        changes.tell_of(customers(0..4_096));
        changes.tell_of(customers(0..1));
        let mut changed = watch.next().await.unwrap();
        watch.and(&mut changed);
        assert_eq!(changed, Changed { customers: Vec::new(), all: true });
        for _ in 0..=KEPT {
            changes.tell_of(customers(0..1));
        }
        assert_eq!(watch.next().await, Some(Changed { customers: Vec::new(), all: true }));
        let mut changed = watch.next().await.unwrap();
        watch.and(&mut changed);
        assert_eq!(changed.customers.len(), KEPT);
        changes.tell_all();
        assert_eq!(watch.next().await, Some(Changed { customers: Vec::new(), all: true }));
        drop(changes);
        assert_eq!(watch.next().await, None);
    }
}
