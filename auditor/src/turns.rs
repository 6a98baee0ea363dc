//! Bodies of the OpenAI and Anthropic APIs as turns that people read: who said what, which tools were called.
//!
//! A reading aid, not evidence: what is proven are the bytes. Whatever is not understood is left out and counted.

use serde::Serialize;
use serde_json::Value;

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// `system`, `user`, `assistant`, `tool`, or what the body says.
    pub role: String,
    /// What was said.
    pub items: Vec<Item>,
}

/// Something in a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Item {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// Reasoning that the provider shows.
    Reasoning {
        /// The text.
        text: String,
    },
    /// A refusal by the model.
    Refusal {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolCall {
        /// The tool.
        name: String,
        /// The call's id.
        id: String,
        /// The arguments as the model wrote them.
        arguments: String,
    },
    /// What a tool gave back.
    ToolResult {
        /// The call's id.
        id: String,
        /// The text.
        text: String,
    },
    /// Something that is not text: its type.
    Other {
        /// The type.
        what: String,
    },
}

impl Item {
    /// What it is, where `role` is whose turn it is, and its text.
    pub fn said(&self, role: &str) -> (String, String) {
        match self {
            Self::Text { text } => (role.to_owned(), text.clone()),
            Self::Reasoning { text } => (format!("{role} reasons"), text.clone()),
            Self::Refusal { text } => (format!("{role} refuses"), text.clone()),
            Self::ToolCall { name, id, arguments } => {
                (format!("{role} calls {name} [{id}]"), arguments.clone())
            }
            Self::ToolResult { id, text } => (format!("result [{id}]"), text.clone()),
            Self::Other { what } => (role.to_owned(), format!("({what})")),
        }
    }
}

fn string(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list
            .iter()
            .map(|item| item.get("text").map_or_else(|| text_of(item), text_of))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn text(text: String) -> Option<Item> {
    (!text.is_empty()).then_some(Item::Text { text })
}

/// The turns of a request body; `None` where it is no JSON of these APIs.
pub fn request(body: &str) -> Option<Vec<Turn>> {
    let value: Value = serde_json::from_str(body).ok()?;
    let mut turns = Vec::new();
    for key in ["system", "instructions"] {
        if let Some(system) = value.get(key).map(text_of).filter(|text| !text.is_empty()) {
            turns.push(Turn { role: "system".into(), items: vec![Item::Text { text: system }] });
        }
    }
    if let Some(messages) = value.get("messages").and_then(Value::as_array) {
        turns.extend(messages.iter().map(message));
    } else if let Some(input) = value.get("input") {
        match input {
            Value::Array(items) => turns.extend(items.iter().map(response_item)),
            other => {
                turns.push(Turn { role: "user".into(), items: text(text_of(other)).into_iter().collect() })
            }
        }
    } else if let Some(prompt) = value.get("prompt") {
        turns.push(Turn { role: "user".into(), items: text(text_of(prompt)).into_iter().collect() });
    }
    (!turns.is_empty()).then_some(turns)
}

/// The turns of a response body, whole or as an event stream.
pub fn response(body: &str) -> Option<Vec<Turn>> {
    if let Ok(value) = serde_json::from_str::<Value>(body) {
        return answer(&value);
    }
    stream(body)
}

/// A message of chat completions or of Anthropic's API.
fn message(value: &Value) -> Turn {
    let mut turn = Turn { role: string(value, "role"), items: Vec::new() };
    if turn.role == "tool" {
        turn.items.push(Item::ToolResult {
            id: string(value, "tool_call_id"),
            text: text_of(value.get("content").unwrap_or(&Value::Null)),
        });
        return turn;
    }
    for key in ["reasoning_content", "reasoning"] {
        if let Some(text) = value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            turn.items.push(Item::Reasoning { text: text.into() });
        }
    }
    match value.get("content") {
        Some(Value::String(content)) => turn.items.extend(text(content.clone())),
        Some(Value::Array(blocks)) => turn.items.extend(blocks.iter().filter_map(block)),
        _ => {}
    }
    if let Some(refusal) = value.get("refusal").and_then(Value::as_str) {
        turn.items.push(Item::Refusal { text: refusal.into() });
    }
    for call in value.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        let function = call.get("function").or_else(|| call.get("custom")).unwrap_or(&Value::Null);
        let arguments =
            function.get("arguments").or_else(|| function.get("input")).map(text_of).unwrap_or_default();
        turn.items.push(Item::ToolCall { name: string(function, "name"), id: string(call, "id"), arguments });
    }
    turn
}

