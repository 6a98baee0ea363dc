//! What witnesses said of a registry, and the code that each contradiction must give.

use schemas::merkle::CompactRange;
use schemas::note::{self, Ed25519Signer, Signer as _};
use schemas::registry::Checkpoint;
use schemas::tlog::{WitnessKey, cosign};
use schemas::trust::TrustedWitness;

use super::tests::{NOW, registry, seeded, small_and_sound, trust};
use super::*;
use crate::finding::Effect;
use crate::mandate::Mandate;
use crate::render;
use crate::report::{Report, Verdict};
use crate::source::MemorySource;
use crate::time::SECOND;
use crate::verify::{NoSink, Options, run};

/// When witnesses cosigned, seconds UTC: shortly after the newest seal.
const COSIGNED: u64 = (NOW / SECOND) as u64 - 2;

fn witness(n: u8) -> (String, Ed25519Signer) {
    (format!("w{n}.example/w"), seeded(60 + n))
}

fn trusted(n: u8, organisation: &str) -> TrustedWitness {
    let (name, signer) = witness(n);
    let key = WitnessKey::new(name, signer.public_key()).unwrap().to_string();
    TrustedWitness { key, organisation: organisation.into(), url: None }
}

fn with(witnesses: Vec<TrustedWitness>) -> Trust {
    Trust { witnesses, ..trust() }
}

fn stored_checkpoint(store: &MemorySource, batch: u64) -> bytes::Bytes {
    store.objects[&ObjectName::Checkpoint { origin: registry(), batch }.to_string()].clone()
}

/// The note with the cosignatures of these witnesses on further lines.
fn cosigned(checkpoint: &[u8], by: &[u8], at_s: u64) -> Vec<u8> {
    let said = note::parse_unverified(checkpoint).unwrap().text.to_owned();
    let mut out = checkpoint.to_vec();
    for n in by {
        let (name, signer) = witness(*n);
        out.extend_from_slice(format!("{}\n", cosign(&said, &name, at_s, &signer).unwrap()).as_bytes());
    }
    out
}

fn put(store: &mut MemorySource, batch: u64, note: Vec<u8>) -> String {
    let (sha256, kind) = (Sha256Hex::of(&note), schemas::names::AnchorKind::Cosignature);
    let name = ObjectName::Anchor { origin: registry(), batch, sha256, kind }.to_string();
    store.put(name.clone(), note);
    name
}

/// A sound store whose newest checkpoint these witnesses cosigned.
fn witnessed(by: &[u8]) -> MemorySource {
    let mut store = small_and_sound();
    for n in by {
        let note = cosigned(&stored_checkpoint(&store, 1), &[*n], COSIGNED);
        put(&mut store, 1, note);
    }
    store
}

fn verify_with(store: &MemorySource, trust: &Trust, require: &[&str], notes: &[WitnessNote]) -> Report {
    let mut mandate = Mandate::default();
    for text in require {
        mandate.require(text).unwrap();
    }
    let mut options = Options::new(trust, &mandate, NOW);
    options.witness_notes = notes;
    run(store, &options, &mut NoSink).0
}

#[track_caller]
fn finds(report: &Report, code: Code, verdict: Verdict) {
    let found = report.findings.iter().any(|finding| finding.code == code && finding.effect != Effect::Note);
    assert!(found && report.verdict == verdict, "{code}: {}", render::text::report(report));
    assert!(!report.first_line().contains("; witnessed"), "{}", report.first_line());
}

