//! Waiting for a sink: bounded, and not past the process's end. Each sink has a runtime of its own on its own thread, so
//! that nothing of it runs where traffic does.

use std::time::Duration;

use evidence::Stop;
use evidence::tap::SinkError;
use tokio::runtime::Runtime;

const LOOK: Duration = Duration::from_millis(50);

/// Runs `work` to its end.
pub(super) fn run<T>(
    runtime: Option<&Runtime>,
    bound: Duration,
    stop: &Stop,
    work: impl Future<Output = Result<T, SinkError>>,
) -> Result<T, SinkError> {
    let Some(runtime) = runtime else {
        return Err(SinkError::new("local", "no runtime could be made"));
    };
    let stopped = async {
        while !stop.asked() {
            tokio::time::sleep(LOOK).await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = tokio::time::sleep(bound) => Err(SinkError::new("timeout", format!("no answer within {bound:?}"))),
            () = stopped => Err(SinkError::new("stopped", "the gateway ends")),
        }
    })
}

/// A runtime for one sink.
pub(super) fn runtime() -> Option<Runtime> {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.inspect_err(|error| tracing::error!(%error, "no runtime for a sink of the tap")).ok()
}
