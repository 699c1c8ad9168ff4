//! The table against an evaluation that reads the document rule by rule.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::leaf::policy_rule::Kind;

const CONDITION: &str = "cpm_micros > 5 && country == 'DEU'";

/// What one rule says, read as its documentation is.
fn speaks(rule: &leaf::PolicyRule, bid: &Bid<'_>) -> Option<leaf::Refusal> {
    let fits = |scope: &str, value: &str| scope.is_empty() || scope == value;
    if !(fits(&rule.client, bid.client) && fits(&rule.campaign, bid.campaign) && fits(&rule.platform, bid.platform)) {
        return None;
    }
    let outside = |range: &leaf::AmountRange, amount: i64| {
        let ours = range.currency == bid.currency.code();
        (ours && range.least > 0 && amount < range.least, ours && range.most > 0 && amount > range.most)
    };
    let refused = |list: &leaf::NameList, known: bool| known != list.allow;
    let any = |list: &leaf::NameList, of: &dyn Fn(&str) -> bool| list.names.iter().any(|name| of(&name.to_lowercase()));
    let Some(kind) = rule.kind.as_ref() else {
        return (rule.condition == CONDITION && bid.price.get() > 5 && bid.country == "DEU").then_some(leaf::Refusal::Condition);
    };
    let (yes, refusal) = match kind {
        Kind::Price(range) => match outside(range, bid.price.get()) {
            (true, _) => (true, leaf::Refusal::BidFloor),
            (_, high) => (high, leaf::Refusal::BidCap),
        },
        Kind::PredictedLtv(range) => {
            let (low, high) = outside(range, bid.predicted_ltv.get());
            (low || high, leaf::Refusal::LtvRange)
        }
        Kind::Countries(list) => (refused(list, any(list, &|name| name == bid.country.to_lowercase())), leaf::Refusal::Geo),
        Kind::Categories(list) => {
            let is = |name: &str, of: &str| of == name || of.split('-').next() == Some(name);
            let known = any(list, &|name| bid.categories.iter().any(|of| is(name, &of.to_lowercase())));
            (refused(list, known), leaf::Refusal::Category)
        }
        Kind::Places(list) => {
            let is = |name: &str, of: &str| of == name || of.ends_with(&format!(".{name}"));
            let known = any(list, &|name| bid.places.iter().any(|of| is(name, &of.to_lowercase())));
            (refused(list, known), leaf::Refusal::Domain)
        }
        Kind::PlatformOff(_) => (true, leaf::Refusal::PlatformOff),
        Kind::Schedule(schedule) => {
            let zone = TimeZone::get(&schedule.zone).expect("a zone");
            let local = Timestamp::from_microsecond(bid.at.0).expect("an instant").to_zoned(zone);
            let (day, minute) = (local.weekday().to_monday_one_offset() as u32, local.hour() as u32 * 60 + local.minute() as u32);
            let inside = |w: &leaf::Window| w.days.contains(&day) && (w.from_minute..w.to_minute).contains(&minute);
            (!schedule.windows.iter().any(inside), leaf::Refusal::Schedule)
        }
        Kind::Frequency(_) => (false, leaf::Refusal::Frequency), // whoever counts holds it
        Kind::Consent(consent) => (consent.refuse.iter().any(|signal| bid.signals & 1 << signal != 0), leaf::Refusal::Consent),
    };
    yes.then_some(refusal)
}

fn one_of(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(names).prop_map(str::to_owned)
}

const COUNTRIES: &[&str] = &["DEU", "FRA", "usa", "PRK"];
const CATEGORIES: &[&str] = &["IAB1", "IAB1-2", "iab7-39", "IAB7", "IAB70"];
const PLACES: &[&str] = &["example", "a.example", "b.a.example", "com.app", "App", "x"];

fn list(names: &'static [&'static str]) -> impl Strategy<Value = leaf::NameList> {
    let names = proptest::collection::vec(one_of(names), 1..3);
    (any::<bool>(), names).prop_map(|(allow, names)| leaf::NameList { allow, names })
}

