//! The end user that is asked for, as records hold it: a keyed pseudonym (FORMAT 3.1).

use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use schemas::Identifier;

/// What a pseudonym begins with.
const PREFIX: &str = "p:";

/// The pseudonym of a subject: as it was typed, or made of the raw id with the key of pseudonyms.
///
/// # Errors
/// Neither a pseudonym nor a key for it; a file that is no key.
pub fn subject(typed: &str, key: Option<&Path>) -> anyhow::Result<Identifier> {
    match key {
        Some(path) => {
            let file = std::fs::read_to_string(path)
                .with_context(|| format!("--pseudonym-key `{}`", path.display()))?;
            let key = parse(&file).with_context(|| {
                format!("--pseudonym-key `{}`: wanted 32 bytes in base64, as `gateway keygen --pseudonym-key` makes", path.display())
            })?;
            Ok(pseudonym(&key, typed)?)
        }
        None => {
            let is_one = typed.strip_prefix(PREFIX).is_some_and(|hex| {
                hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            });
            if !is_one {
                bail!(
                    "--subject: wanted a pseudonym as records hold it (`p:` and 32 hex digits), or the raw id and `--pseudonym-key FILE`"
                );
            }
            Ok(Identifier::new(typed)?)
        }
    }
}

/// `p:` and the first 16 bytes of HMAC-SHA-256, in hex.
fn pseudonym(key: &[u8; 32], raw: &str) -> anyhow::Result<Identifier> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), raw.as_bytes());
    let half = tag.as_ref().get(..16).unwrap_or_default();
    Ok(Identifier::new(format!("{PREFIX}{}", hex::encode(half)))?)
}

/// A key file: 32 bytes in base64, behind lines of comments.
fn parse(file: &str) -> Option<[u8; 32]> {
    let mut lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
    lines.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_pseudonym_or_is_made_one_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pseudonym.key");
        std::fs::write(&path, format!("# a key\n{}\n", STANDARD.encode([7; 32]))).unwrap();
        let made = subject("alice@example.com", Some(&path)).unwrap();
        assert_eq!(subject(made.as_str(), None).unwrap(), made);
        assert_ne!(subject("bob@example.com", Some(&path)).unwrap(), made);
        for wrong in
            ["alice@example.com", "p:", "p:0123", "p:0123456789ABCDEF0123456789abcdef", "' OR 1=1 --"]
        {
            assert!(subject(wrong, None).is_err(), "{wrong}");
        }
        std::fs::write(&path, "hunter2").unwrap();
        assert!(subject("alice", Some(&path)).is_err());
    }
}
