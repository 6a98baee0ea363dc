//! The body that is sent to a provider: from memory in one piece, or from the spill file in chunks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use evidence::{BodyChunks, StoredBody};
use http_body::{Body, Frame, SizeHint};

type NextChunk = Pin<Box<dyn Future<Output = (BodyChunks, Option<io::Result<Bytes>>)> + Send>>;

/// A request's body on its way to a provider.
pub(crate) enum Upload {
    /// In memory.
    Whole(Option<Bytes>),
    /// From disk.
    Stored {
        /// The chunk that is being read.
        next: NextChunk,
        /// Bytes that are still to come.
        left: u64,
    },
}

impl Upload {
    /// Of a body in memory.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    /// Of a body that the ledger holds.
    pub(crate) fn stored(body: &StoredBody) -> Self {
        match body.bytes() {
            Some(bytes) => Self::whole(bytes.clone()),
            None => Self::Stored { next: read(body.chunks()), left: body.len() },
        }
    }
}

fn read(mut chunks: BodyChunks) -> NextChunk {
    Box::pin(async move {
        let chunk = chunks.next().await;
        (chunks, chunk)
    })
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stored { left: 0, .. } => Poll::Ready(None),
            Self::Stored { next, left } => {
                let (chunks, chunk) = std::task::ready!(next.as_mut().poll(cx));
                match chunk {
                    Some(Ok(bytes)) => {
                        *left = left.saturating_sub(bytes.len() as u64);
                        *next = read(chunks);
                        Poll::Ready(Some(Ok(Frame::data(bytes))))
                    }
                    Some(Err(error)) => {
                        *left = 0;
                        Poll::Ready(Some(Err(error)))
                    }
                    None => {
                        *left = 0;
                        Poll::Ready(Some(Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the stored body is shorter than it was",
                        ))))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Stored { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stored { left, .. } => SizeHint::with_exact(*left),
        }
    }
}
