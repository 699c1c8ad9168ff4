//! SyncFlow's configuration.

use std::collections::BTreeMap;

use kiki::guardrail::Refusals;
use kiki::ids::{ExchangeId, Key, PlatformId};
use kiki::leaf;
use kiki::money::parse_decimal;

use crate::domain::fallback::Multipliers;
use crate::domain::surge::Bounds;

/// What SyncFlow is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// SyncShield's address.
    #[arg(long, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    pub shield: String,
    /// SyncValue's address.
    #[arg(long, env = "KIKI_VALUE", default_value = "http://127.0.0.1:50051")]
    pub value: String,
    /// Key of the customers' pseudonyms, the same at all services: 64 hexadecimal digits, or the path of a file that holds them.
    #[arg(long, env = "KIKI_PSEUDONYM_KEY", value_parser = Key::given, hide_env_values = true)]
    pub pseudonym_key: Key,
    /// Key that receipts are made with, the same at all instances: 64 hexadecimal digits, or the path of a file that holds them.
    #[arg(long, env = "KIKI_RECEIPT_KEY", value_parser = Key::given, hide_env_values = true)]
    pub receipt_key: Key,
    /// This instance's name as the holder of leases; without one it makes one up.
    #[arg(long, env = "KIKI_HOLDER")]
    pub holder: Option<String>,
    /// Where exchanges and browsers reach the HTTP side, without a slash at the end.
    #[arg(long, env = "KIKI_PUBLIC_URL", default_value = "http://127.0.0.1:8080")]
    pub public_url: String,
    /// The exchanges and their platforms.
    #[command(flatten)]
    pub venues: Venues,
    /// How long after a bid its notices are taken, seconds.
    #[arg(long, env = "KIKI_NOTICE_WINDOW_SECS", default_value_t = 604_800)]
    pub notice_window_secs: u64,
    /// Where several SyncFlows count impressions for frequency caps together, redis://HOST/; without one each counts its own.
    #[arg(long, env = "KIKI_FREQUENCY", hide_env_values = true)]
    pub frequency: Option<String>,
    /// What of a bid's time those counts may take, milliseconds; where they take longer, its own are gone by. Redis answers
    /// in half a millisecond, and exchanges wait for 100.
    #[arg(long, env = "KIKI_FREQUENCY_BUDGET_MS", default_value_t = 5)]
    pub frequency_budget_ms: u64,
    /// Which decisions are recorded. Bids are in any case, and with them all that moves money.
    #[arg(long, env = "KIKI_RECORD", value_enum, default_value_t = Record::All)]
    pub record: Record,
    /// By how much the clocks here and at SyncShield may differ, milliseconds.
    #[arg(long, env = "KIKI_CLOCK_SKEW_MS", default_value_t = 1_000)]
    pub clock_skew_ms: u64,
    /// How long a bid may take.
    #[command(flatten)]
    pub deadlines: Deadlines,
}

/// How long a bid may take.
#[derive(Debug, Clone, clap::Args)]
pub struct Deadlines {
    /// What of an exchange's deadline the network takes, milliseconds: a round trip within a region, and as long as either side is seldom
    /// woken late.
    #[arg(long, env = "KIKI_NETWORK_ALLOWANCE_MS", default_value_t = 2)]
    pub network_allowance_ms: u64,
    /// The longest that a bid may take whatever the exchange allows, milliseconds.
    #[arg(long, env = "KIKI_DEADLINE_MAX_MS", default_value_t = 1_000)]
    pub deadline_max_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { network_allowance_ms: 2, deadline_max_ms: 1_000 }
    }
}

/// Exchanges and the ad platforms that they belong to.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Venues {
    /// The platforms that exchanges belong to, as exchange=platform; one not named is a platform of its own. This and
    /// the other lists by exchange or platform may be given several times, or once with commas.
    #[arg(long, env = "KIKI_PLATFORMS", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// Exchanges that send no billing notice: the win notice settles.
    #[arg(long, env = "KIKI_SETTLE_ON_WIN", value_delimiter = ',')]
    pub settle_on_win: Vec<String>,
    /// Exchanges that are told why there is no bid: 200 with OpenRTB's `nbr` in place of 204.
    #[arg(long, env = "KIKI_NO_BID_REASONS", value_delimiter = ',')]
    pub no_bid_reasons: Vec<String>,
    /// What platforms pay of the median that stands in for a prediction, as platform=factor, 0 to 10. Those not named: google_ads,
    /// meta, tradedesk, amazon and others 1, x 0.75, linkedin 1.2, tiktok 1.5.
    #[arg(long, env = "KIKI_FALLBACK_MULTIPLIERS", value_delimiter = ',')]
    pub fallback_multipliers: Vec<String>,
    /// Platforms that trip their circuit breaker when they charge more a minute than so many times the mean of the last half hour,
    /// as platform=factor, 1 to 1000. Those not named never do.
    #[arg(long, env = "KIKI_TRIP_SPEND_VELOCITY", value_delimiter = ',')]
    pub trip_spend_velocity: Vec<String>,
    /// The same for impressions that cost more than so many times what they did.
    #[arg(long, env = "KIKI_TRIP_CPM_JUMP", value_delimiter = ',')]
    pub trip_cpm_jump: Vec<String>,
}

