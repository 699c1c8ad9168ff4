//! What a campaign, terms or an evidence must say before the log takes it.

use kiki::clock::UnixMicros;
use kiki::ids;
use kiki::leaf;
use kiki::money::Currency;

use super::refusal::Refusal;

/// Characters of the names in a disclosure.
const MAX_DISCLOSED: usize = 100;
/// Bytes of an advertised app's id: Android's package names have up to 100 and more.
const MAX_BUNDLE: usize = 128;
/// Creatives of one campaign: a leaf has 64 KiB, a creative with its markup about 1 KiB.
const MAX_CREATIVES: usize = 64;
/// Entries of a campaign's lists.
const MAX_ENTRIES: usize = 256;
/// The longest look-back window: 90 days.
const MAX_LOOKBACK_SECONDS: u32 = 90 * 86_400;
/// Ten years.
const MAX_HORIZON_DAYS: u32 = 3_650;
/// The share of shaded bids that may try a lower price: half of them.
const MAX_EXPLORATION_PPM: u32 = 500_000;
/// Spend limits end at 9e15 micros, nine billion currency units, so that nanos of a lease fit 63 bits.
const MAX_LIMIT_MICROS: i64 = super::budget::MAX_LEASE_MICROS;

pub(super) fn within<T: PartialOrd + std::fmt::Display>(field: &str, value: T, least: T, most: T) -> Result<(), Refusal> {
    if value >= least && value <= most { Ok(()) } else { Err(Refusal::field(field, format!("{value} is not within {least} to {most}"))) }
}

fn at_most<T>(field: &str, list: &[T], limit: usize) -> Result<(), Refusal> {
    if list.len() <= limit { Ok(()) } else { Err(Refusal::TooMany { field: field.into(), count: list.len(), limit }) }
}

fn id(field: &'static str, value: &str) -> Result<(), Refusal> {
    ids::check(field, value).map_err(|e| Refusal::field(field, e))
}

pub(super) fn currency(field: &str, code: &str) -> Result<(), Refusal> {
    Currency::parse(code).map(drop).map_err(|e| Refusal::field(field, e))
}

fn zone(field: &str, name: &str) -> Result<jiff::tz::TimeZone, Refusal> {
    jiff::tz::TimeZone::get(name).map_err(|_| Refusal::field(field, format!("{name:?} is not an IANA time zone")))
}

/// Checks a campaign.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_campaign(campaign: &leaf::Campaign) -> Result<(), Refusal> {
    id("campaign.campaign", &campaign.campaign)?;
    currency("campaign.currency", &campaign.currency)?;
    zone("campaign.zone", &campaign.zone)?;
    pacing(campaign)?;
    within("campaign.caution_ppm", campaign.caution_ppm, 0, 1_000_000)?;
    within("campaign.exploration_ppm", campaign.exploration_ppm, 0, if campaign.shading { MAX_EXPLORATION_PPM } else { 0 })?;
    within("campaign.limit_total_micros", campaign.limit_total_micros, 0, MAX_LIMIT_MICROS)?;
    within("campaign.limit_daily_micros", campaign.limit_daily_micros, 0, MAX_LIMIT_MICROS)?;
    within("campaign.target_roas_ppm", campaign.target_roas_ppm, 1, 1_000_000_000)?;
    within("campaign.prior_p_conversion_ppb", campaign.prior_p_conversion_ppb, 0, 1_000_000_000)?;
    within("campaign.prior_ltv_micros", campaign.prior_ltv_micros, 0, MAX_LIMIT_MICROS)?;
    within("campaign.bid_cap_nanos", campaign.bid_cap_nanos, 0, i64::MAX)?;
    at_most("campaign.platforms", &campaign.platforms, MAX_ENTRIES)?;
    at_most("campaign.exchanges", &campaign.exchanges, MAX_ENTRIES)?;
    at_most("campaign.creatives", &campaign.creatives, MAX_CREATIVES)?;
    campaign.platforms.iter().try_for_each(|platform| id("campaign.platforms", platform))?;
    let targeting = campaign.targeting.as_ref();
    for (name, list) in [("countries", targeting.map(|t| &t.countries)), ("blocked_countries", targeting.map(|t| &t.blocked_countries))] {
        for (i, code) in list.into_iter().flatten().enumerate() {
            kiki::country::check(code).map_err(|e| Refusal::field(format!("campaign.targeting.{name}[{i}]"), e))?;
        }
    }
    campaign.exchanges.iter().try_for_each(|exchange| id("campaign.exchanges", exchange))?;
    for (i, creative) in campaign.creatives.iter().enumerate() {
        let field = |name: &str| format!("campaign.creatives[{i}].{name}");
        ids::check("creative", &creative.creative).map_err(|e| Refusal::field(field("creative"), e))?;
        if creative.format() == leaf::CreativeFormat::Unspecified {
            return Err(Refusal::field(field("format"), "is missing"));
        }
        if creative.adomain.is_empty() {
            return Err(Refusal::field(field("adomain"), "exchanges want at least one advertiser domain"));
        }
        within(&field("bundle bytes"), creative.bundle.len(), 0, MAX_BUNDLE)?;
        if let Some(disclosure) = &creative.disclosure {
            for (name, text) in [("disclosure.behalf", &disclosure.behalf), ("disclosure.paid", &disclosure.paid)] {
                named(text).map_err(|problem| Refusal::field(field(name), problem))?;
            }
        }
    }
    Ok(())
}

