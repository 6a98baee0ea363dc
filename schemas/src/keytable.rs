//! The key table: pages of data keys, kept outside the evidence store and made before they are used.
//!
//! ```text
//! header, 4096 bytes
//!   0     16  "affidavit/keys/1"
//!   16    4   page number, little-endian
//!   20    4   number of slots, little-endian
//!   24    4   length of the origin, little-endian
//!   28    n   origin, then zeros
//!   4064  32  SHA-256 of the 4064 bytes before
//! slots, 64 bytes each
//!   0     32  data key
//!   32    16  first bytes of HMAC-SHA-256(data key, "affidavit/key-check/v1\n" || key id || "\n")
//!   48    16  zeros
//! ```
//! A destroyed slot is 64 zeros: one write that does not cross a sector. Format: `FORMAT.md` 9.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use zeroize::Zeroizing;

use crate::content::DataKey;
use crate::digest::Sha256Hex;
use crate::names::{Identifier, Origin};

/// The slots of a page as the gateway makes them.
pub const SLOTS_PER_PAGE: u16 = 1024;

/// The most slots that a page may have: slot numbers have 4 digits.
pub const MAX_SLOTS: u16 = 10_000;

/// Bytes of a page before its slots.
pub const HEADER_BYTES: usize = 4096;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 64;

/// What a destroyed slot holds.
pub const DESTROYED: [u8; SLOT_BYTES] = [0; SLOT_BYTES];

const MAGIC: &[u8; 16] = b"affidavit/keys/1";
const HASHED: usize = HEADER_BYTES - 32;

/// Why a page or key id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTableError {
    /// Not a key id.
    #[error("`{0}` is not a key id: wanted `<origin>/<page, 6 digits>/<slot, 4 digits>`")]
    KeyId(String),
    /// No key, or more than fit.
    #[error("a page of {0} keys, wanted 1 to {MAX_SLOTS}")]
    Slots(usize),
    /// Not a page, or a damaged header.
    #[error("not a page of the key table: {0}")]
    Header(&'static str),
    /// The page of another log, or another page.
    #[error("page `{found}`, wanted `{wanted}`")]
    Other {
        /// The page found.
        found: String,
        /// The page wanted.
        wanted: String,
    },
}

/// The name of a data key: `<origin>/<page>/<slot>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// The log whose epoch owns the page.
    pub origin: Origin,
    /// The page, from 0.
    pub page: u32,
    /// The slot, from 0.
    pub slot: u16,
}

impl KeyId {
    /// The key id as leaves hold it.
    pub fn to_identifier(&self) -> Identifier {
        Identifier::new(self.to_string()).expect("an origin has at most 110 bytes, page and slot at most 17")
    }
    /// Reads what a leaf holds.
    ///
    /// # Errors
    /// Not of the form that [`fmt::Display`] writes.
    pub fn parse(id: &Identifier) -> Result<Self, KeyTableError> {
        id.as_str().parse()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:06}/{:04}", self.origin, self.page, self.slot)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = KeyTableError;
    fn from_str(text: &str) -> Result<Self, KeyTableError> {
        let wrong = || KeyTableError::KeyId(text.chars().take(160).collect());
        let mut parts = text.rsplitn(3, '/');
        let (slot, page, origin) = (parts.next(), parts.next(), parts.next());
        Ok(Self {
            origin: Origin::new(origin.ok_or_else(wrong)?).map_err(|_| wrong())?,
            page: page.and_then(|page| number(page, 6)).ok_or_else(wrong)?,
            slot: slot
                .and_then(|slot| number(slot, 4))
                .and_then(|slot| slot.try_into().ok())
                .ok_or_else(wrong)?,
        })
    }
}

