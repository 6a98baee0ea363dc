//! The egress gateway for LLM traffic.
//!
//! # The life of an exchange
//!
//! ```text
//! accept -> authenticate -> route -> intake -> police -> intent, durable (CA-1)
//!        -> dispatch -> relay -> outcome, durable (CA-2) -> the answer's end
//! ```
//!
//! - `accept`: callers' connections: TLS, HTTP/1.1 and HTTP/2, bounds, the graceful end
//! - `authenticate`: a gateway key -> who calls, from the head alone
//! - `identity`: a token or a certificate -> who calls
//! - `vault`: secrets of a Vault, while a configuration is loaded
//! - `route`: the path -> the configured route and its provider
//! - [`balance`]: which target of a route gets a request, and under which key
//! - `relay`: the request's intake, the answer's way back, the hold of its end
//! - `police`: the policy's verdict
//! - `quotas`: what may be used, reserved before and settled after
//! - `price`: what was used -> what it costs
//! - `exchange`: the stations in order, and every refusal
//! - `dispatch`: pooled connections to providers, and what goes over them
//! - `record`: what is known -> what the records say
//! - `respond`: the one place where a refusal or a failure becomes a status
//! - `app`: what all stations share; one snapshot of the configuration for each exchange
//! - `tap`: the sinks that leaves go to besides the store
//! - `otlp`: spans and metrics, for those who watch
//! - [`serve`], `hand_over`, `reload`, [`admin`], `telemetry`: the process around it
//!
//! The journal, the seals and the way to the store are the crate `evidence`; what a provider's bytes mean is the
//! crate `dialects`.

mod accept;
pub mod admin;
pub mod app;
mod authenticate;
pub mod balance;
pub mod cli;
pub mod commands;
pub mod config;
mod dispatch;
mod estimate;
mod exchange;
mod hand_over;
mod identity;
pub mod keys;
mod otlp;
pub mod output;
mod police;
mod price;
mod quotas;
mod record;
mod relay;
mod reload;
mod respond;
mod route;
pub mod secrets;
pub mod serve;
mod store;
mod tap;
mod telemetry;
mod user;
mod vault;
