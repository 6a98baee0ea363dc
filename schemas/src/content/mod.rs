//! Content: what a leaf only commits to. Salts, commitments, chunks, encodings and encryption.
//!
//! A part is committed to as SHA-256(salt || content). It is stored as rows: the *stream* (the content, or the edits
//! that make it from another part) is cut every [`CHUNK_BYTES`]; chunk 0 has the salt in front; each chunk is encoded,
//! then encrypted as nonce (12 bytes) || AES-256-GCM. Format: `FORMAT.md` 7.

mod assemble;
mod codec;
mod delta;
mod keys;
mod row;

use std::fmt;
use std::str::FromStr;

pub use assemble::{Assembled, Assembler, Chunk, cut};
pub use codec::{DICTIONARY_MEDIA_TYPE, Dictionary, MAX_DICTIONARY_BYTES};
pub use delta::{apply, delta};
pub use keys::{DataKey, NONCE_LABEL};
pub use row::{Row, RowMeta, aad, open_row, open_row_with, seal_row, seal_row_with};

pub use crate::keytable::KeyId;

use crate::digest::{Hasher, Sha256Hex};
use crate::names::ExchangeId;
use crate::record::PartName;

/// Bytes of the stream in every chunk of a part but its last.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of a salt.
pub const SALT_BYTES: usize = 32;

/// The longest chain of deltas: a part whose base has a base, and so on.
pub const MAX_DELTA_DEPTH: usize = 256;

/// How much older, by the times of their seals, the batch of a chain's first part may be than that of its last, microseconds.
pub const MAX_DELTA_SPAN_US: i64 = 86_400 * 1_000_000;

/// The most bytes that a row's `data` may hold: a chunk with its salt, what zstd adds to the incompressible, nonce, tag.
pub const MAX_ROW_BYTES: usize = CHUNK_BYTES + (CHUNK_BYTES >> 7) + 1024;

/// Why content could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The row is encrypted and its key was not given.
    #[error("the data key `{0}` is not there")]
    KeyAbsent(KeyId),
    /// The key that was given is not the row's, or belongs to another log.
    #[error("the row names data key `{found}`, wanted one of `{wanted}`")]
    KeyMismatch {
        /// The key that the row names.
        found: KeyId,
        /// The key or the log that was given.
        wanted: String,
    },
    /// The ciphertext, or what it is bound to, was changed.
    #[error("the row does not decrypt under its data key")]
    Decrypt,
    /// The row could not be encrypted.
    #[error("the row could not be encrypted")]
    Encrypt,
    /// The bytes are not of the row's encoding.
    #[error("encoding `{encoding}`: {reason}")]
    Encoding {
        /// The row's encoding.
        encoding: String,
        /// What is wrong.
        reason: String,
    },
    /// Not the text of an encoding.
    #[error(
        "`{0}` is not an encoding: wanted `plain`, `zstd`, `zstd_dict:<sha256>` or `delta:<exchange>:<part>`"
    )]
    EncodingName(String),
    /// The dictionary that the row names was not given.
    #[error("the dictionary {0} is not there")]
    DictionaryAbsent(Sha256Hex),
    /// Bytes that are no dictionary of the format.
    #[error("the dictionary {sha256}: {reason}")]
    Dictionary {
        /// SHA-256 of the bytes.
        sha256: Sha256Hex,
        /// What is wrong.
        reason: &'static str,
    },
    /// More bytes than are allowed.
    #[error("more than {limit} bytes")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// Rows that do not make one part.
    #[error("chunk {chunk}: {reason}")]
    Chunks {
        /// The chunk.
        chunk: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Edits that cannot be applied.
    #[error("edits at byte {offset}: {reason}")]
    Delta {
        /// Where in the edits.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Edits without the content that they edit.
    #[error("the base `{0}` is not there")]
    BaseAbsent(String),
}

/// The 32 random bytes that keep a commitment from being guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; SALT_BYTES]);

impl Salt {
    /// Takes 32 bytes of the system's random generator.
    pub fn from_bytes(bytes: [u8; SALT_BYTES]) -> Self {
        Self(bytes)
    }
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; SALT_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// SHA-256(salt || content).
pub fn commitment(salt: &Salt, content: &[u8]) -> Sha256Hex {
    let mut committer = Committer::new(salt);
    committer.update(content);
    committer.finish().1
}

/// Makes a commitment piece by piece.
#[derive(Clone)]
pub struct Committer {
    hasher: Hasher,
    length: u64,
}

impl Committer {
    /// Begins with the salt.
    pub fn new(salt: &Salt) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(salt.0);
        Self { hasher, length: 0 }
    }
    /// Takes the next bytes of content.
    pub fn update(&mut self, content: &[u8]) {
        self.hasher.update(content);
        self.length += content.len() as u64;
    }
    /// Bytes of content so far.
    pub fn length(&self) -> u64 {
        self.length
    }
    /// The length of the content and the commitment.
    pub fn finish(self) -> (u64, Sha256Hex) {
        (self.length, self.hasher.finish())
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committer({} bytes)", self.length)
    }
}

/// How a chunk is written, before encryption.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// One zstd frame that states its content's size.
    Zstd,
    /// As `Zstd`, with a dictionary of the reference files.
    ZstdDict {
        /// SHA-256 of the dictionary.
        dictionary: Sha256Hex,
    },
    /// One zstd frame over a chunk of the edits that make the part from another one.
    Delta {
        /// The exchange of the other part: of the same log, data key and retention class.
        base_exchange: ExchangeId,
        /// The other part.
        base_part: PartName,
    },
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("plain"),
            Self::Zstd => f.write_str("zstd"),
            Self::ZstdDict { dictionary } => write!(f, "zstd_dict:{dictionary}"),
            Self::Delta { base_exchange, base_part } => {
                write!(f, "delta:{base_exchange}:{}", base_part.as_str())
            }
        }
    }
}

impl FromStr for Encoding {
    type Err = ContentError;
    fn from_str(text: &str) -> Result<Self, ContentError> {
        let wrong = || ContentError::EncodingName(text.chars().take(128).collect());
        match text.split_once(':') {
            None if text == "plain" => Ok(Self::Plain),
            None if text == "zstd" => Ok(Self::Zstd),
            Some(("zstd_dict", hash)) => {
                Ok(Self::ZstdDict { dictionary: Sha256Hex::parse(hash).ok_or_else(wrong)? })
            }
            Some(("delta", base)) => {
                let (exchange, part) = base.split_once(':').ok_or_else(wrong)?;
                Ok(Self::Delta {
                    base_exchange: ExchangeId::new(exchange).map_err(|_| wrong())?,
                    base_part: PartName::parse(part).ok_or_else(wrong)?,
                })
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests;
