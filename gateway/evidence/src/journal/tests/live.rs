//! A journal that works.

use std::future::Future as _;

use super::*;
use crate::disk::{Call, Fault};

fn journal(disk: &SimDisk) -> Journal {
    Journal::create(shared(disk), dir(), small_config()).unwrap()
}

#[test]
fn records_get_positions_in_the_order_of_submission() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let first = put(&journal, vec![content(1, 0, 100), record(0), record(1)]);
    let second = put(&journal, vec![record(2)]);
    assert_eq!(second.wait().unwrap().positions, 2..3);
    assert_eq!(first.wait().unwrap().positions, 0..2);
    assert_eq!(put(&journal, vec![content(1, 1, 1)]).wait().unwrap().positions, 3..3);
    assert_eq!(put(&journal, vec![]).wait().unwrap().positions, 3..3);
    assert_eq!(journal.journaled(), 3);
}

#[test]
fn frames_are_read_back_while_the_journal_is_written() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let text = Frame::Reference {
        sha256: Sha256Hex::of(b"price book"),
        media_type: "text/csv".into(),
        bytes: Bytes::from_static(b"price book"),
    };
    put(&journal, vec![text, record(0)]).wait().unwrap();
    for seq in 0..40 {
        journal
            .submit_unacked(&mut journal.reserve_blocking(20_000).unwrap(), content(7, seq, 3000))
            .unwrap();
    }
    put(&journal, vec![record(1)]).wait().unwrap();
    let segments = journal.segments();
    let leaves: Vec<_> = segments.records(0..2).map(|record| record.unwrap()).collect();
    assert_eq!(leaves.len(), 2);
    assert_eq!(Frame::Record { leaf: leaves[1].1.clone(), hash: leaves[1].2 }, record(1));
    let frames: Vec<_> =
        segments.content(&exchange(7), PartName::ProviderResponse).map(|f| f.unwrap()).collect();
    assert_eq!(frames.len(), 40);
    assert!(frames.iter().zip(0..).all(|(frame, seq)| *frame == content_frame(7, seq, 3000)));
    let parts = segments.parts(&exchange(7));
    assert_eq!(parts[0].0, PartName::ProviderResponse);
    assert_eq!((parts[0].1.frames, parts[0].1.bytes, parts[0].1.delivered), (40, 120_000, 390));
    assert_eq!(segments.references(0..2), [(0, Sha256Hex::of(b"price book"))]);
    let (media_type, bytes) = segments.reference(&Sha256Hex::of(b"price book")).unwrap().unwrap();
    assert_eq!((media_type.as_str(), &bytes[..]), ("text/csv", &b"price book"[..]));
    assert!(matches!(segments.records(0..3).last().unwrap(), Err(ReadError::Absent { position: 2 })));
}

#[test]
fn a_submission_larger_than_a_segment_is_split() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let frames: Vec<Frame> = (0..50).map(|seq| content(1, seq, 7000)).chain([record(0)]).collect();
    let cost = Journal::cost(frames.iter().map(Frame::payload_bytes)) * 2;
    let mut reservation = journal.reserve_blocking(cost).unwrap();
    assert_eq!(journal.submit(&mut reservation, frames).wait().unwrap().positions, 0..1);
    drop(reservation);
    journal.close();
    let (recovery, frames) = recovered(&disk).unwrap();
    assert_eq!((recovery.tail, frames.len()), (Tail::Clean, 51));
    assert!(disk.used() > 300_000, "several segments");
}

