//! The signature beside a manifest: a signed note (C2SP `signed-note`) that names the manifest by length and SHA-256, and with it
//! every file of the folder.
//!
//! ```text
//! affidavit-subject v1
//! deployment acme
//! subject p:0123456789abcdef0123456789abcdef
//! exchanges 2
//! made 2026-10-02T09:00:00Z
//! verdict VERIFIED
//! manifest 4821 <SHA-256>
//!
//! — affidavit-auditor <signature>
//! ```

use schemas::Sha256Hex;
use schemas::note::{self, VerifyingKey};

use super::manifest::Manifest;
use crate::paper::key::ReportKey;
use crate::render::hostile;
use crate::time;

fn text(manifest: &Manifest, bytes: &[u8]) -> String {
    format!(
        "affidavit-subject v1\ndeployment {}\nsubject {}\nexchanges {}\nmade {}\nverdict {}\nmanifest {} {}\n",
        hostile::line(&manifest.deployment),
        manifest.subject,
        manifest.exchanges,
        time::text(manifest.made_at),
        hostile::line(&manifest.verdict),
        bytes.len(),
        Sha256Hex::of(bytes)
    )
}

/// Signs a manifest, whose file holds `bytes`.
///
/// # Errors
/// A text that no note can hold.
pub fn sign(manifest: &Manifest, bytes: &[u8], key: &ReportKey) -> anyhow::Result<Vec<u8>> {
    Ok(note::sign(&text(manifest, bytes), &[(key.verifier.name(), &key.signer)])?)
}

/// Whether the note is over this manifest, whoever signed it: that proves nothing, and one over another manifest proves that this one
/// is not what was signed.
pub fn is_over(manifest: &Manifest, bytes: &[u8], signed: &[u8]) -> Result<(), String> {
    let unverified = note::parse_unverified(signed).map_err(|why| why.to_string())?;
    same(unverified.text, manifest, bytes)
}

fn same(signed: &str, manifest: &Manifest, bytes: &[u8]) -> Result<(), String> {
    match signed == text(manifest, bytes) {
        true => Ok(()),
        false => Err("another manifest was signed".into()),
    }
}

/// Whether the note is over this manifest, by this key.
pub fn check(manifest: &Manifest, bytes: &[u8], signed: &[u8], key: &VerifyingKey) -> Result<(), String> {
    let verified = note::verify(signed, std::slice::from_ref(key)).map_err(|why| why.to_string())?;
    same(verified.text, manifest, bytes)
}
