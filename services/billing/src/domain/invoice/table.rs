//! The document as a table: a row a line.

use super::{Amount, Invoice, Line};

impl Invoice {
    /// A header and a row a line; of a credit by agreement, a row with its amount.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let written = writer
            .write_record(CSV_HEADER)
            .and_then(|()| self.line_items.iter().try_for_each(|line| writer.write_record(self.csv_row(line))))
            .and_then(|()| self.agreed().map_or(Ok(()), |_| writer.write_record(self.credit_row())));
        debug_assert!(written.is_ok(), "rows of one length into memory");
        writer.into_inner().unwrap_or_default()
    }

    fn credit_row(&self) -> [String; 14] {
        let mut row: [String; 14] = Default::default();
        row[..4].clone_from_slice(&[self.invoice_id.clone(), self.period.clone(), self.due_date.clone(), self.currency.clone()]);
        row[4] = plain_cell(&self.client_name);
        (row[12], row[13]) = (self.total_invoice_amount.to_string(), "agreed".to_owned());
        row
    }

    fn csv_row(&self, line: &Line) -> [String; 14] {
        let optional = |amount: Option<Amount>| amount.map(|a| a.to_string()).unwrap_or_default();
        [
            self.invoice_id.clone(),
            self.period.clone(),
            self.due_date.clone(),
            self.currency.clone(),
            plain_cell(&line.client_name),
            line.campaign_id.clone(),
            line.client_spend.to_string(),
            line.ltv.to_string(),
            line.baseline_roas.clone(),
            optional(line.kiki_roas),
            optional(line.margin_improvement_pct),
            line.margin_recovered.to_string(),
            line.kiki_invoice_amount.to_string(),
            line.status.name().to_owned(),
        ]
    }
}

pub(super) const CSV_HEADER: [&str; 14] = [
    "invoice_id",
    "period",
    "due_date",
    "currency",
    "client_name",
    "campaign_id",
    "client_spend",
    "ltv",
    "baseline_roas",
    "kiki_roas",
    "margin_improvement_pct",
    "margin_recovered",
    "kiki_invoice_amount",
    "status",
];

/// A name that a spreadsheet would take for a formula is made text.
fn plain_cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}
