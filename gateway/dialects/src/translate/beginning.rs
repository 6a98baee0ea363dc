//! How requests begin whose dialect has a model and messages at their first level.

use super::form::{Conversation, Unreadable};
use super::text::Object;

/// A request of which model and messages are read.
pub(crate) struct Beginning<'a> {
    /// The rest of its keys.
    pub(crate) request: Object<'a>,
    /// What is known so far: the model.
    pub(crate) conversation: Conversation,
    /// The messages, with their paths.
    pub(crate) messages: Vec<(String, &'a str)>,
}

impl<'a> Beginning<'a> {
    /// Reads a body so far.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Unreadable> {
        let mut request = Object::body(body)?;
        let conversation = Conversation { model: request.wanted("model")?, ..Conversation::default() };
        let messages = request.array("messages")?;
        let messages = messages.ok_or_else(|| Unreadable::new("messages", "an array of messages"))?;
        Ok(Self { request, conversation, messages })
    }
}
