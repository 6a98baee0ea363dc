//! The file `recovery`: the records that recovery adds to a journal.
//!
//! ```text
//! affidavit/recovery/v1\n
//! <origin>\n
//! <position> <bytes>\n<leaf>\n      for each record, by position
//! <SHA-256 of all before, hex>\n
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use schemas::{Origin, Sha256Hex};

use crate::disk::{self, Disk};
use crate::epoch;
use crate::error::OpenError;

const FIRST_LINE: &str = "affidavit/recovery/v1";
const MAX_BYTES: u64 = 1 << 30;

/// Writes the file; durable on return.
pub(super) fn write(
    disk: &dyn Disk,
    folder: &Path,
    origin: &Origin,
    records: &BTreeMap<u64, Bytes>,
) -> Result<(), OpenError> {
    put(disk, folder, &encode(origin, records))
}

/// Writes the file as it is given; durable on return.
pub(super) fn put(disk: &dyn Disk, folder: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    let path = folder.join(epoch::RECOVERY);
    disk::replace(disk, &path, bytes).map_err(OpenError::io("write", &path))
}

fn encode(origin: &Origin, records: &BTreeMap<u64, Bytes>) -> Vec<u8> {
    let mut text = format!("{FIRST_LINE}\n{origin}\n").into_bytes();
    for (position, leaf) in records {
        text.extend_from_slice(format!("{position} {}\n", leaf.len()).as_bytes());
        text.extend_from_slice(leaf);
        text.push(b'\n');
    }
    let hash = Sha256Hex::of(&text);
    text.extend_from_slice(format!("{hash}\n").as_bytes());
    text
}

/// Reads the file; `None` where there is none.
pub(super) fn read(
    disk: &dyn Disk,
    folder: &Path,
    origin: &Origin,
) -> Result<Option<BTreeMap<u64, Bytes>>, OpenError> {
    let Some(bytes) = bytes(disk, folder)? else { return Ok(None) };
    match decode(origin, bytes.into()) {
        Some(records) => Ok(Some(records)),
        None => Err(OpenError::Journal(format!("`{}` is damaged", folder.join(epoch::RECOVERY).display()))),
    }
}

/// The file as it is; `None` where there is none.
pub(super) fn bytes(disk: &dyn Disk, folder: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    let path = folder.join(epoch::RECOVERY);
    if disk.entry(&path).map_err(OpenError::io("look at", &path))?.is_none() {
        return Ok(None);
    }
    disk::read_file(disk, &path, MAX_BYTES).map(Some).map_err(OpenError::io("read", &path))
}

fn decode(origin: &Origin, bytes: Bytes) -> Option<BTreeMap<u64, Bytes>> {
    let body = bytes.len().checked_sub(65)?;
    let hash = std::str::from_utf8(bytes.get(body..)?).ok()?.strip_suffix('\n')?;
    if Sha256Hex::parse(hash)? != Sha256Hex::of(bytes.get(..body)?) {
        return None;
    }
    let mut rest = bytes.slice(..body);
    let line = |rest: &mut Bytes| -> Option<Bytes> {
        let at = rest.iter().position(|b| *b == b'\n')?;
        let line = rest.split_to(at + 1);
        Some(line.slice(..at))
    };
    if line(&mut rest)? != FIRST_LINE.as_bytes() || line(&mut rest)? != origin.as_str().as_bytes() {
        return None;
    }
    let mut records = BTreeMap::new();
    while !rest.is_empty() {
        let head = line(&mut rest)?;
        let (position, length) = std::str::from_utf8(&head).ok()?.split_once(' ')?;
        let length: usize = length.parse().ok()?;
        if length >= rest.len() {
            return None;
        }
        let leaf = rest.split_to(length);
        if rest.split_to(1) != b"\n"[..] {
            return None;
        }
        records.insert(position.parse().ok()?, leaf);
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn records_come_back_and_any_changed_byte_is_seen() {
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let records = BTreeMap::from([(7, Bytes::from_static(b"{\"a\":1}")), (9, Bytes::from_static(b"{}"))]);
        let bytes = encode(&origin, &records);
        assert_eq!(decode(&origin, bytes.clone().into()).unwrap(), records);
        assert!(decode(&Origin::new("acme/gw1/e2").unwrap(), bytes.clone().into()).is_none());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode(&origin, bad.into()).is_none(), "byte {at}");
            assert!(decode(&origin, bytes[..at].to_vec().into()).is_none(), "cut at {at}");
        }
    }
}
