use schemas::note::{Ed25519Signer, Signer as _};
use schemas::promise::Group;
use schemas::{ExchangeId, Origin, Sha256Hex};

use super::judge::{Result, judge};
use super::proven::{Boot, Log, Proven, Record};
use super::read::{Kept, MOST, TooMany, read};
use crate::fixture::{START, exchange_id, trust};
use crate::report::Verdict;
use crate::time::SECOND;

fn origin() -> Origin {
    Origin::new("acme/gw1/20260921t133320z-00000001").unwrap()
}

fn promiser() -> Ed25519Signer {
    Ed25519Signer::from_seed([33; 32])
}

fn leaf(n: u64) -> Sha256Hex {
    Sha256Hex::of(&n.to_be_bytes())
}

/// Promises of positions 2 to 8 of a log.
fn promises(origin: &Origin, signer: &Ed25519Signer) -> Vec<String> {
    let group = Group::new(origin.clone(), START, (2..9).map(|n| (n, leaf(n))).collect());
    (0..7).map(|index| group.promise(index, signer).unwrap().to_string()).collect()
}

fn boot(signer: &Ed25519Signer) -> Boot {
    Boot { key: Some(signer.public_key()), batch_age: 10 * SECOND }
}

fn log(size: u64) -> Log {
    Log { boot: Some(boot(&promiser())), size, closed: false, expired_until: None }
}

/// What is proven of the log: its first records.
fn proven(size: u64) -> Proven {
    let record =
        |n: u64| Record { leaf: leaf(n), kind: "intent".into(), exchange: Some(exchange_id(n).to_string()) };
    Proven {
        logs: [(origin(), log(size))].into(),
        records: (0..size).map(|n| ((origin(), n), record(n))).collect(),
        ..Proven::default()
    }
}

fn judged(text: &str, proven: &Proven, now: i64) -> Result {
    judge(&read(text).unwrap(), proven, &trust(), now)
}

#[track_caller]
fn is(result: &Result, codes: &[&str], verdict: Verdict) {
    let found: Vec<&str> = result.receipts.iter().map(|judged| judged.result.as_str()).collect();
    assert_eq!(found, codes, "{:#?}", result.findings);
    assert_eq!(Verdict::from(result.findings.effect()), verdict);
}

#[test]
fn a_receipt_is_honoured_only_where_its_leaf_is_at_its_position() {
    let lines = promises(&origin(), &promiser());
    is(&judged(&lines.join("\n"), &proven(20), START), &["honoured"; 7], Verdict::Verified);
    let mut other = proven(20);
    other.records.get_mut(&(origin(), 4)).unwrap().leaf = leaf(99);
    is(&judged(&lines[2], &other, START), &["RECEIPT_NOT_HONOURED"], Verdict::Invalid);
    other.records.remove(&(origin(), 4));
    is(&judged(&lines[2], &other, START), &["RECEIPT_NOT_HONOURED"], Verdict::Incomplete);
}

#[test]
fn a_record_beyond_the_proven_end_is_pending_then_missing_and_behind_close_never_there() {
    let line = promises(&origin(), &promiser()).remove(6);
    let mut short = proven(8);
    is(&judged(&line, &short, START + 300 * SECOND), &["RECEIPT_PENDING"], Verdict::CouldNotJudge);
    is(&judged(&line, &short, START + 311 * SECOND), &["RECEIPT_NOT_HONOURED"], Verdict::Incomplete);
    short.logs.get_mut(&origin()).unwrap().closed = true;
    is(&judged(&line, &short, START), &["RECEIPT_NOT_HONOURED"], Verdict::Invalid);
}