#[test]
fn organisations_are_counted_and_what_is_asked_for_is_held_against_them() {
    let store = witnessed(&[1, 2]);
    let trust = with(vec![trusted(1, "bank"), trusted(2, "auditors")]);
    let report = verify_with(&store, &trust, &["witnessed=2", "witnessed_within=1h"], &[]);
    assert_eq!(report.verdict, Verdict::Verified, "{}", render::text::report(&report));
    assert!(
        report.first_line().contains("; witnessed by 2 organisations up to 2026-"),
        "{}",
        report.first_line()
    );
    assert_eq!(report.registry.as_ref().unwrap().witnessed.len(), 2);
    assert!(render::text::report(&report).contains("cosigned by auditors (w2.example/w)"));
    let report = verify_with(&store, &trust, &["witnessed=3"], &[]);
    finds(&report, Code::ClaimNotReached, Verdict::Policy);
    assert!(report.first_line().contains("NOT witnessed by 2 organisations"), "{}", report.first_line());
    // Two witnesses of one organisation are one.
    let one = with(vec![trusted(1, "bank"), trusted(2, "bank")]);
    finds(&verify_with(&store, &one, &["witnessed=2"], &[]), Code::ClaimNotReached, Verdict::Policy);
    let report = verify_with(&store, &one, &["witnessed"], &[]);
    assert!(report.first_line().contains("; witnessed by 1 organisation up to"), "{}", report.first_line());
}

#[test]
fn witnesses_of_the_operator_and_strangers_are_not_counted() {
    let store = witnessed(&[1, 2]);
    let own = with(vec![trusted(1, "acme")]);
    let report = verify_with(&store, &own, &[], &[]);
    assert_eq!(report.verdict, Verdict::Verified, "{}", render::text::report(&report));
    assert!(report.first_line().contains("NOT witnessed;"), "{}", report.first_line());
    assert!(report.findings.has(Code::WitnessNotIndependent) && report.findings.has(Code::UnknownSignature));
    finds(&verify_with(&store, &own, &["witnessed"], &[]), Code::WitnessNotIndependent, Verdict::Policy);
    let renamed = Trust { operator: Some("bank".into()), ..with(vec![trusted(1, "bank")]) };
    finds(&verify_with(&store, &renamed, &["witnessed"], &[]), Code::WitnessNotIndependent, Verdict::Policy);
    let report = verify_with(&store, &trust(), &[], &[]);
    assert_eq!(report.verdict, Verdict::Verified);
    assert_eq!(report.findings.counts()[&Code::UnknownSignature], 2);
}

#[test]
fn forged_and_moved_cosignatures() {
    let trust = with(vec![trusted(1, "bank")]);
    let mut forged = witnessed(&[]);
    let note = cosigned(&stored_checkpoint(&forged, 1), &[1], COSIGNED);
    let line = note::parse_unverified(&note).unwrap().signatures.remove(1);
    let mut changed = line.clone();
    changed.bytes[40] ^= 1;
    let text = String::from_utf8(note.clone()).unwrap().replace(&line.to_string(), &changed.to_string());
    put(&mut forged, 1, text.into_bytes());
    finds(&verify_with(&forged, &trust, &[], &[]), Code::CosignatureInvalid, Verdict::Invalid);
    // A key of the attacker's own under the witness's name is another key.
    let mut named = witnessed(&[]);
    let said = note::parse_unverified(&note).unwrap().text.to_owned();
    let own = cosign(&said, &witness(1).0, COSIGNED, &seeded(99)).unwrap();
    let own = [&stored_checkpoint(&named, 1)[..], format!("{own}\n").as_bytes()].concat();
    put(&mut named, 1, own);
    let report = verify_with(&named, &trust, &[], &[]);
    assert_eq!(report.verdict, Verdict::Verified, "{}", render::text::report(&report));
    assert!(report.first_line().contains("NOT witnessed;") && report.findings.has(Code::UnknownSignature));
    // Without the log's own signature, of another log, no note at all, and under a name of other bytes.
    let mut without = witnessed(&[]);
    let foreign = note::sign(&said, &[("acme/registry/log", &seeded(98))]).unwrap();
    put(&mut without, 1, cosigned(&foreign, &[1], COSIGNED));
    finds(&verify_with(&without, &trust, &[], &[]), Code::CosignatureInvalid, Verdict::Invalid);
    let mut other = witnessed(&[]);
    let foreign = note::sign(&said.replace("acme", "emca"), &[("emca/registry/log", &seeded(22))]).unwrap();
    put(&mut other, 1, cosigned(&foreign, &[1], COSIGNED));
    finds(&verify_with(&other, &trust, &[], &[]), Code::CosignatureInvalid, Verdict::Invalid);
    let mut rubbish = witnessed(&[]);
    put(&mut rubbish, 1, b"rubbish".to_vec());
    finds(&verify_with(&rubbish, &trust, &[], &[]), Code::CosignatureInvalid, Verdict::Invalid);
    let mut renamed = witnessed(&[]);
    let name = put(&mut renamed, 1, note.clone());
    renamed.put(name, b"other bytes".to_vec());
    finds(&verify_with(&renamed, &trust, &[], &[]), Code::FileMismatch, Verdict::Invalid);
    // Beside another batch it still says the truth of its own size.
    let mut moved = witnessed(&[]);
    put(&mut moved, 0, note);
    let report = verify_with(&moved, &trust, &["witnessed"], &[]);
    assert_eq!(report.verdict, Verdict::Verified, "{}", render::text::report(&report));
}

