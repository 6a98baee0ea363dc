//! What is proven of the logs and records that receipts name.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;
use schemas::record::Body;
use schemas::trust::public_key;
use schemas::{Origin, Sha256Hex, leaf};

use super::read::Kept;
use crate::finding::Code;
use crate::query;
use crate::report::Report;

/// Positions that one question asks for.
const AT_ONCE: usize = 500;

/// What a proven `boot` says of promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// The promise key that it names.
    pub key: Option<[u8; 32]>,
    /// How long a record may wait for its batch, microseconds.
    pub batch_age: i64,
}

/// A log of which something is proven, or was and is expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Its `boot`; `None`: the batch with it is not proven, be it missing, damaged or expired.
    pub boot: Option<Boot>,
    /// Its proven size.
    pub size: u64,
    /// It has its `close`.
    pub closed: bool,
    /// Time of its newest batch whose records are expired.
    pub expired_until: Option<i64>,
}

/// A proven record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its leaf hash.
    pub leaf: Sha256Hex,
    /// Its kind.
    pub kind: String,
    /// Its exchange.
    pub exchange: Option<String>,
}

/// What is proven.
#[derive(Debug, Clone, Default)]
pub struct Proven {
    /// By origin.
    pub logs: BTreeMap<Origin, Log>,
    /// The records that receipts name.
    pub records: BTreeMap<(Origin, u64), Record>,
    /// Logs that are gone as a whole, and expired as the verification says.
    pub expired: BTreeSet<Origin>,
    /// What was written before may be gone by the mandate's retention.
    pub gone_before: Option<i64>,
}

impl Proven {
    /// Asks the proven rows.
    ///
    /// # Errors
    /// As the queries.
    pub async fn ask(
        context: &SessionContext,
        report: &Report,
        kept: &[Kept],
        gone_before: Option<i64>,
    ) -> anyhow::Result<Self> {
        let mut proven = Self { gone_before, ..Self::default() };
        for log in report.logs().filter(|log| log.batches > 0 || log.expired_until.is_some()) {
            let (size, closed) = (log.size, log.closed.is_some());
            let log_of = Log { boot: None, size, closed, expired_until: log.expired_until };
            proven.logs.insert(log.origin.clone(), log_of);
        }
        let whole = report.findings.iter().filter(|found| found.code == Code::Expired);
        let whole = whole.filter(|found| found.place.batch.is_none() && found.place.object.is_none());
        proven.expired = whole.filter_map(|found| Origin::new(found.place.origin.as_ref()?).ok()).collect();
        proven.boots(context).await?;
        let mut wanted: BTreeMap<&Origin, BTreeSet<u64>> = BTreeMap::new();
        for promise in kept.iter().filter_map(|kept| kept.promise.as_ref().ok()) {
            if proven.logs.get(&promise.origin).is_some_and(|log| promise.position < log.size) {
                wanted.entry(&promise.origin).or_default().insert(promise.position);
            }
        }
        for (origin, positions) in wanted {
            let positions: Vec<u64> = positions.into_iter().collect();
            for some in positions.chunks(AT_ONCE) {
                proven.some(context, origin, some).await?;
            }
        }
        Ok(proven)
    }

    async fn boots(&mut self, context: &SessionContext) -> anyhow::Result<()> {
        let sql = "SELECT origin, leaf FROM records WHERE kind = 'boot' AND position = 0";
        for rows in query::stream(query::ask(context, sql).await?).await?.try_collect::<Vec<_>>().await? {
            let (origins, leaves) =
                (cast(rows.column(0), &DataType::Utf8)?, cast(rows.column(1), &DataType::Utf8)?);
            for row in 0..rows.num_rows() {
                let origin = Origin::new(origins.as_string::<i32>().value(row))?;
                let Some(log) = self.logs.get_mut(&origin) else { continue };
                let decoded = leaf::decode(leaves.as_string::<i32>().value(row).as_bytes())?;
                let Some(Body::Boot(boot)) = decoded.record.map(|record| record.body) else { continue };
                let key = boot.promise_key.as_deref().and_then(public_key);
                log.boot = Some(Boot { key, batch_age: boot.batch_age_ms.saturating_mul(1000) });
            }
        }
        Ok(())
    }

    async fn some(
        &mut self,
        context: &SessionContext,
        origin: &Origin,
        positions: &[u64],
    ) -> anyhow::Result<()> {
        let list: Vec<String> = positions.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT position, leaf_hash, kind, exchange FROM records WHERE origin = '{origin}' AND position IN ({})",
            list.join(", ")
        );
        for rows in query::stream(query::ask(context, &sql).await?).await?.try_collect::<Vec<_>>().await? {
            let text = |column: usize| cast(rows.column(column), &DataType::Utf8);
            let (hashes, kinds, exchanges) = (text(1)?, text(2)?, text(3)?);
            for row in 0..rows.num_rows() {
                let position = u64::try_from(rows.column(0).as_primitive::<Int64Type>().value(row))?;
                let Some(leaf) = Sha256Hex::parse(hashes.as_string::<i32>().value(row)) else { continue };
                let exchange = (!arrow::array::Array::is_null(&exchanges, row))
                    .then(|| exchanges.as_string::<i32>().value(row).to_owned());
                let kind = kinds.as_string::<i32>().value(row).to_owned();
                self.records.insert((origin.clone(), position), Record { leaf, kind, exchange });
            }
        }
        Ok(())
    }
}
