//! From admission to intent: what an exchange needs before a byte of it may leave (CA-1, CA-7).

use std::sync::Arc;

use bytes::Bytes;
use schemas::promise::Promise;
use schemas::record::{Body, Intent, Part, PartName, Refusal};
use schemas::{ExchangeId, Identifier};

use crate::body::{BodySink, StoredBody};
use crate::error::{Reason, Unavailable};
use crate::exchange::{Core, OpenExchange};
use crate::inner::{Inner, LEASE_LOOK};
use crate::journal::Journal;

/// Which exchanges share a data key, and so are erased together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyScope {
    /// A key of its own.
    PerExchange,
    /// One key per `who`, UTC day and log: what agents resend is stored once.
    PerDay {
        /// The consumer, or the subject's pseudonym.
        who: String,
    },
}

/// A part that stands ready.
#[derive(Debug, Clone)]
pub struct NewPart {
    /// Which.
    pub part: PartName,
    /// Its media type without parameters, where it is an identifier.
    pub media_type: Option<Identifier>,
    /// The content coding in which it crossed.
    pub content_encoding: Option<Identifier>,
    /// The bytes.
    pub content: PartContent,
}

impl NewPart {
    /// A part from memory, without media type and coding.
    pub fn bytes(part: PartName, content: impl Into<Bytes>) -> Self {
        let content = PartContent::Bytes(content.into());
        Self { part, media_type: None, content_encoding: None, content }
    }

    /// A part from a [`BodySink`] of the same admission.
    pub fn stored(body: &StoredBody) -> Self {
        let content = PartContent::Stored(body.clone());
        Self { part: body.part(), media_type: None, content_encoding: None, content }
    }

    /// With a media type and a coding.
    #[must_use]
    pub fn with(mut self, media_type: Option<Identifier>, content_encoding: Option<Identifier>) -> Self {
        self.media_type = media_type;
        self.content_encoding = content_encoding;
        self
    }
}

/// Where a part's bytes are.
#[derive(Debug, Clone)]
pub enum PartContent {
    /// In memory; hashed when the intent is made.
    Bytes(Bytes),
    /// In a sink of the same admission, hashed as it came.
    Stored(StoredBody),
}

/// An exchange that may be recorded: it has an id, a data key and space on disk, and no record yet.
#[derive(Debug)]
pub struct Admission {
    core: Arc<Core>,
}

/// Journal bytes that an admission reserves: intent and heads, outcome and heads, one 64 KiB unit.
pub(crate) fn reserve() -> u64 {
    Journal::cost([8 << 10, 8 << 10])
        + Journal::cost([8 << 10, 8 << 10])
        + Journal::cost([crate::part::UNIT_BYTES + 256])
}

impl Admission {
    pub(crate) async fn new(inner: &Arc<Inner>, keys: KeyScope) -> Result<Self, Unavailable> {
        inner.admits()?;
        let bytes = reserve();
        let spool = inner.space.reserve(bytes)?;
        let journal = match inner.journal.try_reserve(bytes) {
            Ok(reservation) => reservation,
            Err(_) => inner.journal.reserve(bytes).await.map_err(|error| inner.journal_failed(error))?,
        };
        let exchange = crate::exchange_id::new(inner.clock.now_us());
        let key = match &inner.keys {
            Some(table) => Some(table.take(&keys, inner.clock.now_us()).await?),
            None => None,
        };
        Ok(Self { core: Arc::new(Core::new(inner.clone(), exchange, key, journal, spool)) })
    }

    /// The exchange's id, made by this gateway.
    pub fn exchange(&self) -> &ExchangeId {
        &self.core.exchange
    }

    /// The data key of this exchange's content, as its records name it; `None` where encryption is off.
    pub fn content_key(&self) -> Option<&Identifier> {
        self.core.key_id()
    }

    /// Keeps only length and commitment of every part from now on, because a policy says so (CA-5). The parts say
    /// `kept: false`.
    pub fn discard_content(&self) {
        self.core.discard();
    }

    /// Makes promises of this exchange's records, where the ledger has a key for that: each when its record is on stable
    /// storage, under one signature a group.
    pub fn promise(&self) {
        self.core.promise();
    }

    /// Takes a request body as it comes: in memory up to 1 MiB, beyond that encrypted on disk.
    pub fn body(&self, part: PartName) -> BodySink {
        BodySink::new(self.core.clone(), part)
    }

    /// Records that the exchange is about to be sent, and waits until the record and its content are on stable
    /// storage. Only then may bytes go to a provider.
    ///
    /// `make` gets the parts and the content key as the record shall name them. `exchange`, `parts` and `content_key`
    /// of what it returns are set by the ledger.
    ///
    /// # Errors
    /// Nothing may be sent.
    pub async fn intent(
        self,
        parts: Vec<NewPart>,
        make: impl FnOnce(Vec<Part>, Option<Identifier>) -> Intent,
    ) -> Result<OpenExchange, Unavailable> {
        let core = self.core;
        let (frames, parts, _bodies) = core.ready_parts(parts).await?;
        let key = core.key_id().cloned().filter(|_| core.keeps());
        let mut intent = make(parts.clone(), key.clone());
        intent.exchange = core.exchange.clone();
        intent.parts = parts;
        intent.content_key = key;
        check_retention(&intent.retention)?;
        // From here on the record may be on disk: where this future is dropped, the ledger closes the exchange.
        let mut waiting = core.open(intent, frames)?;
        loop {
            let synced = match core.inner.committer {
                None => (&mut waiting).await,
                Some(_) => match tokio::time::timeout(LEASE_LOOK, &mut waiting).await {
                    Ok(synced) => synced,
                    // Where the lease is over the intent may still get there: the ledger closes the exchange then.
                    Err(_) => {
                        core.inner.check_lease()?;
                        continue;
                    }
                },
            };
            return match synced {
                Ok(synced) => Ok(OpenExchange::new(core, &synced)),
                Err(error) => {
                    core.unopened();
                    Err(core.inner.journal_failed(error))
                }
            };
        }
    }

    /// Records that the exchange is refused; its only record. Durable on return. Gives its promise, where
    /// [`Admission::promise`] asked for one.
    ///
    /// `exchange`, `parts` and `content_key` of what `make` returns are set by the ledger.
    ///
    /// # Errors
    /// Why it could not be recorded. The caller is then refused with 503.
    pub async fn refusal(
        self,
        parts: Vec<NewPart>,
        make: impl FnOnce(Vec<Part>, Option<Identifier>) -> Refusal,
    ) -> Result<Option<Promise>, Unavailable> {
        let core = self.core;
        let (frames, parts, _bodies) = core.ready_parts(parts).await?;
        let key = core.key_id().cloned().filter(|_| !parts.is_empty());
        let mut refusal = make(parts.clone(), key.clone());
        refusal.exchange = Some(core.exchange.clone());
        refusal.parts = parts;
        refusal.content_key = key;
        if let Some(class) = &refusal.retention {
            check_retention(class)?;
        }
        let mut ticket = core.submit(frames, Body::Refusal(refusal))?;
        let synced = core.inner.told(&mut ticket).await?;
        Ok(core.inner.promise(&synced))
    }
}

/// A retention class is part of an object's name.
fn check_retention(class: &Identifier) -> Result<(), Unavailable> {
    let text = class.as_str();
    let good = text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        && !text.starts_with(['.', '-']);
    if good {
        return Ok(());
    }
    let detail = format!("retention class `{text}`: wanted `[a-z0-9][a-z0-9.-]{{0,62}}`");
    Err(Unavailable::new(Reason::RecordRefused, detail))
}
