//! Seals: one signed note a batch, naming its files, its range, the tree and the seal before.
//!
//! ```text
//! affidavit/seal/v1
//! <origin>
//! batch <number>
//! range <from> <to>
//! root <hex>
//! compact <k>
//! <hex>                              k lines: the compact range at <from>
//! files <k>
//! <name> <length> <sha256>           k lines, ascending by name
//! previous <hex|none>
//! schema <hex>
//! time <microseconds>
//! ```
//! The key's name is `<origin>/seal`. Invariant CH-2. Format: `FORMAT.md` 5.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Deref;

use crate::digest::Sha256Hex;
use crate::lines::{LineError, Lines, number, time};
use crate::merkle::{CompactRange, Hash};
use crate::names::{FileKind, ObjectName, Origin};
use crate::note::{self, NoteError, Signature, Signer, VerifyingKey};

/// A seal's first line.
pub const FIRST_LINE: &str = "affidavit/seal/v1";

/// The largest batch number: names have 10 digits.
pub const MAX_BATCH: u64 = 9_999_999_999;

/// Why a seal was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a note, or not signed by the log's key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The first line is another's.
    #[error("first line `{found}`, wanted `{FIRST_LINE}`")]
    Kind {
        /// The line found, cut at 64 characters.
        found: String,
    },
    /// A line that does not have its form.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Values that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// A file of a batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedFile {
    /// The last part of its object name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of all its bytes.
    pub sha256: Sha256Hex,
}

/// What a seal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The log.
    pub origin: Origin,
    /// The batch's number, from 0.
    pub batch: u64,
    /// The first position of the batch.
    pub from: u64,
    /// The position after the last: also the tree's size.
    pub to: u64,
    /// Root of the tree of `to` leaves.
    pub root: Hash,
    /// The compact range at `from`: its nodes, left to right.
    pub compact: Vec<Hash>,
    /// The batch's files.
    pub files: Vec<SealedFile>,
    /// SHA-256 of the previous seal's note; `None` for batch 0.
    pub previous: Option<Sha256Hex>,
    /// Fingerprint of the file schemas.
    pub schema: Sha256Hex,
    /// When it was sealed: microseconds UTC, never before the previous seal's.
    pub time: i64,
}

/// A seal whose signature was checked. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedSeal {
    seal: Seal,
    sha256: Sha256Hex,
    unknown: Vec<Signature>,
}

impl Deref for SignedSeal {
    type Target = Seal;
    fn deref(&self) -> &Seal {
        &self.seal
    }
}

impl SignedSeal {
    /// SHA-256 of the whole note as stored: the next seal's `previous`.
    pub fn sha256(&self) -> Sha256Hex {
        self.sha256
    }
    /// Signatures by keys that were not given: not judged.
    pub fn unknown_signatures(&self) -> &[Signature] {
        &self.unknown
    }
}

impl Seal {
    /// The object name of the seal itself.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::Seal { origin: self.origin.clone(), batch: self.batch }
    }

    /// The signed text. Files come out ascending by name.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(1024);
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{FIRST_LINE}\n{}\nbatch {}", self.origin, self.batch);
        let _ = writeln!(text, "range {} {}\nroot {}", self.from, self.to, self.root);
        let _ = writeln!(text, "compact {}", self.compact.len());
        for node in &self.compact {
            let _ = writeln!(text, "{node}");
        }
        let _ = writeln!(text, "files {}", files.len());
        for file in files {
            let _ = writeln!(text, "{} {} {}", file.name, file.length, file.sha256);
        }
        match &self.previous {
            Some(previous) => _ = writeln!(text, "previous {previous}"),
            None => text.push_str("previous none\n"),
        }
        let _ = writeln!(text, "schema {}\ntime {}", self.schema, self.time);
        text
    }

    /// Signs the seal under the name `<origin>/seal`; gives the whole note.
    ///
    /// # Errors
    /// A seal that contradicts itself is not signed.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>, SealError> {
        let text = self.to_text();
        if parse_text(&text)?.to_text() != text {
            return Err(SealError::Contradiction("the seal has no unique text".into()));
        }
        Ok(note::sign(&text, &[(&self.origin.seal_key_name(), signer)])?)
    }

    /// The compact range at `from`.
    ///
    /// # Errors
    /// Not one node for each bit of `from`.
    pub fn before(&self) -> Result<CompactRange, SealError> {
        CompactRange::from_parts(self.from, self.compact.clone())
            .map_err(|error| SealError::Contradiction(error.to_string()))
    }

    /// The file of a kind, where the batch has one.
    pub fn file(&self, kind: &FileKind) -> Option<&SealedFile> {
        self.files.iter().find(|file| {
            matches!(ObjectName::parse_file(&self.origin, &file.name), Ok(ObjectName::Data { kind: k, .. }) if k == *kind)
        })
    }

    fn check(&self) -> Result<(), SealError> {
        let contradiction = |text: String| Err(SealError::Contradiction(text));
        if self.from >= self.to {
            return contradiction(format!("range {} {} holds no record", self.from, self.to));
        }
        if (self.batch == 0) != (self.from == 0) || (self.batch == 0) != self.previous.is_none() {
            return contradiction(format!(
                "batch {} begins at {} with previous {}: batch 0 begins at 0 without one, no other does",
                self.batch,
                self.from,
                if self.previous.is_some() { "set" } else { "none" }
            ));
        }
        self.before()?;
        let mut kinds = BTreeSet::new();
        for file in &self.files {
            let name = ObjectName::parse_file(&self.origin, &file.name);
            let Ok(ObjectName::Data { batch, sha256, kind, .. }) = name else {
                return contradiction(format!("`{}` is not the name of a data file", file.name));
            };
            if batch != self.batch || sha256 != file.sha256 {
                return contradiction(format!("`{}` does not name its batch and hash", file.name));
            }
            if !kinds.insert(kind) {
                return contradiction(format!("`{}` is the second file of its kind", file.name));
            }
        }
        if !kinds.contains(&FileKind::Records) {
            return contradiction("no records file".into());
        }
        Ok(())
    }
}

