//! Every sync is needed: each kind is left out in turn, and what just it would have made durable is lost in a loss of
//! power, with everything else kept. Something acknowledged must then be missing, or the sync is not needed.

mod lives;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};

use evidence::disk::{Call, Crash, Fault, Site};

use self::lives::{Facts, Life};
use crate::support::Bed;

/// When power is lost.
#[derive(Debug, Clone, Copy)]
enum At {
    /// When all is done.
    End,
    /// Before the `n`th sync of a kind behind the first one that was left out.
    Before(Call, &'static str, u64),
}

/// A kind of sync, and where it is needed.
#[derive(Debug)]
struct Sync {
    call: Call,
    name: &'static str,
    life: Life,
    at: At,
}

const fn data(name: &'static str, life: Life, at: At) -> Sync {
    Sync { call: Call::SyncData, name, life, at }
}

const fn names(name: &'static str, life: Life, at: At) -> Sync {
    Sync { call: Call::SyncDir, name, life, at }
}

macro_rules! journal {
    ($rest:literal) => {
        concat!("/journal-volume/journal", $rest)
    };
}
macro_rules! spool {
    ($rest:literal) => {
        concat!("/spool-volume/spool", $rest)
    };
}
macro_rules! keys {
    ($rest:literal) => {
        concat!("/keys-volume/keys", $rest)
    };
}
macro_rules! out {
    ($rest:literal) => {
        concat!("/out-volume/out", $rest)
    };
}

/// An exchange was acknowledged, and the body of the next is in its spill file.
const SPILL: &str = journal!("/#t#z-#/*.spill, first");
/// Everything so far was acknowledged and is in the journal only.
const UNSEALED: At = At::Before(Call::SyncData, spool!("/#t#z-#/tmp-content-standard, first"), 0);
/// The first batch is sealed, and nothing of it is in the store.
const UNSHIPPED: At = At::Before(Call::SyncData, out!("/.tmp/#, first"), 0);
/// Its three files are in the store, its seal is not: built anew, they would be others.
const HALF_SHIPPED: At = At::Before(Call::SyncData, out!("/.tmp/#, first"), 3);

/// Every kind of sync that a ledger makes, but two that these lives do not come to: that of the mark `salvaged`, and that
/// of the removal of `unrecorded` when a record could tell of it after all.
const SYNCS: &[Sync] = &[
    // The journal.
    names("/journal-volume: +journal", Life::Whole, UNSEALED),
    // What an earlier epoch left to be told is told in the new one, and removed; it does not come back.
    names(
        journal!(": +#t#z-#"),
        Life::AfterPassed,
        At::Before(Call::SyncDir, journal!(": -unrecorded-#t#z-#"), 0),
    ),
    names(
        journal!(": -unrecorded-#t#z-#"),
        Life::AfterPassed,
        At::Before(Call::SyncDir, journal!(": +newest"), 0),
    ),
    names(journal!("/#t#z-#: +segment-#.journal"), Life::Whole, At::Before(Call::SyncData, SPILL, 0)),
    // Without it, segments that stand ready look as if acknowledged groups in them had been torn.
    data(journal!("/#t#z-#/segment-#.journal, first"), Life::Whole, UNSEALED),
    data(journal!("/#t#z-#/segment-#.journal"), Life::Whole, UNSEALED),
    data(SPILL, Life::Whole, UNSEALED),
    names(journal!("/#t#z-#: +*.spill"), Life::Whole, UNSEALED),
    // The memory of the newest log: without its name, two logs name one predecessor.
    data(journal!("/newest.new, first"), Life::Whole, At::End),
    names(journal!(": +newest"), Life::Second, At::End),
    // What passed without a record.
    data(journal!("/#t#z-#/unrecorded.new, first"), Life::Saved, At::End),
    names(journal!("/#t#z-#: +unrecorded"), Life::Saved, At::End),
    data(journal!("/unrecorded-#t#z-#.new, first"), Life::Passed, At::End),
    names(journal!(": +unrecorded-#t#z-#"), Life::Passed, At::End),
    // Recovery's own records. Where the file is lost behind a batch that holds some of them, nobody can go on.
    data(
        journal!("/#t#z-#/recovery.new, first"),
        Life::Recovery,
        At::Before(Call::SyncDir, journal!("/#t#z-#: +recovery"), 0),
    ),
    names(
        journal!("/#t#z-#: +recovery"),
        Life::Recovery,
        At::Before(Call::SyncData, spool!("/#t#z-#/tmp-records, first"), lives::BATCHES_OF_RECOVERY - 1),
    ),
    // The spool.
    names("/spool-volume: +spool", Life::Whole, HALF_SHIPPED),
    names(spool!(": +#t#z-#"), Life::Whole, HALF_SHIPPED),
    data(spool!("/#t#z-#/tmp-content-standard, first"), Life::Whole, UNSHIPPED),
    data(spool!("/#t#z-#/tmp-reference, first"), Life::Whole, UNSHIPPED),
    data(spool!("/#t#z-#/tmp-records, first"), Life::Whole, UNSHIPPED),
    data(spool!("/#t#z-#/tmp-seal, first"), Life::Whole, UNSHIPPED),
    // The names of a batch's files, before its seal.
    names(
        spool!("/#t#z-#: +#-#.records.parquet"),
        Life::Whole,
        At::Before(Call::SyncDir, spool!("/#t#z-#: +#.seal"), 0),
    ),
    names(spool!("/#t#z-#: +#.seal"), Life::Whole, HALF_SHIPPED),
    // An archived batch goes with its seal first: a seal without its files is a broken batch.
    names(
        spool!("/#t#z-#: -#.seal"),
        Life::Whole,
        At::Before(Call::SyncData, journal!("/newest.new, first"), 0),
    ),
    // The key table.
    names("/keys-volume: +keys", Life::Whole, At::End),
    names(keys!(": +acme"), Life::Whole, At::End),
    names(keys!("/acme: +gw#"), Life::Whole, At::End),
    names(keys!("/acme/gw#: +#t#z-#"), Life::Whole, At::End),
    names(keys!("/acme/gw#/#t#z-#: +#.keys"), Life::Whole, At::End),
    data(keys!("/acme/gw#/#t#z-#/#.keys, first"), Life::Whole, UNSEALED),
    // An erasure: the key must not come back.
    data(keys!("/acme/gw#/#t#z-#/#.keys"), Life::Whole, At::End),
    // The directory store.
    names("/out-volume: +out", Life::Whole, At::End),
    names(out!(": +acme"), Life::Whole, At::End),
    names(out!("/acme: +gw#"), Life::Whole, At::End),
    names(out!("/acme/gw#: +#t#z-#"), Life::Whole, At::End),
    data(out!("/.tmp/#, first"), Life::Whole, At::End),
    // One sync in the code; the order of a batch's files follows from their hashes. It makes that no seal is in the store
    // before its files.
    names(
        out!("/acme/gw#/#t#z-#: +#-#.*"),
        Life::Whole,
        At::Before(Call::SyncDir, out!("/acme/gw#/#t#z-#: +#.seal"), 0),
    ),
    names(out!("/acme/gw#/#t#z-#: +#.seal"), Life::Whole, At::End),
    // An object that is there already: who put it may have died before its name was durable.
    names(out!("/acme/gw#/#t#z-#"), Life::Killed, At::End),
];

impl Sync {
    fn site(&self) -> Site {
        Site { call: self.call, name: self.name.into() }
    }

