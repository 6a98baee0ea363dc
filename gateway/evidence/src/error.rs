//! Why evidence cannot be written, and what follows for traffic.

use std::sync::Arc;

use crate::store::StoreError;

/// Why a record could not be made durable, or an exchange not admitted. The caller of the gateway gets 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("evidence cannot be written ({reason}): {detail}")]
pub struct Unavailable {
    /// The closed reason: for metrics, logs and the answer.
    pub reason: Reason,
    /// What happened, for the operator's log; never sent to a caller.
    pub detail: Arc<str>,
    /// What `Retry-After` should say, in seconds.
    pub retry_after_s: u64,
}

impl Unavailable {
    pub(crate) fn new(reason: Reason, detail: impl Into<Arc<str>>) -> Self {
        let retry_after_s = match reason {
            Reason::DiskFull | Reason::SpoolFull | Reason::Busy | Reason::NoLease => 5,
            Reason::Draining => 2,
            Reason::JournalFailed | Reason::StoreRefused | Reason::SealingFailed | Reason::Fenced => 30,
            Reason::RecordRefused => 1,
        };
        Self { reason, detail: detail.into(), retry_after_s }
    }
}

/// The closed set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No space can be allocated for journal or spool (CA-7). Passes when there is space again.
    DiskFull,
    /// The spool is over its bound, because the store does not take what is sealed (CA-7). Passes by itself.
    SpoolFull,
    /// More waits for the journal than its queue holds. Passes by itself.
    Busy,
    /// The gateway is draining; another one serves.
    Draining,
    /// A write or fsync of the journal failed (DU-4). Only a new start helps.
    JournalFailed,
    /// The brokers of `commit: kafka` do not acknowledge, and the lease is over. Passes when they do.
    NoLease,
    /// Another gateway has closed this log, because it was silent for too long. Only a new start helps.
    Fenced,
    /// The store holds something else under a name of this log (DU-3). Someone must look.
    StoreRefused,
    /// The sealer met something that it cannot explain. Someone must look.
    SealingFailed,
    /// The record breaks the format, a defect of the gateway: for example a leaf over 65,535 bytes.
    RecordRefused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DiskFull,
        Self::SpoolFull,
        Self::Busy,
        Self::Draining,
        Self::JournalFailed,
        Self::NoLease,
        Self::Fenced,
        Self::StoreRefused,
        Self::SealingFailed,
        Self::RecordRefused,
    ];

    /// The word for logs, metrics and `x-affidavit-reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::SpoolFull => "spool_full",
            Self::Busy => "evidence_busy",
            Self::Draining => "draining",
            Self::JournalFailed => "journal_failed",
            Self::NoLease => "no_lease",
            Self::Fenced => "fenced",
            Self::StoreRefused => "store_refused",
            Self::SealingFailed => "sealing_failed",
            Self::RecordRefused => "record_refused",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stream must be cut: its further bytes could not be recorded (CA-6, CA-7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream is cut: {0}")]
pub struct Cut(pub Unavailable);

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting has no meaning.
    #[error("`{key}` is `{value}`: {wanted}")]
    Setting {
        /// Which.
        key: &'static str,
        /// What it was.
        value: String,
        /// What it should be.
        wanted: String,
    },
    /// Another process has the journal folder, or holds its opening, and does not finish.
    #[error(
        "another process has `{0}`: a gateway serves on it, starts there, or recovers an earlier log; stop it first"
    )]
    Locked(String),
    /// An earlier epoch's journal is damaged where records were acknowledged.
    #[error(
        "acknowledged records of log `{origin}` are damaged in `{folder}` ({detail}); look at the disk, then start once with `--accept-loss` to record the loss and go on"
    )]
    Loss {
        /// The log.
        origin: String,
        /// Its journal folder.
        folder: String,
        /// What was found.
        detail: String,
    },
    /// The journal folder was salvaged elsewhere and must not be used again.
    #[error("`{0}` bears the mark `salvaged`: its log was closed elsewhere; move the folder away")]
    Salvaged(String),
    /// A file could not be read or written.
    #[error("cannot {action} `{path}`: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// The system's answer: a part of the text, and so not its source.
        cause: std::io::Error,
    },
    /// The journal could not be made or read.
    #[error("journal: {0}")]
    Journal(String),
    /// The store could not be read.
    #[error("store: {0}")]
    Store(String),
    /// The store does not answer now; an earlier epoch waits for it.
    #[error("store: {0}")]
    StoreAway(StoreError),
    /// An earlier epoch recorded an erasure in part, and the lock of the holds cannot be had now: it waits for that.
    #[error("an erasure that was recorded in part waits: {0}")]
    HoldsLocked(String),
    /// The start was asked to end ([`crate::Stop`]). The next one goes on from there.
    #[error("the start was asked to end")]
    Stopped,
    /// What was to be sealed breaks the format.
    #[error("format: {0}")]
    Format(String),
    /// The first records could not be journaled.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |cause| Self::Io { action, path, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_among_all_of_them() {
        // A new one does not compile here until it has a number, and then has to be in `ALL`.
        let number = |reason: Reason| match reason {
            Reason::DiskFull => 0,
            Reason::SpoolFull => 1,
            Reason::Busy => 2,
            Reason::Draining => 3,
            Reason::JournalFailed => 4,
            Reason::NoLease => 5,
            Reason::Fenced => 6,
            Reason::StoreRefused => 7,
            Reason::SealingFailed => 8,
            Reason::RecordRefused => 9,
        };
        assert_eq!(Reason::ALL.map(number), std::array::from_fn(|n| n));
    }
}
