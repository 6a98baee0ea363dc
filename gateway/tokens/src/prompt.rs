//! The tokens of a request's body. Told by its fields, as answers are: the same reader serves all dialects.

use dialects::Operation;
use dialects::json::{each, name, pick, present, string};

use crate::{Count, Tokenizer, tools};

/// What a chat puts around each message (OpenAI's cookbook, `How_to_count_tokens_with_tiktoken`).
const MESSAGE: i64 = 3;
/// What it puts before the name in a message.
const NAME: i64 = 1;
/// What begins the answer.
const ANSWER: i64 = 3;
/// What a call of a tool has around its name and arguments.
const CALL: i64 = 6;

/// How deep content is followed.
const DEEPEST: usize = 6;

/// Whether the operation's prompt is text that its body holds.
pub fn reads_text(operation: &Operation) -> bool {
    makes_text(operation)
        || matches!(
            operation.name(),
            "embeddings.create" | "models.embed_content" | "models.batch_embed_contents"
        )
}

/// Whether what the operation makes is text.
pub fn makes_text(operation: &Operation) -> bool {
    matches!(
        operation.name(),
        "chat.completions"
            | "completions"
            | "responses.create"
            | "messages.create"
            | "complete"
            | "chat.create"
            | "generate.create"
            | "models.generate_content"
            | "models.stream_generate_content"
            | "interactions.create"
            | "converse"
            | "converse_stream"
            | "invoke_model"
            | "invoke_model_stream"
    )
}

/// The tokens of the prompt in `body`; `None` where they are not all text, or not all there: images, audio, files, an earlier
/// response that is gone on from, a body that is no JSON, or one in which no prompt is found: none has no tokens at all.
pub fn prompt(operation: &Operation, body: &[u8], tokenizer: Tokenizer) -> Option<u64> {
    if !reads_text(operation) {
        return None;
    }
    let body = std::str::from_utf8(body).ok()?;
    let mut reader = Reader { count: Count::by(tokenizer), tokenizer, framed: false };
    if makes_text(operation) {
        reader.conversation(body)?
    } else {
        reader.texts_of(body)?
    }
    Some(reader.count.total()).filter(|tokens| *tokens > 0)
}

struct Reader {
    count: Count,
    tokenizer: Tokenizer,
    /// Messages were framed: what begins the answer follows.
    framed: bool,
}

/// What is not text, or not here.
type Read = Option<()>;

impl Reader {
    fn conversation(&mut self, body: &str) -> Read {
        let elsewhere = pick(
            body,
            &[
                "previous_response_id",
                "previous_interaction_id",
                "conversation",
                "cachedContent",
                "cached_content",
            ],
        )?;
        if elsewhere.into_iter().any(|member| present(member).is_some()) {
            return None;
        }
        let [prompt, suffix, text, input] = pick(body, &["prompt", "suffix", "inputText", "input"])?;
        let [messages, contents, history] = pick(body, &["messages", "contents", "chat_history"])?;
        let [message] = pick(body, &["message"])?;
        // A body of a shape that is not known here: what it asks is somewhere else.
        [prompt, text, input, messages, contents, history, message].into_iter().find_map(present)?;
        if let Some(prompt) = present(prompt) {
            // A stored prompt, by its id.
            (!prompt.starts_with('{')).then_some(())?;
            self.plain(prompt)?;
        }
        for plain in [suffix, text].into_iter().filter_map(present) {
            self.plain(plain)?;
        }
        let [system, instructions, google, google_snake, preamble] =
            pick(body, &["system", "instructions", "systemInstruction", "system_instruction", "preamble"])?;
        for system in [system, instructions, google, google_snake, preamble].into_iter().filter_map(present) {
            self.message("system", system)?;
        }
        for list in [messages, history].into_iter().filter_map(present) {
            self.list(list, &mut |reader, message| reader.turn(message))?;
        }
        if let Some(contents) = present(contents) {
            match contents.starts_with('[') {
                true => self.list(contents, &mut |reader, content| reader.turn(content))?,
                false => self.turn(contents)?,
            }
        }
        if let Some(message) = present(message) {
            self.message("user", message)?;
        }
        match present(input) {
            Some(items) if items.starts_with('[') => {
                self.list(items, &mut |reader, item| reader.item(item))?
            }
            Some(text) => self.message("user", text)?,
            None => {}
        }
        let [images, documents] = pick(body, &["images", "documents"])?;
        if present(images).is_some_and(|images| images != "[]") {
            return None;
        }
        if let Some(documents) = present(documents) {
            self.count.text(documents);
        }
        self.offers(body)?;
        if self.framed {
            self.count.beside(ANSWER);
        }
        Some(())
    }

