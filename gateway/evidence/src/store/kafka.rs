//! Kafka as the way out: batches go into a topic, an archiver puts them into the store, its receipts come back.
//!
//! ```text
//! put     = the object's chunks, idempotent, acknowledged by all in-sync replicas; again where no receipt comes
//! confirm = a receipt by a configured archiver for the batch's very seal and files; and the objects themselves, where
//!           that is asked for
//! get     = read in the store that archivers write, where one is given
//! ```
//! Losing the topic loses nothing: the spool keeps a batch until its receipt, and it is put again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::ship::{Chunk, pieces};
use schemas::{ObjectName, Origin, Sha256Hex, seal};

use super::{Figures, Put, Receipt, SealWord, Source, Store, StoreError, Trouble, hash_file};
use crate::disk::DiskFile;
use crate::topic::{
    Answer, Failed, Receipts, Sender, TopicReader, TopicReport, TopicSettings, Wanted, WantedTopic, judge,
};

/// How many of a log's oldest batches without a receipt are put again: where no archiver runs, the topic is not filled
/// with the same over and over, and where one does, its receipts for these bring the turn of the next.
const AGAIN: usize = 8;
/// The longest wait before a batch is put again, but for a longer `reship_after`.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// The largest seal that is read.
const MAX_SEAL_BYTES: u64 = 1 << 20;

/// Batches through a topic.
#[derive(Debug)]
pub struct KafkaStore {
    settings: TopicSettings,
    sender: Sender,
    receipts: Arc<Receipts>,
    archive: Option<Archive>,
    _reader: TopicReader,
    sent: Mutex<BTreeMap<(Origin, u64), Sent>>,
}

/// The store that archivers write: read, and never written.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whether a batch counts as archived only once each of its objects was read there too.
    pub confirms: bool,
}

/// A batch that was sent, and has no receipt yet.
#[derive(Debug, Clone)]
struct Sent {
    /// Since when it waits for its receipt.
    first: Instant,
    /// When it was begun to be sent last.
    last: Instant,
    /// How often it was sent again.
    again: u32,
    /// What was sent of it since.
    files: BTreeSet<String>,
}

