//! Findings: what is wrong, how bad, where, what was expected and what was found (AU-4).
//!
//! Codes are stable. Each has one severity, one effect on the verdict and one hint; [`CODES`] is the whole list.
//!
//! Codes that other texts about this evidence call differently:
//!
//! | here | elsewhere |
//! |---|---|
//! | `LOG_MISSING`, `UNREGISTERED_LOG` | `STREAM_MISSING`, `UNREGISTERED_STREAM` |
//! | `AFTER_CLOSE` | what `CLOSED_BUT_ACTIVE` is where the registry says closed, seen in the log itself |
//! | `UNAPPROVED_CONFIG` | a configuration or price book that no `config` record announces |
//! | `FILE_MISMATCH`, `ROOT_MISMATCH`, `SEAL_INVALID`, `CHAIN_BROKEN` | parts of `LEAF_MISMATCH` and `FOREIGN_RECORD`, named by the check that found them |
//! | `PREDECESSOR_FORK` | `EQUIVOCATION` between epochs |
//! | `COULD_NOT_READ`, `KEY_ABSENT`, `NO_INPUT` | `COULD_NOT_JUDGE` |

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// A weakness.
    Medium,
    /// A promise is broken.
    High,
    /// Evidence was changed, removed or forged.
    Critical,
    /// A check could not be made.
    Unjudged,
}

