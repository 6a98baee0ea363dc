//! A secret that no message shows, and the fingerprint that stands for it in the configuration of record.

use std::fmt;

use ring::hmac;
use zeroize::{Zeroize as _, Zeroizing};

/// A provider's key. `Debug` and `Display` do not show it; memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a key that can stand in a header: 1 to 8192 visible ASCII characters.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=8192).contains(&text.len());
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Takes the whole value of a header, which may have spaces in it, as `Bearer TOKEN` has.
    pub(super) fn header_value(text: &str) -> Option<Self> {
        let fits = (1..=8192).contains(&text.len()) && text.trim() == text;
        (fits && text.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
            .then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself: for the header to the provider and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Makes fingerprints: 8 bytes of HMAC-SHA-256 in hex, under a key derived from the seal key, so that nobody
/// without that key can try candidates against them.
pub(super) struct Fingerprints(hmac::Key);

impl Fingerprints {
    pub(super) fn new(seal_seed: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, derive(seal_seed, b"affidavit/fingerprint/v1").as_ref()))
    }

    pub(super) fn of(&self, label: &str, secret: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label.as_bytes());
        context.update(&[0]);
        context.update(secret);
        format!("hmac-sha256:{}", hex::encode(&context.sign().as_ref()[..8]))
    }
}

/// A key of its own for one purpose.
pub(super) fn derive(seed: &[u8; 32], purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), purpose);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(tag.as_ref());
    key
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Bytes of a file that holds a secret; wiped when they go.
pub(super) struct SecretBytes(pub(super) Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("sk-very-secret").unwrap();
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.expose(), "sk-very-secret");
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_no_secret() {
        for text in ["", "a b", "a\nb", "ключ", &"x".repeat(8193)] {
            assert!(Secret::new(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn fingerprints_depend_on_key_label_and_secret() {
        let of =
            |seed: u8, label: &str, secret: &str| Fingerprints::new(&[seed; 32]).of(label, secret.as_bytes());
        let one = of(1, "a", "s");
        assert_eq!(one.len(), "hmac-sha256:".len() + 16);
        assert_eq!(one, of(1, "a", "s"));
        for other in [of(2, "a", "s"), of(1, "b", "s"), of(1, "a", "t")] {
            assert_ne!(one, other);
        }
    }
}
