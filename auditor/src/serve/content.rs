//! Whether a reader may see content: only where somebody said why, and only once the access ledger says so.

use schemas::ExchangeId;

use super::visit::Visit;
use crate::access::{self, Content, Why};

/// Why content is looked at; none where it is not shown.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// As it was typed at the start.
    pub why: Option<Why>,
}

/// Whether the content of an exchange may be shown; where it may, that is recorded.
///
/// # Errors
/// It cannot be recorded: nothing is shown then.
pub(super) fn content_access(given: &Access, visit: &Visit, exchange: &ExchangeId) -> anyhow::Result<bool> {
    let Some(why) = &given.why else { return Ok(false) };
    let content = Content {
        command: "serve",
        store: visit.report.store.clone(),
        exchanges: vec![exchange.clone()],
        question: None,
        parts: None,
        bytes: None,
    };
    access::release(&visit.opened.state, why, &content)?;
    Ok(true)
}
