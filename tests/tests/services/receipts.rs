//! Receipts of callers: what a gateway that is killed under load has promised is in its log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use schemas::promise::Promise;
use tests::Dice;
use tests::client::{Call, Got, Leave, send, send_until};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

const INTENT: &str = "x-affidavit-receipt";
const OUTCOME: &str = "x-affidavit-receipt-outcome";

/// A call that says that it takes trailers.
fn call(key: &str, stream: bool) -> Call {
    let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": stream,
        "messages": [{ "role": "user", "content": "hello" }] });
    Call::post("/openai/v1/chat/completions", key, body.to_string()).header("te", "trailers")
}

/// The receipts of an answer: of the first record, and of the outcome in head or trailer.
fn receipts(got: &Got) -> Vec<(&'static str, String)> {
    let trailer = got.trailers.iter().find(|(name, _)| name == OUTCOME).map(|(_, value)| value.as_str());
    let found = [(INTENT, got.header(INTENT)), (OUTCOME, got.header(OUTCOME)), (OUTCOME, trailer)];
    found.into_iter().filter_map(|(name, text)| Some((name, text?.to_owned()))).collect()
}

/// Runs `check-receipts` over lines; exit code, stdout, stderr.
fn check(gateway: &Gateway, lines: &str) -> (i32, String, String) {
    std::fs::write(gateway.dir.join("receipts.jsonl"), lines).expect("a file");
    let path = |name: &str| gateway.dir.join(name).display().to_string();
    gateway.auditor(&[
        "check-receipts".into(),
        path("receipts.jsonl"),
        gateway.store().display().to_string(),
        "--trust".into(),
        path("trust.yaml"),
        "--state".into(),
        path("auditor-state"),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn a_caller_gets_receipts_of_intent_and_outcome_and_of_a_refusal() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), ..Setup::default() };
    let mut gateway = Gateway::prepare_promising(dir.path(), &setup);
    gateway.serve();
    let plain = send(gateway.address, &call(&gateway.key, false)).await;
    let streamed = send(gateway.address, &call(&gateway.key, true)).await;
    let mut quiet = call(&gateway.key, true);
    quiet.headers.retain(|(name, _)| name != "te");
    let quiet = send(gateway.address, &quiet).await;
    let refused = send(gateway.address, &call(&gateway.key, false).header("upgrade", "websocket")).await;
    assert_eq!((plain.status, streamed.status, refused.status), (200, 200, 501), "{}", refused.text());
    let kinds = |got: &Got| receipts(got).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(kinds(&plain), [INTENT, OUTCOME], "{:?}", plain.headers);
    assert_eq!(kinds(&streamed), [INTENT, OUTCOME], "{:?} {:?}", streamed.headers, streamed.trailers);
    assert!(streamed.header(OUTCOME).is_none() && streamed.trailers.len() == 1);
    assert_eq!(kinds(&quiet), [INTENT], "trailers go to who takes them");
    assert_eq!(kinds(&refused), [INTENT]);
    assert_eq!(quiet.body, streamed.body, "the body is as it was");

    let lines: Vec<String> = [&plain, &streamed, &quiet, &refused]
        .iter()
        .map(|got| {
            let texts: Vec<String> = receipts(got).into_iter().map(|(_, text)| text).collect();
            serde_json::json!({ "exchange": got.exchange(), "receipt": texts }).to_string()
        })
        .collect();
    let before = check(&gateway, &lines.join("\n"));
    assert!([0, 2].contains(&before.0), "sealed already, or pending: {before:?}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = check(&gateway, &lines.join("\n"));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("VERIFIED 6 of 6 receipts"), "{out}");
    let evidence = Evidence::read(&gateway);
    let kind = |got: &Got, name: &str| {
        let (_, text) = receipts(got).into_iter().find(|(of, _)| *of == name).expect("a receipt");
        let promise: Promise = text.parse().expect("a promise");
        let leaf = evidence.leaves.iter().find(|leaf| leaf.position == promise.position).expect("a record");
        assert_eq!(leaf.value["exchange"].as_str(), got.exchange());
        leaf.value["kind"].as_str().expect("a kind").to_owned()
    };
    assert_eq!((kind(&plain, INTENT), kind(&streamed, OUTCOME)), ("intent".into(), "outcome".into()));
    assert_eq!(kind(&refused, INTENT), "refusal");
    // One that was moved by a position, and one of another gateway.
    let text = receipts(&plain).remove(0).1;
    let promise: Promise = text.parse().expect("a promise");
    let moved = Promise { position: promise.position + 1, ..promise };
    assert_eq!(check(&gateway, &moved.to_string()).0, 1);
    assert_eq!(check(&gateway, &text.replacen("test/gw1", "test/gw2", 1)).0, 2);
}

/// One call and what its caller kept.
type Held = Arc<Mutex<Vec<(Option<String>, Vec<String>)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "kills a real process several times"]
async fn every_receipt_that_a_caller_of_a_killed_gateway_held_is_in_the_verified_log() {
    let rounds = if tests::long_round() { 60 } else { 6 };
    let begun = Instant::now();
    let mut dice = Dice::new(20_261_121);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), evidence: "  segment: 4MiB\n".into(), ..Setup::default() };
    let mut gateway = Gateway::prepare_promising(dir.path(), &setup);
    let held: Held = Arc::default();
    for _ in 0..rounds {
        gateway.serve();
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..12u64 {
            let (held, address, key) = (held.clone(), gateway.address, gateway.key.clone());
            callers.spawn(async move {
                for n in 0u64.. {
                    let leave = Leave { after_silence: Some(Duration::from_secs(20)), ..Leave::default() };
                    let got = send_until(address, &call(&key, (caller + n).is_multiple_of(2)), leave).await;
                    if got.status == 0 {
                        break;
                    }
                    let texts = receipts(&got).into_iter().map(|(_, text)| text).collect();
                    held.lock().expect("no caller died").push((got.exchange().map(str::to_owned), texts));
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(200 + dice.below(500))).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
    }
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let held = held.lock().expect("no caller died");
    let evidence = Evidence::read(&gateway);
    let leaves: HashMap<_, _> =
        evidence.leaves.iter().map(|leaf| ((leaf.origin.clone(), leaf.position), leaf)).collect();
    let (mut all, mut groups, mut lines) = (0, BTreeMap::new(), Vec::new());
    for (exchange, texts) in held.iter() {
        for text in texts {
            let promise: Promise = text.parse().expect("a promise");
            let leaf = leaves.get(&(promise.origin.clone(), promise.position));
            let leaf =
                leaf.unwrap_or_else(|| std::panic::panic_any(format!("a promise is not kept: {text}")));
            assert_eq!(schemas::leaf::hash(&leaf.leaf), promise.leaf, "{text}");
            assert_eq!(leaf.value["exchange"].as_str(), exchange.as_deref(), "{text}");
            all += 1;
            groups.insert((promise.origin, promise.time), promise.count);
        }
        lines.push(serde_json::json!({ "exchange": exchange, "receipt": texts }).to_string());
    }
    let largest = groups.values().max().copied().unwrap_or_default();
    let outcomes = held.iter().filter(|(_, texts)| texts.len() == 2).count();
    eprintln!(
        "{rounds} kills, {} answers, {all} receipts, {outcomes} of outcomes, {} signatures, at most {largest} receipts each, {} s",
        held.len(),
        groups.len(),
        begun.elapsed().as_secs()
    );
    assert!(all > 50 && outcomes > 10, "{all} receipts, {outcomes} of outcomes");
    assert!(largest > 1, "callers at once share a signature");
    let (code, out, err) = check(&gateway, &lines.join("\n"));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with(&format!("VERIFIED {all} of {all} receipts")), "{out}");
}
