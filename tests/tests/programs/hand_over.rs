//! Another process takes the gateway's place under load: no call is refused, none fails, and both logs are whole.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::process::Process;
use tests::provider::Provider;
use tests::registrar::directory;

/// What all callers share.
struct Load {
    address: SocketAddr,
    key: String,
    stop: AtomicBool,
    /// The exchange of each call that was answered whole.
    answered: Mutex<BTreeSet<String>>,
    connections: AtomicU64,
}

impl Load {
    fn new(gateway: &Gateway) -> Arc<Self> {
        Arc::new(Self {
            address: gateway.address,
            key: gateway.key.clone(),
            stop: AtomicBool::new(false),
            answered: Mutex::default(),
            connections: AtomicU64::new(0),
        })
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn request(&self, stream: bool) -> Request<Full<Bytes>> {
        let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": stream,
            "messages": [{ "role": "user", "content": "hand over" }] });
        Request::post(format!("http://{}/openai/v1/chat/completions", self.address))
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .expect("a request")
    }

    fn note(&self, exchange: &str) {
        assert!(self.answered.lock().expect("no caller died").insert(exchange.to_owned()));
    }

    /// Reads an answer to its end.
    async fn take(&self, response: Response<Incoming>, who: &str) -> bool {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{who}: its answer was cut: {error}"));
        assert_eq!(head.status, 200, "{who}: {:?}", body.to_bytes());
        let exchange = head.headers.get("x-affidavit-exchange").and_then(|id| id.to_str().ok());
        self.note(exchange.expect("an exchange's id"));
        head.headers.get("connection").is_some_and(|value| value == "close")
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let stream = tokio::net::TcpStream::connect(self.address).await.expect("a connection is taken");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }

    /// One connection for as long as the gateway keeps it, `pause` between calls. Nothing is tried again.
    async fn kept(self: Arc<Self>, pause: Duration, stream: bool) {
        let mut sender = self.connect().await;
        while self.goes_on() {
            let mut request = self.request(stream);
            *request.uri_mut() = "/openai/v1/chat/completions".parse().expect("a path");
            let response = sender.send_request(request).await.expect("a kept connection answers");
            let closes = self.take(response, "kept").await;
            tokio::time::sleep(pause).await;
            if closes {
                sender = self.connect().await;
            }
        }
    }

    /// A connection for each call.
    async fn fresh(self: Arc<Self>) {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hand over"}]}"#;
        while self.goes_on() {
            let call =
                Call::post("/openai/v1/chat/completions", &self.key, body).header("connection", "close");
            let got = send(self.address, &call).await;
            assert!(got.status == 200 && got.whole, "fresh: {} {}", got.status, got.text());
            self.connections.fetch_add(1, Ordering::Relaxed);
            self.note(got.exchange().expect("an exchange's id"));
        }
    }

    /// Calls over HTTP/2, several at once on one connection.
    async fn http2(self: Arc<Self>) {
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        while self.goes_on() {
            let calls = (0..4).map(|n| client.request(self.request(n == 0)));
            for response in futures_util::future::join_all(calls).await {
                self.take(response.expect("HTTP/2 answers"), "HTTP/2").await;
            }
        }
    }

    fn start(self: &Arc<Self>) -> tokio::task::JoinSet<()> {
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..8 {
            callers.spawn(self.clone().kept(Duration::from_millis(n * 3), n == 0));
        }
        callers.spawn(self.clone().kept(Duration::from_millis(1500), false));
        for _ in 0..4 {
            callers.spawn(self.clone().fresh());
        }
        callers.spawn(self.clone().http2());
        callers
    }

    /// Ends the callers: each of their calls must have been answered.
    async fn end(&self, mut callers: tokio::task::JoinSet<()>) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = callers.join_next().await {
            ended.expect("a caller whose calls were all answered");
        }
        self.answered.lock().expect("no caller died").clone()
    }
}

