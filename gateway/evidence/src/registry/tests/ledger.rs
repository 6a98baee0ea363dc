//! Holds and erasures of the logs, in one place.

use schemas::ExchangeId;
use schemas::holds::Scope;
use schemas::record::{Erasure, Hold};

use super::*;

fn id(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

fn exchange() -> ExchangeId {
    ExchangeId::new("00000000-0000-7000-8000-000000000001").unwrap()
}

fn hold(phase: &str) -> Body {
    Body::Hold(Hold {
        hold: id("case-17"),
        phase: id(phase),
        reason: Some(id("litigation")),
        actor: None,
        scope: Scope { exchange: Some(exchange()), ..Scope::default() },
    })
}

fn erasure(log: &Log<'_>) -> Body {
    Body::Erasure(Erasure {
        exchange: exchange(),
        origin: log.origin.clone(),
        position: 1,
        content_key: id("acme/gw1/20261120t101500z-00000001/000000/0001"),
        reason: id("gdpr-17"),
        actor: None,
    })
}

/// A registrar, and a gateway's log that began.
fn begun(place: &Place) -> (Registrar, Log<'_>) {
    place.add(10);
    let registrar = place.registrar("a");
    let mut log = Log::new(place, "20261120t101500z-00000001", 10);
    log.boot();
    (registrar, log)
}

/// How many entries of a kind the registry holds.
fn count(place: &Place, of: &str) -> usize {
    place.kinds().iter().filter(|kind| *kind == of).count()
}

/// What a round would add.
fn due(registrar: &mut Registrar) -> Vec<&'static str> {
    let entries = registrar.derive().unwrap();
    entries.iter().map(|entry| entry.body.kind()).collect()
}

/// Takes the records of the log's newest batch out of the store: where they were, and what they are.
fn take_away(place: &Place, log: &Log<'_>) -> (std::path::PathBuf, Vec<u8>) {
    let path = place.store.root().join(log.origin.as_str()).join(&log.file);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    (path, bytes)
}

fn read(registrar: &Registrar, log: &Log<'_>) -> Option<u64> {
    registrar.state().logs()[&log.origin].last().unwrap().1.read
}

#[test]
fn each_hold_and_erasure_has_one_entry_before_the_head_that_says_it_was_read() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    log.seal(hold("begin"));
    log.beat();
    let erased = erasure(&log);
    log.seal(erased);
    settle(&mut registrar);
    let mut wanted = vec!["registry", "key_added", "log_opened", "legal_hold", "content_erased", "log_head"];
    assert_eq!(place.kinds(), wanted);
    assert_eq!(read(&registrar, &log), Some(4));
    let ledger = registrar.state().ledger();
    assert!(ledger.holds.contains_key(&(log.origin.clone(), 1)) && ledger.has(&log.origin, 3));
    // A restart goes on behind what was read.
    let mut again = place.registrar("b");
    assert_eq!(again.round().unwrap(), Round::Idle);
    log.seal(hold("end"));
    log.close();
    settle(&mut again);
    wanted.extend(["legal_hold", "log_head", "log_closed"]);
    assert_eq!(place.kinds(), wanted);
    assert_eq!(settle(&mut registrar), 0, "the other one has nothing to add");
}

#[test]
fn what_a_refused_round_did_not_store_is_due_again() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    settle(&mut registrar);
    log.seal(hold("begin"));
    assert_eq!(due(&mut registrar), ["legal_hold", "log_head"]);
    assert_eq!(due(&mut registrar), ["legal_hold", "log_head"]);
    settle(&mut registrar);
    assert_eq!(due(&mut registrar), [""; 0]);
}

#[test]
fn a_batch_that_cannot_be_read_holds_up_neither_heads_nor_entries_and_is_never_called_read() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    log.beat();
    take_away(&place, &log);
    log.seal(hold("begin"));
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "legal_hold", "log_head"]);
    assert_eq!(read(&registrar, &log), Some(1));
    let mut again = place.registrar("b");
    log.beat();
    settle(&mut again);
    assert_eq!(place.kinds().last().map(String::as_str), Some("log_head"));
    assert_eq!(count(&place, "legal_hold"), 1);
    assert_eq!(read(&again, &log), Some(1));
}

#[test]
fn a_hold_in_a_batch_that_comes_later_has_its_entry_before_the_end_of_the_log() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    log.seal(hold("begin"));
    let (path, bytes) = take_away(&place, &log);
    log.beat();
    log.close();
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "log_head"]);
    assert_eq!(read(&registrar, &log), Some(1));
    // However long it takes; and nobody calls a log silent that has ended.
    for _ in 0..6 {
        place.clock.advance(70 * SECOND);
        settle(&mut registrar);
    }
    let said = |place: &Place| {
        let mut kinds = place.kinds();
        kinds.retain(|kind| kind != "heartbeat");
        kinds
    };
    assert_eq!(said(&place).len(), 4, "{:?}", said(&place));
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(settle(&mut registrar), 0, "it was tried a moment ago");
    place.clock.advance(70 * SECOND);
    settle(&mut registrar);
    assert_eq!(said(&place)[4..], ["legal_hold", "log_closed"]);
}

#[test]
fn many_batches_that_are_not_there_are_all_read_once_they_are() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    let mut away = Vec::new();
    for _ in 0..300 {
        log.seal(hold("begin"));
        away.push(take_away(&place, &log));
    }
    log.close();
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "log_head"]);
    away.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    for _ in 0..2 {
        place.clock.advance(70 * SECOND);
        settle(&mut registrar);
    }
    assert_eq!(count(&place, "legal_hold"), 300);
    assert_eq!(place.kinds().last().map(String::as_str), Some("log_closed"));
}

