//! `gateway registrar`: keeps the registry of a deployment, until told to stop.
//!
//! ```yaml
//! deployment: acme
//! out: { directory: evidence }      # where the gateways' logs are, and the registry; or s3, as a gateway has it
//! kafka:                            # optional: where batches go there through a topic; as an archiver has it
//!   brokers: ["kafka1.acme.example:9093"]
//!   topic: affidavit-batches        # optional; also `tls`, `sasl` and `timeout`
//! seal_key: registry.key            # gateway keygen --gateway registry
//! checkpoint_key: checkpoint.key
//! root: "base64 of 32 bytes"        # the deployment's root key, public
//! entries: key-entries              # what enroll, rotate-key and revoke-key wrote
//! scratch: /var/tmp/registrar       # optional; default: the system's folder for temporary files
//! interval: 5s
//! heartbeat: 5m
//! metrics: 127.0.0.1:9465           # optional: `/metrics` for Prometheus
//! witnesses:                        # optional: who cosigns each checkpoint (C2SP tlog-witness)
//!   - key: "witness.example/w1+6f3cf7ae+BAbGq..."
//!     url: https://witness.example/
//!     every: 1m                     # optional: at most that often; default: each checkpoint
//! timestamp:                        # optional: who puts a time to the newest checkpoint (RFC 3161)
//!   url: https://tsa.example/tsr
//!   every: 1h                       # optional
//!   policy: 1.3.6.1.4.1.4146.2.3    # optional
//!   roots: tsa-roots.pem            # optional: a token that does not lead there is not kept
//! ```

mod asking;
mod http;
mod metrics;
mod rounds;
mod timestamp;
mod witness;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use evidence::Reference;
use evidence::clock::SystemClock;
use evidence::registry::{Head, Registrar, RegistrarConfig};
use evidence::topic::{Following, TopicBatches};
use policies::document::{self, Fields, Node, Problem};
use schemas::names::is_part;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::timestamp::Authority;
use schemas::trust::{key_text, public_key};
use schemas::{Identifier, canonical};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli;
use crate::config::{self, KafkaIn, Out, Referred, parse_duration};
use crate::output;
use crate::record::now_us;
use crate::store;

/// How many intervals work waits before a registrar that stands by does it.
const PATIENCE: u32 = 3;

/// How long work that is not a round may take to end behind the last round.
const END: Duration = Duration::from_secs(2);

/// What was typed.
struct Typed {
    deployment: String,
    out: Out,
    kafka: Option<KafkaIn>,
    seal_key: PathBuf,
    checkpoint_key: PathBuf,
    root: [u8; 32],
    entries: PathBuf,
    scratch: PathBuf,
    interval: Duration,
    heartbeat: Duration,
    others: Others,
}

/// Who else is asked for a word on the registry, and where it is shown how that goes.
#[derive(Debug, Default)]
struct Others {
    metrics: Option<SocketAddr>,
    witnesses: Vec<witness::Asked>,
    timestamp: Option<timestamp::Asked>,
}

