//! What the commands print: standard output is for results, standard error for progress.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::{Doing as _, Failure};

/// Prints a line. A reader that has gone away (`| head`) is no fault of ours.
pub fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// Standard output for much. Where the reader has gone away (`| head`) the process ends, and that is no fault either.
#[derive(Debug)]
pub struct Pipe(std::io::StdoutLock<'static>);

/// All of standard output.
#[must_use]
pub fn pipe() -> Pipe {
    Pipe(std::io::stdout().lock())
}

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(unread)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(unread)
    }
}

fn unread(error: std::io::Error) -> std::io::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    error
}

/// Prints a line of warning on standard error.
pub fn warn(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr().lock(), "warning: {line}"));
}

/// A table of two columns under a heading.
#[must_use]
pub fn table(heading: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let body: Vec<String> = rows.iter().map(|(name, value)| format!("  {name:<width$}  {value}")).collect();
    format!("{heading}\n{}", body.join("\n"))
}

/// Prints the figures of a run: a table under a heading or, with `json`, one JSON object of them.
///
/// # Errors
/// Figures that have no form in JSON.
pub fn figures(json: bool, heading: &str, object: &impl Serialize, rows: &[(&str, String)]) -> Result<(), Failure> {
    if json {
        say(serde_json::to_string(object).doing("writing the figures")?);
    } else {
        say(table(heading, rows));
    }
    Ok(())
}

/// A progress bar on standard error; nothing is drawn where that is no terminal.
#[must_use]
pub fn bar(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = "{msg:<22} {bar:32} {human_pos:>9}/{human_len} {per_sec:>14} {eta:>4}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// An exact decimal of nanos as an amount with the places that its currency has, rounded half away from zero for reading.
#[must_use]
pub fn amount(nanos: i128, currency: &str) -> String {
    let places = kiki::money::Currency::parse(currency).map_or(2, |c| c.minor_unit()).min(9);
    let unit = 10_i128.pow(9 - places);
    let half = if nanos < 0 { -unit / 2 } else { unit / 2 };
    let text = kiki::money::decimal((nanos + half) / unit, places);
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{part} {currency}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        assert_eq!(amount(1_234_567_890_123_456, "USD"), "1,234,567.89 USD");
        assert_eq!(amount(-5_000_000, "USD"), "-0.01 USD");
        assert_eq!(amount(1_500_000_000, "JPY"), "2 JPY");
        assert_eq!([grouped(0), grouped(999), grouped(1_000)], ["0", "999", "1,000"]);
    }

    #[test]
    fn a_table_lines_up() {
        assert_eq!(table("T", &[("a", "1".into()), ("long", "2".into())]), "T\n  a     1\n  long  2");
    }
}
