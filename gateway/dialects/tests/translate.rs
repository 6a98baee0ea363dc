//! Cases of translation: a folder each in `testdata/translate/<pair>/<case>`. `BLESS=1` writes what comes out.
//!
//! - `provider_answer.frames` is an event stream of AWS, a frame a line; `provider_head.json` the answer's headers
//! - `request.json`: the caller's; `provider_request.json`, `refused.txt`, `dropped.txt`: what comes of it
//! - `provider_answer.json`, `provider_answer.sse` or `provider_error.STATUS.json`: the provider's
//! - `answer.json`, `answer.sse` or `error.STATUS.json`: what the caller gets for it
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use dialects::event_stream::encode;
use dialects::translate::form::{Asked, Options, Weight};
use dialects::translate::{Pair, Translated, Untranslatable};
use dialects::{Dialect, operation};
use http::{HeaderMap, HeaderName, Method};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/translate")
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

fn pair(name: &str) -> Pair {
    let (from, to) = name.split_once('-').unwrap();
    Pair::of(Dialect::parse(from).unwrap(), Dialect::parse(to).unwrap()).unwrap()
}

fn translate(pair: Pair, body: &[u8], drop: bool) -> Result<Translated, Untranslatable> {
    let path = if pair.from() == Dialect::Anthropic { "/v1/messages" } else { "/v1/chat/completions" };
    let asked = operation(pair.from(), &Method::POST, path);
    pair.request(&asked, path, body, None, Options { drop, ..Options::default() })
}

fn asked(translated: &Translated) -> Asked {
    Asked { created: 1_700_000_000, exchange: "exchange".to_owned(), ..translated.asked.clone() }
}

/// Compares with the file, or writes it.
fn check(file: &Path, found: &[u8], wrong: &mut Vec<String>) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(file, found).unwrap();
    } else if fs::read(file).ok().as_deref() != Some(found) {
        wrong.push(format!("{}:\n{}", file.display(), String::from_utf8_lossy(found)));
    }
}

fn line(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b'\n');
    text
}

fn stream(pair: Pair, asked: &Asked, chunks: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
    let mut translator = pair.stream(asked.clone());
    let mut out = Vec::new();
    for chunk in chunks {
        translator.feed(chunk, &mut out);
    }
    translator.end(&mut out);
    out
}

/// The headers of the provider's answer.
fn head(case: &Path) -> HeaderMap {
    let Ok(text) = fs::read(case.join("provider_head.json")) else { return HeaderMap::new() };
    let head: std::collections::HashMap<String, String> = serde_json::from_slice(&text).unwrap();
    head.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

/// Frames of an event stream, of lines `messageStart {...}`; those that begin with `!` are exceptions.
fn frames(lines: &[u8]) -> Vec<u8> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    let frame = |line: &str| {
        let (name, payload) = line.split_once(' ').unwrap();
        let (key, kind, name) = match name.strip_prefix('!') {
            Some(name) => (":exception-type", "exception", name),
            None => (":event-type", "event", name),
        };
        let json = (":content-type", "application/json");
        encode(&[(key, name), json, (":message-type", kind)], payload.as_bytes())
    };
    lines.flat_map(frame).collect()
}

/// The request of a case, and what was left out.
fn request(pair: Pair, case: &Path, wrong: &mut Vec<String>) -> Translated {
    let body = fs::read(case.join("request.json")).unwrap();
    let refused = case.join("refused.txt");
    let translated = match translate(pair, &body, false) {
        Ok(translated) => {
            assert!(!refused.exists(), "{}: is not refused any more", case.display());
            translated
        }
        Err(error) => {
            check(&refused, &line(error.to_string().into_bytes()), wrong);
            translate(pair, &body, true).unwrap_or_else(|e| panic!("{}: {e}", case.display()))
        }
    };
    check(&case.join("provider_request.json"), &line(translated.body.clone()), wrong);
    let listed: String = translated
        .dropped
        .iter()
        .map(|d| {
            let weight = if d.weight == Weight::Meaning { "meaning" } else { "hint" };
            format!("{weight} {} {}\n", d.what, d.path)
        })
        .collect();
    if listed.is_empty() {
        assert!(!case.join("dropped.txt").exists(), "{}: nothing is dropped any more", case.display());
    } else {
        check(&case.join("dropped.txt"), listed.as_bytes(), wrong);
    }
    translated
}

