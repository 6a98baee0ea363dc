//! OpenAI's chat completions, as callers and as providers speak them.
//!
//! - `request`: what a caller asks, and what a provider is asked
//! - `answer`: whole answers, usage, errors
//! - `schema`: what strict mode takes
//! - `stream`: chunks

mod answer;
mod request;
mod schema;
mod stream;

use http::HeaderMap;

use super::form::{
    Answer, Asked, Caller, CannotCarry, Conversation, Dropped, EventReader, EventWriter, Failure, Options,
    Provider, Unreadable, Written,
};

/// Chat completions; where a provider takes them.
pub(crate) struct Chat {
    /// The path at the provider's.
    pub(crate) path: &'static str,
}

impl Caller for Chat {
    fn read_request(&self, _: &str, body: &[u8]) -> Result<(Conversation, Vec<Dropped>), Unreadable> {
        request::read(body)
    }
    fn write_answer(&self, answer: &Answer, asked: &Asked) -> Vec<u8> {
        answer::write(answer, asked).into_bytes()
    }
    fn event_writer(&self, asked: Asked) -> Box<dyn EventWriter> {
        Box::new(stream::Writing::new(asked))
    }
    fn write_error(&self, failure: &Failure) -> (u16, Vec<u8>) {
        // Nobody but Anthropic says 529.
        let status = if failure.status == 529 { 503 } else { failure.status };
        (status, answer::write_error(failure).into_bytes())
    }
}

impl Provider for Chat {
    fn write_request(&self, conversation: &Conversation, options: Options) -> Result<Written, CannotCarry> {
        request::write(conversation, options, self.path)
    }
    fn read_answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        answer::read(body)
    }
    fn event_reader(&self) -> Box<dyn EventReader> {
        Box::new(stream::Reading::new())
    }
    fn read_error(&self, status: u16, _: &HeaderMap, body: &[u8]) -> Failure {
        super::failure::read(status, body)
    }
}
