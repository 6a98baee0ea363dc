//! One of the archivers that read the topic together: Kafka gives each some of the partitions.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ArchiveConfig;
use super::offsets::At;
use crate::topic::{Context, Extent, Failed, Stalled, is_unreadable, trouble};

/// How long the others wait until they take the partitions of one that fell silent.
const SESSION_MS: &str = "10000";

/// The longest wait until a partition is read from elsewhere.
const SEEK: Duration = Duration::from_secs(10);

/// How often it is looked whether partitions hold messages and give none.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The longest wait for what the brokers say of that.
const ASK: Duration = Duration::from_secs(1);

/// A message: where it stood, its key, its value.
pub(super) type Taken = (At, Option<Vec<u8>>, Vec<u8>);

pub(super) struct Reading {
    topic: String,
    reader: BaseConsumer<Context>,
    /// The partitions that this archiver had when it looked last.
    had: BTreeSet<i32>,
    /// Messages that came when none were wanted: few, from before the partitions were paused.
    ahead: VecDeque<Taken>,
    paused: Option<TopicPartitionList>,
    /// How far behind the newest message it is.
    behind: Duration,
    stalled: Stalled,
    looked: Instant,
}

impl Reading {
    pub(super) fn open(config: &ArchiveConfig) -> Result<Self, Failed> {
        let mut kafka = config.connection.reader_config(&config.name);
        // A topic that was made anew, or whose offsets were reset, is read from its beginning: repeats are harmless.
        kafka
            .set("group.id", &config.group)
            .set("session.timeout.ms", SESSION_MS)
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", "300000")
            .set("queued.max.messages.kbytes", "32768");
        let made = kafka.create_with_context(config.connection.context());
        let reader: BaseConsumer<Context> =
            made.map_err(|error: KafkaError| Failed::new(trouble(&error), error.to_string()))?;
        reader.subscribe(&[&config.topic]).map_err(|error| reader.context().failed(&error))?;
        Ok(Self {
            topic: config.topic.clone(),
            reader,
            had: BTreeSet::new(),
            ahead: VecDeque::new(),
            paused: None,
            behind: Duration::ZERO,
            stalled: Stalled::default(),
            looked: Instant::now(),
        })
    }

    /// The next message, where one comes within `wait`.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Option<Taken>, Failed> {
        if let Some(message) = self.ahead.pop_front() {
            return Ok(Some(message));
        }
        if let Some(paused) = self.paused.take() {
            self.reader.resume(&paused).map_err(|error| self.told(&error))?;
        }
        let message = self.poll(wait)?;
        if message.is_none() {
            // Nothing came in that time: all that there is was read.
            self.behind = Duration::ZERO;
        }
        Ok(message)
    }

    /// How long the message that was read last had been in the topic; zero where all of it is read.
    pub(super) fn behind(&self) -> Duration {
        self.behind
    }

    fn poll(&mut self, wait: Duration) -> Result<Option<Taken>, Failed> {
        match self.reader.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => {
                self.reader.context().done();
                let at = At { partition: message.partition(), offset: message.offset() };
                self.stalled.heard(at.partition, at.offset);
                let key = message.key().map(<[u8]>::to_vec);
                let value = message.payload().unwrap_or_default().to_vec();
                let sent = message.timestamp().to_millis().and_then(|sent| u64::try_from(sent).ok());
                let sent = sent.map(|sent| UNIX_EPOCH + Duration::from_millis(sent));
                self.behind = sent.and_then(|sent| sent.elapsed().ok()).unwrap_or_default();
                Ok(Some((at, key, value)))
            }
            Some(Err(error)) => self.bear(&error).map(|()| None),
        }
    }

    /// Stays a member of the group for a while without reading on.
    pub(super) fn keep_alive(&mut self, wait: Duration) -> Result<(), Failed> {
        let assigned = self.reader.assignment().map_err(|error| self.told(&error))?;
        if self.paused.as_ref() != Some(&assigned) {
            self.reader.pause(&assigned).map_err(|error| self.told(&error))?;
            self.paused = Some(assigned);
        }
        self.stalled.rest();
        if let Some(message) = self.poll(wait)? {
            self.ahead.push_back(message);
        }
        Ok(())
    }

    /// The partitions that went to another archiver since this was asked last.
    pub(super) fn lost(&mut self) -> Vec<i32> {
        let Ok(assigned) = self.reader.assignment() else { return Vec::new() };
        let now: BTreeSet<i32> = assigned.elements().iter().map(|one| one.partition()).collect();
        let lost: Vec<i32> = self.had.difference(&now).copied().collect();
        self.ahead.retain(|(at, ..)| !lost.contains(&at.partition));
        lost.iter().for_each(|partition| self.stalled.lost(*partition));
        self.had = now;
        lost
    }

    /// Reads a partition again from a message on.
    pub(super) fn again(&mut self, from: At) -> Result<(), Failed> {
        self.ahead.retain(|(at, ..)| at.partition != from.partition);
        let to = Offset::Offset(from.offset);
        self.reader.seek(&self.topic, from.partition, to, SEEK).map_err(|error| self.told(&error))
    }

    /// A partition that holds messages and gives none: looked at every now and then. Where the brokers do not answer,
    /// nobody knows.
    pub(super) fn stalled(&mut self) -> Option<i32> {
        if self.looked.elapsed() < LOOK_EVERY || self.paused.is_some() {
            return None;
        }
        self.looked = Instant::now();
        let Ok(quiet) = self.quiet() else {
            self.stalled.rest();
            return None;
        };
        self.stalled.look(&quiet)
    }

    /// What the brokers say of partitions of which nothing came since the last look.
    fn quiet(&self) -> Result<Vec<Extent>, KafkaError> {
        let quiet = self.stalled.quiet(self.had.iter().copied());
        let mut unknown = TopicPartitionList::new();
        for partition in quiet.iter().filter(|partition| !self.stalled.knows(**partition)) {
            unknown.add_partition(&self.topic, *partition);
        }
        let committed = match unknown.count() {
            0 => unknown,
            _ => self.reader.committed_offsets(unknown, ASK)?,
        };
        let held = |partition: i32| {
            let (low, high) = self.reader.fetch_watermarks(&self.topic, partition, ASK)?;
            let of = committed.find_partition(&self.topic, partition);
            let committed = of.and_then(|of| match of.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
            Ok(Extent { partition, low, high, committed })
        };
        quiet.into_iter().map(held).collect()
    }

    /// Whether it has partitions.
    pub(super) fn reads(&self) -> bool {
        !self.had.is_empty()
    }

    /// Commits offsets.
    pub(super) fn commit(&self, offsets: &[At]) -> Result<(), Failed> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for at in offsets {
            list.add_partition_offset(&self.topic, at.partition, Offset::Offset(at.offset))
                .map_err(|error| self.told(&error))?;
        }
        self.reader.commit(&list, CommitMode::Sync).map_err(|error| self.told(&error))
    }

    /// What the library mends by itself is passed over.
    fn bear(&self, error: &KafkaError) -> Result<(), Failed> {
        let failed = self.told(error);
        if is_unreadable(error) {
            // The other partitions go on; of this one nothing more comes until the message is gone.
            tracing::error!(
                topic = self.topic,
                detail = failed.detail,
                "a message cannot be unpacked; someone must look"
            );
            return Ok(());
        }
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if failed.trouble.needs_someone() || fatal {
            return Err(failed);
        }
        tracing::debug!(%error, "batches");
        Ok(())
    }

    fn told(&self, error: &KafkaError) -> Failed {
        self.reader.context().failed(error)
    }
}
