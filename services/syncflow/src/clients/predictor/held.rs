//! What SyncValue said of customers, held for as long as it said that it holds, and no longer than the stream on which it tells of those
//! who changed. A bid that finds its prediction here asks nobody.
//!
//! Bounds: two generations of `SHARDS` times `MAX_CUSTOMERS` customers with `MAX_CAMPAIGNS` answers each; with one each, as a rule, some
//! 20 MB. Who is asked for stays; of the others the older generation goes whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::answers::Changes;
use crate::domain::fallback::{Predicted, Recent};

/// Locks: many more than there are cores.
const SHARDS: usize = 64;
/// Customers of one generation of a shard.
const MAX_CUSTOMERS: usize = 1_024;
/// Answers of one customer: which more campaigns are after, they ask for.
const MAX_CAMPAIGNS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Held {
    shards: Vec<Mutex<Shard>>,
    /// How often something was forgotten.
    era: AtomicU64,
}

/// Whose value was asked for, and on whose behalf: a campaign's recent predictions go with it for as long as it asks in one currency
/// over one horizon, and so say which question it is.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) customer: CustomerKey,
    pub(super) campaign: Arc<Recent>,
    pub(super) at: UnixMicros,
}

/// A moment, by what had been forgotten.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Era(u64);

#[derive(Debug, Default)]
struct Shard {
    young: Customers,
    old: Customers,
    /// When something here was forgotten last.
    era: u64,
}

/// By customer the answers, one for each campaign that asked. Pseudonyms are keyed: nobody outside can choose them.
type Customers = HashMap<CustomerKey, SmallVec<[Answer; 1]>, RandomState>;

#[derive(Debug)]
struct Answer {
    campaign: Arc<Recent>,
    until: UnixMicros,
    predicted: Predicted,
}

impl Held {
    pub(super) fn new() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), era: AtomicU64::new(0) }
    }

    fn shard(&self, customer: &CustomerKey) -> &Mutex<Shard> {
        &self.shards[usize::from(customer.0[15]) % SHARDS]
    }

    /// What SyncValue would say, were it asked on the campaign's behalf.
    #[must_use]
    pub fn get(&self, customer: &CustomerKey, campaign: &Arc<Recent>, now: UnixMicros) -> Option<Predicted> {
        let mut shard = self.shard(customer).lock();
        if !shard.young.contains_key(customer) {
            let kept = shard.old.remove(customer)?;
            shard.young_place(*customer).extend(kept);
        }
        let answers = shard.young.get(customer)?;
        let answer = answers.iter().find(|answer| Arc::ptr_eq(&answer.campaign, campaign))?;
        (now < answer.until).then(|| answer.predicted.clone())
    }

    /// The moment at which an answer came: to be taken before anything that came behind it is looked at.
    pub(super) fn era(&self) -> Era {
        Era(self.era.load(Ordering::Acquire))
    }

    /// Holds an answer that came at `era`, for so many milliseconds; unless something that it may be was forgotten since.
    pub(super) fn put(&self, subject: &Subject, predicted: Predicted, holds_ms: u32, era: Era) {
        let until = subject.at.plus(Duration::from_millis(holds_ms.into()));
        let mut shard = self.shard(&subject.customer).lock();
        if shard.era > era.0 {
            return;
        }
        let answer = Answer { campaign: subject.campaign.clone(), until, predicted };
        let answers = shard.young_place(subject.customer);
        answers.retain(|before| !Arc::ptr_eq(&before.campaign, &answer.campaign) && before.until > subject.at);
        if answers.len() < MAX_CAMPAIGNS {
            answers.push(answer);
        }
    }

    /// Forgets who changed; from one thread at a time.
    pub(super) fn take(&self, changes: &Changes) {
        match changes {
            Changes::Of(customers) => self.forget(customers),
            Changes::All => self.forget_all(),
        }
    }

    fn forget<'c>(&self, customers: impl IntoIterator<Item = &'c CustomerKey>) {
        let era = self.era.fetch_add(1, Ordering::AcqRel) + 1;
        for customer in customers {
            let mut shard = self.shard(customer).lock();
            shard.era = era;
            shard.young.remove(customer);
            shard.old.remove(customer);
        }
    }

    /// Forgets everybody; from one thread at a time.
    pub(super) fn forget_all(&self) {
        let era = self.era.fetch_add(1, Ordering::AcqRel) + 1;
        for shard in &self.shards {
            let before = std::mem::replace(&mut *shard.lock(), Shard { era, ..Shard::default() });
            drop(before); // which takes a while, and nobody waits for it
        }
    }
}

