//! Data keys: one hides the content of one exchange, or of one subject's or consumer's day.

use std::fmt;

use ring::hmac;
use zeroize::{Zeroize as _, Zeroizing};

/// What the nonce key is derived with.
pub const NONCE_LABEL: &[u8] = b"affidavit/nonce/v1";

/// A data key: 32 random bytes, wiped when dropped.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// Takes 32 bytes of the system's random generator.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// HMAC-SHA-256(data key, `affidavit/nonce/v1`): the key of the nonces of sealed rows.
    pub fn nonce_key(&self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), NONCE_LABEL).as_ref());
        key
    }
    /// The first 12 bytes of HMAC-SHA-256(nonce key, aad || encoded).
    pub(super) fn nonce(&self, aad: &[u8], encoded: &[u8]) -> [u8; 12] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*self.nonce_key()));
        context.update(aad);
        context.update(encoded);
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&context.sign().as_ref()[..12]);
        nonce
    }
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}
