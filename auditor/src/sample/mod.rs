//! A sample that nobody could foresee and everybody can repeat: drawn by the roots of all proven logs and a public value
//! that came later, with a working paper that holds how, and an inclusion proof for each exchange.
//!
//! ```text
//! heads + parameters + public value -> seed -> tickets (stratified) or units of money (systematic) -> papers -> check
//! ```

pub mod beacon;
pub mod check;
pub mod draw;
pub mod method;
pub mod papers;
pub mod population;
pub mod seed;
pub mod strata;

#[cfg(test)]
mod tests;
