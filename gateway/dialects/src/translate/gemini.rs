//! Gemini's `generateContent`, at Google AI or at Vertex AI, as providers speak it.
//!
//! - `request`: what a provider is asked
//! - `schema`: the JSON schemas in it
//! - `answer`: answers whole and streamed, usage, errors

mod answer;
mod request;
mod schema;

use http::HeaderMap;

use super::form::{
    Answer, CannotCarry, Conversation, EventReader, Failure, Options, Provider, Unreadable, Written,
};

/// Google's format.
pub(crate) struct Gemini {
    /// At Vertex AI.
    pub(crate) vertex: bool,
}

impl Provider for Gemini {
    fn write_request(&self, conversation: &Conversation, options: Options) -> Result<Written, CannotCarry> {
        request::write(self.vertex, conversation, options)
    }
    fn read_answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        answer::read(self.vertex, body)
    }
    fn event_reader(&self) -> Box<dyn EventReader> {
        Box::new(answer::Reading::new(self.vertex))
    }
    fn read_error(&self, status: u16, _: &HeaderMap, body: &[u8]) -> Failure {
        answer::read_error(status, body)
    }
}
