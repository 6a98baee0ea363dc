//! A family of metrics, a row for each set of labels, that can be looked through: those
//! that no configuration names any more are taken away.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::names::{Named, Names};

/// The rows. Clones are the same.
pub(crate) struct Rows<L, M> {
    rows: Arc<RwLock<HashMap<L, M>>>,
    make: fn() -> M,
}

impl<L, M: Default> Default for Rows<L, M> {
    fn default() -> Self {
        Self::made_by(M::default)
    }
}

impl<L, M> Rows<L, M> {
    /// Of metrics that are not made without being told how.
    pub(crate) fn made_by(make: fn() -> M) -> Self {
        Self { rows: Arc::default(), make }
    }
}

impl<L, M> Clone for Rows<L, M> {
    fn clone(&self) -> Self {
        Self { rows: Arc::clone(&self.rows), make: self.make }
    }
}

impl<L, M> fmt::Debug for Rows<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl<L: Clone + Eq + Hash, M: Clone> Rows<L, M> {
    /// The row of `labels`, which begins here where there is none.
    pub(crate) fn get_or_create(&self, labels: &L) -> M {
        if let Some(row) = self.rows.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return row.clone();
        }
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.entry(labels.clone()).or_insert_with(self.make).clone()
    }

    /// Takes a row away.
    pub(crate) fn remove(&self, labels: &L) {
        self.rows.write().unwrap_or_else(PoisonError::into_inner).remove(labels);
    }
}

impl<L: Named, M> Rows<L, M> {
    /// Takes the rows away that none of the configurations names.
    pub(crate) fn keep(&self, in_use: &[Arc<Names>]) {
        let is_named = |labels: &L| in_use.iter().any(|names| labels.is_of(names));
        self.rows.write().unwrap_or_else(PoisonError::into_inner).retain(|labels, _| is_named(labels));
    }
}

impl<L, M> EncodeMetric for Rows<L, M>
where
    L: EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, row) in self.rows.read().unwrap_or_else(PoisonError::into_inner).iter() {
            row.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
