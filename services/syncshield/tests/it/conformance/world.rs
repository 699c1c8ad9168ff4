//! A store of one kind, with a log of its own in it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::money::Micros;
use syncshield::domain::ledger::LeaseAsk;
use syncshield::domain::state::State;
use syncshield::store::{Log, Paths, Store};

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) log_id: String,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// A fresh log: in files, or in a database.
    pub(crate) fn new(url: Option<&str>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let store = url.map_or(Store::Files(None), |url| url.parse().unwrap());
        let log_id = format!("test.local/log-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { store, log_id, dir: tempfile::tempdir().unwrap() }
    }

    /// Another process with the same log and key, and a data folder of its own.
    pub(crate) fn twin(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (self.paths().key(), Paths::new(dir.path()).key());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        Self { store: self.store.clone(), log_id: self.log_id.clone(), dir }
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths::new(self.dir.path())
    }

    pub(crate) fn open(&self) -> Result<Log, syncshield::Error> {
        Log::open_in(&self.store, &self.paths(), &self.log_id, Clock::System)
    }

    /// Reads the closed log anew and folds every leaf by the auditor's rules.
    pub(crate) async fn strict_fold(&self) -> (State, Vec<leaf::leaf::Body>) {
        let log = self.open().unwrap();
        let size = *log.committed().borrow();
        let (mut state, mut bodies) = (State::default(), Vec::new());
        while state.size < size {
            for (_, bytes) in log.read(state.size, 1 << 20).await.unwrap() {
                let (head, body) = leaf::decode(&bytes).unwrap();
                state.apply(&head, &body).unwrap();
                bodies.push(body);
            }
        }
        log.close().await;
        (state, bodies)
    }
}

pub(crate) fn campaign(limit_micros: i64) -> leaf::Campaign {
    leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: limit_micros,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    }
}

/// A reservation of so many micros.
pub(crate) fn ask(key: &str, micros: i64) -> LeaseAsk {
    let amount = Micros::new(micros);
    LeaseAsk {
        key: key.into(),
        client: "acme".into(),
        campaign: "c".into(),
        holder: "h".into(),
        amount,
        least: amount,
        mark: (1, 0),
        ttl: Duration::from_secs(60),
        reservation: true,
        platform: String::new(),
    }
}

pub(crate) fn settlement(sequence: u32, price_nanos: i64) -> leaf::Settlement {
    let time = Some(UnixMicros(1_770_000_000_000_000).into());
    leaf::Settlement { sequence, max_nanos: 1_000_000, price_nanos, bid_at: time, noticed_at: time, ..Default::default() }
}
