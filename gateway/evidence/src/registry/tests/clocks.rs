//! A registrar whose clock is set.

use super::*;

/// The times of all entries and, behind each batch's, of its seal; each seal continues the one before.
fn times(place: &Place) -> Vec<i64> {
    let key = Ed25519Signer::from_seed([2; 32]).public_key();
    let origin = Origin::registry("acme").unwrap();
    let (mut times, mut tail) = (Vec::new(), None);
    for batch in 0.. {
        let note = read::seal_note(&*place.store, &origin, batch).unwrap();
        let Some(note) = note else { break };
        let verified = read::batch(&*place.store, &origin, &key, &note).unwrap().unwrap();
        assert!(schemas::verify::chain_seal(tail.as_ref(), verified.seal()).is_empty());
        times.extend(verified.rows().iter().map(|row| decode(row.leaf()).unwrap().unwrap().at));
        times.push(verified.seal().time);
        tail = Some(verified.tail());
    }
    times
}

#[test]
fn a_clock_that_is_set_back_neither_stops_the_registry_nor_takes_its_times_back() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    place.clock.jump(-3600 * SECOND);
    Log::new(&place, "20261120t101500z-00000001", 10).boot();
    assert_eq!(settle(&mut registrar), 2, "entries go on");
    place.clock.advance(230 * SECOND);
    assert_eq!(settle(&mut registrar), 1, "silence is signed");
    // Also by one that is started while the clock is behind.
    let mut second = place.registrar("b");
    assert_eq!(second.round().unwrap(), Round::Idle);
    place.add(11);
    assert_eq!(settle(&mut second), 1);
    // One that stands by waits for its time, not for the clock's.
    place.clock.jump(-3600 * SECOND);
    registrar.standing_by = true;
    assert_eq!(registrar.round().unwrap(), Round::Idle);
    place.add(12);
    assert_eq!(registrar.round().unwrap(), Round::StandingBy);
    place.clock.jump(-3600 * SECOND);
    place.clock.advance(16 * SECOND);
    assert_eq!(registrar.round().unwrap(), Round::Stored(1));
    place.clock.jump(4 * 3600 * SECOND);
    place.add(13);
    assert_eq!(settle(&mut registrar), 1);
    let times = times(&place);
    assert!(times.is_sorted(), "{times:?}");
    assert!(times[times.len() - 1] > times[0] + 3000 * SECOND, "the clock has caught up");
}

#[test]
fn a_clock_that_jumps_makes_no_log_lost() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    settle(&mut registrar);
    let lost = |place: &Place| place.kinds().iter().filter(|kind| *kind == "log_lost").count();
    for jump in [24 * 3600, -48 * 3600, 24 * 3600] {
        place.clock.jump(jump * SECOND);
        place.clock.advance(60 * SECOND);
        settle(&mut registrar);
        assert_eq!(lost(&place), 0, "after a jump of {jump} s");
    }
    // A registrar that was just started has not waited for anybody either.
    place.clock.jump(24 * 3600 * SECOND);
    settle(&mut place.registrar("b"));
    assert_eq!(lost(&place), 0);
    // Time that went by does, wherever the clock stands.
    place.clock.jump(-24 * 3600 * SECOND);
    place.clock.advance(320 * SECOND);
    settle(&mut registrar);
    assert_eq!(lost(&place), 1);
    log.beat();
    settle(&mut registrar);
    assert_eq!(registrar.state().logs()[&log.origin].lost, None);
}
