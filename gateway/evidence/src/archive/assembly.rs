//! Objects put together from chunks, on disk. Anybody who may write to the topic may send pieces: different bytes for one
//! piece are kept side by side, and what counts is the whole that has the object's hash.
//!
//! An object of one piece is judged at once. Of a longer one no piece can be judged alone: the newest few versions of each
//! are kept, and the newest of all are tried first. So a gateway that puts its batch again gets through, whatever was forged
//! before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::digest::Hasher;
use schemas::ship::{Chunk, pieces};
use schemas::{ObjectName, Sha256Hex};

use super::offsets::At;
use crate::disk::{Disk, DiskLock};

/// The most versions of one piece that are kept.
const MAX_VERSIONS: usize = 4;
/// The most choices of versions that are tried for one object, each time a piece comes.
const MAX_CHOICES: usize = 16;
/// The most objects at a time: each takes memory too.
const MAX_OBJECTS: usize = 1 << 16;

/// An object, by what its chunks say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) name: ObjectName,
    pub(crate) sha256: Sha256Hex,
    pub(crate) length: u64,
}

/// What became of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is held until the object is let go. With `forgotten`, in the place of an older version of the piece.
    Held {
        /// The message of that version.
        forgotten: Option<At>,
    },
    /// The same bytes came before: the message is not needed.
    Repeat,
    /// It is not a piece of the object.
    Forged,
    /// The object never finds room beside its pieces.
    TooLong,
    /// No room for it: not taken.
    Full,
}

/// One form of a piece.
#[derive(Debug)]
struct Version {
    sha256: Sha256Hex,
    path: PathBuf,
    bytes: u64,
    at: At,
}

#[derive(Debug)]
struct Object {
    since: Instant,
    /// The versions of each piece, by where it begins; the one that came last is the last.
    pieces: BTreeMap<u64, Vec<Version>>,
    /// What holds the offset for it: each message, and where the piece begins that it brought (`OTHER`: none that counts).
    messages: BTreeMap<At, u64>,
    bytes: u64,
    whole: Option<PathBuf>,
}

/// In the place of where a piece begins: the message brought a version that is not of the whole.
const OTHER: u64 = u64::MAX;

/// An object that was given up, or is not needed any more.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(crate) wanted: Wanted,
    pub(crate) messages: Vec<At>,
    /// Whether it ever was whole.
    pub(crate) whole: bool,
}

/// What is being put together.
#[derive(Debug)]
pub(crate) struct Assembly {
    folder: PathBuf,
    bound: u64,
    held: u64,
    made: u64,
    objects: BTreeMap<Wanted, Object>,
    _lock: Box<dyn DiskLock>,
}

