//! `terms.json` and `purchases.jsonl`: with the exchange's ledger and the event file, all that a script needs to
//! recompute the invoices without any code of ours.

use std::path::Path;

use kiki::leaf::Basis;
use serde_json::{Value, json};

use super::clients::{CLIENTS, LOOKBACK_SECONDS};
use super::exchange::Shown;
use super::plan::Plan;
use crate::error::{Doing as _, Failure};

/// Writes `purchases.jsonl`: which purchases followed a click on an impression, and brought the click's receipt.
pub(crate) fn write_clicks(dir: &Path, clicks: &[(String, Shown)]) -> Result<(), Failure> {
    let path = dir.join("purchases.jsonl");
    let line = |(event_id, shown): &(String, Shown)| {
        let line = json!({ "event_id": event_id, "receipt": shown.receipt, "click": shown.click });
        format!("{line}\n")
    };
    let lines: String = clicks.iter().map(line).collect();
    std::fs::write(&path, lines).doing(format_args!("writing {}", path.display()))
}

/// Writes `terms.json`.
pub(crate) fn write(plan: &Plan, dir: &Path) -> Result<(), Failure> {
    let settings = &plan.settings;
    let places = kiki::money::Currency::parse(&settings.currency).map_or(2, |currency| currency.minor_unit());
    let clients: Vec<Value> = CLIENTS
        .iter()
        .zip(&plan.spans)
        .enumerate()
        .map(|(place, (client, span))| {
            let basis = if client.basis == Basis::Realised { "realised" } else { "predicted" };
            json!({
                "client": client.id,
                "client_name": client.name,
                "customers_sha256_first_byte_mod_2": place,
                "zone": client.zone,
                "period_start_micros": span.start.0,
                "period_end_micros": span.end.0,
                "baseline_ppm": client.baseline_ppm,
                "share_ppm": client.share_ppm,
                "basis": basis,
                "netting": "client",
                "horizon_days": client.horizon_days,
                "lookback_micros": i64::from(LOOKBACK_SECONDS) * 1_000_000,
                "campaigns": client.campaigns.iter().map(|line| line.id).collect::<Vec<_>>(),
            })
        })
        .collect();
    let document = json!({
        "month": settings.month,
        "currency": settings.currency,
        "minor_unit": places,
        "events": settings.events,
        "events_sha256": settings.events_sha256,
        "purchases": {
            "at": "12:00:00 UTC of the row's date",
            "event_id": "order-<row>, rows counted from 1 without the header",
            "reported_from_micros": plan.begin.0,
            "reported_until_micros": plan.invoiced_at[1].0,
            "order": "by instant, then row",
            "receipts": "purchases.jsonl says which purchases brought the click of an impression, which it names by the receipt of its charge",
        },
        "clients": clients,
        "rules": {
            "acquired": "the first purchase above 0 of a customer not acquired before, for which there is a charged impression of the same client with \
                         notified_at <= purchase and purchase - lookback <= bid_at <= purchase: that of the receipt, else the customer's latest by \
                         (bid_at, lease, sequence). An impression without a customer in its receipt counts by receipt alone.",
            "spend": "charges whose bid_at is before period_end, by campaign: the client's first invoice covers what came before its month too",
            "ltv_predicted": "sum of the receipts' predicted LTV over customers acquired before period_end",
            "ltv_realised": "for those customers, all purchases and refunds in [acquired, acquired + horizon)",
            "fee": "share x max(0, sum LTV - baseline x sum spend) over the client's campaigns with spend; half away from zero to the minor unit. With every campaign \
                    above its baseline a line is rounded by itself and the total is their sum; else the rounded total is shared out by margin, largest remainder first.",
        },
        "receipt": {
            "encoding": "base64url without padding",
            "integers": "big-endian",
            "lease_id": { "at": 2, "bytes": 8 },
            "sequence": { "at": 18, "bytes": 4 },
            "predicted_ltv_micros": { "at": 30, "bytes": 8, "signed": true },
            "has_customer": { "at": 87, "bytes": 1 },
        },
    });
    let bytes = serde_json::to_vec_pretty(&document).doing("writing terms.json")?;
    let path = dir.join("terms.json");
    std::fs::write(&path, bytes).doing(format_args!("writing {}", path.display()))
}
