//! A disk in memory that forgets what was not synced.
//!
//! It keeps what programs see apart from what would survive a loss of power: unsynced writes and unsynced names are kept
//! as pending operations, and [`SimDisk::crash`] keeps any subset of them, torn at sector bounds. It can fail any call,
//! run out of space, lose power at any call, and pretend to sync.

mod world;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::world::{Node, World};
use super::{Disk, DiskFile, DiskLock, Entry};

/// The calls that can be counted, failed and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Create,
    Open,
    CreateDir,
    SyncDir,
    Rename,
    Link,
    Unlink,
    RemoveDir,
    List,
    Entry,
    Lock,
    FreeBytes,
    SetReadOnly,
    Read,
    Write,
    Allocate,
    SyncData,
    Len,
}

impl Call {
    /// Whether the call changes the disk or makes a change durable.
    pub fn changes(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::List | Self::Entry | Self::FreeBytes | Self::Read | Self::Len | Self::Lock
        )
    }
}

/// A kind of sync in the code: the call, and the path of what is synced with its numbers as `#`; a file's first sync is
/// told from its later ones, and a directory's by the name that the same thread made or removed last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// [`Call::SyncData`] or [`Call::SyncDir`].
    pub call: Call,
    /// For example `/j/segment-#.journal`, `/j/segment-#.journal, first`, `/j: +segment-#.journal`, `/j: -#.spill`. To
    /// name more than one kind: `*` for whatever is in its place.
    pub name: String,
}

impl Site {
    /// Whether `other` is of the kinds that this names.
    pub fn covers(&self, other: &Self) -> bool {
        let named = match self.name.split_once('*') {
            Some((before, behind)) => other.name.starts_with(before) && other.name.ends_with(behind),
            None => other.name == self.name,
        };
        named && self.call == other.call
    }
}

/// What goes wrong at a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with EIO; a write is done by half, a sync leaves its writes in the air for good.
    Io,
    /// The call fails with ENOSPC; a write is done by half.
    NoSpace,
    /// Power is lost before the call: it and all later calls fail until [`SimDisk::crash`].
    PowerOff,
}

/// Which unsynced operations survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// None.
    DropAll,
    /// All.
    KeepAll,
    /// All but what a sync that was left out ([`SimDisk::ignore`]) would have made durable.
    LeftOut,
    /// Only the process ends: all survive, and are no more durable than before.
    Process,
    /// Each by chance; of a write, each sector of this many bytes by chance.
    Random {
        /// Where chance starts from.
        seed: u64,
        /// 512 or 4096.
        sector: usize,
    },
}