/// A number as it is written with at least `width` digits: no sign, and no zero before more of them.
fn number(text: &str, width: usize) -> Option<u32> {
    let written = text.len() == width || text.len() > width && !text.starts_with('0');
    (written && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A page's name relative to the table's folder: `<origin>/<page>.keys`.
pub fn page_path(origin: &Origin, page: u32) -> String {
    format!("{origin}/{page:06}.keys")
}

/// Where a slot begins in its page.
pub fn slot_offset(slot: u16) -> u64 {
    (HEADER_BYTES + usize::from(slot) * SLOT_BYTES) as u64
}

fn check(id: &KeyId, key: &[u8]) -> [u8; 16] {
    let text = format!("affidavit/key-check/v1\n{id}\n");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let mut check = [0; 16];
    check.copy_from_slice(&tag.as_ref()[..16]);
    check
}

/// Writes a page of fresh keys.
///
/// # Errors
/// No key, or more than [`MAX_SLOTS`].
pub fn encode_page(
    origin: &Origin,
    page: u32,
    keys: &[[u8; 32]],
) -> Result<Zeroizing<Vec<u8>>, KeyTableError> {
    if keys.is_empty() || keys.len() > usize::from(MAX_SLOTS) {
        return Err(KeyTableError::Slots(keys.len()));
    }
    let mut bytes = Zeroizing::new(vec![0; HEADER_BYTES + keys.len() * SLOT_BYTES]);
    let name = origin.as_str().as_bytes();
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..20].copy_from_slice(&page.to_le_bytes());
    bytes[20..24].copy_from_slice(&(keys.len() as u32).to_le_bytes());
    bytes[24..28].copy_from_slice(&(name.len() as u32).to_le_bytes());
    bytes[28..28 + name.len()].copy_from_slice(name);
    let hash = Sha256Hex::of(&bytes[..HASHED]);
    bytes[HASHED..HEADER_BYTES].copy_from_slice(&hash.0);
    for (slot, (key, place)) in
        keys.iter().zip(bytes[HEADER_BYTES..].chunks_exact_mut(SLOT_BYTES)).enumerate()
    {
        let id = KeyId { origin: origin.clone(), page, slot: slot as u16 };
        place[..32].copy_from_slice(key);
        place[32..48].copy_from_slice(&check(&id, key));
    }
    Ok(bytes)
}

/// What a slot holds.
#[derive(Debug, Clone)]
pub enum Slot {
    /// A key.
    Key(DataKey),
    /// Nothing any more.
    Destroyed,
    /// Bytes that are no key of this slot: damaged, or destroyed by halves.
    Damaged,
    /// The page has no such slot.
    Absent,
}

/// A page that was read; its keys are wiped when it is dropped.
pub struct Page {
    origin: Origin,
    page: u32,
    slots: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({}, {} slots)", page_path(&self.origin, self.page), self.slots())
    }
}

impl Page {
    /// How many slots the page has.
    pub fn slots(&self) -> u16 {
        (self.slots.len() / SLOT_BYTES) as u16
    }
    /// What a slot holds.
    pub fn key(&self, slot: u16) -> Slot {
        let from = usize::from(slot) * SLOT_BYTES;
        match self.slots.get(from..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => read_slot(&KeyId { origin: self.origin.clone(), page: self.page, slot }, bytes),
            None => Slot::Absent,
        }
    }
}

fn read_slot(id: &KeyId, bytes: &[u8; SLOT_BYTES]) -> Slot {
    if *bytes == DESTROYED {
        return Slot::Destroyed;
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&bytes[..32]);
    if bytes[32..48] == check(id, &*key) && bytes[48..] == [0; 16] {
        Slot::Key(DataKey::from_bytes(*key))
    } else {
        Slot::Damaged
    }
}

/// Reads one slot from its page's header, its own bytes and the page's length: what a reader of single keys needs.
///
/// # Errors
/// As [`decode_page`].
pub fn decode_slot(
    id: &KeyId,
    header: &[u8; HEADER_BYTES],
    slot: &[u8; SLOT_BYTES],
    page_bytes: u64,
) -> Result<Slot, KeyTableError> {
    let slots = check_header(&id.origin, id.page, header)?;
    if page_bytes != (HEADER_BYTES + slots * SLOT_BYTES) as u64 {
        return Err(KeyTableError::Header("not as long as its slots"));
    }
    Ok(if usize::from(id.slot) < slots { read_slot(id, slot) } else { Slot::Absent })
}

/// Reads the page `page` of the log `origin`.
///
/// # Errors
/// Not a page, a damaged header, another log's or another page, not as long as it says.
pub fn decode_page(origin: &Origin, page: u32, bytes: &[u8]) -> Result<Page, KeyTableError> {
    let header = bytes.first_chunk().ok_or(KeyTableError::Header("no header"))?;
    let slots = check_header(origin, page, header)?;
    if bytes.len() != HEADER_BYTES + slots * SLOT_BYTES {
        return Err(KeyTableError::Header("not as long as its slots"));
    }
    Ok(Page { origin: origin.clone(), page, slots: Zeroizing::new(bytes[HEADER_BYTES..].to_vec()) })
}

