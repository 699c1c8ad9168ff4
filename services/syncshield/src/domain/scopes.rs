//! Limits by scope: the client, a campaign, a campaign on a platform, each in one currency.
//!
//! A grant is held against every limit of every scope that it falls in, or not made. What counts against a limit is
//! what was charged and what leases commit: in all, on the local day, or in the window. A lease counts in a window from
//! its grant until the window after its end, so that what is spent in any such window stays within the limit.

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::money::Micros;
use serde::{Deserialize, Serialize};

use super::budget::{Available, CampaignState, Span};
use super::outage::Outage;
use super::refusal::Refusal;
use super::state::{ClientState, State};

/// The window where a limit names none, and that of the burn rate: ten minutes.
pub const DEFAULT_WINDOW_SECONDS: u32 = 600;
/// The longest window: what was spent is kept in buckets of ten seconds for so long, 360 a platform.
pub const MAX_WINDOW_SECONDS: u32 = 3_600;
/// The shortest window: a bucket.
pub const MIN_WINDOW_SECONDS: u32 = 10;
/// Scopes with limits of one client: some hundred campaigns on a handful of platforms each.
pub const MAX_SCOPES: usize = 4_096;
/// Parts of a limit that are alerted, percent.
pub const THRESHOLDS: [u32; 3] = [70, 90, 100];

/// Whose money a limit bounds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// The campaign; empty for the client as a whole.
    pub campaign: String,
    /// The platform; empty for all.
    pub platform: String,
    /// ISO 4217.
    pub currency: String,
}

/// What a limit bounds the spend of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// All time.
    Total,
    /// A local day.
    Daily,
    /// A sliding window.
    Window,
}

impl Kind {
    /// As the log has it.
    #[must_use]
    pub fn leaf(self) -> leaf::LimitKind {
        match self {
            Self::Total => leaf::LimitKind::Total,
            Self::Daily => leaf::LimitKind::Daily,
            Self::Window => leaf::LimitKind::Window,
        }
    }
}

/// The limits of a scope; zero for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Version of the leaf.
    pub version: u64,
    /// In all.
    pub total: Micros,
    /// A local day.
    pub daily: Micros,
    /// A window.
    pub window: Micros,
    /// The window's length.
    pub window_seconds: u32,
    /// Zone of the day.
    pub zone: String,
    /// No grants, renewals and marks.
    pub paused: bool,
}

impl Limits {
    /// As the log has them.
    #[must_use]
    pub fn leaf(&self, scope: &Scope) -> leaf::Limits {
        leaf::Limits {
            campaign: scope.campaign.clone(),
            platform: scope.platform.clone(),
            currency: scope.currency.clone(),
            version: self.version,
            limit_total_micros: self.total.get(),
            limit_daily_micros: self.daily.get(),
            limit_window_micros: self.window.get(),
            window_seconds: self.window_seconds,
            zone: self.zone.clone(),
            paused: self.paused,
        }
    }
}

/// One limit, and what stands against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub scope: Scope,
    /// Which.
    pub kind: Kind,
    /// Over what it sums.
    pub span: Span,
    /// It is the campaign document's own.
    pub own: bool,
    /// Version of the leaf that set it.
    pub version: u64,
    /// The limit.
    pub limit: Micros,
    /// What was charged, nanos.
    pub settled: i128,
    /// What leases commit, nanos.
    pub committed: i128,
}

impl Standing {
    /// What a grant may still take; below 0 where the scope is overcommitted.
    #[must_use]
    pub fn available(&self) -> i128 {
        self.limit.nanos() - self.settled - self.committed
    }

    /// The limit's name in a refusal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.scope.campaign.is_empty(), self.scope.platform.is_empty(), self.kind) {
            (true, _, Kind::Total) => "client's total",
            (true, _, Kind::Daily) => "client's daily",
            (true, _, Kind::Window) => "client's window",
            (_, true, Kind::Total) => "total",
            (_, true, Kind::Daily) => "daily",
            (_, true, Kind::Window) => "window",
            (_, _, Kind::Total) => "platform's total",
            (_, _, Kind::Daily) => "platform's daily",
            (_, _, Kind::Window) => "platform's window",
        }
    }

    /// The highest threshold that what was charged has reached, percent; 0 for none, and for a limit of nothing.
    #[must_use]
    pub fn reached(&self) -> u32 {
        let reached = |percent: &&u32| self.limit > Micros::ZERO && self.settled * 100 >= self.limit.nanos() * i128::from(**percent);
        THRESHOLDS.iter().rev().find(reached).copied().unwrap_or(0)
    }
}

