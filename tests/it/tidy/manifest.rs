//! Rules over `Cargo.toml`.

use super::Culprits;

const SERVICES: [&str; 4] = ["billing", "syncflow", "syncshield", "syncvalue"];

/// The lines of a manifest, each with its number and the section that it stands in.
///
/// None of a bench beside other people's code: it has a workspace of its own, so that what it takes is nobody else's.
fn entries<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str, &'a str)> {
    if !path.ends_with("Cargo.toml") || path.contains("/benches/") {
        return Vec::new();
    }
    let mut section = "";
    let mut out = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        }
        if !line.is_empty() {
            out.push((at + 1, section, line));
        }
    }
    out
}

fn is_dependencies(section: &str) -> bool {
    section.ends_with("dependencies") && section != "workspace.dependencies"
}

/// Services know `kiki` alone; of the command and the root's tests they know nothing. Only the command may use services,
/// and the root's tests, as dev-dependencies.
pub(super) fn no_service_imports_another(path: &str, text: &str) -> Culprits {
    let of_command = path == "services/kiki-cli/Cargo.toml";
    let breach = |section: &str, name: &str| {
        let dev_of_root = path == "Cargo.toml" && section == "dev-dependencies";
        is_dependencies(section) && !of_command && !dev_of_root && (SERVICES.contains(&name) || name == "kiki-cli")
    };
    entries(path, text)
        .into_iter()
        .map(|(line, section, entry)| (line, section, entry.split(['.', ' ', '=']).next().unwrap_or_default()))
        .filter(|(_, section, name)| breach(section, name))
        .map(|(line, _, name)| format!("{path}:{line}: imports {name}"))
        .collect()
}

/// No dependency has a version of its own.
pub(super) fn every_dependency_is_the_workspaces(path: &str, text: &str) -> Culprits {
    entries(path, text)
        .into_iter()
        // A table of its own, `[dependencies.x]`, would hide from the line below.
        .filter(|(_, section, entry)| {
            section.contains("dependencies.")
                || (is_dependencies(section) && !entry.starts_with('[') && !entry.replace(' ', "").contains("workspace=true"))
        })
        .map(|(line, _, entry)| format!("{path}:{line}: `{entry}` is not `workspace = true`"))
        .collect()
}

/// A crate without them would be free of every lint.
pub(super) fn every_crate_has_the_workspaces_lints(path: &str, text: &str) -> Culprits {
    let entries = entries(path, text);
    let has = entries.iter().any(|(_, section, entry)| *section == "lints" && entry.replace(' ', "") == "workspace=true");
    if entries.is_empty() || has { Vec::new() } else { vec![format!("{path}:1: has no `[lints] workspace = true`")] }
}

#[test]
fn a_service_that_imports_another_is_named() {
    let text = "[dependencies]\nkiki.workspace = true\nsyncshield.workspace = true\n";
    assert_eq!(no_service_imports_another("services/billing/Cargo.toml", text), ["services/billing/Cargo.toml:3: imports syncshield"]);
    let dev = "[dev-dependencies]\nbilling = { workspace = true }\n";
    assert_eq!(no_service_imports_another("services/syncflow/Cargo.toml", dev), ["services/syncflow/Cargo.toml:2: imports billing"]);
    assert_eq!(no_service_imports_another("Cargo.toml", text), ["Cargo.toml:3: imports syncshield"]);
    assert!(no_service_imports_another("Cargo.toml", dev).is_empty());
    assert!(no_service_imports_another("services/kiki-cli/Cargo.toml", text).is_empty());
}

#[test]
fn a_version_of_ones_own_is_named() {
    let text = "[dependencies]\nserde.workspace = true\nrand = \"0.9\"\n[dependencies.tokio]\nversion = \"1\"\n[package]\nversion = \"1\"";
    let culprits = every_dependency_is_the_workspaces("services/billing/Cargo.toml", text);
    assert_eq!(culprits.len(), 3, "{culprits:?}");
    assert_eq!(culprits[0], "services/billing/Cargo.toml:3: `rand = \"0.9\"` is not `workspace = true`");
}

#[test]
fn a_crate_without_lints_is_named() {
    let path = "services/billing/Cargo.toml";
    assert_eq!(
        every_crate_has_the_workspaces_lints(path, "[package]\n"),
        ["services/billing/Cargo.toml:1: has no `[lints] workspace = true`"]
    );
    assert!(every_crate_has_the_workspaces_lints(path, "[package]\n[lints]\nworkspace = true\n").is_empty());
}
