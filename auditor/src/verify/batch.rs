//! One batch, by itself: its seal, its files, its leaves. Pure but for reading; runs on any core.

use std::io::Read as _;

use parquet::file::reader::ChunkReader as _;
use schemas::names::FileKind;
use schemas::seal::{self, SealError, SignedSeal};
use schemas::verify::{BatchFault, BatchInput, FaultCode, VerifiedBatch, verify_batch};
use schemas::{ObjectName, Origin, Sha256Hex};

use super::content::{self, ContentFacts};
use super::dictionaries::Dictionaries;
use super::keys::Keys;
use super::listing::BatchObjects;
use super::reference::{self, ReferenceFacts};
use crate::finding::{Code, Finding, Findings, Place};
use crate::source::{Source, SourceError};

/// The largest seal that is read.
const SEAL_LIMIT: u64 = schemas::note::MAX_NOTE_BYTES as u64;

/// What a batch is checked against.
pub(crate) struct Context<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) origin: &'a Origin,
    pub(crate) key: &'a [u8; 32],
    /// Keys that may seal and close the log after its own.
    pub(crate) closers: &'a [[u8; 32]],
    pub(crate) limits: &'a super::Limits,
    pub(crate) keys: Option<&'a Keys>,
    pub(crate) dictionaries: &'a Dictionaries,
    /// Files of seals older than this may be gone: microseconds UTC.
    pub(crate) expired_before: Option<i64>,
    /// Whether the log holds a seal under this number.
    pub(crate) has_seal: &'a (dyn Fn(u64) -> bool + Sync),
}

/// Why content that a seal names is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It is older than its retention.
    Expired,
    /// Nobody says why.
    Missing,
}

/// The content files of a batch, as far as they are there.
#[derive(Debug, Default)]
pub(crate) struct ContentFiles {
    /// Their names in the log's folder.
    pub(crate) opened: Vec<(String, crate::source::Opened)>,
    /// Some are not there.
    pub(crate) gone: Option<Gone>,
}

/// A batch that was looked at.
pub(crate) struct Looked {
    pub(crate) number: u64,
    /// The mark of its objects in the listing.
    pub(crate) mark: u64,
    pub(crate) outcome: Outcome,
    /// The closer that signed the seal; `None`: the log's own key, or nobody known.
    pub(crate) closer: Option<[u8; 32]>,
    pub(crate) findings: Findings,
    /// Names of its data files that its seal does not name.
    pub(crate) unnamed: Vec<String>,
    pub(crate) seals: u64,
    pub(crate) bytes_hashed: u64,
}

/// What came of it.
pub(crate) enum Outcome {
    /// Every file is what the seal says, and the leaves give its root.
    Proven(Box<Proven>),
    /// The seal holds; its records are expired.
    Expired(Box<SignedSeal>),
    /// Findings say why not; the seal, where it holds.
    Broken(Option<Box<SignedSeal>>),
}

/// A proven batch with what its other files hold.
pub(crate) struct Proven {
    pub(crate) batch: VerifiedBatch,
    pub(crate) content: ContentFacts,
    pub(crate) reference: ReferenceFacts,
    pub(crate) bytes: u64,
}

/// Turns a fault of the format crate into a finding.
pub(crate) fn finding(fault: BatchFault, place: Place) -> Finding {
    let code = Code::parse(fault.code.as_str()).unwrap_or(Code::RecordInvalid);
    let mut place = place;
    place.position = fault.position.or(place.position);
    // Of a fault of the whole file its name is the place.
    let file = place.object.as_ref().map(|object| object.rsplit('/').next().unwrap_or(object));
    if !fault.place.is_empty() && file != Some(&fault.place) {
        place = place.of_item(&fault.place);
    }
    Finding::new(code, place, fault.expected, fault.found)
}

