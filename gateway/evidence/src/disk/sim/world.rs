//! The state of a simulated disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Component, Path};

use super::{Call, Crash, Fault, Site};
use crate::disk::{Entry, parent};

const ROOT: u64 = 0;

#[derive(Debug, Clone)]
enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// As programs see it.
    pub(super) bytes: Vec<u8>,
    /// As it is after a loss of power that drops all of `pending`.
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Pending>,
    pub(super) read_only: bool,
    was_synced: bool,
}

/// An operation that is not durable; `lost` after a failed sync: no later sync makes it durable.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    op: Op,
    lost: bool,
}

#[derive(Debug, Clone)]
enum NameOp {
    Set(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dir {
    pub(super) names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<(NameOp, bool)>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(File),
    Dir(Dir),
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) nodes: HashMap<u64, Node>,
    next: u64,
    /// Counts the crashes: files opened before one are dead.
    pub(super) generation: u64,
    pub(super) locks: HashSet<u64>,
    pub(super) capacity: Option<u64>,
    pub(super) changes: u64,
    pub(super) counts: BTreeMap<Call, u64>,
    pub(super) at_change: BTreeMap<u64, Fault>,
    pub(super) at_call: BTreeMap<(Call, u64), Fault>,
    pub(super) hits: u64,
    pub(super) off: bool,
    pub(super) sites: BTreeSet<Site>,
    pub(super) ignored: Option<Site>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::Dir(Dir::default()))]),
            next: ROOT + 1,
            generation: 0,
            locks: HashSet::new(),
            capacity: None,
            changes: 0,
            counts: BTreeMap::new(),
            at_change: BTreeMap::new(),
            at_call: BTreeMap::new(),
            hits: 0,
            off: false,
            sites: BTreeSet::new(),
            ignored: None,
        }
    }
}

/// SplitMix64: small, good enough to choose what survives.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// As [`Vec::resize`] with zeros, which takes a byte at a time where it is not optimised.
fn lengthen(target: &mut Vec<u8>, len: usize) {
    if let Some(more) = len.checked_sub(target.len()).filter(|more| *more > 0) {
        target.extend_from_slice(&vec![0; more]);
    }
}

