//! A second place beside the disk, and a journal made again from what went there.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

/// Keeps what it gets; tells only when it is let.
#[derive(Debug, Default)]
struct Second {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    salt: [u8; 32],
    groups: BTreeMap<u64, Vec<u8>>,
    spills: BTreeMap<String, Vec<u8>>,
    releases: Vec<(u64, Release)>,
    ended: Option<JournalError>,
    refuses: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl Second {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Tells of everything that is here.
    fn release(&self, result: Result<(), JournalError>) -> usize {
        let releases = std::mem::take(&mut self.state().releases);
        let count = releases.len();
        releases.into_iter().for_each(|(_, release)| release(result.clone()));
        count
    }

    fn release_when_there(&self) {
        while self.release(Ok(())) == 0 {
            std::thread::yield_now();
        }
    }
}

impl Beside for Second {
    fn begin(&self, salt: [u8; 32]) -> Result<(), JournalError> {
        self.state().salt = salt;
        Ok(())
    }

    fn send(&self, sequence: u64, _: u32, group: Vec<u8>) {
        self.state().groups.insert(sequence, group);
    }

    fn synced(&self, sequence: u64, release: Release) {
        self.state().releases.push((sequence, release));
    }

    fn spill(&self, file: &str, offset: u64, bytes: Vec<u8>) -> Result<(), JournalError> {
        let mut state = self.state();
        if state.refuses {
            return Err(JournalError::Uncommitted("away".into()));
        }
        let known = state.spills.entry(file.to_owned()).or_default();
        assert_eq!(known.len() as u64, offset, "in order");
        known.extend(bytes);
        Ok(())
    }

    fn spilled(&self, _: &str) -> Result<(), JournalError> {
        Ok(())
    }

    fn ended(&self) -> Option<JournalError> {
        self.state().ended.clone()
    }

