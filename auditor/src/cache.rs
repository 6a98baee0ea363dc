//! The cache of proven rows: Parquet files made by us, in the auditor's private folder. Never decrypted content.
//!
//! ```text
//! <state>/cache/<deployment and keys>/<deployment>/<gateway>/<epoch>/
//!   log.json                       what was found out so far, and the segments; first line its MAC by the local key
//!   <seal>.records.parquet         the rows of a run of batches, named by the SHA-256 of the run's last seal
//!   <seal>.batches.parquet         one row a batch
//! ```
//! `log.json` names each segment's SHA-256; a segment is hashed before it is read. Whatever does not fit is dropped
//! and proven anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use schemas::columns::{COLUMNS, Cell, ColumnKind};
use schemas::trust::Trust;
use schemas::verify::{SealTail, VerifiedBatch};
use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use crate::finding::{Code, Findings, Place};
use crate::state::State;
use crate::verify::Sink;
use crate::verify::log::LogFold;

const LABEL: &str = "affidavit/auditor/cache/v1";
/// More segments of a log than this are merged.
const MOST_SEGMENTS: usize = 16;
/// Rows that are turned into columns together.
const ROWS_AT_ONCE: usize = 8192;

/// A run of batches in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The first batch.
    pub first: u64,
    /// The last batch.
    pub last: u64,
    /// SHA-256 of the last batch's seal: the files' name.
    pub seal: Sha256Hex,
    /// How many rows.
    pub rows: u64,
    /// SHA-256 of the rows' file.
    pub records: Sha256Hex,
    /// SHA-256 of the batches' file.
    pub batches: Sha256Hex,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tail {
    batch: u64,
    to: u64,
    root: Sha256Hex,
    time: i64,
    sha256: Sha256Hex,
    closed: Option<bool>,
}

impl Tail {
    fn of(tail: &SealTail) -> Self {
        let SealTail { batch, to, root, time, sha256, closed, .. } = tail.clone();
        Self { batch, to, root, time, sha256, closed }
    }
    fn tail(&self, origin: &Origin) -> SealTail {
        let Self { batch, to, root, time, sha256, closed } = self.clone();
        SealTail { origin: origin.clone(), batch, to, root, time, sha256, closed }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkpoint {
    version: String,
    fold: LogFold,
    tail: Tail,
    segments: Vec<Segment>,
}

/// The cache's version: the binary's, since what was checked depends on it.
const VERSION: &str = concat!("auditor ", env!("CARGO_PKG_VERSION"), " cache 1");

/// The columns of the table `records`.
pub fn records_schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("batch", DataType::Int64, false),
    ];
    fields.extend(COLUMNS.iter().map(|column| Field::new(column.name, data_type(column.kind), true)));
    fields.push(Field::new("leaf", DataType::Utf8, false));
    fields.push(Field::new("leaf_hash", DataType::Utf8, false));
    Arc::new(Schema::new(fields))
}

fn data_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::Utf8 => DataType::Utf8,
        ColumnKind::Int64 => DataType::Int64,
        ColumnKind::Bool => DataType::Boolean,
        ColumnKind::Decimal => DataType::Decimal128(38, 12),
        ColumnKind::TimestampUs => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The columns of the table `batches`.
pub fn batches_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("batch", DataType::Int64, false),
        Field::new("from_position", DataType::Int64, false),
        Field::new("to_position", DataType::Int64, false),
        Field::new("root", DataType::Utf8, false),
        Field::new("seal", DataType::Utf8, false),
        Field::new("sealed_at", time, false),
        Field::new("files", DataType::Int64, false),
        Field::new("bytes", DataType::Int64, false),
    ]))
}