/// When, and on which local day, limits are looked at.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Now.
    pub now: UnixMicros,
    /// Start of the local day.
    pub day: UnixMicros,
    /// Whether what leases commit is wanted: it takes a look at each of them.
    pub commitments: bool,
    /// Leases that it keeps for their holders count as live.
    pub outage: Option<Outage>,
}

impl At {
    fn spent(self, campaign: &CampaignState, platform: Option<&str>, span: Span) -> (i128, i128) {
        let committed = if self.commitments { campaign.committed_in(self.now, platform, span) } else { 0 };
        let kept = self.outage.map_or(0, |outage| campaign.kept_in(self.now, platform, span, outage));
        (campaign.settled_in(self.now, platform, span), committed + kept)
    }
}

/// The alert that was raised last for a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Raised {
    /// The limit's version.
    pub version: u64,
    /// The local day; zero for a total.
    pub day: UnixMicros,
    /// Percent.
    pub threshold: u32,
}

impl ClientState {
    /// Every limit that holds for a campaign and the platforms asked for: its own first.
    #[must_use]
    pub fn standings(&self, at: At, id: &str, platform: impl Fn(&str) -> bool) -> Vec<Standing> {
        let Some(campaign) = self.campaigns.get(id) else { return Vec::new() };
        let own = Scope { campaign: id.to_owned(), platform: String::new(), currency: campaign.currency.clone() };
        let of = |limit, span| {
            let (settled, committed) = at.spent(campaign, None, span);
            let kind = if span == Span::Total { Kind::Total } else { Kind::Daily };
            Standing { scope: own.clone(), kind, span, own: true, version: campaign.version, limit, settled, committed }
        };
        let mut standings = vec![of(campaign.limit_total, Span::Total)];
        if campaign.limit_daily > Micros::ZERO {
            standings.push(of(campaign.limit_daily, Span::Day(at.day)));
        }
        for (scope, limits) in &self.limits {
            let ours = scope.campaign.is_empty() || scope.campaign == id;
            if ours && scope.currency == campaign.currency && (scope.platform.is_empty() || platform(&scope.platform)) {
                self.scope_standings(at, scope, limits, &mut standings);
            }
        }
        standings
    }

    fn scope_standings(&self, at: At, scope: &Scope, limits: &Limits, to: &mut Vec<Standing>) {
        let platform = (!scope.platform.is_empty()).then_some(scope.platform.as_str());
        let inside = |id: &str, campaign: &CampaignState| {
            if scope.campaign.is_empty() { campaign.currency == scope.currency } else { id == scope.campaign }
        };
        let all = [
            (Kind::Total, limits.total, Span::Total),
            (Kind::Daily, limits.daily, Span::Day(at.day)),
            (Kind::Window, limits.window, Span::Window(limits.window_seconds)),
        ];
        for (kind, limit, span) in all.into_iter().filter(|(_, limit, _)| *limit > Micros::ZERO) {
            let spent = self.campaigns.iter().filter(|(id, c)| inside(id, c)).map(|(_, c)| at.spent(c, platform, span));
            let (settled, committed) = spent.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            to.push(Standing { scope: scope.clone(), kind, span, own: false, version: limits.version, limit, settled, committed });
        }
    }

    /// The limits of a client, a campaign or a campaign on a platform.
    #[must_use]
    pub fn limits_of(&self, scope: &Scope) -> Option<&Limits> {
        self.limits.get(scope)
    }

