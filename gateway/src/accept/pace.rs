//! Streams of an HTTP/2 connection that do not stand still for ever.
//!
//! A caller that grants no flow-control window keeps its stream waiting: hyper does not ask the body for more, so
//! no bound of the body runs, and the socket is writable, so [`super::io`] sees nothing. [`Executor`] runs each
//! stream as a task that ends, and by that resets the stream, when bytes that stand ready were not taken within a
//! bound. [`Paced`] tells it when the body waits for the provider (which has bounds of its own), and gives bytes
//! in small pieces: what waits for a window is at most one of them.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// The most bytes given to a stream at a time: the frame size that HTTP/2 begins with (RFC 9113 6.5.2).
const PIECE_BYTES: usize = 16 << 10;

tokio::task_local! {
    static PACE: Arc<Pace>;
}

/// How one stream comes on.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Whether the next step is the caller's: it has to take what it was given.
    given: AtomicBool,
    /// What it was given so far, in pieces.
    pieces: AtomicU64,
}

impl Pace {
    /// The pace of the stream that this task runs.
    pub(crate) fn current() -> Option<Arc<Self>> {
        PACE.try_with(Arc::clone).ok()
    }

    fn give(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.given.store(true, Ordering::Relaxed);
    }

    fn wait(&self) {
        self.given.store(false, Ordering::Relaxed);
    }
}

/// How many streams of a connection run.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    running: AtomicUsize,
    /// Streams that ended so far.
    ended: AtomicUsize,
}

impl Streams {
    /// How many run now, and how many ended so far.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.running.load(Ordering::Acquire), self.ended.load(Ordering::Acquire))
    }
}

/// A stream that runs; counted out when dropped.
struct Running(Arc<Streams>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs the streams of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    bound: Duration,
    streams: Arc<Streams>,
}

impl Executor {
    /// Ends a stream whose caller takes nothing for `bound`.
    pub(crate) fn new(bound: Duration, streams: Arc<Streams>) -> Self {
        Self { bound, streams }
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.streams.running.fetch_add(1, Ordering::AcqRel);
        let (running, bound) = (Running(Arc::clone(&self.streams)), self.bound);
        tokio::spawn(async move {
            let _running = running;
            watch(stream, bound).await;
        });
    }
}

/// Runs `stream` until it ends, or until its caller took nothing for `bound`.
async fn watch(stream: impl Future<Output = ()>, bound: Duration) {
    let pace = Arc::new(Pace::default());
    let mut stream = pin!(stream);
    let mut stalled = None;
    let mut seen = 0;
    poll_fn(|cx| {
        if PACE.sync_scope(Arc::clone(&pace), || stream.as_mut().poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        if !pace.given.load(Ordering::Relaxed) {
            stalled = None;
            return Poll::Pending;
        }
        let pieces = pace.pieces.load(Ordering::Relaxed);
        if stalled.is_none() || pieces != seen {
            seen = pieces;
            stalled = Some(Box::pin(tokio::time::sleep_until(Instant::now() + bound)));
        }
        match &mut stalled {
            Some(stalled) => stalled.as_mut().poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}

/// A body that goes in small pieces and tells its stream's pace.
pub(crate) struct Paced<B> {
    body: B,
    pace: Arc<Pace>,
    /// The rest of a piece that was too large.
    rest: Bytes,
}

impl<B> Paced<B> {
    /// Over `body`, whose head goes to the caller now.
    pub(crate) fn new(body: B, pace: Arc<Pace>) -> Self {
        pace.give();
        Self { body, pace, rest: Bytes::new() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => {
                    this.pace.wait();
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => {
                        this.pace.give();
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                other => {
                    this.pace.give();
                    return Poll::Ready(other);
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        this.pace.give();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    const BOUND: Duration = Duration::from_millis(300);

    /// How long a stream ran that was given something, or waits for the provider.
    async fn ran(given: bool) -> Option<Duration> {
        let start = Instant::now();
        let stream = async move {
            let pace = Pace::current().unwrap();
            if given {
                pace.give();
            } else {
                pace.wait();
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::time::timeout(BOUND * 4, watch(stream, BOUND)).await;
        ended.ok().map(|()| start.elapsed())
    }

    #[tokio::test]
    async fn a_stream_whose_caller_takes_nothing_ends_and_one_that_waits_for_the_provider_does_not() {
        assert!(ran(true).await.unwrap() >= BOUND);
        assert_eq!(ran(false).await, None);
    }

    #[tokio::test]
    async fn each_piece_that_is_taken_gives_more_time() {
        let stream = async {
            let pace = Pace::current().unwrap();
            for _ in 0..6 {
                pace.give();
                tokio::time::sleep(BOUND / 3).await;
            }
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        watch(stream, BOUND).await;
        assert!(start.elapsed() >= BOUND / 3 * 5 + BOUND, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_body_goes_in_pieces_and_whole() {
        let bytes = Bytes::from((0..100_000_u32).map(|n| n as u8).collect::<Vec<_>>());
        let mut body = Paced::new(Full::new(bytes.clone()), Arc::default());
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE_BYTES);
            all.extend_from_slice(&data);
            assert_eq!(body.size_hint().exact(), Some(100_000 - all.len() as u64));
            assert_eq!(body.is_end_stream(), all.len() == 100_000);
        }
        assert_eq!(all, bytes);
    }
}
