#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use cel::{Context, Env, Value};
use proptest::prelude::*;

use super::*;
use crate::clock::UnixMicros;
use crate::guardrail::List;
use crate::money::{Currency, Micros, Nanos};

fn bid<'a>(categories: &'a [String], places: &'a [String], cpm: i64, ltv: i64) -> Bid<'a> {
    Bid {
        client: "acme",
        campaign: "spring",
        platform: "meta",
        currency: Currency::USD,
        price: Nanos::new(cpm),
        predicted_ltv: Micros::new(ltv),
        country: "DEU",
        categories: List::Kept(categories),
        places: List::Kept(places),
        signals: 1 << 2,
        at: UnixMicros(0),
    }
}

fn refuses(text: &str) -> bool {
    let categories = ["IAB1".to_owned()];
    Condition::compile(text).unwrap().refuses(&bid(&categories, &["news.example".to_owned()], 5_000_000, 100_000_000))
}

fn fault(text: &str) -> String {
    Condition::compile(text).unwrap_err()
}

#[test]
fn a_condition_says_what_it_reads_like() {
    for holds in [
        r#"cpm_micros > 2 * predicted_ltv_micros / 100 && country in ["DEU"]"#,
        r#"size(categories) == 1 && "IAB1" in categories && !("IAB2" in categories)"#,
        r#"places.size() >= 1 && country.startsWith("D") && client.endsWith("me") && campaign.contains("rin")"#,
        r#""gdpr" in signals && !("coppa" in signals)"#,
        r#"(currency == "USD" ? 5 : 7) == 5 && platform != 'x'"#,
        "-5 % 3 == -2 && -5 / 3 == -1",
    ] {
        assert!(refuses(holds), "{holds}");
    }
    for fails in ["cpm_micros > 5000000", r#"country in ["FRA", "AUT"]"#, "false || cpm_micros in [1, 2]"] {
        assert!(!refuses(fails), "{fails}");
    }
}

#[test]
fn what_cannot_be_worked_out_refuses() {
    assert!(refuses("predicted_ltv_micros * 9223372036854775807 < 0"));
    assert!(refuses("cpm_micros / (predicted_ltv_micros - predicted_ltv_micros) > 1"));
    assert!(!refuses("false && 1 / 0 > 0"), "one side decides");
    assert!(!refuses("1 / 0 > 0 && false"), "whichever it is");
    assert!(refuses("1 / 0 > 0 || false"));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    assert!(fault("cpm_micros >").starts_with("line 1, column "), "{}", fault("cpm_micros >"));
    assert_eq!(fault("cpm_micros"), "line 1, column 1: is a int, and a bool is called for");
    assert!(fault("true &&\n  contry == 'DEU'").starts_with("line 2, column 3: \"contry\" is none of client,"));
    assert!(fault("country == 5").contains("a string is not compared with a int"));
    assert!(fault("'copa' in signals").contains("\"copa\" is none of coppa, gdpr"));
    assert!(fault("cpm_micros > 1.5").contains("numbers are whole"));
    assert!(fault("categories.exists(c, c == 'IAB1')").contains("their cost has no bound"));
    assert!(fault("matches(country, 'D.*')").contains("\"matches\" is not taken"));
    assert!(fault("country in []").contains("the list is empty"));
}

#[test]
fn a_comparison_that_no_request_meets_is_named_with_its_place() {
    let moot = |text: &str| Condition::compile(text).unwrap().moot;
    assert_eq!(
        moot("true &&\n  country == 'FR'").unwrap(),
        "line 2, column 14: \"FR\" is no country of ISO 3166-1 alpha-3: did you mean FRA?"
    );
    for text in ["'fra' != country", "country in ['DEU', 'UK']", "country == 'DEU' ? country == 'XXX' : true", "'IAB27' in categories"] {
        assert!(moot(text).is_some(), "{text}");
    }
    for text in ["country in ['DEU', 'FRA', client]", "country == '' || client == 'FR'", "'IAB7-39' in categories", "'FR' in places"] {
        assert_eq!(moot(text), None, "{text}");
    }
}

