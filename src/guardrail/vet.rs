//! What a new policy is held to beyond what the log's may say: that no list or condition names a value which no request has.
//! A block of "FR" would let France through, and say nothing of it.

use super::condition::Condition;
use super::{PolicyError, leaf};
use crate::country;
use leaf::policy_rule::Kind;

/// Checks a policy that compiles.
///
/// # Errors
/// Names the first value that can match nothing.
pub(super) fn vet(document: &leaf::Policy) -> Result<(), PolicyError> {
    each("blocked_countries", &document.blocked_countries, country::check)?;
    each("blocked_categories", &document.blocked_categories, category)?;
    for (i, rule) in document.rules.iter().enumerate() {
        match &rule.kind {
            Some(Kind::Countries(list)) => each(&format!("rules[{i}].countries.names"), &list.names, country::check)?,
            Some(Kind::Categories(list)) => each(&format!("rules[{i}].categories.names"), &list.names, category)?,
            _ if rule.condition.is_empty() => {}
            _ => {
                let moot = Condition::compile(&rule.condition).map_or_else(Some, |condition| condition.moot);
                let named = moot.map(|problem| format!("of {:?}: {problem}", rule.id));
                named.map_or(Ok(()), |problem| Err(PolicyError::new(format!("rules[{i}].condition"), problem)))?;
            }
        }
    }
    Ok(())
}

fn each(path: &str, names: &[String], check: impl Fn(&str) -> Result<(), String>) -> Result<(), PolicyError> {
    let checked = |(i, name): (usize, &String)| check(name).map_err(|problem| PolicyError::new(format!("{path}[{i}]"), problem));
    names.iter().enumerate().try_for_each(checked)
}

/// Checks the form of a content category as requests name them, of whatever taxonomy (`cattax`): `IAB1` to `IAB26` with a
/// tier 2 of up to two digits (Content Taxonomy 1.0), a number (2.x and 3.x), or six letters and digits (3.x, such as `JLBCU7`).
///
/// # Errors
/// What is wrong.
pub(super) fn category(name: &str) -> Result<(), String> {
    let number = |text: &str, digits: usize| {
        let plain = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        plain.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let capitals = name.to_ascii_uppercase();
    let good = match capitals.strip_prefix("IAB") {
        Some(tiers) => {
            let (one, two) = tiers.split_once('-').map_or((tiers, None), |(one, two)| (one, Some(two)));
            number(one, 2).is_some_and(|tier| tier <= 26) && two.is_none_or(|tier| number(tier, 2).is_some())
        }
        None => number(name, 4).is_some() || (name.len() == 6 && name.bytes().all(|b| b.is_ascii_alphanumeric())),
    };
    let shown: String = name.chars().take(20).collect();
    if good { Ok(()) } else { Err(format!("{shown:?} has not the form of an IAB content category, such as IAB7, IAB7-39 or 53")) }
}

/// As [`category`], for a condition: it compares letter by letter, and requests have these in capitals.
///
/// # Errors
/// What is wrong.
pub(super) fn exact_category(name: &str) -> Result<(), String> {
    category(name)?;
    let capitals = name.to_ascii_uppercase();
    let same = name == capitals || !capitals.starts_with("IAB");
    if same { Ok(()) } else { Err(format!("{name:?} is compared letter by letter: did you mean {capitals}?")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guardrail::Policy;

    fn rule(kind: Kind) -> leaf::Policy {
        let rules = vec![leaf::PolicyRule { id: "r".into(), kind: Some(kind), ..Default::default() }];
        leaf::Policy { rules, ..Default::default() }
    }

    fn names(names: &[&str]) -> leaf::NameList {
        leaf::NameList { allow: false, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn what_matches_nothing_is_refused_when_put_and_taken_from_the_log() {
        let condition = leaf::PolicyRule { id: "c".into(), condition: "country == 'FR'".into(), ..Default::default() };
        let bad = [
            ("blocked_countries[1]", leaf::Policy { blocked_countries: vec!["PRK".into(), "KP".into()], ..Default::default() }),
            ("blocked_categories[0]", leaf::Policy { blocked_categories: vec!["Gambling".into()], ..Default::default() }),
            ("rules[0].countries.names[0]", rule(Kind::Countries(names(&["FR"])))),
            ("rules[0].categories.names[1]", rule(Kind::Categories(names(&["IAB7", "IAB7_39"])))),
            ("rules[0].condition", leaf::Policy { rules: vec![condition], ..Default::default() }),
        ];
        for (field, document) in bad {
            assert_eq!(Policy::accept(&document).expect_err(field).field, field);
            assert!(Policy::compile(&document).is_ok(), "{field}");
        }
        assert!(Policy::accept(&rule(Kind::Countries(names(&["FRA"])))).is_ok());
        let unread = leaf::PolicyRule { id: "c".into(), ..Default::default() };
        assert!(Policy::accept(&leaf::Policy { rules: vec![unread], ..Default::default() }).is_err(), "what does not compile");
    }

    #[test]
    fn a_condition_has_categories_in_capitals() {
        assert_eq!(["IAB7-39", "v9i3On", "53"].map(exact_category), [Ok(()), Ok(()), Ok(())]);
        assert!(exact_category("iab7-39").is_err_and(|why| why.ends_with("did you mean IAB7-39?")));
    }

    #[test]
    fn categories_of_every_taxonomy_are_taken() {
        for good in ["IAB1", "IAB26-4", "iab7-39", "53", "1025", "JLBCU7", "v9i3On"] {
            assert_eq!(category(good), Ok(()), "{good}");
        }
        for bad in ["", "IAB", "IAB0", "IAB27", "IAB7-", "IAB7-0", "IAB7-100", "IAB7.39", "IAB 7", "IAB7-3-1", "007", "News", "12345", "-1"]
        {
            assert!(category(bad).is_err(), "{bad}");
        }
    }
}
