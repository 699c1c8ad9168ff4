//! A client in another language: tests/python_client.py against a running platform.
//!
//! Where there is no Python, the test says on standard error that it did not run, captured output or not, and passes;
//! with KIKI_REQUIRE_PYTHON set, as in `.ci/run`, it fails.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use kiki_cli::platform::{Platform, PlatformConfig, Ports};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_with_reflection_gets_answers_from_every_service() {
    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(data.path()) }).await.unwrap();
    let at = platform.endpoints.clone();
    let client = move || {
        let addresses = [at.value, at.flow, at.shield, at.billing].map(|address| address.trim_start_matches("http://").to_owned());
        Command::new(python).arg(Path::new(ROOT).join("tests/python_client.py")).args(addresses).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(client).await.unwrap();
    platform.stop().await.unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("");
    assert!(output.status.success() && said.contains("all answers as they should be"), "{said}");
    println!("{said}");
}

/// The interpreter of a venv that has what the scripts need. Made by whichever test comes first.
pub(crate) fn python() -> Option<PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(make).clone()
}

/// Once a target folder.
fn make() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = venv.join("bin/python");
    let wanted = std::fs::read_to_string(Path::new(ROOT).join("tests/requirements.txt")).unwrap();
    let made = venv.join("made-from");
    if std::fs::read_to_string(&made).is_ok_and(|from| from == wanted) {
        return Some(python);
    }
    if !Command::new("python3").args(["-c", "import venv, ensurepip"]).output().is_ok_and(|o| o.status.success()) {
        let why = "a script of tests/ DID NOT RUN: there is no python3 with venv here (Debian: apt-get install python3-venv)";
        assert!(std::env::var_os("KIKI_REQUIRE_PYTHON").is_none(), "{why}");
        // Not `eprintln!`, which the harness keeps to itself when a test passes.
        writeln!(std::io::stderr(), "{why}").unwrap();
        return None;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "tests/requirements.txt"]));
    std::fs::write(made, wanted).unwrap();
    Some(python)
}

fn run(command: &mut Command) {
    let output = command.current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
