//! Content files: every row belongs to a part of a leaf, every kept part is there, and, where its key is known, is
//! what the leaf commits to.
//!
//! Rows stream: of a part only a chunk is held, unless it is stored as edits of another part. Those are applied when
//! their batch's turn comes, since their base may be in an earlier batch.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use schemas::content::{
    Assembled, Assembler, CHUNK_BYTES, Committer, ContentError, DataKey, Encoding, KeyId, MAX_DELTA_DEPTH,
    Row, SALT_BYTES, Salt, apply, open_row_with,
};
use schemas::files::{FileError, Limits as FileLimits, read_content};
use schemas::record::{Body, Part, PartName};
use schemas::verify::VerifiedBatch;
use schemas::{ExchangeId, Identifier, Sha256Hex};
use serde::{Deserialize, Serialize};

use super::batch::read_error;
use super::batch::{Context, Gone, finding};
use super::ids::Ids;
use super::keys::Held;
use super::loader::{BaseError, Loader};
use super::log::LogFold;
use crate::finding::{Code, Finding, Findings, Place};
use crate::source::{Opened, SourceError};

/// Content up to this size is kept for parts that are stored as its edits.
const KEPT_PART: usize = 4 << 20;
/// Of one batch at most this is kept.
const KEPT_OF_BATCH: usize = 16 << 20;
/// Edits of one batch that wait for their turn.
const WAITING_OF_BATCH: usize = 256 << 20;

/// Why no more edits are applied to edits.
pub(super) const TOO_DEEP: &str = "a chain of edits deeper than 256";

/// A content file of a batch.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) opened: Opened,
    pub(crate) class: String,
    pub(crate) place: Place,
}

/// The class and name of the file that is being read.
struct Of {
    class: String,
    place: Place,
}

/// A data key that is gone, and the exchange whose content it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// The record that commits to the content.
    pub position: u64,
    /// The exchange.
    pub exchange: Option<ExchangeId>,
    /// The key.
    pub key: String,
    /// How many parts.
    pub parts: u64,
}

/// A part that is stored as edits.
#[derive(Debug)]
struct Edited {
    position: u64,
    exchange: ExchangeId,
    part: PartName,
    salt: Salt,
    base: (ExchangeId, PartName),
    edits: Vec<u8>,
    length: u64,
    commitment: Sha256Hex,
    place: Place,
}

/// What was found out about a batch's content.
#[derive(Debug, Default)]
pub(crate) struct ContentFacts {
    pub(crate) files: Vec<File>,
    /// The batch is older than its retention: its content need not be kept any longer.
    pub(crate) is_old: bool,
    /// Some files of the batch are expired: what is missing is not a finding.
    pub(crate) expired: bool,
    /// Some files of the batch could not be read: what they hold is not known.
    pub(crate) unread: bool,
    proven: u64,
    unopened: u64,
    /// Parts of logs that the key table does not know.
    keyless: u64,
    gone: BTreeMap<(u64, String), KeyUse>,
    kept: Vec<((ExchangeId, PartName), Arc<[u8]>)>,
    kept_bytes: usize,
    edited: Vec<Edited>,
    edited_bytes: usize,
}

/// A part that a leaf of the batch commits to, and that is kept.
struct Wanted {
    exchange: Option<ExchangeId>,
    length: u64,
    commitment: Sha256Hex,
    class: Option<String>,
    key: Option<String>,
    seen: bool,
}

/// The parts, data key and retention class that a record commits to.
pub(crate) fn parts_of(
    body: &Body,
) -> Option<(Option<&ExchangeId>, &[Part], Option<&Identifier>, Option<&Identifier>)> {
    match body {
        Body::Intent(intent) => Some((
            Some(&intent.exchange),
            &intent.parts,
            intent.content_key.as_ref(),
            Some(&intent.retention),
        )),
        Body::Outcome(outcome) => Some((
            Some(&outcome.exchange),
            &outcome.parts,
            outcome.content_key.as_ref(),
            Some(&outcome.retention),
        )),
        Body::Refusal(refusal) => Some((
            refusal.exchange.as_ref(),
            &refusal.parts,
            refusal.content_key.as_ref(),
            refusal.retention.as_ref(),
        )),
        Body::Attempt(attempt) | Body::SideCall(attempt) => Some((
            Some(&attempt.exchange),
            &attempt.parts,
            attempt.content_key.as_ref(),
            attempt.retention.as_ref(),
        )),
        _ => None,
    }
}

