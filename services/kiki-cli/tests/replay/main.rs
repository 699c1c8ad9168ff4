//! `kiki replay` from outside: the command is run as its user runs it, and judged by what it leaves.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::explicit_write, missing_docs)]

mod against;
mod crash;
mod month;
mod outage;
#[path = "../../../../tests/support/python.rs"]
mod python;
mod script;
mod tamper;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiki::tlog::note::VerifyingKey;
use serde_json::Value;

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The command with its arguments.
fn kiki(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
    command.args(args);
    command
}

/// Runs it to its end and gives its output; it must have succeeded.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    said(&output)
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// A small month to play: 150 customers over 15 months, 300 requests on 2025-07.
struct Input {
    folder: tempfile::TempDir,
}

const MONTH: &str = "2025-07";

impl Input {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events.csv"), events()).unwrap();
        fs::write(folder.path().join("requests.jsonl"), requests()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kiki replay` of this input into a folder of that name.
    fn replay(&self, name: &str, more: &[&str]) -> Command {
        let mut command = kiki(&["replay", "--month", MONTH]);
        command.arg("--events").arg(self.path("events.csv")).arg("--requests").arg(self.path("requests.jsonl"));
        command.arg("--data").arg(self.path(name)).args(more);
        command
    }
}

/// Customers who buy every 5 to 60 days, for 20 to 120.
fn events() -> String {
    let start: jiff::civil::Date = "2024-07-01".parse().unwrap();
    let mut rows = Vec::new();
    for customer in 0..150_i32 {
        let every = 5 + customer * 7 % 56;
        let from = customer * 11 % 120;
        for (nth, day) in (from..456).step_by(usize::try_from(every).unwrap()).enumerate() {
            let date = start.checked_add(jiff::Span::new().days(day)).unwrap();
            let spend = 20 + (customer * 31 + i32::try_from(nth).unwrap() * 17) % 100;
            rows.push((date, format!("shopper-{customer},{date},{},{spend}.50\n", 1 + nth % 3)));
        }
    }
    rows.sort();
    rows.into_iter().fold("cust,date,items,spend\n".to_owned(), |csv, (_, row)| csv + &row)
}

/// Banners, videos and a few that nobody bids on.
fn requests() -> String {
    let mut lines = String::new();
    for n in 0..300 {
        let media = match n % 5 {
            0 => r#""video":{"mimes":["video/mp4"],"minduration":3,"maxduration":30,"protocols":[2,3,7],"w":640,"h":480}"#,
            4 => r#""banner":{"w":1,"h":1}"#,
            _ => r#""banner":{"w":300,"h":250}"#,
        };
        let floor = f64::from(n % 7) / 10.0;
        writeln!(
            lines,
            r#"{{"id":"r{n}","at":{},"cur":["USD"],"imp":[{{"id":"1","bidfloor":{floor},"bidfloorcur":"USD","secure":1,{media}}}],"site":{{"domain":"news{}.example"}},"device":{{"geo":{{"country":"USA"}}}}}}"#,
            1 + n % 2,
            n % 9
        )
        .unwrap();
    }
    lines
}

/// result.json of a run.
fn result(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("result.json")).unwrap()).unwrap()
}

fn log_key(dir: &Path) -> VerifyingKey {
    fs::read_to_string(dir.join("log.pub")).unwrap().trim().parse().unwrap()
}

/// Recomputes the invoices by the script that shares no code with us.
fn recompute(dir: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/replay_recompute.py");
    match Command::new("python3").arg(script).arg(dir).output() {
        Ok(output) => assert!(output.status.success(), "{}", said(&output)),
        Err(error) => {
            let why = format!("tests/replay_recompute.py DID NOT RUN: python3: {error}");
            assert!(std::env::var_os("KIKI_REQUIRE_PYTHON").is_none(), "{why}");
            // Not `eprintln!`, which the harness keeps to itself when a test passes.
            writeln!(std::io::stderr(), "{why}").unwrap();
        }
    }
}

/// Both offline verifications, by the command, with no server running.
fn verify(dir: &Path) {
    run(kiki(&["audit", "verify"]).arg(dir));
    let mut command = kiki(&["invoice", "verify"]);
    for bundle in bundles(dir) {
        command.arg(bundle);
    }
    run(&mut command);
}

fn bundles(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("invoices")).unwrap().map(|entry| entry.unwrap().path());
    let mut bundles: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "bundle")).collect();
    bundles.sort();
    assert!(!bundles.is_empty());
    bundles
}

/// Everything in a folder, into a new one.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
