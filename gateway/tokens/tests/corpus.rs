//! How far off the estimate is: recorded traffic, whose providers counted themselves, estimated as if they had not.
//!
//! The corpus lies beside the repository (`../shared/corpus`, or `AFFIDAVIT_CORPUS`). Without it the small set of `dialects`
//! is run, which is too small for a bound.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use dialects::{Cause, Dialect, Limits, Meter, Operation, operation};
use http::{HeaderMap, HeaderValue, Method};
use schemas::record::UsageSource;
use serde_json::Value;
use tokens::{Tokenizer, answer, makes_text, prompt};

/// What stands in an answer where its usage is told: renamed, nobody reads it.
const TOLD: [&str; 8] = [
    "usage",
    "x_groq",
    "prompt_eval_count",
    "eval_count",
    "meta",
    "generated_token_count",
    "input_token_count",
    "amazon-bedrock-invocationMetrics",
];

/// Deviations in thousandths, one a call: of the prompt, of the answer.
#[derive(Default)]
struct Off {
    input: Vec<i64>,
    output: Vec<i64>,
    /// Prompts that are not all text.
    absent: usize,
}

#[test]
fn estimates_of_openais_chat_are_within_their_bound_and_those_of_others_are_told() {
    let (folder, whole) = corpus();
    let mut found: BTreeMap<String, Off> = BTreeMap::new();
    let mut calls = 0;
    for line in lines(&folder) {
        let Some((name, input, output)) = estimate(&line) else { continue };
        calls += 1;
        let off = found.entry(name).or_default();
        match input {
            Some((estimated, counted)) => off.input.push(thousandths(estimated, counted)),
            None => off.absent += 1,
        }
        off.output.extend(output.map(|(estimated, counted)| thousandths(estimated, counted)));
    }
    println!("{calls} calls; off in %: median of the sizes, worst below, worst above");
    println!(
        "{:<34} {:>5} {:>7} {:>8} {:>8} {:>7} {:>5} {:>7} {:>8} {:>8}",
        "", "input", "median", "below", "above", "absent", "outp.", "median", "below", "above"
    );
    for (name, off) in &found {
        let (input, output) = (told(&off.input), told(&off.output));
        println!(
            "{name:<34} {:>5} {input} {:>7} {:>5} {output}",
            off.input.len(),
            off.absent,
            off.output.len()
        );
    }
    if !whole {
        return;
    }
    let (chat, rendered) =
        (&found["openai chat.completions"], &found["openai chat.completions, tools or form"]);
    assert!(
        chat.input.len() >= 60 && rendered.input.len() >= 60,
        "{} {}",
        chat.input.len(),
        rendered.input.len()
    );
    // Of the sizes of the deviations, in thousandths: the middle one, and the one that nine tenths are below.
    for (what, off, half, most) in [
        ("prompts", &chat.input, 0, 100),
        ("answers", &chat.output, 10, 800),
        ("prompts with tools or a form", &rendered.input, 60, 400),
        ("answers to them", &rendered.output, 150, 500),
    ] {
        let (middle, nine_tenths) = (share(off, 5), share(off, 9));
        println!(
            "openai chat.completions, {what}: half within {middle}, nine tenths within {nine_tenths} thousandths"
        );
        assert!(middle <= half && nine_tenths <= most, "{what}: {middle} {nine_tenths}");
    }
}

fn thousandths(estimated: u64, counted: i64) -> i64 {
    (i64::try_from(estimated).unwrap() - counted) * 1000 / counted
}