#[test]
fn a_condition_has_its_bounds() {
    let long = format!("country == '{}'", "x".repeat(MAX_BYTES));
    assert!(fault(&long).contains("at most 1024"));
    let many = vec!["true"; MAX_PARTS].join("||");
    assert!(fault(&many).contains("64 that are taken"));
    assert!(fault(&format!("{}true{}", "(".repeat(400), ")".repeat(400))).contains("at most 16"));
    assert!(fault(&format!("{}true", "true?true:".repeat(50))).contains("at most 16"));
    assert!(refuses(&format!("{}true", "!".repeat(1_000))), "the parser takes an even number of them away");
    assert!(refuses("country == '((((((((((((((((((((((((((' || true"));
}

/// CEL's own evaluation.
fn by_cel(text: &str, bid: &Bid<'_>) -> Result<bool, String> {
    let env = Arc::new(Env::stdlib());
    let mut context = Context::with_env(env.clone());
    let texts = [("client", bid.client), ("campaign", bid.campaign), ("platform", bid.platform), ("country", bid.country)];
    texts.iter().for_each(|(name, text)| context.add_variable_from_value(*name, (*text).to_owned()));
    context.add_variable_from_value("currency", bid.currency.code().to_owned());
    context.add_variable_from_value("categories", bid.categories.iter().collect::<Vec<_>>());
    context.add_variable_from_value("places", bid.places.iter().collect::<Vec<_>>());
    context.add_variable_from_value("cpm_micros", bid.price.get());
    context.add_variable_from_value("predicted_ltv_micros", bid.predicted_ltv.get());
    match env.compile(text).map_err(|error| error.to_string())?.execute(&context) {
        Ok(Value::Bool(value)) => Ok(value),
        other => Err(format!("{other:?}")),
    }
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    proptest::sample::select(texts).prop_map(str::to_owned)
}

fn int() -> impl Strategy<Value = String> + Clone {
    let leaf =
        one_of(&["0", "1", "-3", "7", "9223372036854775807", "cpm_micros", "predicted_ltv_micros", "size(categories)", "places.size()"]);
    leaf.prop_recursive(3, 12, 2, |inner| {
        let operator = one_of(&["+", "-", "*", "/", "%"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(one, operator, other)| format!("({one} {operator} {other})")),
            inner.clone().prop_map(|one| format!("-({one})")),
            (inner.clone(), inner).prop_map(|(one, other)| format!("(cpm_micros > 2 ? {one} : {other})")),
        ]
    })
}

fn condition() -> impl Strategy<Value = String> {
    let text = one_of(&["client", "country", "currency", "platform", "'DEU'", "'acme'", "'IAB1'", "'a.example'", "'x'"]);
    let list = one_of(&["categories", "places", "['DEU', country]", "['IAB1', client]"]);
    let order = one_of(&["<", "<=", ">", ">=", "==", "!="]);
    let leaf = prop_oneof![
        one_of(&["true", "false"]),
        (int(), order, int()).prop_map(|(one, order, other)| format!("{one} {order} {other}")),
        (text.clone(), one_of(&["==", "!="]), text.clone()).prop_map(|(one, sign, other)| format!("{one} {sign} {other}")),
        (text.clone(), list).prop_map(|(one, list)| format!("{one} in {list}")),
        (int(), int()).prop_map(|(one, other)| format!("cpm_micros in [{one}, {other}]")),
        (text.clone(), one_of(&["startsWith", "endsWith", "contains"]), text).prop_map(|(one, how, other)| format!("{one}.{how}({other})")),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), one_of(&["&&", "||"]), inner.clone()).prop_map(|(one, sign, other)| format!("({one}) {sign} ({other})")),
            inner.clone().prop_map(|one| format!("!({one})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(one, two, three)| format!("(({one}) ? ({two}) : ({three}))")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_condition_is_answered_as_cel_answers_it(text in condition(), cpm in 0_i64..10, ltv in 0_i64..10, lists in any::<bool>()) {
        let (categories, places) = (["IAB1".to_owned()], ["a.example".to_owned(), "x".to_owned()]);
        let bid = if lists { bid(&categories, &places, cpm, ltv) } else { bid(&[], &[], cpm, ltv) };
        // What has too many parts is another test's.
        let Ok(condition) = Condition::compile(&text) else { return Ok(()) };
        prop_assert_eq!(condition.holds.of(&bid).ok(), by_cel(&text, &bid).ok(), "{}", text);
    }
}
