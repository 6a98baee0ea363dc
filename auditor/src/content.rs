//! Content of proven records, opened with the key table and held against its commitments. Never written to any file
//! of the auditor's.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use schemas::content::{ContentError, Salt, apply, commitment};
use schemas::names::FileKind;
use schemas::record::{Part, PartName};
use schemas::seal;
use schemas::trust::Trust;
use schemas::verify::{BatchInput, VerifiedBatch, verify_batch};
use schemas::{ExchangeId, ObjectName, Origin};

use crate::commands::evidence::Opened;
use crate::query::content_schema;
use crate::report::Report;
use crate::source::Source;
use crate::verify::batch::Context;
use crate::verify::content::{At, each_part, parts_of};
use crate::verify::dictionaries::Dictionaries;
use crate::verify::ids::Ids;
use crate::verify::keys::{Held, Keys};
use crate::verify::loader::{BaseError, KEPT_WHOLE, Loader};
use crate::verify::{Limits, seal_name};

/// What became of a part's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    /// Opened, and what the record commits to.
    Proven,
    /// A policy said not to keep it.
    NotKept,
    /// Its data key is not at hand.
    NoKey,
    /// Its data key was destroyed.
    Erased,
    /// It, what it is stored as edits of, or the dictionary that it is written with, is not in the store.
    Missing,
    /// It is not what the record commits to.
    Mismatch,
}

/// All of them.
pub const STATES: [PartState; 6] = [
    PartState::Proven,
    PartState::NotKept,
    PartState::NoKey,
    PartState::Erased,
    PartState::Missing,
    PartState::Mismatch,
];

impl PartState {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::NotKept => "not_kept",
            Self::NoKey => "no_key",
            Self::Erased => "erased",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
        }
    }
}

/// A part of a proven record.
#[derive(Debug, Clone)]
pub struct PartContent {
    /// The record that commits to it.
    pub position: u64,
    /// The exchange.
    pub exchange: ExchangeId,
    /// As the record says.
    pub part: Part,
    /// What became of it.
    pub state: PartState,
    /// Salt and bytes, where it is proven.
    pub opened: Option<(Salt, Vec<u8>)>,
}

/// Reads batches and their content again.
#[derive(Debug, Clone)]
pub struct Reader {
    source: Arc<dyn Source>,
    trust: Trust,
    keys: Option<Arc<Keys>>,
    /// By log; read once, whatever number of batches is asked for.
    dictionaries: Arc<Mutex<BTreeMap<Origin, Arc<Dictionaries>>>>,
}

impl Reader {
    /// Over an opened store.
    pub fn new(opened: &Opened) -> Self {
        Self {
            source: opened.source.clone(),
            trust: opened.in_force().clone(),
            keys: opened.keys.clone(),
            dictionaries: Arc::default(),
        }
    }

    /// The log's own key, and those that may seal its end.
    fn keys(&self, origin: &Origin) -> anyhow::Result<([u8; 32], Vec<[u8; 32]>)> {
        let entry =
            self.trust.gateway(origin).with_context(|| format!("the trust file does not cover {origin}"))?;
        Ok((entry.public_key()?, entry.closing_keys().collect()))
    }

    /// The seal's note and the verified batch.
    ///
    /// # Errors
    /// A batch that does not verify.
    pub fn batch(&self, origin: &Origin, number: u64) -> anyhow::Result<(bytes::Bytes, VerifiedBatch)> {
        let (own, closers) = self.keys(origin)?;
        let limits = Limits::default();
        let note = self.source.read(&seal_name(origin, number), 1 << 20)?;
        let key = closers.into_iter().find(|closer| seal::verify(&note, closer).is_ok()).unwrap_or(own);
        let signed = seal::verify(&note, &key)?;
        let file = signed.file(&FileKind::Records).context("the seal names no records file")?;
        let records = self.source.read(&format!("{origin}/{}", file.name), limits.records_bytes)?;
        let input = BatchInput { origin, key: &key, seal: &note, records };
        let batch = verify_batch(input).map_err(|faults| {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            anyhow::anyhow!("batch {number} of {origin} does not verify: {first}")
        })?;
        anyhow::ensure!(
            batch.seal().batch == number,
            "the seal of batch {number} of {origin} is another batch's"
        );
        Ok((note, batch))
    }

