//! What terms must say before the log takes them: figures within bounds, a tax that says why where it is none, parties with names.

use kiki::leaf;

use super::{MAX_HORIZON_DAYS, currency, instant, short, within, zone};
use crate::domain::refusal::Refusal;

/// The longest look-back window: 90 days.
const MAX_LOOKBACK_SECONDS: u32 = 90 * 86_400;
/// Longest time that a period waits for late records: 31 days.
const MAX_GRACE_SECONDS: u32 = 31 * 86_400;
/// Largest minimum or cap: 10^15 minor units, far above any invoice and far below 63 bits.
const MAX_BOUND_MINOR: i64 = 1_000_000_000_000_000;
/// Longest text of a party or a tax, bytes: what a line of an invoice has room for.
const MAX_TEXT: usize = 200;

/// Checks terms. `is_evidence` knows the client's own evidence by its index in the log.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_terms(terms: &leaf::Terms, log_id: &str, is_evidence: impl Fn(u64) -> bool) -> Result<(), Refusal> {
    currency("terms.currency", &terms.currency)?;
    zone("terms.zone", &terms.zone)?;
    within("terms.client_name bytes", terms.client_name.len(), 1, 200)?;
    within("terms.baseline_ppm", terms.baseline_ppm, 0, 1_000_000_000)?;
    within("terms.share_ppm", terms.share_ppm, 0, 1_000_000)?;
    within("terms.payment_days", terms.payment_days, 0, 365)?;
    within("terms.horizon_days", terms.horizon_days, 1, MAX_HORIZON_DAYS)?;
    within("terms.lookback_seconds", terms.lookback_seconds, 1, MAX_LOOKBACK_SECONDS)?;
    for (field, missing) in [
        ("terms.basis", terms.basis() == leaf::Basis::Unspecified),
        ("terms.netting", terms.netting() == leaf::Netting::Unspecified),
        ("terms.attribution", terms.attribution() == leaf::AttributionRule::Unspecified),
    ] {
        if missing {
            return Err(Refusal::field(field, "is missing"));
        }
    }
    within("terms.grace_seconds", terms.grace_seconds, 0, MAX_GRACE_SECONDS)?;
    within("terms.minimum_minor", terms.minimum_minor, 0, MAX_BOUND_MINOR)?;
    within("terms.cap_minor", terms.cap_minor, 0, MAX_BOUND_MINOR)?;
    if terms.cap_minor > 0 && terms.minimum_minor > terms.cap_minor {
        let problem = format!("{} is above cap_minor, which is {}", terms.minimum_minor, terms.cap_minor);
        return Err(Refusal::field("terms.minimum_minor", problem));
    }
    if let Some(effective) = &terms.effective_from {
        instant("terms.effective_from".into(), Some(effective))?;
    }
    if let Some(tax) = &terms.tax {
        check_tax(tax)?;
    }
    if let Some(seller) = &terms.seller {
        check_seller(seller)?;
    }
    if let Some(buyer) = &terms.buyer {
        check_party("terms.buyer", buyer)?;
    }
    if terms.baseline_measured && terms.baseline_evidence.is_none() {
        return Err(Refusal::field("terms.baseline_evidence", "is missing, and baseline_measured says that it gives the baseline"));
    }
    if let Some(evidence) = &terms.baseline_evidence
        && (evidence.log_id != log_id || !is_evidence(evidence.index))
    {
        return Err(Refusal::field(
            "terms.baseline_evidence",
            format!("leaf {} of {:?} is no evidence of this client", evidence.index, evidence.log_id),
        ));
    }
    Ok(())
}

fn check_tax(tax: &leaf::Tax) -> Result<(), Refusal> {
    if !["S", "Z", "E", "AE", "K", "G", "O"].contains(&tax.category.as_str()) {
        let found = tax.category.chars().take(8).collect::<String>();
        return Err(Refusal::field("terms.tax.category", format!("{found:?} is not one of S, Z, E, AE, K, G and O")));
    }
    within("terms.tax.rate_ppm", tax.rate_ppm, u32::from(tax.category == "S"), if tax.category == "S" { 1_000_000 } else { 0 })?;
    short("terms.tax.exemption_reason".into(), &tax.exemption_reason, MAX_TEXT)?;
    short("terms.tax.exemption_code".into(), &tax.exemption_code, MAX_TEXT)?;
    let exempt = !matches!(tax.category.as_str(), "S" | "Z");
    if exempt == (tax.exemption_reason.is_empty() && tax.exemption_code.is_empty()) {
        let problem = if exempt { "is missing: why is no tax charged?" } else { "is given, but tax is charged" };
        return Err(Refusal::field("terms.tax.exemption_reason", problem));
    }
    Ok(())
}

fn check_seller(seller: &leaf::Seller) -> Result<(), Refusal> {
    let party = seller.party.as_ref().ok_or_else(|| Refusal::field("terms.seller.party", "is missing"))?;
    check_party("terms.seller.party", party)?;
    if seller.series.len() > 3 || !seller.series.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(Refusal::field("terms.seller.series", "must be 1 to 3 of A-Z, or empty"));
    }
    // ISO 13616: two letters, two digits, up to 30 letters and digits. Whether its check digits are right, its bank knows.
    if seller.iban.len() > 34 || !seller.iban.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Refusal::field("terms.seller.iban", "must be at most 34 letters and digits, without spaces"));
    }
    short("terms.seller.bic".into(), &seller.bic, 11)?;
    short("terms.seller.account_name".into(), &seller.account_name, MAX_TEXT)
}

