//! `gateway keygen`: the key that signs seals or receipts, and what others must know of it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::Origin;
use schemas::note::{Ed25519Signer, Signer as _};

use crate::cli::Keygen;
use crate::config::parse_duration;
use crate::{output, secrets};

pub(super) fn run(args: &Keygen) -> Result<()> {
    let Some(heartbeat) = parse_duration(&args.heartbeat) else {
        bail!("`--heartbeat {}`: wanted a duration as `5m`", args.heartbeat);
    };
    // clap asks for one of both.
    let gateway = args.gateway.as_deref().unwrap_or_default();
    if let Some(archiver) = &args.archiver {
        let public = make_seal_key(&args.out, &args.deployment, archiver)?;
        output::note(format_args!("key: {} (keep it secret; mode 0600)", args.out.display()));
        output::note("for `archivers` of each gateway's `evidence.out.kafka`, on stdout:");
        output::line(archiver_line(archiver, &public));
        return Ok(());
    }
    let public = make_seal_key(&args.out, &args.deployment, gateway)?;
    if let Some(path) = &args.pseudonym_key {
        make_pseudonym_key(path)?;
    }
    if let Some(path) = &args.promise_key {
        let public = make_key("promise", path, &args.deployment, gateway)?;
        output::note(format_args!(
            "promise key: {} (keep it secret; mode 0600), public {}",
            path.display(),
            STANDARD.encode(public)
        ));
    }
    if let Some(path) = &args.commit_secret {
        make_commit_secret(path)?;
        output::note(format_args!(
            "commit secret: {} (keep it secret; every gateway of the deployment needs the same)",
            path.display()
        ));
    }
    if gateway == schemas::names::REGISTRY {
        output::note(format_args!("key: {} (keep it secret; mode 0600)", args.out.display()));
        output::note("public key, for `registry.key` in trust.yaml where it is the seal key, on stdout:");
        output::line(STANDARD.encode(public));
        return Ok(());
    }
    output::note(format_args!("seal key:   {} (keep it secret; mode 0600)", args.out.display()));
    output::note(format_args!("public key: {}", STANDARD.encode(public)));
    output::note("trust file for auditors, to be handed over by another way than the evidence, on stdout:");
    output::line(trust_text(&args.deployment, gateway, &public, heartbeat.as_secs()).trim_end());
    Ok(())
}

/// An archiver as a gateway pins it.
fn archiver_line(name: &str, public: &[u8; 32]) -> String {
    format!("- {{ name: {name}, key: \"{}\" }}", STANDARD.encode(public))
}

/// Makes a seal key file and gives the public key.
pub(super) fn make_seal_key(path: &Path, deployment: &str, gateway: &str) -> Result<[u8; 32]> {
    make_key("seal", path, deployment, gateway)
}

fn make_key(what: &str, path: &Path, deployment: &str, gateway: &str) -> Result<[u8; 32]> {
    if Origin::join(deployment, gateway, "x").is_err() {
        bail!("`{deployment}/{gateway}`: wanted two names `[a-z0-9][a-z0-9.-]{{0,62}}`");
    }
    let seed = secrets::random::<32>()?;
    let public = Ed25519Signer::from_seed(*seed).public_key();
    let text = secrets::signing_key_text(what, &seed, &public, &format!("{deployment}/{gateway}"));
    write_secret(path, text.as_bytes())?;
    Ok(public)
}

/// Makes a pseudonym key file.
pub(super) fn make_pseudonym_key(path: &Path) -> Result<()> {
    let key = secrets::random::<32>()?;
    write_secret(path, secrets::pseudonym_key_text(&key).as_bytes())
}

fn make_commit_secret(path: &Path) -> Result<()> {
    let secret = secrets::random::<32>()?;
    write_secret(path, secrets::commit_secret_text(&secret).as_bytes())
}

fn write_secret(path: &Path, text: &[u8]) -> Result<()> {
    output::write_new(path, text, 0o600).with_context(|| format!("`{}` could not be made", path.display()))
}

/// A whole trust file for one gateway.
pub(super) fn trust_text(
    deployment: &str,
    gateway: &str,
    public: &[u8; 32],
    heartbeat_bound_s: u64,
) -> String {
    format!(
        "# Trust file of one gateway: what an auditor believes before reading anything. Hand it over by another way than\n\
         # the evidence; `auditor trust show` prints its fingerprint to compare by word of mouth.\n\
         v: 1\n\
         deployment: {deployment}\n\
         gateways:\n  \
           - name: {gateway}\n    \
             key: \"{}\"\n    \
             heartbeat_bound_s: {heartbeat_bound_s}\n",
        STANDARD.encode(public)
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use schemas::trust::Trust;

    #[test]
    fn the_printed_trust_file_is_one() {
        let trust: Trust = serde_saphyr::from_str(&trust_text("acme", "gw1", &[7; 32], 300)).unwrap();
        assert_eq!(trust.check(), []);
        assert_eq!(trust.gateways[0].public_key().unwrap(), [7; 32]);
        assert_eq!((trust.deployment.as_str(), trust.gateways[0].heartbeat_bound_s), ("acme", Some(300)));
    }

    #[test]
    fn the_printed_archiver_is_one_item_of_a_list() {
        let typed: serde_json::Value = serde_saphyr::from_str(&archiver_line("ar1", &[7; 32])).unwrap();
        let key = schemas::trust::key_text(&[7; 32]);
        assert_eq!(typed, serde_json::json!([{ "name": "ar1", "key": key }]));
    }

    #[test]
    fn a_made_key_is_its_owners_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let public = make_seal_key(&path, "acme", "gw1").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file = std::fs::read(&path).unwrap();
        let seed = secrets::parse_seal_key(&file).unwrap();
        assert_eq!(Ed25519Signer::from_seed(*seed).public_key(), public);
        assert!(make_seal_key(&path, "acme", "gw1").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), file);
        assert!(make_seal_key(&folder.path().join("other"), "Acme", "gw1").is_err());
        let path = folder.path().join("commit.secret");
        make_commit_secret(&path).unwrap();
        assert!(secrets::parse_commit_secret(&std::fs::read(&path).unwrap()).is_ok());
        assert!(make_commit_secret(&path).is_err());
    }
}
