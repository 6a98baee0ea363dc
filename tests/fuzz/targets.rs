//! One function for each parser of bytes from outside. A target takes any bytes and must neither panic nor hang; where
//! the parser promises more (what is read is written back alike, no byte of traffic is lost), it asserts that too.
//!
//! Used twice: by `tests/tests/programs/fuzz.rs` on stable Rust, and by the cargo-fuzz targets in this folder.
#![allow(dead_code, unreachable_pub, reason = "two crates include this file")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use dialects::coding::{Caps, Coding, Decoder, decode_all};
use dialects::{Cause, Dialect, Limits, Meter, Segment};
use evidence::disk::{Disk as _, SimDisk};
use evidence::journal::{ContentFrame, Frame, Journal, JournalConfig, recover};
use http::{HeaderMap, HeaderValue, Method};
use schemas::content::{Assembler, ContentError, Dictionary, Encoding, Row, RowMeta, seal_row_with};
use schemas::files::{self, Limits as FileLimits};
use schemas::names::{ExchangeId, ObjectName, Origin};
use schemas::note::{Ed25519Signer, Signer as _, VerifyingKey};
use schemas::record::PartName;
use schemas::ship::{ArchiverKey, Chunk, Receipt, pieces};
use schemas::verify::{BatchInput, verify_batch_with};
use schemas::{Identifier, Sha256Hex, canonical, keytable, leaf, note, seal, timestamp, tlog};

#[path = "audited.rs"]
mod audited;

/// A parser under test.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Gives it bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "meter_openai", run: |b| meter(Dialect::OpenAi, b), seeds: responses },
    Target { name: "meter_azure", run: |b| meter(Dialect::AzureOpenAi, b), seeds: responses },
    Target { name: "meter_anthropic", run: |b| meter(Dialect::Anthropic, b), seeds: responses },
    Target { name: "meter_gemini", run: |b| meter(Dialect::Gemini, b), seeds: responses },
    Target { name: "meter_vertex", run: |b| meter(Dialect::Vertex, b), seeds: responses },
    Target { name: "meter_cohere", run: |b| meter(Dialect::Cohere, b), seeds: responses },
    Target { name: "meter_ollama", run: |b| meter(Dialect::Ollama, b), seeds: responses },
    Target { name: "meter_watsonx", run: |b| meter(Dialect::Watsonx, b), seeds: responses },
    Target { name: "meter_bedrock", run: meter_bedrock, seeds: bedrock_seeds },
    Target { name: "event_stream", run: event_stream, seeds: frame_seeds },
    Target { name: "sse", run: sse, seeds: responses },
    Target { name: "values", run: values, seeds: responses },
    Target { name: "coding", run: coding, seeds: coded },
    Target { name: "multipart", run: multipart, seeds: requests },
    Target { name: "request_facts", run: request_facts, seeds: requests },
    Target { name: "ask_for_usage", run: ask_for_usage, seeds: requests },
    Target { name: "canonical", run: canonical_json, seeds: leaves },
    Target { name: "leaf", run: leaf_decode, seeds: leaves },
    Target { name: "seal", run: seal_parse, seeds: || golden("seal") },
    Target { name: "seal_signed", run: seal_signed, seeds: || golden("seal") },
    Target { name: "chunk", run: chunk, seeds: chunk_seeds },
    Target { name: "receipt", run: receipt, seeds: receipt_seeds },
    Target { name: "note", run: note_parse, seeds: || golden("seal") },
    Target { name: "submission", run: submission, seeds: submission_seeds },
    Target { name: "cosignature", run: cosignature, seeds: cosignature_seeds },
    Target { name: "timestamp", run: timestamp_token, seeds: || golden_timestamps("token") },
    Target { name: "timestamp_answer", run: timestamp_answer, seeds: || golden_timestamps("tsr") },
    Target { name: "names", run: names, seeds: name_seeds },
    Target { name: "records_file", run: records_file, seeds: || golden("records.parquet") },
    Target { name: "content_file", run: content_file, seeds: || golden("content-standard.parquet") },
    Target { name: "reference_file", run: reference_file, seeds: || golden("reference.parquet") },
    Target { name: "batch", run: batch, seeds: || golden("records.parquet") },
    Target { name: "content_row", run: content_row, seeds: row_seeds },
    Target { name: "delta", run: delta, seeds: delta_seeds },
    Target { name: "key_table", run: key_table, seeds: || golden("keys") },
    Target { name: "policy", run: policy, seeds: policies_and_prices },
    Target { name: "prices", run: prices, seeds: policies_and_prices },
    Target { name: "journal", run: journal, seeds: journal_seeds },
    Target { name: "proof_bundle", run: audited::bundle, seeds: audited::bundle_seeds },
    Target { name: "receipts_file", run: audited::receipts, seeds: audited::receipts_seeds },
    Target { name: "trust_file", run: audited::trust, seeds: audited::trust_seeds },
    Target { name: "mandate_file", run: audited::mandate, seeds: audited::mandate_seeds },
    Target { name: "registry_entry", run: audited::entry, seeds: audited::entry_seeds },
    Target { name: "key_statement", run: audited::statement, seeds: audited::statement_seeds },
    Target { name: "export", run: audited::export, seeds: audited::export_seeds },
    Target { name: "subject_folder", run: audited::subject, seeds: audited::subject_seeds },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|dir| dir.join("schemas/testdata").is_dir())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
    found.sort();
}

