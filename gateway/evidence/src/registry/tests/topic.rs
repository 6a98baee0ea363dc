//! A registrar that reads the topic too: what is on its way counts by its seal, and nothing else that is sent there does.

use schemas::ship::{CHUNK_BYTES, Chunk, pieces};

use super::*;

/// Where a gateway's batches are before anybody archived them.
struct Way {
    away: Place,
    topic: std::cell::RefCell<Arc<TopicBatches>>,
    sent: std::cell::RefCell<BTreeSet<ObjectName>>,
}

impl Way {
    fn of(place: &Place) -> Self {
        Self::within(place, (1 << 20, 1 << 20))
    }

    fn within(place: &Place, bounds: (usize, usize)) -> Self {
        let away = Place { clock: place.clock.clone(), ..Place::new() };
        Self { away, topic: TopicBatches::within("acme", bounds).into(), sent: Default::default() }
    }

    fn topic(&self) -> Arc<TopicBatches> {
        self.topic.borrow().clone()
    }

    fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        std::fs::read(self.away.store.root().join(name.to_string())).unwrap()
    }

    /// Sends an object's pieces.
    fn give(&self, name: &ObjectName, bytes: &[u8]) {
        let (length, sha256) = (bytes.len() as u64, Sha256Hex::of(bytes));
        for (offset, count) in pieces(length) {
            let bytes = &bytes[offset as usize..(offset + count) as usize];
            let chunk = Chunk { name: name.clone(), length, sha256, offset, bytes }.encode().unwrap();
            self.topic().message(Some(name.origin().as_str().as_bytes()), &chunk);
        }
    }

    /// Sends what a log has more, data files before seals.
    fn send(&self, log: &Log<'_>) {
        let mut names = self.away.store.list(&log.origin).unwrap();
        names.retain(|name| self.sent.borrow_mut().insert(name.clone()));
        names.sort_by_key(|name| (name.batch(), matches!(name, ObjectName::Seal { .. })));
        names.iter().for_each(|name| self.give(name, &self.bytes(name)));
    }

    /// What the topic was read again for.
    fn again(&self) {
        let names: Vec<ObjectName> = self.sent.borrow().iter().cloned().collect();
        names.iter().for_each(|name| self.give(name, &self.bytes(name)));
    }

    /// An archiver comes to a batch.
    fn archive(&self, place: &Place, log: &Log<'_>, batch: u64) {
        for name in self.away.store.list(&log.origin).unwrap().into_iter().filter(|n| n.batch() == batch) {
            let bytes = self.bytes(&name);
            let path = self.away.store.root().join(name.to_string());
            let sha256 = Sha256Hex::of(&bytes);
            let source = Source { path: &path, sha256: &sha256, length: bytes.len() as u64, sealed_us: 0 };
            place.store.put(&name, source).unwrap();
        }
    }
}

/// A registrar that has one key enrolled and was told so.
fn begun(place: &Place, way: &Way) -> Registrar {
    place.add(10);
    let mut registrar = place.registrar_with(place.store.clone(), "a", Some(way.topic()));
    settle(&mut registrar);
    assert_eq!(registrar.round().unwrap(), Round::Idle);
    registrar
}

fn settled_kinds(place: &Place, registrar: &mut Registrar) -> Vec<String> {
    settle(registrar);
    place.kinds()
}

/// Whether each head was ahead of the store.
fn ahead(registrar: &Registrar, log: &Log<'_>) -> bool {
    registrar.state().logs()[&log.origin].last().unwrap().1.is_ahead
}

