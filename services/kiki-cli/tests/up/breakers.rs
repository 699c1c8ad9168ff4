//! `kiki breakers`.

use std::process::{Command, Output};

use crate::start;

fn breakers(flow: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiki")).args(["breakers", "--flow", flow]).args(args).output().unwrap()
}

/// What it said; it must have succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_operator_sees_breakers_and_overrides_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
    command.args(["up", "--ports", "auto", "--platforms", "x1=tradedesk", "--data"]).arg(dir.path().join("data"));
    let (_running, rows) = start(&mut command);
    let row = rows.iter().find(|row| row.starts_with("syncflow")).unwrap();
    let flow = format!("http://{}", row.split_whitespace().nth(1).unwrap());

    let list = said(&breakers(&flow, &["list"]));
    let words: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [["platform/tradedesk", "closed", "0", "changes"], ["syncvalue", "closed", "0", "changes"]]);

    let who = ["--operator", "ada", "--reason", "an incident"];
    let forced = said(&breakers(&flow, &[&["force-open", "platform/tradedesk", "--for", "10m"][..], &who].concat()));
    assert!(forced.contains("forced open") && forced.contains("1 changes  an operator said so (ada: an incident)"), "{forced}");
    let json = said(&breakers(&flow, &["list", "--json"]));
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["state"], &first["operator"]), (&"forced open".into(), &"ada".into()));
    let reset = said(&breakers(&flow, &[&["reset", "platform/tradedesk"][..], &who].concat()));
    assert!(reset.contains("half-open"), "{reset}");
    let tripped = said(&breakers(&flow, &[&["trip", "syncvalue"][..], &who].concat()));
    assert!(tripped.contains("open") && tripped.contains("it was tripped (ada: an incident)"), "{tripped}");

    let unknown = breakers(&flow, &[&["trip", "nobody"][..], &who].concat());
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && error.contains("platform/tradedesk, syncvalue"), "{error}");
    assert!(!breakers(&flow, &[&["force-open", "syncvalue"][..], &who].concat()).status.success(), "a force has an end");
}
