//! A registry's checkpoint (C2SP `tlog-checkpoint`): what witnesses sign.
//!
//! ```text
//! <origin>
//! <tree size>
//! <base64 of the root>
//! ```
//! A signed note under the checkpoint key, whose name is the origin. Source: <https://c2sp.org/tlog-checkpoint>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Sha256Hex;
use crate::lines::number;
use crate::merkle::Hash;
use crate::names::Origin;
use crate::note::{self, NoteError, Signature, Signer, VerifyingKey};
use crate::seal::Seal;

/// Why a checkpoint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a note, or not signed by the checkpoint key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not the three lines.
    #[error("line {line}: wanted {wanted}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Its form.
        wanted: &'static str,
    },
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// The tree's size.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl Checkpoint {
    /// The checkpoint that stands beside a seal.
    pub fn of(seal: &Seal) -> Self {
        Self { origin: seal.origin.clone(), size: seal.to, root: seal.root }
    }

    /// The signed text.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }

    /// Signs it under the origin as key name; gives the whole note.
    ///
    /// # Errors
    /// As [`note::sign`].
    pub fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>, NoteError> {
        note::sign(&self.to_text(), &[(self.origin.as_str(), signer)])
    }

    /// Verifies a note as a checkpoint of the log that it names, under `key`. Gives also the signatures by other keys:
    /// witnesses', not judged here.
    ///
    /// Lines behind the third are refused: this format's checkpoints have none.
    ///
    /// # Errors
    /// Not a note, lines out of form, no good signature by `key`.
    pub fn verify(bytes: &[u8], key: &[u8; 32]) -> Result<(Self, Vec<Signature>), CheckpointError> {
        let checkpoint = Self::parse(note::parse_unverified(bytes)?.text)?;
        let key = VerifyingKey::new(checkpoint.origin.as_str(), *key)?;
        let verified = note::verify(bytes, std::slice::from_ref(&key))?;
        Ok((checkpoint, verified.unknown))
    }

    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let wrong = |line, wanted| CheckpointError::Line { line, wanted };
        let origin = lines.next().and_then(|line| Origin::new(line).ok()).ok_or(wrong(1, "the origin"))?;
        let size = lines.next().and_then(number).ok_or(wrong(2, "the tree size, a decimal number"))?;
        let root = lines.next().and_then(|line| <[u8; 32]>::try_from(STANDARD.decode(line).ok()?).ok());
        let root = Sha256Hex(root.ok_or(wrong(3, "the root, base64 of 32 bytes"))?);
        if lines.next() != Some("") || lines.next().is_some() {
            return Err(wrong(4, "the end"));
        }
        Ok(Self { origin, size, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::Ed25519Signer;

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: Origin::registry("acme").unwrap(), size: 17, root: Sha256Hex([5; 32]) }
    }

    #[test]
    fn a_checkpoint_verifies_under_its_key_only_and_every_flipped_bit_is_refused() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let note = checkpoint().sign(&signer).unwrap();
        let text = "acme/registry/log\n17\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n\n\u{2014} acme/registry/log ";
        assert!(note.starts_with(text.as_bytes()));
        assert_eq!(Checkpoint::verify(&note, &signer.public_key()).unwrap(), (checkpoint(), vec![]));
        assert!(Checkpoint::verify(&note, &Ed25519Signer::from_seed([2; 32]).public_key()).is_err());
        for bit in 0..note.len() * 8 {
            let mut changed = note.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::verify(&changed, &signer.public_key()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_seal_is_no_checkpoint_and_a_text_out_of_form_is_none() {
        for text in [
            "affidavit/seal/v1\n17\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n"
                .replace("seal/v1", "seal"),
            "acme/registry/log\n017\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n".into(),
            "acme/registry/log\n17\nBQUF\n".into(),
            "acme/registry/log\n17\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\nmore\n".into(),
            "acme/registry/log\n17\n".into(),
        ] {
            assert!(matches!(Checkpoint::parse(&text), Err(CheckpointError::Line { .. })), "{text}");
        }
    }

    #[test]
    fn witnesses_signatures_are_listed() {
        let (log, witness) = (Ed25519Signer::from_seed([1; 32]), Ed25519Signer::from_seed([2; 32]));
        let note = note::sign(
            &checkpoint().to_text(),
            &[("acme/registry/log", &log), ("witness.example", &witness)],
        );
        let (_, others) = Checkpoint::verify(&note.unwrap(), &log.public_key()).unwrap();
        assert_eq!(others.len(), 1);
    }
}
