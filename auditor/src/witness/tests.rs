//! What a witness cosigns, and what it refuses.

use std::path::Path;

use proptest::prelude::*;
use schemas::merkle::{consistency_proof, root};
use schemas::note::sign;
use schemas::{Sha256Hex, tlog};

use super::*;

const ORIGIN: &str = "acme/registry/log";

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| Sha256Hex::of(&n.to_be_bytes())).collect()
}

fn log() -> Ed25519Signer {
    Ed25519Signer::from_seed([3; 32])
}

fn key() -> WitnessKey {
    WitnessKey::new("w.example/1", Ed25519Signer::from_seed([4; 32]).public_key()).unwrap()
}

fn open(folder: &Path) -> Witness {
    let log = VerifyingKey::new(ORIGIN, log().public_key()).unwrap();
    let state = StateFolder::open(folder, &key()).unwrap();
    Witness::new("w.example/1", Ed25519Signer::from_seed([4; 32]), vec![log], state).unwrap()
}

fn new() -> (tempfile::TempDir, Witness) {
    let dir = tempfile::tempdir().unwrap();
    StateFolder::create(dir.path(), &key()).unwrap();
    let witness = open(dir.path());
    (dir, witness)
}

fn text(leaves: &[Hash]) -> String {
    TreeHead { origin: ORIGIN.into(), size: leaves.len() as u64, root: root(leaves) }.to_text()
}

fn body(old: u64, leaves: &[Hash], signer: &Ed25519Signer) -> Vec<u8> {
    let checkpoint = sign(&text(leaves), &[(ORIGIN, signer)]).unwrap();
    Submission { old, proof: consistency_proof(leaves, old), checkpoint: &checkpoint }.to_bytes()
}

#[track_caller]
fn cosigned(witness: &Witness, old: u64, leaves: &[Hash]) {
    match witness.add_checkpoint(&body(old, leaves, &log()), 1_700_000_000) {
        Answer::Cosigned(line) => {
            assert_eq!(key().find(&text(leaves), &line).unwrap().1, 1_700_000_000);
        }
        other => std::panic::panic_any(format!("{other:?}")),
    }
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Cosigned(_) => 200,
        Answer::OtherSize(_) => 409,
        Answer::Refused(status, _) => *status,
    }
}

#[test]
fn a_log_that_only_grows_is_cosigned_also_after_a_restart() {
    let (dir, witness) = new();
    let all = leaves(40);
    assert_eq!(witness.latest(ORIGIN, 1), None);
    for (old, size) in [(0, 1), (1, 1), (1, 7), (7, 8), (8, 21), (21, 21)] {
        cosigned(&witness, old, &all[..size]);
    }
    drop(witness);
    let witness = open(dir.path());
    assert_eq!(witness.add_checkpoint(&body(0, &all, &log()), 1), Answer::OtherSize(21));
    cosigned(&witness, 21, &all);
    let note = witness.latest(ORIGIN, 77).unwrap();
    let parsed = note::parse_unverified(note.as_bytes()).unwrap();
    assert_eq!(
        (parsed.text, key().verify(parsed.text, &parsed.signatures[0])),
        (text(&all).as_str(), Ok(77))
    );
}

#[test]
fn forks_and_roll_backs_are_refused_and_change_nothing() {
    let (_dir, witness) = new();
    let all = leaves(20);
    cosigned(&witness, 0, &all[..9]);
    let mut other = all.clone();
    other[3] = Sha256Hex([9; 32]);
    let log = log();
    let ask = |body: Vec<u8>| witness.add_checkpoint(&body, 1);
    assert_eq!(ask(body(0, &all[..5], &log)), Answer::OtherSize(9));
    assert_eq!(status(&ask(body(9, &all[..5], &log))), 400, "an old size beyond the tree");
    assert_eq!(status(&ask(body(9, &other[..9], &log))), 409, "another root of the same size");
    assert_eq!(status(&ask(body(9, &other, &log))), 422, "a tree that does not continue");
    let checkpoint = sign(&text(&all), &[(ORIGIN, &log)]).unwrap();
    let without = Submission { old: 9, proof: vec![], checkpoint: &checkpoint }.to_bytes();
    assert_eq!(status(&ask(without)), 422, "no proof");
    let same = sign(&text(&all[..9]), &[(ORIGIN, &log)]).unwrap();
    let more = Submission { old: 9, proof: vec![all[0]], checkpoint: &same }.to_bytes();
    assert_eq!(status(&ask(more)), 422, "a proof where none is due");
    assert_eq!(status(&ask(body(9, &all, &Ed25519Signer::from_seed([8; 32])))), 403, "not the log's key");
    let stranger = sign(
        "else/where/log\n1\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n",
        &[("else/where/log", &log)],
    );
    let stranger = stranger.unwrap();
    assert_eq!(status(&ask(Submission { old: 0, proof: vec![], checkpoint: &stranger }.to_bytes())), 404);
    assert_eq!(status(&ask(b"old 0\n\nnothing".to_vec())), 400);
    assert_eq!(status(&ask(vec![b'x'; tlog::MAX_SUBMISSION_BYTES + 1])), 400);
    cosigned(&witness, 9, &all);
}

