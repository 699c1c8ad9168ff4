//! The chart: what each campaign was worth beside what the baseline asks of its spend.

use super::page::{ACCENT, CONTENT_WIDTH, Colour, Flow, INK, MARGIN, MUTED, Mark, RULE, SMALL, Style};
use super::text::{Hundredths, Weight};
use super::{Bar, grouped};

/// Most campaigns that are drawn by name; with more, the last bar is all the others together.
const BARS_MAX: usize = 20;

const NAME_WIDTH: Hundredths = 12_000;
const VALUE_WIDTH: Hundredths = 8_500;
const PLOT: Hundredths = CONTENT_WIDTH - NAME_WIDTH - VALUE_WIDTH;
const THICK: Hundredths = 700;
/// Between the two bars of a campaign.
const APART: Hundredths = 150;
const STEP: Hundredths = 2 * THICK + APART + 780;
const VALUE: Style = Style::new(680, Weight::Regular, MUTED);
const NAME: Style = Style::new(780, Weight::Regular, INK);
const PAPER: Colour = [0xff, 0xff, 0xff];
const BASELINE: Colour = [0xb4, 0xbd, 0xca];

/// The bars that are drawn: by LTV, the largest first.
pub(super) fn chosen(bars: &[Bar]) -> Vec<Bar> {
    let mut bars = bars.to_vec();
    bars.sort_by(|a, b| b.ltv_minor.cmp(&a.ltv_minor).then_with(|| a.campaign.cmp(&b.campaign)));
    if bars.len() > BARS_MAX {
        let others = bars.split_off(BARS_MAX - 1);
        let sum = |of: fn(&Bar) -> i128| others.iter().map(of).fold(0_i128, i128::saturating_add);
        bars.push(Bar {
            campaign: format!("{} others", others.len()),
            ltv_minor: sum(|bar| bar.ltv_minor),
            baseline_minor: sum(|bar| bar.baseline_minor),
        });
    }
    bars
}

/// How high the chart stands, so that it is kept on one page.
pub(super) fn height(bars: &[Bar]) -> Hundredths {
    2_400 + STEP * i64::try_from(bars.len().min(BARS_MAX)).unwrap_or(0)
}

/// From values to places: the least value, or 0, is at the left.
struct Scale {
    least: i128,
    span: i128,
}

impl Scale {
    /// By the campaigns that have a bar each: all the others together may be far longer, and are drawn with a break.
    fn of(named: &[Bar]) -> Self {
        let values = || named.iter().flat_map(|bar| [bar.ltv_minor, bar.baseline_minor]);
        let least = values().min().unwrap_or(0).min(0);
        let span = values().max().unwrap_or(0).max(0).saturating_sub(least).max(1);
        Self { least, span }
    }

    fn exceeds(&self, value: i128) -> bool {
        value > self.least.saturating_add(self.span)
    }

    fn at(&self, value: i128) -> Hundredths {
        let part = value.saturating_sub(self.least).saturating_mul(i128::from(PLOT)) / self.span;
        i64::try_from(part).unwrap_or(PLOT).clamp(0, PLOT)
    }
}

/// Draws the bars and their legend. A bar with a gap in it is longer than the plot.
pub(super) fn draw(flow: &mut Flow, bars: &[Bar], places: u32) {
    let cut = bars.len() > BARS_MAX;
    let bars = chosen(bars);
    legend(flow);
    let scale = Scale::of(if cut { &bars[..BARS_MAX - 1] } else { &bars });
    let left = MARGIN + NAME_WIDTH;
    let zero = scale.at(0);
    let top = flow.y;
    for bar in &bars {
        let name = shortened(&bar.campaign);
        flow.text(MARGIN, flow.y + THICK + APART / 2 - NAME.size * 7 / 10, NAME, &name);
        for (value, colour, down) in [(bar.ltv_minor, ACCENT, 0), (bar.baseline_minor, BASELINE, THICK + APART)] {
            let (from, to) = (zero.min(scale.at(value)), zero.max(scale.at(value)));
            let y = flow.y + down;
            flow.mark(Mark::Box { x: left + from, y, width: (to - from).max(40), height: THICK, colour });
            if scale.exceeds(value) {
                flow.mark(Mark::Box { x: left + to - 2_000, y, width: 350, height: THICK, colour: PAPER });
            }
            flow.text(left + to + 400, y - 90, VALUE, &grouped(value, places));
        }
        flow.y += STEP;
    }
    flow.mark(Mark::Box { x: left + zero - 25, y: top - 300, width: 50, height: flow.y - top, colour: RULE });
}

fn legend(flow: &mut Flow) {
    let mut x = MARGIN + NAME_WIDTH;
    for (colour, what) in [(ACCENT, "Lifetime value (LTV)"), (BASELINE, "Baseline × spend")] {
        flow.mark(Mark::Box { x, y: flow.y + 180, width: 700, height: 700, colour });
        flow.text(x + 1_000, flow.y, SMALL, what);
        x += SMALL.width(what) + 2_600;
    }
    flow.y += 2_000;
}

/// A name on one line; the table has it whole.
fn shortened(name: &str) -> String {
    let most = NAME_WIDTH - 600;
    if NAME.width(name) <= most {
        return name.to_owned();
    }
    let mut out = String::new();
    for character in name.chars() {
        if NAME.width(&out) + NAME.width("…") + NAME.width(character.encode_utf8(&mut [0; 4])) > most {
            break;
        }
        out.push(character);
    }
    out + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_twenty_campaigns_are_the_nineteen_largest_and_the_rest() {
        let bar = |i: i128| Bar { campaign: format!("c{i}"), ltv_minor: i * 10, baseline_minor: i };
        let bars: Vec<Bar> = (1..=25).map(bar).collect();
        let chosen = chosen(&bars);
        assert_eq!(chosen.len(), BARS_MAX);
        assert_eq!((chosen[0].ltv_minor, chosen[18].ltv_minor), (250, 70));
        assert_eq!(chosen[19], Bar { campaign: "6 others".into(), ltv_minor: 210, baseline_minor: 21 });
        assert_eq!(super::chosen(&bars[..20]).len(), 20);
    }

    #[test]
    fn bars_stay_on_the_plot_and_zero_is_where_it_belongs() {
        let bar = |ltv_minor, baseline_minor| Bar { campaign: "c".into(), ltv_minor, baseline_minor };
        let scale = Scale::of(&[bar(300, 100), bar(-100, 0)]);
        assert_eq!([scale.at(-100), scale.at(0), scale.at(300)], [0, PLOT / 4, PLOT]);
        assert!(!scale.exceeds(300) && scale.exceeds(301));
        let scale = Scale::of(&[bar(0, 0)]);
        assert_eq!(scale.at(0), 0);
        let scale = Scale::of(&[bar(i128::MAX, i128::MIN)]);
        assert!((0..=PLOT).contains(&scale.at(i128::MAX)));
    }
}
