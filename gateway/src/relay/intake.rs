//! The request body on its way in: bounded in size, in memory, and in time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evidence::{BodySink, Unavailable};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::{MEMORY_UNIT, Snapshot};
use crate::respond::Reason;

/// Bodies up to this are held in memory; longer ones go to disk as they come.
pub(crate) const MEMORY_BYTES: u64 = 1 << 20;

/// Memory that a body of unknown length takes at a time.
const STEP_BYTES: u64 = 64 << 10;

/// The request body as far as it is in memory.
pub(crate) enum Taken {
    /// All of it.
    Whole(Bytes, Memory),
    /// Its start; the rest is still to come.
    Start(Bytes, Memory),
}

/// A share of the memory for bodies. Given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    permits: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

impl Memory {
    /// Takes `bytes` of the budget, waiting for them at most `patience`.
    ///
    /// # Errors
    /// [`Reason::Overloaded`].
    pub(crate) async fn take(
        budget: &Arc<Semaphore>,
        bytes: u64,
        patience: Duration,
    ) -> Result<Self, Reason> {
        let mut memory = Self::default();
        memory.grow(budget, bytes, patience).await?;
        Ok(memory)
    }

    /// Takes more, until it is a share of `to` bytes.
    ///
    /// # Errors
    /// [`Reason::Overloaded`].
    pub(crate) async fn grow(
        &mut self,
        budget: &Arc<Semaphore>,
        to: u64,
        patience: Duration,
    ) -> Result<(), Reason> {
        if to <= self.bytes {
            return Ok(());
        }
        let units = (to - self.bytes).div_ceil(MEMORY_UNIT);
        let units = u32::try_from(units).map_err(|_| Reason::Overloaded)?;
        let more = match Arc::clone(budget).try_acquire_many_owned(units) {
            Ok(more) => more,
            Err(_) => tokio::time::timeout(patience, Arc::clone(budget).acquire_many_owned(units))
                .await
                .map_err(|_| Reason::Overloaded)?
                .map_err(|_| Reason::Overloaded)?,
        };
        match &mut self.permits {
            Some(permits) => permits.merge(more),
            None => self.permits = Some(more),
        }
        self.bytes += u64::from(units) * MEMORY_UNIT;
        Ok(())
    }

    /// Gives back what is more than a share of `to` bytes.
    pub(crate) fn shrink(&mut self, to: u64) {
        let spare = self.bytes.saturating_sub(to) / MEMORY_UNIT;
        let units = usize::try_from(spare).unwrap_or_default();
        if self.permits.as_mut().and_then(|permits| permits.split(units)).is_some() {
            self.bytes -= spare * MEMORY_UNIT;
        }
    }
}

/// Reads the body: all of it, or its start where it is longer than [`MEMORY_BYTES`].
///
/// # Errors
/// Why the request is refused.
pub(crate) async fn start(body: &mut Incoming, snapshot: &Snapshot) -> Result<Taken, Reason> {
    let limits = &snapshot.limits;
    if body.is_end_stream() {
        return Ok(Taken::Whole(Bytes::new(), Memory::default()));
    }
    let known = body.size_hint().exact();
    if known.is_some_and(|length| length > limits.body) {
        return Err(Reason::BodyTooLarge);
    }
    let expected = known.unwrap_or(STEP_BYTES).min(MEMORY_BYTES);
    let mut memory = Memory::take(&snapshot.memory, expected, limits.admission).await?;
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let Some(data) = next(body, limits.body_read).await? else { break };
        let total = (first.len() + joined.len() + data.len()) as u64;
        if total > limits.body {
            return Err(Reason::BodyTooLarge);
        }
        if first.is_empty() && joined.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.reserve(usize::try_from(expected).unwrap_or_default().max(first.len() + data.len()));
                joined.extend_from_slice(&first);
                first = Bytes::new();
            }
            joined.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
        if total > MEMORY_BYTES {
            return Ok(Taken::Start(all(first, joined), memory));
        }
        let room = (total + STEP_BYTES).min(MEMORY_BYTES + STEP_BYTES);
        if known.is_none() && room > memory.bytes {
            memory.grow(&snapshot.memory, room, limits.admission).await?;
        }
    }
    Ok(Taken::Whole(all(first, joined), memory))
}

fn all(first: Bytes, joined: BytesMut) -> Bytes {
    if joined.is_empty() { first } else { joined.freeze() }
}

/// Why a long body was not taken.
pub(crate) enum NotTaken {
    /// The caller's doing.
    Refused(Reason),
    /// The ledger cannot store it.
    Unavailable(Unavailable),
}

/// Moves the rest of a long body, behind `start`, into `sink`.
///
/// # Errors
/// Why the request is refused.
pub(crate) async fn rest(
    start: Bytes,
    body: &mut Incoming,
    sink: &mut BodySink,
    snapshot: &Snapshot,
) -> Result<(), NotTaken> {
    let mut total = start.len() as u64;
    sink.write(start).await.map_err(NotTaken::Unavailable)?;
    while let Some(data) = next(body, snapshot.limits.body_read).await.map_err(NotTaken::Refused)? {
        total += data.len() as u64;
        if total > snapshot.limits.body {
            return Err(NotTaken::Refused(Reason::BodyTooLarge));
        }
        sink.write(data).await.map_err(NotTaken::Unavailable)?;
    }
    Ok(())
}

/// The next bytes of a body; trailers are dropped (RFC 9110 6.5.1 allows it).
async fn next(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, Reason> {
    loop {
        match tokio::time::timeout(patience, body.frame()).await {
            Err(_) => return Err(Reason::BodyTimeout),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(Reason::ClientAbort),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
        }
    }
}

/// Reads and forgets what a refused caller still sends, for a while: a connection that is closed on unread bytes
/// is reset, and the caller would not see why it was refused.
pub(crate) async fn linger(mut body: Incoming, limit: u64) {
    let forget = async {
        let mut total = 0;
        while let Some(Ok(frame)) = body.frame().await {
            total += frame.data_ref().map_or(0, |data| data.len() as u64);
            if total > limit {
                return;
            }
        }
    };
    // Over the bound the connection is closed, and may be reset.
    let _ = tokio::time::timeout(Duration::from_secs(5), forget).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn memory_that_is_not_needed_any_more_goes_back_at_once_and_the_rest_when_dropped() {
        let budget = Arc::new(Semaphore::new(100));
        let mut memory = Memory::take(&budget, 80 * MEMORY_UNIT, Duration::ZERO).await.unwrap();
        assert_eq!(budget.available_permits(), 20);
        assert!(memory.grow(&budget, 101 * MEMORY_UNIT, Duration::ZERO).await.is_err());
        memory.shrink(10 * MEMORY_UNIT + 1);
        assert_eq!(budget.available_permits(), 89);
        memory.shrink(50 * MEMORY_UNIT);
        assert_eq!(budget.available_permits(), 89, "it does not grow");
        memory.grow(&budget, 12 * MEMORY_UNIT, Duration::ZERO).await.unwrap();
        assert_eq!(budget.available_permits(), 88);
        drop(memory);
        assert_eq!(budget.available_permits(), 100);
        Memory::default().shrink(0);
    }
}
