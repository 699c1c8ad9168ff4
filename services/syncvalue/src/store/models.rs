//! Which models are loaded, and what was said about which of them answers: kept in `models.json`.
//!
//! A change is read and checked as a whole before it takes effect: what is wrong with it changes nothing. Calls that are under way end with the
//! models that they began with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kiki::ids::ClientId;
use kiki::money::Currency;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::folder;
use crate::domain::market::MarketId;
use crate::domain::serving::{Loaded, Plan, Serving, WHOLE_PPM};
use crate::error::Error;

/// Plans, at most: one for each market that there may be.
pub const MAX_PLANS: usize = super::MAX_MARKETS;
/// Campaigns with a share of their own in one plan, at most.
const MAX_CAMPAIGNS: usize = 1_024;
/// Where the plans are kept, in the folder of the service's data.
const FILE: &str = "models.json";

/// See the module.
#[derive(Debug)]
pub struct Models {
    /// The folder whose folders are models.
    folder: PathBuf,
    file: PathBuf,
    serving: RwLock<Arc<Sets>>,
    /// Held over a change.
    plans: Mutex<Plans>,
    loaded: AtomicU32,
}

/// By client, then by currency: a look-up makes no text.
type Sets = BTreeMap<String, BTreeMap<String, Arc<Serving>>>;

/// What is kept: each plan in force, and the one before it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Plans {
    plans: Vec<Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    now: Plan,
    before: Option<Plan>,
}

impl Models {
    /// Reads the plans in `data` back. Where there is none for all clients, `first` answers for all, if it is given.
    ///
    /// A folder that went away since its plan was made is left out, and said: the estimate answers in its place.
    ///
    /// # Errors
    /// Plans that cannot be read, or a `first` that cannot.
    pub fn open(folder: &Path, data: &Path, first: Option<&str>) -> Result<Self, Error> {
        let file = data.join(FILE);
        let plans = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::Model(format!("{}: {e}", file.display())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Plans::default(),
            Err(e) => return Err(Error::io(format!("{}: cannot read", file.display()))(e)),
        };
        let models =
            Self { folder: folder.into(), file, serving: RwLock::default(), plans: Mutex::new(plans.clone()), loaded: AtomicU32::new(0) };
        let mut sets = Sets::new();
        for Kept { now, .. } in plans.plans {
            let set = models.load(&now).unwrap_or_else(|error| {
                tracing::error!(%error, client = now.client, currency = now.currency, "no model: the estimate answers");
                Serving { plan: now, ..Serving::default() }
            });
            insert(&mut sets, Arc::new(set));
        }
        if let (Some(first), None) = (first, sets.get("").and_then(|own| own.get(""))) {
            let plan = Plan { serving: first.into(), ..Plan::default() };
            insert(&mut sets, Arc::new(models.load(&plan)?));
        }
        *models.serving.write() = Arc::new(sets);
        Ok(models)
    }

    /// The models that answer in a market: of its own plan, its client's, its currency's, or the one for all.
    #[must_use]
    pub fn of(&self, market: &MarketId) -> Arc<Serving> {
        let (sets, currency) = (self.serving.read(), market.currency.code());
        let of = |client: &str| sets.get(client).and_then(|own| own.get(currency).or_else(|| own.get("")));
        of(market.client.as_str()).or_else(|| of("")).cloned().unwrap_or_default()
    }

