//! The usage of an exchange whose provider told none: counted from what was sent and what came.
//!
//! The body that is sent is kept until the answer's end, within a share of memory of its own; one that was spilled stays on
//! disk and is read back. Only where no usage was told anything is counted, on a blocking thread, few at a time; an exchange
//! whose count is not there in time is recorded without one. Where a target told none the last time, the prompt is counted
//! while its answer comes, so that the end waits for no prompt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialects::{AnswerFacts, Operation, Said};
use evidence::StoredBody;
use schemas::Identifier;
use schemas::record::{End, Usage, UsageRole, UsageSource};
use tokens::Tokenizer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::serve::LAST_RECORDS;

/// The longest body that is read.
pub(crate) const LONGEST_BODY: u64 = 8 << 20;

/// Memory for the bodies that are kept, in bytes.
const KEPT_BYTES: usize = 64 << 20;

/// How long an exchange waits for its count while its caller waits for the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same where the caller has left. The exchange keeps its place meanwhile, and its record is to be there when the gateway ends.
const PATIENCE_ALONE: Duration = Duration::from_secs(5);
const _: () = assert!(PATIENCE_ALONE.as_secs() < LAST_RECORDS.as_secs());

/// Up to this a body is copied: the buffer that it came in may be much larger.
const COPIED: usize = 64 << 10;

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct Estimates {
    /// Room for kept bodies, in bytes.
    room: Arc<Semaphore>,
    /// Who counts at the moment.
    counting: Arc<Semaphore>,
}

impl Default for Estimates {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            room: Arc::new(Semaphore::new(KEPT_BYTES)),
            // The other half stays free for exchanges.
            counting: Arc::new(Semaphore::new((cores / 2).max(1))),
        }
    }
}

/// What was sent to a provider, for as long as its usage is not known.
#[derive(Debug)]
pub(crate) struct Sent {
    operation: Operation,
    /// The model that was sent.
    model: Option<String>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Kept(Bytes, #[expect(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit),
    Stored(StoredBody),
    /// Too long, or without room, or under a coding: only the answer can be counted.
    Gone,
}

impl Sent {
    /// Keeps what is sent, where there is room; `None` where the operation reads no text.
    pub(crate) fn new(
        estimates: &Estimates,
        operation: Operation,
        model: Option<String>,
        body: Option<&Bytes>,
        stored: Option<&StoredBody>,
    ) -> Option<Self> {
        if !tokens::reads_text(&operation) {
            return None;
        }
        let body = match (body, stored) {
            (Some(bytes), _) if bytes.len() as u64 <= LONGEST_BODY => {
                let room = u32::try_from(bytes.len()).ok();
                let room =
                    room.and_then(|bytes| Arc::clone(&estimates.room).try_acquire_many_owned(bytes).ok());
                let copied = bytes.len() <= COPIED;
                room.map(|room| {
                    let bytes = if copied { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
                    Body::Kept(bytes, room)
                })
            }
            (_, Some(stored)) if stored.len() <= LONGEST_BODY => Some(Body::Stored(stored.clone())),
            _ => None,
        };
        Some(Self { operation, model, body: body.unwrap_or(Body::Gone) })
    }

    /// All of the body, in memory; `None` where it is not at hand.
    async fn whole(&self) -> Option<Bytes> {
        let stored = match &self.body {
            Body::Kept(bytes, _) => return Some(bytes.clone()),
            Body::Stored(stored) => stored,
            Body::Gone => return None,
        };
        let mut whole = Vec::with_capacity(usize::try_from(stored.len()).ok()?);
        let mut chunks = stored.chunks();
        while let Some(chunk) = chunks.next().await {
            // The journal may have archived and removed it.
            whole.extend_from_slice(&chunk.ok()?);
        }
        Some(whole.into())
    }

    /// By the model that was sent, else by the one that served, as far as OpenAI's table has them.
    fn tokenizer(&self, served: Option<&str>) -> Tokenizer {
        let models = [self.model.as_deref(), served];
        models.into_iter().flatten().find_map(Tokenizer::of_model).unwrap_or(Tokenizer::O200kBase)
    }

    /// The tokens of the prompt, counted in its `turn`.
    async fn count(&self, turn: OwnedSemaphorePermit, tokenizer: Tokenizer) -> Option<u64> {
        let (operation, body) = (self.operation, self.whole().await?);
        let counted = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            tokens::prompt(&operation, &body, tokenizer)
        });
        counted.await.ok()?
    }
}

/// A prompt whose count may be needed.
#[derive(Debug)]
pub(crate) enum Prompt {
    Sent(Sent),
    /// It is counted already, by that tokenizer. An exchange that ends without needing it ends the count too.
    Counting(AbortOnDropHandle<(Sent, Option<u64>)>, Tokenizer),
}

