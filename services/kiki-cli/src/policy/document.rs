//! The guardrail document as people write it, YAML or JSON: `docs/policy.schema.json` describes it.
//!
//! Amounts are decimals in quotes or whole numbers: prices as CPM, values in units of the currency. Nothing is a float.

use std::collections::BTreeMap;
use std::path::Path;

use kiki::guardrail::Policy;
use kiki::leaf::{self, policy_rule::Kind};
use kiki::money::parse_decimal;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Doing as _, Failure};

/// Bytes of a document: what it is read to has to fit a leaf of 64 KiB.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    author: String,
    bid_caps: BTreeMap<String, Amount>,
    #[serde(default)]
    blocked_countries: Vec<String>,
    #[serde(default)]
    blocked_categories: Vec<String>,
    #[serde(default)]
    blocked_domains: Vec<String>,
    #[serde(default)]
    platforms_off: Vec<String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    client: String,
    #[serde(default)]
    campaign: String,
    #[serde(default)]
    platform: String,
    price: Option<Range>,
    predicted_ltv: Option<Range>,
    countries: Option<Names>,
    categories: Option<Names>,
    places: Option<Names>,
    platform_off: Option<bool>,
    schedule: Option<Schedule>,
    consent: Option<Consent>,
    frequency: Option<Frequency>,
    condition: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Whole(u32),
    Decimal(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    currency: String,
    least: Option<Amount>,
    most: Option<Amount>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    allow: Option<Vec<String>>,
    block: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedule {
    zone: String,
    windows: Vec<Window>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    days: Vec<Day>,
    from: String,
    to: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Day {
    Mon = 1,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    refuse: Vec<Signal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frequency {
    most: u32,
    hours: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Signal {
    Coppa,
    Gdpr,
    TcfMissing,
    TcfRefused,
    UsOptOut,
    Gpp,
    DsaRequired,
    SupplyChainMissing,
    SupplyChainIncomplete,
}

/// Reads a document's file.
///
/// # Errors
/// What is wrong with it, and where.
pub fn load(path: &Path) -> Result<(leaf::Policy, Policy), Failure> {
    let doing = || path.display().to_string();
    let length = std::fs::metadata(path).doing(doing())?.len();
    if length > MAX_BYTES {
        return Err(Failure::new(format!("{}: {length} bytes; at most {MAX_BYTES} are taken", path.display())));
    }
    let bytes = std::fs::read(path).doing(doing())?;
    read(&bytes).map_err(|problem| Failure::new(format!("{}: {problem}", path.display())))
}

/// Reads and compiles a document.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(bytes: &[u8]) -> Result<(leaf::Policy, Policy), String> {
    let document: Document = serde_yaml_ng::from_slice(bytes).map_err(|error| error.to_string())?;
    let caps = document.bid_caps.iter().map(|(currency, cap)| {
        let cap_nanos = cap.parse(&format!("bid_caps.{currency}"))?;
        Ok(leaf::BidCap { currency: currency.clone(), cap_nanos })
    });
    let policy = leaf::Policy {
        bid_caps: caps.collect::<Result<_, String>>()?,
        blocked_countries: document.blocked_countries,
        blocked_categories: document.blocked_categories,
        blocked_domains: document.blocked_domains,
        platforms_off: document.platforms_off,
        rules: document.rules.into_iter().map(Rule::read).collect::<Result<_, String>>()?,
        author: document.author,
        document_sha256: Sha256::digest(bytes).to_vec().into(),
        ..Default::default()
    };
    let compiled = Policy::accept(&policy).map_err(|error| error.to_string())?;
    Ok((policy, compiled))
}

/// A policy of the log as YAML, with the field names of `kiki.log.v1.Policy`: prices are nanos, which is the CPM in micros.
///
/// # Errors
/// Descriptors that cannot be read.
pub fn shown(policy: &leaf::Policy) -> Result<String, Failure> {
    let pool = DescriptorPool::decode(kiki::pb::DESCRIPTORS).doing("reading the descriptors")?;
    let message = pool.get_message_by_name("kiki.log.v1.Policy").ok_or_else(|| Failure::new("there is no kiki.log.v1.Policy"))?;
    let message = DynamicMessage::decode(message, policy.encode_to_vec().as_slice()).doing("reading the policy")?;
    let names = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let mut text = Vec::new();
    message.serialize_with_options(&mut serde_yaml_ng::Serializer::new(&mut text), &names).doing("writing the policy")?;
    String::from_utf8(text).map(|text| text.trim_end().to_owned()).doing("writing the policy")
}

impl Amount {
    /// In millionths: micros of a value, and, of a CPM, nanos of an impression's price.
    fn parse(&self, field: &str) -> Result<i64, String> {
        let text = match self {
            Self::Whole(whole) => whole.to_string(),
            Self::Decimal(text) => text.clone(),
        };
        parse_decimal(&text, 6).map_err(|error| format!("{field}: {error}"))
    }
}

impl Range {
    fn read(self, field: &str) -> Result<leaf::AmountRange, String> {
        let bound = |name: &str, amount: Option<Amount>| amount.map_or(Ok(0), |amount| amount.parse(&format!("{field}.{name}")));
        Ok(leaf::AmountRange { least: bound("least", self.least)?, most: bound("most", self.most)?, currency: self.currency })
    }
}

impl Names {
    fn read(self, field: &str) -> Result<leaf::NameList, String> {
        match (self.allow, self.block) {
            (Some(names), None) => Ok(leaf::NameList { allow: true, names }),
            (None, Some(names)) => Ok(leaf::NameList { allow: false, names }),
            _ => Err(format!("{field}: has exactly one of allow and block")),
        }
    }
}

impl Rule {
    fn read(self) -> Result<leaf::PolicyRule, String> {
        let id = self.id;
        let price = self.price.map(|range| range.read(&format!("rule {id}: price"))).transpose()?;
        let value = self.predicted_ltv.map(|range| range.read(&format!("rule {id}: predicted_ltv"))).transpose()?;
        let schedule = self.schedule.map(|schedule| schedule.read(&format!("rule {id}: schedule"))).transpose()?;
        let names = |name: &str, list: Option<Names>| list.map(|list| list.read(&format!("rule {id}: {name}"))).transpose();
        let kinds = [
            price.map(Kind::Price),
            value.map(Kind::PredictedLtv),
            names("countries", self.countries)?.map(Kind::Countries),
            names("categories", self.categories)?.map(Kind::Categories),
            names("places", self.places)?.map(Kind::Places),
            self.platform_off.filter(|off| *off).map(|_| Kind::PlatformOff(leaf::PlatformOff {})),
            schedule.map(Kind::Schedule),
            self.consent.map(|consent| Kind::Consent(consent.read())),
            self.frequency.map(|Frequency { most, hours }| Kind::Frequency(leaf::Frequency { most, hours })),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let kind = kinds.next();
        let condition = self.condition.filter(|condition| !condition.is_empty());
        if kinds.next().is_some() || kind.is_some() == condition.is_some() {
            return Err(format!(
                "rule {id}: has exactly one of price, predicted_ltv, countries, categories, places, platform_off, schedule, consent, frequency, condition"
            ));
        }
        let (text, client, campaign, platform) = (self.text, self.client, self.campaign, self.platform);
        Ok(leaf::PolicyRule { id, text, client, campaign, platform, condition: condition.unwrap_or_default(), kind })
    }
}

impl Schedule {
    fn read(self, field: &str) -> Result<leaf::Schedule, String> {
        let window = |window: Window| {
            let days = window.days.iter().map(|day| *day as u32).collect();
            let minute = |text: &str| minute(text).ok_or_else(|| format!("{field}: {text:?} is not HH:MM up to 24:00"));
            Ok(leaf::Window { days, from_minute: minute(&window.from)?, to_minute: minute(&window.to)? })
        };
        Ok(leaf::Schedule { zone: self.zone, windows: self.windows.into_iter().map(window).collect::<Result<_, String>>()? })
    }
}

/// `08:30` in minutes.
fn minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| (part.len() == 2).then(|| part.parse::<u32>().ok()).flatten();
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    (minute < 60 && hour * 60 + minute <= 1_440).then_some(hour * 60 + minute)
}

impl Consent {
    fn read(self) -> leaf::Consent {
        let signal = |signal: Signal| match signal {
            Signal::Coppa => leaf::Signal::Coppa,
            Signal::Gdpr => leaf::Signal::Gdpr,
            Signal::TcfMissing => leaf::Signal::TcfMissing,
            Signal::TcfRefused => leaf::Signal::TcfRefused,
            Signal::UsOptOut => leaf::Signal::UsOptOut,
            Signal::Gpp => leaf::Signal::Gpp,
            Signal::DsaRequired => leaf::Signal::DsaRequired,
            Signal::SupplyChainMissing => leaf::Signal::SupplyChainMissing,
            Signal::SupplyChainIncomplete => leaf::Signal::SupplyChainIncomplete,
        };
        leaf::Consent { refuse: self.refuse.into_iter().map(|one| signal(one).into()).collect() }
    }
}

#[cfg(test)]
mod tests;