/// The old process ends by itself, with success.
async fn ends(old: Option<Process>, gateway: &Gateway) {
    let mut old = old.expect("a process before");
    let begun = Instant::now();
    loop {
        if let Some(status) = old.ended() {
            assert!(status.success(), "{status}\n{}", gateway.log());
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "it does not end:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_recorded(gateway: &Gateway, answered: &BTreeSet<String>) {
    let evidence = Evidence::read(gateway);
    for exchange in answered {
        let end = evidence.outcome(exchange).map(|outcome| outcome["end"].as_str());
        assert_eq!(end, Some(Some("complete")), "{exchange}");
    }
    // Each log but the last names the next one, and that one names it.
    let origins: BTreeSet<String> = evidence.leaves.iter().map(|leaf| leaf.origin.to_string()).collect();
    let of = |kind: &str, key: &str| -> Vec<(String, Option<String>)> {
        let leaves = evidence.leaves.iter().filter(|leaf| leaf.value["kind"] == kind);
        let named = |value: &serde_json::Value| {
            let named = &value[key];
            named.as_str().or(named["origin"].as_str()).map(str::to_owned)
        };
        leaves.map(|leaf| (leaf.origin.to_string(), named(&leaf.value))).collect()
    };
    let successors = of("close", "successor");
    let predecessors = of("boot", "predecessor");
    assert_eq!((successors.len(), predecessors.len()), (origins.len(), origins.len()));
    let handed: Vec<_> = successors.iter().filter_map(|(log, next)| Some((log, next.as_ref()?))).collect();
    assert_eq!(handed.len() + 1, origins.len(), "{successors:?}");
    for (log, next) in handed {
        assert!(predecessors.contains(&(next.clone(), Some(log.clone()))), "{log} {next} {predecessors:?}");
    }
    let refused = evidence.of_kind("refusal").count();
    assert_eq!(refused, 0, "nothing was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_replaced_under_load_without_one_failed_call() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), limits: "  drain: 8s\n".into(), ..Setup::default() };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let config = dir.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration").replacen("  drain: 50s\n", "", 1);
    std::fs::write(&config, text).expect("the configuration");
    gateway.serve();
    let load = Load::new(&gateway);
    let callers = load.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rounds = if tests::long_round() { 10 } else { 3 };
    let begun = Instant::now();
    for _ in 0..rounds {
        let old = tokio::task::block_in_place(|| gateway.take_over(&[]));
        assert!(gateway.ready(), "the new process answers on the admin address");
        ends(old, &gateway).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let answered = load.end(callers).await;
    let connections = load.connections.load(Ordering::Relaxed);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    eprintln!(
        "{rounds} hand-overs in {} s: {} calls over {connections} connections, none refused, none failed",
        begun.elapsed().as_secs(),
        answered.len()
    );
    assert!(answered.len() > 300 && connections > 60, "{} {connections}", answered.len());
    is_recorded(&gateway, &answered);
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    assert_eq!(out.matches("closed (shutdown)").count(), rounds + 1, "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_runs_ends_where_it_began_and_the_new_process_serves_meanwhile() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let body = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"slow"}]}"#;
    let slow =
        Call::post("/openai/v1/chat/completions", &gateway.key, body).header("x-replay", "script:slow:400");
    let (address, key) = (gateway.address, gateway.key.clone());
    let begun = Instant::now();
    let slow = tokio::spawn(async move { send(address, &slow).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let old = tokio::task::block_in_place(|| gateway.take_over(&[]));
    gateway.wait_for_log("leaving: another gateway takes new connections", 1).await;
    assert!(!slow.is_finished(), "the stream still runs, {:?}", begun.elapsed());
    let got = send(address, &Call::post("/openai/v1/chat/completions", &key, body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let slow = slow.await.expect("a caller");
    assert!(slow.status == 200 && slow.whole, "{} {}", slow.status, slow.text());
    ends(old, &gateway).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    let log_of = |id: &str| {
        let is =
            |leaf: &&tests::oracle::Leaf| leaf.value["kind"] == "outcome" && leaf.value["exchange"] == id;
        evidence.leaves.iter().find(is).map(|leaf| leaf.origin.to_string()).expect("its outcome")
    };
    let (one, other) = (slow.exchange().expect("an id"), got.exchange().expect("an id"));
    // The names of epochs do not tell which was first: they may begin in one second.
    let is = |leaf: &&tests::oracle::Leaf| {
        leaf.value["kind"] == "close" && leaf.value["successor"] == log_of(other).as_str()
    };
    let before = evidence.leaves.iter().find(is).map(|leaf| leaf.origin.to_string());
    assert_eq!(before.as_ref(), Some(&log_of(one)), "the stream belongs to the old process");
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_cannot_start_takes_nothing_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    // A key table where no folder can be made: it gets the sockets, and dies before it serves.
    let config = dir.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(dir.path().join("file"), "").expect("a file");
    let broken = text.replace("/keytable\n", "/file/keytable\n");
    std::fs::write(dir.path().join("broken.yaml"), broken).expect("the configuration");
    let output = std::process::Command::new(tests::binary("gateway"))
        .args(["serve", "--take-over", "-c"])
        .arg(dir.path().join("broken.yaml"))
        .output()
        .expect("the gateway's binary");
    assert!(!output.status.success());
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    for _ in 0..20 {
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    assert!(gateway.log().contains("it ended before it served"), "{}", gateway.log());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}

/// One call, which must be answered; its exchange.
async fn one_call(gateway: &Gateway) -> String {
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    got.exchange().expect("an exchange's id").to_owned()
}

/// The gateway that serves erases it.
fn is_erased(gateway: &Gateway, exchange: &str) {
    let (code, said) = gateway.run(&["erase", "--exchange", exchange]);
    assert!(code == 0 && said.contains(&format!("{exchange} erased\n")), "{code} {said}");
    assert!(!said.contains("no gateway serves here"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_takes_over_at_a_time_and_those_that_die_or_are_stopped_leave_the_old_one_serving() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let sockets = dir.path().join("journal/admin");
    let mode = std::fs::metadata(&sockets).expect("the admin socket's folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Whoever starts waits behind this lock, with the sockets in its hands and its log not yet open.
    let opening = File::open(dir.path().join("journal/opening.lock")).expect("the lock of starts");
    opening.lock().expect("no start runs");
    for round in 1..=5 {
        let mut taker = gateway.spawn_take_over();
        gateway.wait_for_log("asks to take this one's place", round).await;
        let (code, said) = gateway.run(&["serve", "--take-over"]);
        let wanted = format!("process {} is taking this gateway's place", taker.id());
        assert!(code == 1 && said.contains(&wanted), "{code} {said}");
        one_call(&gateway).await;
        if round % 2 == 0 {
            taker.signal(Signal::HUP);
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(taker.ended().is_none(), "SIGHUP ends no start:\n{}", gateway.log());
            let begun = Instant::now();
            let code = tokio::task::block_in_place(|| taker.stop());
            assert!(
                code == Some(0) && begun.elapsed() < Duration::from_secs(8),
                "{code:?}\n{}",
                gateway.log()
            );
        } else {
            drop(taker);
        }
        gateway.wait_for_log("it ended before it served", round).await;
        let exchange = one_call(&gateway).await;
        is_erased(&gateway, &exchange);
    }
    assert!(gateway.ready());
    drop(opening);
    let old = tokio::task::block_in_place(|| gateway.take_over(&[]));
    one_call(&gateway).await;
    ends(old, &gateway).await;
    let exchange = one_call(&gateway).await;
    is_erased(&gateway, &exchange);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert!(!sockets.join("admin.sock").exists());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    // Those that were stopped had no log yet.
    assert_eq!(out.matches("closed (shutdown)").count(), 2, "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_runs_holds_up_no_hand_over_and_is_done_all_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let exchange = one_call(&gateway).await;
    // The store takes nothing: an erasure waits until it does.
    let temporary = gateway.store().join(".tmp");
    let aside = dir.path().join("aside");
    std::fs::rename(&temporary, &aside).expect("the store's temporary folder");
    std::fs::write(&temporary, "").expect("a file in its place");
    let kept = one_call(&gateway).await;
    let mut erasing = gateway
        .command(&["erase", "--exchange", &exchange])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the gateway's binary");
    gateway.wait_for_log("erasure asked for", 1).await;
    let old = tokio::task::block_in_place(|| gateway.take_over(&[]));
    let (mut old, begun) = (old.expect("a process before"), Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(old.ended().is_none(), "it has an erasure to do:\n{}", gateway.log());
        one_call(&gateway).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(erasing.try_wait().expect("a child").is_none());
    std::fs::remove_file(&temporary).expect("the file");
    std::fs::rename(&aside, &temporary).expect("the folder");
    let done = tokio::task::block_in_place(|| erasing.wait_with_output()).expect("a child");
    let said = String::from_utf8_lossy(&done.stdout);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said == format!("{exchange} erased\n"), "{said}{told}");
    ends(Some(old), &gateway).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    let erased = out.lines().find(|line| line.trim_start().starts_with("content:")).unwrap_or_default();
    assert!(!erased.is_empty() && !erased.contains(" 0 erased"), "{out}");
    let evidence = Evidence::read(&gateway);
    assert!(
        evidence.content(&kept, "client_request").is_some()
            && evidence.content(&exchange, "client_request").is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rotated_under_load_without_a_gap() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::prepare(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let deployment = Deployment::new(&dir.path().join("registry"));
    let mut registrar = deployment.registrar("registrar", &directory(&gateway.store()), &[]);
    let old_key = gateway.seal_key();
    deployment.enroll("gw1", &old_key);
    registrar.spawn();
    gateway.serve();
    let trust = deployment.trust_file().display().to_string();
    let state = dir.path().join("state").display().to_string();
    let audit = || {
        let store = gateway_store(dir.path());
        let args = ["verify", &store, "--trust", &trust, "--state", &state].map(str::to_owned);
        let output =
            std::process::Command::new(tests::binary("auditor")).args(args).output().expect("the auditor");
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.code().unwrap_or(-1), said)
    };
    let load = Load::new(&gateway);
    let callers = load.start();
    // The old log must be registered before the key is rotated: one that is opened later under it does not count.
    registrar.until_said(&audit, &|_, said| said.contains("1 keys, 1 logs"));
    let new_key = deployment.key("new.key").display().to_string();
    deployment.sign("rotate", &["rotate-key", "--gateway", "gw1", "--key", &new_key, "--replaces", &old_key]);
    registrar.until_said(&audit, &|_, said| said.contains("2 keys, 1 logs"));
    let config = dir.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration").replace(&old_key, &new_key);
    std::fs::write(&config, text).expect("the configuration");
    let old = tokio::task::block_in_place(|| gateway.take_over(&[]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answered = load.end(callers).await;
    ends(old, &gateway).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let said = registrar.until_said(&audit, &|code, said| code == 0 && said.contains("2 keys, 2 logs"));
    assert!(said.starts_with("VERIFIED"), "{said}");
    assert!(answered.len() > 100, "{}", answered.len());
    // The log of the new key alone does not count under a trust file that names the old key only.
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 1 && out.contains("UNTRUSTED_KEY"), "{out}{err}");
}

fn gateway_store(dir: &std::path::Path) -> String {
    dir.join("store").display().to_string()
}
