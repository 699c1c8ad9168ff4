//! The budget leases that this instance holds, one a campaign and platform, so that limits by platform hold.
//!
//! A slot is taken in memory, and without a lock where a [window](crate::domain::lease::Window) of the lease is open; only where the lease must grow, move its mark, live longer or be replaced does a bid wait
//! for SyncShield. Such a step runs to its end even if the bid that wanted it gives up, so that what is held here and
//! what the log says cannot drift apart. Steps depend on the order of bids and on the clock given, not on real time.
//!
//! A lease that is asked for and not answered is asked for again in the same words, under the same key: it is granted once.
//! From the moment that a lease's return is sent no slot of it is taken, and an unanswered return is sent again in the same
//! words. A lease is forgotten only where the log has ended it or does not know it: what is not returned stays held.

mod books;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::money::{Micros, NANOS_PER_MICRO, Nanos};
use kiki::pb::syncshield::v1 as pb;
use kiki::status::Reason;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::retry::budget::{Budget as _, TpsBudget};

use super::Shield;
use crate::domain::auction::Counts;
use crate::domain::burn::Burn;
use crate::domain::lease::{Grant, Lease, Mark, Refused, Slot, least_to_ask, opening_mark};
use crate::domain::targeting::Campaign;
use crate::error::unreachable;
use crate::metrics::Metrics;
use crate::pacing::Pacing;
pub(crate) use books::Account;
use books::{Books, Exhausted, Held};

/// A step waits this long for SyncShield; bids give up earlier by their own deadline.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Steps of one bid: return, lease, mark, and each once more where another bid came between.
const MAX_STEPS: usize = 8;
/// How long a paused budget is not asked about again.
const PAUSED_FOR: Duration = Duration::from_secs(5);

/// Steps that are tried again: ten a second over ten seconds, and one for five that are tried for the first time.
const RETRIES_OVER: Duration = Duration::from_secs(10);
const RETRIES_A_SECOND: u32 = 10;
const RETRIES_OF_ALL: f32 = 0.2;

/// How often leases are looked after: often, against the half minute after which one that lives a minute is idle.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// What `Budget.burn_nanos` is the sum of.
const BURN_WINDOW: Duration = Duration::from_secs(600);

/// Why there is no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSlot {
    /// The budget does not have the price.
    Budget,
    /// SyncShield gives no lease now, and why.
    Unavailable(String),
}

/// The leases.
#[derive(Debug)]
pub struct Leases {
    shield: Shield,
    holder: String,
    /// Random for each start, so that keys of an earlier life are not met again.
    boot: String,
    next_key: AtomicU64,
    skew: Duration,
    /// Hears what the log says was spent.
    pacing: Arc<Pacing>,
    metrics: Metrics,
    /// What may be asked again of a SyncShield that did not answer: bids would ask as often as they come.
    retries: TpsBudget,
    books: Books,
}

/// What a bid needs a step for.
struct Want {
    campaign: Arc<Campaign>,
    platform: String,
    price: Nanos,
    now: UnixMicros,
}

enum Step {
    Lease,
    Mark,
    Renew,
    Return,
}

impl Leases {
    /// No leases yet.
    #[must_use]
    pub fn new(shield: Shield, holder: String, boot: String, skew: Duration, pacing: Arc<Pacing>, metrics: Metrics) -> Arc<Self> {
        let next_key = AtomicU64::new(0);
        let retries = TpsBudget::new(RETRIES_OVER, RETRIES_A_SECOND, RETRIES_OF_ALL);
        Arc::new(Self { shield, holder, boot, next_key, skew, pacing, metrics, retries, books: Books::default() })
    }

    /// What the log had counted for the campaign when its lease was last granted or renewed.
    #[must_use]
    pub fn counts(&self, campaign: &Campaign) -> Option<Counts> {
        self.books.read(&campaign.client, &campaign.id, |book| *book.shared.counts.lock()).flatten()
    }

    /// What windows of leases let each campaign spend without another word from SyncShield, rounded up, by client and campaign.
    #[must_use]
    pub fn floats(&self, now: UnixMicros) -> Vec<(String, String, Micros)> {
        let mut floats: Vec<(String, String, i128)> = Vec::new();
        for (client, campaign, account) in self.books.accounts() {
            let nanos = account.left(now).wide();
            match floats.last_mut() {
                Some(last) if last.0 == client && last.1 == campaign => last.2 += nanos,
                _ => floats.push((client, campaign, nanos)),
            }
        }
        let micros = |nanos: i128| i64::try_from((nanos + NANOS_PER_MICRO - 1) / NANOS_PER_MICRO).unwrap_or(i64::MAX);
        floats.into_iter().map(|(client, campaign, nanos)| (client, campaign, Micros::new(micros(nanos)))).collect()
    }

