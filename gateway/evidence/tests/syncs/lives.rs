//! The lives that syncs are left out of. Batches are cut by hand, not by time, so that each life is the same each time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use evidence::disk::{Call, Crash, Fault, SimDisk, Site};
use evidence::{EraseRequest, EraseTarget, KeyScope, Ledger, LedgerConfig};
use schemas::ExchangeId;
use schemas::record::{Body, CloseReason, GapReason, PartName};

use crate::support::{
    Bed, Client, Content, Gate, LogView, after, begin, check_seals, exchange, id, noise, quick,
};
use crate::{CLOSE, off, process, process_of};

/// What happens before power is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// A ledger's life of two batches.
    Whole,
    /// The same behind an earlier one.
    Second,
    /// Exchanges pass without a record behind `close`; the next log is to tell of them.
    Passed,
    /// As [`Life::Whole`], behind that.
    AfterPassed,
    /// Exchanges pass without a record behind `close`, and the process ends before all is archived.
    Saved,
    /// A recovery of a life of which nothing was sealed, in many batches.
    Recovery,
    /// A recovery of a life whose process was killed before the name of its last seal was durable in the store.
    Killed,
}

/// Batches of [`Life::Recovery`], where each record with content ends one: four exchanges and a stream, and `close`.
pub(super) const BATCHES_OF_RECOVERY: u64 = 11;
/// Exchanges that pass without a record.
const PASSED: u64 = 2;

/// What must be found.
#[derive(Default)]
pub(super) struct Facts {
    client: Client,
    /// Erased, and acknowledged.
    erased: Option<ExchangeId>,
    passed: u64,
}

impl Facts {
    /// The start after a loss of power that kept all that was written finds everything, and says of nothing that it is
    /// missing.
    pub(super) fn check(&self, disk: &SimDisk) {
        let bed = Bed::apart(disk);
        check_seals(&bed);
        let logs = process(after(&bed));
        self.client.check(&logs);
        if let Some(id) = &self.erased {
            let content = logs.iter().find_map(|log| log.content(id, PartName::ClientRequest));
            assert_eq!(content, Some(&Content::KeyDestroyed), "erased content is back");
        }
        let mut passed = 0;
        for body in logs.iter().flat_map(LogView::bodies) {
            if let Body::Gap(gap) = body {
                assert_eq!(gap.reason, GapReason::Unrecorded, "a gap where nothing is missing");
                passed += gap.count.unwrap_or_else(|| panic!("how many passed is not known any more"));
            }
        }
        assert_eq!(passed, self.passed, "exchanges that passed without a record");
    }
}

fn config(bed: &Bed) -> Option<LedgerConfig> {
    let mut config = quick(bed)?;
    config.batch_age = Duration::from_secs(600);
    Some(config)
}

/// Runs `life` on a ledger until its end, or until power is lost.
fn run(disk: &SimDisk, config: Option<LedgerConfig>, life: impl AsyncFnOnce(&Ledger)) {
    // One thread for what blocks: a kind of sync is told by the thread that made the name.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    process_of(runtime.max_blocking_threads(1).enable_all(), async {
        let Some(ledger) = config.and_then(|config| Ledger::open(config).ok()) else { return };
        tokio::select! {
            () = life(&ledger) => {}
            () = off(disk) => {}
        }
        ledger.halt();
    });
}

fn whole(disk: &SimDisk, facts: &mut Facts) {
    run(disk, config(&Bed::apart(disk)), async |ledger| two_batches(ledger, facts).await);
}