    /// The parts of a batch, or of one exchange of it, as they are opened; the others after them.
    ///
    /// # Errors
    /// A batch whose key is not trusted, or whose content the system does not give.
    pub fn parts(
        &self,
        batch: &VerifiedBatch,
        of: Option<&ExchangeId>,
        each: &mut dyn FnMut(PartContent) -> bool,
    ) -> anyhow::Result<()> {
        let origin = &batch.seal().origin;
        let (key, closers) = self.keys(origin)?;
        let limits = Limits::default();
        let number = batch.seal().batch;
        let dictionaries = {
            let mut known = self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(origin.clone()).or_default().clone()
        };
        let context = Context {
            source: &*self.source,
            origin,
            key: &key,
            closers: &closers,
            limits: &limits,
            keys: self.keys.as_deref(),
            dictionaries: &dictionaries,
            expired_before: None,
            has_seal: &|_| true,
        };
        let loader = Loader { context: &context, limit: KEPT_WHOLE };
        let ids = Ids::default();
        let mut wanted: std::collections::BTreeMap<(u64, PartName), (ExchangeId, Part, Option<String>)> =
            Default::default();
        for row in batch.rows() {
            let Some(record) = &row.decoded().record else { continue };
            let Some((Some(exchange), parts, key, _)) = parts_of(&record.body) else { continue };
            if of.is_some_and(|of| of != exchange) {
                continue;
            }
            for part in parts {
                let key = key.map(ToString::to_string);
                wanted.insert((row.position(), part.part), (exchange.clone(), part.clone(), key));
            }
        }
        let mut goes_on = true;
        let wants = |exchange: &ExchangeId, _| of.is_none_or(|of| of == exchange);
        let mut take = |(position, exchange, name): At,
                        assembled: Result<schemas::content::Assembled, ContentError>| {
            if !goes_on {
                return;
            }
            let Some((_, part, key)) = wanted.remove(&(position, name)).filter(|(of, _, _)| *of == exchange)
            else {
                return;
            };
            let limit = usize::try_from(part.length).unwrap_or(usize::MAX);
            let content = assembled.map_err(BaseError::from).and_then(|assembled| match &assembled.base {
                None => Ok((assembled.salt, assembled.stream)),
                Some((base_exchange, base_part)) => {
                    let (base, _) = loader.load((base_exchange, *base_part), number, &ids, 0)?;
                    Ok((assembled.salt, apply(&base, &assembled.stream, limit)?))
                }
            });
            let (state, opened) = match content {
                Ok((salt, bytes))
                    if bytes.len() as u64 == part.length && commitment(&salt, &bytes) == part.commitment =>
                {
                    (PartState::Proven, Some((salt, bytes)))
                }
                Ok(_) => (PartState::Mismatch, None),
                Err(BaseError::Content(ContentError::KeyAbsent(_))) => {
                    (self.without_key(key.as_deref()), None)
                }
                // What it is stored as edits of, or the dictionary that it was written with, cannot be read or was not found.
                Err(BaseError::Content(ContentError::DictionaryAbsent(_)))
                | Err(BaseError::Unread(_) | BaseError::Gone(_) | BaseError::Limit) => {
                    (PartState::Missing, None)
                }
                Err(_) => (PartState::Mismatch, None),
            };
            goes_on = each(PartContent { position, exchange, part, state, opened });
        };
        let files = context.content_files(number, number)?.opened;
        each_part(&context, number, files, KEPT_WHOLE, &wants, &mut take)?;
        for ((position, _), (exchange, part, _)) in wanted {
            if !goes_on {
                break;
            }
            let state = if part.kept == Some(false) { PartState::NotKept } else { PartState::Missing };
            goes_on = each(PartContent { position, exchange, part, state, opened: None });
        }
        Ok(())
    }

    fn without_key(&self, key: Option<&str>) -> PartState {
        let held =
            self.keys.as_ref().zip(key.and_then(|key| key.parse().ok())).map(|(keys, id)| keys.held(&id));
        if matches!(held, Some(Held::Gone)) { PartState::Erased } else { PartState::NoKey }
    }
}

/// The most bytes that a coded body is decoded to.
const DECODED: u64 = 64 << 20;

