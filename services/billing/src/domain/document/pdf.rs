//! The document as pages that a finance team can read, as PDF/A-3, with the CII inside where there is one (Factur-X).
//!
//! It is handed ready strings: what it adds is where they stand. Characters that its typeface lacks are
//! spelled by code point and said to be. The same content gives the same bytes.

mod canvas;
mod chart;
mod facturx;
mod front;
mod page;
mod table;
mod text;
mod words;

use jiff::civil::Date;

use front::front;
use page::{BODY, CONTENT_WIDTH, Flow, MARGIN, Mark};

/// The attachment's name, which Factur-X fixes.
pub const ATTACHMENT: &str = "factur-x.xml";

/// Most rows of the line table: as many as an invoice has lines. At about 45 a page they make some 230 pages.
pub const ROWS_MAX: usize = super::LINES_MAX;

/// Everything that stands on the pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// What it is, such as `Invoice`, `Credit note`, `Draft`.
    pub title: String,
    /// Its number.
    pub number: String,
    /// Date of issue, which dates the file.
    pub issued: Date,
    /// The seller: name, then address and identifiers, a line each.
    pub seller: Vec<String>,
    /// The buyer, likewise.
    pub buyer: Vec<String>,
    /// Dates, period and references: label and value.
    pub facts: Vec<(String, String)>,
    /// What is due: label, such as `Amount due`, and amount with its currency.
    pub due: (String, String),
    /// What the amounts of the table and the totals are in, such as `All amounts in EUR`.
    pub unit: String,
    /// One a campaign.
    pub rows: Vec<Row>,
    /// Sum of lines, adjustments, net, tax, and the total as the last: label and amount.
    pub totals: Vec<(String, String)>,
    /// Terms, account, remittance: label and value.
    pub payment: Vec<(String, String)>,
    /// Free text, a paragraph each.
    pub notes: Vec<String>,
    /// The calculation in words, a step each: what it is, and the sentence with its figures.
    pub calculation: Vec<(String, String)>,
    /// One a campaign, in any order.
    pub bars: Vec<Bar>,
    /// Decimal places of the bars' amounts.
    pub places: u32,
    /// How to verify it: log, checkpoint, root, command; label and value.
    pub verify: Vec<(String, String)>,
    /// The same document as CII, which makes the file a Factur-X one.
    pub cii: Option<String>,
}

/// One campaign in the line table, its figures ready to print.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Its name or id; wrapped where it is long.
    pub campaign: String,
    /// Settled spend.
    pub spend: String,
    /// Lifetime value.
    pub ltv: String,
    /// Baseline return on ad spend.
    pub baseline: String,
    /// LTV over spend.
    pub roas: String,
    /// LTV less baseline times spend.
    pub margin: String,
    /// What it is billed.
    pub fee: String,
}

/// One campaign in the chart, in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// Its name or id.
    pub campaign: String,
    /// Lifetime value.
    pub ltv_minor: i128,
    /// Baseline times spend.
    pub baseline_minor: i128,
}

/// Why there is no PDF.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PdfError {
    /// More rows than a document may have.
    #[error("the line table has {rows} rows, at most {ROWS_MAX} are printed")]
    TooManyRows {
        /// How many.
        rows: usize,
    },
    /// It would not be a PDF/A-3.
    #[error("not a valid PDF/A-3: {why}")]
    Refused {
        /// What the writer says.
        why: String,
    },
}

/// Writes the file.
///
/// # Errors
/// Where there are too many rows, or where the writer says that it would not be a PDF/A-3.
pub fn render(content: &Content) -> Result<Vec<u8>, PdfError> {
    if content.rows.len() > ROWS_MAX {
        return Err(PdfError::TooManyRows { rows: content.rows.len() });
    }
    let (content, respelled) = content.spelled();
    let title = format!("{} {}", content.title, content.number);
    let author = content.seller.first().map_or("", String::as_str);
    let about = canvas::About { title: &title, author, date: content.issued, attachment: content.cii.as_deref() };
    let bytes = canvas::write(&layout(&content, respelled), &about)?;
    if content.cii.is_some() { facturx::declare(bytes) } else { Ok(bytes) }
}

