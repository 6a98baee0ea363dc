//! What somebody else puts into the store, or into the folder of key entries.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A file of so many bytes that takes no space.
fn sparse(path: &Path, length: u64) {
    fs::File::create(path).unwrap().set_len(length).unwrap();
}

/// All that can stand under a name of an object and is none of ours.
fn squat(path: &Path, what: usize) -> bool {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match what {
        0 => fs::write(path, "no note at all").unwrap(),
        1 => fs::write(path, [0xff, 0xfe, 0x00]).unwrap(),
        2 => sparse(path, 1 << 30),
        3 => symlink("/etc/hostname", path).unwrap(),
        4 => symlink("/dev/zero", path).unwrap(),
        5 => symlink(path, path).unwrap(),
        6 => fs::create_dir(path).unwrap(),
        7 => fifo(path),
        _ => return false,
    }
    true
}

/// Rounds until nothing more is said; what was set aside then is not told again.
fn settled(registrar: &mut Registrar) {
    settle(registrar);
    let aside = registrar.set_aside();
    for _ in 0..3 {
        assert_eq!(registrar.round().unwrap(), Round::Idle);
    }
    assert_eq!(registrar.set_aside(), aside, "each is told once");
}

impl Log<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.place.store.root().join(self.origin.as_str()).join(name)
    }

    /// The records file of the batch before.
    fn records(&self) -> PathBuf {
        self.path(&self.file)
    }
}

#[test]
fn what_stands_under_the_names_of_logs_stops_no_other_log() {
    let place = Place::new();
    place.add(10);
    place.statement("gw2", &KeyStatement { gateway: "gw2".into(), ..about(KeyAction::Add, 20) }, &root());
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    // The first seal of a log that is none, and the next one of a log that is registered.
    let mut squatted = Vec::new();
    for n in 0.. {
        let path = place.store.root().join(format!("acme/gw1/20261120t101500z-1000000{n}/0000000000.seal"));
        if !squat(&path, n) {
            break;
        }
        let mut log = Log::new(&place, &format!("20261120t101500z-2000000{n}"), 10);
        log.boot();
        squat(&log.path("0000000001.seal"), n);
        squatted.push(log);
    }
    fs::write(place.store.root().join("acme/gw2"), "a file where a gateway's logs should be").unwrap();
    let mut sound = Log::new(&place, "20261120t101500z-30000000", 10);
    sound.boot();
    settled(&mut registrar);
    sound.beat();
    settled(&mut registrar);
    assert_eq!(registrar.state().logs().len(), squatted.len() + 1);
    assert_eq!(registrar.state().logs()[&sound.origin].last().unwrap().1.size, 2);
    assert_eq!(registrar.set_aside(), 2 * squatted.len() + 1, "{:?}", registrar.warned);
    for log in &squatted {
        assert_eq!(registrar.state().logs()[&log.origin].last().unwrap().1.size, 1, "as far as it came");
    }
    // Nothing comes of them any more; one that is started anew says the same.
    let mut again = place.registrar("b");
    settled(&mut again);
    place.clock.advance(330 * SECOND);
    sound.beat();
    settled(&mut again);
    let logs = again.state().logs();
    assert!(
        squatted.iter().all(|log| logs[&log.origin].lost.is_some()) && logs[&sound.origin].lost.is_none()
    );
}

#[test]
fn a_records_file_of_another_size_than_is_read_costs_no_memory_and_stops_no_other_log() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    // Another file under the sealed name; and one that is sealed as larger than anything that is read.
    let mut swapped = Log::new(&place, "20261120t101500z-00000001", 10);
    swapped.boot();
    fs::remove_file(swapped.records()).unwrap();
    sparse(&swapped.records(), 1 << 40);
    let mut huge = Log::new(&place, "20261120t101500z-00000002", 10);
    huge.length = Some(1 << 30);
    huge.boot();
    let mut sound = Log::new(&place, "20261120t101500z-00000003", 10);
    sound.boot();
    settled(&mut registrar);
    assert_eq!(registrar.state().logs().keys().collect::<Vec<_>>(), [&sound.origin]);
    assert_eq!(registrar.set_aside(), 2, "{:?}", registrar.warned);
    assert!(registrar.warned.iter().any(|thing| thing.contains("at most 67108864 are read")));
}

