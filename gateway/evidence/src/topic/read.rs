//! Reads a topic: every partition, from the beginning of what is kept, for as long as the process lives.
//!
//! Partitions are assigned by hand: each process reads everything, and nothing is committed. Where the topic changes
//! (more partitions, made anew), a connection is refused or a partition stalls ([`Stalled`]), everything is read again.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Context, Failed, is_unreadable, metadata, trouble};
use super::stalled::{Extent, Renewals, Stalled};
use crate::store::Trouble;

/// How long one look for messages takes at most.
const TICK: Duration = Duration::from_millis(100);
/// How often the topic's partitions are looked at, and whether they hold messages and give none.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The longest wait for what the brokers say of a partition's extent.
const ASK: Duration = Duration::from_secs(1);
/// Between tries.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// Hears what a topic holds.
pub(crate) trait Listener: Send + Sync {
    /// A message: its key, its value.
    fn take(&self, key: Option<&[u8]>, message: &[u8]);

    /// Nothing can be read now.
    fn failed(&self, failed: Failed);

    /// The end of every partition was met.
    fn read_to_end(&self);

    /// Whether everything is to be read again. Asked often; true once for each time.
    fn begins_anew(&self) -> bool {
        false
    }
}

/// The thread that reads; it ends soon after this is dropped.
#[derive(Debug)]
pub(crate) struct TopicReader {
    stop: Arc<AtomicBool>,
}

impl TopicReader {
    /// `who` reads, `what` it reads: for the brokers' and our own log.
    pub(crate) fn start(
        connection: Connection,
        topic: &str,
        who: &str,
        what: &'static str,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, who) = (topic.into(), who.into());
        let work = Reading { connection, topic, who, what, listener, stop: Arc::clone(&stop) };
        std::thread::Builder::new().name(format!("evidence-{what}")).spawn(move || work.run())?;
        Ok(Self { stop })
    }
}

impl Drop for TopicReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

struct Reading {
    connection: Connection,
    topic: String,
    who: String,
    what: &'static str,
    listener: Arc<dyn Listener>,
    stop: Arc<AtomicBool>,
}

impl Reading {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn run(self) {
        let mut said: Option<Trouble> = None;
        let mut renewals = Renewals::default();
        while !self.is_over() {
            let begun = Instant::now();
            match self.read(&mut renewals) {
                Ok(()) => said = None,
                Err(failed) => {
                    if begun.elapsed() > LOOK_EVERY {
                        said = None;
                    }
                    if said != Some(failed.trouble) {
                        tracing::warn!(topic = self.topic, reason = %failed.trouble, detail = failed.detail, what = self.what, "a topic cannot be read now");
                        said = Some(failed.trouble);
                    }
                    let is_long = failed.trouble.needs_someone() && failed.trouble != Trouble::NoTopic;
                    let pause = if is_long { LONG_PAUSE } else { PAUSE };
                    self.listener.failed(failed);
                    let until = Instant::now() + pause;
                    while Instant::now() < until && !self.is_over() {
                        std::thread::sleep(TICK);
                    }
                }
            }
        }
    }

    /// Reads until the topic changes or stalls.
    fn read(&self, renewals: &mut Renewals) -> Result<(), Failed> {
        let mut config = self.connection.reader_config(&self.who);
        config
            // The library wants a name here; the group has no members and no offsets.
            .set("group.id", format!("affidavit-{}-{}", self.what, self.who))
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "16384");
        let reader: BaseConsumer<Context> = config
            .create_with_context(self.connection.context())
            .map_err(|error: KafkaError| Failed::new(trouble(&error), error.to_string()))?;
        let patience = self.connection.timeout.min(Duration::from_secs(10));
        let partitions = self.partitions(&metadata(&reader, &self.topic, patience)?)?;
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Beginning);
            added.map_err(|error| told(&reader, &error))?;
        }
        reader.assign(&list).map_err(|error| told(&reader, &error))?;
        let mut ended = BTreeSet::new();
        let mut stalled = Stalled::default();
        let mut looked = Instant::now();
        while !self.is_over() {
            match reader.poll(TICK) {
                None => {}
                Some(Ok(message)) => {
                    stalled.heard(message.partition(), message.offset());
                    self.listener.take(message.key(), message.payload().unwrap_or_default());
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                    if ended == partitions {
                        reader.context().done();
                        self.listener.read_to_end();
                    }
                }
                Some(Err(error)) => self.bear(&reader, &error)?,
            }
            if self.listener.begins_anew() {
                return Ok(());
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                let asked = reader.fetch_metadata(Some(&self.topic), patience);
                match asked.map_err(|error| told(&reader, &error)).and_then(|now| self.partitions(&now)) {
                    Ok(now) if now != partitions => return Ok(()),
                    Ok(_) => {
                        if let Some(partition) = self.stalled(&reader, &mut stalled, &partitions)
                            && renewals.begin(Instant::now())
                        {
                            tracing::warn!(
                                topic = self.topic,
                                partition,
                                what = self.what,
                                "a partition holds messages and gives none; the topic is read anew"
                            );
                            return Ok(());
                        }
                    }
                    Err(failed) if failed.trouble == Trouble::NoTopic => return Err(failed),
                    // Brokers that are away come back; the library goes on where it was.
                    Err(failed) => self.listener.failed(failed),
                }
            }
        }
        Ok(())
    }

    /// A partition that holds messages and gives none. Where the brokers do not answer, nobody knows.
    fn stalled(
        &self,
        reader: &BaseConsumer<Context>,
        stalled: &mut Stalled,
        partitions: &BTreeSet<i32>,
    ) -> Option<i32> {
        let held = |partition: i32| {
            let (low, high) = reader.fetch_watermarks(&self.topic, partition, ASK).ok()?;
            // Nothing is committed here: what gave nothing yet is read from its beginning.
            Some(Extent { partition, low, high, committed: None })
        };
        let quiet: Option<Vec<Extent>> =
            stalled.quiet(partitions.iter().copied()).into_iter().map(held).collect();
        match quiet {
            Some(quiet) => stalled.look(&quiet),
            None => {
                stalled.rest();
                None
            }
        }
    }

    /// What the library mends by itself is only remembered.
    fn bear(&self, reader: &BaseConsumer<Context>, error: &KafkaError) -> Result<(), Failed> {
        let failed = told(reader, error);
        if is_unreadable(error) {
            // The other partitions go on; of this one nothing more comes until the message is gone.
            tracing::error!(
                topic = self.topic,
                detail = failed.detail,
                "a message cannot be unpacked; someone must look"
            );
            self.listener.failed(failed);
            return Ok(());
        }
        if failed.trouble.needs_someone() || matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(failed);
        }
        tracing::debug!(%error, what = self.what, "a topic");
        self.listener.failed(failed);
        Ok(())
    }

    fn partitions(&self, metadata: &Metadata) -> Result<BTreeSet<i32>, Failed> {
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let partitions: BTreeSet<i32> = topic
            .map(|topic| topic.partitions().iter().map(|partition| partition.id()).collect())
            .unwrap_or_default();
        if let Some(error) = topic.and_then(|topic| topic.error()) {
            let error = KafkaError::MetadataFetch(error.into());
            return Err(Failed::new(trouble(&error), format!("topic `{}`: {error}", self.topic)));
        }
        if partitions.is_empty() {
            return Err(Failed::new(Trouble::NoTopic, format!("topic `{}` is not there", self.topic)));
        }
        Ok(partitions)
    }
}

fn told(reader: &BaseConsumer<Context>, error: &KafkaError) -> Failed {
    reader.context().failed(error)
}

impl ConsumerContext for Context {}
