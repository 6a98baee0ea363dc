//! Policy verdicts and prices as pure functions: facts in, verdict or cost out. No network, disk or clock.
//!
//! [`policy`] decides about a request before it is recorded and sent; [`price`] says what its tokens cost;
//! [`document`] reads YAML so that every problem has a place.

pub mod decimal;
pub mod document;
pub mod pattern;
pub mod policy;
pub mod price;
