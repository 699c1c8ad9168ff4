//! Pages as lists of what stands where, in integers: the floats of PDF begin in [`super::canvas`].

use super::text::{Hundredths, Weight, width, wrap};

/// A4.
pub(super) const PAGE_WIDTH: Hundredths = 59_528;
/// A4.
pub(super) const PAGE_HEIGHT: Hundredths = 84_189;
/// Left and right, and above the first page.
pub(super) const MARGIN: Hundredths = 5_000;
/// What is between the margins.
pub(super) const CONTENT_WIDTH: Hundredths = PAGE_WIDTH - 2 * MARGIN;
/// Where later pages begin, below their running head.
const TOP: Hundredths = 7_400;
/// Where pages end, above their foot.
const BOTTOM: Hundredths = PAGE_HEIGHT - 6_400;

/// Red, green, blue.
pub(super) type Colour = [u8; 3];
pub(super) const INK: Colour = [0x1c, 0x23, 0x33];
pub(super) const MUTED: Colour = [0x5f, 0x6b, 0x7c];
pub(super) const RULE: Colour = [0xd6, 0xdb, 0xe3];
pub(super) const TINT: Colour = [0xf3, 0xf5, 0xf8];
pub(super) const ACCENT: Colour = [0x12, 0x5e, 0x72];

/// How a text is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) size: Hundredths,
    pub(super) weight: Weight,
    pub(super) colour: Colour,
}

impl Style {
    pub(super) const fn new(size: Hundredths, weight: Weight, colour: Colour) -> Self {
        Self { size, weight, colour }
    }

    /// From one line to the next.
    pub(super) const fn leading(self) -> Hundredths {
        self.size * 14 / 10
    }

    pub(super) fn width(self, text: &str) -> Hundredths {
        width(text, self.weight, self.size)
    }

    pub(super) fn wrap(self, text: &str, most: Hundredths) -> Vec<String> {
        wrap(text, self.weight, self.size, most)
    }
}

pub(super) const BODY: Style = Style::new(880, Weight::Regular, INK);
pub(super) const STRONG: Style = Style::new(880, Weight::Bold, INK);
pub(super) const LABEL: Style = Style::new(880, Weight::Regular, MUTED);
pub(super) const SMALL: Style = Style::new(740, Weight::Regular, MUTED);

/// Something on a page. `y` counts from the top; a text's is its baseline.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    Text { x: Hundredths, y: Hundredths, style: Style, text: String },
    Box { x: Hundredths, y: Hundredths, width: Hundredths, height: Hundredths, colour: Colour },
}

/// Pages that fill from the top; what does not fit goes onto the next.
pub(super) struct Flow {
    pub(super) pages: Vec<Vec<Mark>>,
    /// Where the next thing goes.
    pub(super) y: Hundredths,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self { pages: vec![Vec::new()], y: MARGIN }
    }

    /// Begins a page where less than `height` is left. Says whether it did.
    pub(super) fn need(&mut self, height: Hundredths) -> bool {
        let turns = self.y + height > BOTTOM;
        if turns {
            self.pages.push(Vec::new());
            self.y = TOP;
        }
        turns
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        if let Some(page) = self.pages.last_mut() {
            page.push(mark);
        }
    }

    /// A line of text whose top is at `y`.
    pub(super) fn text(&mut self, x: Hundredths, y: Hundredths, style: Style, text: &str) {
        self.mark(Mark::Text { x, y: y + style.size * 105 / 100, style, text: text.to_owned() });
    }

    /// The same, ending at `x`.
    pub(super) fn text_right(&mut self, x: Hundredths, y: Hundredths, style: Style, text: &str) {
        self.text(x - style.width(text), y, style, text);
    }

    pub(super) fn rule(&mut self, x: Hundredths, y: Hundredths, width: Hundredths) {
        self.mark(Mark::Box { x, y, width, height: 50, colour: RULE });
    }

    /// Wrapped text down from the current place.
    pub(super) fn paragraph(&mut self, x: Hundredths, most: Hundredths, style: Style, text: &str) {
        for line in style.wrap(text, most) {
            self.need(style.leading());
            self.text(x, self.y, style, &line);
            self.y += style.leading();
        }
    }

    /// A section's title, with `follows` of what comes below it on the same page.
    pub(super) fn heading(&mut self, title: &str, follows: Hundredths) {
        const TITLE: Style = Style::new(1_150, Weight::Bold, ACCENT);
        self.y += 1_700;
        if self.need(TITLE.leading() + 900 + follows) {
            self.y += 200;
        }
        self.text(MARGIN, self.y, TITLE, title);
        self.y += TITLE.leading() + 250;
        self.rule(MARGIN, self.y, CONTENT_WIDTH);
        self.y += 650;
    }

    /// Short labels on the left, what they say on the right, wrapped.
    pub(super) fn pairs(&mut self, pairs: &[(String, String)], label_width: Hundredths) {
        for (label, value) in pairs {
            self.need(BODY.leading());
            self.text(MARGIN, self.y, LABEL, label);
            self.paragraph(MARGIN + label_width, CONTENT_WIDTH - label_width, BODY, value);
            self.y += 350;
        }
    }

    /// The running heads of the pages after the first, and the foot of all.
    pub(super) fn finish(mut self, head: &str, foot: &str) -> Vec<Vec<Mark>> {
        let count = self.pages.len();
        for (i, page) in self.pages.iter_mut().enumerate() {
            let at = |text: &str, right: bool, y| Mark::Text {
                x: if right { PAGE_WIDTH - MARGIN - SMALL.width(text) } else { MARGIN },
                y,
                style: SMALL,
                text: text.to_owned(),
            };
            let rule = |y| Mark::Box { x: MARGIN, y, width: CONTENT_WIDTH, height: 50, colour: RULE };
            if i > 0 {
                page.push(at(head, false, MARGIN));
                page.push(rule(MARGIN + 600));
            }
            page.push(rule(PAGE_HEIGHT - 5_000));
            page.push(at(foot, false, PAGE_HEIGHT - 3_900));
            page.push(at(&format!("Page {} of {count}", i + 1), true, PAGE_HEIGHT - 3_900));
        }
        self.pages
    }
}
