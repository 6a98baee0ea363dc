//! Receipts of callers against stores of which some were made anew by whoever has the seal key.

use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::Encryption;
use schemas::trust::key_text;

use super::*;

const EPOCH: &str = "20260921t133320z-00000001";

/// A closed log with these exchanges, and promises of all its records but the last.
fn promising(exchanges: &[u64]) -> (Writer, Vec<String>) {
    let promiser = Ed25519Signer::from_seed([33; 32]);
    let key = Some(key_text(&promiser.public_key()));
    let store = MemorySource::default();
    let mut writer = Writer::boot_promising(EPOCH, START, None, store, Encryption::Aes256Gcm, key);
    for n in exchanges {
        writer.exchange(*n, b"question", b"answer");
    }
    let promises = writer.promises(&promiser);
    writer.seal();
    writer.now += 2 * SECOND;
    writer.close();
    (writer, promises)
}

fn check(place: &Place, receipts: &str) -> anyhow::Result<u8> {
    check_with(place, receipts, START + 2 * SECOND, &[])
}

fn check_with(place: &Place, receipts: &str, to: i64, more: &[&str]) -> anyhow::Result<u8> {
    let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::write(place.path("receipts"), receipts).unwrap();
    let to = time::text(to);
    let words =
        ["auditor", "check-receipts", &text("receipts"), &text("store"), "--trust", &text("trust.yaml")];
    let state = ["--state", &text("state"), "--to", &to];
    super::super::run(&Cli::try_parse_from(words.iter().chain(&state).chain(more))?)
}

#[test]
fn receipts_of_a_whole_log_are_honoured_in_every_form_in_which_they_are_kept() {
    let (writer, promises) = promising(&[1, 2]);
    assert_eq!(promises.len(), 6);
    let place = Place::new(&writer);
    assert_eq!(check(&place, &promises.join("\n")).unwrap(), 0);
    let [.., intent, outcome] = promises.as_slice() else { panic!("six promises") };
    let id = exchange_id(2);
    let json = format!("{{\"exchange\":\"{id}\",\"receipt\":[\"{intent}\",\"{outcome}\"]}}\n");
    assert_eq!(check(&place, &json).unwrap(), 0);
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: x\r\nX-Affidavit-Receipt: {intent}\r\nx-affidavit-receipt-outcome: {outcome}\r\n\r\n"
    );
    assert_eq!(check(&place, &head).unwrap(), 0);
    // Twice is told, and nothing else.
    assert_eq!(check(&place, &format!("{intent}\n{intent}\n")).unwrap(), 0);
    // Kept for another exchange.
    assert_eq!(check(&place, &json.replace(id.as_str(), exchange_id(1).as_str())).unwrap(), 1);
    // None, and what is none, is never a pass.
    assert!(check(&place, "date: today\n").is_err());
    assert_eq!(check(&place, &format!("{intent}\nhello\n")).unwrap(), 2);
}

#[test]
fn a_log_that_was_sealed_anew_without_a_promised_record_verifies_and_does_not_honour_the_receipt() {
    let (_, promises) = promising(&[1, 2, 3]);
    let (cheat, _) = promising(&[1, 3]);
    let place = Place::new(&cheat);
    assert_eq!(place.run("verify", &[]).unwrap(), 0, "alone the store shows nothing");
    assert_eq!(check(&place, &promises[..4].join("\n")).unwrap(), 0, "what stands before is as it was");
    for (at, promise) in promises.iter().enumerate().skip(4) {
        assert_eq!(check(&place, promise).unwrap(), 1, "position {at}");
    }
}

#[test]
fn receipts_of_batches_that_are_lawfully_gone_are_not_judged_and_the_others_are_honoured() {
    let promiser = Ed25519Signer::from_seed([33; 32]);
    let boot = |epoch: &str, now: i64, predecessor, store| {
        let key = Some(key_text(&promiser.public_key()));
        Writer::boot_promising(epoch, now, predecessor, store, Encryption::Aes256Gcm, key)
    };
    let mut first = boot(EPOCH, START, None, MemorySource::default());
    first.exchange(1, b"question", b"answer");
    let old = first.promises(&promiser);
    first.seal();
    first.exchange(2, b"question", b"answer");
    let young = first.promises(&promiser);
    first.close();
    // The log's first batch is expired, its `boot` with it: a day is asked for, and the seals are older.
    let (now, predecessor) = (START + 10 * SECOND, first.as_predecessor());
    let origin = first.origin.clone();
    let mut alone = first.store.clone();
    let mut second = boot("20260921t133330z-00000002", now, Some(predecessor), first.store);
    second.exchange(3, b"question", b"answer");
    let next = second.promises(&promiser);
    second.close();
    let from = time::text(now);
    let asked = ["--require", "retention=1d", "--from", &from];
    let check = |place: &Place, receipts: &[String]| {
        check_with(place, &receipts.join("\n"), now + SECOND / 10, &asked).unwrap()
    };
    let expire = |store: &mut MemorySource| {
        let batch = format!("{origin}/0000000000");
        store.objects.retain(|name, _| !name.starts_with(&batch) || name.ends_with(".seal"));
    };
    expire(&mut second.store);
    let place = Place::new(&second);
    assert_eq!(check(&place, &next), 0);
    assert_eq!(check(&place, &young), 0, "the next log names the key");
    assert_eq!(check(&place, &old), 2, "expired");
    assert_eq!(check(&place, &[&old[..], &young].concat()), 2);
    // Where no other log names the key nobody is accused.
    expire(&mut alone);
    second.store = alone;
    let place = Place::new(&second);
    let from = START + SECOND + SECOND / 10;
    let asked = ["--require", "retention=1d", "--from", &time::text(from)];
    for receipts in [&old, &young] {
        assert_eq!(check_with(&place, &receipts.join("\n"), from + SECOND / 10, &asked).unwrap(), 2);
    }
}
