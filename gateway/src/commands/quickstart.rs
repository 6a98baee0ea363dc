//! `gateway quickstart DIR`: a folder in which `gateway serve` just works.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Error, Result, anyhow, bail};
use schemas::Identifier;

use super::keygen::{make_pseudonym_key, make_seal_key, trust_text};
use super::now_us;
use crate::cli::Quickstart;
use crate::config::BaseUrl;
use crate::keys::{KeyRequest, issue, update};
use crate::{output, user};

const POLICY: &str = include_str!("../../../policies/examples/starter.yaml");
const PRICES: &str = include_str!("../../../policies/prices/2026-11.csv");
/// `5m` of the configuration below.
const HEARTBEAT_S: u64 = 300;

/// A provider that the folder knows: name, address, and the variable that holds its key.
const PROVIDERS: [(&str, &str, &str); 2] = [
    ("openai", "https://api.openai.com", "OPENAI_API_KEY"),
    ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
];

pub(super) fn run(args: &Quickstart) -> Result<()> {
    let urls = urls(&args.provider_url)?;
    let folder = &args.folder;
    let shown = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("`{shown}` could not be made"))?;
    if std::fs::read_dir(folder).with_context(|| format!("`{shown}` could not be read"))?.next().is_some() {
        bail!("`{shown}` is not empty: wanted a folder that does not exist or is empty");
    }
    let public = make_seal_key(&folder.join("seal.key"), &args.deployment, &args.gateway)?;
    make_pseudonym_key(&folder.join("pseudonym.key"))?;
    write(folder, "trust.yaml", &trust_text(&args.deployment, &args.gateway, &public, HEARTBEAT_S), 0o644)?;
    write(folder, "policy.yaml", POLICY, 0o644)?;
    write(folder, "prices.csv", PRICES, 0o644)?;
    let request = KeyRequest {
        consumer: Some(identifier("quickstart")?),
        team: Some(identifier("quickstart")?),
        purpose: Some(identifier("trial")?),
        by: user::own(),
        ..KeyRequest::default()
    };
    let issued =
        update(&folder.join("keys.yaml"), |keys| issue(keys, request, now_us()).map_err(Error::from))?;
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    write(folder, "gateway.yaml", &config_text(args, &urls, &set), 0o644)?;
    for sub in ["journal", "spool", "key-table", "evidence"] {
        std::fs::create_dir(folder.join(sub)).with_context(|| format!("`{sub}` could not be made"))?;
    }
    explain(args, &set, &urls, issued.key.as_str());
    Ok(())
}

fn identifier(text: &str) -> Result<Identifier> {
    Ok(Identifier::new(text)?)
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) -> Result<()> {
    output::write_new(&folder.join(name), text.as_bytes(), mode)
        .with_context(|| format!("`{name}` could not be made"))
}

fn urls(typed: &[String]) -> Result<BTreeMap<&str, &str>> {
    let known = PROVIDERS.map(|(name, ..)| name);
    let mut urls = BTreeMap::new();
    for text in typed {
        let (name, url) =
            text.split_once('=').ok_or_else(|| anyhow!("`--provider-url {text}`: wanted `NAME=URL`"))?;
        if !known.contains(&name) {
            bail!("`--provider-url {text}`: wanted one of {}", known.join(", "));
        }
        if BaseUrl::parse(url).is_none() {
            bail!("`--provider-url {text}`: wanted an address as `http://127.0.0.1:9999`");
        }
        urls.insert(name, url);
    }
    Ok(urls)
}

/// A provider is on where its key is set or its address was given; with none of either, both are.
fn is_on(name: &str, variable: &str, urls: &BTreeMap<&str, &str>, set: &dyn Fn(&str) -> bool) -> bool {
    let none = urls.is_empty() && PROVIDERS.iter().all(|(_, _, variable)| !set(variable));
    none || urls.contains_key(name) || set(variable)
}

