//! What a sink gets that is behind everything that is kept: batches out of the store.

use std::sync::Arc;

use schemas::names::FileKind;
use schemas::seal::SignedSeal;
use schemas::{ObjectName, Origin, Sha256Hex, seal};

use super::folder::MAX_RECORDS_BYTES;
use super::log::CannotRead;
use super::rows::Rows;
use crate::store::{Store, read_object};

const MAX_SEAL_BYTES: u64 = 1 << 20;
/// So many seals that cannot be read are passed over; then nobody can say where what is behind them begins.
const MOST_UNREADABLE: usize = 8;

/// What the store has of a position.
#[derive(Debug)]
pub(super) enum Stored {
    /// The batch that holds it.
    Rows(Rows),
    /// It does not have it, or gives what another key sealed. What it has behind it begins at `next`.
    Behind { next: u64 },
    /// Nothing from there on is known to be in it; how much of the log is.
    Absent(Result<Held, CannotRead>),
}

/// What was found of a position.
enum Found {
    Rows(Rows),
    Absent { next: Option<u64> },
}

/// How much of a log is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing at all.
    Nothing,
    /// All before this position.
    To(u64),
    /// Something, and it cannot be told how much.
    Something,
}

/// One log in the store.
pub(super) struct InStore {
    pub(super) store: Arc<dyn Store>,
    pub(super) origin: Origin,
    /// Who may have sealed it.
    pub(super) keys: Vec<[u8; 32]>,
}

impl InStore {
    /// What the store has of a position; `before` is the batch that ends there, where that is known.
    pub(super) fn stored(&self, position: u64, before: Option<u64>) -> Result<Stored, CannotRead> {
        let found = match self.store.gives_back() {
            true => self.rows(position, before)?,
            false => Found::Absent { next: None },
        };
        Ok(match found {
            Found::Rows(rows) => Stored::Rows(rows),
            Found::Absent { next: Some(next) } => Stored::Behind { next },
            Found::Absent { next: None } => Stored::Absent(self.held()),
        })
    }

    /// The batch that holds a position, in a store that gives back.
    fn rows(&self, position: u64, before: Option<u64>) -> Result<Found, CannotRead> {
        if let Some(next) = before.and_then(|before| before.checked_add(1))
            && let Some(sealed) = self.seal(next)?
            && (sealed.from..sealed.to).contains(&position)
        {
            return self.rows_of(&sealed);
        }
        let mut batches = self.batches()?;
        // Batches are in the order of their positions.
        let (mut low, mut high, mut next, mut unreadable) = (0, batches.len(), None, 0);
        while low < high && unreadable < MOST_UNREADABLE {
            let middle = low + (high - low) / 2;
            let Some(batch) = batches.get(middle) else { break };
            match self.seal(*batch)? {
                None => {
                    batches.remove(middle);
                    high -= 1;
                    unreadable += 1;
                }
                Some(sealed) if sealed.to <= position => low = middle + 1,
                Some(sealed) if sealed.from > position => {
                    high = middle;
                    next = Some(sealed.from);
                }
                Some(sealed) => return self.rows_of(&sealed),
            }
        }
        Ok(Found::Absent { next })
    }

    /// How far the log goes there: what the last batch says, or a receipt of it.
    fn held(&self) -> Result<Held, CannotRead> {
        let Some(last) = self.batches()?.pop() else { return Ok(Held::Nothing) };
        let to = match self.store.gives_back() {
            true => self.seal(last)?.map(|sealed| sealed.to),
            false => self.store.word(&self.origin, last)?.map(|word| word.to),
        };
        Ok(to.map_or(Held::Something, Held::To))
    }

    fn batches(&self) -> Result<Vec<u64>, CannotRead> {
        let names = self.store.list(&self.origin)?;
        let seals = names.iter().filter(|name| matches!(name, ObjectName::Seal { .. }));
        let mut batches: Vec<u64> = seals.map(ObjectName::batch).collect();
        batches.sort_unstable();
        Ok(batches)
    }

    fn seal(&self, batch: u64) -> Result<Option<SignedSeal>, CannotRead> {
        let name = ObjectName::Seal { origin: self.origin.clone(), batch };
        let Some(note) = read_object(&*self.store, &name, MAX_SEAL_BYTES)? else { return Ok(None) };
        let sealed = self.keys.iter().find_map(|key| seal::verify(&note, key).ok());
        Ok(sealed.filter(|sealed| sealed.origin == self.origin && sealed.batch == batch))
    }

    fn rows_of(&self, sealed: &SignedSeal) -> Result<Found, CannotRead> {
        let absent = Ok(Found::Absent { next: Some(sealed.to) });
        let Some(file) = sealed.file(&FileKind::Records) else { return absent };
        let Ok(name) = ObjectName::parse_file(&self.origin, &file.name) else { return absent };
        match read_object(&*self.store, &name, MAX_RECORDS_BYTES)? {
            Some(bytes) if Sha256Hex::of(&bytes) == file.sha256 => {
                let range = (sealed.from, sealed.to);
                Ok(Found::Rows(Rows::read(&self.origin, sealed.batch, range, &bytes)?))
            }
            _ => absent,
        }
    }
}
