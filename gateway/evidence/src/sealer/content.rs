//! Content: from journal frames to rows of a content file, one chunk in memory at a time.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use schemas::ExchangeId;
use schemas::content::{self, CHUNK_BYTES, Committer, Encoding, RowMeta, Salt};
use schemas::files::ContentWriter;
use schemas::names::FileKind;
use schemas::record::Part;
use schemas::seal::SealedFile;

use super::bases::{self, Base};
use super::{Sealer, SealingError, Slim, dictionary};
use crate::cipher::{self, SALT_BYTES};
use crate::journal::ContentFrames;
use crate::keys::CachedKey;
use crate::spool::{Spool, SpoolFile};

/// The content files of one batch, one per retention class.
pub(super) struct ContentFiles {
    spool: Spool,
    files: BTreeMap<String, ContentWriter<SpoolFile>>,
}

impl ContentFiles {
    pub(super) fn new(spool: Spool) -> Self {
        Self { spool, files: BTreeMap::new() }
    }

    fn file(&mut self, class: &str) -> Result<&mut ContentWriter<SpoolFile>, SealingError> {
        if !self.files.contains_key(class) {
            let file = self.spool.create(&format!("content-{class}"))?;
            self.files.insert(class.to_owned(), ContentWriter::new(file)?);
        }
        self.files.get_mut(class).ok_or_else(|| std::io::Error::other("no content file").into())
    }

    pub(super) fn finish(self, batch: u64) -> Result<Vec<SealedFile>, SealingError> {
        let mut sealed = Vec::new();
        for (class, writer) in self.files {
            let file = writer.finish()?;
            sealed.push(self.spool.keep(file, batch, FileKind::Content(class))?);
        }
        Ok(sealed)
    }
}

/// The content of one part, decrypted, without its salt.
struct PartReader<'a> {
    frames: ContentFrames,
    key: Option<&'a CachedKey>,
    origin: &'a schemas::Origin,
    salt: Option<Salt>,
    committer: Option<Committer>,
    pending: BytesMut,
    /// The sequence of the next frame: behind a hole, which only an accepted loss makes, nothing is read.
    next: u32,
}

impl PartReader<'_> {
    /// Reads on until `wanted` bytes stand ready, or the end.
    fn fill(&mut self, wanted: usize, position: u64) -> Result<(), SealingError> {
        while self.pending.len() < wanted {
            let Some(frame) = self.frames.next() else { return Ok(()) };
            let frame = frame?;
            if frame.seq != self.next {
                return Ok(());
            }
            self.next += 1;
            let mut plain = cipher::open(self.key.map(|key| &key.frame), self.origin, &frame)
                .map_err(|error| SealingError::Content { position, what: error.to_string() })?;
            if self.committer.is_none() {
                let Some((salt, _)) = plain.split_first_chunk::<SALT_BYTES>() else {
                    return Err(SealingError::Content {
                        position,
                        what: "a part's first frame has no salt".into(),
                    });
                };
                let salt = Salt::from_bytes(*salt);
                self.salt = Some(salt);
                self.committer = Some(Committer::new(&salt));
                plain = plain.slice(SALT_BYTES..);
            }
            if let Some(committer) = &mut self.committer {
                committer.update(&plain);
            }
            self.pending.extend_from_slice(&plain);
        }
        Ok(())
    }
}