fn range() -> impl Strategy<Value = leaf::AmountRange> {
    (one_of(&["USD", "EUR"]), 0_i64..6, 0_i64..6).prop_map(|(currency, least, more)| leaf::AmountRange {
        currency,
        least,
        most: if more == 0 && least > 0 { 0 } else { least + more + i64::from(least + more == 0) },
    })
}

fn schedule() -> impl Strategy<Value = leaf::Schedule> {
    let window = (proptest::collection::vec(1_u32..8, 1..7), 0_u32..96, 1_u32..96).prop_map(|(days, from, length)| leaf::Window {
        days,
        from_minute: from * 15,
        to_minute: (from + length).min(96) * 15,
    });
    let zone = one_of(&["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Australia/Lord_Howe"]);
    (zone, proptest::collection::vec(window, 1..4)).prop_map(|(zone, windows)| leaf::Schedule { zone, windows })
}

fn rule() -> impl Strategy<Value = leaf::PolicyRule> {
    let kind = prop_oneof![
        9 => kind().prop_map(Some),
        1 => Just(None),
    ];
    let scope = (one_of(&["", "", "acme", "other"]), one_of(&["", "c", "d"]), one_of(&["", "", "meta", "x"]));
    (scope, kind).prop_map(|((client, campaign, platform), kind)| leaf::PolicyRule {
        campaign: if client.is_empty() { String::new() } else { campaign },
        platform: if matches!(kind, Some(Kind::PlatformOff(_))) && platform.is_empty() { "x".into() } else { platform },
        client,
        condition: if kind.is_none() { CONDITION.into() } else { String::new() },
        kind,
        ..Default::default()
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        range().prop_map(Kind::Price),
        range().prop_map(Kind::PredictedLtv),
        list(COUNTRIES).prop_map(Kind::Countries),
        list(CATEGORIES).prop_map(Kind::Categories),
        list(PLACES).prop_map(Kind::Places),
        Just(Kind::PlatformOff(leaf::PlatformOff {})),
        schedule().prop_map(Kind::Schedule),
        proptest::collection::vec(1_i32..7, 1..3).prop_map(|refuse| Kind::Consent(leaf::Consent { refuse })),
    ]
}

type Facts = ((String, String, String, String), Vec<String>, Vec<String>, (i64, i64, u32, i64), String);

fn facts() -> impl Strategy<Value = Facts> {
    (
        (
            one_of(&["acme", "other", "third"]),
            one_of(&["c", "d", "e"]),
            one_of(&["meta", "x", "y"]),
            one_of(&["", "DEU", "deu", "USA", "ESP"]),
        ),
        proptest::collection::vec(one_of(&["IAB1-2", "IAB7-1", "iab7", "IAB70", "IAB2"]), 0..3),
        proptest::collection::vec(one_of(&["a.example", "B.A.Example", "ba.example", "com.app", "app", "y"]), 0..3),
        (0_i64..14, 0_i64..14, 0_u32..128, 1_700_000_000_i64..1_800_000_000),
        one_of(&["USD", "EUR"]),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_says_what_the_rules_say(mut rules in proptest::collection::vec(rule(), 0..150), facts in facts()) {
        rules.iter_mut().enumerate().for_each(|(i, rule)| rule.id = format!("r{i}"));
        let ((client, campaign, platform, country), categories, places, (price, ltv, signals, second), currency) = &facts;
        let bid = Bid {
            client, campaign, platform, country,
            categories: List::Kept(categories),
            places: List::Kept(places),
            signals: *signals,
            currency: Currency::parse(currency).expect("a currency"),
            price: Nanos::new(*price),
            predicted_ltv: Micros::new(*ltv),
            at: UnixMicros(second * 1_000_000),
        };
        let caps = ["USD", "EUR"].map(|currency| leaf::BidCap { currency: currency.into(), cap_nanos: 100 });
        let document = leaf::Policy { rules, bid_caps: caps.to_vec(), ..Default::default() };
        let conditions = document.rules.iter().filter(|rule| rule.kind.is_none()).count();
        let policy = match Policy::compile(&document) {
            Ok(policy) => policy,
            Err(error) => {
                prop_assert!(conditions > 32, "{}", error);
                return Ok(());
            }
        };
        let verdict = policy.verdict(&bid);
        let mut spoken: Vec<(&str, leaf::Refusal)> =
            document.rules.iter().filter_map(|rule| Some((rule.id.as_str(), speaks(rule, &bid)?))).collect();
        if spoken.iter().any(|(_, refusal)| *refusal != leaf::Refusal::Condition) {
            spoken.retain(|(_, refusal)| *refusal != leaf::Refusal::Condition); // conditions are asked last
        }
        let ids: Vec<&str> = verdict.rules.iter().map(|rule| policy.rule_ids()[usize::from(*rule)].as_str()).collect();
        prop_assert_eq!(ids, spoken.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        prop_assert_eq!(verdict.refusals, spoken.iter().fold(Refusals::NONE, |all, (_, refusal)| all.with(*refusal)));
    }
}

#[test]
fn a_sample_of_any_size_compiles_and_allows_its_bid() {
    for count in [10, 250, 1_000, MAX_RULES] {
        let sample = sample(count - 2).with_conditions(2);
        let policy = Policy::compile(&sample.policy).expect("a policy");
        assert_eq!(policy.rule_ids().len(), count);
        assert_eq!(policy.named(&policy.verdict(&sample.bid())), Vec::<String>::new());
    }
}

#[test]
fn a_bad_rule_names_its_field() {
    let bad = |change: fn(&mut leaf::PolicyRule)| {
        let range = leaf::AmountRange { currency: "USD".into(), least: 1, most: 2 };
        let mut rule = leaf::PolicyRule { id: "r".into(), kind: Some(Kind::Price(range)), ..Default::default() };
        change(&mut rule);
        let document = leaf::Policy { rules: vec![leaf::PolicyRule { id: "s".into(), ..rule.clone() }, rule], ..Default::default() };
        Policy::compile(&document).expect_err("a bad rule").field
    };
    assert_eq!(bad(|rule| rule.id = "s".into()), "rules[1].id");
    assert_eq!(bad(|rule| rule.id = "No Spaces".into()), "rules[1].id");
    assert_eq!(bad(|rule| rule.campaign = "c".into()), "rules[0].client");
    assert_eq!(bad(|rule| rule.kind = None), "rules[0]");
    assert_eq!(bad(|rule| rule.condition = "true".into()), "rules[0].condition", "beside a kind");
    assert_eq!(bad(|rule| (rule.kind, rule.condition) = (None, "cpm_micros".into())), "rules[0].condition");
    assert_eq!(bad(|rule| rule.kind = Some(Kind::PlatformOff(leaf::PlatformOff {}))), "rules[0].platform");
    assert_eq!(bad(|rule| rule.kind = Some(Kind::Places(leaf::NameList::default()))), "rules[0].places.names");
    assert_eq!(bad(|rule| rule.kind = Some(Kind::Consent(leaf::Consent { refuse: vec![99] }))), "rules[0].consent.refuse");
    let nowhere = Kind::Schedule(leaf::Schedule {
        zone: "Mars/Base".into(),
        windows: vec![leaf::Window { days: vec![1], from_minute: 0, to_minute: 15 }],
    });
    let document =
        leaf::Policy { rules: vec![leaf::PolicyRule { id: "r".into(), kind: Some(nowhere), ..Default::default() }], ..Default::default() };
    assert_eq!(Policy::compile(&document).expect_err("no such zone").field, "rules[0].schedule.zone");
}

#[test]
fn what_a_condition_lacks_is_named_with_its_rule() {
    let rule = |i| leaf::PolicyRule { id: format!("r{i}"), condition: "contry == 'DEU'".into(), ..Default::default() };
    let document = leaf::Policy { rules: vec![rule(0)], ..Default::default() };
    let error = Policy::compile(&document).expect_err("no such name").to_string();
    assert!(error.starts_with("policy.rules[0].condition: of \"r0\": line 1, column 1: \"contry\" is none of"), "{error}");
    let rules = (0..33).map(|i| leaf::PolicyRule { condition: "country == 'DEU'".into(), ..rule(i) }).collect();
    let error = Policy::compile(&leaf::Policy { rules, ..Default::default() }).expect_err("too many");
    assert_eq!(error.problem, "more than 32 have a condition");
}
