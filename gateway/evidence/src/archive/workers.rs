//! The threads that archive: one batch each, with a wait after a failure that does not hold up the others.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::assembly::Wanted;
use super::batch::{Hand, NotStored, Stored, Whole};
use super::quarantine::Fault;
use crate::ship::BackOff;
use crate::store::StoreError;

/// A batch that was tried.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) seal: Wanted,
    pub(super) batch: Whole,
    pub(super) result: Result<Stored, NotStored>,
}

type Job = (Wanted, Whole);

/// The threads, and the batches that wait for another try.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Option<SyncSender<Job>>,
    results: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    busy: usize,
    later: VecDeque<(Instant, Job)>,
    back_off: BackOff,
}

impl Workers {
    pub(super) fn start(hand: &Hand, count: usize) -> io::Result<Self> {
        // Never full: at most as many batches are given as there are threads, those that wait among them.
        let count = count.max(1);
        let (jobs, taken) = sync_channel::<Job>(count);
        let (told, results) = sync_channel(count);
        let taken = Arc::new(Mutex::new(taken));
        let mut threads = Vec::new();
        for number in 0..count {
            let (hand, taken, told) = (hand.clone(), Arc::clone(&taken), told.clone());
            let work = move || {
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((seal, batch)) = job else { return };
                    // A batch that is a defect's undoing stops no other.
                    let result =
                        catch_unwind(AssertUnwindSafe(|| hand.archive(&batch))).unwrap_or_else(|_| {
                            Err(NotStored::Never(Fault::InvalidBatch, "archiving it panicked".into()))
                        });
                    if told.send(Done { seal, batch, result }).is_err() {
                        return;
                    }
                }
            };
            threads.push(std::thread::Builder::new().name(format!("archive-{number}")).spawn(work)?);
        }
        let back_off = BackOff::default();
        Ok(Self { jobs: Some(jobs), results, threads, busy: 0, later: VecDeque::new(), back_off })
    }

    /// Whether another batch can be given: as many as there are threads. Those that wait for another try hold up nobody.
    pub(super) fn has_room(&self) -> bool {
        self.busy < self.threads.len()
    }

    pub(super) fn give(&mut self, seal: Wanted, batch: Whole) {
        if let Some(jobs) = &self.jobs
            && jobs.send((seal, batch)).is_ok()
        {
            self.busy += 1;
        }
    }

    /// Gives a batch again, after a wait that grows with each failure in a row.
    pub(super) fn give_later(&mut self, seal: Wanted, batch: Whole, error: Option<&StoreError>) {
        let wait = self.back_off.failed_for(error.and_then(StoreError::trouble));
        self.later.push_back((Instant::now() + wait, (seal, batch)));
    }

    /// A batch that was tried, where there is one; starts those whose wait is over.
    pub(super) fn done(&mut self) -> Option<Done> {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(when, _)| *when <= now);
        self.later = later;
        let due: VecDeque<(Instant, Job)> = due;
        for (_, (seal, batch)) in due {
            self.give(seal, batch);
        }
        let done = self.results.try_recv().ok()?;
        self.busy -= 1;
        if done.result.is_ok() {
            self.back_off.succeeded();
        }
        Some(done)
    }

    /// Ends the threads; a batch that is at the store is finished first.
    pub(super) fn stop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
