//! The receipts of one gateway's logs, as far as they were read: what archivers said of which batch.
//!
//! Bounded: of a log its newest [`KEPT_BATCHES`] and those that are waited for, of logs the newest [`KEPT_LOGS`]. A
//! batch whose receipt was forgotten is put again, and answered again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::seal::Seal;
use schemas::ship::{ArchiverKey, Receipt};
use schemas::{Origin, Sha256Hex};

use super::client::Failed;
use super::read::Listener;
use crate::store::{Figures, SealWord, Trouble};

/// How many receipts of a log are kept.
const KEPT_BATCHES: usize = 4096;
/// How many logs are.
const KEPT_LOGS: usize = 1024;
/// The longest message that is looked at: a receipt of the most objects with the longest names has less.
const MAX_RECEIPT_BYTES: usize = 4 << 20;
/// How long receipts are waited for that cannot be read now.
const SHORT_WAIT: Duration = Duration::from_secs(5);
/// How often a forged receipt is said in the log at most.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Between reading everything again for want of a receipt: at first, and at most.
const ANEW_AFTER: Duration = Duration::from_secs(30);
const ANEW_AFTER_MOST: Duration = Duration::from_secs(600);

/// What archivers said of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) word: SealWord,
    /// Of the names of all objects, each with a newline.
    names: Sha256Hex,
    /// The seal that another valid receipt for the same batch is for.
    pub(crate) other: Option<Sha256Hex>,
}

impl Answer {
    fn of(receipt: &Receipt) -> Self {
        let Receipt { batch, from, to, root, seal, sealed, .. } = *receipt;
        let word = SealWord { batch, from, to, root, seal, sealed_us: sealed };
        let names = receipt.objects.iter().map(|object| object.name.as_str());
        Self { word, names: hash_names(names), other: None }
    }

    /// Whether this is about that seal, and all of its files.
    pub(crate) fn answers(&self, sealed: &Seal, sha256: Sha256Hex) -> bool {
        let mut names: Vec<String> = sealed.files.iter().map(|file| file.name.clone()).collect();
        names.push(sealed.object_name().file_name());
        names.sort();
        let word = SealWord {
            batch: sealed.batch,
            from: sealed.from,
            to: sealed.to,
            root: sealed.root,
            seal: sha256,
            sealed_us: sealed.time,
        };
        self.word == word && self.names == hash_names(names.iter().map(String::as_str))
    }
}

fn hash_names<'a>(names: impl Iterator<Item = &'a str>) -> Sha256Hex {
    let mut hasher = schemas::digest::Hasher::default();
    for name in names {
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish()
}

/// What a message of the receipts topic was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A receipt for one of our logs.
    Ours,
    /// A receipt, or something else, for another gateway.
    Foreign,
    /// No receipt by an archiver that counts.
    Forged,
}

/// Receipts, shared by the thread that reads them and those that ask.
#[derive(Debug)]
pub(crate) struct Receipts {
    deployment: String,
    gateway: String,
    archivers: Vec<ArchiverKey>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<Origin, BTreeMap<u64, Answer>>,
    waited_for: BTreeSet<(Origin, u64)>,
    /// Batches that were put again though they had a receipt, and whether another has come since.
    again: BTreeMap<(Origin, u64), bool>,
    /// Whether all that the topic held at some time was read.
    is_whole: bool,
    trouble: Option<Failed>,
    figures: Figures,
    said: Option<Instant>,
    starved: Starved,
}

/// Batches were put again and no answer came: what is read may not be the topic as it is now. A topic that was made anew
/// under its old name looks as before, and its messages may stand behind what was read of the old one.
#[derive(Debug)]
struct Starved {
    is_due: bool,
    read_anew: Option<Instant>,
    pause: Duration,
}

impl Default for Starved {
    fn default() -> Self {
        Self { is_due: false, read_anew: None, pause: ANEW_AFTER }
    }
}

impl Starved {
    fn begins_anew(&mut self, now: Instant) -> bool {
        let rests = self.read_anew.is_some_and(|at| now.saturating_duration_since(at) < self.pause);
        if !self.is_due || rests {
            return false;
        }
        if self.read_anew.is_some() {
            self.pause = (self.pause * 2).min(ANEW_AFTER_MOST);
        }
        (self.is_due, self.read_anew) = (false, Some(now));
        true
    }
}

