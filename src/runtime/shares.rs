//! What all connections of a service share, and how much of it one of them may have: who opens one connection and takes all that it can
//! get leaves the others theirs. And which answers a connection's client does not take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::{Request, Status};

use super::accept::Peer;
use crate::caller::Caller;
use crate::ids::ClientId;
use crate::status::Reason;

/// What one connection has.
#[derive(Debug, Default)]
pub(super) struct Own {
    calls: AtomicUsize,
    arriving: AtomicUsize,
    leaving: AtomicUsize,
    readers: AtomicUsize,
    pub(super) unread: Unread,
}

/// Something of which there is a bounded amount. Half of it is for whoever comes first; of the other half those get more that have at most
/// their share.
#[derive(Debug)]
pub(super) struct Shared {
    taken: AtomicUsize,
    most: usize,
    share: usize,
    own: fn(&Own) -> &AtomicUsize,
}

impl Shared {
    /// Calls.
    pub(super) fn calls(most: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, share, own: |own| &own.calls })
    }

    /// Bytes of requests.
    pub(super) fn arriving(most: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, share, own: |own| &own.arriving })
    }

    /// Bytes of answers.
    pub(super) fn leaving(most: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, share, own: |own| &own.leaving })
    }
}

/// The readers of streams that wait with what they do not read, at most so many. A tenant's share is the same however many connections
/// it opens: the streams that bidding depends on are among these.
#[derive(Debug, Clone)]
pub struct Readers {
    shared: Arc<Shared>,
    tenants: Arc<Mutex<HashMap<ClientId, Weak<Own>>>>,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub struct Reader(#[allow(dead_code)] Part);

/// When a stream that found no place may be opened again.
const RETRY: Duration = Duration::from_secs(1);

impl Readers {
    /// At most `most`, and of one tenant, or else one connection, at most `share` where half of them are taken.
    #[must_use]
    pub fn new(most: usize, share: usize) -> Self {
        let shared = Arc::new(Shared { taken: AtomicUsize::new(0), most, share, own: |own| &own.readers });
        Self { shared, tenants: Arc::default() }
    }

    /// A place for the reader that calls.
    ///
    /// # Errors
    /// `OVERLOADED` where there is none.
    pub fn enter<T>(&self, request: &Request<T>) -> Result<Reader, Status> {
        let (own, whose) = match Caller::of(request) {
            Caller::Tenant(tenant) => (self.tenant(tenant), "tenant"),
            _ => (request.extensions().get::<Peer>().map(|peer| peer.own.clone()).unwrap_or_default(), "connection"),
        };
        let mut place = Part::none(self.shared.clone(), own);
        if place.set(1) {
            return Ok(Reader(place));
        }
        let Shared { most, share, .. } = *self.shared;
        let why = format!("more than {most} streams are read, or half of them and {share} of this {whose}'s");
        Err(Reason::Overloaded.status_to_retry(why, RETRY))
    }

    /// What all connections of a tenant have.
    fn tenant(&self, tenant: ClientId) -> Arc<Own> {
        let mut tenants = self.tenants.lock();
        tenants.retain(|_, own| own.strong_count() > 0);
        let own = tenants.get(&tenant).and_then(Weak::upgrade).unwrap_or_default();
        tenants.insert(tenant, Arc::downgrade(&own));
        own
    }
}

/// What was taken for a connection. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Part {
    of: Arc<Shared>,
    own: Arc<Own>,
    has: usize,
}

impl Part {
    /// Nothing yet.
    pub(super) fn none(of: Arc<Shared>, own: Arc<Own>) -> Self {
        Self { of, own, has: 0 }
    }