    /// Tools and the form of the answer.
    fn offers(&mut self, body: &str) -> Read {
        let [tools, functions, config, format, text] =
            pick(body, &["tools", "functions", "toolConfig", "response_format", "text"])?;
        let config = present(config).and_then(|config| pick(config, &["tools"])).and_then(|[tools]| tools);
        for tools in [tools, functions, config].into_iter().filter_map(present) {
            tools::add(&mut self.count, self.tokenizer, tools);
        }
        let text = present(text).and_then(|text| pick(text, &["format"])).and_then(|[format]| format);
        if let Some(format) = present(format).or(present(text))
            && let Some([schema, inner]) = pick(format, &["schema", "json_schema"])
        {
            let inner = present(inner).and_then(|inner| pick(inner, &["schema"])).and_then(|[schema]| schema);
            if let Some(schema) = present(schema).or(present(inner)) {
                self.count.text(schema);
            }
        }
        Some(())
    }

    /// What an embedding reads: texts without a frame.
    fn texts_of(&mut self, body: &str) -> Read {
        let [input, inputs, texts, prompt, content, requests] =
            pick(body, &["input", "inputs", "texts", "prompt", "content", "requests"])?;
        let mut any = false;
        for texts in [input, inputs, texts, prompt].into_iter().filter_map(present) {
            any = true;
            self.plain(texts)?;
        }
        if let Some(content) = present(content) {
            any = true;
            self.content(content, 0)?;
        }
        if let Some(requests) = present(requests) {
            any = true;
            self.list(requests, &mut |reader, request| {
                let [content] = pick(request, &["content"])?;
                reader.content(present(content)?, 0)
            })?;
        }
        any.then_some(())
    }

    /// A text, a list of texts, or of tokens that are counted already.
    fn plain(&mut self, text: &str) -> Read {
        match text.as_bytes().first()? {
            b'"' => self.count.text(&string(text)?),
            b'[' => self.list(text, &mut |reader, element| match element.as_bytes().first()? {
                b'0'..=b'9' => {
                    reader.count.beside(1);
                    Some(())
                }
                // A list in a list holds tokens.
                b'[' => {
                    reader.count.beside(dialects::json::count(element)?);
                    Some(())
                }
                b'"' => {
                    reader.count.text(&string(element)?);
                    Some(())
                }
                _ => None,
            })?,
            _ => return None,
        }
        Some(())
    }

    fn list(&mut self, list: &str, one: &mut dyn FnMut(&mut Self, &str) -> Read) -> Read {
        let mut read = Some(());
        let whole = each(list, &mut |element| {
            if read.is_some() {
                read = one(self, element);
            }
        });
        read.filter(|()| whole)
    }

    /// A message of which role and content are at hand.
    fn message(&mut self, role: &str, content: &str) -> Read {
        self.frame(role);
        self.content(content, 0)
    }

    fn frame(&mut self, role: &str) {
        self.framed = true;
        self.count.beside(MESSAGE);
        self.count.text(role);
    }

    /// A turn of a conversation.
    fn turn(&mut self, turn: &str) -> Read {
        let [role, content, parts, called, calls, call, images, message] = pick(
            turn,
            &["role", "content", "parts", "name", "tool_calls", "function_call", "images", "message"],
        )?;
        self.frame(&name(role).unwrap_or_default());
        if let Some(called) = name(called) {
            self.count.beside(NAME);
            self.count.text(&called);
        }
        for content in [content, parts, message].into_iter().filter_map(present) {
            self.content(content, 0)?;
        }
        if let Some(calls) = present(calls) {
            self.list(calls, &mut |reader, call| {
                let [function] = pick(call, &["function"])?;
                reader.call(present(function).unwrap_or(call))
            })?;
        }
        if let Some(call) = present(call) {
            self.call(call)?;
        }
        if present(images).is_some_and(|images| images != "[]") {
            return None;
        }
        Some(())
    }

    fn call(&mut self, call: &str) -> Read {
        let [called, arguments] = pick(call, &["name", "arguments"])?;
        self.count.beside(CALL);
        self.count.text(&name(called).unwrap_or_default());
        if let Some(arguments) = present(arguments) {
            self.count.text(&string(arguments).unwrap_or(arguments.into()));
        }
        Some(())
    }

    /// An item of a response's input.
    fn item(&mut self, item: &str) -> Read {
        let [kind, output] = pick(item, &["type", "output"])?;
        match kind.and_then(string).unwrap_or_default().as_ref() {
            "function_call" | "custom_tool_call" => self.call(item),
            "function_call_output" | "custom_tool_call_output" => {
                self.message("tool", present(output).unwrap_or("\"\""))
            }
            // What was thought before comes back sealed, and is left out of most prompts.
            "reasoning" => Some(()),
            "" | "message" => self.turn(item),
            // An item that stands elsewhere, or holds more than text.
            _ => None,
        }
    }

    /// The content of a message: a text, a part, or a list of these.
    fn content(&mut self, content: &str, depth: usize) -> Read {
        if depth > DEEPEST {
            return None;
        }
        match content.as_bytes().first()? {
            b'"' => {
                self.count.text(&string(content)?);
                Some(())
            }
            b'[' => self.list(content, &mut |reader, part| reader.content(part, depth + 1)),
            b'{' => self.part(content, depth),
            _ => Some(()),
        }
    }

