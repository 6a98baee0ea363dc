//! Which conversation a request belongs to, so that all its turns can go to one target.
//!
//! Callers send a conversation anew with every turn: what stays the same is its beginning. The key is a hash of the
//! system text and of the first user turn, or of the id of a stored conversation where the body names one. Markers that
//! move from turn to turn (`cache_control`, ids of messages) are not in it: only what was said.

use sha2::{Digest as _, Sha256};

use crate::json::{each, name, pick, present, string};
use crate::operation::Dialect;

/// How much of each text counts: two conversations that differ only behind it have one key, and go to one target.
const TEXT_BYTES: usize = 64 << 10;

/// A conversation, as a hash under which nothing of it can be read.
pub type ConversationKey = [u8; 16];

/// The key of the conversation that a request's body (JSON, decoded) belongs to; `None` where it shows none: other
/// operations, a prompt without turns, a body that cannot be read.
pub fn conversation_key(dialect: Dialect, body: &[u8]) -> Option<ConversationKey> {
    let body = std::str::from_utf8(body).ok()?;
    let [previous, conversation, conversation_id, session_id] =
        pick(body, &["previous_response_id", "conversation", "conversation_id", "session_id"])?;
    let in_object = || present(conversation).and_then(|text| pick(text, &["id"])).and_then(|[id]| name(id));
    let id = name(conversation)
        .or_else(in_object)
        .or_else(|| name(conversation_id))
        .or_else(|| name(session_id))
        .or_else(|| name(previous));
    if let Some(id) = id {
        return Some(stored_conversation(&id));
    }
    let mut said = Said::default();
    match dialect {
        Dialect::Gemini | Dialect::Vertex => {
            let [system, snake, contents] =
                pick(body, &["systemInstruction", "system_instruction", "contents"])?;
            said.system(system.or(snake));
            said.turns(contents);
            // Vertex serves Claude and others too, in formats of their own.
            if said.user.is_none() {
                said.messages(body)?;
            }
        }
        Dialect::Cohere => {
            let [preamble, history, message] = pick(body, &["preamble", "chat_history", "message"])?;
            said.system(preamble);
            said.turns(history);
            if said.user.is_none() {
                said.user = present(message).and_then(hash_of);
            }
            if said.user.is_none() {
                said.messages(body)?;
            }
        }
        Dialect::OpenAi
        | Dialect::AzureOpenAi
        | Dialect::Anthropic
        | Dialect::Ollama
        | Dialect::Watsonx
        | Dialect::Bedrock => said.messages(body)?,
    }
    said.key()
}

/// The key of a conversation that the provider stores, by its id: that of a conversation, or of the response that the next
/// turn goes on from (`previous_response_id`).
pub fn stored_conversation(id: &str) -> ConversationKey {
    let mut hasher = Sha256::new();
    hasher.update(b"affidavit/conversation/v1/id\0");
    hasher.update(id.as_bytes());
    cut(&hasher.finalize())
}

/// The beginning of a conversation.
#[derive(Default)]
struct Said {
    system: Vec<[u8; 32]>,
    user: Option<[u8; 32]>,
}

impl Said {
    /// The fields of the formats that have `messages`, or `input` with `instructions`.
    fn messages(&mut self, body: &str) -> Option<()> {
        let [system, instructions, messages, input] =
            pick(body, &["system", "instructions", "messages", "input"])?;
        self.system(system);
        self.system(instructions);
        self.turns(messages);
        if self.user.is_none() && self.turns(input) {
            return Some(());
        }
        // A whole prompt in one text is a turn only beside instructions, in the Responses API: elsewhere (embeddings,
        // moderation) it is no conversation.
        if self.user.is_none() && instructions.is_some() {
            self.user = input.filter(|text| text.starts_with('"')).and_then(hash_of);
        }
        Some(())
    }

    fn system(&mut self, text: Option<&str>) {
        self.system.extend(present(text).and_then(hash_of));
    }

    /// Reads turns up to the first of the user; false where these are none.
    fn turns(&mut self, turns: Option<&str>) -> bool {
        let Some(turns) = present(turns) else { return false };
        let mut any = false;
        let mut look = |turn: &str| {
            if self.user.is_some() {
                return;
            }
            let Some([role, content, parts, message]) = pick(turn, &["role", "content", "parts", "message"])
            else {
                return;
            };
            any = true;
            let said = present(content).or(present(parts)).or(present(message));
            let role = name(role).map(|role| role.to_ascii_lowercase());
            match role.as_deref() {
                Some("system" | "developer") => self.system.extend(said.and_then(hash_of)),
                // Google's turns may leave the role out: then it is the user's.
                Some("user" | "human") => self.user = said.and_then(hash_of),
                None if present(parts).is_some() => self.user = said.and_then(hash_of),
                _ => {}
            }
        };
        if !each(turns, &mut look) {
            look(turns);
        }
        any
    }

    fn key(&self) -> Option<ConversationKey> {
        let user = self.user?;
        let mut hasher = Sha256::new();
        hasher.update(b"affidavit/conversation/v1/turns\0");
        for system in &self.system {
            hasher.update(system);
        }
        hasher.update(b"\0user\0");
        hasher.update(user);
        Some(cut(&hasher.finalize()))
    }
}

fn cut(hash: &[u8]) -> ConversationKey {
    let mut key = [0; 16];
    key.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    key
}

