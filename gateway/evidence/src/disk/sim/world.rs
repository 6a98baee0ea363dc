//! The state of a simulated disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Component, Path};
use std::thread::ThreadId;

use super::{Call, Crash, Fault, Site};
use crate::disk::{Entry, parent};

const ROOT: u64 = 0;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// As programs see it.
    pub(super) bytes: Vec<u8>,
    /// As it is after a loss of power that drops all of `pending`.
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Pending<Op>>,
    pub(super) read_only: bool,
    was_synced: bool,
}

/// An operation that is not durable.
#[derive(Debug, Clone)]
pub(super) struct Pending<O> {
    op: O,
    /// A sync of it failed: no later one makes it durable.
    lost: bool,
    /// A sync that was left out would have made it durable.
    left_out: bool,
}

impl<O> Pending<O> {
    fn new(op: O) -> Self {
        Self { op, lost: false, left_out: false }
    }

    /// Whether it survives a crash; `None`: by chance.
    fn survives(&self, crash: Crash) -> Option<bool> {
        match crash {
            Crash::DropAll => Some(false),
            Crash::KeepAll | Crash::Process => Some(true),
            Crash::LeftOut => Some(!self.left_out),
            Crash::Random { .. } => None,
        }
    }
}

/// What a sync does.
#[derive(Debug, Clone, Copy)]
enum Done {
    Synced,
    LeftOut,
    Failed,
}

impl Done {
    /// Takes what is durable now out of `pending`.
    fn settle<O>(self, pending: &mut Vec<Pending<O>>) -> Vec<O> {
        match self {
            Self::Synced => {
                let (lost, kept) = pending.drain(..).partition(|pending| pending.lost);
                *pending = lost;
                return Vec::into_iter(kept).map(|kept: Pending<O>| kept.op).collect();
            }
            Self::LeftOut => {
                pending
                    .iter_mut()
                    .filter(|pending| !pending.lost)
                    .for_each(|pending| pending.left_out = true);
            }
            Self::Failed => pending.iter_mut().for_each(|pending| pending.lost = true),
        }
        Vec::new()
    }
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
    pending: Vec<Pending<NameOp>>,
    /// What each thread changed last and did not sync since, for [`Site`].
    last: HashMap<ThreadId, String>,
}

