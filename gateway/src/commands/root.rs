//! `gateway root keygen`, `enroll`, `rotate-key`, `revoke-key`: what is done with the deployment's root key. None of
//! them needs the store or the network: the root key can stay on a machine of its own.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use schemas::Origin;
use schemas::names::is_part;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::registry::{KeyAction, KeyStatement, Until};
use schemas::trust::{key_text, public_key};

use crate::cli::{Enroll, RevokeKey, Root, RotateKey, SignedBy};
use crate::config::parse_duration;
use crate::output;
use crate::secrets::{self, parse_seal_key};

/// `root keygen`.
pub(super) fn run(command: &Root) -> Result<()> {
    let Root::Keygen(args) = command;
    if !is_part(&args.deployment) {
        bail!("`--deployment {}`: wanted a name `[a-z0-9][a-z0-9.-]{{0,62}}`", args.deployment);
    }
    let seed = secrets::random::<32>()?;
    let public = Ed25519Signer::from_seed(*seed).public_key();
    let text = secrets::seal_key_text(&seed, &public, &format!("the root of {}", args.deployment));
    output::write_new(&args.out, text.as_bytes(), 0o600)
        .with_context(|| format!("`{}` could not be made", args.out.display()))?;
    output::note(format_args!("root key: {} (keep it offline; mode 0600)", args.out.display()));
    output::note("public key, for `root` in registrar.yaml and trust.yaml, on stdout:");
    output::line(key_text(&public));
    Ok(())
}

/// `enroll`: a gateway has a further key.
pub(super) fn enroll(args: &Enroll) -> Result<()> {
    let statement = KeyStatement {
        deployment: args.signed.deployment.clone(),
        action: KeyAction::Add,
        gateway: args.gateway.clone(),
        key: key_of(&args.key)?,
        replaces: None,
        heartbeat_bound_s: bound(args.heartbeat.as_deref())?,
        closers: args.closer.iter().map(|closer| key_of(closer)).collect::<Result<_>>()?,
        until: None,
    };
    write(&args.signed, &statement)
}

/// `rotate-key`: a gateway's key takes the place of another.
pub(super) fn rotate(args: &RotateKey) -> Result<()> {
    let statement = KeyStatement {
        deployment: args.signed.deployment.clone(),
        action: KeyAction::Rotate,
        gateway: args.gateway.clone(),
        key: key_of(&args.key)?,
        replaces: Some(key_of(&args.replaces)?),
        heartbeat_bound_s: bound(args.heartbeat.as_deref())?,
        closers: args.closer.iter().map(|closer| key_of(closer)).collect::<Result<_>>()?,
        until: None,
    };
    write(&args.signed, &statement)
}

/// `revoke-key`: a key counts no longer.
pub(super) fn revoke(args: &RevokeKey) -> Result<()> {
    let until = args.until.as_deref().map(until).transpose()?;
    let statement = KeyStatement {
        deployment: args.signed.deployment.clone(),
        action: KeyAction::Revoke,
        gateway: args.gateway.clone(),
        key: key_of(&args.key)?,
        replaces: None,
        heartbeat_bound_s: None,
        closers: vec![],
        until,
    };
    write(&args.signed, &statement)
}

fn write(signed: &SignedBy, statement: &KeyStatement) -> Result<()> {
    let file = std::fs::read(&signed.root).with_context(|| format!("`--root {}`", signed.root.display()))?;
    let seed = parse_seal_key(&file)
        .map_err(|form| anyhow::anyhow!("`--root {}`: wanted {form}", signed.root.display()))?;
    let root = Ed25519Signer::from_seed(*seed);
    let note = statement.sign(&root).context("the key entry")?;
    output::write_new(&signed.out, &note, 0o644)
        .with_context(|| format!("`{}` could not be made", signed.out.display()))?;
    output::note(format_args!(
        "{} of key {} of {}/{}: put `{}` into the registrar's folder of key entries",
        statement.action,
        statement.key,
        statement.deployment,
        statement.gateway,
        signed.out.display()
    ));
    Ok(())
}