    /// The scope that is paused by its limits, in words.
    #[must_use]
    pub fn paused(&self, id: &str, platform: &str) -> Option<&'static str> {
        let currency = &self.campaigns.get(id)?.currency;
        let paused = |campaign: &str, platform: &str| {
            let scope = Scope { campaign: campaign.to_owned(), platform: platform.to_owned(), currency: currency.clone() };
            self.limits.get(&scope).is_some_and(|limits| limits.paused)
        };
        let words = [(paused("", ""), "is paused with its client"), (paused(id, ""), "is paused by its limits")];
        let on_platform = (!platform.is_empty() && paused(id, platform), "is paused on the platform");
        words.into_iter().chain([on_platform]).find_map(|(is, words)| is.then_some(words))
    }

    fn has_platform_limits(&self, id: &str) -> bool {
        self.limits.keys().any(|scope| scope.campaign == id && !scope.platform.is_empty())
    }

    /// Puts the limits that a leaf says.
    pub(super) fn put_limits(&mut self, leaf: &leaf::Limits) {
        let limits = Limits {
            version: leaf.version,
            total: Micros::new(leaf.limit_total_micros),
            daily: Micros::new(leaf.limit_daily_micros),
            window: Micros::new(leaf.limit_window_micros),
            window_seconds: leaf.window_seconds,
            zone: leaf.zone.clone(),
            paused: leaf.paused,
        };
        self.limits.insert(scope_of(leaf), limits);
    }

    /// Notes an alert.
    pub(super) fn raise(&mut self, alert: &leaf::BudgetAlert) {
        self.raised.insert(alert_key(alert), raised(alert));
    }
}

/// Whose limits a leaf sets.
#[must_use]
pub fn scope_of(leaf: &leaf::Limits) -> Scope {
    Scope { campaign: leaf.campaign.clone(), platform: leaf.platform.clone(), currency: leaf.currency.clone() }
}

fn alert_key(alert: &leaf::BudgetAlert) -> (Scope, i32, bool) {
    let scope = Scope { campaign: alert.campaign.clone(), platform: alert.platform.clone(), currency: alert.currency.clone() };
    (scope, alert.limit, alert.own)
}

fn raised(alert: &leaf::BudgetAlert) -> Raised {
    let day = UnixMicros::from_pb(alert.day_start.as_ref()).unwrap_or_default();
    let day = if alert.limit() == leaf::LimitKind::Total { UnixMicros::default() } else { day };
    Raised { version: alert.version, day, threshold: alert.threshold_percent }
}

impl State {
    /// What binds a grant most: of all limits of all its scopes.
    ///
    /// # Errors
    /// No such campaign, or no platform named where there are limits by platform.
    pub fn available(&self, at: At, client: &str, campaign: &str, platform: &str) -> Result<Available, Refusal> {
        self.campaign(client, campaign)?;
        let of = &self.clients[client];
        if platform.is_empty() && of.has_platform_limits(campaign) {
            return Err(Refusal::field("platform", format!("is empty, and campaign {campaign} has limits by platform")));
        }
        let standings = of.standings(at, campaign, |p| p == platform);
        let least = standings.iter().min_by_key(|standing| standing.available());
        Ok(least.map_or(Available { nanos: 0, limit: "total" }, |s| Available { nanos: s.available(), limit: s.name() }))
    }

    /// No grant, renewal or mark in a paused scope.
    pub(super) fn check_running(&self, client: &str, campaign: &str, platform: &str) -> Result<(), Refusal> {
        let paused = self.clients.get(client).and_then(|of| of.paused(campaign, platform));
        paused.map_or(Ok(()), |why| Err(Refusal::Inactive { campaign: campaign.to_owned(), why }))
    }

