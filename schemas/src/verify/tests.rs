use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::canonical;
use crate::digest::Sha256Hex;
use crate::files::{self, LeafRow, schema_fingerprint, write_records};
use crate::leaf;
use crate::merkle::{CompactRange, Hash};
use crate::names::{FileKind, ObjectName, Origin};
use crate::note::{Ed25519Signer, Signer};
use crate::seal::{Seal, SealedFile};

pub(crate) const SEED: [u8; 32] = [7; 32];

pub(crate) fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
}

fn config() -> String {
    Sha256Hex::of(b"config").to_string()
}

pub(crate) fn boot() -> serde_json::Value {
    json!({
        "v": 1, "kind": "boot", "at": 1_000_000, "config": config(), "gateway_version": "0.1.0",
        "seal_key": "K0tY", "heartbeat_bound_ms": 300_000, "batch_age_ms": 10_000, "encryption": "off"
    })
}

pub(crate) fn outcome(n: u64) -> serde_json::Value {
    json!({
        "v": 1, "kind": "outcome", "at": 1_000_000 + n, "config": config(),
        "exchange": format!("01930000-0000-7000-8000-{n:012x}"), "intent_position": n.saturating_sub(1),
        "caller": {"consumer": {"value": if n % 10 == 9 { "shadow" } else { "openai" }, "source": "key"}, "key": "k1"},
        "asked": {"provider": if n % 10 == 9 { "shadow" } else { "openai" }, "stream": n.is_multiple_of(2), "requested_model": "gpt-5"},
        "end": "complete", "status": 200, "delivered": n * 10, "released": 0,
        "answered": {"served_model": "gpt-5", "finish_reasons": ["stop"], "response_id": format!("resp_{n}")},
        "usage": {"source": "provider", "role": "incurred", "input_tokens": n, "output_tokens": 999 - n % 1000},
        "cost": {"currency": "USD", "total": format!("0.{n:06}"), "classes": {"input": format!("0.{n:06}")},
                 "price_book": config(), "price_row": "r1"},
        "timing": {"total_us": 5000 + n}, "parts": [], "retention": "standard"
    })
}

pub(crate) fn row(position: u64, value: &serde_json::Value) -> LeafRow {
    let leaf = canonical::to_vec(value).unwrap();
    LeafRow { position, hash: leaf::hash(&leaf), leaf }
}

pub(crate) fn rows(n: u64) -> Vec<LeafRow> {
    (0..n).map(|i| row(i, &if i == 0 { boot() } else { outcome(i) })).collect()
}

pub(crate) struct Sealed {
    pub(crate) seal: Vec<u8>,
    pub(crate) records: Vec<u8>,
    pub(crate) after: CompactRange,
    pub(crate) sha256: Sha256Hex,
}

/// Seals `rows` honestly, but with `records` as the file: what a writer with the key could do.
pub(crate) fn seal_with(
    before: &CompactRange,
    batch: u64,
    previous: Option<Sha256Hex>,
    rows: &[LeafRow],
    records: Vec<u8>,
) -> Sealed {
    let hashes: Vec<Hash> = rows.iter().map(|row| row.hash).collect();
    seal_over(before, batch, previous, &hashes, records)
}

pub(crate) fn seal_over(
    before: &CompactRange,
    batch: u64,
    previous: Option<Sha256Hex>,
    hashes: &[Hash],
    records: Vec<u8>,
) -> Sealed {
    seal_full(before, batch, previous, hashes, records, schema_fingerprint())
}

fn seal_schema(rows: &[LeafRow], records: Vec<u8>, schema: Sha256Hex) -> Sealed {
    let hashes: Vec<Hash> = rows.iter().map(|row| row.hash).collect();
    seal_full(&CompactRange::new(), 0, None, &hashes, records, schema)
}

fn seal_full(
    before: &CompactRange,
    batch: u64,
    previous: Option<Sha256Hex>,
    hashes: &[Hash],
    records: Vec<u8>,
    schema: Sha256Hex,
) -> Sealed {
    let mut after = before.clone();
    for hash in hashes {
        after.append(*hash);
    }
    let sha256 = Sha256Hex::of(&records);
    let name = ObjectName::Data { origin: origin(), batch, sha256, kind: FileKind::Records }.file_name();
    let seal = Seal {
        origin: origin(),
        batch,
        from: before.size(),
        to: after.size(),
        root: after.root(),
        compact: before.nodes().to_vec(),
        files: vec![SealedFile { name, length: records.len() as u64, sha256 }],
        previous,
        schema,
        time: 2_000_000 + batch as i64,
    };
    let seal = seal.sign(&Ed25519Signer::from_seed(SEED)).unwrap();
    let sha256 = Sha256Hex::of(&seal);
    Sealed { seal, records, after, sha256 }
}

