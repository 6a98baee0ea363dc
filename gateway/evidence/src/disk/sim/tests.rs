use std::io::IoSlice;
use std::path::Path;

use super::*;
use crate::disk::{create_dir_all, read_file, replace, write_new};

fn bytes(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.peek(Path::new(path))
}

#[test]
fn unsynced_bytes_and_names_are_forgotten() {
    let disk = SimDisk::new();
    write_new(&disk, Path::new("/named"), b"a").unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write_new(&disk, Path::new("/nameless"), b"b").unwrap();
    let file = disk.open(Path::new("/named")).unwrap();
    file.write_at(&[IoSlice::new(b"zz")], 0).unwrap();
    disk.crash(Crash::DropAll);
    assert_eq!(bytes(&disk, "/named").unwrap(), b"a");
    assert_eq!(bytes(&disk, "/nameless"), None);
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err(), "a file opened before the crash is dead");
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_later_one() {
    let disk = SimDisk::new();
    let file = disk.create(Path::new("/f")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_at(&[IoSlice::new(b"one")], 0).unwrap();
    disk.fault_at(Call::SyncData, 0, Fault::Io);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.hits(), 1);
    disk.crash(Crash::DropAll);
    assert_eq!(bytes(&disk, "/f").unwrap(), b"");
}

#[test]
fn a_torn_write_keeps_whole_sectors_only() {
    let mut torn = 0;
    for seed in 0..64 {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("/f")).unwrap();
        file.allocate(4096).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[IoSlice::new(&[7; 4096])], 0).unwrap();
        disk.crash(Crash::Random { seed, sector: 512 });
        let found = bytes(&disk, "/f").unwrap();
        let kept = found.chunks(512).filter(|sector| sector.iter().all(|byte| *byte == 7)).count();
        let lost = found.chunks(512).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
        assert_eq!(kept + lost, 8, "a sector is old or new");
        torn += usize::from(kept > 0 && lost > 0);
    }
    assert!(torn > 8, "chance tears often: {torn} of 64");
}

#[test]
fn a_replaced_file_is_old_or_new_at_every_change() {
    for n in 0.. {
        let disk = SimDisk::new();
        replace(&disk, Path::new("/f"), b"old").unwrap();
        disk.fault_at_change(n, Fault::PowerOff);
        let done = replace(&disk, Path::new("/f"), b"new").is_ok();
        disk.crash(Crash::Random { seed: n, sector: 512 });
        let found = bytes(&disk, "/f").unwrap();
        assert!(found == b"new" || (!done && found == b"old"), "after change {n}: {found:?}");
        if done {
            assert!(n >= 4, "create, write, two syncs and a rename were met");
            return;
        }
    }
}

#[test]
fn directories_are_durable_with_their_parents() {
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new("/a/b/c")).unwrap();
    disk.crash(Crash::DropAll);
    assert!(disk.entry(Path::new("/a/b/c")).unwrap().unwrap().is_dir);
}

#[test]
fn a_full_disk_refuses_what_does_not_fit() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(1000));
    let file = disk.create(Path::new("/f")).unwrap();
    assert_eq!(file.allocate(1001).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    file.allocate(1000).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 0);
    disk.unlink(Path::new("/f")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 1000);
}

#[test]
fn a_lock_is_held_once() {
    let disk = SimDisk::new();
    let held = disk.lock(Path::new("/lock")).unwrap().unwrap();
    assert!(disk.lock(Path::new("/lock")).unwrap().is_none());
    drop(held);
    assert!(disk.lock(Path::new("/lock")).unwrap().is_some());
}

/// The promises that callers rest on, on both disks.
#[test]
fn the_real_disk_and_the_simulated_one_behave_alike() {
    let dir = tempfile::tempdir().unwrap();
    let real = crate::disk::RealDisk;
    let sim = SimDisk::new();
    create_dir_all(&sim, dir.path()).unwrap();
    for disk in [&real as &dyn Disk, &sim] {
        let at = |name: &str| dir.path().join(name);
        disk.create_dir(&at("d")).unwrap();
        assert_eq!(disk.create_dir(&at("d")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        write_new(disk, &at("d/f"), b"hello").unwrap();
        assert_eq!(write_new(disk, &at("d/f"), b"x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.sync_dir(&at("d")).unwrap();
        disk.link(&at("d/f"), &at("d/g")).unwrap();
        assert_eq!(disk.link(&at("d/f"), &at("d/g")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.unlink(&at("d/f")).unwrap();
        assert_eq!(disk.unlink(&at("d/f")).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.rename(&at("d/g"), &at("d/h")).unwrap();
        let file = disk.open(&at("d/h")).unwrap();
        file.allocate(8).unwrap();
        file.write_at(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")], 4).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        assert_eq!(read_file(disk, &at("d/h"), 8).unwrap(), b"hellabcd");
        assert_eq!(read_file(disk, &at("d/h"), 7).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        disk.set_read_only(&at("d/h")).unwrap();
        let names = disk.list(&at("d")).unwrap();
        assert_eq!(names, [Entry { name: "h".into(), is_dir: false, len: 8 }]);
        assert_eq!(disk.entry(&at("d/none")).unwrap(), None);
        assert_eq!(disk.remove_dir(&at("d")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        let held = disk.lock(&at("lock")).unwrap().unwrap();
        assert!(disk.lock(&at("lock")).unwrap().is_none());
        drop(held);
        assert!(disk.lock(&at("lock")).unwrap().is_some());
        assert!(disk.free_bytes(&at("d")).unwrap() > 0);
        disk.unlink(&at("d/h")).unwrap();
        disk.remove_dir(&at("d")).unwrap();
    }
}

#[test]
fn more_parts_than_one_system_call_takes_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = crate::disk::RealDisk.create(&path).unwrap();
    let bytes: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    let parts: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
    file.write_at(&parts, 3).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[3..], bytes);
}
