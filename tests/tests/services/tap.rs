//! The live tap of the real gateway: what is journaled comes to every sink at least once and in order, through receivers
//! that fail and a gateway that is killed; a sink that is dead stands in nobody's way.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::Dice;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::process::{Process, free_port};
use tests::provider::Provider;
use tests::tapped::{Certificates, Mood, SyslogSink, WebhookSink, parse};

fn metric(gateway: &Gateway, line: &str) -> f64 {
    let text = gateway.admin_get("/metrics").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
}

async fn until(what: &str, gateway: &Gateway, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(40), "{what}; the gateway:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn call(key: &str, tag: &str) -> Call {
    let body =
        serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": tag }] });
    Call::post("/openai/v1/chat/completions", key, body.to_string())
}

/// Callers that go on until the gateway is dead; gives how many calls were answered.
fn load(gateway: &Gateway, callers: u64) -> tokio::task::JoinSet<u64> {
    let mut running = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (address, key) = (gateway.address, gateway.key.clone());
        running.spawn(async move {
            for n in 0.. {
                if send(address, &call(&key, &format!("{caller} {n}"))).await.status == 0 {
                    return n;
                }
            }
            0
        });
    }
    running
}

fn syslog(address: std::net::SocketAddr, dir: &Path) -> String {
    format!(
        "    - name: syslog\n      syslog:\n        address: 127.0.0.1:{}\n        server_name: localhost\n        confirm: 1s\n        \
         timeout: 2s\n        tls: {{ ca: {d}/ca.pem, certificate: {d}/client.pem, key: {d}/client.key }}\n",
        address.port(),
        d = dir.display()
    )
}

