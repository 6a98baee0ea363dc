//! An answer in another dialect than its caller's, on its way back.
//!
//! The provider's bytes are journaled and read by the meter as they come; what the caller gets is journaled beside them
//! (`provider_response`, `client_response`). The caller's terminal event comes only of the provider's, which the meter
//! holds until the outcome is committed (CA-2).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialects::coding::{Caps, codings, decode_all};
use dialects::translate::form::{Asked, Dropped, Lost};
use dialects::translate::{Pair, Translator};
use dialects::{Dialect, Operation};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
};
use http::{StatusCode, response};
use schemas::record::Translation as Recorded;
use tokio::sync::Semaphore;

use super::intake::Memory;
use crate::dispatch::NoAnswer;
use crate::record;
use crate::respond::Reason;

/// How often its own size an answer takes when it is translated: as it came, in the caller's words, and what is on the way
/// from one to the other.
const COPIES: u64 = 3;

/// The most of an answer that is translated whole.
pub(crate) const MOST_BYTES: u64 = 32 << 20;

/// How much longer than its coded form an answer may be, as long as it is no longer than that.
const MOST_EXPANDED: u64 = 16;

/// What the way back of a translated exchange needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Translation {
    pair: Pair,
    /// What the provider calls the operation: so its answer is read.
    pub(crate) operation: Operation,
    asked: Asked,
    /// What of the request was left out.
    lost: Lost,
}

/// A whole answer in the caller's words, which was not put in the place of the provider's yet.
pub(crate) struct Translated {
    status: u16,
    bytes: Vec<u8>,
    dropped: Vec<Dropped>,
    memory: Memory,
}

/// A whole answer in the caller's words.
pub(crate) struct Whole {
    pub(crate) body: Bytes,
    /// What of the answer was left out.
    pub(crate) dropped: Vec<Dropped>,
}

/// Bytes, and the share of the memory for bodies that they take: given back with the last of them.
struct Held {
    bytes: Vec<u8>,
    _memory: Memory,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The provider's answer is none of its dialect.
fn no_answer(error: impl ToString) -> NoAnswer {
    NoAnswer { reason: Reason::ProviderAborted, text: error.to_string() }
}

/// The header in which a dialect's SDK looks for the provider's id of the request.
fn request_id(dialect: Dialect) -> HeaderName {
    HeaderName::from_static(if dialect == Dialect::Anthropic { "request-id" } else { "x-request-id" })
}

impl Translation {
    /// For an answer of `pair`'s provider to a request that asked as `asked` has it.
    pub(crate) fn new(pair: Pair, operation: Operation, asked: Asked, lost: Lost) -> Self {
        Self { pair, operation, asked, lost }
    }

    /// As records say it.
    pub(crate) fn recorded(&self) -> Option<Recorded> {
        self.pair.record(&self.lost)
    }

    fn asked(&self, exchange: &str) -> Asked {
        Asked { created: record::now_us() / 1_000_000, exchange: exchange.to_owned(), ..self.asked.clone() }
    }

    /// Makes a head that describes the provider's body describe the caller's.
    pub(crate) fn head(&self, headers: &mut HeaderMap, media_type: &'static str) {
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, ETAG] {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(id) = headers.get(request_id(self.pair.to())).cloned() {
            headers.insert(request_id(self.pair.from()), id);
        }
    }

    /// A whole answer with this `head` in the caller's words. Takes its room of the memory for bodies, beside the `memory` that
    /// `body` has of it, and waits for it at most for `patience`.
    ///
    /// # Errors
    /// Why there is none: the answer is none of the provider's dialect, or there is no room.
    pub(crate) async fn whole(
        &self,
        head: &response::Parts,
        body: &Bytes,
        exchange: &str,
        (mut memory, budget, patience): (Memory, &Arc<Semaphore>, Duration),
    ) -> Result<Translated, NoAnswer> {
        let stack = codings(&head.headers).map_err(no_answer)?;
        let length = body.len() as u64;
        let plain_length = match stack.is_empty() {
            true => length,
            false => length.saturating_mul(MOST_EXPANDED).min(length.max(MOST_BYTES)),
        };
        memory.grow(budget, plain_length.saturating_mul(COPIES), patience).await.map_err(|reason| {
            NoAnswer { reason, text: "no memory for a translated answer was free in time".into() }
        })?;
        let plain = if stack.is_empty() {
            Cow::Borrowed(&**body)
        } else {
            let caps = Caps { bytes: plain_length, ..Caps::default() };
            Cow::Owned(decode_all(&stack, body, caps).map_err(no_answer)?)
        };
        let whole = self
            .pair
            .answer(head.status.as_u16(), &head.headers, &plain, &self.asked(exchange))
            .map_err(|error| no_answer(format!("the provider's answer has no translation: {error}")))?;
        // As it came and as it goes, until one is put in the place of the other.
        memory.shrink(length.saturating_add(whole.body.len() as u64));
        Ok(Translated { status: whole.status, bytes: whole.body, dropped: whole.dropped, memory })
    }

    /// Puts what was `translated` in the place of the provider's answer, in its `head` too.
    pub(crate) fn put(&self, head: &mut response::Parts, translated: Translated) -> Whole {
        let Translated { status, bytes, dropped, mut memory } = translated;
        if let Ok(status) = StatusCode::from_u16(status) {
            head.status = status;
        }
        self.head(&mut head.headers, "application/json");
        memory.shrink(bytes.len() as u64);
        Whole { body: Bytes::from_owner(Held { bytes, _memory: memory }), dropped }
    }

    /// A translator for a stream of events.
    pub(crate) fn stream(&self, exchange: &str) -> Translator {
        self.pair.stream(self.asked(exchange))
    }
}
