//! What the topics are, before anything is put into them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemas::ship::MAX_MESSAGE_BYTES;

use super::CreateTopics;
use super::client::{Connection, Context, Failed, metadata, trouble};
use crate::store::{StoreError, Trouble};

/// What a broker puts around a message, and its key.
const AROUND_BYTES: u64 = 1024;

/// One setting of a topic that is not as it should be, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic `{topic}`, {setting}: {found}; wanted: {wanted}")]
pub struct TopicFault {
    /// The topic.
    pub topic: String,
    /// Which setting.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicReport {
    /// Topics that were made.
    pub made: Vec<String>,
    /// With these no batch gets through.
    pub faults: Vec<TopicFault>,
    /// With these a batch may be lost on its way, and is put again then; or the setting could not be read.
    pub warnings: Vec<TopicFault>,
}

impl TopicFault {
    /// Whether the topic is not there: another one may make it yet.
    pub fn is_absence(&self) -> bool {
        self.setting == ABSENCE
    }
}

/// What a fault calls a topic that is not there.
const ABSENCE: &str = "topic";

/// What is known of a topic.
#[derive(Debug, Clone, Default)]
struct Found {
    brokers: usize,
    replication: usize,
    config: BTreeMap<String, String>,
}

/// What is asked of topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) connection: &'a Connection,
    /// Who asks.
    pub(crate) who: &'a str,
    pub(crate) topics: &'a [WantedTopic<'a>],
    /// How missing topics are made; `None`: they are not.
    pub(crate) create: Option<CreateTopics>,
}

/// A topic, and for how long it is to keep messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantedTopic<'a> {
    pub(crate) name: &'a str,
    /// At least this long: so long may its readers be away.
    pub(crate) outage: Duration,
    /// So long where it is made.
    pub(crate) kept: Duration,
}

impl<'a> WantedTopic<'a> {
    /// The topics of batches and of receipts. Receipts are asked for after long: by a start that recovers what an earlier
    /// process left.
    pub(crate) fn of_batches(topic: &'a str, receipts: &'a str, outage: Duration) -> [Self; 2] {
        [Self { name: topic, outage, kept: outage }, Self { name: receipts, outage, kept: outage * 4 }]
    }
}

/// Looks at the topics, and makes those that are missing where that is allowed.
pub(crate) fn judge(settings: Wanted<'_>) -> Result<TopicReport, StoreError> {
    // The library's answers are futures: they are waited for on a thread of their own, also inside another runtime.
    let told = std::thread::scope(|scope| {
        scope
            .spawn(|| look(settings))
            .join()
            .unwrap_or_else(|_| Err(Failed::new(Trouble::Local, "the look at the topics did not end")))
    });
    let names: Vec<&str> = settings.topics.iter().map(|topic| topic.name).collect();
    told.map_err(|failed| failed.store("cannot judge", names.join(", ")))
}

fn look(settings: Wanted<'_>) -> Result<TopicReport, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failed::new(Trouble::Local, error.to_string()))?;
    let connection = settings.connection;
    let config = connection.config(settings.who);
    let not_made = |error: KafkaError| Failed::new(trouble(&error), error.to_string());
    let reader: BaseConsumer<Context> = config.create_with_context(connection.context()).map_err(not_made)?;
    // The library's admin client takes no events, and so never gets a token.
    let admin = match connection.is_bearer() {
        true => None,
        false => Some(config.create_with_context(connection.context()).map_err(not_made)?),
    };
    let cluster = Cluster { settings, reader, admin, runtime };
    let mut report = TopicReport::default();
    for topic in settings.topics {
        cluster.judge(topic, &mut report)?;
    }
    Ok(report)
}

struct Cluster<'a> {
    settings: Wanted<'a>,
    /// Asks where topics are, and hears why brokers do not answer.
    reader: BaseConsumer<Context>,
    /// Asks for settings, and makes topics.
    admin: Option<AdminClient<Context>>,
    runtime: tokio::runtime::Runtime,
}