pub(super) fn run(args: &cli::Registrar) -> Result<()> {
    let path = &args.config;
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let typed = read(&text, base).map_err(|problems| super::told(path, &problems))?;
    let root = document::parse(&text).map_err(|problems| super::told(path, &problems))?;
    let (referred, seeds) = referred(&typed, &root);
    super::require(path, referred, args.check)?;
    let (seal_seed, checkpoint_seed) = seeds.context("the keys were read")?;
    if args.check {
        show(path, &typed, seal_seed, checkpoint_seed);
        return Ok(());
    }
    let (settings, interval, others, kafka) = settings(typed, seal_seed, checkpoint_seed)?;
    super::start_logging(&args.log, args.log_format)?;
    let _following = follow(&settings, kafka.as_ref())?;
    let mut registrar = Registrar::new(settings)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    let kept = runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        tracing::info!(origin = %registrar.origin(), "keeping the registry");
        let (heads, metrics) = ask_others(others, &registrar).await?;
        let (waits, mut teller) = (registrar.waits(), rounds::Teller::default());
        loop {
            let round = tokio::task::spawn_blocking(move || {
                let round = registrar.round();
                (registrar, round)
            });
            // A round is never cut: a signal is heeded behind it.
            let (back, round) =
                rounds::watched(round, &waits, rounds::LONG).await.context("a round of the registrar")?;
            registrar = back;
            metrics.round(&round, now_us());
            metrics.stand(&registrar.gateways(), registrar.sealed_us(), registrar.set_aside());
            if let Some(head) = registrar.head() {
                metrics.size.set(i64::try_from(head.size).unwrap_or(i64::MAX));
                heads.send_if_modified(|known| {
                    let newer = known.as_ref() != Some(head);
                    if newer {
                        *known = Some(head.clone());
                    }
                    newer
                });
            }
            let again_at_once = teller.told(&round);
            let pause = if again_at_once { Duration::ZERO } else { interval };
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        tracing::info!(origin = %registrar.origin(), "stopped");
        Ok(())
    });
    // Who is just asked is not waited for: what was not kept is asked for again after the next start.
    runtime.shutdown_timeout(END);
    kept
}

/// Starts a task for each that is asked; it ends with the sender of the heads.
async fn ask_others(
    others: Others,
    registrar: &Registrar,
) -> Result<(watch::Sender<Option<Head>>, Arc<metrics::Metrics>)> {
    let (sender, heads) = watch::channel(None);
    let metrics = Arc::new(metrics::Metrics::new());
    if let Some(listen) = others.metrics {
        let text = Arc::clone(&metrics);
        let shown = super::shown::metrics(listen, move || text.text()).await;
        shown.with_context(|| format!("`metrics` is `{listen}`: cannot be listened on"))?;
    }
    if others.witnesses.is_empty() && others.timestamp.is_none() {
        return Ok((sender, metrics));
    }
    let client = http::Client::new().context("the system's root certificates")?;
    let anchors = registrar.anchors();
    for asked in others.witnesses {
        let (anchors, client) = (anchors.clone(), client.clone());
        let witness = witness::Witness::new(asked, anchors, client);
        tokio::spawn(asking::follow(witness, heads.clone(), Arc::clone(&metrics)));
    }
    if let Some(asked) = others.timestamp {
        let authority = timestamp::Stamping::new(asked, anchors, client);
        tokio::spawn(asking::follow(authority, heads, Arc::clone(&metrics)));
    }
    Ok((sender, metrics))
}

/// Reads the topic, for as long as what this gives lives.
fn follow(settings: &RegistrarConfig, kafka: Option<&KafkaIn>) -> Result<Option<Following>> {
    let (Some(kafka), Some(topic)) = (kafka, &settings.topic) else { return Ok(None) };
    let connection = kafka.connection().map_err(|why| anyhow::anyhow!("`kafka.sasl.secret`: {why}"))?;
    topic.follow(connection, &kafka.topic).context("a thread for the topic").map(Some)
}

/// The seeds of the seal key and the checkpoint key.
type Seeds = ([u8; 32], [u8; 32]);

/// Looks at what the configuration refers to; gives the seeds of both keys.
fn referred<'a>(typed: &Typed, root: &'a Node) -> (Referred<'a>, Option<Seeds>) {
    let mut referred = Referred::new(root);
    let seal = referred.seed("seal_key", &typed.seal_key);
    let checkpoint = referred.seed("checkpoint_key", &typed.checkpoint_key);
    if seal.is_some() && seal == checkpoint {
        referred.problem("checkpoint_key", &typed.checkpoint_key, "another key than the seal key");
    }
    if let Some(kafka) = &typed.kafka {
        referred.kafka("kafka", kafka);
    }
    referred.store("out", &typed.out);
    (referred, seal.zip(checkpoint).map(|(seal, checkpoint)| (*seal, *checkpoint)))
}

