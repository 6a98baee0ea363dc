//! Holds a folder against its manifest, and its proofs against a trust file. Records, lists of content and content are held against
//! the proofs; story, page and tables for people against the manifest alone, and the manifest against its signature, where the key
//! of who signed is given; without it what was signed must be this manifest, whoever signed it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::note::VerifyingKey;
use schemas::record::PartName;
use schemas::trust::Trust;
use schemas::{Identifier, Sha256Hex, leaf};

use super::manifest::{CSV, Exchange, FORMAT, MANIFEST, Manifest, PAGE, SIGNATURE, TABLE};
use super::signed;
use crate::content::{PartState, STATES};
use crate::proof::{self, Bundle, Check};
use crate::recipients::{self, Recipient};
use crate::verify::content::parts_of;

/// The largest manifest, table or proof that is read.
const LIMIT: u64 = 1 << 30;

/// The most files of a folder.
const FILES: usize = 2_000_000;

/// Checks a folder; every check that fails is listed, and what held is counted.
///
/// # Errors
/// A manifest that cannot be read, or is none: nothing is judged.
pub fn check(
    folder: &Path,
    trust: &Trust,
    key: Option<&VerifyingKey>,
) -> anyhow::Result<(Manifest, Vec<Check>)> {
    let bytes = read(folder, MANIFEST)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).with_context(|| format!("`{MANIFEST}`"))?;
    if manifest.format != FORMAT {
        bail!("`{MANIFEST}`: `format` is `{}`, wanted `{FORMAT}`", manifest.format);
    }
    let mut checks = Vec::new();
    let mut done =
        |what: String, result: Result<(), String>| checks.push(Check { what, wrong: result.err() });
    let signed = || read(folder, SIGNATURE).map_err(|error| format!("{error:#}"));
    match key {
        Some(key) => {
            let held = signed().and_then(|signed| signed::check(&manifest, &bytes, &signed, key));
            done(format!("signature by {key}"), held);
        }
        // Who signed cannot be told; what was signed can.
        None if fs::symlink_metadata(folder.join(SIGNATURE)).is_ok() => {
            let held = signed().and_then(|signed| signed::is_over(&manifest, &bytes, &signed));
            done(format!("{SIGNATURE}, by whomever it is"), held);
        }
        None => {}
    }
    done("deployment".into(), same(&manifest.deployment, &trust.deployment));
    for (name, told) in &manifest.files {
        done(format!("file {name}"), file(folder, name, told));
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found)?;
    let of_manifest = [MANIFEST, SIGNATURE];
    for name in found
        .iter()
        .filter(|name| !of_manifest.contains(&name.as_str()) && !manifest.files.contains_key(*name))
    {
        done(format!("file {name}"), Err("the manifest does not name it".into()));
    }
    let exchanges = read(folder, TABLE)
        .map_err(|error| format!("{error:#}"))
        .and_then(|bytes| serde_json::from_slice::<Vec<Exchange>>(&bytes).map_err(|error| error.to_string()));
    match exchanges {
        Err(wrong) => done(TABLE.into(), Err(wrong)),
        Ok(exchanges) => {
            done("exchanges".into(), same(&manifest.exchanges, &(exchanges.len() as u64)));
            let of_all = exchanges.iter().flat_map(Exchange::told_recipients);
            done("recipients".into(), as_told(&manifest.recipients, &recipients::once(of_all)));
            for exchange in &exchanges {
                done(format!("exchange {}", exchange.exchange), proven(folder, &manifest, exchange, trust));
            }
            let own = named(&exchanges);
            for name in manifest.files.keys().filter(|name| !own.contains(name.as_str())) {
                done(format!("file {name}"), Err("it belongs to no exchange".into()));
            }
        }
    }
    Ok((manifest, checks))
}

/// Every file that a folder with these exchanges has besides its manifest.
fn named(exchanges: &[Exchange]) -> BTreeSet<&str> {
    let of_all = [TABLE, CSV, PAGE];
    let papers = exchanges.iter().flat_map(|exchange| [exchange.story.as_str(), exchange.proof.as_str()]);
    let parts = exchanges.iter().flat_map(|exchange| &exchange.parts).filter_map(|part| part.file.as_deref());
    of_all.into_iter().chain(papers).chain(parts).collect()
}

