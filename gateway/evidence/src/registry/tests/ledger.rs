//! Holds and erasures of the logs, in one place.

use schemas::ExchangeId;
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
        exchange: Some(exchange()),
        subject: None,
        consumer: None,
        from: None,
        to: None,
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

fn read(registrar: &Registrar, log: &Log<'_>) -> Option<u64> {
    registrar.state().logs()[&log.origin].last().unwrap().1.read
}

#[test]
fn each_hold_and_erasure_has_one_entry_before_the_head_that_says_it_was_read() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
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
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    settle(&mut registrar);
    log.seal(hold("begin"));
    let due = |registrar: &mut Registrar| {
        let entries = registrar.derive().unwrap();
        entries.iter().map(|entry| entry.body.kind()).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut registrar), ["legal_hold", "log_head"]);
    assert_eq!(due(&mut registrar), ["legal_hold", "log_head"]);
    settle(&mut registrar);
    assert_eq!(due(&mut registrar), [""; 0]);
}

#[test]
fn a_batch_that_cannot_be_read_holds_up_neither_heads_nor_entries_and_is_never_called_read() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    log.beat();
    std::fs::remove_file(place.store.root().join(log.origin.as_str()).join(&log.file)).unwrap();
    log.seal(hold("begin"));
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "legal_hold", "log_head"]);
    assert_eq!(read(&registrar, &log), Some(1));
    let mut again = place.registrar("b");
    log.beat();
    settle(&mut again);
    assert_eq!(place.kinds().last().map(String::as_str), Some("log_head"));
    assert_eq!(place.kinds().iter().filter(|kind| *kind == "legal_hold").count(), 1);
    assert_eq!(read(&again, &log), Some(1));
}
