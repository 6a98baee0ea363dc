//! Writing one batch of the registry. The create-only name of its seal is the fence.

use std::fs;
use std::path::PathBuf;

use schemas::files::{LeafRow, ReferenceRow, schema_fingerprint, write_records, write_reference};
use schemas::names::FileKind;
use schemas::registry::{self, Entry};
use schemas::seal::{Seal, SealedFile};
use schemas::verify::SealTail;
use schemas::{ObjectName, Sha256Hex, leaf};

use super::aside::is_squatted;
use super::{Head, Registrar, RegistrarError};
use crate::store::{Put, Source, Store as _, StoreError};

impl Registrar {
    /// Writes a batch with these entries. False where another registrar was faster: nothing of it counts then.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<bool, RegistrarError> {
        let made = |error: String| RegistrarError::Batch(error);
        let batch = self.tail.as_ref().map_or(0, |tail| tail.batch + 1);
        let (from, mut tree) = (self.tree.size(), self.tree.clone());
        let mut rows = Vec::with_capacity(entries.len());
        for (position, entry) in (from..).zip(entries) {
            let leaf = registry::encode(entry)?;
            let hash = leaf::hash(&leaf);
            tree.append(hash);
            rows.push(LeafRow { position, leaf, hash });
        }
        let time = self.now_us();
        let records = write_records(&rows).map_err(|error| made(error.to_string()))?;
        let mut files = vec![self.put_file(batch, FileKind::Records, &records, time)?];
        let config = self.settings.config.clone();
        if !self.held.contains(&config.sha256()) {
            let row = ReferenceRow {
                sha256: config.sha256(),
                media_type: config.media_type.to_string(),
                bytes: config.bytes.to_vec(),
            };
            files.push(self.put_reference(batch, row, time)?);
        }
        files.sort();
        let sealed = Seal {
            origin: self.origin.clone(),
            batch,
            from,
            to: tree.size(),
            root: tree.root(),
            compact: self.tree.nodes().to_vec(),
            files,
            previous: self.tail.as_ref().map(|tail| tail.sha256),
            schema: schema_fingerprint(),
            time,
        };
        let note = sealed.sign(&self.signer).map_err(|error| made(error.to_string()))?;
        self.tried = Some(Sha256Hex::of(&note));
        match self.put_bytes(&sealed.object_name(), &note, time) {
            Ok(_) => {}
            Err(RegistrarError::Store(StoreError::Taken { .. })) => return Ok(false),
            Err(error) => return Err(error),
        }
        for (position, entry) in (from..).zip(entries) {
            self.state.apply(position, entry);
        }
        self.state.keep_last_heads();
        self.held.insert(config.sha256());
        self.tree = tree;
        self.tail = Some(SealTail {
            origin: self.origin.clone(),
            batch,
            to: sealed.to,
            root: sealed.root,
            time: sealed.time,
            sha256: Sha256Hex::of(&note),
            closed: Some(false),
        });
        self.tail_seen = self.settings.clock.elapsed_us();
        self.checkpoint_due = true;
        tracing::info!(origin = %self.origin, batch, size = sealed.to, entries = entries.len(), "registered");
        Ok(true)
    }

    /// Puts the reference file. Its name is made of its bytes, and they can be foretold: where somebody took the name
    /// before, the file gets one more row.
    fn put_reference(
        &mut self,
        batch: u64,
        row: ReferenceRow,
        time: i64,
    ) -> Result<SealedFile, RegistrarError> {
        let write = |rows: &[ReferenceRow]| {
            write_reference(rows).map_err(|error| RegistrarError::Batch(error.to_string()))
        };
        let rows = [row];
        let error = match self.put_file(batch, FileKind::Reference, &write(&rows)?, time) {
            Err(error) if is_squatted(&error) => error,
            done => return done,
        };
        self.taken(&error);
        let bytes = format!("{error}, at {time}").into_bytes();
        let more = ReferenceRow { sha256: Sha256Hex::of(&bytes), media_type: "text/plain".into(), bytes };
        let [row] = rows;
        self.put_file(batch, FileKind::Reference, &write(&[row, more])?, time)
    }

    /// Tells once that a name of the registry is somebody else's.
    fn taken(&mut self, error: &RegistrarError) {
        if self.is_new(format!("taken {error}")) {
            tracing::error!(%error, "a name of the registry is taken: someone else writes there; the registry goes on");
        }
    }

    /// Puts the checkpoint beside the newest seal, where it may be missing: a crash between the two leaves it out.
    ///
    /// Where somebody took its name the registry goes on without it in the store; witnesses are shown it all the same.
    pub(super) fn put_checkpoint(&mut self) -> Result<(), RegistrarError> {
        let Some(tail) = self.tail.clone().filter(|_| self.checkpoint_due) else { return Ok(()) };
        let head =
            Head::new(&self.origin, (tail.batch, tail.to, tail.root, tail.time), &self.checkpoint_signer)?;
        let name = ObjectName::Checkpoint { origin: self.origin.clone(), batch: tail.batch };
        match self.put_bytes(&name, &head.note, tail.time) {
            Err(error) if is_squatted(&error) => self.taken(&error),
            put => _ = put?,
        }
        self.checkpoint_due = false;
        self.head = Some(head);
        Ok(())
    }

    fn put_file(
        &self,
        batch: u64,
        kind: FileKind,
        bytes: &[u8],
        sealed_us: i64,
    ) -> Result<SealedFile, RegistrarError> {
        let sha256 = Sha256Hex::of(bytes);
        let name = ObjectName::Data { origin: self.origin.clone(), batch, sha256, kind };
        self.put_bytes(&name, bytes, sealed_us)?;
        Ok(SealedFile { name: name.file_name(), length: bytes.len() as u64, sha256 })
    }

    fn put_bytes(&self, name: &ObjectName, bytes: &[u8], sealed_us: i64) -> Result<Put, RegistrarError> {
        let path: PathBuf =
            self.settings.scratch.join(format!("{}-{}", std::process::id(), name.file_name()));
        let failed = |source| RegistrarError::Folder { path: path.clone(), source };
        fs::write(&path, bytes).map_err(failed)?;
        let sha256 = Sha256Hex::of(bytes);
        let source = Source { path: &path, sha256: &sha256, length: bytes.len() as u64, sealed_us };
        let put = self.store.put(name, source);
        // What is left in the scratch folder is nobody's.
        let _ = fs::remove_file(&path);
        Ok(put?)
    }
}