fn webhook(address: std::net::SocketAddr, more: &str) -> String {
    format!("    - name: hook\n      webhook:\n        url: http://{address}/in\n        timeout: 1s\n{more}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "kills a real process many times; the test command runs it"]
async fn every_journaled_leaf_comes_to_every_sink_through_kills_and_receivers_that_fail() {
    let rounds = if tests::long_round() { 40 } else { 6 };
    let mut dice = Dice::new(20_261_121);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let certificates = Certificates::new();
    certificates.write(dir.path());
    let receiver = SyslogSink::start(&certificates).await;
    let hook = WebhookSink::start(|n| match n % 9 {
        2 => Mood::Fail,
        4 => Mood::Throttle,
        5 => Mood::Slow,
        6 if n % 27 == 6 => Mood::Hang,
        7 => Mood::Cut,
        _ => Mood::Take,
    })
    .await;
    let tap = format!("  tap:\n{}{}", syslog(receiver.address, dir.path()), webhook(hook.address, ""));
    let evidence = format!("  segment: 1MiB\n{tap}");
    let setup = Setup { provider: provider.url(), evidence, ..Setup::default() };
    let mut gateway = Gateway::prepare(&dir.path().join("gw"), &setup);
    let begun = Instant::now();
    for round in 0..rounds {
        receiver.breaks_after.store(if round % 2 == 0 { 40 + dice.below(300) } else { 0 }, Ordering::Relaxed);
        gateway.serve();
        let mut callers = load(&gateway, 6);
        tokio::time::sleep(Duration::from_millis(300 + dice.below(1500))).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
    }
    receiver.breaks_after.store(0, Ordering::Relaxed);
    hook.set(|_| Mood::Take);
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    // What is left of it comes from the next process.
    gateway.serve();
    receiver.book.wait_for("syslog", &evidence).await;
    hook.book.wait_for("webhook", &evidence).await;
    gateway.kill();
    let syslog = receiver.book.hold_against("syslog", &evidence);
    let posted = hook.book.hold_against("webhook", &evidence);
    eprintln!(
        "{rounds} kills, {} leaves; syslog {} came, {} again, {} connections broken; webhook {} came, {} again, {} posts; {:?}",
        evidence.leaves.len(),
        syslog.0,
        syslog.1,
        receiver.broken.load(Ordering::Relaxed),
        posted.0,
        posted.1,
        hook.posts().len(),
        begun.elapsed()
    );
    assert!(evidence.leaves.len() > 100 && receiver.broken.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a real process; the test command runs it"]
async fn a_dead_sink_neither_slows_traffic_nor_keeps_disk_and_is_told_of() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let hook = WebhookSink::start(|_| Mood::Hang).await;
    let closed = free_port();
    let dead = format!("    - name: closed\n      webhook: {{ url: \"http://{closed}/\" }}\n");
    let tap = format!("  segment: 1MiB\n  tap_keep: 32KiB\n  tap:\n{}{dead}", webhook(hook.address, ""));
    let setup = Setup { provider: provider.url(), evidence: tap, ..Setup::default() };
    let mut gateway = Gateway::start(&dir.path().join("gw"), &setup);
    let calm = Setup { provider: provider.url(), ..Setup::default() };
    let mut other = Gateway::start(&dir.path().join("calm"), &calm);
    let run = async |gateway: &Gateway| {
        let begun = Instant::now();
        for n in 0..300 {
            let filler = "x".repeat(4000);
            let got = send(gateway.address, &call(&gateway.key, &format!("{n} {filler}"))).await;
            assert_eq!(got.status, 200, "{}", got.text());
        }
        begun.elapsed()
    };
    let (with, without) = (run(&gateway).await, run(&other).await);
    eprintln!("300 calls in a row: {with:?} with two dead sinks, {without:?} without a tap");
    assert!(with < 3 * without + Duration::from_secs(2), "{with:?}, without a tap {without:?}");
    until("everything is archived", &gateway, || {
        let mark = |mark: &str| metric(&gateway, &format!("gateway_records{{mark=\"{mark}\"}}"));
        mark("archived") >= mark("journaled")
    })
    .await;
    until("what is kept comes below its bound", &gateway, || {
        let kept = metric(&gateway, "gateway_tap_kept_bytes");
        (0.0..=32_768.0).contains(&kept)
    })
    .await;
    assert!(metric(&gateway, "gateway_journal_bytes") <= 4.0 * 1_048_576.0);
    assert!(metric(&gateway, "gateway_tap_records_behind{sink=\"hook\"}") > 600.0);
    assert!(metric(&gateway, "gateway_tap_errors_total{sink=\"closed\",reason=\"connect\"}") > 0.0);
    until("the age of what waits", &gateway, || {
        metric(&gateway, "gateway_tap_oldest_seconds{sink=\"closed\"}") > 0.5
    })
    .await;
    let ready = gateway.admin_get("/readyz").unwrap_or_default();
    assert!(ready.contains("200 OK") || ready.starts_with("ready"), "{ready}");
    assert!(ready.contains("the tap's sink `closed` does not take leaves"), "{ready}");
    // It comes back, and gets everything: out of the store what is not kept any more.
    hook.set(|_| Mood::Take);
    until("the sink has everything", &gateway, || {
        metric(&gateway, "gateway_tap_records_behind{sink=\"hook\"}") == 0.0
    })
    .await;
    assert_eq!(metric(&gateway, "gateway_tap_gap_total{sink=\"hook\"}"), 0.0);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    hook.book.wait_for("webhook", &evidence).await;
    hook.book.hold_against("webhook", &evidence);
    assert_eq!(other.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a real process; the test command runs it"]
async fn posts_are_signed_have_a_key_wait_as_they_are_told_and_get_smaller() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let hook = WebhookSink::start(|n| if n < 2 { Mood::Throttle } else { Mood::AtMost(3) }).await;
    let more = "        body: array\n        secret: { env: TAP_SECRET }\n        token: { env: TAP_TOKEN }\n        scheme: Splunk\n";
    let alerts = WebhookSink::start(|_| Mood::Take).await;
    let alerting = format!(
        "    - name: alerts\n      format: ocsf\n      only: alerts\n      kinds: [refusal, outcome]\n      webhook: {{ url: \"http://{}/x\" }}\n",
        alerts.address
    );
    let setup = Setup {
        provider: provider.url(),
        evidence: format!("  tap:\n{}{alerting}", webhook(hook.address, more)),
        environment: vec![("TAP_SECRET".into(), "s3cret".into()), ("TAP_TOKEN".into(), "t0ken".into())],
        ..Setup::default()
    };
    let mut gateway = Gateway::start(&dir.path().join("gw"), &setup);
    for n in 0..20 {
        assert_eq!(send(gateway.address, &call(&gateway.key, &n.to_string())).await.status, 200);
    }
    let begun = Instant::now();
    assert_eq!(send(gateway.address, &call("afk_wrong", "x")).await.status, 401);
    until("the refusal is told of", &gateway, || !alerts.book.all().is_empty()).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    until("all comes in small posts", &gateway, || {
        metric(&gateway, "gateway_tap_records_behind{sink=\"hook\"}") == 0.0
    })
    .await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    hook.book.wait_for("webhook", &evidence).await;
    let posts = hook.posts();
    assert!(posts[1].at - posts[0].at >= Duration::from_millis(990), "Retry-After: 1 was not heard");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret");
    let header = |post: &tests::tapped::Post, name: &str| {
        post.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    for post in &posts {
        assert_eq!(header(post, "authorization"), "Splunk t0ken");
        let signature = header(post, "x-affidavit-signature");
        let (time, tag) =
            signature.strip_prefix("t=").and_then(|s| s.split_once(",v1=")).expect("a signature");
        let signed = [time.as_bytes(), b".", &post.body].concat();
        assert!(ring::hmac::verify(&key, &signed, &hex::decode(tag).expect("hex")).is_ok());
        // Equal keys, equal bodies.
        for other in &posts {
            let same = header(post, "idempotency-key") == header(other, "idempotency-key");
            assert_eq!(same, post.body == other.body);
        }
    }
    assert!(posts.iter().filter(|post| post.mood == Mood::AtMost(3)).count() > 5);
    // Alerts are events of what was refused, and of nothing else.
    let alerts = alerts.book.all();
    assert!(alerts.iter().all(|alert| alert.kind == "refusal"), "{alerts:?}");
    let event: serde_json::Value = serde_json::from_slice(&alerts[0].value).expect("JSON");
    assert_eq!((&event["class_uid"], &event["severity_id"]), (&6003.into(), &3.into()));
    assert_eq!(event["metadata"]["uid"], format!("{}/{}", alerts[0].origin, alerts[0].position));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rsyslog"]
async fn rsyslog_has_everything_after_it_was_killed_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    Certificates::new().write(dir.path());
    let address = free_port();
    let d = dir.path().display().to_string();
    let config = format!(
        "global(workDirectory=\"{d}\" defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{d}/ca.pem\" \
         defaultNetstreamDriverCertFile=\"{d}/server.pem\" defaultNetstreamDriverKeyFile=\"{d}/server.key\")\n\
         module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{}\")\n\
         template(name=\"whole\" type=\"string\" string=\"<%pri%>1 %timestamp:::date-rfc3339% %hostname% %app-name% %procid% %msgid% \
         %structured-data% %msg%\\n\")\n\
         action(type=\"omfile\" file=\"{d}/received.log\" template=\"whole\" asyncWriting=\"off\" flushOnTXEnd=\"on\")\n",
        address.port()
    );
    let file = dir.path().join("rsyslog.conf");
    std::fs::write(&file, format!("$MaxMessageSize 128k\n{config}")).expect("a configuration");
    let start = || {
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(&file).arg("-i").arg(dir.path().join("pid"));
        Process::listening(&mut command, &dir.path().join("rsyslogd.log"), address)
    };
    let mut rsyslog = start();
    let evidence = format!("  tap:\n{}", syslog(address, dir.path()));
    let setup = Setup { provider: provider.url(), evidence, ..Setup::default() };
    let mut gateway = Gateway::start(&dir.path().join("gw"), &setup);
    let sent = Arc::new(AtomicU64::new(0));
    for round in 0..3 {
        for n in 0..40 {
            assert_eq!(send(gateway.address, &call(&gateway.key, &format!("{round} {n}"))).await.status, 200);
            sent.fetch_add(1, Ordering::Relaxed);
        }
        drop(rsyslog);
        tokio::time::sleep(Duration::from_millis(300)).await;
        rsyslog = start();
    }
    until("rsyslog has read all", &gateway, || {
        metric(&gateway, "gateway_tap_records_behind{sink=\"syslog\"}") == 0.0
    })
    .await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    let book = tests::tapped::Book::default();
    let text = std::fs::read_to_string(dir.path().join("received.log")).expect("what rsyslog wrote");
    for line in text.lines().filter(|line| line.contains("affidavit@32473")) {
        // rsyslog puts a space of its own before the message.
        book.put(parse(line.replacen("]  {", "] {", 1).as_bytes()));
    }
    book.wait_for("rsyslog", &evidence).await;
    let (came, again) = book.hold_against("rsyslog", &evidence);
    eprintln!("rsyslog: {} leaves, {came} came, {again} again", evidence.leaves.len());
    rsyslog.stop();
}
