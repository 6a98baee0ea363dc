//! Recorded conversations, translated: the facts of what the caller gets are those of what the provider said.

use std::collections::BTreeMap;

use dialects::translate::form::{Asked, Options};
use dialects::translate::{Pair, Untranslatable};
use dialects::{AnswerFacts, Cause, Dialect, Limits, Meter, operation};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use super::every_line;
use super::support::{Line, pass};

/// Pairs whose provider speaks what `line` was recorded in, or whose caller does.
fn pairs(line: &Line, provider: bool) -> Vec<Pair> {
    if !matches!(line.operation.name(), "chat.completions" | "messages.create") {
        return Vec::new();
    }
    let spoken = line.operation.dialect();
    Dialect::ALL
        .into_iter()
        .filter(|other| *other != Dialect::AzureOpenAi)
        .filter_map(|other| if provider { Pair::of(other, spoken) } else { Pair::of(spoken, other) })
        .filter(|pair| {
            !provider || matches!(pair.to(), Dialect::OpenAi | Dialect::AzureOpenAi | Dialect::Anthropic)
        })
        .collect()
}

fn caller_path(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Anthropic { "/v1/messages" } else { "/v1/chat/completions" }
}

fn stream(pair: Pair, asked: &Asked, body: &[u8], step: usize) -> Vec<u8> {
    let (mut translator, mut out) = (pair.stream(asked.clone()), Vec::new());
    for chunk in body.chunks(step) {
        translator.feed(chunk, &mut out);
    }
    translator.end(&mut out);
    out
}

/// What the meter reads of bytes that a caller gets.
fn facts(dialect: Dialect, status: u16, kind: &'static str, body: &[u8]) -> AnswerFacts {
    let asked = operation(dialect, &Method::POST, caller_path(dialect));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(kind));
    let mut meter = Meter::new(asked, status, &headers, false, Limits::default());
    meter.feed(body, &mut Vec::new());
    meter.end(&mut Vec::new());
    meter.finish(Cause::Complete)
}

/// What is the same on both sides, or what is not.
fn differences(said: &AnswerFacts, got: &AnswerFacts) -> Vec<String> {
    let mut found = Vec::new();
    if said.error_message.is_some() {
        // An error is all that the caller gets of it.
        if said.error_message != got.error_message {
            found.push(format!("error: said {:?}, got {:?}", said.error_message, got.error_message));
        }
        return found;
    }
    let mut same = |name: &str, said: Option<i64>, got: Option<i64>| {
        if let (Some(said), Some(got)) = (said, got)
            && said != got
        {
            found.push(format!("{name}: said {said}, got {got}"));
        }
    };
    same("input", said.usage.input_tokens, got.usage.input_tokens);
    same("output", said.usage.output_tokens, got.usage.output_tokens);
    same("cache read", said.usage.cache_read_tokens, got.usage.cache_read_tokens);
    same("tool calls", said.tool_calls, got.tool_calls);
    if said.served_model.is_some() && said.served_model != got.served_model {
        found.push(format!("model: said {:?}, got {:?}", said.served_model, got.served_model));
    }
    if said.usage.output_tokens.is_some()
        && said.usage.input_tokens.is_some()
        && got.usage.output_tokens.is_none()
    {
        found.push("usage: got none".to_owned());
    }
    found
}

#[test]
fn recorded_answers_say_the_same_in_the_other_dialect() {
    let (mut whole, mut streams, mut errors, mut wrong) = (0, 0, 0, Vec::new());
    every_line(|line| {
        for pair in pairs(line, true) {
            let asked = Asked { stream_usage: true, ..Asked::default() };
            let said = pass(line, &line.response, &[], false).facts;
            // Two answers at once, and what is refused to callers, are not asked for through a translation.
            let request: Value = serde_json::from_slice(&line.request).unwrap_or_default();
            let custom = request["tools"].as_array().is_some_and(|t| t.iter().any(|t| t["type"] == "custom"));
            if said.finish_reasons.len() > 1 || request["functions"].is_array() || custom {
                continue;
            }
            let got = if line.streaming {
                streams += 1;
                let out = stream(pair, &asked, &line.response, usize::MAX);
                assert_eq!(stream(pair, &asked, &line.response, 7), out, "{}", line.id);
                facts(pair.from(), 200, "text/event-stream", &out)
            } else {
                match pair.answer(line.status, &line.headers, &line.response, &asked) {
                    Ok(answer) => {
                        if line.status < 400 {
                            whole += 1
                        } else {
                            errors += 1
                        }
                        facts(pair.from(), answer.status, "application/json", &answer.body)
                    }
                    Err(error) => {
                        wrong.push(format!("{}: {error}", line.id));
                        continue;
                    }
                }
            };
            wrong.extend(differences(&said, &got).into_iter().map(|d| format!("{} {pair:?}: {d}", line.id)));
        }
    });
    println!("{whole} whole answers, {streams} streams, {errors} errors; {} differ", wrong.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn recorded_requests_are_translated_or_refused_for_a_reason() {
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    let (mut as_is, mut all) = (0, 0);
    every_line(|line| {
        for pair in pairs(line, false) {
            all += 1;
            let asked = operation(pair.from(), &Method::POST, caller_path(pair.from()));
            let run = |drop| {
                let options = Options { drop, ..Options::default() };
                pair.request(&asked, &line.path, &line.request, None, options)
            };
            match run(false) {
                Ok(_) => as_is += 1,
                Err(Untranslatable::CannotCarry(error)) => {
                    for dropped in error.dropped {
                        *reasons.entry(format!("{pair:?} {}", dropped.what)).or_default() += 1;
                    }
                }
                Err(error) => *reasons.entry(format!("{pair:?} {error}")).or_default() += 1,
            }
            if let Ok(translated) = run(true) {
                serde_json::from_slice::<Value>(&translated.body).unwrap();
            }
        }
    });
    println!("{as_is} of {all} requests translated as they are");
    for (reason, n) in &reasons {
        println!("  {n} {reason}");
    }
    assert!(as_is * 2 > all, "{as_is} of {all}");
}