/// Builds one typed column.
enum Builder {
    Text(StringBuilder),
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Decimal(Decimal128Builder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Utf8 => Self::Text(StringBuilder::new()),
            ColumnKind::Int64 => Self::Int(Int64Builder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Decimal => {
                Self::Decimal(Decimal128Builder::new().with_data_type(DataType::Decimal128(38, 12)))
            }
            ColumnKind::TimestampUs => Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        }
    }
    fn append(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(to), Cell::Text(text)) => to.append_value(text),
            (Self::Int(to), Cell::Int(n)) => to.append_value(n),
            (Self::Bool(to), Cell::Bool(b)) => to.append_value(b),
            (Self::Decimal(to), Cell::Decimal(n)) => to.append_value(n),
            (Self::Time(to), Cell::Int(n)) => to.append_value(n),
            (Self::Text(to), _) => to.append_null(),
            (Self::Int(to), _) => to.append_null(),
            (Self::Bool(to), _) => to.append_null(),
            (Self::Decimal(to), _) => to.append_null(),
            (Self::Time(to), _) => to.append_null(),
        }
    }
    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(from) => Arc::new(from.finish()),
            Self::Int(from) => Arc::new(from.finish()),
            Self::Bool(from) => Arc::new(from.finish()),
            Self::Decimal(from) => Arc::new(from.finish()),
            Self::Time(from) => Arc::new(from.finish()),
        }
    }
}

/// Turns proven leaves into columns.
struct Rows {
    origin: StringBuilder,
    position: Int64Builder,
    batch: Int64Builder,
    typed: Vec<Builder>,
    leaf: StringBuilder,
    hash: StringBuilder,
    count: usize,
}

impl Rows {
    fn new() -> Self {
        Self {
            origin: StringBuilder::new(),
            position: Int64Builder::new(),
            batch: Int64Builder::new(),
            typed: COLUMNS.iter().map(|column| Builder::new(column.kind)).collect(),
            leaf: StringBuilder::new(),
            hash: StringBuilder::new(),
            count: 0,
        }
    }
    fn push(&mut self, origin: &Origin, batch: u64, row: &schemas::verify::VerifiedLeaf) {
        self.origin.append_value(origin.as_str());
        self.position.append_value(i64::try_from(row.position()).unwrap_or(i64::MAX));
        self.batch.append_value(i64::try_from(batch).unwrap_or(i64::MAX));
        for (builder, cell) in self.typed.iter_mut().zip(row.cells()) {
            builder.append(cell);
        }
        self.leaf.append_value(String::from_utf8_lossy(row.leaf()));
        self.hash.append_value(row.hash().to_string());
        self.count += 1;
    }
    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.origin.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.batch.finish()),
        ];
        columns.extend(self.typed.iter_mut().map(Builder::finish));
        columns.push(Arc::new(self.leaf.finish()));
        columns.push(Arc::new(self.hash.finish()));
        self.count = 0;
        RecordBatch::try_new(schema.clone(), columns)
    }
}

fn properties() -> anyhow::Result<WriterProperties> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(64 * 1024))
        .build())
}

/// A segment that is being written.
struct Writing {
    records: ArrowWriter<File>,
    batches: ArrowWriter<File>,
    rows: Rows,
    first: u64,
    last: u64,
    seal: Sha256Hex,
    count: u64,
    folder: PathBuf,
}

impl Writing {
    fn new(folder: PathBuf, first: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cache `{}`", folder.display()))?;
        let open = |name: &str, schema: SchemaRef| -> anyhow::Result<ArrowWriter<File>> {
            let file = private(&folder.join(name))?;
            Ok(ArrowWriter::try_new(file, schema, Some(properties()?))?)
        };
        Ok(Self {
            records: open("records.new", records_schema())?,
            batches: open("batches.new", batches_schema())?,
            rows: Rows::new(),
            first,
            last: first,
            seal: Sha256Hex([0; 32]),
            count: 0,
            folder,
        })
    }

