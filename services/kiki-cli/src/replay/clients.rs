//! The two advertisers that a replay sets up, their campaigns and their terms.
//!
//! They differ where billing can: zone, basis, share, baseline, number of campaigns. What a campaign believes before it
//! has seen anything (P(conversion), lifetime value) is measured on the client's own history, as an advertiser would.

use std::collections::{BTreeMap, BTreeSet};

use kiki::clock::UnixMicros;
use kiki::leaf::{AttributionRule, Basis, Campaign, Creative, CreativeFormat, Evidence, Netting, Position, Targeting, Terms};
use sha2::{Digest as _, Sha256};

use super::events::{DAY, Events};

/// Look-back window of attribution, seconds: 14 days.
pub(crate) const LOOKBACK_SECONDS: u32 = 1_209_600;
/// Days over which the past is measured for the campaigns' priors.
const MEASURED_DAYS: i64 = 30;
/// By how much less a customer is taken to be worth whom nobody knows: else strangers would outbid known customers, who
/// are mostly worth less than the mean.
const CAUTION: i128 = 3;

/// An advertiser.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// IANA zone of its months and days.
    pub(crate) zone: &'static str,
    pub(crate) basis: Basis,
    pub(crate) baseline_ppm: i64,
    pub(crate) share_ppm: i64,
    pub(crate) horizon_days: u32,
    /// Its web shop.
    pub(crate) domain: &'static str,
    pub(crate) campaigns: &'static [Line],
}

/// A campaign of a client.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// Its part of a run's whole budget, percent.
    pub(crate) budget_percent: i64,
    /// The part of its budget that one day may take, percent; 0: no daily limit.
    pub(crate) daily_percent: i64,
    pub(crate) target_roas_ppm: i64,
    banners: &'static [(u32, u32)],
    /// Seconds.
    videos: &'static [u32],
    audios: &'static [u32],
    native: bool,
}

const BANNERS: &[(u32, u32)] = &[(300, 250), (300, 600), (728, 90), (320, 50), (160, 600), (320, 480), (970, 250), (300, 50)];

/// The advertisers. Customers whose SHA-256 begins with an even byte are acme's, the others globex's.
pub(crate) const CLIENTS: [Client; 2] = [
    Client {
        id: "acme",
        name: "Acme Outfitters Inc.",
        zone: "America/New_York",
        basis: Basis::Predicted,
        baseline_ppm: 3_000_000,
        share_ppm: 100_000,
        horizon_days: 90,
        domain: "acme.example",
        campaigns: &[
            Line {
                id: "acme-display",
                name: "Acme display",
                budget_percent: 45,
                daily_percent: 0,
                target_roas_ppm: 4_000_000,
                banners: BANNERS,
                videos: &[],
                audios: &[],
                native: true,
            },
            Line {
                id: "acme-video",
                name: "Acme video and audio",
                budget_percent: 20,
                daily_percent: 10,
                target_roas_ppm: 4_500_000,
                banners: &[(300, 250), (320, 250)],
                videos: &[5, 15, 30],
                audios: &[15, 30],
                native: false,
            },
        ],
    },
    Client {
        id: "globex",
        name: "Globex Handels GmbH",
        zone: "Europe/Berlin",
        basis: Basis::Realised,
        baseline_ppm: 2_000_000,
        share_ppm: 150_000,
        horizon_days: 30,
        domain: "globex.example",
        campaigns: &[Line {
            id: "globex-reach",
            name: "Globex reach",
            budget_percent: 35,
            daily_percent: 10,
            target_roas_ppm: 1_500_000,
            banners: BANNERS,
            videos: &[15, 30],
            audios: &[],
            native: true,
        }],
    },
];

/// Which client a customer belongs to.
pub(crate) fn client_of(customer: &str) -> &'static Client {
    &CLIENTS[usize::from(Sha256::digest(customer.as_bytes())[0] % 2)]
}

/// What a client's history says before the replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    /// What customers paid in all, micros.
    pub(crate) value_micros: i64,
    /// When the first of them did.
    pub(crate) since: UnixMicros,
    /// P(a known customer buys within the look-back window), parts per billion.
    pub(crate) p_conversion_ppb: u32,
    /// What a customer whom nobody knows is taken to spend within the terms' horizon, micros.
    pub(crate) ltv_micros: i64,
}