/// What a finding does to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing.
    Note,
    /// `COULD-NOT-JUDGE`.
    Unjudged,
    /// `POLICY`.
    Policy,
    /// `INCOMPLETE`.
    Incomplete,
    /// `DIVERGED`.
    Diverged,
    /// `INVALID`.
    Invalid,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $text:literal $severity:ident $effect:ident $hint:literal;)*) => {
        /// The stable code of a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }
        /// Every code.
        pub const CODES: &[Code] = &[$(Code::$variant,)*];
        impl Code {
            /// The code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }
            /// What it does to the verdict.
            pub fn effect(self) -> Effect {
                match self { $(Self::$variant => Effect::$effect,)* }
            }
            /// What to do about it.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

codes! {
    /// A stored leaf does not hash to its leaf hash.
    LeafMismatch "LEAF_MISMATCH" Critical Invalid "the record was changed after it was sealed; ask for another copy of the batch";
    /// A typed column differs from the signed leaf.
    ColumnNotLeaf "COLUMN_NOT_LEAF" Critical Invalid "a query engine reading this column would be told something that nobody signed; trust the leaf";
    /// A footer's statistics exclude values that are present.
    StatsLie "STATS_LIE" Critical Invalid "engines that prune by statistics would miss rows; answer from proven rows only";
    /// An object is not at its committed name.
    PathMismatch "PATH_MISMATCH" High Invalid "the object was renamed, copied or swapped; compare with the name that its seal commits to";
    /// A file does not have the exact schema of its version.
    SchemaDrift "SCHEMA_DRIFT" High Invalid "the file was not written by a version 1 writer, or was changed";
    /// A leaf is not in canonical form.
    NonCanonicalLeaf "NON_CANONICAL_LEAF" High Invalid "parsers may disagree on what this record says; its writer is broken or hostile";
    /// Positions are missing inside a batch.
    SeqGap "SEQ_GAP" Critical Invalid "records were removed from the batch";
    /// Records are not in the order of their positions.
    Order "ORDER" Critical Invalid "records were moved";
    /// Two batches cover the same positions.
    DuplicateRange "DUPLICATE_RANGE" High Invalid "a batch was repeated under another number; its records would count twice";
    /// A record is not in the signed tree.
    ForeignRecord "FOREIGN_RECORD" Critical Invalid "somebody added a record that the gateway did not sign";
    /// The leaves do not give the signed root.
    RootMismatch "ROOT_MISMATCH" Critical Invalid "the batch is not what was sealed; ask for another copy";
    /// A seal is no valid signed note of its log.
    SealInvalid "SEAL_INVALID" Critical Invalid "the seal was changed or is not from the gateway";
    /// A file is not the one that its seal names.
    FileMismatch "FILE_MISMATCH" Critical Invalid "the file was changed or cut after it was sealed; ask for another copy";
    /// A seal does not continue the one before it.
    ChainBroken "CHAIN_BROKEN" Critical Invalid "a seal was replaced, or two writers used one log";
    /// A file that a seal names, or a seal below the newest, is not in the store.
    BatchMissing "BATCH_MISSING" Critical Incomplete "find the object in another copy; the records in it cannot be judged";
    /// A data file whose seal is not there.
    BatchIncomplete "BATCH_INCOMPLETE" High Incomplete "the write did not finish, or its seal was removed";
    /// The newest batch is being written.
    BatchInFlight "BATCH_IN_FLIGHT" Info Note "the gateway writes data files before their seal; run verify again, the seal must follow";
    /// Removed after its retention.
    Expired "EXPIRED" Info Note "older than the retention that the mandate asks for";
    /// What a part is stored as edits of was removed after its retention; the part itself is not that old.
    BaseExpired "BASE_EXPIRED" Unjudged Unjudged "its content cannot be put together; find the older content file in another copy, and keep content files a day longer than the retention asked for";
    /// The store offers less than was seen before.
    Rollback "ROLLBACK" Critical Diverged "records that this auditor has seen are gone; ask who can delete in the store";
    /// The log is not the one that was seen before.
    Diverged "DIVERGED" Critical Diverged "history was rewritten with the log's key; keep both copies";
    /// Two different seals exist for one place.
    Equivocation "EQUIVOCATION" Critical Diverged "two writers hold the log's key, or a seal was made anew; keep both seals";
    /// Nothing is there where something was seen or expected.
    EmptyEvidence "EMPTY_EVIDENCE" Critical Diverged "look whether this is the right store";
    /// There is no input at all.
    NoInput "NO_INPUT" Unjudged Unjudged "look whether this is the right store; an empty store proves nothing";
    /// Nothing proves the end of the asked interval.
    TailUnproven "TAIL_UNPROVEN" High Incomplete "the newest batches may be missing; set `closed: true` for the gateway in the trust file if it was taken out of service";
    /// An expected log is not in the store.
    LogMissing "LOG_MISSING" Critical Incomplete "find the log in another copy";
    /// A log that the trust file does not cover.
    UnregisteredLog "UNREGISTERED_LOG" High Invalid "ask the operator which gateway wrote it; add the gateway to the trust file if it is genuine";
    /// One origin was used by two process lives.
    EpochReuse "EPOCH_REUSE" Critical Invalid "the journal was wiped or cloned";
    /// A key that the trust file does not name.
    UntrustedKey "UNTRUSTED_KEY" Critical Invalid "a key found beside the data proves nothing; compare with the trust file";
    /// The registry is smaller than it was seen before.
    RegistryRollback "REGISTRY_ROLLBACK" Critical Diverged "the registry was cut back: keys and logs that it named may be hidden; ask who can delete in the store";
    /// A cosignature by a witness that the trust file names does not hold.
    CosignatureInvalid "COSIGNATURE_INVALID" Critical Invalid "somebody made or changed the object; ask the witness what it saw";
    /// All that cosigned belongs to the operator.
    WitnessNotIndependent "WITNESS_NOT_INDEPENDENT" High Policy "the operator's own witnesses prove nothing against the operator; they are not counted";
    /// What witnesses or timestamp authorities said is older than the mandate allows.
    StaleAnchor "STALE_ANCHOR" High Policy "what was written since could be changed without a trace; ask why nobody outside signed it";
    /// A timestamp token that is not over the checkpoint, or does not hold.
    TimestampInvalid "TIMESTAMP_INVALID" Critical Invalid "somebody made, changed or moved the token";
    /// A sound token by an authority that the trust file does not name, or whose certificate did not count at its time.
    TimestampUntrusted "TIMESTAMP_UNTRUSTED" High Policy "compare the trust file's authorities with the ones that the registrar asks";
    /// Tokens whose signing certificate's validity has ended.
    TimestampNeedsRenewal "TIMESTAMP_NEEDS_RENEWAL" Medium Note "they were good when they were made; a newer token over a later checkpoint covers the same entries";
    /// Signatures by keys that the trust file does not name.
    UnknownSignature "UNKNOWN_SIGNATURE" Medium Note "anyone can sign; add the key to the trust file if it is known over another channel";
    /// A seal under a key that did not count for it: revoked before, or not in force when the log was opened.
    KeyNotValidForSize "KEY_NOT_VALID_FOR_SIZE" Critical Invalid "somebody used a key outside of the logs and sizes that it counts for; it may be stolen";
    /// A rotation that the root key did not sign, or of a key that was not in force.
    RotationInvalid "ROTATION_INVALID" Critical Invalid "only the root key moves a gateway to another key; whoever wrote this may hold the registry's key";
    /// A log that the registry says is closed goes on.
    ClosedButActive "CLOSED_BUT_ACTIVE" High Invalid "the log was reported closed while its gateway went on";
    /// No signed statement for longer than the heartbeat bound.
    Silence "SILENCE" High Incomplete "nothing is known about this time";
    /// Counters and records disagree.
    CounterMismatch "COUNTER_MISMATCH" Critical Invalid "the gateway counted what it did not record, or counters were changed";
    /// An exchange of a closed log has no outcome.
    OrphanIntent "ORPHAN_INTENT" Medium Incomplete "how these exchanges ended is not recorded";
    /// An outcome or attempt names an intent that is not there.
    OrphanOutcome "ORPHAN_OUTCOME" High Invalid "the record does not belong to an exchange of this log";
    /// The attempts of an exchange are not told in order, each once.
    AttemptDisorder "ATTEMPT_DISORDER" High Invalid "an attempt was left out, told twice or made up: what went where, and what it cost, cannot be told";
    /// Bytes went to a target, and how that ended is not told.
    AttemptUntold "ATTEMPT_UNTOLD" Medium Incomplete "how this attempt ended, and what it cost, is not recorded";
    /// Times contradict each other.
    TimeContradiction "TIME_CONTRADICTION" High Invalid "the gateway's clock was set, or a time was made up";
    /// A record claims a time long before those that precede it.
    Backdated "BACKDATED" High Invalid "the record claims a time at which others had already been written";
    /// Stored content is not what the leaf commits to.
    ContentMismatch "CONTENT_MISMATCH" Critical Invalid "the content was changed, swapped or cannot be decrypted";
    /// Content that a leaf says is kept is not in the store.
    ContentMissing "CONTENT_MISSING" High Incomplete "find the content file in another copy";
    /// A data key is gone without an `erasure` record.
    UndeclaredErasure "UNDECLARED_ERASURE" High Invalid "content was made unreadable without a record of it";
    /// Content was erased that a legal hold covered at that time.
    ErasedUnderHold "ERASED_UNDER_HOLD" Critical Policy "content that a legal hold covered was destroyed: ask who asked for it, and why the gateway did not refuse";
    /// Content was erased at a time so close to a hold's begin or end by another gateway that their clocks do not say which was first.
    HoldOrderUnknown "HOLD_ORDER_UNKNOWN" Medium Note "two gateways' clocks may be apart by as much; ask both when it was done";
    /// The registry says that it read a batch, and has no entry about a hold or an erasure in it.
    LedgerMissing "LEDGER_MISSING" High Incomplete "ask why the registrar left a hold or an erasure out";
    /// The registry tells of a hold or an erasure that its log does not hold, or of one twice.
    LedgerMismatch "LEDGER_MISMATCH" Critical Invalid "whoever holds the registry's key made it up; it counts for nothing";
    /// An erasure is recorded and the key is still there.
    ErasureNotDone "ERASURE_NOT_DONE" Medium Policy "the gateway destroys the key at its next start; run `gateway erase` again";
    /// Stored cost is not what book and usage give.
    CostRecomputeDiff "COST_RECOMPUTE_DIFF" High Invalid "cost was not computed by the price book that the record, or the configuration, names";
    /// A provider counts use that no record tells.
    UnrecordedUsage "UNRECORDED_USAGE" Critical Incomplete "somebody uses these keys past the gateway, or it did not record; ask who holds them and look at what firewalls let out";
    /// Evidence and a provider's export differ, and no unrecorded use explains it.
    ReconcileDiff "RECONCILE_DIFF" High Policy "counts were changed when they were recorded, or the export is of other keys or another time; compare with the provider's invoice";
    /// A price book is stored and cannot be read.
    CostNotRecomputed "COST_NOT_RECOMPUTED" Unjudged Unjudged "costs by this price book were not computed again; use a newer auditor, or ask what the book is";
    /// Token classes contradict each other.
    UsageContradiction "USAGE_CONTRADICTION" Medium Note "a class is larger than the count that it is part of";
    /// Usage does not come from the provider's final count.
    UsageEstimated "USAGE_ESTIMATED" Medium Note "these token counts are lower bounds, estimates or unknown";
    /// What the references name is not in the store.
    ReferenceMissing "REFERENCE_MISSING" High Incomplete "the configuration, policy, price book or dictionary cannot be read from the evidence";
    /// A reference's bytes are not what its hash says.
    ReferenceMismatch "REFERENCE_MISMATCH" Critical Invalid "the reference file was changed";
    /// A configuration was not in the log before it took effect.
    UnapprovedConfig "UNAPPROVED_CONFIG" Medium Invalid "records carry a configuration that no `config` record announces";
    /// The proven interval does not cover the asked one.
    PeriodNotProven "PERIOD_NOT_PROVEN" High Incomplete "ask for a shorter period, or find the missing evidence";
    /// A limit was met.
    ResourceLimit "RESOURCE_LIMIT" Unjudged Unjudged "the object is larger or deeper than this auditor reads; it was not judged";
    /// Something could not be read.
    CouldNotRead "COULD_NOT_READ" Unjudged Unjudged "look at permissions and at the disk";
    /// A log without its known predecessor.
    PredecessorMissing "PREDECESSOR_MISSING" High Incomplete "a process life may be missing between these logs";
    /// Two logs name one predecessor.
    PredecessorFork "PREDECESSOR_FORK" Critical Diverged "two processes continued one log: a cloned disk, or a hidden log";
    /// A `boot` says something else than the predecessor's own end.
    PredecessorMismatch "PREDECESSOR_MISMATCH" Critical Diverged "the predecessor was changed, cut or continued after the successor saw it";
    /// Records after `close`, or a `boot` that is not first.
    AfterClose "AFTER_CLOSE" Critical Invalid "a closed log was continued";
    /// The first record is not `boot`.
    BootMissing "BOOT_MISSING" Critical Invalid "position 0 must be `boot`";
    /// A record's content contradicts the format.
    RecordInvalid "RECORD_INVALID" High Invalid "the record does not have the form of its kind";
    /// A seal or file of another log.
    OriginMismatch "ORIGIN_MISMATCH" Critical Invalid "the object belongs to another log; it was copied or swapped";
    /// A file that cannot be decoded.
    Unreadable "UNREADABLE" Critical Invalid "the bytes are no file of this format";
    /// A leaf that does not have the form of its kind.
    LeafInvalid "LEAF_INVALID" High Invalid "its writer is broken or hostile";
    /// The log does not begin with its one `boot`.
    BootMisplaced "BOOT_MISPLACED" Critical Invalid "position 0, and only that, is `boot`";
    /// Content that no record commits to.
    ContentForeign "CONTENT_FOREIGN" High Invalid "no signed record knows this content";
    /// One exchange id was used twice.
    DuplicateExchange "DUPLICATE_EXCHANGE" High Invalid "ids are made by the gateway and never repeat";
    /// Acknowledged evidence is lost, by the gateway's own word.
    RecordsLost "RECORDS_LOST" Critical Incomplete "the gateway recorded that evidence was lost";
    /// Something unacknowledged was cut, by the gateway's own word.
    TornTail "TORN_TAIL" Info Note "a crash cut the last group; nothing of it was acknowledged";
    /// Records arrived behind a fence.
    LateRecords "LATE_RECORDS" Medium Note "records were found behind a fence";
    /// An object that no seal names.
    UnreferencedObject "UNREFERENCED_OBJECT" High Invalid "no seal names this object; it proves nothing and may mislead other tools";
    /// An object whose name is not one of the format's.
    UnknownObject "UNKNOWN_OBJECT" High Invalid "remove it from the store or look who put it there";
    /// A symbolic link, device or socket.
    NotAFile "NOT_A_FILE" High Invalid "an evidence store holds plain files only; the link was not followed";
    /// Leftovers of unfinished writes.
    Leftover "LEFTOVER" Info Note "what a process that died, or a write that was refused, left behind; it holds no evidence";
    /// Kinds, keys or columns that this version does not know.
    NotJudged "NOT_JUDGED" Info Note "hashed and counted, but not understood; use a newer auditor";
    /// The trust file contradicts itself or the evidence.
    TrustMismatch "TRUST_MISMATCH" High Invalid "compare the trust file's fingerprint with the operator";
    /// The auditor's own state does not authenticate.
    StateTampered "STATE_TAMPERED" Unjudged Unjudged "what was seen before cannot be relied on; look who can write to the state folder, then start a new one";
    /// The auditor's own state is gone while its key is there.
    StateLost "STATE_LOST" Unjudged Unjudged "what was seen before is gone; look who can write to the state folder, then start a new one";
    /// A cached file does not authenticate.
    CacheDamaged "CACHE_DAMAGED" Info Note "the cached rows were dropped and proven anew";
    /// The mandate asks for a claim that is not reached.
    ClaimNotReached "CLAIM_NOT_REACHED" High Policy "the evidence, or this store, does not support the claim";
    /// A system that the mandate lists has no record.
    SystemAbsent "SYSTEM_ABSENT" High Policy "the system sent nothing through the gateways, or under another name";
    /// Retention is shorter than the mandate asks for.
    RetentionShort "RETENTION_SHORT" High Policy "evidence younger than the asked retention is gone";
    /// A delete marker stands over a name.
    Hidden "HIDDEN" High Invalid "the versions under the marker were read all the same; the bucket's access log says whose it is: S3.CREATE.DELETEMARKER is a lifecycle rule, which must go; else ask who can delete in the store";
    /// Several versions of one name differ.
    Shadowed "SHADOWED" Critical Invalid "tools that read the newest version are told something else than what was sealed; the named version is the sealed one";
    /// Other bytes were put under a name after a delete marker.
    Substituted "SUBSTITUTED" Critical Invalid "somebody deleted the name and wrote it anew; the named version is the sealed one";
    /// Several versions of one name are equal.
    BenignRetry "BENIGN_RETRY" Info Note "a write was repeated with the same bytes";
    /// A version without an id.
    NullVersion "NULL_VERSION" High Policy "it was written without versioning and can be replaced in place";
    /// A version, or its bucket, is not locked in COMPLIANCE mode.
    NotWorm "NOT_WORM" High Policy "somebody with the right to can delete it before its time; write evidence with COMPLIANCE retention";
    /// Retention of a version was shortened, or its mode changed, since the last visit.
    RetentionReduced "RETENTION_REDUCED" Critical Diverged "a store that allows this does not enforce retention; run `auditor probe`";
    /// A version is not under the legal hold that the mandate asks for.
    HoldMissing "HOLD_MISSING" High Policy "put the version under legal hold (s3:PutObjectLegalHold), or ask why nobody did";
    /// A legal hold that was seen at the last visit is gone.
    HoldLifted "HOLD_LIFTED" High Policy "ask who may lift holds, and for the decision; it is told once, at the visit that finds it";
    /// A locked version is gone, or the store deleted one in a probe.
    StoreNotWorm "STORE_NOT_WORM" Critical Diverged "the store does not enforce retention; keep copies in another one";
    /// The listing leaves out what the store still serves.
    ListingIncomplete "LISTING_INCOMPLETE" Critical Diverged "the store, or something before it, hides versions; list from another place";
    /// The store is not the one that the mandate names, or that was visited before.
    WrongSource "WRONG_SOURCE" Critical Diverged "look at endpoint, bucket and account; a copy prepared by somebody else proves nothing about deletion";
    /// The auditor may not read what it must judge.
    PermissionMissing "PERMISSION_MISSING" Unjudged Unjudged "give the auditor's role the named permission";
    /// HEAD and GetObjectRetention, or what a store says and what it holds, contradict each other.
    LockContradiction "LOCK_CONTRADICTION" High Policy "one of the store's answers is false; run `auditor probe`";
    /// The stored checksum is not that of the bytes that the name commits to.
    ChecksumMismatch "CHECKSUM_MISMATCH" High Invalid "the store holds or reports other bytes than the name says";
    /// The store keeps no SHA-256 of an object.
    ChecksumAbsent "CHECKSUM_ABSENT" Medium Note "the object was not written with `x-amz-checksum-sha256`; its bytes were hashed here";
    /// An object was written long after its seal's time.
    LateWrite "LATE_WRITE" High Policy "the gateway could not ship for that time, or the evidence was written afterwards";
    /// The store's clock differs from the auditor's.
    StoreClockSkew "STORE_CLOCK_SKEW" High Policy "retention ends by the store's clock; find out who can set it";
    /// An object lies where it cannot be read at once.
    StorageClassCold "STORAGE_CLASS_COLD" High Unjudged "restore it before the visit";
    /// A lifecycle rule removes or hides objects before their retention ends.
    ExpiryBeforeRetention "EXPIRY_BEFORE_RETENTION" High Policy "take the rule away, or let it begin after the retention";
    /// The bucket gives new objects no retention of its own, or a shorter one.
    DefaultRetention "DEFAULT_RETENTION" Medium Note "an object that is written without retention stays deletable; set a default of COMPLIANCE";
    /// The bucket can be read or written by anyone.
    PublicAccess "PUBLIC_ACCESS" High Policy "block public access of the bucket";
    /// Objects are encrypted under a key that is not the one that the mandate names, or one that can be destroyed.
    EncryptionKey "ENCRYPTION_KEY" Medium Note "whoever destroys the key makes the evidence unreadable, whatever its retention";
    /// The bucket copies objects elsewhere.
    Replicated "REPLICATED" Info Note "a copy in another account is a second place to verify";
    /// The key table page cannot be used.
    KeyTableDamaged "KEY_TABLE_DAMAGED" High Invalid "the page was changed or cut; content under its keys cannot be checked";
    /// The key table does not know a log's keys.
    KeyAbsent "KEY_ABSENT" Unjudged Unjudged "give the key table of the gateway that wrote the log as well";
    /// Content is readable by whoever reads the store.
    Unencrypted "UNENCRYPTED" Medium Note "content cannot be erased before its retention ends";
    /// A record that a caller was promised is not in the log.
    ReceiptNotHonoured "RECEIPT_NOT_HONOURED" Critical Invalid "the gateway signed that the record is there, and it is not: it was dropped or changed afterwards; keep receipt and evidence";
    /// A receipt does not hold under the promise key of its log, or is of another exchange than it was kept for.
    ReceiptForged "RECEIPT_FORGED" High Policy "the receipt was made up or changed, or the log's `boot` is not the one that the caller met; look whether other receipts of the log hold";
    /// A receipt whose batch may still be on its way.
    ReceiptPending "RECEIPT_PENDING" Unjudged Unjudged "ask again when the batch is in the store";
    /// A receipt that cannot be read, or that nothing at hand can prove.
    ReceiptUnjudged "RECEIPT_UNJUDGED" Unjudged Unjudged "look at the file, and whether this is the right store and trust file";
    /// The caller tried to switch recording off or to choose an id.
    SuppressionTried "SUPPRESSION_TRIED" Info Note "the attempt had no effect and is recorded";
    /// Nothing proves who asked, or for which team.
    PrincipalUnproven "PRINCIPAL_UNPROVEN" Medium Note "who could reach the gateway could say so: do not charge or accuse anybody by these names; put them into the keys or tokens";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Code {
    /// Finds a code by its text.
    pub fn parse(text: &str) -> Option<Self> {
        CODES.iter().copied().find(|code| code.as_str() == text)
    }
}

/// Where a finding is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The object, relative to the store, or another file's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<String>,
    /// The log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// The batch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<u64>,
    /// The record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<u64>,
    /// The exchange.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exchange: Option<String>,
    /// The part of the content, the column or the key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub item: Option<String>,
}

impl Place {
    /// A whole log.
    pub fn log(origin: impl ToString) -> Self {
        Self { origin: Some(origin.to_string()), ..Self::default() }
    }
    /// An object or file.
    pub fn object(name: impl Into<String>) -> Self {
        Self { object: Some(name.into()), ..Self::default() }
    }
    /// A batch of a log.
    pub fn batch(origin: impl ToString, batch: u64) -> Self {
        Self { batch: Some(batch), ..Self::log(origin) }
    }
    /// A record of a log.
    pub fn record(origin: impl ToString, position: u64) -> Self {
        Self { position: Some(position), ..Self::log(origin) }
    }
    /// With the object.
    pub fn in_object(mut self, name: impl Into<String>) -> Self {
        self.object = Some(name.into());
        self
    }
    /// With the position.
    pub fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }
    /// With the exchange.
    pub fn of_exchange(mut self, exchange: impl ToString) -> Self {
        self.exchange = Some(exchange.to_string());
        self
    }
    /// With the part, column or key.
    pub fn of_item(mut self, item: impl ToString) -> Self {
        self.item = Some(item.to_string());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (&self.object, &self.origin) {
            (Some(object), _) => parts.push(object.clone()),
            (None, Some(origin)) => parts.push(format!("log {origin}")),
            (None, None) => {}
        }
        if let (Some(batch), None) = (self.batch, &self.object) {
            parts.push(format!("batch {batch}"));
        }
        if let Some(position) = self.position {
            parts.push(format!("position {position}"));
        }
        if let Some(exchange) = &self.exchange {
            parts.push(format!("exchange {exchange}"));
        }
        if let Some(item) = &self.item {
            parts.push(item.clone());
        }
        f.write_str(if parts.is_empty() { "the store" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The stable code.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// What it does to the verdict.
    pub effect: Effect,
    /// Where.
    pub place: Place,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// The time that it is about, microseconds UTC, both ends: outside the asked interval it is only a note.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub during: Option<(i64, i64)>,
    /// What to do.
    pub hint: &'static str,
}

/// A finding as it is read back; its hint comes from its code.
#[derive(Deserialize)]
struct Stored {
    code: Code,
    severity: Severity,
    effect: Effect,
    place: Place,
    expected: String,
    found: String,
    #[serde(default)]
    during: Option<(i64, i64)>,
}

impl<'de> Deserialize<'de> for Finding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { code, severity, effect, place, expected, found, during } =
            Stored::deserialize(deserializer)?;
        Ok(Self { code, severity, effect, place, expected, found, during, hint: code.hint() })
    }
}

impl Finding {
    /// A finding of `code` at `place`.
    pub fn new(code: Code, place: Place, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            effect: code.effect(),
            place,
            expected: shorten(expected.into()),
            found: shorten(found.into()),
            during: None,
            hint: code.hint(),
        }
    }
    /// Says that it concerns only the time from `from` to `to`.
    pub fn during(mut self, from: i64, to: i64) -> Self {
        self.during = Some((from, to));
        self
    }
    /// Takes away its effect on the verdict.
    pub fn as_note(mut self) -> Self {
        self.effect = Effect::Note;
        self.severity = Severity::Info;
        self
    }
    /// Says that the check could not be made.
    pub fn unjudged(self) -> Self {
        self.with(Severity::Unjudged, Effect::Unjudged)
    }
    /// Gives it another effect and severity.
    pub fn with(mut self, severity: Severity, effect: Effect) -> Self {
        self.severity = severity;
        self.effect = effect;
        self
    }
}

fn shorten(text: String) -> String {
    const LONGEST: usize = 600;
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}… ({} bytes)", &text[..end], text.len())
}