    fn batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64) -> anyhow::Result<()> {
        let seal = batch.seal();
        for row in batch.rows() {
            self.rows.push(origin, seal.batch, row);
            self.count += 1;
            if self.rows.count >= ROWS_AT_ONCE {
                self.flush()?;
            }
        }
        let int = |n: u64| -> ArrayRef {
            Arc::new(arrow::array::Int64Array::from(vec![i64::try_from(n).unwrap_or(i64::MAX)]))
        };
        let text = |text: String| -> ArrayRef { Arc::new(arrow::array::StringArray::from(vec![text])) };
        let time = arrow::array::TimestampMicrosecondArray::from(vec![seal.time]).with_timezone("UTC");
        self.batches.write(&RecordBatch::try_new(
            batches_schema(),
            vec![
                text(origin.to_string()),
                int(seal.batch),
                int(seal.from),
                int(seal.to),
                text(seal.root.to_string()),
                text(seal.sha256().to_string()),
                Arc::new(time),
                int(seal.files.len() as u64),
                int(bytes),
            ],
        )?)?;
        self.last = seal.batch;
        self.seal = seal.sha256();
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.rows.count > 0 {
            self.records.write(&self.rows.take(&records_schema())?)?;
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<Segment> {
        self.flush()?;
        let (records, batches) = (self.records.into_inner()?, self.batches.into_inner()?);
        records.sync_all()?;
        batches.sync_all()?;
        let name = |kind: &str| self.folder.join(format!("{}.{kind}.parquet", self.seal));
        fs::rename(self.folder.join("records.new"), name("records"))?;
        fs::rename(self.folder.join("batches.new"), name("batches"))?;
        Ok(Segment {
            first: self.first,
            last: self.last,
            seal: self.seal,
            rows: self.count,
            records: hash_file(&name("records"))?,
            batches: hash_file(&name("batches"))?,
        })
    }
}

fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn hash_file(path: &Path) -> io::Result<Sha256Hex> {
    let mut file = File::open(path)?;
    let mut hasher = schemas::digest::Hasher::default();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..n]);
    }
}

/// One log of the cache.
struct Log {
    folder: PathBuf,
    checkpoint: Option<Checkpoint>,
    /// Batches up to here are in the segments.
    kept_to: Option<u64>,
    writing: Option<Writing>,
    segments: Vec<Segment>,
    /// The rows cannot be kept: the log is not what the cache holds.
    stale: bool,
}

/// The cache of one deployment.
pub struct Cache<'a> {
    state: &'a State,
    root: PathBuf,
    logs: BTreeMap<Origin, Log>,
    error: Option<anyhow::Error>,
}

impl std::fmt::Debug for Cache<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<'a> Cache<'a> {
    /// Opens the cache for a trust file. Another deployment or key is another cache.
    pub fn open(state: &'a State, trust: &Trust) -> Self {
        let mut keys: Vec<String> =
            trust.gateways.iter().map(|entry| format!("{} {}\n", entry.name, entry.key)).collect();
        keys.extend(trust.registry.iter().map(|registry| format!("{} {}\n", registry.origin, registry.key)));
        keys.extend(trust.root.iter().map(|root| format!("root {root}\n")));
        keys.sort();
        let name = Sha256Hex::of(format!("{}\n{}", trust.deployment, keys.concat()).as_bytes()).to_string();
        let root = state.folder().join("cache").join(name.get(..16).unwrap_or_default());
        Self { state, root, logs: BTreeMap::new(), error: None }
    }

    fn folder(&self, origin: &Origin) -> PathBuf {
        self.root.join(origin.as_str())
    }

    /// What was found out at earlier visits, for logs whose cache is sound. Damage is named and dropped.
    pub fn earlier(&mut self, findings: &mut Findings) -> BTreeMap<Origin, (LogFold, SealTail)> {
        let mut out = BTreeMap::new();
        for folder in log_folders(&self.root) {
            let Some(origin) = folder
                .strip_prefix(&self.root)
                .ok()
                .and_then(|path| path.to_str())
                .and_then(|path| Origin::new(path).ok())
            else {
                continue;
            };
            match self.load(&folder) {
                Ok(Some(checkpoint)) if checkpoint.fold.origin == origin => {
                    let tail = checkpoint.tail.tail(&origin);
                    let mut fold = checkpoint.fold.clone();
                    fold.batches_from_cache = fold.counts.batches;
                    out.insert(origin, (fold, tail));
                }
                Ok(None) => {}
                Ok(Some(_)) => damaged(&folder, "the cache of another log", findings),
                Err(error) => damaged(&folder, &error.to_string(), findings),
            }
        }
        out
    }

