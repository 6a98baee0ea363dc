//! `promise.json`: promises over records of the store's log, as callers keep them.

use schemas::merkle;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::promise::{Group, Promise};
use schemas::trust::key_text;
use schemas::{Sha256Hex, leaf};
use serde_json::json;

use super::sample::origin;
use super::{golden_json, read_json};

const PROMISE: [u8; 32] = *b"affidavit test vectors, promises";

#[test]
fn promises_to_callers_are_the_vectors() {
    let leaves = read_json("leaves.json");
    let leaves = leaves["accepted"].as_array().unwrap();
    let hashes = leaves.iter().take(5).map(|one| leaf::hash(one["leaf"].as_str().unwrap().as_bytes()));
    let entries: Vec<(u64, Sha256Hex)> = (2..).zip(hashes).collect();
    assert_eq!(entries.len(), 5);
    let signer = Ed25519Signer::from_seed(PROMISE);
    let group = Group::new(origin(), 1_790_000_000_000_000, entries.clone());
    let promises: Vec<Promise> =
        (0..entries.len()).map(|index| group.promise(index, &signer).unwrap()).collect();
    for promise in &promises {
        promise.verify(&signer.public_key()).unwrap();
    }
    // The entries' tree, made from the format's words alone.
    let hashes: Vec<Sha256Hex> = entries
        .iter()
        .map(|(position, leaf)| Sha256Hex::of(&[&[0][..], &position.to_be_bytes(), &leaf.0].concat()))
        .collect();
    let root = merkle::root(&hashes);
    assert!(promises[0].text().unwrap().contains(&format!("\nroot {root}\n")));
    let each = |promise: &Promise| json!({ "position": promise.position, "leaf_hash": promise.leaf, "line": promise.to_string() });
    golden_json(
        "promise.json",
        &json!({
            "key": key_text(&signer.public_key()),
            "key_name": format!("{}/promise", origin()),
            "text": promises[0].text().unwrap(),
            "promises": promises.iter().map(each).collect::<Vec<_>>(),
        }),
    );
}
