//! Attacks on registry and logs, and the code that each must give.

use std::collections::{BTreeMap, BTreeSet};

use schemas::files::{LeafRow, schema_fingerprint, write_records};
use schemas::holds::Scope;
use schemas::merkle::CompactRange;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Body, Heartbeat, Hold};
use schemas::registry::*;
use schemas::seal::{Seal, SealedFile};
use schemas::trust::{TrustedLog, TrustedRegistry, key_text};
use schemas::{Identifier, leaf};

use super::*;
use crate::finding::Effect;
use crate::fixture::{START, Writer, exchange_id, signer, small};
use crate::mandate::Mandate;
use crate::proof::Bundle;
use crate::report::{Report, Verdict};
use crate::source::MemorySource;
use crate::state::{Remembered, Visits};
use crate::time::SECOND;
use crate::verify::{NoSink, Options, run};

pub(super) const NOW: i64 = START + 20 * SECOND;

pub(super) fn seeded(seed: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed([seed; 32])
}

pub(super) fn text(signer: &Ed25519Signer) -> String {
    key_text(&signer.public_key())
}

pub(super) fn registry() -> Origin {
    Origin::registry("acme").unwrap()
}

pub(super) fn trust() -> Trust {
    let registry = TrustedRegistry { origin: registry(), key: text(&seeded(21)) };
    let root = Some(text(&seeded(20)));
    Trust { v: 1, deployment: "acme".into(), root, registry: Some(registry), ..Trust::default() }
}

fn about(action: KeyAction, key: String) -> KeyStatement {
    KeyStatement {
        deployment: "acme".into(),
        action,
        gateway: "gw1".into(),
        key,
        replaces: None,
        heartbeat_bound_s: None,
        closers: vec![],
        until: None,
    }
}

fn key(statement: KeyStatement, by: u8) -> EntryBody {
    let note = statement.sign(&seeded(by)).unwrap();
    let (action, entry) = KeyStatement::verify(&note, "acme", &seeded(by).public_key()).unwrap();
    EntryBody::of_key(action, entry)
}

fn add() -> EntryBody {
    key(about(KeyAction::Add, text(&signer())), 20)
}

fn opening() -> EntryBody {
    EntryBody::Registry(Opening {
        gateway_version: Identifier::new("0.1.0").unwrap(),
        seal_key: text(&seeded(21)),
        checkpoint_key: text(&seeded(22)),
        root_key: text(&seeded(20)),
        heartbeat_bound_ms: 300_000,
    })
}

fn note_of(store: &MemorySource, origin: &Origin, batch: u64) -> bytes::Bytes {
    store.objects[&seal_name(origin, batch)].clone()
}

fn opened(store: &MemorySource, origin: &Origin) -> EntryBody {
    EntryBody::LogOpened(LogOpened {
        origin: origin.clone(),
        key: text(&signer()),
        seal: Sha256Hex::of(&note_of(store, origin, 0)),
        heartbeat_bound_ms: 300_000,
        batch_age_ms: 10_000,
        log_config: Sha256Hex([7; 32]),
        predecessor: None,
    })
}

fn head_of(store: &MemorySource, origin: &Origin, batch: u64) -> LogHead {
    let note = note_of(store, origin, batch);
    let said = seal::parse_unverified(&note).unwrap();
    let seal = Sha256Hex::of(&note);
    LogHead { origin: origin.clone(), batch, size: said.to, root: said.root, seal, ahead: None, read: None }
}

fn closed(origin: &Origin, size: u64) -> EntryBody {
    let reason = Identifier::new("shutdown").unwrap();
    EntryBody::LogClosed(LogClosed { origin: origin.clone(), size, reason })
}