impl Assembly {
    /// Begins with none: what a death left in the folder is read again from the topic.
    pub(crate) fn open(disk: &Arc<dyn Disk>, folder: &Path, bound: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = disk.lock(&folder.join("lock"))?;
        let lock = lock.ok_or_else(|| io::Error::other("another archiver works in this folder"))?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // Nothing but its own: the folder may be another one by mistake.
            if path.extension().is_some_and(|ending| ending == "piece" || ending == "whole") {
                fs::remove_file(path)?;
            }
        }
        let (folder, objects) = (folder.to_owned(), BTreeMap::new());
        Ok(Self { folder, bound, held: 0, made: 0, objects, _lock: lock })
    }

    /// Bytes on disk.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Bytes that it holds at most.
    pub(crate) fn bound(&self) -> u64 {
        self.bound
    }

    /// Whether there is room enough again for what was put back.
    pub(crate) fn has_room(&self) -> bool {
        self.held <= self.bound / 2 && self.objects.len() <= MAX_OBJECTS / 2
    }

    /// When an object was begun.
    pub(crate) fn since(&self, wanted: &Wanted) -> Option<Instant> {
        self.objects.get(wanted).map(|object| object.since)
    }

    /// For so long nothing could be read: it does not count for anything that was begun.
    pub(crate) fn postpone(&mut self, by: Duration) {
        self.objects.values_mut().for_each(|object| object.since += by);
    }

    /// The objects, and when each was begun.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&Wanted, Instant)> {
        self.objects.iter().map(|(wanted, object)| (wanted, object.since))
    }

    /// Takes a chunk. [`Assembly::whole`] says what it made whole.
    ///
    /// # Errors
    /// The disk's; the chunk must come again then.
    pub(crate) fn take(&mut self, chunk: &Chunk<'_>, at: At, now: Instant) -> io::Result<Taken> {
        let wanted = Wanted { name: chunk.name.clone(), sha256: chunk.sha256, length: chunk.length };
        let sha256 = Sha256Hex::of(chunk.bytes);
        let count = chunk.bytes.len() as u64;
        if count == wanted.length && sha256 != wanted.sha256 {
            return Ok(Taken::Forged);
        }
        if wanted.length.saturating_mul(2) > self.bound {
            return Ok(Taken::TooLong);
        }
        if let Some(object) = self.objects.get_mut(&wanted) {
            if object.whole.is_some() {
                return Ok(object.again(chunk.offset, at));
            }
            if let Some(taken) = object.renew(chunk.offset, &sha256, at) {
                self.join(&wanted, chunk.offset)?;
                return Ok(taken);
            }
        }
        let object = self.objects.get(&wanted);
        let is_new = object.is_none();
        let others = object.map_or(0, |object| object.pieces.keys().filter(|b| **b != chunk.offset).count());
        // An object that is whole stands beside its pieces for a moment.
        let is_last = others + 1 == pieces(wanted.length).count();
        let needed = if is_last { count.saturating_add(wanted.length) } else { count };
        let is_over = self.held.saturating_add(needed) > self.bound;
        if is_over || (is_new && self.objects.len() >= MAX_OBJECTS) {
            return Ok(Taken::Full);
        }
        let path = self.next("piece");
        fs::write(&path, chunk.bytes).inspect_err(|_| drop(fs::remove_file(&path)))?;
        self.held += count;
        let object = self.objects.entry(wanted.clone()).or_insert_with(|| Object::new(now));
        object.messages.insert(at, chunk.offset);
        object.bytes += count;
        let versions = object.pieces.entry(chunk.offset).or_default();
        versions.push(Version { sha256, path, bytes: count, at });
        let oldest = (versions.len() > MAX_VERSIONS).then(|| versions.remove(0));
        if let Some(oldest) = &oldest {
            let _ = fs::remove_file(&oldest.path);
            object.messages.remove(&oldest.at);
            object.bytes = object.bytes.saturating_sub(oldest.bytes);
            self.held = self.held.saturating_sub(oldest.bytes);
        }
        let taken = Taken::Held { forgotten: oldest.map(|oldest| oldest.at) };
        self.join(&wanted, chunk.offset)?;
        Ok(taken)
    }

    fn next(&mut self, kind: &str) -> PathBuf {
        self.made += 1;
        self.folder.join(format!("{:010}.{kind}", self.made))
    }

    /// Makes the object whole where a choice of versions has its hash: the piece that just came with others.
    fn join(&mut self, wanted: &Wanted, offset: u64) -> io::Result<()> {
        let path = self.next("whole");
        let Some(object) = self.objects.get_mut(wanted) else { return Ok(()) };
        if object.pieces.len() as u64 != pieces(wanted.length).count() as u64 {
            return Ok(());
        }
        if self.held.saturating_add(wanted.length) > self.bound {
            return Ok(());
        }
        for choice in object.choices(offset) {
            if hash(&choice)? != wanted.sha256 {
                continue;
            }
            concatenate(&choice, &path).inspect_err(|_| drop(fs::remove_file(&path)))?;
            let chosen: BTreeSet<At> = choice.iter().map(|version| version.at).collect();
            for version in object.pieces.values().flatten() {
                if !chosen.contains(&version.at) {
                    object.messages.insert(version.at, OTHER);
                }
                // The folder is emptied at the next start.
                let _ = fs::remove_file(&version.path);
            }
            self.held = self.held.saturating_sub(object.bytes).saturating_add(wanted.length);
            object.bytes = wanted.length;
            object.pieces.clear();
            object.whole = Some(path);
            return Ok(());
        }
        Ok(())
    }

    /// The file of a whole object.
    pub(crate) fn whole(&self, wanted: &Wanted) -> Option<&Path> {
        self.objects.get(wanted)?.whole.as_deref()
    }

    /// Lets an object go, with its files.
    pub(crate) fn drop(&mut self, wanted: &Wanted) -> Option<Dropped> {
        let object = self.objects.remove(wanted)?;
        let pieces = object.pieces.values().flatten().map(|version| &version.path);
        for file in pieces.chain(&object.whole) {
            // The folder is emptied at the next start.
            let _ = fs::remove_file(file);
        }
        self.held = self.held.saturating_sub(object.bytes);
        let messages = object.messages.into_keys().collect();
        Some(Dropped { wanted: wanted.clone(), messages, whole: object.whole.is_some() })
    }

    /// The objects that were begun before `before`, oldest first.
    pub(crate) fn begun_before(&self, before: Instant) -> Vec<Wanted> {
        let mut old: Vec<_> = self.objects.iter().filter(|(_, object)| object.since < before).collect();
        old.sort_by_key(|(_, object)| object.since);
        old.into_iter().map(|(wanted, _)| wanted.clone()).collect()
    }

    /// Forgets that messages came from these partitions; gives the objects of which none is left.
    pub(crate) fn forget(&mut self, partitions: &[i32]) -> Vec<Wanted> {
        let mut orphans = Vec::new();
        for (wanted, object) in &mut self.objects {
            let before = object.messages.len();
            object.messages.retain(|at, _| !partitions.contains(&at.partition));
            if before > 0 && object.messages.is_empty() {
                orphans.push(wanted.clone());
            }
        }
        orphans
    }
}

