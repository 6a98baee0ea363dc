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
const LOOKED_AT: usize = 64;
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

/// A base and the batch that holds it.
#[derive(Debug)]
struct Kept {
    batch: u64,
    base: Base,
}

#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Newest last.
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The batch that is being built.
    batch: u64,
}

impl Bases {
    /// A batch is built from its beginning. Where an earlier try at it failed, what that try took in is forgotten: a
    /// part must never be written as edits of itself, or of a part that was not stored.
    pub(super) fn begin(&mut self, batch: u64) {
        while let Some(newest) = self.kept.pop_back_if(|kept| kept.batch >= batch) {
            self.bytes -= newest.base.content.len();
        }
        self.batch = batch;
    }

    /// The best part to write `content` as edits of, and those edits.
    pub(super) fn delta(&self, like: &Base) -> Option<(&Base, Vec<u8>)> {
        if like.content.len() < MIN_BYTES {
            return None;
        }
        let candidates = self
            .kept
            .iter()
            .rev()
            .map(|kept| &kept.base)
            .filter(|base| base.class == like.class && base.key == like.key && base.depth < MAX_DEPTH);
        let mut best: Option<(&Base, usize)> = None;
        for base in candidates.take(LOOKED_AT) {
            let prefix = common_prefix(&base.content, &like.content);
            if base.exchange != like.exchange && prefix < MIN_PREFIX {
                continue;
            }
            // Of equals the first: the newest.
            if best.is_none_or(|(_, longest)| prefix > longest) {
                best = Some((base, prefix));
            }
            // Nearly all of it comes again: this is the turn before.
            if prefix >= base.content.len() / 8 * 7 {
                break;
            }
        }
        let (best, _) = best?;
        schemas::content::delta(&best.content, &like.content).map(|ops| (best, ops))
    }

    /// Takes a part in, and lets the oldest go.
    pub(super) fn keep(&mut self, base: Base) {
        if base.content.len() < MIN_BYTES || base.content.len() > MAX_BYTES {
            return;
        }
        self.bytes += base.content.len();
        self.kept.push_back(Kept { batch: self.batch, base });
        while self.bytes > KEPT_BYTES {
            match self.kept.pop_front() {
                Some(gone) => self.bytes -= gone.base.content.len(),
                None => return,
            }
        }
    }
}

/// How many bytes two parts have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 1024;
    let steps = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count();
    let from = steps * STEP;
    let rest = a.iter().skip(from).zip(b.iter().skip(from));
    from + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn base(n: u8, key: &str, content: &[u8]) -> Base {
        Base {
            key: Identifier::new(key).ok(),
            class: "standard".into(),
            exchange: ExchangeId::new(format!("00000000-0000-7000-8000-0000000000{n:02x}")).unwrap(),
            part: PartName::ClientRequest,
            content: Bytes::copy_from_slice(content),
            depth: 0,
        }
    }

    #[test]
    fn the_common_beginning_is_counted_to_the_byte() {
        let long: Vec<u8> = (0..5000_u32).map(|i| (i % 251) as u8).collect();
        for at in [0, 1, 1023, 1024, 1025, 4999] {
            let mut other = long.clone();
            other[at] ^= 1;
            assert_eq!(common_prefix(&long, &other), at);
            assert_eq!(common_prefix(&long, &long[..at]), at);
        }
        assert_eq!(common_prefix(&long, &long), 5000);
    }

    #[test]
    fn the_longest_beginning_under_the_same_key_is_the_base() {
        let text: Vec<u8> = (0..4000_u32).flat_map(|i| i.to_le_bytes()).collect();
        let mut bases = Bases::default();
        bases.keep(base(1, "k1", &text[..2000]));
        bases.keep(base(2, "k1", &text[..8000]));
        bases.keep(base(3, "k2", &text));
        let (best, ops) = bases.delta(&base(4, "k1", &text)).unwrap();
        assert_eq!(best.exchange, base(2, "k1", b"").exchange);
        assert_eq!(schemas::content::apply(&best.content, &ops, 1 << 20).unwrap(), text);
        assert!(bases.delta(&base(5, "k3", &text)).is_none());
    }

    #[test]
    fn what_a_failed_try_took_in_is_forgotten() {
        let text: Vec<u8> = (0..4000_u32).flat_map(|i| i.to_le_bytes()).collect();
        let mut bases = Bases::default();
        bases.begin(0);
        bases.keep(base(1, "k1", &text[..12_000]));
        bases.begin(1);
        bases.keep(base(2, "k1", &text));
        // The batch is built again: its own part is no base of itself, the stored one still is.
        bases.begin(1);
        let (from, _) = bases.delta(&base(2, "k1", &text)).unwrap();
        assert_eq!(from.exchange, base(1, "k1", b"").exchange);
        assert_eq!(bases.bytes, 12_000);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut bases = Bases::default();
        for n in 0..40 {
            bases.keep(base(n, "k1", &vec![n; 3 << 20]));
        }
        assert!(bases.bytes <= KEPT_BYTES);
        assert_eq!(bases.bytes, bases.kept.iter().map(|kept| kept.base.content.len()).sum::<usize>());
    }
}
