//! Waiting for a sink: bounded, and not past the process's end. Each sink has a runtime of its own on its own thread, so
//! that nothing of it runs where traffic does.

use std::time::Duration;

use evidence::Stop;
use evidence::tap::SinkError;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(50);

/// When something went on last: a sink that takes what it is sent, however slowly, is waited for.
#[derive(Debug, Clone)]
pub(super) struct Progress(watch::Sender<Instant>);

impl Progress {
    pub(super) fn begun() -> Self {
        Self(watch::Sender::new(Instant::now()))
    }

    /// Something was taken.
    pub(super) fn made(&self) {
        self.0.send_replace(Instant::now());
    }

    /// Ends when nothing went on for as long as `bound`.
    async fn stalled(&self, bound: Duration) {
        loop {
            let until = *self.0.borrow() + bound;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Runs `work` to its end, as long as it goes on.
pub(super) fn run<T, E: From<SinkError>>(
    runtime: Option<&Runtime>,
    bound: Duration,
    stop: &Stop,
    progress: &Progress,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(runtime) = runtime else {
        return Err(SinkError::new("local", "no runtime could be made").into());
    };
    let stopped = async {
        while !stop.asked() {
            tokio::time::sleep(LOOK).await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = progress.stalled(bound) => {
                Err(SinkError::new("timeout", format!("nothing went on for {bound:?}")).into())
            }
            () = stopped => Err(SinkError::new("stopped", "the gateway ends").into()),
        }
    })
}

/// A runtime for one sink.
pub(super) fn runtime() -> Option<Runtime> {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.inspect_err(|error| tracing::error!(%error, "no runtime for a sink of the tap")).ok()
}
