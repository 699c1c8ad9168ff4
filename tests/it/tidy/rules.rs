//! Rules over Rust sources.

use super::Culprits;
use super::source::{code, functions, paths, shipped, tokens};

/// What a domain, and the root's pure modules, may not reach for: I/O, the wire, the shells of their own service.
const IMPURE: [&str; 20] = [
    "tonic",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "axum",
    "hyper",
    "sqlx",
    "prometheus",
    "kiki::pb",
    "kiki::runtime",
    "kiki::status",
    "kiki::caller",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "crate::pb",
    "crate::runtime",
    "crate::status",
];
/// Names that are a clock, wherever they come from.
const CLOCKS: [&str; 5] = ["Clock", "VirtualClock", "monotonic", "SystemTime", "Instant"];
/// The layers of a service that its domain may not see.
const SHELLS: [&str; 5] = ["crate::rpc", "crate::store", "crate::clients", "crate::config", "crate::http"];
/// Lines of a main, of a gRPC handler, and of any function.
const MAIN_LINES: usize = 30;
const HANDLER_LINES: usize = 25;
const FUNCTION_LINES: usize = 70;

/// The file's place inside its service's `src`, where it has one.
fn in_service(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("services/")?.split_once("/src/")
}

fn is_module(inside: &str, module: &str) -> bool {
    inside == format!("{module}.rs") || inside.starts_with(&format!("{module}/"))
}

/// A file of unit tests that stands beside what it tests.
fn is_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}

fn reaches(path: &[String], forbidden: &str) -> bool {
    forbidden.split("::").eq(path.iter().take(forbidden.split("::").count()).map(String::as_str))
}

/// The lines whose paths start with one of the forbidden ones.
fn forbid(path: &str, code: &str, forbidden: &[&str]) -> Culprits {
    let hit = |found: &[String]| forbidden.iter().find(|f| reaches(found, f)).map(|f| (*f).to_owned());
    let mut culprits: Culprits =
        paths(code).into_iter().filter_map(|(line, found)| hit(&found).map(|what| format!("{path}:{line}: uses {what}"))).collect();
    culprits.dedup(); // one `use` of several names
    culprits
}

/// Folds, prices and fees depend on their arguments alone, so that anyone can compute them again.
pub(super) fn domains_are_pure(path: &str, text: &str) -> Culprits {
    let root = ["attribution", "country", "framed", "guardrail", "money", "tlog"];
    let domain = in_service(path).is_some_and(|(service, inside)| service != "kiki-cli" && is_module(inside, "domain"));
    let shared = path.strip_prefix("src/").is_some_and(|inside| root.iter().any(|module| is_module(inside, module)));
    if !domain && !shared {
        return Vec::new();
    }
    let code = if is_tests(path) { code(text) } else { shipped(text) };
    let mut culprits = forbid(path, &code, &IMPURE);
    culprits.extend(forbid(path, &code, if domain { &SHELLS } else { &[] }));
    let clocks = tokens(&code).into_iter().filter(|(_, word)| CLOCKS.contains(word));
    culprits.extend(clocks.map(|(line, word)| format!("{path}:{line}: uses {word}")));
    culprits
}

/// `rpc -> {domain, store, clients}` and `store, clients -> domain`.
pub(super) fn imports_point_inwards(path: &str, text: &str) -> Culprits {
    let Some((_, inside)) = in_service(path).filter(|(service, _)| *service != "kiki-cli") else { return Vec::new() };
    let forbidden: &[&str] = match inside {
        _ if is_module(inside, "store") => &["crate::rpc", "crate::clients", "crate::http"],
        _ if is_module(inside, "clients") => &["crate::rpc", "crate::store", "crate::http"],
        _ => return Vec::new(),
    };
    forbid(path, &shipped(text), forbidden)
}