impl Client {
    /// Measures the client's history up to `begin`. Bounds keep a file without much history from pricing absurdly.
    ///
    /// P(conversion) is weighted by what customers have spent: those who buy again are those who are worth more, and a
    /// price that multiplies two means would not see it.
    pub(crate) fn history(&self, events: &Events, begin: UnixMicros) -> History {
        let mut spent: BTreeMap<usize, i128> = BTreeMap::new();
        let mut again: BTreeSet<usize> = BTreeSet::new();
        let (mut value, mut again_value, mut since) = (0_i128, 0_i128, begin);
        let recent_from = UnixMicros(begin.0 - MEASURED_DAYS * DAY);
        let mine: Vec<bool> = events.customers.iter().map(|customer| client_of(customer).id == self.id).collect();
        for purchase in events.between(UnixMicros(i64::MIN), begin).iter().filter(|p| mine[p.customer]) {
            since = since.min(purchase.at);
            value += i128::from(purchase.value_micros);
            // A first purchase says nothing of what known customers do next.
            if spent.contains_key(&purchase.customer) && purchase.at >= recent_from {
                again_value += i128::from(purchase.value_micros);
                again.insert(purchase.customer);
            }
            *spent.entry(purchase.customer).or_default() += i128::from(purchase.value_micros.max(0));
        }
        let (all, theirs) = (spent.values().sum::<i128>(), again.iter().filter_map(|customer| spent.get(customer)).sum::<i128>());
        let window_days = i128::from(LOOKBACK_SECONDS / 86_400);
        let p = theirs.saturating_mul(1_000_000_000 * window_days) / (all.max(1) * i128::from(MEASURED_DAYS));
        let ltv = again_value * i128::from(self.horizon_days) / (spent.len().max(1) as i128 * i128::from(MEASURED_DAYS) * CAUTION);
        History {
            value_micros: i64::try_from(value).unwrap_or(i64::MAX),
            since,
            p_conversion_ppb: p.clamp(1_000_000, 300_000_000) as u32,
            ltv_micros: ltv.clamp(100_000, 10_000_000_000) as i64,
        }
    }

    /// Evidence of the baseline: what the client earned, and what it then must have spent for it.
    pub(crate) fn evidence(&self, history: &History, currency: &str, begin: UnixMicros, document: [u8; 32]) -> Evidence {
        let spend = i128::from(history.value_micros.max(0)) * 1_000_000 / i128::from(self.baseline_ppm);
        Evidence {
            title: format!("{}: purchases before the first month", self.name),
            document_sha256: document.to_vec().into(),
            currency: currency.to_owned(),
            period_start: Some(history.since.into()),
            period_end: Some(begin.into()),
            spend_micros: i64::try_from(spend).unwrap_or(i64::MAX),
            value_micros: history.value_micros,
            horizon_days: self.horizon_days,
            attribution: AttributionRule::LastBilledV1.into(),
        }
    }

    /// The terms.
    pub(crate) fn terms(&self, currency: &str, evidence: Option<Position>, begin: UnixMicros) -> Terms {
        Terms {
            currency: currency.to_owned(),
            client_name: self.name.to_owned(),
            baseline_ppm: self.baseline_ppm,
            baseline_evidence: evidence,
            share_ppm: self.share_ppm,
            basis: self.basis.into(),
            netting: Netting::Client.into(),
            zone: self.zone.to_owned(),
            payment_days: 30,
            horizon_days: self.horizon_days,
            attribution: AttributionRule::LastBilledV1.into(),
            lookback_seconds: LOOKBACK_SECONDS,
            effective_from: Some(begin.into()),
            ..Terms::default()
        }
    }

    /// A campaign with its part of the budget.
    pub(crate) fn campaign(&self, line: &Line, history: &History, currency: &str, budget_micros: i64) -> Campaign {
        let limit = line.limit_micros(budget_micros);
        Campaign {
            campaign: line.id.to_owned(),
            name: line.name.to_owned(),
            currency: currency.to_owned(),
            limit_total_micros: limit,
            limit_daily_micros: (i128::from(limit) * i128::from(line.daily_percent) / 100) as i64,
            target_roas_ppm: line.target_roas_ppm,
            prior_p_conversion_ppb: history.p_conversion_ppb,
            prior_ltv_micros: history.ltv_micros,
            targeting: Some(Targeting { blocked_countries: vec!["ATA".to_owned()], ..Targeting::default() }),
            creatives: self.creatives(line),
            zone: self.zone.to_owned(),
            ..Campaign::default()
        }
    }