/// A name as the IAB's DSA Transparency limits it.
fn named(text: &str) -> Result<(), String> {
    match text.chars().count() {
        1..=MAX_DISCLOSED => Ok(()),
        characters => Err(format!("has {characters} characters; 1 to {MAX_DISCLOSED} are taken")),
    }
}

/// A daily budget alone can be spread over a day.
fn pacing(campaign: &leaf::Campaign) -> Result<(), Refusal> {
    let pacing =
        leaf::Pacing::try_from(campaign.pacing).map_err(|_| Refusal::field("campaign.pacing", format!("{} is none", campaign.pacing)))?;
    let paced = matches!(pacing, leaf::Pacing::Even | leaf::Pacing::FrontLoaded);
    if paced && campaign.limit_daily_micros == 0 {
        return Err(Refusal::field("campaign.pacing", format!("{} needs a limit_daily_micros above 0", pacing.as_str_name())));
    }
    Ok(())
}

/// Checks limits.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_limits(limits: &leaf::Limits) -> Result<(), Refusal> {
    if !limits.campaign.is_empty() {
        id("limits.campaign", &limits.campaign)?;
    }
    if !limits.platform.is_empty() {
        id("limits.platform", &limits.platform)?;
    }
    currency("limits.currency", &limits.currency)?;
    within("limits.limit_total_micros", limits.limit_total_micros, 0, MAX_LIMIT_MICROS)?;
    within("limits.limit_daily_micros", limits.limit_daily_micros, 0, MAX_LIMIT_MICROS)?;
    within("limits.limit_window_micros", limits.limit_window_micros, 0, MAX_LIMIT_MICROS)?;
    if limits.limit_daily_micros > 0 { zone("limits.zone", &limits.zone).map(drop) } else { Ok(()) }
}

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

/// Longest time that a period waits for late records: 31 days.
const MAX_GRACE_SECONDS: u32 = 31 * 86_400;
/// Largest minimum or cap: 10^15 minor units, far above any invoice and far below 63 bits.
const MAX_BOUND_MINOR: i64 = 1_000_000_000_000_000;
/// Longest text of a party or a tax, bytes: what a line of an invoice has room for.
const MAX_TEXT: usize = 200;

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

/// The most that one impression may cost or hold, nanos: 256 of them, a full leaf, add up to less than 63 bits.
pub const MAX_PRICE_NANOS: i64 = i64::MAX / 256;

