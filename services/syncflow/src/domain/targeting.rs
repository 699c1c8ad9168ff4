//! Campaigns as the bid path needs them, and whether one fits an opportunity.
//!
//! Invariant: a campaign that is paused, has no terms, or counts in a currency that the exchange does not take never
//! fits. Deliberately not here: the operator's guardrails (`kiki::guardrail`), prices and budgets.

use std::collections::HashSet;
use std::sync::Arc;

use kiki::ids::{CampaignId, ClientId, IdError};
use kiki::leaf;
use kiki::money::{Currency, Micros, MoneyError, Nanos};

use super::creative::Creative;
use super::fallback::Recent;
use super::opportunity::{Opportunity, Shape};
use super::pacing::Plan;

/// Names that an opportunity is looked up in.
type Names = HashSet<String, foldhash::fast::RandomState>;

/// A campaign, compiled from its leaf.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The advertiser.
    pub client: String,
    /// The campaign's id.
    pub id: String,
    /// Raised by each change.
    pub version: u64,
    /// What it counts in.
    pub currency: Currency,
    /// Lifetime value's horizon by the client's terms; 0 where there are none.
    pub horizon_days: u16,
    /// The whole budget, micros.
    pub limit_total: Micros,
    /// The budget of a day; 0 where there is none.
    pub limit_daily: Micros,
    /// The return asked for, parts per million.
    pub target_roas_ppm: i64,
    /// P(conversion) before anything was seen, parts per billion.
    pub prior_p_conversion_ppb: u32,
    /// Lifetime value where there is no prediction.
    pub prior_ltv: Micros,
    /// The most an impression may cost; 0 where only the policy's cap holds.
    pub bid_cap: Nanos,
    /// How its days are paced; none where they are not.
    pub pacing: Option<Plan>,
    /// The share of first-price bids that try a lower price, parts per million; none where bids are not shaded.
    pub shading: Option<u32>,
    /// How far uncertain predictions are taken down, parts per million.
    pub caution_ppm: u32,
    /// What its customers were predicted to be worth lately.
    pub recent: Arc<Recent>,
    /// What it shows.
    pub creatives: Vec<Creative>,
    paused: bool,
    platforms: Names,
    exchanges: Names,
    countries: Names,
    blocked_countries: Names,
    known_customers_only: bool,
}

