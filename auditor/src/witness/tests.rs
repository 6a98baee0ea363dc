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

fn opened(folder: &Path, origins: &[&str]) -> Result<Witness, StateError> {
    let logs = origins.iter().map(|origin| VerifyingKey::new(*origin, log().public_key()).unwrap());
    let logs = logs.collect();
    Witness::new("w.example/1", Ed25519Signer::from_seed([4; 32]), logs, StateFolder::open(folder, &key())?)
}

#[test]
fn a_log_whose_file_was_deleted_is_not_begun_anew() {
    let (dir, witness) = new();
    let all = leaves(9);
    cosigned(&witness, 0, &all[..4]);
    let file = dir.path().join(StateFolder::name(ORIGIN));
    // While it runs it knows, and writes the file again with the next head.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(witness.add_checkpoint(&body(0, &all, &log()), 1), Answer::OtherSize(4));
    cosigned(&witness, 4, &all[..6]);
    assert!(file.is_file());
    std::fs::remove_file(&file).unwrap();
    drop(witness);
    let lost = opened(dir.path(), &[ORIGIN]).unwrap_err();
    assert!(matches!(&lost, StateError::Lost { origin, .. } if origin == ORIGIN), "{lost}");
    assert!(lost.to_string().contains("put the file back as it was"), "{lost}");
    // Other logs are not concerned, and a log that was never cosigned is one that begins.
    let other = opened(dir.path(), &["else/where/log"]).unwrap();
    assert_eq!(other.latest("else/where/log", 1), None);
}

#[test]
fn a_crash_between_a_log_s_file_and_its_line_is_made_good() {
    let (dir, witness) = new();
    let all = leaves(9);
    cosigned(&witness, 0, &all[..4]);
    drop(witness);
    let mark = dir.path().join("witness");
    let whole = std::fs::read(&mark).unwrap();
    assert_eq!(whole, format!("{}\n{ORIGIN}\n", key()).into_bytes());
    // As older versions left it, cut within the line, and with the zeros that a file system may leave.
    let first = key().to_string().len() + 1;
    for torn in [whole[..first].to_vec(), whole[..first + 3].to_vec(), [&whole[..first], &[0; 9]].concat()] {
        std::fs::write(&mark, torn).unwrap();
        let witness = open(dir.path());
        assert_eq!(witness.add_checkpoint(&body(0, &all, &log()), 1), Answer::OtherSize(4));
        assert_eq!(std::fs::read(&mark).unwrap(), whole);
    }
    // Cut within the key it is no witness's.
    std::fs::write(&mark, &whole[..first - 3]).unwrap();
    assert!(matches!(opened(dir.path(), &[ORIGIN]), Err(StateError::NotOurs { .. })));
}

#[test]
fn a_folder_that_was_replaced_while_it_is_used_stops_the_witness() {
    let (dir, witness) = new();
    let all = leaves(9);
    cosigned(&witness, 0, &all[..4]);
    let mark = dir.path().join("witness");
    let kept = std::fs::read(&mark).unwrap();
    std::fs::remove_file(&mark).unwrap();
    std::fs::write(&mark, kept).unwrap();
    let Answer::Refused(500, why) = witness.add_checkpoint(&body(4, &all, &log()), 1) else {
        std::panic::panic_any("cosigned beside another process that may have begun")
    };
    assert!(why.contains("replaced the state folder"), "{why}");
}

#[test]
fn of_many_trees_that_are_shown_at_once_one_is_cosigned() {
    let (_dir, witness) = new();
    let mut seen = leaves(5);
    cosigned(&witness, 0, &seen);
    for round in 0..10_u8 {
        // Each continues what was seen, and none another.
        let trees: Vec<Vec<Hash>> =
            (0..8_u8).map(|n| [&seen[..], &[Sha256Hex([n; 32]), Sha256Hex([round; 32])]].concat()).collect();
        let old = seen.len() as u64;
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let ask = |tree: &Vec<Hash>| status(&witness.add_checkpoint(&body(old, tree, &log()), 1));
            let asking: Vec<_> = trees.iter().map(|tree| scope.spawn(move || ask(tree))).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let taken: Vec<usize> = (0..8).filter(|n| answers[*n] == 200).collect();
        assert_eq!(taken.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|status| [200, 409].contains(status)), "{answers:?}");
        seen.clone_from(&trees[taken[0]]);
        assert!(witness.latest(ORIGIN, 1).unwrap().starts_with(&text(&seen)));
    }
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

#[test]
fn the_example_is_taken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/witness.yaml");
    let config = Config::read(&path).unwrap();
    assert_eq!((config.name.as_str(), config.logs.len()), ("witness.bank.example/w1", 1));
    assert!(WitnessKey::new(config.name, [1; 32]).is_ok());
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