fn wanted(batch: &VerifiedBatch) -> BTreeMap<(u64, PartName), Wanted> {
    let mut out = BTreeMap::new();
    for row in batch.rows() {
        let Some(record) = &row.decoded().record else { continue };
        let Some((exchange, parts, key, class)) = parts_of(&record.body) else { continue };
        for part in parts.iter().filter(|part| part.kept != Some(false)) {
            let wanted = Wanted {
                exchange: exchange.cloned(),
                length: part.length,
                commitment: part.commitment,
                class: class.map(ToString::to_string),
                key: key.map(ToString::to_string),
                seen: false,
            };
            out.insert((row.position(), part.part), wanted);
        }
    }
    out
}

/// The records of kinds that nobody here knows: what content is theirs is not judged.
fn strangers(batch: &VerifiedBatch) -> BTreeSet<u64> {
    let unknown = batch.rows().iter().filter(|row| row.decoded().record.is_none());
    unknown.map(|row| row.position()).collect()
}

/// Checks the content files of a proven batch.
pub(crate) fn check(
    context: &Context<'_>,
    batch: &VerifiedBatch,
    facts: &mut ContentFacts,
    findings: &mut Findings,
) {
    let (mut wanted, strangers) = (wanted(batch), strangers(batch));
    let files = std::mem::take(&mut facts.files);
    for File { opened, class, place } in files {
        let file = Of { class, place };
        let rows = match read_content(opened, &FileLimits::default()) {
            Ok(rows) => rows,
            Err(error) => {
                facts.unread |= matches!(error, FileError::Read(_));
                file_error(error, &file.place, findings);
                continue;
            }
        };
        let number = batch.seal().batch;
        let mut reading: Option<Reading> = None;
        let mut last: Option<(u64, PartName)> = None;
        for row in rows {
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    facts.unread |= matches!(error, FileError::Read(_));
                    file_error(error, &file.place, findings);
                    reading = None;
                    break;
                }
            };
            let at = (row.position, row.part);
            if last != Some(at) {
                if let Some(done) = reading.take() {
                    done.finish(facts, findings);
                }
                if last.is_some_and(|last| last.0 > at.0) {
                    let place = file.place.clone().at(row.position).of_item(row.part.as_str());
                    findings.add(Code::Order, place, "rows in the order of their positions", "another order");
                }
                last = Some(at);
                if strangers.contains(&row.position) {
                    continue;
                }
                reading = begin(context, &row, &file, &mut wanted, facts, findings);
            }
            if let Some(part) = &mut reading {
                part.row(context, number, row, findings);
            }
        }
        if let Some(done) = reading.take() {
            done.finish(facts, findings);
        }
    }
    if facts.expired || facts.unread {
        return;
    }
    for ((position, part), wanted) in wanted {
        if !wanted.seen {
            let mut place = Place::record(context.origin, position).of_item(part.as_str());
            place.exchange = wanted.exchange.map(|exchange| exchange.to_string());
            let expected = format!("{} bytes of content in a content file of the batch", wanted.length);
            findings.add(Code::ContentMissing, place, expected, "none");
        }
    }
}

fn file_error(error: FileError, place: &Place, findings: &mut Findings) {
    match error {
        FileError::Faults(faults) => {
            for fault in faults {
                findings.push(finding(fault, place.clone()));
            }
        }
        FileError::Read(why) => findings.add(Code::CouldNotRead, place.clone(), "a readable object", why),
        error => findings.add(Code::Unreadable, place.clone(), "a content file", error.to_string()),
    }
}

