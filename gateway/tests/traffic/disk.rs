//! A disk whose syncs can be held up, or fail, and whose spill files can be.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use evidence::disk::{Disk, DiskFile, DiskLock, Entry, RealDisk};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncs {
    Pass,
    Wait,
    Fail,
}

#[derive(Debug)]
struct State {
    syncs: Syncs,
    spills_wait: bool,
}

/// Says what syncs of journal files do.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(State { syncs: Syncs::Pass, spills_wait: false }), Condvar::new())))
    }
    fn set(&self, to: Syncs) {
        self.0.0.lock().unwrap().syncs = to;
        self.0.1.notify_all();
    }
    /// Whether a spilled body has to wait when it is read back.
    pub(crate) fn hold_spills(&self, wait: bool) {
        self.0.0.lock().unwrap().spills_wait = wait;
        self.0.1.notify_all();
    }
    fn pass_spill(&self) {
        let state = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(state, |state| state.spills_wait).unwrap());
    }
    /// Syncs wait from now on.
    pub(crate) fn close(&self) {
        self.set(Syncs::Wait);
    }
    /// Syncs pass again.
    pub(crate) fn open(&self) {
        self.set(Syncs::Pass);
    }
    /// Syncs fail from now on.
    pub(crate) fn fail(&self) {
        self.set(Syncs::Fail);
    }
    fn pass(&self) -> io::Result<()> {
        let state = self.0.0.lock().unwrap();
        let state = self.0.1.wait_while(state, |state| state.syncs == Syncs::Wait).unwrap();
        if state.syncs == Syncs::Fail { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

#[derive(Debug)]
pub(crate) struct GatedDisk {
    pub(crate) gate: Gate,
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn DiskFile>,
    gate: Option<Gate>,
}

impl GatedDisk {
    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let journal = path.components().any(|part| part.as_os_str() == "journal");
        Box::new(GatedFile { file, gate: journal.then(|| self.gate.clone()) })
    }
}

impl Disk for GatedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path).map(|file| self.wrap(path, file))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path).map(|file| self.wrap(path, file))
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if path.extension().is_some_and(|end| end == "spill") {
            self.gate.pass_spill();
        }
        RealDisk.open_read(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        RealDisk.entry(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        RealDisk.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        RealDisk.set_read_only(path)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_at(parts, offset)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.pass()?;
        }
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
