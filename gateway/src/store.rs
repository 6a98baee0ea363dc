//! The way out as configured: a directory, a bucket or topics that were judged.

use std::sync::Arc;

use anyhow::Context as _;
use evidence::disk::RealDisk;
use evidence::store::{Archive, Trouble};
use evidence::topic::TopicReport;
use evidence::{DirectoryStore, KafkaStore, S3Store, Store, StoreError};

use crate::config::{self, Commit, Loaded, Out};

/// Opens a gateway's way out.
///
/// # Errors
/// A directory that cannot be used, a bucket that would not keep evidence, or topics that would let none through.
pub(crate) fn of(loaded: &Loaded) -> anyhow::Result<Arc<dyn Store>> {
    match &loaded.config.evidence.out {
        Out::Kafka(out) => Ok(Arc::new(topics(loaded, out)?)),
        other => open(other, "evidence.out"),
    }
}

/// Opens a store that is written to straight; `key` is where the configuration names it.
///
/// # Errors
/// As [`of`], and where it is no such store.
pub(crate) fn open(out: &Out, key: &str) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match out {
        Out::Directory(folder) => Arc::new(
            DirectoryStore::open(Arc::new(RealDisk), folder)
                .with_context(|| format!("`{key}.directory` is `{}`: cannot be used", folder.display()))?,
        ),
        Out::S3(out) => Arc::new(bucket(out, &format!("{key}.s3"))?),
        Out::Kafka(_) => {
            anyhow::bail!("`{key}.kafka`: wanted `directory` or `s3`, only a gateway ships through Kafka")
        }
    })
}

/// Opens the topics, and refuses those that no batch would get through. Brokers that do not answer now are taken:
/// nothing counts as archived before its receipt.
fn topics(loaded: &Loaded, out: &config::KafkaOut) -> anyhow::Result<KafkaStore> {
    let config = &loaded.config;
    let password = loaded.kafka_password.as_ref().map(config::Secret::expose);
    let settings = out.settings(&config.deployment, &config.gateway, password);
    judged(KafkaStore::judge(&settings), "evidence.out.kafka", "no batch would get through")?;
    let archive = out.archive.as_ref().map(archived).transpose()?;
    let confirms = out.confirm == config::Confirm::Object;
    let archive = archive.map(|store| Archive { store, confirms });
    let store = KafkaStore::open(settings).context("`evidence.out.kafka` cannot be used")?;
    Ok(store.with_archive(archive))
}

/// The store that archivers write, to be read. Asks it nothing now.
fn archived(archive: &config::Archived) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match archive {
        config::Archived::Directory(folder) => Arc::new(DirectoryStore::to_read(Arc::new(RealDisk), folder)),
        config::Archived::S3(bucket) => {
            let store = S3Store::open(bucket.settings());
            Arc::new(store.context("`evidence.out.kafka.archive.s3` cannot be used")?)
        }
    })
}

/// Where the journal is committed besides this disk. A topic that would keep no group is refused.
///
/// # Errors
/// What of the topic must change.
pub(crate) fn commit(loaded: &Loaded) -> anyhow::Result<Option<evidence::CommitSettings>> {
    let config = &loaded.config;
    let Commit::Kafka(kafka) = &config.evidence.commit else { return Ok(None) };
    let out = match &config.evidence.out {
        Out::Kafka(out) => Some(&**out),
        _ => None,
    };
    let password = match kafka.cluster {
        Some(_) => &loaded.commit_password,
        None => &loaded.kafka_password,
    };
    let who = format!("{}/{}", config.deployment, config.gateway);
    let secret = loaded.commit_secret.as_ref().context("`evidence.commit.kafka.secret` was not read")?;
    let settings = kafka.settings(who, out, password.as_ref().map(config::Secret::expose), secret);
    let settings =
        settings.context("`evidence.commit.kafka.brokers` is not typed, and the way out has none")?;
    judged(settings.judge(), "evidence.commit.kafka", "no record could be committed")?;
    Ok(Some(settings))
}

/// Says what is to be said of topics, and refuses those with faults. Brokers that do not answer now are taken.
fn judged(report: Result<TopicReport, StoreError>, key: &str, or_else: &str) -> anyhow::Result<()> {
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(%error, key, "the topics cannot be judged now");
            TopicReport::default()
        }
    };
    for topic in &report.made {
        tracing::info!(topic, "the topic was made");
    }
    heed(&report, key, or_else)
}

/// Tells what topics are not as they should be; `key` is where the configuration names them.
///
/// # Errors
/// With what was found, what `or_else` says.
pub(crate) fn heed(report: &TopicReport, key: &str, or_else: &str) -> anyhow::Result<()> {
    for warning in &report.warnings {
        tracing::warn!(
            topic = warning.topic,
            setting = warning.setting,
            found = warning.found,
            wanted = warning.wanted,
            "the topic"
        );
    }
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    anyhow::ensure!(faults.is_empty(), "{}; {or_else} (`{key}`)", faults.join("; "));
    Ok(())
}

/// Opens the bucket, and refuses one that would not keep evidence. One that does not answer now is taken: nothing
/// counts as archived before the bucket shows the lock of each object, and where it may be without lock nothing is put
/// before it was judged.
fn bucket(out: &config::S3Out, key: &str) -> anyhow::Result<S3Store> {
    let store = S3Store::open(out.settings()).with_context(|| format!("`{key}` cannot be used"))?;
    let report = match store.judge() {
        Ok(report) => report,
        Err(error) if error.trouble() == Some(Trouble::NoBucket) => {
            return Err(error)
                .with_context(|| format!("`{key}.bucket` is `{}`: wanted: a bucket", out.at.bucket));
        }
        Err(error) => {
            tracing::warn!(%error, "the bucket cannot be judged now");
            return Ok(store);
        }
    };
    for warning in &report.warnings {
        tracing::warn!(
            bucket = warning.bucket,
            setting = warning.setting,
            found = warning.found,
            wanted = warning.wanted,
            "the bucket"
        );
    }
    // One that can lock does; the store has seen which it is.
    if out.without_lock == config::WithoutLock::Accept {
        for fault in &report.faults {
            tracing::warn!(%fault, "accepted by `{key}.without_lock`: evidence can be deleted");
        }
        return Ok(store);
    }
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    anyhow::ensure!(
        faults.is_empty(),
        "{}; evidence here could be deleted (`{key}.without_lock: accept` takes it as it is)",
        faults.join("; ")
    );
    Ok(store)
}
