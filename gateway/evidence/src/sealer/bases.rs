//! Recent parts, to write later ones as edits of them: agents resend their whole history with each turn.

use std::collections::VecDeque;

use bytes::Bytes;
use schemas::record::PartName;
use schemas::{ExchangeId, Identifier};

/// Bytes of parts that are kept.
const KEPT_BYTES: usize = 48 << 20;
/// Parts above this are not kept and not written as edits.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// Parts below this are not worth it.
pub(super) const MIN_BYTES: usize = 512;
/// Candidates that are looked at for one part.
const LOOKED_AT: usize = 256;
/// Edits of edits of edits: at most this deep, so that reading one part back stays cheap (the format allows 256).
const MAX_DEPTH: u32 = 128;
/// A common beginning of at least this makes another exchange's part a candidate.
const MIN_PREFIX: usize = 128;

/// A part that others may refer to: of the same data key (or none) and retention class.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) key: Option<Identifier>,
    pub(super) class: String,
    pub(super) exchange: ExchangeId,
    pub(super) part: PartName,
    pub(super) content: Bytes,
    pub(super) depth: u32,
}

#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Newest last.
    kept: VecDeque<Base>,
    bytes: usize,
}

impl Bases {
    /// The best part to write `content` as edits of, and those edits.
    pub(super) fn delta(&self, like: &Base) -> Option<(&Base, Vec<u8>)> {
        if like.content.len() < MIN_BYTES {
            return None;
        }
        let candidates = self.kept.iter().rev().filter(|base| {
            base.class == like.class && base.key == like.key && base.depth < MAX_DEPTH
        });
        let (best, _) = candidates
            .take(LOOKED_AT)
            .filter_map(|base| {
                let prefix = base.content.iter().zip(&like.content).take_while(|(a, b)| a == b).count();
                let same_exchange = base.exchange == like.exchange;
                (same_exchange || prefix >= MIN_PREFIX).then_some((base, prefix))
            })
            // Of equals the first: the newest.
            .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        schemas::content::delta(&best.content, &like.content).map(|ops| (best, ops))
    }

    pub(super) fn keep(&mut self, base: Base) {
        if base.content.len() < MIN_BYTES || base.content.len() > MAX_BYTES {
            return;
        }
        self.bytes += base.content.len();
        self.kept.push_back(base);
        while self.bytes > KEPT_BYTES {
            match self.kept.pop_front() {
                Some(gone) => self.bytes -= gone.content.len(),
                None => return,
            }
        }
    }
}
