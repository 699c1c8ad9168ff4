//! The terms that a client is billed under, as they stand in a leaf of the log.

use kiki::clock::UnixMicros;
use kiki::leaf;
use serde::{Deserialize, Serialize};

use super::fee::Netting;

/// What LTV the fee is taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The prediction that was frozen when the customer was acquired; trued up at the horizon.
    Predicted,
    /// What the customer has spent up to the horizon.
    Realised,
}

/// The terms of a client in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Index of their leaf.
    pub leaf: u64,
    /// Their version: a newer one goes before an older one from its `effective_from` on.
    pub version: u64,
    /// From when they are in force.
    pub effective_from: UnixMicros,
    /// Baseline return on ad spend, parts per million.
    pub baseline_ppm: i64,
    /// Whether the baseline is what the evidence gives.
    pub baseline_measured: bool,
    /// Index of the leaf that the baseline is evidenced by, where there is one.
    pub evidence_leaf: Option<u64>,
    /// Share of the margin, parts per million.
    pub share_ppm: i64,
    /// What LTV counts.
    pub basis: Basis,
    /// What is set off against what.
    pub netting: Netting,
    /// Whether a shortfall is set off against later margins.
    pub carry_shortfall: bool,
    /// Least that a period is billed before tax, in minor units; 0: no least.
    pub minimum_minor: i64,
    /// Most that a period is billed before tax, in minor units; 0: no most.
    pub cap_minor: i64,
    /// The tax on the fee, where one is shown.
    pub tax: Option<Tax>,
    /// How long after its end a period waits for late records, seconds.
    pub grace_seconds: u32,
    /// Days over which LTV counts.
    pub horizon_days: u32,
    /// By which rule customers are attributed.
    pub attribution: leaf::AttributionRule,
    /// Seconds within which a conversion is attributed to an impression.
    pub lookback_seconds: u32,
    /// IANA zone of the client.
    pub zone: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Calendar days from issue to due date.
    pub payment_days: u32,
    /// The client's name in full.
    pub client_name: String,
    /// Who sends the invoice, where the terms say.
    pub seller: Option<Seller>,
    /// Whom it is sent to, where the terms say.
    pub buyer: Option<Party>,
}

/// The tax on a fee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tax {
    /// UNCL5305: S, Z, E, AE, K, G or O.
    pub category: String,
    /// Parts per million.
    pub rate_ppm: u32,
    /// Why none is charged, in words.
    pub exemption_reason: String,
    /// The same by its code (VATEX).
    pub exemption_code: String,
}

/// The sender of invoices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seller {
    /// Who it is.
    pub party: Party,
    /// ISO 13616.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub iban: String,
    /// ISO 9362.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bic: String,
    /// Whose account it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account_name: String,
    /// What the numbers of its documents begin with. The numbers show it.
    #[serde(skip)]
    pub series: String,
}

/// A company, as [`leaf::Party`] has it; what is empty is not printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of the leaf, which says what they are")]
pub struct Party {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registration_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registration_scheme: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vat_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub address_lines: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub city: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub postal_code: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subdivision: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub country: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contact_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contact_phone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contact_email: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_scheme: String,
}

/// What the numbers of a seller's documents begin with where the terms do not say.
pub const SERIES: &str = "K";

/// Terms that no invoice can be drawn up under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("terms in leaf {leaf}: {field} is not valid")]
pub struct TermsError {
    /// Index of the leaf.
    pub leaf: u64,
    /// The field.
    pub field: &'static str,
}

impl Terms {
    /// Reads a leaf.
    pub fn of(leaf: u64, body: &leaf::Terms) -> Result<Self, TermsError> {
        let bad = |field| TermsError { leaf, field };
        let basis = match body.basis() {
            leaf::Basis::Predicted => Basis::Predicted,
            leaf::Basis::Realised => Basis::Realised,
            leaf::Basis::Unspecified => return Err(bad("basis")),
        };
        let netting = match body.netting() {
            leaf::Netting::Client => Netting::Client,
            leaf::Netting::Campaign => Netting::Campaign,
            leaf::Netting::Unspecified => return Err(bad("netting")),
        };
        // Terms that do not say from when are in force from the first record on.
        let effective_from = match &body.effective_from {
            None => UnixMicros(i64::MIN),
            Some(at) => UnixMicros::from_pb(Some(at)).ok_or_else(|| bad("effective_from"))?,
        };
        if body.minimum_minor < 0 || body.cap_minor < 0 || (body.cap_minor > 0 && body.minimum_minor > body.cap_minor) {
            return Err(bad("minimum_minor"));
        }
        if body.baseline_measured && body.baseline_evidence.is_none() {
            return Err(bad("baseline_evidence"));
        }
        Ok(Self {
            leaf,
            version: body.version,
            effective_from,
            baseline_ppm: body.baseline_ppm,
            baseline_measured: body.baseline_measured,
            evidence_leaf: body.baseline_evidence.as_ref().map(|position| position.index),
            share_ppm: body.share_ppm,
            basis,
            netting,
            carry_shortfall: body.carry_shortfall,
            minimum_minor: body.minimum_minor,
            cap_minor: body.cap_minor,
            tax: body.tax.as_ref().map(Tax::of),
            grace_seconds: body.grace_seconds,
            horizon_days: body.horizon_days,
            attribution: body.attribution(),
            lookback_seconds: body.lookback_seconds,
            zone: body.zone.clone(),
            currency: body.currency.clone(),
            payment_days: body.payment_days,
            client_name: body.client_name.clone(),
            seller: body.seller.as_ref().map(Seller::of),
            buyer: body.buyer.as_ref().map(Party::of),
        })
    }