#[test]
fn a_receipt_of_a_log_that_is_gone_counts_where_another_log_names_its_key() {
    let gone = Origin::new("acme/gw1/20260921t143320z-00000002").unwrap();
    let line = promises(&gone, &promiser()).remove(0);
    is(&judged(&line, &proven(8), START), &["RECEIPT_NOT_HONOURED"], Verdict::Incomplete);
    let forged = promises(&gone, &Ed25519Signer::from_seed([34; 32])).remove(0);
    is(&judged(&forged, &proven(8), START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    let elsewhere = Origin::new("other/gw1/20260921t143320z-00000002").unwrap();
    let line = promises(&elsewhere, &promiser()).remove(0);
    is(&judged(&line, &proven(8), START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
}

#[test]
fn a_forged_receipt_and_one_of_a_log_without_promises_are_named() {
    let forged = promises(&origin(), &Ed25519Signer::from_seed([34; 32])).remove(0);
    is(&judged(&forged, &proven(20), START), &["RECEIPT_FORGED"], Verdict::Policy);
    let mut without = proven(20);
    without.logs.get_mut(&origin()).unwrap().boot = Some(Boot { key: None, batch_age: 0 });
    let line = promises(&origin(), &promiser()).remove(0);
    is(&judged(&line, &without, START), &["RECEIPT_FORGED"], Verdict::Policy);
}

#[test]
fn no_receipt_with_a_changed_byte_is_honoured() {
    let line = promises(&origin(), &promiser()).remove(3);
    let proven = proven(20);
    is(&judged(&line, &proven, START), &["honoured"], Verdict::Verified);
    for at in 0..line.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64] {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= flip;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let result = judged(&text, &proven, START);
            assert!(!result.receipts.is_empty() && result.honoured() == 0, "{at}, {flip}: {text}");
            assert_ne!(Verdict::from(result.findings.effect()), Verdict::Verified, "{text}");
        }
    }
}

#[test]
fn a_file_is_read_as_lines_json_or_heads_and_nothing_is_passed_over() {
    let line = promises(&origin(), &promiser()).remove(0);
    let found = |text: &str| {
        read(text).unwrap().into_iter().map(|kept: Kept| kept.promise.is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(found(&format!("{line}\n\n  {line}  \r\n")), [true, true]);
    assert_eq!(found(&format!("HTTP/2 200\ncontent-type: x\nx-affidavit-receipt: {line}\n")), [true]);
    assert_eq!(found(&format!("X-Affidavit-Receipt-Outcome: {line}, {line}\n")), [true, true]);
    assert_eq!(found(&format!("{{\"receipt\":\"{line}\"}}")), [true]);
    assert_eq!(found(&format!("{{\"receipt\":{{\"x-affidavit-receipt\":\"{line}\"}}}}")), [true]);
    let id: ExchangeId = exchange_id(1);
    let kept = read(&format!("{{\"exchange\":\"{id}\",\"receipt\":[\"{line}\"]}}")).unwrap().remove(0);
    assert_eq!(kept.exchange, Some(id));
    for none in [
        "hello",
        "{}",
        "{\"receipt\":1}",
        "{\"receipt\":[null]}",
        "{\"exchange\":1,\"receipt\":\"x\"}",
        "x-affidavit-receipt: ",
    ] {
        assert_eq!(found(none), [false], "{none}");
    }
    let long = format!("{{\"receipt\":\"{}\"}}", "a".repeat(2 << 20));
    assert_eq!(found(&long), [false]);
}

#[test]
fn a_receipt_kept_for_another_exchange_is_named_and_one_kept_twice_counts_once() {
    let line = promises(&origin(), &promiser()).remove(0);
    let json = |n: u64| format!("{{\"exchange\":\"{}\",\"receipt\":\"{line}\"}}", exchange_id(n));
    is(&judged(&json(2), &proven(20), START), &["honoured"], Verdict::Verified);
    is(&judged(&json(3), &proven(20), START), &["RECEIPT_FORGED"], Verdict::Policy);
    let twice = judged(&format!("{line}\n{line}"), &proven(20), START);
    is(&twice, &["honoured", "duplicate"], Verdict::Verified);
    assert_eq!((twice.honoured(), twice.duplicates()), (1, 1));
}

#[test]
fn without_a_proven_boot_the_keys_of_the_gateways_other_logs_count_and_nobody_is_accused() {
    let line = promises(&origin(), &promiser()).remove(0);
    let mut headless = proven(20);
    headless.logs.get_mut(&origin()).unwrap().boot = None;
    is(&judged(&line, &headless, START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    let beside = |name: &str, signer: &Ed25519Signer| {
        let other = Log { boot: Some(boot(signer)), ..log(5) };
        let mut proven = headless.clone();
        proven.logs.insert(Origin::new(name).unwrap(), other);
        proven
    };
    let later = "acme/gw1/20260921t143320z-00000002";
    let other_key = Ed25519Signer::from_seed([34; 32]);
    is(&judged(&line, &beside(later, &other_key), START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    let of_another_gateway = beside("acme/gw2/20260921t143320z-00000002", &promiser());
    is(&judged(&line, &of_another_gateway, START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    let mut named = beside(later, &promiser());
    is(&judged(&line, &named, START), &["honoured"], Verdict::Verified);
    let forged = promises(&origin(), &other_key).remove(0);
    is(&judged(&forged, &named, START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    named.records.get_mut(&(origin(), 2)).unwrap().leaf = leaf(99);
    is(&judged(&line, &named, START), &["RECEIPT_NOT_HONOURED"], Verdict::Invalid);
}

#[test]
fn what_is_gone_lawfully_is_not_called_a_broken_promise() {
    let line = promises(&origin(), &promiser()).remove(2);
    let mut proven = proven(20);
    proven.records.remove(&(origin(), 4));
    let case = |proven: &Proven, gone_before: Option<i64>, until: Option<i64>| {
        let mut proven = Proven { gone_before, ..proven.clone() };
        proven.logs.get_mut(&origin()).unwrap().expired_until = until;
        judged(&line, &proven, START + 5 * SECOND)
    };
    let (before, behind) = (Some(START - SECOND), Some(START + SECOND));
    is(&case(&proven, behind, behind), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    assert!(case(&proven, behind, behind).findings.iter().any(|found| found.found.starts_with("expired")));
    // Not old enough, no mandate, nothing of the log expired, or only what is older.
    for (gone_before, until) in [(before, behind), (None, behind), (behind, None), (behind, before)] {
        is(&case(&proven, gone_before, until), &["RECEIPT_NOT_HONOURED"], Verdict::Incomplete);
    }
    // A record that is there is judged, whatever its age.
    let mut other = proven.clone();
    other.records.insert((origin(), 4), Record { leaf: leaf(99), kind: "intent".into(), exchange: None });
    is(&case(&other, behind, behind), &["RECEIPT_NOT_HONOURED"], Verdict::Invalid);
    // The whole log is gone.
    let gone = Origin::new("acme/gw1/20260921t123320z-00000002").unwrap();
    let line = promises(&gone, &promiser()).remove(0);
    let mut proven = Proven { gone_before: behind, ..proven };
    is(&judged(&line, &proven, START), &["RECEIPT_NOT_HONOURED"], Verdict::Incomplete);
    proven.expired.insert(gone);
    is(&judged(&line, &proven, START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    proven.gone_before = before;
    is(&judged(&line, &proven, START), &["RECEIPT_NOT_HONOURED"], Verdict::Incomplete);
}

#[test]
fn a_receipt_kept_again_for_another_exchange_is_judged_again() {
    let line = promises(&origin(), &promiser()).remove(0);
    let json = |n: u64| format!("{{\"exchange\":\"{}\",\"receipt\":\"{line}\"}}", exchange_id(n));
    let both = format!("{}\n{}\n{}\n{}", json(2), json(3), json(2), json(3));
    let wanted = ["honoured", "RECEIPT_FORGED", "duplicate", "duplicate"];
    is(&judged(&both, &proven(20), START), &wanted, Verdict::Policy);
    is(
        &judged(&format!("{line}\n{}", json(3)), &proven(20), START),
        &["honoured", "RECEIPT_FORGED"],
        Verdict::Policy,
    );
}

#[test]
fn receipts_of_a_head_are_kept_for_the_exchange_that_it_names() {
    let lines = promises(&origin(), &promiser());
    let (one, other) = (exchange_id(2), exchange_id(3));
    let exchanges =
        |text: &str| read(text).unwrap().into_iter().map(|kept| kept.exchange).collect::<Vec<_>>();
    let head = |id: &ExchangeId, line: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nx-affidavit-receipt: {line}\r\ndate: x\r\nX-Affidavit-Exchange: {id}\r\n\r\n"
        )
    };
    // It may stand behind the receipt, and no other line is of its head.
    let text = format!("{}\n{}{}{}", lines[3], head(&one, &lines[0]), head(&other, &lines[1]), lines[2]);
    assert_eq!(exchanges(&text), [None, Some(one.clone()), Some(other.clone()), None]);
    is(&judged(&head(&one, &lines[0]), &proven(20), START), &["honoured"], Verdict::Verified);
    is(&judged(&head(&other, &lines[0]), &proven(20), START), &["RECEIPT_FORGED"], Verdict::Policy);
    let before = format!("x-affidavit-exchange: {one}\nx-affidavit-receipt: {}, {}", lines[0], lines[1]);
    assert_eq!(exchanges(&before), [Some(one.clone()), Some(one.clone())]);
    // Of heads that run together, and of no exchange, nothing is taken for sound.
    for second in [other.as_str(), "none"] {
        let run = format!(
            "x-affidavit-exchange: {one}\nx-affidavit-receipt: {}\nx-affidavit-exchange: {second}",
            lines[0]
        );
        is(&judged(&run, &proven(20), START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
    }
    let none = format!("x-affidavit-receipt: {}\nx-affidavit-exchange: none", lines[0]);
    is(&judged(&none, &proven(20), START), &["RECEIPT_UNJUDGED"], Verdict::CouldNotJudge);
}

#[test]
fn a_file_of_too_many_receipts_is_refused_whatever_its_form() {
    let most = MOST as u64;
    assert_eq!(read(&"x\n".repeat(MOST)).unwrap().len() as u64, most);
    assert_eq!(read(&"x\n".repeat(MOST + 5)), Err(TooMany { line: MOST + 1 }));
    assert_eq!(read(&format!("x-affidavit-receipt: {}", ",".repeat(MOST))), Err(TooMany { line: 1 }));
    let object = format!("{{\"receipt\":[{}\"\"]}}\n", "\"\",".repeat(200_000));
    assert_eq!(read(&object.repeat(5)), Err(TooMany { line: 5 }));
    // Each is small, whatever stands beside it.
    assert!(size_of::<Kept>() <= 256, "{}", size_of::<Kept>());
}
