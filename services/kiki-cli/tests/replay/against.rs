//! `kiki replay --against`: the four services are processes of their own, started as containers start them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::{Input, bundles, kiki, recompute, result, run, said};

/// How often a service is asked whether it serves: every 20 ms or more for 40 s.
const LOOKS: u32 = 2_000;

/// A service that runs; killed at the end.
struct Process {
    child: Child,
    grpc: String,
    http: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names and values of an environment.
type Env = Vec<(String, String)>;

impl Process {
    /// Starts a service and waits until it serves. What it is told may depend on where its HTTP face is.
    fn start(name: &str, env: impl Fn(&str) -> Env) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_kiki")).with_file_name(name);
        assert!(binary.exists(), "{} is not there: `cargo test --workspace` builds it", binary.display());
        // A port that was free may be another's by the time that it is asked for.
        (0..4).find_map(|_| Self::try_start(&binary, &env)).unwrap_or_else(|| panic!("{name} ends at its start"))
    }

    /// None where it ended at once.
    fn try_start(binary: &Path, env: impl Fn(&str) -> Env) -> Option<Self> {
        let [grpc, http] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
        let env = env(&format!("http://{http}"));
        let command = || {
            let mut command = Command::new(binary);
            command.args(["--grpc", &grpc, "--http", &http]).envs(env.iter().cloned()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let child = command().spawn().unwrap();
        let mut process = Self { child, http: format!("http://{http}"), grpc: format!("http://{grpc}") };
        for _ in 0..LOOKS {
            if process.child.try_wait().unwrap().is_some() {
                return None;
            }
            if command().arg("health").status().unwrap().success() {
                return Some(process);
            }
            sleep(Duration::from_millis(20)); // between two looks
        }
        panic!("{} does not serve", binary.display());
    }
}

/// A platform of four processes.
struct Services {
    shield: Process,
    value: Process,
    flow: Process,
    billing: Process,
    folder: PathBuf,
}

impl Services {
    /// Starts them in a folder, told what `--print-env` says, and of lists that they are empty.
    fn start(folder: &Path) -> Self {
        run(kiki(&["keys"]).arg(folder.join("keys")));
        let path = |name: &str| folder.join(name).display().to_string();
        let empty =
            ["KIKI_WITNESSES", "KIKI_PEER_LOGS", "KIKI_VALUE_STATES", "KIKI_NO_BID_REASONS", "KIKI_TRIP_CPM_JUMP", "KIKI_FREQUENCY"];
        let paths = [
            ("KIKI_PSEUDONYM_KEY", "keys/pseudonym.key"),
            ("KIKI_RECEIPT_KEY", "keys/receipt.key"),
            ("KIKI_SHIELD_DATA", "shield"),
            ("KIKI_VALUE_DATA", "value"),
            ("KIKI_VALUE_MODELS", "models"),
            ("KIKI_BILLING_DATA", "billing"),
            ("KIKI_LOG_KEY", "shield/log.pub"),
        ];
        let told = |http: &str| {
            let mut env = printed(http);
            env.extend(empty.map(|name| (name.to_owned(), String::new())));
            env.extend(paths.map(|(name, at)| (name.to_owned(), path(at))));
            env
        };
        let with = |http: &str, names: &[(&str, &str)]| {
            [told(http), names.iter().map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect()].concat()
        };
        let shield = Process::start("syncshield", told);
        let value = Process::start("syncvalue", |http| with(http, &[("KIKI_SHIELD", &shield.grpc)]));
        let flow = Process::start("syncflow", |http| with(http, &[("KIKI_SHIELD", &shield.grpc), ("KIKI_VALUE", &value.grpc)]));
        let billing = Process::start("billing", |http| with(http, &[("KIKI_SHIELD", &shield.grpc)]));
        Self { shield, value, flow, billing, folder: folder.to_owned() }
    }

    fn log_key(&self) -> PathBuf {
        self.folder.join("shield/log.pub")
    }

    /// The command, told where they are.
    fn told(&self, mut command: Command) -> Command {
        let Self { shield, value, flow, billing, .. } = self;
        for (name, process) in [("SHIELD", shield), ("VALUE", value), ("FLOW", flow), ("BILLING", billing)] {
            command.env(format!("KIKI_{name}"), &process.grpc).env(format!("KIKI_{name}_URL"), &process.http);
        }
        command.env("KIKI_REPLAY_AGAINST", "true").env("KIKI_LOG_KEY", self.log_key());
        command
    }

    /// A replay against them.
    fn replay(&self, input: &Input, name: &str, more: &[&str]) -> Command {
        self.told(input.replay(name, more))
    }
}

/// What `kiki replay --print-env` says where SyncFlow's HTTP face is there.
fn printed(http: &str) -> Env {
    let text = run(&mut kiki(&["replay", "--print-env", "--flow-url", http]));
    text.lines().map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Its invoices verify under the key of the services' log, and by the script that shares no code with us; the log audits.
fn verify(services: Services, dir: &Path) {
    assert_eq!(result(dir)["wrong"], Value::Array(vec![]));
    assert_eq!(result(dir)["settled_nanos"], result(dir)["exchange_nanos"], "the log and the exchange differ");
    let key = services.log_key();
    run(kiki(&["invoice", "verify", "--log-key"]).arg(&key).args(bundles(dir)));
    recompute(dir);
    let log = services.folder.join("shield");
    drop(services);
    run(kiki(&["audit", "verify", "--log-key"]).arg(key).arg(log));
}

#[test]
fn a_month_against_four_processes_is_the_month_of_one() {
    let input = Input::new();
    run(&mut input.replay("alone", &[]));
    let services = Services::start(&input.path("services"));
    let said = run(&mut services.replay(&input, "against", &[]));
    let [alone, against] = ["alone", "against"].map(|name| result(&input.path(name)));
    assert!(alone["comparable"] == true && against["comparable"] == true, "a prediction came late: {alone} {against}");
    for what in
        ["decision_sha256", "bids", "no_bids", "wins", "notices", "settled_nanos", "conversions", "predicted_ltv_micros", "invoices"]
    {
        assert_eq!(alone[what], against[what], "{what} differs: {said}");
    }
    assert!(against["conversions"].as_u64().unwrap() > 0 && said.contains("verified            log, "), "{said}");

    // What it left in the log stays there.
    let again = services.replay(&input, "again", &[]).output().unwrap();
    assert!(!again.status.success() && super::said(&again).contains("leaves already"), "{}", super::said(&again));
    assert!(!input.path("again").exists(), "and nothing is begun");
    verify(services, &input.path("against"));
}

#[test]
fn a_month_against_services_goes_on_where_it_was_cut_off() {
    let input = Input::new();
    let services = Services::start(&input.path("services"));
    let dir = input.path("run");
    for lines in [1, 150, 400] {
        let mut child = services.replay(&input, "run", &["--resume"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while fs::read_to_string(dir.join("exchange.jsonl")).map_or(0, |text| text.lines().count()) < lines {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {lines} lines");
            sleep(Duration::from_millis(1)); // polls: the process is not told that it is watched
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run(&mut services.replay(&input, "run", &["--resume"]));
    verify(services, &dir);
}

#[test]
fn services_on_the_systems_clock_are_not_played_against() {
    let input = Input::new();
    let data = input.path("shield").display().to_string();
    let shield = Process::start("syncshield", |_| vec![("KIKI_SHIELD_DATA".to_owned(), data.clone())]);
    let replay = |args: &[&str]| {
        let output = input.replay("run", args).env("KIKI_SHIELD", &shield.grpc).env("KIKI_SHIELD_URL", &shield.http).output().unwrap();
        assert!(!output.status.success());
        said(&output)
    };
    let unkeyed = replay(&["--against"]);
    assert!(unkeyed.contains("--log-key"), "{unkeyed}");
    let refused = replay(&["--against", "--log-key", &format!("{data}/log.pub")]);
    assert!(refused.contains(&format!("{} is on the system's clock", shield.http)), "{refused}");
}
