//! What is told of the registrar's rounds: what each came to, and which of them took long, and why.

use std::time::{Duration, Instant};

use evidence::registry::{RegistrarError, Round, Waits};
use tokio::task::{JoinError, JoinHandle};

/// A round that takes longer is told of.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// How long after it was told the same error is told again.
const AGAIN: Duration = Duration::from_secs(300);

/// Waits for a round, and says what it waits for where it takes long: while it does, each time after twice as long, and
/// once it ended.
pub(super) async fn watched<T>(
    mut round: JoinHandle<T>,
    waits: &Waits,
    long: Duration,
) -> Result<T, JoinError> {
    let begun = Instant::now();
    let mut pause = long;
    loop {
        if let Ok(ended) = tokio::time::timeout(pause, &mut round).await {
            if begun.elapsed() >= long {
                let spent = waits.spent();
                let (longest, took) = spent.longest.unwrap_or_default();
                tracing::warn!(
                    round_s = begun.elapsed().as_secs_f64(),
                    store_s = spent.total.as_secs_f64(),
                    calls = spent.calls,
                    longest,
                    longest_s = took.as_secs_f64(),
                    "a round took long"
                );
            }
            return ended;
        }
        let (waits_for, since) = waits.running().unwrap_or_else(|| ("no call".into(), Duration::ZERO));
        tracing::warn!(
            round_s = begun.elapsed().as_secs_f64(),
            waits_for,
            since_s = since.as_secs_f64(),
            calls = waits.spent().calls,
            "a round takes long"
        );
        pause = begun.elapsed();
    }
}

/// Logs what rounds came to; the same error again only after a while.
#[derive(Debug, Default)]
pub(super) struct Teller {
    error: Option<(String, Instant)>,
}

impl Teller {
    /// True where the next round should follow at once.
    pub(super) fn told(&mut self, round: &Result<Round, RegistrarError>) -> bool {
        let error = match round {
            Ok(round) => {
                self.error = None;
                tracing::debug!(?round, "round");
                return matches!(round, Round::Stored(_));
            }
            Err(error) => error,
        };
        let text = error.to_string();
        if self.error.as_ref().is_some_and(|(told, at)| *told == text && at.elapsed() < AGAIN) {
            tracing::debug!(%error, "the same again");
            return false;
        }
        if matches!(error, RegistrarError::Damaged { .. }) {
            tracing::error!(%error, "the registry in the store is not sound: nothing is registered");
        } else {
            tracing::warn!(%error, "not registered; tried again");
        }
        self.error = Some((text, Instant::now()));
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        /// What is logged while this runs, on this thread.
        fn during(work: impl FnOnce()) -> String {
            let log = Self::default();
            let writer = log.clone();
            let subscriber =
                tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(subscriber, work);
            String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_round_that_takes_long_is_told_of_while_it_does_and_once_it_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let round = |takes: u64| {
            Log::during(|| {
                let waits = Waits::default();
                runtime.block_on(async {
                    let round = tokio::task::spawn_blocking(move || {
                        std::thread::sleep(Duration::from_millis(takes));
                        7
                    });
                    assert_eq!(watched(round, &waits, Duration::from_millis(200)).await.unwrap(), 7);
                });
            })
        };
        assert_eq!(round(1), "");
        let said = round(1000);
        let count = |what: &str| said.matches(what).count();
        assert_eq!(count("a round took long"), 1, "{said}");
        // After 200, 400 and 800 ms; fewer where the machine is busy.
        assert!((1..=3).contains(&count("a round takes long")), "{said}");
        assert!(said.contains("waits_for") && said.contains("longest"), "{said}");
    }

    #[test]
    fn the_same_error_is_told_once() {
        let error = |what: &str| Err(RegistrarError::Damaged { batch: 1, what: what.to_owned() });
        let mut teller = Teller::default();
        let said = Log::during(|| {
            for what in ["one", "one", "one", "other", "other"] {
                assert!(!teller.told(&error(what)));
            }
            assert!(teller.told(&Ok(Round::Stored(1))));
            assert!(!teller.told(&error("other")));
        });
        assert_eq!(said.matches("is not sound").count(), 3, "{said}");
    }
}
