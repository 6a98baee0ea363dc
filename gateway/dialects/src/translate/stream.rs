//! A stream on its way from a provider's dialect to a caller's.

use super::form::{Dropped, Event, EventReader, EventWriter};

/// Translates a stream as it comes. What comes out does not depend on how the bytes are cut.
pub struct Translator {
    reader: Box<dyn EventReader>,
    writer: Box<dyn EventWriter>,
    events: Vec<Event>,
    ended: bool,
    failed: bool,
}

impl std::fmt::Debug for Translator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translator")
            .field("ended", &self.ended)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Translator {
    pub(super) fn new(reader: Box<dyn EventReader>, writer: Box<dyn EventWriter>) -> Self {
        Self { reader, writer, events: Vec::new(), ended: false, failed: false }
    }

    /// Takes bytes of the provider's, and puts what the caller gets for them behind `out`.
    pub fn feed(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.reader.feed(chunk, &mut self.events);
        self.write(out);
    }

    /// The provider's body is over.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.reader.end(&mut self.events);
        self.write(out);
    }

    /// What of the stream, since this was last asked, the caller does not get.
    pub fn dropped(&mut self) -> Vec<Dropped> {
        self.reader.dropped()
    }

    /// Whether the caller got the terminal event of its dialect.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the caller got an error.
    pub fn failed(&self) -> bool {
        self.failed
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        for event in self.events.drain(..) {
            self.ended |= event == Event::End;
            self.failed |= matches!(event, Event::Error(_));
            self.writer.write(&event, out);
        }
    }
}