/// A public key as typed: base64, or a file that holds it: the text alone, or the comment of a key file.
pub(super) fn key_of(text: &str) -> Result<String> {
    if public_key(text).is_some() {
        return Ok(text.to_owned());
    }
    const FORM: &str = "a public key, base64 of 32 bytes, or a file with one";
    let file =
        std::fs::read_to_string(Path::new(text)).with_context(|| format!("`{text}`: wanted {FORM}"))?;
    let lines = file.lines().map(|line| line.trim_start_matches("# public key:").trim());
    let found: Vec<&str> = lines.filter(|line| public_key(line).is_some()).collect();
    match found.as_slice() {
        [key] => Ok((*key).to_owned()),
        _ => bail!("`{text}`: wanted {FORM}, found {} in it", found.len()),
    }
}

fn bound(text: Option<&str>) -> Result<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration(text).map(|bound| bound.as_secs()) {
        Some(seconds @ 1..) => Ok(Some(seconds)),
        _ => bail!("`--heartbeat {text}`: wanted a duration as `5m`, at least `1s`"),
    }
}

fn until(text: &str) -> Result<Until> {
    let parsed = text.rsplit_once(':').and_then(|(origin, size)| {
        Some(Until { origin: Origin::new(origin).ok()?, size: size.parse().ok()? })
    });
    parsed.with_context(|| format!("`--until {text}`: wanted `<origin>:<size>`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RootKeygen;

    #[test]
    fn a_root_key_signs_entries_that_a_registrar_takes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let keygen = RootKeygen { deployment: "acme".into(), out: path("root.key") };
        run(&Root::Keygen(keygen)).unwrap();
        let seed = parse_seal_key(&std::fs::read(path("root.key")).unwrap()).unwrap();
        let root = Ed25519Signer::from_seed(*seed).public_key();
        std::fs::write(path("gw1.pub"), key_text(&[5; 32]) + "\n").unwrap();
        let signed =
            |out: &str| SignedBy { root: path("root.key"), deployment: "acme".into(), out: path(out) };
        let args = Enroll {
            signed: signed("add"),
            gateway: "gw1".into(),
            key: path("gw1.pub").display().to_string(),
            heartbeat: Some("5m".into()),
            closer: vec![key_text(&[6; 32])],
        };
        enroll(&args).unwrap();
        assert!(enroll(&args).is_err(), "an entry is never overwritten");
        rotate(&RotateKey {
            signed: signed("rotate"),
            gateway: "gw1".into(),
            key: key_text(&[7; 32]),
            replaces: key_text(&[5; 32]),
            heartbeat: None,
            closer: vec![],
        })
        .unwrap();
        let until = Some("acme/gw1/20261120t101500z-3f9a1c20:7".into());
        let args =
            RevokeKey { signed: signed("revoke"), gateway: "gw1".into(), key: key_text(&[5; 32]), until };
        revoke(&args).unwrap();
        for (name, action) in
            [("add", KeyAction::Add), ("rotate", KeyAction::Rotate), ("revoke", KeyAction::Revoke)]
        {
            let note = std::fs::read(path(name)).unwrap();
            let (found, entry) = KeyStatement::verify(&note, "acme", &root).unwrap();
            assert_eq!((found, entry.gateway.as_str()), (action, "gw1"));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        std::fs::write(&file, "nothing\n").unwrap();
        assert!(key_of(&file.display().to_string()).is_err());
        assert!(key_of("nowhere").is_err());
        let public = key_text(&[7; 32]);
        std::fs::write(&file, secrets::seal_key_text(&[1; 32], &[7; 32], "acme/gw1").as_bytes()).unwrap();
        assert_eq!(key_of(&file.display().to_string()).unwrap(), public);
        assert!(until("acme/gw1/e1").is_err() && bound(Some("0s")).is_err());
    }
}
