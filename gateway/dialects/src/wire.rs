//! The seam between the shared parts and a dialect: everything that differs from one wire format to the next.
//!
//! A new dialect is a variant of [`Dialect`], one module with a type that implements [`Wire`], and its line in
//! [`Dialect::wire`]. A provider that speaks a dialect that is here already needs no code at all.

use http::HeaderMap;
use serde_json::Value;

use crate::facts::{Gathered, Unread};
use crate::operation::{Dialect, Operation, Row};
use crate::request::RequestFacts;
use crate::sse::{self, Event, Unfinished};
use crate::usage::Convention;
use crate::{anthropic, bedrock, cohere, gemini, ollama, openai, watsonx};
use crate::{event_stream, values};

/// One wire format.
pub(crate) trait Wire: Sync {
    /// Its table of operations.
    fn operations(&self) -> &'static [Row];

    /// Dialects that its providers speak too, on paths that its own table does not know.
    fn also(&self) -> &'static [Dialect] {
        &[]
    }

    /// The part of a path that the table knows.
    fn behind_deployment<'p>(&self, path: &'p str) -> &'p str {
        path
    }

    /// The model that a path of its table names: it counts, whatever the body says.
    fn path_model(&self, path: &str) -> Option<String> {
        let _ = path;
        None
    }

    /// Puts in what a JSON body of this dialect says beyond the common fields.
    fn request(&self, facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
        let _ = (facts, operation, body);
    }

    /// How a body of this media type (in lower case, without parameters) falls into events; `None` where it is none
    /// that streams.
    fn framing(&self, operation: &Operation, media_type: &str) -> Option<Framing> {
        let _ = operation;
        (media_type == "text/event-stream").then_some(Framing::ServerSent)
    }

    /// Reads the head of an answer.
    fn head(&self, gathered: &mut Gathered, status: u16, headers: &HeaderMap) {
        let _ = (gathered, status, headers);
    }

    /// Reads one event of a stream.
    fn event(&self, gathered: &mut Gathered, operation: &Operation, event: &Event<'_>) -> Close;

    /// Whether an event that is not yet whole can only be one that closes its stream.
    fn closes(&self, event: &Unfinished<'_>) -> bool;

    /// Reads a whole body.
    fn body(&self, gathered: &mut Gathered, operation: &Operation, status: u16, body: &[u8]);

    /// The answer is over: puts together what it said in several places.
    fn settle(&self, gathered: &mut Gathered) {
        let _ = gathered;
    }

    /// How the main counts of an answer relate to their parts.
    fn convention(&self, gathered: &Gathered) -> Convention {
        let _ = gathered;
        Convention::OpenAi
    }

    /// Whether counts come before the last word is said: those of a stream without it are a lower bound.
    fn counts_run(&self) -> bool {
        false
    }

    /// The JSON body of an error of the gateway's own.
    fn own_error(&self, error: &OwnError<'_>) -> Value;

    /// The header that goes with it, where the SDKs read one.
    fn own_error_type(&self, status: u16) -> Option<(&'static str, &'static str)> {
        let _ = status;
        None
    }

    /// A frame of an error of the gateway's own.
    fn own_frame(&self, error: &OwnError<'_>) -> Option<Vec<u8>> {
        let _ = error;
        None
    }

    /// A server-sent event of an error of the gateway's own.
    fn own_event(&self, operation: &Operation, error: &OwnError<'_>) -> String {
        let _ = operation;
        format!("data: {}\n\n", self.own_error(error))
    }

    /// An error of the gateway's own as the last bytes of a stream; `half`: behind half an event. `None` where it cannot
    /// be put in.
    fn own_error_event(
        &self,
        operation: &Operation,
        framing: Framing,
        half: bool,
        error: &OwnError<'_>,
    ) -> Option<Vec<u8>> {
        let text = match (framing, half) {
            (Framing::ServerSent, false) => self.own_event(operation, error),
            (Framing::ServerSent, true) => format!("\n\n{}", self.own_event(operation, error)),
            (Framing::Values, false) => format!("{}\n", self.own_error(error)),
            (Framing::Values, true) => format!("\n{}\n", self.own_error(error)),
            (Framing::Frames, false) => return self.own_frame(error),
            // What a frame holds is counted: behind half of one nothing can be said.
            (Framing::Frames, true) => return None,
        };
        Some(text.into_bytes())
    }
}

impl Dialect {
    /// What is special about this dialect.
    pub(crate) fn wire(self) -> &'static dyn Wire {
        match self {
            Self::OpenAi | Self::AzureOpenAi => &openai::OpenAi,
            Self::Anthropic => &anthropic::Anthropic,
            Self::Gemini => &gemini::Gemini { vertex: false },
            Self::Vertex => &gemini::Gemini { vertex: true },
            Self::Cohere => &cohere::Cohere,
            Self::Ollama => &ollama::Ollama,
            Self::Watsonx => &watsonx::Watsonx,
            Self::Bedrock => &bedrock::Bedrock,
        }
    }
}

/// What an event means for the end of its stream (CA-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// More follows.
    No,
    /// As far as the dialect shows nothing follows, but only the body's own end says so: it is held, with all behind it.
    Held,
    /// It ends the stream: it is held, and the body's end is awaited for a moment only.
    Ends,
}

