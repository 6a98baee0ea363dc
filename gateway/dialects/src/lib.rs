//! What the bytes of a provider's API mean: operations, models, usage, streams.
//!
//! Pure functions and state machines: no I/O, no clock, no runtime. Bytes from outside never panic, and every
//! piece of state is bounded. A dialect is one module that implements `wire::Wire` ([`openai`],
//! [`anthropic`], [`bedrock`], ...); the rest is shared:
//!
//! - [`operation`]: method and path -> what is asked of the provider
//! - [`request`]: a request's body and head -> the facts that policies and records need
//! - [`splice`]: asks for a stream's usage without touching any other byte, and takes the trace of it back out
//! - [`sse`], [`values`], [`event_stream`], [`coding`], [`multipart`]: the envelopes
//! - [`meter`]: beside a response as it passes: facts, first token, the terminal event that is held (CA-2)
//! - [`facts`], [`usage`]: what an answer says about itself, in one vocabulary
//! - [`sigv4`]: the signature that AWS asks for
//! - [`own`]: the gateway's own answers in the caller's dialect

pub mod anthropic;
mod bedrock;
pub mod coding;
mod cohere;
pub mod event_stream;
pub mod facts;
mod gemini;
pub mod identifier;
pub mod json;
pub mod meter;
pub mod multipart;
mod ollama;
pub mod openai;
pub mod operation;
pub mod own;
pub mod ratelimit;
pub mod request;
pub mod sigv4;
pub mod splice;
pub mod sse;
pub mod usage;
pub mod values;
mod watsonx;
mod wire;

pub use facts::{AnswerFacts, Unread};
pub use identifier::identifier;
pub use meter::{Cause, Limits, Meter, Segment, response_facts};
pub use operation::{Dialect, Operation, operation};
pub use own::{own_error, own_error_event, own_error_type};
pub use request::{RequestFacts, request_facts};
pub use splice::ask_for_usage;
pub use wire::Framing;