    fn load(&self, folder: &Path) -> anyhow::Result<Option<Checkpoint>> {
        let path = folder.join("log.json");
        let body = match self.state.read_authentic(&path, LABEL) {
            Ok(Some(body)) => body,
            Ok(None) => anyhow::bail!("`log.json` does not authenticate"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let checkpoint: Checkpoint = serde_json::from_slice(&body)?;
        if checkpoint.version != VERSION {
            return Ok(None);
        }
        for segment in &checkpoint.segments {
            for (kind, expected) in [("records", segment.records), ("batches", segment.batches)] {
                let path = folder.join(format!("{}.{kind}.parquet", segment.seal));
                anyhow::ensure!(hash_file(&path)? == expected, "`{}` was changed", path.display());
            }
        }
        Ok(Some(checkpoint))
    }

    /// Says from which logs the verification continues; the others are followed from their beginning.
    pub fn begin(&mut self, earlier: &BTreeMap<Origin, (LogFold, SealTail)>) {
        for folder in log_folders(&self.root) {
            let Some(origin) = folder
                .strip_prefix(&self.root)
                .ok()
                .and_then(|path| path.to_str())
                .and_then(|path| Origin::new(path).ok())
            else {
                continue;
            };
            // Where everything is verified anew, the rows of batches that turn out the same need not be written again.
            let checkpoint = self.load(&folder).ok().flatten();
            let log = Log {
                kept_to: checkpoint.as_ref().map(|checkpoint| checkpoint.tail.batch),
                segments: checkpoint
                    .as_ref()
                    .map(|checkpoint| checkpoint.segments.clone())
                    .unwrap_or_default(),
                checkpoint,
                folder,
                writing: None,
                stale: false,
            };
            let _ = earlier;
            self.logs.insert(origin, log);
        }
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        match self.error.take() {
            Some(error) => Err(error.context("the cache of proven rows cannot be written")),
            None => Ok(()),
        }
    }

    /// The files of the tables `records` and `batches`.
    pub fn files(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut records = Vec::new();
        let mut batches = Vec::new();
        for log in self.logs.values().filter(|log| !log.stale) {
            for segment in &log.segments {
                records.push(log.folder.join(format!("{}.records.parquet", segment.seal)));
                batches.push(log.folder.join(format!("{}.batches.parquet", segment.seal)));
            }
        }
        (records, batches)
    }

    /// True where a log turned out to be another than the cache held: it must be followed anew.
    pub fn is_stale(&self) -> bool {
        self.logs.values().any(|log| log.stale)
    }

    /// Forgets logs that turned out to be others than the cache held.
    pub fn forget_stale(&mut self) {
        for log in self.logs.values().filter(|log| log.stale) {
            let _ = fs::remove_dir_all(&log.folder);
        }
        self.logs.retain(|_, log| !log.stale);
    }

    fn try_batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64) -> anyhow::Result<()> {
        let folder = self.folder(origin);
        let log = self.logs.entry(origin.clone()).or_insert_with(|| Log {
            folder: folder.clone(),
            checkpoint: None,
            kept_to: None,
            writing: None,
            segments: Vec::new(),
            stale: false,
        });
        let seal = batch.seal();
        if let (Some(kept_to), Some(checkpoint)) = (log.kept_to, &log.checkpoint)
            && seal.batch <= kept_to
        {
            if seal.batch == kept_to && seal.sha256() != checkpoint.tail.sha256 {
                log.stale = true;
            }
            return Ok(());
        }
        if log.writing.is_none() {
            log.writing = Some(Writing::new(folder, seal.batch)?);
        }
        match &mut log.writing {
            Some(writing) => writing.batch(origin, batch, bytes),
            None => Ok(()),
        }
    }

    fn try_log(&mut self, fold: &LogFold, tail: Option<&SealTail>) -> anyhow::Result<()> {
        let Some(log) = self.logs.get_mut(&fold.origin) else { return Ok(()) };
        let Some(tail) = tail else { return Ok(()) };
        if log.kept_to.is_some_and(|kept_to| tail.batch < kept_to) {
            log.stale = true;
        }
        if log.stale {
            return Ok(());
        }
        if let Some(writing) = log.writing.take() {
            log.segments.push(writing.finish()?);
        }
        if log.segments.len() > MOST_SEGMENTS {
            merge(&log.folder, &mut log.segments)?;
        }
        let checkpoint = Checkpoint {
            version: VERSION.into(),
            fold: fold.clone(),
            tail: Tail::of(tail),
            segments: log.segments.clone(),
        };
        fs::create_dir_all(&log.folder)?;
        self.state.write_authentic(&log.folder.join("log.json"), LABEL, &serde_json::to_vec(&checkpoint)?)?;
        sweep(&log.folder, &log.segments);
        Ok(())
    }
}

impl Sink for Cache<'_> {
    fn batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64) {
        if self.error.is_none() {
            self.error = self.try_batch(origin, batch, bytes).err();
        }
    }
    fn log(&mut self, fold: &LogFold, tail: Option<&SealTail>) {
        if self.error.is_none() {
            self.error = self.try_log(fold, tail).err();
        }
    }
}

