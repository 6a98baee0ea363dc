//! The key that signs reports: Ed25519 in PKCS#8 PEM, in the auditor's state folder unless another one is given.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use schemas::note::{Ed25519Signer, Signer as _, VerifyingKey};

use crate::witness::key as file;

/// The key's name where nobody gave another one.
pub const NAME: &str = "affidavit-auditor";

/// The line of a key file that says name and public key.
const LINE: &str = "# verifier key: ";

/// A key that signs reports.
#[derive(Debug)]
pub struct ReportKey {
    /// Name and public key.
    pub verifier: VerifyingKey,
    /// The key.
    pub signer: Ed25519Signer,
}

/// Where a state folder keeps its key.
pub fn of_state(folder: &Path) -> PathBuf {
    folder.join("report.key")
}

/// The key file that was given, or the one of a state folder, which is made where there is none.
///
/// # Errors
/// A key that cannot be made or read.
pub fn given_or_of_state(given: Option<&Path>, folder: &Path) -> Result<ReportKey> {
    let path = given.map_or_else(|| of_state(folder), Path::to_owned);
    if given.is_none() && !path.exists() {
        make(&path, NAME)?;
    }
    read(&path).context("--key")
}

/// Makes a key file; never over one that is there.
///
/// # Errors
/// A name that is none, a file that cannot be made.
pub fn make(path: &Path, name: &str) -> Result<VerifyingKey> {
    file::make_named(path, name, "auditor's report key (Ed25519). Whoever has it can sign reports")
}

/// Reads a key file.
///
/// # Errors
/// No key, or one that is not the one that its own comment names.
pub fn read(path: &Path) -> Result<ReportKey> {
    let signer = file::read(path)?;
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    let told = text.lines().find_map(|line| line.strip_prefix(LINE));
    let verifier = match told {
        Some(told) => told.trim().parse::<VerifyingKey>().with_context(|| format!("`{}`", path.display()))?,
        None => VerifyingKey::new(NAME, signer.public_key())?,
    };
    if *verifier.key() != signer.public_key() {
        bail!("`{}`: the key is not the one that its comment names", path.display());
    }
    Ok(ReportKey { verifier, signer })
}

/// Reads what `--key` of `check-report` says: a verifier key, or a file that holds one in a line.
///
/// # Errors
/// Neither.
pub fn verifier(typed: &str) -> Result<VerifyingKey> {
    if let Ok(key) = typed.trim().parse() {
        return Ok(key);
    }
    let wanted = || {
        format!(
            "--key `{typed}`: wanted a verifier key (`auditor report-key` prints it), or a file that holds one"
        )
    };
    let text = std::fs::read_to_string(typed).with_context(wanted)?;
    text.lines()
        .map(|line| line.strip_prefix(LINE).unwrap_or(line).trim())
        .find_map(|line| line.parse().ok())
        .with_context(wanted)
}
