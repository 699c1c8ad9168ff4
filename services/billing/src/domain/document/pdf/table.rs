//! The line table: a row a campaign, its head again on every page.

use super::Row;
use super::page::{CONTENT_WIDTH, Flow, INK, MARGIN, MUTED, Mark, Style, TINT};
use super::text::{Hundredths, Weight};

const COLUMNS: usize = 6;
const HEAD: [&str; COLUMNS] = ["Spend", "LTV", "Baseline", "ROAS", "Margin", "Fee"];

/// Between columns, and what a row has above and below its text.
const GAP: Hundredths = 1_400;
const PADDING: Hundredths = 330;
/// The least that a campaign's name gets; figures that leave less are set smaller.
const NAME_MIN: Hundredths = 11_000;
const SIZES: [Hundredths; 4] = [820, 740, 660, 580];

impl Row {
    fn figures(&self) -> [&str; COLUMNS] {
        [&self.spend, &self.ltv, &self.baseline, &self.roas, &self.margin, &self.fee]
    }
}

struct Columns {
    body: Style,
    head: Style,
    /// Where each column of figures ends.
    rights: [Hundredths; COLUMNS],
    name_width: Hundredths,
}

impl Columns {
    fn new(rows: &[Row]) -> Self {
        let sized = |size| Self::at(rows, size);
        let smallest = sized(SIZES[SIZES.len() - 1]);
        SIZES.into_iter().map(sized).find(|columns| columns.name_width >= NAME_MIN).unwrap_or(smallest)
    }

    fn at(rows: &[Row], size: Hundredths) -> Self {
        let body = Style::new(size, Weight::Regular, INK);
        let head = Style::new(size, Weight::Bold, MUTED);
        let mut rights = [MARGIN + CONTENT_WIDTH - PADDING; COLUMNS];
        for column in (0..COLUMNS).rev() {
            let widest = rows.iter().map(|row| body.width(row.figures()[column])).max().unwrap_or(0).max(head.width(HEAD[column]));
            let left = rights[column] - widest - GAP;
            rights[..column].fill(left);
            if column == 0 {
                return Self { body, head, rights, name_width: left - MARGIN - PADDING };
            }
        }
        Self { body, head, rights, name_width: 0 }
    }

    fn head(&self, flow: &mut Flow) {
        let height = self.head.leading() + 2 * PADDING;
        flow.mark(Mark::Box { x: MARGIN, y: flow.y, width: CONTENT_WIDTH, height, colour: TINT });
        flow.text(MARGIN + PADDING, flow.y + PADDING, self.head, "Campaign");
        for (right, title) in self.rights.iter().zip(HEAD) {
            flow.text_right(*right, flow.y + PADDING, self.head, title);
        }
        flow.y += height;
    }

    fn row(&self, flow: &mut Flow, row: &Row) {
        let names = self.body.wrap(&row.campaign, self.name_width);
        let lines = i64::try_from(names.len()).unwrap_or(1);
        let height = lines * self.body.leading() + 2 * PADDING;
        if flow.need(height) {
            self.head(flow);
        }
        for (name, down) in names.iter().zip(0..) {
            flow.text(MARGIN + PADDING, flow.y + PADDING + self.body.leading() * down, self.body, name);
        }
        for (right, figure) in self.rights.iter().zip(row.figures()) {
            flow.text_right(*right, flow.y + PADDING, self.body, figure);
        }
        flow.y += height;
        flow.rule(MARGIN, flow.y, CONTENT_WIDTH);
    }
}

/// Lays out the whole table.
pub(super) fn draw(flow: &mut Flow, rows: &[Row]) {
    let columns = Columns::new(rows);
    flow.need(8 * columns.body.leading());
    columns.head(flow);
    for row in rows {
        columns.row(flow, row);
    }
}