impl Prompt {
    /// Begins to count, beside the answer that comes, where nobody waits for a turn: those whose answer has ended go first.
    pub(crate) fn count_ahead(self, estimates: &Estimates) -> Self {
        let Self::Sent(sent) = self else { return self };
        let Ok(turn) = Arc::clone(&estimates.counting).try_acquire_owned() else { return Self::Sent(sent) };
        let tokenizer = sent.tokenizer(None);
        let count = async move {
            let counted = sent.count(turn, tokenizer).await;
            (sent, counted)
        };
        Self::Counting(AbortOnDropHandle::new(tokio::spawn(count)), tokenizer)
    }

    /// The tokens of the prompt, and by which tokenizer.
    async fn tokens(
        self,
        counting: &Arc<Semaphore>,
        served: Option<&str>,
    ) -> Option<(Sent, Option<u64>, Tokenizer)> {
        let sent = match self {
            Self::Sent(sent) => sent,
            Self::Counting(count, by) => {
                let (sent, counted) = count.await.ok()?;
                if sent.tokenizer(served) == by {
                    return Some((sent, counted, by));
                }
                sent
            }
        };
        let tokenizer = sent.tokenizer(served);
        let turn = Arc::clone(counting).acquire_owned().await.ok()?;
        let counted = sent.count(turn, tokenizer).await;
        Some((sent, counted, tokenizer))
    }

    /// `said`: `None` where nothing is known of what the answer says.
    async fn usage(
        self,
        counting: &Arc<Semaphore>,
        served: Option<&str>,
        said: Option<Said>,
        calls: i64,
    ) -> Option<Usage> {
        let (sent, input, tokenizer) = self.tokens(counting, served).await?;
        let output = if let Some(said) = said.filter(|_| tokens::makes_text(&sent.operation)) {
            let turn = Arc::clone(counting).acquire_owned().await.ok()?;
            let counted = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                tokens::answer(&said, calls, tokenizer)
            });
            Some(counted.await.ok()?)
        } else {
            None
        };
        if input.is_none() && output.is_none() {
            return None;
        }
        let number = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
        Some(Usage {
            input_tokens: number(input),
            output_tokens: number(output),
            tokenizer: Identifier::new(tokenizer.name()).ok(),
            ..Usage::of(UsageSource::Estimated, UsageRole::Incurred)
        })
    }
}

/// Whether an answer that came is one whose usage nobody told.
pub(crate) fn is_untold(facts: &AnswerFacts, status: Option<u16>) -> bool {
    let answered = status.is_some_and(|status| (200..300).contains(&status));
    answered && facts.usage.source == UsageSource::Unknown && facts.usage.role == UsageRole::Incurred
}

/// What became of an estimate, in a word of a closed set.
pub(crate) enum Estimated {
    /// Prompt and answer.
    Whole(Usage),
    /// One of the two: the other is not all text, or was not at hand.
    Half(Usage),
    /// Neither.
    None,
    /// It took too long.
    Late,
}

impl Estimated {
    /// All words.
    pub(crate) const NAMES: [&str; 4] = ["whole", "half", "none", "late"];

    /// The word.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Whole(_) => "whole",
            Self::Half(_) => "half",
            Self::None => "none",
            Self::Late => "late",
        }
    }
}

/// What is known of an answer's words. Silence is not: an answer that is still to be made, one that could not be read and one
/// of no text look the same.
fn said(facts: &mut AnswerFacts) -> Option<Said> {
    let said = facts.said.take()?;
    let is_silent = said.text.is_empty() && said.beyond == 0 && facts.tool_calls.unwrap_or(0) <= 0;
    (!is_silent && facts.unread.is_none()).then_some(said)
}

/// Whether an estimate is less than what was used: of an answer that broke off, or of one half where both are text.
pub(crate) fn is_lower_bound(usage: &Usage, operation: &Operation, end: End) -> bool {
    let halves = [usage.input_tokens, usage.output_tokens];
    usage.source == UsageSource::Estimated
        && (end != End::Complete || tokens::makes_text(operation) && halves.contains(&None))
}

/// Estimates what an exchange used that told nothing. `waits`: its caller waits for the end. `over`: the gateway ends.
pub(crate) async fn estimate(
    estimates: &Estimates,
    prompt: Prompt,
    facts: &mut AnswerFacts,
    waits: bool,
    over: &CancellationToken,
) -> Estimated {
    let (served, calls) = (facts.served_model.clone(), facts.tool_calls.unwrap_or(0));
    let said = said(facts);
    let usage = prompt.usage(&estimates.counting, served.as_deref(), said, calls);
    let counted = tokio::select! {
        biased;
        usage = usage => usage,
        () = patience(waits, over) => return Estimated::Late,
    };
    match counted {
        None => Estimated::None,
        Some(usage) if usage.input_tokens.is_some() && usage.output_tokens.is_some() => {
            Estimated::Whole(usage)
        }
        Some(usage) => Estimated::Half(usage),
    }
}

