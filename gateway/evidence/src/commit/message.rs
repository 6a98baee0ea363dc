//! Messages of the commit topic.
//!
//! ```text
//! affidavit/commit/v1 <kind> <origin> <fields>\n<bytes>
//!
//! in the log's own partition
//!   open   <partition> <offset> <lease ms> <salt> <seal key> <encryption>   the log begins; counts as lease 0
//!   lease  <number>                                                         its gateway lives
//!   group  <sequence> <piece> <pieces>                  bytes: a piece of a group of its journal, head and frames
//!   spill  <file> <offset>                              bytes: a piece of a spill file
//!   fence  <number> <by>                                the log ends here, if the lease before it has this number
//! in the index, partition 0
//!   open   as above; offset: where the one in the log's partition stands
//!   at     <number> <offset> <from> <sequence>          the lease, where it stands, and from where on the log is needed
//!   fenced <offset>                                     its gateway has found the fence that stands there
//!   closed                                              all of the log is archived
//! ```

use schemas::Origin;
use schemas::trust::{key_text, public_key};

const FIRST_WORD: &str = "affidavit/commit/v1";
/// Bytes in each piece but the last: a message stays below 900 KiB.
pub(super) const PIECE_BYTES: usize = 896 << 10;
/// The longest message that is looked at.
const MAX_MESSAGE_BYTES: usize = 900 << 10;
/// The longest first line.
const MAX_LINE_BYTES: usize = 4 << 10;
/// No group has more pieces: the longest has 80 MiB.
const MAX_PIECES: u32 = 128;

/// A log that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) lease_ms: u64,
    pub(super) salt: [u8; 32],
    /// The key that its `boot` names; a hint until the `boot` is read.
    pub(super) key: [u8; 32],
    pub(super) encrypted: bool,
}

