//! `gateway check`: all problems at once, or what the configuration means.

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use policies::document::{self, Shape};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::loaded;
use crate::cli::Check;
use crate::config::{self, Config};
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
    for warning in unusable(config) {
        output::note(format_args!("warning: {warning}"));
    }
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

/// The folders that a gateway could not make or write if it were started here and now, by this user. The machine that is to
/// run it may be another one: a warning.
fn unusable(config: &Config) -> Vec<String> {
    let evidence = &config.evidence;
    let out = evidence.out.directory().map(|folder| ("evidence.out.directory", folder.as_path()));
    let folders = [
        ("evidence.journal", evidence.journal.as_path()),
        ("evidence.spool", &evidence.spool),
        ("evidence.key_table", &evidence.key_table),
    ];
    let told = |(key, folder): (&str, &Path)| {
        let why = why_unusable(folder)?;
        Some(format!(
            "`{key}` is `{}`: {why}, so `gateway serve` would not start here as this user",
            folder.display()
        ))
    };
    folders.into_iter().chain(out).filter_map(told).collect()
}

/// Why `folder` cannot be written, or made where it is not there.
fn why_unusable(folder: &Path) -> Option<String> {
    // An empty parent is the working folder.
    let named = |path: &Path| if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() };
    let (there, found) = folder.ancestors().map(named).find_map(|path| match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        found => Some((path, found)),
    })?;
    let shown = there.display();
    match found {
        Err(error) => return Some(format!("`{shown}`: {error}")),
        Ok(found) if !found.is_dir() => return Some(format!("`{shown}` is no folder")),
        Ok(_) => {}
    }
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    let at = AtFlags::EACCESS;
    let error = accessat(CWD, &there, wanted, at).err()?;
    Some(format!("`{shown}` cannot be written ({})", io::Error::from(error)))
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
    fn a_folder_that_cannot_be_made_or_written_is_told_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(why_unusable(dir.path()), None);
        assert_eq!(why_unusable(&dir.path().join("new/below")), None);
        assert_eq!(why_unusable(Path::new("beside")), None);
        let of_a_file = why_unusable(&file.join("below")).unwrap();
        assert!(of_a_file.contains("/file/below`: "), "{of_a_file}");
        assert!(why_unusable(&file).unwrap().ends_with("/file` is no folder"));
    }

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