impl Close {
    /// [`Close::Ends`] where `ends`.
    pub(crate) fn ends(ends: bool) -> Self {
        if ends { Self::Ends } else { Self::No }
    }
}

/// An error of the gateway's own.
pub(crate) struct OwnError<'a> {
    pub(crate) status: u16,
    /// `affidavit_<reason>`.
    pub(crate) code: String,
    pub(crate) message: &'a str,
    pub(crate) exchange: Option<&'a str>,
}

/// How the bytes of a stream fall into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    ServerSent,
    /// JSON values, one a line or in one array.
    Values,
    /// The frames of AWS's event streams. No reader can use a part of one.
    Frames,
}

/// A stream, read event by event as it passes.
#[derive(Debug)]
pub(crate) enum Frames {
    ServerSent(sse::Parser),
    Values(values::Parser),
    Aws(event_stream::Parser),
}

impl Frames {
    /// A reader of events of at most `limit` bytes.
    pub(crate) fn new(framing: Framing, limit: usize) -> Self {
        match framing {
            Framing::ServerSent => Self::ServerSent(sse::Parser::new(limit)),
            Framing::Values => Self::Values(values::Parser::new(limit)),
            Framing::Frames => Self::Aws(event_stream::Parser::new(limit)),
        }
    }

    /// How its bytes fall into events.
    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self::ServerSent(_) => Framing::ServerSent,
            Self::Values(_) => Framing::Values,
            Self::Aws(_) => Framing::Frames,
        }
    }

    /// Whether an event of the gateway's own may be put in here.
    pub(crate) fn between_events(&self) -> bool {
        match self {
            Self::ServerSent(parser) => parser.between_events(),
            Self::Values(parser) => parser.between_values(),
            Self::Aws(parser) => parser.between_frames(),
        }
    }

    /// What stopped it (an event over `limit`, damage): nothing is read any more.
    pub(crate) fn stopped(&self, limit: usize) -> Option<Unread> {
        let too_large = |stopped: bool| stopped.then_some(Unread::EventTooLarge { limit });
        match self {
            Self::ServerSent(parser) => too_large(parser.stopped()),
            Self::Values(parser) => too_large(parser.stopped()),
            Self::Aws(parser) => parser.error().map(Unread::Frame),
        }
    }

    /// The event that the last chunk left unfinished. A JSON value and a frame end with their last byte, so nothing of
    /// them can be told before.
    pub(crate) fn unfinished(&self) -> Option<Unfinished<'_>> {
        match self {
            Self::ServerSent(parser) => parser.unfinished(),
            Self::Values(_) | Self::Aws(_) => None,
        }
    }

    /// Gives every event that ends in `chunk`.
    pub(crate) fn feed(&mut self, chunk: &[u8], dispatch: &mut dyn FnMut(Event<'_>)) {
        match self {
            Self::ServerSent(parser) => parser.feed(chunk, dispatch),
            Self::Values(parser) => parser.feed(chunk, dispatch),
            Self::Aws(parser) => parser.feed(chunk, dispatch),
        }
    }

    /// The stream has ended: gives an event that lacks its end, where a lenient reader would take it.
    pub(crate) fn finish(&mut self, dispatch: &mut dyn FnMut(Event<'_>)) {
        match self {
            Self::ServerSent(parser) => parser.finish(dispatch),
            Self::Values(_) => {}
            Self::Aws(parser) => parser.finish(),
        }
    }
}
