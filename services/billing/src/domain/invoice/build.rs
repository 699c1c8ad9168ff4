//! Drawing up: from facts to the figures as they are printed.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;

use super::{
    Adjustment, Before, Correction, Corrects, Facts, Invoice, InvoiceError, Kind, LINES_MAX, Line, PartPrinted, SCHEMA, TaxPrinted,
    TermsPrinted,
};
use crate::domain::amount::{Amount, AmountError, NANO_PLACES, minor_places, trimmed};
use crate::domain::books::{Account, BoundKind, LineFacts, PartAccount};
use crate::domain::fee::{self, FeeError, LineFee, improvement_pct_2dp, roas_4dp, round_to};
use crate::domain::period::{Span, due_date, issue_date, utc};
use crate::domain::terms::{Tax, Terms};

/// Draws up the document.
pub fn build(facts: Facts) -> Result<Invoice, InvoiceError> {
    let account = &facts.account;
    let last = account.parts.last().ok_or(InvoiceError::NoPart)?;
    let terms = &last.part.terms;
    let places = minor_places(&terms.currency)?;
    let minor = |units| Amount::new(units, places);
    let billed_before = facts.correction.as_ref().map_or(0, |correction| correction.before.fee_minor);
    let change = account.fee_minor - billed_before;
    let kind = match (&facts.correction, change < 0) {
        (None, _) => Kind::Invoice,
        (Some(_), true) => Kind::CreditNote,
        (Some(_), false) => Kind::DebitNote,
    };
    let sign = if kind == Kind::CreditNote { -1 } else { 1 };
    let total = change * sign;
    let tax = terms.tax.as_ref().map(|tax| Ok::<_, FeeError>((tax, fee::tax(total, tax.rate_ppm)?))).transpose()?;
    let due = total + tax.as_ref().map_or(0, |(_, amount)| *amount);
    let sum = |of: fn(&PartAccount) -> i128| account.parts.iter().map(of).sum::<i128>();
    let (margin, shortfall) = (sum(|part| part.fees.margin_minor), sum(|part| part.fees.shortfall_minor));
    let lines = lines(&facts, sign, places)?;
    Ok(Invoice {
        schema: SCHEMA.to_owned(),
        kind,
        client_name: terms.client_name.clone(),
        currency: terms.currency.clone(),
        period: facts.month.to_string(),
        period_start: utc(facts.span.start)?,
        period_end: utc(facts.span.end)?,
        issue_date: issue_date(facts.issued_at, &terms.zone)?,
        due_date: due_date(facts.issued_at, &terms.zone, terms.payment_days)?,
        corrects: facts.correction.as_ref().map(|correction| correction.printed(account, &terms.zone, places)).transpose()?,
        total_invoice_amount: minor(total)?,
        tax: tax.map(|(tax, amount)| Ok::<_, AmountError>(tax.printed(minor(amount)?))).transpose()?,
        amount_due: minor(due)?,
        total_margin_recovered: minor(margin)?,
        shortfall: minor(shortfall)?,
        client_keeps: minor(margin - account.fee_minor)?,
        line_items: lines,
        adjustments: adjustments(&facts, sign, places)?,
        parts: account.parts.iter().map(|part| part.printed(facts.span, places)).collect::<Result<_, _>>()?,
        seller: terms.seller.clone(),
        buyer: terms.buyer.clone(),
        invoice_id: facts.invoice_id,
        client: facts.client,
        completeness: facts.completeness,
    })
}

impl Correction {
    fn printed(&self, after: &Account, zone: &str, places: u32) -> Result<Corrects, InvoiceError> {
        Ok(Corrects {
            invoice_id: self.invoice.as_ref().map(|invoice| invoice.number.clone()),
            issue_date: self.invoice.as_ref().map(|invoice| issue_date(invoice.issued_at, zone)).transpose()?,
            noted_in: self.noted_in.to_string(),
            reasons: self.reasons.clone(),
            amount_before: Amount::new(self.before.fee_minor, places)?,
            amount_after: Amount::new(after.fee_minor, places)?,
            agreed: None,
        })
    }
}

/// What the bounds add to the document's total: on a note, the difference.
fn adjustments(facts: &Facts, sign: i128, places: u32) -> Result<Vec<Adjustment>, AmountError> {
    let mut amounts: BTreeMap<BoundKind, i128> = BTreeMap::new();
    for (account, sign) in [(Some(&facts.account), sign), (facts.correction.as_ref().map(|c| &c.before), -sign)] {
        if let Some(bound) = account.and_then(|account| account.bound) {
            *amounts.entry(bound.kind).or_default() += sign * bound.amount_minor;
        }
    }
    let changed = amounts.into_iter().filter(|(_, amount)| *amount != 0);
    changed.map(|(kind, amount)| Ok(Adjustment { kind, amount: Amount::new(amount, places)? })).collect()
}

/// A line's facts and fee.
type Billed<'a> = (&'a PartAccount, &'a LineFacts, &'a LineFee);

/// The lines of an account by part and campaign.
fn billed(account: &Account) -> BTreeMap<(usize, &str), Billed<'_>> {
    let mut out = BTreeMap::new();
    for (i, part) in account.parts.iter().enumerate() {
        for (line, fee) in part.lines.iter().zip(&part.fees.lines) {
            out.insert((i, line.campaign.as_str()), (part, line, fee));
        }
    }
    out
}