    /// Money of the campaign came back: an exhausted budget may be asked again.
    pub fn freed(&self, client: &str, campaign: &str) {
        self.books.read(client, campaign, |book| book.shared.freed.fetch_add(1, Ordering::AcqRel));
    }

    /// What the campaign's bids on a platform take their slots from.
    pub(crate) fn account(&self, campaign: &Campaign, platform: &str) -> Arc<Account> {
        self.books.account(&campaign.client, &campaign.id, platform)
    }

    /// Takes a slot for a bid on a platform that may cost `price`.
    ///
    /// # Errors
    /// [`NoSlot`], and then no slot was taken. Given up while waiting, none was taken either.
    pub async fn take(self: &Arc<Self>, campaign: &Arc<Campaign>, platform: &str, price: Nanos, now: UnixMicros) -> Result<Slot, NoSlot> {
        let account = self.account(campaign, platform);
        for _ in 0..MAX_STEPS {
            if let Some(slot) = account.take(price, now) {
                return Ok(slot);
            }
            let mut held = account.held.clone().lock_owned().await;
            // Who held it before may have opened a window with room for this one.
            if let Some(slot) = account.take(price, now) {
                return Ok(slot);
            }
            let exhausted = account.is_exhausted(&held, campaign, price, now);
            if let (None, Some((since, why))) = (&held.lease, &held.paused)
                && now.since(*since) < PAUSED_FOR
            {
                return Err(NoSlot::Unavailable(why.clone()));
            }
            let (returning, mut burn) = (held.returning.is_some(), held.burn);
            let step = match &mut held.lease {
                None if exhausted => return Err(NoSlot::Budget),
                None => Step::Lease,
                Some(_) if returning => Step::Return,
                Some(lease) if lease.may_come_back(now) => Step::Renew,
                Some(lease) if lease.ageing(now) && !lease.expired(now) => {
                    burn.note(lease.taken(), now);
                    if lease.oversized(account.amount(campaign, price, burn)) { Step::Return } else { Step::Renew }
                }
                Some(lease) => match lease.take(price, now) {
                    Ok(slot) => {
                        account.window.store(lease.open());
                        return Ok(slot);
                    }
                    Err(Refused::NeedsMark) => Step::Mark,
                    Err(Refused::NeedsLease | Refused::Expired) => Step::Return,
                },
            };
            if !held.unanswered {
                self.retries.deposit();
            } else if !self.retries.withdraw() {
                return Err(NoSlot::Unavailable("syncshield did not answer, and is asked again in a moment".to_owned()));
            }
            let want = Want { campaign: campaign.clone(), platform: platform.to_owned(), price, now };
            let (leases, owner) = (self.clone(), account.clone());
            let step = tokio::spawn(async move { leases.step(&owner, &mut held, step, &want).await });
            step.await.unwrap_or_else(|error| Err(NoSlot::Unavailable(error.to_string())))?;
        }
        Err(NoSlot::Unavailable(format!("no slot after {MAX_STEPS} steps")))
    }

    async fn step(&self, account: &Account, held: &mut Held, step: Step, want: &Want) -> Result<(), NoSlot> {
        let stepped = self.stepped(account, held, step, want).await;
        held.unanswered = matches!(stepped, Err(NoSlot::Unavailable(_)));
        stepped
    }

    async fn stepped(&self, account: &Account, held: &mut Held, step: Step, want: &Want) -> Result<(), NoSlot> {
        match step {
            Step::Lease => self.lease(account, held, want).await,
            Step::Mark => self.mark(held, want).await,
            Step::Renew => self.renew(account, held, want).await,
            Step::Return => {
                if let (Some(lease), None) = (&held.lease, &held.returning) {
                    held.burn.note(lease.taken(), want.now);
                }
                self.give_back(&want.campaign.client, &want.campaign.id, held).await
            }
        }
    }

    async fn lease(&self, account: &Account, held: &mut Held, want: &Want) -> Result<(), NoSlot> {
        let freed = account.shared.freed.load(Ordering::Acquire);
        let burn = held.burn;
        let request = held.asked.get_or_insert_with(|| self.ask(account, burn, want)).clone();
        let mut shield = self.shield.clone();
        let answer = match call(shield.lease(request)).await {
            Err(status) if passing(&status) => return Err(unavailable(&status)),
            answer => answer,
        };
        (held.asked, held.paused) = (None, None);
        match answer {
            Ok(answer) => {
                let grant = answer.grant.as_ref().and_then(grant);
                self.learn(account, answer.counts, answer.budget.as_ref(), grant.as_ref());
                let grant = grant.ok_or_else(|| NoSlot::Unavailable("a grant without its bounds".to_owned()))?;
                held.lease = Some(Lease::new(grant, self.skew));
                held.exhausted = None;
                Ok(())
            }
            Err(status) if Reason::BudgetExhausted.is(&status) => {
                let version = want.campaign.version;
                held.exhausted = Some(Exhausted { least: want.price, at: want.now, freed, version });
                Err(NoSlot::Budget)
            }
            Err(status) => {
                if Reason::CampaignInactive.is(&status) {
                    held.paused = Some((want.now, status.message().to_owned()));
                }
                Err(unavailable(&status))
            }
        }
    }

