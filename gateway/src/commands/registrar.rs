//! `gateway registrar`: keeps the registry of a deployment, until told to stop.
//!
//! ```yaml
//! deployment: acme
//! out: { directory: evidence }      # where the gateways' logs are, and the registry; or s3, as a gateway has it
//! seal_key: registry.key            # gateway keygen --gateway registry
//! checkpoint_key: checkpoint.key
//! root: "base64 of 32 bytes"        # the deployment's root key, public
//! entries: key-entries              # what enroll, rotate-key and revoke-key wrote
//! scratch: /var/tmp/registrar       # optional; default: the system's folder for temporary files
//! interval: 5s
//! heartbeat: 5m
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use evidence::Reference;
use evidence::clock::SystemClock;
use evidence::registry::{Registrar, RegistrarConfig, RegistrarError, Round};
use policies::document::{self, Fields, Problem};
use schemas::names::is_part;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::trust::{key_text, public_key};
use schemas::{Identifier, canonical};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli;
use crate::config::{self, Out, parse_duration};
use crate::secrets::parse_seal_key;
use crate::store;

/// How many intervals work waits before a registrar that stands by does it.
const PATIENCE: u32 = 3;

/// What was typed.
struct Typed {
    deployment: String,
    out: Out,
    seal_key: PathBuf,
    checkpoint_key: PathBuf,
    root: [u8; 32],
    entries: PathBuf,
    scratch: PathBuf,
    interval: Duration,
    heartbeat: Duration,
}

pub(super) fn run(args: &cli::Registrar) -> Result<()> {
    let (settings, interval) = settings(&args.config)?;
    super::start_logging(&args.log)?;
    let mut registrar = Registrar::new(settings)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        tracing::info!(origin = %registrar.origin(), "keeping the registry");
        loop {
            let round = tokio::task::spawn_blocking(move || {
                let round = registrar.round();
                (registrar, round)
            });
            // A round is never cut: a signal is heeded behind it.
            let (back, round) = round.await.context("a round of the registrar")?;
            registrar = back;
            let again_at_once = told(&round);
            let pause = if again_at_once { Duration::ZERO } else { interval };
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        tracing::info!(origin = %registrar.origin(), "stopped");
        Ok(())
    })
}

/// Logs what a round came to; true where the next one should follow at once.
fn told(round: &Result<Round, RegistrarError>) -> bool {
    match round {
        Ok(Round::Stored(_)) => true,
        Ok(round) => {
            tracing::debug!(?round, "round");
            false
        }
        Err(error @ RegistrarError::Damaged { .. }) => {
            tracing::error!(%error, "the registry in the store is not sound: nothing is registered");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "not registered; tried again");
            false
        }
    }
}

fn settings(path: &Path) -> Result<(RegistrarConfig, Duration)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let typed = read(&text, base).map_err(|problems| super::told(path, &problems))?;
    let seed = |key: &str, path: &Path| -> Result<[u8; 32]> {
        let file = std::fs::read(path).with_context(|| format!("`{key}` is `{}`", path.display()))?;
        let seed = parse_seal_key(&file)
            .map_err(|form| anyhow::anyhow!("`{key}` is `{}`: wanted {form}", path.display()))?;
        Ok(*seed)
    };
    let seal_seed = seed("seal_key", &typed.seal_key)?;
    let checkpoint_seed = seed("checkpoint_key", &typed.checkpoint_key)?;
    anyhow::ensure!(seal_seed != checkpoint_seed, "`checkpoint_key` is the seal key: wanted another key");
    let public = |seed| key_text(&Ed25519Signer::from_seed(seed).public_key());
    let record = canonical::to_vec(&serde_json::json!({
        "role": "registrar",
        "deployment": typed.deployment,
        "seal_key": public(seal_seed),
        "checkpoint_key": public(checkpoint_seed),
        "root": key_text(&typed.root),
        "interval_ms": u64::try_from(typed.interval.as_millis())?,
        "heartbeat_ms": u64::try_from(typed.heartbeat.as_millis())?,
    }))?;
    let settings = RegistrarConfig {
        deployment: typed.deployment,
        store: store::open(&typed.out, "out")?,
        seal_seed,
        checkpoint_seed,
        root: typed.root,
        entries: typed.entries,
        scratch: typed.scratch,
        heartbeat_bound: typed.heartbeat,
        patience: typed.interval * PATIENCE,
        version: Identifier::new(env!("CARGO_PKG_VERSION"))?,
        config: Reference { media_type: Identifier::new("application/json")?, bytes: record.into() },
        clock: Arc::new(SystemClock),
    };
    Ok((settings, typed.interval))
}

fn read(text: &str, base: &Path) -> Result<Typed, Vec<Problem>> {
    const PART: &str = "a name `[a-z0-9][a-z0-9.-]{0,62}`";
    const KEY: &str = "the public root key, base64 of 32 bytes";
    const DURATION: &str = "a duration as `5s` or `5m`, at least 100ms";
    let node = document::parse(text)?;
    let mut problems = Vec::new();
    let mut f = Fields::new(&node, "", &mut problems);
    let path = |text: &str| Some(base.join(text));
    let duration = |text: &str| parse_duration(text).filter(|found| *found >= Duration::from_millis(100));
    let deployment = f.required("deployment", PART, |text| is_part(text).then(|| text.to_owned()));
    let seal_key = f.required("seal_key", "a path", path);
    let checkpoint_key = f.required("checkpoint_key", "a path", path);
    let root = f.required("root", KEY, public_key);
    let entries = f.required("entries", "a path", path);
    let scratch = f.optional("scratch", "a path", path);
    let interval = f.optional("interval", DURATION, duration).unwrap_or(Duration::from_secs(5));
    let heartbeat = f.optional("heartbeat", DURATION, duration).unwrap_or(Duration::from_secs(300));
    let out = f.required_node("out", "`directory` or `s3`: where the logs are");
    let out = out.and_then(|node| config::out(node, "out", base, f.problems()));
    f.finish();
    let scratch = scratch.unwrap_or_else(|| std::env::temp_dir().join("affidavit-registrar"));
    match (deployment, out, seal_key, checkpoint_key, root, entries) {
        (Some(deployment), Some(out), Some(seal_key), Some(checkpoint_key), Some(root), Some(entries))
            if problems.is_empty() =>
        {
            Ok(Typed {
                deployment,
                out,
                seal_key,
                checkpoint_key,
                root,
                entries,
                scratch,
                interval,
                heartbeat,
            })
        }
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_a_registrar_s_configuration_is_told() {
        let text =
            "deployment: ACME\nroot: short\nout: { folder: x }\ninterval: 1ms\nentries: e\ncolour: red\n";
        let Err(problems) = read(text, Path::new("/")) else { std::panic::panic_any("accepted") };
        let keys: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for key in ["deployment", "seal_key", "checkpoint_key", "root", "interval", "out.directory", "colour"]
        {
            assert!(keys.iter().any(|problem| problem.contains(key)), "{key} not in {keys:?}");
        }
        let root = key_text(&[1; 32]);
        let text = format!(
            "deployment: acme\nroot: \"{root}\"\nout: {{ directory: o }}\nentries: e\nseal_key: a\ncheckpoint_key: b\n"
        );
        let Ok(typed) = read(&text, Path::new("/x")) else { std::panic::panic_any("refused") };
        assert_eq!((typed.out, typed.interval.as_secs()), (Out::Directory("/x/o".into()), 5));
    }
}
