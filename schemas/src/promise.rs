//! Promises to callers: a signed word that a record is at a position of a log, made before the log's batch is sealed.
//!
//! One signature serves all promises of a journal group: their entries are the leaves of a small RFC 6962 tree, whose root is
//! signed, and each caller gets its own path to it.
//!
//! ```text
//! affidavit/promise/v1
//! <origin>
//! promises <count>
//! root <hex>
//! time <microseconds>
//! ```
//! What a caller keeps is one line of visible ASCII (`x-affidavit-receipt`):
//!
//! ```text
//! affidavit-promise-v1:<origin>:<position>:<leaf hash>:<time>:<index>:<count>:<path>:<signature>
//! ```
//! Format: `FORMAT.md` 17. Invariant CH-2.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::{Hasher, Sha256Hex};
use crate::lines::{number, time};
use crate::merkle::{self, Hash};
use crate::names::Origin;
use crate::note::{Signer, VerifyingKey};

/// The first line of the signed text.
const FIRST_LINE: &str = "affidavit/promise/v1";

/// What a promise's line begins with.
pub const PREFIX: &str = "affidavit-promise-v1:";

/// The most promises under one signature.
pub const MAX_PROMISES: u64 = 1 << 16;

/// The longest line: no promise has more bytes.
pub const MAX_BYTES: usize = 1280;

/// Why a promise was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromiseError {
    /// Not of the form of a promise.
    #[error("not a promise: wanted `{0}`")]
    Form(&'static str),
    /// The path has another length than the tree.
    #[error("not a promise: {0}")]
    Path(#[from] merkle::ProofError),
    /// The signature is not that of the key.
    #[error("the signature does not hold under the promise key of `{0}`")]
    Signature(Origin),
}

/// The name of the key that signs promises of a log.
pub fn promise_key_name(origin: &Origin) -> String {
    format!("{origin}/promise")
}

/// One promise: the record with this leaf hash is at this position of this log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The log.
    pub origin: Origin,
    /// The record's position.
    pub position: u64,
    /// Its leaf hash.
    pub leaf: Sha256Hex,
    /// When its group was written, microseconds UTC.
    pub time: i64,
    /// Its place among the promises of the group.
    pub index: u64,
    /// How many promises the group has.
    pub count: u64,
    /// From its entry to the signed root, bottom up.
    pub path: Vec<Hash>,
    /// Over the text of the group.
    pub signature: [u8; 64],
}

/// The hash of an entry: SHA-256(0x00 || position (8 bytes, big-endian) || leaf hash).
fn entry(position: u64, leaf: &Sha256Hex) -> Hash {
    let mut hasher = Hasher::default();
    hasher.update([0]);
    hasher.update(position.to_be_bytes());
    hasher.update(leaf.0);
    hasher.finish()
}

/// What is signed for a group.
fn text(origin: &Origin, count: u64, root: &Hash, time: i64) -> String {
    format!("{FIRST_LINE}\n{origin}\npromises {count}\nroot {root}\ntime {time}\n")
}

impl Promise {
    /// The signed text that the promise leads to.
    ///
    /// # Errors
    /// A path that is none of such a tree.
    pub fn text(&self) -> Result<String, PromiseError> {
        let entry = entry(self.position, &self.leaf);
        let root = merkle::root_of_inclusion(&entry, self.index, self.count, &self.path)?;
        Ok(text(&self.origin, self.count, &root, self.time))
    }

    /// Checks the signature under a key; whose it is, is for the caller to know.
    ///
    /// # Errors
    /// It does not hold: nothing that the promise says counts then.
    pub fn verify(&self, key: &[u8; 32]) -> Result<(), PromiseError> {
        let wrong = || PromiseError::Signature(self.origin.clone());
        let key = VerifyingKey::new(promise_key_name(&self.origin), *key).map_err(|_| wrong())?;
        if key.holds(self.text()?.as_bytes(), &self.signature) { Ok(()) } else { Err(wrong()) }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, position, leaf, time, index, count, path, signature } = self;
        let path: Vec<u8> = path.iter().flat_map(|node| node.0).collect();
        let (path, signature) = (URL_SAFE_NO_PAD.encode(path), URL_SAFE_NO_PAD.encode(signature));
        write!(f, "{PREFIX}{origin}:{position}:{leaf}:{time}:{index}:{count}:{path}:{signature}")
    }
}

