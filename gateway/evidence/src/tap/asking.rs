//! Questions to the store, on a thread of their own: one that hangs holds up no leaves that come from elsewhere.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use schemas::Origin;

use super::log::CannotRead;
use super::store::{InStore, Stored};
use crate::store::{StoreError, Trouble};

/// How long a sink's thread waits for the store, once for each question.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// Beyond this it is told that no answer comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one sink asks the store: one question at a time, so that a store that hangs takes one thread.
#[derive(Debug, Default)]
pub(super) struct Asking(Option<Asked>);

/// A question whose answer nobody has fetched.
#[derive(Debug)]
struct Asked {
    origin: Origin,
    position: u64,
    since: Instant,
    answer: Receiver<Answer>,
    /// The answer, once another question came after it: who asked may still fetch it.
    left: Option<Answer>,
}

type Answer = Result<(Stored, u64), CannotRead>;

/// What the store is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) position: u64,
    /// The batch that ends there, where that is known.
    pub(super) before: Option<u64>,
    /// What was settled before it was asked: given back with the answer.
    pub(super) settled: u64,
}

impl Asking {
    /// What the store has of a position; `None`: no answer yet, ask again.
    ///
    /// # Errors
    /// The store's own, or that it does not answer.
    pub(super) fn ask(
        &mut self,
        log: InStore,
        question: Question,
    ) -> Result<Option<(Stored, u64)>, CannotRead> {
        let (mut asked, wait) = match self.0.take() {
            Some(asked) if (&asked.origin, asked.position) == (&log.origin, question.position) => {
                (asked, Duration::ZERO)
            }
            mut other => {
                if let Some(other) = other.take_if(Asked::holds_up) {
                    return self.keep(other);
                }
                (Asked::begin(log, question)?, ANSWER_WITHIN)
            }
        };
        if let Some(answer) = asked.left.take() {
            return answer.map(Some);
        }
        match asked.answer.recv_timeout(wait) {
            Ok(answer) => answer.map(Some),
            Err(RecvTimeoutError::Timeout) => self.keep(asked),
            Err(RecvTimeoutError::Disconnected) => {
                Err(no_answer(&asked.origin, Trouble::Local, "reading it panicked".into()))
            }
        }
    }

    fn keep(&mut self, asked: Asked) -> Result<Option<(Stored, u64)>, CannotRead> {
        let overdue = asked.since.elapsed() > PATIENCE && asked.left.is_none();
        let detail = || format!("no answer for more than {PATIENCE:?}");
        let told = overdue.then(|| no_answer(&asked.origin, Trouble::Timeout, detail()));
        self.0 = Some(asked);
        told.map_or(Ok(None), Err)
    }
}

impl Asked {
    fn begin(log: InStore, question: Question) -> Result<Self, CannotRead> {
        let Question { position, before, settled } = question;
        let (origin, since) = (log.origin.clone(), Instant::now());
        let (told, answer) = sync_channel(1);
        // Who asked may be gone.
        let reads = move || _ = told.send(log.stored(position, before).map(|stored| (stored, settled)));
        std::thread::Builder::new()
            .name("tap-store".into())
            .spawn(reads)
            .map_err(|error| no_answer(&origin, Trouble::Local, error.to_string()))?;
        Ok(Self { origin, position, since, answer, left: None })
    }

    /// Whether another question waits for this one: until the answer comes, and once more, for who asked to fetch it.
    fn holds_up(&mut self) -> bool {
        if self.left.is_some() {
            return false;
        }
        match self.answer.try_recv() {
            Ok(answer) => {
                self.left = Some(answer);
                true
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        }
    }
}

fn no_answer(origin: &Origin, trouble: Trouble, detail: String) -> CannotRead {
    let name = origin.to_string();
    StoreError::Service { action: "cannot read", name, trouble, detail }.into()
}