/// One part, while its rows come.
struct Reading {
    position: u64,
    exchange: ExchangeId,
    part: PartName,
    length: u64,
    commitment: Sha256Hex,
    key_id: Option<KeyId>,
    key: Option<DataKey>,
    next: u32,
    ended: bool,
    broken: bool,
    state: Stream,
    place: Place,
}

enum Stream {
    /// The key is not known: only the rows' order is checked.
    Closed,
    /// Nothing came yet.
    Begin,
    /// Content, committed to piece by piece.
    Plain { salt_and_committer: Box<(Salt, Committer)>, kept: Option<Vec<u8>> },
    /// Edits, put together.
    Edits(Assembler),
}

fn begin(
    context: &Context<'_>,
    row: &Row,
    file: &Of,
    wanted: &mut BTreeMap<(u64, PartName), Wanted>,
    facts: &mut ContentFacts,
    findings: &mut Findings,
) -> Option<Reading> {
    let mut place = file.place.clone().at(row.position).of_exchange(&row.exchange).of_item(row.part.as_str());
    place.origin = Some(context.origin.to_string());
    let Some(part) = wanted.get_mut(&(row.position, row.part)) else {
        findings.add(
            Code::ContentForeign,
            place,
            "content that a leaf of this batch commits to",
            "no such part",
        );
        return None;
    };
    if part.seen {
        findings.add(Code::ContentForeign, place, "each part once", "the part again");
        return None;
    }
    if part.exchange.as_ref() != Some(&row.exchange) {
        let expected = part.exchange.as_ref().map_or("no exchange".into(), ToString::to_string);
        findings.add(Code::ContentForeign, place, expected, row.exchange.to_string());
        return None;
    }
    part.seen = true;
    let key_id = row.key_id.clone();
    let key_text = key_id.as_ref().map(ToString::to_string);
    if key_text != part.key {
        let show = |key: Option<String>| key.unwrap_or_else(|| "no key".into());
        findings.add(
            Code::ContentMismatch,
            place,
            format!("data key {}", show(part.key.clone())),
            show(key_text),
        );
        return None;
    }
    if part.class.as_deref().is_some_and(|class| class != file.class) {
        let expected = format!("retention class {}", part.class.clone().unwrap_or_default());
        findings.add(
            Code::ContentForeign,
            place.clone(),
            expected,
            format!("retention class {}", file.class),
        );
    }
    let (key, state) = match (&key_id, context.keys) {
        (None, _) => (None, Stream::Begin),
        (Some(_), None) => (None, Stream::Closed),
        (Some(id), Some(keys)) => match keys.held(id) {
            Held::Key(key) => (Some(key), Stream::Begin),
            Held::Gone => {
                let used = facts.gone.entry((row.position, id.to_string())).or_insert_with(|| KeyUse {
                    position: row.position,
                    exchange: Some(row.exchange.clone()),
                    key: id.to_string(),
                    parts: 0,
                });
                used.parts += 1;
                (None, Stream::Closed)
            }
            Held::Damaged => {
                let place = place.clone().of_item(id);
                findings.add(
                    Code::KeyTableDamaged,
                    place,
                    "the data key in its slot",
                    "bytes that are no key of this slot",
                );
                (None, Stream::Closed)
            }
            Held::Unread(why) => {
                let place = place.clone().of_item(id);
                findings.add(Code::CouldNotRead, place, "a readable page of the key table", why);
                (None, Stream::Closed)
            }
            Held::OtherTable => {
                facts.keyless += 1;
                (None, Stream::Closed)
            }
        },
    };
    Some(Reading {
        position: row.position,
        exchange: row.exchange.clone(),
        part: row.part,
        length: part.length,
        commitment: part.commitment,
        key_id,
        key,
        next: 0,
        ended: false,
        broken: false,
        state,
        place,
    })
}