/// Writes the rows of one part.
pub(super) fn seal_part(
    sealer: &mut Sealer,
    files: &mut ContentFiles,
    position: u64,
    slim: &Slim,
    exchange: &ExchangeId,
    part: &Part,
) -> Result<(), SealingError> {
    let wrong = |what: String| SealingError::Content { position, what: format!("{:?}: {what}", part.part) };
    let key = match &slim.content_key {
        None => None,
        Some(id) => match sealer.keys.key(id)? {
            Some(key) => Some(key),
            None => {
                tracing::warn!(position, part = ?part.part, "content whose key is destroyed is not sealed");
                return Ok(());
            }
        },
    };
    let frames = sealer.segments.content(exchange, part.part);
    let origin = sealer.origin.clone();
    let mut reader = PartReader {
        frames,
        key: key.as_deref(),
        origin: &origin,
        salt: None,
        committer: None,
        pending: BytesMut::new(),
        next: 0,
    };
    let written = write_rows(sealer, files, &mut reader, position, slim, exchange, part);
    let checked = written.and_then(|()| {
        let (length, commitment) = match reader.committer.take() {
            Some(committer) => committer.finish(),
            None => return Err(wrong("no content is journaled".into())),
        };
        if (length, commitment) == (part.length, part.commitment) {
            Ok(())
        } else {
            Err(wrong(format!(
                "the journal holds {length} bytes with commitment {commitment}, the record says {} and {}",
                part.length, part.commitment
            )))
        }
    });
    match checked {
        Err(error) if sealer.lenient && !error.is_transient() => {
            tracing::warn!(%error, "damaged content is sealed as it is");
            Ok(())
        }
        other => other,
    }
}

fn write_rows(
    sealer: &mut Sealer,
    files: &mut ContentFiles,
    reader: &mut PartReader<'_>,
    position: u64,
    slim: &Slim,
    exchange: &ExchangeId,
    part: &Part,
) -> Result<(), SealingError> {
    let key = reader.key.map(|key| (&key.id, &key.row));
    let wrong = |error: content::ContentError| SealingError::Content {
        position,
        what: format!("{:?}: {error}", part.part),
    };
    let origin = reader.origin;
    let class = slim.class();
    let meta = |chunk: u32, last: bool, encoding: Encoding| RowMeta {
        position,
        exchange: exchange.clone(),
        part: part.part,
        chunk,
        last,
        encoding,
    };
    let short = usize::try_from(part.length).ok().filter(|length| *length <= bases::MAX_BYTES);
    if let Some(length) = short {
        reader.fill(length.saturating_add(1), position)?;
        let content = reader.pending.split().freeze();
        let Some(salt) = reader.salt else { return Ok(()) };
        let mut base = Base {
            key: slim.content_key.clone(),
            class: class.to_owned(),
            exchange: exchange.clone(),
            part: part.part,
            content,
            chain: bases::Chain::default(),
        };
        let (encoding, stream) = match sealer.bases.delta(&mut base) {
            Some((from, ops)) => {
                let encoding = Encoding::Delta { base_exchange: from.exchange.clone(), base_part: from.part };
                (encoding, Bytes::from(ops))
            }
            None => (dictionary::encoding(base.content.len()), base.content.clone()),
        };
        for chunk in content::cut(&salt, &stream) {
            let meta = meta(chunk.chunk, chunk.last, encoding.clone());
            let row = content::seal_row_with(origin, &meta, key, dictionary::known(), &chunk.plaintext)
                .map_err(wrong)?;
            sealer.dictionary.row(&row.encoding);
            files.file(class)?.write(row)?;
        }
        sealer.bases.keep(base);
        return Ok(());
    }
    let mut chunk = 0;
    loop {
        // One byte more than a chunk tells whether this one is the last.
        reader.fill(CHUNK_BYTES + 1, position)?;
        let content = reader.pending.split_to(reader.pending.len().min(CHUNK_BYTES));
        let last = reader.pending.is_empty();
        let Some(salt) = reader.salt else { return Ok(()) };
        let row = if chunk == 0 {
            let mut plain = Vec::with_capacity(SALT_BYTES + content.len());
            plain.extend_from_slice(salt.as_bytes());
            plain.extend_from_slice(&content);
            content::seal_row(origin, &meta(chunk, last, Encoding::Zstd), key, &plain)
        } else {
            content::seal_row(origin, &meta(chunk, last, Encoding::Zstd), key, &content)
        };
        files.file(class)?.write(row.map_err(wrong)?)?;
        if last {
            return Ok(());
        }
        chunk += 1;
    }
}