/// The disk; a clone is the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// An empty disk without bounds.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock_world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds the bytes of all files together; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock_world().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.lock_world().used()
    }

    /// How many changing calls ([`Call::changes`]) were made.
    pub fn changes(&self) -> u64 {
        self.lock_world().changes
    }

    /// How often `call` was made.
    pub fn count(&self, call: Call) -> u64 {
        self.lock_world().counts.get(&call).copied().unwrap_or(0)
    }

    /// Lets the changing call number `n` from now on (the next is 0) meet `fault`.
    pub fn fault_at_change(&self, n: u64, fault: Fault) {
        let mut world = self.lock_world();
        let at = world.changes + n;
        world.at_change.insert(at, fault);
    }

    /// Lets the `n`th next `call` (the next is 0) meet `fault`.
    pub fn fault_at(&self, call: Call, n: u64, fault: Fault) {
        let mut world = self.lock_world();
        let at = world.counts.get(&call).copied().unwrap_or(0) + n;
        world.at_call.insert((call, at), fault);
    }

    /// Lets the `n`th next sync of this kind (the next is 0) meet `fault`. Where a kind is watched or ignored, those
    /// behind its first are counted.
    pub fn fault_at_site(&self, site: Site, n: u64, fault: Fault) {
        self.lock_world().at_site.push((site, n, fault));
    }

    /// Takes back all faults that were not met.
    pub fn clear_faults(&self) {
        let mut world = self.lock_world();
        world.at_site.clear();
        world.at_change.clear();
        world.at_call.clear();
    }

    /// How many faults were met: a test that plans one asserts this.
    pub fn hits(&self) -> u64 {
        self.lock_world().hits
    }

    /// Whether power is lost.
    pub fn is_off(&self) -> bool {
        self.lock_world().off
    }

    /// Every kind of sync that was made.
    pub fn sites(&self) -> Vec<Site> {
        self.lock_world().sites.iter().cloned().collect()
    }

    /// Lets syncs of this kind return success and do nothing.
    pub fn ignore(&self, site: Option<Site>) {
        let mut world = self.lock_world();
        (world.watched, world.met) = (site.map(|site| (site, true)), 0);
    }

    /// Counts syncs of this kind, and lets them be.
    pub fn watch(&self, site: Site) {
        let mut world = self.lock_world();
        (world.watched, world.met) = (Some((site, false)), 0);
    }

    /// How many syncs of the kind that is watched or ignored were made.
    pub fn met(&self) -> u64 {
        self.lock_world().met
    }

    /// Loses power and comes up again: open files are dead, locks are free, faults and what was ignored are forgotten.
    pub fn crash(&self, crash: Crash) {
        self.lock_world().crash(crash);
    }

    /// A copy that goes its own way.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock_world().clone())))
    }

    /// The bytes of a file as programs see them.
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.lock_world();
        match world.nodes.get(&world.resolve(path).ok()?) {
            Some(Node::File(file)) => Some(file.bytes.clone()),
            _ => None,
        }
    }

    /// Changes a file's bytes behind everybody's back, durably.
    pub fn poke(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.lock_world();
        let Ok(id) = world.resolve(path) else { return };
        if let Some(Node::File(file)) = world.nodes.get_mut(&id) {
            change(&mut file.bytes);
            file.durable = file.bytes.clone();
            file.pending.clear();
        }
    }

    fn open_as(&self, path: &Path, writes: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.lock_world();
        world.call(Call::Open)?;
        let id = world.resolve(path)?;
        match world.nodes.get(&id) {
            Some(Node::File(file)) if writes && file.read_only => Err(io::ErrorKind::PermissionDenied.into()),
            Some(Node::File(_)) => {
                let generation = world.generation;
                Ok(Box::new(SimFile { world: self.0.clone(), id, generation, writes }))
            }
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

#[derive(Debug)]
struct SimFile {
    world: Arc<Mutex<World>>,
    id: u64,
    generation: u64,
    writes: bool,
}

#[derive(Debug)]
struct SimLock {
    world: Arc<Mutex<World>>,
    id: u64,
    generation: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.generation == self.generation {
            world.locks.remove(&self.id);
        }
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.lock_world();
        world.call(Call::Create)?;
        let id = world.make(path, Node::File(world::File::default()))?;
        let generation = world.generation;
        Ok(Box::new(SimFile { world: self.0.clone(), id, generation, writes: true }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, true)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, false)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        world.call(Call::CreateDir)?;
        world.make(path, Node::Dir(world::Dir::default())).map(|_| ())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        let id = world.resolve(path)?;
        world.sync(Call::SyncDir, id)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        world.call(Call::Rename)?;
        world.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        world.call(Call::Link)?;
        let id = world.resolve(from)?;
        if world.resolve(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.set_name(to, Some(id))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        world.call(Call::Unlink)?;
        let id = world.resolve(path)?;
        if matches!(world.nodes.get(&id), Some(Node::Dir(_))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        world.set_name(path, None)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        world.call(Call::RemoveDir)?;
        let id = world.resolve(path)?;
        match world.nodes.get(&id) {
            Some(Node::Dir(dir)) if dir.names.is_empty() => world.set_name(path, None),
            Some(Node::Dir(_)) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut world = self.lock_world();
        world.call(Call::List)?;
        let id = world.resolve(path)?;
        match world.nodes.get(&id) {
            Some(Node::Dir(dir)) => {
                Ok(dir.names.iter().filter_map(|(name, id)| world.entry(name, *id)).collect())
            }
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut world = self.lock_world();
        world.call(Call::Entry)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match world.resolve(path) {
            Ok(id) => Ok(world.entry(&name, id)),
            Err(_) => Ok(None),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut world = self.lock_world();
        world.call(Call::Lock)?;
        let id = match world.resolve(path) {
            Ok(id) => id,
            Err(_) => world.make(path, Node::File(world::File::default()))?,
        };
        let generation = world.generation;
        if !world.locks.insert(id) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { world: self.0.clone(), id, generation })))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let mut world = self.lock_world();
        world.call(Call::FreeBytes)?;
        Ok(world.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(world.used())))
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock_world();
        world.call(Call::SetReadOnly)?;
        let id = world.resolve(path)?;
        if let Some(Node::File(file)) = world.nodes.get_mut(&id) {
            file.read_only = true;
        }
        Ok(())
    }
}

impl SimFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.generation == self.generation {
            Ok(world)
        } else {
            Err(io::Error::other("the machine was restarted"))
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world()?;
        world.call(Call::Read)?;
        let bytes = &world.file(self.id)?.bytes;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if !self.writes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let bytes: Vec<u8> = parts.iter().map(|part| &**part).collect::<Vec<_>>().concat();
        let mut world = self.world()?;
        match world.call(Call::Write) {
            Ok(()) => world.write(self.id, offset, bytes),
            Err(error) => {
                if !world.off {
                    let half = bytes.len() / 2;
                    world.write(self.id, offset, bytes[..half].to_vec())?;
                }
                Err(error)
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut world = self.world()?;
        world.call(Call::Allocate)?;
        world.extend(self.id, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.world()?.sync(Call::SyncData, self.id)
    }

    fn len(&self) -> io::Result<u64> {
        let mut world = self.world()?;
        world.call(Call::Len)?;
        Ok(world.file(self.id)?.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests;
