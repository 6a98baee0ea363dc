//! What a log gives a witness: the body of `POST <prefix>/add-checkpoint`.
//!
//! ```text
//! old <size of the checkpoint that the witness cosigned last>
//! <base64 of a hash>                at most 63 lines: the consistency proof from there
//! <empty line>
//! <checkpoint, a signed note>
//! ```
//! Source: <https://c2sp.org/tlog-witness>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Sha256Hex;
use crate::lines::number;
use crate::merkle::Hash;

/// The most lines of a proof.
pub const MAX_PROOF: usize = 63;

/// The largest body that is read, in bytes: a proof, and a checkpoint with many signatures.
pub const MAX_SUBMISSION_BYTES: usize = 64 << 10;

/// Not the body of a submission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// Over [`MAX_SUBMISSION_BYTES`].
    #[error("{0} bytes: at most {MAX_SUBMISSION_BYTES} are read")]
    Length(usize),
    /// A line that is out of form.
    #[error("line {line}: wanted {wanted}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Its form.
        wanted: &'static str,
    },
    /// More than [`MAX_PROOF`] hashes.
    #[error("a proof of more than {MAX_PROOF} hashes")]
    Proof,
}

/// A checkpoint on its way to a witness. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission<'a> {
    /// The size that the log believes the witness to be at.
    pub old: u64,
    /// The proof from there to the checkpoint.
    pub proof: Vec<Hash>,
    /// The checkpoint's note.
    pub checkpoint: &'a [u8],
}

impl<'a> Submission<'a> {
    /// Takes a body apart.
    ///
    /// # Errors
    /// [`SubmissionError`].
    pub fn parse(body: &'a [u8]) -> Result<Self, SubmissionError> {
        const HASH: &str = "base64 of 32 bytes, or an empty line";
        if body.len() > MAX_SUBMISSION_BYTES {
            return Err(SubmissionError::Length(body.len()));
        }
        let (mut rest, mut line) = (body, 0);
        let mut next = |wanted| {
            line += 1;
            let error = SubmissionError::Line { line, wanted };
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| error.clone())?;
            let text = std::str::from_utf8(&rest[..end]).map_err(|_| error.clone())?;
            rest = &rest[end + 1..];
            Ok((text, error))
        };
        let (first, error) = next("`old <size>`")?;
        let old = first.strip_prefix("old ").and_then(number).ok_or(error)?;
        let mut proof = Vec::new();
        loop {
            let (text, error) = next(HASH)?;
            if text.is_empty() {
                break;
            }
            if proof.len() == MAX_PROOF {
                return Err(SubmissionError::Proof);
            }
            let hash: Option<[u8; 32]> = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
            proof.push(Sha256Hex(hash.ok_or(error)?));
        }
        Ok(Self { old, proof, checkpoint: rest })
    }

    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.proof {
            text.push_str(&STANDARD.encode(hash.0));
            text.push('\n');
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.checkpoint);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The example of c2sp.org/tlog-witness.
    const EXAMPLE: &str = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let body = Submission::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((body.old, body.proof.len()), (20_852_014, 4));
        let note = crate::note::parse_unverified(body.checkpoint).unwrap();
        assert_eq!(crate::tlog::TreeHead::parse(note.text).unwrap().size, 20_852_163);
        assert_eq!(body.to_bytes(), EXAMPLE.as_bytes());
    }

    #[test]
    fn bodies_out_of_form_are_refused() {
        let hash = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        for (wrong, line) in [
            ("", 1),
            ("old 5", 1),
            ("old 05\n\n", 1),
            ("old -1\n\n", 1),
            ("new 5\n\n", 1),
            ("old 5\n", 2),
            ("old 5\nAAAA\n\n", 2),
            ("old 5\n \n\n", 2),
        ] {
            let found = Submission::parse(wrong.as_bytes());
            assert!(matches!(found, Err(SubmissionError::Line { line: n, .. }) if n == line), "{wrong:?}");
        }
        let most = format!("old 5\n{}\n", hash.repeat(MAX_PROOF));
        assert_eq!(Submission::parse(most.as_bytes()).unwrap().proof.len(), MAX_PROOF);
        let more = format!("old 5\n{}\n", hash.repeat(MAX_PROOF + 1));
        assert_eq!(Submission::parse(more.as_bytes()), Err(SubmissionError::Proof));
        let long = vec![b'x'; MAX_SUBMISSION_BYTES + 1];
        assert_eq!(Submission::parse(&long), Err(SubmissionError::Length(long.len())));
    }

    proptest! {
        #[test]
        fn hostile_bodies_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(), flip in any::<u8>()) {
            let _ = Submission::parse(&bytes);
            let mut changed = EXAMPLE.as_bytes().to_vec();
            let at = cut.index(changed.len());
            changed[at] ^= flip;
            if let Ok(read) = Submission::parse(&changed) {
                prop_assert_eq!(read.to_bytes(), changed);
            }
            let _ = Submission::parse(&EXAMPLE.as_bytes()[..at]);
        }
    }
}