    /// Limits follow from those before, and a day is one day for all that it bounds.
    pub(super) fn check_limits(&self, client: &str, limits: &leaf::Limits) -> Result<(), Refusal> {
        let of = self.clients.get(client).ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        let scope = scope_of(limits);
        let before = of.limits.get(&scope);
        let next = before.map_or(0, |before| before.version) + 1;
        if limits.limit_window_micros > 0 && !(MIN_WINDOW_SECONDS..=MAX_WINDOW_SECONDS).contains(&limits.window_seconds) {
            let problem = format!("{} is not within {MIN_WINDOW_SECONDS} to {MAX_WINDOW_SECONDS}", limits.window_seconds);
            return Err(Refusal::field("limits.window_seconds", problem));
        }
        if limits.version != next {
            return Err(Refusal::OutOfOrder(format!("limits version {} was recorded, and {next} is next", limits.version)));
        }
        if before.is_none() && of.limits.len() >= MAX_SCOPES {
            return Err(Refusal::TooMany { field: "limits".into(), count: of.limits.len() + 1, limit: MAX_SCOPES });
        }
        if scope.campaign.is_empty() && !scope.platform.is_empty() {
            return Err(Refusal::field("limits.platform", "needs a campaign"));
        }
        if !scope.campaign.is_empty() && self.campaign(client, &scope.campaign)?.currency != scope.currency {
            return Err(Refusal::field("limits.currency", format!("{} is not the campaign's", scope.currency)));
        }
        let inside = |(id, campaign): &(&String, &CampaignState)| {
            campaign.currency == scope.currency && (scope.campaign.is_empty() || **id == scope.campaign)
        };
        let other = of.campaigns.iter().filter(inside).find(|(_, campaign)| campaign.zone != limits.zone);
        match other {
            Some((id, campaign)) if limits.limit_daily_micros > 0 => {
                Err(Refusal::field("limits.zone", format!("{:?}, and campaign {id} has its days in {:?}", limits.zone, campaign.zone)))
            }
            _ => Ok(()),
        }
    }

    /// A campaign's days are those of the daily limits that it falls under.
    pub(super) fn check_zone(&self, client: &str, document: &leaf::Campaign) -> Result<(), Refusal> {
        let Some(of) = self.clients.get(client) else { return Ok(()) };
        let ours =
            |scope: &Scope| scope.currency == document.currency && (scope.campaign.is_empty() || scope.campaign == document.campaign);
        let other = of.limits.iter().find(|(scope, l)| ours(scope) && l.daily > Micros::ZERO && l.zone != document.zone);
        other.map_or(Ok(()), |(_, limits)| {
            Err(Refusal::field("campaign.zone", format!("{:?}, and a daily limit has its days in {:?}", document.zone, limits.zone)))
        })
    }

    /// The alerts that what was charged calls for, of a campaign's scopes, on a local day.
    #[must_use]
    pub fn due_alerts(&self, now: UnixMicros, client: &str, campaign: &str, day: UnixMicros) -> Vec<leaf::BudgetAlert> {
        let Some(of) = self.clients.get(client) else { return Vec::new() };
        let mut due = Vec::new();
        for standing in of.standings(At { now, day, commitments: false, outage: None }, campaign, |_| true) {
            let reached = standing.reached();
            for threshold_percent in THRESHOLDS.into_iter().filter(|threshold| *threshold <= reached) {
                let alert = alert(&standing, threshold_percent, day);
                if of.raised.get(&alert_key(&alert)).is_none_or(|last| *last < raised(&alert)) {
                    due.push(alert);
                }
            }
        }
        due
    }

    /// An alert says what is so, and has not been said.
    pub(super) fn check_alert(&self, now: UnixMicros, client: &str, alert: &leaf::BudgetAlert) -> Result<(), Refusal> {
        let day = UnixMicros::from_pb(alert.day_start.as_ref()).unwrap_or_default();
        let of = self.clients.get(client).ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        // A limit of the whole client is seen from any campaign in its currency.
        let from = of.campaigns.iter().find(|(_, c)| c.currency == alert.currency).map_or("", |(id, _)| id.as_str());
        let from = if alert.campaign.is_empty() { from } else { &alert.campaign };
        let due = self.due_alerts(now, client, from, day);
        if due.contains(alert) { Ok(()) } else { Err(Refusal::OutOfOrder("an alert of what is not so, or was said before".into())) }
    }
}

fn alert(standing: &Standing, threshold_percent: u32, day: UnixMicros) -> leaf::BudgetAlert {
    leaf::BudgetAlert {
        campaign: standing.scope.campaign.clone(),
        platform: standing.scope.platform.clone(),
        currency: standing.scope.currency.clone(),
        limit: standing.kind.leaf().into(),
        own: standing.own,
        version: standing.version,
        limit_micros: standing.limit.get(),
        threshold_percent,
        settled_nanos: Some(standing.settled.into()),
        day_start: Some(day.into()),
    }
}
