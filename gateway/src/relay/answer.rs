//! A provider's answer before any of it is passed on: read ahead as far as it takes to tell whether it is one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dialects::coding::Caps;
use dialects::{FailureClass, Meter, Opened, Operation};
use http::Response;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::back::{WHOLE_BYTES, WHOLE_WITHIN};
use super::intake::Memory;
use super::rest::Rest;
use super::translation::Translated;

/// The most that is read ahead of a stream for its first event.
const FIRST_EVENT: usize = 64 << 10;

/// Smaller pieces are joined as they come: each takes room beside its bytes.
const SMALL: usize = 4 << 10;

/// The most of an answer that is held until it is whole, to tell whether it is one.
const MOST_HELD: usize = 1 << 20;

/// How much of it is read for which room was taken.
const HELD_STEP: usize = 256 << 10;

/// The longest time that it is held: nothing of it is recorded or seen by the caller meanwhile. Who has failed says so at once.
const HELD_FOR: Duration = Duration::from_secs(1);

/// An answer, and how much of it came already.
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) chunks: Vec<Bytes>,
    /// When the first byte of its body came.
    pub(crate) first_byte: Option<std::time::Instant>,
    pub(crate) rest: Rest,
    /// All of it in the caller's words, where it was translated before it was known to be one.
    pub(crate) translated: Option<Translated>,
    /// The room that it takes of the memory for bodies.
    pub(crate) held: Memory,
}

/// What an answer may take until it is whole.
pub(crate) struct Room<'a> {
    /// The memory for bodies.
    pub(crate) budget: &'a Arc<Semaphore>,
    /// The most bytes.
    pub(crate) most: Option<u64>,
    /// The longest silence.
    pub(crate) idle: Duration,
    /// The longest time.
    pub(crate) time: Option<Duration>,
}

/// How an answer begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Began {
    /// As one.
    Well,
    /// With an error in the place of output.
    Failed { status: u16, class: Option<FailureClass> },
    /// It broke off first.
    Cut(String),
    /// Nothing came in time.
    Late,
}

/// How much of an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// As much as was read.
    Part,
    /// It broke off.
    Broken,
}

impl From<Response<Incoming>> for Answer {
    fn from(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let (rest, held) = (body.into(), Memory::default());
        Self { head, chunks: Vec::new(), first_byte: None, rest, translated: None, held }
    }
}

impl Answer {
    /// Reads it as it comes, to tell whether it is one.
    pub(crate) fn judge(&self, operation: Operation) -> Meter {
        let limits = dialects::Limits::default();
        // What is no stream is read up to so many bytes, coded or not.
        let decoded = Caps { bytes: limits.body_bytes as u64, ..limits.decoded };
        let limits = dialects::Limits { decoded, ..limits };
        Meter::new(operation, self.head.status.as_u16(), &self.head.headers, false, limits)
    }