/// A checkpoint by the registry's true key that the store's registry does not hold.
fn checkpoint(size: u64, root: Hash) -> Vec<u8> {
    Checkpoint { origin: registry(), size, root }.sign(&seeded(22)).unwrap()
}

type Hash = Sha256Hex;

fn brought(note: Vec<u8>) -> WitnessNote {
    WitnessNote { from: "from the bank".into(), note, asked: None }
}

#[test]
fn a_fork_that_a_witness_saw_is_shown_to_a_first_visitor() {
    let trust = with(vec![trusted(1, "bank")]);
    let fork = cosigned(&checkpoint(6, Sha256Hex([9; 32])), &[1], COSIGNED);
    let mut store = witnessed(&[1]);
    put(&mut store, 1, fork.clone());
    finds(&verify_with(&store, &trust, &[], &[]), Code::Equivocation, Verdict::Diverged);
    let notes = [brought(fork)];
    let report = verify_with(&witnessed(&[1]), &trust, &[], &notes);
    finds(&report, Code::Equivocation, Verdict::Diverged);
    let place = report.findings.iter().find(|finding| finding.code == Code::Equivocation).unwrap();
    assert_eq!(place.place.object.as_deref(), Some("from the bank"));
    // A size at which this registry was never sealed.
    let between = [brought(cosigned(&checkpoint(5, CompactRange::new().root()), &[1], COSIGNED))];
    finds(&verify_with(&witnessed(&[1]), &trust, &[], &between), Code::Equivocation, Verdict::Diverged);
}

#[test]
fn a_registry_that_was_cut_back_is_shown_to_a_first_visitor() {
    let trust = with(vec![trusted(1, "bank")]);
    let whole = witnessed(&[1]);
    let mut cut = whole.clone();
    cut.objects.retain(|name, _| !name.starts_with("acme/registry/log/0000000001"));
    assert!(
        !verify_with(&cut, &trust, &[], &[]).findings.has(Code::RegistryRollback),
        "nothing shows it yet"
    );
    // What was put after the seal and is left behind shows it too.
    for end in ["checkpoint", "cosignature"] {
        let mut left = whole.clone();
        left.objects.retain(|name, _| {
            !name.starts_with("acme/registry/log/0000000001") || name.ends_with(&format!(".{end}"))
        });
        finds(&verify_with(&left, &trust, &[], &[]), Code::RegistryRollback, Verdict::Diverged);
    }
    let note = cosigned(&stored_checkpoint(&whole, 1), &[1], COSIGNED);
    let notes = [brought(note.clone())];
    let report = verify_with(&cut, &trust, &[], &notes);
    assert!(report.findings.has(Code::RegistryRollback), "{}", render::text::report(&report));
    assert!(report.verdict >= Verdict::Diverged);
    // What the witness says itself, without the log's signature, is enough.
    let said = note::parse_unverified(&note).unwrap().text.to_owned();
    let (name, signer) = witness(1);
    let own = format!("{said}\n{}\n", cosign(&said, &name, COSIGNED, &signer).unwrap()).into_bytes();
    let notes = [brought(own)];
    assert!(verify_with(&cut, &trust, &[], &notes).findings.has(Code::RegistryRollback));
    let report = verify_with(&whole, &trust, &["witnessed"], &notes);
    assert_eq!(report.verdict, Verdict::Verified, "{}", render::text::report(&report));
    // Everything is gone, also the key that would name the log's signature.
    let mut none = whole.clone();
    none.objects.retain(|name, _| !name.starts_with("acme/registry/"));
    assert!(verify_with(&none, &trust, &[], &notes).findings.has(Code::RegistryRollback));
}

