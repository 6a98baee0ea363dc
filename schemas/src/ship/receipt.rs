//! A receipt: an archiver's word that a batch is in the store, under the retention that was agreed.
//!
//! ```text
//! affidavit/receipt/v1
//! <origin>
//! batch <number>
//! range <from> <to>
//! root <hex>
//! seal <sha256>                              of the seal's whole note
//! sealed <microseconds>                      the seal's time
//! objects <k>
//! <file name> <version|-> <seconds|->        k lines, ascending by name: version id, retained until
//! time <microseconds>
//! ```
//! A signed note; the key's name is `<deployment>/<archiver>/receipt`. Format: `FORMAT.md` 16.2.

use std::fmt::Write as _;
use std::ops::Deref;

use crate::digest::Sha256Hex;
use crate::lines::{LineError, Lines, number, time};
use crate::merkle::Hash;
use crate::names::{FileKind, ObjectName, Origin, is_part};
use crate::note::{self, NoteError, Signer, VerifyingKey};
use crate::seal::{MAX_BATCH, Seal};

/// A receipt's first line.
const FIRST_LINE: &str = "affidavit/receipt/v1";

/// The most objects of a batch: its files and its seal.
const MAX_OBJECTS: u64 = 1001;

/// The longest version id that a store may give.
const MAX_VERSION_BYTES: usize = 1024;

/// Why a receipt was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a note, or not signed by a pinned key.
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
    /// No archiver of the deployment that the receipt names is pinned.
    #[error("no key of an archiver of `{0}` is pinned")]
    Unpinned(String),
}

/// The name of an archiver's key.
pub fn receipt_key_name(deployment: &str, archiver: &str) -> String {
    format!("{deployment}/{archiver}/receipt")
}

/// An archiver whose receipts count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverKey {
    /// Its name, `[a-z0-9][a-z0-9.-]{0,62}`.
    pub name: String,
    /// Its Ed25519 public key.
    pub key: [u8; 32],
}

/// One object as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Archived {
    /// The last part of its object name.
    pub name: String,
    /// Its version id, where the store has versions.
    pub version: Option<String>,
    /// Until when it cannot be deleted, seconds UTC, where the store enforces that.
    pub retain_until_s: Option<i64>,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The log.
    pub origin: Origin,
    /// The batch's number.
    pub batch: u64,
    /// The first position of the batch.
    pub from: u64,
    /// The position after the last.
    pub to: u64,
    /// Root of the tree of `to` leaves.
    pub root: Hash,
    /// SHA-256 of the seal's whole note.
    pub seal: Sha256Hex,
    /// The seal's time, microseconds UTC.
    pub sealed: i64,
    /// The batch's files and its seal, ascending by name.
    pub objects: Vec<Archived>,
    /// When the store showed them, microseconds UTC.
    pub time: i64,
}

/// A receipt whose signature was checked. Only [`Receipt::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    receipt: Receipt,
    archiver: String,
}

impl Deref for SignedReceipt {
    type Target = Receipt;
    fn deref(&self) -> &Receipt {
        &self.receipt
    }
}

impl SignedReceipt {
    /// Who signed it.
    pub fn archiver(&self) -> &str {
        &self.archiver
    }
}

impl Receipt {
    /// The receipt for a batch: its seal, the seal's hash, what the store keeps of it.
    pub fn of(seal: &Seal, sha256: Sha256Hex, objects: Vec<Archived>, time: i64) -> Self {
        Self {
            origin: seal.origin.clone(),
            batch: seal.batch,
            from: seal.from,
            to: seal.to,
            root: seal.root,
            seal: sha256,
            sealed: seal.time,
            objects,
            time,
        }
    }

    /// Whether this is the receipt of this seal, and of each of its files.
    pub fn answers(&self, seal: &Seal, sha256: Sha256Hex) -> bool {
        let mut names: Vec<String> = seal.files.iter().map(|file| file.name.clone()).collect();
        names.push(seal.object_name().file_name());
        names.sort();
        *self == Self { ..Self::of(seal, sha256, self.objects.clone(), self.time) }
            && self.objects.iter().map(|object| &object.name).eq(&names)
    }