fn layout(content: &Content, respelled: bool) -> Vec<Vec<Mark>> {
    const LABELS: i64 = 11_000;
    let mut flow = Flow::new();
    front(&mut flow, content);
    if !content.calculation.is_empty() {
        flow.heading("How the fee was computed", 4 * BODY.leading());
        flow.pairs(&content.calculation, LABELS);
    }
    if !content.bars.is_empty() {
        flow.heading("What the campaigns were worth", chart::height(&content.bars));
        chart::draw(&mut flow, &content.bars, content.places);
    }
    if !content.verify.is_empty() {
        flow.heading("Check it yourself", 5 * BODY.leading());
        flow.pairs(&content.verify, LABELS);
    }
    if respelled {
        flow.y += BODY.leading();
        let note = "Characters that this document's typeface lacks are written as <U+ and their code point>.";
        flow.paragraph(MARGIN, CONTENT_WIDTH, page::SMALL, note);
    }
    let seller = content.seller.first().map_or("", String::as_str);
    flow.finish(&format!("{} {}", content.title, content.number), seller)
}

impl Content {
    /// Itself with every text in characters that can be printed, and whether any had to change. The attachment stays as it is.
    fn spelled(&self) -> (Self, bool) {
        let mut out = self.clone();
        let mut changed = false;
        let mut spell = |text: &mut String| {
            if let std::borrow::Cow::Owned(spelled) = text::spelled(text) {
                *text = spelled;
                changed = true;
            }
        };
        for text in [&mut out.title, &mut out.number, &mut out.due.0, &mut out.due.1, &mut out.unit] {
            spell(text);
        }
        out.seller.iter_mut().chain(&mut out.buyer).chain(&mut out.notes).for_each(&mut spell);
        let pairs = out.facts.iter_mut().chain(&mut out.totals).chain(&mut out.payment).chain(&mut out.calculation).chain(&mut out.verify);
        pairs.flat_map(|(label, value)| [label, value]).for_each(&mut spell);
        for Row { campaign, spend, ltv, baseline, roas, margin, fee } in &mut out.rows {
            [campaign, spend, ltv, baseline, roas, margin, fee].into_iter().for_each(&mut spell);
        }
        out.bars.iter_mut().for_each(|bar| spell(&mut bar.campaign));
        (out, changed)
    }
}

/// An amount with its thousands apart: `1,234,567.89`.
pub fn grouped(minor: i128, places: u32) -> String {
    let places = usize::try_from(places).unwrap_or(0);
    let digits = format!("{:0width$}", minor.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let mut out = String::from(if minor < 0 { "-" } else { "" });
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if places > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_thousands_apart() {
        for (minor, places, text) in [
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 3, "-0.005"),
            (123_456_789, 2, "1,234,567.89"),
            (-100_000, 2, "-1,000.00"),
            (999, 0, "999"),
            (1_000, 0, "1,000"),
        ] {
            assert_eq!(grouped(minor, places), text);
        }
    }

    #[test]
    fn nothing_is_laid_out_beyond_the_page() {
        let row = |i: usize| Row {
            campaign: format!("campaign {i} with a name of many words {}", "long".repeat(i % 40)),
            spend: grouped(123_456_789_012, 2),
            ltv: grouped(1_234_567_890_123, 2),
            baseline: "3.0".into(),
            roas: "10.0000".into(),
            margin: grouped(-1_234_567_890_123, 2),
            fee: grouped(123_456_789_012, 2),
        };
        let content = Content { rows: (0..300).map(row).collect(), title: "Invoice".into(), ..Content::default() };
        let pages = layout(&content, false);
        assert!(pages.len() > 5);
        for mark in pages.iter().flatten() {
            let (left, right, bottom) = match mark {
                Mark::Text { x, y, style, text } => (*x, x + style.width(text), *y),
                Mark::Box { x, y, width, height, .. } => (*x, x + width, y + height),
            };
            assert!(left >= MARGIN && right <= MARGIN + CONTENT_WIDTH + 1 && bottom < page::PAGE_HEIGHT, "{mark:?}");
        }
        let heads = pages.iter().filter(|page| page.iter().any(|mark| matches!(mark, Mark::Text { text, .. } if text == "Campaign")));
        assert!(heads.count() >= pages.len() - 1, "a table's head stands on each of its pages");
    }
}
