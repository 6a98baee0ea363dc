//! `gateway check`: all problems at once, or what the configuration means.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use policies::document::{self, Shape};

use super::loaded;
use crate::cli::Check;
use crate::config;
use crate::output;

pub(super) fn run(args: &Check) -> Result<()> {
    if args.schema {
        output::line(config::json_schema().trim_end());
        return Ok(());
    }
    let path = &args.file.config;
    let other = other_command(path);
    ensure!(
        other.is_none(),
        "`{0}` is no `gateway.yaml`, but of `gateway {1}`: check it with `gateway {1} --check -c {0}`",
        path.display(),
        other.unwrap_or_default()
    );
    let loaded = loaded(path)?;
    if args.canonical {
        output::line(std::str::from_utf8(&loaded.canonical).context("canonical JSON is UTF-8")?);
        return Ok(());
    }
    let config = &loaded.config;
    let now = super::now_us();
    let valid = |at: Option<i64>| at.is_none_or(|at| at > now);
    let keys = loaded.keys.entries().filter(|key| valid(key.revoked) && valid(key.expires)).count();
    output::line(format_args!("`{}` is sound", loaded.path.display()));
    output::line(format_args!("  configuration  {}", loaded.hash));
    output::line(format_args!("  logs           {}/{}/<epoch>", config.deployment, config.gateway));
    for route in &config.routes {
        let to = |name: &schemas::Identifier| {
            let provider = config.providers.iter().find(|provider| provider.name == *name);
            format!("{name} ({})", provider.map(|provider| provider.base_url.to_string()).unwrap_or_default())
        };
        let asked = route.providers().map(to).collect::<Vec<_>>().join(", ");
        let some = if route.matching.is_some() { " for what fits" } else { "" };
        let receipts = if route.receipts { ", callers get receipts" } else { "" };
        output::line(format_args!("  route          {}{some} -> {asked}{receipts}", route.path));
    }
    output::line(format_args!("  keys           {keys} valid of {}", loaded.keys.entries().count()));
    match (&loaded.policy, loaded.policy_file()) {
        (Some(policy), Some(file)) => {
            let mode = format!("{:?}", policy.mode()).to_lowercase();
            let rules = policy.rule_ids().count();
            output::line(format_args!("  policy         {rules} rules, {mode}, {}", file.sha256));
        }
        _ => output::line("  policy         none: everything is allowed"),
    }
    match (&loaded.prices, loaded.prices_file()) {
        (Some(book), Some(file)) => {
            output::line(format_args!("  prices         {} rows, {}", book.rows().len(), file.sha256));
        }
        _ => output::line("  prices         none: no cost is recorded"),
    }
    Ok(())
}

/// The command whose configuration a file is, where it is not that of a gateway.
fn other_command(path: &Path) -> Option<&'static str> {
    let root = document::parse(&std::fs::read_to_string(path).ok()?).ok()?;
    let Shape::Map(entries) = &root.shape else { return None };
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    let command = if has("quarantine") {
        "archive"
    } else if has("checkpoint_key") {
        "registrar"
    } else {
        return None;
    };
    let is_a_gateways = ["listen", "providers", "evidence"].into_iter().any(has);
    (!is_a_gateways).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_another_command_is_sent_there() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
        for (file, command) in
            [("archive.yaml", Some("archive")), ("registrar.yaml", Some("registrar")), ("gateway.yaml", None)]
        {
            assert_eq!(other_command(&examples.join(file)), command, "{file}");
        }
        let config = examples.join("archive.yaml");
        let file = crate::cli::ConfigFile { config };
        let error = run(&Check { file, canonical: false, schema: false }).unwrap_err().to_string();
        assert!(error.contains("gateway archive --check -c "), "{error}");
    }
}
