//! The store as rounds see it: every call is timed, and what the store does not have is looked for on its way.

use std::fmt::{self, Debug};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemas::{ObjectName, Origin};

use crate::disk::DiskFile;
use crate::store::{Put, Receipt, Source, Store, StoreError};
use crate::topic::{Held, TopicBatches};

/// The calls of the round that runs, or ran last.
#[derive(Debug, Default)]
pub struct Waits(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    running: Option<(String, Instant)>,
    spent: Spent,
}

/// What a round's calls came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// How many there were.
    pub calls: u64,
    /// How long they took together.
    pub total: Duration,
    /// The one that took longest, and how long.
    pub longest: Option<(String, Duration)>,
}

impl Waits {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round begins.
    pub(super) fn begin(&self) {
        *self.calls() = Calls::default();
    }

    /// The call that runs at this moment, and for how long.
    pub fn running(&self) -> Option<(String, Duration)> {
        self.calls().running.as_ref().map(|(what, since)| (what.clone(), since.elapsed()))
    }

    /// What the calls so far came to.
    pub fn spent(&self) -> Spent {
        self.calls().spent.clone()
    }

    fn during<T>(&self, action: &str, about: &dyn fmt::Display, work: impl FnOnce() -> T) -> T {
        let (what, since) = (format!("{action} `{about}`"), Instant::now());
        self.calls().running = Some((what.clone(), since));
        let done = work();
        let took = since.elapsed();
        let mut calls = self.calls();
        calls.running = None;
        calls.spent.calls += 1;
        calls.spent.total += took;
        if calls.spent.longest.as_ref().is_none_or(|(_, longest)| *longest < took) {
            calls.spent.longest = Some((what, took));
        }
        done
    }
}

/// A store whose calls are timed. What it does not have, and is on its way through the topic, is read there.
#[derive(Debug)]
pub(super) struct TimedStore {
    pub(super) store: Arc<dyn Store>,
    pub(super) topic: Option<Arc<TopicBatches>>,
    pub(super) waits: Arc<Waits>,
}

impl TimedStore {
    /// Whether the store itself does not have an object: what is read of it came from the topic.
    pub(super) fn lacks(&self, name: &ObjectName) -> Result<bool, StoreError> {
        if self.topic.as_ref().and_then(|topic| topic.object(name)).is_none() {
            return Ok(false);
        }
        Ok(self.waits.during("open", name, || self.store.get(name))?.is_none())
    }
}

impl Store for TimedStore {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        self.waits.during("put", name, || self.store.put(name, source))
    }

    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        self.waits.during("confirm", name, || self.store.confirm(name, source))
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let Some(file) = self.waits.during("open", name, || self.store.get(name))? else {
            let on_its_way = self.topic.as_ref().and_then(|topic| topic.object(name));
            return Ok(on_its_way.map(|bytes| Arc::new(Held(bytes)) as _));
        };
        let timed = |file| -> Arc<dyn DiskFile> {
            Arc::new(TimedFile { file, name: name.to_string(), waits: Arc::clone(&self.waits) })
        };
        Ok(Some(timed(file)))
    }

    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        self.waits.during("list", origin, || self.store.list(origin))
    }

    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        let about = format_args!("{deployment}/{gateway}");
        let mut logs = self.waits.during("list", &about, || self.store.logs(deployment, gateway))?;
        let on_their_way = self.topic.iter().flat_map(|topic| topic.logs(deployment, gateway));
        logs.extend(on_their_way);
        logs.sort();
        logs.dedup();
        Ok(logs)
    }

    fn local_folder(&self) -> Option<&Path> {
        self.store.local_folder()
    }
}

#[derive(Debug)]
struct TimedFile {
    file: Arc<dyn DiskFile>,
    name: String,
    waits: Arc<Waits>,
}

impl DiskFile for TimedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.waits.during("read", &self.name, || self.file.read_at(buffer, offset))
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_at(parts, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
