//! What a meter does with streams that are cut, coded, over a bound, or mislabelled.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;

use dialects::{AnswerFacts, Cause, Dialect, Limits, Meter, Segment, Unread, operation};
use http::{HeaderMap, HeaderName, Method};
use schemas::record::{UsageRole, UsageSource};

struct Run {
    meter: Meter,
    forwarded: Vec<u8>,
    held: Vec<u8>,
}

impl Run {
    fn new(dialect: Dialect, path: &str, headers: &[(&str, &str)], stripping: bool, limits: Limits) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let operation = operation(dialect, &Method::POST, path);
        let meter = Meter::new(operation, 200, &map, stripping, limits);
        Self { meter, forwarded: Vec::new(), held: Vec::new() }
    }
    fn feed(&mut self, bytes: &[u8]) {
        let mut out = Vec::new();
        self.meter.feed(bytes, &mut out);
        self.sort(&out, bytes);
    }
    fn sort(&mut self, out: &[Segment], bytes: &[u8]) {
        for segment in out {
            match segment {
                Segment::Forward(range) => self.forwarded.extend_from_slice(&bytes[range.clone()]),
                Segment::Bytes(bytes) => self.forwarded.extend_from_slice(bytes),
                Segment::Held(bytes) => self.held.extend_from_slice(bytes),
            }
        }
    }
    fn finish(mut self, cause: Cause) -> (AnswerFacts, Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        self.meter.end(&mut out);
        self.sort(&out, &[]);
        (self.meter.finish(cause), self.forwarded, self.held)
    }
}

const SSE: &[(&str, &str)] = &[("content-type", "text/event-stream")];
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_terminal_event_and_all_behind_it_are_held() {
    let cases = [
        (Dialect::OpenAi, CHAT, "data: {\"choices\":[]}\n\n", "data: [DONE]\n\ndata: late\n\n"),
        (Dialect::OpenAi, CHAT, ": c\r\n\r\n", "data:[DONE]\r\n\r\n"),
        (
            Dialect::OpenAi,
            RESPONSES,
            "event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\"}\n\n",
        ),
        (Dialect::OpenAi, RESPONSES, "", "data: {\"type\":\"response.failed\"}\n\n"),
        (Dialect::OpenAi, RESPONSES, "", "event: response.incomplete\ndata: {}\n\n"),
        (
            Dialect::Anthropic,
            MESSAGES,
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ),
        (Dialect::Anthropic, MESSAGES, "", "data: {\"type\":\"message_stop\"}\n\n"),
    ];
    for (dialect, path, before, terminal) in cases {
        for stripping in [false, true] {
            let mut run = Run::new(dialect, path, SSE, stripping, Limits::default());
            run.feed(format!("{before}{terminal}").as_bytes());
            assert!(run.meter.terminal() && run.meter.holding());
            assert_eq!((text(&run.forwarded), text(&run.held)), (before, terminal));
        }
    }
}

#[test]
fn a_terminal_event_is_held_as_soon_as_it_can_be_nothing_else() {
    for (dialect, path, first, rest) in [
        (Dialect::OpenAi, CHAT, "data: [DONE]", "\n\n"),
        (
            Dialect::OpenAi,
            RESPONSES,
            "event: response.completed\n",
            "data: {\"type\":\"response.completed\"}\n\n",
        ),
        (Dialect::OpenAi, RESPONSES, "data: {\"type\":\"response.completed\"}\n", "\n"),
        (Dialect::Anthropic, MESSAGES, "event: message_stop\n", "data: {\"type\":\"message_stop\"}\n\n"),
    ] {
        let mut run = Run::new(dialect, path, SSE, false, Limits::default());
        run.feed(first.as_bytes());
        assert!(run.meter.holding(), "{first:?}");
        run.feed(rest.as_bytes());
        assert_eq!((text(&run.forwarded), text(&run.held)), ("", format!("{first}{rest}").as_str()));
    }
}

