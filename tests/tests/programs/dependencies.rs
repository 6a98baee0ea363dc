//! What the workspace depends on is what `.cargo/deny.toml` allows.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

fn quoted(line: &str) -> Option<&str> {
    line.split('"').nth(1)
}

/// The strings of one list of the deny file (its form is simple enough to be read by line).
fn list(text: &str, section: &str, key: &str) -> BTreeSet<String> {
    let mut inside = (false, false);
    let mut out = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') && line.ends_with(']') && !line.contains('"') {
            inside = (line == format!("[{section}]"), false);
        } else if inside.0 && line.starts_with(&format!("{key} = [")) {
            inside.1 = true;
        }
        if inside == (true, true) && !line.starts_with('#') {
            out.extend(quoted(line).map(str::to_owned));
            if line.ends_with(']') {
                inside.1 = false;
            }
        }
    }
    out
}

/// Whether an SPDX expression can be met from `allowed`: every `AND` part has one allowed `OR` choice.
fn allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let plain = expression.replace('/', " OR ");
    plain.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|choice| allowed.contains(choice.trim().trim_matches(|c| c == '(' || c == ')')))
    })
}

/// What may depend on a banned package all the same: its `wrappers`.
fn wrappers(text: &str) -> BTreeSet<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            let (name, wrapper) = line.split_once("wrappers = [")?;
            Some((quoted(name)?, quoted(wrapper)?))
        })
        .collect()
}

#[test]
fn dependencies_are_those_that_the_deny_list_allows() {
    let text = std::fs::read_to_string(tests::root().join(".cargo/deny.toml")).expect("the deny list");
    let (banned, licenses) = (list(&text, "bans", "deny"), list(&text, "licenses", "allow"));
    assert!(banned.len() >= 7 && licenses.len() >= 14, "the deny list was not read: {banned:?} {licenses:?}");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(tests::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|n| n["id"].as_str())
        .collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    // Whether every package that depends on a banned one may.
    let wrappers = wrappers(&text);
    let is_wrapped = |banned: &str| {
        let by = metadata["packages"].as_array().into_iter().flatten().filter(|package| {
            let of = package["dependencies"].as_array().into_iter().flatten();
            used.contains(package["id"].as_str().unwrap_or_default())
                && of.clone().any(|dependency| dependency["name"] == banned)
        });
        let mut by = by.filter_map(|package| package["name"].as_str()).peekable();
        by.peek().is_some() && by.all(|name| wrappers.contains(&(banned, name)))
    };
    for package in metadata["packages"].as_array().expect("packages") {
        if !used.contains(package["id"].as_str().unwrap_or_default()) || package["source"].is_null() {
            continue;
        }
        checked += 1;
        let name = package["name"].as_str().unwrap_or_default();
        if banned.contains(name) && !is_wrapped(name) {
            wrong.push(format!("`{name}` is banned"));
        }
        let license = package["license"].as_str().unwrap_or_default();
        if !allowed(license, &licenses) {
            wrong.push(format!("`{name}` has the licence `{license}`"));
        }
        if package["source"] != "registry+https://github.com/rust-lang/crates.io-index" {
            wrong.push(format!("`{name}` comes from {}", package["source"]));
        }
    }
    assert!(checked > 100, "only {checked} dependencies were seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
