//! What a call in a provider's log may be of, and the evidence does not show: exchanges outside of what is proven, and those
//! that have no outcome yet, whose provider ids are in no record.

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;

use super::compare::Known;
use crate::query;
use crate::report::{Interval, LogReport, Report};
use crate::time::{self, SECOND};

/// How far a line of a log may be from the exchange that it is of, by the gateway's clock: clocks differ, and a line may be
/// written a while after the call.
pub(super) const AROUND: i64 = 300 * SECOND;

/// A stretch of time in which exchanges may be that the evidence does not show whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    from: i64,
    to: i64,
    why: String,
}

/// Where the evidence ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    stretches: Vec<Stretch>,
}

impl Edges {
    /// Of a verified store.
    ///
    /// # Errors
    /// As the query.
    pub async fn read(context: &SessionContext, report: &Report) -> anyhow::Result<Self> {
        let mut edges = Self::of(report);
        let sql = "SELECT origin, min(started_at) FROM exchanges WHERE state = 'open' GROUP BY origin ORDER BY origin";
        let mut rows = query::stream(query::ask(context, sql).await?).await?;
        while let Some(batch) = rows.try_next().await? {
            let origins = cast(batch.column(0), &DataType::Utf8)?;
            let times = cast(batch.column(1), &DataType::Int64)?;
            let (origins, times) = (origins.as_string::<i32>(), times.as_primitive::<Int64Type>());
            for row in (0..batch.num_rows()).filter(|row| times.is_valid(*row)) {
                edges.open(report, origins.value(row), times.value(row));
            }
        }
        Ok(edges)
    }

    /// Without what is open.
    fn of(report: &Report) -> Self {
        let mut edges = Self::default();
        let logs = || report.gateways.iter().flat_map(|gateway| &gateway.logs);
        if let Some(begins) = logs().filter_map(|log| log.proven.first()).map(|run| run.from).min() {
            edges.push(i64::MIN, begins, format!("the evidence begins at {}", time::text(begins)));
        }
        for gateway in &report.gateways {
            if let Some(exposure) = gateway.exposure {
                let why =
                    format!("the evidence of {} ends at {}", gateway.gateway, time::text(exposure.from));
                edges.push(exposure.from, i64::MAX, why);
            }
        }
        for log in logs() {
            if let (None, Some(end)) = (&log.closed, end(log)) {
                let why = format!("the evidence of {} ends at {}", log.origin, time::text(end));
                edges.push(end, i64::MAX, why);
            }
            for (run, next) in log.proven.iter().zip(log.proven.iter().skip(1)) {
                let (from, to) = (time::text(run.to), time::text(next.from));
                let why = format!("nothing is proven of {} from {from} to {to}", log.origin);
                edges.push(run.to, next.from, why);
            }
        }
        edges
    }

    /// Of a log, the first exchange that is open began at a time.
    fn open(&mut self, report: &Report, origin: &str, from: i64) {
        let mut logs = report.gateways.iter().flat_map(|gateway| &gateway.logs);
        // Nothing of a closed log is behind its end.
        let closed = logs.find(|log| log.origin.as_str() == origin && log.closed.is_some());
        let to = closed.and_then(end).unwrap_or(i64::MAX);
        self.push(from, to, format!("an exchange of {origin} is open since {}", time::text(from)));
    }

    fn push(&mut self, from: i64, to: i64, why: String) {
        self.stretches.push(Stretch { from, to, why });
    }

    /// Why a call at a time may be of an exchange that the evidence does not show; none where it cannot.
    pub(super) fn why(&self, at: i64) -> Option<&str> {
        let near = |stretch: &&Stretch| {
            at.saturating_add(AROUND) >= stretch.from && at.saturating_sub(AROUND) <= stretch.to
        };
        self.stretches.iter().find(near).map(|stretch| stretch.why.as_str())
    }
}

/// Goes through the exchanges and attempts that have a provider's id, from a while before a time on: calls of that time end
/// later, also behind what was asked.
///
/// # Errors
/// As the query.
pub async fn known(
    context: &SessionContext,
    from: i64,
    mut see: impl FnMut(Known<'_>),
) -> anyhow::Result<()> {
    let after = time::text(from.saturating_sub(AROUND));
    let filter = format!("(request_id IS NOT NULL OR response_id IS NOT NULL) AND at >= TIMESTAMP '{after}'");
    let sql = format!(
        "SELECT request_id, response_id, provider, target, dialect FROM ({})",
        query::dispatches("records", &filter)
    );
    let mut rows = query::stream(query::ask(context, &sql).await?).await?;
    while let Some(batch) = rows.try_next().await? {
        let columns: Vec<ArrayRef> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let texts: Vec<Option<&str>> = columns
                .iter()
                .map(|column| column.as_string::<i32>())
                .map(|column| column.is_valid(row).then(|| column.value(row)))
                .collect();
            if let [request, response, provider, target, dialect] = texts[..] {
                see(Known {
                    ids: [request, response].into_iter().flatten().collect(),
                    provider: provider.unwrap_or_default(),
                    target: target.unwrap_or_default(),
                    dialect: dialect.unwrap_or_default(),
                });
            }
        }
    }
    Ok(())
}

/// The end of what is proven of a log.
fn end(log: &LogReport) -> Option<i64> {
    log.proven.last().map(|run: &Interval| run.to)
}