/// Puts a registry of these batches into the store.
fn put(store: &mut MemorySource, batches: Vec<Vec<EntryBody>>) {
    let (mut tree, mut previous) = (CompactRange::new(), None);
    for (batch, bodies) in (0..).zip(batches) {
        let before = tree.clone();
        let mut rows = Vec::new();
        for (position, body) in (before.size()..).zip(bodies) {
            let entry = Entry { v: 1, at: START + 3 * SECOND, config: Sha256Hex([7; 32]), body };
            let leaf = encode(&entry).unwrap();
            let hash = leaf::hash(&leaf);
            tree.append(hash);
            rows.push(LeafRow { position, leaf, hash });
        }
        let records = write_records(&rows).unwrap();
        let sha256 = Sha256Hex::of(&records);
        let name = ObjectName::Data { origin: registry(), batch, sha256, kind: FileKind::Records };
        let seal = Seal {
            origin: registry(),
            batch,
            from: before.size(),
            to: tree.size(),
            root: tree.root(),
            compact: before.nodes().to_vec(),
            files: vec![SealedFile { name: name.file_name(), length: records.len() as u64, sha256 }],
            previous,
            schema: schema_fingerprint(),
            time: START + 15 * SECOND + batch as i64,
        };
        let note = seal.sign(&seeded(21)).unwrap();
        previous = Some(Sha256Hex::of(&note));
        store.put(name.to_string(), records);
        store.put(seal.object_name().to_string(), note);
        let name = ObjectName::Checkpoint { origin: registry(), batch };
        store.put(name.to_string(), Checkpoint::of(&seal).sign(&seeded(22)).unwrap());
    }
}

/// The batches of a sound registry of the small store.
fn sound(writer: &Writer) -> Vec<Vec<EntryBody>> {
    let (store, origin) = (&writer.store, &writer.origin);
    let head = |batch| EntryBody::LogHead(head_of(store, origin, batch));
    vec![
        vec![opening(), add(), opened(store, origin), head(0)],
        vec![head(2), closed(origin, writer.range.size())],
    ]
}

fn stored(writer: &Writer, batches: Vec<Vec<EntryBody>>) -> MemorySource {
    let mut store = writer.store.clone();
    put(&mut store, batches);
    store
}

/// The small store with a sound registry.
pub(super) fn small_and_sound() -> MemorySource {
    let writer = small();
    stored(&writer, sound(&writer))
}

fn verify(store: &MemorySource, remembered: Option<&Remembered>) -> (Report, Visits) {
    let (trust, mandate) = (trust(), Mandate::default());
    let mut options = Options::new(&trust, &mandate, NOW);
    options.remembered = remembered;
    run(store, &options, &mut NoSink)
}

#[track_caller]
fn finds(store: &MemorySource, code: &str, verdict: Verdict) {
    let (report, _) = verify(store, None);
    let codes: BTreeSet<_> =
        report.findings.iter().filter(|f| f.effect != Effect::Note).map(|f| f.code.as_str()).collect();
    assert!(codes.contains(code), "{code} not in {codes:?}");
    assert_eq!(report.verdict, verdict, "{}", crate::render::text::report(&report));
}

#[test]
fn a_store_is_verified_with_the_keys_of_its_registry() {
    let writer = small();
    let (report, visits) = verify(&stored(&writer, sound(&writer)), None);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    let registered = report.registry.as_ref().unwrap();
    assert_eq!((registered.keys, registered.logs, registered.size), (1, 1, 6));
    assert_eq!(visits.logs[&registry()].size, 6);
    assert!(crate::render::text::report(&report).contains("6 entries, 1 keys, 1 logs"));
}

#[test]
fn every_flipped_byte_of_the_registry_is_found() {
    let writer = small();
    let store = stored(&writer, sound(&writer));
    for (name, bytes) in store.objects.iter().filter(|(name, _)| name.contains("/registry/")) {
        for n in (0..bytes.len()).step_by(if bytes.len() > 2000 { 97 } else { 13 }) {
            let mut changed = bytes.to_vec();
            changed[n] ^= 1 << (n % 8);
            let mut store = store.clone();
            store.put(name.clone(), changed);
            assert_ne!(verify(&store, None).0.verdict, Verdict::Verified, "{name} byte {n}");
        }
    }
}

#[test]
fn a_registered_log_that_is_gone_and_a_log_that_is_not_registered() {
    let writer = small();
    let mut store = stored(&writer, sound(&writer));
    store.objects.retain(|name, _| !name.starts_with(writer.origin.as_str()));
    finds(&store, "LOG_MISSING", Verdict::Incomplete);
    let batches = vec![vec![opening(), add()]];
    finds(&stored(&writer, batches), "UNREGISTERED_LOG", Verdict::Invalid);
    let mut stranger = stored(&writer, sound(&writer));
    stranger.put("acme/gw9/20260101t000000z-00000001/0000000000.seal", "x");
    finds(&stranger, "UNREGISTERED_LOG", Verdict::Invalid);
}