#[test]
fn text_that_only_looks_terminal_passes() {
    for (dialect, path, body) in [
        (Dialect::OpenAi, CHAT, "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE]\"}}]}\n\n"),
        (Dialect::OpenAi, CHAT, ": [DONE]\n\nid: [DONE]\n\n"),
        (
            Dialect::OpenAi,
            RESPONSES,
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"response.completed\"}\n\n",
        ),
        (
            Dialect::Anthropic,
            MESSAGES,
            "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"message_stop\"}}\n\n",
        ),
        (Dialect::Anthropic, MESSAGES, "data: [DONE]\n\n"),
    ] {
        let mut run = Run::new(dialect, path, SSE, false, Limits::default());
        run.feed(body.as_bytes());
        assert!(!run.meter.holding(), "{body}");
        assert_eq!(text(&run.forwarded), body);
    }
}

#[test]
fn a_coded_stream_is_read_and_held_by_the_piece() {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for event in [
        "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n",
        "data: [DONE]\n\n",
    ] {
        let before = coder.get_ref().len();
        coder.write_all(event.as_bytes()).unwrap();
        coder.flush().unwrap();
        pieces.push(coder.get_ref()[before..].to_vec());
    }
    let flushed: usize = pieces.iter().map(Vec::len).sum();
    pieces.push(coder.finish().unwrap()[flushed..].to_vec());
    let headers = &[("content-type", "text/event-stream"), ("content-encoding", "gzip")];
    let mut run = Run::new(Dialect::OpenAi, CHAT, headers, true, Limits::default());
    assert!(run.meter.is_coded(), "an event of the gateway's own would be no part of the coding");
    run.feed(&pieces[0]);
    assert!(run.meter.saw_output());
    run.feed(&pieces[1]);
    assert_eq!(run.forwarded, [pieces[0].clone(), pieces[1].clone()].concat());
    run.feed(&pieces[2]);
    run.feed(&pieces[3]);
    let (facts, forwarded, held) = run.finish(Cause::Complete);
    assert_eq!(forwarded, pieces[..2].concat());
    assert_eq!(held, pieces[2..].concat());
    assert_eq!(
        (facts.usage.input_tokens, facts.served_model.as_deref(), facts.unread),
        (Some(3), Some("m"), None)
    );
}

#[test]
fn an_unreadable_coding_passes_and_says_so() {
    for (coding, body, name) in [
        ("snappy", &b"anything"[..], "coding_unknown"),
        ("gzip", b"not gzip at all, really", "coding_corrupt"),
        ("br", b"", "none"),
    ] {
        let headers = &[("content-type", "application/json"), ("content-encoding", coding)];
        let mut run = Run::new(Dialect::OpenAi, CHAT, headers, false, Limits::default());
        run.feed(body);
        let (facts, forwarded, _) = run.finish(Cause::Complete);
        assert_eq!(forwarded, body);
        assert_eq!(facts.unread.map_or("none", |u| u.name()), name);
        assert_eq!(facts.usage.source, UsageSource::Unknown);
    }
}

#[test]
fn what_a_cut_stream_counted_is_partial() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"c\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n";
    let delta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n";
    for (body, cause, source, output) in [
        (start.to_owned(), Cause::Cut, UsageSource::Partial, Some(1)),
        (start.to_owned(), Cause::Complete, UsageSource::Partial, Some(1)),
        (format!("{start}{delta}"), Cause::Cut, UsageSource::Provider, Some(7)),
        (format!("{start}{delta}"), Cause::Drained, UsageSource::Drained, Some(7)),
        (String::new(), Cause::Cut, UsageSource::Unknown, None),
    ] {
        let mut run = Run::new(Dialect::Anthropic, MESSAGES, SSE, false, Limits::default());
        run.feed(body.as_bytes());
        let (facts, ..) = run.finish(cause);
        assert_eq!((facts.usage.source, facts.usage.output_tokens), (source, output), "{cause:?} {body}");
    }
    let running = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    let mut run = Run::new(Dialect::OpenAi, CHAT, SSE, false, Limits::default());
    run.feed(running.as_bytes());
    assert_eq!(run.finish(Cause::Cut).0.usage.source, UsageSource::Partial);
}

#[test]
fn an_event_over_the_bound_stops_reading_not_passing() {
    let limits = Limits { event_bytes: 100, ..Limits::default() };
    for stripping in [false, true] {
        let mut run = Run::new(Dialect::OpenAi, CHAT, SSE, stripping, limits);
        let mut sent = Vec::new();
        for piece in [
            &b"data: {\"model\":\"m\",\"choices\":[]}\n\ndata: "[..],
            &[b'x'; 300],
            b"\n\n",
            b"data: [DONE]\n\n",
        ] {
            run.feed(piece);
            sent.extend_from_slice(piece);
        }
        let (facts, forwarded, held) = run.finish(Cause::Complete);
        assert_eq!([forwarded, held].concat(), sent, "stripping {stripping}");
        assert_eq!(facts.unread, Some(Unread::EventTooLarge { limit: 100 }));
        assert_eq!(facts.served_model.as_deref(), Some("m"));
    }
}