/// What a message says, but for whose log it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Open(Opening),
    Lease { number: u64 },
    Group { sequence: u64, piece: u32, pieces: u32, bytes: &'a [u8] },
    Spill { file: &'a str, offset: u64, bytes: &'a [u8] },
    Fence { number: u64, by: &'a str },
    At { number: u64, offset: i64, from: i64, sequence: u64 },
    Fenced { offset: i64 },
    Closed,
}

/// The message.
pub(super) fn encode(origin: &Origin, said: &Said<'_>) -> Vec<u8> {
    let (fields, bytes): (String, &[u8]) = match said {
        Said::Open(opening) => {
            let Opening { partition, offset, lease_ms, salt, key, encrypted } = opening;
            let (salt, key, encrypted) = (hex::encode(salt), key_text(key), u8::from(*encrypted));
            (format!("open {origin} {partition} {offset} {lease_ms} {salt} {key} {encrypted}"), &[])
        }
        Said::Lease { number } => (format!("lease {origin} {number}"), &[]),
        Said::Group { sequence, piece, pieces, bytes } => {
            (format!("group {origin} {sequence} {piece} {pieces}"), bytes)
        }
        Said::Spill { file, offset, bytes } => (format!("spill {origin} {file} {offset}"), bytes),
        Said::Fence { number, by } => (format!("fence {origin} {number} {by}"), &[]),
        Said::At { number, offset, from, sequence } => {
            (format!("at {origin} {number} {offset} {from} {sequence}"), &[])
        }
        Said::Fenced { offset } => (format!("fenced {origin} {offset}"), &[]),
        Said::Closed => (format!("closed {origin}"), &[]),
    };
    let mut message = Vec::with_capacity(FIRST_WORD.len() + fields.len() + bytes.len() + 2);
    message.extend_from_slice(FIRST_WORD.as_bytes());
    message.push(b' ');
    message.extend_from_slice(fields.as_bytes());
    message.push(b'\n');
    message.extend_from_slice(bytes);
    message
}

/// Reads a message; `None` where it is none.
pub(super) fn decode(message: &[u8]) -> Option<(Origin, Said<'_>)> {
    if message.len() > MAX_MESSAGE_BYTES {
        return None;
    }
    let end = message.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n')?;
    let (line, bytes) = message.split_at(end);
    let bytes = bytes.get(1..)?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if words.next()? != FIRST_WORD {
        return None;
    }
    let kind = words.next()?;
    let origin = Origin::new(words.next()?).ok()?;
    let mut word = || words.next();
    let said = match kind {
        "open" => Said::Open(Opening {
            partition: number(word()?)?,
            offset: number(word()?)?,
            lease_ms: number(word()?).filter(|ms| (1..=86_400_000).contains(ms))?,
            salt: hex::decode(word()?).ok()?.try_into().ok()?,
            key: public_key(word()?)?,
            encrypted: match word()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
        }),
        "lease" => Said::Lease { number: number(word()?)? },
        "group" => {
            let (sequence, piece, pieces) = (number(word()?)?, number(word()?)?, number(word()?)?);
            if piece >= pieces || pieces > MAX_PIECES || bytes.len() > PIECE_BYTES {
                return None;
            }
            Said::Group { sequence, piece, pieces, bytes }
        }
        "spill" => Said::Spill {
            // It becomes a file's name.
            file: word()?.strip_suffix(".spill").filter(|name| is_plain(name)).and(line_word(line, 3))?,
            offset: number(word()?)?,
            bytes,
        },
        "fence" => Said::Fence { number: number(word()?)?, by: word()? },
        "at" => Said::At {
            number: number(word()?)?,
            offset: number(word()?)?,
            from: number(word()?)?,
            sequence: number(word()?)?,
        },
        "fenced" => Said::Fenced { offset: number(word()?)? },
        "closed" => Said::Closed,
        _ => return None,
    };
    words.next().is_none().then_some((origin, said))
}

/// A word of the line, with all of its life.
fn line_word(line: &[u8], index: usize) -> Option<&str> {
    std::str::from_utf8(line).ok()?.split(' ').nth(index)
}

fn is_plain(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A whole number without sign or leading zeros, so that each has one form.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| !text.starts_with('-') && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use schemas::note::{Ed25519Signer, Signer as _};

    use super::*;

    fn origin() -> Origin {
        Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
    }

    #[test]
    fn messages_come_back() {
        let key = Ed25519Signer::from_seed([7; 32]).public_key();
        let opening =
            Opening { partition: 3, offset: 0, lease_ms: 10_000, salt: [9; 32], key, encrypted: true };
        for said in [
            Said::Open(opening),
            Said::Lease { number: 7 },
            Said::Group { sequence: 1, piece: 0, pieces: 2, bytes: b"a\nb" },
            Said::Spill { file: "0192f1a0-2-ff.spill", offset: 896, bytes: b"x" },
            Said::Fence { number: 7, by: "acme/gw2/e:0011" },
            Said::At { number: 7, offset: 11, from: 3, sequence: 2 },
            Said::Fenced { offset: 12 },
            Said::Closed,
        ] {
            let message = encode(&origin(), &said);
            assert_eq!(decode(&message).unwrap(), (origin(), said));
        }
    }

    #[test]
    fn what_is_none_is_not_read() {
        for line in [
            "affidavit/commit/v2 closed acme/gw1/e1\n",
            "affidavit/commit/v1 closed acme/gw1\n",
            "affidavit/commit/v1 closed acme/gw1/e1 more\n",
            "affidavit/commit/v1 closed acme/gw1/e1",
            "affidavit/commit/v1 lease acme/gw1/e1 01\n",
            "affidavit/commit/v1 group acme/gw1/e1 1 2 2\n",
            "affidavit/commit/v1 group acme/gw1/e1 1 0 4000000000\n",
            "affidavit/commit/v1 spill acme/gw1/e1 ../x.spill 0\n",
            "affidavit/commit/v1 spill acme/gw1/e1 segment-00000000.journal 0\n",
            "affidavit/commit/v1 at acme/gw1/e1 1 -1 0 0\n",
            "affidavit/commit/v1 what acme/gw1/e1\n",
        ] {
            assert_eq!(decode(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_usize..8) {
            let kinds = ["open", "lease", "group", "spill", "fence", "at", "fenced", "closed"];
            decode(&bytes);
            let mut message = format!("{FIRST_WORD} {} acme/gw1/e1 ", kinds[kind]).into_bytes();
            message.extend(bytes);
            decode(&message);
        }
    }
}
