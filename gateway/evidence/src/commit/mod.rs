//! `commit: kafka`: a log's journal is on the brokers before anybody is told of a record (CA-1, CA-2), so that a machine
//! that is lost before it ships loses nothing, and another gateway closes its log from the topic.
//!
//! **What is sent.** Each group of the journal goes, as its bytes are written to the segment, into the commit topic while
//! it is written and synced here; so does each spill file, before the group that names it. All messages of a log go to
//! one partition, which its `open` names; content is encrypted before it comes here. A group's waiters are told when it
//! is synced here *and* it and all before it are acknowledged by all in-sync replicas *and* a lease holds. Order and
//! repetition of messages do not matter: groups are numbered.
//!
//! **The lease.** Every third of its length `L` a gateway sends a numbered lease record into its log's partition.
//! `lease.rs` says which count, and for how long. While none holds the gateway admits nothing, and tells nobody of a
//! group, whatever is acknowledged.
//!
//! **The fence.** Who wants to close a log of another process reads its newest lease, waits `2 L` by its own monotonic
//! clock without finding a newer one, and writes a fence that names that lease. The first fence that names the newest
//! lease before it, in the partition's order, counts; any other is void. So when a fence counts, no lease held when it
//! was written, none holds since without a look at the partition, and every group that anybody was told of stands
//! before it. Who finds another's fence leaves the log to that one. A gateway that finds a fence in its own partition
//! ends with [`crate::Reason::Fenced`].
//!
//! **The log is what stands before its fence**: its groups from the first that is needed up to the first number that is
//! missing. They are written into a journal folder, and from there on recovery is the same as of a dead process's disk
//! ([`crate::salvage()`]): with the log's own key, or with a closing key of it. A start of the same gateway does so too,
//! whether its disk is still there or not; where the process is known to be dead, because its lock is free, it does not
//! wait. What its disk has beyond the topic was told to nobody. The records that recovery adds are agreed on in the topic
//! before any of them is sealed (`ending.rs`), so that a log has one end however often it is recovered. Two that close one
//! log nevertheless meet at the store, which takes one seal for each batch (DU-3).
//!
//! **Late.** A gateway that was frozen, and finds that it was fenced, says so; who wrote the fence then counts the records
//! behind it and puts a `gap`, reason `late`, into its own log: nobody was told of them.
//!
//! **The index** is partition 0: small records of which logs there are, that they live, and from which place on they are
//! needed. Logs are in the other partitions, where there are others, so that a start reads little. That all of a log is
//! archived is said there before its folder goes: who finds no folder, and then reads in the index that the log is open,
//! knows that its disk is lost.
//!
//! No transactions, and no idempotence of the producer, are rested on.
//!
//! **Whose messages count.** Each carries a code under a key that is derived from the deployment's secret (`code.rs`), over
//! its topic, its partition, its kind, its log, its numbers and its bytes. What does not verify is passed over wherever the
//! topic is read, counted, and said once: who may write to the topic, and has not the secret, fences nobody, keeps no dead log
//! alive, and gets nothing sealed. A true message can be sent again, where it stood only, and says nothing new there: groups and
//! leases are numbered, a copy of the newest word of the index is no sign of life, a fence names its lease, and a look
//! begins with a lease whose number is known.
//!
//! **What who administers the brokers can still do** is to keep messages back, to remove them, to put the same ones in
//! another order, and to stop everything. Each lease says of how many groups somebody was told when it was sent. Where a log
//! that is closed from the topic has fewer, what is there behind the missing ones is taken too, and recovery finds a loss
//! where they are not archived: it goes on only where the loss is accepted (`--accept-loss`), and then a `gap`, reason
//! `loss`, says so and the log is INCOMPLETE. A gateway that has its disk takes that instead. Where the end
//! of a log's partition is removed, leases too, the index names a lease that is not there, and the log is not closed from the
//! topic: it does not look like one that ended there, and it is said that its end was removed. Where the end of the index is
//! removed with it, and for what somebody was told behind the newest lease that the index names, nothing in the topic tells
//! of it: what callers hold does.

mod close;
mod code;
mod ending;
mod lease;
mod message;
mod pieces;
mod read;
mod rebuild;
mod send;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rdkafka::ClientConfig;
use schemas::Origin;

use crate::store::StoreError;
use crate::topic::{Connection, CreateTopics, TopicReport, Wanted, WantedTopic, judge};

pub(crate) use close::{
    Closing, Late, Prepared, Survived, closed, mark_committed, prepare, reclaim, recover, survive,
};
pub use code::CommitKey;
pub(crate) use ending::Ending;
pub(crate) use send::{Committer, Who};

/// The partition of the index.
const INDEX: i32 = 0;

/// Where groups are committed, and how long a lease is.
#[derive(Debug, Clone)]
pub struct CommitSettings {
    /// The brokers, and how to get in.
    pub connection: Connection,
    /// The topic: one deployment's.
    pub topic: String,
    /// Whose messages count.
    pub key: CommitKey,
    /// The lease: so long after its last acknowledged record a gateway admits and releases nothing.
    pub lease: Duration,
    /// How a missing topic is made; `None`: it is not.
    pub create: Option<CreateTopics>,
    /// How long logs may wait for someone to close them: the topic must keep them as long.
    pub outage: Duration,
    /// Who we are, for the brokers' logs and in fences: the gateway's own name.
    pub who: String,
}

impl CommitSettings {
    /// What the topic is, held against what groups need. A missing one is made where the settings say how.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn judge(&self) -> Result<TopicReport, StoreError> {
        let topics = [WantedTopic { name: &self.topic, outage: self.outage, kept: self.outage * 2 }];
        judge(Wanted { connection: &self.connection, who: &self.who, topics: &topics, create: self.create })
    }
}

/// How far the brokers are behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitFigures {
    /// Since when the newest lease that counts was sent.
    pub lease_age: Option<Duration>,
    /// Groups that nobody is told of yet.
    pub groups: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that nobody with the deployment's secret wrote, found since the start.
    pub refused: u64,
}

/// The partition of a log: never the index, where there is another.
fn partition_of(origin: &Origin, partitions: i32) -> i32 {
    let others = u32::try_from(partitions.saturating_sub(1)).unwrap_or(0);
    if others == 0 {
        return INDEX;
    }
    1 + i32::try_from(crc32c::crc32c(origin.as_str().as_bytes()) % others).unwrap_or(0)
}

/// How messages are sent.
fn producing(settings: &CommitSettings) -> ClientConfig {
    let mut config = settings.connection.config(&settings.who);
    let timeout_ms = settings.connection.timeout.as_millis().clamp(1000, 300_000).to_string();
    config
        .set("acks", "all")
        .set("message.timeout.ms", timeout_ms)
        // Groups are gathered already; whoever waits, waits for this.
        .set("linger.ms", "0")
        .set("socket.nagle.disable", "true")
        .set("compression.type", "none")
        .set("message.max.bytes", "1000000")
        .set("retry.backoff.ms", "50")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("queue.buffering.max.kbytes", "262144");
    config
}
