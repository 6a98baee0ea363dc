//! The packs that come with the auditor: `policies/packs`, read into the program.

use anyhow::Context as _;

use super::pack::{LIMIT, Loaded};

macro_rules! packs {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every pack.
        pub const PACKS: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../policies/packs/", $name, ".yaml")))),*
        ];
    };
}

packs![
    "eu_ai_act",
    "gdpr",
    "soc2",
    "iso27001",
    "iso42001",
    "nist_ai_rmf",
    "sec_finra",
    "hipaa",
    "pci_dss",
    "dora",
    "gebuev",
    "cfr_21_11",
    "nydfs_500",
];

/// All packs that come with the auditor.
///
/// # Errors
/// None in practice: the tests read each.
pub fn all() -> Result<Vec<Loaded>, String> {
    PACKS.iter().map(|(_, text)| Loaded::parse(text, "built in")).collect()
}

/// The packs of what was typed: names, `all`, or files.
///
/// # Errors
/// A name that is none, a file that cannot be read or is no pack, a pack that was named twice.
pub fn read(typed: &[String]) -> anyhow::Result<Vec<Loaded>> {
    let mut out: Vec<Loaded> = Vec::new();
    for typed in typed {
        let found = one(typed)?;
        for loaded in found {
            if out.iter().any(|other| other.pack.name == loaded.pack.name) {
                anyhow::bail!("--pack `{typed}`: pack `{}` is named twice", loaded.pack.name);
            }
            out.push(loaded);
        }
    }
    Ok(out)
}

fn one(typed: &str) -> anyhow::Result<Vec<Loaded>> {
    if typed == "all" {
        return all().map_err(anyhow::Error::msg);
    }
    if let Some((_, text)) = PACKS.iter().find(|(name, _)| *name == typed) {
        return Ok(vec![Loaded::parse(text, "built in").map_err(anyhow::Error::msg)?]);
    }
    if !(typed.contains('/') || typed.ends_with(".yaml") || typed.ends_with(".yml")) {
        let known: Vec<&str> = PACKS.iter().map(|(name, _)| *name).collect();
        anyhow::bail!(
            "--pack `{typed}`: wanted a file that ends in `.yaml`, `all`, or one of {}",
            known.join(", ")
        );
    }
    Ok(vec![file(typed)?])
}

/// Reads a pack from a file.
///
/// # Errors
/// A file that cannot be read, is too large, or is no pack.
pub fn file(path: &str) -> anyhow::Result<Loaded> {
    let length = std::fs::metadata(path).with_context(|| format!("pack `{path}`"))?.len();
    if length > LIMIT {
        anyhow::bail!("pack `{path}`: {length} bytes: wanted at most {LIMIT}");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("pack `{path}`"))?;
    Loaded::parse(&text, path).map_err(anyhow::Error::msg)
}