fn instant(field: String, time: Option<&prost_types::Timestamp>) -> Result<UnixMicros, Refusal> {
    UnixMicros::from_pb(time).ok_or_else(|| Refusal::field(field, "is missing or outside the years 1 to 9999"))
}

fn short(field: String, text: &str, most: usize) -> Result<(), Refusal> {
    if text.len() <= most { Ok(()) } else { Err(Refusal::field(field, format!("{} bytes; at most {most} are taken", text.len()))) }
}

/// Checks a charge before it can reach the log.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_settlement(path: &str, settlement: &leaf::Settlement) -> Result<(), Refusal> {
    let field = |name: &str| format!("{path}.{name}");
    within(&field("price_nanos"), settlement.price_nanos, 0, MAX_PRICE_NANOS)?;
    within(&field("max_nanos"), settlement.max_nanos, 0, MAX_PRICE_NANOS)?;
    within(&field("predicted_ltv_micros"), settlement.predicted_ltv_micros, 0, MAX_LIMIT_MICROS)?;
    if !matches!(settlement.customer.len(), 0 | 16) {
        return Err(Refusal::field(field("customer"), format!("{} bytes; a pseudonym has 16", settlement.customer.len())));
    }
    instant(field("bid_at"), settlement.bid_at.as_ref())?;
    instant(field("noticed_at"), settlement.noticed_at.as_ref())?;
    for (name, text) in [("exchange", &settlement.exchange), ("platform", &settlement.platform), ("model", &settlement.model)] {
        short(field(name), text, ids::MAX_ID)?;
    }
    Ok(())
}

/// Checks a void before it can reach the log.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_void(path: &str, void: &leaf::Void) -> Result<(), Refusal> {
    within(&format!("{path}.max_nanos"), void.max_nanos, 0, MAX_PRICE_NANOS)
}

/// Checks a purchase or refund.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_outcome(path: &str, outcome: &leaf::Outcome) -> Result<(), Refusal> {
    ids::check("event_id", &outcome.event_id).map_err(|e| Refusal::field(path, e))?;
    currency(&format!("{path}.currency"), &outcome.currency)?;
    within(&format!("{path}.value_micros"), outcome.value_micros, -MAX_LIMIT_MICROS, MAX_LIMIT_MICROS)?;
    instant(format!("{path}.occurred_at"), outcome.occurred_at.as_ref())?;
    if let Some(sealed) = &outcome.sealed {
        kiki::sealed::check(sealed).map_err(|e| Refusal::field(format!("{path}.personal"), e))?;
    }
    let len = outcome.customer.len();
    if len == 16 { Ok(()) } else { Err(Refusal::field(format!("{path}.customer"), format!("{len} bytes; a pseudonym has 16"))) }
}

/// Checks an evidence.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_evidence(path: &str, evidence: &leaf::Evidence) -> Result<(), Refusal> {
    short(format!("{path}.title"), &evidence.title, 200)?;
    currency(&format!("{path}.currency"), &evidence.currency)?;
    within(&format!("{path}.horizon_days"), evidence.horizon_days, 0, MAX_HORIZON_DAYS)?;
    check_digest(path, &evidence.document_sha256)
}

/// Checks an invoice's record.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_invoice(path: &str, invoice: &leaf::Invoice) -> Result<(), Refusal> {
    // Zuora's limit for invoice numbers, which accounting systems share.
    within(&format!("{path}.number bytes"), invoice.number.len(), 1, 16)?;
    currency(&format!("{path}.currency"), &invoice.currency)?;
    check_month(&format!("{path}.month"), &invoice.month)?;
    instant(format!("{path}.issued_at"), invoice.issued_at.as_ref())?;
    within(&format!("{path}.total_minor"), invoice.total_minor, 0, i64::MAX)?;
    within(&format!("{path}.tax_minor"), invoice.tax_minor, 0, i64::MAX)?;
    let note = matches!(invoice.kind(), leaf::DocumentKind::CreditNote | leaf::DocumentKind::DebitNote);
    if note == (invoice.corrects_seq == 0) {
        let problem = if note { "is missing on a note" } else { "is given on an invoice" };
        return Err(Refusal::field(format!("{path}.corrects_seq"), problem));
    }
    check_digest(path, &invoice.document_sha256)
}