#[test]
fn a_log_that_nobody_archives_is_opened_followed_lost_and_closed() {
    let place = Place::new();
    let way = Way::of(&place);
    let mut registrar = begun(&place, &way);
    let mut log = Log::new(&way.away, "20261120t101500z-00000001", 10);
    log.boot();
    way.send(&log);
    settle(&mut registrar);
    log.beat();
    log.beat();
    way.send(&log);
    settle(&mut registrar);
    assert!(ahead(&registrar, &log));
    place.clock.advance(320 * SECOND);
    way.topic().end_is_met();
    settle(&mut registrar);
    assert!(registrar.state().logs()[&log.origin].lost.is_some());
    log.close();
    way.send(&log);
    settle(&mut registrar);
    let mut heads = vec!["log_opened", "log_head", "log_head", "log_lost", "log_head"];
    assert_eq!(place.kinds(), [&["registry", "key_added"][..], &heads].concat());
    assert!(place.store.logs("acme", "gw1").unwrap().is_empty(), "nothing of it is in the store");
    // Its end waits for the one batch whose records were never seen, and is not called silence.
    place.clock.advance(320 * SECOND);
    assert!(!settled_kinds(&place, &mut registrar)[heads.len() + 2..].contains(&"log_lost".to_owned()));
    way.archive(&place, &log, 1);
    place.clock.advance(61 * SECOND);
    settle(&mut registrar);
    heads.push("log_closed");
    let kinds = place.kinds();
    let said: Vec<&str> = kinds.iter().map(String::as_str).filter(|kind| *kind != "heartbeat").collect();
    assert_eq!(said, [&["registry", "key_added"][..], &heads].concat());
    // What is closed takes no memory, and another registrar says nothing twice.
    assert_eq!(registrar.round().unwrap(), Round::Idle);
    assert_eq!(way.topic().held().0, 0);
    let mut again = place.registrar_with(place.store.clone(), "b", Some(way.topic()));
    assert_eq!(again.round().unwrap(), Round::Idle);
}

#[test]
fn one_that_is_started_anew_goes_on_where_the_registry_is_ahead_of_the_store() {
    let place = Place::new();
    let way = Way::of(&place);
    let mut registrar = begun(&place, &way);
    let mut log = Log::new(&way.away, "20261120t101500z-00000001", 10);
    log.boot();
    log.beat();
    way.send(&log);
    settle(&mut registrar);
    drop(registrar);
    way.topic.replace(TopicBatches::within("acme", (1 << 20, 1 << 20)));
    let mut registrar = place.registrar_with(place.store.clone(), "b", Some(way.topic()));
    assert_eq!(registrar.round().unwrap(), Round::Idle);
    way.again();
    log.beat();
    way.send(&log);
    settle(&mut registrar);
    assert_eq!(registrar.state().logs()[&log.origin].last().unwrap().0, 2);
    // Once an archiver has come as far, the store's word counts.
    (0..3).for_each(|batch| way.archive(&place, &log, batch));
    log.beat();
    way.send(&log);
    way.archive(&place, &log, 3);
    settle(&mut registrar);
    assert!(!ahead(&registrar, &log));
    // A head that the store has is no reason to keep what came before.
    registrar.round().unwrap();
    let (kept, _) = way.topic().held();
    log.beat();
    way.send(&log);
    settle(&mut registrar);
    registrar.round().unwrap();
    assert!(way.topic().held().0 <= kept + 4096, "only what is ahead is kept: {:?}", way.topic().held());
}

#[test]
fn no_log_is_lost_while_a_long_topic_is_read_at_a_start() {
    let place = Place::new();
    let way = Way::of(&place);
    let mut registrar = begun(&place, &way);
    let mut log = Log::new(&way.away, "20261120t101500z-00000001", 10);
    log.boot();
    log.beat();
    way.send(&log);
    (0..2).for_each(|batch| way.archive(&place, &log, batch));
    settle(&mut registrar);
    drop(registrar);
    // The archivers are away; one that is started anew sees in the store how far they came, and what the log has beyond
    // that lies behind everything else in the topic.
    way.topic.replace(TopicBatches::within("acme", (1 << 20, 1 << 20)));
    let mut registrar = place.registrar_with(place.store.clone(), "b", Some(way.topic()));
    settle(&mut registrar);
    assert!(way.topic().is_read_anew());
    place.clock.advance(320 * SECOND);
    settle(&mut registrar);
    assert!(registrar.state().logs()[&log.origin].lost.is_none());
    way.again();
    log.beat();
    way.send(&log);
    way.topic().end_is_met();
    settle(&mut registrar);
    assert!(registrar.state().logs()[&log.origin].lost.is_none() && ahead(&registrar, &log));
    // From then on silence is silence.
    place.clock.advance(320 * SECOND);
    settle(&mut registrar);
    assert!(registrar.state().logs()[&log.origin].lost.is_some());
}