impl Reading {
    fn wrong(&mut self, expected: impl Into<String>, found: impl Into<String>, findings: &mut Findings) {
        if !self.broken {
            findings.add(Code::ContentMismatch, self.place.clone(), expected, found);
        }
        self.broken = true;
    }

    fn row(&mut self, context: &Context<'_>, number: u64, row: Row, findings: &mut Findings) {
        if self.broken {
            return;
        }
        if row.chunk != self.next || self.ended {
            let expected = if self.ended {
                "nothing after the last chunk".into()
            } else {
                format!("chunk {}", self.next)
            };
            return self.wrong(expected, format!("chunk {}", row.chunk), findings);
        }
        if row.key_id != self.key_id || row.exchange != self.exchange {
            return self.wrong("one exchange and one data key for all chunks", "another", findings);
        }
        self.next += 1;
        self.ended = row.last;
        if matches!(self.state, Stream::Closed) {
            return;
        }
        let key = self.key_id.as_ref().zip(self.key.as_ref());
        let dictionaries = context.dictionaries.of(context, number, &row.encoding);
        match open_row_with(context.origin, &row, key, dictionaries) {
            Ok(plaintext) => self.open(&row, &plaintext, findings),
            Err(ContentError::DictionaryAbsent(dictionary)) => {
                self.broken = true;
                findings.push(context.dictionaries.absent(dictionary, self.place.clone()));
            }
            Err(error) => self.wrong("content under its data key", error.to_string(), findings),
        }
    }

    fn open(&mut self, row: &Row, plaintext: &[u8], findings: &mut Findings) {
        if matches!(self.state, Stream::Begin) {
            self.state = if matches!(row.encoding, Encoding::Delta { .. }) {
                let limit = usize::try_from(self.length)
                    .unwrap_or(usize::MAX)
                    .saturating_mul(2)
                    .saturating_add(CHUNK_BYTES);
                Stream::Edits(Assembler::new(limit.min(WAITING_OF_BATCH)))
            } else {
                let Some((salt, rest)) = plaintext.split_first_chunk::<SALT_BYTES>() else {
                    return self.wrong("a salt before the content", "less", findings);
                };
                let salt = Salt::from_bytes(*salt);
                let mut committer = Committer::new(&salt);
                committer.update(rest);
                let keeps = usize::try_from(self.length).is_ok_and(|length| length <= KEPT_PART);
                let kept = keeps.then(|| rest.to_vec());
                if !row.last && rest.len() != CHUNK_BYTES {
                    return self.wrong(
                        format!("{CHUNK_BYTES} bytes in every chunk but the last"),
                        rest.len().to_string(),
                        findings,
                    );
                }
                self.state = Stream::Plain { salt_and_committer: Box::new((salt, committer)), kept };
                return;
            };
        }
        match &mut self.state {
            Stream::Edits(assembler) => {
                if let Err(error) = assembler.push(row.chunk, row.last, &row.encoding, plaintext) {
                    let error = error.to_string();
                    self.wrong("chunks that make one part", error, findings);
                }
            }
            Stream::Plain { salt_and_committer, kept } => {
                if matches!(row.encoding, Encoding::Delta { .. }) {
                    return self.wrong("one kind of encoding for a part", "edits after content", findings);
                }
                if !row.last && plaintext.len() != CHUNK_BYTES {
                    let found = plaintext.len().to_string();
                    return self.wrong(
                        format!("{CHUNK_BYTES} bytes in every chunk but the last"),
                        found,
                        findings,
                    );
                }
                salt_and_committer.1.update(plaintext);
                if let Some(kept) = kept {
                    if kept.len() + plaintext.len() > KEPT_PART {
                        self.state_drop_kept();
                    } else {
                        kept.extend_from_slice(plaintext);
                    }
                }
            }
            Stream::Closed | Stream::Begin => {}
        }
    }

    fn state_drop_kept(&mut self) {
        if let Stream::Plain { kept, .. } = &mut self.state {
            *kept = None;
        }
    }

