//! What recovery says of damaged journals.

use super::*;
use crate::journal::group::{BLOCK, segment_name};

/// Six groups of a record and 5 KB of content in the first segment, then a clean stop.
fn six_groups() -> SimDisk {
    let disk = SimDisk::new();
    let journal = Journal::create(shared(&disk), dir(), small_config()).unwrap();
    for n in 0..6 {
        put(&journal, vec![content(n, 0, 5_000), record(n)]).wait().unwrap();
    }
    journal.close();
    disk
}

fn first() -> std::path::PathBuf {
    dir().join(segment_name(0))
}

const GROUP: u64 = 2 * BLOCK;

/// Changes bytes of the first segment.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> (Recovery, Vec<(u64, Frame)>) {
    let disk = six_groups();
    disk.poke(&first(), change);
    recovered(&disk).unwrap()
}

#[test]
fn a_clean_journal_ends_clean() {
    let (recovery, frames) = damaged(|_| ());
    assert_eq!((recovery.tail, recovery.positions, frames.len()), (Tail::Clean, 0..6, 12));
    assert!(recovery.losses.is_empty());
    assert!(recovery.last_time_us.is_some_and(|time| time >= 1_005));
    assert_eq!(recovery.origin, origin());
}

#[test]
fn torn_tail_is_cut_at_the_last_whole_frame() {
    // The record's frame of the last group; the content before it is whole.
    let (recovery, frames) = damaged(|bytes| bytes[(BLOCK + 5 * GROUP) as usize + 64 + 5_000 + 80] ^= 1);
    assert!(matches!(recovery.tail, Tail::Torn { bytes } if bytes > 0), "{:?}", recovery.tail);
    assert_eq!((recovery.positions, frames.len()), (0..5, 11));
    assert_eq!(frames[10], (5, content(5, 0, 5_000)));
    assert!(recovery.losses.is_empty());
}

#[test]
fn a_last_group_without_its_head_is_a_torn_tail() {
    let (recovery, frames) = damaged(|bytes| bytes[(BLOCK + 5 * GROUP) as usize] ^= 1);
    assert!(matches!(recovery.tail, Tail::Torn { bytes } if bytes > 5_000));
    assert_eq!((recovery.positions, frames.len(), recovery.losses.len()), (0..5, 10, 0));
}

#[test]
fn a_flipped_bit_in_an_earlier_group_is_a_loss() {
    for place in [64 + 20, 64 + 4_000, 64 + 5_000 + 80] {
        let (recovery, frames) = damaged(|bytes| bytes[(BLOCK + 2 * GROUP) as usize + place] ^= 4);
        assert_eq!(recovery.tail, Tail::Clean);
        let [loss] = &recovery.losses[..] else { panic!("one loss, not {:?}", recovery.losses) };
        assert_eq!((loss.positions.clone(), loss.offset), (2..3, BLOCK + 2 * GROUP));
        assert!(loss.bytes > 0);
        assert_eq!(recovery.positions, 0..6, "what follows is still there");
        assert!(frames.contains(&(3, record(3))) && !frames.contains(&(2, record(2))));
    }
}

#[test]
fn an_earlier_group_without_its_head_is_a_loss() {
    let (recovery, _) = damaged(|bytes| bytes[(BLOCK + 2 * GROUP) as usize + 30] ^= 4);
    assert_eq!((recovery.tail, recovery.losses.len()), (Tail::Clean, 1));
    assert_eq!((recovery.losses[0].positions.clone(), recovery.losses[0].bytes), (2..3, GROUP));
}

#[test]
fn an_earlier_group_that_is_gone_is_a_loss() {
    let gone = |from: u64, count: u64| {
        damaged(|bytes| {
            let from = (BLOCK + from * GROUP) as usize;
            bytes[from..from + (count * GROUP) as usize].fill(0);
        })
        .0
        .losses
    };
    assert_eq!(gone(0, 1)[0].positions, 0..1, "also the first");
    assert!(gone(0, 1)[0].bytes > 0);
    assert_eq!(gone(2, 3)[0].positions, 2..5);
    assert_eq!(gone(5, 1), [], "the last one leaves no trace");
}

#[test]
fn a_damaged_segment_head_is_told() {
    let (recovery, frames) = damaged(|bytes| bytes[100] ^= 1);
    assert_eq!(
        (recovery.losses.len(), frames.len()),
        (1, 12),
        "the next segment's head still names the journal"
    );
    let disk = six_groups();
    disk.poke(&first(), |bytes| bytes[100] ^= 1);
    shared(&disk).unlink(&dir().join(segment_name(1))).unwrap();
    let error = recover::<std::convert::Infallible>(shared(&disk), dir(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, RecoverError::NoHead { .. }), "{error}");
}

#[test]
fn a_truncated_segment_is_told() {
    for len in [0, 4096, (BLOCK + 3 * GROUP) as usize, (BLOCK + 3 * GROUP) as usize + 700] {
        let (recovery, frames) = damaged(|bytes| bytes.truncate(len));
        let told = recovery.tail != Tail::Clean || !recovery.losses.is_empty();
        assert!(told && frames.len() < 12, "cut at {len}");
    }
}

