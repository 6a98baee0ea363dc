//! Whether a reader may see content: only where somebody said why.

use std::io::Write as _;

use schemas::ExchangeId;

use crate::render::hostile;

/// Why content is looked at; none where it is not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The reason, as it was typed at the start.
    pub reason: Option<String>,
}

/// Says whether the content of an exchange may be shown, and leaves a trace where it is.
///
/// # Errors
/// The trace cannot be left: nothing is shown then.
pub(super) fn content_access(access: &Access, exchange: &ExchangeId) -> std::io::Result<bool> {
    let Some(reason) = &access.reason else { return Ok(false) };
    let line = format!("content of exchange {exchange} is shown; reason: {reason}");
    writeln!(std::io::stderr(), "{}", hostile::line(&line))?;
    Ok(true)
}