/// The golden vectors whose name ends so.
fn golden(ending: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files_below(&root().join("schemas/testdata/v1"), &mut found);
    found
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .filter_map(|path| std::fs::read(path).ok())
        .collect()
}

fn own_exchanges(member: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files_below(&root().join("gateway/dialects/testdata"), &mut found);
    found
        .iter()
        .filter_map(|path| std::fs::read(path).ok())
        .filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .filter_map(|value| value.get(member)?.as_str().map(|text| text.as_bytes().to_vec()))
        .collect()
}

fn responses() -> Vec<Vec<u8>> {
    own_exchanges("response_body").into_iter().map(|body| [&[0_u8], body.as_slice()].concat()).collect()
}

fn requests() -> Vec<Vec<u8>> {
    own_exchanges("request_body")
}

/// What frames carry, one a line: the type of the event, a space, its payload.
const FRAMED: [&str; 4] = [
    "messageStart {\"role\":\"assistant\"}\ncontentBlockStart {\"start\":{\"toolUse\":{\"name\":\"t\"}}}\ncontentBlockDelta {\"delta\":{}}\n\
     messageStop {\"stopReason\":\"end_turn\"}\nmetadata {\"usage\":{\"inputTokens\":12,\"outputTokens\":5.0,\"cacheDetails\":[{\"inputTokens\":1,\"ttl\":\"1h\"}]}}",
    "chunk {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\
     chunk {\"type\":\"message_stop\",\"amazon-bedrock-invocationMetrics\":{\"inputTokenCount\":12,\"outputTokenCount\":5}}",
    "chunk {\"generation\":\"a\",\"prompt_token_count\":3,\"generation_token_count\":1,\"stop_reason\":\"stop\"}\n\
     chunk {\"outputText\":\"a\",\"inputTextTokenCount\":28.0,\"completionReason\":\"FINISH\",\"results\":[{\"tokenCount\":4}]}",
    "exception {\"message\":\"wait\"}\nchunk {\"choices\":[{\"delta\":{},\"stop_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}",
];

fn bedrock_seeds() -> Vec<Vec<u8>> {
    FRAMED.iter().map(|text| [&[0_u8], text.as_bytes()].concat()).collect()
}

fn frame_seeds() -> Vec<Vec<u8>> {
    FRAMED.iter().map(|text| framed(text.as_bytes())).collect()
}

/// Sound frames with these payloads.
fn framed(text: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let mut frames = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (event, payload) = line.split_at(at);
        let payload = payload.get(1..).unwrap_or_default();
        let event = String::from_utf8_lossy(event);
        let chunk;
        let payload = if event == "chunk" {
            let coded = base64::engine::general_purpose::STANDARD.encode(payload);
            chunk = format!("{{\"bytes\":\"{coded}\",\"p\":\"a\"}}");
            chunk.as_bytes()
        } else {
            payload
        };
        let kind = if event == "exception" { "exception" } else { "event" };
        let headers = [(":message-type", kind), (":event-type", &*event), (":exception-type", &*event)];
        frames.extend(dialects::event_stream::encode(&headers, payload));
    }
    frames
}

