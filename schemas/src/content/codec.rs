//! zstd frames: one frame a chunk, level 3, with its content's size and without a checksum.

use std::cell::RefCell;
use std::fmt;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe;

use super::{ContentError, Encoding};
use crate::digest::Sha256Hex;

/// The level at which rows are written. Any level can be read.
const LEVEL: i32 = 3;

thread_local! {
    // Contexts are costly to make and keep no state from one frame to the next.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A zstd dictionary of the reference files, made ready for use.
pub struct Dictionary {
    sha256: Sha256Hex,
    encoder: EncoderDictionary<'static>,
    decoder: DecoderDictionary<'static>,
}

impl Dictionary {
    /// Prepares a dictionary.
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            sha256: Sha256Hex::of(bytes),
            encoder: EncoderDictionary::copy(bytes, LEVEL),
            decoder: DecoderDictionary::copy(bytes),
        }
    }
    /// SHA-256 of its bytes: how an encoding names it.
    pub fn sha256(&self) -> Sha256Hex {
        self.sha256
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
    match encoding {
        Encoding::Plain => Ok(plain.to_vec()),
        Encoding::Zstd | Encoding::Delta { .. } => COMPRESSOR.with_borrow_mut(|slot| {
            let compressor = match slot {
                Some(compressor) => compressor,
                None => slot.insert(Compressor::new(LEVEL).map_err(|e| failed(encoding, e))?),
            };
            compressor.compress(plain).map_err(|e| failed(encoding, e))
        }),
        Encoding::ZstdDict { dictionary: sha256 } => {
            let dictionary = dictionary(sha256, known)?;
            let mut compressor =
                Compressor::with_prepared_dictionary(&dictionary.encoder).map_err(|e| failed(encoding, e))?;
            compressor.compress(plain).map_err(|e| failed(encoding, e))
        }
    }
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
    let plain = match encoding {
        Encoding::ZstdDict { dictionary: sha256 } => {
            let dictionary = dictionary(sha256, known)?;
            Decompressor::with_prepared_dictionary(&dictionary.decoder)
                .and_then(|mut decompressor| decompressor.decompress(data, size))
        }
        _ => DECOMPRESSOR.with_borrow_mut(|slot| {
            let decompressor = match slot {
                Some(decompressor) => decompressor,
                None => slot.insert(Decompressor::new()?),
            };
            decompressor.decompress(data, size)
        }),
    };
    let plain = plain.map_err(|e| failed(encoding, e))?;
    if plain.len() == size {
        Ok(plain)
    } else {
        Err(failed(encoding, "the frame's content has another size"))
    }
}
