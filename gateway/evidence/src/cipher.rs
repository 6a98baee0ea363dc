//! How content is encrypted in the journal: AES-256-GCM under the exchange's data key, a random nonce a frame, and a
//! label of its own, so that no frame can pass for a sealed row.
//!
//! ```text
//! data       = nonce (12) || ciphertext || tag (16)          (encryption off: the plaintext)
//! plaintext  = salt (32, only frame 0 of a part) || content
//! AAD        = "affidavit/journal/v1\n<origin>\n<exchange>\n<part>\n<sequence>\n<key id>\n"
//! ```

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use schemas::record::PartName;
use schemas::{ExchangeId, Identifier, Origin};

use crate::journal::ContentFrame;
use crate::random;

/// Bytes of a part's salt.
pub(crate) const SALT_BYTES: usize = 32;

/// A data key, its name, and its key schedule.
pub(crate) struct ContentKey {
    /// As records name it.
    pub(crate) id: Identifier,
    aead: LessSafeKey,
}

impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a frame could not be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CipherError {
    /// The system gives no random bytes, or the key is no key.
    #[error("a content frame could not be encrypted")]
    Seal,
    /// The frame is not what was written under this key.
    #[error("a content frame of the journal does not open under its data key")]
    Open,
}

impl ContentKey {
    pub(crate) fn new(id: Identifier, key: &[u8; 32]) -> Result<Self, CipherError> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| CipherError::Seal)?;
        Ok(Self { id, aead: LessSafeKey::new(key) })
    }
}

/// Where a frame belongs.
pub(crate) struct Place<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) exchange: &'a ExchangeId,
    pub(crate) part: PartName,
    pub(crate) seq: u32,
}

impl Place<'_> {
    fn aad(&self, key: &Identifier) -> Vec<u8> {
        let lines = [self.origin.as_str(), self.exchange.as_str(), self.part.as_str()];
        let mut aad = Vec::with_capacity(320);
        aad.extend_from_slice(b"affidavit/journal/v1\n");
        for line in lines {
            aad.extend_from_slice(line.as_bytes());
            aad.push(b'\n');
        }
        aad.extend_from_slice(self.seq.to_string().as_bytes());
        aad.push(b'\n');
        aad.extend_from_slice(key.as_str().as_bytes());
        aad.push(b'\n');
        aad
    }
}

/// Makes a frame's data of `salt` (frame 0 only) and `content`.
pub(crate) fn seal(
    key: Option<&ContentKey>,
    place: &Place<'_>,
    salt: Option<&[u8; SALT_BYTES]>,
    content: &[u8],
) -> Result<Bytes, CipherError> {
    let salt: &[u8] = salt.map_or(&[], |salt| salt);
    let Some(key) = key else {
        let mut data = Vec::with_capacity(salt.len() + content.len());
        data.extend_from_slice(salt);
        data.extend_from_slice(content);
        return Ok(data.into());
    };
    let nonce = random::bytes::<NONCE_LEN>();
    let mut data = Vec::with_capacity(NONCE_LEN + salt.len() + content.len() + AES_256_GCM.tag_len());
    data.extend_from_slice(&nonce);
    data.extend_from_slice(salt);
    data.extend_from_slice(content);
    let Some(body) = data.get_mut(NONCE_LEN..) else { return Err(CipherError::Seal) };
    let aad = Aad::from(place.aad(&key.id));
    let tag = key
        .aead
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body)
        .map_err(|_| CipherError::Seal)?;
    data.extend_from_slice(tag.as_ref());
    Ok(data.into())
}

/// Opens a frame's data; the salt is still in front of frame 0.
pub(crate) fn open(
    key: Option<&ContentKey>,
    origin: &Origin,
    frame: &ContentFrame,
) -> Result<Bytes, CipherError> {
    let Some(key) = key else {
        return if frame.key_id.is_none() { Ok(frame.data.clone()) } else { Err(CipherError::Open) };
    };
    let (nonce, body) = frame.data.split_first_chunk::<NONCE_LEN>().ok_or(CipherError::Open)?;
    let place = Place { origin, exchange: &frame.exchange, part: frame.part, seq: frame.seq };
    let mut body = body.to_vec();
    let length = key
        .aead
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place.aad(&key.id)), &mut body)
        .map_err(|_| CipherError::Open)?
        .len();
    body.truncate(length);
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn frame(key: Option<&ContentKey>, seq: u32, content: &[u8]) -> ContentFrame {
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let exchange = crate::exchange_id::new(1);
        let part = PartName::ClientRequest;
        let place = Place { origin: &origin, exchange: &exchange, part, seq };
        let data = seal(key, &place, (seq == 0).then_some(&[7; 32]), content).unwrap();
        ContentFrame { exchange, part, seq, delivered: 0, key_id: key.map(|key| key.id.clone()), data }
    }

    #[test]
    fn a_frame_opens_only_under_its_key_and_in_its_place() {
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let key = ContentKey::new(Identifier::new("k1").unwrap(), &[1; 32]).unwrap();
        let other = ContentKey::new(Identifier::new("k1").unwrap(), &[2; 32]).unwrap();
        let good = frame(Some(&key), 0, b"hello");
        assert_eq!(&open(Some(&key), &origin, &good).unwrap()[32..], b"hello");
        assert_eq!(open(Some(&other), &origin, &good), Err(CipherError::Open));
        assert_eq!(open(Some(&key), &Origin::new("acme/gw1/e2").unwrap(), &good), Err(CipherError::Open));
        assert_eq!(
            open(Some(&key), &origin, &ContentFrame { seq: 1, ..good.clone() }),
            Err(CipherError::Open)
        );
        assert_eq!(open(None, &origin, &good), Err(CipherError::Open));
        for at in 0..good.data.len() {
            let mut data = good.data.to_vec();
            data[at] ^= 1;
            let bad = ContentFrame { data: data.into(), ..good.clone() };
            assert_eq!(open(Some(&key), &origin, &bad), Err(CipherError::Open), "byte {at}");
        }
    }

    #[test]
    fn the_same_content_twice_gives_different_bytes() {
        let key = ContentKey::new(Identifier::new("k1").unwrap(), &[1; 32]).unwrap();
        assert_ne!(frame(Some(&key), 1, b"hello").data, frame(Some(&key), 1, b"hello").data);
    }

    #[test]
    fn without_a_key_a_frame_is_its_plaintext() {
        let origin = Origin::new("acme/gw1/e1").unwrap();
        assert_eq!(&open(None, &origin, &frame(None, 1, b"hello")).unwrap()[..], b"hello");
    }
}
