//! Batches that were asked for through the gateway. What their lines used is in no record; the provider tells it when they end.

use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;

use super::{Bucket, Export};
use crate::query;
use crate::time::{self, DAY, SECOND};

/// How many hours before its use is told a batch may have been asked for: providers end it within a day, and it takes a while
/// until they say so.
pub(super) const HOURS: i64 = 30;

const TAKES: i64 = HOURS * 3600 * SECOND;

/// One that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// When, microseconds UTC.
    pub at: i64,
    /// The configured provider.
    pub provider: String,
    /// The target.
    pub target: Option<String>,
    /// The dialect.
    pub dialect: String,
}

/// What the evidence knows of them.
#[derive(Debug, Clone, Default)]
pub struct AskedFor {
    /// When the evidence begins, microseconds UTC.
    pub begins: i64,
    /// All of them.
    pub batches: Vec<Batch>,
}

impl AskedFor {
    /// Reads those that explain use from `from` on: by when they were asked for, since of what a crash cut in half the outcome is
    /// written by the next start. One that every target refused, or that was sent to none, is none.
    ///
    /// # Errors
    /// As the queries.
    pub async fn read(context: &SessionContext, from: i64) -> anyhow::Result<Self> {
        // A sum may begin up to a day before what was asked.
        let after = format!("at >= TIMESTAMP '{}'", time::text(from.saturating_sub(DAY + TAKES)));
        // Of an attempt `status` is the provider's.
        let sql = format!(
            "SELECT i.at, coalesce(d.provider, i.provider), coalesce(d.target, i.target), coalesce(d.dialect, i.dialect) \
             FROM (SELECT * FROM records WHERE kind = 'intent' AND operation LIKE '%batches.create' AND {after}) i \
             LEFT JOIN ({}) d ON d.origin = i.origin AND d.intent_position = i.position \
             WHERE coalesce(CASE WHEN d.kind = 'attempt' THEN d.status ELSE d.provider_status END, 0) < 400 \
             AND coalesce(d.\"end\", '') <> 'unreachable'",
            query::dispatches("records", &after)
        );
        let mut out = Self { begins: i64::MAX, batches: Vec::new() };
        let mut rows = query::stream(query::ask(context, &sql).await?).await?;
        while let Some(batch) = rows.try_next().await? {
            let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
            let (providers, targets, dialects) = (text(1)?, text(2)?, text(3)?);
            let times = cast(batch.column(0), &DataType::Int64)?;
            for row in 0..batch.num_rows() {
                let value = |column: &arrow::array::ArrayRef| {
                    let column = column.as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_owned())
                };
                out.batches.push(Batch {
                    at: times.as_primitive::<Int64Type>().value(row),
                    provider: value(&providers).unwrap_or_default(),
                    target: value(&targets),
                    dialect: value(&dialects).unwrap_or_default(),
                });
            }
        }
        let mut rows = query::stream(query::ask(context, "SELECT min(at) FROM records").await?).await?;
        while let Some(batch) = rows.try_next().await? {
            let times = cast(batch.column(0), &DataType::Int64)?;
            let times = times.as_primitive::<Int64Type>();
            out.begins = times.iter().flatten().fold(out.begins, i64::min);
        }
        Ok(out)
    }

    /// Those that an export is about, and that may have been told of in a stretch of time.
    pub(super) fn within<'a>(
        &'a self,
        export: &'a Export,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = &'a Batch> {
        let about = |batch: &&Batch| export.is_about(&batch.provider, &batch.dialect);
        let times = from.saturating_sub(TAKES)..to;
        self.batches.iter().filter(move |batch| times.contains(&batch.at)).filter(about)
    }

    /// Whether those that a sum may be of lie before the evidence.
    pub(super) fn reaches_before(&self, bucket: &Bucket) -> bool {
        bucket.from.saturating_sub(TAKES) < self.begins
    }
}
