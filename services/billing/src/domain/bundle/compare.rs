//! Two invoices, figure by figure: what differs is named with both figures.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Findings, Place};
use crate::domain::invoice::{Invoice, Line};

/// Adds a finding for each figure of `document` that is not as in `recomputed`.
pub(super) fn documents(document: &Invoice, recomputed: &Invoice, findings: &mut Findings) {
    lines(&document.line_items, &recomputed.line_items, findings);
    let head = |invoice: &Invoice| value(&Invoice { line_items: Vec::new(), ..invoice.clone() });
    fields("", &head(document), &head(recomputed), &mut |field, problem| {
        findings.add(Place::Field(field), problem);
    });
}

fn lines(document: &[Line], recomputed: &[Line], findings: &mut Findings) {
    let by_campaign = |lines: &[Line]| -> BTreeMap<(u32, String), Value> { lines.iter().map(|line| (key(line), value(line))).collect() };
    let (mut found, wanted) = (by_campaign(document), by_campaign(recomputed));
    if found.len() != document.len() {
        findings.add(Place::Field("line_items".into()), "name a campaign twice");
    }
    for (key, want) in wanted {
        let place = place(&key);
        match found.remove(&key) {
            None => findings.add(place, "is missing from the invoice"),
            Some(line) => fields("", &line, &want, &mut |field, problem| {
                findings.add(place.clone(), format!("{field} {problem}"));
            }),
        }
    }
    for (key, _) in found {
        findings.add(place(&key), "is on the invoice but no leaf gives it");
    }
    let order = |lines: &[Line]| lines.iter().map(key).collect::<Vec<_>>();
    if document.len() == recomputed.len() && order(document) != order(recomputed) {
        findings.add(Place::Field("line_items".into()), "are not in order of part and campaign");
    }
}

fn key(line: &Line) -> (u32, String) {
    (line.part, line.campaign_id.clone())
}

/// A line's place: by its campaign, and by its part where that is not the first.
fn place((part, campaign): &(u32, String)) -> Place {
    Place::Line(if *part == 1 { campaign.clone() } else { format!("{campaign} of part {part}") })
}

fn fields(path: &str, found: &Value, wanted: &Value, differ: &mut impl FnMut(String, String)) {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let more = found.keys().filter(|key| !wanted.contains_key(*key));
            for key in wanted.keys().chain(more) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |object: &'_ serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                fields(&path, &of(found), &of(wanted), differ);
            }
        }
        _ if found == wanted => {}
        _ => differ(path.to_owned(), format!("is {found} but the log gives {wanted}")),
    }
}

/// A document as JSON: it is made of strings and integers, which always print.
fn value(document: &impl serde::Serialize) -> Value {
    serde_json::to_value(document).unwrap_or(Value::Null)
}