fn coded() -> Vec<Vec<u8>> {
    use std::io::Write as _;
    let plain = own_exchanges("response_body").concat();
    let plain = plain.get(..4096).unwrap_or(&plain);
    let mut gzip = flate2::write::GzEncoder::new(vec![0], flate2::Compression::default());
    let mut zlib = flate2::write::ZlibEncoder::new(vec![1], flate2::Compression::default());
    let _ = (gzip.write_all(plain), zlib.write_all(plain));
    let zstd = [&[3_u8][..], &zstd::encode_all(plain, 3).unwrap_or_default()].concat();
    vec![
        gzip.finish().unwrap_or_default(),
        zlib.finish().unwrap_or_default(),
        vec![2, 0x0b, 2, 0x80, b'a', 3],
        zstd,
    ]
}

const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/complete",
    "/openai/deployments/d%2f/chat/completions",
    "/v1/nothing",
];

const GOOGLES: [&str; 8] = [
    "/v1beta/models/g:streamGenerateContent",
    "/v1beta/models/g:generateContent",
    "/v1beta/models/g:countTokens",
    "/v1beta/interactions",
    "/v1/projects/p/locations/l/publishers/google/models/m%3AstreamGenerateContent",
    "/v1/projects/p/locations/l/publishers/google/models/m:predict",
    "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
    "/v1beta/openai/chat/completions",
];

const OTHERS: [&str; 8] = [
    "/v2/chat",
    "/v1/chat",
    "/v1/generate",
    "/v2/rerank",
    "/api/chat",
    "/api/generate",
    "/ml/v1/text/generation_stream",
    "/ml/v1/text/generation",
];

const AMAZONS: [&str; 8] = [
    "/model/m/converse",
    "/model/m/converse-stream",
    "/model/arn%3Aaws%2/invoke",
    "/model/a/b/invoke-with-response-stream",
    "/model/m/count-tokens",
    "/guardrail/g/version/1/apply",
    "/openai/v1/chat/completions",
    "/model/m/nothing",
];

fn paths(dialect: Dialect) -> [&'static str; 8] {
    match dialect {
        Dialect::Gemini | Dialect::Vertex => GOOGLES,
        Dialect::Cohere | Dialect::Ollama | Dialect::Watsonx => OTHERS,
        Dialect::Bedrock => AMAZONS,
        _ => PATHS,
    }
}

/// The first byte chooses path, media type, status, stripping and the size of the pieces.
fn meter(dialect: Dialect, bytes: &[u8]) {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let path = paths(dialect)[usize::from(choice & 7)];
    let kinds = match dialect {
        Dialect::Ollama => ["application/x-ndjson", "application/json"],
        Dialect::Bedrock => ["application/vnd.amazon.eventstream", "application/json"],
        Dialect::Cohere if choice & 1 != 0 => ["application/stream+json", "application/json"],
        _ => ["text/event-stream", "application/json"],
    };
    let kind = kinds[usize::from(choice >> 3 & 1)];
    let status = if choice & 16 == 0 { 200 } else { 500 };
    let stripping = choice & 32 != 0;
    let size = [body.len().max(1), 1, 7, 64][usize::from(choice >> 6)];
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(kind));
    let limits = Limits { event_bytes: 64 << 10, body_bytes: 256 << 10, ..Limits::default() };
    let operation = dialects::operation(dialect, &Method::POST, path);
    let mut meter = Meter::new(operation, status, &headers, stripping, limits);
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for piece in body.chunks(size) {
        meter.feed(piece, &mut out);
        for segment in out.drain(..) {
            match segment {
                Segment::Forward(range) => all.extend_from_slice(&piece[range]),
                Segment::Bytes(bytes) | Segment::Held(bytes) => all.extend_from_slice(&bytes),
            }
        }
    }
    meter.end(&mut out);
    for segment in out.drain(..) {
        match segment {
            Segment::Forward(_) => unreachable!("nothing was given"),
            Segment::Bytes(bytes) | Segment::Held(bytes) => all.extend_from_slice(&bytes),
        }
    }
    if stripping {
        assert!(all.len() <= body.len(), "bytes were added");
    } else {
        assert_eq!(all, body, "the caller gets other bytes");
    }
    meter.finish(Cause::Complete).answered(&|_| String::new());
}

fn values(bytes: &[u8]) {
    let read = |size: usize| {
        let mut parser = dialects::values::Parser::new(1 << 20);
        let mut seen = Vec::new();
        for piece in bytes.chunks(size.max(1)) {
            parser.feed(piece, &mut |event| {
                assert!(event.start <= event.end && event.end <= piece.len(), "a place outside of the chunk");
                seen.push(event.data.to_vec());
            });
        }
        (seen, parser.stopped())
    };
    assert_eq!(read(bytes.len()), read(3), "the pieces show");
}

