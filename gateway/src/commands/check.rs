//! `gateway check`: all problems at once, or what the configuration means.

use anyhow::{Context as _, Result};

use super::loaded;
use crate::cli::Check;
use crate::config;
use crate::output;

pub(super) fn run(args: &Check) -> Result<()> {
    if args.schema {
        output::line(config::json_schema().trim_end());
        return Ok(());
    }
    let loaded = loaded(&args.file.config)?;
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
        let provider = config.providers.iter().find(|provider| provider.name == route.provider);
        let to = provider.map(|provider| provider.base_url.to_string()).unwrap_or_default();
        output::line(format_args!("  route          {} -> {} ({to})", route.path, route.provider));
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