    fn part(&mut self, part: &str, depth: usize) -> Read {
        let kinds = pick(
            part,
            &[
                "inlineData",
                "inline_data",
                "fileData",
                "file_data",
                "image",
                "document",
                "video",
                "image_url",
                "images",
            ],
        )?;
        let [kind] = pick(part, &["type"])?;
        let kind = kind.and_then(string).unwrap_or_default();
        let is_media =
            ["image", "audio", "file", "document", "video"].iter().any(|media| kind.contains(media));
        if is_media || kinds.into_iter().any(|member| present(member).is_some()) {
            return None;
        }
        let [text, thinking, refusal, inner, parts, result, called, input, use_, call, response] = pick(
            part,
            &[
                "text",
                "thinking",
                "refusal",
                "content",
                "parts",
                "toolResult",
                "name",
                "input",
                "toolUse",
                "functionCall",
                "functionResponse",
            ],
        )?;
        for text in [text, thinking, refusal].into_iter().filter_map(present) {
            self.count.text(&string(text).unwrap_or_default());
        }
        for inner in [inner, parts, result].into_iter().filter_map(present) {
            self.content(inner, depth + 1)?;
        }
        if let Some(input) = present(input) {
            self.count.beside(CALL);
            self.count.text(&name(called).unwrap_or_default());
            self.count.text(input);
        }
        for object in [use_, call, response].into_iter().filter_map(present) {
            self.count.beside(CALL);
            self.count.text(object);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn tokens(path: &str, body: &str) -> Option<u64> {
        let operation = dialects::operation(dialects::Dialect::OpenAi, &Method::POST, path);
        prompt(&operation, body.as_bytes(), Tokenizer::O200kBase)
    }

    fn text(text: &str) -> u64 {
        Tokenizer::O200kBase.count(text)
    }

    #[test]
    fn a_chat_is_its_texts_with_three_tokens_a_message_and_three_for_the_answer() {
        let body = r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","name":"ana","content":[{"type":"text","text":"Hello, world"}]}]}"#;
        let wanted = text("Be brief.") + text("Hello, world") + text("ana") + 2 + 2 * 3 + 1 + 3;
        assert_eq!(tokens("/v1/chat/completions", body), Some(wanted));
        let one = r#"{"model":"m","input":"Hello, world"}"#;
        assert_eq!(tokens("/v1/responses", one), Some(text("Hello, world") + 1 + 3 + 3));
        assert_eq!(tokens("/v1/completions", r#"{"prompt":["a b","c"]}"#), Some(3));
        assert_eq!(tokens("/v1/completions", r#"{"prompt":[1,2,3]}"#), Some(3));
        assert_eq!(tokens("/v1/embeddings", r#"{"input":["a b",[1,2]]}"#), Some(4));
    }

    #[test]
    fn what_is_not_all_text_or_not_all_there_is_not_estimated() {
        let chat = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":[{content}]}}]}}"#);
        for body in [
            chat(r#"{"type":"image_url","image_url":{"url":"https://x.test/a.png"}}"#),
            chat(r#"{"type":"input_audio","input_audio":{"data":"AAAA"}}"#),
            chat(r#"{"type":"file","file":{"file_id":"f"}}"#),
            chat(r#"{"type":"tool_result","content":[{"type":"image","source":{}}]}"#),
            chat(r#"{"image":{"format":"png"}}"#),
            r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AA"}}]}]}"#.into(),
            r#"{"messages":[{"role":"user","content":"x","images":["AAAA"]}]}"#.into(),
            r#"{"previous_response_id":"resp_1","input":"more"}"#.into(),
            r#"{"prompt":{"id":"pmpt_1"}}"#.into(),
            r#"{"input":[{"type":"item_reference","id":"i"}]}"#.into(),
            r#"{"taskType":"TEXT_IMAGE","textToImageParams":{"text":"a cat"}}"#.into(),
            r#"{"system":"Be brief.","turns":["Hello"]}"#.into(),
            r#"{"messages":[]}"#.into(),
            r#"{"prompt":""}"#.into(),
            "{}".into(),
            r#"{"messages":"#.into(),
            "[]".into(),
            String::new(),
        ] {
            assert_eq!(tokens("/v1/chat/completions", &body), None, "{body}");
        }
        assert_eq!(tokens("/v1/images/generations", r#"{"prompt":"a cat"}"#), None);
        assert_eq!(tokens("/v1/audio/speech", r#"{"input":"a cat"}"#), None);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bodies_never_panic(body: String, deep in 0usize..300) {
            let opened = format!("{{\"messages\":{}", "[{\"content\":".repeat(deep));
            for path in ["/v1/chat/completions", "/v1/embeddings"] {
                tokens(path, &body);
                tokens(path, &opened);
                tokens(path, &format!("{opened}1{}}}", "}]".repeat(deep)));
                tokens(path, &format!("{{\"input\":{body:?},\"tools\":[{{\"name\":{body:?}}}]}}"));
            }
        }
    }
}