#[test]
fn times_that_contradict_a_cosignature_and_anchors_that_are_old() {
    let trust = with(vec![trusted(1, "bank")]);
    for at_s in [COSIGNED - 3600, COSIGNED + 3600] {
        let mut store = witnessed(&[]);
        let note = cosigned(&stored_checkpoint(&store, 1), &[1], at_s);
        put(&mut store, 1, note);
        finds(&verify_with(&store, &trust, &[], &[]), Code::TimeContradiction, Verdict::Invalid);
    }
    // Only the older checkpoint was cosigned, and the mandate asks for the last second.
    let mut store = witnessed(&[]);
    let note = cosigned(&stored_checkpoint(&store, 0), &[1], COSIGNED);
    put(&mut store, 0, note);
    let report = verify_with(&store, &trust, &["witnessed_within=1s"], &[]);
    finds(&report, Code::StaleAnchor, Verdict::Policy);
    assert!(report.findings.has(Code::ClaimNotReached));
    assert_eq!(verify_with(&store, &trust, &["witnessed_within=1h"], &[]).verdict, Verdict::Verified);
}

#[test]
fn an_old_answer_of_a_witness_is_judged_and_listed() {
    let trust = with(vec![trusted(1, "bank")]);
    let store = witnessed(&[1]);
    let answer = |batch: u64, at_s: u64, asked: Option<i64>| {
        let note = cosigned(&stored_checkpoint(&store, batch), &[1], at_s);
        WitnessNote { asked, ..brought(note) }
    };
    let listed = |store: &MemorySource, answer: WitnessNote| {
        let report = verify_with(store, &trust, &["witnessed"], &[answer]);
        assert_eq!(report.verdict, Verdict::Verified, "{}", render::text::report(&report));
        let old: Vec<_> = report.findings.iter().filter(|one| one.code == Code::StaleAnchor).collect();
        assert!(old.iter().all(|one| one.effect == Effect::Note
            && one.place.object.as_deref() == Some("from the bank")
            && one.found.starts_with("an old answer: witness w1.example/w (bank) cosigned size ")));
        old.first().map(|one| (one.expected.clone(), one.found.clone()))
    };
    // Just now, and from a file, of which nobody says when it was got.
    assert_eq!(listed(&store, answer(1, COSIGNED, Some(NOW))), None);
    assert_eq!(listed(&store, answer(1, COSIGNED, None)), None);
    // The witness saw more since, as the store shows.
    for asked in [None, Some(NOW)] {
        let (expected, _) = listed(&store, answer(0, COSIGNED, asked)).unwrap();
        assert!(expected.starts_with("what it cosigned last: size 6 at 2026-"), "{expected}");
    }
    // Asked now, it answers as of an hour ago; the store holds nothing newer.
    let later = NOW + 3600 * SECOND;
    let (expected, found) = listed(&store, answer(1, COSIGNED, Some(later))).unwrap();
    assert!(expected.starts_with("an answer made when the witness was asked, 2026-"), "{expected}");
    assert!(found.contains("size 6"), "{found}");
    // It is judged all the same.
    let fork = cosigned(&checkpoint(6, Sha256Hex([9; 32])), &[1], COSIGNED);
    let fork = [WitnessNote { asked: Some(later), ..brought(fork) }];
    finds(&verify_with(&store, &trust, &[], &fork), Code::Equivocation, Verdict::Diverged);
}

#[test]
fn nothing_is_witnessed_where_the_evidence_contradicts_itself() {
    let trust = with(vec![trusted(1, "bank")]);
    let mut store = witnessed(&[1]);
    let name = ObjectName::Checkpoint { origin: registry(), batch: 0 }.to_string();
    store.put(name, checkpoint(4, Sha256Hex([1; 32])));
    let report = verify_with(&store, &trust, &[], &[]);
    finds(&report, Code::Equivocation, Verdict::Diverged);
    assert!(report.first_line().contains("NOT witnessed by 1"), "{}", report.first_line());
}
