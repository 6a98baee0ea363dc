//! A witness (C2SP `tlog-witness`): cosigns tree heads of logs, each only where it continues the one before.
//!
//! ```text
//! POST /add-checkpoint        old size, consistency proof, checkpoint -> cosignature line
//! GET  /checkpoint/<origin>   what it saw last of a log, cosigned now
//! ```
//! Of each log it keeps origin, size and root, and nothing else; they are on stable storage before a cosignature is
//! given, so that it never cosigns two trees of one log that do not continue each other. Run it where the operator of
//! the log has no say: that is all its worth. Sources: <https://c2sp.org/tlog-witness>,
//! <https://c2sp.org/tlog-cosignature>.

pub mod ask;
mod config;
pub mod key;
mod serve;
mod state;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use schemas::merkle::{Hash, empty_root, verify_consistency};
use schemas::note::{self, Ed25519Signer, Signer as _, VerifyingKey};
use schemas::tlog::{Submission, TreeHead, WitnessKey, cosign};

pub use config::{Config, ConfigError};
pub use serve::serve;
pub use state::{StateError, StateFolder};

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200: the cosignature line.
    Cosigned(String),
    /// 409: the witness is at another size.
    OtherSize(u64),
    /// Another status, and why.
    Refused(u16, String),
}

/// What is held of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The largest tree that was cosigned; size 0 where none was.
    At(u64, Hash),
    /// A write failed: what is on the disk is not known. Nothing is cosigned before the next start (DU-4).
    Unknown,
}

#[derive(Debug)]
struct Log {
    key: VerifyingKey,
    held: Mutex<Held>,
}

/// A witness with its key, its logs and what it holds of them.
#[derive(Debug)]
pub struct Witness {
    name: String,
    signer: Ed25519Signer,
    logs: BTreeMap<String, Log>,
    state: StateFolder,
}

impl Witness {
    /// A witness of these logs, each named by its key's name; reads what it holds of them.
    ///
    /// # Errors
    /// A name that is none, a state that cannot be read or is not this witness's.
    pub fn new(
        name: &str,
        signer: Ed25519Signer,
        logs: Vec<VerifyingKey>,
        state: StateFolder,
    ) -> Result<Self, StateError> {
        let mut held = BTreeMap::new();
        for key in logs {
            let at = match state.read(key.name())? {
                Some((size, root)) => Held::At(size, root),
                None => Held::At(0, empty_root()),
            };
            held.insert(key.name().to_owned(), Log { key, held: Mutex::new(at) });
        }
        Ok(Self { name: name.to_owned(), signer, logs: held, state })
    }

    /// Its verifier key.
    ///
    /// # Errors
    /// A name that cannot be a key's.
    pub fn key(&self) -> Result<WitnessKey, note::NoteError> {
        WitnessKey::new(self.name.as_str(), self.signer.public_key())
    }

    /// Answers `add-checkpoint` at `now_s`, seconds UTC. Blocks on the disk.
    pub fn add_checkpoint(&self, body: &[u8], now_s: u64) -> Answer {
        let refused = |status, why: &dyn std::fmt::Display| Answer::Refused(status, why.to_string());
        let submission = match Submission::parse(body) {
            Ok(submission) => submission,
            Err(error) => return refused(400, &error),
        };
        let text = match note::parse_unverified(submission.checkpoint) {
            Ok(parsed) => parsed.text,
            Err(error) => return refused(400, &error),
        };
        let head = match TreeHead::parse(text) {
            Ok(head) => head,
            Err(error) => return refused(400, &error),
        };
        let Some(log) = self.logs.get(&head.origin) else {
            return refused(404, &"not a log of this witness");
        };
        if let Err(error) = note::verify(submission.checkpoint, std::slice::from_ref(&log.key)) {
            return refused(403, &error);
        }
        if submission.old > head.size {
            return refused(400, &format_args!("old size {} of a tree of {}", submission.old, head.size));
        }
        // Held from the comparison to the write: two requests never both continue one head.
        let mut held = log.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held::At(size, root) = *held else {
            return refused(500, &"the state could not be written; the witness must be started anew");
        };
        if submission.old != size {
            return Answer::OtherSize(size);
        }
        if size == head.size && root != head.root {
            return refused(409, &format_args!("a tree of size {size} with root {root} was cosigned before"));
        }
        if let Err(error) = verify_consistency(size, &root, head.size, &head.root, &submission.proof) {
            return refused(422, &error);
        }
        if head.size > size {
            if let Err(error) = self.state.write(&head) {
                *held = Held::Unknown;
                return refused(500, &error);
            }
            *held = Held::At(head.size, head.root);
        }
        match cosign(text, &self.name, now_s, &self.signer) {
            Ok(line) => Answer::Cosigned(format!("{line}\n")),
            Err(error) => refused(500, &error),
        }
    }

    /// What it saw last of a log, as a note that only this witness signed, now; `None` where it saw nothing of it.
    pub fn latest(&self, origin: &str, now_s: u64) -> Option<String> {
        let held = *self.logs.get(origin)?.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held::At(size, root) = held else { return None };
        if size == 0 {
            return None;
        }
        let text = TreeHead { origin: origin.to_owned(), size, root }.to_text();
        let line = cosign(&text, &self.name, now_s, &self.signer).ok()?;
        Some(format!("{text}\n{line}\n"))
    }
}

#[cfg(test)]
mod tests;