    fn close(&self) {}
}

fn begun(disk: &SimDisk) -> (Journal, Arc<Second>) {
    let second = Arc::new(Second::default());
    let config = JournalConfig { beside: Some(second.clone()), ..small_config() };
    (Journal::create(shared(disk), dir(), config).unwrap(), second)
}

fn waits(ticket: &mut Ticket) -> bool {
    std::thread::sleep(std::time::Duration::from_millis(20));
    ticket.told().is_none()
}

#[test]
fn nobody_is_told_before_the_second_place_has_it() {
    let disk = SimDisk::new();
    let (journal, second) = begun(&disk);
    let mut first = put(&journal, vec![record(1)]);
    assert!(waits(&mut first));
    assert_eq!(journal.journaled(), 0);
    second.release_when_there();
    assert_eq!(first.wait().unwrap().positions, 0..1);
    assert_eq!(journal.journaled(), 1);
    // What is not there stays on this disk, and is read back by a start.
    let mut unreleased = put(&journal, vec![record(2)]);
    assert!(waits(&mut unreleased));
    journal.close();
    assert_eq!(recovered(&disk).unwrap().0.positions, 0..2);
}

#[test]
fn a_journal_that_is_fenced_tells_everybody_and_takes_nothing_more() {
    let disk = SimDisk::new();
    let (journal, second) = begun(&disk);
    let ticket = put(&journal, vec![record(1)]);
    let fenced = JournalError::Fenced { by: "acme/gw2".into() };
    while second.state().releases.is_empty() {
        std::thread::yield_now();
    }
    second.state().ended = Some(fenced.clone());
    second.release(Err(fenced));
    assert!(matches!(ticket.wait(), Err(JournalError::Fenced { .. })));
    assert!(matches!(
        journal.try_submit(&mut journal.reserve_nothing(), vec![record(2)]),
        Err(JournalError::Fenced { .. })
    ));
    assert!(matches!(journal.failed(), Some(JournalError::Fenced { .. })));
    assert_eq!(journal.journaled(), 0);
}

/// Writes what the second place has into a new folder, from group `from` on.
fn again(second: &Second, from: u64) -> (SimDisk, u64) {
    let (disk, state) = (SimDisk::new(), second.state());
    crate::disk::create_dir_all(&disk, dir()).unwrap();
    let mut rebuilt = Rebuilt::new(shared(&disk), dir(), &origin(), state.salt, 64 << 10, from == 0);
    for (file, bytes) in &state.spills {
        for (at, piece) in bytes.chunks(1000).enumerate() {
            rebuilt.spill(file, at as u64 * 1000, piece).unwrap();
        }
    }
    let mut records = 0;
    for (sequence, group) in state.groups.range(from..) {
        assert_eq!(read_group(&origin(), &state.salt, group), Some(*sequence));
        assert_eq!(read_group(&origin(), &[0; 32], group), None, "of another journal");
        assert_eq!(read_group(&origin(), &state.salt, &group[..group.len() - 1]), None, "cut");
        records += count_records(&origin(), &state.salt, group);
        rebuilt.group(group).unwrap();
    }
    rebuilt.finish().unwrap();
    (disk, records)
}

#[test]
fn what_went_to_the_second_place_is_the_same_journal() {
    let disk = SimDisk::new();
    let (journal, second) = begun(&disk);
    let mut spill = SpillWriter::create(&journal, &exchange(9), PartName::ClientRequest, 100).unwrap();
    for seq in 0..5 {
        let frame = ContentFrame { part: PartName::ClientRequest, ..content_frame(9, seq, 300_000 / 5) };
        spill.write(frame).unwrap();
    }
    let spill = spill.finish().unwrap();
    let mut tickets = vec![put(&journal, vec![Frame::Spill(spill), record(0)])];
    for n in 1..60 {
        tickets.push(put(&journal, vec![content(n, 0, 5000), record(n)]));
        second.release(Ok(()));
    }
    for ticket in &mut tickets {
        while ticket.told().is_none() {
            second.release(Ok(()));
        }
    }
    journal.close();
    let (_, before) = recovered(&disk).unwrap();
    let (copy, records) = again(&second, 0);
    let (recovery, after) = recovered(&copy).unwrap();
    assert_eq!((records, recovery.positions.clone(), recovery.losses.len()), (60, 0..60, 0));
    assert_eq!(recovery.tail, Tail::Clean);
    assert!(before == after, "the same frames at the same positions");
    assert_eq!(recovery.segments.content(&exchange(9), PartName::ClientRequest).flatten().count(), 5);
    // What was archived and is not sent again is missing before it, and no loss.
    let from = second.state().groups.len() as u64 / 2;
    let (copy, _) = again(&second, from);
    let (recovery, _) = recovered(&copy).unwrap();
    assert_eq!(recovery.positions.end, 60);
    assert!(recovery.losses.iter().all(|loss| loss.bytes == 0), "{:?}", recovery.losses);
}

#[test]
fn groups_that_somebody_was_told_of_and_are_missing_at_the_end_are_a_loss() {
    let disk = SimDisk::new();
    let (journal, second) = begun(&disk);
    for n in 0..4 {
        let mut ticket = put(&journal, vec![record(n)]);
        while ticket.told().is_none() {
            second.release(Ok(()));
        }
    }
    journal.close();
    let state = second.state();
    for kept in [0, 2] {
        let copy = SimDisk::new();
        crate::disk::create_dir_all(&copy, dir()).unwrap();
        let mut rebuilt = Rebuilt::new(shared(&copy), dir(), &origin(), state.salt, 64 << 10, true);
        for group in state.groups.values().take(kept) {
            rebuilt.group(group).unwrap();
        }
        rebuilt.missing(4).unwrap();
        rebuilt.finish().unwrap();
        let (recovery, _) = recovered(&copy).unwrap();
        assert_eq!(
            (recovery.positions.end, recovery.losses.len()),
            (kept as u64, 1),
            "{:?}",
            recovery.losses
        );
        assert!(recovery.losses[0].bytes > 0, "not what was archived");
    }
}

#[test]
fn a_spill_file_that_the_second_place_refuses_is_none() {
    let disk = SimDisk::new();
    let (journal, second) = begun(&disk);
    second.state().refuses = true;
    let mut spill = SpillWriter::create(&journal, &exchange(9), PartName::ClientRequest, 100).unwrap();
    spill.write(content_frame(9, 0, 100)).unwrap();
    assert!(matches!(spill.finish(), Err(JournalError::Uncommitted(_))));
    assert!(journal.failed().is_none(), "the journal goes on");
    assert!(!shared(&disk).list(dir()).unwrap().iter().any(|entry| entry.name.ends_with(".spill")));
}
