//! Frames: what a group holds, one after the other.
//!
//! ```text
//! frame     = length u32 (bytes after the crc) | crc32c u32 (of tag, length, and the bytes after the crc) | kind u8 | fields
//! record    = 1 | leaf hash (32) | leaf
//! content   = 2 | exchange (16) | part u8 | sequence u32 | delivered u64 | key id (u8 length, text; empty: none) | data
//! reference = 3 | sha256 (32) | media type (u8 length, text) | bytes
//! spill     = 4 | exchange (16) | part u8 | frames u32 | delivered u64 | bytes u64 | key id | file name (u8 length, text)
//! plan      = 5 | bytes
//! ```

use bytes::Bytes;
use schemas::record::{AttemptNumber, PartName};
use schemas::{ExchangeId, Identifier, Sha256Hex};

use super::{JournalError, MAX_CONTENT_BYTES};

/// Length and crc.
pub(super) const FRAME_HEAD: usize = 8;
/// More than the fields of any frame take without its payload: 16 + 1 + 4 + 8 + 8 + two short texts.
pub(super) const FRAME_FIELDS: usize = 560;
/// Payloads up to this are copied behind their head; larger ones are written from where they are.
pub(super) const COPIED: usize = 2048;

const RECORD: u8 = 1;
const CONTENT: u8 = 2;
const REFERENCE: u8 = 3;
const SPILL: u8 = 4;
const PLAN: u8 = 5;

/// One thing that the journal keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A record.
    Record {
        /// The leaf's bytes.
        leaf: Bytes,
        /// Its leaf hash.
        hash: Sha256Hex,
    },
    /// Bytes of an exchange's content.
    Content(ContentFrame),
    /// Bytes of `reference.parquet`; it belongs to the next record that is submitted.
    Reference {
        /// SHA-256 of the bytes.
        sha256: Sha256Hex,
        /// At most 255 bytes of media type.
        media_type: String,
        /// The bytes, in plain.
        bytes: Bytes,
    },
    /// Content that stands in a file of its own.
    Spill(SpillFrame),
    /// What the records behind it in the same submission say together, for a recovery that finds only some of them. In no file of
    /// the evidence.
    Plan(Bytes),
}

/// Bytes of one part of an exchange's content, as the caller encrypted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFrame {
    /// The exchange.
    pub exchange: ExchangeId,
    /// The part.
    pub part: PartName,
    /// Counts the part's frames from 0.
    pub seq: u32,
    /// Bytes handed to the caller's connection when this frame was made (CA-6).
    pub delivered: u64,
    /// The data key; absent where encryption is off.
    pub key_id: Option<Identifier>,
    /// At most [`MAX_CONTENT_BYTES`].
    pub data: Bytes,
}

/// Names a finished spill file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillFrame {
    /// The exchange.
    pub exchange: ExchangeId,
    /// The part.
    pub part: PartName,
    /// How many content frames the file holds.
    pub frames: u32,
    /// `delivered` of its last frame.
    pub delivered: u64,
    /// Bytes of data in its frames.
    pub bytes: u64,
    /// The data key; absent where encryption is off.
    pub key_id: Option<Identifier>,
    /// The file's name in the journal's directory.
    pub file: String,
}

impl Frame {
    /// Bytes of payload: what [`super::Journal::cost`] takes.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Record { leaf, .. } => leaf.len(),
            Self::Content(frame) => frame.data.len(),
            Self::Reference { bytes, .. } => bytes.len(),
            Self::Spill(_) => 0,
            Self::Plan(bytes) => bytes.len(),
        }
    }
}

/// The numbers of what attempts send, and of what is answered, begin here.
const FIRST_REQUEST: u8 = 8;
const FIRST_RESPONSE: u8 = 24;

/// A number per part; never changed, never reused.
pub(super) fn part_number(part: PartName) -> u8 {
    match part {
        PartName::ClientRequestHead => 1,
        PartName::ClientRequest => 2,
        PartName::ProviderRequest => 3,
        PartName::ProviderResponseHead => 4,
        PartName::ProviderResponse => 5,
        PartName::ClientResponse => 6,
        PartName::Error => 7,
        PartName::AttemptRequest(number) => FIRST_REQUEST + number.get(),
        PartName::AttemptResponse(number) => FIRST_RESPONSE + number.get(),
    }
}