fn lines(facts: &Facts, sign: i128, places: u32) -> Result<Vec<Line>, InvoiceError> {
    let now = billed(&facts.account);
    let was = facts.correction.as_ref().map(|correction| billed(&correction.before));
    let mut out = Vec::new();
    for ((part, campaign), billed) in now {
        let Some(was) = &was else {
            out.push(line(part, billed, places)?);
            continue;
        };
        // Records are never taken back, so that a line that was there is still there.
        let before = was.get(&(part, campaign));
        let of = |billed: &Billed<'_>| (billed.0.basis, billed.1.spend_nanos, billed.1.ltv_nanos, billed.2.fee_minor);
        if before.map(of) == Some(of(&billed)) {
            continue;
        }
        let mut line = line(part, billed, places)?;
        let fee_before = before.map_or(0, |before| before.2.fee_minor);
        line.kiki_invoice_amount = Amount::new(sign * (billed.2.fee_minor - fee_before), places)?;
        line.before = before.map(|before| before_printed(before, places)).transpose()?;
        out.push(line);
    }
    if out.len() > LINES_MAX { Err(InvoiceError::TooManyLines { lines: out.len() }) } else { Ok(out) }
}

fn before_printed(&(part, line, fee): &Billed<'_>, places: u32) -> Result<Before, AmountError> {
    Ok(Before {
        basis: part.basis,
        client_spend_exact: Amount::new(line.spend_nanos, NANO_PLACES)?,
        ltv_exact: Amount::new(line.ltv_nanos, NANO_PLACES)?,
        margin_recovered: Amount::new(fee.margin_minor, places)?,
        kiki_invoice_amount: Amount::new(fee.fee_minor, places)?,
    })
}

fn line(part: usize, (account, line, fee): Billed<'_>, places: u32) -> Result<Line, InvoiceError> {
    let terms = &account.part.terms;
    let (spend, ltv) = (line.spend_nanos, line.ltv_nanos);
    let improvement = improvement_pct_2dp(spend, ltv, terms.baseline_ppm)?;
    Ok(Line {
        part: u32::try_from(part + 1).unwrap_or(u32::MAX),
        client_name: terms.client_name.clone(),
        campaign_id: line.campaign.clone(),
        client_spend: Amount::new(round_to(spend, NANO_PLACES, places)?, places)?,
        client_spend_exact: Amount::new(spend, NANO_PLACES)?,
        ltv: Amount::new(round_to(ltv, NANO_PLACES, places)?, places)?,
        ltv_exact: Amount::new(ltv, NANO_PLACES)?,
        baseline_roas: trimmed(terms.baseline_ppm, 6, 1),
        kiki_roas: roas_4dp(spend, ltv)?.map(|r| Amount::new(r, 4)).transpose()?,
        margin_improvement_pct: improvement.map(|r| Amount::new(r, 2)).transpose()?,
        margin_recovered: Amount::new(fee.margin_minor, places)?,
        kiki_invoice_amount: Amount::new(fee.fee_minor, places)?,
        status: fee.status,
        before: None,
        leaf_count: line.leaves.count,
        leaves: line.leaves.ranges(),
    })
}

impl PartAccount {
    fn printed(&self, period: Span, places: u32) -> Result<PartPrinted, InvoiceError> {
        let (part, fees) = (&self.part, &self.fees);
        let from = if part.from == UnixMicros(i64::MIN) { period.start.min(part.until) } else { part.from };
        Ok(PartPrinted {
            from: utc(from)?,
            until: utc(part.until)?,
            basis: self.basis,
            carried_shortfall: Amount::new(self.carried.set_off_minor(part.terms.netting, places)?, places)?,
            margin_recovered: Amount::new(fees.margin_minor, places)?,
            shortfall: Amount::new(fees.shortfall_minor, places)?,
            fee: Amount::new(fees.fee_minor, places)?,
            terms: part.terms.printed(places)?,
        })
    }
}

impl Tax {
    fn printed(&self, amount: Amount) -> TaxPrinted {
        TaxPrinted {
            category: self.category.clone(),
            rate_percentage: trimmed(self.rate_ppm.into(), 4, 0),
            amount,
            exemption_reason: self.exemption_reason.clone(),
            exemption_code: self.exemption_code.clone(),
        }
    }
}

impl Terms {
    fn printed(&self, places: u32) -> Result<TermsPrinted, AmountError> {
        let bound = |minor: i64| (minor > 0).then(|| Amount::new(minor.into(), places)).transpose();
        Ok(TermsPrinted {
            baseline_roas: trimmed(self.baseline_ppm, 6, 1),
            baseline_measured: self.baseline_measured,
            profit_share_percentage: trimmed(self.share_ppm, 4, 0),
            basis: self.basis,
            netting: self.netting,
            carry_shortfall: self.carry_shortfall,
            minimum: bound(self.minimum_minor)?,
            cap: bound(self.cap_minor)?,
            horizon_days: self.horizon_days,
            lookback_seconds: self.lookback_seconds,
            grace_seconds: self.grace_seconds,
            zone: self.zone.clone(),
            payment_days: self.payment_days,
            version: self.version,
            leaf: self.leaf,
            evidence_leaf: self.evidence_leaf,
        })
    }
}
