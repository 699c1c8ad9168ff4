//! Limits that are put, corrections of what was charged, and the alerts that follow from either.
//!
//! A correction is a record of its own: what was settled stays as it was settled. It counts where it is accounted: in
//! the campaign's sums, on a platform, on a local day. No credit takes back more than was charged there.

use kiki::clock::UnixMicros;
use kiki::ids;
use kiki::leaf::{self, leaf::Body};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::document;
use super::ledger::{Ledger, Recorded};
use super::refusal::Refusal;
use super::scopes::{DEFAULT_WINDOW_SECONDS, scope_of};
use super::state::State;

/// The longest reason, bytes.
pub const MAX_REASON: usize = 500;

/// A correction's content, by which a repeated key is told from a reused one.
#[must_use]
pub fn digest(adjustment: &leaf::SpendAdjustment) -> [u8; 32] {
    Sha256::digest(adjustment.encode_to_vec()).into()
}

pub(super) fn check_reason(field: &str, reason: &str) -> Result<(), Refusal> {
    let fits = (1..=MAX_REASON).contains(&reason.len());
    fits.then_some(()).ok_or_else(|| Refusal::field(field, format!("{} bytes; a reason has 1 to {MAX_REASON}", reason.len())))
}

/// More credit than was charged, in units of the currency, as people type them.
pub(super) fn excess(nanos: i128, charged: i128, currency: &str) -> String {
    format!("{} {currency} of credit, and {} {currency} were charged there", units(-nanos), units(charged))
}

