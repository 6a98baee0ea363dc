//! What a provider answers: whole, or event by event.

use super::{Dropped, Failure, Part, Usage};

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The provider's id of it.
    pub id: Option<String>,
    /// The model that served.
    pub model: Option<String>,
    /// Texts, thoughts, calls of tools.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// Its tokens.
    pub usage: Option<Usage>,
    /// What of it this form has no place for.
    pub dropped: Vec<Dropped>,
    /// An error that the provider put in the place of an answer, though the status says nothing of it: the caller gets
    /// that.
    pub failure: Option<Failure>,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// It was said.
    Stop,
    /// A stop text came, which one where it is told.
    StopSequence(Option<String>),
    /// The bound on output.
    Length,
    /// The model's window is full.
    ContextWindow,
    /// The caller's tools are to be called.
    ToolUse,
    /// A filter of the provider's, or the model itself, refused.
    Refused,
    /// The provider paused; sent back as it is, it goes on.
    Pause,
    /// A reason that has no word here: the arguments of a call were malformed, ...
    Other(String),
}

/// What happens in a stream. Parts are numbered from 0 as they begin; one is open at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The answer begins. Comes once, before all else but [`Event::Error`].
    Begin {
        /// The provider's id of it.
        id: Option<String>,
        /// The model that serves.
        model: Option<String>,
        /// What is known of its tokens.
        usage: Option<Usage>,
    },
    /// A part begins.
    PartBegin {
        /// Its number.
        index: usize,
        /// What it is; what it holds already is its first piece.
        kind: PartKind,
    },
    /// More text, thinking, or arguments.
    Delta {
        /// The part's number.
        index: usize,
        /// The piece.
        text: String,
    },
    /// The signature of a thinking part, or of any other part that has one. It comes before the part's end.
    Signature {
        /// The part's number.
        index: usize,
        /// A piece of the signature.
        signature: String,
    },
    /// A part is whole.
    PartEnd {
        /// Its number.
        index: usize,
    },
    /// Why it ends.
    Finish(Finish),
    /// Tokens; a later one replaces what it knows.
    Usage(Usage),
    /// The provider reports an error; nothing follows.
    Error(Failure),
    /// The provider's own end of the stream: only behind this the caller gets its terminal event.
    End,
}

/// What kind of part begins in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartKind {
    /// Text.
    Text,
    /// Text in which the model refuses.
    Refusal,
    /// Thinking.
    Thinking,
    /// Thinking that the provider has encrypted: all of it.
    Redacted(String),
    /// A call of a tool, whose arguments follow.
    ToolUse {
        /// Its id.
        id: String,
        /// The tool's name.
        name: String,
    },
}
