//! The leaves of one sealed batch, as a sink goes through them.

use bytes::Bytes;
use schemas::files::{self, Limits};
use schemas::{Origin, Sha256Hex};
use serde::Deserialize;

use super::TapLeaf;
use super::log::CannotRead;

/// How many leaves go to a sink at once, and how many bytes of them: one leaf more at most.
pub(super) const LEAVES: u64 = 256;
pub(super) const BYTES: usize = 512 << 10;

#[derive(Deserialize)]
struct Head {
    kind: String,
    at: i64,
}

/// A leaf of a log; both keys are in every leaf that was ever encoded, and one goes out whatever can be read of it.
pub(super) fn leaf(origin: &Origin, position: u64, bytes: Bytes, hash: Sha256Hex) -> TapLeaf {
    let head: Option<Head> = serde_json::from_slice(&bytes).ok();
    let (kind, at_us) = head.map_or_else(|| ("unknown".into(), 0), |head| (head.kind, head.at));
    TapLeaf { origin: origin.clone(), position, kind, at_us, hash, bytes }
}

/// The records of a batch.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) origin: Origin,
    batch: u64,
    from: u64,
    pub(super) to: u64,
    leaves: Vec<(Bytes, Sha256Hex)>,
}

impl Rows {
    /// Reads a records file, of which its seal says which positions are in it.
    pub(super) fn read(
        origin: &Origin,
        batch: u64,
        (from, to): (u64, u64),
        bytes: &Bytes,
    ) -> Result<Self, CannotRead> {
        let fault = |detail: String| CannotRead::Records { batch, detail };
        let records =
            files::read_records(bytes, &Limits::default()).map_err(|error| fault(error.to_string()))?;
        if !records.rows.iter().map(|row| row.position).eq(from..to) {
            return Err(fault("positions are not the seal's".into()));
        }
        let leaves =
            records.rows.into_iter().map(|row| (Bytes::from(row.leaf), Sha256Hex(row.hash.0))).collect();
        Ok(Self { origin: origin.clone(), batch, from, to, leaves })
    }
}

/// The last sealed batch that a sink has read from.
#[derive(Debug, Default)]
pub(super) struct Cache(Option<Rows>);

impl Cache {
    pub(super) fn put(&mut self, rows: Rows) {
        self.0 = Some(rows);
    }

    /// The next leaves from a position on, where they are here.
    pub(super) fn leaves(&mut self, origin: &Origin, position: u64) -> Option<Vec<TapLeaf>> {
        let rows = self.0.as_mut().filter(|rows| rows.origin == *origin)?;
        if position >= rows.to {
            // Gone through: what comes is the next batch, or the journal.
            rows.leaves = Vec::new();
        }
        let at = usize::try_from(position.checked_sub(rows.from)?).ok()?;
        let mut bytes = 0;
        let within = |(leaf, _): &&(Bytes, Sha256Hex)| {
            let fits = bytes < BYTES;
            bytes += leaf.len();
            fits
        };
        let found = rows.leaves.get(at..).filter(|found| !found.is_empty())?.iter().take_while(within);
        let found = found.take(usize::try_from(LEAVES).unwrap_or(usize::MAX)).zip(position..);
        Some(found.map(|((bytes, hash), position)| leaf(origin, position, bytes.clone(), *hash)).collect())
    }

    /// The batch that ends before a position.
    pub(super) fn before(&self, origin: &Origin, position: u64) -> Option<u64> {
        let rows = self.0.as_ref().filter(|rows| rows.origin == *origin && rows.to == position)?;
        Some(rows.batch)
    }
}
