//! Ctrl-C while evidence is verified: the verification ends in good order, so that the next one goes on where it was.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::verify::Options;

/// Set by Ctrl-C. Signals are the process's, and so is this.
static CAME: AtomicBool = AtomicBool::new(false);
/// A verification is under way that heeds it.
static HEEDED: AtomicBool = AtomicBool::new(false);
/// The signal is waited for.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C is heeded while this lives. Before, after, and the second time it ends the process at once.
#[derive(Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Lets a verification end once Ctrl-C came.
    ///
    /// # Errors
    /// The signal cannot be waited for.
    pub fn watch(options: &mut Options<'_>) -> std::io::Result<Self> {
        options.stop = Some(&CAME);
        HEEDED.store(true, Ordering::SeqCst);
        if !WATCHED.swap(true, Ordering::SeqCst) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let entered = runtime.enter();
            let mut interrupts = signal(SignalKind::interrupt())?;
            drop(entered);
            std::thread::Builder::new().name("interrupt".into()).spawn(move || {
                runtime.block_on(async {
                    while interrupts.recv().await.is_some() {
                        if CAME.swap(true, Ordering::SeqCst) || !HEEDED.load(Ordering::SeqCst) {
                            let _ = kill_process(getpid(), Signal::TERM);
                        }
                    }
                });
            })?;
        }
        Ok(Self(()))
    }

    /// True where it came.
    pub fn came(&self) -> bool {
        CAME.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        HEEDED.store(false, Ordering::SeqCst);
    }
}