    fn ask(&self, account: &Account, burn: Burn, want: &Want) -> pb::LeaseRequest {
        let campaign = &want.campaign;
        let least = least_to_ask(want.price);
        let amount = account.amount(campaign, want.price, burn);
        let mark = opening_mark(amount, want.price);
        pb::LeaseRequest {
            key: format!("{}.{}", self.boot, self.next_key.fetch_add(1, Ordering::Relaxed)),
            client: campaign.client.clone(),
            campaign: campaign.id.clone(),
            holder: self.holder.clone(),
            amount_micros: amount.get(),
            least_micros: least.get(),
            mark_sequence: mark.sequence,
            mark_nanos: mark.nanos,
            platform: want.platform.clone(),
        }
    }

    async fn mark(&self, held: &mut Held, want: &Want) -> Result<(), NoSlot> {
        let Some(lease) = &mut held.lease else { return Ok(()) };
        let mark = lease.next_mark(want.price);
        let mut shield = self.shield.clone();
        let request = pb::MarkRequest {
            client: want.campaign.client.clone(),
            lease_id: lease.grant().lease_id,
            epoch: lease.grant().epoch,
            sequence: mark.sequence,
            amount_nanos: mark.nanos,
            campaign: want.campaign.id.clone(),
        };
        match call(shield.mark(request)).await {
            Ok(answer) => lease.marked(Mark { sequence: answer.sequence, nanos: answer.amount_nanos }),
            Err(status) => self.refused(held, want, &status).await?,
        }
        Ok(())
    }

    async fn renew(&self, account: &Account, held: &mut Held, want: &Want) -> Result<(), NoSlot> {
        let Some(lease) = &mut held.lease else { return Ok(()) };
        let mut shield = self.shield.clone();
        let request = pb::RenewRequest {
            client: want.campaign.client.clone(),
            lease_id: lease.grant().lease_id,
            epoch: lease.grant().epoch,
            campaign: want.campaign.id.clone(),
        };
        lease.renewal_sent(); // before the call: an answer may never come
        match call(shield.renew(request)).await {
            Ok(answer) => {
                let renewed = answer.grant.as_ref().and_then(grant);
                self.learn(account, answer.counts, answer.budget.as_ref(), renewed.as_ref());
                let renewed = renewed.ok_or_else(|| NoSlot::Unavailable("a renewal without its bounds".to_owned()))?;
                held.burn.note(lease.taken(), want.now);
                lease.renewed(renewed.epoch, renewed.expires_at, want.now);
            }
            Err(status) => self.refused(held, want, &status).await?,
        }
        Ok(())
    }

    /// A lease of a paused budget goes back, so that what was marked and not used is free; any other refusal means that it is lost.
    async fn refused(&self, held: &mut Held, want: &Want, status: &Status) -> Result<(), NoSlot> {
        if !Reason::CampaignInactive.is(status) {
            return held.refused(status, want);
        }
        held.paused = Some((want.now, status.message().to_owned()));
        self.give_back(&want.campaign.client, &want.campaign.id, held).await?;
        Err(unavailable(status))
    }

    async fn give_back(&self, client: &str, campaign: &str, held: &mut Held) -> Result<(), NoSlot> {
        let Some(lease) = &mut held.lease else { return Ok(()) };
        let request = held.returning.get_or_insert_with(|| return_of(lease, client, campaign));
        let mut shield = self.shield.clone();
        match call(shield.r#return(request.clone())).await {
            Ok(_) => {}
            // The return before this one was made and its answer lost, or nothing is held of it any more.
            Err(status) if Reason::LeaseEnded.is(&status) || Reason::NotFound.is(&status) => {
                tracing::info!("a lease had ended before its return: {}", status.message());
            }
            Err(status) if Reason::StaleEpoch.is(&status) && lease.learn_epoch() => {
                request.epoch = lease.grant().epoch;
                return Ok(());
            }
            Err(status) => {
                tracing::warn!("a lease is not returned yet: {}", status.message());
                return Err(unavailable(&status));
            }
        }
        (held.lease, held.returning) = (None, None);
        Ok(())
    }