#[test]
fn a_registry_that_is_gone_or_cut_back() {
    let writer = small();
    let whole = stored(&writer, sound(&writer));
    let (_, visits) = verify(&whole, None);
    let known = Remembered::Known(visits);
    let (report, _) = verify(&whole, Some(&known));
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.registry.unwrap().consistent_since, Some(NOW));
    let mut cut = whole.clone();
    cut.objects.retain(|name, _| !name.starts_with("acme/registry/log/0000000001"));
    let none = writer.store.clone();
    for store in [&cut, &none] {
        let (report, visits) = verify(store, Some(&known));
        assert!(report.findings.has(Code::RegistryRollback), "{}", crate::render::text::report(&report));
        assert_eq!(visits.logs[&registry()].size, 6, "what was seen stays remembered");
    }
    // Another history of the same length, by the registry's own key.
    let mut batches = sound(&writer);
    let counters = BTreeMap::from([("logs".into(), 1)]);
    batches[1] = vec![EntryBody::Heartbeat(Heartbeat { counters }); 2];
    let (report, _) = verify(&stored(&writer, batches), Some(&known));
    assert!(report.findings.has(Code::Diverged), "{}", crate::render::text::report(&report));
    finds(&none, "LOG_MISSING", Verdict::Invalid);
}

#[test]
fn keys_that_do_not_count() {
    let writer = small();
    let (store, origin) = (&writer.store, &writer.origin);
    let head = |batch| EntryBody::LogHead(head_of(store, origin, batch));
    let thief = key(about(KeyAction::Add, text(&signer())), 30);
    finds(
        &stored(&writer, vec![vec![opening(), thief, opened(store, origin)]]),
        "UNTRUSTED_KEY",
        Verdict::Invalid,
    );
    let late = vec![vec![opening(), opened(store, origin), add(), head(2)]];
    finds(&stored(&writer, late), "KEY_NOT_VALID_FOR_SIZE", Verdict::Invalid);
    let revoked = key(about(KeyAction::Revoke, text(&signer())), 20);
    let grown = vec![vec![opening(), add(), opened(store, origin), head(0), revoked]];
    finds(&stored(&writer, grown), "KEY_NOT_VALID_FOR_SIZE", Verdict::Invalid);
    let rotation = |by| {
        let replaces = Some(text(&signer()));
        key(KeyStatement { replaces, ..about(KeyAction::Rotate, text(&seeded(40))) }, by)
    };
    let mut forged = sound(&writer);
    forged[0].push(rotation(30));
    finds(&stored(&writer, forged), "ROTATION_INVALID", Verdict::Invalid);
    let mut twice = sound(&writer);
    twice[0].extend([rotation(20), rotation(20)]);
    finds(&stored(&writer, twice), "ROTATION_INVALID", Verdict::Invalid);
    let mut drained = sound(&writer);
    drained[0].push(rotation(20));
    assert_eq!(verify(&stored(&writer, drained), None).0.verdict, Verdict::Verified);
}

#[test]
fn heads_that_differ_from_the_log() {
    let writer = small();
    let (store, origin) = (&writer.store, &writer.origin);
    let with = |head: LogHead| vec![vec![opening(), add(), opened(store, origin), EntryBody::LogHead(head)]];
    let real = head_of(store, origin, 1);
    let other = LogHead { root: Sha256Hex([1; 32]), seal: Sha256Hex([2; 32]), ..real.clone() };
    finds(&stored(&writer, with(other)), "DIVERGED", Verdict::Diverged);
    let anew = LogHead { seal: Sha256Hex([2; 32]), ..real };
    finds(&stored(&writer, with(anew)), "EQUIVOCATION", Verdict::Diverged);
    let beyond = LogHead { batch: 3, size: 99, ..head_of(store, origin, 2) };
    finds(&stored(&writer, with(beyond)), "ROLLBACK", Verdict::Diverged);
    let mut cut = stored(&writer, sound(&writer));
    cut.objects.retain(|name, _| !name.starts_with(&format!("{origin}/0000000002")));
    let (report, _) = verify(&cut, None);
    assert!(report.findings.has(Code::Rollback), "{}", crate::render::text::report(&report));
}