impl Receipts {
    pub(crate) fn new(deployment: &str, gateway: &str, archivers: Vec<ArchiverKey>) -> Self {
        Self {
            deployment: deployment.into(),
            gateway: gateway.into(),
            archivers,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message of the topic.
    pub(crate) fn take(&self, key: Option<&[u8]>, message: &[u8]) -> Taken {
        // Receipts for other gateways are the most there is in a shared topic: their key says so.
        if key.and_then(origin_of).is_some_and(|origin| !self.is_ours(&origin)) {
            return Taken::Foreign;
        }
        let told = if message.len() > MAX_RECEIPT_BYTES {
            Err(format!("{} bytes, at most {MAX_RECEIPT_BYTES} are read", message.len()))
        } else {
            Receipt::verify(message, &self.archivers).map_err(|error| error.to_string())
        };
        match told {
            Ok(receipt) if !self.is_ours(&receipt.origin) => Taken::Foreign,
            Ok(receipt) => {
                self.keep(&receipt);
                Taken::Ours
            }
            Err(why) => {
                self.forged(&why);
                Taken::Forged
            }
        }
    }

    fn is_ours(&self, origin: &Origin) -> bool {
        origin.deployment() == self.deployment && origin.gateway() == self.gateway
    }

    fn forged(&self, why: &str) {
        let mut state = self.state();
        state.figures.receipts_forged += 1;
        let count = state.figures.receipts_forged;
        let is_due = state.said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        if is_due {
            state.said = Some(Instant::now());
        }
        drop(state);
        if is_due {
            tracing::error!(
                why,
                count,
                "the receipts topic holds a message that is no receipt by a configured archiver; it is ignored"
            );
        }
    }

    fn keep(&self, receipt: &Receipt) {
        let mut state = self.state();
        let state = &mut *state;
        let answer = Answer::of(receipt);
        if let Some(heard) = state.again.get_mut(&(receipt.origin.clone(), receipt.batch)) {
            *heard = true;
        }
        let log = state.logs.entry(receipt.origin.clone()).or_default();
        match log.get_mut(&receipt.batch) {
            None => {
                log.insert(receipt.batch, answer);
                state.starved = Starved { read_anew: state.starved.read_anew, ..Starved::default() };
            }
            Some(known) if (&known.word, known.names) == (&answer.word, answer.names) => {}
            Some(known) => {
                known.other = Some(answer.word.seal);
                tracing::error!(
                    origin = %receipt.origin,
                    batch = receipt.batch,
                    first = %known.word.seal,
                    other = %answer.word.seal,
                    "two valid receipts are for different batches of one number; someone must look"
                );
            }
        }
        if log.len() > KEPT_BATCHES {
            let waits = |batch: &u64| state.waited_for.contains(&(receipt.origin.clone(), *batch));
            if let Some(old) = log.keys().copied().find(|batch| !waits(batch)) {
                log.remove(&old);
            }
        }
        if state.logs.len() > KEPT_LOGS {
            let waits = |log: &Origin| {
                let all = (log.clone(), 0)..=(log.clone(), u64::MAX);
                state.waited_for.range(all).next().is_some()
            };
            if let Some(old) = state.logs.keys().find(|log| !waits(log)).cloned() {
                state.logs.remove(&old);
            }
        }
        self.changed.notify_all();
    }

    /// The reader met the end of every partition.
    pub(crate) fn read_to_end(&self) {
        let mut state = self.state();
        state.is_whole = true;
        state.trouble = None;
        drop(state);
        self.changed.notify_all();
    }

    /// The reader could not go on.
    pub(crate) fn failed(&self, failed: Failed) {
        self.state().trouble = Some(failed);
        self.changed.notify_all();
    }

    /// Waits until everything that the topic holds was read once.
    pub(crate) fn wait_whole(&self, patience: Duration) -> Result<(), Failed> {
        // What only someone's act can change is not waited for, and what cannot be read now not for long.
        // A topic that was just made is not known to every broker at once.
        let needs_someone = |state: &State| {
            let trouble = state.trouble.as_ref().map(|failed| failed.trouble);
            trouble.is_some_and(|trouble| trouble.needs_someone() && trouble != Trouble::NoTopic)
        };
        let mut state = self
            .changed
            .wait_timeout_while(self.state(), patience.min(SHORT_WAIT), |state| {
                !state.is_whole && !needs_someone(state)
            })
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let rest = patience.saturating_sub(SHORT_WAIT);
        state = self
            .changed
            .wait_timeout_while(state, rest, |state| !state.is_whole && state.trouble.is_none())
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        if state.is_whole {
            return Ok(());
        }
        let failed = state.trouble.clone();
        Err(failed.unwrap_or_else(|| {
            Failed::new(Trouble::Timeout, format!("the receipts were not read to their end in {patience:?}"))
        }))
    }

    /// What was said of a batch. From here on its receipt is kept, until [`Receipts::answered`].
    pub(crate) fn answer(&self, origin: &Origin, batch: u64) -> Option<Answer> {
        self.state().logs.get(origin)?.get(&batch).cloned()
    }

    /// A receipt of this batch is waited for: it is kept however many there are.
    pub(crate) fn expect(&self, origin: &Origin, batch: u64) {
        self.state().waited_for.insert((origin.clone(), batch));
    }

    /// The batch's receipt is not waited for any more.
    pub(crate) fn answered(&self, origin: &Origin, batch: u64) {
        self.state().waited_for.remove(&(origin.clone(), batch));
    }

    /// A batch is put again whose receipt is known: another one is waited for.
    pub(crate) fn hear_again(&self, origin: &Origin, batch: u64) {
        self.state().again.insert((origin.clone(), batch), false);
    }

    /// Whether it came.
    pub(crate) fn heard_again(&self, origin: &Origin, batch: u64) -> bool {
        self.state().again.get(&(origin.clone(), batch)).is_some_and(|heard| *heard)
    }

    /// The batches of a log that have a receipt, ascending.
    pub(crate) fn batches(&self, origin: &Origin) -> Vec<u64> {
        self.state().logs.get(origin).map(|log| log.keys().copied().collect()).unwrap_or_default()
    }

    /// The logs that have one.
    pub(crate) fn logs(&self) -> Vec<Origin> {
        self.state().logs.keys().cloned().collect()
    }

    /// A batch was put again, for want of a receipt.
    pub(crate) fn put_again(&self) {
        let mut state = self.state();
        state.figures.put_again += 1;
        state.starved.is_due = true;
    }

    pub(crate) fn figures(&self) -> Figures {
        self.state().figures
    }
}

fn origin_of(key: &[u8]) -> Option<Origin> {
    Origin::new(std::str::from_utf8(key).ok()?).ok()
}

impl Listener for Receipts {
    fn take(&self, key: Option<&[u8]>, message: &[u8]) {
        Self::take(self, key, message);
    }

    fn failed(&self, failed: Failed) {
        Self::failed(self, failed);
    }

    fn read_to_end(&self) {
        Self::read_to_end(self);
    }

    fn begins_anew(&self) -> bool {
        self.state().starved.begins_anew(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use schemas::ObjectName;
    use schemas::names::FileKind;
    use schemas::note::{Ed25519Signer, Signer as _};
    use schemas::seal::SealedFile;
    use schemas::ship::Archived;

    fn origin(epoch: &str) -> Origin {
        Origin::join("acme", "gw1", epoch).unwrap()
    }

    fn seal(epoch: &str, batch: u64) -> Seal {
        let kind = FileKind::Records;
        let sha256 = Sha256Hex([9; 32]);
        let name = ObjectName::Data { origin: origin(epoch), batch, sha256, kind }.file_name();
        Seal {
            origin: origin(epoch),
            batch,
            from: batch * 10,
            to: batch * 10 + 10,
            root: Sha256Hex([batch as u8; 32]),
            compact: Vec::new(),
            previous: None,
            schema: Sha256Hex([1; 32]),
            time: 1_700_000_000_000_000,
            files: vec![SealedFile { name, length: 1, sha256 }],
        }
    }

    fn receipt(seal: &Seal, sha256: Sha256Hex, seed: u8) -> Vec<u8> {
        let names = [seal.files[0].name.clone(), seal.object_name().file_name()];
        let objects =
            names.map(|name| Archived { name, version: None, retain_until_s: None }).into_iter().collect();
        let receipt = Receipt::of(seal, sha256, objects, 1_700_000_001_000_000);
        receipt.sign("ar1", &Ed25519Signer::from_seed([seed; 32])).unwrap()
    }

    fn receipts() -> Receipts {
        let key = Ed25519Signer::from_seed([1; 32]).public_key();
        Receipts::new("acme", "gw1", vec![ArchiverKey { name: "ar1".into(), key }])
    }

    #[test]
    fn a_receipt_by_a_configured_archiver_answers_its_seal_and_no_other() {
        let receipts = receipts();
        let (sealed, hash) = (seal("e1", 0), Sha256Hex([7; 32]));
        assert_eq!(receipts.take(Some(b"acme/gw1/e1"), &receipt(&sealed, hash, 1)), Taken::Ours);
        let answer = receipts.answer(&origin("e1"), 0).unwrap();
        assert!(answer.answers(&sealed, hash));
        assert!(!answer.answers(&sealed, Sha256Hex([8; 32])));
        let more = SealedFile { name: "x".into(), ..sealed.files[0].clone() };
        let files = vec![sealed.files[0].clone(), more];
        assert!(!answer.answers(&Seal { files, ..sealed.clone() }, hash));
        assert!(!answer.answers(&Seal { to: 11, ..sealed }, hash));
        assert!(receipts.answer(&origin("e1"), 1).is_none());
        assert_eq!((receipts.batches(&origin("e1")), receipts.logs()), (vec![0], vec![origin("e1")]));
    }

    #[test]
    fn forged_receipts_are_counted_and_foreign_ones_are_not() {
        let receipts = receipts();
        let (sealed, hash) = (seal("e1", 0), Sha256Hex([7; 32]));
        assert_eq!(receipts.take(None, &receipt(&sealed, hash, 2)), Taken::Forged);
        assert_eq!(receipts.take(None, b"affidavit"), Taken::Forged);
        assert_eq!(receipts.take(None, &vec![0; MAX_RECEIPT_BYTES + 1]), Taken::Forged);
        assert_eq!(receipts.take(Some(b"acme/gw2/e1"), b"whatever"), Taken::Foreign);
        let other = Seal { origin: Origin::new("acme/gw2/e1").unwrap(), ..sealed };
        assert_eq!(receipts.take(None, &receipt(&other, hash, 1)), Taken::Foreign);
        assert_eq!(receipts.figures().receipts_forged, 3);
        assert!(receipts.logs().is_empty());
    }

    #[test]
    fn a_second_receipt_for_another_seal_is_remembered_beside_the_first() {
        let receipts = receipts();
        let sealed = seal("e1", 0);
        for (hash, other) in [([7; 32], None), ([7; 32], None), ([8; 32], Some(Sha256Hex([8; 32])))] {
            receipts.take(None, &receipt(&sealed, Sha256Hex(hash), 1));
            let answer = receipts.answer(&origin("e1"), 0).unwrap();
            assert_eq!((answer.word.seal, answer.other), (Sha256Hex([7; 32]), other));
        }
    }

    #[test]
    fn of_many_receipts_the_newest_and_those_waited_for_are_kept() {
        let receipts = receipts();
        receipts.expect(&origin("e1"), 1);
        let signer = Ed25519Signer::from_seed([1; 32]);
        for batch in 0..KEPT_BATCHES as u64 + 10 {
            let sealed = seal("e1", batch);
            let answer = Receipt::verify(
                &receipt(&sealed, Sha256Hex([7; 32]), 1),
                &[ArchiverKey { name: "ar1".into(), key: signer.public_key() }],
            );
            receipts.keep(&answer.unwrap());
        }
        let kept = receipts.batches(&origin("e1"));
        assert_eq!((kept.len(), kept[0], kept[1]), (KEPT_BATCHES, 1, 11));
        receipts.answered(&origin("e1"), 1);
        for epoch in 0..KEPT_LOGS + 5 {
            receipts.take(None, &receipt(&seal(&format!("f{epoch:05}"), 0), Sha256Hex([7; 32]), 1));
        }
        let logs = receipts.logs();
        assert_eq!((logs.len(), logs[0].epoch()), (KEPT_LOGS, "f00005"));
        // One that is waited for is kept, however old.
        receipts.expect(&logs[0], 0);
        receipts.take(None, &receipt(&seal("g", 0), Sha256Hex([7; 32]), 1));
        assert_eq!([0, 1].map(|n| receipts.logs()[n].epoch().to_owned()), ["f00005", "f00007"]);
    }

    #[test]
    fn what_only_someone_can_change_is_not_waited_for() {
        let receipts = receipts();
        receipts.failed(Failed::new(Trouble::Denied, "no read on the topic"));
        assert_eq!(receipts.wait_whole(Duration::from_secs(60)).unwrap_err().trouble, Trouble::Denied);
        receipts.failed(Failed::new(Trouble::Connection, "away"));
        assert_eq!(receipts.wait_whole(Duration::from_millis(1)).unwrap_err().trouble, Trouble::Connection);
        receipts.read_to_end();
        receipts.wait_whole(Duration::ZERO).unwrap();
    }

    #[test]
    fn where_batches_are_put_again_and_nothing_answers_everything_is_read_again_now_and_then() {
        let receipts = receipts();
        let begins = |after: u64| {
            let now = Instant::now() + Duration::from_secs(after);
            receipts.state().starved.begins_anew(now)
        };
        assert!(!begins(0), "nothing is missing");
        receipts.put_again();
        assert!(begins(0) && !begins(1), "once");
        receipts.put_again();
        assert!(!begins(20) && begins(40));
        receipts.put_again();
        assert!(!begins(90), "the pause grows");
        assert!(begins(110));
        receipts.put_again();
        let seal = seal("e1", 0);
        let sha256 = Sha256Hex([7; 32]);
        assert_eq!(receipts.take(None, &receipt(&seal, sha256, 1)), Taken::Ours);
        assert!(!begins(900), "an answer came");
        receipts.put_again();
        receipts.take(None, &receipt(&seal, sha256, 1));
        assert!(begins(1000), "one that was known is no answer");
    }
}