    fn finish(mut self, facts: &mut ContentFacts, findings: &mut Findings) {
        if self.broken {
            return;
        }
        if !self.ended {
            return self.wrong(
                "a last chunk",
                format!("{} chunks, none of them the last", self.next),
                findings,
            );
        }
        match std::mem::replace(&mut self.state, Stream::Begin) {
            Stream::Closed | Stream::Begin => {
                if !facts.gone.contains_key(&(
                    self.position,
                    self.key_id.as_ref().map(ToString::to_string).unwrap_or_default(),
                )) {
                    facts.unopened += 1;
                }
            }
            Stream::Plain { salt_and_committer, kept } => {
                let (length, commitment) = salt_and_committer.1.finish();
                if (length, commitment) != (self.length, self.commitment) {
                    let expected = format!("{} bytes, commitment {}", self.length, self.commitment);
                    return self.wrong(
                        expected,
                        format!("{length} bytes, commitment {commitment}"),
                        findings,
                    );
                }
                facts.proven += 1;
                if let Some(kept) = kept
                    && self.key_id.is_some() | (facts.kept_bytes < KEPT_OF_BATCH)
                    && facts.kept_bytes + kept.len() <= KEPT_OF_BATCH
                {
                    facts.kept_bytes += kept.len();
                    facts.kept.push(((self.exchange, self.part), kept.into()));
                }
            }
            Stream::Edits(assembler) => match assembler.finish() {
                Ok(assembled) => {
                    let Some(base) = assembled.base else {
                        return self.wrong("the base that edits need", "none", findings);
                    };
                    facts.edited_bytes += assembled.stream.len();
                    if facts.edited_bytes > WAITING_OF_BATCH {
                        let found = format!("{} bytes", facts.edited_bytes);
                        findings.add(
                            Code::ResourceLimit,
                            self.place,
                            format!("at most {WAITING_OF_BATCH} bytes of edits in a batch"),
                            found,
                        );
                        return;
                    }
                    facts.edited.push(Edited {
                        position: self.position,
                        exchange: self.exchange,
                        part: self.part,
                        salt: assembled.salt,
                        base,
                        edits: assembled.stream,
                        length: self.length,
                        commitment: self.commitment,
                        place: self.place,
                    });
                }
                Err(error) => self.wrong("chunks that make one part", error.to_string(), findings),
            },
        }
    }
}

/// Contents that later parts may be stored as edits of. Bounded; what fell out is read again.
#[derive(Debug, Default)]
pub(super) struct Bases {
    held: HashMap<(ExchangeId, PartName), (Arc<[u8]>, usize)>,
    order: VecDeque<(ExchangeId, PartName)>,
    bytes: usize,
    /// Those that were searched for and are gone: many parts may be edits of one.
    gone: HashMap<(ExchangeId, PartName), Gone>,
}

impl Bases {
    const BYTES: usize = 256 << 20;
    /// So many are known to be gone; beyond, one is searched for again.
    const GONE: usize = 1 << 16;

    /// A part's content, from memory or read again, and the length of its chain of edits.
    fn content(
        &mut self,
        at: &(ExchangeId, PartName),
        number: u64,
        ids: &Ids,
        loader: &Loader<'_>,
    ) -> Result<(Arc<[u8]>, usize), BaseError> {
        if let Some((content, depth)) = self.held.get(at) {
            return Ok((content.clone(), *depth));
        }
        if let Some(gone) = self.gone.get(at) {
            return Err(BaseError::Gone(*gone));
        }
        loader.load((&at.0, at.1), number, ids, 0)
    }

    /// A part cannot be put together, since what it goes back to is gone.
    fn lost(&mut self, at: (ExchangeId, PartName), gone: Gone) {
        if self.gone.len() < Self::GONE {
            self.gone.insert(at, gone);
        }
    }

