//! The middle form: what a conversation, its answer and the events of a stream mean, in no dialect's words.
//!
//! A half of a dialect reads its own bytes into this form ([`Caller::read_request`], [`Provider::read_answer`], ...) or
//! writes its own bytes from it. What a half knows but this form has no place for, and what it does not know, is
//! listed as [`Dropped`], never lost silently. JSON that models wrote (arguments of tools) and JSON that goes through
//! as it is (schemas) stays text: order, numbers and repeated keys survive.

mod answer;
mod conversation;
mod dropped;
mod failure;
mod half;
mod json;
mod part;
mod reasoning;
mod usage;

pub use answer::{Answer, Event, Finish, PartKind};
pub use conversation::{Cache, Conversation, OutputFormat, Role, Sampling, Tool, ToolChoice, Turn};
pub(crate) use dropped::Kinds;
pub use dropped::{CannotCarry, Dropped, Lost, WORDS, Weight};
pub use failure::{Failure, FailureKind};
pub use half::{Asked, Caller, EventReader, EventWriter, Options, Provider, Unreadable, Written};
pub use json::Json;
pub use part::{Content, Document, Part, Source, Thinking, ToolResult, ToolUse};
pub use reasoning::{Effort, Reasoning, ReasoningMode};
pub use usage::Usage;
