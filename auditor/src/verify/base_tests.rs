//! Content that is stored as edits of content that is gone, or that cannot be read again.

use std::fs::{self, File, OpenOptions};
use std::sync::Mutex;

use schemas::Sha256Hex;
use schemas::content::CHUNK_BYTES;
use schemas::record::{Encryption, PartName};

use super::tests::{codes, has, names};
use super::*;
use crate::fixture::{START, Writer, exchange_id, trust};
use crate::source::{Entry, Folders, MemorySource, Opened, SourceError};
use crate::time::SECOND;

/// When the second batch is sealed, behind the first one.
const LATER: i64 = 100 * SECOND;

/// A log whose second batch holds edits of what is in the first, and edits of those.
fn edited(bytes: usize) -> Writer {
    let epoch = "20260921t133320z-00000001";
    let mut writer = Writer::boot_with(epoch, START, None, MemorySource::default(), Encryption::Off);
    let key = writer.key();
    let first: Vec<u8> = (0..bytes as u32 / 4).flat_map(u32::to_le_bytes).collect();
    let second = [&first[..], b"and so on"].concat();
    let third = [&second[..], b"and on"].concat();
    let contents = [first, second, third];
    for n in 0..3_usize {
        let exchange = exchange_id(n as u64 + 1);
        let before = n.checked_sub(1).map(|before| exchange_id(before as u64 + 1));
        let base = before.as_ref().map(|before| (before, PartName::ClientRequest, &contents[n - 1][..]));
        let position = writer.position();
        let part = writer.part(position, &exchange, PartName::ClientRequest, &key, &contents[n], base);
        writer.intent_with(exchange, key.clone(), vec![part]);
        writer.outcome(n as u64 + 1, position, &key, b"answer");
        if n == 0 {
            writer.heartbeat();
            writer.seal();
            writer.now += LATER;
        }
    }
    writer.close();
    writer
}

/// Verified `after` the first seal by a mandate that asks for so long a retention.
fn verified(store: &dyn Source, after: i64, retention: Option<i64>) -> Report {
    let (trust, mut mandate) = (trust(), Mandate::default());
    mandate.retention = retention;
    let mut options = Options::new(&trust, &mandate, START + SECOND + after);
    (options.from, options.to) = (Some(START), Some(START + LATER));
    run(store, &options, &mut NoSink).0
}

#[test]
fn an_expired_base_leaves_its_edits_unjudged_and_accuses_nobody() {
    let mut store = edited(4096).store;
    let whole = verified(&store, 2 * LATER, None);
    assert_eq!(whole.verdict, Verdict::Verified, "{}", crate::render::text::report(&whole));
    assert_eq!(whole.tally.parts_proven, 6);
    store.objects.remove(&names(&store, ".content-")[0]);
    // The first batch is older than the retention, the second is not.
    let report = verified(&store, 2 * LATER, Some(LATER + LATER / 2));
    has(&report, "BASE_EXPIRED", Verdict::CouldNotJudge);
    assert_eq!(codes(&report).len(), 1, "{:?}", codes(&report));
    assert_eq!((report.findings.counts()[&Code::BaseExpired], report.tally.parts_proven), (2, 2));
    // Both are: nothing of it is owed any more.
    let report = verified(&store, 3 * LATER, Some(LATER));
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert!(report.claims.iter().all(|state| state.claim != Claim::Content || !state.reached));
    // The seal went too: the one above says how old it was.
    for name in names(&store, "0000000000") {
        store.objects.remove(&name);
    }
    let report = verified(&store, 2 * LATER, Some(LATER + LATER / 2));
    assert!(!codes(&report).contains("CONTENT_MISMATCH"), "{}", crate::render::text::report(&report));
}

#[test]
fn edits_of_what_is_missing_before_its_time_are_missing_too() {
    let mut store = edited(4096).store;
    store.objects.remove(&names(&store, ".content-")[0]);
    for retention in [None, Some(10 * LATER)] {
        let report = verified(&store, 2 * LATER, retention);
        has(&report, "CONTENT_MISSING", Verdict::Incomplete);
        assert!(!codes(&report).contains("CONTENT_MISMATCH"), "{:?}", codes(&report));
    }
}

#[test]
fn edits_of_what_was_never_there_are_a_mismatch() {
    let epoch = "20260921t133320z-00000001";
    let mut writer = Writer::boot_with(epoch, START, None, MemorySource::default(), Encryption::Off);
    let (exchange, key) = (exchange_id(9), writer.key());
    let base = vec![7; 4096];
    let nobody = exchange_id(77);
    let position = writer.position();
    let edits = Some((&nobody, PartName::ClientRequest, &base[..]));
    let part = writer.part(position, &exchange, PartName::ClientRequest, &key, &base, edits);
    writer.intent_with(exchange, key.clone(), vec![part]);
    writer.outcome(9, position, &key, b"answer");
    writer.now += LATER;
    writer.close();
    has(&verified(&writer.store, 2 * LATER, Some(10 * LATER)), "CONTENT_MISMATCH", Verdict::Invalid);
}

/// Gives its files so many times; then the system refuses their bytes.
#[derive(Debug)]
struct Failing {
    store: MemorySource,
    folder: tempfile::TempDir,
    times: Mutex<BTreeMap<String, u32>>,
}

impl Source for Failing {
    fn describe(&self) -> String {
        self.store.describe()
    }
    fn folders(&self) -> Folders {
        self.store.folders()
    }
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        self.store.entries(folder)
    }
    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        let mut times = self.times.lock().unwrap();
        let Some(left) = times.get_mut(name) else { return self.store.open(name) };
        let path = self.folder.path().join(Sha256Hex::of(name.as_bytes()).to_string());
        fs::write(&path, &self.store.objects[name]).unwrap();
        let file = match *left {
            // Its length can be told, its bytes cannot be read.
            0 => OpenOptions::new().write(true).open(&path),
            _ => File::open(&path),
        };
        *left = left.saturating_sub(1);
        Ok(Opened::File(file.unwrap()))
    }
}

#[test]
fn content_that_the_system_does_not_give_is_unjudged_and_never_a_mismatch() {
    // More than is kept in memory for later edits: it is read again.
    let store = edited(5 * CHUNK_BYTES).store;
    let name = names(&store, ".content-")[0].clone();
    for times in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let times = Mutex::new(BTreeMap::from([(name.clone(), times)]));
        let report = verified(&Failing { store: store.clone(), folder, times }, 2 * LATER, None);
        has(&report, "COULD_NOT_READ", Verdict::CouldNotJudge);
        assert_eq!(codes(&report).len(), 1, "{}", crate::render::text::report(&report));
    }
}
