//! UBL 2.1 and CII D16B, as EN 16931 and Peppol BIS Billing 3.0 want them.
//!
//! The document becomes the model of the crate `en16931`, whose rules, named as the schematron names
//! them, must all hold before anything is written: a document that a receiver would reject is an error
//! here. The same document gives the same bytes.

use en16931::invoice::{
    Contact, CreditTransfer, Delivery, DocumentAllowanceCharge, DocumentKind, DocumentTotals, InvoiceNote, LineVat, PaymentInstructions,
    PaymentMeans, Period, PostalAddress, PrecedingInvoice, PriceDetails, VatBreakdown,
};
use en16931::profiles::{EN16931, PEPPOL_BIS_3};
use en16931::{Date, DocumentReference, Invoice, InvoiceAmount, InvoiceLine, Percentage, Profile, Quantity, UnitPriceAmount};
use en16931_formats::{Syntax, write_unchecked};
use rust_decimal::Decimal;

use super::{Document, DocumentError, Identifier, Kind, Line, Party, TaxCategory};

/// Peppol's business process (BT-23): an invoice or a note that is sent without being asked for.
const PEPPOL_PROCESS: &str = "urn:fdc:peppol.eu:2017:poacc:billing:01:1.0";

/// Most decimal places of an amount in EN 16931 (rules BR-DEC-01 to BR-DEC-28).
const PLACES_MAX: u32 = 2;

/// Why a document cannot be written as XML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// No document at all.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A currency whose minor unit EN 16931 has no form for.
    #[error("{currency} has {places} decimal places, but EN 16931 says amounts with at most 2 (BR-DEC): send the PDF or JSON instead")]
    Places {
        /// ISO 4217 code.
        currency: String,
        /// Its decimal places.
        places: u32,
    },
    /// A rule of the standard, or of Peppol, that does not hold.
    #[error("{rule} at {at}: {message}")]
    Rule {
        /// Such as `BR-CL-14`.
        rule: String,
        /// Such as `BG-4/BT-40`.
        at: String,
        /// The rule's words.
        message: String,
    },
    /// Something the format has no place for, so that it would be left out.
    #[error("the format cannot say {what}")]
    Lost {
        /// What.
        what: String,
    },
}

/// UBL 2.1: an `Invoice`, or a `CreditNote`. It is a Peppol document where it has what Peppol demands (a
/// buyer reference and both electronic addresses), and a plain one of EN 16931 otherwise.
///
/// # Errors
/// What is missing or wrong, named by term or rule.
pub fn ubl(document: &Document) -> Result<String, XmlError> {
    write(document, if document.is_for_peppol() { &PEPPOL_BIS_3 } else { &EN16931 }, Syntax::Ubl)
}

/// CII D16B under EN 16931, which is also what a Factur-X file of that profile carries.
///
/// # Errors
/// As [`ubl`].
pub fn cii(document: &Document) -> Result<String, XmlError> {
    write(document, &EN16931, Syntax::Cii)
}

fn write(document: &Document, profile: &'static Profile, syntax: Syntax) -> Result<String, XmlError> {
    document.check()?;
    let mut invoice = document.to_model()?;
    invoice.specification_id = Some(profile.specification_id.to_owned());
    invoice.business_process = (profile.id == PEPPOL_BIS_3.id).then(|| PEPPOL_PROCESS.to_owned());
    if let Some(finding) = profile.validate(&invoice).fatal().next() {
        let (rule, at, message) = (finding.rule.clone(), finding.path.to_string(), finding.message.clone());
        return Err(XmlError::Rule { rule, at, message });
    }
    let written = write_unchecked(&invoice, syntax).map_err(|error| XmlError::Lost { what: error.to_string() })?;
    match written.entries.iter().find(|entry| entry.is_loss()) {
        Some(lost) => Err(XmlError::Lost { what: lost.to_string() }),
        None => Ok(written.xml),
    }
}

impl Document {
    /// Whether it has what Peppol demands beyond EN 16931.
    pub fn is_for_peppol(&self) -> bool {
        self.buyer_reference.is_some() && self.seller.endpoint.is_some() && self.buyer.endpoint.is_some()
    }