/// Billing, the budgets, and what the root says of money. What Prometheus is shown may be one, and where on a page something stands.
pub(super) fn money_has_no_floats(path: &str, text: &str) -> Culprits {
    let shown = ["metrics.rs", "domain/document/pdf/canvas.rs"];
    let service = in_service(path).filter(|(service, inside)| matches!(*service, "billing" | "syncshield") && !shown.contains(inside));
    if (service.is_none() && !matches!(path, "src/money.rs" | "src/attribution.rs")) || is_tests(path) {
        return Vec::new();
    }
    let is_float = |word: &str| {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        let exponent = number && !word.starts_with("0x") && word.contains(['e', 'E']) && !word.contains(['u', 'i']);
        word.contains("f64") || word.contains("f32") || (number && word.contains('.')) || exponent
    };
    let shipped = shipped(text);
    // `x.0.1` reads like a fraction; a field is told by the point ahead of it.
    let tokens = tokens(&shipped);
    let field = |at: usize| at > 0 && tokens[at - 1].1 == ".";
    let floats = tokens
        .iter()
        .enumerate()
        .filter(|(at, (_, word))| is_float(word) && !(field(*at) && word.starts_with(|c: char| c.is_ascii_digit())));
    floats.map(|(_, (line, word))| format!("{path}:{line}: uses the float {word}")).collect()
}

/// The lint that forbids it elsewhere is turned off in two places, and nowhere else.
pub(super) fn clocks_are_read_in_their_place(path: &str, text: &str) -> Culprits {
    if matches!(path, "src/clock.rs" | "src/runtime.rs") {
        return Vec::new();
    }
    let code = code(text);
    let words = tokens(&code);
    let allowed = words.iter().filter(|(_, word)| *word == "disallowed_methods");
    allowed.map(|(line, _)| format!("{path}:{line}: turns off the lint on clocks")).collect()
}

/// Configuration and wiring; the rest is the library's.
pub(super) fn mains_are_short(path: &str, text: &str) -> Culprits {
    let lines = text.lines().count();
    let main = in_service(path).is_some_and(|(service, inside)| inside == "main.rs" && service != "kiki-cli");
    if main && lines > MAIN_LINES { vec![format!("{path}:{MAIN_LINES}: has {lines} lines, at most {MAIN_LINES}")] } else { Vec::new() }
}

/// One way to lay out a module.
pub(super) fn there_is_no_mod_rs(path: &str, _: &str) -> Culprits {
    if path.ends_with("/mod.rs") { vec![format!("{path}:1: is a mod.rs")] } else { Vec::new() }
}

/// The lint forbids the code; this the lint's absence, and any way around it.
pub(super) fn nothing_is_unsafe(path: &str, text: &str) -> Culprits {
    let code = code(text);
    let words = tokens(&code);
    let found = words.iter().filter(|(_, word)| *word == "unsafe" || (*word == "unsafe_code" && !path.ends_with("Cargo.toml")));
    found.map(|(line, word)| format!("{path}:{line}: {word}")).collect()
}

/// A handler decodes, makes one domain call, encodes.
pub(super) fn functions_are_short(path: &str, text: &str) -> Culprits {
    let Some((_, inside)) = in_service(path).or_else(|| path.split_once("src/")) else { return Vec::new() };
    if is_tests(path) {
        return Vec::new();
    }
    let is_handler = |head: &str| is_module(inside, "rpc") && ["async fn", "Request<", "Response<"].iter().all(|part| head.contains(part));
    let limit = |head: &str| if is_handler(head) { HANDLER_LINES } else { FUNCTION_LINES };
    functions(&shipped(text))
        .into_iter()
        .filter(|f| f.lines > limit(&f.head))
        .map(|f| format!("{path}:{}: {} has {} lines, at most {}", f.line, f.name, f.lines, limit(&f.head)))
        .collect()
}