    fn put(&mut self, at: (ExchangeId, PartName), content: Arc<[u8]>, depth: usize) {
        self.bytes += content.len();
        if let Some((old, _)) = self.held.insert(at.clone(), (content, depth)) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(at);
        }
        while self.bytes > Self::BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((old, _)) = self.held.remove(&oldest) {
                self.bytes -= old.len();
            }
        }
    }
}

impl ContentFacts {
    /// Applies edits whose base is known now, and tells the log what was proven.
    pub(super) fn merge(self, number: u64, fold: &mut LogFold, bases: &mut Bases, loader: &Loader<'_>) {
        let tally = &mut fold.story.tally;
        tally.parts_proven += self.proven;
        tally.parts_unopened += self.unopened;
        fold.keyless += self.keyless;
        fold.destroyed.extend(self.gone.into_values());
        for (at, content) in self.kept {
            bases.put(at, content, 0);
        }
        for edited in self.edited {
            let base = bases.content(&edited.base, number, &fold.story.ids, loader);
            if let Err(BaseError::Gone(gone)) = &base {
                bases.lost(edited.base.clone(), *gone);
                bases.lost((edited.exchange.clone(), edited.part), *gone);
            }
            match base.and_then(|base| Ok(edited.apply(&base)?)) {
                Ok((content, depth)) => {
                    let commitment = schemas::content::commitment(&edited.salt, &content);
                    if content.len() as u64 != edited.length || commitment != edited.commitment {
                        let expected = format!("{} bytes, commitment {}", edited.length, edited.commitment);
                        let found = format!("{} bytes, commitment {commitment}", content.len());
                        fold.findings.add(Code::ContentMismatch, edited.place, expected, found);
                    } else {
                        fold.story.tally.parts_proven += 1;
                        bases.put((edited.exchange, edited.part), content.into(), depth);
                    }
                }
                Err(BaseError::Content(ContentError::KeyAbsent(_))) => {
                    fold.story.tally.parts_unopened += 1;
                }
                Err(BaseError::Content(ContentError::DictionaryAbsent(dictionary))) => {
                    let place = edited.place.at(edited.position);
                    fold.findings.push(loader.context.dictionaries.absent(dictionary, place));
                }
                Err(error) => fold.findings.push(edited.without_base(error, self.is_old)),
            }
        }
    }
}

impl Edited {
    /// The content, and the length of its chain of edits.
    fn apply(&self, (base, depth): &(Arc<[u8]>, usize)) -> Result<(Vec<u8>, usize), ContentError> {
        if depth + 1 > MAX_DELTA_DEPTH {
            return Err(ContentError::Delta { offset: 0, reason: TOO_DEEP });
        }
        let limit = usize::try_from(self.length).unwrap_or(usize::MAX);
        Ok((apply(base, &self.edits, limit)?, depth + 1))
    }

    fn without_base(&self, error: BaseError, is_old: bool) -> Finding {
        let place = self.place.clone().at(self.position);
        let expected = format!("edits of {} of exchange {}", self.base.1.as_str(), self.base.0);
        match error {
            BaseError::Content(error) => {
                Finding::new(Code::ContentMismatch, place, expected, error.to_string())
            }
            BaseError::Unread(error) => read_error(error, place),
            BaseError::Gone(Gone::Expired) if is_old => {
                Finding::new(Code::Expired, place, expected, "expired")
            }
            BaseError::Gone(Gone::Expired) => {
                Finding::new(Code::BaseExpired, place, expected, "removed after its own retention")
            }
            BaseError::Gone(Gone::Missing) => {
                Finding::new(Code::ContentMissing, place, expected, "not there")
            }
            BaseError::Limit => {
                let found = "not in the batches that were searched for it";
                Finding::new(Code::ResourceLimit, place, expected, found)
            }
        }
    }
}

/// Where a part stands: the record that commits to it, its exchange, its name.
pub(crate) type At = (u64, ExchangeId, PartName);