pub(crate) fn check(sealed: &Sealed) -> Result<VerifiedBatch, Vec<BatchFault>> {
    let key = Ed25519Signer::from_seed(SEED).public_key();
    verify_batch(BatchInput {
        origin: &origin(),
        key: &key,
        seal: &sealed.seal,
        records: Bytes::from(sealed.records.clone()),
    })
}

pub(crate) fn codes(result: Result<VerifiedBatch, Vec<BatchFault>>) -> Vec<&'static str> {
    let mut codes: Vec<_> =
        result.err().unwrap_or_default().iter().map(|fault| fault.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn honest(rows: &[LeafRow]) -> Sealed {
    seal_with(&CompactRange::new(), 0, None, rows, write_records(rows).unwrap())
}

#[test]
fn an_honest_batch_verifies_and_gives_back_its_leaves() {
    let rows = rows(1000);
    let sealed = honest(&rows);
    let verified = check(&sealed).unwrap();
    assert_eq!(verified.rows().len(), 1000);
    for (found, row) in verified.rows().iter().zip(&rows) {
        assert_eq!((found.position(), found.leaf(), *found.hash()), (row.position, &row.leaf[..], row.hash));
    }
    assert_eq!(verified.after(), &sealed.after);
    assert!(verified.unknown_columns().is_empty());
}

#[test]
fn equal_rows_give_equal_bytes() {
    assert_eq!(write_records(&rows(300)).unwrap(), write_records(&rows(300)).unwrap());
}

#[test]
fn several_row_groups_verify() {
    let rows = rows(16_384 + 10);
    assert_eq!(check(&honest(&rows)).unwrap().rows().len(), rows.len());
}

#[test]
fn batches_chain_and_a_missing_or_foreign_predecessor_is_named() {
    let all = rows(30);
    let first = honest(&all[..10]);
    let second =
        seal_with(&first.after, 1, Some(first.sha256), &all[10..20], write_records(&all[10..20]).unwrap());
    let third =
        seal_with(&second.after, 2, Some(second.sha256), &all[20..], write_records(&all[20..]).unwrap());
    let one = chain(None, check(&first).unwrap()).unwrap();
    let two = chain(Some(&one.tail()), check(&second).unwrap()).unwrap();
    chain(Some(&two.tail()), check(&third).unwrap()).unwrap();
    let faults = chain(Some(&one.tail()), check(&third).unwrap()).unwrap_err();
    assert!(faults.iter().all(|fault| fault.code == FaultCode::ChainBroken));
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert!(chain(None, check(&second).unwrap()).is_err());
    let mut late = one.tail();
    late.time = i64::MAX;
    let faults = chain(Some(&late), check(&second).unwrap()).unwrap_err();
    assert_eq!(faults.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["TIME_CONTRADICTION"]);
}

#[test]
fn a_flipped_bit_anywhere_in_seal_or_records_never_verifies() {
    let rows = rows(4);
    let sealed = honest(&rows);
    check(&sealed).unwrap();
    for (which, len) in [("seal", sealed.seal.len()), ("records", sealed.records.len())] {
        for at in (0..len).step_by(if which == "seal" { 1 } else { 11 }) {
            let bit = 1 << (at % 8);
            let mut bad = Sealed {
                seal: sealed.seal.clone(),
                records: sealed.records.clone(),
                after: CompactRange::new(),
                sha256: sealed.sha256,
            };
            if which == "seal" {
                bad.seal[at] ^= bit
            } else {
                bad.records[at] ^= bit
            }
            assert!(check(&bad).is_err(), "{which} byte {at}");
        }
    }
}

/// The same with the file hash made to fit, as a thief of the key could: what the file says is either still the
/// leaves, byte for byte, or a fault.
#[test]
fn a_flipped_bit_under_a_fitting_seal_is_a_fault_or_changes_nothing_that_is_read() {
    let rows = rows(4);
    let records = write_records(&rows).unwrap();
    for at in (0..records.len()).step_by(7) {
        let mut bad = records.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(verified) = check(&seal_with(&CompactRange::new(), 0, None, &rows, bad)) {
            assert!(verified.rows().iter().zip(&rows).all(|(found, row)| found.leaf() == row.leaf));
        }
    }
}

#[test]
fn every_cut_and_junk_is_a_fault_and_never_a_panic() {
    let rows = rows(2);
    let records = write_records(&rows).unwrap();
    for cut in (0..records.len()).step_by(101) {
        assert!(check(&seal_with(&CompactRange::new(), 0, None, &rows, records[..cut].to_vec())).is_err());
    }
    assert!(check(&seal_with(&CompactRange::new(), 0, None, &rows, b"PAR1junkPAR1".to_vec())).is_err());
}

/// Like [`check`], for a writer who holds the key: the seal fits whatever the file says.
fn tampered(rows: &[LeafRow], records: Vec<u8>) -> Vec<&'static str> {
    codes(check(&seal_with(&CompactRange::new(), 0, None, rows, records)))
}