    fn to_model(&self) -> Result<Invoice, XmlError> {
        let places = self.minor_places().map_err(DocumentError::from)?;
        if places > PLACES_MAX {
            return Err(XmlError::Places { currency: self.currency.clone(), places });
        }
        let mut invoice = Invoice::default();
        invoice.kind = if self.kind == Kind::CreditNote { DocumentKind::CreditNote } else { DocumentKind::Invoice };
        invoice.type_code = Some(self.kind.type_code().into());
        invoice.number = Some(self.number.clone());
        invoice.issue_date = Some(date("BT-2", self.issue_date)?);
        invoice.due_date = self.due_date.map(|due| date("BT-9", due)).transpose()?;
        invoice.currency = Some(self.currency.as_str().into());
        invoice.buyer_reference.clone_from(&self.buyer_reference);
        invoice.payment_terms.clone_from(&self.payment.terms);
        // Peppol takes one note.
        invoice.notes = (!self.notes.is_empty()).then(|| InvoiceNote::new(self.notes.join("\n"))).into_iter().collect();
        invoice.preceding_invoices = self.preceding_model()?;
        invoice.seller = party(&self.seller);
        invoice.buyer = party(&self.buyer);
        invoice.delivery = self.delivery();
        invoice.invoicing_period = match self.period {
            Some(period) => Some(Period { start: Some(date("BT-73", period.first)?), end: Some(date("BT-74", period.last)?) }),
            None => None,
        };
        invoice.payment = self.payment_model();
        let money = Money { places };
        (invoice.charges, invoice.allowances) = self.adjusted(money)?;
        invoice.lines = self.lines.iter().map(|line| self.line(line, money)).collect::<Result<_, _>>()?;
        self.add_totals(&mut invoice, money)?;
        Ok(invoice)
    }

    fn preceding_model(&self) -> Result<Vec<PrecedingInvoice>, XmlError> {
        let of = |p: &super::Preceding| {
            let issue_date = p.issue_date.map(|issued| date("BT-26", issued)).transpose()?;
            Ok(PrecedingInvoice { reference: DocumentReference::new(p.number.clone()), issue_date })
        };
        self.preceding.iter().map(of).collect()
    }

    /// A supply within the Economic Area says where to (BG-15, BR-IC-12); a service goes to where its buyer is.
    fn delivery(&self) -> Option<Delivery> {
        let address = address(&self.buyer);
        (self.tax.category == TaxCategory::IntraCommunity).then(|| Delivery { address: Some(address), ..Delivery::default() })
    }

    fn payment_model(&self) -> Option<PaymentInstructions> {
        let means_code = self.payment.means_code.as_deref()?;
        let transfer = CreditTransfer {
            account_identifier: self.payment.iban.clone(),
            account_name: self.payment.account_name.clone(),
            provider_identifier: self.payment.bic.clone(),
        };
        Some(PaymentInstructions {
            means_code: Some(means_code.into()),
            remittance_information: self.payment.remittance.clone(),
            means: Some(PaymentMeans::CreditTransfer(vec![transfer])),
            ..PaymentInstructions::default()
        })
    }

    fn rate(&self) -> Percentage {
        Percentage::new(Decimal::new(self.tax.rate_ppm.into(), 4).normalize())
    }

    /// Category and rate; what is outside the scope of VAT has no rate (BR-O-05).
    fn vat(&self) -> LineVat {
        let rate = (self.tax.category != TaxCategory::OutOfScope).then(|| self.rate());
        LineVat { category: self.tax.category.code().into(), rate }
    }

    fn adjusted(&self, money: Money) -> Result<(Vec<DocumentAllowanceCharge>, Vec<DocumentAllowanceCharge>), XmlError> {
        let mut sides = (Vec::new(), Vec::new());
        for adjustment in &self.adjustments {
            let (side, term) = if adjustment.charge { (&mut sides.0, "BT-99") } else { (&mut sides.1, "BT-92") };
            side.push(DocumentAllowanceCharge {
                amount: money.amount(term, adjustment.amount_minor)?,
                base_amount: None,
                percentage: None,
                vat: self.vat(),
                reason: Some(adjustment.reason.clone()),
                reason_code: adjustment.reason_code.as_deref().map(Into::into),
            });
        }
        Ok(sides)
    }