    /// Has so much from now on. `false`, and as much as before, where there is no more.
    pub(super) fn set(&mut self, to: usize) -> bool {
        let (own, has) = ((self.of.own)(&self.own), self.has);
        if to <= has {
            self.of.taken.fetch_sub(has - to, Relaxed);
            own.fetch_sub(has - to, Relaxed);
        } else {
            let more = to - has;
            let (all, mine) = (self.of.taken.fetch_add(more, Relaxed) + more, own.fetch_add(more, Relaxed) + more);
            if all > self.of.most || (all > self.of.most / 2 && mine > self.of.share) {
                self.of.taken.fetch_sub(more, Relaxed);
                own.fetch_sub(more, Relaxed);
                return false;
            }
        }
        self.has = to;
        true
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Parts of answers that were handed to HTTP and that it could not send on, by the turn, even or odd, in which they were.
#[derive(Debug, Default)]
pub(super) struct Unread {
    turn: AtomicUsize,
    parts: [AtomicUsize; 2],
}

impl Unread {
    /// One more, in this turn.
    pub(super) fn begin(&self) -> usize {
        let turn = self.turn.load(Relaxed) % 2;
        self.parts[turn].fetch_add(1, Relaxed);
        turn
    }

    /// One of that turn was sent, or given up.
    pub(super) fn end(&self, turn: usize) {
        self.parts[turn].fetch_sub(1, Relaxed);
    }

    /// The next turn. Whether there is still a part from before the one that ends: it has waited for a whole turn.
    pub(super) fn turn(&self) -> bool {
        let next = self.turn.fetch_add(1, Relaxed) + 1;
        self.parts[next % 2].load(Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greedy_connection_gets_half_and_the_others_their_shares() {
        let shared = Shared::calls(16, 2);
        let (greedy, other, third) = (Arc::new(Own::default()), Arc::new(Own::default()), Arc::new(Own::default()));
        let take = |own: &Arc<Own>| {
            let mut part = Part::none(shared.clone(), own.clone());
            part.set(1).then_some(part)
        };
        let mut greedy_has: Vec<Part> = (0..10).map_while(|_| take(&greedy)).collect();
        assert_eq!(greedy_has.len(), 8);
        let others_have: Vec<Part> =
            [&other, &third].into_iter().flat_map(|own| (0..10).map_while(|_| take(own)).collect::<Vec<_>>()).collect();
        assert_eq!(others_have.len(), 4, "two each, which is the share");
        assert!(take(&greedy).is_none());
        greedy_has.truncate(2);
        assert!(take(&greedy).is_some(), "there is room again, for everybody");
    }

    #[test]
    fn a_tenant_with_many_connections_leaves_the_others_their_streams() {
        let readers = Readers::new(16, 2);
        // Each call comes over a connection of its own.
        let call = |caller: Caller| {
            let mut request = Request::new(());
            request.extensions_mut().insert(caller);
            readers.enter(&request)
        };
        let tenant = |name: &str| call(Caller::Tenant(ClientId::parse(name).expect("a name")));
        let mut greedy: Vec<Reader> = (0..16).map_while(|_| tenant("greedy").ok()).collect();
        assert_eq!(greedy.len(), 8);
        assert!(tenant("greedy").is_err_and(|refused| refused.message().ends_with("2 of this tenant's")));
        let other: Vec<Reader> = (0..16).map_while(|_| tenant("other").ok()).collect();
        assert_eq!(other.len(), 2, "its share");
        let services: Vec<Reader> = (0..6).map_while(|_| call(Caller::Service).ok()).collect();
        assert_eq!(services.len(), 6, "all that are left");
        greedy.clear();
        drop(services);
        assert!(tenant("greedy").is_ok() && readers.tenants.lock().len() == 2);
        drop(other);
        assert!(tenant("third").is_ok() && readers.tenants.lock().len() == 1, "who has none is forgotten");
    }

    #[test]
    fn what_is_taken_is_given_back_and_never_more_than_there_is() {
        let shared = Shared::arriving(100, 100);
        let own = Arc::new(Own::default());
        let (mut one, mut two) = (Part::none(shared.clone(), own.clone()), Part::none(shared.clone(), own.clone()));
        assert!(one.set(60) && !two.set(41) && two.set(40));
        assert!(one.set(10) && two.set(90), "what one has no more the other may have");
        drop((one, two));
        assert_eq!((shared.taken.load(Relaxed), own.arriving.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_part_that_was_not_sent_for_a_whole_turn_is_noticed_and_one_that_was_is_not() {
        let unread = Unread::default();
        let part = unread.begin();
        assert!(!unread.turn(), "it may have been begun a moment ago");
        assert!(unread.turn());
        unread.end(part);
        for _ in 0..4 {
            let part = unread.begin();
            assert!(!unread.turn());
            unread.end(part);
        }
    }
}
