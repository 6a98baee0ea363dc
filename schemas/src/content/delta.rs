//! Edits that make one content from another: agents resend their history, and only what is new need be stored.
//!
//! ```text
//! 0x00 varint(length) bytes          insert
//! 0x01 varint(offset) varint(length) copy from the base
//! ```
//! Varints are unsigned LEB128 of at most 10 bytes in their shortest form. Lengths are at least 1.

use super::ContentError;

const INSERT: u8 = 0;
const COPY: u8 = 1;

/// Bytes of a block of the base that is looked for in the target.
const BLOCK: usize = 64;

/// Multiplier of the rolling hash.
const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes the edits that turn `base` into `target`; `None` where less than half of the target can be copied.
///
/// Linear in both lengths, whatever they hold.
pub fn delta(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if base.len() < BLOCK || target.len() < 2 * BLOCK {
        return None;
    }
    let prefix = common_prefix(base, target);
    let mut edits = Edits { target, ops: Vec::new(), pending: 0, copy: None, inserted: 0 };
    edits.copy(0, 0, prefix);
    let suffix = common_suffix(&base[prefix..], &target[prefix..]);
    let end = target.len() - suffix;
    if end - prefix >= BLOCK {
        edits.match_blocks(base, prefix, end);
    }
    edits.copy(base.len() - suffix, end, suffix);
    edits.finish(target.len()).filter(|ops| ops.len() < target.len())
}

/// Whole steps are compared at once: most of a resent history is equal.
const STEP: usize = 256;

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let from = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count() * STEP;
    from + a[from..].iter().zip(&b[from..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let from = a.rchunks_exact(STEP).zip(b.rchunks_exact(STEP)).take_while(|(a, b)| a == b).count() * STEP;
    let (a, b) = (&a[..a.len() - from], &b[..b.len() - from]);
    from + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

struct Edits<'a> {
    target: &'a [u8],
    ops: Vec<u8>,
    /// The target before this is written, or held in `copy`.
    pending: usize,
    /// A copy (offset in the base, length) that may still grow.
    copy: Option<(usize, usize)>,
    inserted: usize,
}

impl Edits<'_> {
    fn flush_copy(&mut self) {
        if let Some((offset, length)) = self.copy.take() {
            self.ops.push(COPY);
            varint(&mut self.ops, offset as u64);
            varint(&mut self.ops, length as u64);
        }
    }

    fn insert_until(&mut self, at: usize) {
        if at > self.pending {
            self.flush_copy();
            let bytes = &self.target[self.pending..at];
            self.ops.push(INSERT);
            varint(&mut self.ops, bytes.len() as u64);
            self.ops.extend_from_slice(bytes);
            self.inserted += bytes.len();
            self.pending = at;
        }
    }

    /// Copies `length` bytes from `offset` of the base to `at` of the target.
    fn copy(&mut self, offset: usize, at: usize, length: usize) {
        self.insert_until(at);
        if length == 0 {
            return;
        }
        match &mut self.copy {
            Some((from, len)) if *from + *len == offset => *len += length,
            _ => {
                self.flush_copy();
                self.copy = Some((offset, length));
            }
        }
        self.pending = at + length;
    }

    fn finish(mut self, length: usize) -> Option<Vec<u8>> {
        self.insert_until(length);
        self.flush_copy();
        (self.inserted * 2 <= length).then_some(self.ops)
    }

    /// Finds blocks of `base` in `target[from..to]` by a rolling hash.
    fn match_blocks(&mut self, base: &[u8], from: usize, to: usize) {
        let index = Index::new(base);
        let out = PRIME.wrapping_pow(BLOCK as u32 - 1);
        let target = &self.target[..to];
        let mut at = from;
        let mut hash = hash(&target[at..at + BLOCK]);
        loop {
            let found =
                index.find(hash).filter(|offset| base[*offset..*offset + BLOCK] == target[at..at + BLOCK]);
            if let Some(offset) = found {
                let room = (at - self.pending).min(offset);
                let back = (1..=room).take_while(|i| base[offset - i] == target[at - i]).count();
                let ahead = common_prefix(&base[offset..], &target[at..]);
                self.copy(offset - back, at - back, back + ahead);
                at += ahead;
                if at + BLOCK > to {
                    return;
                }
                hash = self::hash(&target[at..at + BLOCK]);
            } else {
                if at + BLOCK >= to {
                    return;
                }
                hash = hash.wrapping_sub(u64::from(target[at]).wrapping_mul(out));
                hash = hash.wrapping_mul(PRIME).wrapping_add(u64::from(target[at + BLOCK]));
                at += 1;
            }
        }
    }
}

fn hash(block: &[u8]) -> u64 {
    block.iter().fold(0, |hash: u64, byte| hash.wrapping_mul(PRIME).wrapping_add(u64::from(*byte)))
}

/// The first place of each block of the base, by hash: one place a slot, later blocks do not push out earlier ones.
struct Index {
    slots: Vec<u32>,
    shift: u32,
}

impl Index {
    fn new(base: &[u8]) -> Self {
        let blocks = base.len() / BLOCK;
        let bits = (blocks * 2).next_power_of_two().trailing_zeros().max(4);
        let mut index = Self { slots: vec![u32::MAX; 1 << bits], shift: 64 - bits };
        for block in 0..blocks.min(u32::MAX as usize - 1) {
            let slot = index.slot(hash(&base[block * BLOCK..(block + 1) * BLOCK]));
            if index.slots[slot] == u32::MAX {
                index.slots[slot] = block as u32;
            }
        }
        index
    }
    fn slot(&self, hash: u64) -> usize {
        ((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> self.shift) as usize
    }
    fn find(&self, hash: u64) -> Option<usize> {
        let block = self.slots[self.slot(hash)];
        (block != u32::MAX).then_some(block as usize * BLOCK)
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Applies edits to `base`; gives at most `limit` bytes.
///
/// # Errors
/// Edits out of form, a copy that leaves the base, more than `limit` bytes.
pub fn apply(base: &[u8], ops: &[u8], limit: usize) -> Result<Vec<u8>, ContentError> {
    let mut reader = Reader { ops, at: 0 };
    let mut out = Vec::new();
    while reader.at < ops.len() {
        let start = reader.at;
        let wrong = |reason| Err(ContentError::Delta { offset: start, reason });
        let code = ops[reader.at];
        reader.at += 1;
        let piece = match code {
            INSERT => {
                let length = reader.varint()?;
                let Some(end) = reader.at.checked_add(length).filter(|end| *end <= ops.len()) else {
                    return wrong("an insert is longer than the edits");
                };
                let piece = &ops[reader.at..end];
                reader.at = end;
                piece
            }
            COPY => {
                let (offset, length) = (reader.varint()?, reader.varint()?);
                let Some(end) = offset.checked_add(length).filter(|end| *end <= base.len()) else {
                    return wrong("a copy leaves the base");
                };
                &base[offset..end]
            }
            _ => return wrong("neither insert nor copy"),
        };
        if piece.is_empty() {
            return wrong("an edit of no bytes");
        }
        if out.len() + piece.len() > limit {
            return Err(ContentError::TooLong { limit });
        }
        out.extend_from_slice(piece);
    }
    Ok(out)
}

struct Reader<'a> {
    ops: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<usize, ContentError> {
        let start = self.at;
        let wrong = || ContentError::Delta { offset: start, reason: "not a varint in its shortest form" };
        let mut value: u64 = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.ops.get(self.at).ok_or_else(wrong)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
                return Err(wrong());
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| wrong());
            }
        }
        Err(wrong())
    }
}
