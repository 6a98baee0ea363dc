//! The body that callers get.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::stream::Stream;
use crate::app::App;
use crate::respond::Reason;

/// An answer's body was cut: the connection ends without the end of the body.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer was cut: {}", reason.name())]
pub(crate) struct CutOff {
    pub(crate) reason: Reason,
}

/// The body of an answer.
pub(crate) enum Flow {
    /// Known whole, and free to go.
    Whole(Option<Bytes>),
    /// Whole, let go by the outcome's commit, with trailers behind it where there are any.
    Released(Released),
    /// Passes as it comes.
    Stream(Box<Stream>),
}

/// A whole body that an outcome let go. Dropped before it was handed over, the caller was lost (CA-6).
pub(crate) struct Released {
    app: Arc<App>,
    bytes: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Drop for Released {
    fn drop(&mut self) {
        if self.bytes.is_some() {
            self.app.telemetry.released_lost();
        }
    }
}

impl Flow {
    /// A whole body.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    /// A whole body that an outcome let go.
    pub(crate) fn released(app: &Arc<App>, bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::Released(Released {
            app: Arc::clone(app),
            bytes: (!bytes.is_empty()).then_some(bytes),
            trailers,
        })
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Released(Released { bytes, trailers, .. }) => {
                let frame = bytes.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Released(released) => released.bytes.is_none() && released.trailers.is_none(),
            Self::Stream(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Released(Released { bytes, trailers: None, .. }) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Released(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}