/// Any payloads, in sound frames: the same however they are cut.
fn meter_bedrock(bytes: &[u8]) {
    let Some((&choice, text)) = bytes.split_first() else { return };
    meter(Dialect::Bedrock, &[&[choice], text].concat());
    let body = framed(text);
    let path = ["/model/m/converse-stream", "/model/m/invoke-with-response-stream"][usize::from(choice & 1)];
    let operation = dialects::operation(Dialect::Bedrock, &Method::POST, path);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/vnd.amazon.eventstream"));
    let read = |size: usize| {
        let mut meter = Meter::new(operation, 200, &headers, false, Limits::default());
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for piece in body.chunks(size) {
            meter.feed(piece, &mut out);
            for segment in out.drain(..) {
                match segment {
                    Segment::Forward(range) => all.extend_from_slice(&piece[range]),
                    Segment::Bytes(bytes) | Segment::Held(bytes) => all.extend_from_slice(&bytes),
                }
            }
        }
        assert_eq!(all, body, "the caller gets other bytes");
        meter.finish(Cause::Complete)
    };
    let facts = read(body.len().max(1));
    assert_eq!(facts.unread, None);
    assert_eq!(facts, read(5));
}

fn event_stream(bytes: &[u8]) {
    let read = |size: usize| {
        let mut parser = dialects::event_stream::Parser::new(1 << 16);
        let mut seen = Vec::new();
        for piece in bytes.chunks(size) {
            parser.feed(piece, &mut |event| {
                assert!(event.start <= event.end && event.end <= piece.len(), "a place outside of the chunk");
                seen.push((event.name.to_vec(), event.data.to_vec()));
            });
        }
        parser.finish();
        (seen, parser.error())
    };
    assert_eq!(read(bytes.len().max(1)), read(3));
}

fn sse(bytes: &[u8]) {
    let read = |size: usize| {
        let mut parser = dialects::sse::Parser::new(1 << 20);
        let mut seen = Vec::new();
        for piece in bytes.chunks(size) {
            parser.feed(piece, &mut |e| {
                assert!(e.start <= e.end && e.end <= piece.len());
                if e.data_lines > 0 {
                    seen.push((e.name.to_vec(), e.data.to_vec()));
                }
            });
        }
        parser.finish(&mut |e| seen.push((e.name.to_vec(), e.data.to_vec())));
        seen
    };
    assert_eq!(read(bytes.len().max(1)), read(3));
}

fn coding(bytes: &[u8]) {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let all = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];
    let mut stack = vec![all[usize::from(choice & 3)]];
    if choice & 4 != 0 {
        stack.push(all[usize::from(choice >> 3 & 3)]);
    }
    let caps = Caps { bytes: 1 << 20, ratio: 50 };
    let whole = decode_all(&stack, body, caps);
    if let Ok(whole) = &whole {
        assert!(whole.len() <= 1 << 20);
    }
    let mut decoder = Decoder::new(&stack, Caps { ratio: 1 << 40, ..caps });
    let mut pieces = Vec::new();
    let fed =
        body.chunks(5).try_for_each(|piece| decoder.feed(piece, &mut |out| pieces.extend_from_slice(out)));
    if let (Ok(whole), Ok(())) = (whole, fed) {
        assert_eq!(whole, pieces);
    }
}

fn multipart(bytes: &[u8]) {
    for boundary in ["B", "boundary"] {
        let (parts, _) = dialects::multipart::parts(boundary, bytes);
        assert!(parts.iter().map(|part| part.content.len()).sum::<usize>() <= bytes.len());
    }
    dialects::multipart::boundary(&String::from_utf8_lossy(bytes));
}