fn changed(rows: &[LeafRow], at: usize, change: impl FnOnce(&mut serde_json::Value)) -> Vec<LeafRow> {
    let mut out = rows.to_vec();
    let mut value = canonical::parse(&rows[at].leaf).unwrap();
    change(&mut value);
    out[at] = row(rows[at].position, &value);
    out
}

#[test]
fn a_column_that_is_not_its_leaf_is_named() {
    let rows = rows(50);
    for (place, key, value) in [
        ("end", "end", json!("timeout")),
        ("status", "status", json!(500)),
        ("delivered", "delivered", json!(1)),
        ("at", "at", json!(5)),
    ] {
        let shown = changed(&rows, 20, |leaf| leaf[key] = value);
        let records = files::test::columns_of(&rows, &shown).unwrap();
        let faults = check(&seal_with(&CompactRange::new(), 0, None, &rows, records)).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert_eq!(
            (faults[0].code, faults[0].position, &*faults[0].place),
            (FaultCode::ColumnNotLeaf, Some(20), place)
        );
    }
    // A null where there is a value, a value where there is none.
    let other = changed(&rows, 3, |leaf| drop(leaf.as_object_mut().unwrap().remove("status")));
    assert_eq!(tampered(&rows, files::test::columns_of(&rows, &other).unwrap()), ["COLUMN_NOT_LEAF"]);
    assert_eq!(tampered(&other, files::test::columns_of(&other, &rows).unwrap()), ["COLUMN_NOT_LEAF"]);
    let cost = changed(&rows, 7, |leaf| {
        leaf["cost"]["total"] = json!("0.5");
        leaf["cost"]["classes"]["input"] = json!("0.5");
    });
    assert_eq!(tampered(&rows, files::test::columns_of(&rows, &cost).unwrap()), ["COLUMN_NOT_LEAF"]);
}

#[test]
fn the_lying_footer_is_a_stats_lie() {
    let rows = rows(1000);
    let honest = write_records(&rows).unwrap();
    let footer = u32::from_le_bytes(honest[honest.len() - 8..honest.len() - 4].try_into().unwrap()) as usize;
    let begins = honest.len() - 8 - footer;
    for (from, to) in [
        (&998_i64.to_le_bytes()[..], &9_i64.to_le_bytes()[..]),
        (&b"shadow"[..], &b"openai"[..]),
        (&b"resp_999"[..], &b"resp_100"[..]),
    ] {
        let mut records = honest.clone();
        let mut hits = 0;
        for at in begins..records.len() - from.len() - 8 {
            if records[at..].starts_with(from) {
                records[at..at + from.len()].copy_from_slice(to);
                hits += 1;
            }
        }
        assert!(hits > 0, "{from:?}");
        assert_eq!(tampered(&rows, records.clone()), ["STATS_LIE"]);
        // The same by someone without the key.
        let mut sealed = seal_with(&CompactRange::new(), 0, None, &rows, honest.clone());
        sealed.records = records;
        assert_eq!(codes(check(&sealed)), ["FILE_MISMATCH", "STATS_LIE"]);
    }
}