    /// One life with these syncs made or left out, and what is found after a loss of power. The kinds of all syncs that
    /// were made.
    fn case(&self, leaves_out: bool) -> Vec<Site> {
        let disk = Bed::volumes();
        let mut facts = Facts::default();
        self.life.prepare(&disk, &mut facts);
        if leaves_out {
            disk.ignore(Some(self.site()))
        } else {
            disk.watch(self.site())
        }
        if let At::Before(call, name, n) = self.at {
            disk.fault_at_site(Site { call, name: name.into() }, n, Fault::PowerOff);
        }
        self.life.run(&disk, &mut facts);
        let met = (disk.met() > 0, disk.is_off());
        disk.crash(Crash::LeftOut);
        let checked = catch_quietly(|| facts.check(&disk));
        assert_eq!(met, (true, matches!(self.at, At::Before(..))), "was the sync met, was power lost");
        match (checked, leaves_out) {
            (Ok(()), true) => panic!("nothing is lost without it"),
            (Err(what), true) => eprintln!("without {} ({:?}): {what}", self.name, self.life),
            (Ok(()), false) => {}
            (Err(what), false) => panic!("lost although it was made: {what}"),
        }
        disk.sites()
    }
}

thread_local! {
    /// What a panic said that is expected here.
    static QUIET: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a check that may panic: no message, no trace of the stack.
fn catch_quietly(check: impl FnOnce()) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let expected =
                QUIET.with_borrow_mut(|said| said.as_mut().map(|said| *said = panic.to_string()).is_some());
            if !expected {
                before(panic);
            }
        }));
    });
    QUIET.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(check));
    let said = QUIET.take().unwrap_or_default();
    result.map_err(|_| said)
}

#[test]
fn every_sync_is_needed() {
    let queue: Mutex<VecDeque<(&Sync, bool)>> =
        Mutex::new(SYNCS.iter().flat_map(|sync| [(sync, false), (sync, true)]).collect());
    let made = Mutex::new(BTreeSet::new());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..crate::at_once() {
            scope.spawn(|| {
                while let Some((sync, leaves_out)) = { queue.lock().unwrap().pop_front() } {
                    match catch_unwind(AssertUnwindSafe(|| sync.case(leaves_out))) {
                        Ok(sites) => made.lock().unwrap().extend(sites),
                        Err(_) => failed.lock().unwrap().push((sync, leaves_out)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    let made = made.into_inner().unwrap();
    let known = |site: &&Site| SYNCS.iter().any(|sync| sync.site().covers(site));
    let unknown: Vec<&Site> = made.iter().filter(|site| !known(site)).collect();
    assert!(unknown.is_empty(), "where are these needed? {unknown:#?}");
}
