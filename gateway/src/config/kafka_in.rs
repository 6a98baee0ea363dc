//! `kafka` of `archive.yaml`: the brokers, the topics and the group of those that read them together.

use std::path::Path;
use std::time::Duration;

use evidence::topic::Connection;
use policies::document::{Node, Problem};

use super::kafka::{self, KafkaSasl, KafkaTls, RECEIPTS, TOPIC};
use super::read::{DAY, Reader, SECOND};

/// Where an archiver reads batches, and where its receipts go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KafkaIn {
    brokers: Vec<String>,
    pub(crate) topic: String,
    pub(crate) receipts: String,
    /// Where nothing is typed: one of the deployment's own.
    pub(crate) group: Option<String>,
    tls: Option<KafkaTls>,
    sasl: Option<KafkaSasl>,
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
        let password =
            self.sasl.as_ref().and_then(KafkaSasl::password).map(kafka::read_secret).transpose()?;
        let secret = password.as_ref().map(|password| password.as_str());
        Ok(kafka::connection(&self.brokers, self.tls.as_ref(), self.sasl.as_ref(), self.timeout, secret))
    }
}

/// Reads the part; `None` where a required key is missing or unreadable.
pub(crate) fn kafka_in(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaIn> {
    let mut f = Reader::new(node, path, base, problems);
    let brokers = kafka::brokers(&mut f);
    let (topic, receipts) = kafka::topics(&mut f);
    let form = "a group's name `[A-Za-z0-9._-]{1,249}`";
    let group = f.fields.optional("group", form, |text| kafka::is_topic(text).then(|| text.to_owned()));
    let tls = f.part_of("tls", kafka::tls);
    let sasl = f.part_of("sasl", kafka::sasl);
    let outage = f.duration("outage", 60 * 60 * SECOND..=3650 * DAY, 7 * DAY);
    let timeout = f.duration("timeout", SECOND..=300 * SECOND, 30 * SECOND);
    f.fields.finish();
    Some(KafkaIn {
        brokers: brokers?,
        topic: topic.unwrap_or_else(|| TOPIC.into()),
        receipts: receipts.unwrap_or_else(|| RECEIPTS.into()),
        group,
        tls: kafka::whole(tls)?,
        sasl: kafka::whole(sasl)?,
        outage,
        timeout,
    })
}
