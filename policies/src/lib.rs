//! Policy verdicts and prices as pure functions.
