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
    let by_campaign =
        |lines: &[Line]| -> BTreeMap<String, Value> { lines.iter().map(|line| (line.campaign_id.clone(), value(line))).collect() };
    let (mut found, wanted) = (by_campaign(document), by_campaign(recomputed));
    if found.len() != document.len() {
        findings.add(Place::Field("line_items".into()), "name a campaign twice");
    }
    for (campaign, want) in wanted {
        let place = Place::Line(campaign.clone());
        match found.remove(&campaign) {
            None => findings.add(place, "is missing from the invoice"),
            Some(line) => fields("", &line, &want, &mut |field, problem| {
                findings.add(place.clone(), format!("{field} {problem}"));
            }),
        }
    }
    for (campaign, _) in found {
        findings.add(Place::Line(campaign), "is on the invoice but no leaf gives it");
    }
    let order = |lines: &[Line]| lines.iter().map(|line| line.campaign_id.clone()).collect::<Vec<_>>();
    if document.len() == recomputed.len() && order(document) != order(recomputed) {
        findings.add(Place::Field("line_items".into()), "are not in order of campaign");
    }
}

fn fields(path: &str, found: &Value, wanted: &Value, differ: &mut impl FnMut(String, String)) {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            for (key, want) in wanted {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                fields(&path, found.get(key).unwrap_or(&Value::Null), want, differ);
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