/// Checks a page's header; how many slots it says.
fn check_header(origin: &Origin, page: u32, bytes: &[u8; HEADER_BYTES]) -> Result<usize, KeyTableError> {
    if &bytes[..16] != MAGIC {
        return Err(KeyTableError::Header("no header"));
    }
    if Sha256Hex::of(&bytes[..HASHED]).0 != bytes[HASHED..HEADER_BYTES] {
        return Err(KeyTableError::Header("the header does not have its hash"));
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let (number, slots, length) = (word(16), word(20), word(24));
    let name = bytes[28..HASHED].get(..length).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.ok_or(KeyTableError::Header("no origin"))?;
    if name != origin.as_str() || number != page as usize {
        let found = format!("{name}/{number:06}");
        return Err(KeyTableError::Other { found, wanted: format!("{origin}/{page:06}") });
    }
    if bytes[28 + length..HASHED].iter().any(|b| *b != 0) {
        return Err(KeyTableError::Header("the origin is not followed by zeros"));
    }
    if slots == 0 || slots > usize::from(MAX_SLOTS) {
        return Err(KeyTableError::Header("not as long as its slots"));
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
    }

    fn page() -> Vec<u8> {
        encode_page(&origin(), 7, &[[1; 32], [2; 32], [3; 32]]).unwrap().to_vec()
    }

    #[test]
    fn keys_come_back_until_they_are_destroyed() {
        let mut bytes = page();
        let read = decode_page(&origin(), 7, &bytes).unwrap();
        assert_eq!(read.slots(), 3);
        assert!(matches!(read.key(1), Slot::Key(key) if key.as_bytes() == &[2; 32]));
        assert!(matches!(read.key(3), Slot::Absent));
        let at = slot_offset(1) as usize;
        bytes[at..at + SLOT_BYTES].copy_from_slice(&DESTROYED);
        let read = decode_page(&origin(), 7, &bytes).unwrap();
        assert!(matches!(read.key(1), Slot::Destroyed));
        assert!(matches!(read.key(0), Slot::Key(_)) && matches!(read.key(2), Slot::Key(_)));
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let bytes = page();
        // Of the header one bit a byte: it has one hash over all.
        let header = (0..HEADER_BYTES).map(|byte| byte * 8 + byte % 8);
        for bit in header.chain(HEADER_BYTES * 8..bytes.len() * 8) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            match decode_page(&origin(), 7, &changed) {
                Ok(read) => {
                    let damaged = (0..3).filter(|slot| matches!(read.key(*slot), Slot::Damaged)).count();
                    assert_eq!((damaged, bit / 8 >= HEADER_BYTES), (1, true), "bit {bit}");
                }
                Err(_) => assert!(bit / 8 < HEADER_BYTES, "bit {bit}"),
            }
        }
    }

    #[test]
    fn a_page_belongs_to_its_log_and_place() {
        let bytes = page();
        let other = Origin::new("acme/gw2/20261120t101500z-3f9a1c20").unwrap();
        assert!(matches!(decode_page(&other, 7, &bytes), Err(KeyTableError::Other { .. })));
        assert!(matches!(decode_page(&origin(), 8, &bytes), Err(KeyTableError::Other { .. })));
        for length in [0, 16, HEADER_BYTES, bytes.len() - 1] {
            assert!(matches!(decode_page(&origin(), 7, &bytes[..length]), Err(KeyTableError::Header(_))));
        }
        let mut swapped = bytes.clone();
        let (a, b) = (slot_offset(0) as usize, slot_offset(1) as usize);
        swapped.copy_within(a..a + SLOT_BYTES, b);
        assert!(matches!(decode_page(&origin(), 7, &swapped).unwrap().key(1), Slot::Damaged));
        assert!(encode_page(&origin(), 7, &[]).is_err());
        assert!(encode_page(&origin(), 7, &vec![[1; 32]; usize::from(MAX_SLOTS) + 1]).is_err());
    }

    #[test]
    fn key_ids_have_one_text_and_fit_a_leaf() {
        let id = KeyId { origin: origin(), page: 7, slot: 42 };
        assert_eq!(id.to_string(), "acme/gw1/20261120t101500z-3f9a1c20/000007/0042");
        assert_eq!(KeyId::parse(&id.to_identifier()).unwrap(), id);
        for (page, slot) in [(0, 0), (999_999, 9_999), (1_000_000, 10_000), (u32::MAX, u16::MAX)] {
            let id = KeyId { origin: origin(), page, slot };
            assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        }
        assert_eq!(page_path(&origin(), 7), "acme/gw1/20261120t101500z-3f9a1c20/000007.keys");
        for text in [
            "",
            "a/b/c/7/42",
            "a/b/c/000007/42",
            "a/b/c/000007/+042",
            "a/b/c/0000007/0042",
            "a/b/c/000007/00042",
            "a/b/c/000007/65536",
            "a/b/c/4294967296/0042",
            "a/b/000007/0042",
            "a/b/c/d/000007/0042",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
        let longest = Origin::new(format!("{}/{}/e", "a".repeat(63), "b".repeat(44))).unwrap();
        assert_eq!(longest.as_str().len(), 110);
        assert!(
            KeyId { origin: longest, page: u32::MAX, slot: u16::MAX }.to_identifier().as_str().len() <= 128
        );
        assert!(Origin::new(format!("{}/{}/e", "a".repeat(63), "b".repeat(45))).is_err());
    }
}
