//! The pages of an invoice: its figures in words.

use super::super::Document;
use super::super::of_invoice::{bound, credit_on, period};
use super::super::{OfInvoiceError, xml};
use super::{Bar, Content, Row, grouped};
use crate::domain::amount::{Amount, minor_places};
use crate::domain::books::Reason;
use crate::domain::fee::{Netting, round_to};
use crate::domain::invoice::{Agreed, Corrects, Invoice, Kind, Line, PartPrinted};
use crate::domain::terms::{Basis, Party, Seller};

type Pairs = Vec<(String, String)>;

fn pair(label: &str, value: impl Into<String>) -> (String, String) {
    (label.to_owned(), value.into())
}

impl Content {
    /// The pages of an invoice. They carry its CII where its terms have what that needs and its currency can be said there.
    ///
    /// # Errors
    /// A field that cannot be read.
    pub fn of(invoice: &Invoice) -> Result<Self, OfInvoiceError> {
        let places = minor_places(&invoice.currency)?;
        let issued = invoice.issue_date.parse();
        Ok(Self {
            title: title(invoice.kind).to_owned(),
            number: invoice.invoice_id.clone(),
            issued: issued.map_err(|_| OfInvoiceError::Field { field: "issue_date", value: invoice.issue_date.clone() })?,
            seller: invoice.seller.as_ref().map(|seller| block(&seller.party)).unwrap_or_default(),
            buyer: invoice.buyer.as_ref().map_or_else(|| vec![invoice.client_name.clone()], block),
            facts: facts(invoice)?,
            due: (due_label(invoice), format!("{} {}", invoice.currency, amount(invoice.amount_due))),
            unit: format!("All amounts in {}", invoice.currency),
            rows: rows(invoice),
            totals: totals(invoice),
            payment: invoice
                .seller
                .as_ref()
                .filter(|_| invoice.kind != Kind::CreditNote)
                .map(|seller| payment(invoice, seller))
                .unwrap_or_default(),
            notes: notes(invoice),
            calculation: calculation(invoice),
            bars: invoice.line_items.iter().map(|line| bar(line, places)).collect::<Result<_, _>>()?,
            places,
            verify: verify(invoice),
            cii: Document::of(invoice).ok().and_then(|document| xml::cii(&document).ok()),
        })
    }
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Invoice => "Invoice",
        Kind::CreditNote => "Credit note",
        Kind::DebitNote => "Debit note",
    }
}

fn due_label(invoice: &Invoice) -> String {
    match invoice.kind {
        Kind::CreditNote => "Credited to you".to_owned(),
        Kind::Invoice | Kind::DebitNote => format!("Amount due by {}", invoice.due_date),
    }
}

fn amount(of: Amount) -> String {
    grouped(of.units(), of.places())
}

/// A party's lines: name, street, place, identifiers.
fn block(of: &Party) -> Vec<String> {
    let place =
        [&of.postal_code, &of.city, &of.subdivision].into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ");
    let labelled = |label: &str, id: &str| if id.is_empty() { String::new() } else { format!("{label} {id}") };
    let mut lines = vec![of.name.clone()];
    lines.extend(of.address_lines.iter().cloned());
    lines.extend([
        place,
        of.country.clone(),
        labelled("VAT", &of.vat_id),
        labelled("Registered", &of.registration_id),
        of.contact_email.clone(),
    ]);
    lines.retain(|line| !line.trim().is_empty());
    lines
}

fn facts(invoice: &Invoice) -> Result<Pairs, OfInvoiceError> {
    let days = period(invoice)?;
    let mut out = vec![pair("Date of issue", &invoice.issue_date)];
    if invoice.kind != Kind::CreditNote {
        out.push(pair("Due date", &invoice.due_date));
    }
    out.push(pair("Period", format!("{} to {}", days.first, days.last)));
    out.push(pair("Customer", &invoice.client));
    if let Some((corrects, number)) = invoice.corrects.as_ref().and_then(|corrects| Some((corrects, corrects.invoice_id.as_ref()?))) {
        let of = corrects.issue_date.as_ref().map_or_else(String::new, |day| format!(" of {day}"));
        out.push(pair("Corrects", format!("{number}{of}")));
    }
    Ok(out)
}