/// Checks the record of an access.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_access(path: &str, access: &leaf::Access) -> Result<(), Refusal> {
    within(&format!("{path}.subject bytes"), access.subject.len(), 1, 100)?;
    instant(format!("{path}.at"), access.at.as_ref())?;
    for (field, missing) in [
        ("role", access.role() == leaf::AccessRole::Unspecified),
        ("kind", access.kind() == leaf::AccessKind::Unspecified),
        ("tenant", (access.role() == leaf::AccessRole::Tenant) == access.tenant.is_empty()),
    ] {
        if missing {
            return Err(Refusal::field(format!("{path}.{field}"), "is missing, or is there where it should not"));
        }
    }
    short(format!("{path}.tenant"), &access.tenant, ids::MAX_ID)
}

/// Checks the bounds of a period; gives them.
///
/// # Errors
/// The first field that is out of its limits.
pub fn check_period(path: &str, period: &leaf::PeriodClosed) -> Result<(UnixMicros, UnixMicros), Refusal> {
    currency(&format!("{path}.currency"), &period.currency)?;
    check_month(&format!("{path}.month"), &period.month)?;
    let start = instant(format!("{path}.period_start"), period.period_start.as_ref())?;
    let end = instant(format!("{path}.period_end"), period.period_end.as_ref())?;
    if start < end { Ok((start, end)) } else { Err(Refusal::field(format!("{path}.period_end"), "is not after period_start")) }
}

fn check_digest(path: &str, digest: &[u8]) -> Result<(), Refusal> {
    let len = digest.len();
    if len == 32 { Ok(()) } else { Err(Refusal::field(format!("{path}.document_sha256"), format!("{len} bytes; a SHA-256 has 32"))) }
}

/// A month is written "2026-01".
fn check_month(field: &str, month: &str) -> Result<(), Refusal> {
    let good = month.len() == 7 && format!("{month}-01").parse::<jiff::civil::Date>().is_ok();
    if good {
        Ok(())
    } else {
        Err(Refusal::field(field, format!("{:?} is not a month like 2026-01", month.chars().take(20).collect::<String>())))
    }
}