#[test]
fn a_hold_of_a_phase_that_is_not_known_stops_no_round() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    log.seal(hold("suspend"));
    log.seal(hold("end"));
    log.close();
    settle(&mut registrar);
    let wanted = ["registry", "key_added", "log_opened", "legal_hold", "log_head", "log_closed"];
    assert_eq!(place.kinds(), wanted);
    assert_eq!(read(&registrar, &log), Some(4));
}

#[test]
fn an_entry_that_has_no_leaf_is_left_out_alone_and_its_batch_is_not_called_read() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    log.beat();
    settle(&mut registrar);
    let Body::Hold(record) = hold("suspend") else { return };
    let bad = EntryBody::LegalHold(schemas::registry::LegalHold::of(&log.origin, 1, 5, &record));
    registrar.reading.get_mut(&log.origin).unwrap().make_due(1, 1, bad);
    log.seal(hold("begin"));
    settle(&mut registrar);
    // What was due before is tried first; the batch behind it is read by the next head.
    log.close();
    settle(&mut registrar);
    assert_eq!(count(&place, "legal_hold"), 1, "{:?}", place.kinds());
    assert_eq!(place.kinds().last().map(String::as_str), Some("log_closed"));
    assert_eq!(read(&registrar, &log), Some(1));
    assert!(registrar.warned.iter().any(|thing| thing.contains("`begin` or `end`")));
}

#[test]
fn what_a_round_with_new_keys_did_not_store_is_due_again() {
    let place = Place::new();
    let (mut registrar, mut log) = begun(&place);
    settle(&mut registrar);
    log.seal(hold("begin"));
    place.add(11);
    assert_eq!(due(&mut registrar), ["legal_hold", "log_head", "key_added"]);
    assert_eq!(due(&mut registrar), ["legal_hold", "log_head", "key_added"]);
    settle(&mut registrar);
    assert_eq!(due(&mut registrar), [""; 0]);
    assert!(registrar.state().ledger().has(&log.origin, 1));
}

#[test]
fn a_long_ledger_is_told_in_rounds_of_bounds_and_keeps_neither_heads_nor_keys_nor_other_logs_waiting() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    registrar.bounds.ledger.0 = 4;
    registrar.bounds.entries.0 = 9;
    let mut long = Log::new(&place, "20261120t101500z-00000001", 10);
    let mut other = Log::new(&place, "20261120t101500z-00000002", 10);
    long.boot();
    other.boot();
    settle(&mut registrar);
    for _ in 0..20 {
        let erased = erasure(&long);
        long.seal(erased);
    }
    other.seal(hold("begin"));
    place.statement("revoke", &about(KeyAction::Revoke, 10), &root());
    let before = place.kinds().len();
    assert_eq!(registrar.round().unwrap(), Round::Stored(7));
    let kinds = place.kinds();
    let first = ["content_erased", "content_erased", "log_head", "legal_hold", "log_head", "key_revoked"];
    assert_eq!(kinds[before..before + 6], first);
    assert_eq!(kinds[before + 6], "content_erased", "what room is left after the keys is used");
    assert_eq!(registrar.state().logs()[&long.origin].last().unwrap().1.size, 21);
    assert_eq!(read(&registrar, &long), Some(3), "what is not told yet was not read");
    let mut rounds = 1;
    while let Round::Stored(count) = registrar.round().unwrap() {
        assert!(count <= 4, "{count}");
        rounds += 1;
    }
    assert!(rounds >= 6, "{rounds}");
    assert_eq!(registrar.state().ledger().erased[&long.origin].len(), 20);
}

#[test]
fn a_round_reads_a_share_of_each_log_and_registers_all_heads() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    registrar.bounds.reads = 6;
    let mut logs: Vec<Log<'_>> =
        (1..=3).map(|n| Log::new(&place, &format!("20261120t101500z-0000000{n}"), 10)).collect();
    for log in &mut logs {
        log.boot();
        (0..5).for_each(|_| log.beat());
        log.seal(hold("begin"));
        log.close();
    }
    assert!(matches!(registrar.round().unwrap(), Round::Stored(_)));
    for log in &logs {
        assert_eq!(registrar.state().logs()[&log.origin].last().unwrap().1.size, 8);
        assert_eq!(read(&registrar, log), Some(2));
    }
    for _ in 0..4 {
        registrar.round().unwrap();
    }
    assert_eq!(["legal_hold", "log_closed"].map(|of| count(&place, of)), [3, 3], "{:?}", place.kinds());
    // Time is a bound too: one batch of each is read however little there is of it.
    let mut late = place.registrar("b");
    late.bounds.reading_us = 0;
    let mut log = Log::new(&place, "20261120t101500z-00000009", 10);
    log.boot();
    (0..5).for_each(|_| log.beat());
    late.round().unwrap();
    assert_eq!(read(&late, &log), Some(1));
}

#[test]
fn entries_that_find_no_room_in_a_batch_are_in_the_next_and_keys_wait_for_the_logs() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    registrar.bounds.entries.0 = 3;
    let mut logs: Vec<Log<'_>> =
        (1..=4).map(|n| Log::new(&place, &format!("20261120t101500z-0000000{n}"), 10)).collect();
    for log in &mut logs {
        log.boot();
        log.close();
    }
    place.statement("revoke", &about(KeyAction::Revoke, 10), &root());
    while let Round::Stored(count) = registrar.round().unwrap() {
        assert!(count <= 3, "{count}");
    }
    let kinds = place.kinds();
    let told = ["log_opened", "log_head", "log_closed", "key_revoked"].map(|of| count(&place, of));
    assert_eq!(told, [4, 4, 4, 1]);
    let last = kinds.iter().rposition(|kind| kind == "log_opened").unwrap();
    assert!(kinds.iter().position(|kind| kind == "key_revoked").unwrap() > last, "{kinds:?}");
}