/// Collects findings. Bounded: of each code the first [`Findings::KEPT`] are kept, and the first one of every worse
/// effect; the others are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    kept: Vec<Finding>,
    seen: BTreeMap<Code, u64>,
}

impl Findings {
    /// How many findings of one code are kept whole.
    pub const KEPT: u64 = 1000;

    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        let seen = self.seen.entry(finding.code).or_default();
        *seen += 1;
        let known = |kept: &Finding| kept.code == finding.code && kept.effect >= finding.effect;
        // A thousand notes must not swallow the one that counts.
        if *seen <= Self::KEPT || (finding.effect > Effect::Note && !self.kept.iter().any(known)) {
            self.kept.push(finding);
        }
    }
    /// Adds a plain one.
    pub fn add(&mut self, code: Code, place: Place, expected: impl Into<String>, found: impl Into<String>) {
        self.push(Finding::new(code, place, expected, found));
    }
    /// Adds all of `other`.
    pub fn append(&mut self, other: Self) {
        let mut beyond = other.seen;
        for finding in other.kept {
            if let Some(count) = beyond.get_mut(&finding.code) {
                *count -= 1;
            }
            self.push(finding);
        }
        for (code, count) in beyond {
            if count > 0 {
                *self.seen.entry(code).or_default() += count;
            }
        }
    }
    /// Takes back what turned out otherwise.
    pub(crate) fn withdraw(&mut self, is: impl Fn(&Finding) -> bool) {
        let seen = &mut self.seen;
        self.kept.retain(|finding| {
            let gone = is(finding);
            if gone && let Some(count) = seen.get_mut(&finding.code) {
                *count -= 1;
            }
            !gone
        });
        seen.retain(|_, count| *count > 0);
    }
    /// Those that were kept, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.kept.iter()
    }
    /// Mutable, in order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Finding> {
        self.kept.iter_mut()
    }
    /// How many there are of each code, kept or not.
    pub fn counts(&self) -> &BTreeMap<Code, u64> {
        &self.seen
    }
    /// How many were only counted.
    pub fn omitted(&self) -> u64 {
        self.seen.values().sum::<u64>() - self.kept.len() as u64
    }
    /// True where nothing was found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
    /// True where `code` was found.
    pub fn has(&self, code: Code) -> bool {
        self.seen.contains_key(&code)
    }
    /// The worst effect of all.
    pub fn effect(&self) -> Effect {
        self.kept.iter().map(|finding| finding.effect).max().unwrap_or(Effect::Note)
    }
    /// Puts them in the order in which they are printed: worst first, then by place.
    pub fn sort(&mut self) {
        self.kept.sort_by(|a, b| {
            (b.effect, b.severity, &a.code, &a.place, &a.found)
                .cmp(&(a.effect, a.severity, &b.code, &b.place, &b.found))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        let texts: std::collections::BTreeSet<_> = CODES.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), CODES.len());
        for code in CODES {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
    }

    #[test]
    fn a_finding_is_read_back_with_its_hint() {
        let finding = Finding::new(Code::SeqGap, Place::record("a/b/c", 1), "x", "y").during(1, 2);
        let text = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), finding);
    }

    #[test]
    fn findings_beyond_the_bound_are_counted_not_kept() {
        let mut findings = Findings::default();
        for n in 0..2500 {
            findings.add(Code::SeqGap, Place::record("a/b/c", n), "", "");
        }
        let mut all = Findings::default();
        all.append(findings);
        assert_eq!(all.iter().count(), 1000);
        assert_eq!(all.omitted(), 1500);
        assert_eq!(all.counts()[&Code::SeqGap], 2500);
    }

    #[test]
    fn a_thousand_notes_do_not_swallow_the_finding_that_counts() {
        let mut findings = Findings::default();
        let note = Finding::new(Code::LockContradiction, Place::default(), "", "").as_note();
        (0..1500).for_each(|_| findings.push(note.clone()));
        (0..10).for_each(|_| findings.add(Code::LockContradiction, Place::default(), "", ""));
        assert_eq!((findings.effect(), findings.iter().count()), (Effect::Policy, 1001));
        let mut all = Findings::default();
        all.append(findings);
        assert_eq!((all.effect(), all.counts()[&Code::LockContradiction]), (Effect::Policy, 1510));
    }

    #[test]
    fn the_worst_effect_rules() {
        let mut findings = Findings::default();
        findings.add(Code::Expired, Place::default(), "", "");
        assert_eq!(findings.effect(), Effect::Note);
        findings.add(Code::LogMissing, Place::default(), "", "");
        findings.add(Code::CouldNotRead, Place::default(), "", "");
        assert_eq!(findings.effect(), Effect::Incomplete);
        findings.add(Code::LeafMismatch, Place::default(), "", "");
        assert_eq!(findings.effect(), Effect::Invalid);
    }
}