#[test]
fn what_other_engines_act_on_and_the_format_does_not_have_is_a_fault() {
    let rows = rows(20);
    for (what, code) in [
        ("key_value", "SCHEMA_DRIFT"),
        ("page_index", "STATS_LIE"),
        ("bloom", "STATS_LIE"),
        ("sorting", "SCHEMA_DRIFT"),
        ("leaf_statistics", "STATS_LIE"),
        ("page_statistics", "STATS_LIE"),
        ("extra_column", "SCHEMA_DRIFT"),
        ("other_type", "SCHEMA_DRIFT"),
        ("other_name", "SCHEMA_DRIFT"),
        ("swapped", "SCHEMA_DRIFT"),
    ] {
        let records = files::test::odd(&rows, what).unwrap();
        let found = tampered(&rows, records);
        assert!(found.contains(&code), "{what}: {found:?}");
    }
}

#[test]
fn an_added_column_under_another_fingerprint_is_listed_and_not_judged() {
    let rows = rows(20);
    let records = files::test::odd(&rows, "extra_column").unwrap();
    let sealed = seal_schema(&rows, records, Sha256Hex::of(b"a later v1"));
    assert_eq!(check(&sealed).unwrap().unknown_columns(), ["extra"]);
}

#[test]
fn unknown_kinds_and_keys_verify_and_are_told() {
    let mut rows = rows(3);
    rows.push(row(3, &json!({"v": 1, "kind": "message", "at": 5, "config": config(), "exchange": "e"})));
    rows = changed(&rows, 1, |leaf| leaf["brand_new"] = json!(1));
    let verified = check(&honest(&rows)).unwrap();
    assert_eq!(verified.rows()[1].decoded().unknown_keys, ["brand_new"]);
    assert!(verified.rows()[3].decoded().record.is_none());
}

fn with_hashes(hashes: &[Hash], records: Vec<u8>) -> Vec<&'static str> {
    codes(check(&seal_over(&CompactRange::new(), 0, None, hashes, records)))
}

#[test]
fn removed_inserted_swapped_and_doubled_rows_have_their_codes() {
    let rows = rows(10);
    let hashes: Vec<Hash> = rows.iter().map(|row| row.hash).collect();
    let file = |rows: &[LeafRow]| files::test::as_given(rows).unwrap();
    let gone = [&rows[..4], &rows[5..]].concat();
    assert_eq!(with_hashes(&hashes, file(&gone)), ["ROOT_MISMATCH", "SEQ_GAP"]);
    let mut swapped = rows.clone();
    swapped.swap(3, 6);
    assert_eq!(with_hashes(&hashes, file(&swapped)), ["ORDER", "ROOT_MISMATCH"]);
    let doubled = [&rows[..4], &rows[3..]].concat();
    assert_eq!(with_hashes(&hashes, file(&doubled)), ["DUPLICATE_RANGE", "ROOT_MISMATCH"]);
    let inserted = [&rows[..], &[row(10, &outcome(10))]].concat();
    assert_eq!(with_hashes(&hashes, file(&inserted)), ["FOREIGN_RECORD", "ROOT_MISMATCH"]);
    let mut forged = rows.clone();
    forged[5] = row(5, &outcome(77));
    assert_eq!(with_hashes(&hashes, file(&forged)), ["ROOT_MISMATCH"]);
    // The stored hash kept, the leaf changed.
    forged[5].hash = rows[5].hash;
    assert_eq!(with_hashes(&hashes, file(&forged)), ["LEAF_MISMATCH", "ROOT_MISMATCH"]);
}

#[test]
fn leaves_that_parsers_could_disagree_on_are_refused_even_when_signed() {
    let good = String::from_utf8(rows(2)[1].leaf.clone()).unwrap();
    for (bad, code) in [
        (good.replacen("\"at\":", "\"at\":1,\"at\":", 1), "NON_CANONICAL_LEAF"),
        (good.replacen("\"at\":", "\"at\": ", 1), "NON_CANONICAL_LEAF"),
        (good.replacen("\"delivered\":10", "\"delivered\":10.0", 1), "NON_CANONICAL_LEAF"),
        (good.replacen("\"delivered\":10", "\"delivered\":null", 1), "NON_CANONICAL_LEAF"),
        (good.replacen("\"end\":\"complete\"", "\"end\":\"whatever\"", 1), "LEAF_INVALID"),
        (good.replacen("\"v\":1", "\"v\":2", 1), "LEAF_INVALID"),
        (good.replacen("gpt-5", "gpt 5", 1), "LEAF_INVALID"),
    ] {
        assert_ne!(good, bad);
        let leaf = bad.into_bytes();
        let rows = vec![rows(1)[0].clone(), LeafRow { position: 1, hash: leaf::hash(&leaf), leaf }];
        assert_eq!(tampered(&rows, files::test::as_given(&rows).unwrap()), [code]);
    }
}