fn config_text(args: &Quickstart, urls: &BTreeMap<&str, &str>, set: &dyn Fn(&str) -> bool) -> String {
    let mut text = format!(
        "\
# Affidavit gateway. `gateway check -c gateway.yaml` tells all problems; relative paths start at this file's folder.
deployment: {}
gateway: {}

listen:
  - address: \"{}\"        # add `tls: {{ certificate: FILE, key: FILE }}` before leaving this machine
admin: \"{}\"              # /healthz /readyz /metrics

evidence:
  journal: journal
  spool: spool
  key_table: key-table            # content keys: keep them apart from the evidence, and keep a copy
  seal_key: seal.key
  pseudonym_key: pseudonym.key
  out: {{ directory: evidence }}
  heartbeat: 5m

keys: keys.yaml
policy: policy.yaml
prices: prices.csv
",
        args.deployment, args.gateway, args.listen, args.admin
    );
    for part in [Part::Providers, Part::Routes] {
        text.push_str(part.title());
        for (name, default, variable) in PROVIDERS {
            let off = if is_on(name, variable, urls, set) { "" } else { "# " };
            let url = urls.get(name).copied().unwrap_or(default);
            // A local provider without a key in the environment needs none.
            let keyless = urls.contains_key(name) && !set(variable);
            let credential =
                if keyless { String::new() } else { format!(", credential: {{ env: {variable} }}") };
            // Writing to a String does not fail.
            let _ = match part {
                Part::Providers => writeln!(
                    text,
                    "  {off}- {{ name: {name}, dialect: {name}, base_url: \"{url}\"{credential} }}"
                ),
                Part::Routes => {
                    writeln!(text, "  {off}- {{ name: {name}, path: /{name}, provider: {name} }}")
                }
            };
        }
    }
    text
}

#[derive(Clone, Copy)]
enum Part {
    Providers,
    Routes,
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Self::Providers => "\nproviders:\n",
            Self::Routes => "\nroutes:\n",
        }
    }
}

fn explain(args: &Quickstart, set: &dyn Fn(&str) -> bool, urls: &BTreeMap<&str, &str>, key: &str) {
    let folder = args.folder.display();
    output::note(format_args!("`{folder}` is ready. The gateway key, shown this once:"));
    output::line(key);
    output::note("");
    for (name, _, variable) in PROVIDERS {
        if is_on(name, variable, urls, set) && !set(variable) && !urls.contains_key(name) {
            output::note(format_args!("  export {variable}=...        # or take {name} out of gateway.yaml"));
        }
    }
    output::note(format_args!("  gateway serve -c {folder}/gateway.yaml"));
    output::note("");
    output::note("Then point the SDKs at it, with the gateway key as their key:");
    output::note(format_args!(
        "  OPENAI_BASE_URL=http://{}/openai/v1    OPENAI_API_KEY=<gateway key>",
        args.listen
    ));
    output::note(format_args!(
        "  ANTHROPIC_BASE_URL=http://{}/anthropic ANTHROPIC_API_KEY=<gateway key>",
        args.listen
    ));
    output::note("");
    output::note("And check the evidence:");
    output::note(format_args!("  auditor verify {folder}/evidence --trust {folder}/trust.yaml"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{load_with, parse_duration};

    fn args(folder: &Path, urls: &[&str]) -> Quickstart {
        Quickstart {
            folder: folder.to_owned(),
            deployment: "acme".into(),
            gateway: "gw1".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            provider_url: urls.iter().map(|url| (*url).to_owned()).collect(),
        }
    }

    #[test]
    fn the_folder_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("q");
        run(&args(&dir, &["openai=http://127.0.0.1:1", "anthropic=http://127.0.0.1:2/x"])).unwrap();
        let environment = |_: &str| Some("sk-test".to_owned());
        let loaded = load_with(&dir.join("gateway.yaml"), &environment).unwrap();
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.config.providers.len(), 2);
        assert_eq!(loaded.config.providers[1].base_url.to_string(), "http://127.0.0.1:2/x");
        assert_eq!(loaded.keys.entries().count(), 1);
        assert_eq!(loaded.config.evidence.heartbeat, parse_duration("5m").unwrap());
        let again = run(&args(&dir, &[])).unwrap_err().to_string();
        assert!(again.contains("is not empty"), "{again}");
    }

    #[test]
    fn truth_table_of_providers() {
        let both = ["openai", "anthropic"];
        // addresses given, variables set -> providers on
        let table: [(&[&str], &[&str], &[&str]); 5] = [
            (&[], &[], &both),
            (&[], &["OPENAI_API_KEY"], &["openai"]),
            (&[], &["OPENAI_API_KEY", "ANTHROPIC_API_KEY"], &both),
            (&["anthropic"], &[], &["anthropic"]),
            (&["anthropic"], &["OPENAI_API_KEY"], &both),
        ];
        for (given, variables, on) in table {
            let urls: BTreeMap<&str, &str> = given.iter().map(|name| (*name, "http://x.test")).collect();
            let set = |name: &str| variables.contains(&name);
            let found: Vec<&str> =
                PROVIDERS.iter().filter(|(n, _, v)| is_on(n, v, &urls, &set)).map(|(n, ..)| *n).collect();
            assert_eq!(found, on, "{given:?} {variables:?}");
        }
    }

    #[test]
    fn wrong_addresses_are_named() {
        for url in ["openai", "opena=http://x", "openai=ftp://x", "openai=http://"] {
            let folder = tempfile::tempdir().unwrap();
            let error = run(&args(folder.path(), &[url])).unwrap_err().to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