/// Shows what the configuration means.
fn show(path: &Path, typed: &Typed, seal_seed: [u8; 32], checkpoint_seed: [u8; 32]) {
    let public = |seed| key_text(&Ed25519Signer::from_seed(seed).public_key());
    output::line(format_args!("`{}` is sound", path.display()));
    output::line(format_args!("  registry       of {}, seal key {}", typed.deployment, public(seal_seed)));
    output::line(format_args!("  checkpoints    key {}", public(checkpoint_seed)));
    output::line(format_args!("  root           {}", key_text(&typed.root)));
    output::line(format_args!("  store          {}", super::shown_store(&typed.out)));
    if let Some(kafka) = &typed.kafka {
        output::line(format_args!("  reads          topic {}", kafka.topic));
    }
    for witness in &typed.others.witnesses {
        output::line(format_args!("  witness        {} at {}", witness.key, witness.url));
    }
    if let Some(authority) = &typed.others.timestamp {
        output::line(format_args!("  timestamps     {}", authority.url));
    }
}

fn settings(
    typed: Typed,
    seal_seed: [u8; 32],
    checkpoint_seed: [u8; 32],
) -> Result<(RegistrarConfig, Duration, Others, Option<KafkaIn>)> {
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
    let topic = typed.kafka.is_some().then(|| TopicBatches::new(&typed.deployment));
    let settings = RegistrarConfig {
        topic,
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
    Ok((settings, typed.interval, typed.others, typed.kafka))
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
    let others = others(&mut f, base);
    let kafka = f.node("kafka").map(|node| config::kafka_in(node, "kafka", base, f.problems()));
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
                kafka: kafka.flatten(),
                seal_key,
                checkpoint_key,
                root,
                entries,
                scratch,
                interval,
                heartbeat,
                others,
            })
        }
        _ => Err(problems),
    }
}

