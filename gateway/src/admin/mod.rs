//! The operator's side: `/healthz`, `/readyz`, `/metrics`, and the socket for erasure and hand-over.

mod connections;
mod pages;
mod place;
pub mod socket;

pub(crate) use pages::{Admin, Starting};