    fn creatives(&self, line: &Line) -> Vec<Creative> {
        let one = |format: CreativeFormat, (width, height): (u32, u32), seconds: u32, markup: String| {
            let kind = format.as_str_name().trim_start_matches("CREATIVE_FORMAT_").to_ascii_lowercase();
            let size = if width > 0 { format!("-{width}x{height}") } else { String::new() };
            let length = if seconds > 0 { format!("-{seconds}s") } else { String::new() };
            let creative = format!("{}-{kind}{size}{length}", line.id);
            Creative {
                crid: format!("crid-{creative}"),
                creative,
                adomain: vec![self.domain.to_owned()],
                categories: vec!["IAB22".to_owned()],
                format: format.into(),
                width,
                height,
                duration_seconds: seconds,
                markup,
                click_url: format!("https://shop.{}/landing", self.domain),
                disclosure: None,
                bundle: String::new(),
            }
        };
        let domain = self.domain;
        let banner = |&(w, h): &(u32, u32)| {
            let html = format!(
                "<a href=\"${{KIKI_CLICK}}\"><img src=\"https://cdn.{domain}/{w}x{h}.png\" width=\"{w}\" height=\"{h}\" alt=\"\"></a>"
            );
            one(CreativeFormat::Banner, (w, h), 0, html)
        };
        let media = |format, kind: &str, seconds: u32| one(format, (0, 0), seconds, vast(domain, kind, seconds));
        let mut all: Vec<Creative> = line.banners.iter().map(banner).collect();
        all.extend(line.videos.iter().map(|seconds| media(CreativeFormat::Video, "video/mp4", *seconds)));
        all.extend(line.audios.iter().map(|seconds| media(CreativeFormat::Audio, "audio/mpeg", *seconds)));
        if line.native {
            let json = "{\"native\":{\"ver\":\"1.2\",\"link\":{\"url\":\"${KIKI_CLICK}\"},\"assets\":[{\"id\":1,\"title\":{\"text\":\"New arrivals\"}}]}}";
            all.push(one(CreativeFormat::Native, (0, 0), 0, json.to_owned()));
        }
        all
    }
}

impl Line {
    /// Its part of a run's budget, micros.
    pub(crate) fn limit_micros(&self, budget_micros: i64) -> i64 {
        (i128::from(budget_micros) * i128::from(self.budget_percent) / 100) as i64
    }

    /// What an impression is worth before anything was seen, nanos.
    pub(crate) fn typical_nanos(&self, history: &History) -> i64 {
        let worth = i128::from(history.p_conversion_ppb) * i128::from(history.ltv_micros) / i128::from(self.target_roas_ppm);
        i64::try_from(worth).unwrap_or(i64::MAX)
    }
}

fn vast(domain: &str, kind: &str, seconds: u32) -> String {
    format!(
        "<VAST version=\"4.2\"><Ad id=\"1\"><InLine><AdSystem>KIKI</AdSystem><AdTitle>New arrivals</AdTitle><Creatives><Creative><Linear>\
         <Duration>00:00:{seconds:02}</Duration><MediaFiles><MediaFile delivery=\"progressive\" type=\"{kind}\" width=\"640\" height=\"480\">\
         <![CDATA[https://cdn.{domain}/{seconds}s]]></MediaFile></MediaFiles><VideoClicks><ClickThrough><![CDATA[${{KIKI_CLICK}}]]></ClickThrough>\
         </VideoClicks></Linear></Creative></Creatives></InLine></Ad></VAST>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_given_out_whole() {
        let parts: i64 = CLIENTS.iter().flat_map(|client| client.campaigns).map(|line| line.budget_percent).sum();
        assert_eq!(parts, 100);
    }

    #[test]
    fn creatives_have_ids_of_the_stated_form_and_each_its_own() {
        for client in &CLIENTS {
            for line in client.campaigns {
                let creatives = client.creatives(line);
                let ids: std::collections::BTreeSet<_> = creatives.iter().map(|c| c.creative.as_str()).collect();
                assert_eq!(ids.len(), creatives.len());
                assert!(ids.iter().all(|id| kiki::ids::check("creative", id).is_ok()));
                assert!(creatives.iter().all(|c| c.markup.contains("${KIKI_CLICK}")));
            }
        }
    }

    #[test]
    fn a_customer_belongs_to_the_client_that_its_hash_names() {
        // SHA-256("a") = ca97..., SHA-256("b") = 3e23..., SHA-256("00001") = 8566...
        assert_eq!(["a", "b", "00001"].map(|c| client_of(c).id), ["acme", "acme", "globex"]);
    }
}