/// The local day that holds `now`, as UTC instants: [start, end).
///
/// # Errors
/// The zone is unknown, or the day at the end of time.
pub fn local_day(zone_name: &str, now: UnixMicros) -> Result<(UnixMicros, UnixMicros), Refusal> {
    let tz = zone("zone", zone_name)?;
    let bad = |e: jiff::Error| Refusal::field("zone", e);
    let date = jiff::Timestamp::from_microsecond(now.0).map_err(bad)?.to_zoned(tz.clone()).date();
    let start = |date: jiff::civil::Date| date.to_zoned(tz.clone()).map(|zoned| UnixMicros(zoned.timestamp().as_microsecond()));
    Ok((start(date).map_err(bad)?, start(date.tomorrow().map_err(bad)?).map_err(bad)?))
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

    #[test]
    fn a_campaign_targets_countries_that_are_in_force() {
        let targeting = |countries: [&str; 1], blocked: [&str; 1]| {
            let list = |codes: [&str; 1]| codes.map(str::to_owned).to_vec();
            let targeting = leaf::Targeting { countries: list(countries), blocked_countries: list(blocked), ..Default::default() };
            let (currency, zone) = ("USD".into(), "UTC".into());
            check_campaign(&leaf::Campaign {
                campaign: "c".into(),
                currency,
                zone,
                target_roas_ppm: 1,
                targeting: Some(targeting),
                ..Default::default()
            })
        };
        assert_eq!(targeting(["DEU"], ["FRA"]), Ok(()));
        let error = targeting(["DEU"], ["FR"]).expect_err("two letters").to_string();
        assert!(error.contains("campaign.targeting.blocked_countries[0]") && error.contains("did you mean FRA?"), "{error}");
        assert!(targeting(["De"], ["FRA"]).is_err());
    }

    /// Whether a campaign with a creative that says this is taken.
    fn created(creative: leaf::Creative) -> Result<(), String> {
        let (format, adomain) = (leaf::CreativeFormat::Banner.into(), vec!["acme.example".into()]);
        let creative = leaf::Creative { creative: "b".into(), format, adomain, ..creative };
        let (campaign, currency, zone) = ("c".into(), "USD".into(), "UTC".into());
        let campaign = leaf::Campaign { campaign, currency, zone, target_roas_ppm: 1, creatives: vec![creative], ..Default::default() };
        check_campaign(&campaign).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn an_advertised_apps_id_has_an_end() {
        let of = |length: usize| created(leaf::Creative { bundle: "x".repeat(length), ..Default::default() });
        assert_eq!((of(0), of(128)), (Ok(()), Ok(())));
        let error = of(129).expect_err("too long");
        assert!(error.contains("campaign.creatives[0].bundle bytes") && error.contains("129 is not within 0 to 128"), "{error}");
    }

    #[test]
    fn a_disclosure_names_both_and_neither_at_length() {
        let disclosed = |behalf: &str, paid: &str| {
            let disclosure = leaf::Disclosure { behalf: behalf.into(), paid: paid.into(), rendered: false };
            created(leaf::Creative { disclosure: Some(disclosure), ..Default::default() })
        };
        assert_eq!(disclosed("Acme", &"\u{e9}".repeat(100)), Ok(()));
        let error = disclosed("Acme", "").expect_err("nobody paid");
        assert!(error.contains("campaign.creatives[0].disclosure.paid") && error.contains("has 0 characters"), "{error}");
        assert!(disclosed(&"x".repeat(101), "Acme").expect_err("too long").contains("disclosure.behalf"));
    }

    #[test]
    fn pacing_is_one_of_its_kinds_and_needs_a_daily_budget() {
        let paced = |pacing: i32, limit_daily_micros| {
            let (campaign, currency, zone) = ("c".into(), "USD".into(), "UTC".into());
            let campaign =
                leaf::Campaign { campaign, currency, zone, target_roas_ppm: 1, pacing, limit_daily_micros, ..Default::default() };
            check_campaign(&campaign).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(paced(leaf::Pacing::Even.into(), 1), Ok(()));
        assert_eq!(paced(leaf::Pacing::Asap.into(), 0), Ok(()));
        let error = paced(leaf::Pacing::FrontLoaded.into(), 0).expect_err("no daily budget");
        assert!(error.contains("campaign.pacing") && error.contains("PACING_FRONT_LOADED needs a limit_daily_micros"), "{error}");
        assert!(paced(99, 1).expect_err("no such pacing").contains("99"));
    }

    #[test]
    fn only_shaded_bids_explore_and_half_of_them_at_the_most() {
        let explores = |shading, exploration_ppm| {
            let (campaign, currency, zone) = ("c".into(), "USD".into(), "UTC".into());
            let campaign = leaf::Campaign { campaign, currency, zone, target_roas_ppm: 1, shading, exploration_ppm, ..Default::default() };
            check_campaign(&campaign).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(explores(true, 500_000), Ok(()));
        assert!(explores(true, 500_001).expect_err("more than half").contains("campaign.exploration_ppm"));
        assert!(explores(false, 1).expect_err("nothing to shade").contains("1 is not within 0 to 0"));
    }

    #[test]
    fn a_day_with_a_clock_change_has_its_own_length() {
        // 2026-03-29 02:00 -> 03:00 in Berlin: 23 hours, from 2026-03-28T23:00Z.
        let noon = UnixMicros(1_774_778_400_000_000);
        let (start, end) = local_day("Europe/Berlin", noon).expect("a day");
        assert_eq!(end.since(start).as_secs(), 23 * 3_600);
        assert!(start <= noon && noon < end);
        assert!(local_day("Mars/Olympus", noon).is_err());
    }
}
