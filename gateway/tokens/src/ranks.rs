//! The tokens of a tokenizer and their order, and how a piece of text falls into them.
//!
//! ```text
//! data/<name>.zst, decompressed: (length: u8, bytes)*, the token of rank 0 first
//! ```
//!
//! They are OpenAI's own lists: a test writes them back into the published form and holds that against its published SHA-256.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The longest piece that is merged as one. A longer one, which no text of a language has, is counted in parts of this many
/// bytes: so that nothing takes longer than a number of steps per byte.
pub(crate) const PIECE_BYTES: usize = 4096;

/// From here on the next merge is found by a heap.
const HEAP_FROM: usize = 64;

const EMPTY: u32 = u32::MAX;

/// The longest token of any list.
const LONGEST: usize = 255;

/// All tokens of one tokenizer.
pub(crate) struct Ranks {
    /// The tokens, one behind the other.
    bytes: Vec<u8>,
    /// Where each begins in `bytes`, and where the last one ends.
    starts: Vec<u32>,
    /// Ranks by the hash of their bytes, with linear probing.
    slots: Vec<u32>,
}

impl Ranks {
    /// Reads what `data/` holds. A list that is cut short gives the tokens before the cut.
    pub(crate) fn read(compressed: &[u8]) -> Self {
        let packed = zstd::decode_all(compressed).unwrap_or_default();
        let (mut bytes, mut starts) = (Vec::with_capacity(packed.len()), vec![0]);
        let mut rest = packed.as_slice();
        while let Some((length, behind)) = rest.split_first() {
            let Some((token, next)) = behind.split_at_checked(usize::from(*length)) else { break };
            bytes.extend_from_slice(token);
            starts.push(u32::try_from(bytes.len()).unwrap_or(EMPTY));
            rest = next;
        }
        bytes.shrink_to_fit();
        starts.shrink_to_fit();
        let mut ranks = Self { bytes, slots: vec![EMPTY; (starts.len() * 2).next_power_of_two()], starts };
        for rank in 0..ranks.len() {
            let mut at = ranks.slot(hash(ranks.token(rank)));
            while ranks.slots.get(at).is_some_and(|slot| *slot != EMPTY) {
                at = (at + 1) % ranks.slots.len();
            }
            if let Some(slot) = ranks.slots.get_mut(at) {
                *slot = u32::try_from(rank).unwrap_or(EMPTY);
            }
        }
        ranks
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The bytes of the token of that rank.
    pub(crate) fn token(&self, rank: usize) -> &[u8] {
        let (Some(from), Some(to)) = (self.starts.get(rank), self.starts.get(rank + 1)) else { return &[] };
        self.bytes.get(*from as usize..*to as usize).unwrap_or_default()
    }

    fn slot(&self, hash: u64) -> usize {
        usize::try_from(hash % self.slots.len() as u64).unwrap_or_default()
    }

    /// The rank of the token that is exactly `bytes`.
    fn rank(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > LONGEST {
            return None;
        }
        let mut at = self.slot(hash(bytes));
        loop {
            let rank = *self.slots.get(at)?;
            if rank == EMPTY {
                return None;
            }
            if self.token(rank as usize) == bytes {
                return Some(rank);
            }
            at = (at + 1) % self.slots.len();
        }
    }

    /// How many tokens `piece` is: of two neighbours that together are a token, those of the lowest rank are merged, the
    /// leftmost first, until there are none.
    pub(crate) fn count(&self, piece: &[u8]) -> u64 {
        piece.chunks(PIECE_BYTES).map(|part| self.count_part(part)).sum()
    }

    fn count_part(&self, part: &[u8]) -> u64 {
        match part.len() {
            0 => 0,
            1 => 1,
            _ if self.rank(part).is_some() => 1,
            short if short < HEAP_FROM => self.merge_short(part),
            _ => self.merge_long(part),
        }
    }

    fn merge_short(&self, part: &[u8]) -> u64 {
        // Each entry: where a token begins, and the rank of it together with the next one. One more ends the last token.
        let mut cuts = [(0_usize, EMPTY); HEAP_FROM + 1];
        let mut count = part.len();
        let together =
            |from: usize, to: usize| part.get(from..to).and_then(|bytes| self.rank(bytes)).unwrap_or(EMPTY);
        for (at, cut) in cuts.iter_mut().enumerate().take(count + 1) {
            let rank = if at + 2 <= count { together(at, at + 2) } else { EMPTY };
            *cut = (at, rank);
        }
        loop {
            let ranks = cuts.iter().take(count.saturating_sub(1)).map(|cut| cut.1).enumerate();
            // The first of equal ones.
            let Some((at, rank)) = ranks.min_by_key(|(_, rank)| *rank) else { break };
            if rank == EMPTY {
                break;
            }
            cuts.copy_within(at + 2..count + 1, at + 1);
            count -= 1;
            let start = |place: usize| cuts.get(place).map(|cut| cut.0);
            let (before, here) = (at.checked_sub(1).and_then(start), start(at).unwrap_or_default());
            let (one, two) = (start(at + 1), start(at + 2).filter(|_| at + 2 <= count));
            let rank_here = two.map_or(EMPTY, |to| together(here, to));
            let rank_before = before.zip(one).map_or(EMPTY, |(from, to)| together(from, to));
            if let Some(cut) = cuts.get_mut(at) {
                cut.1 = rank_here;
            }
            if let Some(cut) = at.checked_sub(1).and_then(|at| cuts.get_mut(at)) {
                cut.1 = rank_before;
            }
        }
        count as u64
    }

    fn merge_long(&self, part: &[u8]) -> u64 {
        let length = part.len();
        // Of the token that begins at a place: where it ends, and where the one before it begins.
        let mut ends: Vec<usize> = (1..=length).collect();
        let mut befores: Vec<usize> = (0..=length).map(|at| at.wrapping_sub(1)).collect();
        let mut begins = vec![true; length];
        let mut pairs = BinaryHeap::with_capacity(length);
        let push = |pairs: &mut BinaryHeap<_>, from: usize, to: usize| {
            if let Some(rank) = part.get(from..to).and_then(|bytes| self.rank(bytes)) {
                pairs.push(Reverse((rank, from, to)));
            }
        };
        for from in 0..length.saturating_sub(1) {
            push(&mut pairs, from, from + 2);
        }
        let mut count = length;
        while let Some(Reverse((_, from, to))) = pairs.pop() {
            let is_there = begins.get(from) == Some(&true);
            let Some(middle) = ends.get(from).copied().filter(|_| is_there) else { continue };
            // Where either of the two was merged with another meanwhile they no longer are this pair.
            if middle >= length || ends.get(middle) != Some(&to) || begins.get(middle) != Some(&true) {
                continue;
            }
            count -= 1;
            if let (Some(end), Some(begin)) = (ends.get_mut(from), begins.get_mut(middle)) {
                (*end, *begin) = (to, false);
            }
            if let Some(before) = befores.get_mut(to) {
                *before = from;
            }
            if let Some(next) = ends.get(to).copied() {
                push(&mut pairs, from, next);
            }
            if let Some(before) = befores.get(from).copied().filter(|before| *before < length) {
                push(&mut pairs, before, to);
            }
        }
        count as u64
    }
}

/// Eight bytes at a time; what the tokens are is known, so there is nobody to defend the table against.
fn hash(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        if let Some(place) = word.get_mut(..chunk.len()) {
            place.copy_from_slice(chunk);
        }
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD).rotate_left(29);
    }
    hash.wrapping_mul(ODD) >> 20
}

#[cfg(test)]
impl Ranks {
    pub(crate) fn short(&self, part: &[u8]) -> u64 {
        self.merge_short(part)
    }

    pub(crate) fn long(&self, part: &[u8]) -> u64 {
        self.merge_long(part)
    }
}