fn request_facts(bytes: &[u8]) {
    for (dialect, kind) in [
        (Dialect::OpenAi, "application/json"),
        (Dialect::Anthropic, "application/json"),
        (Dialect::AzureOpenAi, "multipart/form-data; boundary=B"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        let path = PATHS[bytes.len() % PATHS.len()];
        let operation = dialects::operation(dialect, &Method::POST, path);
        let facts = dialects::request_facts(&operation, &headers, path, None, bytes);
        facts.suppression();
    }
    let text = String::from_utf8_lossy(bytes);
    dialects::operation(Dialect::OpenAi, &Method::GET, &text);
}

fn ask_for_usage(bytes: &[u8]) {
    if let Some(asked) = dialects::ask_for_usage(bytes) {
        assert!(
            serde_json::from_slice::<serde_json::Value>(&asked).is_ok()
                || serde_json::from_slice::<serde_json::Value>(bytes).is_err()
        );
        assert!(dialects::ask_for_usage(&asked).is_none(), "asked twice");
    }
    dialects::splice::trace_of_asking(bytes);
}

fn leaves() -> Vec<Vec<u8>> {
    golden("leaves.json")
        .iter()
        .filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok())
        .flat_map(|value| {
            let mut found = Vec::new();
            texts(&value, &mut found);
            found
        })
        .filter(|text| text.starts_with(b"{"))
        .collect()
}

fn texts(value: &serde_json::Value, found: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) => found.push(text.as_bytes().to_vec()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        serde_json::Value::Object(members) => members.values().for_each(|item| texts(item, found)),
        _ => {}
    }
}

fn canonical_json(bytes: &[u8]) {
    if let Ok(value) = canonical::parse(bytes) {
        assert_eq!(
            canonical::to_vec(&value).expect("what was read can be written"),
            bytes,
            "two texts of one value"
        );
    }
}

fn leaf_decode(bytes: &[u8]) {
    if let Ok(decoded) = leaf::decode(bytes) {
        decoded.kind();
        decoded.cells(bytes);
        if let Some(record) = &decoded.record
            && decoded.unknown_keys.is_empty()
        {
            assert_eq!(
                leaf::encode(record).expect("what was read can be written"),
                bytes,
                "not the bytes read"
            );
        }
    }
    leaf::hash(bytes);
}

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed([7; 32])
}

fn submission_seeds() -> Vec<Vec<u8>> {
    let checkpoint =
        note::sign("a/b/c\n5\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n", &[("a/b/c", &signer())]);
    let checkpoint = checkpoint.expect("a note");
    let made =
        |old, proof: Vec<Sha256Hex>| tlog::Submission { old, proof, checkpoint: &checkpoint }.to_bytes();
    vec![made(0, vec![]), made(3, vec![Sha256Hex([1; 32]), Sha256Hex([2; 32])])]
}

fn submission(bytes: &[u8]) {
    let Ok(read) = tlog::Submission::parse(bytes) else { return };
    assert_eq!(read.to_bytes(), bytes, "two bodies of one submission");
    if let Ok(parsed) = note::parse_unverified(read.checkpoint)
        && let Ok(head) = tlog::TreeHead::parse(parsed.text)
    {
        assert!(parsed.text.starts_with(&head.to_text()), "two texts of one head");
    }
}

const COSIGNED: &str = "a/b/c\n5\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n";

fn cosignature_seeds() -> Vec<Vec<u8>> {
    let line = tlog::cosign(COSIGNED, "w.example/w", 1_790_000_000, &signer()).expect("a cosignature");
    vec![format!("{line}\n").into_bytes(), format!("{line}\n{line}\n").into_bytes()]
}

fn cosignature(bytes: &[u8]) {
    let Ok(lines) = std::str::from_utf8(bytes) else { return };
    let key = tlog::WitnessKey::new("w.example/w", signer().public_key()).expect("a name");
    if let Ok((line, time_s)) = key.find(COSIGNED, lines) {
        assert_eq!(time_s, 1_790_000_000, "a time that nobody signed");
        assert!(lines.contains(&line.to_string()));
    }
    let _ = lines.parse::<tlog::WitnessKey>();
}

fn golden_timestamps(end: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files_below(&root().join("schemas/src/timestamp/testdata"), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == end));
    found.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn timestamp_token(bytes: &[u8]) {
    let folder = root().join("schemas/src/timestamp/testdata");
    let roots = timestamp::certificates(&std::fs::read(folder.join("root.pem")).unwrap_or_default());
    let authority = timestamp::Authority {
        roots: roots.unwrap_or_default(),
        intermediates: vec![],
        policy: None,
        signers: vec![],
    };
    let imprint = Sha256Hex::of(&std::fs::read(folder.join("data.txt")).unwrap_or_default());
    if let Ok((_, stamp)) = timestamp::verify(bytes, &imprint, &[authority]) {
        // All good seeds were made within one minute.
        assert!(
            (1_795_249_000_000_000..1_795_250_000_000_000).contains(&stamp.time),
            "a time that nobody signed"
        );
    }
}