fn part_of(number: u8) -> Option<PartName> {
    Some(match number {
        1 => PartName::ClientRequestHead,
        2 => PartName::ClientRequest,
        3 => PartName::ProviderRequest,
        4 => PartName::ProviderResponseHead,
        5 => PartName::ProviderResponse,
        6 => PartName::ClientResponse,
        7 => PartName::Error,
        FIRST_RESPONSE.. => PartName::AttemptResponse(AttemptNumber::new((number - FIRST_RESPONSE).into())?),
        FIRST_REQUEST.. => PartName::AttemptRequest(AttemptNumber::new((number - FIRST_REQUEST).into())?),
        0 => return None,
    })
}

/// An exchange id as 16 bytes.
pub(super) fn exchange_bytes(exchange: &ExchangeId) -> [u8; 16] {
    let mut out = [0; 16];
    let mut digits = exchange.as_str().bytes().filter_map(|b| (b as char).to_digit(16));
    for byte in &mut out {
        let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        *byte = u8::try_from(high * 16 + low).unwrap_or(0);
    }
    out
}

pub(super) fn exchange_of(bytes: [u8; 16]) -> Option<ExchangeId> {
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend([byte >> 4, byte & 15].iter().filter_map(|d| char::from_digit(u32::from(*d), 16)));
    }
    ExchangeId::new(text).ok()
}

/// What the index must know of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meta {
    Record,
    Content { exchange: [u8; 16], part: u8, seq: u32, delivered: u64, bytes: u32, key_id: Option<Identifier> },
    Reference { sha256: Sha256Hex },
    Spill(SpillFrame),
    Plan,
}

/// A frame as it is written: a head, then a payload that may still be where its maker put it.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Range of the submission's buffer.
    pub(super) head: std::ops::Range<usize>,
    /// Follows the head; empty where the payload was copied behind it.
    pub(super) data: Bytes,
    pub(super) meta: Meta,
}

impl Encoded {
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.data.len()
    }
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<(), JournalError> {
    let len = u8::try_from(text.len())
        .map_err(|_| JournalError::FrameTooLarge { bytes: text.len(), limit: usize::from(u8::MAX) })?;
    out.push(len);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends the frame's head (and a small payload) to `buffer`.
pub(super) fn encode(frame: Frame, seed: u32, buffer: &mut Vec<u8>) -> Result<Encoded, JournalError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEAD]);
    let (payload, meta) = match frame {
        Frame::Record { leaf, hash } => {
            buffer.push(RECORD);
            buffer.extend_from_slice(&hash.0);
            (leaf, Meta::Record)
        }
        Frame::Content(frame) => {
            if frame.data.len() > MAX_CONTENT_BYTES {
                return Err(JournalError::FrameTooLarge {
                    bytes: frame.data.len(),
                    limit: MAX_CONTENT_BYTES,
                });
            }
            let (exchange, part) = (exchange_bytes(&frame.exchange), part_number(frame.part));
            buffer.push(CONTENT);
            buffer.extend_from_slice(&exchange);
            buffer.push(part);
            buffer.extend_from_slice(&frame.seq.to_le_bytes());
            buffer.extend_from_slice(&frame.delivered.to_le_bytes());
            text(buffer, frame.key_id.as_ref().map_or("", Identifier::as_str))?;
            let bytes = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
            let (seq, delivered, key_id) = (frame.seq, frame.delivered, frame.key_id);
            (frame.data, Meta::Content { exchange, part, seq, delivered, bytes, key_id })
        }
        Frame::Reference { sha256, media_type, bytes } => {
            buffer.push(REFERENCE);
            buffer.extend_from_slice(&sha256.0);
            text(buffer, &media_type)?;
            (bytes, Meta::Reference { sha256 })
        }
        Frame::Spill(frame) => {
            buffer.push(SPILL);
            buffer.extend_from_slice(&exchange_bytes(&frame.exchange));
            buffer.push(part_number(frame.part));
            buffer.extend_from_slice(&frame.frames.to_le_bytes());
            buffer.extend_from_slice(&frame.delivered.to_le_bytes());
            buffer.extend_from_slice(&frame.bytes.to_le_bytes());
            text(buffer, frame.key_id.as_ref().map_or("", Identifier::as_str))?;
            text(buffer, &frame.file)?;
            (Bytes::new(), Meta::Spill(frame))
        }
        Frame::Plan(bytes) => {
            buffer.push(PLAN);
            (bytes, Meta::Plan)
        }
    };
    let data = if payload.len() <= COPIED {
        buffer.extend_from_slice(&payload);
        Bytes::new()
    } else {
        payload
    };
    let body = buffer.len() - start - FRAME_HEAD + data.len();
    let len = u32::try_from(body)
        .map_err(|_| JournalError::FrameTooLarge { bytes: body, limit: u32::MAX as usize })?;
    let crc = frame_crc(seed, len, buffer.get(start + FRAME_HEAD..).unwrap_or_default(), &data);
    if let Some(head) = buffer.get_mut(start..start + FRAME_HEAD) {
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&crc.to_le_bytes());
    }
    Ok(Encoded { head: start..buffer.len(), data, meta })
}