/// Ends when a count has taken too long.
async fn patience(waits: bool, over: &CancellationToken) {
    if !waits {
        // A timeout is as good as the gateway's end.
        let _ = tokio::time::timeout(PATIENCE_ALONE - PATIENCE, over.cancelled()).await;
    }
    tokio::time::sleep(PATIENCE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    fn chat() -> Operation {
        dialects::operation(dialects::Dialect::OpenAi, &Method::POST, "/v1/chat/completions")
    }

    fn sent(estimates: &Estimates, text: &str) -> Prompt {
        let body = Bytes::from(format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#));
        Prompt::Sent(Sent::new(estimates, chat(), None, Some(&body), None).unwrap())
    }

    /// The facts of a whole answer of 2xx.
    fn answered(body: &str) -> AnswerFacts {
        let mut meter =
            dialects::Meter::new(chat(), 200, &HeaderMap::new(), false, dialects::Limits::default());
        meter.keep_words();
        meter.feed(body.as_bytes(), &mut Vec::new());
        meter.finish(dialects::Cause::Complete)
    }

    #[tokio::test]
    async fn silence_is_no_estimate_of_an_answer() {
        let estimates = Estimates::default();
        let unread = AnswerFacts {
            unread: Some(dialects::Unread::BodyTooLarge { limit: 1 }),
            ..answered(r#"{"choices":[{"message":{"content":"Hi"}}]}"#)
        };
        let silent = [
            answered(r#"{"status":"queued","output":[],"usage":null,"text":{"format":{"type":"text"}}}"#),
            answered(r#"{"images":["iVBORw0KGgo="]}"#),
            answered(""),
            unread,
        ];
        for mut facts in silent {
            let prompt = sent(&estimates, "Hello");
            let over = CancellationToken::new();
            let Estimated::Half(usage) = estimate(&estimates, prompt, &mut facts, false, &over).await else {
                panic!("{facts:?}");
            };
            assert_eq!((usage.input_tokens, usage.output_tokens), (Some(8), None), "{facts:?}");
            assert!(is_lower_bound(&usage, &chat(), End::Complete));
        }
        let mut facts = answered(r#"{"choices":[{"message":{"content":"Hi"}}]}"#);
        let over = CancellationToken::new();
        let counted = estimate(&estimates, sent(&estimates, "Hello"), &mut facts, true, &over).await;
        let Estimated::Whole(usage) = counted else { panic!("{}", counted.name()) };
        assert_eq!(usage.output_tokens, Some(1));
        assert!(!is_lower_bound(&usage, &chat(), End::Complete));
        assert!(is_lower_bound(&usage, &chat(), End::ProviderAbort));
    }

    #[tokio::test]
    async fn what_is_counted_ahead_waits_in_no_line_and_ends_with_its_exchange() {
        let estimates = Estimates::default();
        let turns = estimates.counting.available_permits();
        let all = Arc::clone(&estimates.counting).acquire_many_owned(u32::try_from(turns).unwrap()).await;
        let prompt = sent(&estimates, "Hello").count_ahead(&estimates);
        assert!(matches!(prompt, Prompt::Sent(_)), "{prompt:?}");
        drop((prompt, all));
        let ahead = sent(&estimates, &"word ".repeat(12_000)).count_ahead(&estimates);
        assert!(matches!(ahead, Prompt::Counting(..)), "{ahead:?}");
        assert!(estimates.room.available_permits() < KEPT_BYTES);
        drop(ahead);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(estimates.room.available_permits(), KEPT_BYTES);
        assert_eq!(estimates.counting.available_permits(), turns);
    }

    #[tokio::test]
    async fn a_count_that_nobody_waits_for_is_late_soon_when_the_gateway_ends() {
        let estimates = Estimates::default();
        let turns = u32::try_from(estimates.counting.available_permits()).unwrap();
        let _all = Arc::clone(&estimates.counting).acquire_many_owned(turns).await;
        let over = CancellationToken::new();
        over.cancel();
        let started = std::time::Instant::now();
        let mut facts = answered("{}");
        let counted = estimate(&estimates, sent(&estimates, "Hello"), &mut facts, false, &over).await;
        assert_eq!(counted.name(), "late");
        assert!(started.elapsed() < PATIENCE_ALONE - PATIENCE, "{:?}", started.elapsed());
    }
}
