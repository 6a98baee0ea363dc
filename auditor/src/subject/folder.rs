//! Writes the folder: its owner's alone, and nothing of it over what is there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use schemas::record::PartName;
use schemas::{ExchangeId, Sha256Hex};

use super::manifest::{CSV, EXCHANGES, Exchange, File, MANIFEST, Manifest, PAGE, SIGNATURE, TABLE};
use super::{page, signed};
use crate::content::{PartContent, PartState};
use crate::paper::key::ReportKey;
use crate::proof::Bundle;
use crate::recipients::Recipient;
use crate::render::hostile;
use crate::time;

/// A folder that is being written.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<String, File>,
}

impl Folder {
    /// Makes the folder, or takes one that is empty.
    ///
    /// # Errors
    /// It is not empty, or cannot be made.
    pub fn new(root: &Path) -> anyhow::Result<Self> {
        crate::sample::papers::is_free(root)?;
        make(root)?;
        Ok(Self { root: root.to_owned(), files: BTreeMap::new() })
    }

    /// Writes a file; `name` is the program's own.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.root.join(name);
        let shown = || format!("`{}`", path.display());
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(shown)?;
        file.write_all(bytes).with_context(shown)?;
        let told = File { bytes: bytes.len() as u64, sha256: Sha256Hex::of(bytes) };
        self.files.insert(name.to_owned(), told);
        Ok(())
    }

    /// Writes the content of an exchange's parts, where it is proven; gives what is said of each.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn parts(
        &mut self,
        exchange: &ExchangeId,
        parts: &[PartContent],
    ) -> anyhow::Result<Vec<super::manifest::Part>> {
        let mut told = Vec::with_capacity(parts.len());
        for part in parts {
            let file = match (&part.state, &part.opened) {
                (PartState::Proven, Some((_, bytes))) => {
                    let name = part_name(exchange, part);
                    self.put(&name, bytes)?;
                    Some(name)
                }
                _ => None,
            };
            told.push(super::manifest::Part {
                position: part.position,
                part: part.part.part,
                length: part.part.length,
                state: part.state.as_str().into(),
                media_type: part.part.media_type.clone(),
                content_encoding: part.part.content_encoding.clone(),
                file,
            });
        }
        Ok(told)
    }

    /// Writes an exchange's story and proof.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn papers(&mut self, story: &str, bundle: &Bundle) -> anyhow::Result<(String, String)> {
        let names = [story_name(&bundle.exchange), proof_name(&bundle.exchange)];
        let json = serde_json::to_string_pretty(bundle)? + "\n";
        self.put(&names[0], story.as_bytes())?;
        self.put(&names[1], json.as_bytes())?;
        let [story, proof] = names;
        Ok((story, proof))
    }

    /// Writes the tables, the page, the manifest, and, last, the signature over it where there is a key.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(
        mut self,
        mut manifest: Manifest,
        exchanges: &[Exchange],
        key: Option<&ReportKey>,
    ) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(exchanges)? + "\n";
        self.put(TABLE, crate::render::json::harmless(&json).as_bytes())?;
        self.put(CSV, csv(exchanges)?.as_bytes())?;
        self.put(PAGE, page::page(&manifest, exchanges).as_bytes())?;
        manifest.files = std::mem::take(&mut self.files);
        let bytes = serde_json::to_string_pretty(&manifest)? + "\n";
        self.put(MANIFEST, bytes.as_bytes())?;
        match key {
            Some(key) => self.put(SIGNATURE, &signed::sign(&manifest, bytes.as_bytes(), key)?),
            None => Ok(()),
        }
    }
}

fn make(folder: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("--out `{}`", folder.display()))
}

/// The file of an exchange's story.
pub fn story_name(exchange: &ExchangeId) -> String {
    format!("{EXCHANGES}/{exchange}/story.txt")
}

/// The file of its proof.
pub fn proof_name(exchange: &ExchangeId) -> String {
    format!("{EXCHANGES}/{exchange}/proof.json")
}

/// The file of a part. Made of an id, a number and words of the format alone: nothing that a caller or a provider wrote is in
/// it, and no browser takes it for a page.
fn part_name(exchange: &ExchangeId, part: &PartContent) -> String {
    let media_type = part.part.media_type.as_ref().map(|media_type| media_type.as_str().to_ascii_lowercase());
    let end = match (part.part.content_encoding.is_some(), media_type.as_deref()) {
        (true, _) => "bin",
        (_, Some("application/json")) => "json",
        (_, Some(media_type)) if media_type.starts_with("text/") => "txt",
        _ if is_text(part.part.part) => "txt",
        _ => "bin",
    };
    format!("{EXCHANGES}/{exchange}/{:010}-{}.{end}", part.position, part.part.part.as_str())
}

fn is_text(part: PartName) -> bool {
    matches!(part, PartName::ClientRequestHead | PartName::ProviderResponseHead | PartName::Error)
}

fn csv(exchanges: &[Exchange]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "exchange",
        "began_at",
        "provider",
        "model",
        "recipients",
        "operation",
        "end",
        "status",
        "story",
        "proof",
    ])?;
    for exchange in exchanges {
        let fact = |path: &[&str]| exchange.fact(path).unwrap_or_default();
        let cells = [
            exchange.exchange.to_string(),
            exchange.began_at().map(time::text).unwrap_or_default(),
            exchange.provider().unwrap_or_default(),
            exchange.model().unwrap_or_default(),
            exchange.recipients.iter().map(Recipient::told).collect::<Vec<_>>().join("; "),
            fact(&["asked", "operation"]),
            fact(&["end"]),
            fact(&["status"]),
            exchange.story.clone(),
            exchange.proof.clone(),
        ];
        writer.write_record(cells.iter().map(|cell| hostile::cell(cell).into_owned()))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