fn frame_crc(seed: u32, len: u32, head: &[u8], data: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed, &len.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, head), data)
}

/// Takes the first frame off `rest` where its crc is good; `None` where it is not whole or not a frame.
///
/// Returns the bytes that it took and the frame; an unknown kind is not a frame (this version writes none).
pub(super) fn decode(rest: &Bytes, seed: u32) -> Option<(usize, Frame)> {
    let len = u32::from_le_bytes(rest.first_chunk::<4>().copied()?);
    let crc = u32::from_le_bytes(rest.get(4..FRAME_HEAD)?.first_chunk::<4>().copied()?);
    let end = FRAME_HEAD.checked_add(usize::try_from(len).ok()?)?;
    let body = rest.get(FRAME_HEAD..end)?;
    if len == 0 || frame_crc(seed, len, body, &[]) != crc {
        return None;
    }
    let mut fields = Fields { bytes: rest.slice(FRAME_HEAD..end) };
    let frame = match fields.byte()? {
        RECORD => {
            let hash = Sha256Hex(fields.array()?);
            Frame::Record { hash, leaf: fields.bytes }
        }
        CONTENT => {
            let exchange = exchange_of(fields.array()?)?;
            let part = part_of(fields.byte()?)?;
            let seq = u32::from_le_bytes(fields.array()?);
            let delivered = u64::from_le_bytes(fields.array()?);
            let key_id = fields.key_id()?;
            Frame::Content(ContentFrame { exchange, part, seq, delivered, key_id, data: fields.bytes })
        }
        REFERENCE => {
            let sha256 = Sha256Hex(fields.array()?);
            let media_type = fields.text()?;
            Frame::Reference { sha256, media_type, bytes: fields.bytes }
        }
        SPILL => {
            let exchange = exchange_of(fields.array()?)?;
            let part = part_of(fields.byte()?)?;
            let frames = u32::from_le_bytes(fields.array()?);
            let delivered = u64::from_le_bytes(fields.array()?);
            let bytes = u64::from_le_bytes(fields.array()?);
            let key_id = fields.key_id()?;
            let file = fields.text()?;
            Frame::Spill(SpillFrame { exchange, part, frames, delivered, bytes, key_id, file })
        }
        PLAN => Frame::Plan(fields.bytes),
        _ => return None,
    };
    Some((end, frame))
}

/// The index entry of a frame that was read.
pub(super) fn meta(frame: &Frame) -> Meta {
    match frame {
        Frame::Record { .. } => Meta::Record,
        Frame::Content(frame) => Meta::Content {
            exchange: exchange_bytes(&frame.exchange),
            part: part_number(frame.part),
            seq: frame.seq,
            delivered: frame.delivered,
            bytes: u32::try_from(frame.data.len()).unwrap_or(u32::MAX),
            key_id: frame.key_id.clone(),
        },
        Frame::Reference { sha256, .. } => Meta::Reference { sha256: *sha256 },
        Frame::Spill(frame) => Meta::Spill(frame.clone()),
        Frame::Plan(_) => Meta::Plan,
    }
}

pub(super) fn part_name(number: u8) -> Option<PartName> {
    part_of(number)
}

struct Fields {
    bytes: Bytes,
}

impl Fields {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.bytes.len()).then(|| self.bytes.split_to(count))
    }
    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk::<N>().copied()
    }
    fn text(&mut self) -> Option<String> {
        let count = usize::from(self.byte()?);
        String::from_utf8(self.take(count)?.to_vec()).ok()
    }
    fn key_id(&mut self) -> Option<Option<Identifier>> {
        let text = self.text()?;
        if text.is_empty() { Some(None) } else { Identifier::new(text).ok().map(Some) }
    }
}
