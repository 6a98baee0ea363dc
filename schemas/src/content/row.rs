//! A row of a content file: one chunk of one part, encoded and encrypted.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};

use super::{CHUNK_BYTES, ContentError, DataKey, Dictionary, Encoding, KeyId, SALT_BYTES, codec};
use crate::names::{ExchangeId, Origin};
use crate::record::PartName;

/// Which chunk of which part, and how it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMeta {
    /// Position of the record that commits to the part.
    pub position: u64,
    /// The exchange.
    pub exchange: ExchangeId,
    /// The part.
    pub part: PartName,
    /// The chunk, from 0.
    pub chunk: u32,
    /// Whether it is the part's last.
    pub last: bool,
    /// How it is encoded. `Zstd` and `ZstdDict` become `Plain` where they do not make it smaller.
    pub encoding: Encoding,
}

/// A row of a content file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Position of the record that commits to the part.
    pub position: u64,
    /// The exchange.
    pub exchange: ExchangeId,
    /// The part.
    pub part: PartName,
    /// The chunk, from 0.
    pub chunk: u32,
    /// Whether it is the part's last.
    pub last: bool,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The data key; `None` where encryption is off.
    pub key_id: Option<KeyId>,
    /// nonce (12 bytes) || ciphertext || tag (16 bytes); the encoded bytes where encryption is off.
    pub data: Vec<u8>,
}

/// What the ciphertext of a row is bound to.
pub fn aad(
    origin: &Origin,
    exchange: &ExchangeId,
    part: PartName,
    chunk: u32,
    last: bool,
    encoding: &Encoding,
    key_id: &KeyId,
) -> Vec<u8> {
    let (part, last) = (part.as_str(), u8::from(last));
    format!("affidavit/content/v1\n{origin}\n{exchange}\n{part}\n{chunk}\n{last}\n{encoding}\n{key_id}\n")
        .into_bytes()
}

/// Encodes and encrypts one chunk. Equal input gives equal bytes.
///
/// `plaintext` is a chunk as [`super::cut`] makes it: the salt in front of chunk 0.
///
/// # Errors
/// A chunk that is too long, a key of another log, a dictionary encoding (see [`seal_row_with`]).
pub fn seal_row(
    origin: &Origin,
    meta: &RowMeta,
    key: Option<(&KeyId, &DataKey)>,
    plaintext: &[u8],
) -> Result<Row, ContentError> {
    seal_row_with(origin, meta, key, &[], plaintext)
}

/// As [`seal_row`], with dictionaries.
///
/// # Errors
/// As [`seal_row`], and a dictionary that is not among them.
pub fn seal_row_with(
    origin: &Origin,
    meta: &RowMeta,
    key: Option<(&KeyId, &DataKey)>,
    dictionaries: &[Dictionary],
    plaintext: &[u8],
) -> Result<Row, ContentError> {
    let limit = chunk_limit(meta.chunk);
    if plaintext.len() > limit {
        return Err(ContentError::TooLong { limit });
    }
    let mut encoding = meta.encoding.clone();
    let mut data = codec::encode(&encoding, dictionaries, plaintext)?;
    if data.len() >= plaintext.len() && matches!(encoding, Encoding::Zstd | Encoding::ZstdDict { .. }) {
        encoding = Encoding::Plain;
        data = plaintext.to_vec();
    }
    if let Some((key_id, data_key)) = key {
        same_log(key_id, origin)?;
        let aad = aad(origin, &meta.exchange, meta.part, meta.chunk, meta.last, &encoding, key_id);
        let nonce = data_key.nonce(&aad, &data);
        let mut sealed = Vec::with_capacity(NONCE_LEN + data.len() + MAX_TAG_LEN);
        sealed.extend_from_slice(&nonce);
        let tag = cipher(data_key)
            .and_then(|cipher| {
                let nonce = Nonce::assume_unique_for_key(nonce);
                cipher.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut data)
            })
            .map_err(|_| ContentError::Encrypt)?;
        sealed.extend_from_slice(&data);
        sealed.extend_from_slice(tag.as_ref());
        data = sealed;
    }
    Ok(Row {
        position: meta.position,
        exchange: meta.exchange.clone(),
        part: meta.part,
        chunk: meta.chunk,
        last: meta.last,
        encoding,
        key_id: key.map(|(key_id, _)| key_id.clone()),
        data,
    })
}

/// Decrypts and decodes one row of the log `origin`; gives the chunk, with the salt in front of chunk 0.
///
/// The result is at most [`CHUNK_BYTES`] (and the salt) long, whatever the row says.
///
/// # Errors
/// The key absent or another, a changed row, bytes that are not of the encoding, a dictionary encoding.
pub fn open_row(
    origin: &Origin,
    row: &Row,
    key: Option<(&KeyId, &DataKey)>,
) -> Result<Vec<u8>, ContentError> {
    open_row_with(origin, row, key, &[])
}

/// As [`open_row`], with dictionaries.
///
/// # Errors
/// As [`open_row`], and a dictionary that is not among them.
pub fn open_row_with(
    origin: &Origin,
    row: &Row,
    key: Option<(&KeyId, &DataKey)>,
    dictionaries: &[Dictionary],
) -> Result<Vec<u8>, ContentError> {
    let limit = chunk_limit(row.chunk);
    let Some(key_id) = &row.key_id else {
        return codec::decode(&row.encoding, dictionaries, &row.data, limit);
    };
    same_log(key_id, origin)?;
    let Some((given, data_key)) = key else {
        return Err(ContentError::KeyAbsent(key_id.clone()));
    };
    if given != key_id {
        return Err(ContentError::KeyMismatch { found: key_id.clone(), wanted: given.to_string() });
    }
    let aad = aad(origin, &row.exchange, row.part, row.chunk, row.last, &row.encoding, key_id);
    let (nonce, sealed) = row.data.split_first_chunk::<NONCE_LEN>().ok_or(ContentError::Decrypt)?;
    let mut sealed = sealed.to_vec();
    let encoded = cipher(data_key)
        .and_then(|cipher| {
            cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(&aad), &mut sealed)
        })
        .map_err(|_| ContentError::Decrypt)?;
    codec::decode(&row.encoding, dictionaries, encoded, limit)
}

fn chunk_limit(chunk: u32) -> usize {
    if chunk == 0 { SALT_BYTES + CHUNK_BYTES } else { CHUNK_BYTES }
}

fn same_log(key_id: &KeyId, origin: &Origin) -> Result<(), ContentError> {
    if key_id.origin == *origin {
        Ok(())
    } else {
        Err(ContentError::KeyMismatch { found: key_id.clone(), wanted: origin.to_string() })
    }
}

fn cipher(key: &DataKey) -> Result<LessSafeKey, ring::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, key.as_bytes()).map(LessSafeKey::new)
}
