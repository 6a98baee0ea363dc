//! The archiver: from the topic into the store, and a receipt for each batch (DESIGN 5).
//!
//! ```text
//! topic -> chunks -> objects, on disk -> batch, verified on its own proof -> store: files, seal, each shown
//!       -> receipt, acknowledged -> offset
//! ```
//! Nothing here has to survive: what was not settled is read again from the topic, and what the topic lost is put again
//! by its gateway. Several archivers share the partitions of the topic; each may die at any instruction. What does not
//! hold is set aside and stops nothing else.

mod assembly;
mod batch;
mod desk;
mod earlier;
mod figures;
mod keys;
mod offsets;
mod quarantine;
mod reading;
mod registered;
#[cfg(test)]
mod tests;
mod workers;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use schemas::ObjectName;
use schemas::note::Ed25519Signer;

pub use figures::{ArchiveCounts, ArchiveFigures};
pub use keys::Keys;
pub use quarantine::Fault;
pub use registered::Registered;

use self::batch::{Hand, NotStored};
use self::desk::{Desk, Read};
use self::reading::{Reading, Taken};
use self::workers::{Done, Workers};
use crate::clock::Clock;
use crate::store::{Store, StoreError, Trouble};
use crate::topic::{Connection, Failed, Renewals, Sender, TopicReport, Wanted, WantedTopic, judge};

/// How long one look for messages takes at most.
const TICK: Duration = Duration::from_millis(100);
/// How often offsets are committed, and what is old is looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// How much of what is overdue is looked at each time: the store is asked for each.
const OVERDUE: usize = 16;

/// A message that found no room, and comes before all others.
type Waiting = Option<Taken>;

/// What an archiver works with.
#[derive(Debug, Clone)]
pub struct ArchiveConfig {
    /// Its name in receipts, `[a-z0-9][a-z0-9.-]{0,62}`.
    pub name: String,
    /// Seed of the key that signs its receipts.
    pub seed: [u8; 32],
    /// The brokers.
    pub connection: Connection,
    /// The topic that batches come from.
    pub topic: String,
    /// The topic that receipts go to.
    pub receipts: String,
    /// Archivers of one group share the partitions.
    pub group: String,
    /// How long all of them may be away: the topic must keep batches as long.
    pub outage: Duration,
    /// Where batches go.
    pub store: Arc<dyn Store>,
    /// Whose seals count.
    pub keys: Arc<dyn Keys>,
    /// Folder of what is not settled; emptied at each start. No other archiver's.
    pub work: PathBuf,
    /// Bytes that it holds at most.
    pub work_bound: u64,
    /// Folder of what was set aside.
    pub quarantine: PathBuf,
    /// Bytes that it holds at most.
    pub quarantine_bound: u64,
    /// How long the pieces of a batch may take to come.
    pub patience: Duration,
    /// How many batches are archived at once.
    pub workers: usize,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// An archiver that reads.
#[derive(Debug)]
pub struct Archiver {
    config: ArchiveConfig,
    desk: Desk,
    workers: Workers,
    figures: Arc<ArchiveFigures>,
    sender: Sender,
    renewals: Renewals,
}

impl ArchiveConfig {
    /// What the topics are, held against what batches and receipts need. None is made: gateways do, or the cluster's
    /// operator.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn judge(&self) -> Result<TopicReport, StoreError> {
        let Self { connection, name, topic, receipts, outage, .. } = self;
        let topics = WantedTopic::of_batches(topic, receipts, *outage);
        judge(Wanted { connection, who: name, topics: &topics, create: None })
    }
}

impl Archiver {
    /// Opens its folders.
    ///
    /// # Errors
    /// A folder that cannot be used.
    pub fn open(config: ArchiveConfig) -> io::Result<Self> {
        let desk = Desk::open(
            Arc::clone(&config.keys),
            Arc::clone(&config.clock),
            (&config.work, config.work_bound),
            (&config.quarantine, config.quarantine_bound),
            config.patience,
        )?;
        let hand = Hand {
            name: config.name.clone(),
            signer: Arc::new(Ed25519Signer::from_seed(config.seed)),
            store: Arc::clone(&config.store),
            clock: Arc::clone(&config.clock),
            keys: Arc::clone(&config.keys),
        };
        let workers = Workers::start(&hand, config.workers)?;
        let sender = Sender::new(config.connection.clone(), &config.name);
        let figures = Arc::<ArchiveFigures>::default();
        figures.set_work_bound(config.work_bound);
        figures.look(&desk, Duration::ZERO);
        Ok(Self { config, desk, workers, figures, sender, renewals: Renewals::default() })
    }

    /// How it goes, for metrics.
    pub fn figures(&self) -> Arc<ArchiveFigures> {
        Arc::clone(&self.figures)
    }

