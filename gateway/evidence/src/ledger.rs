//! The ledger: what the rest of the gateway sees of evidence.
//!
//! ```text
//! Ledger::open -> admit -> Admission -> intent -> OpenExchange -> part, outcome
//!                                    -> refusal
//! ```
//! Whatever returns `Ok` here is on stable storage, where its text says so; whatever returns [`Unavailable`] must not
//! be followed by bytes to a provider or by the end of an answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::record::{Admin, Body, CloseReason, Config, ConfigReason, Gap, GapReason};
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};

use crate::admission::{Admission, KeyScope};
use crate::clock::Clock;
use crate::commit::CommitSettings;
use crate::disk::SharedDisk;
use crate::erase::{EraseError, EraseReport, EraseRequest};
use crate::error::{OpenError, Reason, Unavailable};
use crate::hold::{HoldError, HoldReport, HoldRequest, RegistryKey};
use crate::inner::Inner;
use crate::kept::{Reship, ReshipError, ReshipReport};
use crate::refusals::PreAuth;
use crate::stop::Stop;
use crate::store::Store;
use crate::tap::{SinkCounts, Tap};
use crate::watermarks::{Room, Watermarks};

/// Counters for heartbeats: name (`[a-z0-9_]+`) to cumulative count since the process started.
pub type Counters = Arc<dyn Fn() -> BTreeMap<String, u64> + Send + Sync>;

/// A document that records refer to by its SHA-256: configuration, policy, price book.
#[derive(Debug, Clone)]
pub struct Reference {
    /// For example `application/yaml`.
    pub media_type: Identifier,
    /// The document. It is stored unencrypted: secrets must be fingerprints already.
    pub bytes: Bytes,
}

impl Reference {
    /// The name that records give it.
    pub fn sha256(&self) -> Sha256Hex {
        Sha256Hex::of(&self.bytes)
    }
}

/// A closing key, and the key whose logs it may seal and close (FORMAT 15.3). The caller has checked the root key's
/// signature that says so: a seal by any other key spoils a log for good.
#[derive(Clone)]
pub struct ClosingKey {
    /// Seed of the closing key.
    pub seed: [u8; 32],
    /// Public key of the logs that it may close.
    pub of: [u8; 32],
}

impl std::fmt::Debug for ClosingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosingKey").field("of", &schemas::trust::key_text(&self.of)).finish_non_exhaustive()
    }
}

/// Everything that a ledger needs to know.
#[derive(Clone)]
pub struct LedgerConfig {
    /// First part of the origin.
    pub deployment: String,
    /// Second part of the origin.
    pub gateway: String,
    /// Folder of the journals, one folder an epoch.
    pub journal_dir: PathBuf,
    /// Folder of what is sealed and not yet archived.
    pub spool_dir: PathBuf,
    /// Folder of the data keys. Outside the store: destroying a key erases content.
    pub key_table_dir: PathBuf,
    /// The way out.
    pub store: Arc<dyn Store>,
    /// The key of the deployment's registry in that store: holds that other gateways recorded are read there.
    pub registry: Option<RegistryKey>,
    /// Seed of the Ed25519 key that signs this gateway's seals.
    pub seal_seed: [u8; 32],
    /// Seed of the Ed25519 key that signs promises to callers (`<origin>/promise`); `None`: none are made.
    pub promise_seed: Option<[u8; 32]>,
    /// Keys that may seal and close logs of other keys after them: for recovery and salvage.
    pub closing: Vec<ClosingKey>,
    /// Who runs the process, for the `admin` records of recovery.
    pub operator: Option<Identifier>,
    /// How long a record waits for its batch at most.
    pub batch_age: Duration,
    /// How many journal bytes a batch holds at most (one record's content may exceed it).
    pub batch_bytes: u64,
    /// The longest silence (CH-3).
    pub heartbeat_bound: Duration,
    /// Bytes of a journal segment.
    pub segment_bytes: u64,
    /// Bytes that wait for the store at most, before traffic is refused (CA-7).
    pub spool_bound_bytes: u64,
    /// How long a batch stays here after it is archived, as far as there is room; 0: not at all.
    pub spool_keep: Duration,
    /// Whether content is encrypted. Off cannot be erased.
    pub encryption: bool,
    /// Record damage of acknowledged records as a gap instead of refusing to start.
    pub accept_loss: bool,
    /// Version of the gateway binary.
    pub gateway_version: Identifier,
    /// SHA-256 of the running binary, where it could be read.
    pub binary_sha256: Option<Sha256Hex>,
    /// The configuration, secrets as fingerprints.
    pub config: Reference,
    /// The policy that it uses.
    pub policy: Option<Reference>,
    /// The price book that it uses.
    pub price_book: Option<Reference>,
    /// The gateway's counters, for heartbeats.
    pub counters: Counters,
    /// Where the journal is committed besides this disk; `None`: nowhere.
    pub commit: Option<CommitSettings>,
    /// The disk: [`crate::disk::RealDisk`] but in tests.
    pub disk: SharedDisk,
    /// The clock: [`crate::clock::SystemClock`] but in tests.
    pub clock: Arc<dyn Clock>,
    /// How long a start waits for what it cannot do without: the store's answer, or the lock of the holds.
    pub store_wait: Duration,
    /// Asks the start to end.
    pub stop: Stop,
    /// Where leaves go besides the store; `None`: nowhere.
    pub tap: Option<Arc<Tap>>,
}

