//! The operator's side: `/healthz`, `/readyz`, `/metrics`, and the socket for erasure.

mod pages;
pub mod socket;

pub(crate) use pages::{Admin, Starting};