/// A campaign that cannot be bid for as it stands.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// An id is not of its form.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Its currency is none.
    #[error(transparent)]
    Currency(#[from] MoneyError),
    /// Its zone is none, and its days are to be paced.
    #[error("zone: {0}")]
    Zone(#[from] jiff::Error),
}

impl Campaign {
    /// Compiles a campaign.
    ///
    /// # Errors
    /// An id or the currency is not of its form, or the zone of a paced campaign is unknown.
    pub fn compile(client: &str, campaign: &leaf::Campaign, horizon_days: u32) -> Result<Self, CampaignError> {
        let set = |list: &[String]| list.iter().cloned().collect::<Names>();
        let targeting = campaign.targeting.clone().unwrap_or_default();
        Ok(Self {
            client: ClientId::parse(client)?.as_str().to_owned(),
            id: CampaignId::parse(&campaign.campaign)?.as_str().to_owned(),
            version: campaign.version,
            currency: Currency::parse(&campaign.currency)?,
            horizon_days: u16::try_from(horizon_days).unwrap_or(u16::MAX),
            limit_total: Micros::new(campaign.limit_total_micros),
            limit_daily: Micros::new(campaign.limit_daily_micros),
            target_roas_ppm: campaign.target_roas_ppm,
            prior_p_conversion_ppb: campaign.prior_p_conversion_ppb,
            prior_ltv: Micros::new(campaign.prior_ltv_micros),
            bid_cap: Nanos::new(campaign.bid_cap_nanos),
            caution_ppm: campaign.caution_ppm,
            pacing: Plan::of(campaign)?,
            shading: campaign.shading.then_some(campaign.exploration_ppm),
            recent: Arc::default(),
            creatives: campaign.creatives.iter().map(Creative::compile).collect(),
            paused: campaign.paused,
            platforms: set(&campaign.platforms),
            exchanges: set(&campaign.exchanges),
            countries: set(&targeting.countries),
            blocked_countries: set(&targeting.blocked_countries),
            known_customers_only: targeting.known_customers_only,
        })
    }

    /// The same, with the recent predictions of an earlier version of it, if they were of the same money and horizon.
    #[must_use]
    pub fn following(self, earlier: &Self) -> Self {
        let same = (self.currency, self.horizon_days) == (earlier.currency, earlier.horizon_days);
        if same { Self { recent: earlier.recent.clone(), ..self } } else { self }
    }

    /// The place of the first creative that may be shown, if the campaign wants the opportunity at all.
    #[must_use]
    pub fn fits(&self, opportunity: &Opportunity<'_>) -> Option<usize> {
        let everywhere = |set: &Names, value: &str| set.is_empty() || set.contains(value);
        let wanted = !self.paused
            && self.horizon_days > 0
            && !opportunity.deals_only
            && everywhere(&self.platforms, opportunity.platform)
            && everywhere(&self.exchanges, opportunity.exchange)
            && everywhere(&self.countries, opportunity.country)
            && !self.blocked_countries.contains(opportunity.country)
            && (opportunity.customer.is_some() || !self.known_customers_only)
            && self.seat_allowed(opportunity)
            && self.currency_taken(opportunity);
        if !wanted {
            return None;
        }
        self.creatives.iter().position(|creative| {
            !creative.blocked(opportunity)
                && (creative.secure || !opportunity.secure)
                && (creative.disclosed(opportunity.dsa).is_some() || !opportunity.dsa.is_required())
                && opportunity.shapes.iter().any(|shape| creative.fits(shape))
        })
    }

    fn seat_allowed(&self, opportunity: &Opportunity<'_>) -> bool {
        let listed = |seats: &[&str]| seats.contains(&self.client.as_str());
        (opportunity.seats.is_empty() || listed(&opportunity.seats)) && !listed(&opportunity.blocked_seats)
    }

    /// There are no exchange rates here: a floor in another currency cannot be compared with.
    fn currency_taken(&self, opportunity: &Opportunity<'_>) -> bool {
        let code = self.currency.code();
        let comparable = opportunity.floor == Nanos::ZERO || opportunity.floor_currency == code;
        comparable && opportunity.currencies.contains(&code)
    }
}

impl Creative {
    /// Whether it may be shown in that shape.
    fn fits(&self, shape: &Shape) -> bool {
        use leaf::CreativeFormat as Format;
        match (self.format, shape) {
            (Format::Banner, Shape::Banner(sizes)) => sizes.contains(&self.size),
            (Format::Video, Shape::Video(media)) | (Format::Audio, Shape::Audio(media)) => {
                let playable = self.mimes.is_empty() || self.mimes.iter().any(|mime| media.mimes.contains(mime));
                let longest = media.max_duration_s.unwrap_or(u32::MAX);
                !media.mimes.is_empty() && playable && (media.min_duration_s..=longest).contains(&self.duration_s)
            }
            (Format::Native, Shape::Native(native)) => native.required.iter().all(|asset| self.assets.contains(asset)),
            _ => false,
        }
    }

    /// Whether the publisher will not have its advertiser.
    fn blocked(&self, opportunity: &Opportunity<'_>) -> bool {
        // A category of the first tier stands for those below it.
        let listed = |own: &String, list: &[&str]| list.iter().any(|one| own == one || own.split('-').next() == Some(one));
        let category = self.categories.iter().any(|own| listed(own, &opportunity.blocked_categories));
        // Who does not say what is advertised cannot say that it is among what is allowed.
        let allowed = &opportunity.allowed_categories;
        let elsewhere = self.categories.is_empty() || !self.categories.iter().all(|own| listed(own, allowed));
        let domain = |blocked: &&str| self.adomain.iter().any(|own| within(own, blocked));
        let app = !self.bundle.is_empty() && opportunity.blocked_apps.contains(&self.bundle.as_str());
        category || (!allowed.is_empty() && elsewhere) || app || opportunity.blocked_advertisers.iter().any(domain)
    }
}

/// Whether `domain` is `parent` or below it, in letters of any case.
fn within(domain: &str, parent: &str) -> bool {
    let (domain, parent) = (domain.as_bytes(), parent.as_bytes());
    let Some((below, end)) = domain.len().checked_sub(parent.len()).map(|at| domain.split_at(at)) else { return false };
    end.eq_ignore_ascii_case(parent) && (below.is_empty() || below.ends_with(b"."))
}

#[cfg(test)]
mod tests;
