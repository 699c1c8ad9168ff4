//! The rules of the tree: who may import whom, where a float or a clock may stand, how long things get.
//!
//! Each rule is a function from a file's path and text to the places that break it, so that its unit test can hand it
//! a breach and see the culprit named. `the_tree_keeps_every_rule` runs all of them over the real tree.
//!
//! It reads tokens, not types: a name that reaches a file through somebody else's re-export goes unseen.

mod manifest;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// A place that breaks a rule: `path:line: what is wrong`.
type Culprits = Vec<String>;
type Rule = fn(&str, &str) -> Culprits;

const RULES: [(&str, Rule); 11] = [
    ("a service talks to another by gRPC, never by import", manifest::no_service_imports_another),
    ("every version stands in the workspace's table", manifest::every_dependency_is_the_workspaces),
    ("every crate has the workspace's lints", manifest::every_crate_has_the_workspaces_lints),
    ("a domain is free of I/O, protobuf services and clocks", rules::domains_are_pure),
    ("inside a service: rpc -> store, clients -> domain, never back", rules::imports_point_inwards),
    ("money has no floats", rules::money_has_no_floats),
    ("only the clock and the runtime read the system's clocks", rules::clocks_are_read_in_their_place),
    ("a main is at most 30 lines", rules::mains_are_short),
    ("foo.rs stands beside foo/", rules::there_is_no_mod_rs),
    ("no unsafe", rules::nothing_is_unsafe),
    ("a handler is at most 25 lines, any function 70", rules::functions_are_short),
];

#[test]
fn the_tree_keeps_every_rule() {
    let files = tree();
    assert!(files.len() > 50, "found only {} files: the walk is broken", files.len());
    let broken: Vec<String> = RULES
        .iter()
        .flat_map(|(rule, check)| {
            files.iter().flat_map(move |(path, text)| check(path, text)).map(move |culprit| format!("{culprit}  [{rule}]"))
        })
        .collect();
    assert!(broken.is_empty(), "{} places break the rules of the tree:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn the_documents_link_to_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let broken: Vec<String> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .iter()
        .map(|name| (name, fs::read_to_string(root.join(name)).unwrap()))
        .flat_map(|(name, text)| links(&text).into_iter().map(move |link| (name, link)))
        .filter(|(_, link)| !link.starts_with("http") && !root.join(link.split('#').next().unwrap()).exists())
        .map(|(name, link)| format!("{name}: {link}"))
        .collect();
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    assert_eq!(links("a [b](c.md) and [d](e/f.rs#L1)"), ["c.md", "e/f.rs#L1"]);
}

fn links(text: &str) -> Vec<String> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned()).collect()
}

/// Every source file and manifest: its path from the root, with `/`, and its text.
fn tree() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "services", "tests"].map(|folder| root.join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") || path.ends_with("Cargo.toml") {
                files.push(path);
            }
        }
    }
    files.extend([root.join("Cargo.toml"), root.join("build.rs")]);
    files.sort();
    let named = |path: PathBuf| (path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"), fs::read_to_string(&path).unwrap());
    files.into_iter().map(named).collect()
}
