//! The reading side: partitions by hand, from an offset to where the topic ends now.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::Origin;

use super::message::{Said, decode};
use super::{CommitKey, CommitSettings};
use crate::store::Trouble;
use crate::topic::{Context, Failed, trouble};

const TICK: Duration = Duration::from_millis(100);

/// Reads the commit topic.
pub(super) struct Reader {
    reader: BaseConsumer<Context>,
    topic: String,
    key: CommitKey,
    patience: Duration,
}

/// A fence that counts: the first behind the last lease before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) offset: i64,
    pub(super) by: String,
}

/// What a look at a log's partition has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// No lease of a lower number can stand from where was looked on: a copy that was put there says nothing.
    pub(super) floor: u64,
    /// The newest lease before the fence.
    pub(super) number: Option<u64>,
    pub(super) fence: Option<Fence>,
}

impl Seen {
    /// Takes the next message of the log.
    pub(super) fn take(&mut self, offset: i64, said: &Said<'_>) {
        if self.fence.is_some() {
            return;
        }
        match said {
            Said::Open(_) if self.floor == 0 => self.number = Some(self.number.unwrap_or(0)),
            Said::Lease { number, .. } if *number >= self.floor => {
                self.number = Some(self.number.unwrap_or(0).max(*number))
            }
            Said::Fence { number, by } if self.number == Some(*number) => {
                self.fence = Some(Fence { offset, by: (*by).to_owned() });
            }
            _ => {}
        }
    }
}

impl Reader {
    pub(super) fn open(settings: &CommitSettings) -> Result<Self, Failed> {
        let mut config = settings.connection.config(&settings.who);
        config
            // The library wants a name here; the group has no members and no offsets.
            .set("group.id", format!("affidavit-commit-{}", settings.who))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "20")
            .set("reconnect.backoff.max.ms", "1000")
            .set("queued.max.messages.kbytes", "16384");
        let reader = config
            .create_with_context(settings.connection.context())
            .map_err(|error: KafkaError| Failed::new(trouble(&error), error.to_string()))?;
        let patience = settings.connection.timeout.min(Duration::from_secs(10));
        Ok(Self { reader, topic: settings.topic.clone(), key: settings.key.clone(), patience })
    }

    fn told(&self, error: &KafkaError) -> Failed {
        self.reader.context().failed(error)
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> Result<i32, Failed> {
        let metadata = self.reader.fetch_metadata(Some(&self.topic), self.patience);
        let metadata = metadata.map_err(|error| self.told(&error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let count = topic.map_or(0, |topic| topic.partitions().len());
        i32::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| Failed::new(Trouble::NoTopic, format!("topic `{}` is not there", self.topic)))
    }

    /// Where a partition ends now.
    pub(super) fn high(&self, partition: i32) -> Result<i64, Failed> {
        let marks = self.reader.fetch_watermarks(&self.topic, partition, self.patience);
        marks.map(|(_, high)| high).map_err(|error| self.told(&error))
    }

    /// Shows `visit` what stands in a partition from `from` on, up to where it ends now or `visit` says false: each
    /// place, and the message that stands there where it is one of ours. Gives the offset behind the last.
    pub(super) fn read(
        &self,
        partition: i32,
        from: i64,
        visit: &mut dyn FnMut(i64, Option<(Origin, Said<'_>)>) -> bool,
    ) -> Result<i64, Failed> {
        let marks = self.reader.fetch_watermarks(&self.topic, partition, self.patience);
        let (low, high) = marks.map_err(|error| self.told(&error))?;
        // Behind its end: the topic was made anew.
        let mut next = if from > high { low } else { from.max(low) };
        if next >= high {
            return Ok(next);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(next))
            .and_then(|()| self.reader.assign(&list))
            .map_err(|error| self.told(&error))?;
        let key = self.key.of(&self.topic, partition);
        let mut heard = Instant::now();
        while next < high {
            match self.reader.poll(TICK) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    next = message.offset() + 1;
                    let ours = decode(&key, message.payload().unwrap_or_default());
                    if ours.is_none() {
                        self.key.refuse(partition, message.offset());
                    }
                    if !visit(message.offset(), ours) {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) if self.told(&error).trouble.needs_someone() => {
                    return Err(self.told(&error));
                }
                Some(Err(_)) | None => {}
            }
            if heard.elapsed() > self.patience {
                return Err(Failed::new(Trouble::Timeout, format!("partition {partition} gives nothing")));
            }
        }
        self.reader.context().done();
        let nothing = self.reader.assign(&TopicPartitionList::new());
        nothing.map_err(|error| self.told(&error))?;
        Ok(next)
    }

    /// Looks for a fence of a log from `from` on, where its lease of the number `floor` stands: up to `to`, or to the
    /// partition's end.
    pub(super) fn fence(
        &self,
        partition: i32,
        origin: &Origin,
        (floor, from): (u64, i64),
        to: Option<i64>,
    ) -> Result<Seen, Failed> {
        let mut seen = Seen { floor, ..Seen::default() };
        let next = self.read(partition, from, &mut |offset, message| {
            if let Some((of, said)) = message
                && of == *origin
            {
                seen.take(offset, &said);
            }
            seen.fence.is_none() && to.is_none_or(|to| offset < to)
        })?;
        match to {
            Some(to) if seen.fence.is_none() && next <= to => {
                Err(Failed::new(Trouble::Timeout, "the partition was not read to its end"))
            }
            _ => Ok(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(messages: &[Said<'_>]) -> Seen {
        let mut seen = Seen::default();
        messages.iter().zip(0..).for_each(|(said, offset)| seen.take(offset, said));
        seen
    }

    #[test]
    fn the_first_fence_that_names_the_lease_before_it_counts() {
        let (lease, fence) =
            (|number| Said::Lease { number, told: 0 }, |number, by| Said::Fence { number, by });
        assert_eq!(seen(&[lease(4), fence(3, "a"), lease(5)]), Seen { number: Some(5), ..Seen::default() });
        let found = seen(&[lease(4), lease(5), fence(4, "a"), fence(5, "b"), fence(5, "c"), lease(6)]);
        assert_eq!(
            found,
            Seen { floor: 0, number: Some(5), fence: Some(Fence { offset: 3, by: "b".into() }) }
        );
        // A lease that was sent twice changes nothing.
        let found = seen(&[lease(5), lease(4), fence(5, "a")]);
        assert!(found.fence.is_some());
        // An old fence that was void stays so where it is sent again behind its old lease.
        let mut copied = Seen { floor: 5, ..Seen::default() };
        for said in [lease(3), fence(3, "a"), lease(5), lease(3), fence(3, "a")] {
            copied.take(0, &said);
        }
        assert_eq!(copied, Seen { floor: 5, number: Some(5), fence: None });
    }
}
