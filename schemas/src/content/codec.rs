//! zstd frames: one frame a chunk, level 3, with its content's size and without a checksum.

use std::cell::RefCell;
use std::fmt;
use std::sync::OnceLock;

use zstd::zstd_safe::{self, CCtx, CDict, CompressionLevel, DCtx, DDict};

use super::{ContentError, Encoding};
use crate::digest::Sha256Hex;

/// The level at which rows are written. Any level can be read.
const LEVEL: CompressionLevel = 3;

/// The longest dictionary.
pub const MAX_DICTIONARY_BYTES: usize = 1 << 20;

/// The media type of a dictionary in a reference file.
pub const DICTIONARY_MEDIA_TYPE: &str = "application/zstd-dictionary";

/// How a trained dictionary begins; those of the format are raw content.
const TRAINED: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

thread_local! {
    // Contexts are costly to make and keep no state from one frame to the next.
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// A zstd dictionary of the reference files: raw content. Made ready for either use when it is first needed.
pub struct Dictionary {
    sha256: Sha256Hex,
    bytes: Box<[u8]>,
    encoder: OnceLock<CDict<'static>>,
    decoder: OnceLock<DDict<'static>>,
}

impl Dictionary {
    /// Takes a dictionary's bytes.
    ///
    /// # Errors
    /// More than [`MAX_DICTIONARY_BYTES`], none, or a trained dictionary, which brings tables of its own.
    pub fn new(bytes: &[u8]) -> Result<Self, ContentError> {
        let sha256 = Sha256Hex::of(bytes);
        let refuse = |reason| Err(ContentError::Dictionary { sha256, reason });
        if bytes.is_empty() || bytes.len() > MAX_DICTIONARY_BYTES {
            return refuse("it does not have 1 to 1,048,576 bytes");
        }
        if bytes.starts_with(&TRAINED) {
            return refuse("it is a trained dictionary, not raw content");
        }
        Ok(Self { sha256, bytes: bytes.into(), encoder: OnceLock::new(), decoder: OnceLock::new() })
    }
    /// SHA-256 of its bytes: how an encoding names it.
    pub fn sha256(&self) -> Sha256Hex {
        self.sha256
    }
    fn encoder(&self) -> &CDict<'static> {
        self.encoder.get_or_init(|| zstd_safe::create_cdict(&self.bytes, LEVEL))
    }
    fn decoder(&self) -> &DDict<'static> {
        self.decoder.get_or_init(|| zstd_safe::create_ddict(&self.bytes))
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary({})", self.sha256)
    }
}

fn failed(encoding: &Encoding, reason: impl fmt::Display) -> ContentError {
    ContentError::Encoding { encoding: encoding.to_string(), reason: reason.to_string() }
}

fn dictionary<'a>(sha256: &Sha256Hex, known: &'a [Dictionary]) -> Result<&'a Dictionary, ContentError> {
    known.iter().find(|d| d.sha256 == *sha256).ok_or(ContentError::DictionaryAbsent(*sha256))
}

pub(super) fn encode(
    encoding: &Encoding,
    known: &[Dictionary],
    plain: &[u8],
) -> Result<Vec<u8>, ContentError> {
    let with = match encoding {
        Encoding::Plain => return Ok(plain.to_vec()),
        Encoding::Zstd | Encoding::Delta { .. } => None,
        Encoding::ZstdDict { dictionary: sha256 } => Some(dictionary(sha256, known)?),
    };
    COMPRESSOR.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(CCtx::try_create().ok_or_else(|| failed(encoding, "no memory"))?),
        };
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        let done = match with {
            None => context.compress(&mut out, plain, LEVEL),
            Some(dictionary) => context.compress_using_cdict(&mut out, plain, dictionary.encoder()),
        };
        done.map_err(|code| failed(encoding, zstd_safe::get_error_name(code)))?;
        Ok(out)
    })
}

/// Decodes at most `limit` bytes.
pub(super) fn decode(
    encoding: &Encoding,
    known: &[Dictionary],
    data: &[u8],
    limit: usize,
) -> Result<Vec<u8>, ContentError> {
    if *encoding == Encoding::Plain {
        return if data.len() <= limit { Ok(data.to_vec()) } else { Err(ContentError::TooLong { limit }) };
    }
    let size = match zstd_safe::get_frame_content_size(data) {
        Ok(Some(size)) => usize::try_from(size).unwrap_or(usize::MAX),
        Ok(None) => return Err(failed(encoding, "the frame does not state its content's size")),
        Err(_) => return Err(failed(encoding, "not a zstd frame")),
    };
    if size > limit {
        return Err(ContentError::TooLong { limit });
    }
    if zstd_safe::find_frame_compressed_size(data) != Ok(data.len()) {
        return Err(failed(encoding, "not exactly one whole zstd frame"));
    }
    let with = match encoding {
        Encoding::ZstdDict { dictionary: sha256 } => Some(dictionary(sha256, known)?),
        _ => None,
    };
    let plain = DECOMPRESSOR.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(DCtx::try_create().ok_or_else(|| failed(encoding, "no memory"))?),
        };
        let mut out = Vec::with_capacity(size);
        let done = match with {
            None => context.decompress(&mut out, data),
            Some(dictionary) => context.decompress_using_ddict(&mut out, data, dictionary.decoder()),
        };
        done.map_err(|code| failed(encoding, zstd_safe::get_error_name(code)))?;
        Ok(out)
    })?;
    if plain.len() == size {
        Ok(plain)
    } else {
        Err(failed(encoding, "the frame's content has another size"))
    }
}