/// Undoes an HTTP content coding; `None` where it cannot be undone within 64 MiB.
pub fn decode(bytes: &[u8], coding: Option<&str>) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    let codings = coding.unwrap_or("identity");
    for coding in codings.split(',').rev().map(str::trim) {
        out = match coding {
            "" | "identity" => out,
            "gzip" | "x-gzip" => capped(flate2::read::MultiGzDecoder::new(out.as_slice()))?,
            "deflate" => capped(flate2::read::ZlibDecoder::new(out.as_slice()))
                .or_else(|| capped(flate2::read::DeflateDecoder::new(out.as_slice())))?,
            "br" => capped(brotli::Decompressor::new(out.as_slice(), 4096))?,
            "zstd" => capped(zstd::stream::read::Decoder::new(out.as_slice()).ok()?)?,
            _ => return None,
        };
    }
    Some(out)
}

fn capped(reader: impl std::io::Read) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(DECODED + 1).read_to_end(&mut out).ok()?;
    (out.len() as u64 <= DECODED).then_some(out)
}

/// The content as text: decoded, where it is UTF-8.
pub fn text(part: &PartContent) -> Option<String> {
    let (_, bytes) = part.opened.as_ref()?;
    String::from_utf8(decode(bytes, part.part.content_encoding.as_ref().map(|coding| coding.as_str()))?).ok()
}

/// Rows of the table `content` that are made together.
const ROWS_AT_ONCE: usize = 64;

/// Streams the content of proven batches as rows; holds a few parts at a time.
#[derive(Debug)]
struct ContentStream {
    schema: SchemaRef,
    reader: Reader,
    batches: Vec<(Origin, u64)>,
    /// Parts whose key is not at hand.
    unopened: Arc<AtomicU64>,
}

impl PartitionStream for ContentStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(self.schema.clone(), 2);
        let sender = builder.tx();
        let (reader, batches) = (self.reader.clone(), self.batches.clone());
        let unopened = self.unopened.clone();
        builder.spawn_blocking(move || {
            for (origin, number) in batches {
                let fail = |error: anyhow::Error| {
                    datafusion::error::DataFusionError::Execution(format!("{error:#}"))
                };
                let (_, batch) = reader.batch(&origin, number).map_err(fail)?;
                let mut held = Vec::new();
                let mut each = |part: PartContent| {
                    unopened.fetch_add(u64::from(part.state == PartState::NoKey), Ordering::Relaxed);
                    held.push(part);
                    held.len() < ROWS_AT_ONCE
                        || sender.blocking_send(rows(&origin, &std::mem::take(&mut held))).is_ok()
                };
                reader.parts(&batch, None, &mut each).map_err(fail)?;
                if !held.is_empty() && sender.blocking_send(rows(&origin, &held)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}

fn rows(origin: &Origin, parts: &[PartContent]) -> datafusion::error::Result<RecordBatch> {
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let texts = |of: &dyn Fn(&PartContent) -> Option<String>| -> ArrayRef {
        Arc::new(parts.iter().map(of).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        texts(&|_| Some(origin.to_string())),
        Arc::new(parts.iter().map(|part| int(part.position)).collect::<Int64Array>()),
        texts(&|part| Some(part.exchange.to_string())),
        texts(&|part| Some(part.part.part.as_str().into())),
        texts(&|part| part.part.media_type.as_ref().map(ToString::to_string)),
        texts(&|part| part.part.content_encoding.as_ref().map(ToString::to_string)),
        Arc::new(parts.iter().map(|part| int(part.part.length)).collect::<Int64Array>()),
        texts(&|part| Some(part.state.as_str().into())),
        texts(&text),
    ];
    Ok(RecordBatch::try_new(content_schema(), columns)?)
}

/// The table `content`, over the proven batches of a report; counts the parts that it read and has no key for.
///
/// # Errors
/// The store cannot be listed.
pub fn table(opened: &Opened, report: &Report) -> anyhow::Result<(Arc<dyn TableProvider>, Arc<AtomicU64>)> {
    let mut batches = Vec::new();
    for log in report.logs().filter(|log| log.batches > 0) {
        for entry in opened.source.entries(log.origin.as_str())? {
            if let Ok(ObjectName::Seal { batch, .. }) = ObjectName::parse_file(&log.origin, &entry.name) {
                batches.push((log.origin.clone(), batch));
            }
        }
    }
    let (reader, unopened) = (Reader::new(opened), Arc::new(AtomicU64::new(0)));
    let stream = ContentStream { schema: content_schema(), reader, batches, unopened: unopened.clone() };
    Ok((Arc::new(StreamingTable::try_new(content_schema(), vec![Arc::new(stream)])?), unopened))
}