fn timestamp_answer(bytes: &[u8]) {
    let _ = timestamp::token_of(bytes, &[0; 16]);
}

fn seal_parse(bytes: &[u8]) {
    assert!(seal::verify(bytes, &signer().public_key()).is_err(), "nobody signed this");
    if let Ok(seal) = seal::parse_unverified(bytes) {
        seal.object_name();
        assert!(bytes.starts_with(seal.to_text().as_bytes()), "two texts of one seal");
    }
}

/// The text as given, under a good signature.
fn seal_signed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let text = text.split("\n\n").next().unwrap_or_default();
    let Some(origin) = text.lines().nth(1) else { return };
    let signer = signer();
    let Ok(signed) = note::sign(&format!("{text}\n"), &[(&format!("{origin}/seal"), &signer)]) else {
        return;
    };
    if let Ok(seal) = seal::verify(&signed, &signer.public_key()) {
        assert_eq!(seal.to_text(), format!("{text}\n"));
        let _ = seal.before();
    }
}

fn chunk_seeds() -> Vec<Vec<u8>> {
    let below = root().join("schemas/testdata/v1/store");
    let mut found = Vec::new();
    files_below(&below, &mut found);
    let message = |path: &PathBuf| {
        let name = ObjectName::parse(&path.strip_prefix(&below).ok()?.to_string_lossy()).ok()?;
        let bytes = std::fs::read(path).ok()?;
        let (length, sha256) = (bytes.len() as u64, Sha256Hex::of(&bytes));
        let (offset, count) = pieces(length).next()?;
        let bytes = bytes.get(..usize::try_from(count).ok()?)?;
        Chunk { name, length, sha256, offset, bytes }.encode().ok()
    };
    found.iter().filter_map(message).collect()
}

fn chunk(bytes: &[u8]) {
    if let Ok(chunk) = Chunk::decode(bytes) {
        assert_eq!(chunk.encode().as_deref(), Ok(bytes), "two messages of one chunk");
    }
}

fn receipt_seeds() -> Vec<Vec<u8>> {
    let golden = golden("ship.json");
    let note = |bytes: &Vec<u8>| {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        Some(value.get("receipt")?.get("note")?.as_str()?.as_bytes().to_vec())
    };
    golden.iter().filter_map(note).collect()
}

/// As it came, and its text under a good signature.
fn receipt(bytes: &[u8]) {
    let signer = signer();
    let pinned = [ArchiverKey { name: "ar1".into(), key: signer.public_key() }];
    assert!(Receipt::verify(bytes, &pinned).is_err(), "nobody signed this");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let text = text.split("\n\n").next().unwrap_or_default();
    let deployment = text.lines().nth(1).and_then(|line| line.split('/').next()).unwrap_or_default();
    let name = format!("{deployment}/ar1/receipt");
    let Ok(signed) = note::sign(&format!("{text}\n"), &[(&name, &signer)]) else { return };
    if let Ok(receipt) = Receipt::verify(&signed, &pinned) {
        assert_eq!(receipt.to_text(), format!("{text}\n"));
    }
}

fn note_parse(bytes: &[u8]) {
    let Ok(key) = VerifyingKey::new("acme/gw1/20261120t101500z-3f9a1c20/seal", signer().public_key()) else {
        return;
    };
    let _ = note::parse_unverified(bytes);
    assert!(note::verify(bytes, &[key]).is_err(), "nobody signed this");
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = text.parse::<VerifyingKey>()
    {
        assert_eq!(key.to_string(), text);
    }
}

fn name_seeds() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files_below(&root().join("schemas/testdata/v1/store"), &mut found);
    let below = root().join("schemas/testdata/v1/store");
    found
        .iter()
        .filter_map(|path| Some(path.strip_prefix(&below).ok()?.to_string_lossy().into_owned().into_bytes()))
        .chain([
            b"zstd_dict:00".to_vec(),
            b"delta:01890a5d-ac96-774b-bcce-b302099a8057:client_request".to_vec(),
        ])
        .collect()
}

fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = ObjectName::parse(text) {
        assert_eq!(name.to_string(), text, "two texts of one name");
    }
    let _ = Origin::new(text);
    let _ = ExchangeId::new(text);
    if let Ok(id) = Identifier::new(text) {
        let _ = schemas::content::KeyId::parse(&id);
    }
    if let Ok(encoding) = text.parse::<Encoding>() {
        assert_eq!(encoding.to_string(), text, "two texts of one encoding");
    }
    Sha256Hex::parse(text);
}

fn small() -> FileLimits {
    FileLimits { footer_bytes: 1 << 20, rows: 1 << 16, column_bytes: 4 << 20 }
}

fn records_file(bytes: &[u8]) {
    if let Ok(file) = files::read_records(&Bytes::copy_from_slice(bytes), &small()) {
        for row in &file.rows {
            assert_eq!(leaf::hash(&row.leaf), row.hash);
        }
    }
}

fn content_file(bytes: &[u8]) {
    if let Ok(reader) = files::read_content(Bytes::copy_from_slice(bytes), &small()) {
        for row in reader.take(1000) {
            if row.is_err() {
                break;
            }
        }
    }
}

fn reference_file(bytes: &[u8]) {
    if let Ok(rows) = files::read_reference(&Bytes::copy_from_slice(bytes), &small()) {
        for row in rows {
            assert_eq!(Sha256Hex::of(&row.bytes), row.sha256);
        }
    }
}

/// A records file under the golden seals: only the very file that a seal names can hold.
fn batch(bytes: &[u8]) {
    static SEALS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| golden("seal"));
    static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| signer().public_key());
    for sealed in SEALS.iter() {
        let Ok(unverified) = seal::parse_unverified(sealed) else { continue };
        let input = BatchInput {
            origin: &unverified.origin,
            key: &KEY,
            seal: sealed,
            records: Bytes::copy_from_slice(bytes),
        };
        assert!(verify_batch_with(input, &small()).is_err(), "a seal of another key");
    }
}

fn exchange() -> ExchangeId {
    ExchangeId::new("01890a5d-ac96-774b-bcce-b302099a8057").expect("an id")
}

fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").expect("an origin")
}

fn row_seeds() -> Vec<Vec<u8>> {
    let plain = [&[9_u8; 32][..], b"content of a part, content of a part"].concat();
    let zstd = zstd::encode_all(&plain[..], 3).unwrap_or_default();
    let ops = [&[9_u8; 32][..], &[0, 3, b'a', b'b', b'c', 1, 0, 4]].concat();
    let delta = zstd::encode_all(&ops[..], 3).unwrap_or_default();
    let dictionaries = [fuzz_dictionary()];
    let encoding = Encoding::ZstdDict { dictionary: dictionaries[0].sha256() };
    let meta = RowMeta {
        position: 0,
        exchange: exchange(),
        part: PartName::ClientRequest,
        chunk: 0,
        last: true,
        encoding,
    };
    let with =
        seal_row_with(&origin(), &meta, None, &dictionaries, &plain).map(|row| row.data).unwrap_or_default();
    [(0, plain), (1, zstd), (2, delta), (3, with)]
        .into_iter()
        .map(|(kind, data)| [&[kind], data.as_slice()].concat())
        .collect()
}

fn fuzz_dictionary() -> Dictionary {
    Dictionary::new(b"the content of a part, and more content of a part").expect("raw content")
}

fn content_row(bytes: &[u8]) {
    let dictionaries = [fuzz_dictionary()];
    let Some((&kind, data)) = bytes.split_first() else { return };
    let encoding = match kind & 3 {
        0 => Encoding::Plain,
        1 => Encoding::Zstd,
        2 => Encoding::Delta { base_exchange: exchange(), base_part: PartName::ClientRequest },
        _ => Encoding::ZstdDict { dictionary: dictionaries[0].sha256() },
    };
    let row = Row {
        position: 0,
        exchange: exchange(),
        part: PartName::ClientRequest,
        chunk: u32::from(kind >> 2 & 1),
        last: kind & 8 == 0,
        encoding,
        key_id: None,
        data: data.to_vec(),
    };
    let opened: Result<Vec<u8>, ContentError> =
        schemas::content::open_row_with(&origin(), &row, None, &dictionaries);
    let Ok(plain) = opened else { return };
    assert!(plain.len() <= (1 << 20) + 32, "a chunk over its bound");
    let mut assembler = Assembler::new(1 << 20);
    if assembler.push(row.chunk, row.last, &row.encoding, &plain).is_ok()
        && let Ok(assembled) = assembler.finish()
    {
        let _ = assembled.content(Some(b"the base of the edits"), 1 << 16);
    }
}