    /// The signed text. Objects come out ascending by name.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(1024);
        let mut objects: Vec<_> = self.objects.iter().collect();
        objects.sort();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{FIRST_LINE}\n{}\nbatch {}", self.origin, self.batch);
        let _ = writeln!(text, "range {} {}\nroot {}", self.from, self.to, self.root);
        let _ = writeln!(text, "seal {}\nsealed {}", self.seal, self.sealed);
        let _ = writeln!(text, "objects {}", objects.len());
        for object in objects {
            let _ = write!(text, "{} {} ", object.name, object.version.as_deref().unwrap_or("-"));
            let _ = match object.retain_until_s {
                Some(until) => writeln!(text, "{until}"),
                None => writeln!(text, "-"),
            };
        }
        let _ = writeln!(text, "time {}", self.time);
        text
    }

    /// Signs the receipt as `archiver`; gives the whole note.
    ///
    /// # Errors
    /// A receipt that contradicts itself is not signed.
    pub fn sign(&self, archiver: &str, signer: &dyn Signer) -> Result<Vec<u8>, ReceiptError> {
        let text = self.to_text();
        if Self::parse_text(&text)?.to_text() != text || !is_part(archiver) {
            return Err(ReceiptError::Contradiction("the receipt has no unique text".into()));
        }
        Ok(note::sign(&text, &[(&receipt_key_name(self.origin.deployment(), archiver), signer)])?)
    }

    /// Verifies a note as a receipt by one of the pinned archivers.
    ///
    /// # Errors
    /// [`ReceiptError`]; nothing that it says counts then.
    pub fn verify(bytes: &[u8], pinned: &[ArchiverKey]) -> Result<SignedReceipt, ReceiptError> {
        let receipt = Self::parse_text(note::parse_unverified(bytes)?.text)?;
        let deployment = receipt.origin.deployment();
        let keys = pinned
            .iter()
            .map(|one| VerifyingKey::new(receipt_key_name(deployment, &one.name), one.key))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(ReceiptError::Unpinned(deployment.into()));
        }
        let verified = note::verify(bytes, &keys)?;
        let by = pinned.iter().zip(&keys).find(|(_, key)| verified.by.contains(key));
        let archiver = by.map(|(one, _)| one.name.clone()).unwrap_or_default();
        Ok(SignedReceipt { receipt, archiver })
    }

    fn parse_text(text: &str) -> Result<Self, ReceiptError> {
        let mut lines = Lines::of(text);
        let first = lines.next(FIRST_LINE)?;
        if first != FIRST_LINE {
            return Err(ReceiptError::Kind { found: first.chars().take(64).collect() });
        }
        let origin = lines.parsed("<origin>", |line| Origin::new(line).ok())?;
        let batch = lines.keyed("batch", "batch <number>", |v| number(v).filter(|n| *n <= MAX_BATCH))?;
        let (from, to) = lines.keyed("range", "range <from> <to>", |v| {
            let (from, to) = v.split_once(' ')?;
            Some((number(from)?, number(to)?))
        })?;
        let root = lines.keyed("root", "root <hex>", Sha256Hex::parse)?;
        let seal = lines.keyed("seal", "seal <hex>", Sha256Hex::parse)?;
        let sealed = lines.keyed("sealed", "sealed <microseconds>", time)?;
        let count = lines
            .keyed("objects", "objects <number up to 1001>", |v| number(v).filter(|n| *n <= MAX_OBJECTS))?;
        let mut objects: Vec<Archived> = Vec::new();
        for _ in 0..count {
            const FORM: &str = "<file name> <version|-> <seconds|->, ascending by name";
            let object = lines.parsed(FORM, |line| {
                let mut words = line.split(' ');
                let (name, version, until) = (words.next()?, words.next()?, words.next()?);
                let ordered = objects.last().is_none_or(|last| last.name.as_str() < name);
                (words.next().is_none() && ordered && is_version(version)).then_some(())?;
                Some(Archived {
                    name: name.into(),
                    version: (version != "-").then(|| version.into()),
                    retain_until_s: if until == "-" { None } else { Some(time(until)?) },
                })
            })?;
            objects.push(object);
        }
        let time = lines.keyed("time", "time <microseconds>", time)?;
        lines.end()?;
        let receipt = Self { origin, batch, from, to, root, seal, sealed, objects, time };
        receipt.check()?;
        Ok(receipt)
    }

    fn check(&self) -> Result<(), ReceiptError> {
        let contradiction = |text: String| Err(ReceiptError::Contradiction(text));
        if self.from >= self.to {
            return contradiction(format!("range {} {} holds no record", self.from, self.to));
        }
        let (mut seals, mut records) = (0, 0);
        for object in &self.objects {
            match ObjectName::parse_file(&self.origin, &object.name) {
                Ok(ObjectName::Seal { batch, .. }) if batch == self.batch => seals += 1,
                Ok(ObjectName::Data { batch, kind, .. }) if batch == self.batch => {
                    records += usize::from(kind == FileKind::Records);
                }
                _ => {
                    return contradiction(format!(
                        "`{}` is not an object of batch {}",
                        object.name, self.batch
                    ));
                }
            }
        }
        if (seals, records) != (1, 1) {
            return contradiction(format!("{seals} seals and {records} records files, wanted one of each"));
        }
        Ok(())
    }
}

fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::note::Ed25519Signer;

    fn origin() -> Origin {
        Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
    }

    fn records(batch: u64) -> String {
        ObjectName::Data { origin: origin(), batch, sha256: Sha256Hex([9; 32]), kind: FileKind::Records }
            .file_name()
    }

    fn receipt() -> Receipt {
        Receipt {
            origin: origin(),
            batch: 2,
            from: 5,
            to: 9,
            root: Sha256Hex([1; 32]),
            seal: Sha256Hex([2; 32]),
            sealed: 1_700_000_000_000_000,
            objects: vec![
                Archived {
                    name: records(2),
                    version: Some("v.1-_~".into()),
                    retain_until_s: Some(1_800_000_000),
                },
                Archived { name: "0000000002.seal".into(), version: None, retain_until_s: None },
            ],
            time: 1_700_000_001_000_000,
        }
    }

    fn pinned(seed: u8) -> Vec<ArchiverKey> {
        vec![ArchiverKey { name: "ar1".into(), key: Ed25519Signer::from_seed([seed; 32]).public_key() }]
    }

    fn sorted(mut receipt: Receipt) -> Receipt {
        receipt.objects.sort();
        receipt
    }

    #[test]
    fn a_receipt_counts_under_a_pinned_key_of_its_deployment_only() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let note = receipt().sign("ar1", &signer).unwrap();
        let verified = Receipt::verify(&note, &pinned(1)).unwrap();
        assert_eq!((&*verified, verified.archiver()), (&sorted(receipt()), "ar1"));
        assert!(Receipt::verify(&note, &pinned(2)).is_err());
        assert!(matches!(Receipt::verify(&note, &[]), Err(ReceiptError::Unpinned(of)) if of == "acme"));
        let renamed = vec![ArchiverKey { name: "ar2".into(), ..pinned(1).remove(0) }];
        assert!(Receipt::verify(&note, &renamed).is_err());
        let foreign = note::sign(&receipt().to_text(), &[("other/ar1/receipt", &signer)]).unwrap();
        assert!(Receipt::verify(&foreign, &pinned(1)).is_err());
        assert!(crate::seal::parse_unverified(&note).is_err());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let note = receipt().sign("ar1", &Ed25519Signer::from_seed([1; 32])).unwrap();
        for bit in 0..note.len() * 8 {
            let mut changed = note.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Receipt::verify(&changed, &pinned(1)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_not_signed() {
        let signer = Ed25519Signer::from_seed([1; 32]);
        let object = |name: String| Archived { name, version: None, retain_until_s: None };
        let with = |objects: Vec<Archived>| Receipt { objects, ..receipt() };
        let wrong = [
            Receipt { to: 5, ..receipt() },
            Receipt { time: -1, ..receipt() },
            with(vec![]),
            with(vec![object(records(2))]),
            with(vec![object(records(3)), object("0000000002.seal".into())]),
            with(vec![object(records(2)), object("0000000002.seal".into()), object("x".into())]),
            with(vec![
                Archived { version: Some("a b".into()), ..object(records(2)) },
                object("0000000002.seal".into()),
            ]),
            with(vec![
                Archived { version: Some("-".into()), ..object(records(2)) },
                Archived { retain_until_s: Some(-5), ..object("0000000002.seal".into()) },
            ]),
        ];
        for receipt in wrong {
            assert!(receipt.sign("ar1", &signer).is_err(), "{receipt:?}");
        }
        assert!(receipt().sign("Ar 1", &signer).is_err());
    }

    proptest! {
        #[test]
        fn hostile_texts_do_not_panic_and_have_one_text(text in "\\PC{0,200}", at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f) {
            let _ = Receipt::parse_text(&text);
            let mut changed = receipt().to_text().into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(receipt) = Receipt::parse_text(&changed) {
                prop_assert_eq!(receipt.to_text(), changed);
            }
        }
    }
}