fn answers(pair: Pair, case: &Path, asked: &Asked, wrong: &mut Vec<String>) -> usize {
    let headers = head(case);
    let mut seen = 0;
    for entry in fs::read_dir(case).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let body = fs::read(&file).unwrap();
        if name == "provider_answer.json" {
            let whole = pair.answer(200, &headers, &body, asked).unwrap();
            let file = if whole.status == 200 {
                "answer.json".into()
            } else {
                format!("error.{}.json", whole.status)
            };
            check(&case.join(file), &line(whole.body), wrong);
        } else if let Some(status) =
            name.strip_prefix("provider_error.").and_then(|name| name.strip_suffix(".json"))
        {
            let whole = pair.answer(status.parse().unwrap(), &headers, &body, asked).unwrap();
            check(&case.join(format!("error.{}.json", whole.status)), &line(whole.body), wrong);
        } else if name == "provider_answer.sse" || name == "provider_answer.frames" {
            let body = if name.ends_with("frames") { frames(&body) } else { body };
            let whole = stream(pair, asked, &mut std::iter::once(body.as_slice()));
            for at in 0..=body.len() {
                let (a, b) = body.split_at(at);
                assert_eq!(stream(pair, asked, &mut [a, b].into_iter()), whole, "{name} split at {at}");
            }
            assert_eq!(stream(pair, asked, &mut body.chunks(1)), whole, "{name} byte by byte");
            check(&case.join("answer.sse"), &whole, wrong);
        } else {
            continue;
        }
        seen += 1;
    }
    seen
}

