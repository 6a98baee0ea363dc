//! Both bodies of an exchange: the request's intake, the answer's way back, and the hold of its end.
//!
//! - [`intake`]: the request body, in memory up to 1 MiB, beyond that to the ledger's spill file
//! - [`live`]: an exchange between intent and outcome; whatever becomes of it, it gets its outcome
//! - [`answer`], [`rest`]: a provider's answer before any of it is passed on, and what is still to come of it
//! - [`ahead`]: an exchange and its answer while that is read, whose caller may leave
//! - [`back`]: the answer: whole in one write, or as it comes
//! - [`stream`]: the body that passes as it comes and whose end waits for the outcome (CA-2)
//! - [`translation`]: an answer in another dialect than its caller's
//! - [`drain`]: what is still read when the caller has left, for its usage (CA-6)
//! - [`tries`]: what the log is told of attempts that failed
//! - [`flow`]: the body that callers get

pub(crate) mod ahead;
pub(crate) mod answer;
pub(crate) mod back;
pub(crate) mod drain;
pub(crate) mod flow;
pub(crate) mod intake;
pub(crate) mod live;
pub(crate) mod outlive;
pub(crate) mod rest;
pub(crate) mod stream;
pub(crate) mod translation;
pub(crate) mod tries;

pub(crate) use flow::Flow;