#[test]
fn an_impure_domain_is_named() {
    let path = "services/billing/src/domain/fee.rs";
    let breach = |text: &str| domains_are_pure(path, text);
    assert_eq!(breach("use tonic::Status;"), [format!("{path}:1: uses tonic")]);
    assert_eq!(breach("\nuse kiki::{money, pb::log};"), [format!("{path}:2: uses kiki::pb")]);
    assert_eq!(breach("fn f() { std::fs::read(\"x\"); }"), [format!("{path}:1: uses std::fs")]);
    assert_eq!(breach("fn f(c: kiki::clock::Clock) {}"), [format!("{path}:1: uses Clock")]);
    assert_eq!(breach("fn f() { time::SystemTime::now(); }"), [format!("{path}:1: uses SystemTime")]);
    assert_eq!(breach("use crate::store::Store;"), [format!("{path}:1: uses crate::store")]);
    assert_eq!(domains_are_pure("src/money.rs", "use tokio::time;"), ["src/money.rs:1: uses tokio"]);
    assert!(breach("use kiki::clock::UnixMicros; // no tokio\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}").is_empty());
    assert!(domains_are_pure("services/billing/src/rpc.rs", "use tonic::Status;").is_empty());
}

#[test]
fn a_store_that_knows_its_callers_is_named() {
    let path = "services/billing/src/store/fold.rs";
    assert_eq!(imports_point_inwards(path, "use crate::rpc::Server;"), [format!("{path}:1: uses crate::rpc")]);
    assert_eq!(imports_point_inwards("services/syncflow/src/clients.rs", "use crate::{domain, store};").len(), 1);
    assert!(imports_point_inwards("services/billing/src/rpc.rs", "use crate::store;").is_empty());
}

#[test]
fn a_float_in_money_is_named() {
    let path = "services/syncshield/src/domain/budget.rs";
    for text in ["let a: f64 = x;", "a as f32", "let a = 1.5;", "let a = 1e9;", "let a = 1_f64;"] {
        assert_eq!(money_has_no_floats(path, text).len(), 1, "{text}");
    }
    assert_eq!(money_has_no_floats("src/money.rs", "\nf(1.0)"), ["src/money.rs:2: uses the float 1.0"]);
    assert!(money_has_no_floats(path, "let a = x.0.1; let b = 0x1e; for i in 1..5 {} // 1.5\n").is_empty());
    assert!(money_has_no_floats("services/syncvalue/src/domain/fit.rs", "let a: f64 = 1.5;").is_empty());
}

#[test]
fn a_clock_read_elsewhere_is_named() {
    let text = "#![allow(clippy::disallowed_methods)]";
    assert_eq!(clocks_are_read_in_their_place("services/billing/src/lib.rs", text).len(), 1);
    assert!(clocks_are_read_in_their_place("src/clock.rs", text).is_empty());
}

#[test]
fn a_long_main_is_named() {
    let path = "services/billing/src/main.rs";
    assert_eq!(mains_are_short(path, &"\n".repeat(31)), [format!("{path}:30: has 31 lines, at most 30")]);
    assert!(mains_are_short(path, &"\n".repeat(30)).is_empty());
}

#[test]
fn a_mod_rs_is_named() {
    assert_eq!(there_is_no_mod_rs("src/tlog/mod.rs", ""), ["src/tlog/mod.rs:1: is a mod.rs"]);
    assert!(there_is_no_mod_rs("src/tlog.rs", "").is_empty());
}

#[test]
fn unsafe_code_and_its_permission_are_named() {
    let text = "fn f() {\n    unsafe { g() }\n}\n#[allow(unsafe_code)]";
    assert_eq!(nothing_is_unsafe("src/a.rs", text), ["src/a.rs:2: unsafe", "src/a.rs:4: unsafe_code"]);
}

#[test]
fn a_long_handler_and_a_long_function_are_named() {
    let function = |head: &str, lines: usize| format!("    {head} {{\n{}    }}\n", "        a();\n".repeat(lines - 2));
    let path = "services/billing/src/rpc.rs";
    let handler = "async fn list_invoices(&self, r: Request<A>) -> Result<Response<B>, Status>";
    let culprits = functions_are_short(path, &function(handler, 26));
    assert_eq!(culprits, [format!("{path}:1: list_invoices has 26 lines, at most 25")]);
    assert!(functions_are_short(path, &function(handler, 25)).is_empty());
    assert!(functions_are_short(path, &function("fn decode()", 70)).is_empty());
    assert_eq!(functions_are_short("src/tlog.rs", &function("fn root()", 71)).len(), 1);
}
