//! Two pictures of what predictions were worth, as SVG: 480 x 360, axes from 0.

use syncvalue::train::metrics::Decile;

/// The plot's frame within the picture: left, top, right, bottom.
const FRAME: (f64, f64, f64, f64) = (64.0, 24.0, 464.0, 312.0);

struct Plot {
    body: String,
    most: (f64, f64),
}

impl Plot {
    fn new(title: &str, axes: (&str, &str), most: (f64, f64)) -> Self {
        let (left, top, right, bottom) = FRAME;
        let mut plot = Self { body: String::new(), most };
        plot.text((left + right) / 2.0, top - 8.0, "middle", title);
        plot.text((left + right) / 2.0, bottom + 36.0, "middle", axes.0);
        plot.body +=
            &format!("<text transform='translate(14 {}) rotate(-90)' text-anchor='middle'>{}</text>\n", (top + bottom) / 2.0, axes.1);
        plot.body +=
            &format!("<rect x='{left}' y='{top}' width='{}' height='{}' fill='none' stroke='#888'/>\n", right - left, bottom - top);
        for part in 0..=4 {
            let (x, y) = (most.0 * f64::from(part) / 4.0, most.1 * f64::from(part) / 4.0);
            let (at, up) = plot.at(x, y);
            plot.text(at, bottom + 16.0, "middle", &number(x));
            plot.text(left - 6.0, up + 4.0, "end", &number(y));
        }
        plot
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (left, top, right, bottom) = FRAME;
        (left + (right - left) * x / self.most.0, bottom - (bottom - top) * y / self.most.1)
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.body += &format!("<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'>{text}</text>\n");
    }

    fn line(&mut self, points: &[(f64, f64)], style: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| self.at(*x, *y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.body += &format!("<polyline points='{}' fill='none' {style}/>\n", points.join(" "));
    }

    fn dots(&mut self, points: &[(f64, f64)]) {
        for point in points {
            let (x, y) = self.at(point.0, point.1);
            self.body += &format!("<circle cx='{x:.1}' cy='{y:.1}' r='4' fill='#06c'/>\n");
        }
    }

    fn finish(self) -> String {
        let head = "<svg xmlns='http://www.w3.org/2000/svg' width='480' height='360' font-family='sans-serif' font-size='12'>";
        format!("{head}\n<rect width='480' height='360' fill='#fff'/>\n{}</svg>\n", self.body)
    }
}

fn number(x: f64) -> String {
    if x >= 10.0 || x == 0.0 { format!("{x:.0}") } else { format!("{x:.2}") }
}

/// Predicted against real means, decile by decile; on the line they are equal.
pub(super) fn calibration(deciles: &[Decile]) -> String {
    let most = deciles.iter().flat_map(|d| [d.predicted, d.real]).fold(1e-9, f64::max) * 1.05;
    let mut plot = Plot::new("Calibration by decile", ("mean predicted", "mean spent"), (most, most));
    plot.line(&[(0.0, 0.0), (most, most)], "stroke='#888' stroke-dasharray='4 4'");
    let points: Vec<_> = deciles.iter().map(|d| (d.predicted, d.real)).collect();
    plot.line(&points, "stroke='#06c'");
    plot.dots(&points);
    plot.finish()
}

/// The share of all spend that the best share of customers brought.
pub(super) fn gain(points: &[(f64, f64)]) -> String {
    let mut plot = Plot::new("Gain", ("share of customers, best first", "share of spend"), (1.0, 1.0));
    plot.line(&[(0.0, 0.0), (1.0, 1.0)], "stroke='#888' stroke-dasharray='4 4'");
    plot.line(points, "stroke='#06c' stroke-width='2'");
    plot.finish()
}
