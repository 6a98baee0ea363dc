//! From one dialect to another: requests there, answers and streams back.
//!
//! Each dialect reads and writes the middle form ([`form`]); a [`Pair`] is a caller's half and a provider's half.
//! What cannot be said on the other side is listed, and refused where it matters: `TRANSLATION.md` has the table.

mod anthropic;
mod assemble;
mod bedrock;
mod beginning;
mod failure;
pub mod form;
mod gemini;
mod join;
mod media;
mod openai;
mod path;
mod stream;
mod text;
#[cfg(test)]
mod there_and_back;

use http::{HeaderMap, Method};

use crate::operation::{Dialect, Operation, operation};
use form::{Asked, Caller, CannotCarry, Dropped, Failure, Lost, Options, Provider, Unreadable};
use schemas::Identifier;
use schemas::record;

pub use stream::Translator;

/// A caller's dialect in front of a provider's.
#[derive(Clone, Copy)]
pub struct Pair {
    from: Dialect,
    to: Dialect,
    caller: &'static dyn Caller,
    provider: &'static dyn Provider,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// The half that callers of the dialect speak.
fn caller(dialect: Dialect) -> Option<&'static dyn Caller> {
    Some(match dialect {
        Dialect::OpenAi | Dialect::AzureOpenAi => &openai::Chat { path: "/v1/chat/completions" },
        Dialect::Anthropic => &anthropic::Messages,
        _ => return None,
    })
}

/// The half that providers of the dialect speak.
fn provider(dialect: Dialect) -> Option<&'static dyn Provider> {
    Some(match dialect {
        Dialect::OpenAi => &openai::Chat { path: "/v1/chat/completions" },
        Dialect::AzureOpenAi => &openai::Chat { path: "/openai/v1/chat/completions" },
        Dialect::Anthropic => &anthropic::Messages,
        Dialect::Gemini => &gemini::Gemini { vertex: false },
        Dialect::Vertex => &gemini::Gemini { vertex: true },
        Dialect::Bedrock => &bedrock::Bedrock,
        _ => return None,
    })
}

/// A request as the provider is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The path, with its query.
    pub path: String,
    /// Headers that the provider's dialect wants.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What was left out.
    pub dropped: Vec<Dropped>,
    /// What the way back needs to know.
    pub asked: Asked,
    /// Whether a stream was asked for.
    pub stream: bool,
}

/// Why a request is not translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    /// Only conversations are.
    #[error("`{0}` has no translation: only conversations have")]
    Operation(&'static str),
    /// It is not what its dialect says.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It says what the provider's dialect cannot.
    #[error(transparent)]
    CannotCarry(#[from] CannotCarry),
}

/// An answer as the caller gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The status.
    pub status: u16,
    /// The body: JSON.
    pub body: Vec<u8>,
    /// What was left out.
    pub dropped: Vec<Dropped>,
}

impl Pair {
    /// The pair, where there is a translation.
    pub fn of(from: Dialect, to: Dialect) -> Option<Self> {
        let same = |d| if d == Dialect::AzureOpenAi { Dialect::OpenAi } else { d };
        if same(from) == same(to) {
            return None;
        }
        Some(Self { from, to, caller: caller(from)?, provider: provider(to)? })
    }

    /// The name in records and in the folders of its cases: `openai-anthropic`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.from.name(), self.to.name())
    }

    /// The caller's dialect.
    pub fn from(&self) -> Dialect {
        self.from
    }

    /// The provider's dialect.
    pub fn to(&self) -> Dialect {
        self.to
    }

    /// Whether `operation` of the caller's dialect is one that is translated.
    pub fn takes(&self, operation: &Operation) -> bool {
        operation.dialect() == self.from && matches!(operation.name(), "chat.completions" | "messages.create")
    }

    /// What a record says of a request without what was `lost` of it; `None` only where a dialect's name were none.
    pub fn record(&self, lost: &Lost) -> Option<record::Translation> {
        Some(record::Translation {
            from: Identifier::new(self.from.name()).ok()?,
            to: Identifier::new(self.to.name()).ok()?,
            dropped: lost.record(),
        })
    }

    /// What the provider's dialect calls the operation at `path`.
    pub fn operation(&self, path: &str) -> Operation {
        operation(self.to, &Method::POST, path)
    }

    /// The provider's request for the caller's.
    ///
    /// `model` is what the provider calls the model, where the route says so.
    ///
    /// # Errors
    /// [`Untranslatable`]: nothing is to be sent then.
    pub fn request(
        &self,
        operation: &Operation,
        path: &str,
        body: &[u8],
        model: Option<&str>,
        options: Options,
    ) -> Result<Translated, Untranslatable> {
        if !self.takes(operation) {
            return Err(Untranslatable::Operation(operation.name()));
        }
        let (mut conversation, mut dropped) = self.caller.read_request(path, body)?;
        options.judge(&dropped)?;
        let asked = Asked {
            model: conversation.model.clone(),
            stream_usage: conversation.stream_usage,
            ..Asked::default()
        };
        if let Some(model) = model {
            model.clone_into(&mut conversation.model);
        }
        let written = self.provider.write_request(&conversation, options)?;
        dropped.extend(written.dropped);
        Ok(Translated {
            path: written.path,
            headers: written.headers,
            body: written.body,
            dropped,
            asked,
            stream: conversation.stream,
        })
    }

    /// The caller's answer for the provider's whole one, errors too.
    ///
    /// # Errors
    /// [`Unreadable`] where it is no answer of the provider's dialect: the caller gets an error of the gateway's own.
    pub fn answer(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        asked: &Asked,
    ) -> Result<Whole, Unreadable> {
        let failed = |failure: &Failure| {
            let (status, body) = self.caller.write_error(failure);
            Whole { status, body, dropped: Vec::new() }
        };
        if status >= 400 {
            return Ok(failed(&self.provider.read_error(status, headers, body)));
        }
        let answer = self.provider.read_answer(body)?;
        if let Some(failure) = &answer.failure {
            return Ok(failed(failure));
        }
        let body = self.caller.write_answer(&answer, asked);
        Ok(Whole { status, body, dropped: answer.dropped })
    }

    /// A translator for a stream of events.
    pub fn stream(&self, asked: Asked) -> Translator {
        Translator::new(self.provider.event_reader(), self.caller.event_writer(asked))
    }
}