    fn line(&self, line: &Line, money: Money) -> Result<InvoiceLine, XmlError> {
        let quantity = if line.net_minor < 0 { Decimal::NEGATIVE_ONE } else { Decimal::ONE };
        let price = money.amount("BT-146", line.net_minor.checked_abs().ok_or(DocumentError::Overflow { term: "BT-146" })?)?;
        let net = money.amount("BT-131", line.net_minor)?;
        let LineVat { category, rate } = self.vat();
        let mut out = InvoiceLine::new(line.id.clone(), line.name.clone(), Quantity::new(quantity), "C62", net, category, rate)
            .with_price(PriceDetails { net_price: UnitPriceAmount::new(price.into_decimal()), ..PriceDetails::default() });
        out.item.description.clone_from(&line.description);
        Ok(out)
    }

    fn add_totals(&self, invoice: &mut Invoice, money: Money) -> Result<(), XmlError> {
        let totals = self.totals()?;
        let gross = money.amount("BT-112", totals.payable_minor)?;
        let taxable = money.amount("BT-109", totals.net_minor)?;
        let tax = money.amount("BT-110", totals.tax_minor)?;
        let stated = |any: bool, term, minor| any.then(|| money.amount(term, minor)).transpose();
        invoice.totals = DocumentTotals {
            line_total: money.amount("BT-106", totals.lines_minor)?,
            allowance_total: stated(!invoice.allowances.is_empty(), "BT-107", totals.allowances_minor)?,
            charge_total: stated(!invoice.charges.is_empty(), "BT-108", totals.charges_minor)?,
            taxable_total: taxable,
            vat_total: Some(tax),
            gross_total: gross,
            due: gross,
            ..DocumentTotals::default()
        };
        invoice.vat_breakdown = vec![VatBreakdown {
            taxable_amount: taxable,
            tax_amount: tax,
            category: self.tax.category.code().into(),
            // Outside the scope of VAT too, where it is 0: German rules ask for it (DE-R-014).
            rate: Some(self.rate()),
            exemption_reason: self.tax.exemption_reason.clone(),
            exemption_reason_code: self.tax.exemption_code.as_deref().map(Into::into),
        }];
        Ok(())
    }
}

/// How many of a currency's minor units make a hundredth: amounts of the standard have two places.
#[derive(Clone, Copy)]
struct Money {
    places: u32,
}

impl Money {
    fn amount(self, term: &'static str, minor: i128) -> Result<InvoiceAmount, XmlError> {
        let hundredths = minor.checked_mul(10_i128.pow(PLACES_MAX.saturating_sub(self.places)));
        let hundredths = hundredths.and_then(|h| i64::try_from(h).ok()).ok_or(DocumentError::Overflow { term })?;
        Ok(InvoiceAmount::from_minor_units(hundredths))
    }
}

fn date(term: &'static str, date: jiff::civil::Date) -> Result<Date, XmlError> {
    let out = Date::parse(&date.to_string());
    out.map_err(|_| {
        XmlError::Document(DocumentError::Refused { term, value: date.to_string(), rule: "it is a date of the years 0001 to 9999" })
    })
}

fn identifier(of: &Identifier) -> en16931::Identifier {
    match &of.scheme {
        Some(scheme) => en16931::Identifier::schemed(of.id.clone(), scheme.clone()),
        None => en16931::Identifier::new(of.id.clone()),
    }
}

fn address(of: &Party) -> PostalAddress {
    let line = |i: usize| of.address.get(i).cloned();
    PostalAddress {
        line1: line(0),
        line2: line(1),
        line3: line(2),
        city: of.city.clone(),
        post_code: of.postal_code.clone(),
        subdivision: of.subdivision.clone(),
        country: Some(of.country.as_str().into()),
    }
}

fn party(of: &Party) -> en16931::invoice::Party {
    let mut out = en16931::invoice::Party::new(of.name.clone(), address(of));
    out.legal_registration = of.registration.as_ref().map(identifier);
    out.vat_identifier.clone_from(&of.vat_id);
    out.electronic_address = of.endpoint.as_ref().map(identifier);
    let super::Contact { name, phone, email } = of.contact.clone();
    out.contact = Contact { name, phone, email };
    out
}
