//! Work that is finished even when nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::app::App;

/// A future that runs on as a task of its own when it is dropped unfinished: a caller that goes away does not
/// stop a record on its way to the disk.
pub(crate) struct Outliving<T: Send + 'static> {
    app: Arc<App>,
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// What to do once more when nobody waits.
    left: Option<fn(&App)>,
}

impl<T: Send + 'static> Outliving<T> {
    pub(crate) fn new(app: &Arc<App>, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { app: Arc::clone(app), work: Some(Box::pin(work)), left: None }
    }

    /// Calls `left` when whoever waits goes away before the end.
    pub(crate) fn when_left(mut self, left: fn(&App)) -> Self {
        self.left = Some(left);
        self
    }
}

impl<T: Send + 'static> Future for Outliving<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        let done = std::task::ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Outliving<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            if let Some(left) = self.left {
                left(&self.app);
            }
            self.app.outlive(async move {
                drop(work.await);
            });
        }
    }
}
