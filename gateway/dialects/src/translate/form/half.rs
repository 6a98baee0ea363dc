//! The halves of a dialect: what callers of it speak, and what its providers do.

use http::HeaderMap;

use crate::change::ChatBound;

use super::{Answer, CannotCarry, Conversation, Dropped, Event, Failure, Weight};

/// Bytes that are not what their dialect says they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` must be {wanted}")]
pub struct Unreadable {
    /// Where.
    pub path: String,
    /// What was wanted there.
    pub wanted: &'static str,
}

impl Unreadable {
    /// At `path` stands something else than `wanted`.
    pub fn new(path: impl Into<String>, wanted: &'static str) -> Self {
        Self { path: path.into(), wanted }
    }
}

/// What a writer of answers has to know of the request and of the gateway, since it has no clock and no request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The model that was asked for.
    pub model: String,
    /// Whether a stream tells its usage in an event of its own.
    pub stream_usage: bool,
    /// Seconds since 1970, for the dialects whose answers say when they were made.
    pub created: i64,
    /// The exchange's id, for an answer whose provider gave none.
    pub exchange: String,
}

/// A request for a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The path, percent-encoded, with its query.
    pub path: String,
    /// Headers that the dialect wants beside what the gateway sets.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What was left out.
    pub dropped: Vec<Dropped>,
}

/// What the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Leave out what cannot be said, though the request means something else then.
    pub drop: bool,
    /// The bound on output for a dialect that wants one where the caller gave none.
    pub max_output_tokens: i64,
    /// The word for that bound in a chat of OpenAI's dialect.
    pub chat_bound: ChatBound,
}

impl Default for Options {
    fn default() -> Self {
        Self { drop: false, max_output_tokens: 8192, chat_bound: ChatBound::default() }
    }
}

impl Options {
    /// Goes on with what was left out, or not.
    ///
    /// # Errors
    /// [`CannotCarry`] with what changes the meaning, unless it is to be dropped.
    pub fn judge(self, dropped: &[Dropped]) -> Result<(), CannotCarry> {
        let weighty = |d: &&Dropped| d.weight == Weight::Meaning;
        if self.drop || !dropped.iter().any(|d| weighty(&d)) {
            return Ok(());
        }
        Err(CannotCarry { dropped: dropped.iter().filter(weighty).cloned().collect() })
    }
}

/// The half of a dialect that callers speak.
pub trait Caller: Sync {
    /// Reads a request, and lists what of it the form has no place for.
    ///
    /// # Errors
    /// [`Unreadable`] where it is not a request of this dialect.
    fn read_request(&self, path: &str, body: &[u8]) -> Result<(Conversation, Vec<Dropped>), Unreadable>;

    /// Writes a whole answer.
    fn write_answer(&self, answer: &Answer, asked: &Asked) -> Vec<u8>;

    /// A writer for a stream. What it writes are server-sent events.
    fn event_writer(&self, asked: Asked) -> Box<dyn EventWriter>;

    /// Writes an error: the status for the caller, and the body.
    fn write_error(&self, failure: &Failure) -> (u16, Vec<u8>);
}

/// The half of a dialect that providers speak.
pub trait Provider: Sync {
    /// Writes a request. It has judged what it drops by `options`.
    ///
    /// # Errors
    /// [`CannotCarry`] where something that matters cannot be said.
    fn write_request(&self, conversation: &Conversation, options: Options) -> Result<Written, CannotCarry>;

    /// Reads a whole answer of a status below 400.
    ///
    /// # Errors
    /// [`Unreadable`] where it is none of this dialect.
    fn read_answer(&self, body: &[u8]) -> Result<Answer, Unreadable>;

    /// A reader for a stream.
    fn event_reader(&self) -> Box<dyn EventReader>;

    /// Reads an error. What cannot be read gives an error of the status' kind.
    fn read_error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure;
}

/// Reads a stream as it comes, cut anywhere.
pub trait EventReader: Send {
    /// Takes bytes, and puts what happened behind `events`.
    fn feed(&mut self, chunk: &[u8], events: &mut Vec<Event>);

    /// The body is over. [`Event::End`] comes only if the dialect's own end was seen, or if it has none and the answer
    /// is whole.
    fn end(&mut self, events: &mut Vec<Event>);

    /// What of the stream, since this was last asked, the form has no place for.
    fn dropped(&mut self) -> Vec<Dropped> {
        Vec::new()
    }
}

/// Writes a stream, event by event.
pub trait EventWriter: Send {
    /// Puts the bytes that stand for `event` behind `out`; the terminal event only at [`Event::End`].
    fn write(&mut self, event: &Event, out: &mut Vec<u8>);
}
