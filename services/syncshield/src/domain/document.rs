//! What a campaign, terms or an evidence must say before the log takes it.

mod terms;

use kiki::clock::UnixMicros;
use kiki::ids;
use kiki::leaf;
use kiki::money::Currency;

use super::refusal::Refusal;

pub use terms::check_terms;

/// Characters of the names in a disclosure.
const MAX_DISCLOSED: usize = 100;
/// Bytes of an advertised app's id: Android's package names have up to 100 and more.
const MAX_BUNDLE: usize = 128;
/// Creatives of one campaign: a leaf has 64 KiB, a creative with its markup about 1 KiB.
const MAX_CREATIVES: usize = 64;
/// Entries of a campaign's lists.
const MAX_ENTRIES: usize = 256;
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

/// Bytes of a SPIFFE id or an API key's id.
const MAX_IDENTITY: usize = 255;
/// Bytes of the name of a gRPC code.
const MAX_CODE: usize = 32;

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
    short(format!("{path}.identity"), &access.identity, MAX_IDENTITY)?;
    short(format!("{path}.code"), &access.code, MAX_CODE)?;
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
