//! `kafka` of `archive.yaml`: the brokers, the topics and the group of those that read them together.

use std::path::Path;
use std::time::Duration;

use evidence::topic::Connection;
use policies::document::{Node, Problem};

use super::cluster::{Cluster, cluster, read_secret};
use super::kafka::{self, RECEIPTS, TOPIC};
use super::read::Reader;

/// Where an archiver reads batches, and where its receipts go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KafkaIn {
    pub(super) cluster: Cluster,
    pub(crate) topic: String,
    pub(crate) receipts: String,
    /// Where nothing is typed: one of the deployment's own.
    pub(crate) group: Option<String>,
    /// How long all archivers may be away.
    pub(crate) outage: Duration,
    timeout: Duration,
}

impl KafkaIn {
    /// As the archiver takes it, with the password read from its place.
    ///
    /// # Errors
    /// The password cannot be read; says why.
    pub(crate) fn connection(&self) -> Result<Connection, String> {
        let password = self.cluster.password().map(read_secret).transpose()?;
        let secret = password.as_ref().map(|password| password.as_str());
        Ok(self.cluster.connection(self.timeout, secret))
    }
}

/// Reads the part; `None` where a required key is missing or unreadable.
pub(crate) fn kafka_in(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaIn> {
    let mut f = Reader::new(node, path, base, problems);
    let cluster = cluster(&mut f);
    let (topic, receipts) = kafka::topics(&mut f);
    let group = kafka::name(&mut f, "group", "group");
    let outage = kafka::outage(&mut f);
    let timeout = kafka::timeout(&mut f);
    f.fields.finish();
    Some(KafkaIn {
        cluster: cluster?,
        topic: topic.unwrap_or_else(|| TOPIC.into()),
        receipts: receipts.unwrap_or_else(|| RECEIPTS.into()),
        group,
        outage,
        timeout,
    })
}
