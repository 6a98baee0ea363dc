//! The tokens of an answer.

use dialects::Said;

use crate::{Count, Tokenizer};

/// What the one call of a tool has around its name and arguments.
const CALL: i64 = 7;
/// The same of each, where there are several.
const OF_CALLS: i64 = 14;

/// The tokens of what an answer says, with its `calls` of tools. Of what a model thought only what it showed.
pub fn answer(said: &Said, calls: i64, tokenizer: Tokenizer) -> u64 {
    let mut count = Count::by(tokenizer);
    count.text(&said.text);
    count.bytes(said.beyond);
    count.beside(match calls {
        ..=0 => 0,
        1 => CALL,
        several => several.min(4096) * OF_CALLS,
    });
    count.total()
}
