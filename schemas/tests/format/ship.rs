//! `ship.json`: the store's batches as chunks, and a receipt for the first.

use schemas::note::{Ed25519Signer, Signer as _};
use schemas::seal;
use schemas::ship::{Archived, ArchiverKey, Chunk, Receipt, pieces};
use schemas::trust::key_text;
use schemas::{ObjectName, Sha256Hex};
use serde_json::{Value, json};

use super::sample::origin;
use super::{golden_json, read, testdata};

const ARCHIVER: [u8; 32] = *b"affidavit test vectors, archiver";

/// The objects of the store, the seal of a batch behind its files.
fn objects() -> Vec<ObjectName> {
    let folder = testdata("store").join(origin().as_str());
    let mut names: Vec<ObjectName> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| ObjectName::parse_file(&origin(), entry.unwrap().file_name().to_str().unwrap()).unwrap())
        .collect();
    names.sort_by_key(|name| (name.batch(), matches!(name, ObjectName::Seal { .. }), name.file_name()));
    names
}

fn chunks(name: &ObjectName) -> Vec<Value> {
    let bytes = read(&format!("store/{name}"));
    let (length, sha256) = (bytes.len() as u64, Sha256Hex::of(&bytes));
    let each = |(offset, count): (u64, u64)| {
        let piece = &bytes[offset as usize..(offset + count) as usize];
        let message = Chunk { name: name.clone(), length, sha256, offset, bytes: piece }.encode().unwrap();
        let decoded = Chunk::decode(&message).unwrap();
        assert_eq!((&decoded.name, decoded.bytes), (name, piece));
        let line = message.split(|byte| *byte == b'\n').next().unwrap();
        json!({
            "key": origin(),
            "line": std::str::from_utf8(line).unwrap(),
            "bytes": count,
            "message_sha256": Sha256Hex::of(&message),
        })
    };
    pieces(length).map(each).collect()
}

#[test]
fn chunks_and_receipts_are_the_vectors() {
    let objects = objects();
    let first = objects.iter().find(|name| matches!(name, ObjectName::Seal { batch: 0, .. })).unwrap();
    let note = read(&format!("store/{first}"));
    let sealed = seal::parse_unverified(&note).unwrap();
    let kept = objects.iter().filter(|name| name.batch() == 0).enumerate().map(|(at, name)| Archived {
        name: name.file_name(),
        version: (at != 0).then(|| format!("version-{at}")),
        retain_until_s: (at != 0).then_some(1_900_000_000),
    });
    let receipt = Receipt::of(&sealed, Sha256Hex::of(&note), kept.collect(), sealed.time + 1_000_000);
    assert!(receipt.answers(&sealed, Sha256Hex::of(&note)));
    assert!(!receipt.answers(&sealed, Sha256Hex([0; 32])));
    let signer = Ed25519Signer::from_seed(ARCHIVER);
    let signed = receipt.sign("ar1", &signer).unwrap();
    let pinned = [ArchiverKey { name: "ar1".into(), key: signer.public_key() }];
    assert!(Receipt::verify(&signed, &pinned).unwrap().answers(&sealed, Sha256Hex::of(&note)));
    golden_json(
        "ship.json",
        &json!({
            "chunks": objects.iter().flat_map(chunks).collect::<Vec<_>>(),
            "receipt": {
                "archiver": "ar1",
                "key": key_text(&signer.public_key()),
                "note": std::str::from_utf8(&signed).unwrap(),
            },
        }),
    );
}