/// A row a line; a credit by agreement is a row of its own, without figures of a campaign.
fn rows(invoice: &Invoice) -> Vec<Row> {
    if invoice.agreed().is_some() {
        let none = || "–".to_owned();
        let (campaign, fee) = (credit_on(invoice), amount(invoice.total_invoice_amount));
        return vec![Row { campaign, spend: none(), ltv: none(), baseline: none(), roas: none(), margin: none(), fee }];
    }
    invoice.line_items.iter().map(|line| row(line, invoice.parts.len() > 1)).collect()
}

fn row(line: &Line, parts: bool) -> Row {
    Row {
        campaign: if parts { format!("{} (part {})", line.campaign_id, line.part) } else { line.campaign_id.clone() },
        spend: amount(line.client_spend),
        ltv: amount(line.ltv),
        baseline: line.baseline_roas.clone(),
        roas: line.kiki_roas.map_or_else(|| "–".to_owned(), amount),
        margin: amount(line.margin_recovered),
        fee: amount(line.kiki_invoice_amount),
    }
}

/// LTV beside baseline times spend, both from the exact sums.
fn bar(line: &Line, places: u32) -> Result<Bar, OfInvoiceError> {
    let too_large = || OfInvoiceError::Field { field: "line_items.client_spend_exact", value: line.client_spend_exact.to_string() };
    let baseline = Amount::parse(&line.baseline_roas)?;
    let exact = line.client_spend_exact.units().checked_mul(baseline.units()).ok_or_else(too_large)?;
    let baseline_minor = round_to(exact, line.client_spend_exact.places() + baseline.places(), places).map_err(|_| too_large())?;
    Ok(Bar { campaign: line.campaign_id.clone(), ltv_minor: line.ltv.units(), baseline_minor })
}

fn totals(invoice: &Invoice) -> Pairs {
    let lines: i128 = invoice.line_items.iter().map(|line| line.kiki_invoice_amount.units()).sum();
    let mut out = Pairs::new();
    if !invoice.adjustments.is_empty() {
        out.push(pair("Sum of lines", grouped(lines, invoice.amount_due.places())));
        out.extend(invoice.adjustments.iter().map(|of| pair(bound(of.kind), amount(of.amount))));
    }
    if let Some(tax) = &invoice.tax {
        out.push(pair("Net", amount(invoice.total_invoice_amount)));
        let label = match tax.exemption_reason.as_str() {
            "" => format!("VAT {} %", tax.rate_percentage),
            reason => format!("VAT {} %: {reason}", tax.rate_percentage),
        };
        out.push((label, amount(tax.amount)));
    }
    out.push(pair("Total", amount(invoice.amount_due)));
    out
}

fn payment(invoice: &Invoice, seller: &Seller) -> Pairs {
    let account: Vec<_> = [&seller.iban, &seller.bic, &seller.account_name].into_iter().filter(|part| !part.is_empty()).cloned().collect();
    let mut out = vec![pair("Terms", format!("Payable by {}", invoice.due_date))];
    if !account.is_empty() {
        out.push(pair("Account", account.join(" · ")));
    }
    out.push(pair("Reference", &invoice.invoice_id));
    out
}

fn notes(invoice: &Invoice) -> Vec<String> {
    let held = invoice.line_items.iter().any(|line| line.status == crate::domain::fee::LineStatus::HeldForReview);
    let predicted = invoice.parts.iter().any(|part| part.basis == Basis::Predicted);
    let mut out = Vec::new();
    match invoice.kind {
        Kind::Invoice => {}
        Kind::CreditNote if invoice.agreed().is_some() => {
            out.push("What is given back is agreed; the figures of the period, by which it was billed, stand.".to_owned());
        }
        Kind::CreditNote => out.push("The lines show the period as it is known now; the last column is what is given back.".to_owned()),
        Kind::DebitNote => {
            out.push("The lines show the period as it is known now; the last column is what is billed in addition.".to_owned())
        }
    }
    if predicted {
        out.push(
            "LTV is what was predicted of each customer; once it is known what they spent, a note makes up for the difference.".to_owned(),
        );
    }
    if held {
        out.push("Campaigns with value but no spend are held for review and billed nothing.".to_owned());
    }
    out
}

