//! Bytes from outside never panic, and never change what is forwarded.
#![allow(clippy::unwrap_used, reason = "tests")]

use dialects::coding::{Caps, Coding, decode_all};
use dialects::translate::Pair;
use dialects::translate::form::{Asked, Options};
use dialects::{Cause, Dialect, Limits, Meter, Segment, ask_for_usage, multipart, operation, request_facts};
use http::{HeaderMap, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;

const DIALECTS: [Dialect; 9] = Dialect::ALL;
const PATHS: [&str; 15] = [
    "/model/arn%3Aaws%2/converse-stream",
    "/model//invoke",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/openai/deployments/d%2/embeddings",
    "/v1/complete",
    "/v1/nothing",
    "/v1beta/models/g%2:streamGenerateContent",
    "/v1/projects/p/locations/l/publishers/google/models/m:predict",
    "/v1beta/interactions",
    "/v2/chat",
    "/api/chat",
    "/ml/v1/text/generation_stream",
];

/// Pieces that parsers look for, so that random text gets past the first branch.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        b"data: ",
        b"data:",
        b"event: ",
        b"\n",
        b"\r",
        b"\n\n",
        b"\r\n\r\n",
        b"[DONE]",
        b"\xef\xbb\xbf",
        b": ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"usage\":null",
        b"\"usage\":{",
        b"\"choices\":[{",
        b"\"delta\":{",
        b"\"tool_calls\":[{\"index\":",
        b"\"model\":\"m\"",
        b",",
        b"\"type\":\"response.completed\"",
        b"\"response\":{",
        b"\"output\":[",
        b"\"error\":",
        b"null",
        b"\"a\"",
        b"-1",
        b"1e999",
        b"\"stopReason\":",
        b"\"amazon-bedrock-invocationMetrics\":{",
        b"\"inferenceConfig\":{\"maxTokens\":",
        b"99999999999999999999",
        b"event: message_stop\n",
        b"{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":",
        b"\"iterations\":[{",
        b"{\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":3}}",
        b"\"stream\":true",
        b"\"stream_options\":",
        b"\"include_usage\":",
        b"\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{",
        b"\"finishReason\":\"STOP\"",
        b"{\"candidates\":[{\"finishReason\":1}],\"usageMetadata\":{\"promptTokenCount\":7}}",
        b"\"event_type\":\"interaction.completed\",\"interaction\":{",
        b"{\"event_type\":\"stream-end\",\"response\":{\"meta\":{\"tokens\":{\"input_tokens\":1}}}}",
        b"event: message-end\n",
        b"{\"type\":\"message-end\",\"delta\":{\"usage\":{\"billed_units\":{\"search_units\":2}}}}",
        b"{\"message\":{\"content\":\"a\"},\"done\":true,\"eval_count\":3}\n",
        b"\"results\":[{\"stop_reason\":\"eos_token\",\"generated_token_count\":2}]",
        b"\"predictions\":[{\"embeddings\":{\"statistics\":{\"token_count\":1}}}]",
        b"--B",
        b"--B--",
        b"\r\nContent-Disposition: form-data; name=\"model",
        b"filename*=",
        b"\\u",
        b"\\",
        b"\"",
        b"\xff\xfe",
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n",
        b"data: {\"choices\":[{}],\"usage\":null}\r\n\r\n",
    ];
    prop_oneof![4 => proptest::sample::select(known).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..12)]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(fragment(), 0..40).prop_map(|parts| parts.concat())
}

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("AFFIDAVIT_LONG").is_some() { 20_000 } else { 600 };
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// The files of the cases of translation, which hostile bytes are made of.
fn cases() -> &'static [Vec<u8>] {
    static CASES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    CASES.get_or_init(|| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/translate");
        let entries = |path: &std::path::Path| {
            let mut all: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            all.sort();
            all
        };
        let cases = entries(&root).into_iter().flat_map(|pair| entries(&pair));
        cases.flat_map(|case| entries(&case)).map(|file| std::fs::read(file).unwrap()).collect()
    })
}

