//! A witness's word: as of this time the largest consistent tree that it saw of this log has this root.
//!
//! ```text
//! signed:  cosignature/v1\n  time <seconds>\n  <text of the checkpoint>
//! line:    — <witness> <base64(key id || seconds, 8 bytes big-endian || Ed25519 signature)>
//! ```
//! Key id: the first 4 bytes of SHA-256(name || 0x0A || 0x04 || public key). Source: <https://c2sp.org/tlog-cosignature>.

use crate::canonical::MAX_INTEGER;
use crate::note::{NamedKey, NoteError, Signature, Signer};

/// The signature type of a timestamped Ed25519 cosignature.
pub const COSIGNATURE_TYPE: u8 = 0x04;

/// Why a cosignature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CosignatureError {
    /// By another key: not judged.
    #[error("a signature by another key than `{0}`")]
    OtherKey(String),
    /// Not 8 bytes of time and 64 of signature.
    #[error("the cosignature by `{name}` has {found} bytes: wanted 72")]
    Length {
        /// The witness.
        name: String,
        /// Its bytes.
        found: usize,
    },
    /// A time beyond 2^53 seconds.
    #[error("the cosignature by `{0}` has a time beyond 2^53 seconds")]
    Time(String),
    /// The signature does not hold.
    #[error("the cosignature by `{0}` does not hold")]
    Bad(String),
}

/// A witness's public key with the name under which it cosigns.
pub type WitnessKey = NamedKey<COSIGNATURE_TYPE>;

impl WitnessKey {
    /// Verifies a signature line over a checkpoint's text: the time that it states, seconds UTC.
    ///
    /// # Errors
    /// [`CosignatureError`]; all but [`CosignatureError::OtherKey`] make the whole note invalid.
    pub fn verify(&self, text: &str, signature: &Signature) -> Result<u64, CosignatureError> {
        if !self.is_named_by(signature) {
            return Err(CosignatureError::OtherKey(self.name().to_owned()));
        }
        let wrong =
            || CosignatureError::Length { name: self.name().to_owned(), found: signature.bytes.len() };
        let (time, bytes) = signature.bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        if bytes.len() != 64 {
            return Err(wrong());
        }
        let time_s = u64::from_be_bytes(*time);
        if time_s > MAX_INTEGER.unsigned_abs() {
            return Err(CosignatureError::Time(self.name().to_owned()));
        }
        if self.holds(cosignature_text(text, time_s).as_bytes(), bytes) {
            Ok(time_s)
        } else {
            Err(CosignatureError::Bad(self.name().to_owned()))
        }
    }

    /// The one signature line of an answer that is by this key, verified, with its time. Lines by others are ignored.
    ///
    /// # Errors
    /// No line of the form of a signature's, none by this key, one that does not hold.
    pub fn find(&self, text: &str, lines: &str) -> Result<(Signature, u64), String> {
        let lines = crate::note::parse_signatures(lines).map_err(|error| error.to_string())?;
        let mut found = None;
        for line in lines.into_iter().filter(|line| self.is_named_by(line)) {
            let time_s = self.verify(text, &line).map_err(|error| error.to_string())?;
            found.get_or_insert((line, time_s));
        }
        found.ok_or_else(|| format!("no cosignature by `{}`", self.name()))
    }
}

/// What a cosignature signs.
pub fn cosignature_text(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

/// Cosigns the text of a checkpoint.
///
/// # Errors
/// A name that cannot be a key's.
pub fn cosign(text: &str, name: &str, time_s: u64, signer: &dyn Signer) -> Result<Signature, NoteError> {
    let key = WitnessKey::new(name, signer.public_key())?;
    let mut bytes = time_s.to_be_bytes().to_vec();
    bytes.extend_from_slice(&signer.sign(cosignature_text(text, time_s).as_bytes()));
    Ok(Signature { name: name.into(), id: key.id(), bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::note::Ed25519Signer;

    const TEXT: &str = "example.com/log\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn witness() -> (Ed25519Signer, WitnessKey) {
        let signer = Ed25519Signer::from_seed([7; 32]);
        let key = WitnessKey::new("witness.example/w1", signer.public_key()).unwrap();
        (signer, key)
    }

    #[test]
    fn a_cosignature_holds_for_its_text_time_and_key_only() {
        let (signer, key) = witness();
        let line = cosign(TEXT, key.name(), 1_679_315_147, &signer).unwrap();
        assert_eq!(key.verify(TEXT, &line), Ok(1_679_315_147));
        assert_eq!(key.find(TEXT, &format!("{line}\n")).unwrap(), (line.clone(), 1_679_315_147));
        assert!(key.verify(&TEXT.replace('7', "8"), &line).is_err());
        for bit in 0..line.bytes.len() * 8 {
            let mut changed = line.clone();
            changed.bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(key.verify(TEXT, &changed).is_err(), "bit {bit}");
        }
        let short = Signature { bytes: line.bytes[..71].to_vec(), ..line.clone() };
        assert!(matches!(key.verify(TEXT, &short), Err(CosignatureError::Length { found: 71, .. })));
        let other = WitnessKey::new("witness.example/w2", *key.key()).unwrap();
        assert!(matches!(other.verify(TEXT, &line), Err(CosignatureError::OtherKey(_))));
        assert!(other.find(TEXT, &format!("{line}\n")).is_err());
        // A plain note signature by the same key is another key id: never a cosignature.
        let plain = crate::note::sign(TEXT, &[("witness.example/w1", &signer)]).unwrap();
        let plain = crate::note::parse_unverified(&plain).unwrap().signatures;
        assert!(!key.is_named_by(&plain[0]));
    }

    #[test]
    fn a_verifier_key_has_one_text() {
        let (_, key) = witness();
        let text = key.to_string();
        let wanted = "x".parse::<WitnessKey>().unwrap_err().to_string();
        assert!(wanted.contains("base64 of 0x04 and 32 bytes"), "{wanted}");
        assert_eq!(text.parse::<WitnessKey>().unwrap(), key);
        assert!(text.parse::<crate::note::VerifyingKey>().is_err(), "a witness's key signs no notes");
        for wrong in ["", "a+b", "a+00000000+AA==", &text.replace("witness", "witless")] {
            assert!(wrong.parse::<WitnessKey>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn hostile_answers_do_not_panic(text in "\\PC{0,200}", tail in "[A-Za-z0-9+/=\\n ]{0,200}") {
            let (_, key) = witness();
            let _ = text.parse::<WitnessKey>();
            prop_assert!(key.find(TEXT, &text).is_err());
            let line = format!("\u{2014} witness.example/w1 {tail}\n");
            prop_assert!(key.find(TEXT, &line).is_err());
        }
    }
}
