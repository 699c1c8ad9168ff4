//! The table that a policy is compiled to. Every rule has a bit; every value that a rule names has the mask of the
//! rules that it speaks to; a check looks its few values up, ORs their masks and ANDs the scope's.
//!
//! So a check costs a handful of look-ups and one pass over 8 bytes for each 64 rules, however many rules there are.

mod amounts;
mod hash;
mod names;
mod zones;

use std::collections::HashSet;

use super::condition::Condition;
use super::frequency::{Cap, Caps};
use super::{Bid, MAX_ENTRIES, PolicyError, Refusals, Verdict};
use crate::ids;
use crate::leaf::{self, policy_rule::Kind};
use crate::money::Currency;
use amounts::Amounts;
use hash::{Map, Set};
use names::{Form, Names};
use zones::Zones;

/// Rules of one policy: 2,048 of 32 bytes fill a leaf.
pub const MAX_RULES: usize = 2_048;
/// Names in all lists of a policy's rules: each costs two masks, 2 x 256 bytes at the most.
const MAX_NAMES: usize = 16_384;
/// Conditions of one policy: at 64 parts each they cost a bid that nothing else refuses some microseconds at the most.
const MAX_CONDITIONS: usize = 32;
/// Words of the longest mask.
const WORDS: usize = MAX_RULES / 64;
/// Values that a signal may have.
const SIGNALS: u32 = 32;

/// A bit for each rule; as long as the policy needs.
pub(super) type Mask = Box<[u64]>;

pub(super) fn set(mask: &mut [u64], rule: usize) {
    mask[rule / 64] |= 1 << (rule % 64);
}

fn or(into: &mut [u64], mask: &[u64]) {
    into.iter_mut().zip(mask).for_each(|(into, mask)| *into |= mask);
}

/// A rule, read and within its limits.
pub(super) struct Rule<'a> {
    id: &'a str,
    client: &'a str,
    campaign: &'a str,
    platform: &'a str,
    what: What<'a>,
}

enum What<'a> {
    /// The currency has no cap.
    Uncapped(HashSet<Currency>),
    Price(Currency, i64, i64),
    Ltv(Currency, i64, i64),
    Names(Dimension, bool, &'a [String], String),
    Off,
    Schedule(&'a leaf::Schedule, String),
    Consent(u32),
    Condition(Condition),
    Frequency(Cap),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Countries,
    Categories,
    Places,
    Platforms,
}

impl Dimension {
    const fn refusal(self) -> leaf::Refusal {
        match self {
            Self::Countries => leaf::Refusal::Geo,
            Self::Categories => leaf::Refusal::Category,
            Self::Places => leaf::Refusal::Domain,
            Self::Platforms => leaf::Refusal::PlatformOff,
        }
    }
}

/// The document's lists, as rules for everybody. What is wrong with them, `Table::build` finds.
pub(super) fn lists(document: &leaf::Policy) -> Vec<Rule<'_>> {
    let everybody = |id, what| Rule { id, client: "", campaign: "", platform: "", what };
    let capped = document.bid_caps.iter().filter_map(|cap| Currency::parse(&cap.currency).ok()).collect();
    let caps = Rule::caps(&document.bid_caps);
    let list = |id: &'static str, dimension, names| everybody(id, What::Names(dimension, false, names, id.to_owned()));
    let mut rules = vec![everybody("bid_caps", What::Uncapped(capped))];
    rules.extend(caps.into_iter().map(|what| everybody("bid_caps", what)));
    rules.push(list("blocked_countries", Dimension::Countries, &document.blocked_countries));
    rules.push(list("blocked_categories", Dimension::Categories, &document.blocked_categories));
    rules.push(list("blocked_domains", Dimension::Places, &document.blocked_domains));
    rules.push(list("platforms_off", Dimension::Platforms, &document.platforms_off));
    rules
}