#[test]
fn what_was_registered_on_its_way_and_never_came_is_missing_and_no_rollback() {
    let writer = small();
    let (store, origin) = (&writer.store, &writer.origin);
    let head = |batch, size| {
        let ahead = Some(true);
        EntryBody::LogHead(LogHead { batch, size, ahead, ..head_of(store, origin, 2) })
    };
    // It is there by now: nothing to say.
    let EntryBody::LogHead(real) = head(2, 0) else { return };
    let size = head_of(store, origin, 2).size;
    let there = LogHead { size, ..real };
    let batches = |head: EntryBody| vec![vec![opening(), add(), opened(store, origin), head]];
    let (report, _) = verify(&stored(&writer, batches(EntryBody::LogHead(there.clone()))), None);
    assert!(!report.findings.has(Code::BatchMissing) && !report.findings.has(Code::Rollback));
    // The last batch was never archived, nor the log at all: once it is due that is no pass.
    let late = NOW + 310 * SECOND;
    let mut cut = stored(&writer, batches(EntryBody::LogHead(there)));
    cut.objects.retain(|name, _| !name.starts_with(&format!("{origin}/0000000002")));
    let mut without = cut.clone();
    without.objects.retain(|name, _| !name.starts_with(origin.as_str()));
    for (store, code) in [(&cut, Code::BatchMissing), (&without, Code::LogMissing)] {
        let (trust, mandate) = (trust(), Mandate::default());
        let at = |now| run(store, &Options::new(&trust, &mandate, now), &mut NoSink).0;
        let report = at(late);
        let said = crate::render::text::report(&report);
        assert!(report.findings.has(code) && !report.findings.has(Code::Rollback), "{said}");
        assert_eq!(report.verdict, Verdict::Incomplete, "{said}");
        assert!(report.findings.iter().any(|f| f.code == code && f.effect != Effect::Note), "{said}");
        // As long as it may be on its way, that it is not there is a note of the registry's; that a gateway has shown
        // nothing yet is said all the same.
        let report = at(NOW);
        let said = crate::render::text::report(&report);
        let mut registered =
            report.findings.iter().filter(|f| f.code == code && f.expected.contains("regist"));
        assert!(registered.all(|f| f.effect == Effect::Note), "{said}");
    }
}

#[test]
fn logs_that_begin_twice_or_go_on_behind_their_end() {
    let writer = small();
    let (store, origin) = (&writer.store, &writer.origin);
    let EntryBody::LogOpened(real) = opened(store, origin) else { return };
    let wiped = EntryBody::LogOpened(LogOpened { seal: Sha256Hex([9; 32]), ..real });
    finds(&stored(&writer, vec![vec![opening(), add(), wiped]]), "EPOCH_REUSE", Verdict::Invalid);
    let mut twice = sound(&writer);
    twice[1].push(opened(store, origin));
    finds(&stored(&writer, twice), "EPOCH_REUSE", Verdict::Invalid);
    let head = head_of(store, origin, 0);
    let early = closed(origin, head.size);
    let batches = vec![vec![opening(), add(), opened(store, origin), EntryBody::LogHead(head), early]];
    finds(&stored(&writer, batches), "CLOSED_BUT_ACTIVE", Verdict::Invalid);
}

#[test]
fn checkpoints_that_differ_from_the_seal_or_are_gone() {
    let writer = small();
    let whole = stored(&writer, sound(&writer));
    let name = |batch| ObjectName::Checkpoint { origin: registry(), batch }.to_string();
    let said = |size| Checkpoint { origin: registry(), size, root: Sha256Hex([1; 32]) };
    let mut split = whole.clone();
    split.put(name(1), said(6).sign(&seeded(22)).unwrap());
    finds(&split, "EQUIVOCATION", Verdict::Diverged);
    let mut forged = whole.clone();
    forged.put(name(1), said(6).sign(&seeded(21)).unwrap());
    finds(&forged, "SEAL_INVALID", Verdict::Invalid);
    let mut without = whole.clone();
    without.objects.remove(&name(0));
    finds(&without, "BATCH_INCOMPLETE", Verdict::Incomplete);
    let mut writing = whole;
    writing.objects.remove(&name(1));
    assert_eq!(verify(&writing, None).0.verdict, Verdict::Verified, "the newest may be on its way");
}

#[test]
fn another_registry_or_root_key_is_not_trusted() {
    let writer = small();
    let store = stored(&writer, sound(&writer));
    let mandate = Mandate::default();
    let mut other = trust();
    other.root = Some(text(&seeded(50)));
    let (report, _) = run(&store, &Options::new(&other, &mandate, NOW), &mut NoSink);
    assert!(report.findings.has(Code::TrustMismatch) && report.findings.has(Code::UntrustedKey));
    assert_eq!(report.verdict, Verdict::Invalid);
    let mut other = trust();
    other.registry = Some(TrustedRegistry { origin: registry(), key: text(&seeded(50)) });
    let (report, _) = run(&store, &Options::new(&other, &mandate, NOW), &mut NoSink);
    assert!(report.findings.has(Code::SealInvalid), "{}", crate::render::text::report(&report));
    assert_eq!(report.verdict, Verdict::Invalid);
}

