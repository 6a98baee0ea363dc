//! `--closing-key`, `--enrolled-by`, `--root-key`: a key that closes logs whose own key is not here.
//!
//! What it seals stays in the store for good, so nothing is sealed before the root key's signature says that it may.

use anyhow::{Context as _, Result, bail};
use evidence::ClosingKey;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::registry::{KeyAction, KeyStatement};
use schemas::trust::{key_text, public_key};

use super::root::key_of;
use crate::cli::Closing;
use crate::secrets::parse_seal_key;

/// The closing key for each log key whose entry names it.
///
/// # Errors
/// A file that cannot be read, an entry that the root key did not sign, or that does not name the key.
pub(super) fn keys(args: &Closing, deployment: &str) -> Result<Vec<ClosingKey>> {
    let (Some(path), Some(root)) = (&args.closing_key, &args.root_key) else { return Ok(Vec::new()) };
    let file = std::fs::read(path).with_context(|| format!("`--closing-key {}`", path.display()))?;
    let seed = parse_seal_key(&file)
        .map_err(|form| anyhow::anyhow!("`--closing-key {}`: wanted {form}", path.display()))?;
    let closer = key_text(&Ed25519Signer::from_seed(*seed).public_key());
    let root = public_key(&key_of(root)?).context("`--root-key`: wanted a public key")?;
    let mut keys = Vec::new();
    for path in &args.enrolled_by {
        let named = || format!("`--enrolled-by {}`", path.display());
        let note = std::fs::read(path).with_context(named)?;
        let (action, entry) = KeyStatement::verify(&note, deployment, &root).with_context(named)?;
        if action == KeyAction::Revoke || !entry.closers.contains(&closer) {
            bail!("{}: wanted the entry of a key that has `{closer}` among its closers", named());
        }
        let of = public_key(&entry.key).with_context(named)?;
        keys.push(ClosingKey { seed: *seed, of });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::seal_key_text;

    #[test]
    fn only_a_key_that_the_root_key_named_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = |seed: u8| key_text(&Ed25519Signer::from_seed([seed; 32]).public_key());
        let write = |name: &str, closers: Vec<String>, root: u8| {
            let statement = KeyStatement {
                deployment: "acme".into(),
                action: KeyAction::Add,
                gateway: "gw1".into(),
                key: key(1),
                replaces: None,
                heartbeat_bound_s: None,
                closers,
                until: None,
            };
            std::fs::write(path(name), statement.sign(&Ed25519Signer::from_seed([root; 32])).unwrap())
                .unwrap();
        };
        write("named", vec![key(2)], 9);
        write("other", vec![key(3)], 9);
        write("forged", vec![key(2)], 8);
        let text = seal_key_text(&[2; 32], &Ed25519Signer::from_seed([2; 32]).public_key(), "acme/closer");
        std::fs::write(path("closing.key"), text.as_bytes()).unwrap();
        let with = |entry: &str| Closing {
            closing_key: Some(path("closing.key")),
            enrolled_by: vec![path(entry)],
            root_key: Some(key(9)),
        };
        let found = keys(&with("named"), "acme").unwrap();
        assert_eq!((found.len(), found[0].of), (1, public_key(&key(1)).unwrap()));
        for entry in ["other", "forged", "absent"] {
            assert!(keys(&with(entry), "acme").is_err(), "{entry}");
        }
        assert!(keys(&with("named"), "other").is_err(), "another deployment's entry");
        assert!(keys(&Closing::default(), "acme").unwrap().is_empty());
    }
}
