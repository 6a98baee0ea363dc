//! What is held in memory does not grow with the store.

use schemas::record::Body;
use tempfile::TempDir;

use super::*;
use crate::fixture::{START, Writer, exchange_id, trust};
use crate::source::{DirectorySource, MemorySource};

/// Exchanges of one batch.
const OF_BATCH: u64 = 500;
/// What a verification may hold beyond what the process holds anyway.
const MOST: u64 = 160 << 20;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A store on disk, of so many exchanges without content.
fn store(exchanges: u64) -> (TempDir, i64) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let key = writer.key();
    for n in 0..exchanges {
        let (position, key) = writer.intent_with(exchange_id(n), key.clone(), vec![]);
        let usage = super::tests::unknown_usage();
        let outcome = writer.outcome_of(exchange_id(n), position, Some(&key), vec![], usage);
        writer.push(Body::Outcome(outcome));
        if n % OF_BATCH == OF_BATCH - 1 {
            writer.heartbeat();
            writer.seal();
            for (name, bytes) in std::mem::take(&mut writer.store.objects) {
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    (dir, writer.now)
}

/// With `AFFIDAVIT_LONG=1` over 300,000 exchanges.
#[test]
fn memory_does_not_grow_with_the_store() {
    let exchanges = if std::env::var("AFFIDAVIT_LONG").is_ok_and(|v| v == "1") { 300_000 } else { 2_000 };
    let (dir, now) = store(exchanges);
    let (trust, mandate) = (trust(), Mandate::default());
    let source = DirectorySource::new(dir.path()).unwrap();
    let before = resident();
    let most = std::sync::atomic::AtomicU64::new(0);
    let tell = |_: &Origin, _, _| _ = most.fetch_max(resident(), Ordering::Relaxed);
    let mut options = Options::new(&trust, &mandate, now);
    options.limits.window_bytes = 256 << 10;
    options.progress = &tell;
    let report = run(&source, &options, &mut NoSink).0;
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.tally.kinds["intent"], exchanges);
    let held = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(held < MOST, "{held} bytes for {exchanges} exchanges");
}