    /// Gives back what no bid uses: leases that stand idle or have ended, and those whose return went unanswered. What was
    /// marked of them and not used would stay held otherwise.
    pub async fn tend(&self, now: UnixMicros) {
        for (client, campaign, account) in self.books.accounts() {
            let mut held = account.held.lock().await;
            if held.returning.is_none() {
                let Some(lease) = held.lease.as_ref().filter(|lease| lease.idle(now)) else { continue };
                let taken = lease.taken();
                held.burn.note(taken, now);
            }
            if let Err(why) = self.give_back(&client, &campaign, &mut held).await {
                tracing::info!("an idle lease of {campaign} of {client} is not returned yet: {why:?}");
            }
        }
    }

    /// Tends the leases until `stop`.
    pub async fn keep_tended(self: Arc<Self>, clock: Clock, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TEND_EVERY);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.tend(clock.now()).await;
        }
    }

    /// Gives every lease back; for the end of the process.
    pub async fn give_all_back(&self) {
        for (client, campaign, account) in self.books.accounts() {
            let mut held = account.held.lock().await;
            for _ in 0..MAX_STEPS {
                if let Err(why) = self.give_back(&client, &campaign, &mut held).await {
                    tracing::warn!("a lease of {campaign} of {client} was not given back and will expire: {why:?}");
                    break;
                }
                if held.lease.is_none() {
                    break;
                }
            }
        }
    }

    fn learn(&self, account: &Account, counts: Option<pb::CampaignCounts>, budget: Option<&pb::Budget>, grant: Option<&Grant>) {
        if let (Some(budget), Some(grant)) = (budget, grant) {
            *account.shared.burn.lock() = burn(budget, grant);
            self.pacing.told(budget, grant.day_end);
        }
        if let Some(counts) = counts {
            *account.shared.counts.lock() = Some(Counts { billed: counts.billed_impressions, conversions: counts.conversions });
        }
        if let Some(budget) = budget {
            self.metrics.budget(budget);
        }
    }
}

impl Held {
    /// A mark or renewal that is not made. Unanswered, or refused for the moment, the lease stays as it is; where the log will
    /// have none of it any more it is returned, so that what is held of it comes free.
    fn refused(&mut self, status: &Status, want: &Want) -> Result<(), NoSlot> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        if passing(status) {
            return Err(unavailable(status));
        }
        if Reason::StaleEpoch.is(status) && lease.learn_epoch() {
            return Ok(());
        }
        tracing::warn!("a lease is returned: {}", status.message());
        self.returning = Some(return_of(lease, &want.campaign.client, &want.campaign.id));
        Ok(())
    }
}

/// The lease's return. From here on no slot of it is taken.
fn return_of(lease: &mut Lease, client: &str, campaign: &str) -> pb::ReturnRequest {
    lease.shut();
    pb::ReturnRequest {
        client: client.to_owned(),
        lease_id: lease.grant().lease_id,
        epoch: lease.grant().epoch,
        sequence: lease.used().sequence,
        amount_nanos: lease.used().nanos,
        campaign: campaign.to_owned(),
    }
}

/// Whether the status says nothing of the lease: no answer, or none that would be the same a little later.
fn passing(status: &Status) -> bool {
    use tonic::Code;
    let full = status.code() == Code::ResourceExhausted && !Reason::BudgetExhausted.is(status);
    unreachable(status) || full || matches!(status.code(), Code::Unavailable | Code::Internal)
}

fn unavailable(status: &Status) -> NoSlot {
    NoSlot::Unavailable(format!("syncshield: {}", status.message()))
}

async fn call<T>(rpc: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(RPC_TIMEOUT, rpc).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer for 5 s")),
    }
}

/// What one of the budget's holders burns in the life of its lease, by what all of them did in the last ten minutes.
fn burn(budget: &pb::Budget, grant: &Grant) -> Micros {
    let burnt = budget.burn_nanos.as_ref().map_or(0, i128::from) / i128::from(budget.holders.max(1));
    let life = grant.expires_at.since(grant.granted_at).min(BURN_WINDOW).as_millis() as i128;
    let nanos = burnt * life / BURN_WINDOW.as_millis() as i128;
    Micros::new(i64::try_from(nanos / NANOS_PER_MICRO).unwrap_or(i64::MAX))
}

fn grant(grant: &pb::Grant) -> Option<Grant> {
    let time = |time: &Option<prost_types::Timestamp>| UnixMicros::from_pb(time.as_ref());
    Some(Grant {
        lease_id: grant.lease_id,
        epoch: grant.epoch,
        amount: Micros::new(grant.amount_micros),
        granted_at: time(&grant.granted_at)?,
        expires_at: time(&grant.expires_at)?,
        day_end: time(&grant.day_end)?,
        slots: grant.slots,
        mark: Mark { sequence: grant.mark_sequence, nanos: grant.mark_nanos },
    })
}