#[test]
fn a_state_that_is_lost_changed_or_in_use_stops_the_witness() {
    let (dir, witness) = new();
    assert!(matches!(StateFolder::open(dir.path(), &key()), Err(StateError::InUse { .. })));
    cosigned(&witness, 0, &leaves(3));
    drop(witness);
    assert!(matches!(StateFolder::create(dir.path(), &key()), Err(StateError::NotOurs { .. })));
    let other = WitnessKey::new("w.example/2", *key().key()).unwrap();
    assert!(matches!(StateFolder::open(dir.path(), &other), Err(StateError::NotOurs { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(StateFolder::open(empty.path(), &key()), Err(StateError::NotOurs { .. })));
    std::fs::write(dir.path().join(StateFolder::name(ORIGIN)), "affidavit/witness/v1\nx\n").unwrap();
    let state = StateFolder::open(dir.path(), &key()).unwrap();
    let log = VerifyingKey::new(ORIGIN, log().public_key()).unwrap();
    let opened = Witness::new("w.example/1", Ed25519Signer::from_seed([4; 32]), vec![log], state);
    assert!(matches!(opened, Err(StateError::Form { .. })));
}

#[test]
fn what_cannot_be_remembered_is_not_cosigned() {
    let (dir, witness) = new();
    let all = leaves(5);
    // A folder stands where the file must go: the rename fails.
    std::fs::create_dir_all(dir.path().join(StateFolder::name(ORIGIN)).join("x")).unwrap();
    assert_eq!(status(&witness.add_checkpoint(&body(0, &all, &log()), 1)), 500);
    std::fs::remove_dir_all(dir.path().join(StateFolder::name(ORIGIN))).unwrap();
    assert_eq!(status(&witness.add_checkpoint(&body(0, &all, &log()), 1)), 500, "not before the next start");
    drop(witness);
    cosigned(&open(dir.path()), 0, &all);
}

#[test]
fn a_key_file_is_its_owners_alone_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness.key");
    let made = key::make(&path, "w.example/1").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(key::read(&path).unwrap().public_key(), *made.key());
    assert!(key::make(&path, "w.example/1").is_err());
    assert!(key::make(&dir.path().join("other"), "a name").is_err());
    std::fs::write(&path, "nothing").unwrap();
    assert!(key::read(&path).is_err());
}

#[test]
fn every_problem_of_a_configuration_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness.yaml");
    let log = VerifyingKey::new(ORIGIN, log().public_key()).unwrap();
    std::fs::write(
        &path,
        format!("name: w\nkey: k\nstate: s\nlisten: here\nlogs: [\"{log}\", \"{log}\", x]\n"),
    )
    .unwrap();
    let problems = Config::read(&path).unwrap_err().to_string();
    for key in ["listen", "twice", "`x`"] {
        assert!(problems.contains(key), "{key} not in {problems}");
    }
    std::fs::write(&path, format!("name: w\nkey: k\nstate: s\nlisten: 127.0.0.1:0\nlogs: [\"{log}\"]\n"))
        .unwrap();
    let config = Config::read(&path).unwrap();
    assert_eq!((config.key, config.logs), (dir.path().join("k"), vec![log]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_changed_submission_is_cosigned(at in any::<prop::sample::Index>(), flip in 1_u8..=255, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_dir, witness) = new();
        let all = leaves(13);
        cosigned(&witness, 0, &all[..5]);
        let whole = body(5, &all, &log());
        let mut changed = whole.clone();
        let at = at.index(changed.len());
        changed[at] ^= flip;
        prop_assert_ne!(status(&witness.add_checkpoint(&changed, 1)), 200);
        prop_assert_ne!(status(&witness.add_checkpoint(&bytes, 1)), 200);
        cosigned(&witness, 5, &all);
    }
}
