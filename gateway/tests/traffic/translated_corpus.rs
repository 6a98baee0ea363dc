//! Every case of translation (`gateway/dialects/testdata/translate`) through the running gateway: what the provider is asked,
//! what the caller gets, and what the records say of both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dialects::event_stream::encode;
use dialects::translate::Pair;
use dialects::translate::form::{Asked, Options};
use dialects::{Dialect, operation};
use http::{HeaderMap, HeaderName, Method};
use http_body_util::Full;
use schemas::record::{Body, Dropped, End, Intent, Outcome, PartName, Refusal, Usage};

use crate::provider::{Provider, pieces};
use crate::rig::{Rig, Setup, next};

/// What the provider answers.
#[derive(Debug, Clone, Default)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// What one exchange was, as its ends saw it.
struct Done {
    exchange: String,
    case: String,
    pair: Pair,
    request: usize,
    sent: usize,
    dropped: String,
    reply: Reply,
    /// The provider's usage, by its own bytes.
    usage: Usage,
    got: usize,
    ended: bool,
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Frames of an event stream, of lines `messageStart {...}`; those that begin with `!` are exceptions.
fn frames(lines: &[u8]) -> Vec<u8> {
    let frame = |line: &str| {
        let (name, payload) = line.split_once(' ').unwrap();
        let (key, kind, name) = match name.strip_prefix('!') {
            Some(name) => (":exception-type", "exception", name),
            None => (":event-type", "event", name),
        };
        let json = (":content-type", "application/json");
        encode(&[(key, name), json, (":message-type", kind)], payload.as_bytes())
    };
    std::str::from_utf8(lines).unwrap().lines().flat_map(frame).collect()
}

/// What the provider answers in a case.
fn replies(case: &Path) -> Vec<Reply> {
    let head: BTreeMap<String, String> = fs::read(case.join("provider_head.json"))
        .map_or_else(|_| BTreeMap::new(), |text| serde_json::from_slice(&text).unwrap());
    let mut found = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let (name, body) = (name(&file), fs::read(&file).unwrap());
        let status = name.strip_prefix("provider_error.").and_then(|rest| rest.strip_suffix(".json"));
        let (status, kind, body) = match (name.as_str(), status) {
            ("provider_answer.json", _) => (200, "application/json", body),
            ("provider_answer.sse", _) if body.starts_with(b"[") => (200, "application/json", body),
            ("provider_answer.sse", _) => (200, "text/event-stream", body),
            ("provider_answer.frames", _) => (200, "application/vnd.amazon.eventstream", frames(&body)),
            (_, Some(status)) => (status.parse().unwrap(), "application/json", body),
            _ => continue,
        };
        let mut headers: HeaderMap = head
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        headers.insert("content-type", kind.parse().unwrap());
        if status == 429 {
            headers.insert("retry-after", "7".parse().unwrap());
        }
        found.push(Reply { status, headers, body });
    }
    found
}