#[test]
fn segments_of_two_journals_are_refused() {
    let disk = SimDisk::new();
    let journal = Journal::create(shared(&disk), dir(), small_config()).unwrap();
    let mut other = JournalConfig { origin: Origin::new("acme/gw1/other").unwrap(), ..small_config() };
    other.ahead_bytes = 100 << 10;
    let far = Path::new("/far");
    let second = Journal::create(shared(&disk), far, other).unwrap();
    second.reserve_blocking(60 << 10).unwrap();
    second.close();
    journal.close();
    shared(&disk).rename(&far.join(segment_name(1)), &dir().join(segment_name(1))).unwrap();
    let error = recover::<std::convert::Infallible>(shared(&disk), dir(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, RecoverError::Foreign { .. }), "{error}");
}

#[test]
fn content_that_looks_like_a_group_is_content() {
    let disk = six_groups();
    let group = disk.peek(&first()).unwrap()[BLOCK as usize..(BLOCK + GROUP) as usize].to_vec();
    // Another epoch's journal, in which somebody sends the bytes of this one, at every alignment of 512.
    let disk = SimDisk::new();
    let config = JournalConfig { frame_bytes: 20_000, segment_bytes: 128 << 10, ..small_config() };
    let journal = Journal::create(shared(&disk), dir(), config).unwrap();
    for seq in 0..8 {
        let mut data = vec![0; (seq as usize + 1) * 512 - 64 - 66];
        data.extend_from_slice(&group);
        let frame = Frame::Content(ContentFrame { data: data.into(), ..content_frame(1, seq, 0) });
        put(&journal, vec![frame, record(seq)]).wait().unwrap();
    }
    journal.close();
    let len = disk.peek(&first()).unwrap().len();
    // The last group loses its head: what is inside it must not be taken for groups.
    disk.poke(&first(), |bytes| {
        let last = bytes.chunks(4096).rposition(|block| block.starts_with(b"afgroup1") && block[40] != 0);
        let blocks: Vec<usize> =
            (0..len / 4096).filter(|n| bytes[n * 4096..].starts_with(b"afgroup1")).collect();
        assert!(last.is_some() && blocks.len() >= 8, "{blocks:?}");
        bytes[blocks[blocks.len() - 1] * 4096 + 9] ^= 1;
    });
    let (recovery, frames) = recovered(&disk).unwrap();
    assert!(recovery.losses.is_empty(), "{:?}", recovery.losses);
    assert!(frames.len() >= 14);
    assert!(frames.iter().all(|(_, frame)| !matches!(frame, Frame::Content(c) if c.exchange != exchange(1))));
}

#[test]
fn a_flip_of_any_byte_never_invents_reorders_or_panics() {
    let disk = six_groups();
    let (_, whole) = recovered(&disk).unwrap();
    let len = (BLOCK + 6 * GROUP + 4096) as usize;
    for at in (0..len).step_by(13) {
        let disk = disk.fork();
        disk.poke(&first(), |bytes| bytes[at] ^= 1 << (at % 8));
        let mut found = Vec::new();
        let recovery = recover::<std::convert::Infallible>(shared(&disk), dir(), &mut |frame| {
            found.push((frame.position, frame.frame.clone()));
            Ok(())
        });
        let mut rest = whole.iter();
        assert!(found.iter().all(|frame| rest.any(|known| known == frame)), "byte {at}");
        match recovery {
            Ok(Some(recovery)) => {
                let told = recovery.tail != Tail::Clean || !recovery.losses.is_empty();
                assert!(found.len() == whole.len() || told, "byte {at}: frames vanish silently");
            }
            Ok(None) => panic!("byte {at}: a journal vanishes silently"),
            Err(error) => assert!(matches!(error, RecoverError::NoHead { .. }), "byte {at}: {error}"),
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn hostile_bytes_never_panic(
        cuts in proptest::collection::vec((0_usize..60_000, proptest::collection::vec(0_u8..=255, 1..40)), 0..12),
        truncate in 0_usize..70_000,
    ) {
        let disk = six_groups_once();
        disk.poke(&first(), |bytes| {
            for (at, patch) in &cuts {
                bytes[*at..*at + patch.len()].copy_from_slice(patch);
            }
            bytes.truncate(truncate);
        });
        let _ = recover::<std::convert::Infallible>(shared(&disk), dir(), &mut |_| Ok(()));
    }

    #[test]
    fn a_hostile_group_head_never_panics(
        sequence: u64, first_position: u64, length: u32, frames: u32, payload_crc: u32, body: Vec<u8>,
    ) {
        use crate::journal::group::{GroupHead, SegmentHead, Tag};
        let disk = six_groups_once();
        disk.poke(&first(), |bytes| {
            let head = SegmentHead::decode(bytes).unwrap();
            let tag = Tag::of(&head.origin, &head.salt);
            let time_us = i64::MAX;
            let group = GroupHead { sequence, first_position, time_us, length, frames, payload_crc };
            let at = (BLOCK + 3 * GROUP) as usize;
            bytes[at..at + 64].copy_from_slice(&group.encode(tag));
            // A frame with a good crc and hostile fields.
            let len = (body.len() as u32).to_le_bytes();
            let crc = crc32c::crc32c_append(crc32c::crc32c_append(tag.seed(), &len), &body);
            let frame = [&len[..], &crc.to_le_bytes(), &body].concat();
            bytes[at + 64..at + 64 + frame.len()].copy_from_slice(&frame);
        });
        let _ = recover::<std::convert::Infallible>(shared(&disk), dir(), &mut |_| Ok(()));
    }
}

fn six_groups_once() -> SimDisk {
    static DISK: std::sync::OnceLock<SimDisk> = std::sync::OnceLock::new();
    DISK.get_or_init(six_groups).fork()
}