fn check_party(path: &str, party: &leaf::Party) -> Result<(), Refusal> {
    within(&format!("{path}.name bytes"), party.name.len(), 1, MAX_TEXT)?;
    within(&format!("{path}.address_lines"), party.address_lines.len(), 0, 3)?;
    if party.country.len() != 2 || !party.country.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(Refusal::field(format!("{path}.country"), "must be two letters, as in ISO 3166-1 alpha-2"));
    }
    let fields = [
        ("registration_id", &party.registration_id),
        ("registration_scheme", &party.registration_scheme),
        ("vat_id", &party.vat_id),
        ("city", &party.city),
        ("postal_code", &party.postal_code),
        ("subdivision", &party.subdivision),
        ("contact_name", &party.contact_name),
        ("contact_phone", &party.contact_phone),
        ("contact_email", &party.contact_email),
        ("endpoint_id", &party.endpoint_id),
        ("endpoint_scheme", &party.endpoint_scheme),
    ];
    let lines = party.address_lines.iter().map(|line| ("address_lines", line));
    lines.chain(fields).try_for_each(|(field, text)| short(format!("{path}.{field}"), text, MAX_TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What terms with a change of theirs are refused for.
    fn terms_with(change: impl FnOnce(&mut leaf::Terms)) -> Result<(), String> {
        let mut terms = leaf::Terms {
            currency: "EUR".into(),
            client_name: "Acme".into(),
            zone: "UTC".into(),
            share_ppm: 100_000,
            basis: leaf::Basis::Predicted.into(),
            netting: leaf::Netting::Client.into(),
            attribution: leaf::AttributionRule::LastBilledV1.into(),
            horizon_days: 90,
            lookback_seconds: 1,
            ..Default::default()
        };
        change(&mut terms);
        check_terms(&terms, "log", |index| index == 7).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn terms_are_within_their_bounds() {
        assert_eq!(terms_with(|_| {}), Ok(()));
        assert_eq!(terms_with(|t| (t.minimum_minor, t.cap_minor, t.grace_seconds) = (5, 5, 31 * 86_400)), Ok(()));
        let refused = |change: fn(&mut leaf::Terms)| terms_with(change).expect_err("out of bounds");
        assert!(refused(|t| (t.minimum_minor, t.cap_minor) = (6, 5)).contains("terms.minimum_minor"));
        assert!(refused(|t| t.minimum_minor = -1).contains("terms.minimum_minor"));
        assert!(refused(|t| t.grace_seconds = 31 * 86_400 + 1).contains("terms.grace_seconds"));
        assert!(refused(|t| t.baseline_measured = true).contains("terms.baseline_evidence"));
        let far = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        assert!(terms_with(|t| t.effective_from = far).expect_err("no instant").contains("terms.effective_from"));
    }

    #[test]
    fn a_tax_has_a_rate_or_says_why_none_is_charged() {
        let taxed = |category: &str, rate_ppm, reason: &str| {
            let (category, exemption_reason) = (category.to_owned(), reason.to_owned());
            terms_with(|t| t.tax = Some(leaf::Tax { category, rate_ppm, exemption_reason, ..Default::default() }))
        };
        assert_eq!((taxed("S", 190_000, ""), taxed("Z", 0, ""), taxed("AE", 0, "reverse charge")), (Ok(()), Ok(()), Ok(())));
        assert!(taxed("S", 0, "").expect_err("no rate").contains("terms.tax.rate_ppm"));
        assert!(taxed("AE", 1, "reverse charge").expect_err("a rate").contains("terms.tax.rate_ppm"));
        assert!(taxed("E", 0, "").expect_err("no reason").contains("terms.tax.exemption_reason"));
        assert!(taxed("S", 1, "none").expect_err("a reason").contains("terms.tax.exemption_reason"));
        assert!(taxed("X", 0, "").expect_err("no category").contains("terms.tax.category"));
    }

    #[test]
    fn a_seller_and_a_buyer_are_named() {
        let party = || leaf::Party { name: "KIKI GmbH".into(), country: "DE".into(), ..Default::default() };
        let sold = |seller: leaf::Seller| terms_with(|t| t.seller = Some(seller));
        let seller =
            || leaf::Seller { party: Some(party()), series: "KIK".into(), iban: "DE02120300000000202051".into(), ..Default::default() };
        assert_eq!(sold(seller()), Ok(()));
        assert!(sold(leaf::Seller { series: "KIKI".into(), ..seller() }).expect_err("long").contains("terms.seller.series"));
        assert!(sold(leaf::Seller { iban: "DE02 1203".into(), ..seller() }).expect_err("spaces").contains("terms.seller.iban"));
        assert!(sold(leaf::Seller::default()).expect_err("nobody").contains("terms.seller.party"));
        let bought = |buyer: leaf::Party| terms_with(|t| t.buyer = Some(buyer)).expect_err("not a party");
        assert!(bought(leaf::Party { country: "Germany".into(), ..party() }).contains("terms.buyer.country"));
        assert!(bought(leaf::Party { name: String::new(), ..party() }).contains("terms.buyer.name"));
        assert!(bought(leaf::Party { address_lines: vec![String::new(); 4], ..party() }).contains("terms.buyer.address_lines"));
        assert!(bought(leaf::Party { city: "x".repeat(201), ..party() }).contains("terms.buyer.city"));
    }
}