fn pairs() -> Vec<Pair> {
    DIALECTS
        .into_iter()
        .flat_map(|from| DIALECTS.into_iter().filter_map(move |to| Pair::of(from, to)))
        .collect()
}

/// A file of a case with some of its bytes replaced by what parsers look for.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((any::<prop::sample::Index>(), 0_usize..12, fragment()), 0..4);
    (any::<prop::sample::Index>(), edits).prop_map(|(which, edits)| {
        let mut bytes = which.get(cases()).clone();
        for (at, length, piece) in edits {
            let from = at.index(bytes.len() + 1);
            let to = (from + length).min(bytes.len());
            bytes.splice(from..to, piece);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_translated_request_is_json_or_refused(body in broken(), which in any::<prop::sample::Index>(), drop in any::<bool>()) {
        let pair = *which.get(&pairs());
        let path = if pair.from() == Dialect::Anthropic { "/v1/messages" } else { "/v1/chat/completions" };
        let asked = operation(pair.from(), &Method::POST, path);
        let options = Options { drop, ..Options::default() };
        if let Ok(translated) = pair.request(&asked, path, &body, None, options) {
            let written: serde_json::Value = serde_json::from_slice(&translated.body).unwrap();
            prop_assert!(written.is_object());
            prop_assert!(translated.dropped.iter().all(|d| schemas::Identifier::new(d.what).is_ok()));
        }
    }

    #[test]
    fn a_translated_answer_is_json_and_its_splits_do_not_show(body in broken(), which in any::<prop::sample::Index>(), cuts in vec(any::<prop::sample::Index>(), 0..5), status in 200_u16..600) {
        let pair = *which.get(&pairs());
        let asked = Asked { stream_usage: true, ..Asked::default() };
        if let Ok(whole) = pair.answer(status, &HeaderMap::new(), &body, &asked) {
            let written: serde_json::Value = serde_json::from_slice(&whole.body).unwrap();
            prop_assert!(written.is_object());
        }
        let run = |cuts: &[usize]| {
            let (mut translator, mut out, mut from) = (pair.stream(asked.clone()), Vec::new(), 0);
            for to in cuts.iter().copied().chain([body.len()]) {
                translator.feed(&body[from..to], &mut out);
                from = to;
            }
            translator.end(&mut out);
            out
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = run(&[]);
        prop_assert_eq!(&run(&cuts), &whole);
        // Every event that the caller gets is whole, whatever came.
        for event in String::from_utf8(whole).unwrap().split("\n\n").filter(|event| !event.is_empty()) {
            let data = event.lines().last().and_then(|line| line.strip_prefix("data: ")).unwrap();
            prop_assert!(data == "[DONE]" || serde_json::from_str::<serde_json::Value>(data).unwrap().is_object());
        }
    }

    #[test]
    fn a_meter_forwards_every_byte_once(
        body in bytes(),
        cuts in vec(0_usize..400, 0..6),
        which in 0_usize..DIALECTS.len(),
        path in proptest::sample::select(PATHS.to_vec()),
        status in proptest::sample::select(vec![200_u16, 400, 500]),
        kind in proptest::sample::select(vec!["text/event-stream", "application/json", "text/plain", "audio/mpeg", "application/x-ndjson", "application/stream+json"]),
        stripping in any::<bool>(),
        event_bytes in proptest::sample::select(vec![40_usize, 1 << 20]),
    ) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        let operation = operation(DIALECTS[which], &Method::POST, path);
        let limits = Limits { event_bytes, ..Limits::default() };
        let run = |cuts: &[usize], stripping: bool| {
            let mut meter = Meter::new(operation, status, &headers, stripping, limits);
            let (mut all, mut out, mut from) = (Vec::new(), Vec::new(), 0);
            let mut cuts: Vec<usize> = cuts.iter().copied().filter(|c| *c <= body.len()).collect();
            cuts.sort_unstable();
            cuts.push(body.len());
            for to in cuts {
                let piece = &body[from..to];
                meter.feed(piece, &mut out);
                for segment in out.drain(..) {
                    match segment {
                        Segment::Forward(range) => all.extend_from_slice(&piece[range]),
                        Segment::Bytes(bytes) | Segment::Held(bytes) => all.extend_from_slice(&bytes),
                    }
                }
                from = to;
            }
            meter.end(&mut out);
            for segment in out.drain(..) {
                if let Segment::Bytes(bytes) = segment {
                    all.extend_from_slice(&bytes);
                }
            }
            let facts = meter.finish(Cause::Complete);
            facts.answered(&|_| String::new());
            (all, facts)
        };
        let (forwarded, whole) = run(&[], false);
        prop_assert_eq!(&forwarded, &body);
        let (forwarded, cut) = run(&cuts, false);
        prop_assert_eq!(&forwarded, &body);
        // A bound is met sooner or later, as the cuts fall; below it they do not show.
        if event_bytes > 1 << 16 {
            prop_assert_eq!(&whole, &cut);
        }
        if stripping && kind == "text/event-stream" && event_bytes > 1 << 16 {
            let (once, facts) = run(&[], true);
            let (again, _) = run(&cuts, true);
            prop_assert_eq!(&once, &again);
            prop_assert_eq!(&facts, &whole);
        } else {
            run(&cuts, stripping);
        }
    }

    #[test]
    fn a_request_is_read_or_not(body in bytes(), which in 0_usize..DIALECTS.len(), path in proptest::sample::select(PATHS.to_vec()), form in any::<bool>()) {
        let mut headers = HeaderMap::new();
        let kind = if form { "multipart/form-data; boundary=B" } else { "application/json" };
        headers.insert("content-type", HeaderValue::from_static(kind));
        let operation = operation(DIALECTS[which], &Method::POST, path);
        let facts = request_facts(&operation, &headers, path, Some("stream=%zz&stream"), &body);
        let mut asked = serde_json::from_str("{}").unwrap();
        facts.fill(&mut asked, &|_| "0".into());
        facts.suppression();
        multipart::parts("B", &body);
    }

    #[test]
    fn asking_only_adds(body in bytes(), tail in bytes()) {
        let object = [&b"{\"stream\":true,\"a\":"[..], &body, b"}", &tail].concat();
        for body in [&body, &object] {
            if let Some(asked) = ask_for_usage(body) {
                let json: serde_json::Value = serde_json::from_slice(&asked).unwrap();
                prop_assert_eq!(&json["stream_options"]["include_usage"], true);
                prop_assert!(ask_for_usage(&asked).is_none());
            }
        }
    }

    #[test]
    fn decoders_stop_at_their_caps(body in vec(any::<u8>(), 0..600), which in 0_usize..4, head in any::<bool>()) {
        let coding = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd][which];
        let magic: &[u8] = match coding {
            Coding::Gzip => b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff",
            Coding::Deflate => b"\x78\x9c",
            Coding::Brotli => b"\x0b",
            Coding::Zstd => b"\x28\xb5\x2f\xfd",
        };
        let body = if head { [magic, &body].concat() } else { body };
        if let Ok(out) = decode_all(&[coding], &body, Caps { bytes: 10_000, ratio: 100 }) {
            prop_assert!(out.len() <= 10_000);
        }
    }

    #[test]
    fn operations_are_total(path in "[a-z/*%?.]{0,60}", method in proptest::sample::select(vec![Method::GET, Method::POST, Method::PUT, Method::DELETE])) {
        for dialect in DIALECTS {
            prop_assert!(schemas::Identifier::new(operation(dialect, &method, &path).name()).is_ok());
        }
    }
}