#[test]
fn a_segment_is_deleted_only_behind_archived_records_and_content() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let mut number = 0;
    let mut fill = |of: u32| {
        let mut reservation = journal.reserve_blocking(200_000).unwrap();
        for seq in 0..8 {
            journal.submit_unacked(&mut reservation, content(of, seq, 8000)).unwrap();
        }
        journal.submit(&mut reservation, vec![record(number)]).wait().unwrap();
        number += 1;
    };
    (1..=4).for_each(&mut fill);
    let segments = journal.segments();
    let before = segments.bytes();
    assert_eq!(segments.archived(4).unwrap(), Removed::default(), "content is not sealed");
    let part = |of| (exchange(of), PartName::ProviderResponse);
    segments.sealed(3, &[part(2), part(3)]);
    assert_eq!(segments.archived(1).unwrap(), Removed::default(), "sealed is not archived");
    let removed = segments.archived(3).unwrap();
    assert!(removed.segments >= 1, "the middle goes although exchange 1 holds the first segment");
    let kept: Vec<_> = segments.content(&exchange(1), PartName::ProviderResponse).collect();
    assert!(kept.len() == 8 && kept.iter().all(Result::is_ok), "what is not sealed stays readable");
    let (recovery, _) = recovered(&disk).unwrap();
    assert!(
        recovery.losses.iter().all(|loss| loss.bytes == 0 && loss.positions.end <= 3),
        "{:?}",
        recovery.losses
    );
    segments.sealed(4, &[part(4)]);
    segments.forget(&exchange(1));
    segments.archived(4).unwrap();
    assert!(segments.bytes() < before);
    assert_eq!(segments.unsealed(), (0, 0));
    put(&journal, vec![record(9)]).wait().unwrap();
    assert_eq!(recovered(&disk).unwrap().0.positions.end, 5, "the newest segment always stays");
}

#[test]
fn reserved_space_is_allocated_and_comes_back() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(200 << 10));
    let journal = journal(&disk);
    let held: Vec<_> = std::iter::from_fn(|| journal.reserve_blocking(20_000).ok()).collect();
    assert!(!held.is_empty());
    assert!(matches!(journal.reserve_blocking(20_000), Err(JournalError::NoSpace { .. })));
    assert!(matches!(
        journal.submit_free(vec![content(1, 0, 8000), content(1, 1, 8000)]).wait(),
        Err(JournalError::NoSpace { .. })
    ));
    let promised = held.len();
    for mut reservation in held {
        // What was reserved is there although the disk is full: three submissions of 6,500 bytes' cost each.
        let before = reservation.left();
        journal.submit(&mut reservation, vec![record(1)]).wait().unwrap();
        assert!(reservation.left() < before);
    }
    let again: Vec<_> = std::iter::from_fn(|| journal.reserve_blocking(20_000).ok()).collect();
    assert!(again.len() < promised, "what was written is used up");
    drop(again);
    disk.set_capacity(Some(1 << 20));
    journal.reserve_blocking(20_000).unwrap();
    assert!(journal.failed().is_none(), "a full disk is no failure");
}