impl FromStr for Promise {
    type Err = PromiseError;

    fn from_str(line: &str) -> Result<Self, PromiseError> {
        const FORM: &str =
            "affidavit-promise-v1:<origin>:<position>:<leaf hash>:<time>:<index>:<count>:<path>:<signature>";
        let wanted = |form: &'static str| PromiseError::Form(form);
        if line.len() > MAX_BYTES {
            return Err(wanted("at most 1280 bytes"));
        }
        let rest = line.strip_prefix(PREFIX).ok_or(wanted(FORM))?;
        let fields: Vec<&str> = rest.split(':').collect();
        let [origin, position, leaf, at, index, count, path, signature] = fields.as_slice() else {
            return Err(wanted(FORM));
        };
        let path = URL_SAFE_NO_PAD.decode(path).map_err(|_| wanted("a path as base64url without padding"))?;
        let (nodes, rest) = path.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(wanted("a path of whole hashes"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        let promise = Self {
            origin: Origin::new(*origin).map_err(|_| wanted("an origin"))?,
            position: number(position).ok_or(wanted("a position"))?,
            leaf: Sha256Hex::parse(leaf).ok_or(wanted("a leaf hash as 64 hex digits"))?,
            time: time(at).ok_or(wanted("a time in microseconds"))?,
            index: number(index).ok_or(wanted("an index"))?,
            count: number(count)
                .filter(|count| (1..=MAX_PROMISES).contains(count))
                .ok_or(wanted("a count from 1 to 65536"))?,
            path: nodes.iter().map(|node| Sha256Hex(*node)).collect(),
            signature: signature.ok_or(wanted("a signature of 64 bytes as base64url without padding"))?,
        };
        promise.text()?;
        Ok(promise)
    }
}

/// The promises of one group. Nothing is hashed or signed before the first is asked for, and then once.
#[derive(Debug)]
pub struct Group {
    origin: Origin,
    time: i64,
    entries: Vec<(u64, Sha256Hex)>,
    signed: OnceLock<Signed>,
}

/// The tree, its levels from the entries up, and the signature over its root.
#[derive(Debug)]
struct Signed {
    levels: Vec<Vec<Hash>>,
    signature: [u8; 64],
}

impl Group {
    /// The records of a group that somebody is promised: positions and leaf hashes, at most [`MAX_PROMISES`].
    pub fn new(origin: Origin, time: i64, entries: Vec<(u64, Sha256Hex)>) -> Self {
        Self { origin, time, entries, signed: OnceLock::new() }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The promise at `index`; the first that is asked for signs for all.
    pub fn promise(&self, index: usize, signer: &dyn Signer) -> Option<Promise> {
        let (position, leaf) = *self.entries.get(index)?;
        if self.count() > MAX_PROMISES {
            return None;
        }
        let signed = self.signed.get_or_init(|| self.sign(signer));
        Some(Promise {
            origin: self.origin.clone(),
            position,
            leaf,
            time: self.time,
            index: index as u64,
            count: self.count(),
            path: path(&signed.levels, index),
            signature: signed.signature,
        })
    }

    fn sign(&self, signer: &dyn Signer) -> Signed {
        let mut levels = vec![self.entries.iter().map(|(at, leaf)| entry(*at, leaf)).collect::<Vec<_>>()];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            // A node without a neighbour is its own parent: so the tree is that of RFC 6962.
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => merkle::node(left, right),
                other => other.first().copied().unwrap_or_else(merkle::empty_root),
            });
            let above = above.collect();
            levels.push(above);
        }
        let root = levels.last().and_then(|level| level.first()).copied();
        let root = root.unwrap_or_else(merkle::empty_root);
        let signature = signer.sign(text(&self.origin, self.count(), &root, self.time).as_bytes());
        Signed { levels, signature }
    }
}

