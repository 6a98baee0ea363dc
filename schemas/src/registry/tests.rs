use super::*;
use crate::digest::Sha256Hex;
use crate::names::{Identifier, Origin};
use crate::note::{Ed25519Signer, Signer as _};
use crate::trust::{Trust, TrustedLog, key_text};

fn root() -> Ed25519Signer {
    Ed25519Signer::from_seed([1; 32])
}

fn origin(epoch: &str) -> Origin {
    Origin::join("acme", "gw1", epoch).unwrap()
}

fn statement(action: KeyAction, key: u8) -> KeyStatement {
    KeyStatement {
        deployment: "acme".into(),
        action,
        gateway: "gw1".into(),
        key: key_text(&[key; 32]),
        replaces: None,
        heartbeat_bound_s: None,
        closers: vec![],
        until: None,
    }
}

fn signed(statement: KeyStatement) -> EntryBody {
    let note = statement.sign(&root()).unwrap();
    let (action, entry) = KeyStatement::verify(&note, "acme", &root().public_key()).unwrap();
    EntryBody::of_key(action, entry)
}

fn add(key: u8) -> EntryBody {
    signed(statement(KeyAction::Add, key))
}

fn rotate(old: u8, new: u8) -> EntryBody {
    signed(KeyStatement { replaces: Some(key_text(&[old; 32])), ..statement(KeyAction::Rotate, new) })
}

fn revoke(key: u8, until: Option<(&str, u64)>) -> EntryBody {
    let until = until.map(|(epoch, size)| Until { origin: origin(epoch), size });
    signed(KeyStatement { until, ..statement(KeyAction::Revoke, key) })
}

fn opened(epoch: &str, key: u8) -> EntryBody {
    EntryBody::LogOpened(LogOpened {
        origin: origin(epoch),
        key: key_text(&[key; 32]),
        seal: Sha256Hex::of(epoch.as_bytes()),
        heartbeat_bound_ms: 300_000,
        batch_age_ms: 10_000,
        log_config: Sha256Hex([9; 32]),
        predecessor: None,
    })
}

fn head(epoch: &str, batch: u64, size: u64) -> EntryBody {
    let (root, seal) = (Sha256Hex([3; 32]), Sha256Hex([4; 32]));
    EntryBody::LogHead(LogHead { origin: origin(epoch), batch, size, root, seal, ahead: None, read: None })
}

fn closed(epoch: &str, size: u64) -> EntryBody {
    let reason = Identifier::new("shutdown").unwrap();
    EntryBody::LogClosed(LogClosed { origin: origin(epoch), size, reason })
}

fn opening() -> EntryBody {
    EntryBody::Registry(Opening {
        gateway_version: Identifier::new("0.1.0").unwrap(),
        seal_key: key_text(&[5; 32]),
        checkpoint_key: key_text(&[6; 32]),
        root_key: key_text(&root().public_key()),
        heartbeat_bound_ms: 300_000,
    })
}

/// The state after `opening` and these entries, with the kinds of all faults.
fn told(bodies: Vec<EntryBody>) -> (State, Vec<FaultKind>) {
    let mut state = State::new("acme", root().public_key(), [5; 32]);
    let mut faults = Vec::new();
    for (position, body) in std::iter::once(opening()).chain(bodies).enumerate() {
        let entry = Entry { v: 1, at: position as i64, config: Sha256Hex([7; 32]), body };
        let leaf = encode(&entry).unwrap();
        let entry = decode(&leaf).unwrap().unwrap();
        faults.extend(state.apply(position as u64, &entry).into_iter().map(|fault| fault.kind));
    }
    (state, faults)
}

#[test]
fn a_rotation_without_a_gap_has_two_keys_that_each_count_for_their_logs() {
    let (state, faults) = told(vec![
        add(10),
        opened("a", 10),
        head("a", 0, 5),
        rotate(10, 11),
        opened("b", 11),
        head("a", 1, 9),
        closed("a", 9),
        head("b", 0, 4),
    ]);
    assert_eq!(faults, []);
    let gateways = state.gateways();
    let shown: Vec<_> =
        gateways.iter().map(|g| (g.key.clone(), g.first_origin.clone().unwrap(), g.logs.clone())).collect();
    assert_eq!(
        shown,
        [
            (key_text(&[10; 32]), origin("a"), Some(vec![listed("a", None, Some(9))])),
            (key_text(&[11; 32]), origin("b"), None)
        ]
    );
    assert_eq!(state.keys_in_force("gw1").collect::<Vec<_>>(), [key_text(&[11; 32])]);
}

