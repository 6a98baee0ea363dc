//! An answer that is read before any of it is passed on, and whose caller may leave meanwhile.

use std::sync::Arc;

use dialects::Operation;

use super::answer::Answer;
use super::live::Live;
use super::rest::Rest;
use super::{back, drain};

/// An exchange and its answer while that is read ahead. Dropped without [`Ahead::done`], its caller has left: what came is kept and
/// counted, and the rest is read on as of a stream (CA-6). Where the gateway itself fails meanwhile what came is kept.
pub(crate) struct Ahead<'a> {
    pub(crate) live: &'a mut Live,
    pub(crate) answer: &'a mut Answer,
    /// What the provider calls the operation.
    spoken: Operation,
    is_done: bool,
}

impl<'a> Ahead<'a> {
    pub(crate) fn new(live: &'a mut Live, answer: &'a mut Answer, spoken: Operation) -> Self {
        Self { live, answer, spoken, is_done: false }
    }

    /// It was read as far as it is to be.
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        let app = self.live.open().map(|open| Arc::clone(&open.app));
        let Some(app) = app.filter(|_| !self.is_done) else { return };
        if std::thread::panicking() {
            // What reads it may be what fails.
            return back::keep_unread(self.live, self.answer);
        }
        let kept = back::keep_part(self.live, self.answer, Some(self.spoken));
        let rest = std::mem::replace(&mut self.answer.rest, Rest::over());
        drain::left(&app, self.live.take(), kept.ok().map(|()| rest));
    }
}
