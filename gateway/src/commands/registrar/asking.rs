//! Asking others for a word on each checkpoint, beside the registrar's rounds: when, how often, and what is told of it.
//!
//! One that does not answer is asked again, each time a little later, and then for the newest checkpoint only: a word
//! on it binds all that is below it.

use std::sync::Arc;
use std::time::Duration;

use evidence::registry::{Anchors, Head, RegistrarError};
use schemas::names::AnchorKind;
use tokio::sync::watch;

use super::metrics::Metrics;

/// How long after a failure the next try comes: doubled each time. The longest is how late one that was away and came
/// back is asked: no longer than people wait.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(20);

/// Somebody who is asked.
pub(super) trait Ask: Send + 'static {
    /// What it is called where it gave its word.
    const DONE: &'static str;

    /// As it stands in metrics and logs.
    fn by(&self) -> &str;

    /// How long after a word the next is asked for.
    fn every(&self) -> Duration;

    /// Asks for a word on a head, or on one on the way to it, and keeps it in the store; gives the head that it is on.
    fn ask(&mut self, head: &Head) -> impl Future<Output = Result<Head, Trouble>> + Send;
}

/// Why there is no word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// As it stands in metrics.
    pub(super) result: &'static str,
    /// What happened.
    pub(super) what: String,
    /// After how many failures somebody must look, where somebody must.
    pub(super) alarm: Option<u32>,
}

impl Trouble {
    pub(super) fn new(result: &'static str, what: impl ToString) -> Self {
        Self { result, what: what.to_string(), alarm: None }
    }
}

/// How long to wait after so many failures.
fn pause(failures: u32) -> Duration {
    LAST_PAUSE
        .min(FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)))
}

/// Asks until the registrar ends.
pub(super) async fn follow<A: Ask>(
    mut asked: A,
    mut heads: watch::Receiver<Option<Head>>,
    metrics: Arc<Metrics>,
) {
    let by = asked.by().to_owned();
    // What was said since this start.
    let (mut done, mut failures) = (None, 0);
    loop {
        let newer = |head: &Option<Head>| head.as_ref().is_some_and(|head| done != Some(head.size));
        let head = match heads.wait_for(newer).await {
            Ok(head) => head.clone(),
            Err(_) => return,
        };
        let Some(head) = head else { continue };
        match asked.ask(&head).await {
            Ok(reached) => {
                metrics.asked(&by, A::DONE);
                metrics.reached(&by, reached.size, reached.sealed_us);
                tracing::info!(by, size = reached.size, result = A::DONE, "a word on the registry");
                (failures, done) = (0, Some(reached.size));
                if reached.size == head.size {
                    tokio::time::sleep(asked.every()).await;
                }
            }
            Err(Trouble { result, what: error, alarm }) => {
                failures += 1;
                metrics.asked(&by, result);
                let pause = pause(failures);
                let pause_s = pause.as_secs();
                if alarm.is_some_and(|after| failures > after) {
                    tracing::error!(
                        by,
                        result,
                        error,
                        failures,
                        pause_s,
                        "the registry does not continue what was witnessed"
                    );
                } else {
                    tracing::warn!(by, result, error, failures, pause_s, "no word on the registry");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Store and proofs block: they are given a thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistrarError> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Trouble::new("store", error)),
        Err(_) => Err(Trouble::new("store", "the work was cut")),
    }
}

/// Keeps an answer beside the head's checkpoint.
pub(super) async fn keep(
    anchors: &Anchors,
    head: &Head,
    kind: AnchorKind,
    bytes: Vec<u8>,
) -> Result<(), Trouble> {
    let (anchors, head) = (anchors.clone(), head.clone());
    blocking(move || anchors.keep(&head, kind, &bytes)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_away_for_long_is_asked_soon_after_it_came_back() {
        let found: Vec<u64> = (1..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(found, [1, 2, 4, 8, 16, 20, 20, 20]);
        assert_eq!(pause(u32::MAX), LAST_PAUSE);
    }
}
