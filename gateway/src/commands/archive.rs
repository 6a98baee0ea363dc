//! `gateway archive`: puts batches from a topic into the store, until told to stop.
//!
//! ```yaml
//! deployment: acme
//! name: ar1                         # in receipts; gateways pin it with the key
//! key: archiver.key                 # gateway keygen --archiver ar1
//! trust: trust.yaml                 # whose seals count: gateways, or the registry in the store
//! kafka:
//!   brokers: ["kafka1.acme.example:9093"]
//!   topic: affidavit-batches        # optional
//!   receipts: affidavit-receipts    # optional
//!   group: affidavit-archivers-acme # optional: archivers of one group share the partitions; no other deployment's
//!   tls: { ca: kafka-ca.pem }       # optional, as a gateway has it
//!   sasl: { mechanism: scram-sha-512, user: archiver, secret: { env: KAFKA_PASSWORD } }   # optional
//!   outage: 7d                      # optional: how long all archivers may be away; the topic must keep batches as long
//!   timeout: 30s                    # optional
//! out: { directory: evidence }      # or s3, as a gateway has it
//! work: /var/lib/affidavit/archive  # what is not settled; not another archiver's
//! work_bound: 4GiB                  # optional
//! quarantine: /var/lib/affidavit/quarantine
//! quarantine_bound: 1GiB            # optional
//! patience: 10m                     # optional: how long the pieces of a batch may take to come
//! workers: 4                        # optional: batches archived at once
//! metrics: 127.0.0.1:9466           # optional: `/metrics` for Prometheus
//! ```

mod metrics;
mod trust;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use evidence::archive::{ArchiveConfig, Archiver};
use evidence::clock::SystemClock;
use policies::document::{self, Fields, Node, Problem};
use schemas::names::is_part;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::trust::key_text;
use tokio::signal::unix::{SignalKind, signal};

use self::trust::TrustFile;
use super::shown;
use crate::cli;
use crate::config::{self, KafkaIn, Out, Referred, parse_duration, parse_size};
use crate::output;
use crate::record::now_us;
use crate::secrets::parse_seal_key;
use crate::store;

const WORK_BOUND: u64 = 4 << 30;
const QUARANTINE_BOUND: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(600);
const WORKERS: usize = 4;

/// What was typed.
#[derive(Debug, PartialEq)]
struct Typed {
    deployment: String,
    name: String,
    key: PathBuf,
    trust: PathBuf,
    kafka: KafkaIn,
    out: Out,
    work: PathBuf,
    work_bound: u64,
    quarantine: PathBuf,
    quarantine_bound: u64,
    patience: Duration,
    workers: usize,
    metrics: Option<SocketAddr>,
}

pub(super) fn run(args: &cli::Archive) -> Result<()> {
    let text =
        std::fs::read_to_string(&args.config).with_context(|| format!("`{}`", args.config.display()))?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let typed = read(&text, base).map_err(|problems| super::told(&args.config, &problems))?;
    let root = document::parse(&text).map_err(|problems| super::told(&args.config, &problems))?;
    let (referred, key) = referred(&typed, &root);
    super::require(&args.config, referred, args.check)?;
    if args.check {
        show(&args.config, &typed, key.as_deref().unwrap_or_default());
        return Ok(());
    }
    super::start_logging(&args.log, args.log_format)?;
    let trust = Arc::new(TrustFile::open(&typed.trust, &typed.deployment)?);
    let (name, deployment, listen) = (typed.name.clone(), typed.deployment.clone(), typed.metrics);
    let settings = settings(typed, Arc::clone(&trust))?;
    let public = key_text(&Ed25519Signer::from_seed(settings.seed).public_key());
    let (store, work) = (Arc::clone(&settings.store), settings.work.clone());
    judge(&settings)?;
    let archiver = Archiver::open(settings)
        .with_context(|| format!("`work` is `{}`, or `quarantine`: cannot be used", work.display()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        if let Some(listen) = listen {
            let figures = archiver.figures();
            let shown = shown::metrics(listen, move || metrics::text(&figures.counts(), now_us())).await;
            shown.with_context(|| format!("`metrics` is `{listen}`: cannot be listened on"))?;
        }
        tracing::info!(deployment, name, key = public, "archiving");
        let stopped = Arc::clone(&stop);
        let follower = Arc::clone(&trust);
        let mut work = tokio::task::spawn_blocking(move || {
            std::thread::scope(|threads| {
                // Nothing is judged before it is known whose seals count.
                if trust.wait(&*store, &stopped) {
                    threads.spawn(|| follower.follow(&*store, &stopped));
                    archiver.run(&stopped);
                }
            });
        });
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = &mut work => {
                ended.context("the archiver")?;
                anyhow::bail!("the archiver ended by itself");
            }
        }
        stop.store(true, Ordering::Release);
        work.await.context("the archiver")?;
        tracing::info!(deployment, name, "stopped");
        Ok(())
    })
}