    /// Reads its first event, or the first bytes of what is no stream and what comes with them: a body that breaks off before any of
    /// it goes to the caller is none, and neither is a stream without an event that `is_translated`.
    pub(crate) async fn begins(&mut self, judge: &mut Meter, within: Duration, is_translated: bool) -> Began {
        let is_stream = judge.framing().is_some();
        let ended = || match is_stream && is_translated {
            true => Began::Cut("the provider's stream ended without an event".into()),
            false => Began::Well,
        };
        if self.rest.is_end_stream() {
            return ended();
        }
        let deadline = Instant::now() + within;
        loop {
            let frame = match tokio::time::timeout_at(deadline, self.rest.frame()).await {
                Err(_) => return Began::Late,
                Ok(None) => {
                    self.rest = Rest::over();
                    return ended();
                }
                Ok(Some(Err(error))) => {
                    self.rest = Rest::failed(error.clone());
                    return Began::Cut(error);
                }
                Ok(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(data) => self.came(data, Some(judge)),
                Err(frame) => {
                    self.rest = frame.into_trailers().map_or_else(|_| Rest::over(), Rest::trailers);
                    return ended();
                }
            }
            let total = self.length();
            match judge.opened() {
                Some(Opened::Failed { status, class }) => return Began::Failed { status, class },
                Some(Opened::Well) => return Began::Well,
                None if total > 0 && !is_stream => return self.comes_whole(judge).await,
                None if total >= FIRST_EVENT => return Began::Well,
                None => {}
            }
        }
    }

    /// What an answer that began well, and is no stream, turns out to be when it is whole: some providers tell of a failure under
    /// 200. One that is not whole yet is read on as far as there is `room` for it; what is longer, or cannot be read, is an answer.
    pub(crate) async fn turns_out(&mut self, mut judge: Meter, room: Option<Room<'_>>) -> Began {
        if judge.framing().is_some() || !judge.wants_more() {
            return Began::Well;
        }
        let extent = match self.rest.extent() {
            Some(extent) => extent,
            None => self.hold(&mut judge, room).await,
        };
        match extent {
            Extent::Broken => return Began::Cut("the body broke off".into()),
            Extent::Part => return Began::Well,
            Extent::Whole => {}
        }
        match judge.whole() {
            Opened::Failed { status, class } => Began::Failed { status, class },
            Opened::Well => Began::Well,
        }
    }

    /// Takes bytes of its body; `judge` reads them too.
    fn came(&mut self, data: Bytes, judge: Option<&mut Meter>) {
        if data.is_empty() {
            return;
        }
        self.first_byte.get_or_insert_with(std::time::Instant::now);
        // Before anything reads it, which may fail.
        join(&mut self.chunks, data.clone());
        if let Some(judge) = judge {
            judge.feed(&data, &mut Vec::new());
        }
    }

    /// Reads on to the end, as long as memory is free at once.
    async fn hold(&mut self, judge: &mut Meter, room: Option<Room<'_>>) -> Extent {
        let Some(Room { budget, most, idle, time }) = room else { return Extent::Part };
        let most =
            most.and_then(|most| usize::try_from(most).ok()).map_or(MOST_HELD, |most| most.min(MOST_HELD));
        let left = |rest: &Rest| rest.exact().and_then(|left| usize::try_from(left).ok());
        if left(&self.rest).is_some_and(|left| left.saturating_add(self.length()) > most) {
            return Extent::Part;
        }
        let until = Some(Instant::now() + time.map_or(HELD_FOR, |time| time.min(HELD_FOR)));
        loop {
            // Room for one byte more than what is left: behind it is the end.
            let step = left(&self.rest).map_or(HELD_STEP, |left| HELD_STEP.min(left.saturating_add(1)));
            let to = (self.length() + step).min(most);
            if self.length() >= to || self.held.grow(budget, to as u64, Duration::ZERO).await.is_err() {
                return Extent::Part;
            }
            let extent = self.read_judged(to, (until, idle), Some(&mut *judge)).await;
            if extent != Extent::Part || self.length() < to {
                return extent;
            }
        }
    }

    /// Waits as long as for one that goes in one write.
    async fn comes_whole(&mut self, judge: &mut Meter) -> Began {
        let until = Some(Instant::now() + WHOLE_WITHIN);
        match self.read_judged(WHOLE_BYTES, (until, WHOLE_WITHIN), Some(judge)).await {
            Extent::Broken => Began::Cut("the body broke off".into()),
            Extent::Whole | Extent::Part => Began::Well,
        }
    }

    /// Reads on until `most` bytes are here, the body ends or the time is over.
    pub(crate) async fn read(&mut self, most: usize, within: Duration) -> Extent {
        self.read_on(most, Some(Instant::now() + within), within).await
    }

    /// Reads on until `most` bytes are here, the body ends, the time is over or nothing came for as long as `idle`.
    pub(crate) async fn read_on(&mut self, most: usize, until: Option<Instant>, idle: Duration) -> Extent {
        self.read_judged(most, (until, idle), None).await
    }

    /// The same; `judge` reads what comes.
    async fn read_judged(
        &mut self,
        most: usize,
        (until, idle): (Option<Instant>, Duration),
        mut judge: Option<&mut Meter>,
    ) -> Extent {
        let mut total = self.length();
        loop {
            if let Some(extent) = self.rest.extent() {
                return extent;
            }
            if total >= most {
                return Extent::Part;
            }
            let silent = Instant::now() + idle;
            let deadline = until.map_or(silent, |until| until.min(silent));
            match tokio::time::timeout_at(deadline, self.rest.frame()).await {
                Err(_) => return Extent::Part,
                Ok(None) => {
                    self.rest = Rest::over();
                    return Extent::Whole;
                }
                Ok(Some(Err(error))) => {
                    self.rest = Rest::failed(error);
                    return Extent::Broken;
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        total += data.len();
                        self.came(data, judge.as_deref_mut());
                    }
                    Err(frame) => {
                        self.rest = frame.into_trailers().map_or_else(|_| Rest::over(), Rest::trailers);
                        return Extent::Whole;
                    }
                },
            }
        }
    }

    /// How many bytes it has in all, where that is known.
    pub(crate) fn whole_length(&self) -> Option<u64> {
        self.rest.exact().map(|left| self.length() as u64 + left)
    }

    /// How many bytes came so far.
    pub(crate) fn length(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// What came so far, in one piece.
    pub(crate) fn bytes(&self) -> Bytes {
        if let [only] = self.chunks.as_slice() {
            return only.clone();
        }
        let mut all = BytesMut::with_capacity(self.length());
        for chunk in &self.chunks {
            all.extend_from_slice(chunk);
        }
        all.freeze()
    }

    /// The same, and it is kept in that piece alone.
    pub(crate) fn joined(&mut self) -> Bytes {
        let all = self.bytes();
        if self.chunks.len() > 1 {
            self.chunks = vec![all.clone()];
        }
        all
    }
}

/// Puts `data` behind `chunks`, in one piece with the last where both are small.
fn join(chunks: &mut Vec<Bytes>, data: Bytes) {
    if data.len() >= SMALL {
        return chunks.push(data);
    }
    let Some(last) = chunks.pop_if(|last| last.len() < SMALL) else { return chunks.push(data) };
    // What was joined before is nobody else's, and is written on.
    let mut joined = last.try_into_mut().unwrap_or_else(|last| {
        let mut joined = BytesMut::with_capacity(2 * SMALL);
        joined.extend_from_slice(&last);
        joined
    });
    joined.extend_from_slice(&data);
    chunks.push(joined.freeze());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_joined_and_large_ones_are_left_alone() {
        let all: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let (source, mut chunks) = (Bytes::from(all.clone()), Vec::new());
        for at in 0..50_000 {
            join(&mut chunks, source.slice(at..=at));
        }
        assert!(chunks.len() <= 50_000 / SMALL + 1, "{}", chunks.len());
        join(&mut chunks, source.slice(50_000..));
        assert_eq!(chunks.last().map(Bytes::len), Some(50_000));
        assert_eq!(chunks.concat(), all);
    }
}