/// One epoch, open for writing. Cheap to clone; all clones are one ledger.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("origin", &self.inner.origin).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Recovers what earlier epochs left in the journal folder, closes them, and opens a new epoch.
    ///
    /// Blocks, for as long as recovery takes. On return the new log's `boot` and `config` records are on stable
    /// storage and traffic may be admitted.
    ///
    /// # Errors
    /// Each names what must change. Nothing of an earlier epoch is lost by a failed start.
    pub fn open(config: LedgerConfig) -> Result<Self, OpenError> {
        crate::open::open(config).map(|inner| Self { inner })
    }

    /// The log that this ledger writes.
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// The public key of this log's seals.
    pub fn seal_public_key(&self) -> [u8; 32] {
        self.inner.seal_public_key
    }

    /// Admits an exchange: makes its id, reserves space by allocation (CA-7) and picks its data key.
    ///
    /// `declared_body_bytes` is the request's `Content-Length`, where known; a longer body extends the reserve as it
    /// comes. Does not wait. Dropping the admission gives everything back; nothing is recorded then.
    ///
    /// # Errors
    /// Why evidence cannot be written now.
    pub async fn admit(
        &self,
        declared_body_bytes: Option<u64>,
        keys: KeyScope,
    ) -> Result<Admission, Unavailable> {
        let _ = declared_body_bytes;
        Admission::new(&self.inner, keys).await
    }

    /// Whether an exchange would be admitted now. For `/readyz`.
    ///
    /// # Errors
    /// Why not.
    pub fn readiness(&self) -> Result<(), Unavailable> {
        self.inner.readiness()
    }

    /// Records a refusal from before authentication: no content. Above 10 a second and reason it is folded into one
    /// record with a count, and returns at once (CA-3); else the record is durable on return.
    ///
    /// # Errors
    /// Why it could not be recorded.
    pub async fn refuse_before_authentication(
        &self,
        reason: Identifier,
        status: i64,
    ) -> Result<PreAuth, Unavailable> {
        self.inner.refuse_before_authentication(reason, status).await
    }

    /// Counts exchanges on a route with `fail_mode: open` that passed, or were refused, unrecorded. A `gap` record says
    /// how many as soon as evidence can be written again. Until then the count is kept beside the journal, at most a
    /// second behind, and where this log can never say it, the next start does.
    pub fn count_unrecorded(&self, exchanges: u64) {
        self.inner.unrecorded.add(exchanges);
    }

    /// Records that a new configuration takes effect, with the documents themselves (CH-4).
    ///
    /// On return they are on stable storage: only then may the new configuration rule. Every record that is made
    /// after the change in the log's order carries the new hash.
    ///
    /// # Errors
    /// Why it could not be recorded; the old configuration stays in force.
    pub async fn config_changes(
        &self,
        next: Reference,
        reason: ConfigReason,
        policy: Option<Reference>,
        price_book: Option<Reference>,
    ) -> Result<(), Unavailable> {
        let record = Config {
            next: next.sha256(),
            reason,
            policy: policy.as_ref().map(Reference::sha256),
            price_book: price_book.as_ref().map(Reference::sha256),
        };
        let references: Vec<_> = [Some(next), policy, price_book].into_iter().flatten().collect();
        let mut ticket = self.inner.change_config(record, references)?;
        self.inner.told(&mut ticket).await.map(|_| ())
    }

    /// The configuration in force, by hash.
    pub fn config_in_force(&self) -> Sha256Hex {
        self.inner.config_in_force()
    }

    /// Records what someone did to the gateway. Durable on return.
    ///
    /// # Errors
    /// Why it could not be recorded.
    pub async fn admin(&self, admin: Admin) -> Result<(), Unavailable> {
        self.inner.append(Body::Admin(admin)).await.map(|_| ())
    }

    /// Records a gap now. Durable on return.
    ///
    /// # Errors
    /// Why it could not be recorded.
    pub async fn gap(&self, reason: GapReason, count: Option<u64>) -> Result<(), Unavailable> {
        self.inner.append(Body::Gap(Gap { reason, count, bytes: None })).await.map(|_| ())
    }

    /// Erases content: records `erasure` for each exchange, then destroys its data key.
    ///
    /// Seals and ships what is pending first, so that every exchange that had its outcome when this was called can be
    /// erased; logs of this gateway that another process still writes, or that wait for their recovery, are waited for
    /// where they may hold any of it. On return the keys are destroyed on stable storage. A crash in between is made good by the next start.
    ///
    /// # Errors
    /// [`EraseError::Shared`] where other exchanges use the same key and `whole_key` is not set: lists them;
    /// [`EraseError::Held`] where a legal hold covers any of them.
    pub async fn erase(&self, request: EraseRequest) -> Result<EraseReport, EraseError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || crate::erase::erase(&inner, &request)).await {
            Ok(done) => done,
            Err(error) => Err(EraseError::Failed(error.to_string())),
        }
    }

    /// Begins or ends a legal hold: from its beginning to its end nothing that it covers is erased. On return it is recorded
    /// on stable storage.
    ///
    /// # Errors
    /// [`HoldError::Unknown`] where a hold is to end that is not in force.
    pub async fn hold(&self, request: HoldRequest) -> Result<HoldReport, HoldError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || crate::hold::hold(&inner, &request)).await {
            Ok(done) => done,
            Err(error) => Err(HoldError::Failed(error.to_string())),
        }
    }

    /// Puts archived batches again that are kept here: what the store has lost is there again.
    ///
    /// # Errors
    /// Nothing was put. What became of each batch else is in the report.
    pub async fn reship(&self, asked: Reship) -> Result<ReshipReport, ReshipError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || inner.reship(&asked)).await {
            Ok(done) => done,
            Err(error) => Err(ReshipError::Ended(error.to_string())),
        }
    }

    /// How far evidence has come.
    pub fn watermarks(&self) -> Watermarks {
        self.inner.watermarks()
    }

    /// How much the disks still take. Asks the system.
    pub fn room(&self) -> Room {
        self.inner.room()
    }

    /// How it goes with each sink of the tap, by name.
    pub fn tap(&self) -> Vec<(String, SinkCounts)> {
        let sinks = self.inner.settings.tap.iter().flat_map(|tap| &tap.sinks);
        sinks.map(|sink| (sink.name.clone(), sink.figures.counts())).collect()
    }

    /// Seals what is journaled now without waiting for the batch's age. Does not wait for the seal.
    pub fn seal_now(&self) {
        self.inner.seal_soon();
    }

    /// Waits until every record below `position` is archived, or `bound` is over; says whether it is.
    pub async fn wait_archived(&self, position: u64, bound: Duration) -> bool {
        self.inner.wait_archived(position, bound).await
    }

    /// Ends the epoch: no new exchange is admitted from now on, open ones that the caller of this function has left
    /// open are closed as `gateway_abort`, `close` is written, and all is sealed and shipped.
    ///
    /// Call it after traffic has stopped. On `Ok` everything is archived, and the epoch's journal is gone.
    ///
    /// # Errors
    /// What was not finished within `bound`. Nothing is lost: the next start finishes it.
    pub async fn drain_and_close(&self, reason: CloseReason, bound: Duration) -> Result<(), Unavailable> {
        self.inner.drain_and_close(reason, None, bound).await
    }

    /// As [`Ledger::drain_and_close`], for a process in whose place another one serves already: `close` names the
    /// log of that one.
    ///
    /// # Errors
    /// As [`Ledger::drain_and_close`].
    pub async fn hand_over(&self, successor: Origin, bound: Duration) -> Result<(), Unavailable> {
        self.inner.drain_and_close(CloseReason::Shutdown, Some(successor), bound).await
    }

    /// Ends the ledger's threads without closing the log, as the death of the process would; the next start recovers.
    /// Blocks. For a process that must end at once, and for tests.
    pub fn halt(&self) {
        self.inner.stop(Unavailable::new(Reason::Draining, "the ledger is halted"));
        self.inner.marks.finish();
        self.inner.join();
        self.inner.save_unrecorded();
        if let Some(keys) = &self.inner.keys {
            keys.close();
        }
        self.inner.journal.close();
    }

    /// Why nothing will ever be written to this log again, where that is so: its journal failed (DU-4).
    pub fn journal_failure(&self) -> Option<Unavailable> {
        self.inner.journal.failed().map(|error| self.inner.journal_failed(error))
    }

    /// Stops admitting from now on, as the first step of a drain. Running exchanges go on.
    pub fn stop_admitting(&self) {
        self.inner.stop(Unavailable::new(Reason::Draining, "the gateway is draining"));
    }

    /// A fresh exchange id, for answers that must name one before an admission.
    pub fn new_exchange_id(&self) -> ExchangeId {
        crate::exchange_id::new(self.inner.clock.now_us())
    }
}
