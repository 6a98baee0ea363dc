//! A witness's key file: an Ed25519 key in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it too.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::note::{Ed25519Signer, NamedKey, Signer as _};
use schemas::tlog::WitnessKey;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// PKCS#8 version 1 of an Ed25519 key (RFC 8410 7), up to the seed.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Makes a key file; never over one that is there.
///
/// # Errors
/// No random bytes, a name that is none, a file that cannot be made.
pub fn make(path: &Path, name: &str) -> Result<WitnessKey> {
    make_named(path, name, "witness key (Ed25519). Whoever has it can cosign")
}

/// Makes a key file of any signature type; `about` says in its comment what it is.
///
/// # Errors
/// As [`make`].
pub(crate) fn make_named<const TYPE: u8>(path: &Path, name: &str, about: &str) -> Result<NamedKey<TYPE>> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let signer = Ed25519Signer::from_seed(seed);
    let key = NamedKey::new(name, signer.public_key()).context("--name")?;
    let der: Vec<u8> = PKCS8.iter().chain(&seed).copied().collect();
    let text = format!(
        "# Affidavit {about}: keep it secret.\n\
         # verifier key: {key}\n{BEGIN}\n{}\n{END}\n",
        STANDARD.encode(der)
    );
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("`{}`", path.display()))?;
    // The name too: logs' operators are given the key, and it cannot be made again.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all())
        .with_context(|| format!("`{}`", path.display()))?;
    Ok(key)
}

/// Reads a key file. Nothing of the file is in an error.
///
/// # Errors
/// What was wanted.
pub fn read(path: &Path) -> Result<Ed25519Signer> {
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    let seed = parse(&text).with_context(|| {
        format!(
            "`{}`: wanted an Ed25519 key in PKCS#8 PEM, as `auditor witness keygen` and `auditor report-key` make",
            path.display()
        )
    })?;
    Ok(Ed25519Signer::from_seed(seed))
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let body: String = text.split_once(BEGIN)?.1.split_once(END)?.0.split_whitespace().collect();
    STANDARD.decode(body).ok()?.strip_prefix(&PKCS8)?.try_into().ok()
}
