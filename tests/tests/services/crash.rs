//! `kill -9` of the real gateway at random moments under load, with a caller and a provider that remember.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tests::Dice;
use tests::client::{Call, Got, Leave, send_until};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

/// One call and what its caller got.
struct Remembered {
    tag: String,
    got: Got,
}

fn call(key: &str, tag: &str, dice: &mut Dice) -> Call {
    let filler = match dice.below(12) {
        0 => "large ".repeat(300_000),
        1..=3 => "middle ".repeat(5_000),
        _ => String::new(),
    };
    let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": dice.below(2) == 0,
        "messages": [{ "role": "user", "content": format!("{tag} {filler}") }] });
    let path = if dice.below(3) == 0 { "/anthropic/v1/messages" } else { "/openai/v1/chat/completions" };
    let call = Call::post(path, key, body.to_string());
    match dice.below(5) {
        0 => call.header("x-replay", format!("script:slow:{}", 5 + dice.below(40))),
        1 => call.header("x-replay", format!("script:fast:{}", 50 + dice.below(500))),
        2 => call.header("x-replay", "script:cut:20"),
        3 if path.starts_with("/anthropic") => call.header("anthropic-version", "2023-06-01"),
        _ => call,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "kills a real process many times; the test command runs it"]
async fn a_killed_gateway_has_recorded_what_its_provider_saw_and_its_callers_got() {
    let rounds = std::env::var("AFFIDAVIT_KILLS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(if tests::long_round() { 200 } else { 20 });
    let seed = std::env::var("AFFIDAVIT_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(20_261_121);
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), evidence: "  segment: 4MiB\n".into(), ..Setup::default() };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let remembered = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::new(Mutex::new(HashSet::new()));
    let start = Instant::now();
    for round in 0..rounds {
        gateway.serve();
        let (address, key) = (gateway.address, gateway.key.clone());
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..8u64 {
            let mut dice = Dice::new(seed + round * 100 + caller);
            let (remembered, sent, key) = (remembered.clone(), sent.clone(), key.clone());
            callers.spawn(async move {
                for n in 0.. {
                    let tag = format!("tag-{round}-{caller}-{n}-end");
                    sent.lock().expect("no caller died").insert(tag.clone());
                    let leave = Leave {
                        after_bytes: (dice.below(10) == 0).then(|| dice.below(4000) as usize),
                        after_silence: Some(Duration::from_secs(20)),
                    };
                    let got = send_until(address, &call(&key, &tag, &mut dice), leave).await;
                    let dead = got.status == 0;
                    remembered.lock().expect("no caller died").push(Remembered { tag, got });
                    if dead {
                        break;
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(30 + dice.below(600))).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
    }
    // The last epoch recovers the one before it, serves, and ends in order.
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);

    // Each request that the provider saw has its intent and its content.
    let mut intents: HashMap<String, String> = HashMap::new();
    for id in evidence.exchanges("intent") {
        let body = evidence.content(&id, "client_request").expect("an intent without its content");
        let text = String::from_utf8_lossy(body);
        let tag =
            text.find("tag-").and_then(|a| text[a..].find("-end").map(|b| text[a..a + b + 4].to_owned()));
        let tag = tag.unwrap_or_else(|| std::panic::panic_any(format!("an invented request: {text:.100}")));
        assert!(sent.lock().expect("no caller died").contains(&tag), "an invented request: {tag}");
        assert!(intents.insert(tag.clone(), id).is_none(), "{tag} is recorded twice");
    }
    let seen = provider.seen();
    for request in &seen {
        let text = String::from_utf8_lossy(&request.body);
        let tag =
            text.find("tag-").and_then(|a| text[a..].find("-end").map(|b| text[a..a + b + 4].to_owned()));
        let tag = tag.expect("the provider sees only tagged requests");
        let id = intents.get(&tag).unwrap_or_else(|| {
            std::panic::panic_any(format!("{tag} reached the provider without an intent"))
        });
        let sent = evidence.content(id, "provider_request").or(evidence.content(id, "client_request"));
        assert!(
            sent.is_some_and(|c| *c == request.body),
            "{tag}: the recorded request is not the one that the provider saw"
        );
    }
    // Each answer that a caller got whole has its outcome; for the others what came beyond the record is bounded.
    let (mut whole, mut cut, mut beyond) = (0, 0, 0usize);
    let remembered = remembered.lock().expect("no caller died");
    for Remembered { tag, got } in remembered.iter() {
        if got.status == 0 {
            continue;
        }
        let Some(id) = intents.get(tag) else {
            assert!(
                got.status >= 400 && got.header("x-affidavit-reason").is_some(),
                "{tag}: answered {} without an intent",
                got.status
            );
            continue;
        };
        let outcome = evidence
            .outcome(id)
            .unwrap_or_else(|| std::panic::panic_any(format!("{tag}: an intent without an outcome")));
        let recorded = evidence
            .content(id, "client_response")
            .or(evidence.content(id, "provider_response"))
            .map(Vec::as_slice)
            .unwrap_or_default();
        if got.whole {
            whole += 1;
            assert_eq!(outcome["end"], "complete", "{tag}: {outcome}");
            assert!(recorded == got.body, "{tag}: the recorded answer is not the one that the caller got");
        } else {
            cut += 1;
            let same = recorded.len().min(got.body.len());
            assert!(recorded[..same] == got.body[..same], "{tag}: recorded and delivered bytes differ");
            let missing = got.body.len() - same;
            beyond = beyond.max(missing);
            // 64 KiB, or what came within the last second.
            assert!(
                missing <= 64 * 1024 || same >= got.came(Duration::from_secs(1)),
                "{tag}: the caller got {missing} bytes beyond the record, some of them more than 1 s before the end"
            );
        }
    }
    eprintln!(
        "{rounds} kills, {} calls, {} seen by the provider, {whole} whole, {cut} cut, at most {beyond} bytes beyond the record, {} s, seed {seed}",
        remembered.len(),
        seen.len(),
        start.elapsed().as_secs()
    );
    assert!(whole > 0 && cut > 0, "the load reached both cases");
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("VERIFIED"), "{out}");
}
