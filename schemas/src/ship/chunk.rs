//! A chunk: a piece of one object of a batch, as one message.
//!
//! ```text
//! affidavit/chunk/v1 <object name> <length> <sha256> <offset>\n<bytes>
//! ```
//! The message's key is the log's origin. Format: `FORMAT.md` 16.1.

use crate::digest::Sha256Hex;
use crate::lines::number;
use crate::names::ObjectName;
use crate::note::MAX_NOTE_BYTES;

/// What a message begins with.
const FIRST_WORD: &str = "affidavit/chunk/v1";

/// Bytes of an object in each of its chunks but the last.
pub const CHUNK_BYTES: u64 = 896 << 10;

/// The longest message: under 1 MB with room for the broker's own, so that any broker takes it.
pub const MAX_MESSAGE_BYTES: usize = 900 << 10;

/// The longest object: what a store takes in one put.
pub const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// The longest first line: a content file of the longest origin needs less.
const MAX_LINE_BYTES: usize = MAX_MESSAGE_BYTES - CHUNK_BYTES as usize;

/// Why a message is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Longer than any chunk.
    #[error("a message of {0} bytes, at most {MAX_MESSAGE_BYTES} are a chunk")]
    Length(usize),
    /// No first line of the form.
    #[error("wanted `{FIRST_WORD} <object name> <length> <sha256> <offset>` in the first line")]
    Form,
    /// Not an object that is shipped.
    #[error("`{0}` is not the name of a seal or a data file of a gateway's log")]
    Name(String),
    /// Values that contradict each other.
    #[error("`{name}`: {what}")]
    Contradiction {
        /// The object.
        name: String,
        /// What does not fit.
        what: String,
    },
}

/// A piece of an object. Nothing of it is verified but that it fits itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The object: a seal, or a data file of a gateway's log.
    pub name: ObjectName,
    /// Bytes of the whole object.
    pub length: u64,
    /// SHA-256 of the whole object.
    pub sha256: Sha256Hex,
    /// Where the piece begins: a multiple of [`CHUNK_BYTES`].
    pub offset: u64,
    /// The piece.
    pub bytes: &'a [u8],
}

/// Where the pieces of an object of this length begin, and how long they are.
pub fn pieces(length: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..length.div_ceil(CHUNK_BYTES)).map(move |index| {
        let offset = index * CHUNK_BYTES;
        (offset, CHUNK_BYTES.min(length - offset))
    })
}

impl<'a> Chunk<'a> {
    /// The message.
    ///
    /// # Errors
    /// A chunk that contradicts itself is not written.
    pub fn encode(&self) -> Result<Vec<u8>, ChunkError> {
        self.check()?;
        let mut message =
            format!("{FIRST_WORD} {} {} {} {}\n", self.name, self.length, self.sha256, self.offset)
                .into_bytes();
        message.extend_from_slice(self.bytes);
        Ok(message)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn decode(message: &'a [u8]) -> Result<Self, ChunkError> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(ChunkError::Length(message.len()));
        }
        let end =
            message.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n').ok_or(ChunkError::Form)?;
        let (line, bytes) = message.split_at(end);
        let line = std::str::from_utf8(line).map_err(|_| ChunkError::Form)?;
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(ChunkError::Form);
        if word()? != FIRST_WORD {
            return Err(ChunkError::Form);
        }
        let name = word()?;
        let name = ObjectName::parse(name).map_err(|_| ChunkError::Name(name.into()))?;
        let length = number(word()?).ok_or(ChunkError::Form)?;
        let sha256 = Sha256Hex::parse(word()?).ok_or(ChunkError::Form)?;
        let offset = number(word()?).ok_or(ChunkError::Form)?;
        if words.next().is_some() {
            return Err(ChunkError::Form);
        }
        let chunk = Self { name, length, sha256, offset, bytes: bytes.get(1..).unwrap_or_default() };
        chunk.check()?;
        Ok(chunk)
    }

