//! What the bytes of a provider's API mean: operations, models, usage, streams.
//!
//! Pure functions and state machines: no I/O, no clock, no runtime. Bytes from outside never panic, and every
//! piece of state is bounded. A dialect is one module that implements `wire::Wire` ([`openai`],
//! [`anthropic`], [`bedrock`], ...); the rest is shared:
//!
//! - [`operation`]: method and path -> what is asked of the provider
//! - [`request`]: a request's body and head -> the facts that policies and records need
//! - [`change`]: another model or other parameters in a request, every other byte as it was
//! - [`content`], [`failure`]: what a request says in words; what a provider's error means for those who would ask another
//! - [`splice`]: asks for a stream's usage without touching any other byte, and takes the trace of it back out
//! - [`sse`], [`values`], [`event_stream`], [`coding`], [`multipart`]: the envelopes
//! - [`meter`]: beside a response as it passes: facts, first token, the terminal event that is held (CA-2)
//! - [`facts`], [`usage`]: what an answer says about itself, in one vocabulary
//! - [`said`]: an answer's words, where nobody told its usage
//! - [`conversation`]: which requests belong together; [`last_turn`]: what one asks last
//! - [`sibling`]: the same API behind other paths
//! - [`translate`]: a caller of one dialect in front of a provider of another
//! - [`own`]: the gateway's own answers in the caller's dialect

pub mod anthropic;
mod bedrock;
pub mod change;
pub mod coding;
mod cohere;
pub mod content;
pub mod conversation;
pub mod event_stream;
pub mod facts;
pub mod failure;
mod gemini;
pub mod identifier;
pub mod json;
mod last_turn;
pub mod meter;
pub mod multipart;
mod ollama;
pub mod openai;
pub mod operation;
pub mod own;
mod path_model;
pub mod ratelimit;
pub mod request;
pub mod said;
pub mod sibling;
pub mod splice;
pub mod sse;
pub mod translate;
pub mod usage;
pub mod values;
mod watsonx;
mod wire;

pub use content::Content;
pub use conversation::{ConversationKey, conversation_key};
pub use facts::{AnswerFacts, Unread};
pub use failure::{FailureClass, failure_class};
pub use identifier::identifier;
pub use last_turn::last_turn;
pub use meter::{Cause, Limits, Meter, Opened, Segment, response_facts};
pub use operation::{Dialect, Maker, Operation, operation, operation_at, operations};
pub use own::{own_error, own_error_event, own_error_type};
pub use request::{RequestFacts, request_facts};
pub use said::Said;
pub use splice::ask_for_usage;
pub use wire::Framing;
