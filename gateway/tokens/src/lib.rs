//! How many tokens a prompt and an answer are, where the provider does not say: an estimate.
//!
//! OpenAI's tokenizers, whose lists are public, over the words of a request's body and of an answer, with what a chat
//! puts around each message. Other makers' models have tokenizers of their own: theirs is estimated by the nearest of these,
//! which the record names. `schemas/FORMAT.md` has the rule; `tests/corpus.rs` says how far off it is.
//!
//! Pure functions, a bounded number of steps per byte; nothing from outside panics.

mod answer;
mod count;
mod prompt;
mod ranks;
mod tokenizer;
mod tools;

pub use answer::answer;
pub use count::{Count, MAX_READ};
pub use prompt::{makes_text, prompt, reads_text};
pub use tokenizer::Tokenizer;