impl Shard {
    /// The customer's place among the young.
    fn young_place(&mut self, customer: CustomerKey) -> &mut SmallVec<[Answer; 1]> {
        if self.young.len() == MAX_CUSTOMERS && !self.young.contains_key(&customer) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(customer).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000_000);

    fn subject(customer: u16, campaign: &Arc<Recent>) -> Subject {
        let mut key = [0; 16];
        key[..2].copy_from_slice(&customer.to_le_bytes());
        Subject { customer: CustomerKey(key), campaign: campaign.clone(), at: NOW }
    }

    fn holds(held: &Held, subject: &Subject, at: i64) -> bool {
        held.get(&subject.customer, &subject.campaign, UnixMicros(at)).is_some()
    }

    fn put(held: &Held, subject: &Subject) {
        held.put(subject, Predicted::Unknown, 5, held.era());
    }

    #[test]
    fn an_answer_holds_for_its_question_and_its_time() {
        let (held, [campaign, other]) = (Held::new(), [(); 2].map(|()| Arc::new(Recent::default())));
        put(&held, &subject(1, &campaign));
        assert!(holds(&held, &subject(1, &campaign), 1_004_999));
        assert!(!holds(&held, &subject(1, &campaign), 1_005_000));
        assert!(!holds(&held, &subject(1, &other), 1_000_000) && !holds(&held, &subject(2, &campaign), 1_000_000));
        put(&held, &subject(1, &other));
        assert!(holds(&held, &subject(1, &campaign), 1_000_000) && holds(&held, &subject(1, &other), 1_000_000));
        held.put(&subject(1, &campaign), Predicted::Unknown, 9, held.era());
        assert!(holds(&held, &subject(1, &campaign), 1_008_999), "the newer answer counts");
        held.put(&subject(3, &campaign), Predicted::Unknown, 0, held.era());
        assert!(!holds(&held, &subject(3, &campaign), 1_000_000), "an answer that does not hold");
    }

    #[test]
    fn who_changed_is_forgotten_with_what_was_said_before_and_is_put_down_late() {
        let (held, campaign) = (Held::new(), Arc::new(Recent::default()));
        let [one, another] = [1, 2].map(|customer| subject(customer, &campaign));
        let before = held.era();
        [&one, &another].into_iter().for_each(|subject| put(&held, subject));
        held.forget([&one.customer]);
        assert!(!holds(&held, &one, 1_000_000) && holds(&held, &another, 1_000_000));
        held.put(&one, Predicted::Unknown, 5, before);
        assert!(!holds(&held, &one, 1_000_000), "said before it changed");
        put(&held, &one);
        assert!(holds(&held, &one, 1_000_000), "said since");
        let before = held.era();
        held.forget_all();
        [&one, &another].into_iter().for_each(|subject| held.put(subject, Predicted::Unknown, 5, before));
        assert!(!holds(&held, &one, 1_000_000) && !holds(&held, &another, 1_000_000));
    }

    #[test]
    fn a_customer_of_many_campaigns_has_a_bound_and_what_is_over_goes() {
        let (held, campaigns) = (Held::new(), Vec::from_iter(std::iter::repeat_with(Arc::default).take(2 * MAX_CAMPAIGNS)));
        let holding = |at| campaigns.iter().filter(|campaign| holds(&held, &subject(1, campaign), at)).count();
        campaigns.iter().for_each(|campaign| put(&held, &subject(1, campaign)));
        assert_eq!(holding(1_000_000), MAX_CAMPAIGNS);
        let later = |campaign| Subject { at: UnixMicros(1_005_000), ..subject(1, campaign) };
        campaigns[MAX_CAMPAIGNS..].iter().for_each(|campaign| put(&held, &later(campaign)));
        assert_eq!((holding(1_004_999), holding(1_009_999)), (MAX_CAMPAIGNS, MAX_CAMPAIGNS), "those of before were over");
        assert!(!holds(&held, &subject(1, &campaigns[0]), 1_004_999));
    }

    #[test]
    fn it_has_a_bound_and_keeps_who_is_asked_for() {
        let (held, campaign) = (Held::new(), Arc::new(Recent::default()));
        let hot = subject(0, &campaign); // all of one shard
        put(&held, &hot);
        for customer in 1..5 * MAX_CUSTOMERS as u16 {
            put(&held, &subject(customer, &campaign));
            assert!(holds(&held, &hot, 1_000_000), "{customer}");
            let shard = held.shard(&hot.customer).lock();
            assert!(shard.young.len() <= MAX_CUSTOMERS && shard.old.len() <= MAX_CUSTOMERS);
        }
        assert!(!holds(&held, &subject(1, &campaign), 1_000_000), "whom nobody asked for went");
    }
}
