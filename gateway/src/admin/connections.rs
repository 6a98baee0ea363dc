//! Connections to the admin address: few at once, and none that is quiet keeps a new one out.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// The most at once. For one more, the one that asked longest ago is closed: a probe or a scraper always gets in, whoever else
/// holds connections open.
const MOST: usize = 64;

/// Connections that are served. They end with it.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: Vec<(AbortHandle, Asked)>,
    clock: Arc<AtomicU64>,
}

/// When a connection asked last: as a number that grows with every request to any of them.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    last: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
}

impl Asked {
    /// It asks now.
    pub(super) fn now(&self) {
        self.last.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Connections {
    /// For a connection that begins now.
    pub(super) fn begins(&self) -> Asked {
        let asked = Asked { last: Arc::default(), clock: Arc::clone(&self.clock) };
        asked.now();
        asked
    }

    /// Serves `connection`, in the place of the quietest one where there are too many.
    pub(super) fn serve(&mut self, asked: Asked, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= MOST {
            let quiet = |at: &usize| self.open.get(*at).map(|(_, asked)| asked.last.load(Ordering::Relaxed));
            if let Some(at) = (0..self.open.len()).min_by_key(quiet) {
                self.open.swap_remove(at).0.abort();
            }
        }
        self.open.push((self.tasks.spawn(connection), asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the tasks come to where they wait, or end.
    async fn settle() {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn for_one_more_the_connection_that_asked_longest_ago_is_closed() {
        let mut connections = Connections::default();
        let mut all = Vec::new();
        for _ in 0..MOST + 2 {
            let (alive, ended) = tokio::sync::oneshot::channel::<()>();
            let asked = connections.begins();
            connections.serve(asked.clone(), async move {
                let _alive = alive;
                std::future::pending::<()>().await;
            });
            all.push((asked, ended));
            settle().await;
        }
        let ended = |all: &mut Vec<(Asked, tokio::sync::oneshot::Receiver<()>)>| -> Vec<usize> {
            let is_over = |ended: &mut tokio::sync::oneshot::Receiver<()>| {
                ended.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Closed)
            };
            all.iter_mut().enumerate().filter_map(|(at, (_, end))| is_over(end).then_some(at)).collect()
        };
        assert_eq!(ended(&mut all), [0, 1]);
        // One that asks stays, however old it is.
        all[2].0.now();
        let asked = connections.begins();
        connections.serve(asked, async {});
        settle().await;
        assert_eq!(ended(&mut all), [0, 1, 3]);
        // One that ended left its place.
        let asked = connections.begins();
        connections.serve(asked, std::future::pending());
        settle().await;
        assert_eq!(ended(&mut all), [0, 1, 3]);
    }
}