impl Object {
    fn new(since: Instant) -> Self {
        let (pieces, messages) = (BTreeMap::new(), BTreeMap::new());
        Self { since, pieces, messages, bytes: 0, whole: None }
    }

    /// A piece of an object that is whole came again: it is needed where no message holds that piece any more, or where it
    /// is the very one that does.
    fn again(&mut self, offset: u64, at: At) -> Taken {
        if self.messages.contains_key(&at) || !self.messages.values().any(|held| *held == offset) {
            self.messages.insert(at, offset);
            return Taken::Held { forgotten: None };
        }
        Taken::Repeat
    }

    /// Makes a version of a piece the newest one; `None` where it is not there.
    fn renew(&mut self, offset: u64, sha256: &Sha256Hex, at: At) -> Option<Taken> {
        let versions = self.pieces.get_mut(&offset)?;
        let place = versions.iter().position(|version| version.sha256 == *sha256)?;
        let mut version = versions.remove(place);
        let is_held = self.messages.contains_key(&version.at);
        if !is_held {
            version.at = at;
            self.messages.insert(at, offset);
        }
        let taken = if version.at == at { Taken::Held { forgotten: None } } else { Taken::Repeat };
        versions.push(version);
        Some(taken)
    }

    /// Choices of versions with the newest one of the piece at `offset`: first the newest of all pieces, then the oldest,
    /// then others, few of them.
    fn choices(&self, offset: u64) -> Vec<Vec<&Version>> {
        let own = |begin: &u64, versions: &[Version]| if *begin == offset { versions.len() - 1 } else { 0 };
        let mut choices = vec![
            self.pieces.values().filter_map(|versions| versions.last()).collect::<Vec<_>>(),
            self.pieces.iter().filter_map(|(begin, v)| v.get(own(begin, v))).collect(),
        ];
        let mut others: Vec<Vec<&Version>> = vec![Vec::new()];
        for (begin, versions) in &self.pieces {
            let from = own(begin, versions);
            let longer = |choice: &Vec<_>, version| choice.iter().copied().chain([version]).collect();
            let grown = others.iter().flat_map(|c| versions[from..].iter().rev().map(move |v| longer(c, v)));
            others = grown.take(MAX_CHOICES).collect();
        }
        choices.extend(others);
        let mut seen = BTreeSet::new();
        choices.retain(|choice| seen.insert(choice.iter().map(|version| version.sha256).collect::<Vec<_>>()));
        choices
    }
}

fn hash(versions: &[&Version]) -> io::Result<Sha256Hex> {
    let mut hasher = Hasher::default();
    for version in versions {
        // A piece fits into memory: it came as one message.
        hasher.update(&fs::read(&version.path)?);
    }
    Ok(hasher.finish())
}