impl Cluster<'_> {
    fn judge(&self, wanted: &WantedTopic<'_>, report: &mut TopicReport) -> Result<(), Failed> {
        let topic = wanted.name;
        let mut found = self.find(topic)?;
        if found.is_none()
            && let Some(create) = self.settings.create
        {
            match self.make(topic, create, wanted.kept) {
                Ok(()) => report.made.push(topic.into()),
                Err(failed) if matches!(failed.trouble, Trouble::Denied | Trouble::Refused) => {
                    report
                        .faults
                        .push(not_there(topic, &format!("not there, and not made ({})", failed.detail)));
                    return Ok(());
                }
                Err(failed) => return Err(failed),
            }
            // Brokers learn of it one after the other.
            for _ in 0..50 {
                found = self.find(topic)?;
                if found.is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let Some(mut found) = found else {
            report.faults.push(not_there(topic, "not there"));
            return Ok(());
        };
        let Some(admin) = &self.admin else {
            report.warnings.push(TopicFault {
                topic: topic.into(),
                setting: "configuration",
                found: "not read: with `oauthbearer` the library cannot ask".into(),
                wanted: "as deploy/README.md has it; only the cluster's operator can tell".into(),
            });
            return Ok(());
        };
        match self.config(admin, topic) {
            Ok(config) => found.config = config,
            Err(failed) if matches!(failed.trouble, Trouble::Denied | Trouble::Refused) => {
                report.warnings.push(TopicFault {
                    topic: topic.into(),
                    setting: "configuration",
                    found: format!("cannot be read ({})", failed.detail),
                    wanted: "the operation DescribeConfigs on the topic, so that it can be judged".into(),
                });
                return Ok(());
            }
            Err(failed) => return Err(failed),
        }
        let (faults, warnings) = weigh(topic, &found, wanted.outage);
        report.faults.extend(faults);
        report.warnings.extend(warnings);
        Ok(())
    }

    fn find(&self, topic: &str) -> Result<Option<Found>, Failed> {
        let patience = self.settings.connection.timeout.min(Duration::from_secs(10));
        let metadata = metadata(&self.reader, topic, patience)?;
        let Some(of) = metadata.topics().iter().find(|of| of.name() == topic) else { return Ok(None) };
        if let Some(error) = of.error() {
            let code = RDKafkaErrorCode::from(error);
            if matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) {
                return Ok(None);
            }
            let error = KafkaError::MetadataFetch(code);
            let told = self.reader.context().failed(&error);
            return Err(Failed::new(told.trouble, format!("topic `{topic}`: {}", told.detail)));
        }
        let replication = of.partitions().iter().map(|partition| partition.replicas().len()).min();
        let Some(replication) = replication else { return Ok(None) };
        Ok(Some(Found { brokers: metadata.brokers().len(), replication, config: BTreeMap::new() }))
    }

    fn config(&self, admin: &AdminClient<Context>, topic: &str) -> Result<BTreeMap<String, String>, Failed> {
        let specifier = [ResourceSpecifier::Topic(topic)];
        let answer = self.runtime.block_on(admin.describe_configs(&specifier, &self.options()));
        let answer = answer.map_err(|error| admin.inner().context().failed(&error))?;
        let resource = answer.into_iter().next().ok_or_else(|| {
            Failed::new(Trouble::Unavailable, format!("topic `{topic}`: no configuration in the answer"))
        })?;
        let resource = resource.map_err(|code| failed_with(topic, code))?;
        Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    fn make(&self, topic: &str, create: CreateTopics, kept: Duration) -> Result<(), Failed> {
        let none = || Failed::new(Trouble::Refused, "with `oauthbearer` the library cannot ask for it");
        let admin = self.admin.as_ref().ok_or_else(none)?;
        let kept_ms = kept.as_millis().to_string();
        let in_sync = create.replication.min(2).to_string();
        let new = NewTopic::new(topic, create.partitions, TopicReplication::Fixed(create.replication))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &kept_ms)
            .set("retention.bytes", "-1")
            .set("min.insync.replicas", &in_sync)
            .set("unclean.leader.election.enable", "false")
            .set("compression.type", "uncompressed")
            .set("max.message.bytes", "1048588");
        let answer = self.runtime.block_on(admin.create_topics([&new], &self.options()));
        let answer = answer.map_err(|error| admin.inner().context().failed(&error))?;
        match answer.into_iter().next() {
            // Another gateway was faster.
            None | Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(failed_with(topic, code)),
        }
    }

    fn options(&self) -> AdminOptions {
        let timeout = Some(self.settings.connection.timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }
}

fn not_there(topic: &str, found: &str) -> TopicFault {
    let wanted = "made by the cluster's operator, or by the gateway with `create: {partitions, replication}`, the right \
                  Create on it, and as many brokers as `replication`";
    TopicFault { topic: topic.into(), setting: ABSENCE, found: found.into(), wanted: wanted.into() }
}

fn failed_with(topic: &str, code: RDKafkaErrorCode) -> Failed {
    Failed::new(trouble(&KafkaError::AdminOp(code)), format!("topic `{topic}`: {code}"))
}

/// Holds what is known of a topic against what batches and receipts need: faults, warnings.
fn weigh(topic: &str, found: &Found, outage: Duration) -> (Vec<TopicFault>, Vec<TopicFault>) {
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let text = |key: &str| found.config.get(key).map(String::as_str);
    let number = |key: &str| text(key).and_then(|value| value.parse::<i64>().ok());
    let fault = |setting: &'static str, found: String, wanted: String| TopicFault {
        topic: topic.into(),
        setting,
        found,
        wanted,
    };
    let needed = MAX_MESSAGE_BYTES as u64 + AROUND_BYTES;
    if let Some(bytes) = number("max.message.bytes")
        && u64::try_from(bytes).unwrap_or(0) < needed
    {
        faults.push(fault("max.message.bytes", bytes.to_string(), format!("at least {needed}")));
    }
    if let Some(policy) = text("cleanup.policy")
        && policy != "delete"
    {
        let wanted = "`delete`: all messages of a log have one key, and compaction keeps the last of a key";
        faults.push(fault("cleanup.policy", policy.into(), wanted.into()));
    }
    match text("compression.type") {
        Some("zstd") => {
            let wanted = "`uncompressed`: messages that the broker packs with zstd cannot be read here";
            faults.push(fault("compression.type", "zstd".into(), wanted.into()));
        }
        Some(kind) if kind != "uncompressed" => {
            let wanted = "`uncompressed`: what a writer packs itself may be of a kind that cannot be read here, and holds \
                          up its partition, or fill its reader's memory";
            warnings.push(fault("compression.type", kind.into(), wanted.into()));
        }
        _ => {}
    }
    if let Some(in_sync) = number("min.insync.replicas")
        && usize::try_from(in_sync).unwrap_or(0) > found.replication
    {
        let wanted =
            format!("at most {}, the replication factor: else no message is taken", found.replication);
        faults.push(fault("min.insync.replicas", in_sync.to_string(), wanted));
    }
    if let Some(kept_ms) = number("retention.ms")
        && (0..i64::try_from(outage.as_millis()).unwrap_or(i64::MAX)).contains(&kept_ms)
    {
        let wanted = format!("at least {} (`outage`), or -1", outage.as_millis());
        warnings.push(fault("retention.ms", kept_ms.to_string(), wanted));
    }
    if let Some(bytes) = number("retention.bytes")
        && bytes >= 0
    {
        let wanted = "-1: what no archiver has read may go before its time";
        warnings.push(fault("retention.bytes", bytes.to_string(), wanted.into()));
    }
    if text("unclean.leader.election.enable") == Some("true") {
        let wanted = "`false`: a broker that lags may become leader, and acknowledged messages are gone";
        warnings.push(fault("unclean.leader.election.enable", "true".into(), wanted.into()));
    }
    if found.brokers > 1 {
        if found.replication == 1 {
            let wanted = "2 or more: the cluster has more than one broker".to_owned();
            warnings.push(fault("replication factor", "1".into(), wanted));
        }
        if found.replication > 1 && number("min.insync.replicas") == Some(1) {
            let wanted = "2 or more: acknowledged by one broker only, a message goes with that broker";
            warnings.push(fault("min.insync.replicas", "1".into(), wanted.into()));
        }
    }
    (faults, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(brokers: usize, replication: usize, config: &[(&str, &str)]) -> Found {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Found { brokers, replication, config }
    }

    fn settings(faults: &[TopicFault]) -> Vec<&'static str> {
        faults.iter().map(|fault| fault.setting).collect()
    }

    #[test]
    fn settings_that_lose_batches_are_named() {
        const DAY_MS: &str = "86400000";
        let week = Duration::from_secs(7 * 86_400);
        let good = [
            ("max.message.bytes", "1048588"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("unclean.leader.election.enable", "false"),
            ("min.insync.replicas", "2"),
            ("compression.type", "uncompressed"),
        ];
        let (faults, warnings) = weigh("t", &found(3, 3, &good), week);
        assert!(faults.is_empty() && warnings.is_empty(), "{faults:?} {warnings:?}");
        let changed = |key: &str, value: &str| {
            let mut found = found(3, 3, &good);
            found.config.insert(key.into(), value.into());
            found
        };
        for (key, value) in [
            ("max.message.bytes", "921600"),
            ("cleanup.policy", "compact,delete"),
            ("compression.type", "zstd"),
            ("min.insync.replicas", "4"),
        ] {
            let (faults, warnings) = weigh("t", &changed(key, value), week);
            assert_eq!((settings(&faults), settings(&warnings)), (vec![key], vec![]));
        }
        for (key, value) in [
            ("retention.ms", DAY_MS),
            ("retention.bytes", "1000000"),
            ("unclean.leader.election.enable", "true"),
            ("min.insync.replicas", "1"),
            ("compression.type", "producer"),
        ] {
            let (faults, warnings) = weigh("t", &changed(key, value), week);
            assert_eq!((settings(&faults), settings(&warnings)), (vec![], vec![key]));
        }
        let (_, warnings) = weigh("t", &changed("retention.ms", "-1"), week);
        assert!(warnings.is_empty());
        let (_, warnings) = weigh("t", &found(3, 1, &good), week);
        assert_eq!(settings(&warnings), ["replication factor"]);
        // One broker is what it is: nothing to say.
        let (faults, warnings) = weigh("t", &found(1, 1, &[("min.insync.replicas", "1")]), week);
        assert!(faults.is_empty() && warnings.is_empty());
    }
}
