//! From an admission to a verified store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use evidence::{KeyScope, Ledger, NewPart, PreAuth, Reason, Reference};
use schemas::Sha256Hex;
use schemas::record::{Body, CloseReason, ConfigReason, End, GapReason, PartName, Refusal};
use support::{Bed, Content, begin, end, exchange, id, noise, outcome, verify};

const CLOSE: Duration = Duration::from_secs(30);

fn open(bed: &Bed) -> Ledger {
    Ledger::open(bed.config()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_exchange_becomes_a_verified_store() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let request = br#"{"model":"gpt-5","messages":[]}"#;
    let answer = b"data: {}\n\ndata: [DONE]\n\n";
    let exchange = exchange(&ledger, KeyScope::PerExchange, request, answer).await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].kinds(), ["boot", "config", "intent", "outcome", "close"]);
    assert_eq!(logs[0].outcome(&exchange).unwrap().intent_position, 2);
    let content = |part| logs[0].content(&exchange, part).cloned();
    assert_eq!(content(PartName::ClientRequest), Some(Content::Proven(Bytes::from_static(request))));
    assert_eq!(content(PartName::ProviderResponse), Some(Content::Proven(Bytes::from_static(answer))));
    let config = Sha256Hex::of(b"deployment: acme\n");
    assert!(logs[0].records.iter().all(|record| record.config == config));
    let (_, documents) = logs[0].dictionaries_and_documents();
    assert_eq!(documents.iter().map(|row| row.sha256).collect::<Vec<_>>(), [config]);
    // Nothing is left behind of a closed epoch.
    let left: Vec<_> =
        std::fs::read_dir(bed.root.join("journal")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(std::fs::read_dir(bed.root.join("spool")).unwrap().count(), 1, "only the folder of reserves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_died_before_its_first_record_leaves_nothing_and_what_is_in_a_spool_stays() {
    let bed = Bed::real();
    open(&bed).drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let (empty, full) = ("20261120t101500z-00000001", "20261120t101500z-00000002");
    for epoch in [empty, full] {
        std::fs::create_dir(bed.root.join("journal").join(epoch)).unwrap();
        std::fs::create_dir(bed.root.join("spool").join(epoch)).unwrap();
    }
    let kept = bed.root.join("spool").join(full).join("0000000000.seal");
    std::fs::write(&kept, "x").unwrap();
    open(&bed).drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert!(!bed.root.join("journal").join(empty).exists() && !bed.root.join("journal").join(full).exists());
    assert!(!bed.root.join("spool").join(empty).exists(), "nothing was in it");
    assert!(kept.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_boot_names_its_predecessor_with_size_and_root() {
    let bed = Bed::real();
    for _ in 0..3 {
        let ledger = open(&bed);
        exchange(&ledger, KeyScope::PerExchange, b"{}", b"{}").await.unwrap();
        ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    }
    let logs = verify(&bed);
    assert_eq!(logs.len(), 3);
    let boots: Vec<_> = logs
        .iter()
        .map(|log| match &log.records[0].body {
            Body::Boot(boot) => boot.predecessor.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(boots[0], None);
    for (before, named) in logs.iter().zip(&boots[1..]) {
        let named = named.as_ref().unwrap();
        assert_eq!(
            (&named.origin, named.size, named.root),
            (&before.origin, Some(before.size), Some(before.root))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_record_with_its_content() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let admission = ledger.admit(None, KeyScope::PerExchange).await.unwrap();
    let exchange = admission.exchange().clone();
    let part = NewPart::bytes(PartName::ClientRequest, &b"too much"[..]);
    admission
        .refusal(vec![part], |parts, key| Refusal {
            exchange: None,
            reason: id("policy"),
            status: 403,
            count: None,
            first: None,
            last: None,
            caller: None,
            asked: None,
            verdict: None,
            parts,
            content_key: key,
            retention: Some(id("standard")),
            suppression: Vec::new(),
            limit: None,
            translation: None,
        })
        .await
        .unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    assert_eq!(log.kinds(), ["boot", "config", "refusal", "close"]);
    assert_eq!(
        log.content(&exchange, PartName::ClientRequest),
        Some(&Content::Proven(Bytes::from_static(b"too much")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_before_authentication_is_folded_and_counted_whole() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let mut single = 0;
    for _ in 0..500 {
        match ledger.refuse_before_authentication(id("unknown_key"), 401).await.unwrap() {
            PreAuth::Recorded(_) => single += 1,
            PreAuth::Folded => {}
        }
    }
    tokio::time::sleep(Duration::from_millis(1000)).await;
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    let counts: Vec<u64> = log
        .bodies()
        .filter_map(|body| match body {
            Body::Refusal(refusal) => Some(refusal.count.unwrap_or(1)),
            _ => None,
        })
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 500);
    assert!(single <= 40, "{single} single records");
    assert!(counts.len() < 60, "{} records", counts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_whose_handles_are_dropped_is_closed_as_gateway_abort() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let open_exchange = begin(&ledger, KeyScope::PerExchange, b"{}").await.unwrap();
    let exchange = open_exchange.exchange().clone();
    let writer = open_exchange.part(PartName::ProviderResponse, None, None);
    writer.write(b"half an ", 0).unwrap();
    writer.write(b"answer", 8).unwrap();
    drop(open_exchange);
    drop(writer);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    let outcome = log.outcome(&exchange).unwrap();
    assert_eq!(outcome.end, End::GatewayAbort);
    assert_eq!(outcome.delivered_at_least, Some(8));
    assert_eq!(
        log.content(&exchange, PartName::ProviderResponse),
        Some(&Content::Proven(Bytes::from_static(b"half an answer")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_is_in_the_log_before_records_carry_it() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let next = Reference {
        media_type: id("application/yaml"),
        bytes: Bytes::from_static(b"deployment: acme # 2\n"),
    };
    let before = exchange(&ledger, KeyScope::PerExchange, b"{}", b"1").await.unwrap();
    ledger.config_changes(next.clone(), ConfigReason::Reload, None, None).await.unwrap();
    let after = exchange(&ledger, KeyScope::PerExchange, b"{}", b"2").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    let mut in_force = log.records[0].config;
    for record in &log.records {
        assert_eq!(record.config, in_force, "{}", record.body.kind());
        if let Body::Config(config) = &record.body {
            in_force = config.next;
        }
    }
    assert_eq!(in_force, next.sha256());
    assert!(log.outcome(&before).is_some() && log.outcome(&after).is_some());
    assert_eq!(log.dictionaries_and_documents().1.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_keeps_no_content_keeps_length_and_commitment() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let admission = ledger.admit(None, KeyScope::PerExchange).await.unwrap();
    admission.discard_content();
    let mut body = admission.body(PartName::ClientRequest);
    body.write(Bytes::from(noise(1, 3 << 20))).await.unwrap();
    let body = body.finish().await.unwrap();
    let open_exchange = admission.intent(vec![NewPart::stored(&body)], support::intent).await.unwrap();
    let exchange = open_exchange.exchange().clone();
    end(open_exchange, b"answer").await.unwrap();
    drop(body);
    // One that is left ends as its intent began: without a key.
    let admission = ledger.admit(None, KeyScope::PerExchange).await.unwrap();
    admission.discard_content();
    let head = NewPart::bytes(PartName::ClientRequest, Bytes::from_static(b"left"));
    let left = admission.intent(vec![head], support::intent).await.unwrap();
    let left_exchange = left.exchange().clone();
    drop(left);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    let part = &log.intent(&exchange).unwrap().parts[0];
    assert_eq!((part.length, part.kept), (3 << 20, Some(false)));
    let left = log.outcome(&left_exchange).unwrap();
    assert_eq!((left.end, &left.content_key), (End::GatewayAbort, &None));
    assert_eq!(log.content_bytes, 0);
    assert!(log.contents.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_holds_is_journaled_within_a_second() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let open_exchange = begin(&ledger, KeyScope::PerExchange, b"{}").await.unwrap();
    let writer = open_exchange.part(PartName::ProviderResponse, None, None);
    let bytes = || ledger.watermarks().journaled;
    writer.write(b"a token", 0).unwrap();
    let journaled = bytes();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    // The frame is found by a recovery of a copy of the disk as it is now.
    let copy = copy_of(&bed);
    let recovered = Ledger::open(copy.config()).unwrap();
    recovered.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&copy)[0];
    let found = log.outcome(open_exchange.exchange()).unwrap();
    assert_eq!(found.end, End::Interrupted);
    assert_eq!(found.parts[0].length, 7);
    assert!(journaled >= 3);
    drop(writer);
    open_exchange.outcome(Vec::new(), outcome).await.unwrap();
}

/// A copy of all folders: the disk of a host whose power went.
fn copy_of(bed: &Bed) -> Bed {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let other = Bed::real();
    copy(&bed.root, &other.root);
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_60_mib_is_sealed_like_any_other() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let request = noise(7, 60 << 20);
    let open_exchange = begin(&ledger, KeyScope::PerExchange, &request).await.unwrap();
    let exchange = open_exchange.exchange().clone();
    end(open_exchange, b"ok").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(120)).await.unwrap();
    let log = &verify(&bed)[0];
    assert_eq!(log.content(&exchange, PartName::ClientRequest), Some(&Content::Proven(request.into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spilled_body_can_be_read_before_and_after_its_intent() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let request = noise(8, (3 << 20) + 17);
    let admission = ledger.admit(Some(request.len() as u64), KeyScope::PerExchange).await.unwrap();
    let mut body = admission.body(PartName::ClientRequest);
    for piece in request.chunks(70_001) {
        body.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let body = body.finish().await.unwrap();
    assert!(body.is_spilled());
    let read = async || {
        let mut all = Vec::new();
        let mut chunks = body.chunks();
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        all
    };
    assert_eq!(read().await, request);
    let open_exchange = admission.intent(vec![NewPart::stored(&body)], support::intent).await.unwrap();
    // Sealed and archived while the exchange runs: the body can still be sent again.
    ledger.seal_now();
    assert!(ledger.wait_archived(open_exchange.position() + 1, CLOSE).await);
    assert_eq!(read().await, request);
    end(open_exchange, b"ok").await.unwrap();
    drop(body);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    verify(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_that_is_dropped_leaves_nothing() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let admission = ledger.admit(None, KeyScope::PerExchange).await.unwrap();
    let mut body = admission.body(PartName::ClientRequest);
    body.write(Bytes::from(noise(3, 2 << 20))).await.unwrap();
    let body = body.finish().await.unwrap();
    drop((admission, body));
    let spills = |folder: std::path::PathBuf| {
        std::fs::read_dir(folder)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".spill"))
            .count()
    };
    assert_eq!(spills(bed.root.join("journal").join(ledger.origin().epoch())), 0);
    assert_eq!(ledger.watermarks().reserved_bytes, 0);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert_eq!(verify(&bed)[0].kinds(), ["boot", "config", "close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_content_is_plain_and_verifies() {
    let bed = Bed::real();
    let mut config = bed.config();
    config.encryption = false;
    let ledger = Ledger::open(config).unwrap();
    let exchange = exchange(&ledger, KeyScope::PerExchange, b"request", b"answer").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    assert_eq!(log.intent(&exchange).unwrap().content_key, None);
    assert_eq!(
        log.content(&exchange, PartName::ProviderResponse),
        Some(&Content::Proven(Bytes::from_static(b"answer")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_there() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let tasks: Vec<_> = (0..200_u64)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let answer = noise(n, 20_000);
                (
                    exchange(&ledger, KeyScope::PerExchange, &noise(n + 1000, 3000), &answer).await.unwrap(),
                    answer,
                )
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    for (exchange, answer) in done {
        assert_eq!(log.content(&exchange, PartName::ProviderResponse), Some(&Content::Proven(answer.into())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_log_beats_and_says_its_counters() {
    let bed = Bed::real();
    let mut config = bed.config();
    config.heartbeat_bound = Duration::from_millis(400);
    let ledger = Ledger::open(config).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    let beats = log.kinds().iter().filter(|kind| **kind == "heartbeat").count();
    assert!(beats >= 3, "{beats}");
    for pair in log.records.windows(2) {
        assert!(pair[1].at - pair[0].at <= 600_000, "silence of {} us", pair[1].at - pair[0].at);
    }
    assert!(
        log.bodies().any(|body| matches!(body, Body::Heartbeat(beat) if beat.counters["exchanges"] == 3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_behind_close() {
    let bed = Bed::real();
    let mut config = bed.config();
    config.heartbeat_bound = Duration::from_millis(100);
    let ledger = Ledger::open(config).unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut written = 0;
                while ledger.gap(GapReason::Unrecorded, Some(1)).await.is_ok() {
                    written += 1;
                }
                written
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    let log = &verify(&bed)[0];
    assert_eq!(log.kinds().last(), Some(&"close"));
    assert_eq!(log.kinds().iter().filter(|kind| **kind == "gap").count(), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_ledger_admits_nothing_and_lets_running_exchanges_end() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let running = begin(&ledger, KeyScope::PerExchange, b"{}").await.unwrap();
    ledger.stop_admitting();
    let refused = ledger.admit(None, KeyScope::PerExchange).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Draining);
    end(running, b"the end").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert_eq!(verify(&bed)[0].kinds(), ["boot", "config", "intent", "outcome", "close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_parts_need_a_dictionary_that_a_log_of_many_batches_holds_once() {
    let bed = Bed::real();
    let ledger = open(&bed);
    let request =
        br#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Is it kept?"}],"stream":true}"#;
    let answer = b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1770000001,\"model\":\"gpt-4o-mini-2024-07-18\"}\n\ndata: [DONE]\n\n";
    for _ in 0..3 {
        exchange(&ledger, KeyScope::PerExchange, request, answer).await.unwrap();
        assert!(ledger.wait_archived(ledger.watermarks().journaled, CLOSE).await);
    }
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    assert!(log.batches >= 3, "{} batches", log.batches);
    assert_eq!(log.dictionaries_and_documents().0.len(), 1);
    let with = log.encodings.iter().filter(|(name, _)| name.starts_with("zstd_dict ")).map(|(_, of)| *of);
    let (rows, bytes) = with.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert_eq!(rows, 9, "{:?}", log.encodings);
    // Without salt, nonce and tag.
    let (stored, parts) = (bytes - rows * 60, 3 * (request.len() + answer.len()) as u64);
    assert!(stored * 3 < parts * 2, "{stored} of {parts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_200_turns_under_one_key_costs_at_most_a_twentieth_of_its_copies() {
    let bed = Bed::real();
    let mut config = bed.config();
    config.batch_age = Duration::from_secs(10);
    let ledger = Ledger::open(config).unwrap();
    let who = KeyScope::PerDay { who: "agent-7".into() };
    let mut history = String::from(r#"{"model":"gpt-5","messages":["#);
    let mut gzipped = 0;
    for turn in 0..200_u64 {
        let text = hex::encode(noise(turn, 600));
        history.push_str(&format!(r#"{{"role":"user","content":"turn {turn}: {text}"}},"#));
        let request = format!("{history}]}}");
        gzipped += zstd::bulk::compress(request.as_bytes(), 6).unwrap().len() as u64;
        exchange(&ledger, who.clone(), request.as_bytes(), b"ok").await.unwrap();
    }
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    assert!(
        log.bytes * 20 <= gzipped,
        "{} stored of {gzipped} compressed one by one: {:?}",
        log.bytes,
        log.encodings
    );
}

/// `cargo test -p evidence --test end_to_end -- --ignored --nocapture latency`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures, asserts none"]
async fn latency_of_one_caller() {
    use std::io::Write as _;
    let bed = Bed::real();
    let mut config = bed.config();
    config.batch_age = Duration::from_secs(10);
    let ledger = Ledger::open(config).unwrap();
    let probe = std::fs::File::create(bed.root.join("probe")).unwrap();
    let (mut syncs, mut admits, mut intents, mut outcomes) = (vec![], vec![], vec![], vec![]);
    for n in 0..2000_u64 {
        let begun = std::time::Instant::now();
        (&probe).write_all(&[0; 4096]).unwrap();
        probe.sync_data().unwrap();
        syncs.push(begun.elapsed());
        let begun = std::time::Instant::now();
        let admission = ledger.admit(Some(600), KeyScope::PerExchange).await.unwrap();
        admits.push(begun.elapsed());
        let part = NewPart::bytes(PartName::ClientRequest, noise(n, 600));
        let open = admission.intent(vec![part], support::intent).await.unwrap();
        intents.push(begun.elapsed());
        let begun = std::time::Instant::now();
        end(open, b"a short answer").await.unwrap();
        outcomes.push(begun.elapsed());
    }
    for (name, mut times) in
        [("fdatasync", syncs), ("admit", admits), ("admit to intent", intents), ("outcome", outcomes)]
    {
        times.sort();
        eprintln!("{name}: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}