#[test]
fn every_failing_call_is_met_and_is_told() {
    for fault in [Fault::Io, Fault::NoSpace] {
        for n in 0.. {
            let disk = SimDisk::new();
            disk.fault_at_change(n, fault);
            let mut acknowledged = Vec::new();
            let mut refused = 0;
            if let Ok(journal) = Journal::create(shared(&disk), dir(), small_config()) {
                let mut failed = false;
                for number in 0..12 {
                    let Ok(mut reservation) = journal.reserve_blocking(40_000) else {
                        refused += 1;
                        continue;
                    };
                    match journal
                        .submit(&mut reservation, vec![content(number, 0, 8000), record(number)])
                        .wait()
                    {
                        Ok(synced) => {
                            assert!(!failed, "nothing is acknowledged behind a failure");
                            acknowledged.push((synced.positions.start, record(number)));
                        }
                        Err(error) => {
                            assert!(matches!(error, JournalError::Failed { .. }), "{error}");
                            assert!(journal.failed().is_some());
                            failed = true;
                            refused += 1;
                        }
                    }
                }
                journal.close();
            } else {
                refused += 1;
            }
            if disk.hits() == 0 {
                assert!(n > 20, "all calls were met in turn");
                break;
            }
            assert!(refused > 0 || n > 7, "call {n} failed and nobody was told");
            for seed in 0..4 {
                let disk = disk.fork();
                disk.crash(crate::disk::Crash::Random { seed, sector: 512 });
                let found = recovered(&disk).map(|(_, frames)| frames).unwrap_or_default();
                assert!(acknowledged.iter().all(|frame| found.contains(frame)), "call {n}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_failed_sync_ends_the_journal_for_good() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    put(&journal, vec![record(0)]).wait().unwrap();
    disk.fault_at(Call::SyncData, 0, Fault::Io);
    assert!(matches!(put(&journal, vec![record(1)]).wait(), Err(JournalError::Failed { call: "sync", .. })));
    assert_eq!(disk.hits(), 1);
    let writes = disk.count(Call::Write);
    assert!(put(&journal, vec![record(2)]).wait().is_err());
    let mut nothing = journal.reserve_nothing();
    assert!(matches!(
        journal.submit_unacked(&mut nothing, content(1, 0, 9)),
        Err(JournalError::Failed { .. })
    ));
    assert!(journal.reserve_blocking(1).is_err());
    assert_eq!(disk.count(Call::Write), writes, "nothing is written behind a failed sync");
    assert_eq!(journal.journaled(), 1);
}

#[test]
fn content_that_waits_is_bounded() {
    let disk = SimDisk::new();
    let config = JournalConfig { unacked_bytes: 5_000, ..small_config() };
    let journal = Journal::create(shared(&disk), dir(), config).unwrap();
    let mut reservation = journal.reserve_blocking(40_000).unwrap();
    let too_much = journal.submit_unacked(&mut reservation, content(1, 0, 6_000));
    assert!(matches!(too_much, Err(JournalError::Behind { limit: 5_000, .. })));
    let too_large = put(&journal, vec![content(1, 0, 9_000)]).wait();
    assert!(matches!(too_large, Err(JournalError::FrameTooLarge { bytes: 9_000, limit: 8_192 })));
    for seq in 0..200 {
        journal.submit_unacked(&mut journal.reserve_blocking(40_000).unwrap(), content(1, seq, 100)).unwrap();
        if seq % 10 == 0 {
            put(&journal, vec![record(seq)]).wait().unwrap();
        }
    }
}

#[test]
fn a_closed_journal_has_written_what_waited() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let tickets: Vec<_> = (0..30).map(|n| put(&journal, vec![record(n)])).collect();
    journal.close();
    assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    assert!(matches!(put(&journal, vec![record(0)]).wait(), Err(JournalError::Closed)));
    assert!(matches!(journal.reserve_blocking(1 << 30), Err(JournalError::Closed)));
    assert_eq!(recovered(&disk).unwrap().1.len(), 30);
}

#[test]
fn a_journal_is_never_opened_over_another() {
    let disk = SimDisk::new();
    drop(journal(&disk));
    assert!(Journal::create(shared(&disk), dir(), small_config()).is_err());
    assert_eq!(recovered(&disk).unwrap().0.positions, 0..0);
}

#[test]
fn a_plan_takes_no_position_comes_back_before_its_records_and_is_never_sealed() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let plan = Frame::Plan(Bytes::from(vec![7; 5_000]));
    put(&journal, vec![record(0)]).wait().unwrap();
    let synced = put(&journal, vec![plan.clone(), record(1), record(2)]).wait().unwrap();
    assert_eq!(synced.positions, 1..3);
    // Segments of 64 KiB: the plan's is not the newest.
    (3..20).for_each(|n| drop(put(&journal, vec![content(n, 0, 7_000), record(n)]).wait().unwrap()));
    let parts: Vec<_> = (3..20).map(|n| (exchange(n), PartName::ProviderResponse)).collect();
    journal.segments().sealed(20, &parts);
    assert_eq!(journal.segments().unsealed(), (0, 0), "a plan does not wait for a batch");
    disk.crash(crate::disk::Crash::DropAll);
    let (recovery, frames) = recovered(&disk).unwrap();
    assert_eq!(recovery.positions, 0..20);
    assert_eq!(frames[1..4], [(1, plan), (1, record(1)), (2, record(2))]);
    recovery.segments.sealed(20, &parts);
    assert_eq!(recovery.segments.archived(1).unwrap().segments, 0);
    assert!(recovery.segments.archived(20).unwrap().segments > 0);
}

#[test]
fn a_spilled_part_is_read_back_like_any_other() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let mut spill = SpillWriter::create(&journal, &exchange(3), PartName::ProviderResponse, 40_000).unwrap();
    (0..20).for_each(|seq| spill.write(content_frame(3, seq, 2_000)).unwrap());
    let spill = spill.finish().unwrap();
    assert_eq!(journal.spilled(&spill).unwrap().count(), 20);
    put(&journal, vec![Frame::Spill(spill.clone()), content(3, 20, 50), record(0)]).wait().unwrap();
    disk.crash(crate::disk::Crash::DropAll);

    let (recovery, _) = recovered(&disk).unwrap();
    let segments = &recovery.segments;
    let frames: Vec<_> =
        segments.content(&exchange(3), PartName::ProviderResponse).map(|f| f.unwrap()).collect();
    assert_eq!(frames.len(), 21);
    assert!(frames[..20].iter().zip(0..).all(|(frame, seq)| *frame == content_frame(3, seq, 2_000)));
    assert_eq!(segments.parts(&exchange(3))[0].1.bytes, 40_050);
    segments.sealed(1, &[(exchange(3), PartName::ProviderResponse)]);
    assert_eq!(segments.archived(0).unwrap().spills, 0);
    assert_eq!(segments.archived(1).unwrap().spills, 1);
    assert_eq!(disk.peek(&dir().join(&spill.file)), None);
}

#[test]
fn an_unfinished_or_discarded_spill_leaves_nothing_behind() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let spills = || shared(&disk).list(dir()).unwrap().iter().filter(|e| e.name.ends_with(".spill")).count();
    let mut spill = SpillWriter::create(&journal, &exchange(3), PartName::ClientRequest, 0).unwrap();
    let frame = ContentFrame { part: PartName::ClientRequest, ..content_frame(3, 0, 9_000) };
    spill.write(frame.clone()).unwrap();
    assert_eq!(spills(), 1);
    drop(spill);
    assert_eq!(spills(), 0);
    let mut spill = SpillWriter::create(&journal, &exchange(3), PartName::ClientRequest, 0).unwrap();
    spill.write(frame.clone()).unwrap();
    let spill = spill.finish().unwrap();
    let mut open = journal.spilled(&spill).unwrap();
    journal.discard_spill(&spill).unwrap();
    assert_eq!(open.next().unwrap().unwrap(), frame, "an open reader keeps the file");
    assert_eq!(spills(), 0);
}