/// Turns a read error into a finding.
pub(crate) fn read_error(error: SourceError, place: Place) -> Finding {
    match error {
        SourceError::TooLarge { limit, found, .. } => Finding::new(
            Code::ResourceLimit,
            place,
            format!("at most {limit} bytes"),
            format!("{found} bytes"),
        ),
        SourceError::Absent(_) => {
            Finding::new(Code::CouldNotRead, place, "an object that was listed", "it is gone")
        }
        SourceError::Io { error, .. } => {
            Finding::new(Code::CouldNotRead, place, "a readable object", error.to_string())
        }
    }
}

impl Context<'_> {
    fn place(&self, number: u64, file: &str) -> Place {
        Place::batch(self.origin, number).in_object(format!("{}/{file}", self.origin))
    }

    /// The time that the seal of batch `number` says, where it is there and signed.
    pub(crate) fn time_of(&self, number: u64) -> Option<i64> {
        let note = self.source.read(&super::seal_name(self.origin, number), SEAL_LIMIT).ok()?;
        self.signed(&note).ok().map(|(signed, _)| signed.time)
    }

    /// Opens the content files that the seal of batch `number` names, as far as they are there. `until` is a later batch
    /// that is there.
    ///
    /// # Errors
    /// One that is there and cannot be read.
    pub(crate) fn content_files(&self, number: u64, until: u64) -> Result<ContentFiles, SourceError> {
        let note = if_there(self.source.read(&super::seal_name(self.origin, number), SEAL_LIMIT))?;
        let Some(signed) = note.and_then(|note| self.signed(&note).ok()).map(|(signed, _)| signed) else {
            return Ok(ContentFiles { opened: Vec::new(), gone: Some(self.gone_below(number, until)) });
        };
        let is_content = |file: &&seal::SealedFile| {
            matches!(
                ObjectName::parse_file(self.origin, &file.name),
                Ok(ObjectName::Data { kind: FileKind::Content(_), .. })
            )
        };
        let mut out = ContentFiles::default();
        for file in signed.files.iter().filter(is_content) {
            match if_there(self.source.open(&format!("{}/{}", self.origin, file.name)))? {
                Some(opened) => out.opened.push((file.name.clone(), opened)),
                None => out.gone = Some(self.gone(signed.time)),
            }
        }
        Ok(out)
    }

    /// Whether what a seal of this time names may be gone.
    fn gone(&self, sealed_at: i64) -> Gone {
        if self.expired_before.is_some_and(|before| sealed_at < before) {
            Gone::Expired
        } else {
            Gone::Missing
        }
    }

    /// The same of a batch whose seal is not there: the first one above tells how old it is at least.
    fn gone_below(&self, number: u64, until: u64) -> Gone {
        let above =
            self.expired_before.and_then(|_| (number..=until).find(|number| (self.has_seal)(*number)));
        above.and_then(|above| self.time_of(above)).map_or(Gone::Missing, |time| self.gone(time))
    }

    /// The seal, signed by the log's key or by one of its closers, and which.
    fn signed(&self, note: &[u8]) -> Result<(SignedSeal, [u8; 32]), SealError> {
        let error = match seal::verify(note, self.key) {
            Ok(signed) => return Ok((signed, *self.key)),
            Err(error) => error,
        };
        let by = |key: &[u8; 32]| Some((seal::verify(note, key).ok()?, *key));
        self.closers.iter().find_map(by).ok_or(error)
    }

    /// Looks at batch `number`.
    pub(crate) fn look(&self, number: u64, objects: &BatchObjects) -> Looked {
        let mut looked = Looked {
            number,
            mark: objects.mark,
            outcome: Outcome::Broken(None),
            closer: None,
            unnamed: Vec::new(),
            findings: Findings::default(),
            seals: 0,
            bytes_hashed: 0,
        };
        if let Some(signed) = self.seal(number, &mut looked) {
            let (signed, key, note) = signed;
            looked.outcome = Outcome::Broken(Some(Box::new(signed.clone())));
            looked.closer = (key != *self.key).then_some(key);
            self.files(&signed, &key, &note, objects, &mut looked);
        }
        looked
    }

    fn seal(&self, number: u64, looked: &mut Looked) -> Option<(SignedSeal, [u8; 32], bytes::Bytes)> {
        let name = ObjectName::Seal { origin: self.origin.clone(), batch: number };
        let place = self.place(number, &name.file_name());
        let note = match self.source.read(&name.to_string(), SEAL_LIMIT) {
            Ok(note) => note,
            Err(error) => {
                looked.findings.push(read_error(error, place));
                return None;
            }
        };
        looked.seals += 1;
        looked.bytes_hashed += note.len() as u64;
        let (signed, key) = match self.signed(&note) {
            Ok(signed) => signed,
            Err(error) => {
                looked.findings.push(self.bad_seal(&note, &error, place));
                return None;
            }
        };
        if signed.origin != *self.origin {
            looked.findings.add(
                Code::OriginMismatch,
                place,
                self.origin.to_string(),
                signed.origin.to_string(),
            );
            return None;
        }
        if signed.batch != number {
            let code = if (self.has_seal)(signed.batch) { Code::DuplicateRange } else { Code::PathMismatch };
            let expected = format!("the seal of batch {number}");
            looked.findings.add(code, place, expected, format!("the seal of batch {}", signed.batch));
            return None;
        }
        Some((signed, key, note))
    }

    fn bad_seal(&self, note: &[u8], error: &SealError, place: Place) -> Finding {
        let unsigned = matches!(error, SealError::Note(schemas::note::NoteError::NotSigned { .. }));
        match seal::parse_unverified(note) {
            Ok(text) if text.origin != *self.origin => {
                Finding::new(Code::OriginMismatch, place, self.origin.to_string(), text.origin.to_string())
            }
            _ if unsigned => {
                Finding::new(Code::UntrustedKey, place, "a signature by the trusted key", error.to_string())
            }
            _ => {
                Finding::new(Code::SealInvalid, place, "a seal signed by the trusted key", error.to_string())
            }
        }
    }

    fn files(
        &self,
        signed: &SignedSeal,
        key: &[u8; 32],
        note: &[u8],
        objects: &BatchObjects,
        looked: &mut Looked,
    ) {
        let number = looked.number;
        let expired = self.expired_before.is_some_and(|before| signed.time < before);
        let mut gone = 0;
        let mut records = None;
        let mut content = ContentFacts::default();
        let mut reference = ReferenceFacts::default();
        let mut content_files = Vec::new();
        let mut bytes = 0;
        for file in &signed.files {
            let place = self.place(number, &file.name);
            let Ok(ObjectName::Data { sha256, kind, .. }) = ObjectName::parse_file(self.origin, &file.name)
            else {
                continue;
            };
            let Some(listed) = objects.data.iter().find(|data| data.sha256 == sha256 && data.kind == kind)
            else {
                gone += 1;
                if !expired {
                    let moved = objects.data.iter().find(|data| data.kind == kind);
                    let found =
                        moved.map_or("nothing".into(), |data| format!("a file named with {}", data.sha256));
                    let expected = format!("a file of {} bytes", file.length);
                    looked.findings.add(Code::BatchMissing, place, expected, found);
                }
                continue;
            };
            bytes += listed.length;
            if listed.length != file.length {
                let expected = format!("{} bytes", file.length);
                looked.findings.add(
                    Code::FileMismatch,
                    place.clone(),
                    expected,
                    format!("{} bytes", listed.length),
                );
            }
            match kind {
                FileKind::Records => match self
                    .source
                    .read(&format!("{}/{}", self.origin, file.name), self.limits.records_bytes)
                {
                    Ok(read) => {
                        looked.bytes_hashed += read.len() as u64;
                        records = Some((place, read));
                    }
                    Err(error) => {
                        looked.findings.push(read_error(error, place));
                    }
                },
                FileKind::Reference => {
                    let name = format!("{}/{}", self.origin, file.name);
                    match self.source.read(&name, self.limits.reference_bytes) {
                        Ok(read) => {
                            looked.bytes_hashed += read.len() as u64;
                            hash_fits(&read, file.sha256, &place, &mut looked.findings);
                            reference = reference::read(&read, &place, &mut looked.findings);
                        }
                        Err(error) => {
                            reference.unread = true;
                            looked.findings.push(read_error(error, place));
                        }
                    }
                }
                FileKind::Content(class) => content_files.push((file, class, place)),
            }
        }
        for data in &objects.data {
            let name = ObjectName::Data {
                origin: self.origin.clone(),
                batch: number,
                sha256: data.sha256,
                kind: data.kind.clone(),
            };
            if !signed.files.iter().any(|file| file.name == name.file_name()) {
                looked.unnamed.push(name.file_name());
            }
        }
        let Some((place, read)) = records else {
            if expired && gone > 0 {
                looked.outcome = Outcome::Expired(Box::new(signed.clone()));
            }
            return;
        };
        let input = BatchInput { origin: self.origin, key, seal: note, records: read };
        let batch = match verify_batch(input) {
            Ok(batch) => batch,
            Err(faults) => {
                for fault in faults {
                    // A limit is no fault of the evidence.
                    let place = if fault.code == FaultCode::SealInvalid {
                        self.place(number, &seal_name(number))
                    } else {
                        place.clone()
                    };
                    looked.findings.push(finding(fault, place));
                }
                return;
            }
        };
        for (file, class, place) in content_files {
            let name = format!("{}/{}", self.origin, file.name);
            match self.source.open(&name) {
                Ok(opened) => {
                    match hash_of(&opened) {
                        Ok((hash, length)) => {
                            looked.bytes_hashed += length;
                            if hash != file.sha256 {
                                looked.findings.add(
                                    Code::FileMismatch,
                                    place.clone(),
                                    file.sha256.to_string(),
                                    hash.to_string(),
                                );
                            }
                        }
                        Err(error) => {
                            let place = place.clone();
                            content.unread = true;
                            looked.findings.add(
                                Code::CouldNotRead,
                                place,
                                "a readable object",
                                error.to_string(),
                            );
                        }
                    }
                    content.files.push(content::File { opened, class, place });
                }
                Err(error) => {
                    content.unread = true;
                    looked.findings.push(read_error(error, place));
                }
            }
        }
        content.is_old = expired;
        content.expired = expired && gone > 0;
        content::check(self, &batch, &mut content, &mut looked.findings);
        // Findings stand even where another file of the batch is broken: the leaves are proven all the same.
        looked.outcome = Outcome::Proven(Box::new(Proven { batch, content, reference, bytes }));
    }
}

/// `None` in the place of what is not there.
fn if_there<T>(read: Result<T, SourceError>) -> Result<Option<T>, SourceError> {
    match read {
        Err(SourceError::Absent(_)) => Ok(None),
        read => read.map(Some),
    }
}

fn seal_name(number: u64) -> String {
    format!("{number:010}.seal")
}

fn hash_fits(bytes: &[u8], expected: Sha256Hex, place: &Place, findings: &mut Findings) {
    let found = Sha256Hex::of(bytes);
    if found != expected {
        findings.add(Code::FileMismatch, place.clone(), expected.to_string(), found.to_string());
    }
}

fn hash_of(opened: &crate::source::Opened) -> std::io::Result<(Sha256Hex, u64)> {
    let mut reader = opened.get_read(0).map_err(std::io::Error::other)?;
    let mut hasher = schemas::digest::Hasher::default();
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        length += n as u64;
        hasher.update(&buffer[..n]);
    }
    Ok((hasher.finish(), length))
}