    /// Every plan, with its models.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Serving>> {
        let mut all: Vec<_> = self.serving.read().values().flat_map(BTreeMap::values).cloned().collect();
        all.sort_by_key(|set| scope(&set.plan));
        all
    }

    /// Puts a plan in place of the one of the same client and currency. `plan.version` is that one's; 0 where there is none.
    ///
    /// # Errors
    /// A plan or folder that is wrong, or a version that is not the last.
    pub fn set(&self, plan: Plan) -> Result<Arc<Serving>, Error> {
        let mut plans = self.plans.lock();
        let before = self.serving.read().get(&plan.client).and_then(|own| own.get(&plan.currency)).map(|set| set.plan.clone());
        let version = before.as_ref().map_or(0, |plan| plan.version);
        if plan.version != version {
            return Err(Error::Changed { asked: plan.version, now: version });
        }
        self.replace(&mut plans, Plan { version: version + 1, ..plan }, before)
    }

    /// Puts the plan before back in place, and its version counts on; where there was none, the market's customers have no plan of their own again.
    ///
    /// # Errors
    /// Nothing was set, or one of the models cannot be read any more.
    pub fn rollback(&self, client: &str, currency: &str) -> Result<Arc<Serving>, Error> {
        let mut plans = self.plans.lock();
        let kept = plans.plans.iter().find(|kept| (&*kept.now.client, &*kept.now.currency) == (client, currency)).cloned();
        match kept {
            None => Err(Error::field("rollback", "nothing was set")),
            Some(Kept { now, before: Some(before) }) => self.replace(&mut plans, Plan { version: now.version + 1, ..before }, Some(now)),
            Some(Kept { now, before: None }) => self.remove(&mut plans, &now),
        }
    }

    fn replace(&self, plans: &mut Plans, plan: Plan, before: Option<Plan>) -> Result<Arc<Serving>, Error> {
        check(&plan)?;
        let set = Arc::new(self.load(&plan)?);
        let mut next = plans.clone();
        next.plans.retain(|kept| scope(&kept.now) != scope(&plan));
        if next.plans.len() >= MAX_PLANS {
            return Err(Error::Full { what: "plans", limit: MAX_PLANS });
        }
        next.plans.push(Kept { now: plan.clone(), before });
        self.write(&next)?;
        *plans = next;
        let mut sets = Sets::clone(&self.serving.read());
        insert(&mut sets, set.clone());
        *self.serving.write() = Arc::new(sets);
        Ok(set)
    }

    fn remove(&self, plans: &mut Plans, plan: &Plan) -> Result<Arc<Serving>, Error> {
        let mut next = plans.clone();
        next.plans.retain(|kept| scope(&kept.now) != scope(plan));
        self.write(&next)?;
        *plans = next;
        let mut sets = Sets::clone(&self.serving.read());
        if let Some(own) = sets.get_mut(&plan.client) {
            own.remove(&plan.currency);
        }
        *self.serving.write() = Arc::new(sets);
        let nothing = Plan { client: plan.client.clone(), currency: plan.currency.clone(), ..Plan::default() };
        Ok(Arc::new(Serving { plan: nothing, ..Serving::default() }))
    }

    fn write(&self, plans: &Plans) -> Result<(), Error> {
        let new = self.file.with_extension("new");
        let written = serde_json::to_vec_pretty(plans).map_err(std::io::Error::other).and_then(|bytes| {
            let mut file = std::fs::File::create(&new)?;
            std::io::Write::write_all(&mut file, &bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.file)?;
            std::fs::File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()
        });
        written.map_err(Error::io(format!("{}: cannot write", self.file.display())))
    }

    fn load(&self, plan: &Plan) -> Result<Serving, Error> {
        let one = |name: &str, field: &str| {
            if name.is_empty() {
                return Ok(None);
            }
            let (model, card) = folder::load(&self.folder.join(name)).map_err(|e| Error::field(field, e))?;
            let currency = card.currency.as_deref().map(Currency::parse).transpose();
            let currency = currency.map_err(|e| Error::field(field, format!("{name}: its card's currency: {e}")))?;
            let number = self.loaded.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(Some(Arc::new(Loaded::new(number, name.into(), currency, model, card.inputs))))
        };
        Ok(Serving { serving: one(&plan.serving, "serving")?, candidate: one(&plan.candidate, "candidate")?, plan: plan.clone() })
    }

    /// The numbers of the models that are in use.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.all()
            .iter()
            .flat_map(|set| [&set.serving, &set.candidate].into_iter().flatten().map(|model| model.number).collect::<Vec<_>>())
            .collect()
    }
}

fn insert(sets: &mut Sets, set: Arc<Serving>) {
    let (client, currency) = scope(&set.plan);
    sets.entry(client).or_default().insert(currency, set);
}

fn scope(plan: &Plan) -> (String, String) {
    (plan.client.clone(), plan.currency.clone())
}

fn check(plan: &Plan) -> Result<(), Error> {
    if !plan.client.is_empty() {
        ClientId::parse(&plan.client).map_err(|e| Error::field("client", e))?;
    }
    if !plan.currency.is_empty() {
        Currency::parse(&plan.currency).map_err(|e| Error::field("currency", e))?;
    }
    for (field, name) in [("serving", &plan.serving), ("candidate", &plan.candidate)] {
        // A name, and no way out of the folder of models.
        if name.len() > 128 || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(Error::field(field, format!("{name:?}: the name of a folder, at most 128 bytes, is taken")));
        }
    }
    if plan.campaign_share_ppm.len() > MAX_CAMPAIGNS {
        return Err(Error::TooMany { path: "campaign_share_ppm".into(), got: plan.campaign_share_ppm.len(), limit: MAX_CAMPAIGNS });
    }
    let campaigns = plan.campaign_share_ppm.iter().map(|(campaign, share)| (format!("campaign_share_ppm[{campaign}]"), *share));
    let shares = [("candidate_share_ppm".to_owned(), plan.candidate_share_ppm), ("shadow_ppm".to_owned(), plan.shadow_ppm)];
    for (field, share) in campaigns.chain(shares) {
        if share > WHOLE_PPM {
            return Err(Error::field(field, format!("{share}; at most {WHOLE_PPM} are taken")));
        }
        if share > 0 && plan.candidate.is_empty() {
            return Err(Error::field(field, "there is no candidate to share with"));
        }
    }
    Ok(())
}