#[test]
fn a_registry_that_stood_still_proves_no_end() {
    let writer = small();
    let store = stored(&writer, sound(&writer));
    let (trust, mandate) = (trust(), Mandate::default());
    let (report, _) = run(&store, &Options::new(&trust, &mandate, NOW + 3600 * SECOND), &mut NoSink);
    let stale = report.findings.iter().any(|finding| {
        finding.code == Code::TailUnproven && finding.place.origin.as_deref() == Some(registry().as_str())
    });
    assert!(stale, "{}", crate::render::text::report(&report));
}

/// The small store, its batches 1 and 2 sealed by these keys.
fn sealed_by(writer: &Writer, signers: [&Ed25519Signer; 2]) -> MemorySource {
    let mut store = writer.store.clone();
    let mut previous = Sha256Hex::of(&note_of(&store, &writer.origin, 0));
    for (batch, signer) in (1..).zip(signers) {
        let note = note_of(&store, &writer.origin, batch);
        let said = seal::parse_unverified(&note).unwrap();
        let note = Seal { previous: Some(previous), ..said }.sign(signer).unwrap();
        previous = Sha256Hex::of(&note);
        store.put(seal_name(&writer.origin, batch), note);
    }
    store
}

/// A registry that knows all of the store, and the gateway's key with this closer, by this root key.
fn with_closer(
    writer: &Writer,
    store: &MemorySource,
    closer: &Ed25519Signer,
    root: u8,
) -> Vec<Vec<EntryBody>> {
    let closers = vec![text(closer)];
    let add = key(KeyStatement { closers, ..about(KeyAction::Add, text(&signer())) }, root);
    let head = |batch| EntryBody::LogHead(head_of(store, &writer.origin, batch));
    let end = closed(&writer.origin, writer.range.size());
    vec![vec![opening(), add, opened(store, &writer.origin), head(0), head(1)], vec![head(2), end]]
}

#[test]
fn a_closer_that_the_root_key_named_seals_the_end_of_a_log_and_nobody_else_does() {
    let writer = small();
    let (own, closer, stranger) = (signer(), seeded(60), seeded(61));
    let judged = |signers: [&Ed25519Signer; 2], named: &Ed25519Signer, root: u8| {
        let mut store = sealed_by(&writer, signers);
        let batches = with_closer(&writer, &store, named, root);
        put(&mut store, batches);
        verify(&store, None).0
    };
    for signers in [[&own, &closer], [&closer, &closer]] {
        let report = judged(signers, &closer, 20);
        let said = crate::render::text::report(&report);
        assert_eq!(report.verdict, Verdict::Verified, "{said}");
        assert_eq!(report.gateways[0].logs[0].closer, Some(text(&closer)));
        assert!(said.contains(&format!("by the closer {}", text(&closer))), "{said}");
    }
    let report = judged([&own, &own], &closer, 20);
    assert_eq!((report.verdict, &report.gateways[0].logs[0].closer), (Verdict::Verified, &None));
    for (signers, named, root, code) in [
        // Once a closer has sealed, the log's key has no word any more.
        ([&closer, &own], &closer, 20, Code::KeyNotValidForSize),
        // A key that no entry names, and one that is named for nothing.
        ([&own, &stranger], &closer, 20, Code::UntrustedKey),
        ([&stranger, &closer], &closer, 20, Code::UntrustedKey),
        // Named by somebody else than the root key.
        ([&own, &closer], &closer, 30, Code::UntrustedKey),
    ] {
        let report = judged(signers, named, root);
        assert!(report.findings.has(code), "{code:?}: {}", crate::render::text::report(&report));
        assert_eq!(report.verdict, Verdict::Invalid);
    }
}

#[test]
fn behind_the_limit_of_a_revoked_key_only_a_closer_goes_on() {
    let writer = small();
    let (own, closer) = (signer(), seeded(60));
    let judged = |last: &Ed25519Signer| {
        let mut store = sealed_by(&writer, [&own, last]);
        let mut batches = with_closer(&writer, &store, &closer, 20);
        // What was registered before counts: up to batch 1.
        batches[1].insert(0, key(about(KeyAction::Revoke, text(&own)), 20));
        put(&mut store, batches);
        verify(&store, None).0
    };
    let report = judged(&closer);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    let report = judged(&own);
    assert!(report.findings.has(Code::KeyNotValidForSize), "{}", crate::render::text::report(&report));
    assert_eq!(report.verdict, Verdict::Invalid);
}