/// Caps that are not of their form.
pub(super) fn check_caps(document: &leaf::Policy) -> Result<(), PolicyError> {
    let mut seen = HashSet::new();
    for (i, cap) in document.bid_caps.iter().enumerate() {
        let currency = Currency::parse(&cap.currency).map_err(|e| PolicyError::new(format!("bid_caps[{i}].currency"), e))?;
        if cap.cap_nanos <= 0 {
            return Err(PolicyError::new(format!("bid_caps[{i}].cap_nanos"), format!("{} is not above 0", cap.cap_nanos)));
        }
        if !seen.insert(currency) {
            return Err(PolicyError::new(format!("bid_caps[{i}].currency"), format!("{currency} has a cap already")));
        }
    }
    Ok(())
}

impl<'a> Rule<'a> {
    fn caps(caps: &[leaf::BidCap]) -> Vec<What<'a>> {
        caps.iter().filter_map(|cap| Some(What::Price(Currency::parse(&cap.currency).ok()?, 0, cap.cap_nanos))).collect()
    }

    /// Reads one rule.
    pub(super) fn read(path: &str, rule: &'a leaf::PolicyRule) -> Result<Self, PolicyError> {
        let field = |name: &str| format!("{path}.{name}");
        let id = |name: &'static str, id: &str, needed: bool| {
            if !needed && id.is_empty() { Ok(()) } else { ids::check(name, id).map_err(|e| PolicyError::new(field(name), e)) }
        };
        id("id", &rule.id, true)?;
        id("client", &rule.client, !rule.campaign.is_empty())?;
        id("campaign", &rule.campaign, false)?;
        id("platform", &rule.platform, false)?;
        if rule.text.len() > 1_024 {
            return Err(PolicyError::new(field("text"), format!("has {} bytes; at most 1024 are taken", rule.text.len())));
        }
        let range = |name: &str, range: &leaf::AmountRange| {
            let currency = Currency::parse(&range.currency).map_err(|e| PolicyError::new(field(&format!("{name}.currency")), e))?;
            let bounds = range.least >= 0 && range.most >= 0 && range.least.max(range.most) > 0;
            if !bounds || (range.most > 0 && range.least > range.most) {
                let problem = format!("least {} and most {}: one of them is above 0, and least not above most", range.least, range.most);
                return Err(PolicyError::new(field(name), problem));
            }
            Ok((currency, range.least, range.most))
        };
        let names = |name: &str, dimension, list: &'a leaf::NameList| {
            if list.names.is_empty() {
                return Err(PolicyError::new(field(&format!("{name}.names")), "is empty"));
            }
            Ok(What::Names(dimension, list.allow, list.names.as_slice(), field(&format!("{name}.names"))))
        };
        if !rule.condition.is_empty() {
            if rule.kind.is_some() {
                return Err(PolicyError::new(field("condition"), "stands instead of a kind, not beside one"));
            }
            let compiled = Condition::compile(&rule.condition);
            let what =
                What::Condition(compiled.map_err(|problem| PolicyError::new(field("condition"), format!("of {:?}: {problem}", rule.id)))?);
            return Ok(Self { id: &rule.id, client: &rule.client, campaign: &rule.campaign, platform: &rule.platform, what });
        }
        let what = match rule.kind.as_ref().ok_or_else(|| PolicyError::new(path, "is of no kind that this version knows"))? {
            Kind::Price(of) => range("price", of).map(|(currency, least, most)| What::Price(currency, least, most))?,
            Kind::PredictedLtv(of) => range("predicted_ltv", of).map(|(currency, least, most)| What::Ltv(currency, least, most))?,
            Kind::Countries(list) => names("countries", Dimension::Countries, list)?,
            Kind::Categories(list) => names("categories", Dimension::Categories, list)?,
            Kind::Places(list) => names("places", Dimension::Places, list)?,
            Kind::PlatformOff(_) if rule.platform.is_empty() => return Err(PolicyError::new(field("platform"), "is missing")),
            Kind::PlatformOff(_) => What::Off,
            Kind::Schedule(schedule) => What::Schedule(schedule, field("schedule")),
            Kind::Consent(consent) => What::Consent(signals(&field("consent.refuse"), consent)?),
            Kind::Frequency(_) if !rule.platform.is_empty() => {
                return Err(PolicyError::new(field("platform"), "stands beside no frequency: impressions count on all of them"));
            }
            Kind::Frequency(frequency) => What::Frequency(Cap::read(&field("frequency"), frequency, rule)?),
        };
        Ok(Self { id: &rule.id, client: &rule.client, campaign: &rule.campaign, platform: &rule.platform, what })
    }

    /// Why this rule refuses; of a price the bound that is broken decides.
    fn refusal(&self) -> leaf::Refusal {
        match &self.what {
            What::Uncapped(_) | What::Price(..) => leaf::Refusal::BidCap,
            What::Ltv(..) => leaf::Refusal::LtvRange,
            What::Names(dimension, ..) => dimension.refusal(),
            What::Off => leaf::Refusal::PlatformOff,
            What::Schedule(..) => leaf::Refusal::Schedule,
            What::Consent(_) => leaf::Refusal::Consent,
            What::Condition(_) => leaf::Refusal::Condition,
            What::Frequency(_) => leaf::Refusal::Frequency,
        }
    }
}

