//! Callers' connections: listeners, TLS, limits, and their graceful end.

mod io;
mod listener;
mod pace;
pub(crate) mod tls;

pub(crate) use listener::{Bound, Ends, Listener};
