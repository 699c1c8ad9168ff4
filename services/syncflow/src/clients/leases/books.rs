//! The accounts that leases are held in: one a campaign and platform, found without an allocation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kiki::clock::UnixMicros;
use kiki::money::{Micros, Nanos};
use kiki::pb::syncshield::v1 as pb;
use parking_lot::{Mutex, RwLock};

use crate::domain::auction::Counts;
use crate::domain::burn::Burn;
use crate::domain::lease::{Lease, Slot, Window, amount_to_ask};
use crate::domain::targeting::Campaign;

/// How long an exhausted budget is not asked about again, unless money came back or the campaign changed.
const EXHAUSTED_FOR: Duration = Duration::from_secs(60);

/// All campaigns' books: by client, and then by campaign.
#[derive(Debug, Default)]
pub(super) struct Books(RwLock<HashMap<String, HashMap<String, Book>>>);

/// A campaign's accounts.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) shared: Arc<Shared>,
    /// By platform, of which there are a few.
    pub(super) accounts: Vec<(String, Arc<Account>)>,
}

/// What is one for all platforms of a campaign.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counts: Mutex<Option<Counts>>,
    /// What a lease's life costs at the last window's rate.
    pub(super) burn: Mutex<Micros>,
    /// How often money came back, by settlements and voids.
    pub(super) freed: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(super) shared: Arc<Shared>,
    /// The lease's window that was opened last; once the lease was shut, it gives nothing.
    pub(super) window: ArcSwapOption<Window>,
    pub(super) held: Arc<tokio::sync::Mutex<Held>>,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) lease: Option<Lease>,
    /// The lease's return, from before it was sent until it is answered.
    pub(super) returning: Option<pb::ReturnRequest>,
    pub(super) asked: Option<pb::LeaseRequest>,
    /// How fast bids use leases up here.
    pub(super) burn: Burn,
    pub(super) exhausted: Option<Exhausted>,
    /// The last step had no answer.
    pub(super) unanswered: bool,
    /// Since when the budget is paused, and how that was said.
    pub(super) paused: Option<(UnixMicros, String)>,
}

#[derive(Debug)]
pub(super) struct Exhausted {
    pub(super) least: Nanos,
    pub(super) at: UnixMicros,
    pub(super) freed: u64,
    pub(super) version: u64,
}

impl Books {
    /// The account, a new one where there is none yet.
    pub(super) fn account(&self, client: &str, campaign: &str, platform: &str) -> Arc<Account> {
        let known = |book: &Book| book.accounts.iter().find(|(of, _)| of == platform).map(|(_, account)| account.clone());
        if let Some(account) = self.read(client, campaign, known).flatten() {
            return account;
        }
        let mut books = self.0.write();
        let book = books.entry(client.to_owned()).or_default().entry(campaign.to_owned()).or_default();
        known(book).unwrap_or_else(|| {
            let account = Arc::new(Account { shared: book.shared.clone(), ..Account::default() });
            book.accounts.push((platform.to_owned(), account.clone()));
            account
        })
    }

    /// Something of a campaign's book, where it has one.
    pub(super) fn read<T>(&self, client: &str, campaign: &str, what: impl FnOnce(&Book) -> T) -> Option<T> {
        self.0.read().get(client)?.get(campaign).map(what)
    }

    /// All accounts with their client and campaign, in the order of names.
    pub(super) fn accounts(&self) -> Vec<(String, String, Arc<Account>)> {
        let books = self.0.read();
        let mut all: Vec<_> = books
            .iter()
            .flat_map(|(client, of)| of.iter().map(move |(campaign, book)| (client, campaign, book)))
            .flat_map(|(client, campaign, book)| book.accounts.iter().map(move |(platform, account)| (client, campaign, platform, account)))
            .collect();
        all.sort_unstable_by_key(|(client, campaign, platform, _)| (*client, *campaign, *platform));
        all.into_iter().map(|(client, campaign, _, account)| (client.clone(), campaign.clone(), account.clone())).collect()
    }
}

impl Account {
    /// A slot of the window that is open, where it has room.
    pub(crate) fn take(&self, price: Nanos, now: UnixMicros) -> Option<Slot> {
        self.window.load().as_ref()?.take(price, now)
    }

    /// What the window that is open lets be taken.
    pub(super) fn left(&self, now: UnixMicros) -> Nanos {
        self.window.load().as_ref().map_or(Nanos::ZERO, |window| window.left(now))
    }

    /// How large a lease should be: by what this holder burns, or before that is known, by what others do.
    pub(super) fn amount(&self, campaign: &Campaign, price: Nanos, burn: Burn) -> Micros {
        let burn = burn.in_a_life().unwrap_or_else(|| *self.shared.burn.lock());
        amount_to_ask(campaign.limit_total, campaign.limit_daily, price, burn)
    }

    pub(super) fn is_exhausted(&self, held: &Held, campaign: &Campaign, price: Nanos, now: UnixMicros) -> bool {
        held.exhausted.as_ref().is_some_and(|exhausted| {
            price >= exhausted.least
                && now.since(exhausted.at) < EXHAUSTED_FOR
                && self.shared.freed.load(Ordering::Acquire) == exhausted.freed
                && campaign.version == exhausted.version
        })
    }
}