fn delta_seeds() -> Vec<Vec<u8>> {
    let base: Vec<u8> = (0..2000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let mut target = base.clone();
    target.splice(100..110, *b"something else");
    target.extend_from_slice(b"and a tail");
    schemas::content::delta(&base, &target).into_iter().chain([vec![0, 1, b'x', 1, 0, 10]]).collect()
}

fn delta(bytes: &[u8]) {
    let base: Vec<u8> = (0..2000_u32).map(|i| (i * 7 % 251) as u8).collect();
    if let Ok(out) = schemas::content::apply(&base, bytes, 1 << 16) {
        assert!(out.len() <= 1 << 16);
    }
    if let Some(ops) = schemas::content::delta(&base, bytes) {
        assert_eq!(schemas::content::apply(&base, &ops, bytes.len()).as_deref().ok(), Some(bytes));
    }
}

fn key_table(bytes: &[u8]) {
    if let Ok(page) = keytable::decode_page(&origin(), 0, bytes) {
        for slot in 0..=page.slots() {
            let _ = page.key(slot);
        }
    }
}

fn policies_and_prices() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files_below(&root().join("policies/examples"), &mut found);
    files_below(&root().join("policies/prices"), &mut found);
    found.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn policy(bytes: &[u8]) {
    if let Err(problems) = policies::policy::Policy::parse(bytes) {
        assert!(!problems.is_empty(), "refused without a reason");
    }
}

fn prices(bytes: &[u8]) {
    if let Err(problems) = policies::price::PriceBook::parse(bytes) {
        assert!(!problems.is_empty(), "refused without a reason");
    }
}

/// A small journal, and the path of its one segment.
static JOURNAL: LazyLock<Option<(SimDisk, PathBuf)>> = LazyLock::new(|| {
    let disk = SimDisk::new();
    let dir = PathBuf::from("/journal");
    disk.create_dir(&dir).ok()?;
    let mut config = JournalConfig::new(origin(), Arc::new(|| 1_790_000_000_000_000));
    (config.segment_bytes, config.frame_bytes, config.group_bytes) = (64 << 10, 8 << 10, 8 << 10);
    config.ahead_bytes = 0;
    let journal = Journal::create(Arc::new(disk.clone()), &dir, config).ok()?;
    for i in 0..4_u32 {
        let content = ContentFrame {
            exchange: exchange(),
            part: PartName::ClientRequest,
            seq: i,
            delivered: 0,
            key_id: None,
            data: Bytes::from(vec![b'c'; 300]),
        };
        let leaf = Bytes::from(format!("{{\"n\":{i}}}"));
        let hash = leaf::hash(&leaf);
        let mut space = journal.reserve_blocking(Journal::cost([300, leaf.len()])).ok()?;
        let frames = vec![Frame::Content(content), Frame::Record { leaf, hash }];
        journal.submit(&mut space, frames).wait().ok()?;
    }
    journal.close();
    drop(journal);
    let name = disk
        .list(&dir)
        .ok()?
        .into_iter()
        .map(|entry| entry.name)
        .find(|name| name.starts_with("segment-"))?;
    Some((disk, dir.join(name)))
});

fn journal_seeds() -> Vec<Vec<u8>> {
    let (disk, segment) = JOURNAL.as_ref().expect("a journal can be made");
    let mut bytes = disk.peek(segment).unwrap_or_default();
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    assert!(used > 4096, "the seed holds no group");
    vec![bytes]
}

fn journal(bytes: &[u8]) {
    let (disk, segment) = JOURNAL.as_ref().expect("a journal can be made");
    let disk = disk.fork();
    disk.poke(segment, |file| {
        let length = bytes.len().min(file.len());
        file.fill(0);
        file[..length].copy_from_slice(&bytes[..length]);
    });
    let dir = segment.parent().unwrap_or(Path::new("/"));
    let mut last = None;
    let found = recover::<std::convert::Infallible>(Arc::new(disk), dir, &mut |found| {
        if matches!(found.frame, Frame::Record { .. }) {
            assert!(last.is_none_or(|last| last < found.position), "positions go back");
            last = Some(found.position);
        }
        Ok(())
    });
    if let Ok(Some(recovery)) = found {
        assert!(recovery.positions.start <= recovery.positions.end);
    }
}
