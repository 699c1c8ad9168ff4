//! `kiki invoice reconcile` against a real `kiki up`: a platform's report that agrees, and one that does not.

use std::process::{Command, Output};

use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use serde_json::{Value, json};

use crate::spend::{leased_on_meta, settle};
use crate::{Up, up};

impl Up {
    fn reconcile(&self, report: &str, more: &[&str]) -> Output {
        let path = self.dir.path().join("report.csv");
        std::fs::write(&path, report).unwrap();
        let path = path.display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.args(["invoice", "reconcile", "platform", "--client", "acme", "--platform", "meta", "--report", &path]);
        command.args(["--addr", &self.at.billing]).args(more).output().unwrap()
    }
}

/// Two charges on meta, and a credit for invalid traffic; with the day that they are of and the leaves that they became.
async fn spend(shield: &str) -> (String, Vec<u64>) {
    let mut client = SyncShieldServiceClient::new(kiki::runtime::channel(shield).unwrap());
    let lease_id = leased_on_meta(&mut client).await;
    let now = Clock::System.now();
    let mut leaves = Vec::new();
    for (sequence, price_nanos) in [(0, 8_123_456_789), (1, 2_000_000_000)] {
        settle(&mut client, lease_id, sequence, price_nanos, now).await;
    }
    let adjustment = leaf::SpendAdjustment {
        key: "credit".into(),
        campaign: "spring".into(),
        platform: "meta".into(),
        currency: "USD".into(),
        amount_nanos: -1_000_000_000,
        kind: leaf::AdjustmentKind::InvalidTraffic.into(),
        reason: "bots".into(),
        evidence_sha256: vec![1; 32].into(),
        accounted_at: Some(now.into()),
        ..Default::default()
    };
    client.adjust(AdjustRequest { client: "acme".into(), adjustment: Some(adjustment) }).await.unwrap();
    let mut tail = client.tail(TailRequest::default()).await.unwrap().into_inner();
    while let Some(message) = tail.message().await.unwrap() {
        for entry in &message.entries {
            let (_, body) = leaf::decode(&entry.leaf).unwrap();
            if matches!(body, leaf::leaf::Body::Settlements(_) | leaf::leaf::Body::SpendAdjustment(_)) {
                leaves.push(entry.index);
            }
        }
        // What Billing is asked about is what was signed.
        client.get_checkpoint(GetCheckpointRequest { min_size: message.next_index, ..Default::default() }).await.unwrap();
    }
    (day(now), leaves)
}

fn day(at: UnixMicros) -> String {
    jiff::Timestamp::from_microsecond(at.0).unwrap().to_string()[..10].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_agrees_or_is_told_where_it_does_not() {
    let up = up(&[]);
    let (day, leaves) = spend(&up.shield).await;
    let csv = |rows: &[(&str, &str)]| {
        let row = |(campaign, spend): &(&str, &str)| format!("{campaign},USD,{spend},{day}\n");
        format!("campaign,currency,spend,date\n{}", rows.iter().map(row).collect::<String>())
    };
    let good = up.reconcile(&csv(&[("spring", "9.12")]), &[]);
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success(), "{said}{}", String::from_utf8_lossy(&good.stderr));
    assert!(said.contains("figures  1 compared, all agree\n  USD      9.123456789 in the log, 9.12 there: -0.003456789"), "{said}");

    let wrong = up.reconcile(&csv(&[("spring", "9.50"), ("autumn", "1.00")]), &[]);
    assert_eq!((wrong.status.code(), String::from_utf8_lossy(&wrong.stderr).trim()), (Some(1), "kiki: 2 of 2 figures differ"));
    let said = String::from_utf8(wrong.stdout).unwrap();
    let lines: Vec<Vec<&str>> = said.lines().skip(4).map(|line| line.split_whitespace().collect()).collect();
    let named: Vec<String> = leaves.iter().map(u64::to_string).collect();
    let named = named.join(", ");
    let wanted = [
        format!("{day} autumn USD 0.00 1.00 1.00 missing in the log"),
        format!("{day} spring USD 9.123456789 9.50 0.376543211 amount {named}"),
    ];
    assert_eq!(lines[1..], wanted.each_ref().map(|line| line.split(' ').collect::<Vec<_>>()), "{said}");

    let tolerated = up.reconcile(&csv(&[("spring", "9.50")]), &["--tolerance-minor", "38", "--json"]);
    assert!(tolerated.status.success());
    let tolerated: Value = serde_json::from_slice(&tolerated.stdout).unwrap();
    assert_eq!((&tolerated["different"], &tolerated["totals"][0]["difference"]), (&json!(0), &json!("0.376543211")));
    // The same day as another's in a month that was named: what is missing at its ends counts too.
    let json = up.reconcile("date,campaign,currency,spend\n", &["--json", "--month", &day[..7]]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["differences"][0]["what"], &json["differences"][0]["leaves"]), (&json!("missing there"), &json!(leaves)));
    let outside = up.reconcile("date,campaign,currency,spend\n2020-01-01,spring,USD,1\n", &["--month", &day[..7]]);
    let outside = String::from_utf8(outside.stderr).unwrap();
    assert!(outside.contains("report.csv: row 2, column date: 2020-01-01 is not from"), "{outside}");
}