/// The hash of what a content says: a text, or the texts of its blocks one after the other. Where there is no text (a
/// picture alone), of its bytes as they stand.
fn hash_of(content: &str) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut left = TEXT_BYTES;
    if !texts(content, &mut hasher, &mut left, 0) {
        let bytes = content.as_bytes();
        hasher.update(b"\0raw\0");
        hasher.update(bytes.get(..bytes.len().min(TEXT_BYTES)).unwrap_or_default());
    }
    Some(hasher.finalize().into())
}

/// Takes in the texts of a content; whether there were any. Blocks hold text, or parts that do.
fn texts(content: &str, hasher: &mut Sha256, left: &mut usize, depth: usize) -> bool {
    if depth > 3 {
        return false;
    }
    if let Some(text) = string(content) {
        let bytes = text.as_bytes();
        let taken = bytes.get(..bytes.len().min(*left)).unwrap_or_default();
        *left -= taken.len();
        hasher.update(taken);
        return !bytes.is_empty();
    }
    let mut any = false;
    if content.starts_with('{') {
        if let Some([text, parts, content]) = pick(content, &["text", "parts", "content"]) {
            for inner in [text, parts, content].into_iter().flatten() {
                any |= texts(inner, hasher, left, depth + 1);
            }
        }
        return any;
    }
    each(content, &mut |block| any |= texts(block, hasher, left, depth + 1));
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(dialect: Dialect, body: &str) -> Option<ConversationKey> {
        conversation_key(dialect, body.as_bytes())
    }

    #[test]
    fn all_turns_of_a_conversation_have_one_key_in_every_dialect() {
        let table = [
            (
                Dialect::OpenAi,
                r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#,
                r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"}]},
                    {"role":"assistant","content":"b"},{"role":"user","content":"c"}],"temperature":1}"#,
            ),
            (
                Dialect::AzureOpenAi,
                r#"{"instructions":"s","input":"a"}"#,
                r#"{"instructions":"s","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"reasoning","id":"r"}]}"#,
            ),
            (
                Dialect::Anthropic,
                r#"{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}]}"#,
                r#"{"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"a"},
                    {"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"systemInstruction":{"parts":[{"text":"s"}]},"contents":[{"parts":[{"text":"a"}]}]}"#,
                r#"{"system_instruction":{"parts":[{"text":"s"}]},"contents":[{"role":"user","parts":[{"text":"a"}]},{"role":"model","parts":[]}]}"#,
            ),
            (
                Dialect::Vertex,
                r#"{"anthropic_version":"x","messages":[{"role":"user","content":"a"}]}"#,
                r#"{"anthropic_version":"x","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
            ),
            (
                Dialect::Cohere,
                r#"{"message":"a","preamble":"p"}"#,
                r#"{"message":"c","preamble":"p","chat_history":[{"role":"USER","message":"a"},{"role":"CHATBOT","message":"b"}]}"#,
            ),
            (
                Dialect::Cohere,
                r#"{"messages":[{"role":"user","content":"a"}]}"#,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
            ),
            (
                Dialect::Bedrock,
                r#"{"system":[{"text":"s"}],"messages":[{"role":"user","content":[{"text":"a"}]}]}"#,
                r#"{"system":[{"text":"s"},{"cachePoint":{"type":"default"}}],"messages":[{"role":"user","content":[{"text":"a"}]},
                    {"role":"assistant","content":[{"text":"b"}]}]}"#,
            ),
            (
                Dialect::Ollama,
                r#"{"messages":[{"role":"user","content":"a"}]}"#,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"stream":false}"#,
            ),
            (
                Dialect::Watsonx,
                r#"{"messages":[{"role":"user","content":"a"}]}"#,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]}"#,
            ),
            (
                Dialect::OpenAi,
                r#"{"conversation":"c1","input":"a"}"#,
                r#"{"conversation":{"id":"c1"},"input":"b"}"#,
            ),
        ];
        for (dialect, first, later) in table {
            let (first, later) = (key(dialect, first), key(dialect, later));
            assert!(first.is_some(), "{dialect:?}");
            assert_eq!(first, later, "{dialect:?}");
        }
    }

    #[test]
    fn another_beginning_or_another_id_is_another_conversation() {
        let bodies = [
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"b"}]}"#,
            r#"{"messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"y"}}]}]}"#,
            r#"{"previous_response_id":"r1","input":"a"}"#,
            r#"{"previous_response_id":"r2","input":"a"}"#,
        ];
        let mut keys: Vec<_> = bodies.iter().map(|body| key(Dialect::OpenAi, body).unwrap()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), bodies.len());
        assert_eq!(key(Dialect::OpenAi, bodies[5]), Some(stored_conversation("r1")));
    }

    #[test]
    fn what_is_no_conversation_has_no_key() {
        for body in [
            "",
            "[]",
            "nothing",
            "{}",
            r#"{"prompt":"a"}"#,
            r#"{"input":"to embed"}"#,
            r#"{"input":["to","embed"]}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":7,"input":null}"#,
            r#"{"messages":[{"role":"assistant","content":"b"}]}"#,
            r#"{"messages":[{"role":"user"}]}"#,
            "\u{feff}{",
        ] {
            for dialect in Dialect::ALL {
                assert_eq!(key(dialect, body), None, "{dialect:?} {body}");
            }
        }
        assert_eq!(conversation_key(Dialect::OpenAi, b"\xff\xfe"), None);
    }

    #[test]
    fn only_the_first_64_kib_of_a_text_count() {
        let of = |text: String| {
            key(Dialect::OpenAi, &format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#))
        };
        let long = "x".repeat(TEXT_BYTES);
        assert_eq!(of(format!("{long}a")), of(format!("{long}b")));
        assert_ne!(of(format!("a{long}")), of(format!("b{long}")));
    }
}