/// A bundle of one exchange, out of one batch that this key sealed.
fn bundle(
    store: &MemorySource,
    origin: &Origin,
    (batch, exchange): (u64, u64),
    by: &Ed25519Signer,
) -> Bundle {
    let note = note_of(store, origin, batch);
    let said = seal::parse_unverified(&note).unwrap();
    let records = store.objects[&format!("{origin}/{}", said.file(&FileKind::Records).unwrap().name)].clone();
    let input = BatchInput { origin, key: &by.public_key(), seal: &note, records };
    let mut bundle = Bundle::new(exchange_id(exchange));
    bundle.add(&verify_batch(input).unwrap(), &note).unwrap();
    assert!(!bundle.records.is_empty());
    bundle
}

/// Why a bundle does not hold; empty: it does.
fn wrong(bundle: &Bundle, trust: &Trust) -> Vec<String> {
    let checks = crate::proof::check(bundle, trust);
    checks.into_iter().filter_map(|check| Some(format!("{}: {}", check.what, check.wrong?))).collect()
}

#[test]
fn a_bundle_of_a_batch_that_a_closer_sealed_holds_against_the_resolved_trust_file() {
    let writer = small();
    let (own, closer, stranger) = (signer(), seeded(60), seeded(61));
    let mut store = sealed_by(&writer, [&closer, &closer]);
    let batches = with_closer(&writer, &store, &closer, 20);
    put(&mut store, batches);
    let report = verify(&store, None).0;
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    let resolved = crate::trust::resolved(&report).unwrap();
    let by_closer = bundle(&store, &writer.origin, (1, 2), &closer);
    assert_eq!(wrong(&by_closer, &resolved), [""; 0]);
    let told = crate::proof::check(&by_closer, &resolved);
    let by = format!("by the closer {}", text(&closer));
    assert!(told.iter().any(|check| check.what.contains(&by)), "{told:?}");
    assert_eq!(wrong(&bundle(&store, &writer.origin, (0, 1), &own), &resolved), [""; 0]);
    // The closer is one where the trust file says so, and the log's own key has no word behind it.
    let mut without = resolved.clone();
    without.gateways.iter_mut().for_each(|gateway| gateway.closers.clear());
    assert!(!wrong(&by_closer, &without).is_empty());
    let mut other = resolved.clone();
    other.gateways.iter_mut().for_each(|gateway| gateway.closers = vec![text(&stranger)]);
    assert!(!wrong(&by_closer, &other).is_empty());
    let forged = bundle(&writer.store, &writer.origin, (1, 2), &own);
    let said = wrong(&forged, &resolved).join("\n");
    assert!(said.contains("does not count"), "{said}");
}

#[test]
fn without_a_registry_a_trust_file_names_the_closers() {
    let writer = small();
    let (own, closer) = (signer(), seeded(60));
    let mut trust = crate::fixture::trust();
    trust.gateways[0].closers = vec![text(&closer)];
    let judged = |trust: &Trust, signers: [&Ed25519Signer; 2]| {
        let store = sealed_by(&writer, signers);
        let mandate = Mandate::default();
        run(&store, &Options::new(trust, &mandate, NOW), &mut NoSink).0
    };
    let report = judged(&trust, [&own, &closer]);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.gateways[0].logs[0].closer, Some(text(&closer)));
    assert!(judged(&trust, [&closer, &own]).findings.has(Code::KeyNotValidForSize));
    assert!(judged(&crate::fixture::trust(), [&own, &closer]).findings.has(Code::UntrustedKey));
    // What is listed of the log bounds its own key, and where it was closed everybody.
    let size = writer.range.size();
    for (limit, end, verdict) in [
        (Some(4), None, Verdict::Invalid),
        (Some(size), Some(size), Verdict::Verified),
        (None, Some(size - 1), Verdict::Invalid),
    ] {
        let listed = TrustedLog { origin: writer.origin.clone(), size: limit, closed: end };
        let mut trust = trust.clone();
        trust.gateways[0].logs = Some(vec![listed]);
        for last in [&own, &closer] {
            // Batch 1 is the own key's in both, and beyond size 4.
            let report = judged(&trust, [&own, last]);
            assert_eq!(report.verdict, verdict, "{}", crate::render::text::report(&report));
        }
    }
}