#[test]
fn what_others_send_is_not_registered_and_takes_no_memory() {
    let place = Place::new();
    let way = Way::of(&place);
    let mut registrar = begun(&place, &way);
    // Seals by a key of nobody, whole logs of it, and everything that is no chunk.
    let mut forged = Log::new(&way.away, "20261120t101500z-00000009", 66);
    forged.boot();
    forged.beat();
    way.send(&forged);
    way.topic().message(None, b"");
    way.topic().message(Some(b"acme/gw1/x"), &[0; 1000]);
    let mut log = Log::new(&way.away, "20261120t101500z-00000001", 10);
    log.boot();
    let files = way.away.store.list(&log.origin).unwrap();
    let records = files.iter().find(|name| !matches!(name, ObjectName::Seal { .. })).unwrap();
    let seal = files.iter().find(|name| matches!(name, ObjectName::Seal { .. })).unwrap();
    // The true seal under another key or of another log's messages is none.
    let bytes = way.bytes(seal);
    let (length, sha256) = (bytes.len() as u64, Sha256Hex::of(&bytes));
    let chunk = Chunk { name: seal.clone(), length, sha256, offset: 0, bytes: &bytes }.encode().unwrap();
    way.topic().message(Some(b"acme/gw1/20261120t101500z-00000009"), &chunk);
    assert_eq!(settle(&mut registrar), 0);
    assert_eq!(way.topic().held().0, 0, "nothing is kept that no key of the gateway signed");
    // More pieces than there is room for; then the true ones, before and behind forged ones of the same names.
    let junk = vec![7; CHUNK_BYTES as usize];
    for batch in 0..40 {
        let sha256 = Sha256Hex([batch as u8; 32]);
        let name = ObjectName::Data { origin: log.origin.clone(), batch, sha256, kind: FileKind::Records };
        let length = CHUNK_BYTES * 3;
        let chunk = Chunk { name, length, sha256, offset: 0, bytes: &junk }.encode().unwrap();
        way.topic().message(Some(log.origin.as_str().as_bytes()), &chunk);
        assert!(way.topic().held().1 <= 1 << 20);
    }
    let ObjectName::Data { sha256, .. } = records else { return };
    let length = way.bytes(records).len() as u64;
    let wrong = vec![7; length as usize];
    let forged = Chunk { name: records.clone(), length, sha256: *sha256, offset: 0, bytes: &wrong };
    way.topic().message(Some(log.origin.as_str().as_bytes()), &forged.encode().unwrap());
    way.send(&log);
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "log_head"]);
    assert_eq!(registrar.state().logs().len(), 1);
}

#[test]
fn what_finds_no_room_and_what_a_new_key_signed_is_read_when_the_topic_is_read_again() {
    let place = Place::new();
    let way = Way::within(&place, (2_000, 1 << 20));
    let mut registrar = begun(&place, &way);
    let anew = || way.topic().is_read_anew();
    assert!(anew(), "keys were told");
    let mut log = Log::new(&way.away, "20261120t101500z-00000001", 10);
    log.boot();
    (0..9).for_each(|_| log.beat());
    way.send(&log);
    assert!(way.topic().held().0 <= 2_000);
    // Batch 0 has no room beside its records: an archiver comes to it.
    way.archive(&place, &log, 0);
    let mut rounds = 0;
    while registrar.state().logs().get(&log.origin).is_none_or(|log| log.last().unwrap().0 < 9) {
        settle(&mut registrar);
        registrar.round().unwrap();
        if anew() {
            way.again();
        }
        rounds += 1;
        assert!(rounds < 30, "{:?}", registrar.state().logs());
    }
    // A gateway that is enrolled later than it sends.
    let mut later = Log::new(&way.away, "20261120t101600z-00000002", 11);
    later.boot();
    way.send(&later);
    assert_eq!(settle(&mut registrar), 0);
    place.add(11);
    settle(&mut registrar);
    registrar.round().unwrap();
    assert!(anew());
    way.give(
        &ObjectName::Seal { origin: later.origin.clone(), batch: 0 },
        &way.bytes(&ObjectName::Seal { origin: later.origin.clone(), batch: 0 }),
    );
    way.archive(&place, &later, 0);
    settle(&mut registrar);
    assert!(registrar.state().logs().contains_key(&later.origin));
}
