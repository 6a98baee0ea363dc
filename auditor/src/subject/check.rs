//! Holds a folder against its manifest, and its proofs against a trust file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::Sha256Hex;
use schemas::trust::Trust;

use super::manifest::{Exchange, FORMAT, MANIFEST, Manifest, TABLE};
use crate::proof::{self, Bundle, Check};

/// The largest manifest, table or proof that is read.
const LIMIT: u64 = 1 << 30;

/// The most files of a folder.
const FILES: usize = 2_000_000;

/// Checks a folder; every check that fails is listed, and what held is counted.
///
/// # Errors
/// A manifest that cannot be read, or is none: nothing is judged.
pub fn check(folder: &Path, trust: &Trust) -> anyhow::Result<(Manifest, Vec<Check>)> {
    let bytes = read(folder, MANIFEST)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).with_context(|| format!("`{MANIFEST}`"))?;
    if manifest.format != FORMAT {
        bail!("`{MANIFEST}`: `format` is `{}`, wanted `{FORMAT}`", manifest.format);
    }
    let mut checks = Vec::new();
    let mut done =
        |what: String, result: Result<(), String>| checks.push(Check { what, wrong: result.err() });
    done("deployment".into(), same(&manifest.deployment, &trust.deployment));
    for (name, told) in &manifest.files {
        done(format!("file {name}"), file(folder, name, told));
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found)?;
    for name in found.iter().filter(|name| *name != MANIFEST && !manifest.files.contains_key(*name)) {
        done(format!("file {name}"), Err("the manifest does not name it".into()));
    }
    let exchanges = read(folder, TABLE)
        .map_err(|error| format!("{error:#}"))
        .and_then(|bytes| serde_json::from_slice::<Vec<Exchange>>(&bytes).map_err(|error| error.to_string()));
    match exchanges {
        Err(wrong) => done(TABLE.into(), Err(wrong)),
        Ok(exchanges) => {
            done("exchanges".into(), same(&manifest.exchanges, &(exchanges.len() as u64)));
            for exchange in &exchanges {
                done(format!("exchange {}", exchange.exchange), proven(folder, &manifest, exchange, trust));
            }
        }
    }
    Ok((manifest, checks))
}

fn same<T: PartialEq + std::fmt::Display>(found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found}, wanted {wanted}")) }
}

fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = folder.join(name);
    let shown = || format!("`{}`", path.display());
    let about = fs::symlink_metadata(&path).with_context(shown)?;
    if !about.is_file() || about.len() > LIMIT {
        bail!("{}: wanted a file of at most {LIMIT} bytes", shown());
    }
    fs::read(&path).with_context(shown)
}

/// A name that leads nowhere else.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn file(folder: &Path, name: &str, told: &super::manifest::File) -> Result<(), String> {
    if !is_inside(name) {
        return Err("a name that leads out of the folder".into());
    }
    let bytes = read(folder, name).map_err(|error| format!("{error:#}"))?;
    same(&(bytes.len() as u64), &told.bytes)?;
    same(&Sha256Hex::of(&bytes), &told.sha256)
}

/// Every record is proven and of the subject, every part's file is what a record commits to.
fn proven(folder: &Path, manifest: &Manifest, exchange: &Exchange, trust: &Trust) -> Result<(), String> {
    let named = |name: &str| match manifest.files.contains_key(name) && is_inside(name) {
        true => read(folder, name).map_err(|error| format!("{error:#}")),
        false => Err(format!("`{name}` is not in the manifest")),
    };
    let bundle: Bundle =
        serde_json::from_slice(&named(&exchange.proof)?).map_err(|error| error.to_string())?;
    if bundle.exchange != exchange.exchange {
        return Err(format!("its proof is of exchange {}", bundle.exchange));
    }
    for check in proof::check(&bundle, trust) {
        if let Some(wrong) = check.wrong {
            return Err(format!("{}: {wrong}", check.what));
        }
    }
    if exchange.records.len() != bundle.records.len() {
        return Err(format!("{} records, {} are proven", exchange.records.len(), bundle.records.len()));
    }
    let mut of_subject = false;
    for (told, record) in exchange.records.iter().zip(&bundle.records) {
        let leaf: serde_json::Value =
            serde_json::from_str(&record.leaf).map_err(|error| error.to_string())?;
        if (&told.origin, told.position, &told.record) != (&record.origin, record.position, &leaf) {
            return Err(format!(
                "record {} of {} is told otherwise than it is proven",
                record.position, record.origin
            ));
        }
        let subject = leaf.pointer("/caller/subject/value").and_then(serde_json::Value::as_str);
        if subject.is_some_and(|subject| subject != manifest.subject.as_str()) {
            return Err(format!("record {} names another subject", record.position));
        }
        of_subject |= subject.is_some();
    }
    if !of_subject {
        return Err("no record of it names the subject".into());
    }
    for part in &exchange.parts {
        let Some(name) = &part.file else { continue };
        let opening = bundle
            .content
            .iter()
            .find(|opening| (opening.position, opening.part) == (part.position, part.part));
        let opening = opening.ok_or_else(|| format!("the proof does not open `{name}`"))?;
        if STANDARD.decode(&opening.bytes).ok() != Some(named(name)?) {
            return Err(format!("`{name}` is not what the record commits to"));
        }
    }
    Ok(())
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("`{}`", folder.display()))? {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path).with_context(|| format!("`{}`", path.display()))?;
        if found.len() > FILES {
            bail!("`{}` holds more than {FILES} files", root.display());
        }
        if about.is_dir() {
            walk(root, &path, found)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.insert(name);
        }
    }
    Ok(())
}
