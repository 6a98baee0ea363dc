//! Random actions against a simple model: what was submitted, in order, and how much of it was acknowledged.

use proptest::prelude::*;

use super::*;
use crate::disk::{Crash, Fault};

#[derive(Debug, Clone)]
enum Action {
    /// Content that nobody waits for.
    Content { exchange: u32, bytes: usize },
    /// Content and a record; wait for it or not.
    Exchange { exchange: u32, bytes: usize, records: u32, wait: bool },
    /// Wait for all tickets so far.
    Sync,
    /// Seal and archive what is durable so far.
    Archive,
}

fn action() -> impl Strategy<Value = Action> {
    let exchange = 0_u32..4;
    let bytes = prop_oneof![0_usize..200, 2_000_usize..2_100, 4_000_usize..8_192];
    prop_oneof![
        3 => (exchange.clone(), bytes.clone()).prop_map(|(exchange, bytes)| Action::Content { exchange, bytes }),
        5 => (exchange, bytes, 0_u32..4, any::<bool>())
            .prop_map(|(exchange, bytes, records, wait)| Action::Exchange { exchange, bytes, records, wait }),
        1 => Just(Action::Sync),
        1 => Just(Action::Archive),
    ]
}

#[derive(Default)]
struct Model {
    /// Everything that the journal took, in order.
    submitted: Vec<Frame>,
    /// That many of them are acknowledged.
    acknowledged: usize,
    /// Records below this are archived: their segments may be gone.
    archived: u64,
    waiting: Vec<(Ticket, usize, std::ops::Range<u64>)>,
    records: u32,
    seq: u32,
}

impl Model {
    fn settle(&mut self) {
        for (ticket, upto, positions) in std::mem::take(&mut self.waiting) {
            if let Ok(synced) = ticket.wait() {
                assert_eq!(synced.positions, positions, "positions grow by one in the order of submission");
                self.acknowledged = self.acknowledged.max(upto);
            }
        }
    }

    fn run(&mut self, journal: &Journal, action: &Action) {
        match action {
            Action::Content { exchange, bytes } => {
                let frame = content(*exchange, self.seq, *bytes);
                let Ok(mut reservation) = journal.reserve_blocking(30_000) else { return };
                if journal.submit_unacked(&mut reservation, frame.clone()).is_ok() {
                    self.seq += 1;
                    self.submitted.push(frame);
                }
            }
            Action::Exchange { exchange, bytes, records, wait } => {
                let mut frames = vec![content(*exchange, self.seq, *bytes)];
                frames.extend((0..*records).map(|n| record(self.records + n)));
                let Ok(mut reservation) = journal.reserve_blocking(40_000) else { return };
                // Refused only behind a failure: then nothing that follows can be found either.
                let ticket = journal.submit(&mut reservation, frames.clone());
                let first = u64::from(self.records);
                self.records += records;
                self.seq += 1;
                self.submitted.extend(frames);
                self.waiting.push((ticket, self.submitted.len(), first..u64::from(self.records)));
                if *wait {
                    self.settle();
                }
            }
            Action::Sync => self.settle(),
            Action::Archive => {
                self.settle();
                if journal.failed().is_none() {
                    let parts: Vec<_> = (0..4).map(|n| (exchange(n), PartName::ProviderResponse)).collect();
                    self.archived = journal.journaled();
                    journal.segments().sealed(self.archived, &parts);
                    // With the power off it fails; what was not deleted stays.
                    let _ = journal.segments().archived(self.archived);
                }
            }
        }
    }

    fn check(&self, disk: &SimDisk) -> Result<(), TestCaseError> {
        let Some((recovery, found)) = recovered(disk) else {
            prop_assert_eq!(self.acknowledged, 0);
            return Ok(());
        };
        // Nothing is lost but what may be deleted.
        for loss in &recovery.losses {
            prop_assert!(loss.bytes == 0 && loss.positions.end <= self.archived, "{:?}", loss);
        }
        // What is found is what was submitted, in order; behind what may be deleted, without a hole.
        let mut rest = self.submitted.iter().enumerate();
        let mut last = None;
        for (position, frame) in &found {
            let at = rest.find(|(_, submitted)| *submitted == frame);
            prop_assert!(at.is_some(), "invented or out of order: {:?}", frame);
            last = at.map(|(at, _)| at);
            if let Frame::Record { .. } = frame {
                prop_assert_eq!(frame, &record(u32::try_from(*position).unwrap()));
            }
        }
        let from = self.submitted.iter().position(|f| *f == record(u32::try_from(self.archived).unwrap()));
        let from = if self.archived == 0 { 0 } else { from.unwrap_or(self.submitted.len()) };
        let kept: Vec<&Frame> = found.iter().map(|(_, frame)| frame).collect();
        let upto = last.map_or(0, |last| last + 1);
        prop_assert!(upto >= self.acknowledged || self.acknowledged <= from, "acknowledged frames are gone");
        for frame in self.submitted.get(from..upto).unwrap_or_default() {
            prop_assert!(kept.contains(&frame), "a hole at {:?}", frame);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_crash_keeps_what_was_acknowledged_in_order_and_invents_nothing(
        actions in proptest::collection::vec(action(), 1..40),
        power_off in proptest::option::of(0_u64..120),
        seed: u64,
        sector in prop_oneof![Just(512_usize), Just(4096)],
        fault in prop_oneof![Just(Fault::PowerOff), Just(Fault::Io), Just(Fault::NoSpace)],
    ) {
        let disk = SimDisk::new();
        let mut model = Model::default();
        if let Some(n) = power_off {
            disk.fault_at_change(n, fault);
        }
        if let Ok(journal) = Journal::create(shared(&disk), dir(), small_config()) {
            for action in &actions {
                model.run(&journal, action);
            }
            model.settle();
            journal.close();
        }
        for crash in [Crash::Random { seed, sector }, Crash::DropAll, Crash::KeepAll] {
            let disk = disk.fork();
            disk.crash(crash);
            model.check(&disk)?;
        }
    }
}