impl KafkaStore {
    /// What the topics are, held against what batches need. Missing ones are made where the settings say how.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn judge(settings: &TopicSettings) -> Result<TopicReport, StoreError> {
        let TopicSettings { connection, topic, receipts, gateway, create, outage, .. } = settings;
        let topics = WantedTopic::of_batches(topic, receipts, *outage);
        judge(Wanted { connection, who: gateway, topics: &topics, create: *create })
    }

    /// Begins to read receipts. Asks the topics nothing: see [`KafkaStore::judge`].
    ///
    /// # Errors
    /// The system has no threads.
    pub fn open(settings: TopicSettings) -> io::Result<Self> {
        let receipts =
            Arc::new(Receipts::new(&settings.deployment, &settings.gateway, settings.archivers.clone()));
        let reader = TopicReader::start(
            settings.connection.clone(),
            &settings.receipts,
            &settings.gateway,
            "receipts",
            Arc::clone(&receipts) as _,
        )?;
        let sender = Sender::new(settings.connection.clone(), &settings.gateway);
        Ok(Self { settings, sender, receipts, archive: None, _reader: reader, sent: Mutex::default() })
    }

    /// Reads in the store that archivers write, too.
    #[must_use]
    pub fn with_archive(self, archive: Option<Archive>) -> Self {
        Self { archive, ..self }
    }

    /// What the archivers' store keeps under a name is what was sent.
    fn read_in_archive(&self, name: &ObjectName, source: Source<'_>) -> Result<(), StoreError> {
        let Some(archive) = self.archive.as_ref().filter(|archive| archive.confirms) else { return Ok(()) };
        let Some(file) = archive.store.get(name)? else {
            return Err(StoreError::Service {
                action: "no object in the archive for",
                name: name.to_string(),
                trouble: Trouble::Unanswered,
                detail: "a receipt says that it is there".into(),
            });
        };
        is_what_was_sent(name, source, &*file)
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<(Origin, u64), Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object is to be sent: not yet, or too long ago without a receipt.
    fn is_due(&self, name: &ObjectName) -> bool {
        let key = (name.origin().clone(), name.batch());
        let mut sent = self.sent();
        let before = sent.range((key.0.clone(), 0)..key.clone()).take(AGAIN).count();
        let Some(batch) = sent.get_mut(&key) else { return true };
        if !batch.files.contains(&name.file_name()) {
            return true;
        }
        let first_wait = self.settings.reship_after;
        let wait = first_wait.saturating_mul(1 << batch.again.min(16)).min(LONGEST_WAIT.max(first_wait));
        if before >= AGAIN || batch.last.elapsed() < wait {
            return false;
        }
        tracing::warn!(origin = %key.0, batch = key.1, waited_s = batch.first.elapsed().as_secs(), "no receipt came: the batch is put again");
        batch.last = Instant::now();
        batch.again += 1;
        batch.files.clear();
        self.receipts.put_again();
        true
    }

    fn was_sent(&self, name: &ObjectName) {
        let now = Instant::now();
        let key = (name.origin().clone(), name.batch());
        let fresh = || Sent { first: now, last: now, again: 0, files: BTreeSet::new() };
        let mut sent = self.sent();
        let batch = sent.entry(key).or_insert_with(fresh);
        batch.files.insert(name.file_name());
        if matches!(name, ObjectName::Seal { .. }) && batch.again == 0 {
            (batch.first, batch.last) = (now, now);
        }
    }

    fn send(&self, name: &ObjectName, source: Source<'_>) -> Result<(), StoreError> {
        let failed = |error| StoreError::Io {
            action: "cannot read",
            name: source.path.display().to_string(),
            source: error,
        };
        // First all of it is looked at: an archiver would take a damaged object for an attack.
        let mut file = File::open(source.path).map_err(failed)?;
        let (length, found) = hash(&mut file).map_err(failed)?;
        if (length, &found) != (source.length, source.sha256) {
            let path = source.path.display().to_string();
            return Err(StoreError::Source { path, expected: *source.sha256, found });
        }
        let mut file = File::open(source.path).map_err(failed)?;
        let messages = pieces(length).map(|(offset, count)| {
            let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
            file.read_exact(&mut bytes).map_err(|error| Unsent::Here(failed(error)))?;
            let chunk = Chunk { name: name.clone(), length, sha256: *source.sha256, offset, bytes: &bytes };
            chunk.encode().map_err(|error| Unsent::There(Failed::new(Trouble::Refused, error.to_string())))
        });
        let sent = self.sender.send(&self.settings.topic, name.origin().as_str(), messages);
        sent.map_err(|unsent| match unsent {
            Unsent::Here(error) => error,
            Unsent::There(failed) => failed.store("cannot send", name),
        })
    }

    fn answer(&self, name: &ObjectName) -> Result<Answer, StoreError> {
        if let Some(answer) = self.receipts.answer(name.origin(), name.batch()) {
            return Ok(answer);
        }
        let key = (name.origin().clone(), name.batch());
        let waited = self.sent().get(&key).map(|batch| batch.first.elapsed()).unwrap_or_default();
        if waited < self.settings.reship_after {
            return Err(StoreError::Pending { name: name.to_string() });
        }
        Err(StoreError::Service {
            action: "no receipt for",
            name: name.to_string(),
            trouble: Trouble::Unanswered,
            detail: format!("it was first sent {} s ago; does an archiver run?", waited.as_secs()),
        })
    }

    /// Waits until all receipts that the topic holds were read.
    fn whole(&self, origin: impl ToString) -> Result<(), StoreError> {
        let whole = self.receipts.wait_whole(self.settings.connection.timeout);
        whole.map_err(|failed| failed.store("cannot read the receipts of", origin))
    }
}

/// What the archivers' store gives back is what was sent.
fn is_what_was_sent(name: &ObjectName, source: Source<'_>, file: &dyn DiskFile) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "cannot read", name: name.to_string(), source };
    let (length, found) = hash_file(file).map_err(failed)?;
    if (length, &found) == (source.length, source.sha256) {
        return Ok(());
    }
    let found = format!("{length} bytes with SHA-256 {found}");
    Err(StoreError::ReadBack { name: name.to_string(), found })
}

/// Why an object was not sent.
enum Unsent {
    /// It could not be read.
    Here(StoreError),
    /// The brokers did not take it.
    There(Failed),
}

impl From<Failed> for Unsent {
    fn from(failed: Failed) -> Self {
        Self::There(failed)
    }
}

