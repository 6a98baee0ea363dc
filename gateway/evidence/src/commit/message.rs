//! Messages of the commit topic.
//!
//! ```text
//! affidavit/commit/v2 <code> <kind> <origin> <fields>\n<bytes>
//!
//! in the log's own partition
//!   open   <partition> <offset> <lease ms> <salt> <seal key> <encryption>   the log begins; counts as lease 0
//!   lease  <number> <told>                              its gateway lives; so many groups it has told of by then
//!   group  <sequence> <piece> <pieces>                  bytes: a piece of a group of its journal, head and frames
//!   spill  <file> <offset>                              bytes: a piece of a spill file
//!   fence  <number> <by>                                the log ends here, if the lease before it has this number
//!   ending <sha256> <piece> <pieces>                    bytes: a piece of the records that recovery adds, all of which have this hash
//! in the index, partition 0
//!   open   as above; offset: where the one in the log's partition stands
//!   at     <number> <offset> <from> <sequence>          the lease, where it stands, and from where on the log is needed
//!   fenced <offset>                                     its gateway has found the fence that stands there
//!   closed                                              all of the log is archived
//! ```
//!
//! `code` is the HMAC-SHA-256, in hex, of all that stands behind it and the space, under the partition's key. So a message
//! counts as it was written: its kind, its log, its numbers, its bytes, its topic and its partition.

use ring::hmac;
use schemas::trust::{key_text, public_key};
use schemas::{Origin, Sha256Hex};