/// A content block of either API.
fn block(value: &Value) -> Option<Item> {
    let kind = string(value, "type");
    match kind.as_str() {
        "text" | "input_text" | "output_text" => text(string(value, "text")),
        "thinking" => Some(Item::Reasoning { text: string(value, "thinking") }),
        "refusal" => Some(Item::Refusal { text: string(value, "refusal") }),
        "tool_use" | "server_tool_use" | "mcp_tool_use" => Some(Item::ToolCall {
            name: string(value, "name"),
            id: string(value, "id"),
            arguments: value.get("input").map(text_of).unwrap_or_default(),
        }),
        kind if kind.ends_with("tool_result") => Some(Item::ToolResult {
            id: string(value, "tool_use_id"),
            text: text_of(value.get("content").unwrap_or(&Value::Null)),
        }),
        "" => None,
        _ => Some(Item::Other { what: kind }),
    }
}

/// An item of the Responses API, in a request or a response.
fn response_item(value: &Value) -> Turn {
    let kind = string(value, "type");
    let role = string(value, "role");
    match kind.as_str() {
        "" | "message" => message(value),
        kind if kind.ends_with("_call_output") => {
            let text = text_of(value.get("output").unwrap_or(&Value::Null));
            Turn { role: "tool".into(), items: vec![Item::ToolResult { id: string(value, "call_id"), text }] }
        }
        "function_call" | "custom_tool_call" => {
            let arguments =
                value.get("arguments").or_else(|| value.get("input")).map(text_of).unwrap_or_default();
            let call =
                Item::ToolCall { name: string(value, "name"), id: string(value, "call_id"), arguments };
            Turn { role: "assistant".into(), items: vec![call] }
        }
        "reasoning" => {
            let text = text_of(value.get("summary").unwrap_or(&Value::Null));
            let items = if text.is_empty() { vec![] } else { vec![Item::Reasoning { text }] };
            Turn { role: "assistant".into(), items }
        }
        _ => Turn {
            role: if role.is_empty() { "assistant".into() } else { role },
            items: vec![Item::Other { what: kind }],
        },
    }
}

fn answer(value: &Value) -> Option<Vec<Turn>> {
    if let Some(choices) = value.get("choices").and_then(Value::as_array) {
        let turn = |choice: &Value| match choice.get("message") {
            Some(value) => message(value),
            None => {
                Turn { role: "assistant".into(), items: text(string(choice, "text")).into_iter().collect() }
            }
        };
        return Some(choices.iter().map(turn).collect());
    }
    if let Some(output) = value.get("output").and_then(Value::as_array) {
        return Some(output.iter().map(response_item).filter(|turn| !turn.items.is_empty()).collect());
    }
    if string(value, "type") == "message" {
        return Some(vec![message(value)]);
    }
    if let Some(error) = value.get("error") {
        return Some(vec![Turn {
            role: "error".into(),
            items: text(text_of(error.get("message").unwrap_or(error))).into_iter().collect(),
        }]);
    }
    None
}

/// The data of each event of a stream.
fn events(body: &str) -> impl Iterator<Item = Value> + '_ {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let mut data = String::new();
    let lines = body.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).chain([""]);
    lines.filter_map(move |line| {
        if let Some(rest) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(rest.strip_prefix(' ').unwrap_or(rest));
            return None;
        }
        if !line.is_empty() || data.is_empty() {
            return None;
        }
        serde_json::from_str(&std::mem::take(&mut data)).ok()
    })
}

