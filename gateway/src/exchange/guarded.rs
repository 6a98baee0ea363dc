//! A request whose caller may leave before its intent.

use std::sync::Arc;

use dialects::Dialect;
use evidence::{Admission, NewPart};
use http::Response;

use super::asking::Asking;
use crate::relay::Flow;
use crate::relay::outlive::Outliving;
use crate::respond::{self, Reason};

/// An [`Asking`] that records the caller's leaving when it is dropped before its intent (CA-3).
pub(super) struct Guarded {
    asking: Option<Asking>,
}

impl Guarded {
    pub(super) fn new(asking: Asking) -> Self {
        Self { asking: Some(asking) }
    }

    pub(super) fn get(&mut self) -> Option<&mut Asking> {
        self.asking.as_mut()
    }

    pub(super) fn take(&mut self) -> Option<Asking> {
        self.asking.take()
    }

    pub(super) async fn refuse(
        &mut self,
        admission: Option<Admission>,
        body: Option<NewPart>,
        reason: Reason,
    ) -> Response<Flow> {
        let Some(asking) = self.asking.take() else {
            return respond::answer(Dialect::OpenAi, reason, None, None);
        };
        let app = Arc::clone(&asking.app);
        Outliving::new(&app, asking.refuse(admission, body, reason)).await
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.take() {
            let app = Arc::clone(&asking.app);
            let reason = if app.is_cutting() { Reason::Draining } else { Reason::ClientAbort };
            app.outlive(async move {
                drop(asking.refuse(None, None, reason).await);
            });
        }
    }
}
