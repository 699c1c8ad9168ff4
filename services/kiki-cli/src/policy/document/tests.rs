#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;

#[path = "../../../../../tests/support/json_schema.rs"]
mod json_schema;

use json_schema::faults;

const YAML: &str = include_str!("../../../../../docs/policies/example.yaml");
const JSON: &str = include_str!("../../../../../docs/policies/example.json");
const SCHEMA: &str = include_str!("../../../../../docs/policy.schema.json");

fn by_schema(document: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    faults(&schema, &schema, &serde_yaml_ng::from_str(document).unwrap(), "")
}

#[test]
fn the_examples_are_valid_by_schema_and_by_reader() {
    for (document, rules) in [(YAML, 11), (JSON, 2)] {
        assert_eq!(by_schema(document), Vec::<String>::new());
        assert_eq!(read(document.as_bytes()).unwrap().0.rules.len(), rules);
    }
}

#[test]
fn the_example_says_what_it_reads_like() {
    let (policy, _) = read(YAML.as_bytes()).unwrap();
    assert_eq!(policy.author, "ada");
    assert_eq!(policy.bid_caps[0], leaf::BidCap { currency: "EUR".into(), cap_nanos: 45_000_000 });
    let kind = |id: &str| policy.rules.iter().find(|rule| rule.id == id).unwrap().kind.clone().unwrap();
    assert_eq!(kind("acme-calm"), Kind::Price(leaf::AmountRange { currency: "USD".into(), least: 0, most: 20_000_000 }));
    assert_eq!(kind("value-in-reason"), Kind::PredictedLtv(leaf::AmountRange { currency: "USD".into(), least: 0, most: 5_000_000_000 }));
    assert_eq!(kind("three-a-day"), Kind::Frequency(leaf::Frequency { most: 3, hours: 24 }));
    assert_eq!(kind("no-gambling"), Kind::Categories(leaf::NameList { allow: false, names: vec!["IAB9-7".into()] }));
    let Kind::Schedule(schedule) = kind("office-hours") else { panic!("a schedule") };
    assert_eq!(schedule.windows[0], leaf::Window { days: (1..=5).collect(), from_minute: 480, to_minute: 1_080 });
    let condition = &policy.rules.iter().find(|rule| rule.id == "a-tenth-in-germany").unwrap().condition;
    assert_eq!(condition, r#"country in ["DEU"] && cpm_micros > predicted_ltv_micros / 10"#);
    let Kind::Consent(consent) = kind("the-law") else { panic!("consent") };
    assert_eq!(consent.refuse, [1, 3, 4, 5]);
}

#[test]
fn what_the_schema_refuses_the_reader_refuses() {
    let bad = [
        "{}",
        "bid_caps: {USD: 5.5}",
        "{bid_caps: {USD: 5}, author: [a]}",
        "{bid_caps: {USD: 5}, typo: 1}",
        "{bid_caps: {USD: 5}, rules: [{id: a, frequency: {most: 0, hours: 24}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: a, frequency: {most: 3, hours: 721}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: a, frequency: {most: 3}}]}",
        "{bid_caps: {USD: 5}, blocked_countries: DEU}",
        "{bid_caps: {USD: 5}, blocked_countries: [FR]}",
        "{bid_caps: {USD: 5}, blocked_categories: [IAB7_39]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, countries: {allow: [fra]}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, categories: {block: [News]}}]}",
        "{bid_caps: {USD: 5}, blocked_domains: [\"\"]}",
        "{bid_caps: {USD: 5}, rules: [{id: r}]}",
        "{bid_caps: {USD: 5}, rules: [{platform: x, platform_off: true}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, platform: x, platform_off: false}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, price: {least: 5}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, price: {currency: USD, least: 5}, countries: {allow: [DEU]}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, countries: {allow: [DEU]}, condition: 'true'}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, condition: ''}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, countries: {allow: [DEU], block: [FRA]}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, countries: {block: []}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, consent: {refuse: [gdrp]}}]}",
        "{bid_caps: {USD: 5}, rules: [{id: r, schedule: {zone: UTC, windows: [{days: [monday], from: '08:00', to: '09:00'}]}}]}",
    ];
    for document in bad {
        assert_ne!(by_schema(document), Vec::<String>::new(), "by schema: {document}");
        assert!(read(document.as_bytes()).is_err(), "by reader: {document}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let error = |rule: &str| read(format!("{{bid_caps: {{USD: 5}}, rules: [{rule}]}}").as_bytes()).unwrap_err();
    assert_eq!(error("{id: r, price: {currency: USD, least: \"1.2345678\"}}").split(':').next(), Some("rule r"));
    assert!(error("{id: r, schedule: {zone: UTC, windows: [{days: [mon], from: '8:00', to: '09:00'}]}}").contains("HH:MM"));
    assert!(error("{id: r, schedule: {zone: UTC, windows: [{days: [mon], from: '08:05', to: '09:00'}]}}").contains("multiples of 15"));
    assert!(error("{id: r, condition: contry == 'DEU'}").contains("\"r\": line 1, column 1: \"contry\" is none of"));
    assert!(error("{id: r, countries: {block: [UK]}}").ends_with("did you mean GBR?"));
    assert!(error("{id: r, condition: country == 'FR'}").ends_with("did you mean FRA?"));
    assert!(error("{id: r, schedule: {zone: Mars, windows: [{days: [mon], from: '08:00', to: '09:00'}]}}").contains("IANA"));
}
