//! Bedrock's Converse, as providers speak it.
//!
//! - `request`: what a provider is asked
//! - `answer`: whole answers, usage, errors
//! - `stream`: frames of an event stream

mod answer;
mod request;
mod stream;

use http::HeaderMap;

use super::form::{
    Answer, CannotCarry, Conversation, EventReader, Failure, Options, Provider, Unreadable, Written,
};

/// Converse and ConverseStream.
pub(crate) struct Bedrock;

impl Provider for Bedrock {
    fn write_request(&self, conversation: &Conversation, options: Options) -> Result<Written, CannotCarry> {
        request::write(conversation, options)
    }
    fn read_answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        answer::read(body)
    }
    fn event_reader(&self) -> Box<dyn EventReader> {
        Box::new(stream::Reading::new())
    }
    fn read_error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        answer::read_error(status, headers, body)
    }
}
