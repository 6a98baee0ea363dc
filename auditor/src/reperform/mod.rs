//! The policy's control over the whole population: every verdict, of first dispatches and of further attempts, is evaluated again from the proven record, with the
//! policy that was then in force as the evidence holds it, and compared. Or with another policy: what would have changed.

pub mod compare;
pub mod exchange;
pub mod render;
pub mod result;
pub mod what_if;

#[cfg(test)]
mod tests;
