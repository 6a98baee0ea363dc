//! A topic of leaves: one message a leaf, keyed by its log.

use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};

use super::{Sink, SinkError, TapItem};
use crate::stop::Stop;
use crate::topic::{Connection, Failed, Sender};

/// How many messages are on their way at once.
const WINDOW: usize = 512;

/// Makes a message's value.
pub type Render = Arc<dyn Fn(&TapItem) -> Vec<u8> + Send + Sync>;

/// A topic as a sink: key = origin, value as rendered, headers `position`, `kind` and, of a leaf, `leaf_hash` in hex.
pub struct KafkaTap {
    sender: Sender,
    topic: String,
    render: Render,
}

impl std::fmt::Debug for KafkaTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTap").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaTap {
    /// `who` is what the brokers' logs call it. Nothing is sent yet.
    pub fn new(connection: Connection, who: &str, topic: &str, render: Render) -> Self {
        Self { sender: Sender::new(connection, who), topic: topic.into(), render }
    }
}

impl Sink for KafkaTap {
    fn send(&mut self, items: &[TapItem], _stop: &Stop) -> Result<(), SinkError> {
        let Some(first) = items.first() else { return Ok(()) };
        let messages = items.iter().map(|item| Ok(((self.render)(item), Some(headers(item)))));
        let sent: Result<(), Failed> =
            self.sender.send_with((&self.topic, None), first.origin().as_str(), WINDOW, messages);
        sent.map_err(|failed| SinkError::new(failed.trouble.as_str(), failed.detail))
    }
}

fn headers(item: &TapItem) -> OwnedHeaders {
    let (position, kind) = (item.position().to_string(), item.kind());
    let headers = OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: "position", value: Some(&position) })
        .insert(Header { key: "kind", value: Some(kind) });
    match item {
        TapItem::Leaf(leaf) => {
            headers.insert(Header { key: "leaf_hash", value: Some(&leaf.hash.to_string()) })
        }
        TapItem::Missed(_) => headers,
    }
}