/// Nanos in units of the currency, without zeroes at the end.
fn units(nanos: i128) -> String {
    kiki::money::decimal(nanos, 9).trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn check_evidence(field: &str, digest: &[u8]) -> Result<(), Refusal> {
    (digest.len() == 32).then_some(()).ok_or_else(|| Refusal::field(field, format!("{} bytes; a SHA-256 has 32", digest.len())))
}

impl State {
    /// A correction is of something that was charged, and says why.
    pub(super) fn check_adjustment(&self, now: UnixMicros, client: &str, adjustment: &leaf::SpendAdjustment) -> Result<(), Refusal> {
        let campaign = self.campaign(client, &adjustment.campaign)?;
        ids::check("adjustment.key", &adjustment.key).map_err(|e| Refusal::field("adjustment.key", e))?;
        if !adjustment.platform.is_empty() {
            ids::check("adjustment.platform", &adjustment.platform).map_err(|e| Refusal::field("adjustment.platform", e))?;
        }
        check_reason("adjustment.reason", &adjustment.reason)?;
        check_evidence("adjustment.evidence_sha256", &adjustment.evidence_sha256)?;
        if self.clients.get(client).is_some_and(|of| of.adjustments.contains_key(&adjustment.key)) {
            return Err(Refusal::KeyReused { what: "adjustment", key: adjustment.key.clone() });
        }
        if adjustment.currency != campaign.currency {
            return Err(Refusal::field(
                "adjustment.currency",
                format!("{:?} is not the campaign's {}", adjustment.currency, campaign.currency),
            ));
        }
        let fits_kind = match adjustment.kind() {
            leaf::AdjustmentKind::Unspecified => false,
            leaf::AdjustmentKind::InvalidTraffic => adjustment.amount_nanos < 0,
            leaf::AdjustmentKind::Platform | leaf::AdjustmentKind::Reconciled => adjustment.amount_nanos != 0,
        };
        if !fits_kind {
            let (amount, currency) = (units(adjustment.amount_nanos.into()), &adjustment.currency);
            let fits = match adjustment.kind() {
                leaf::AdjustmentKind::Unspecified => "its kind is missing",
                leaf::AdjustmentKind::InvalidTraffic => "a credit for invalid traffic is below 0",
                leaf::AdjustmentKind::Platform | leaf::AdjustmentKind::Reconciled => "a correction is not 0",
            };
            return Err(Refusal::field("adjustment.amount_nanos", format!("{amount} {currency}: {fits}")));
        }
        let times = (UnixMicros::from_pb(adjustment.accounted_at.as_ref()), UnixMicros::from_pb(adjustment.day_start.as_ref()));
        let (Some(at), Some(day)) = times else { return Err(Refusal::field("adjustment.accounted_at", "is absent or out of range")) };
        if at > now || day > at {
            return Err(Refusal::field("adjustment.accounted_at", "is not in the past, or not on its day"));
        }
        let credit = campaign.check_credit(adjustment.amount_nanos.into(), &adjustment.platform, day);
        credit.map_err(|problem| Refusal::field("adjustment.amount_nanos", problem))
    }
}

impl Ledger {
    /// Puts the next version of a scope's limits; behind the version that is expected, where one is.
    ///
    /// # Errors
    /// A field out of its limits, no such campaign, another version in force, or a daily limit over campaigns with other days.
    pub fn put_limits(&mut self, client: &str, mut limits: leaf::Limits, expected: Option<u64>) -> Result<(Recorded, u64), Refusal> {
        let of = self.state.clients.get(client).ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        let scope = scope_of(&limits);
        let before = of.limits_of(&scope).map_or(0, |limits| limits.version);
        if let Some(expected) = expected.filter(|expected| *expected != before) {
            return Err(Refusal::OutOfOrder(format!("limits version {expected} was expected, and {before} is in force")));
        }
        limits.version = before + 1;
        if limits.window_seconds == 0 && limits.limit_window_micros > 0 {
            limits.window_seconds = DEFAULT_WINDOW_SECONDS;
        }
        if limits.zone.is_empty() {
            let inside = |id: &str| scope.campaign.is_empty() || scope.campaign == id;
            let campaign = of.campaigns.iter().find(|(id, campaign)| inside(id) && campaign.currency == scope.currency);
            limits.zone = campaign.map_or_else(String::new, |(_, campaign)| campaign.zone.clone());
        }
        document::check_limits(&limits)?;
        let version = limits.version;
        Ok((self.append(client, ("", 0), Body::Limits(limits))?, version))
    }

    /// Corrects what was charged. A key that came before has no second effect.
    ///
    /// # Errors
    /// A field out of its form, more credit than was charged, or a key that came with another content.
    pub fn adjust(&mut self, client: &str, mut adjustment: leaf::SpendAdjustment) -> Result<Recorded, Refusal> {
        let campaign = self.state.campaign(client, &adjustment.campaign)?;
        let at = UnixMicros::from_pb(adjustment.accounted_at.as_ref());
        let at = at.ok_or_else(|| Refusal::field("adjustment.accounted_at", "is absent or out of range"))?;
        adjustment.day_start = Some(document::local_day(&campaign.zone, at)?.0.into());
        adjustment.lease_id = 0;
        if adjustment.kind() == leaf::AdjustmentKind::Reconciled {
            return Err(Refusal::field("adjustment.kind", "is what a reconciliation writes"));
        }
        match self.state.clients[client].adjustments.get(&adjustment.key) {
            Some(known) if known.digest != digest(&adjustment) => {
                Err(Refusal::KeyReused { what: "adjustment", key: adjustment.key.clone() })
            }
            Some(known) => Ok(Recorded { index: known.index, client_seq: known.client_seq, duplicate: true, ..Default::default() }),
            None => self.append(client, ("", 0), Body::SpendAdjustment(adjustment)),
        }
    }

    /// Writes the alerts that what was charged so far calls for. Limits of a client as a whole are looked at with the next charge.
    pub(super) fn raise_alerts(&mut self, client: &str, campaign: &str) {
        let Ok(state) = self.state.campaign(client, campaign) else { return };
        let Ok((day, _)) = document::local_day(&state.zone, self.now()) else { return };
        for alert in self.state.due_alerts(self.now(), client, campaign, day) {
            if let Err(refusal) = self.append(client, ("", 0), Body::BudgetAlert(alert)) {
                debug_assert!(false, "an alert that is due is taken: {refusal}");
            }
        }
    }
}