fn listed(epoch: &str, size: Option<u64>, closed: Option<u64>) -> TrustedLog {
    TrustedLog { origin: origin(epoch), size, closed }
}

/// The gateways as a trust file, which must be in form.
fn trusted(state: &State) -> Trust {
    let trust = Trust { v: 1, deployment: "acme".into(), gateways: state.gateways(), ..Trust::default() };
    assert_eq!(trust.check(), []);
    trust
}

#[test]
fn every_log_of_a_revoked_key_keeps_its_own_limit_and_no_other_log_counts() {
    let logs =
        || vec![add(10), opened("a", 10), head("a", 0, 5), opened("b", 10), head("b", 0, 7), closed("b", 7)];
    let with = |more: Vec<EntryBody>| told(logs().into_iter().chain(more).collect());
    let (state, faults) = with(vec![opened("d", 10), head("d", 0, 3), revoke(10, None), add(11)]);
    assert_eq!(faults, []);
    let trust = trusted(&state);
    let limits = vec![listed("a", Some(5), None), listed("b", Some(7), Some(7)), listed("d", Some(3), None)];
    assert_eq!(trust.gateways[0].logs, Some(limits));
    let counts = |epoch: &str, size| {
        let entry = trust.gateway(&origin(epoch)).unwrap();
        entry.key == key_text(&[10; 32]) && entry.counts_for(&origin(epoch), size)
    };
    for (epoch, limit) in [("a", 5), ("b", 7), ("d", 3)] {
        assert!(counts(epoch, limit) && !counts(epoch, limit + 1), "{epoch}");
    }
    // Between registered logs of the key, and before them.
    assert!(!counts("c", 1) && !counts("0", 1));
    let (state, _) = with(vec![opened("d", 10), head("d", 0, 3), revoke(10, Some(("b", 6)))]);
    let limits = vec![listed("a", None, None), listed("b", Some(6), Some(7)), listed("d", Some(0), None)];
    assert_eq!(trusted(&state).gateways[0].logs, Some(limits));
}

#[test]
fn whatever_keys_a_gateway_has_its_entries_are_a_trust_file() {
    let with_closers = |key| {
        let closers = vec![key_text(&[77; 32])];
        signed(KeyStatement { closers, ..statement(KeyAction::Add, key) })
    };
    // Rotated, and nothing is opened under the new key yet.
    let (state, faults) = told(vec![with_closers(10), opened("a", 10), head("a", 0, 5), rotate(10, 11)]);
    assert_eq!(faults, []);
    let trust = trusted(&state);
    let key = |epoch: &str| trust.gateway(&origin(epoch)).unwrap().key.clone();
    assert_eq!((key("a"), key("b")), (key_text(&[10; 32]), key_text(&[11; 32])));
    assert_eq!(trust.gateway(&origin("a")).unwrap().closers, [key_text(&[77; 32])]);
    assert_eq!(trust.gateway(&origin("b")).unwrap().closers, [""; 0]);
    // Two keys in force at once.
    let (state, faults) =
        told(vec![add(10), add(11), opened("a", 10), opened("b", 11), opened("c", 10), head("b", 0, 5)]);
    assert_eq!(faults, []);
    let trust = trusted(&state);
    let key = |epoch: &str| trust.gateway(&origin(epoch)).unwrap().key.clone();
    assert_eq!([key("a"), key("b"), key("c")], [10, 11, 10].map(|key| key_text(&[key; 32])));
    // A log that names a key of another gateway is no log of that key.
    let other = Origin::join("acme", "gw2", "a").unwrap();
    let EntryBody::LogOpened(foreign) = opened("a", 10) else { return };
    let (state, faults) = told(vec![add(10), EntryBody::LogOpened(LogOpened { origin: other, ..foreign })]);
    assert_eq!(faults, [FaultKind::KeyNotValid]);
    assert_eq!(trusted(&state).gateways[0].first_origin, None);
}