fn signals(field: &str, consent: &leaf::Consent) -> Result<u32, PolicyError> {
    let known = |signal: &i32| leaf::Signal::try_from(*signal).is_ok_and(|signal| signal != leaf::Signal::Unspecified);
    if consent.refuse.is_empty() || !consent.refuse.iter().all(known) {
        return Err(PolicyError::new(field, "is empty, or has a signal that this version does not know"));
    }
    Ok(consent.refuse.iter().fold(0, |bits, signal| bits | 1 << signal))
}

/// Who a rule is for.
#[derive(Debug, Clone)]
struct Scope {
    mask: Mask,
    campaigns: Map<String, Mask>,
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) ids: Vec<String>,
    refusals: Vec<leaf::Refusal>,
    words: usize,
    capped: Set<Currency>,
    /// Rules for every client, and those for one.
    everyone: Mask,
    clients: Map<String, Scope>,
    /// Rules for every platform, and those for one.
    everywhere: Mask,
    platforms: Map<String, Mask>,
    prices: Amounts,
    ltvs: Amounts,
    lists: [(Dimension, Names); 4],
    off: Mask,
    zones: Zones,
    signals: Vec<(u32, Mask)>,
    /// In the order of their rules.
    conditions: Vec<(usize, Condition)>,
    caps: Caps,
}

impl std::fmt::Debug for Dimension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.refusal().as_str_name())
    }
}