const FIRST_WORD: &str = "affidavit/commit/v2 ";
/// A code in hex, and the space behind it.
const CODE_BYTES: usize = 65;
/// Bytes in each piece but the last: a message stays below 900 KiB.
pub(super) const PIECE_BYTES: usize = 896 << 10;
/// The longest message that is looked at.
const MAX_MESSAGE_BYTES: usize = 900 << 10;
/// The longest first line.
const MAX_LINE_BYTES: usize = 4 << 10;
/// No group has more pieces: the longest has 80 MiB.
const MAX_PIECES: u32 = 128;
/// No ending has more pieces: 1 GiB.
pub(super) const MAX_ENDING_PIECES: u32 = 1171;

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
    Lease { number: u64, told: u64 },
    Group { sequence: u64, piece: u32, pieces: u32, bytes: &'a [u8] },
    Spill { file: &'a str, offset: u64, bytes: &'a [u8] },
    Fence { number: u64, by: &'a str },
    Ending { sha256: Sha256Hex, piece: u32, pieces: u32, bytes: &'a [u8] },
    At { number: u64, offset: i64, from: i64, sequence: u64 },
    Fenced { offset: i64 },
    Closed,
}

/// The message, for the partition whose key it is.
pub(super) fn encode(key: &hmac::Key, origin: &Origin, said: &Said<'_>) -> Vec<u8> {
    let (fields, bytes): (String, &[u8]) = match said {
        Said::Open(opening) => {
            let Opening { partition, offset, lease_ms, salt, key: seal_key, encrypted } = opening;
            let (salt, seal_key, encrypted) = (hex::encode(salt), key_text(seal_key), u8::from(*encrypted));
            (format!("open {origin} {partition} {offset} {lease_ms} {salt} {seal_key} {encrypted}"), &[])
        }
        Said::Lease { number, told } => (format!("lease {origin} {number} {told}"), &[]),
        Said::Group { sequence, piece, pieces, bytes } => {
            (format!("group {origin} {sequence} {piece} {pieces}"), bytes)
        }
        Said::Spill { file, offset, bytes } => (format!("spill {origin} {file} {offset}"), bytes),
        Said::Fence { number, by } => (format!("fence {origin} {number} {by}"), &[]),
        Said::Ending { sha256, piece, pieces, bytes } => {
            (format!("ending {origin} {sha256} {piece} {pieces}"), bytes)
        }
        Said::At { number, offset, from, sequence } => {
            (format!("at {origin} {number} {offset} {from} {sequence}"), &[])
        }
        Said::Fenced { offset } => (format!("fenced {origin} {offset}"), &[]),
        Said::Closed => (format!("closed {origin}"), &[]),
    };
    let mut code = hmac::Context::with_key(key);
    for part in [fields.as_bytes(), b"\n", bytes] {
        code.update(part);
    }
    let code = hex::encode(code.sign().as_ref());
    let mut message = Vec::with_capacity(FIRST_WORD.len() + CODE_BYTES + fields.len() + bytes.len() + 1);
    for part in [FIRST_WORD.as_bytes(), code.as_bytes(), b" ", fields.as_bytes(), b"\n", bytes] {
        message.extend_from_slice(part);
    }
    message
}

/// Reads a message of the partition whose key it is; `None` where it is none, or nobody who has the key wrote it there.
pub(super) fn decode<'a>(key: &hmac::Key, message: &'a [u8]) -> Option<(Origin, Said<'a>)> {
    if message.len() > MAX_MESSAGE_BYTES {
        return None;
    }
    let (code, said) = message.strip_prefix(FIRST_WORD.as_bytes())?.split_at_checked(CODE_BYTES)?;
    let code = hex::decode(code.strip_suffix(b" ")?).ok()?;
    hmac::verify(key, said, &code).ok()?;
    read(said)
}

fn read(message: &[u8]) -> Option<(Origin, Said<'_>)> {
    let end = message.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n')?;
    let (line, bytes) = message.split_at(end);
    let bytes = bytes.get(1..)?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
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
        "lease" => Said::Lease { number: number(word()?)?, told: number(word()?)? },
        "group" => {
            let (sequence, piece, pieces) = (number(word()?)?, number(word()?)?, number(word()?)?);
            is_piece(piece, pieces, MAX_PIECES, bytes).then_some(Said::Group {
                sequence,
                piece,
                pieces,
                bytes,
            })?
        }
        "ending" => {
            let (sha256, piece, pieces) = (Sha256Hex::parse(word()?)?, number(word()?)?, number(word()?)?);
            is_piece(piece, pieces, MAX_ENDING_PIECES, bytes).then_some(Said::Ending {
                sha256,
                piece,
                pieces,
                bytes,
            })?
        }
        "spill" => Said::Spill {
            // It becomes a file's name.
            file: word()?.strip_suffix(".spill").filter(|name| is_plain(name)).and(line_word(line, 2))?,
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

fn is_piece(piece: u32, pieces: u32, max: u32, bytes: &[u8]) -> bool {
    piece < pieces && pieces <= max && bytes.len() <= PIECE_BYTES
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

    use super::super::CommitKey;
    use super::*;

    fn origin() -> Origin {
        Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
    }

    #[test]
    fn messages_come_back() {
        for said in one_of_each() {
            let message = encode(&key_of(1), &origin(), &said);
            assert_eq!(decode(&key_of(1), &message).unwrap(), (origin(), said));
        }
    }

    fn key_of(partition: i32) -> hmac::Key {
        CommitKey::new(&[5; 32]).of("affidavit-commit", partition)
    }

    #[test]
    fn a_message_counts_as_it_was_written_and_where() {
        let said = Said::Group { sequence: 1, piece: 0, pieces: 2, bytes: b"bytes" };
        let message = encode(&key_of(1), &origin(), &said);
        assert!(decode(&key_of(1), &message).is_some());
        assert_eq!(decode(&key_of(2), &message), None, "in another partition");
        let other = CommitKey::new(&[6; 32]).of("affidavit-commit", 1);
        assert_eq!(decode(&other, &message), None, "under another secret");
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&key_of(1), &changed), None, "byte {at} is another");
        }
        let text = String::from_utf8(message.clone()).unwrap();
        for (from, to) in [("gw1", "gw2"), ("group", "spill"), (" 1 0 2", " 2 0 2"), (" 1 0 2", " 1 1 2")] {
            assert_eq!(decode(&key_of(1), text.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
        for length in [0, 20, 84, 85, message.len() - 1] {
            assert_eq!(decode(&key_of(1), &message[..length]), None, "cut at {length}");
        }
        let bare = text.replacen(&text[FIRST_WORD.len()..FIRST_WORD.len() + CODE_BYTES], "", 1);
        assert_eq!(decode(&key_of(1), bare.as_bytes()), None, "without a code");
    }

    #[test]
    fn what_is_none_is_not_read() {
        for line in [
            "closed acme/gw1\n",
            "closed acme/gw1/e1 more\n",
            "closed acme/gw1/e1",
            "lease acme/gw1/e1 01 0\n",
            "group acme/gw1/e1 1 2 2\n",
            "group acme/gw1/e1 1 0 4000000000\n",
            "ending acme/gw1/e1 12 0 1\n",
            "spill acme/gw1/e1 ../x.spill 0\n",
            "spill acme/gw1/e1 segment-00000000.journal 0\n",
            "at acme/gw1/e1 1 -1 0 0\n",
            "what acme/gw1/e1\n",
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line}");
        }
    }

    fn one_of_each() -> [Said<'static>; 9] {
        let key = Ed25519Signer::from_seed([7; 32]).public_key();
        let opening =
            Opening { partition: 3, offset: 0, lease_ms: 10_000, salt: [9; 32], key, encrypted: true };
        [
            Said::Open(opening),
            Said::Lease { number: 7, told: 3 },
            Said::Group { sequence: 1, piece: 0, pieces: 2, bytes: b"a\nb" },
            Said::Spill { file: "0192f1a0-2-ff.spill", offset: 896, bytes: b"x" },
            Said::Fence { number: 7, by: "acme/gw2/e:0011" },
            Said::Ending { sha256: Sha256Hex::of(b"xy"), piece: 1, pieces: 2, bytes: b"y" },
            Said::At { number: 7, offset: 11, from: 3, sequence: 2 },
            Said::Fenced { offset: 12 },
            Said::Closed,
        ]
    }

    proptest! {
        /// Behind the code, which somebody who has the secret can make for anything.
        #[test]
        fn what_is_read_of_a_changed_message_is_what_is_written(
            kind in 0_usize..9,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 0..4),
        ) {
            let message = encode(&key_of(1), &origin(), &one_of_each()[kind]);
            let mut said = message[FIRST_WORD.len() + CODE_BYTES..].to_vec();
            for (at, byte, how) in changes {
                let at = at.index(said.len());
                match how {
                    0 => said[at] = byte,
                    1 => said.insert(at, b'0' + byte % 10),
                    _ if said.len() > 1 => _ = said.remove(at),
                    _ => {}
                }
            }
            if let Some((origin, read_of_it)) = read(&said) {
                let message = encode(&key_of(1), &origin, &read_of_it);
                prop_assert_eq!(decode(&key_of(1), &message), Some((origin, read_of_it)));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_usize..9) {
            let kinds = ["open", "lease", "group", "spill", "fence", "ending", "at", "fenced", "closed"];
            decode(&key_of(1), &bytes);
            let mut message = format!("{} acme/gw1/e1 ", kinds[kind]).into_bytes();
            message.extend(bytes);
            read(&message);
            message.splice(..0, FIRST_WORD.bytes());
            decode(&key_of(1), &message);
        }
    }
}