    /// Archives until `stop` is set. Blocks. A broker or a store that is away is waited for.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut said: Option<String> = None;
        while !stop.load(Ordering::Acquire) {
            match self.read(stop) {
                Ok(()) => said = None,
                Err(failed) => {
                    let text = failed.trouble.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::warn!(reason = %failed.trouble, detail = failed.detail, "batches cannot be read now");
                        said = Some(text);
                    }
                    self.figures.set_reading(false);
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
        self.workers.stop();
    }

    /// Reads until stopped, or until the connection must be made anew.
    fn read(&mut self, stop: &AtomicBool) -> Result<(), Failed> {
        let mut reading = Reading::open(&self.config)?;
        // What was read before comes again, from where it was committed.
        let before = self.desk.offsets().partitions();
        self.desk.lose(&before);
        let mut looked = Instant::now();
        let mut waiting: Waiting = None;
        while !stop.load(Ordering::Acquire) {
            waiting = self.take_next(&mut reading, waiting)?;
            while self.workers.has_room() {
                let Some((seal, whole)) = self.desk.next() else { break };
                self.workers.give(seal, whole);
            }
            while let Some(done) = self.workers.done() {
                self.settle(done);
            }
            if looked.elapsed() >= HOUSEKEEPING {
                looked = Instant::now();
                waiting = self.keep_house(&mut reading, waiting)?;
            }
        }
        self.commit(&reading);
        Ok(())
    }

    /// Takes the next message; gives it back where it has to wait.
    fn take_next(&mut self, reading: &mut Reading, waiting: Waiting) -> Result<Waiting, Failed> {
        let again = waiting.is_some();
        let next = if again { waiting } else { reading.next(TICK)? };
        let Some((at, key, message)) = next else { return Ok(None) };
        let wait = match self.desk.take(at, key.as_deref(), &message, Instant::now(), again) {
            Ok(Read::Taken) => return Ok(None),
            Ok(Read::NoRoom) => TICK,
            Err(error) => {
                tracing::error!(%error, folder = %self.config.work.display(), "the work folder cannot be used");
                Duration::from_secs(1)
            }
        };
        // It comes before all others, and meanwhile no more are read.
        reading.keep_alive(wait)?;
        Ok(Some((at, key, message)))
    }

    fn keep_house(&mut self, reading: &mut Reading, mut waiting: Waiting) -> Result<Waiting, Failed> {
        let lost = reading.lost();
        if !lost.is_empty() {
            tracing::info!(partitions = ?lost, "another archiver reads these partitions now");
            self.desk.lose(&lost);
            // A message that waits may be one of theirs: they read it again.
            waiting = waiting.filter(|(at, ..)| !lost.contains(&at.partition));
        }
        if let Some(partition) = reading.stalled()
            && self.renewals.begin(Instant::now())
        {
            let detail = format!(
                "partition {partition} holds messages and gives none, as one does whose topic was made anew: it is read by another connection"
            );
            return Err(Failed::new(Trouble::Timeout, detail));
        }
        self.expire(Instant::now());
        for from in self.desk.again(Instant::now()) {
            // Where it cannot be, everything is read again.
            reading.again(from)?;
            tracing::info!(
                partition = from.partition,
                offset = from.offset,
                "read again: there is room for what was put back"
            );
            waiting = waiting.filter(|(at, ..)| at.partition != from.partition);
        }
        self.commit(reading);
        self.figures.look(&self.desk, reading.behind());
        self.figures.set_reading(reading.reads());
        Ok(waiting)
    }

    /// Commits offsets. What Kafka does not take now is committed later, or read again by another.
    fn commit(&mut self, reading: &Reading) {
        let offsets = self.desk.offsets().due_commits();
        if let Err(failed) = reading.commit(&offsets) {
            tracing::debug!(reason = %failed.trouble, detail = failed.detail, "offsets are not committed now");
            self.desk.offsets().not_committed();
        }
    }

    /// Gives up what is overdue. After a restart the topic gives pieces again of batches that are in the store: these are
    /// no finding.
    fn expire(&mut self, now: Instant) {
        for wanted in self.desk.overdue(now).into_iter().take(OVERDUE) {
            let (origin, batch) = (wanted.name.origin().clone(), wanted.name.batch());
            match self.config.store.get(&ObjectName::Seal { origin, batch }) {
                Ok(seal) => {
                    let why = "not all of it came in the time that it may take";
                    self.desk.give_up(&wanted, seal.is_some(), why);
                }
                // A store that does not answer is asked again.
                Err(_) => return,
            }
        }
    }

    /// A batch came back from the store: its receipt goes out before its messages count as settled.
    fn settle(&mut self, done: Done) {
        let Done { seal, batch, result } = done;
        let origin = &batch.seal.origin;
        match result {
            Ok(stored) => {
                let receipt = stored.receipt.clone();
                let messages = std::iter::once(Ok::<_, Failed>(receipt));
                if let Err(failed) = self.sender.send(&self.config.receipts, origin.as_str(), messages) {
                    tracing::warn!(reason = %failed.trouble, detail = failed.detail, "the receipt is not sent yet");
                    self.figures.receipt_waits();
                    // Archiving again changes nothing in the store, and gives a receipt again.
                    self.workers.give_later(seal, batch, None);
                    return;
                }
                if stored.repeats {
                    tracing::info!(%origin, batch = batch.seal.batch, "a batch was sealed again; the store has its records under an earlier seal, and keeps that one");
                    self.desk.settle(&seal, None);
                    return;
                }
                if !stored.unknown.is_empty() {
                    tracing::warn!(%origin, batch = batch.seal.batch, unknown = ?stored.unknown, "archived; not all of it is known to this version");
                }
                if stored.predecessor_missing {
                    tracing::warn!(%origin, batch = batch.seal.batch, "archived; the batch before it is not in the store yet");
                }
                tracing::info!(%origin, batch = batch.seal.batch, records = batch.seal.to - batch.seal.from, "archived");
                self.figures.archived(&batch, &stored, self.config.clock.now_us());
                self.desk.settle(&seal, None);
            }
            Err(NotStored::Never(fault, detail)) => self.desk.settle(&seal, Some((fault, detail))),
            Err(NotStored::Later(error)) => {
                tracing::warn!(%origin, batch = batch.seal.batch, %error, "not archived yet");
                self.figures.store_waits();
                self.workers.give_later(seal, batch, Some(&error));
            }
        }
    }
}