    fn check(&self) -> Result<(), ChunkError> {
        let wrong = |what: String| Err(ChunkError::Contradiction { name: self.name.to_string(), what });
        let limit = match &self.name {
            _ if self.name.origin().is_registry() => return Err(ChunkError::Name(self.name.to_string())),
            ObjectName::Checkpoint { .. } | ObjectName::Anchor { .. } => {
                return Err(ChunkError::Name(self.name.to_string()));
            }
            ObjectName::Seal { .. } => MAX_NOTE_BYTES as u64,
            ObjectName::Data { sha256, .. } if *sha256 != self.sha256 => {
                return wrong(format!("the hash {} is not the one in the name", self.sha256));
            }
            ObjectName::Data { .. } => MAX_OBJECT_BYTES,
        };
        if !(1..=limit).contains(&self.length) {
            return wrong(format!("{} bytes, wanted 1 to {limit}", self.length));
        }
        let whole = self.offset.is_multiple_of(CHUNK_BYTES) && self.offset < self.length;
        let wanted = CHUNK_BYTES.min(self.length.saturating_sub(self.offset));
        if !whole || self.bytes.len() as u64 != wanted {
            return wrong(format!("{} of {} bytes at {}", self.bytes.len(), self.length, self.offset));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::{FileKind, Origin};

    fn origin() -> Origin {
        Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
    }

    fn file(bytes: &[u8], kind: FileKind) -> ObjectName {
        ObjectName::Data { origin: origin(), batch: 3, sha256: Sha256Hex::of(bytes), kind }
    }

    fn cut(bytes: &[u8], name: &ObjectName) -> Vec<Vec<u8>> {
        let (length, sha256) = (bytes.len() as u64, Sha256Hex::of(bytes));
        let piece = |(offset, count): (u64, u64)| {
            let bytes = &bytes[offset as usize..(offset + count) as usize];
            Chunk { name: name.clone(), length, sha256, offset, bytes }.encode().unwrap()
        };
        pieces(length).map(piece).collect()
    }

    #[test]
    fn an_object_is_the_sum_of_its_chunks() {
        for length in [1, 7, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let name = file(&bytes, FileKind::Content("x".repeat(63)));
            let mut whole = Vec::new();
            for message in cut(&bytes, &name) {
                assert!(message.len() <= MAX_MESSAGE_BYTES);
                let chunk = Chunk::decode(&message).unwrap();
                assert_eq!((&chunk.name, chunk.length, chunk.offset), (&name, length, whole.len() as u64));
                whole.extend_from_slice(chunk.bytes);
            }
            assert!(whole == bytes, "{length}");
        }
        assert_eq!(pieces(0).count(), 0);
    }

    #[test]
    fn the_longest_name_leaves_room_for_a_whole_piece() {
        let origin = Origin::new(format!("{}/{}/e", "d".repeat(63), "g".repeat(44))).unwrap();
        let bytes = vec![7; CHUNK_BYTES as usize * 2];
        let sha256 = Sha256Hex::of(&bytes);
        let kind = FileKind::Content("c".repeat(63));
        let name = ObjectName::Data { origin, batch: 9_999_999_999, sha256, kind };
        let chunk = Chunk {
            name,
            length: bytes.len() as u64,
            sha256,
            offset: CHUNK_BYTES,
            bytes: &bytes[..CHUNK_BYTES as usize],
        };
        assert!(chunk.encode().unwrap().len() <= MAX_MESSAGE_BYTES);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = cut(b"0123456789", &file(b"0123456789", FileKind::Records)).remove(0);
        let good = String::from_utf8(good).unwrap();
        let hash = Sha256Hex::of(b"0123456789").to_string();
        assert!(Chunk::decode(good.as_bytes()).is_ok());
        let cases: &[(&str, &str)] = &[
            ("chunk/v1", "chunk/v2"),
            (" 10 ", " 010 "),
            (" 10 ", " 9 "),
            (" 10 ", " 11 "),
            (" 10 ", " 0 "),
            (" 0\n", " 1\n"),
            (" 0\n", " 0 \n"),
            (" 0\n", " 0 1\n"),
            (" 0\n", " 917504\n"),
            ("\n0123456789", "\n012345678"),
            ("\n0123456789", "\n"),
            ("\n0123456789", "0123456789"),
            ("records.parquet", "checkpoint"),
            ("records.parquet", "other"),
            ("acme/gw1/20261120t101500z-3f9a1c20", "acme/registry/log"),
            ("acme/gw1/", "../gw1/"),
        ];
        for (from, to) in cases {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good, "{from}");
            assert!(Chunk::decode(changed.as_bytes()).is_err(), "{from} -> {to}");
        }
        let other = good.replacen(&format!(" {hash} "), &format!(" {} ", Sha256Hex([1; 32])), 1);
        assert!(matches!(Chunk::decode(other.as_bytes()), Err(ChunkError::Contradiction { .. })));
        let long = vec![b'a'; MAX_MESSAGE_BYTES + 1];
        assert_eq!(Chunk::decode(&long), Err(ChunkError::Length(long.len())));
    }

    proptest! {
        #[test]
        fn hostile_messages_do_not_panic_and_have_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _ = Chunk::decode(&bytes);
            let mut changed = cut(b"0123456789", &file(b"0123456789", FileKind::Records)).remove(0);
            let at = at.index(changed.len());
            changed[at] = byte;
            if let Ok(chunk) = Chunk::decode(&changed) {
                prop_assert_eq!(chunk.encode().unwrap(), changed);
            }
        }
    }
}