#[test]
fn a_body_over_the_bound_passes_unread() {
    let limits = Limits { body_bytes: 10, ..Limits::default() };
    let mut run = Run::new(Dialect::OpenAi, CHAT, &[("content-type", "application/json")], false, limits);
    run.feed(b"{\"model\":");
    run.feed(b"\"m\"}");
    let (facts, forwarded, _) = run.finish(Cause::Complete);
    assert_eq!(forwarded, b"{\"model\":\"m\"}");
    assert_eq!(facts.unread, Some(Unread::BodyTooLarge { limit: 10 }));
}

#[test]
fn a_stream_under_another_media_type_is_a_stream() {
    for kind in ["text/plain", "application/json", ""] {
        for size in [1, 3, 1000] {
            let headers: Vec<(&str, &str)> =
                [("content-type", kind)].into_iter().filter(|h| !h.1.is_empty()).collect();
            let mut run = Run::new(Dialect::OpenAi, CHAT, &headers, false, Limits::default());
            let body = b"data: {\"model\":\"m\",\"choices\":[]}\n\ndata: [DONE]\n\n";
            for piece in body.chunks(size) {
                run.feed(piece);
            }
            let (facts, forwarded, held) = run.finish(Cause::Complete);
            assert_eq!([forwarded, held.clone()].concat(), body);
            assert!(!held.is_empty(), "{kind} by {size}");
            assert_eq!(facts.served_model.as_deref(), Some("m"));
        }
    }
}

/// Where a dialect's streams end: path, media type, what passes, what is held, whether the end of the body is awaited
/// for a moment only.
type Ends = (Dialect, &'static str, &'static str, &'static str, &'static str, bool);

#[test]
fn the_last_event_of_every_further_dialect_is_held() {
    const GENERATE: &str = "/v1beta/models/g:streamGenerateContent";
    const VERTEX: &str = "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent";
    const SSE: &str = "text/event-stream";
    let cases: [Ends; 10] = [
        (
            Dialect::Gemini,
            GENERATE,
            SSE,
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\r\n\r\n",
            "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n",
            false,
        ),
        (
            Dialect::Vertex,
            VERTEX,
            "application/json",
            "[{\"candidates\":[{\"content\":{}}]}\n,\r\n",
            "{\"candidates\":[{\"finishReason\":1}]}\n]",
            false,
        ),
        (
            Dialect::Gemini,
            "/v1beta/interactions",
            SSE,
            "event: step.stop\ndata: {\"event_type\":\"step.stop\"}\n\n",
            "event: interaction.completed\ndata: {\"event_type\":\"interaction.completed\"}\n\nevent: done\ndata: [DONE]\n\n",
            true,
        ),
        (Dialect::Gemini, "/v1beta/interactions", SSE, "", "data: [DONE]\n\n", true),
        (
            Dialect::Vertex,
            "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict",
            SSE,
            "",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            true,
        ),
        (
            Dialect::Cohere,
            "/v2/chat",
            SSE,
            "event: content-end\ndata: {\"type\":\"content-end\"}\n\n",
            "event: message-end\ndata: {\"type\":\"message-end\"}\n\ndata: [DONE]\n\n",
            true,
        ),
        (
            Dialect::Cohere,
            "/v1/chat",
            "application/stream+json",
            "{\"event_type\":\"text-generation\",\"text\":\"a}\"}\n",
            "{\"event_type\":\"stream-end\"}\n",
            true,
        ),
        (
            Dialect::Ollama,
            "/api/chat",
            "application/x-ndjson",
            "{\"message\":{\"content\":\"a\"},\"done\":false}\n",
            "{\"message\":{\"content\":\"\"},\"done\":true}\n",
            true,
        ),
        (
            Dialect::Ollama,
            "/v1/chat/completions",
            SSE,
            "data: {\"choices\":[]}\n\n",
            "data: [DONE]\n\n",
            true,
        ),
        (
            Dialect::Watsonx,
            "/ml/v1/text/generation_stream",
            SSE,
            "data: {\"results\":[{\"stop_reason\":\"not_finished\"}]}\n\n",
            "data: {\"results\":[{\"stop_reason\":\"eos_token\"}]}\n\n",
            false,
        ),
    ];
    for (dialect, path, kind, before, last, ends) in cases {
        for size in [1, 7, 10_000] {
            let mut run = Run::new(dialect, path, &[("content-type", kind)], false, Limits::default());
            let whole = format!("{before}{last}");
            for piece in whole.as_bytes().chunks(size) {
                run.feed(piece);
            }
            assert!(run.meter.holding(), "{path} by {size}");
            assert_eq!(run.meter.terminal(), ends, "{path} by {size}");
            let (_, forwarded, held) = run.finish(Cause::Complete);
            assert_eq!(text(&[forwarded.clone(), held.clone()].concat()), whole, "{path} by {size}");
            // A line without its end is no event yet; an object is whole with its last brace.
            let bound = whole.trim_end().len() + usize::from(kind == SSE);
            assert!(forwarded.len() < bound, "{path} by {size}: nothing is held");
            if size == 10_000 {
                assert_eq!((text(&forwarded), text(&held)), (before, last), "{path}");
            }
        }
    }
}