fn others(f: &mut Fields<'_, '_>, base: &Path) -> Others {
    const URL: &str = "a URL as `https://witness.example/`";
    const OFTEN: &str = "a duration as `1m`, or `0s`";
    let url = |text: &str| {
        let known = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        (known && text.parse::<::http::Uri>().is_ok()).then(|| text.to_owned())
    };
    let mut others = Others {
        metrics: f.optional("metrics", "an address and port as `127.0.0.1:9465`", |text| text.parse().ok()),
        ..Others::default()
    };
    let witnesses: &[Node] = f.items("witnesses").unwrap_or_default();
    for (i, node) in witnesses.iter().enumerate() {
        let mut f = Fields::new(node, format!("witnesses[{i}]"), f.problems());
        let wanted = "a witness's verifier key `<name>+<key id>+<base64 of 0x04 and 32 bytes>`";
        let key = f.required("key", wanted, |text| text.parse().ok());
        let url = f.required("url", URL, url);
        let every = f.optional("every", OFTEN, parse_duration).unwrap_or(Duration::ZERO);
        f.finish();
        if let (Some(key), Some(url)) = (key, url) {
            others.witnesses.push(witness::Asked { key, url, every });
        }
    }
    if let Some(node) = f.node("timestamp") {
        let mut f = Fields::new(node, "timestamp", f.problems());
        let url = f.required("url", URL, url);
        let every = f.optional("every", OFTEN, parse_duration).unwrap_or(Duration::from_secs(3600));
        let wanted = "an object identifier as `1.3.6.1.4.1.4146.2.3`";
        let policy = f.optional("policy", wanted, schemas::timestamp::policy);
        let roots = f.optional("roots", "a file of certificates in PEM, or one in DER", |text| {
            schemas::timestamp::certificates(&std::fs::read(base.join(text)).ok()?).ok()
        });
        f.finish();
        let authority =
            Authority { roots: roots.unwrap_or_default(), intermediates: vec![], policy, signers: vec![] };
        others.timestamp = url.map(|url| timestamp::Asked { url, every, authority });
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_taken() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
        let text = std::fs::read_to_string(base.join("registrar.yaml")).unwrap();
        let typed = read(&text, &base).unwrap_or_else(|problems| {
            std::panic::panic_any(problems.iter().map(ToString::to_string).collect::<String>())
        });
        assert!(typed.others.witnesses.is_empty() && typed.others.timestamp.is_none());
    }

    #[test]
    fn every_problem_of_a_registrar_s_configuration_is_told() {
        let text = "deployment: ACME\nroot: short\nout: { folder: x }\ninterval: 1ms\nentries: e\ncolour: red\n\
             kafka: { brokers: [nowhere] }\n";
        let Err(problems) = read(text, Path::new("/")) else { std::panic::panic_any("accepted") };
        let keys: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for key in [
            "deployment",
            "seal_key",
            "checkpoint_key",
            "root",
            "interval",
            "out.directory",
            "colour",
            "kafka.brokers",
        ] {
            assert!(keys.iter().any(|problem| problem.contains(key)), "{key} not in {keys:?}");
        }
        let root = key_text(&[1; 32]);
        let text = format!(
            "deployment: acme\nroot: \"{root}\"\nout: {{ directory: o }}\nentries: e\nseal_key: a\ncheckpoint_key: b\n"
        );
        let Ok(typed) = read(&text, Path::new("/x")) else { std::panic::panic_any("refused") };
        assert_eq!((typed.out, typed.interval.as_secs()), (Out::Directory("/x/o".into()), 5));
        let more = "witnesses:\n  - { key: short, url: ftp://x, every: often }\n\
                    timestamp: { url: here, policy: one, roots: nowhere }\nmetrics: here\n";
        let Err(problems) = read(&format!("{text}{more}"), Path::new("/x")) else {
            std::panic::panic_any("accepted")
        };
        let keys: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for key in [
            "witnesses[0].key",
            "witnesses[0].url",
            "witnesses[0].every",
            "timestamp.url",
            "timestamp.policy",
            "timestamp.roots",
            "metrics",
        ] {
            assert!(keys.iter().any(|problem| problem.contains(key)), "{key} not in {keys:?}");
        }
        let key = schemas::tlog::WitnessKey::new("w.example/1", [1; 32]).unwrap();
        let more = format!(
            "witnesses: [{{ key: \"{key}\", url: \"https://w.example/\" }}]\n\
             timestamp: {{ url: \"http://tsa.example/\", policy: 1.2.3 }}\n"
        );
        let Ok(typed) = read(&format!("{text}{more}"), Path::new("/x")) else {
            std::panic::panic_any("refused")
        };
        assert_eq!(typed.others.witnesses[0].key, key);
        assert_eq!(typed.others.timestamp.unwrap().every.as_secs(), 3600);
    }

    #[test]
    fn a_check_tells_everything_that_is_not_there_and_starts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("registrar.yaml");
        let root = key_text(&[1; 32]);
        let text = format!(
            "deployment: acme\nroot: \"{root}\"\nout: {{ directory: store }}\nentries: e\nseal_key: a\n\
             checkpoint_key: b\nkafka: {{ brokers: ['127.0.0.1:1'], sasl: {{ mechanism: plain, user: u, \
             secret: {{ file: password }} }} }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let check = || {
            let log_format = cli::LogLines::Text;
            run(&cli::Registrar { config: config.clone(), check: true, log: "info".into(), log_format })
        };
        let told = check().unwrap_err().to_string();
        for key in ["seal_key", "checkpoint_key", "kafka.sasl.secret.file"] {
            assert!(told.contains(&format!("`{key}`")), "{key} not in {told}");
        }
        let key = |n| crate::secrets::seal_key_text(&[n; 32], &[0; 32], "a registrar").to_string();
        for (name, text) in [("a", key(1)), ("b", key(1)), ("password", "hunter2".into())] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let told = check().unwrap_err().to_string();
        assert!(told.contains("another key than the seal key"), "{told}");
        std::fs::write(folder.path().join("b"), key(2)).unwrap();
        check().unwrap();
        assert!(!folder.path().join("store").exists(), "nothing was started");
    }
}