#[test]
fn the_resolved_trust_file_keeps_the_limit_of_every_log_of_a_revoked_key() {
    let first = small();
    let origin = |writer: &Writer| writer.origin.clone();
    let before = Some(first.as_predecessor());
    let mut second =
        Writer::boot("20260921t133325z-00000002", START + 5 * SECOND, before, first.store.clone());
    second.exchange(3, b"q", b"a");
    second.seal();
    second.close();
    let mut store = second.store.clone();
    let head = |writer: &Writer, batch| EntryBody::LogHead(head_of(&second.store, &writer.origin, batch));
    let batches = vec![vec![
        opening(),
        add(),
        opened(&store, &first.origin),
        head(&first, 2),
        closed(&first.origin, first.range.size()),
        opened(&store, &second.origin),
        head(&second, 1),
        key(about(KeyAction::Revoke, text(&signer())), 20),
    ]];
    put(&mut store, batches);
    let report = verify(&store, None).0;
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    let resolved = crate::trust::resolved(&report).unwrap();
    assert_eq!(wrong(&bundle(&store, &origin(&first), (1, 2), &signer()), &resolved), [""; 0]);
    assert_eq!(wrong(&bundle(&store, &origin(&second), (0, 3), &signer()), &resolved), [""; 0]);
    // Who has the key goes on with each of the logs, and begins another between them.
    let mut thief = small();
    thief.exchange(4, b"made", b"up");
    thief.seal();
    let mut own = Writer::boot("20260921t133321z-00000009", START + SECOND, None, MemorySource::default());
    own.exchange(5, b"made", b"up");
    own.seal();
    second.exchange(6, b"made", b"up");
    second.seal();
    for (writer, at, why) in [
        (&thief, (3, 4), "does not count"),
        (&second, (2, 6), "does not count"),
        (&own, (0, 5), "does not cover"),
    ] {
        let said = wrong(&bundle(&writer.store, &writer.origin, at, &signer()), &resolved).join("\n");
        assert!(said.contains(why), "{why} not in {said}");
    }
    // The file is read again as it was written.
    let text = serde_json::to_string_pretty(&resolved).unwrap();
    assert_eq!(crate::trust::parse(&text), Ok(resolved));
}

/// A log with a hold and an erasure of what it does not cover, and the entries about them.
fn with_ledger() -> (Writer, Vec<EntryBody>) {
    with_phase("begin")
}

/// The same, with another phase of the hold.
fn with_phase(phase: &str) -> (Writer, Vec<EntryBody>) {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let (position, key) = writer.intent(5, b"q");
    writer.outcome(5, position, &key, b"a");
    let id = |text: &str| Identifier::new(text).unwrap();
    let hold = Hold {
        hold: id("case-17"),
        phase: id(phase),
        reason: None,
        actor: None,
        scope: Scope { exchange: Some(exchange_id(6)), ..Scope::default() },
    };
    let erasure = writer.erasure(5, position, &key);
    let at = writer.now;
    let held = writer.push(Body::Hold(hold.clone()));
    let erased = writer.push(Body::Erasure(erasure.clone()));
    writer.close();
    let entries = vec![
        EntryBody::LegalHold(LegalHold::of(&writer.origin, held, at, &hold)),
        EntryBody::ContentErased(ContentErased::of(&writer.origin, erased, at, &erasure)),
    ];
    (writer, entries)
}

/// A registry of that log with these entries, whose last head says how far it was read.
fn told(writer: &Writer, entries: Vec<EntryBody>, read: Option<u64>) -> MemorySource {
    let (store, origin) = (&writer.store, &writer.origin);
    let mut batch = vec![opening(), add(), opened(store, origin)];
    batch.extend(entries);
    batch.push(EntryBody::LogHead(LogHead { read, ..head_of(store, origin, 0) }));
    batch.push(closed(origin, writer.range.size()));
    stored(writer, vec![batch])
}

#[test]
fn holds_and_erasures_have_their_entries_where_the_registry_says_that_they_were_read() {
    let (writer, entries) = with_ledger();
    let (report, _) = verify(&told(&writer, entries.clone(), Some(1)), None);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    for left in [entries[..1].to_vec(), entries[1..].to_vec(), vec![]] {
        finds(&told(&writer, left.clone(), Some(1)), "LEDGER_MISSING", Verdict::Incomplete);
        // A registrar that does not say that it read them owes nothing.
        let (report, _) = verify(&told(&writer, left, None), None);
        assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    }
}

