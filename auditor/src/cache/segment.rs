//! Runs of batches as Parquet files, named by the SHA-256 of the run's last seal.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use schemas::verify::VerifiedBatch;
use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use super::columns::{Rows, batches_schema, records_schema};

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

impl Segment {
    /// The name of its file of this kind: `records` or `batches`.
    pub(super) fn file(&self, kind: &str) -> String {
        format!("{}.{kind}.parquet", self.seal)
    }
}

/// How files of rows are written that only this auditor reads.
pub(crate) fn properties() -> anyhow::Result<WriterProperties> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(64 * 1024))
        .build())
}

/// A segment that is being written.
pub(super) struct Writing {
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
    pub(super) fn new(folder: PathBuf, first: u64) -> anyhow::Result<Self> {
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

    pub(super) fn batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64) -> anyhow::Result<()> {
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

    pub(super) fn finish(mut self) -> anyhow::Result<Segment> {
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

pub(super) fn hash_file(path: &Path) -> io::Result<Sha256Hex> {
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

/// Merges all segments of a log into one.
pub(super) fn merge(folder: &Path, segments: &mut Vec<Segment>) -> anyhow::Result<()> {
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
