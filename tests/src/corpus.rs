//! Recorded provider exchanges: the shared corpus where it is present, else the project's own small set.

use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Call;

/// One recorded exchange.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    /// Its name.
    pub id: String,
    /// Who served it.
    pub provider: String,
    /// The wire format.
    pub dialect: String,
    /// HTTP method.
    pub method: String,
    /// Path of the request.
    pub path: String,
    /// Query without `?`.
    #[serde(default)]
    pub query: String,
    /// Request headers, names in lower case.
    #[serde(default)]
    pub request_headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    request_body: Option<String>,
    #[serde(default)]
    request_body_b64: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
    /// Response headers, names in lower case.
    #[serde(default)]
    pub response_headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    response_body: Option<String>,
    #[serde(default)]
    response_body_b64: Option<String>,
    /// The sizes in which the client got the body.
    #[serde(default)]
    pub response_chunk_sizes: Option<Vec<usize>>,
    /// Whether the answer is a stream.
    #[serde(default)]
    pub streaming: bool,
    /// What the answer reports.
    #[serde(default)]
    pub expected: Value,
    /// The file that it comes from.
    #[serde(skip)]
    pub file: String,
}

fn bytes(text: Option<&String>, coded: Option<&String>) -> Vec<u8> {
    match (text, coded) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(coded)) => {
            base64::engine::general_purpose::STANDARD.decode(coded).expect("the corpus' base64 is sound")
        }
        (None, None) => Vec::new(),
    }
}

impl Line {
    /// The request's body.
    pub fn request(&self) -> Vec<u8> {
        bytes(self.request_body.as_ref(), self.request_body_b64.as_ref())
    }
    /// The response's body.
    pub fn response(&self) -> Vec<u8> {
        bytes(self.response_body.as_ref(), self.response_body_b64.as_ref())
    }
    /// The gateway's dialect for this line, where it speaks one.
    pub fn gateway_dialect(&self) -> Option<&'static str> {
        match self.dialect.as_str() {
            d if d.starts_with("anthropic-") => Some("anthropic"),
            d if d.starts_with("bedrock-") => Some("bedrock"),
            d if d.starts_with("openai-") => {
                Some(if self.provider.starts_with("azure") && self.path.starts_with("/openai/") {
                    "azure_openai"
                } else {
                    "openai"
                })
            }
            "voyage" | "mistral-ocr" => Some("openai"),
            d if d.starts_with("vertex-") || self.provider == "google-vertex" => Some("vertex"),
            d if d.starts_with("gemini-") => Some("gemini"),
            d if d.starts_with("cohere-") => Some("cohere"),
            d if d.starts_with("ollama-") => Some("ollama"),
            d if d.starts_with("watsonx-") => Some("watsonx"),
            _ => None,
        }
    }
    /// The recorded request, to the route of its dialect under the gateway key `key`; the answer comes in the pieces of `split`.
    ///
    /// # Panics
    /// Where the gateway has no dialect for it.
    pub fn call(&self, key: &str, split: &str) -> Call {
        let dialect = self.gateway_dialect().expect("only lines with a dialect");
        let route = if dialect == "azure_openai" { "azure" } else { dialect };
        // The gateway's key goes where the recorded caller had its own.
        let in_query = self.query.contains("key=REDACTED");
        let query = self.query.replace("key=REDACTED", &format!("key={key}"));
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let mut call = Call {
            method: self.method.clone(),
            path: format!("/{route}{}{query}", self.path),
            headers: vec![("x-replay".into(), format!("{};split={split}", self.id))],
            body: self.request(),
        };
        let header = if dialect == "gemini" { "x-goog-api-key" } else { "x-affidavit-key" };
        if !in_query {
            call.headers.push((header.into(), key.into()));
        }
        for name in ["content-type", "anthropic-version", "anthropic-beta", "openai-beta"] {
            if let Some(value) = self.request_headers.get(name) {
                call.headers.push((name.into(), value.clone()));
            }
        }
        call
    }
}

/// The further dialects that recorded exchanges are in: a gateway that is to pass all of them has a route of each.
pub const FURTHER: [&str; 6] = ["gemini", "vertex", "cohere", "ollama", "watsonx", "bedrock"];

/// The dialects of the gateways that most tests start.
const USUAL: [&str; 3] = ["openai", "azure_openai", "anthropic"];

/// Where exchanges come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// The shared corpus.
    Corpus(PathBuf),
    /// The project's own small set.
    Own(PathBuf),
}

/// The set that this machine has.
pub fn set() -> Set {
    let shared = std::env::var_os("AFFIDAVIT_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| crate::root().join("../shared/corpus"));
    if shared.join("README.md").exists() {
        Set::Corpus(shared)
    } else {
        Set::Own(crate::root().join("tests/exchanges"))
    }
}

/// All lines in the usual dialects, sorted by file and place; says on stderr which set it is.
pub fn lines() -> Vec<Line> {
    let mut lines = all_lines();
    lines.retain(|line| line.gateway_dialect().is_some_and(|dialect| USUAL.contains(&dialect)));
    lines
}

/// All lines that the gateway has a dialect for, sorted by file and place; says on stderr which set it is.
pub fn all_lines() -> Vec<Line> {
    let dir = match set() {
        Set::Corpus(dir) => dir,
        Set::Own(dir) => {
            eprintln!("corpus absent: running on the project's own small set");
            dir
        }
    };
    lines_of(&dir)
}

/// A line of each wire format, whole and streamed, with and without use of a cache, by status: recorded traffic in little, of
/// requests that name a model. Azure's are left out, whose place in a gateway under test others may have.
pub fn some_lines() -> Vec<Line> {
    let mut taken = std::collections::BTreeSet::new();
    let mut lines = all_lines();
    lines.retain(|line| {
        let cached = line.expected["cached_input_tokens"].as_i64().is_some_and(|tokens| tokens > 0);
        line.gateway_dialect() != Some("azure_openai")
            && line.expected["request_model"].is_string()
            && taken.insert((line.dialect.clone(), line.streaming, cached, line.status))
    });
    lines
}

/// The project's own small set.
pub fn own_lines() -> Vec<Line> {
    let mut lines = lines_of(&crate::root().join("tests/exchanges"));
    lines.retain(|line| line.gateway_dialect().is_some_and(|dialect| USUAL.contains(&dialect)));
    lines
}

fn lines_of(dir: &std::path::Path) -> Vec<Line> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic_on(&format!("{}: {e}", dir.display())))
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    let mut out = Vec::new();
    for path in files {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic_on(&format!("{}: {e}", path.display())));
        for (n, text) in text.lines().enumerate() {
            let mut line: Line = serde_json::from_str(text)
                .unwrap_or_else(|e| panic_on(&format!("{}:{}: {e}", path.display(), n + 1)));
            line.file.clone_from(&file);
            if line.gateway_dialect().is_some() {
                out.push(line);
            }
        }
    }
    out
}

fn panic_on(what: &str) -> ! {
    std::panic::panic_any(what.to_owned())
}
