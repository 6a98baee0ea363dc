//! Content that a part is stored as edits of, and that fell out of memory or was read by an earlier run.

use std::sync::Arc;

use schemas::ExchangeId;
use schemas::content::{ContentError, MAX_DELTA_DEPTH};
use schemas::record::PartName;

use super::batch::{Context, Gone};
use super::content::{self, TOO_DEEP};
use super::ids::Ids;
use crate::source::SourceError;

/// The largest content that is put together in memory as the base of edits.
pub(crate) const KEPT_WHOLE: usize = 256 << 20;

/// How many batches are searched for one part.
const SEARCHED: u64 = 1000;

/// Why the base of edits is not at hand.
#[derive(Debug)]
pub(crate) enum BaseError {
    /// It is not in the evidence, is not what edits apply to, or has no key.
    Content(ContentError),
    /// An object that may hold it cannot be read.
    Unread(SourceError),
    /// It is not in what is left of the batches that may hold it.
    Gone(Gone),
    /// It is not in the batches that were searched, and there are more.
    Limit,
}

impl From<ContentError> for BaseError {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<SourceError> for BaseError {
    fn from(error: SourceError) -> Self {
        Self::Unread(error)
    }
}

/// Whether a part stands with the first record of its exchange: what the caller sent, and what was about to be sent.
fn comes_first(part: PartName) -> bool {
    matches!(part, PartName::ClientRequestHead | PartName::ClientRequest | PartName::ProviderRequest)
}

/// Reads content again.
pub(crate) struct Loader<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) limit: usize,
}

impl Loader<'_> {
    /// The content of a part that content of batch `until` is stored as edits of, with the length of its own chain of
    /// edits. It stands in that batch or an earlier one.
    pub(crate) fn load(
        &self,
        (exchange, part): (&ExchangeId, PartName),
        until: u64,
        ids: &Ids,
        depth: usize,
    ) -> Result<(Arc<[u8]>, usize), BaseError> {
        let what = format!("{exchange} {}", part.as_str());
        if depth > MAX_DELTA_DEPTH {
            // Not that it is absent: then each level would go on to search in every other batch.
            return Err(ContentError::Delta { offset: 0, reason: TOO_DEEP }.into());
        }
        let known = ids.batch_of(exchange).filter(|first| *first <= until);
        // The records of an exchange stand in few batches from its first one on.
        let (oldest, newest) = match known {
            Some(first) => (first, until.min(first.saturating_add(SEARCHED))),
            None => (until.saturating_sub(SEARCHED), until),
        };
        let mut gone = None;
        for step in 0..=newest - oldest {
            let number = if known.is_some() { oldest + step } else { newest - step };
            let files = self.context.content_files(number, until)?;
            gone = gone.or(files.gone);
            let mut base = |exchange: &ExchangeId, part| self.load((exchange, part), number, ids, depth + 1);
            let files = (number, files.opened);
            match content::read_part(self.context, files, exchange, part, self.limit, &mut base) {
                Ok((content, _, depth)) => return Ok((content.into(), depth)),
                Err(BaseError::Content(ContentError::BaseAbsent(absent))) if absent == what => {}
                Err(error) => return Err(error),
            }
            // All below what is expired is older, and what comes first stands in no later batch.
            let only_here = step == 0 && known.is_some() && comes_first(part);
            if (only_here && gone.is_some()) || (known.is_none() && gone == Some(Gone::Expired)) {
                break;
            }
        }
        if let Some(gone) = gone {
            return Err(BaseError::Gone(gone));
        }
        let all = if known.is_some() { newest == until } else { oldest == 0 };
        Err(if all { ContentError::BaseAbsent(what).into() } else { BaseError::Limit })
    }
}