impl Table {
    pub(super) fn build(rules: &[Rule<'_>]) -> Result<Self, PolicyError> {
        if rules.len() > MAX_RULES {
            let most = MAX_RULES;
            return Err(PolicyError::new("rules", format!("{} with the lists' own; at most {most} are taken", rules.len())));
        }
        let words = rules.len().div_ceil(64);
        let none = vec![0; words].into_boxed_slice();
        let names = |dimension, form| (dimension, Names::new(form, &none));
        let mut table = Self {
            ids: rules.iter().map(|rule| rule.id.to_owned()).collect(),
            refusals: rules.iter().map(Rule::refusal).collect(),
            words,
            capped: Set::default(),
            everyone: none.clone(),
            clients: Map::default(),
            everywhere: none.clone(),
            platforms: Map::default(),
            prices: Amounts::default(),
            ltvs: Amounts::default(),
            lists: [
                names(Dimension::Countries, Form::Code),
                names(Dimension::Categories, Form::Category),
                names(Dimension::Places, Form::Domain),
                names(Dimension::Platforms, Form::Plain),
            ],
            off: none.clone(),
            zones: Zones::default(),
            signals: Vec::new(),
            conditions: Vec::new(),
            caps: Caps::new(words),
        };
        table.scopes(rules, &none);
        check_ids(rules)?;
        check_names(rules)?;
        for (bit, rule) in rules.iter().enumerate() {
            table.enter(bit, rule, &none)?;
        }
        table.prices.index(words);
        table.ltvs.index(words);
        Ok(table)
    }

    /// Enters who each rule is for.
    fn scopes(&mut self, rules: &[Rule<'_>], none: &Mask) {
        for (bit, rule) in rules.iter().enumerate() {
            if rule.client.is_empty() {
                set(&mut self.everyone, bit);
            }
            if rule.platform.is_empty() {
                set(&mut self.everywhere, bit);
            }
        }
        for (bit, rule) in rules.iter().enumerate() {
            if !rule.platform.is_empty() {
                set(self.platforms.entry(rule.platform.to_owned()).or_insert_with(|| self.everywhere.clone()), bit);
            }
            if !rule.client.is_empty() {
                let new = || Scope { mask: self.everyone.clone(), campaigns: Map::default() };
                let scope = self.clients.entry(rule.client.to_owned()).or_insert_with(new);
                match rule.campaign {
                    "" => set(&mut scope.mask, bit),
                    campaign => set(scope.campaigns.entry(campaign.to_owned()).or_insert_with(|| none.clone()), bit),
                }
            }
        }
        for scope in self.clients.values_mut() {
            let Scope { mask, campaigns } = scope;
            campaigns.values_mut().for_each(|campaign| or(campaign, mask));
        }
    }

    fn enter(&mut self, bit: usize, rule: &Rule<'_>, none: &Mask) -> Result<(), PolicyError> {
        match &rule.what {
            What::Uncapped(capped) => self.capped = capped.iter().copied().collect(),
            What::Price(currency, least, most) => self.prices.add(bit, *currency, *least, *most),
            What::Ltv(currency, least, most) => self.ltvs.add(bit, *currency, *least, *most),
            What::Names(dimension, allow, names, path) => {
                let list = self.lists.iter_mut().find(|(of, _)| of == dimension);
                list.map_or(Ok(()), |(_, list)| list.add(bit, *allow, names, path))?;
            }
            What::Off => set(&mut self.off, bit),
            What::Schedule(schedule, path) => self.zones.add(bit, schedule, path, none)?,
            What::Condition(_) if self.conditions.len() == MAX_CONDITIONS => {
                return Err(PolicyError::new("rules", format!("more than {MAX_CONDITIONS} have a condition")));
            }
            What::Condition(condition) => self.conditions.push((bit, condition.clone())),
            What::Frequency(cap) => self.caps.add(bit, *cap),
            What::Consent(refused) => {
                for signal in (0..SIGNALS).filter(|signal| refused & 1 << signal != 0) {
                    match self.signals.iter_mut().find(|(of, _)| *of == signal) {
                        Some((_, mask)) => set(mask, bit),
                        None => {
                            let mut mask = none.clone();
                            set(&mut mask, bit);
                            self.signals.push((signal, mask));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The rules that are for a campaign, on whatever platform.
    fn of_campaign(&self, client: &str, campaign: &str) -> &[u64] {
        match self.clients.get(client) {
            None => &self.everyone,
            Some(scope) => scope.campaigns.get(campaign).unwrap_or(&scope.mask),
        }
    }

    pub(super) fn caps_frequency(&self) -> bool {
        !self.caps.is_empty()
    }

    /// The frequency caps of a campaign.
    pub(super) fn caps(&self, client: &str, campaign: &str) -> Vec<Cap> {
        self.caps.of(self.of_campaign(client, campaign))
    }

    /// The rules that are for this bid.
    fn scope(&self, bid: &Bid<'_>) -> (&[u64], &[u64]) {
        let client = self.of_campaign(bid.client, bid.campaign);
        (client, self.platforms.get(bid.platform).unwrap_or(&self.everywhere))
    }

    pub(super) fn verdict(&self, bid: &Bid<'_>) -> Verdict {
        let mut buffer = [0_u64; WORDS];
        let hit = &mut buffer[..self.words];
        let scope = self.scope(bid);
        let mut low = [0_u64; WORDS];
        if !self.capped.contains(&bid.currency) {
            set(hit, 0); // `lists` puts it first
        }
        let low = &mut low[..self.words];
        self.prices.break_bounds(bid.currency, bid.price.get(), hit, low);
        or(hit, low);
        self.ltvs.break_either(bid.currency, bid.predicted_ltv.get(), hit);
        for (dimension, names) in &self.lists {
            match dimension {
                Dimension::Countries => names.check(std::iter::once(bid.country), hit),
                Dimension::Categories => names.check(bid.categories.iter(), hit),
                Dimension::Places => names.check(bid.places.iter(), hit),
                Dimension::Platforms => names.check(std::iter::once(bid.platform), hit),
            }
        }
        or(hit, &self.off);
        self.zones.check(bid.at, scope, hit);
        for (signal, mask) in &self.signals {
            if bid.signals & 1 << signal != 0 {
                or(hit, mask);
            }
        }
        let mut any = 0;
        for (hit, (client, platform)) in hit.iter_mut().zip(scope.0.iter().zip(scope.1)) {
            *hit &= client & platform;
            any |= *hit;
        }
        if any == 0 { self.ask_conditions(bid, scope) } else { self.name(hit, low) }
    }

    /// The conditions of the rules that are for this bid, once nothing else refuses it.
    fn ask_conditions(&self, bid: &Bid<'_>, (client, platform): (&[u64], &[u64])) -> Verdict {
        let mut verdict = Verdict::default();
        for (rule, condition) in &self.conditions {
            let is_for_it = client[rule / 64] & platform[rule / 64] & 1 << (rule % 64) != 0;
            if is_for_it && condition.refuses(bid) {
                verdict.refusals = verdict.refusals.with(leaf::Refusal::Condition);
                verdict.rules.push(*rule as u16); // below MAX_RULES
            }
        }
        verdict
    }

    /// The reasons of the rules that refuse; of a price's the bound that it breaks decides.
    fn name(&self, hit: &[u64], low: &[u64]) -> Verdict {
        let mut verdict = Verdict::default();
        for (word, bits) in hit.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let rule = word * 64 + bits.trailing_zeros() as usize;
                let is_low = low[word] & 1 << (rule % 64) != 0;
                let refusal = if is_low { leaf::Refusal::BidFloor } else { self.refusals[rule] };
                verdict.refusals = verdict.refusals.with(refusal);
                verdict.rules.push(rule as u16); // below MAX_RULES
                bits &= bits - 1;
            }
        }
        verdict
    }
}

fn check_ids(rules: &[Rule<'_>]) -> Result<(), PolicyError> {
    let lists = ["bid_caps", "blocked_countries", "blocked_categories", "blocked_domains", "platforms_off"];
    let mut seen = HashSet::from(lists);
    let own = rules.iter().skip_while(|rule| rule.id != "platforms_off").skip(1);
    for (i, rule) in own.enumerate() {
        if !seen.insert(rule.id) {
            return Err(PolicyError::new(format!("rules[{i}].id"), format!("{:?} stands there already", rule.id)));
        }
    }
    Ok(())
}

fn check_names(rules: &[Rule<'_>]) -> Result<(), PolicyError> {
    let mut all = 0;
    for rule in rules {
        let What::Names(_, _, list, path) = &rule.what else { continue };
        if list.len() > MAX_ENTRIES {
            return Err(PolicyError::new(path, format!("{} entries; at most {MAX_ENTRIES} are taken", list.len())));
        }
        if let Some(i) = list.iter().position(|entry| entry.is_empty() || entry.len() > 255) {
            return Err(PolicyError::new(format!("{path}[{i}]"), "must have 1 to 255 bytes"));
        }
        all += list.len();
    }
    if all > MAX_NAMES { Err(PolicyError::new("rules", format!("{all} names; at most {MAX_NAMES} are taken"))) } else { Ok(()) }
}

const _: () = assert!(Refusals::GUARDRAILS.0 < 1 << 17);
