//! Segment and group heads, and file names.

use schemas::Origin;
use sha2::{Digest as _, Sha256};

/// Groups start at multiples of this; also the size of a segment's head.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of a group's head.
pub(super) const GROUP_HEAD: usize = 64;
/// No group is longer; a longer one in a file is damage.
pub(super) const MAX_GROUP: usize = 80 << 20;

const SEGMENT_MAGIC: &[u8; 8] = b"afjrnl/1";
const GROUP_MAGIC: &[u8; 8] = b"afgroup1";

/// What ties bytes to one epoch's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(pub(super) [u8; 16]);

impl Tag {
    pub(super) fn of(origin: &Origin, salt: &[u8; 32]) -> Self {
        let hash: [u8; 32] = Sha256::new().chain_update(origin.as_str()).chain_update(salt).finalize().into();
        Self(hash.first_chunk().copied().unwrap_or_default())
    }

    /// Where the crc of every frame starts from.
    pub(super) fn seed(self) -> u32 {
        crc32c::crc32c(&self.0)
    }
}

/// `value` rounded up to a whole block.
pub(super) fn blocks(value: u64) -> u64 {
    value.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// A segment's head: 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) origin: Origin,
    pub(super) salt: [u8; 32],
    pub(super) index: u32,
    /// Bytes of the whole file.
    pub(super) bytes: u64,
}

impl SegmentHead {
    /// magic 8 | salt 32 | index u32 | bytes u64 | origin length u8, text | zeros | crc32c u32 at the end.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        let origin = self.origin.as_str().as_bytes();
        out.push(u8::try_from(origin.len()).unwrap_or(u8::MAX)); // An origin has at most 191 bytes.
        out.extend_from_slice(origin);
        out.resize(4092, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = (bytes.get(..4092)?, bytes.get(4092..4096)?);
        if crc32c::crc32c(body).to_le_bytes() != crc || !body.starts_with(SEGMENT_MAGIC) {
            return None;
        }
        let salt = *body.get(8..)?.first_chunk()?;
        let index = u32::from_le_bytes(*body.get(40..)?.first_chunk()?);
        let bytes = u64::from_le_bytes(*body.get(44..)?.first_chunk()?);
        let len = usize::from(*body.get(52)?);
        let origin = Origin::new(std::str::from_utf8(body.get(53..53 + len)?).ok()?).ok()?;
        Some(Self { origin, salt, index, bytes })
    }
}

/// A group's head: magic 8 | tag 16 | sequence u64 | first position u64 | time i64 | length u32 | frames u32 |
/// crc32c of the payload u32 | crc32c of the 60 bytes before u32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub(super) sequence: u64,
    pub(super) first_position: u64,
    pub(super) time_us: i64,
    /// Bytes of frames behind the head.
    pub(super) length: u32,
    pub(super) frames: u32,
    pub(super) payload_crc: u32,
}

impl GroupHead {
    pub(super) fn encode(&self, tag: Tag) -> [u8; GROUP_HEAD] {
        let mut out = [0; GROUP_HEAD];
        out[..8].copy_from_slice(GROUP_MAGIC);
        out[8..24].copy_from_slice(&tag.0);
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_position.to_le_bytes());
        out[40..48].copy_from_slice(&self.time_us.to_le_bytes());
        out[48..52].copy_from_slice(&self.length.to_le_bytes());
        out[52..56].copy_from_slice(&self.frames.to_le_bytes());
        out[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8], tag: Tag) -> Option<Self> {
        let bytes: &[u8; GROUP_HEAD] = bytes.first_chunk()?;
        if !bytes.starts_with(GROUP_MAGIC)
            || bytes.get(8..24)? != tag.0
            || crc32c::crc32c(&bytes[..60]).to_le_bytes() != bytes[60..]
        {
            return None;
        }
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            sequence: u64_at(24)?,
            first_position: u64_at(32)?,
            time_us: i64::from_le_bytes(*bytes.get(40..)?.first_chunk()?),
            length: u32_at(48)?,
            frames: u32_at(52)?,
            payload_crc: u32_at(56)?,
        })
    }

    /// Bytes from this group's start to the next one's.
    pub(super) fn span(&self) -> u64 {
        blocks(GROUP_HEAD as u64 + u64::from(self.length))
    }
}

/// The file name of a segment.
pub(super) fn segment_name(index: u32) -> String {
    format!("segment-{index:08}.journal")
}

/// The segment that a file name stands for.
pub(super) fn segment_index(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".journal")?;
    let index = digits.parse().ok()?;
    (segment_name(index) == name).then_some(index)
}