#[derive(Default)]
struct Choice {
    text: String,
    reasoning: String,
    refusal: String,
    calls: Vec<(String, String, String)>,
}

impl Choice {
    fn turn(self) -> Turn {
        let mut items = Vec::new();
        if !self.reasoning.is_empty() {
            items.push(Item::Reasoning { text: self.reasoning });
        }
        items.extend(text(self.text));
        if !self.refusal.is_empty() {
            items.push(Item::Refusal { text: self.refusal });
        }
        items.extend(self.calls.into_iter().map(|(id, name, arguments)| Item::ToolCall {
            name,
            id,
            arguments,
        }));
        Turn { role: "assistant".into(), items }
    }
}

/// Most choices or blocks that a stream may name: its indices come from outside.
const MOST: usize = 256;

fn at<T: Default>(list: &mut Vec<T>, index: u64) -> Option<&mut T> {
    let index = usize::try_from(index).ok().filter(|index| *index < MOST)?;
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    list.get_mut(index)
}

fn stream(body: &str) -> Option<Vec<Turn>> {
    let mut choices: Vec<Choice> = Vec::new();
    let mut blocks: Vec<Value> = Vec::new();
    let mut inputs: Vec<String> = Vec::new();
    let mut items: Vec<Value> = Vec::new();
    let mut whole = None;
    let mut texts = String::new();
    let mut errors = Vec::new();
    for event in events(body) {
        let index = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or(0);
        match string(&event, "type").as_str() {
            "content_block_start" => {
                if let (Some(slot), Some(block)) =
                    (at(&mut blocks, index("index")), event.get("content_block"))
                {
                    *slot = block.clone();
                }
            }
            "content_block_delta" => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                if let Some(input) = delta.get("partial_json").and_then(Value::as_str) {
                    at(&mut inputs, index("index"))?.push_str(input);
                } else if let Some(block) = at(&mut blocks, index("index")) {
                    for key in ["text", "thinking"] {
                        if let Some(more) = delta.get(key).and_then(Value::as_str) {
                            let text = string(block, key) + more;
                            if let Value::Object(map) = block {
                                map.insert(key.into(), text.into());
                            }
                        }
                    }
                }
            }
            "response.completed" | "response.failed" | "response.incomplete" => {
                whole = event.get("response").cloned()
            }
            "response.output_item.done" => items.extend(event.get("item").cloned()),
            "response.output_text.delta" => texts.push_str(&string(&event, "delta")),
            "error" => {
                errors.push(text_of(event.get("error").and_then(|e| e.get("message")).unwrap_or(&event)))
            }
            _ => {
                for choice in event.get("choices").and_then(Value::as_array).into_iter().flatten() {
                    let number = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
                    let Some(into) = at(&mut choices, number) else { continue };
                    let delta = choice.get("delta").unwrap_or(choice);
                    into.text.push_str(&string(
                        delta,
                        if choice.get("delta").is_some() { "content" } else { "text" },
                    ));
                    into.reasoning.push_str(&string(delta, "reasoning_content"));
                    into.refusal.push_str(&string(delta, "refusal"));
                    for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
                        let number = call.get("index").and_then(Value::as_u64).unwrap_or(0);
                        let Some(slot) = at(&mut into.calls, number) else { continue };
                        let function = call.get("function").unwrap_or(&Value::Null);
                        slot.0.push_str(&string(call, "id"));
                        slot.1.push_str(&string(function, "name"));
                        slot.2.push_str(&string(function, "arguments"));
                    }
                }
                if let Some(error) = event.get("error") {
                    errors.push(text_of(error.get("message").unwrap_or(error)));
                }
            }
        }
    }
    for (block, input) in blocks.iter_mut().zip(inputs) {
        if let (Value::Object(map), false) = (block, input.is_empty()) {
            map.insert("input".into(), Value::String(input));
        }
    }
    let mut turns: Vec<Turn> = choices.into_iter().map(Choice::turn).collect();
    if !blocks.is_empty() {
        turns.push(Turn { role: "assistant".into(), items: blocks.iter().filter_map(block).collect() });
    }
    if let Some(whole) = whole.as_ref().and_then(answer).filter(|turns| !turns.is_empty()) {
        turns.extend(whole);
    } else if !items.is_empty() {
        turns.extend(items.iter().map(response_item).filter(|turn| !turn.items.is_empty()));
    } else if !texts.is_empty() {
        turns.push(Turn { role: "assistant".into(), items: vec![Item::Text { text: texts }] });
    }
    turns.extend(
        errors
            .into_iter()
            .map(|error| Turn { role: "error".into(), items: text(error).into_iter().collect() }),
    );
    (!turns.is_empty()).then_some(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, text: &str) -> Turn {
        Turn { role: role.into(), items: vec![Item::Text { text: text.into() }] }
    }
    fn call(name: &str, id: &str, arguments: &str) -> Item {
        Item::ToolCall { name: name.into(), id: id.into(), arguments: arguments.into() }
    }

    #[test]
    fn chat_completions_are_read_whole_and_streamed() {
        let body = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"hi"}]},
            {"role":"tool","tool_call_id":"c1","content":"42"}]}"#;
        let turns = request(body).unwrap();
        assert_eq!(turns[..2], [said("system", "be brief"), said("user", "hi")]);
        assert_eq!(turns[2].items, [Item::ToolResult { id: "c1".into(), text: "42".into() }]);
        let whole = r#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{}"}}]}}]}"#;
        assert_eq!(response(whole).unwrap()[0].items, [call("f", "c1", "{}")]);
        let streamed = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\",\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}]}\r\n\r\ndata: [DONE]\n\n";
        let turn = &response(streamed).unwrap()[0];
        assert_eq!(turn.items, [Item::Text { text: "hello".into() }, call("f", "c", "{}")]);
    }

    #[test]
    fn responses_are_read_whole_and_streamed() {
        let body = r#"{"instructions":"short","input":[{"role":"user","content":"q"},{"type":"function_call_output","call_id":"c","output":"r"}]}"#;
        assert_eq!(request(body).unwrap()[..2], [said("system", "short"), said("user", "q")]);
        let whole = r#"{"object":"response","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"a"}]},{"type":"function_call","name":"f","call_id":"c","arguments":"{}"}]}"#;
        let turns = response(whole).unwrap();
        assert_eq!(turns[0], said("assistant", "a"));
        assert_eq!(turns[1].items, [call("f", "c", "{}")]);
        let streamed = format!(
            "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{whole}}}\n\n"
        );
        assert_eq!(response(&streamed).unwrap(), turns);
        let cut = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"par\"}\n\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"tial\"}\n\n";
        assert_eq!(response(cut).unwrap(), [said("assistant", "partial")]);
    }

    #[test]
    fn anthropic_messages_are_read_whole_and_streamed() {
        let body = r#"{"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"q"},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"r"},{"type":"image"}]}]}"#;
        let turns = request(body).unwrap();
        assert_eq!(turns[..2], [said("system", "s"), said("user", "q")]);
        assert_eq!(turns[2].items[1], Item::Other { what: "image".into() });
        let streamed = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hey\"}}\n\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":1}\"}}\n\n";
        assert_eq!(
            response(streamed).unwrap()[0].items,
            [Item::Text { text: "hey".into() }, call("f", "t", "{\"a\":1}")]
        );
    }

    #[test]
    fn what_is_not_understood_is_none_and_huge_indices_are_refused() {
        assert_eq!(request("not json"), None);
        assert_eq!(response("{}"), None);
        assert_eq!(
            response("data: {\"choices\":[{\"index\":99999999999,\"delta\":{\"content\":\"x\"}}]}\n\n"),
            None
        );
    }
}
