//! The first page's head, the table, the totals, and how to pay.

use super::page::{ACCENT, BODY, CONTENT_WIDTH, Flow, INK, LABEL, MARGIN, MUTED, Mark, SMALL, STRONG, Style, TINT};
use super::text::{Hundredths, Weight};
use super::{Content, table};

const TITLE: Style = Style::new(2_100, Weight::Bold, ACCENT);
const NAME: Style = Style::new(1_250, Weight::Bold, INK);
const FINE: Style = Style::new(800, Weight::Regular, MUTED);
const TOTAL: Style = Style::new(1_050, Weight::Bold, INK);
const AMOUNT: Style = Style::new(1_600, Weight::Bold, ACCENT);

/// Where the right half of the page begins, and how wide it is.
const RIGHT: Hundredths = MARGIN + CONTENT_WIDTH * 54 / 100;
const RIGHT_WIDTH: Hundredths = MARGIN + CONTENT_WIDTH - RIGHT;
const LEFT_WIDTH: Hundredths = RIGHT - MARGIN - 1_500;

pub(super) fn front(flow: &mut Flow, content: &Content) {
    letterhead(flow, content);
    parties(flow, content);
    due(flow, content);
    flow.text_right(MARGIN + CONTENT_WIDTH, flow.y, SMALL, &content.unit);
    flow.y += SMALL.leading() + 200;
    table::draw(flow, &content.rows);
    totals(flow, content);
    if !content.payment.is_empty() {
        flow.heading("Payment", 3 * BODY.leading());
        flow.pairs(&content.payment, 11_000);
    }
    if !content.notes.is_empty() {
        flow.heading("Notes", 2 * BODY.leading());
        for note in &content.notes {
            flow.paragraph(MARGIN, CONTENT_WIDTH, BODY, note);
            flow.y += 350;
        }
    }
}

/// Lines down from `y`, the first of them larger. Returns where they end.
fn block(flow: &mut Flow, y: Hundredths, first: Style, rest: Style, lines: &[String]) -> Hundredths {
    let mut y = y;
    for (i, line) in lines.iter().enumerate() {
        let style = if i == 0 { first } else { rest };
        for part in style.wrap(line, LEFT_WIDTH) {
            flow.text(MARGIN, y, style, &part);
            y += style.leading();
        }
    }
    y
}

fn letterhead(flow: &mut Flow, content: &Content) {
    let top = flow.y;
    let end = block(flow, top, NAME, FINE, &content.seller);
    let edge = MARGIN + CONTENT_WIDTH;
    flow.text_right(edge, top - 500, TITLE, &content.title);
    let number = Style::new(1_050, Weight::Regular, INK);
    flow.text_right(edge, top - 500 + TITLE.leading(), number, &content.number);
    flow.y = end.max(top + TITLE.leading() + number.leading()) + 1_800;
}

fn parties(flow: &mut Flow, content: &Content) {
    let top = flow.y;
    flow.text(MARGIN, top, SMALL, "BILLED TO");
    let left = block(flow, top + SMALL.leading() + 150, STRONG, BODY, &content.buyer);
    let mut y = top;
    let label_width = content.facts.iter().map(|(label, _)| LABEL.width(label)).max().unwrap_or(0) + 1_200;
    for (label, value) in &content.facts {
        flow.text(RIGHT, y, LABEL, label);
        for line in BODY.wrap(value, RIGHT_WIDTH - label_width) {
            flow.text(RIGHT + label_width, y, BODY, &line);
            y += BODY.leading();
        }
        y += 150;
    }
    flow.y = left.max(y) + 1_600;
}

fn due(flow: &mut Flow, content: &Content) {
    const HEIGHT: Hundredths = 3_600;
    let (label, amount) = &content.due;
    flow.mark(Mark::Box { x: MARGIN, y: flow.y, width: CONTENT_WIDTH, height: HEIGHT, colour: TINT });
    flow.mark(Mark::Box { x: MARGIN, y: flow.y, width: 250, height: HEIGHT, colour: ACCENT });
    flow.text(MARGIN + 1_200, flow.y + (HEIGHT - TOTAL.leading()) / 2, TOTAL, label);
    flow.text_right(MARGIN + CONTENT_WIDTH - 1_200, flow.y + (HEIGHT - AMOUNT.leading()) / 2, AMOUNT, amount);
    flow.y += HEIGHT + 1_600;
}

fn totals(flow: &mut Flow, content: &Content) {
    let height: Hundredths = i64::try_from(content.totals.len()).unwrap_or(0) * (BODY.leading() + 300) + 1_500;
    flow.y += 700;
    flow.need(height);
    let edge = MARGIN + CONTENT_WIDTH - 330;
    for (i, (label, amount)) in content.totals.iter().enumerate() {
        let last = i + 1 == content.totals.len();
        let (label_style, style) = if last { (TOTAL, TOTAL) } else { (LABEL, BODY) };
        if last {
            flow.y += 250;
            flow.mark(Mark::Box { x: RIGHT, y: flow.y, width: RIGHT_WIDTH, height: 90, colour: INK });
            flow.y += 400;
        }
        let room = RIGHT_WIDTH - style.width(amount) - 1_000;
        for (line, down) in label_style.wrap(label, room).iter().zip(0..) {
            if down == 0 {
                flow.text_right(edge, flow.y, style, amount);
            } else {
                flow.y += style.leading();
            }
            flow.text(RIGHT, flow.y, label_style, line);
        }
        flow.y += style.leading() + 300;
    }
}
