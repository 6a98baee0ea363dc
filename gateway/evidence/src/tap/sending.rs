//! The thread of one sink: reads what is behind its positions, sends, and moves them when it is acknowledged.
//!
//! The running log goes first, and is acknowledged before another is sent: nothing that is wrong with a log of a dead
//! process holds it up, or has it sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::Origin;

use super::asking::Asking;
use super::folder::Position;
use super::keeper::Shared;
use super::log::{Log, Read};
use super::rows::Cache;
use super::window::Window;
use super::{Missed, Sink, SinkError, TapItem, TapLeaf, TapSink};
use crate::ship::BackOff;

/// How often an idle sink looks for new leaves.
const TICK: Duration = Duration::from_millis(50);
/// The longest wait after a failure, where the sink does not ask for a longer one.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
/// The longest that a sink may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// A log that cannot be read is left alone for so many times as long as the try took: the sink's thread is there for the others.
const REST: u32 = 4;

/// How far one log was sent: ahead of what is acknowledged.
#[derive(Debug, Default)]
struct Cursor {
    sent: Position,
    /// Time of the oldest leaf that is not acknowledged.
    oldest_us: Option<i64>,
    items: u64,
    missed: Vec<u64>,
    /// It is not tried before.
    waits_until: Option<Instant>,
    back_off: BackOff,
    /// Why it waits, said once.
    said: Option<String>,
}

impl Cursor {
    fn new(sent: Position) -> Self {
        Self { sent, ..Self::default() }
    }

    fn waits(&self) -> bool {
        self.waits_until.is_some_and(|until| Instant::now() < until)
    }
}

struct Sending<'a> {
    shared: &'a Shared,
    of: &'a TapSink,
    sink: Box<dyn Sink>,
    cursors: BTreeMap<Origin, Cursor>,
    /// What the running log, and what one of the others is read from.
    caches: [Cache; 2],
    /// What each of the two is asked for in the store.
    asking: [Asking; 2],
    window: Window,
    back_off: BackOff,
    /// None of the logs of dead processes is tried before.
    others_wait_until: Option<Instant>,
}

/// Sends until the process ends.
pub(super) fn run(shared: &Shared, of: &TapSink) {
    let mut sending = Sending {
        shared,
        of,
        sink: (of.open)(),
        cursors: BTreeMap::new(),
        caches: Default::default(),
        asking: Default::default(),
        window: Window::default(),
        back_off: BackOff::default(),
        others_wait_until: None,
    };
    while !shared.finished() {
        match sending.round() {
            Ok(true) => {}
            Ok(false) => shared.pause(TICK),
            // What was under way when the process ended is not the sink's fault.
            Err(_) if shared.finished() => {}
            Err(error) => shared.pause(sending.failed(&error)),
        }
    }
}