/// The time of an answer is the gateway's own.
fn timeless(body: &[u8]) -> String {
    let created = regex::Regex::new(r#""created":\d+"#).unwrap();
    created.replace_all(std::str::from_utf8(body).unwrap(), r#""created":0"#).into_owned()
}

/// What the caller is to get, and whether it comes to its end.
fn wanted(pair: Pair, asked: &Asked, reply: &Reply) -> (u16, String, bool) {
    let is_stream = reply.status == 200 && reply.headers["content-type"] != "application/json";
    if !is_stream && !reply.body.starts_with(b"[{\"candidates") {
        let whole = pair.answer(reply.status, &reply.headers, &reply.body, asked).unwrap();
        return (whole.status, timeless(&whole.body), true);
    }
    let mut translator = pair.stream(asked.clone());
    let mut out = Vec::new();
    translator.feed(&reply.body, &mut out);
    translator.end(&mut out);
    (reply.status, timeless(&out), translator.ended() || translator.failed())
}

/// What a record says of what `listed` was left out: lines `meaning what path`.
fn dropped(listed: &str) -> Dropped {
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    let count = |at: usize, word: &str| lines.iter().filter(|line| line[at] == word).count() as u64;
    let what: BTreeSet<&str> = lines.iter().map(|line| line[1]).collect();
    Dropped {
        count: lines.len() as u64,
        meaning: count(0, "meaning"),
        unknown: count(1, "unknown_key"),
        what: what.into_iter().map(|word| schemas::Identifier::new(word).unwrap()).collect(),
    }
}

fn config(root: &Path, address: std::net::SocketAddr) -> Setup {
    let (mut more_providers, mut more_routes) = (String::new(), String::new());
    for folder in folders(root) {
        let pair = name(&folder);
        let (from, to) = pair.split_once('-').unwrap();
        // The cases ask as OpenAI itself is asked; of an address that is not its own the gateway takes the older word.
        let bound = if to == "openai" { ", max_output_as: max_completion_tokens" } else { "" };
        more_providers += &format!(
            "  - {{ name: {pair}, dialect: {to}, base_url: \"http://{address}\", credential: {{ file: provider.key }}{bound} }}\n"
        );
        for (path, more) in [(pair.clone(), ""), (format!("{pair}-drop"), ", untranslatable: drop")] {
            more_routes += &format!(
                "  - {{ name: {path}, path: /{path}, dialect: {from}, provider: {pair}, estimate: off{more} }}\n"
            );
        }
    }
    Setup { more_providers, more_routes, ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_translation_passes_and_its_records_say_what_both_sides_saw() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialects/testdata/translate");
    let now: Arc<Mutex<Reply>> = Arc::default();
    let answers = Arc::clone(&now);
    let provider = Provider::start(move |_| {
        let Reply { status, headers, body } = answers.lock().unwrap().clone();
        async move {
            let (sender, pieces) = pieces();
            tokio::spawn(async move {
                for piece in body.chunks(1 + body.len() / 3) {
                    sender.send(piece.to_vec()).await;
                }
            });
            let mut response = http::Response::new(pieces);
            *response.status_mut() = status.try_into().unwrap();
            *response.headers_mut() = headers;
            response
        }
    })
    .await;
    let rig = Rig::start(&provider, config(&root, provider.address)).await;
    let (mut all, mut refused, mut asked_times) = (Vec::new(), Vec::new(), 0);
    for folder in folders(&root) {
        let (from, to) = (name(&folder), name(&folder));
        let (from, to) = (from.split_once('-').unwrap().0, to.split_once('-').unwrap().1);
        let pair = Pair::of(Dialect::parse(from).unwrap(), Dialect::parse(to).unwrap()).unwrap();
        let path = if from == "anthropic" { "/v1/messages" } else { "/v1/chat/completions" };
        for case in folders(&folder) {
            let told = format!("{}/{}", pair.name(), name(&case));
            let request = Bytes::from(fs::read(case.join("request.json")).unwrap());
            let listed = fs::read_to_string(case.join("dropped.txt")).unwrap_or_default();
            let post = async |route: &str| {
                let request = rig.post(&format!("/{route}{path}")).body(Full::new(request.clone()));
                rig.send(request.unwrap()).await
            };
            let strict = case.join("refused.txt").exists();
            if strict {
                let response = post(&pair.name()).await;
                assert_eq!(response.status(), 400, "{told}");
                let exchange = &response.headers()["x-affidavit-exchange"];
                refused.push((exchange.to_str().unwrap().to_owned(), told.clone(), listed.clone()));
            }
            let asked = operation(pair.from(), &Method::POST, path);
            let drop = Options { drop: true, ..Options::default() };
            let translated = pair.request(&asked, path, &request, None, drop).unwrap();
            for reply in replies(&case) {
                *now.lock().unwrap() = reply.clone();
                let response = post(&format!("{}{}", pair.name(), if strict { "-drop" } else { "" })).await;
                asked_times += 1;
                let seen = provider.wait(asked_times).await;
                assert_eq!(seen.uri.to_string(), translated.path, "{told}");
                let sent = fs::read(case.join("provider_request.json")).unwrap();
                assert_eq!(seen.body, sent[..sent.len() - 1], "{told}");
                let (head, mut body) = response.into_parts();
                let exchange = head.headers["x-affidavit-exchange"].to_str().unwrap().to_owned();
                let (mut got, mut broke) = (Vec::new(), false);
                while let Some(piece) = next(&mut body).await {
                    match piece {
                        Ok(piece) => got.extend_from_slice(&piece),
                        Err(_) => {
                            broke = true;
                            break;
                        }
                    }
                }
                let asked = Asked { exchange: exchange.clone(), ..translated.asked.clone() };
                let (status, text, ended) = wanted(pair, &asked, &reply);
                let told = format!("{told}, {}", reply.status);
                assert_eq!(head.status, status, "{told}");
                assert_eq!(broke, !ended, "{told}: what the provider did not end has no end");
                let found = timeless(&got);
                if ended {
                    assert_eq!(found, text, "{told}");
                } else {
                    let last = found.strip_prefix(text.as_str()).unwrap_or_else(|| panic!("{told}: {found}"));
                    assert!(last.contains("affidavit_provider_aborted"), "{told}: {last}");
                }
                if reply.status == 429 {
                    assert_eq!(head.headers["retry-after"], "7", "{told}");
                }
                let spoken = pair.operation(&translated.path);
                let facts = dialects::response_facts(&spoken, reply.status, &reply.headers, &reply.body);
                all.push(Done {
                    exchange,
                    case: told,
                    pair,
                    request: request.len(),
                    sent: seen.body.len(),
                    dropped: listed.clone(),
                    reply,
                    usage: facts.usage,
                    got: got.len(),
                    ended,
                });
            }
        }
    }
    println!("{} exchanges, {} refused", all.len(), refused.len());
    assert!(all.len() > 400 && refused.len() > 20, "{} exchanges, {} refused", all.len(), refused.len());
    let evidence = rig.stop().await;
    let (mut intents, mut outcomes, mut refusals) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for record in &evidence.records {
        match &record.body {
            Body::Intent(it) => _ = intents.insert(it.exchange.as_str(), it),
            Body::Outcome(it) => _ = outcomes.insert(it.exchange.as_str(), it),
            Body::Refusal(it) => _ = refusals.insert(it.exchange.as_ref().unwrap().as_str(), it),
            _ => {}
        }
    }
    for done in &all {
        recorded(done, intents[done.exchange.as_str()], outcomes[done.exchange.as_str()]);
    }
    for (exchange, told, listed) in &refused {
        refusal(refusals[exchange.as_str()], told, listed);
    }
}

/// What the records say of an exchange is what its ends saw.
fn recorded(done: &Done, intent: &Intent, outcome: &Outcome) {
    let Done { case, pair, .. } = done;
    let translation = intent.translation.as_ref().unwrap_or_else(|| panic!("{case}: no translation"));
    assert_eq!(
        (translation.from.as_str(), translation.to.as_str()),
        (pair.from().name(), pair.to().name()),
        "{case}"
    );
    assert_eq!(translation.dropped, dropped(&done.dropped), "{case}");
    assert_eq!(intent.asked.dialect.as_ref().unwrap().as_str(), pair.to().name(), "{case}");
    assert_eq!(outcome.translation.as_ref(), Some(translation), "{case}");
    assert!(outcome.answer_dropped.is_some(), "{case}");
    assert_eq!(outcome.end, if done.ended { End::Complete } else { End::ProviderAbort }, "{case}");
    assert_eq!(outcome.provider_status, Some(i64::from(done.reply.status)), "{case}");
    let length = |name: PartName| {
        let mut parts = intent.parts.iter().chain(&outcome.parts);
        parts.find(|part| part.part == name).map(|part| part.length)
    };
    for (part, wanted) in [
        (PartName::ClientRequest, done.request),
        (PartName::ProviderRequest, done.sent),
        (PartName::ProviderResponse, done.reply.body.len()),
        (PartName::ClientResponse, done.got),
    ] {
        assert_eq!(length(part), Some(wanted as u64), "{case}: {part:?}");
    }
    let counts =
        |usage: &Usage| (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.reported);
    assert_eq!(counts(&outcome.usage), counts(&done.usage), "{case}: usage is the provider's");
}

/// What a refusal says is all that cannot be carried.
fn refusal(refusal: &Refusal, case: &str, listed: &str) {
    let said = &refusal.translation.as_ref().unwrap_or_else(|| panic!("{case}: no translation")).dropped;
    assert!(said.meaning > 0 && said.count == said.meaning, "{case}: {said:?}");
    let possible = dropped(listed);
    // Some are refused whatever the route says: these are in no list of what is left out.
    assert!(said.what.iter().all(|word| possible.what.contains(word)), "{case}: {said:?} of {possible:?}");
}