#[test]
fn an_event_behind_googles_last_one_is_held_too_and_counts() {
    let path = "/v1beta/models/g:streamGenerateContent";
    let mut run = Run::new(Dialect::Gemini, path, SSE, false, Limits::default());
    run.feed(b"data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":1}}\n\n");
    assert!(run.meter.holding() && !run.meter.terminal());
    run.feed(b"data: {\"candidates\":[{\"index\":1,\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":3}}\n\n");
    let (facts, forwarded, _) = run.finish(Cause::Complete);
    assert_eq!((forwarded.len(), facts.usage.input_tokens, facts.finish_reasons.len()), (0, Some(3), 2));
}

#[test]
fn a_gemini_stream_that_lost_its_end_has_a_lower_bound() {
    let path = "/v1beta/models/g:streamGenerateContent";
    let piece = b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"usageMetadata\":{\"promptTokenCount\":5,\"candidatesTokenCount\":1}}\n\n";
    for cause in [Cause::Complete, Cause::Cut] {
        let mut run = Run::new(Dialect::Gemini, path, SSE, false, Limits::default());
        run.feed(piece);
        let (facts, ..) = run.finish(cause);
        assert_eq!(
            (facts.usage.source, facts.usage.input_tokens),
            (UsageSource::Partial, Some(5)),
            "{cause:?}"
        );
    }
}

#[test]
fn a_half_event_is_known() {
    let mut run = Run::new(Dialect::OpenAi, CHAT, SSE, false, Limits::default());
    assert!(run.meter.between_events());
    run.feed(b"data: a\n");
    assert!(!run.meter.between_events());
    run.feed(b"\n");
    assert!(run.meter.between_events());
}

#[test]
fn errors_under_any_media_type_are_read() {
    let mut map = HeaderMap::new();
    map.insert("content-type", "application/octet-stream".parse().unwrap());
    let operation = operation(Dialect::OpenAi, &Method::POST, CHAT);
    let facts = dialects::response_facts(
        &operation,
        400,
        &map,
        b"{\"error\":{\"type\":\"t\",\"code\":7,\"message\":\"m\"}}",
    );
    assert_eq!((facts.error_type.as_deref(), facts.error_code.as_deref()), (Some("t"), Some("7")));
    assert_eq!((facts.usage.role, facts.usage.source), (UsageRole::None, UsageSource::Unknown));
}

#[test]
fn texts_for_a_leaf_are_identifiers() {
    let operation = operation(Dialect::Anthropic, &Method::POST, MESSAGES);
    let mut map = HeaderMap::new();
    map.insert("content-type", "application/json".parse().unwrap());
    map.insert("request-id", "has space".parse().unwrap());
    let body =
        br#"{"type":"message","id":"a b","model":"m m","stop_reason":"x y","stop_sequence":"my secret",
        "content":[{"type":"tool_use","name":"tool with text"}],"usage":{"service_tier":"t t"}}"#;
    let facts = dialects::response_facts(&operation, 200, &map, body);
    let answered = facts.answered(&|_| "00ff00ff00ff00ff".into());
    let json = serde_json::to_string(&answered).unwrap();
    assert!(!json.contains(' '), "{json}");
    assert_eq!(answered.served_model.unwrap().as_str(), "p:00ff00ff00ff00ff");
}

