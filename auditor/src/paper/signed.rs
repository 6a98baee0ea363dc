//! The signature beside a report: a signed note (C2SP `signed-note`) that names both files by length and SHA-256, and says
//! the verdict in words.
//!
//! ```text
//! affidavit-report v1
//! deployment acme
//! period 2026-07-01T00:00:00Z 2026-10-01T00:00:00Z
//! checked 2026-10-02T09:00:00Z
//! verdict VERIFIED
//! page 48211 <SHA-256>
//! data 30120 <SHA-256>
//!
//! — affidavit-auditor <signature>
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use schemas::Sha256Hex;
use schemas::note::{self, VerifyingKey};

use super::data::{Data, VERSION};
use super::key::ReportKey;
use super::page::page;
use crate::render::hostile;
use crate::time;

const HEAD: &str = "affidavit-report v1";

/// Pages and data beyond this are not read.
const LIMIT: u64 = 256 << 20;

/// The file beside a report: the data.
pub fn data_path(page: &Path) -> PathBuf {
    beside(page, ".json")
}

/// The file beside a report: the signature.
pub fn note_path(page: &Path) -> PathBuf {
    beside(page, ".sig")
}

fn beside(page: &Path, end: &str) -> PathBuf {
    let mut name = page.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What is signed.
pub fn text(data: &Data, page: &[u8], json: &[u8]) -> String {
    let file = |bytes: &[u8]| format!("{} {}", bytes.len(), Sha256Hex::of(bytes));
    format!(
        "{HEAD}\ndeployment {}\nperiod {} {}\nchecked {}\nverdict {}\npage {}\ndata {}\n",
        hostile::line(&data.deployment),
        time::text(data.period.from),
        time::text(data.period.to),
        time::text(data.checked_at),
        hostile::line(&data.verdict),
        file(page),
        file(json)
    )
}

/// Writes page, data and signature; the signature last.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, data: &Data, key: &ReportKey) -> anyhow::Result<Sha256Hex> {
    let (page, json) = (page(data), data.json()?);
    let text = text(data, page.as_bytes(), json.as_bytes());
    let note = note::sign(&text, &[(key.verifier.name(), &key.signer)])?;
    for (path, bytes) in [
        (path.to_owned(), page.as_bytes()),
        (data_path(path), json.as_bytes()),
        (note_path(path), note.as_slice()),
    ] {
        std::fs::write(&path, bytes).with_context(|| format!("`{}`", path.display()))?;
    }
    Ok(Sha256Hex::of(page.as_bytes()))
}

/// What checking a report found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// What holds.
    pub holds: Vec<String>,
    /// What does not.
    pub wrong: Vec<String>,
    /// What could not be judged.
    pub open: Vec<String>,
}

/// Checks the bytes of a report against its signature.
pub fn check(page_bytes: &[u8], json: &[u8], signed: &[u8], key: &VerifyingKey) -> Checked {
    let mut out = Checked::default();
    let verified = match note::verify(signed, std::slice::from_ref(key)) {
        Ok(verified) => verified,
        Err(why) => {
            out.wrong.push(format!("signature: {why}"));
            return out;
        }
    };
    let text = verified.text;
    if text.lines().next() != Some(HEAD) {
        out.wrong.push(format!("signature: the note is no report's: wanted `{HEAD}` in its first line"));
        return out;
    }
    out.holds.push(format!("signed by {key}"));
    let named = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    for (name, bytes) in [("page", page_bytes), ("data", json)] {
        let is = format!("{} {}", bytes.len(), Sha256Hex::of(bytes));
        match named(name) {
            Some(signed) if signed == is => out.holds.push(format!("{name}: the bytes that were signed")),
            Some(signed) => out.wrong.push(format!("{name}: signed were bytes {signed}, found {is}")),
            None => out.wrong.push(format!("{name}: the signature does not name it")),
        }
    }
    if !out.wrong.is_empty() {
        return out;
    }
    let data: Data = match serde_json::from_slice(json) {
        Ok(data) => data,
        Err(why) => {
            out.open.push(format!("data: of a form that this version does not know: {why}"));
            return out;
        }
    };
    if self::text(&data, page_bytes, json) == text {
        out.holds.push("signature: says what the data says".into());
    } else {
        out.wrong.push("signature: deployment, period, time or verdict are not those of the data".into());
    }
    if data.v != VERSION || data.auditor != env!("CARGO_PKG_VERSION") {
        let by = hostile::line(&data.auditor);
        out.open.push(format!("page: made by auditor {by}; it was not made again from the data"));
    } else if page(&data).as_bytes() == page_bytes {
        out.holds.push("page: made again from the data, the same bytes".into());
    } else {
        out.wrong.push("page: the data gives another page".into());
    }
    out.holds.push(format!(
        "it says: {}, {}, period {} to {}, checked at {}",
        hostile::line(&data.deployment),
        hostile::line(&data.verdict),
        time::text(data.period.from),
        time::text(data.period.to),
        time::text(data.checked_at)
    ));
    out
}

/// Reads a file of a report.
///
/// # Errors
/// One that cannot be read, or is larger than any report.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("`{shown}`"))?.len();
    if length > LIMIT {
        bail!("`{shown}`: {length} bytes, a report has at most {LIMIT}");
    }
    std::fs::read(path).with_context(|| format!("`{shown}`"))
}