    /// What the numbers of the documents begin with.
    pub fn series(&self) -> &str {
        let own = self.seller.as_ref().map(|seller| seller.series.as_str());
        own.filter(|series| !series.is_empty()).unwrap_or(SERIES)
    }

    /// Whether an evidence bears the baseline, where the terms say that it was measured.
    pub fn check_baseline(&self, evidence: &leaf::Evidence) -> Result<(), String> {
        if !self.baseline_measured {
            return Ok(());
        }
        let (theirs, ours) = ((evidence.horizon_days, evidence.attribution()), (self.horizon_days, self.attribution));
        if theirs != ours {
            return Err(format!("it counts value over {} days by {:?}, the terms over {} by {:?}", theirs.0, theirs.1, ours.0, ours.1));
        }
        if evidence.currency != self.currency {
            return Err(format!("it is in {} and the terms are in {}", evidence.currency, self.currency));
        }
        match measured_baseline_ppm(evidence.value_micros, evidence.spend_micros) {
            Some(baseline) if baseline == i128::from(self.baseline_ppm) => Ok(()),
            Some(baseline) => Err(format!("it gives a baseline of {baseline} parts per million, the terms say {}", self.baseline_ppm)),
            None => Err("it has no spend that a baseline could be measured by".to_owned()),
        }
    }
}

/// Value over spend in parts per million, rounded up, which is in the client's favour; nothing without spend or with a negative value.
pub fn measured_baseline_ppm(value_micros: i64, spend_micros: i64) -> Option<i128> {
    let (value, spend) = (i128::from(value_micros) * 1_000_000, i128::from(spend_micros));
    (spend > 0 && value >= 0).then(|| (value + spend - 1) / spend)
}

impl Tax {
    fn of(body: &leaf::Tax) -> Self {
        let leaf::Tax { category, rate_ppm, exemption_reason, exemption_code } = body.clone();
        Self { category, rate_ppm, exemption_reason, exemption_code }
    }
}

impl Seller {
    fn of(body: &leaf::Seller) -> Self {
        let leaf::Seller { party, series, iban, bic, account_name } = body.clone();
        Self { party: party.as_ref().map(Party::of).unwrap_or_default(), iban, bic, account_name, series }
    }
}

impl Party {
    fn of(body: &leaf::Party) -> Self {
        let body = body.clone();
        Self {
            name: body.name,
            registration_id: body.registration_id,
            registration_scheme: body.registration_scheme,
            vat_id: body.vat_id,
            address_lines: body.address_lines,
            city: body.city,
            postal_code: body.postal_code,
            subdivision: body.subdivision,
            country: body.country,
            contact_name: body.contact_name,
            contact_phone: body.contact_phone,
            contact_email: body.contact_email,
            endpoint_id: body.endpoint_id,
            endpoint_scheme: body.endpoint_scheme,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_measured_baseline_is_rounded_up() {
        assert_eq!(measured_baseline_ppm(3_000_000, 1_000_000), Some(3_000_000));
        // 10 / 3 is 3.333333 and a bit.
        assert_eq!(measured_baseline_ppm(10, 3), Some(3_333_334));
        assert_eq!(measured_baseline_ppm(i64::MAX, 1), Some(i128::from(i64::MAX) * 1_000_000));
        assert_eq!((measured_baseline_ppm(1, 0), measured_baseline_ppm(-1, 1)), (None, None));
    }

    #[test]
    fn evidence_bears_a_baseline_of_its_own_horizon_rule_and_currency() {
        let rule = leaf::AttributionRule::LastBilledV1;
        let terms = Terms { baseline_measured: true, horizon_days: 90, ..super::super::invoice::tests::terms() };
        let evidence = leaf::Evidence {
            currency: "USD".into(),
            spend_micros: 2_000,
            value_micros: 6_000,
            horizon_days: 90,
            attribution: rule.into(),
            ..Default::default()
        };
        assert_eq!(terms.check_baseline(&evidence), Ok(()));
        let refused = |change: &dyn Fn(&mut leaf::Evidence)| {
            let mut other = evidence.clone();
            change(&mut other);
            assert_eq!(Terms { baseline_measured: false, ..terms.clone() }.check_baseline(&other), Ok(()), "a figure that was agreed on");
            terms.check_baseline(&other).unwrap_err()
        };
        assert!(refused(&|e| e.value_micros = 6_001).contains("gives a baseline of 3000500 parts per million, the terms say 3000000"));
        assert!(refused(&|e| e.horizon_days = 30).contains("over 30 days"));
        assert!(refused(&|e| e.attribution = 0).contains("by Unspecified"));
        assert!(refused(&|e| e.currency = "EUR".into()).contains("in EUR"));
        assert!(refused(&|e| e.spend_micros = 0).contains("no spend"));
    }
}