const FRAMES: &[(&str, &str)] = &[("content-type", "application/vnd.amazon.eventstream")];
const CONVERSE: &str = "/model/m/converse-stream";

fn frame(event: &str, payload: &str) -> Vec<u8> {
    let headers = [(":event-type", event), (":message-type", "event")];
    dialects::event_stream::encode(&headers, payload.as_bytes())
}

fn converse() -> [Vec<u8>; 4] {
    [
        frame("messageStart", "{\"role\":\"assistant\"}"),
        frame("contentBlockDelta", "{\"delta\":{\"text\":\"a\"}}"),
        frame("messageStop", "{\"stopReason\":\"end_turn\"}"),
        frame("metadata", "{\"usage\":{\"inputTokens\":3,\"outputTokens\":2,\"totalTokens\":5}}"),
    ]
}

#[test]
fn frames_pass_when_they_are_whole_and_the_last_is_held() {
    let frames = converse();
    let body = frames.concat();
    for at in 0..=body.len() {
        let mut run = Run::new(Dialect::Bedrock, CONVERSE, FRAMES, false, Limits::default());
        run.feed(&body[..at]);
        // Never a part of a frame: one of the gateway's own could be put in here.
        let whole: usize = frames
            .iter()
            .map(Vec::len)
            .scan(0, |end, length| {
                *end += length;
                (*end <= at).then_some(*end)
            })
            .last()
            .unwrap_or(0);
        assert_eq!(run.forwarded.len() + run.held.len(), whole, "split at {at}");
        assert!(run.meter.between_events());
        run.feed(&body[at..]);
        assert!(run.meter.terminal() && run.meter.holding());
        let (facts, forwarded, held) = run.finish(Cause::Complete);
        assert_eq!((forwarded, &held), (frames[..3].concat(), &frames[3]), "split at {at}");
        assert_eq!((facts.usage.source, facts.usage.output_tokens), (UsageSource::Provider, Some(2)));
        assert_eq!(facts.unread, None);
    }
}

#[test]
fn a_damaged_frame_passes_and_is_named() {
    let frames = converse();
    let (body, from) = (frames.concat(), frames[0].len());
    for damaged in from..from + frames[1].len() {
        let mut bytes = body.clone();
        bytes[damaged] ^= 1;
        for at in [0, from - 1, from + 4, from + 13, damaged, body.len()] {
            let mut run = Run::new(Dialect::Bedrock, CONVERSE, FRAMES, false, Limits::default());
            run.feed(&bytes[..at]);
            run.feed(&bytes[at..]);
            assert!(!run.meter.between_events(), "nothing can be put behind a damaged frame");
            let (facts, mut all, held) = run.finish(Cause::Complete);
            all.extend(held);
            assert!(all == bytes, "byte {damaged}, split at {at}: the caller gets other bytes");
            assert_eq!(facts.unread.map(|why| why.name()), Some("frame_corrupt"), "byte {damaged}");
        }
    }
}

#[test]
fn a_stream_that_ends_inside_a_frame_or_lacks_its_last_is_not_the_providers_last_word() {
    let frames = converse();
    let cut = [&frames[..3].concat()[..], &frames[3][..20]].concat();
    for (body, cause, unread) in [
        (cut.clone(), Cause::Complete, Some("frame_truncated")),
        (cut, Cause::Cut, None),
        (frames[..3].concat(), Cause::Complete, None),
    ] {
        let mut run = Run::new(Dialect::Bedrock, CONVERSE, FRAMES, false, Limits::default());
        run.feed(&body);
        let (facts, forwarded, _) = run.finish(cause);
        assert_eq!(forwarded, body);
        assert_eq!(facts.unread.map(|why| why.name()), unread, "{cause:?}");
        assert_eq!((facts.usage.source, facts.usage.output_tokens), (UsageSource::Unknown, None));
    }
    let large = frame("contentBlockDelta", &"x".repeat(200));
    let limits = Limits { event_bytes: 100, ..Limits::default() };
    let mut run = Run::new(Dialect::Bedrock, CONVERSE, FRAMES, false, limits);
    run.feed(&large);
    let (facts, forwarded, _) = run.finish(Cause::Complete);
    assert_eq!((forwarded, facts.unread.map(|why| why.name())), (large, Some("event_too_large")));
}

