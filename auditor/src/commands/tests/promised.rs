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
    let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::write(place.path("receipts"), receipts).unwrap();
    let to = time::text(START + 2 * SECOND);
    let words =
        ["auditor", "check-receipts", &text("receipts"), &text("store"), "--trust", &text("trust.yaml")];
    let more = ["--state", &text("state"), "--to", &to];
    super::super::run(&Cli::try_parse_from(words.iter().chain(&more))?)
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