/// Looks at what the configuration refers to; gives the public part of the archiver's key.
fn referred<'a>(typed: &Typed, root: &'a Node) -> (Referred<'a>, Option<String>) {
    let mut referred = Referred::new(root);
    let seed = referred.seed("key", &typed.key);
    if let Err(why) = trust::read(&typed.trust, &typed.deployment) {
        let wanted = format!("a trust file of deployment `{}`: {why:#}", typed.deployment);
        referred.problem("trust", &typed.trust, wanted);
    }
    referred.kafka("kafka", &typed.kafka);
    referred.store("out", &typed.out);
    let key = seed.map(|seed| key_text(&Ed25519Signer::from_seed(*seed).public_key()));
    (referred, key)
}

/// Shows what the configuration means.
fn show(path: &Path, typed: &Typed, key: &str) {
    let Typed { deployment, name, kafka, .. } = typed;
    let group = kafka.group.clone().unwrap_or_else(|| default_group(deployment));
    output::line(format_args!("`{}` is sound", path.display()));
    output::line(format_args!("  archiver       {name} of {deployment}, key {key}"));
    output::line(format_args!("  reads          topic {} as group {group}", kafka.topic));
    output::line(format_args!("  answers        topic {}", kafka.receipts));
    output::line(format_args!("  writes         {}", super::shown_store(&typed.out)));
}

/// Archivers of two deployments in one group would share the partitions, and pass each other's batches over.
fn default_group(deployment: &str) -> String {
    format!("affidavit-archivers-{deployment}")
}

/// Refuses topics that no batch would get through. Brokers that do not answer now, and topics that are not there yet, are
/// waited for.
fn judge(settings: &ArchiveConfig) -> Result<()> {
    let mut report = match settings.judge() {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(%error, "the topics cannot be judged now");
            return Ok(());
        }
    };
    for absent in report.faults.extract_if(.., |fault| fault.is_absence()) {
        tracing::warn!(topic = absent.topic, "the topic is not there yet: it is waited for");
    }
    store::heed(&report, "kafka", "no batch would get through")
}

fn settings(typed: Typed, trust: Arc<TrustFile>) -> Result<ArchiveConfig> {
    let file = std::fs::read(&typed.key).with_context(|| format!("`key` is `{}`", typed.key.display()))?;
    let seed = parse_seal_key(&file)
        .map_err(|form| anyhow::anyhow!("`key` is `{}`: wanted {form}", typed.key.display()))?;
    let connection = typed.kafka.connection().map_err(|why| anyhow::anyhow!("`kafka.sasl.secret`: {why}"))?;
    Ok(ArchiveConfig {
        name: typed.name,
        seed: *seed,
        connection,
        topic: typed.kafka.topic,
        receipts: typed.kafka.receipts,
        group: typed.kafka.group.unwrap_or_else(|| default_group(&typed.deployment)),
        outage: typed.kafka.outage,
        store: store::open(&typed.out, "out")?,
        keys: trust,
        work: typed.work,
        work_bound: typed.work_bound,
        quarantine: typed.quarantine,
        quarantine_bound: typed.quarantine_bound,
        patience: typed.patience,
        workers: typed.workers,
        clock: Arc::new(SystemClock),
    })
}

