//! From a stream to chunks, and from chunks back to a stream.

use super::{CHUNK_BYTES, ContentError, Encoding, SALT_BYTES, Salt, delta};
use crate::names::ExchangeId;
use crate::record::PartName;

/// One chunk before encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its number, from 0.
    pub chunk: u32,
    /// Whether it is the last.
    pub last: bool,
    /// Its bytes, with the salt in front of chunk 0.
    pub plaintext: Vec<u8>,
}

/// Cuts a stream into chunks: always at least one, every one but the last of [`CHUNK_BYTES`].
pub fn cut<'a>(salt: &'a Salt, stream: &'a [u8]) -> impl Iterator<Item = Chunk> + 'a {
    let count = stream.len().div_ceil(CHUNK_BYTES).max(1);
    (0..count).map(move |i| {
        let from = i * CHUNK_BYTES;
        let piece = &stream[from..stream.len().min(from + CHUNK_BYTES)];
        let salt: &[u8] = if i == 0 { salt.as_bytes() } else { &[] };
        Chunk { chunk: i as u32, last: i + 1 == count, plaintext: [salt, piece].concat() }
    })
}

/// Puts the chunks of one part together again.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    next: u32,
    ended: bool,
    salt: Option<Salt>,
    base: Option<(ExchangeId, PartName)>,
    stream: Vec<u8>,
}

/// A part put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The salt.
    pub salt: Salt,
    /// The part whose content the stream edits; `None`: the stream is the content.
    pub base: Option<(ExchangeId, PartName)>,
    /// The content, or the edits that make it.
    pub stream: Vec<u8>,
}

impl Assembler {
    /// Begins a part whose stream has at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, next: 0, ended: false, salt: None, base: None, stream: Vec::new() }
    }

    /// Takes the next chunk, as [`super::open_row`] gives it.
    ///
    /// # Errors
    /// A chunk out of its turn, of a wrong length, of an encoding that does not go with the others, over the limit.
    pub fn push(
        &mut self,
        chunk: u32,
        last: bool,
        encoding: &Encoding,
        plaintext: &[u8],
    ) -> Result<(), ContentError> {
        let wrong = |reason| Err(ContentError::Chunks { chunk, reason });
        if self.ended {
            return wrong("follows the last chunk");
        }
        if chunk != self.next {
            return wrong("is out of its turn");
        }
        let base = match encoding {
            Encoding::Delta { base_exchange, base_part } => Some((base_exchange.clone(), *base_part)),
            _ => None,
        };
        let piece = if chunk == 0 {
            let Some((salt, piece)) = plaintext.split_first_chunk::<SALT_BYTES>() else {
                return wrong("has no salt");
            };
            self.salt = Some(Salt::from_bytes(*salt));
            self.base = base;
            piece
        } else {
            if base != self.base {
                return wrong("has another base than the chunks before");
            }
            plaintext
        };
        let full = piece.len() == CHUNK_BYTES;
        if !full && !last || piece.len() > CHUNK_BYTES || (piece.is_empty() && chunk > 0) {
            return wrong("has a wrong length");
        }
        if self.stream.len() + piece.len() > self.limit {
            return Err(ContentError::TooLong { limit: self.limit });
        }
        self.stream.extend_from_slice(piece);
        self.ended = last;
        self.next += 1;
        Ok(())
    }

    /// Ends the part.
    ///
    /// # Errors
    /// The last chunk did not come.
    pub fn finish(self) -> Result<Assembled, ContentError> {
        match self.salt {
            Some(salt) if self.ended => Ok(Assembled { salt, base: self.base, stream: self.stream }),
            _ => Err(ContentError::Chunks { chunk: self.next, reason: "is missing" }),
        }
    }
}

impl Assembled {
    /// The content, at most `limit` bytes of it; `base` is the content of the part that `self.base` names.
    ///
    /// # Errors
    /// A base that is named and not given, edits that cannot be applied, more than `limit` bytes.
    pub fn content(self, base: Option<&[u8]>, limit: usize) -> Result<Vec<u8>, ContentError> {
        match (self.base, base) {
            (None, _) if self.stream.len() > limit => Err(ContentError::TooLong { limit }),
            (None, _) => Ok(self.stream),
            (Some(_), Some(base)) => delta::apply(base, &self.stream, limit),
            (Some((exchange, part)), None) => {
                Err(ContentError::BaseAbsent(format!("{exchange}:{}", part.as_str())))
            }
        }
    }
}
