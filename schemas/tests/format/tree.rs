//! `tree.json`: roots, compact ranges and proofs of small trees; leaf i is the text `leaf <i>`.

use schemas::merkle::{self, CompactRange, Hash};
use schemas::{Sha256Hex, leaf};
use serde_json::{Value, json};

const SIZE: usize = 11;

fn hashes() -> Vec<Hash> {
    (0..SIZE).map(|i| leaf::hash(format!("leaf {i}").as_bytes())).collect()
}

#[test]
fn trees_are_as_the_vectors_say() {
    let all = hashes();
    let mut range = CompactRange::new();
    let mut sizes = Vec::new();
    let mut inclusion = Vec::new();
    let mut consistency = Vec::new();
    for size in 0..=SIZE {
        sizes.push(json!({"size": size, "root": range.root(), "compact": range.nodes()}));
        for index in 0..size {
            inclusion.push(json!({"index": index, "size": size, "proof": merkle::inclusion_proof(&all[..size], index as u64)}));
        }
        for old in 1..size {
            consistency.push(json!({"old": old, "new": size, "proof": merkle::consistency_proof(&all[..size], old as u64)}));
        }
        if let Some(hash) = all.get(size) {
            range.append(*hash);
        }
    }
    super::golden_json(
        "tree.json",
        &json!({"leaf_hashes": all, "sizes": sizes, "inclusion": inclusion, "consistency": consistency}),
    );
}

fn list(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(|h| Sha256Hex::parse(h.as_str().unwrap()).unwrap()).collect()
}

#[test]
fn proofs_of_the_vectors_hold() {
    let vectors = super::read_json("tree.json");
    let all = list(&vectors["leaf_hashes"]);
    assert_eq!(all, hashes());
    let roots: Vec<Hash> = vectors["sizes"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(size, entry)| {
            let range = CompactRange::from_parts(size as u64, list(&entry["compact"])).unwrap();
            let root = Sha256Hex::parse(entry["root"].as_str().unwrap()).unwrap();
            assert_eq!((range.root(), merkle::root(&all[..size])), (root, root));
            root
        })
        .collect();
    assert_eq!(roots.len(), SIZE + 1);
    for entry in vectors["inclusion"].as_array().unwrap() {
        let (index, size) = (entry["index"].as_u64().unwrap(), entry["size"].as_u64().unwrap());
        let root = &roots[size as usize];
        merkle::verify_inclusion(&all[index as usize], index, size, &list(&entry["proof"]), root).unwrap();
    }
    for entry in vectors["consistency"].as_array().unwrap() {
        let (old, new) = (entry["old"].as_u64().unwrap(), entry["new"].as_u64().unwrap());
        let (old_root, new_root) = (&roots[old as usize], &roots[new as usize]);
        merkle::verify_consistency(old, old_root, new, new_root, &list(&entry["proof"])).unwrap();
    }
}