impl Sending<'_> {
    /// Sends the next leaves of the running log, then of one other; whether there were any.
    fn round(&mut self) -> Result<bool, SinkError> {
        let logs = self.shared.logs();
        self.cursors.retain(|origin, _| logs.iter().any(|log| log.origin == *origin));
        let mut moved = false;
        for log in logs.iter().filter(|log| log.is_live()) {
            moved |= self.send(log)?;
        }
        self.confirm(&logs)?;
        for log in self.others(&logs) {
            match self.send(&log).and_then(|any| self.confirm(&logs).map(|()| any)) {
                Ok(false) => {}
                Ok(true) => {
                    moved = true;
                    break;
                }
                Err(error) if error.retry_after.is_some() => return Err(error),
                Err(error) => {
                    self.put_off(&log, &error);
                    break;
                }
            }
        }
        self.tell_oldest();
        Ok(moved)
    }

    /// The logs of dead processes that can be tried now: those that were not put off first, the oldest of them first.
    fn others(&self, logs: &[Arc<Log>]) -> Vec<Arc<Log>> {
        if self.shared.finished() || self.others_wait_until.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let waited = |log: &Arc<Log>| self.cursors.get(&log.origin).and_then(|cursor| cursor.waits_until);
        let mut others: Vec<Arc<Log>> = logs.iter().filter(|log| !log.is_live()).cloned().collect();
        others.sort_by_key(waited);
        others
    }

    /// Sends the next leaves of one log; whether there were any.
    fn send(&mut self, log: &Arc<Log>) -> Result<bool, SinkError> {
        let at = || Cursor::new(log.position(&self.of.name));
        let cursor = self.cursors.entry(log.origin.clone()).or_insert_with(at);
        if cursor.sent.ended || cursor.waits() {
            return Ok(false);
        }
        let from = cursor.sent.next;
        let begun = Instant::now();
        let ([live, other], [asks_live, asks_other]) = (&mut self.caches, &mut self.asking);
        let (cache, asking) = if log.is_live() { (live, asks_live) } else { (other, asks_other) };
        let read = match log.read(from, cache, asking) {
            Ok(read) => read,
            Err(error) => {
                self.cannot_read(log, from, &error.to_string(), begun.elapsed());
                return Ok(false);
            }
        };
        let (items, sent) = match read {
            Read::Nothing | Read::Waits => return Ok(false),
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
                if let Some(first) = leaves.first() {
                    cursor.oldest_us.get_or_insert(first.at_us);
                }
                wanted(leaves, cursor.sent, self.window.room(), |leaf| (self.of.wanted)(leaf))
            }
        };
        if !items.is_empty() {
            self.window.sends(items.len());
            self.sink.send(&items, &self.shared.stop)?;
        }
        cursor.items += items.len() as u64;
        cursor.sent = sent;
        Ok(true)
    }

    /// Asks whether all that was sent is acknowledged, and moves the positions then.
    fn confirm(&mut self, logs: &[Arc<Log>]) -> Result<(), SinkError> {
        let now = self.shared.hurries() || self.window.is_full();
        if self.sink.confirm(now, &self.shared.stop)? {
            self.window.acknowledged();
            logs.iter().for_each(|log| self.acknowledged(log));
        }
        Ok(())
    }

    /// All that was sent of a log is acknowledged.
    fn acknowledged(&mut self, log: &Arc<Log>) {
        let Some(cursor) = self.cursors.get_mut(&log.origin) else { return };
        cursor.oldest_us = None;
        if log.position(&self.of.name) == cursor.sent {
            return;
        }
        log.set(&self.of.name, cursor.sent);
        (cursor.waits_until, cursor.said) = (None, None);
        cursor.back_off.succeeded();
        for records in cursor.missed.drain(..) {
            self.of.figures.missed(records);
        }
        let items = std::mem::take(&mut cursor.items);
        if items > 0 {
            self.back_off.succeeded();
            if self.of.figures.acknowledged(items) {
                tracing::info!(sink = self.of.name, "the sink takes leaves again");
            }
        }
    }

    /// The sink does not take the running log, or wants to be left alone. Gives for how long it is.
    fn failed(&mut self, error: &SinkError) -> Duration {
        let asked = error.retry_after.unwrap_or_default().min(LONGEST_WAIT);
        let wait = self.back_off.failed().min(LONGEST_BACK_OFF).max(asked);
        let SinkError { reason, detail, .. } = error;
        if self.of.figures.failed() {
            tracing::warn!(
                sink = self.of.name,
                reason,
                detail,
                "a sink of the tap does not take leaves; they are kept for it"
            );
        }
        tracing::debug!(sink = self.of.name, reason, detail, retry_in = ?wait, "not sent");
        self.fall_back(error);
        wait
    }

    /// The sink takes the running log, and not this one.
    fn put_off(&mut self, log: &Arc<Log>, error: &SinkError) {
        if self.shared.finished() {
            return;
        }
        self.fall_back(error);
        let text = format!("{}: {}", error.reason, error.detail);
        self.wait_with(log, text, Duration::ZERO, "a sink of the tap does not take leaves of this log");
    }

    fn cannot_read(&mut self, log: &Arc<Log>, position: u64, error: &str, took: Duration) {
        self.of.figures.error("read");
        let text = format!("position {position}: {error}");
        self.wait_with(log, text, took * REST, "leaves cannot be read for the tap now");
    }

    /// A log waits, and with one of a dead process all others of those: what failed with one may fail with each.
    fn wait_with(&mut self, log: &Arc<Log>, error: String, least: Duration, what: &str) {
        let Some(cursor) = self.cursors.get_mut(&log.origin) else { return };
        let wait = cursor.back_off.failed().min(LONGEST_BACK_OFF).max(least);
        let until = Some(Instant::now() + wait);
        cursor.waits_until = until;
        if !log.is_live() {
            self.others_wait_until = until;
        }
        if cursor.said.as_ref() != Some(&error) {
            tracing::warn!(sink = self.of.name, origin = %log.origin, error, retry_in = ?wait, "{what}");
            cursor.said = Some(error);
        }
    }

    /// What is not acknowledged comes again. That leaves wait since then stays known.
    fn fall_back(&mut self, error: &SinkError) {
        self.of.figures.error(error.reason);
        self.sink.reset();
        self.window.failed(error.reason == SinkError::TIMEOUT);
        for log in self.shared.logs() {
            if let Some(cursor) = self.cursors.get_mut(&log.origin) {
                cursor.sent = log.position(&self.of.name);
                cursor.items = 0;
                cursor.missed.clear();
            }
        }
        self.tell_oldest();
    }

    /// Since when the oldest leaf waits that is not acknowledged.
    fn tell_oldest(&self) {
        self.of.figures.on_its_way_since(self.cursors.values().filter_map(|cursor| cursor.oldest_us).min());
    }
}

/// The leaves that are wanted, at most `room` of them, and how far those go that were looked at.
fn wanted(
    leaves: Vec<TapLeaf>,
    from: Position,
    room: usize,
    wanted: impl Fn(&TapLeaf) -> bool,
) -> (Vec<TapItem>, Position) {
    let (mut items, mut sent) = (Vec::new(), from);
    for leaf in leaves {
        if items.len() >= room {
            break;
        }
        sent = Position { next: leaf.position + 1, ended: leaf.kind == "close" };
        if wanted(&leaf) {
            items.push(TapItem::Leaf(leaf));
        }
    }
    (items, sent)
}