#[test]
fn the_end_of_a_log_is_registered_once_it_can_be_read() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    log.close();
    let (records, kept) = (log.records(), place.dir.path().join("kept"));
    fs::rename(&records, &kept).unwrap();
    fs::write(&records, "torn").unwrap();
    settled(&mut registrar);
    assert_eq!(registrar.state().logs()[&log.origin].last().unwrap().1.size, 2, "its seals are sound");
    assert!(registrar.state().logs()[&log.origin].closed.is_none());
    fs::rename(&kept, &records).unwrap();
    place.clock.advance(61 * SECOND);
    settled(&mut registrar);
    assert!(registrar.state().logs()[&log.origin].closed.is_some());
}

#[test]
fn a_checkpoint_s_name_that_is_taken_keeps_nobody_from_registering() {
    for what in 0.. {
        let place = Place::new();
        place.add(10);
        let folder = place.store.root().join("acme/registry/log");
        if !squat(&folder.join("0000000000.checkpoint"), what) {
            break;
        }
        let mut registrar = place.registrar("a");
        settled(&mut registrar);
        assert_eq!(registrar.set_aside(), 1, "{what}: {:?}", registrar.warned);
        // Witnesses are shown the true one.
        let head = registrar.head().unwrap().clone();
        let key = Ed25519Signer::from_seed([3; 32]).public_key();
        assert_eq!(Checkpoint::verify(&head.note, &key).unwrap().0.size, 2);
        place.add(11);
        settled(&mut registrar);
        let mut anchors = registrar.anchors();
        anchors.step = 1;
        let newest = registrar.head().unwrap();
        assert_eq!((newest.batch, newest.size), (1, 3));
        assert_eq!(anchors.submission(newest, 2).unwrap().unwrap().0, *newest);
        assert!(folder.join("0000000001.checkpoint").is_file());
        let mut again = place.registrar("b");
        settled(&mut again);
        assert_eq!(again.state().keys().len(), 2);
    }
}

#[test]
fn a_reference_file_s_name_that_is_taken_keeps_nobody_from_registering() {
    let first = Place::new();
    settle(&mut first.registrar("a"));
    let name = first.registry(".reference.parquet").remove(0);
    for what in [0, 6] {
        let place = Place::new();
        place.add(10);
        squat(&place.store.root().join("acme/registry/log").join(&name), what);
        let mut registrar = place.registrar("a");
        settled(&mut registrar);
        assert_eq!(place.kinds(), ["registry", "key_added"]);
        assert_eq!(registrar.set_aside(), 1, "{:?}", registrar.warned);
    }
}

#[test]
fn what_stands_under_the_registry_s_next_seal_is_the_alarm() {
    for what in 0.. {
        let place = Place::new();
        let mut registrar = place.registrar("a");
        settle(&mut registrar);
        if !squat(&place.store.root().join("acme/registry/log/0000000001.seal"), what) {
            break;
        }
        assert!(matches!(registrar.round(), Err(RegistrarError::Damaged { batch: 1, .. })), "{what}");
    }
}

#[test]
fn what_lies_in_the_folder_of_key_entries_stops_no_entry() {
    let place = Place::new();
    let folder = place.dir.path().join("entries");
    for what in 0..8 {
        squat(&folder.join(format!("a{what}")), what);
    }
    place.add(10);
    let mut registrar = place.registrar("a");
    settled(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added"]);
    assert!(registrar.set_aside() >= 3, "{:?}", registrar.warned);
}
