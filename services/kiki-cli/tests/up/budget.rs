//! `kiki budget` against a real `kiki up`: a treasurer's month in a few commands.

use std::process::{Command, Output};

use kiki::clock::{Clock, UnixMicros};
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use serde_json::{Value, json};

use crate::spend::{leased_on_meta, settle};
use crate::{Up, up};

impl Up {
    fn budget(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.arg("budget").args(args).args(["--addr", &self.shield]).output().unwrap()
    }

    fn text(&self, args: &[&str]) -> String {
        let output = self.budget(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[args, &["--json"]].concat())).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.budget(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// A lease with three slots of ten below its mark, of which the first was charged eight.
async fn spend(shield: &str) -> u64 {
    let mut client = SyncShieldServiceClient::new(kiki::runtime::channel(shield).unwrap());
    let lease_id = leased_on_meta(&mut client).await;
    settle(&mut client, lease_id, 0, 8_000_000_000, Clock::System.now()).await;
    lease_id
}

/// Waits until the lease has ended: the treasurer's report covers what ended.
async fn ended(up: &Up) -> String {
    for _ in 0..100 {
        let budget = &up.json(&["show", "--client", "acme", "--campaign", "spring"])["budgets"][0];
        if budget["leased"] == "0.000000000" {
            let now = Clock::System.now();
            return jiff_text(now);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await; // polls a real clock's second
    }
    panic!("the lease did not end");
}

fn jiff_text(now: UnixMicros) -> String {
    jiff::Timestamp::from_microsecond(now.0).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_treasurer_limits_pauses_corrects_and_reconciles() {
    let up = up(&[]);
    let lease = spend(&up.shield).await;
    let until = ended(&up).await;
    shows(&up);
    limits(&up);
    reconciles(&up, lease, &until);
    adjusts(&up, &until);
}

fn shows(up: &Up) {
    let text = up.text(&["show", "--client", "acme"]);
    for line in ["acme/spring\n", "  settled    8.00 USD\n", "  held       20.00 USD  of ended leases"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let total = "total campaign 1,000.00 USD 8.00 USD 20.00 USD 972.00 USD 0 %".split(' ').collect();
    assert!(rows.contains(&total) && rows.contains(&vec!["meta", "8.00", "USD", "8.00", "USD", "8.00", "USD"]), "{text}");
    let refused = up.refused(&["show", "--client", "nobody"]);
    assert!(refused.contains("client \"nobody\" has no campaigns"), "{refused}");
    let refused = up.refused(&["show", "--client", "acme", "--campaign", "autumn"]);
    assert!(refused.contains("NotFound") && refused.contains("acme/autumn"), "{refused}");
}

fn limits(up: &Up) {
    let on_meta = ["--client", "acme", "--campaign", "spring", "--platform", "meta"];
    let with = |command: &'static str, more: &[&'static str]| [&[command], &on_meta[..], more].concat();
    let limits = up.json(&with("limits", &["--total", "500", "--window", "12.5"]));
    assert_eq!((&limits["version"], &limits["total"], &limits["window"]), (&json!(1), &json!("500.000000"), &json!("12.500000")));
    let limits = up.json(&with("limits", &["--daily", "100", "--window", "none"]));
    assert_eq!((&limits["total"], &limits["daily"], &limits["window"]), (&json!("500.000000"), &json!("100.000000"), &Value::Null));
    // A pause keeps what was set, and one that is there already is no new version.
    assert_eq!(up.json(&with("pause", &[]))["version"], 3);
    let paused = up.json(&with("pause", &[]));
    assert_eq!((&paused["version"], &paused["paused"], &paused["daily"]), (&json!(3), &json!(true), &json!("100.000000")));
    assert!(up.text(&["show", "--client", "acme"]).contains("  paused     on meta\n"));
    assert_eq!(up.json(&with("resume", &[]))["paused"], false);
    let text = up.text(&with("limits", &[]));
    assert!(text.starts_with("acme/spring/meta\n  version  4\n  total    500.00 USD\n"), "{text}");
    // The client as a whole.
    let all = up.json(&["limits", "--client", "acme", "--total", "900"]);
    assert_eq!((&all["campaign"], &all["currency"], &all["version"]), (&json!(""), &json!("USD"), &json!(1)));
    let refused = up.refused(&["pause", "--client", "acme", "--currency", "EUR"]);
    assert!(refused.contains("no campaign of acme is in"), "{refused}");
}

fn reconciles(up: &Up, lease: u64, until: &str) {
    let reconcile = |report: &str| {
        let report = report.to_owned();
        ["reconcile", "--client", "acme", "--campaign", "spring", "--platform", "meta", "--reason", "January", "--until", until, "--report"]
            .map(str::to_owned)
            .into_iter()
            .chain([report])
            .collect::<Vec<_>>()
    };
    let wrong = reconcile(&up.file("wrong.csv", &format!("bid,price\n{lease}-1,7.5\n{lease}-2,lots\n")));
    let refused = up.refused(&wrong.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.contains("wrong.csv: row 3, column price: \"lots\""), "{refused}");
    let mut early: Vec<&str> = wrong.iter().map(String::as_str).collect();
    let report = up.file("early.csv", &format!("bid,price\n{lease}-0,8\n"));
    (early[10], early[12]) = ("2026-01-01T00:00:00Z", report.as_str());
    let refused = up.refused(&early);
    assert!(
        refused.contains(&format!("lease {lease} ended at 2")) && refused.contains("the report is until 2026-01-01T00:00:00Z"),
        "{refused}"
    );
    (early[6], early[10]) = ("x", until);
    let refused = up.refused(&early);
    assert!(refused.contains(&format!("lease {lease} is of the platform \"meta\", and the report of \"x\"")), "{refused}");
    let right = reconcile(&up.file("january.csv", &format!("bid,price\n{lease}-0,8\n{lease}-1,7.5\n")));
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    let done = up.json(&right);
    let due = json!({ "settled_bids": 1, "freed_bids": 1, "adjusted_leases": 0, "freed": "20.000000000", "currency": "USD" });
    assert_eq!(done, due);
    assert_eq!(up.json(&right)["settled_bids"], 0, "a report sent again changes nothing");
    let budget = &up.json(&["show", "--client", "acme"])["budgets"][0];
    assert_eq!((&budget["settled"], &budget["held"]), (&json!("15.500000000"), &json!("0.000000000")));
}

fn adjusts(up: &Up, at: &str) {
    let statement = up.file("statement.pdf", "invalid traffic in January: 1.25");
    let adjust = |amount: &'static str, kind: &'static str| {
        let (on, why) = (["--campaign", "spring", "--platform", "meta"], ["--reason", "bots", "--evidence", &statement, "--at", at]);
        [&["adjust", "--client", "acme", "--amount", amount, "--kind", kind], &on[..], &why[..]].concat().join("\n")
    };
    let run = |args: &str| up.json(&args.split('\n').collect::<Vec<_>>());
    let refused = up.refused(&adjust("1.25", "invalid-traffic").split('\n').collect::<Vec<_>>());
    assert!(refused.contains("adjustment.amount_nanos: 1.25 USD: a credit for invalid traffic is below 0"), "{refused}");
    let refused = up.refused(&adjust("-99.5", "platform").split('\n').collect::<Vec<_>>());
    assert!(refused.contains("99.5 USD of credit, and 15.5 USD were"), "{refused}");
    let done = run(&adjust("-1.25", "invalid-traffic"));
    assert_eq!((&done["amount"], &done["duplicate"]), (&json!("-1.250000000"), &json!(false)));
    assert_eq!(run(&adjust("-1.25", "invalid-traffic"))["duplicate"], true, "the same command has one effect");
    let budget = &up.json(&["show", "--client", "acme"])["budgets"][0];
    assert_eq!((&budget["settled"], &budget["platforms"][0]["settled"]), (&json!("14.250000000"), &json!("14.250000000")));
}