/// Puts the wanted parts of a batch's content files together, in the files' order. What is given is not yet held
/// against a commitment.
///
/// # Errors
/// A file whose bytes the system did not give: nothing is said of the part that was being read, and of those behind it.
pub(crate) fn each_part(
    context: &Context<'_>,
    number: u64,
    files: Vec<(String, Opened)>,
    limit: usize,
    wants: &dyn Fn(&ExchangeId, PartName) -> bool,
    each: &mut dyn FnMut(At, Result<Assembled, ContentError>),
) -> Result<(), SourceError> {
    for (file, opened) in files {
        let name = || format!("{}/{file}", context.origin);
        let rows = match read_content(opened, &FileLimits::default()) {
            Err(FileError::Read(why)) => return Err(unread(name(), why)),
            // What is wrong with the file is a finding of its batch.
            Err(_) => continue,
            Ok(rows) => rows,
        };
        let mut reading: Option<(At, Result<Assembler, ContentError>)> = None;
        let done = |reading: Option<(At, Result<Assembler, ContentError>)>,
                    each: &mut dyn FnMut(At, Result<Assembled, ContentError>)| {
            if let Some((at, assembler)) = reading {
                each(at, assembler.and_then(Assembler::finish));
            }
        };
        for row in rows {
            let row = match row {
                Err(FileError::Read(why)) => return Err(unread(name(), why)),
                Err(_) => break,
                Ok(row) => row,
            };
            let at = (row.position, row.exchange.clone(), row.part);
            if !wants(&row.exchange, row.part) {
                done(reading.take(), each);
                continue;
            }
            if reading.as_ref().is_none_or(|(reading, _)| *reading != at) {
                done(reading.take(), each);
                reading = Some((at, Ok(Assembler::new(limit))));
            }
            if let Some((_, assembler)) = &mut reading
                && let Ok(open) = assembler
                && let Err(error) = take(context, number, &row, open)
            {
                *assembler = Err(error);
            }
        }
        done(reading.take(), each);
    }
    Ok(())
}

fn unread(name: String, why: String) -> SourceError {
    SourceError::Io { name, error: std::io::Error::other(why) }
}

fn take(
    context: &Context<'_>,
    number: u64,
    row: &Row,
    assembler: &mut Assembler,
) -> Result<(), ContentError> {
    let key = match &row.key_id {
        None => None,
        Some(id) => match context.keys.map(|keys| keys.held(id)) {
            Some(Held::Key(key)) => Some((id, key)),
            _ => return Err(ContentError::KeyAbsent(id.clone())),
        },
    };
    let key = key.as_ref().map(|(id, key)| (*id, key));
    let dictionaries = context.dictionaries.of(context, number, &row.encoding);
    let plaintext = open_row_with(context.origin, row, key, dictionaries)?;
    assembler.push(row.chunk, row.last, &row.encoding, &plaintext)
}

/// Finds one part's rows in a batch's content files and puts it together; `base` gives the content of the part that
/// it edits.
pub(crate) fn read_part(
    context: &Context<'_>,
    (number, files): (u64, Vec<(String, Opened)>),
    exchange: &ExchangeId,
    part: PartName,
    limit: usize,
    base: &mut dyn FnMut(&ExchangeId, PartName) -> Result<(Arc<[u8]>, usize), BaseError>,
) -> Result<(Vec<u8>, Salt, usize), BaseError> {
    let mut found = None;
    let wants = |of: &ExchangeId, name: PartName| of == exchange && name == part;
    each_part(context, number, files, limit, &wants, &mut |_, assembled| found = Some(assembled))?;
    let absent = || ContentError::BaseAbsent(format!("{exchange} {}", part.as_str()));
    let assembled = found.ok_or_else(absent)??;
    match &assembled.base {
        None => Ok((assembled.stream, assembled.salt, 0)),
        Some((base_exchange, base_part)) => {
            let (base, depth) = base(base_exchange, *base_part)?;
            let content = apply(&base, &assembled.stream, limit)?;
            Ok((content, assembled.salt, depth + 1))
        }
    }
}
