//! The thread of one sink: reads what is behind its positions, sends, and moves them when it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::Origin;

use super::folder::Position;
use super::keeper::Shared;
use super::log::{Cache, Log, Read};
use super::{Missed, Sink, SinkError, TapItem, TapLeaf, TapSink};
use crate::ship::BackOff;

/// How often an idle sink looks for new leaves.
const TICK: Duration = Duration::from_millis(50);
/// The longest wait after a failure, where the sink does not ask for a longer one.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
/// The longest that a sink may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// How far one log was sent: ahead of what is acknowledged.
#[derive(Debug, Default)]
struct Cursor {
    sent: Position,
    /// Time of the oldest leaf that is not acknowledged.
    oldest_us: Option<i64>,
    items: u64,
    missed: Vec<u64>,
}

struct Sending<'a> {
    shared: &'a Shared,
    of: &'a TapSink,
    sink: Box<dyn Sink>,
    cursors: BTreeMap<Origin, Cursor>,
    cache: Cache,
    /// The last error of reading, said once.
    said: Option<String>,
}

/// Sends until the process ends.
pub(super) fn run(shared: &Shared, of: &TapSink) {
    let sink = (of.open)();
    let mut sending =
        Sending { shared, of, sink, cursors: BTreeMap::new(), cache: Cache::default(), said: None };
    let mut back_off = BackOff::default();
    while !shared.finished() {
        match sending.round() {
            Ok(Round { acknowledged, moved }) => {
                if acknowledged {
                    if of.figures.failing() {
                        tracing::info!(sink = of.name, "the sink takes leaves again");
                    }
                    back_off.succeeded();
                }
                if !moved {
                    shared.pause(TICK);
                }
            }
            Err(error) => {
                let asked = error.retry_after.unwrap_or_default().min(LONGEST_WAIT);
                let wait = back_off.failed().min(LONGEST_BACK_OFF).max(asked);
                if !of.figures.failing() {
                    tracing::warn!(
                        sink = of.name,
                        reason = error.reason,
                        detail = error.detail,
                        "a sink of the tap does not take leaves; they are kept for it"
                    );
                }
                tracing::debug!(sink = of.name, reason = error.reason, detail = error.detail, retry_in = ?wait, "not sent");
                of.figures.failed(error.reason);
                sending.sink.reset();
                sending.fall_back();
                shared.pause(wait);
            }
        }
    }
}

struct Round {
    /// Whether something new is acknowledged.
    acknowledged: bool,
    /// Whether something was read.
    moved: bool,
}

impl Sending<'_> {
    /// Sends the next leaves of each log.
    fn round(&mut self) -> Result<Round, SinkError> {
        let logs = self.shared.logs();
        self.cursors.retain(|origin, _| logs.iter().any(|log| log.origin == *origin));
        let mut moved = false;
        for log in &logs {
            moved |= self.send(log)?;
        }
        let acknowledged = self.sink.confirm(self.shared.hurries(), &self.shared.stop)?;
        let mut any = false;
        if acknowledged {
            for log in &logs {
                any |= self.acknowledged(log);
            }
        }
        self.tell_oldest();
        Ok(Round { acknowledged: any, moved })
    }

    /// Sends the next leaves of one log; whether there were any.
    fn send(&mut self, log: &Arc<Log>) -> Result<bool, SinkError> {
        let cursor = self
            .cursors
            .entry(log.origin.clone())
            .or_insert_with(|| Cursor { sent: log.position(&self.of.name), ..Cursor::default() });
        if cursor.sent.ended {
            return Ok(false);
        }
        let from = cursor.sent.next;
        let read = match log.read(from, &mut self.cache) {
            Ok(read) => read,
            Err(error) => {
                let text = error.to_string();
                if self.said.as_ref() != Some(&text) {
                    tracing::warn!(origin = %log.origin, position = from, %error, "leaves cannot be read for the tap now");
                    self.said = Some(text);
                }
                self.of.figures.failed("read");
                return Ok(false);
            }
        };
        let (items, sent) = match read {
            Read::Nothing => return Ok(false),
            Read::Ended => (Vec::new(), Position { next: from, ended: true }),
            Read::Missed(to) => {
                let at_us = self.shared.clock.now_us();
                tracing::error!(sink = self.of.name, origin = %log.origin, from, to, "a sink misses leaves: it was behind what is kept for it, and the store does not give them back");
                cursor.missed.push(to.map_or(0, |to| to.saturating_sub(from)));
                cursor.oldest_us.get_or_insert(at_us);
                let missed = Missed { origin: log.origin.clone(), from, to, at_us };
                (vec![TapItem::Missed(missed)], Position { next: to.unwrap_or(from), ended: to.is_none() })
            }
            Read::Leaves(leaves) => {
                let Some(last) = leaves.last() else { return Ok(false) };
                let sent = Position { next: last.position + 1, ended: last.kind == "close" };
                if let Some(first) = leaves.first() {
                    cursor.oldest_us.get_or_insert(first.at_us);
                }
                let wanted = |leaf: &TapLeaf| (self.of.wanted)(leaf);
                (leaves.into_iter().filter(wanted).map(TapItem::Leaf).collect(), sent)
            }
        };
        if !items.is_empty() {
            self.sink.send(&items, &self.shared.stop)?;
        }
        cursor.items += items.len() as u64;
        cursor.sent = sent;
        Ok(true)
    }

    /// All that was sent of a log is acknowledged; whether that is something new.
    fn acknowledged(&mut self, log: &Arc<Log>) -> bool {
        let Some(cursor) = self.cursors.get_mut(&log.origin) else { return false };
        let items = std::mem::take(&mut cursor.items);
        if items > 0 {
            self.of.figures.acknowledged(items);
        }
        for records in cursor.missed.drain(..) {
            self.of.figures.missed(records);
        }
        cursor.oldest_us = None;
        log.set(&self.of.name, cursor.sent);
        items > 0
    }

    /// What is not acknowledged comes again. That leaves wait since then stays known.
    fn fall_back(&mut self) {
        for log in self.shared.logs() {
            if let Some(cursor) = self.cursors.get_mut(&log.origin) {
                let oldest_us = cursor.oldest_us;
                *cursor = Cursor { sent: log.position(&self.of.name), oldest_us, ..Cursor::default() };
            }
        }
        self.tell_oldest();
    }

    /// Since when the oldest leaf waits that is not acknowledged.
    fn tell_oldest(&self) {
        self.of.figures.on_its_way_since(self.cursors.values().filter_map(|cursor| cursor.oldest_us).min());
    }
}