#[test]
fn counts_before_an_exception_are_not_the_providers_last_word() {
    use base64::Engine as _;
    let start = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","model":"m","usage":{"input_tokens":12,"output_tokens":1}}}"#;
    let start = base64::engine::general_purpose::STANDARD.encode(start);
    let exception = [(":exception-type", "throttlingException"), (":message-type", "exception")];
    let body = [
        frame("chunk", &format!("{{\"bytes\":\"{start}\"}}")),
        dialects::event_stream::encode(&exception, b"{\"message\":\"slow down\"}"),
    ]
    .concat();
    let path = "/model/anthropic.claude-3/invoke-with-response-stream";
    let mut run = Run::new(Dialect::Bedrock, path, FRAMES, false, Limits::default());
    run.feed(&body);
    let (facts, ..) = run.finish(Cause::Complete);
    assert_eq!((facts.usage.source, facts.usage.output_tokens), (UsageSource::Partial, Some(1)));
    assert_eq!(facts.error_type.as_deref(), Some("throttlingException"));
}

/// Anthropic's stream as Bedrock's compatible path sends it, up to its last event.
fn compatible(last: &[&str]) -> String {
    let first = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"usage":{"input_tokens":12,"cache_creation_input_tokens":20,"cache_read_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":15,"ephemeral_1h_input_tokens":5},"output_tokens":1}}}"#;
    let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#;
    [first, r#"{"type":"ping"}"#, delta, r#"{"type":"ping"}"#]
        .iter()
        .chain(last)
        .map(|data| {
            let kind = data.split('"').nth(3).unwrap();
            format!("event: {kind}\ndata: {data}\n\n")
        })
        .collect()
}

#[test]
fn anthropics_stream_on_bedrocks_compatible_path_counts_the_same_with_pings_between() {
    let end = [
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let mut run = Run::new(Dialect::Bedrock, "/anthropic/v1/messages", SSE, false, Limits::default());
    run.feed(compatible(&end).as_bytes());
    assert!(run.meter.terminal());
    let (facts, forwarded, held) = run.finish(Cause::Complete);
    assert_eq!(text(&held), "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    assert!(text(&forwarded).contains("event: ping"));
    let usage = &facts.usage;
    assert_eq!(usage.source, UsageSource::Provider);
    let reported = &usage.reported;
    assert_eq!(
        (reported.input, reported.cached_input, reported.cache_creation, reported.output),
        (Some(12), Some(30), Some(20), Some(7))
    );
    assert_eq!((usage.input_tokens, usage.uncached_input_tokens), (Some(62), Some(12)));
    assert_eq!((usage.cache_write_5m_tokens, usage.cache_write_1h_tokens), (Some(15), Some(5)));
    assert_eq!(facts.finish_reason(), Some("end_turn"));
}

#[test]
fn an_error_in_anthropics_stream_on_bedrocks_compatible_path_is_read() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
    let mut run = Run::new(Dialect::Bedrock, "/anthropic/v1/messages", SSE, false, Limits::default());
    run.feed(compatible(&[error]).as_bytes());
    let (facts, ..) = run.finish(Cause::Complete);
    assert_eq!(facts.error_type.as_deref(), Some("overloaded_error"));
    assert_eq!(facts.error_message.as_deref(), Some("busy"));
    assert_eq!(facts.usage.source, UsageSource::Partial);
}

#[test]
fn an_error_in_the_shape_of_aws_keeps_its_name_on_compatible_paths() {
    for path in ["/openai/v1/chat/completions", "/anthropic/v1/messages", "/model/m/converse"] {
        let operation = operation(Dialect::Bedrock, &Method::POST, path);
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", "ThrottlingException:http://internal/".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let facts = dialects::response_facts(&operation, 429, &headers, br#"{"message":"slow down"}"#);
        assert_eq!(facts.error_type.as_deref(), Some("ThrottlingException"), "{path}");
        assert_eq!(facts.error_message.as_deref(), Some("slow down"), "{path}");
    }
}