fn path(levels: &[Vec<Hash>], index: usize) -> Vec<Hash> {
    let neighbour = |(height, level): (usize, &Vec<Hash>)| level.get((index >> height) ^ 1).copied();
    levels.iter().enumerate().filter_map(neighbour).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::note::Ed25519Signer;

    fn origin() -> Origin {
        Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
    }

    fn signer() -> Ed25519Signer {
        Ed25519Signer::from_seed([7; 32])
    }

    fn group(count: u64) -> Group {
        let entries = (0..count).map(|n| (3 * n + 5, Sha256Hex::of(&n.to_be_bytes()))).collect();
        Group::new(origin(), 1_790_000_000_000_000, entries)
    }

    #[test]
    fn every_promise_of_a_group_holds_under_its_one_signature() {
        let key = signer().public_key();
        for count in (1..40).chain([64, 1000]) {
            let group = group(count);
            let mut signatures = BTreeSet::new();
            let hashes: Vec<Hash> = group.entries.iter().map(|(at, leaf)| entry(*at, leaf)).collect();
            for index in 0..count {
                let promise = group.promise(index as usize, &signer()).unwrap();
                promise.verify(&key).unwrap();
                assert_eq!(promise.path, merkle::inclusion_proof(&hashes, index), "{index} of {count}");
                let line = promise.to_string();
                assert!(line.len() <= MAX_BYTES && line.bytes().all(|b| b.is_ascii_graphic()));
                assert_eq!(line.parse::<Promise>().unwrap(), promise);
                signatures.insert(promise.signature);
            }
            assert_eq!(signatures.len(), 1);
        }
        assert!(group(3).promise(3, &signer()).is_none());
    }

    #[test]
    fn the_longest_promise_fits() {
        let origin = format!("{}/{}/20261120t101500z-3f9a1c20", "a".repeat(63), "b".repeat(20));
        let group = Group { origin: Origin::new(origin).unwrap(), ..group(1) };
        let mut promise = group.promise(0, &signer()).unwrap();
        let greatest = (1 << 53) - 1;
        (promise.position, promise.time) = (greatest, greatest as i64);
        (promise.index, promise.count) = (MAX_PROMISES - 1, MAX_PROMISES);
        promise.path = vec![Sha256Hex([255; 32]); 16];
        let line = promise.to_string();
        assert!(line.len() <= MAX_BYTES, "{}", line.len());
        assert_eq!(line.parse::<Promise>().unwrap(), promise);
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let key = signer().public_key();
        let line = group(5).promise(3, &signer()).unwrap().to_string();
        line.parse::<Promise>().unwrap().verify(&key).unwrap();
        for at in 0..line.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64] {
                let mut bytes = line.clone().into_bytes();
                bytes[at] ^= flip;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                assert!(text.parse::<Promise>().and_then(|promise| promise.verify(&key)).is_err(), "{text}");
            }
            let mut shorter = line.clone();
            shorter.remove(at);
            assert!(
                shorter.parse::<Promise>().and_then(|promise| promise.verify(&key)).is_err(),
                "{shorter}"
            );
        }
        let other = Ed25519Signer::from_seed([8; 32]).public_key();
        assert_eq!(line.parse::<Promise>().unwrap().verify(&other), Err(PromiseError::Signature(origin())));
    }

    #[test]
    fn a_seal_or_receipt_key_cannot_be_used_by_its_texts() {
        let promise = group(1).promise(0, &signer()).unwrap();
        let text = promise.text().unwrap();
        assert!(text.starts_with("affidavit/promise/v1\n"));
        let note = crate::note::sign(&text, &[(&format!("{}/seal", origin()), &signer())]).unwrap();
        assert!(crate::seal::verify(&note, &signer().public_key()).is_err());
    }

    #[test]
    #[ignore = "prints a figure"]
    fn what_a_signature_costs() {
        for count in [1, 8, 64, 512] {
            let (rounds, signer) = (200, signer());
            let begun = std::time::Instant::now();
            for _ in 0..rounds {
                let group = group(count);
                for index in 0..count {
                    std::hint::black_box(group.promise(index as usize, &signer).unwrap().to_string());
                }
            }
            let each = begun.elapsed().as_secs_f64() * 1e6 / rounds as f64;
            std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("a group of {count}: {each:.1} us, {:.2} us a promise\n", each / count as f64)
                    .as_bytes(),
            )
            .unwrap();
        }
    }

    proptest! {
        #[test]
        fn hostile_lines_do_not_panic(line in "\\PC{0,200}", fields in prop::collection::vec("[0-9a-zA-Z_-]{0,70}", 7)) {
            let _ = line.parse::<Promise>();
            let hostile = format!("{PREFIX}{}:{}", origin(), fields.join(":"));
            prop_assert!(!hostile.parse::<Promise>().is_ok_and(|p| p.verify(&[7; 32]).is_ok()));
        }
    }
}