/// Verifies a note as a seal of the log that it names, under `key`.
///
/// The caller compares `origin` with the log that it expects.
///
/// # Errors
/// Not a note, another first line, a line out of form, values that contradict each other, no good signature by `key`.
pub fn verify(bytes: &[u8], key: &[u8; 32]) -> Result<SignedSeal, SealError> {
    let seal = parse_unverified(bytes)?;
    let key = VerifyingKey::new(seal.origin.seal_key_name(), *key)?;
    let verified = note::verify(bytes, std::slice::from_ref(&key))?;
    Ok(SignedSeal { seal, sha256: Sha256Hex::of(bytes), unknown: verified.unknown })
}

/// Reads a seal without checking who signed it.
///
/// # Errors
/// Not a note, another first line, a line out of form, values that contradict each other.
pub fn parse_unverified(bytes: &[u8]) -> Result<Seal, SealError> {
    parse_text(note::parse_unverified(bytes)?.text)
}

fn parse_text(text: &str) -> Result<Seal, SealError> {
    let mut lines = Lines::of(text);
    let first = lines.next(FIRST_LINE)?;
    if first != FIRST_LINE {
        return Err(SealError::Kind { found: first.chars().take(64).collect() });
    }
    let origin = lines.parsed("<origin>", |line| Origin::new(line).ok())?;
    let batch = lines.keyed("batch", "batch <number>", |v| number(v).filter(|n| *n <= MAX_BATCH))?;
    let (from, to) = lines.keyed("range", "range <from> <to>", |v| {
        let (from, to) = v.split_once(' ')?;
        Some((number(from)?, number(to)?))
    })?;
    let root = lines.keyed("root", "root <hex>", Sha256Hex::parse)?;
    let nodes = lines.keyed("compact", "compact <number up to 64>", |v| number(v).filter(|n| *n <= 64))?;
    let compact = (0..nodes).map(|_| lines.parsed("<hex>", Sha256Hex::parse)).collect::<Result<_, _>>()?;
    let count = lines.keyed("files", "files <number up to 1000>", |v| number(v).filter(|n| *n <= 1000))?;
    let mut files: Vec<SealedFile> = Vec::new();
    for _ in 0..count {
        const FORM: &str = "<name> <length> <sha256>, ascending by name";
        let file = lines.parsed(FORM, |line| {
            let mut parts = line.split(' ');
            let (name, length, sha256) =
                (parts.next()?, number(parts.next()?)?, Sha256Hex::parse(parts.next()?)?);
            let ordered = files.last().is_none_or(|last| last.name.as_str() < name);
            (parts.next().is_none() && ordered).then(|| SealedFile { name: name.into(), length, sha256 })
        })?;
        files.push(file);
    }
    let previous = lines.keyed("previous", "previous <hex|none>", |v| {
        if v == "none" { Some(None) } else { Sha256Hex::parse(v).map(Some) }
    })?;
    let schema = lines.keyed("schema", "schema <hex>", Sha256Hex::parse)?;
    let time = lines.keyed("time", "time <microseconds>", time)?;
    lines.end()?;
    let seal = Seal { origin, batch, from, to, root, compact, files, previous, schema, time };
    seal.check()?;
    Ok(seal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::note::Ed25519Signer;

    fn file(batch: u64, kind: FileKind, byte: u8) -> SealedFile {
        let sha256 = Sha256Hex([byte; 32]);
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap();
        let name = ObjectName::Data { origin, batch, sha256, kind }.file_name();
        SealedFile { name, length: 1000 + u64::from(byte), sha256 }
    }

    fn seal() -> Seal {
        Seal {
            origin: Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap(),
            batch: 2,
            from: 5,
            to: 9,
            root: Sha256Hex([1; 32]),
            compact: vec![Sha256Hex([2; 32]), Sha256Hex([3; 32])],
            files: vec![
                file(2, FileKind::Records, 9),
                file(2, FileKind::Content("standard".into()), 4),
                file(2, FileKind::Reference, 5),
            ],
            previous: Some(Sha256Hex([6; 32])),
            schema: Sha256Hex([7; 32]),
            time: 1_700_000_000_000_000,
        }
    }

    fn sorted(mut seal: Seal) -> Seal {
        seal.files.sort();
        seal
    }

    #[test]
    fn a_signed_seal_verifies_under_its_key_only() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let note = seal().sign(&signer).unwrap();
        let verified = verify(&note, &signer.public_key()).unwrap();
        assert_eq!(*verified, sorted(seal()));
        assert_eq!(verified.sha256(), Sha256Hex::of(&note));
        assert_eq!(parse_unverified(&note).unwrap(), sorted(seal()));
        let other = Ed25519Signer::from_seed([2; 32]).public_key();
        assert!(matches!(verify(&note, &other), Err(SealError::Note(NoteError::NotSigned { .. }))));
    }

    #[test]
    fn the_key_name_binds_the_log() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let note =
            note::sign(&seal().to_text(), &[("acme/gw2/20261120t101500z-3f9a1c20/seal", &signer)]).unwrap();
        assert!(matches!(
            verify(&note, &signer.public_key()),
            Err(SealError::Note(NoteError::NotSigned { .. }))
        ));
        let note = note::sign(&seal().to_text(), &[("acme/gw1/20261120t101500z-3f9a1c20/promise", &signer)])
            .unwrap();
        assert!(verify(&note, &signer.public_key()).is_err());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let note = seal().sign(&signer).unwrap();
        for bit in 0..note.len() * 8 {
            let mut changed = note.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed, &signer.public_key()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_text_out_of_form_is_refused() {
        let text = seal().to_text();
        let zero = Seal {
            batch: 0,
            from: 0,
            compact: vec![],
            previous: None,
            files: vec![file(0, FileKind::Records, 9)],
            ..seal()
        };
        assert!(parse_text(&zero.to_text()).is_ok());
        let cases: &[(&str, &str)] = &[
            ("affidavit/seal/v1", "affidavit/receipt/v1"),
            ("batch 2", "batch 02"),
            ("batch 2", "batch +2"),
            ("batch 2", "batch 10000000000"),
            ("batch 2", "batch 0"),
            ("batch 2", "batch  2"),
            ("range 5 9", "range 5 5"),
            ("range 5 9", "range 4 9"),
            ("range 5 9", "range 5 9007199254740993"),
            ("range 5 9", "range 5 9 "),
            ("compact 2", "compact 1"),
            ("compact 2", "compact 65"),
            ("files 3", "files 2"),
            ("files 3", "files 0"),
            ("0606", "0G06"),
            ("time 1700000000000000\n", "time 1700000000000000\n\n"),
            ("time 1700000000000000\n", "time -1\n"),
            ("previous 06", "previous 0A"),
            (" 1004 ", " 01004 "),
        ];
        assert!(parse_text(&text).is_ok());
        for (from, to) in cases {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            assert!(parse_text(&changed).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_seal_that_contradicts_itself_is_not_signed() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let wrong = [
            Seal { files: vec![file(2, FileKind::Reference, 5)], ..seal() },
            Seal { files: vec![file(2, FileKind::Records, 5), file(2, FileKind::Records, 6)], ..seal() },
            Seal { files: vec![file(3, FileKind::Records, 5)], ..seal() },
            Seal {
                files: vec![SealedFile { sha256: Sha256Hex([1; 32]), ..file(2, FileKind::Records, 5) }],
                ..seal()
            },
            Seal {
                files: vec![SealedFile { name: "0000000002.seal".into(), ..file(2, FileKind::Records, 5) }],
                ..seal()
            },
            Seal { previous: None, ..seal() },
            Seal { compact: vec![], ..seal() },
            Seal { to: 5, ..seal() },
            Seal { time: -1, ..seal() },
        ];
        for seal in wrong {
            assert!(seal.sign(&signer).is_err(), "{seal:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_texts_do_not_panic_and_have_one_text(text in "\\PC{0,200}", at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f) {
            let _ = parse_text(&text);
            let mut changed = seal().to_text().into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(seal) = parse_text(&changed) {
                prop_assert_eq!(seal.to_text(), changed);
            }
        }
    }
}
