//! What is said: texts, media, calls of tools and what they gave.

use super::Cache;

/// A part of a turn or of an answer, with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it is.
    pub content: Content,
    /// The prefix up to its end is to be cached.
    pub cache: Option<Cache>,
    /// A signature of the provider's that has to come back with the part (Gemini's `thoughtSignature`). That of a
    /// thinking block stands in [`Thinking`].
    pub signature: Option<String>,
}

impl From<Content> for Part {
    fn from(content: Content) -> Self {
        Self { content, cache: None, signature: None }
    }
}

impl Part {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Content::Text(text.into()).into()
    }
}

/// What a part is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Text in which the model refuses.
    Refusal(String),
    /// An image.
    Image(Source),
    /// A document.
    Document(Document),
    /// Audio.
    Audio(Source),
    /// A call of one of the caller's tools.
    ToolUse(ToolUse),
    /// What a tool gave.
    ToolResult(ToolResult),
    /// What the model thought first.
    Thinking(Thinking),
}

/// Where bytes are.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Here, in standard base64.
    Base64 {
        /// `image/png`, `application/pdf`, ...
        media_type: String,
        /// The base64 text, as it came.
        data: String,
    },
    /// Behind a URL that the provider fetches.
    Url {
        /// The URL.
        url: String,
        /// The media type, where it was told.
        media_type: Option<String>,
    },
    /// A file that was uploaded to the provider.
    File {
        /// Its id there.
        id: String,
    },
    /// Plain text.
    Text(String),
}

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its bytes.
    pub source: Source,
    /// Its title, or file name.
    pub title: Option<String>,
    /// What the model is told of it beside.
    pub context: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// The id that its result names.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: usually an object, but nothing makes sure that it is JSON at all.
    pub arguments: String,
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The id of the call.
    pub id: String,
    /// Texts, images, documents.
    pub parts: Vec<Part>,
    /// Whether the tool failed, where the dialect says it.
    pub is_error: bool,
}

/// What a model thought before it answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thinking {
    /// The text, or its summary; empty where it is not shown.
    pub text: String,
    /// What lets the provider check that it is its own.
    pub signature: Option<String>,
    /// The whole of it, encrypted by the provider, in place of text and signature.
    pub redacted: Option<String>,
}