#[test]
fn boot_stands_first_and_nothing_behind_close() {
    let close = |n| {
        row(
            n,
            &json!({"v": 1, "kind": "close", "at": 9, "config": config(), "reason": "shutdown", "alive_until": 9}),
        )
    };
    let no_boot = vec![row(0, &outcome(0)), row(1, &outcome(1))];
    assert_eq!(codes(check(&honest(&no_boot))), ["BOOT_MISPLACED"]);
    let twice = vec![row(0, &boot()), row(1, &boot())];
    assert_eq!(codes(check(&honest(&twice))), ["BOOT_MISPLACED"]);
    let after = vec![row(0, &boot()), close(1), row(2, &outcome(2))];
    assert_eq!(codes(check(&honest(&after))), ["AFTER_CLOSE"]);
    let closed = vec![row(0, &boot()), close(1)];
    let sealed = honest(&closed);
    let verified = check(&sealed).unwrap();
    assert!(verified.closed());
    let next = [row(2, &outcome(2))];
    let next = check(&seal_with(&sealed.after, 1, Some(sealed.sha256), &next, write_records(&next).unwrap()))
        .unwrap();
    let faults = chain(Some(&verified.tail()), next).unwrap_err();
    assert_eq!(faults[0].code, FaultCode::AfterClose);
}

#[test]
fn another_log_and_another_key_are_refused() {
    let sealed = honest(&rows(3));
    let key = Ed25519Signer::from_seed(SEED).public_key();
    let other = Origin::new("acme/gw2/20261120t101500z-3f9a1c20").unwrap();
    let input = |origin, key| BatchInput {
        origin,
        key,
        seal: &sealed.seal,
        records: Bytes::from(sealed.records.clone()),
    };
    assert_eq!(codes(verify_batch(input(&other, &key))), ["ORIGIN_MISMATCH"]);
    let thief = Ed25519Signer::from_seed([8; 32]).public_key();
    assert_eq!(codes(verify_batch(input(&origin(), &thief))), ["SEAL_INVALID"]);
}

/// `cargo test --release -p schemas --lib verify::tests::figures -- --ignored --nocapture`
#[test]
#[ignore = "prints figures, says nothing in a debug build"]
fn figures() {
    let rows: Vec<LeafRow> = (0..50_000).map(|i| row(i, &if i == 0 { boot() } else { outcome(i) })).collect();
    let bytes: usize = rows.iter().map(|row| row.leaf.len()).sum();
    let started = std::time::Instant::now();
    let sealed = honest(&rows);
    let writing = started.elapsed();
    let rate = |took: std::time::Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    let mut best = [std::time::Duration::MAX; 4];
    for _ in 0..5 {
        let started = std::time::Instant::now();
        let hashes: Vec<Hash> = rows.iter().map(|row| leaf::hash(&row.leaf)).collect();
        best[0] = best[0].min(started.elapsed());
        let started = std::time::Instant::now();
        let decoded = rows.iter().filter(|row| leaf::decode(&row.leaf).is_ok()).count();
        best[1] = best[1].min(started.elapsed());
        let started = std::time::Instant::now();
        let walked = rows.iter().filter(|row| canonical::parse(&row.leaf).is_ok()).count();
        best[2] = best[2].min(started.elapsed());
        let started = std::time::Instant::now();
        let verified = check(&sealed).unwrap();
        best[3] = best[3].min(started.elapsed());
        assert_eq!((hashes.len(), decoded, walked, verified.rows().len()), (50_000, 50_000, 50_000, 50_000));
    }
    eprintln!(
        "{} leaves of {} bytes, file {} bytes: SHA-256 {:.0} MB/s, decode {:.0}, canonical parse {:.0}, verify {:.0} ({:.0} % of SHA-256), write {:.0}",
        rows.len(),
        bytes / rows.len(),
        sealed.records.len(),
        rate(best[0]),
        rate(best[1]),
        rate(best[2]),
        rate(best[3]),
        100.0 * best[0].as_secs_f64() / best[3].as_secs_f64(),
        rate(writing),
    );
}
