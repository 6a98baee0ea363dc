//! A gateway that plays the next minor version of the format, for tests of those who read what it writes.
//!
//! [`VARIABLE`] set to `1` asks for it. Only a build with debug assertions can; any other refuses to start with it.

use schemas::Sha256Hex;
use schemas::files::{self, FileError, LeafRow};

use crate::journal::Frame;

/// The variable that asks for it.
pub const VARIABLE: &str = "AFFIDAVIT_TEST_NEXT_MINOR";

/// Whether this process was asked to.
pub fn is_asked() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

#[cfg(debug_assertions)]
fn is_played() -> bool {
    static PLAYED: std::sync::LazyLock<bool> = std::sync::LazyLock::new(is_asked);
    *PLAYED
}

/// The records that stand for one.
#[cfg(debug_assertions)]
pub(crate) fn frames(frame: Frame) -> Vec<Frame> {
    let leaves = match &frame {
        Frame::Record { leaf, .. } if is_played() => schemas::next::leaves(leaf).ok(),
        _ => None,
    };
    let record = |leaf: Vec<u8>| Frame::Record { hash: schemas::leaf::hash(&leaf), leaf: leaf.into() };
    leaves.map_or_else(|| vec![frame], |leaves| leaves.into_iter().map(record).collect())
}

/// The records that stand for one: it itself.
#[cfg(not(debug_assertions))]
pub(crate) fn frames(frame: Frame) -> [Frame; 1] {
    [frame]
}

/// A batch's records file, and the fingerprint of its schema.
pub(crate) fn records_file(rows: &[LeafRow]) -> Result<(Vec<u8>, Sha256Hex), FileError> {
    #[cfg(debug_assertions)]
    if is_played() {
        return Ok((schemas::next::write_records(rows)?, schemas::next::schema_fingerprint()));
    }
    Ok((files::write_records(rows)?, files::schema_fingerprint()))
}