fn put(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    lengthen(target, offset + bytes.len());
    target[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply(target: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { offset, bytes } => put(target, *offset, bytes),
        Op::Len(len) => lengthen(target, *len),
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, op: &NameOp) {
    match op {
        NameOp::Set(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameOp::Remove(name) => {
            names.remove(name);
        }
        NameOp::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
    }
}

/// `segment-00000003.journal` -> `segment-#.journal`.
fn pattern(name: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in name.chars().map(Some).chain([None]) {
        match c {
            Some(c) if c.is_ascii_hexdigit() => run.push(c),
            other => {
                let number = run.len() >= 8 || run.bytes().all(|b| b.is_ascii_digit());
                if number && !run.is_empty() {
                    out.push('#');
                } else {
                    out.push_str(&run);
                }
                run.clear();
                out.extend(other);
            }
        }
    }
    out
}

impl World {
    /// Counts a call, and lets it fail where that is planned.
    pub(super) fn call(&mut self, call: Call) -> io::Result<()> {
        let count = self.counts.entry(call).or_default();
        let fault = self.at_call.remove(&(call, *count));
        *count += 1;
        let fault = if call.changes() {
            let at_change = self.at_change.remove(&self.changes);
            self.changes += 1;
            fault.or(at_change)
        } else {
            fault
        };
        if let Some(fault) = fault {
            self.hits += 1;
            match fault {
                Fault::Io => return Err(io::Error::from_raw_os_error(5)),
                Fault::NoSpace => return Err(io::ErrorKind::StorageFull.into()),
                Fault::PowerOff => self.off = true,
            }
        }
        if self.off { Err(io::Error::other("power is off")) } else { Ok(()) }
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Some(Node::Dir(dir)) = self.nodes.get(&at) else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            at = *dir.names.get(&*name.to_string_lossy()).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn make(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if self.resolve(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next;
        self.set_name(path, Some(id))?;
        self.next += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    fn dir(&mut self, path: &Path) -> io::Result<&mut Dir> {
        let id = self.resolve(path)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn set_name(&mut self, path: &Path, id: Option<u64>) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        let dir = self.dir(parent(path))?;
        let op = id.map_or_else(|| NameOp::Remove(name.clone()), |id| NameOp::Set(name.clone(), id));
        apply_name(&mut dir.names, &op);
        dir.pending.push((op, false));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.resolve(from)?;
        if parent(from) != parent(to) {
            self.set_name(to, Some(id))?;
            return self.set_name(from, None);
        }
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let (Some(old), Some(new)) = (name(from), name(to)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = self.dir(parent(from))?;
        let op = NameOp::Rename(old, new, id);
        apply_name(&mut dir.names, &op);
        dir.pending.push((op, false));
        Ok(())
    }

    pub(super) fn entry(&self, name: &str, id: u64) -> Option<Entry> {
        Some(match self.nodes.get(&id)? {
            Node::File(file) => Entry { name: name.into(), is_dir: false, len: file.bytes.len() as u64 },
            Node::Dir(_) => Entry { name: name.into(), is_dir: true, len: 0 },
        })
    }

    pub(super) fn file(&mut self, id: u64) -> io::Result<&mut File> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn named(&self) -> HashSet<u64> {
        let dirs =
            self.nodes.values().filter_map(|node| if let Node::Dir(dir) = node { Some(dir) } else { None });
        dirs.flat_map(|dir| dir.names.values().copied()).collect()
    }

    pub(super) fn used(&self) -> u64 {
        let len = |id| match self.nodes.get(&id) {
            Some(Node::File(file)) => file.bytes.len() as u64,
            _ => 0,
        };
        self.named().into_iter().map(len).sum()
    }

    /// The name of an open file, for [`Site`].
    pub(super) fn name_of(&self, id: u64) -> String {
        let dirs =
            self.nodes.values().filter_map(|node| if let Node::Dir(dir) = node { Some(dir) } else { None });
        let mut names = dirs.flat_map(|dir| dir.names.iter());
        names.find(|(_, found)| **found == id).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    pub(super) fn extend(&mut self, id: u64, len: u64) -> io::Result<()> {
        let old = self.file(id)?.bytes.len() as u64;
        if len > old {
            if self.capacity.is_some_and(|capacity| self.used() + (len - old) > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let op = Op::Len(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
            let file = self.file(id)?;
            apply(&mut file.bytes, &op);
            file.pending.push(Pending { op, lost: false });
        }
        Ok(())
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.extend(id, offset + bytes.len() as u64)?;
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let file = self.file(id)?;
        let op = Op::Write { offset, bytes };
        apply(&mut file.bytes, &op);
        file.pending.push(Pending { op, lost: false });
        Ok(())
    }

    pub(super) fn sync(&mut self, call: Call, id: u64, name: &str) -> io::Result<()> {
        let mut name = pattern(name);
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => {
                let first = !std::mem::replace(&mut file.was_synced, true);
                name.push_str(if first { ", first" } else { "" });
            }
            Some(Node::Dir(dir)) => {
                if let Some((NameOp::Set(of, _) | NameOp::Remove(of) | NameOp::Rename(_, of, _), _)) =
                    dir.pending.last()
                {
                    name = format!("{name}: {}", pattern(of));
                }
            }
            None => {}
        }
        let site = Site { call, name };
        self.sites.insert(site.clone());
        let result = self.call(call);
        if self.off || (result.is_ok() && self.ignored.as_ref() == Some(&site)) {
            return result;
        }
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) if result.is_ok() => {
                let (lost, kept): (Vec<_>, Vec<_>) = file.pending.drain(..).partition(|pending| pending.lost);
                kept.iter().for_each(|pending| apply(&mut file.durable, &pending.op));
                file.pending = lost;
            }
            Some(Node::File(file)) => file.pending.iter_mut().for_each(|pending| pending.lost = true),
            Some(Node::Dir(dir)) if result.is_ok() => {
                let (lost, kept): (Vec<_>, Vec<_>) = dir.pending.drain(..).partition(|(_, lost)| *lost);
                kept.iter().for_each(|(op, _)| apply_name(&mut dir.durable, op));
                dir.pending = lost;
            }
            Some(Node::Dir(dir)) => dir.pending.iter_mut().for_each(|(_, lost)| *lost = true),
            None => {}
        }
        result
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        let mut chance = Chance(if let Crash::Random { seed, .. } = crash { seed } else { 0 });
        let mut ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            match self.nodes.get_mut(&id) {
                Some(Node::File(file)) => {
                    for pending in std::mem::take(&mut file.pending) {
                        survive(&mut file.durable, &pending.op, crash, &mut chance);
                    }
                    file.bytes = file.durable.clone();
                }
                Some(Node::Dir(dir)) => {
                    for (op, _) in std::mem::take(&mut dir.pending) {
                        let keep = match crash {
                            Crash::DropAll => false,
                            Crash::KeepAll => true,
                            Crash::Random { .. } => chance.coin(),
                        };
                        if keep {
                            apply_name(&mut dir.durable, &op);
                        }
                    }
                    dir.names = dir.durable.clone();
                }
                None => {}
            }
        }
        let named = self.named();
        self.nodes.retain(|id, _| *id == ROOT || named.contains(id));
        self.generation += 1;
        self.locks.clear();
        self.at_change.clear();
        self.at_call.clear();
        self.ignored = None;
        self.off = false;
    }
}

/// Applies what survives of one operation.
fn survive(durable: &mut Vec<u8>, op: &Op, crash: Crash, chance: &mut Chance) {
    let Crash::Random { sector, .. } = crash else {
        if crash == Crash::KeepAll {
            apply(durable, op);
        }
        return;
    };
    match op {
        Op::Len(_) => {
            if chance.coin() {
                apply(durable, op);
            }
        }
        Op::Write { offset, bytes } => {
            // One write in four is kept whole, one is lost whole, the others are torn.
            let fate = chance.next() % 4;
            let mut at = 0;
            while at < bytes.len() {
                let next = ((offset + at) / sector + 1) * sector - offset;
                let piece = &bytes[at..next.min(bytes.len())];
                let keep = fate == 0 || (fate >= 2 && chance.coin());
                // Bytes behind the end of the file are not there, whatever was written.
                let start = offset + at;
                if keep && start < durable.len() {
                    let end = (start + piece.len()).min(durable.len());
                    durable[start..end].copy_from_slice(&piece[..end - start]);
                }
                at = next;
            }
        }
    }
}