/// Writes the pieces one behind the other.
fn concatenate(versions: &[&Version], to: &Path) -> io::Result<()> {
    let mut out = File::create(to)?;
    for version in versions {
        out.write_all(&fs::read(&version.path)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use schemas::Origin;
    use schemas::names::FileKind;
    use schemas::ship::CHUNK_BYTES;

    fn object(bytes: &[u8]) -> Wanted {
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap();
        let sha256 = Sha256Hex::of(bytes);
        let name = ObjectName::Data { origin, batch: 0, sha256, kind: FileKind::Records };
        Wanted { name, sha256, length: bytes.len() as u64 }
    }

    fn bytes() -> Vec<u8> {
        (0..CHUNK_BYTES * 2 + 10).map(|at| (at % 249) as u8).collect()
    }

    fn chunk<'a>(wanted: &Wanted, offset: u64, bytes: &'a [u8]) -> Chunk<'a> {
        Chunk { name: wanted.name.clone(), length: wanted.length, sha256: wanted.sha256, offset, bytes }
    }

    fn cut<'a>(wanted: &Wanted, bytes: &'a [u8]) -> Vec<Chunk<'a>> {
        pieces(wanted.length)
            .map(|(offset, count)| chunk(wanted, offset, &bytes[offset as usize..(offset + count) as usize]))
            .collect()
    }

    struct Desk {
        assembly: Assembly,
        next: i64,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        fn new(bound: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let disk: Arc<dyn Disk> = Arc::new(crate::disk::RealDisk);
            let assembly = Assembly::open(&disk, &folder.path().join("work"), bound).unwrap();
            Self { assembly, next: 0, _folder: folder }
        }
        /// Files beside the lock.
        fn files(&self) -> usize {
            fs::read_dir(&self.assembly.folder).unwrap().count() - 1
        }

        fn take(&mut self, chunk: &Chunk<'_>) -> Taken {
            self.next += 1;
            self.assembly.take(chunk, At { partition: 0, offset: self.next }, Instant::now()).unwrap()
        }
    }

    const HELD: Taken = Taken::Held { forgotten: None };

    #[test]
    fn pieces_make_an_object_in_any_order_and_repeated() {
        let bytes = bytes();
        let wanted = object(&bytes);
        let cut = cut(&wanted, &bytes);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut desk = Desk::new(u64::MAX);
            assert_eq!(desk.take(&cut[order[0]]), HELD);
            assert_eq!(desk.take(&cut[order[0]]), Taken::Repeat);
            assert_eq!(desk.take(&cut[order[1]]), HELD);
            assert!(desk.assembly.whole(&wanted).is_none());
            assert_eq!(desk.take(&cut[order[2]]), HELD);
            assert_eq!(desk.take(&cut[order[1]]), Taken::Repeat);
            assert!(fs::read(desk.assembly.whole(&wanted).unwrap()).unwrap() == bytes);
            assert_eq!(desk.assembly.held(), wanted.length);
            let dropped = desk.assembly.drop(&wanted).unwrap();
            assert_eq!((dropped.messages.len(), dropped.whole, desk.assembly.held()), (3, true, 0));
            assert_eq!(desk.files(), 0);
        }
    }

    #[test]
    fn a_message_that_comes_again_after_a_failure_is_still_held() {
        let bytes = bytes();
        let wanted = object(&bytes);
        let mut desk = Desk::new(u64::MAX);
        let at = At { partition: 0, offset: 9 };
        for _ in 0..2 {
            let taken = desk.assembly.take(&cut(&wanted, &bytes)[0], at, Instant::now()).unwrap();
            assert_eq!(taken, HELD);
        }
    }

    #[test]
    fn what_is_read_anew_holds_the_offset_anew() {
        let bytes = bytes();
        let wanted = object(&bytes);
        for kept in [1, 3] {
            let mut desk = Desk::new(u64::MAX);
            let cut = cut(&wanted, &bytes);
            cut[..kept].iter().for_each(|piece| assert_eq!(desk.take(piece), HELD));
            assert_eq!(desk.assembly.forget(&[7]), []);
            assert_eq!(desk.assembly.forget(&[0]), std::slice::from_ref(&wanted));
            for again in [HELD, Taken::Repeat] {
                cut[..kept].iter().for_each(|piece| assert_eq!(desk.take(piece), again));
            }
            let dropped = desk.assembly.drop(&wanted).unwrap();
            assert_eq!((dropped.messages.len(), dropped.whole), (kept, kept == 3));
        }
    }

    #[test]
    fn forged_pieces_do_not_keep_the_true_ones_out() {
        let bytes = bytes();
        let wanted = object(&bytes);
        let cut = cut(&wanted, &bytes);
        let mut desk = Desk::new(u64::MAX);
        let junk = vec![7; CHUNK_BYTES as usize];
        for forged in [0, CHUNK_BYTES] {
            assert_eq!(desk.take(&chunk(&wanted, forged, &junk)), HELD);
        }
        for piece in [2, 0, 1] {
            assert_eq!(desk.take(&cut[piece]), HELD);
        }
        assert!(fs::read(desk.assembly.whole(&wanted).unwrap()).unwrap() == bytes);
        // One piece is judged at once.
        let small = object(b"small");
        assert_eq!(desk.take(&chunk(&small, 0, b"smell")), Taken::Forged);
        assert_eq!(desk.take(&chunk(&small, 0, b"small")), HELD);
        assert!(desk.assembly.whole(&small).is_some());
    }

    #[test]
    fn what_is_put_again_gets_through_whatever_was_forged_before_and_between() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 8).map(|at| (at % 249) as u8).collect();
        let wanted = object(&bytes);
        let cut = cut(&wanted, &bytes);
        let mut desk = Desk::new(u64::MAX);
        for round in 0..6 {
            for piece in &cut {
                desk.take(&chunk(&wanted, piece.offset, &vec![round; CHUNK_BYTES as usize]));
                if round == 2 {
                    desk.take(piece);
                    desk.take(&chunk(&wanted, piece.offset, &vec![99; CHUNK_BYTES as usize]));
                }
            }
        }
        assert!(
            desk.assembly.whole(&wanted).is_none(),
            "forged before, between and behind: too many choices"
        );
        for piece in &cut {
            desk.take(piece);
        }
        assert!(fs::read(desk.assembly.whole(&wanted).unwrap()).unwrap() == bytes);
        assert_eq!((desk.assembly.held(), desk.files()), (wanted.length, 1));
    }

    #[test]
    fn versions_and_bytes_are_bounded() {
        let bytes = bytes();
        let wanted = object(&bytes);
        let mut desk = Desk::new(CHUNK_BYTES * 6);
        let long = Wanted { length: CHUNK_BYTES * 3 + 1, ..wanted.clone() };
        assert_eq!(desk.take(&chunk(&long, 0, &bytes[..CHUNK_BYTES as usize])), Taken::TooLong);
        let filled = |fill: usize| vec![fill as u8; CHUNK_BYTES as usize];
        for fill in 0..MAX_VERSIONS {
            assert_eq!(desk.take(&chunk(&wanted, 0, &filled(fill))), HELD);
        }
        let forgotten = Some(At { partition: 0, offset: 2 });
        assert_eq!(desk.take(&cut(&wanted, &bytes)[0]), Taken::Held { forgotten });
        assert_eq!(desk.assembly.held(), CHUNK_BYTES * MAX_VERSIONS as u64);
        assert_eq!(desk.take(&cut(&wanted, &bytes)[1]), HELD);
        assert_eq!(desk.take(&chunk(&wanted, CHUNK_BYTES, &filled(9))), HELD);
        assert_eq!(desk.take(&chunk(&wanted, CHUNK_BYTES, &filled(10))), Taken::Full);
        // The last piece needs room for the whole too.
        let last = cut(&wanted, &bytes)[2].clone();
        assert_eq!(desk.take(&last), Taken::Full);
        assert_eq!(desk.assembly.objects().next().unwrap().0, &wanted);
        assert_eq!(desk.assembly.begun_before(Instant::now()), std::slice::from_ref(&wanted));
        let dropped = desk.assembly.drop(&wanted).unwrap();
        assert_eq!((dropped.messages.len(), desk.assembly.held(), desk.files()), (MAX_VERSIONS + 2, 0, 0));
        assert!(desk.assembly.objects().next().is_none());
    }

    #[test]
    fn a_folder_is_one_archivers_and_loses_nothing_but_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(crate::disk::RealDisk);
        let file = |name: &str| folder.path().join(name);
        fs::write(file("0000000001.piece"), b"left").unwrap();
        fs::write(file("letter"), b"not ours").unwrap();
        let first = Assembly::open(&disk, folder.path(), 1).unwrap();
        assert!(Assembly::open(&disk, folder.path(), 1).is_err());
        assert_eq!((file("0000000001.piece").exists(), file("letter").exists()), (false, true));
        drop(first);
        assert!(Assembly::open(&disk, folder.path(), 1).is_ok());
    }
}
