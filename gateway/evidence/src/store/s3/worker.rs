//! A small runtime of its own: the store's calls block, whoever makes them.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

/// Runs futures for threads that wait for them. May be used and dropped inside another runtime.
#[derive(Debug)]
pub(super) struct Worker {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Worker {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("evidence-s3")
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs `work` and waits for its end, at most for `bound`; `None` where it did not end in that time.
    pub(super) fn run<T: Send + 'static>(
        &self,
        bound: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, wait) = mpsc::sync_channel(1);
        let runtime = self.runtime.as_ref()?;
        runtime.spawn(async move {
            // Past its time the work is dropped, and with it the sender.
            if let Ok(result) = tokio::time::timeout(bound, work).await {
                // Nobody waits any more where the process ends.
                let _ = done.send(result);
            }
        });
        wait.recv().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