#[test]
fn every_case_comes_out_as_written_and_every_split_alike() {
    let (mut cases, mut all, mut wrong) = (0, 0, Vec::new());
    for folder in folders(&root()) {
        let pair = pair(&folder.file_name().unwrap().to_string_lossy());
        for case in folders(&folder) {
            let translated = request(pair, &case, &mut wrong);
            all += answers(pair, &case, &asked(&translated), &mut wrong);
            cases += 1;
        }
    }
    println!("{cases} cases, {all} answers");
    assert!(wrong.is_empty(), "{} differ; BLESS=1 writes them:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases > 40 && all > 30, "{cases} cases, {all} answers");
}

/// A feature, and what its cases hold: in requests of callers of OpenAI's and of Anthropic's dialect, and in the answers.
type Feature = (&'static str, [&'static str; 2], [&'static str; 2]);

/// What each pair has a case of, whole (`image`) and streamed (`stream-image`).
const FEATURES: &[Feature] = &[
    ("plain", ["", ""], ["", ""]),
    ("system", [r#""role":"system""#, r#""system":"#], ["", ""]),
    ("multi-turn", [r#""role":"assistant""#; 2], ["", ""]),
    ("tools-offered", [r#""tools":[{"#; 2], ["", ""]),
    ("one-call", [r#""tools":[{"#; 2], [OPENAI_CALL, ANTHROPIC_CALL]),
    ("parallel-calls", [r#""tools":[{"#; 2], [OPENAI_CALL, ANTHROPIC_CALL]),
    ("tool-results", [r#""role":"tool""#, r#""type":"tool_result""#], ["", ""]),
    ("image", [r#""type":"image_url""#, r#""type":"image""#], ["", ""]),
    ("document", [r#""type":"file""#, r#""type":"document""#], ["", ""]),
    ("structured-output", [r#""type":"json_schema""#; 2], ["", ""]),
    (
        "reasoning",
        [r#""reasoning_effort":"#, r#""thinking":{"#],
        [r#""reasoning_content":"#, r#""thinking":"#],
    ),
    ("cache", [r#""cache_control":{"#; 2], [r#""cached_tokens":"#, r#""cache_read_input_tokens":"#]),
    ("usage", ["", ""], [r#""usage":{"prompt_tokens":"#, r#""usage":{"input_tokens":"#]),
];

const OPENAI_CALL: &str = r#""type":"function""#;
const ANTHROPIC_CALL: &str = r#""type":"tool_use""#;

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The pairs, but those that differ in OpenAI's two places only.
fn pairs() -> Vec<Pair> {
    let all = Dialect::ALL.into_iter().filter(|dialect| *dialect != Dialect::AzureOpenAi);
    all.clone().flat_map(|from| all.clone().filter_map(move |to| Pair::of(from, to))).collect()
}

/// Why the case that `feature` is to have in `folder` is none.
fn hole(folder: &Path, side: usize, feature: &Feature, stream: bool) -> Option<String> {
    let (feature, asked, answered) = (feature.0, feature.1[side], feature.2[side]);
    let case = folder.join(format!("{}{feature}", if stream { "stream-" } else { "" }));
    let told = |why: &str| Some(format!("{}: {why}", case.display()));
    let answer = if stream { "answer.sse" } else { "answer.json" };
    let (Ok(request), Ok(answer)) =
        (fs::read(case.join("request.json")), fs::read_to_string(case.join(answer)))
    else {
        return told("no such case");
    };
    let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
    if (request["stream"] == true) != stream {
        return told("its request asks for the other kind of answer");
    }
    if !request.to_string().contains(asked) {
        return told("its request has nothing of it");
    }
    let (found, wanted) = (answer.matches(answered).count(), usize::from(!answered.is_empty()));
    match feature {
        _ if found < wanted => told("its answer has nothing of it"),
        "one-call" if found != 1 => told("its answer has not one call"),
        "parallel-calls" if found < 2 => told("its answer has not several calls"),
        _ => None,
    }
}

#[test]
fn every_pair_has_a_case_of_every_feature_whole_and_streamed() {
    let mut holes = Vec::new();
    for pair in pairs() {
        let folder = root().join(pair.name());
        let side = usize::from(pair.from() == Dialect::Anthropic);
        for feature in FEATURES {
            holes.extend([false, true].into_iter().filter_map(|stream| hole(&folder, side, feature, stream)));
        }
        // An error in place of a whole answer, in place of a stream, and within one.
        let cases: Vec<String> = folders(&folder).iter().map(|case| name(case)).collect();
        let is_error = |case: &String| case.starts_with("error-") && case != "error-of-a-stream";
        for (kind, found) in [
            ("error-*", cases.iter().any(is_error)),
            ("error-of-a-stream", cases.iter().any(|case| case == "error-of-a-stream")),
            ("stream-error*", cases.iter().any(|case| case.starts_with("stream-error"))),
        ] {
            if !found {
                holes.push(format!("{}: no case {kind}", folder.display()));
            }
        }
    }
    assert!(holes.is_empty(), "{}", holes.join("\n"));
}

/// A case `stop-max-tokens` is of the provider's word `max_tokens`, or `MAX_TOKENS`. That no word is missing,
/// `tests/translate` checks by the providers' own lists.
#[test]
fn every_reason_to_end_and_every_error_of_a_provider_is_in_each_of_its_pairs() {
    let mut of_provider = BTreeMap::<&str, BTreeSet<String>>::new();
    for pair in pairs() {
        for case in folders(&root().join(pair.name())) {
            let name = name(&case);
            let plain = name.strip_prefix("stream-").unwrap_or(&name);
            if let Some(word) = plain.strip_prefix("stop-") {
                let word = word.replace('-', "_");
                let answer = ["json", "sse", "frames"].map(|end| case.join(format!("provider_answer.{end}")));
                let answer = answer.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap();
                let says =
                    [word.to_uppercase(), word].iter().any(|word| answer.contains(&format!("\"{word}\"")));
                assert!(says, "{}: the provider says another reason", case.display());
                of_provider
                    .entry(pair.to().name())
                    .or_default()
                    .extend([plain.to_owned(), format!("stream-{plain}")]);
            } else if plain.starts_with("error-") {
                of_provider.entry(pair.to().name()).or_default().insert(name);
            }
        }
    }
    for pair in pairs() {
        for name in &of_provider[pair.to().name()] {
            assert!(root().join(pair.name()).join(name).is_dir(), "{}/{name}: no such case", pair.name());
        }
    }
}

#[test]
fn a_pair_is_of_two_dialects_that_have_their_halves() {
    for dialect in Dialect::ALL {
        assert!(Pair::of(dialect, dialect).is_none());
    }
    assert!(Pair::of(Dialect::AzureOpenAi, Dialect::OpenAi).is_none(), "the same bytes");
    assert_eq!(Pair::of(Dialect::AzureOpenAi, Dialect::Anthropic).unwrap().name(), "azure_openai-anthropic");
}

#[test]
fn what_is_no_conversation_is_not_translated() {
    let pair = Pair::of(Dialect::OpenAi, Dialect::Anthropic).unwrap();
    for path in ["/v1/embeddings", "/v1/responses", "/v1/models", "/v1/messages"] {
        let asked = operation(Dialect::OpenAi, &Method::POST, path);
        let refused = pair.request(&asked, path, b"{}", None, Options::default()).unwrap_err();
        assert!(matches!(refused, Untranslatable::Operation(_)), "{path}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_its_place() {
    let pair = Pair::of(Dialect::OpenAi, Dialect::Anthropic).unwrap();
    for (body, wanted) in [
        ("", "`body` must be a JSON object"),
        (r#"{"messages":[]}"#, "`model` must be a string"),
        (r#"{"model":"m"}"#, "`messages` must be an array of messages"),
        (r#"{"model":"m","messages":[{"role":"elf"}]}"#, "`messages[0].role` must be system,"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            "`messages[0].content[0].text`",
        ),
        (r#"{"model":"m","messages":[],"stop":5}"#, "`stop` must be"),
        (r#"{"model":"m","messages":[],"temperature":"hot"}"#, "`temperature` must be a number"),
    ] {
        let refused = translate(pair, body.as_bytes(), true).unwrap_err().to_string();
        assert!(refused.starts_with(wanted), "{body}: {refused}");
    }
    let model = r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function",
        "function":{"name":"f","arguments":"[1"}}]}]}"#;
    let refused = translate(pair, model.as_bytes(), true).unwrap_err();
    assert!(matches!(refused, Untranslatable::CannotCarry(_)), "{refused}");
}

#[test]
fn a_conversation_that_goes_there_and_back_is_the_same() {
    let there = Pair::of(Dialect::OpenAi, Dialect::Anthropic).unwrap();
    let back = Pair::of(Dialect::Anthropic, Dialect::OpenAi).unwrap();
    let asked = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"z\": 1.50, \"a\":[1e2]}"}}]},{"role":"tool","tool_call_id":"c1","content":"r"}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"z":{"type":"number"}}}}}],"tool_choice":"required","parallel_tool_calls":false,"max_completion_tokens":5,"temperature":0.50,"stop":["x"],"user":"u"}"#;
    let once = translate(there, asked.as_bytes(), false).unwrap();
    let again = translate(back, &once.body, false).unwrap();
    assert_eq!(String::from_utf8(again.body).unwrap(), asked.to_owned());
}