fn calculation(invoice: &Invoice) -> Pairs {
    let mut out = Pairs::new();
    if let (Some(corrects), Some(agreed)) = (&invoice.corrects, invoice.agreed()) {
        out.push(pair("Agreement", agreement(corrects, agreed)));
    } else if let Some(corrects) = &invoice.corrects {
        let reasons: Vec<_> = corrects.reasons.iter().map(|reason| reason_in_words(*reason)).collect();
        let (before, after) = (amount(corrects.amount_before), amount(corrects.amount_after));
        let text =
            format!("The period came to {before} before tax; with what is known now it comes to {after}. Why: {}.", reasons.join("; "));
        out.push(pair("Correction", text));
    }
    for (part, number) in invoice.parts.iter().zip(1..) {
        if invoice.parts.len() > 1 {
            out.push((format!("Part {number}"), format!("From {} until {}.", part.from, part.until)));
        }
        out.extend(steps(part));
    }
    out.extend(
        invoice
            .adjustments
            .iter()
            .map(|of| (bound(of.kind).to_owned(), format!("The terms bound the period's fee: {}.", amount(of.amount)))),
    );
    out
}

fn agreement(corrects: &Corrects, agreed: &Agreed) -> String {
    let settles = match agreed.dispute_key.as_str() {
        "" => String::new(),
        key => format!(" It settles the dispute {key}."),
    };
    let (before, after) = (amount(corrects.amount_before), amount(corrects.amount_after));
    let Agreed { actor, leaf, reason, .. } = agreed;
    format!(
        "{before} before tax was billed so far; with this note it is {after}. Decided by {actor} (leaf {leaf} of the log): {reason}.{settles}"
    )
}

fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::LateRecords => "records of the period came after its closing",
        Reason::TrueUp => "what its customers spent up to the horizon is known now",
        Reason::CarriedShortfall => "a shortfall of an earlier period that is set off in it changed",
        Reason::Agreed => "it was agreed",
    }
}

/// What the terms say, and what that makes of a part's figures.
fn steps(part: &PartPrinted) -> Pairs {
    let terms = &part.terms;
    let share = &terms.profit_share_percentage;
    let netting = match terms.netting {
        Netting::Client => "campaigns below the baseline are set off against those above it",
        Netting::Campaign => "each campaign stands by itself",
    };
    let basis = match part.basis {
        Basis::Predicted => "predicted when they were acquired",
        Basis::Realised => "as they have spent since",
    };
    let mut out = vec![
        pair(
            "Terms",
            format!(
                "Version {} (leaf {} of the log): {share} % of what the customers acquired are worth beyond {} times the spend that acquired them; {netting}.",
                terms.version, terms.leaf, terms.baseline_roas
            ),
        ),
        pair("Lifetime value", format!("What the customers acquired in the period are worth over {} days, {basis}.", terms.horizon_days)),
        pair(
            "Margin",
            format!(
                "LTV - {} × spend, netted: {} above the baseline, {} short of it.",
                terms.baseline_roas,
                amount(part.margin_recovered),
                amount(part.shortfall)
            ),
        ),
    ];
    if part.carried_shortfall.units() != 0 {
        out.push(pair("Carried over", format!("Shortfalls of {} from earlier periods are set off first.", amount(part.carried_shortfall))));
    }
    out.push(pair(
        "Fee",
        format!("{share} % of the margin: {}, rounded to the minor unit; the fees of the lines add up to it.", amount(part.fee)),
    ));
    out
}

fn verify(invoice: &Invoice) -> Pairs {
    let of = &invoice.completeness;
    let root = &of.checkpoint_root;
    vec![
        pair(
            "Log",
            format!(
                "{}: records {} to {} of this client, none missing; closed by leaf {}",
                of.log_id, of.first_client_seq, of.last_client_seq, of.period_closed_leaf
            ),
        ),
        pair("Checkpoint", format!("size {}", of.checkpoint_size)),
        pair("Root", root),
        pair("Command", format!("kiki invoice verify {}.bundle --log-key log.pub", invoice.invoice_id)),
        pair("", "It recomputes every figure from the records of the log, offline, and says which line differs and by how much."),
    ]
}
