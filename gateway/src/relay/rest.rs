//! What is still to come of a provider's body. One that was read ahead to its end has ended, or failed, here all the same.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use super::answer::Extent;
use crate::dispatch;

/// What is still to come of a provider's body.
pub(crate) struct Rest {
    state: State,
}

enum State {
    Comes(Incoming),
    /// All of it came, with these trailers behind it.
    Trailers(HeaderMap),
    /// It broke off, for this reason.
    Failed(String),
    Over,
}

impl From<Incoming> for Rest {
    fn from(body: Incoming) -> Self {
        Self { state: State::Comes(body) }
    }
}

impl Rest {
    /// Puts trailers back that were read ahead.
    pub(crate) fn trailers(trailers: HeaderMap) -> Self {
        Self { state: State::Trailers(trailers) }
    }

    /// A body that was read ahead and broke off.
    pub(crate) fn failed(text: String) -> Self {
        Self { state: State::Failed(text) }
    }

    /// A body that was read ahead to its end.
    pub(crate) fn over() -> Self {
        Self { state: State::Over }
    }

    /// How it ended, where it was read to its end: the trailers behind it, or why it broke off.
    pub(crate) fn end(self) -> Result<Option<HeaderMap>, String> {
        match self.state {
            State::Trailers(trailers) => Ok(Some(trailers)),
            State::Failed(text) => Err(text),
            State::Comes(_) | State::Over => Ok(None),
        }
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Comes(body) => body.is_end_stream(),
            State::Trailers(_) | State::Failed(_) => false,
            State::Over => true,
        }
    }

    /// How much of it there is, where no byte of it comes any more.
    pub(crate) fn extent(&self) -> Option<Extent> {
        match &self.state {
            State::Comes(body) => body.is_end_stream().then_some(Extent::Whole),
            State::Trailers(_) | State::Over => Some(Extent::Whole),
            State::Failed(_) => Some(Extent::Broken),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        match &self.state {
            State::Comes(body) => body.size_hint().exact(),
            State::Trailers(_) | State::Failed(_) => None,
            State::Over => Some(0),
        }
    }

    /// The next frame; an error is told in words.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        match &mut self.state {
            State::Comes(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|error| dispatch::chain(&error)))),
            State::Over => Poll::Ready(None),
            State::Trailers(_) | State::Failed(_) => {
                Poll::Ready(match std::mem::replace(&mut self.state, State::Over) {
                    State::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                    State::Failed(text) => Some(Err(text)),
                    State::Comes(_) | State::Over => None,
                })
            }
        }
    }

    /// As [`Rest::poll_frame`].
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }
}
