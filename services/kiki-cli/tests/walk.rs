//! The walk of docs/guardrails.md, played: every command in it is run against a platform of its own, and has to answer
//! what the text says it answers.
//!
//! A block of `sh` is run by a shell in one folder; the block of `text` behind it is its answer, in which `...` stands
//! for anything. `sh until` is run until its answer is that, because another process has to hear of something first;
//! `sh fails` has to fail.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiki::clock::monotonic;

/// How long something may take to be heard of: SyncFlow starts anew with a stream that broke after 10 s.
const PATIENCE: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `kiki up` on ports of its own, as a process that ends with the test.
struct Platform {
    child: Child,
    /// The addresses that the text names, and those that this one has.
    addresses: Vec<(&'static str, String)>,
}

impl Platform {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.args(["up", "--ports", "auto"]).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut platform = Self { child, addresses: Vec::new() };
        for line in lines.take_while(|line| line != "ready") {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["syncflow", _, http] => platform.addresses.push(("http://127.0.0.1:8080", http.to_owned())),
                ["syncshield", grpc, http] => {
                    platform.addresses.push(("http://127.0.0.1:8081", http.to_owned()));
                    platform.addresses.push(("http://127.0.0.1:50053", format!("http://{grpc}")));
                }
                _ => {}
            }
        }
        assert_eq!(platform.addresses.len(), 3, "the platform did not start");
        platform
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A block of the text with its answer.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    until: bool,
    fails: bool,
    script: String,
    answer: Option<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let script = body.join("\n");
        match fence {
            "sh" | "sh until" | "sh fails" => {
                steps.push(Step { line: at + 1, until: fence == "sh until", fails: fence == "sh fails", script, answer: None });
            }
            "text" => {
                let step = steps.last_mut().unwrap();
                assert!(step.answer.replace(script).is_none(), "line {}: a second answer", at + 1);
            }
            "" => {} // not a command of the walk
            other => panic!("line {}: a block of {other:?}", at + 1),
        }
    }
    steps
}

/// Whether the answer is the pattern's, `...` standing for anything.
fn is(pattern: &str, answer: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| answer.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

fn lines(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// Runs it once; the answer, and what is wrong with it.
fn once(step: &Step, script: &str, folder: &Path, shield: &str) -> Result<(), String> {
    let kiki = Path::new(env!("CARGO_BIN_EXE_kiki")).parent().unwrap();
    let path = format!("{}:{}", kiki.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-euc", script]).current_dir(folder).env("PATH", path).env("KIKI_SHIELD", shield).output();
    let output = output.unwrap();
    let said = [&output.stdout, &output.stderr].map(|text| lines(&String::from_utf8_lossy(text))).concat();
    if output.status.success() == step.fails {
        return Err(format!("ended with {}: {said}", output.status));
    }
    match &step.answer {
        Some(answer) if !is(&lines(answer), &said) => Err(format!("said\n{said}\nand not\n{answer}")),
        _ => Ok(()),
    }
}

#[test]
fn every_command_of_the_walk_answers_as_the_text_says() {
    assert!(Command::new("curl").arg("--version").output().is_ok(), "the walk needs curl (Debian: apt-get install curl)");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("docs"), folder.path().join("docs")).unwrap();
    let platform = Platform::start(folder.path());
    let steps = steps(&std::fs::read_to_string(root().join("docs/guardrails.md")).unwrap());
    assert!(steps.len() > 10, "the walk has {} steps", steps.len());
    for step in steps {
        let script = platform.addresses.iter().fold(step.script.clone(), |script, (told, real)| script.replace(told, real));
        let begun = monotonic();
        let mut done = once(&step, &script, folder.path(), &platform.addresses[2].1);
        // Each try is a process or two, so this does not spin.
        while step.until && done.is_err() && monotonic() - begun < PATIENCE {
            done = once(&step, &script, folder.path(), &platform.addresses[2].1);
        }
        done.unwrap_or_else(|wrong| panic!("docs/guardrails.md:{}: {}\n{wrong}", step.line, step.script));
    }
}

#[test]
fn an_answer_is_held_against_its_pattern() {
    assert!(is("a ... c", "a b c") && is("...", "") && is("a", "a") && is("a...", "ab") && is("...b...", "abc"));
    assert!(!is("a ... c", "a b d") && !is("a", "ab") && !is("b...", "ab") && !is("...a...b", "ba"));
}
