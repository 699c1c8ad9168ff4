//! A client in another language: tests/python_client.py against a running platform.
//!
//! Where there is no Python, the test says on standard error that it did not run, captured output or not, and passes;
//! with KIKI_REQUIRE_PYTHON set, as in `.ci/run`, it fails.

use std::path::Path;
use std::process::Command;

use kiki_cli::platform::{Platform, PlatformConfig, Ports};

use crate::python::python;

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_with_reflection_gets_answers_from_every_service() {
    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(data.path()) }).await.unwrap();
    let at = platform.endpoints.clone();
    let client = move || {
        let addresses = [at.value, at.flow, at.shield, at.billing].map(|address| address.trim_start_matches("http://").to_owned());
        Command::new(python).arg(Path::new(crate::ROOT).join("tests/python_client.py")).args(addresses).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(client).await.unwrap();
    platform.stop().await.unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("");
    assert!(output.status.success() && said.contains("all answers as they should be"), "{said}");
    println!("{said}");
}