fn read(text: &str, base: &Path) -> Result<Typed, Vec<Problem>> {
    const PART: &str = "a name `[a-z0-9][a-z0-9.-]{0,62}`";
    const SIZE: &str = "a size as `4GiB`, at least 64MiB";
    const DURATION: &str = "a duration as `10m`, from 10s to 1d";
    let node = document::parse(text)?;
    let mut problems = Vec::new();
    let mut f = Fields::new(&node, "", &mut problems);
    let part = |text: &str| is_part(text).then(|| text.to_owned());
    let path = |text: &str| Some(base.join(text));
    let size = |text: &str| parse_size(text).filter(|size| *size >= 64 << 20);
    let within = Duration::from_secs(10)..=Duration::from_secs(86_400);
    let patience = |text: &str| parse_duration(text).filter(|found| within.contains(found));
    let deployment = f.required("deployment", PART, part);
    let name = f.required("name", PART, part);
    let key = f.required("key", "a path", path);
    let trust = f.required("trust", "a path", path);
    let work = f.required("work", "a path", path);
    let quarantine = f.required("quarantine", "a path", path);
    let work_bound = f.optional("work_bound", SIZE, size).unwrap_or(WORK_BOUND);
    let quarantine_bound = f.optional("quarantine_bound", SIZE, size).unwrap_or(QUARANTINE_BOUND);
    let patience = f.optional("patience", DURATION, patience).unwrap_or(PATIENCE);
    let workers = f.optional("workers", "a whole number from 1 to 64", |text| {
        text.parse().ok().filter(|count| (1..=64).contains(count))
    });
    let metrics = f.optional("metrics", "an address and port as `127.0.0.1:9466`", |text| text.parse().ok());
    let kafka = f.required_node("kafka", "`brokers`: the cluster that batches come from");
    let kafka = kafka.and_then(|node| config::kafka_in(node, "kafka", base, f.problems()));
    let out = f.required_node("out", "`directory` or `s3`: where batches go");
    let out = out.and_then(|node| config::out(node, "out", base, f.problems()));
    f.finish();
    let whole = || {
        Some(Typed {
            deployment: deployment?,
            name: name?,
            key: key?,
            trust: trust?,
            kafka: kafka?,
            out: out?,
            work: work?,
            work_bound,
            quarantine: quarantine?,
            quarantine_bound,
            patience,
            workers: workers.unwrap_or(WORKERS),
            metrics,
        })
    };
    match whole() {
        Some(typed) if problems.is_empty() => Ok(typed),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/examples/archive.yaml");

    #[test]
    fn the_example_is_read_as_it_stands() {
        let Ok(typed) = read(EXAMPLE, Path::new("/etc/affidavit")) else { std::panic::panic_any("refused") };
        assert_eq!((typed.deployment.as_str(), typed.name.as_str()), ("acme", "ar1"));
        assert_eq!(typed.key, Path::new("/etc/affidavit/archiver.key"));
        assert_eq!(
            (typed.kafka.topic.as_str(), typed.kafka.group.as_deref()),
            ("affidavit-batches", Some("affidavit-archivers-acme"))
        );
        assert_eq!((typed.work_bound, typed.patience, typed.workers), (WORK_BOUND, PATIENCE, WORKERS));
        assert_eq!(typed.metrics, "127.0.0.1:9466".parse().ok());
    }

    #[test]
    fn every_problem_of_an_archiver_s_configuration_is_told() {
        let text = "deployment: ACME\nname: \"\"\nout: { folder: x }\nwork_bound: 1KiB\nquarantine_bound: much\n\
                    patience: 1s\nworkers: 0\nmetrics: here\ncolour: red\n\
                    kafka: { brokers: [nowhere], topic: a b, receipts: t, group: \"?\", tls: { key: k }, \
                    sasl: { mechanism: best, secret: x }, outage: 1m, timeout: 0s, archivers: [] }\n";
        let Err(problems) = read(text, Path::new("/")) else { std::panic::panic_any("accepted") };
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for key in [
            "deployment",
            "name",
            "key",
            "trust",
            "work",
            "quarantine",
            "work_bound",
            "quarantine_bound",
            "patience",
            "workers",
            "metrics",
            "colour",
            "out.directory",
            "kafka.brokers",
            "kafka.topic",
            "kafka.group",
            "kafka.tls.key",
            "kafka.sasl.mechanism",
            "kafka.sasl.secret",
            "kafka.outage",
            "kafka.timeout",
            "kafka.archivers",
        ] {
            assert!(
                told.iter().any(|problem| problem.contains(&format!("`{key}`"))),
                "{key} not in {told:#?}"
            );
        }
    }

    #[test]
    fn one_topic_for_both_ways_is_refused() {
        let text = EXAMPLE.replace("affidavit-receipts", "affidavit-batches");
        let Err(problems) = read(&text, Path::new("/")) else { std::panic::panic_any("accepted") };
        assert!(problems[0].to_string().contains("kafka.receipts"), "{problems:?}");
    }

    #[test]
    fn a_check_tells_everything_that_is_not_there_and_starts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("archive.yaml");
        let text = "deployment: acme\nname: ar1\nkey: archiver.key\ntrust: trust.yaml\nwork: work\nquarantine: q\n\
                    out: { directory: store }\nkafka: { brokers: ['127.0.0.1:1'], tls: { ca: ca.pem }, \
                    sasl: { mechanism: plain, user: u, secret: { file: password } } }\n";
        std::fs::write(&config, text.replace("{ directory: store }", OTHER_OUT)).unwrap();
        let check = || {
            let log_format = cli::LogLines::Text;
            run(&cli::Archive { config: config.clone(), check: true, log: "info".into(), log_format })
        };
        let told = check().unwrap_err().to_string();
        for key in ["key", "trust", "out.kafka", "kafka.tls.ca", "kafka.sasl.secret.file"] {
            assert!(told.contains(&format!("`{key}`")), "{key} not in {told}");
        }
        let made = rcgen::generate_simple_self_signed(["kafka".to_owned()]).unwrap();
        let key = crate::secrets::seal_key_text(&[7; 32], &[0; 32], "an archiver");
        let trust =
            format!("v: 1\ndeployment: acme\ngateways: [{{ name: gw1, key: \"{}\" }}]\n", key_text(&[1; 32]));
        for (name, text) in [
            ("archiver.key", key.as_str()),
            ("ca.pem", made.cert.pem().as_str()),
            ("password", "hunter2"),
            ("trust.yaml", trust.as_str()),
            ("archive.yaml", text),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        check().unwrap();
        std::fs::write(folder.path().join("trust.yaml"), trust.replace("acme", "other")).unwrap();
        let told = check().unwrap_err().to_string();
        assert!(told.contains("1 problem") && told.contains("wanted `acme`"), "{told}");
        let made: Vec<_> =
            ["store", "work", "q"].iter().filter(|name| folder.path().join(name).exists()).collect();
        assert!(made.is_empty(), "{made:?}");
    }

    /// A way out that only a gateway has.
    const OTHER_OUT: &str = "{ kafka: { brokers: ['k:1'], archivers: [{ name: ar1, key: \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\" }] } }";
}