/// The size that so many tenths are not above.
fn share(off: &[i64], tenths: usize) -> i64 {
    let mut sizes: Vec<i64> = off.iter().map(|off| off.abs()).collect();
    sizes.sort_unstable();
    sizes.get((sizes.len() * tenths / 10).min(sizes.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn told(off: &[i64]) -> String {
    let percent = |off: i64| off as f64 / 10.0;
    let (least, most) = (off.iter().min().copied().unwrap_or(0), off.iter().max().copied().unwrap_or(0));
    format!("{:>7.1} {:>8.1} {:>8.1}", percent(share(off, 5)), percent(least.min(0)), percent(most.max(0)))
}

/// An estimate, and what the provider counted.
type Pair = Option<(u64, i64)>;

/// What it would have been estimated at: the provider with the operation, the prompt, the answer.
fn estimate(line: &Value) -> Option<(String, Pair, Pair)> {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let operation = operation_of(line)?;
    let status = u16::try_from(line["status"].as_u64()?).ok().filter(|status| *status < 400)?;
    let expected = &line["expected"];
    let counted = |name: &str| expected[name].as_i64().filter(|count| *count > 0);
    // Anthropic counts what was read from and written to a cache apart.
    let apart = matches!(operation.dialect(), Dialect::Anthropic | Dialect::Bedrock);
    let cached =
        if apart { ["cached_input_tokens", "cache_creation_tokens"].map(counted) } else { [None; 2] };
    let input = counted("input_tokens")? + cached.into_iter().flatten().sum::<i64>();
    let output = counted("output_tokens");
    let mut headers = HeaderMap::new();
    let kind = line["response_headers"]["content-type"].as_str().unwrap_or("application/json");
    headers.insert("content-type", HeaderValue::from_str(kind).ok()?);
    let mut untold = String::from_utf8(body(line, "response_body")).ok()?;
    for name in TOLD {
        untold = untold.replace(&format!("\"{name}"), &format!("\"no_{name}"));
    }
    let mut meter = Meter::new(operation, status, &headers, false, Limits::default());
    meter.keep_words();
    meter.feed(untold.as_bytes(), &mut Vec::new());
    let facts = meter.finish(Cause::Complete);
    if facts.usage.source != UsageSource::Unknown {
        return None;
    }
    let models = [expected["request_model"].as_str(), expected["model"].as_str()];
    let known = models.into_iter().flatten().find_map(Tokenizer::of_model);
    let tokenizer = known.unwrap_or(Tokenizer::O200kBase);
    let asked = body(line, "request_body");
    let prompt = prompt(&operation, &asked, tokenizer);
    // What a model thought is not shown.
    let shown =
        output.map(|output| output - counted("reasoning_tokens").unwrap_or(0)).filter(|shown| *shown > 0);
    let said = facts.said.filter(|said| makes_text(&operation) && !said.text.is_empty());
    let answered = said.map(|said| answer(&said, facts.tool_calls.unwrap_or(0), tokenizer));
    if std::env::var("AFFIDAVIT_SHOW").is_ok_and(|name| text("id").starts_with(&name)) {
        println!("{} {models:?} input {prompt:?} of {input}, output {answered:?} of {shown:?}", text("id"));
    }
    // Where a chat offers tools or asks for a form, what the provider makes of these is not public.
    let asked = String::from_utf8_lossy(&asked);
    let keys = ["\"tools\"", "\"functions\"", "\"toolConfig\"", "\"response_format\"", "\"format\""];
    let with = if keys.iter().any(|key| asked.contains(key)) { ", tools or form" } else { "" };
    Some((
        format!("{} {}{with}", text("provider"), operation.name()),
        prompt.map(|prompt| (prompt, input)),
        answered.zip(shown),
    ))
}

fn operation_of(line: &Value) -> Option<Operation> {
    let (kind, provider) = (line["dialect"].as_str()?, line["provider"].as_str()?);
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
    let method: Method = line["method"].as_str()?.parse().ok()?;
    Some(operation(dialect, &method, line["path"].as_str()?)).filter(Operation::uses_tokens)
}

fn body(line: &Value, name: &str) -> Vec<u8> {
    match (line[name].as_str(), line[format!("{name}_b64")].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (_, Some(coded)) => base64::engine::general_purpose::STANDARD.decode(coded).unwrap(),
        _ => Vec::new(),
    }
}

fn corpus() -> (PathBuf, bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = std::env::var_os("AFFIDAVIT_CORPUS")
        .map_or_else(|| root.join("../../../shared/corpus"), PathBuf::from);
    if corpus.join("README.md").is_file() {
        return (corpus, true);
    }
    println!("no corpus at {}: running on the project's own small set", corpus.display());
    (root.join("../dialects/testdata"), false)
}

fn lines(folder: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let ending = file.extension().and_then(|ending| ending.to_str());
        if !matches!(ending, Some("json" | "jsonl")) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        match ending {
            Some("jsonl") => all.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok())),
            _ => all.extend(serde_json::from_str(&text).ok()),
        }
    }
    assert!(!all.is_empty(), "nothing in {}", folder.display());
    all
}
