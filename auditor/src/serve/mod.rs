//! The page to look at (`auditor serve`): server-rendered HTML over proven rows, without scripts, for a browser on this machine.
//!
//! ```text
//! store ─▶ visit (one verification pass; its rows as files of its own) ─▶ overview, exchanges, exchange, cost, controls ─▶ frame (HTML)
//!            ▲ "verify again": one pass at a time, the old visit serves meanwhile                                          │
//! connection ─▶ gate (method, Host, cross-site, login) ─▶ asked (path and query, read strictly) ─▶ answer (headers) ◀──────┘
//! ```
//! Nothing is shown that was not proven, every page ends with what it rests on, and whatever models and callers wrote is text:
//! escaped, its control and bidirectional characters made visible, never a link. Memory, connections, pages under way and the
//! time of each are bounded.

mod answer;
mod asked;
mod content;
mod controls;
mod cost;
mod csv;
mod exchange;
mod exchanges;
mod filter;
mod frame;
mod gate;
mod listen;
mod login;
mod overview;
mod page_key;
mod peers;
mod rows;
mod server;
mod table;
mod visit;

pub use content::Access;
pub use gate::Origin;
pub use server::{Server, Settings};

#[cfg(test)]
mod tests;