fn same<T: PartialEq + std::fmt::Display>(found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found}, wanted {wanted}")) }
}

/// Whether everybody who got data is named, and nobody else.
fn as_told(found: &[Recipient], told: &[Recipient]) -> Result<(), String> {
    match found == told {
        true => Ok(()),
        false => Err(format!("{} recipients, the records tell of {}, or of others", found.len(), told.len())),
    }
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

/// Every record is proven and of the subject, every part of content is listed as the records tell it, and its file is what they
/// commit to.
fn proven(folder: &Path, manifest: &Manifest, exchange: &Exchange, trust: &Trust) -> Result<(), String> {
    let named = |name: &str| match manifest.files.contains_key(name) && is_inside(name) {
        true => read(folder, name).map_err(|error| format!("{error:#}")),
        false => Err(format!("`{name}` is not in the manifest")),
    };
    if !manifest.files.contains_key(&exchange.story) {
        return Err(format!("`{}` is not in the manifest", exchange.story));
    }
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
    listed(exchange, &bundle)?;
    as_told(&exchange.recipients, &exchange.told_recipients())?;
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

/// A part, as far as a record tells it: position, part, length, media type, content coding, and that it is not kept.
type Told<'a> = (u64, PartName, u64, Option<&'a str>, Option<&'a str>, bool);

/// The list of parts is exactly what the records commit to, and what the proof opens, and nothing else, has a file.
fn listed(exchange: &Exchange, bundle: &Bundle) -> Result<(), String> {
    let mut wanted = Vec::new();
    for record in &bundle.records {
        let decoded = leaf::decode(record.leaf.as_bytes()).map_err(|error| error.to_string())?;
        let body = decoded.record.map(|record| record.body);
        let Some((_, parts, _, _)) = body.as_ref().and_then(parts_of) else { continue };
        wanted.extend(parts.iter().map(|part| (record.position, part.clone())));
    }
    let told = exchange.parts.iter().map(|part| -> Told<'_> {
        let media_type = part.media_type.as_ref().map(Identifier::as_str);
        let coding = part.content_encoding.as_ref().map(Identifier::as_str);
        (part.position, part.part, part.length, media_type, coding, part.state == PartState::NotKept.as_str())
    });
    let wanted = wanted.iter().map(|(position, part)| -> Told<'_> {
        let media_type = part.media_type.as_ref().map(Identifier::as_str);
        let coding = part.content_encoding.as_ref().map(Identifier::as_str);
        (*position, part.part, part.length, media_type, coding, part.kept == Some(false))
    });
    let (told, wanted) = (sorted(told), sorted(wanted));
    let differs = told.iter().zip(&wanted).find(|(told, wanted)| told != wanted).map(|(told, _)| told);
    if let Some((position, part, ..)) = differs {
        return Err(format!(
            "content {} of record {position} is not listed as the record tells it",
            part.as_str()
        ));
    }
    if told.len() != wanted.len() {
        return Err(format!("{} parts are listed, the records commit to {}", told.len(), wanted.len()));
    }
    for part in &exchange.parts {
        let is_state = STATES.iter().any(|state| state.as_str() == part.state);
        if !is_state || (part.state == PartState::Proven.as_str()) != part.file.is_some() {
            let wanted =
                if is_state { "a file where it is `proven`, and only there" } else { "another `state`" };
            return Err(format!(
                "content {} of record {}: wanted {wanted}",
                part.part.as_str(),
                part.position
            ));
        }
    }
    let with_file = exchange.parts.iter().filter(|part| part.file.is_some());
    let with_file = sorted(with_file.map(|part| (part.position, part.part)));
    let opened = sorted(bundle.content.iter().map(|opening| (opening.position, opening.part)));
    if with_file != opened {
        return Err(format!("{} parts have a file, the proof opens {}", with_file.len(), opened.len()));
    }
    Ok(())
}

fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort();
    all
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