fn hash(file: &mut File) -> io::Result<(u64, Sha256Hex)> {
    let mut hasher = schemas::digest::Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, hasher.finish())),
            count => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                length += count as u64;
            }
        }
    }
}

impl Store for KafkaStore {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        if self.receipts.answer(name.origin(), name.batch()).is_some() || !self.is_due(name) {
            return Ok(Put::AlreadyThere);
        }
        if matches!(name, ObjectName::Seal { .. }) {
            self.receipts.expect(name.origin(), name.batch());
        }
        self.send(name, source)?;
        self.was_sent(name);
        Ok(Put::Stored)
    }

    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        let answer = self.answer(name)?;
        if matches!(name, ObjectName::Seal { .. }) {
            let failed =
                |error| StoreError::Io { action: "cannot read", name: name.to_string(), source: error };
            let mut note = Vec::new();
            let file = File::open(source.path).map_err(failed)?;
            file.take(MAX_SEAL_BYTES).read_to_end(&mut note).map_err(failed)?;
            let sealed = seal::parse_unverified(&note)
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            let own = Sha256Hex::of(&note);
            let other = answer.other.filter(|other| *other != own).unwrap_or(answer.word.seal);
            if answer.other.is_some() || answer.word.seal != own {
                return Err(StoreError::Taken { name: name.to_string(), expected: own, found: other });
            }
            if !answer.answers(&sealed, own) {
                let found = "a receipt for the same seal with other files, positions or root".into();
                return Err(StoreError::ReadBack { name: name.to_string(), found });
            }
            self.read_in_archive(name, source)?;
            self.receipts.answered(name.origin(), name.batch());
            self.sent().remove(&(name.origin().clone(), name.batch()));
        } else {
            self.read_in_archive(name, source)?;
        }
        Ok(Receipt::default())
    }

    /// Into the topic, whatever receipt there is.
    fn put_again(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        if matches!(name, ObjectName::Seal { .. }) {
            // What was said before it is sent does not count: all of that must have been read.
            self.whole(name.origin())?;
            self.receipts.hear_again(name.origin(), name.batch());
        }
        self.send(name, source)?;
        Ok(Put::Stored)
    }

    /// The object itself where the archivers' store is read here, else a receipt that came since.
    fn confirm_again(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        let pending = || StoreError::Pending { name: name.to_string() };
        if let Some(archive) = &self.archive {
            let file = archive.store.get(name)?.ok_or_else(pending)?;
            is_what_was_sent(name, source, &*file)?;
        } else if !self.receipts.heard_again(name.origin(), name.batch()) {
            return Err(pending());
        }
        Ok(Receipt::default())
    }

    fn stored(&self, origin: &Origin) -> Result<Option<Vec<ObjectName>>, StoreError> {
        self.archive.as_ref().map(|archive| archive.store.list(origin)).transpose()
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        if let Some(archive) = &self.archive {
            return archive.store.get(name);
        }
        let source = io::Error::new(
            io::ErrorKind::Unsupported,
            "what went through Kafka is in the archivers' store: `evidence.out.kafka.archive` says where it is read",
        );
        Err(StoreError::Io { action: "cannot read", name: name.to_string(), source })
    }

    /// The seals that have a receipt, and what the archivers' store has, where it is read.
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        self.whole(origin)?;
        let seal = |batch| ObjectName::Seal { origin: origin.clone(), batch };
        let mut names: Vec<ObjectName> = self.receipts.batches(origin).into_iter().map(seal).collect();
        if let Some(archive) = &self.archive {
            names.extend(archive.store.list(origin)?);
            names.sort();
            names.dedup();
        }
        Ok(names)
    }

    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        self.whole(format!("{deployment}/{gateway}"))?;
        let mut logs = self.receipts.logs();
        logs.retain(|origin| origin.deployment() == deployment && origin.gateway() == gateway);
        if let Some(archive) = &self.archive {
            logs.extend(archive.store.logs(deployment, gateway)?);
            logs.sort();
            logs.dedup();
        }
        Ok(logs)
    }

    fn word(&self, origin: &Origin, batch: u64) -> Result<Option<SealWord>, StoreError> {
        Ok(self.receipts.answer(origin, batch).map(|answer| answer.word))
    }

    fn gives_back(&self) -> bool {
        false
    }

    fn figures(&self) -> Figures {
        self.receipts.figures()
    }

    fn local_folder(&self) -> Option<&Path> {
        None
    }
}