fn damaged(folder: &Path, why: &str, findings: &mut Findings) {
    let place = Place::object(folder.display().to_string());
    findings.add(Code::CacheDamaged, place, "a cache that this auditor wrote", why);
    let _ = fs::remove_dir_all(folder);
}

fn log_folders(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned()];
    for _ in 0..3 {
        let children = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        folders =
            children.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    }
    folders.sort();
    folders
}

/// Merges all segments of a log into one.
fn merge(folder: &Path, segments: &mut Vec<Segment>) -> anyhow::Result<()> {
    let (Some(first), Some(last)) = (segments.first().cloned(), segments.last().cloned()) else {
        return Ok(());
    };
    let mut hashes = Vec::new();
    for kind in ["records", "batches"] {
        let schema = if kind == "records" { records_schema() } else { batches_schema() };
        let new = folder.join(format!("{kind}.new"));
        let mut writer = ArrowWriter::try_new(private(&new)?, schema, Some(properties()?))?;
        for segment in segments.iter() {
            let file = File::open(folder.join(format!("{}.{kind}.parquet", segment.seal)))?;
            for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
                writer.write(&batch?)?;
            }
        }
        writer.into_inner()?.sync_all()?;
        // The last segment's files go over to the new ones only when `log.json` says so: another name until then.
        hashes.push((hash_file(&new)?, new));
    }
    let merged = Segment {
        first: first.first,
        last: last.last,
        seal: Sha256Hex::of(format!("{} {} merged", first.seal, last.seal).as_bytes()),
        rows: segments.iter().map(|segment| segment.rows).sum(),
        records: hashes[0].0,
        batches: hashes[1].0,
    };
    for ((_, new), kind) in hashes.iter().zip(["records", "batches"]) {
        fs::rename(new, folder.join(format!("{}.{kind}.parquet", merged.seal)))?;
    }
    *segments = vec![merged];
    Ok(())
}

/// Removes files that no segment names.
fn sweep(folder: &Path, segments: &[Segment]) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let named = segments.iter().any(|segment| name.starts_with(&segment.seal.to_string()));
        if !named && name != "log.json" {
            let _ = fs::remove_file(entry.path());
        }
    }
}