/// Entries of the form platform=factor, parts per million.
///
/// # Errors
/// An entry of another form, or a factor that is not within these bounds.
pub fn factors(setting: &str, entries: &[String], (least, most): (u32, u32)) -> Result<Vec<(String, u32)>, String> {
    let one = |entry: &String| {
        let wrong = |problem: String| format!("{setting}: {entry:?}: {problem}");
        let (platform, factor) = entry.split_once('=').ok_or_else(|| wrong("is not platform=factor".to_owned()))?;
        let platform = PlatformId::parse(platform).map_err(|error| wrong(error.to_string()))?;
        let ppm = parse_decimal(factor, 6).map_err(|error| wrong(error.to_string()))?;
        let ppm = u32::try_from(ppm).ok().filter(|ppm| (least..=most).contains(ppm));
        let bounds = || wrong(format!("the factor is not within {} to {}", least / 1_000_000, most / 1_000_000));
        Ok((platform.as_str().to_owned(), ppm.ok_or_else(bounds)?))
    };
    entries.iter().map(one).collect()
}

/// Multipliers of the fallback price.
///
/// # Errors
/// As [`factors`].
pub fn multipliers(venues: &Venues) -> Result<Multipliers, String> {
    Ok(Multipliers::with(factors("fallback-multipliers", &venues.fallback_multipliers, (0, 10_000_000))?))
}

/// What of each platform is a surge.
///
/// # Errors
/// As [`factors`], and a platform that no exchange belongs to.
pub fn surges(venues: &Venues, exchanges: &Exchanges) -> Result<BTreeMap<String, Bounds>, String> {
    let mut bounds: BTreeMap<String, Bounds> = BTreeMap::new();
    let named = exchanges.named_platforms();
    let mut read = |setting: &str, entries: &[String], set: fn(&mut Bounds, u32)| {
        for (platform, ppm) in factors(setting, entries, (1_000_000, 1_000_000_000))? {
            if !named.contains(platform.as_str()) {
                return Err(format!("{setting}: {platform:?} is the platform of no exchange in platforms"));
            }
            set(bounds.entry(platform).or_default(), ppm);
        }
        Ok(())
    };
    read("trip-spend-velocity", &venues.trip_spend_velocity, |bounds, ppm| bounds.velocity_ppm = Some(ppm))?;
    read("trip-cpm-jump", &venues.trip_cpm_jump, |bounds, ppm| bounds.jump_ppm = Some(ppm))?;
    Ok(bounds)
}

/// Which decisions go to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Record {
    /// All of them.
    #[default]
    All,
    /// Bids and refusals. A campaign that the floor alone speaks against, which is most of them, is counted in
    /// `syncflow_decisions_counted_total`.
    Refusals,
}

impl Record {
    /// Whether a decision with these refusals is recorded.
    #[must_use]
    pub fn takes(self, refusals: Refusals) -> bool {
        self == Self::All || refusals != Refusals::NONE.with(leaf::Refusal::BelowFloor)
    }
}

/// The exchanges' platforms, and how they settle.
#[derive(Debug, Clone, Default)]
pub struct Exchanges {
    platforms: std::collections::HashMap<String, String>,
    settle_on_win: std::collections::HashSet<String>,
    no_bid_reasons: std::collections::HashSet<String>,
}

impl Exchanges {
    /// From the configuration.
    ///
    /// # Errors
    /// An entry that is not exchange=platform with ids of their form.
    pub fn new(venues: &Venues) -> Result<Self, String> {
        let mut exchanges = Self::default();
        for entry in &venues.platforms {
            let (exchange, platform) = entry.split_once('=').ok_or_else(|| format!("platforms: {entry:?} is not exchange=platform"))?;
            let exchange = ExchangeId::parse(exchange).map_err(|error| error.to_string())?;
            let platform = PlatformId::parse(platform).map_err(|error| error.to_string())?;
            exchanges.platforms.insert(exchange.as_str().to_owned(), platform.as_str().to_owned());
        }
        for (named, set) in [(&venues.settle_on_win, &mut exchanges.settle_on_win), (&venues.no_bid_reasons, &mut exchanges.no_bid_reasons)]
        {
            for exchange in named {
                set.insert(ExchangeId::parse(exchange).map_err(|error| error.to_string())?.as_str().to_owned());
            }
        }
        Ok(exchanges)
    }

    /// The platform that the exchange belongs to.
    #[must_use]
    pub fn platform<'a>(&'a self, exchange: &'a str) -> &'a str {
        self.platforms.get(exchange).map_or(exchange, String::as_str)
    }

    /// The platforms that the configuration names, each once.
    #[must_use]
    pub fn named_platforms(&self) -> std::collections::BTreeSet<&str> {
        self.platforms.values().map(String::as_str).collect()
    }

    /// Whether it is told why there is no bid.
    #[must_use]
    pub fn wants_reasons(&self, exchange: &str) -> bool {
        self.no_bid_reasons.contains(exchange)
    }

    /// Whether its win notice is the one that charges.
    #[must_use]
    pub fn settles_on_win(&self, exchange: &str) -> bool {
        self.settle_on_win.contains(exchange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_of_a_platform_and_within_its_bounds() {
        let read = |entry: &str| factors("some-setting", &[entry.to_owned()], (0, 10_000_000));
        assert_eq!(read("x=0.5"), Ok(vec![("x".to_owned(), 500_000)]));
        assert_eq!(read("y=10"), Ok(vec![("y".to_owned(), 10_000_000)]));
        for wrong in ["x", "x=", "x=ten", "x=-1", "x=10.000001", "x=0.0000001", "X Y=1"] {
            assert!(read(wrong).is_err_and(|problem| problem.starts_with(&format!("some-setting: {wrong:?}: "))), "{wrong}");
        }
        assert_eq!(read("x=11"), Err(r#"some-setting: "x=11": the factor is not within 0 to 10"#.to_owned()));
    }
}
