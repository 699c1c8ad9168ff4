//! Python with what the scripts of tests/ need. Where there is none, that is said on standard error, captured output or not; with
//! KIKI_REQUIRE_PYTHON set, as in `.ci/run`, it fails.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The interpreter of a venv that has what the scripts need. Made by whichever test comes first.
pub(crate) fn python() -> Option<PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(make).clone()
}

/// Once a target folder.
fn make() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = venv.join("bin/python");
    let wanted = std::fs::read_to_string(Path::new(super::ROOT).join("tests/requirements.txt")).unwrap();
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
    let output = command.current_dir(super::ROOT).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
