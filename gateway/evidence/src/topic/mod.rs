//! Kafka: the topics that batches leave through, and the receipts that come back (FORMAT 16).
//!
//! Nothing that is read from a topic counts by itself: a batch counts by its seal, a receipt by its archiver's key.

mod client;
mod judge;
mod read;
mod receipts;
mod seals;
mod send;
mod stalled;

use std::time::Duration;

use schemas::ship::ArchiverKey;

pub use client::{Connection, Sasl, Scram, Security, Tls, TokenSource};
pub use judge::{TopicFault, TopicReport};
pub use seals::{Following, TopicBatches};

pub(crate) use client::{Context, Failed, is_unreadable, trouble};
pub(crate) use judge::{Wanted, WantedTopic, judge};
pub(crate) use read::TopicReader;
pub(crate) use receipts::{Answer, Receipts};
pub(crate) use seals::{Held, Registered};
pub(crate) use send::Sender;
pub(crate) use stalled::{Extent, Renewals, Stalled};

/// How topics are made where they are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateTopics {
    /// Partitions of each.
    pub partitions: i32,
    /// Copies of each partition, on as many brokers.
    pub replication: i32,
}

/// Everything that shipping through Kafka needs to know.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// The brokers, and how to get in.
    pub connection: Connection,
    /// The topic that batches go to.
    pub topic: String,
    /// The topic that receipts come from.
    pub receipts: String,
    /// Whose logs these are: first part of their names.
    pub deployment: String,
    /// The gateway: second part.
    pub gateway: String,
    /// Whose receipts count.
    pub archivers: Vec<ArchiverKey>,
    /// How missing topics are made; `None`: they are not.
    pub create: Option<CreateTopics>,
    /// How long archivers may be away before the topic forgets what they have not read.
    pub outage: Duration,
    /// How long a batch waits for its receipt before it is put again.
    pub reship_after: Duration,
}