#[test]
fn a_hold_of_a_phase_that_is_not_known_has_no_entry_and_none_is_missing() {
    let (writer, entries) = with_phase("suspend");
    let (report, _) = verify(&told(&writer, entries[1..].to_vec(), Some(1)), None);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
}

#[test]
fn an_entry_without_its_record_or_told_twice_is_found_and_counts_for_nothing() {
    let (writer, entries) = with_ledger();
    let (EntryBody::LegalHold(hold), EntryBody::ContentErased(erased)) = (&entries[0], &entries[1]) else {
        panic!("{entries:?}");
    };
    let id = |text: &str| Identifier::new(text).unwrap();
    // Over everything, which would have held the erasure up; and one more that is told of another place.
    let over_all = Hold { scope: Scope::default(), ..hold.said.clone() };
    let wider = LegalHold { said: over_all.clone(), ..hold.clone() };
    let release = LegalHold { said: Hold { phase: id("end"), ..hold.said.clone() }, ..hold.clone() };
    let elsewhere = LegalHold { said: over_all, position: 1, ..hold.clone() };
    let backdated = LegalHold { recorded_at: hold.recorded_at - SECOND, ..hold.clone() };
    let key =
        ContentErased { content_key: id("acme/gw1/20260921t133320z-00000001/000000/0009"), ..erased.clone() };
    let table = [
        vec![EntryBody::LegalHold(wider), entries[1].clone()],
        vec![EntryBody::LegalHold(release), entries[1].clone()],
        vec![EntryBody::LegalHold(backdated), entries[1].clone()],
        vec![entries[0].clone(), entries[1].clone(), EntryBody::LegalHold(elsewhere)],
        vec![entries[0].clone(), EntryBody::ContentErased(key)],
        vec![entries[0].clone(), entries[1].clone(), entries[0].clone()],
    ];
    for entries in table {
        let store = told(&writer, entries.clone(), Some(1));
        finds(&store, "LEDGER_MISMATCH", Verdict::Invalid);
        let (report, _) = verify(&store, None);
        assert!(!report.findings.has(Code::ErasedUnderHold), "{entries:?}");
    }
}

#[test]
fn an_erasure_that_only_the_registry_tells_of_is_judged_by_its_time() {
    let id = |text: &str| Identifier::new(text).unwrap();
    // Whether a hold was there when it was recorded.
    for is_before in [true, false] {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        let (position, key) = writer.intent(5, b"q");
        writer.outcome(5, position, &key, b"a");
        let began = writer.now;
        writer.push(Body::Hold(Hold {
            hold: id("case-17"),
            phase: id("begin"),
            reason: None,
            actor: None,
            scope: Scope { exchange: Some(exchange_id(5)), ..Scope::default() },
        }));
        writer.close();
        // A log that the store does not show any more.
        let mut gone = Writer::boot(
            "20260921t133325z-00000002",
            START + 5 * SECOND,
            Some(writer.as_predecessor()),
            MemorySource::default(),
        );
        gone.close();
        let entry = ContentErased {
            origin: gone.origin.clone(),
            position: 2,
            recorded_at: if is_before { began + SECOND } else { began - SECOND },
            exchange: exchange_id(5),
            of_origin: writer.origin.clone(),
            of_position: position,
            content_key: key.to_identifier(),
            reason: id("gdpr-17"),
            actor: None,
        };
        let opened = opened(&gone.store, &gone.origin);
        let store = told(&writer, vec![opened, EntryBody::ContentErased(entry)], None);
        let folder = tempfile::tempdir().unwrap();
        let (name, mut page) = writer.key_table();
        let slot = usize::try_from(schemas::keytable::slot_offset(key.slot)).unwrap();
        page[slot..slot + 64].copy_from_slice(&schemas::keytable::DESTROYED);
        std::fs::create_dir_all(folder.path().join(&name).parent().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), page).unwrap();
        let keys = crate::verify::keys::Keys::open(&[folder.path()]).unwrap();
        let (trust, mandate) = (trust(), Mandate::default());
        for keys in [None, Some(&keys)] {
            let mut options = Options::new(&trust, &mandate, NOW);
            options.keys = keys;
            let (report, _) = run(&store, &options, &mut NoSink);
            assert_eq!(
                report.findings.has(Code::ErasedUnderHold),
                is_before,
                "{}",
                crate::render::text::report(&report)
            );
        }
    }
}