#[test]
fn a_key_counts_by_the_registry_s_order() {
    use FaultKind::*;
    let rows: Vec<(&str, Vec<EntryBody>, Vec<FaultKind>)> = vec![
        ("a log before its key", vec![opened("a", 10)], vec![KeyNotValid]),
        (
            "a log under a key that was rotated away",
            vec![add(10), rotate(10, 11), opened("a", 10)],
            vec![KeyNotValid],
        ),
        ("a log under a revoked key", vec![add(10), revoke(10, None), opened("a", 10)], vec![KeyNotValid]),
        (
            "an old entry again, after the key was revoked",
            vec![add(10), revoke(10, None), add(10)],
            vec![KeyInvalid],
        ),
        ("a rotation of a key that is not there", vec![rotate(10, 11)], vec![RotationInvalid]),
        (
            "a second rotation of one key",
            vec![add(10), rotate(10, 11), rotate(10, 12)],
            vec![RotationInvalid],
        ),
        ("a rotation to a known key", vec![add(10), add(11), rotate(10, 11)], vec![RotationInvalid]),
        ("a revocation of a key that is not there", vec![revoke(10, None)], vec![KeyInvalid]),
        ("a revocation twice", vec![add(10), revoke(10, None), revoke(10, None)], vec![KeyInvalid]),
        (
            "growth beyond the last head before a revocation",
            vec![add(10), opened("a", 10), head("a", 0, 5), revoke(10, None), head("a", 1, 6)],
            vec![KeyNotValid],
        ),
        (
            "growth up to the size of a revocation",
            vec![add(10), opened("a", 10), head("a", 0, 5), revoke(10, Some(("a", 6))), head("a", 1, 6)],
            vec![],
        ),
        ("one log opened twice", vec![add(10), opened("a", 10), opened("a", 10)], vec![EpochReuse]),
        (
            "a smaller head",
            vec![add(10), opened("a", 10), head("a", 1, 5), head("a", 2, 4)],
            vec![EpochReuse],
        ),
        (
            "a head behind the end",
            vec![add(10), opened("a", 10), head("a", 0, 5), closed("a", 5), head("a", 1, 6)],
            vec![ClosedButActive],
        ),
        (
            "an end that is not at the last head",
            vec![add(10), opened("a", 10), head("a", 0, 5), closed("a", 4)],
            vec![ClosedButActive],
        ),
        ("a head of no log", vec![head("a", 0, 5)], vec![LogUnknown]),
        ("a second opening", vec![opening()], vec![OpeningInvalid]),
    ];
    for (name, bodies, wanted) in rows {
        assert_eq!(told(bodies).1, wanted, "{name}");
    }
}

#[test]
fn only_the_root_key_adds_rotates_and_revokes() {
    let thief = Ed25519Signer::from_seed([2; 32]);
    for (action, kind) in [
        (KeyAction::Add, FaultKind::KeyInvalid),
        (KeyAction::Rotate, FaultKind::RotationInvalid),
        (KeyAction::Revoke, FaultKind::KeyInvalid),
    ] {
        let key = if action == KeyAction::Revoke { 10 } else { 12 };
        let replaces = (action == KeyAction::Rotate).then(|| key_text(&[10; 32]));
        let forged = KeyStatement { replaces, ..statement(action, key) };
        let note = forged.sign(&thief).unwrap();
        let (action, entry) = KeyStatement::verify(&note, "acme", &thief.public_key()).unwrap();
        let (state, faults) = told(vec![add(10), EntryBody::of_key(action, entry)]);
        assert_eq!(faults, [kind], "{action}");
        assert_eq!(state.keys_in_force("gw1").collect::<Vec<_>>(), [key_text(&[10; 32])], "{action}");
    }
}

#[test]
fn a_gateway_whose_keys_are_revoked_and_logs_closed_is_out_of_service() {
    let end = vec![add(10), opened("a", 10), head("a", 0, 5), closed("a", 5), revoke(10, None)];
    let (state, faults) = told(end);
    assert_eq!(faults, []);
    assert_eq!(state.gateways()[0].closed, Some(true));
    let (state, _) = told(vec![add(10), opened("a", 10), head("a", 0, 5), closed("a", 5)]);
    assert_eq!(state.gateways()[0].closed, None);
}

#[test]
fn another_opening_than_the_trusted_keys_is_a_fault() {
    let mut state = State::new("acme", root().public_key(), [8; 32]);
    let entry = Entry { v: 1, at: 0, config: Sha256Hex([7; 32]), body: opening() };
    assert_eq!(state.apply(0, &entry)[0].kind, FaultKind::OpeningInvalid);
}