/// Four exchanges and a stream, all archived; an erasure of the first, one more exchange, and a close.
async fn two_batches(ledger: &Ledger, facts: &mut Facts) {
    let client = &mut facts.client;
    // For these, segments are made; they stand ready from here on, and no further ones are made.
    let mut held = Vec::new();
    for _ in 0..32 {
        held.extend(ledger.admit(None, KeyScope::PerExchange).await.ok());
    }
    drop(held);
    let first = exchange(ledger, KeyScope::PerExchange, b"to be erased", b"answer").await.ok();
    client.whole(ledger, 0, 300, 500).await;
    // Beyond 1 MiB a body goes to a spill file.
    client.whole(ledger, 1, 1_200_000, 500).await;
    let stream = begin(ledger, KeyScope::PerExchange, b"stream").await.ok();
    let writer = stream.as_ref().map(|open| {
        client.intents.insert(open.exchange().clone(), Bytes::from_static(b"stream"));
        open.part(PartName::ProviderResponse, None, None)
    });
    if let (Some(open), Some(writer)) = (&stream, &writer) {
        let answer = noise(9, 150_000);
        let given: usize = answer
            .chunks(10_000)
            .zip((0..).step_by(10_000))
            .map_while(|(piece, at)| writer.write(piece, at).ok().map(|()| piece.len()))
            .sum();
        client.partial.insert(open.exchange().clone(), Bytes::copy_from_slice(&answer[..given]));
    }
    client.whole(ledger, 2, 20_000, 10_000).await;
    ledger.seal_now();
    let archived = ledger.wait_archived(ledger.watermarks().journaled, CLOSE).await;
    if let (Some(first), true) = (first, archived) {
        let request = EraseRequest {
            target: EraseTarget::Exchanges(vec![first.clone()]),
            whole_key: false,
            reason: id("gdpr-17"),
            actor: None,
        };
        facts.erased = ledger.erase(request).await.is_ok().then_some(first);
    }
    facts.client.whole(ledger, 3, 300, 7000).await;
    drop((writer, stream));
    let _ = ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await;
}

/// A life whose `close` is sealed while the store is shut; then exchanges pass. The store opens where it `ends` well.
fn passed(disk: &SimDisk, facts: &mut Facts, ends: bool) {
    let bed = Bed::apart(disk);
    let (gate, shut) = Gate::of(&bed);
    let config = LedgerConfig { batch_age: Duration::from_secs(600), ..bed.config_for(gate) };
    run(disk, Some(config), async |ledger| {
        let closing = async {
            let _ = ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await;
        };
        let passing = async {
            // Nothing but the close seals.
            while ledger.watermarks().sealed == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            ledger.count_unrecorded(PASSED);
            facts.passed += PASSED;
            shut.store(!ends, Ordering::Relaxed);
            if ends {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = closing => {}
            () = passing => {}
        }
    });
}

impl Life {
    /// What comes before syncs are left out.
    pub(super) fn prepare(self, disk: &SimDisk, facts: &mut Facts) {
        let cut =
            |call, name: &str, n| disk.fault_at_site(Site { call, name: name.into() }, n, Fault::PowerOff);
        match self {
            Self::Whole | Self::Passed | Self::Saved => {}
            Self::Second => whole(disk, facts),
            Self::AfterPassed => passed(disk, facts, true),
            Self::Recovery => {
                cut(Call::SyncData, "/spool-volume/spool/#t#z-#/tmp-content-standard, first", 0);
                whole(disk, facts);
                disk.crash(Crash::KeepAll);
            }
            Self::Killed => {
                cut(Call::SyncDir, "/out-volume/out/acme/gw#/#t#z-#: +#.seal", 0);
                // One batch, with `close`: no later one makes its name durable.
                run(disk, config(&Bed::apart(disk)), async |ledger| {
                    facts.client.whole(ledger, 1, 300, 500).await;
                    let _ = ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await;
                });
                assert!(disk.is_off());
                disk.crash(Crash::Process);
            }
        }
    }

    pub(super) fn run(self, disk: &SimDisk, facts: &mut Facts) {
        match self {
            Self::Whole | Self::Second | Self::AfterPassed => whole(disk, facts),
            Self::Passed => passed(disk, facts, true),
            Self::Saved => passed(disk, facts, false),
            Self::Recovery | Self::Killed => {
                let mut config = config(&Bed::apart(disk));
                if let (Self::Recovery, Some(config)) = (self, &mut config) {
                    config.batch_bytes = 1;
                }
                run(disk, config, async |ledger| {
                    let _ = ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await;
                });
            }
        }
    }
}