#[test]
fn a_spill_that_cannot_be_synced_ends_the_journal() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let mut spill = SpillWriter::create(&journal, &exchange(3), PartName::ProviderResponse, 0).unwrap();
    spill.write(content_frame(3, 0, 9_000)).unwrap();
    disk.fault_at(Call::SyncData, 0, Fault::Io);
    assert!(matches!(spill.finish(), Err(JournalError::Failed { .. })));
    assert!(journal.failed().is_some() && disk.hits() == 1);
}

#[test]
fn tickets_work_from_a_runtime() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let journal = journal.clone();
            runtime.spawn(async move {
                let mut reservation = journal.reserve(20_000).await.unwrap();
                let positions = journal.submit(&mut reservation, vec![record(n)]).await.unwrap().positions;
                (positions.start, n)
            })
        })
        .collect();
    let mut found: Vec<_> = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).collect();
    found.sort_unstable();
    assert!(found.iter().zip(0..).all(|((position, _), expected)| *position == expected));
    let leaves: Vec<_> = journal.segments().records(0..64).map(|record| record.unwrap().1).collect();
    for (position, n) in found {
        let Frame::Record { leaf, .. } = record(n) else { unreachable!() };
        assert_eq!(leaves[position as usize], leaf);
    }
}

#[test]
fn who_runs_gets_space_before_who_waits() {
    let disk = SimDisk::new();
    let journal = journal(&disk);
    let mut running = journal.reserve_blocking(10_000).unwrap();
    // No segment can be made for the next one, and it is not told so yet: the disk is slow.
    let waiting = journal.reserve(1 << 20);
    let mut waiting = std::pin::pin!(waiting);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    disk.set_capacity(Some(disk.used()));
    let _ = waiting.as_mut().poll(&mut context);
    running.try_extend(10_000).unwrap();
    assert_eq!(running.left(), 20_000);
}

#[test]
fn nobody_waits_for_a_thread_that_is_gone() {
    let disk = SimDisk::new();
    let fine = std::sync::atomic::AtomicBool::new(true);
    let now_us =
        Arc::new(move || if fine.swap(false, Ordering::Relaxed) { 1 } else { panic!("a broken clock") });
    let journal = Journal::create(shared(&disk), dir(), JournalConfig { now_us, ..small_config() }).unwrap();
    assert!(put(&journal, vec![record(0)]).wait().is_ok());
    assert!(matches!(put(&journal, vec![record(1)]).wait(), Err(JournalError::Closed)));
    assert!(matches!(put(&journal, vec![record(2)]).wait(), Err(JournalError::Closed)));
    assert!(matches!(journal.reserve_blocking(1 << 30), Err(JournalError::Closed)));
}