impl Dir {
    fn change(&mut self, op: NameOp) {
        apply_name(&mut self.names, &op);
        let named = match &op {
            NameOp::Set(name, _) | NameOp::Rename(_, name, _) => format!("+{}", pattern(name)),
            NameOp::Remove(name) => format!("-{}", pattern(name)),
        };
        self.last.insert(std::thread::current().id(), named);
        self.pending.push(Pending::new(op));
    }
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
    pub(super) at_site: Vec<(Site, u64, Fault)>,
    pub(super) sites: BTreeSet<Site>,
    /// The kind of sync that is watched, and whether it is left out.
    pub(super) watched: Option<(Site, bool)>,
    /// How many syncs of that kind were met.
    pub(super) met: u64,
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
            at_site: Vec::new(),
            sites: BTreeSet::new(),
            watched: None,
            met: 0,
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
        self.call_meeting(call, None)
    }

    fn call_meeting(&mut self, call: Call, planned: Option<Fault>) -> io::Result<()> {
        let count = self.counts.entry(call).or_default();
        let fault = planned.or(self.at_call.remove(&(call, *count)));
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
        dir.change(op);
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
        dir.change(op);
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

    /// The path of an open file or a directory, for [`Site`]; empty for the root and for what has no name any more.
    fn path_of(&self, id: u64) -> String {
        let dirs = self.nodes.iter().filter_map(|(above, node)| match node {
            Node::Dir(dir) => Some((*above, dir)),
            Node::File(_) => None,
        });
        let mut names =
            dirs.flat_map(|(above, dir)| dir.names.iter().map(move |(name, found)| (above, name, *found)));
        match names.find(|(.., found)| *found == id) {
            Some((above, name, _)) => format!("{}/{name}", self.path_of(above)),
            None => String::new(),
        }
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
            file.pending.push(Pending::new(op));
        }
        Ok(())
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.extend(id, offset + bytes.len() as u64)?;
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let file = self.file(id)?;
        let op = Op::Write { offset, bytes };
        apply(&mut file.bytes, &op);
        file.pending.push(Pending::new(op));
        Ok(())
    }

    /// The kind of a sync of this file or directory.
    fn site(&mut self, call: Call, id: u64) -> Site {
        let mut name = pattern(&self.path_of(id));
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => {
                let first = !std::mem::replace(&mut file.was_synced, true);
                name.push_str(if first { ", first" } else { "" });
            }
            Some(Node::Dir(dir)) => {
                if let Some(last) = dir.last.remove(&std::thread::current().id()) {
                    name = format!("{name}: {last}");
                }
            }
            None => {}
        }
        Site { call, name }
    }

    /// The fault that is planned for a sync of this kind.
    fn planned(&mut self, site: &Site) -> Option<Fault> {
        if self.watched.is_some() && self.met == 0 {
            return None;
        }
        let (at, (_, left, fault)) =
            self.at_site.iter_mut().enumerate().find(|(_, (kind, ..))| kind.covers(site))?;
        let fault = *fault;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        self.at_site.remove(at);
        Some(fault)
    }

    pub(super) fn sync(&mut self, call: Call, id: u64) -> io::Result<()> {
        let site = self.site(call, id);
        let planned = self.planned(&site);
        self.sites.insert(site.clone());
        let result = self.call_meeting(call, planned);
        if self.off {
            return result;
        }
        let left_out = match &self.watched {
            Some((kind, left_out)) if result.is_ok() && kind.covers(&site) => {
                self.met += 1;
                *left_out
            }
            _ => false,
        };
        let done = match (&result, left_out) {
            (Err(_), _) => Done::Failed,
            (Ok(()), true) => Done::LeftOut,
            (Ok(()), false) => Done::Synced,
        };
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => {
                let durable = done.settle(&mut file.pending);
                durable.iter().for_each(|op| apply(&mut file.durable, op));
            }
            Some(Node::Dir(dir)) => {
                let durable = done.settle(&mut dir.pending);
                durable.iter().for_each(|op| apply_name(&mut dir.durable, op));
            }
            None => {}
        }
        result
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        if crash != Crash::Process {
            self.lose_power(crash);
        }
        let named = self.named();
        self.nodes.retain(|id, _| *id == ROOT || named.contains(id));
        self.generation += 1;
        self.locks.clear();
        self.at_change.clear();
        self.at_call.clear();
        self.at_site.clear();
        self.watched = None;
        self.met = 0;
        self.off = false;
    }

    fn lose_power(&mut self, crash: Crash) {
        let (seed, sector) = if let Crash::Random { seed, sector } = crash { (seed, sector) } else { (0, 1) };
        let mut chance = Chance(seed);
        let mut ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            match self.nodes.get_mut(&id) {
                Some(Node::File(file)) => {
                    for pending in std::mem::take(&mut file.pending) {
                        match pending.survives(crash) {
                            Some(true) => apply(&mut file.durable, &pending.op),
                            Some(false) => {}
                            None => tear(&mut file.durable, &pending.op, sector, &mut chance),
                        }
                    }
                    file.bytes = file.durable.clone();
                }
                Some(Node::Dir(dir)) => {
                    for pending in std::mem::take(&mut dir.pending) {
                        if pending.survives(crash).unwrap_or_else(|| chance.coin()) {
                            apply_name(&mut dir.durable, &pending.op);
                        }
                    }
                    dir.names = dir.durable.clone();
                }
                None => {}
            }
        }
    }
}

/// Applies what survives of one operation by chance.
fn tear(durable: &mut Vec<u8>, op: &Op, sector: usize, chance: &mut Chance) {
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
