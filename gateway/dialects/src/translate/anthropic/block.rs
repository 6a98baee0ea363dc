//! Blocks that models write: in an answer, and in the turns of it that come back with the next request.

use crate::translate::form::{Content, Dropped, Thinking, ToolUse, Unreadable};
use crate::translate::text::Object;

/// The block of that `kind`; `None` for one that models do not write, or that has no place in the form.
pub(super) fn of_a_model(
    kind: &str,
    block: &mut Object<'_>,
    dropped: &mut Vec<Dropped>,
) -> Result<Option<Content>, Unreadable> {
    Ok(Some(match kind {
        "text" => {
            // These say where an answer has it from.
            if block.take("citations").is_some_and(|list| list != "[]") {
                dropped.push(Dropped::hint(block.path("citations"), "citations"));
            }
            Content::Text(block.wanted("text")?)
        }
        "thinking" => Content::Thinking(Thinking {
            text: block.text("thinking")?.unwrap_or_default(),
            signature: block.text("signature")?.filter(|s| !s.is_empty()),
            redacted: None,
        }),
        "redacted_thinking" => {
            Content::Thinking(Thinking { redacted: Some(block.wanted("data")?), ..Thinking::default() })
        }
        "tool_use" => Content::ToolUse(ToolUse {
            id: block.wanted("id")?,
            name: block.wanted("name")?,
            arguments: block.raw_object("input")?.map_or_else(String::new, |input| input.text().to_owned()),
        }),
        _ => return Ok(None),
    }))
}
