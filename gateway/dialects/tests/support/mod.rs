//! Lines of the corpus, or of the project's own small set.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use dialects::{Cause, Dialect, Limits, Meter, Operation, Segment, operation};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

pub(crate) struct Line {
    pub(crate) file: String,
    pub(crate) id: String,
    pub(crate) provider: String,
    pub(crate) kind: String,
    pub(crate) operation: Operation,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) request_headers: HeaderMap,
    pub(crate) request: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) response: Vec<u8>,
    pub(crate) streaming: bool,
    pub(crate) expected: Value,
}

pub(crate) fn long() -> bool {
    std::env::var("AFFIDAVIT_LONG").is_ok_and(|v| v == "1")
}

fn sources() -> (Vec<PathBuf>, &'static str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = std::env::var_os("AFFIDAVIT_CORPUS")
        .map_or_else(|| root.join("../../../shared/corpus"), PathBuf::from);
    let (folder, ending, name) = if corpus.join("README.md").is_file() {
        (corpus, "jsonl", "corpus")
    } else {
        println!("no corpus at {}: running on the project's own small set", corpus.display());
        (root.join("testdata"), "json", "own set")
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    (files, name)
}

/// All lines in a dialect that is known here.
pub(crate) fn lines() -> Vec<Line> {
    let (files, _) = sources();
    let mut found = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        if name.ends_with(".jsonl") {
            found.extend(text.lines().filter_map(|line| read(&name, &serde_json::from_str(line).unwrap())));
        } else {
            found.extend(read(&name, &serde_json::from_str(&text).unwrap()));
        }
    }
    found
}

fn headers(value: &Value) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        // The recorded body is already decoded.
        if name == "content-encoding" {
            continue;
        }
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            map.append(name, value);
        }
    }
    map
}

fn body(value: &Value, name: &str) -> Vec<u8> {
    match (value[name].as_str(), value[format!("{name}_b64")].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (_, Some(coded)) => base64::engine::general_purpose::STANDARD.decode(coded).unwrap(),
        _ => Vec::new(),
    }
}

fn read(file: &str, value: &Value) -> Option<Line> {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let kind = text("dialect");
    let provider = text("provider");
    let dialect = match kind.split('-').next()? {
        "anthropic" => Dialect::Anthropic,
        "openai" if provider == "azure-openai" => Dialect::AzureOpenAi,
        "openai" | "voyage" | "mistral" => Dialect::OpenAi,
        "gemini" if provider == "google-vertex" => Dialect::Vertex,
        "vertex" => Dialect::Vertex,
        "gemini" => Dialect::Gemini,
        "cohere" => Dialect::Cohere,
        "ollama" => Dialect::Ollama,
        "watsonx" => Dialect::Watsonx,
        "bedrock" => Dialect::Bedrock,
        _ => return None,
    };
    let method: Method = text("method").parse().unwrap();
    let path = text("path");
    Some(Line {
        file: file.into(),
        id: text("id"),
        provider,
        kind,
        operation: operation(dialect, &method, &path),
        query: Some(text("query")).filter(|q| !q.is_empty()),
        path,
        request_headers: headers(&value["request_headers"]),
        request: body(value, "request_body"),
        status: u16::try_from(value["status"].as_u64().unwrap()).unwrap(),
        headers: headers(&value["response_headers"]),
        response: body(value, "response_body"),
        streaming: value["streaming"] == true,
        expected: value["expected"].clone(),
    })
}

/// What became of a response's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Passed {
    pub(crate) facts: dialects::AnswerFacts,
    pub(crate) forwarded: Vec<u8>,
    pub(crate) held: Vec<u8>,
    pub(crate) output: bool,
    pub(crate) terminal: bool,
}

/// Passes a response through a meter in the given pieces.
pub(crate) fn pass(line: &Line, body: &[u8], cuts: &[usize], stripping: bool) -> Passed {
    let mut meter = Meter::new(line.operation, line.status, &line.headers, stripping, Limits::default());
    let (mut forwarded, mut held) = (Vec::new(), Vec::new());
    let mut out = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([body.len()]) {
        let piece = &body[from..to];
        meter.feed(piece, &mut out);
        sort(&mut out, piece, &mut forwarded, &mut held);
        from = to;
    }
    meter.end(&mut out);
    sort(&mut out, &[], &mut forwarded, &mut held);
    let (output, terminal) = (meter.saw_output(), meter.terminal());
    Passed { facts: meter.finish(Cause::Complete), forwarded, held, output, terminal }
}

fn sort(out: &mut Vec<Segment>, piece: &[u8], forwarded: &mut Vec<u8>, held: &mut Vec<u8>) {
    for segment in out.drain(..) {
        let bytes = match &segment {
            Segment::Forward(range) => &piece[range.clone()],
            Segment::Bytes(bytes) => bytes,
            Segment::Held(bytes) => {
                held.extend_from_slice(bytes);
                continue;
            }
        };
        assert!(held.is_empty() || bytes.is_empty(), "bytes forwarded behind held ones");
        forwarded.extend_from_slice(bytes);
    }
}

/// Random numbers that are the same in every run.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }
}
