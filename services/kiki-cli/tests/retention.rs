//! What is kept, from outside: personal data reported to SyncFlow, exported, shown and erased; old segments pruned.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::{ReportConversionsRequest, ReportedConversion};
use kiki::pb::syncshield::v1::PutCampaignRequest;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki_cli::platform::{Platform, PlatformConfig, Ports};

const EMAIL: &str = "ada.lovelace@example.com";

fn kiki(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kiki")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn export(data: &Path, more: &[&str]) -> String {
    kiki(&[&["audit", "export", data.to_str().unwrap()], more].concat())
}

async fn report(platform: &Platform) {
    let mut shield = SyncShieldServiceClient::connect(platform.endpoints.shield.clone()).await.unwrap();
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    shield.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    let conversion = |event: &str, customer: &str, personal: &[u8]| ReportedConversion {
        client: "acme".into(),
        event_id: event.into(),
        customer: customer.into(),
        currency: "USD".into(),
        value_micros: 40_000_000,
        occurred_at: Some(UnixMicros(1_770_000_000_000_000).into()),
        personal: personal.to_vec().into(),
        ..Default::default()
    };
    let conversions =
        vec![conversion("order-1", "ada", EMAIL.as_bytes()), conversion("order-2", "bob", &[0xff, 1]), conversion("order-3", "cy", b"")];
    let mut flow = SyncFlowServiceClient::connect(platform.endpoints.flow.clone()).await.unwrap();
    flow.report_conversions(ReportConversionsRequest { conversions }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_is_shown_exported_and_erased() {
    let dir = tempfile::tempdir().unwrap();
    let platform = Platform::start(PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(dir.path()) }).await.unwrap();
    report(&platform).await;
    let addr = platform.endpoints.shield.clone();
    let key = dir.path().join("keys/pseudonym.key");
    let show = || kiki(&["subject", "show", "--addr", &addr, "--client", "acme", "--event", "order-1"]);
    let erase = |customer: &str| {
        let names = ["--client", "acme", "--customer", customer, "--reason", "article 17", "--pseudonym-key", key.to_str().unwrap()];
        let erased = Command::new(env!("CARGO_BIN_EXE_kiki")).args(["subject", "erase", "--addr", &addr]).args(names).output().unwrap();
        let said = [erased.stdout, erased.stderr].concat();
        (erased.status.success(), String::from_utf8(said).unwrap())
    };
    assert!(show().contains(EMAIL), "{}", show());
    let (sealed, opened) = (export(dir.path(), &[]), export(dir.path(), &["--unseal"]));
    assert!(!sealed.contains(EMAIL) && sealed.lines().count() == opened.lines().count());
    let personal = |text: &str| -> Vec<serde_json::Value> {
        let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.map(|mut record| record["personal"].take()).filter(|personal| !personal.is_null()).collect()
    };
    assert_eq!(personal(&opened), [serde_json::json!({ "text": EMAIL }), serde_json::json!({ "hex": "ff01" })]);

    let (done, said) = erase("ada");
    assert!(done && said.starts_with("erased: leaf "), "{said}");
    let (done, again) = erase("ada");
    assert!(done && again == said.replace("erased:", "was erased before:"), "{again}");
    let (done, said) = erase("cy");
    assert!(!done && said.starts_with("kiki: nothing is sealed for this customer"), "{said}");
    assert!(show().contains("erased, says leaf") && !show().contains(EMAIL));
    let opened = export(dir.path(), &["--unseal"]);
    assert_eq!(personal(&opened), [serde_json::json!({ "erased": true }), serde_json::json!({ "hex": "ff01" })]);
    let rows = export(dir.path(), &["--unseal", "--format", "csv"]);
    assert!(rows.lines().next().unwrap().ends_with(",body,personal") && rows.contains(r#""{""erased"":true}""#), "{rows}");

    let row = |n: u32| format!("bulk-{n},customer-{n},USD,20,2026-01-31T12:00:00Z,reference {n}\n");
    let csv = (0..1_500).fold("event_id,customer,currency,value,occurred_at,personal\n".to_owned(), |csv, n| csv + &row(n));
    let file = dir.path().join("purchases.csv");
    std::fs::write(&file, csv).unwrap();
    let flow = &platform.endpoints.flow;
    let put = || kiki(&["put", "purchases", "--client", "acme", "--flow", flow, file.to_str().unwrap()]);
    assert_eq!(put(), "purchases of acme\n  recorded             1500\n  known before         0\n  acquired a customer  0\n");
    assert!(put().contains("known before         1500"));
    let said = kiki(&["subject", "show", "--addr", &addr, "--client", "acme", "--event", "bulk-1499"]);
    assert!(said.contains("reference 1499"), "{said}");
    a_reader_may_stop(dir.path());
    platform.stop().await.unwrap();
}

/// `kiki audit export | head -1`, of more than a pipe holds.
fn a_reader_may_stop(data: &Path) {
    let mut export = Command::new(env!("CARGO_BIN_EXE_kiki"));
    let mut export = export.args(["audit", "export"]).arg(data).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(export.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = export.wait_with_output().unwrap();
    assert!(line.starts_with('{') && ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_pruned_while_nobody_serves_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cold) = (dir.path().join("data"), dir.path().join("cold"));
    let platform = Platform::start(PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(&data) }).await.unwrap();
    let prune = ["audit", "prune", data.to_str().unwrap(), "--keep-days", "30", "--to", cold.to_str().unwrap()];
    let refused = Command::new(env!("CARGO_BIN_EXE_kiki")).args(prune).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("another process holds"), "{said}");
    report(&platform).await;
    platform.stop().await.unwrap();
    let said = kiki(&prune);
    assert!(said.contains("0 segments") && said.contains("what is left is one segment"), "{said}");
}
