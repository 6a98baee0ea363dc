//! What becomes of exchanges that are under way when the brokers of `commit: kafka` go away, and the lease ends. The brokers are
//! those of the Kafka library's own tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};
use tests::client::{Call, Got, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Nobody may be slower than two thirds of it.
const LEASE: Duration = Duration::from_secs(6);
const FAILED: &str = r#"{"error":{"message":"m","type":"server_error","code":null}}"#;

/// A provider that answers the request of each number when it is told to: the last one well, the others with a failure.
struct Held {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    go: Arc<[Notify; 3]>,
}

impl Held {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, go) = (Arc::new(AtomicUsize::new(0)), Arc::new([const { Notify::const_new() }; 3]));
        let (counted, told) = (Arc::clone(&seen), Arc::clone(&go));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&counted), Arc::clone(&told)));
            }
        });
        Self { address, seen, go }
    }

    fn release(&self, number: usize) {
        self.go[number].notify_one();
    }
}

async fn answer(mut stream: TcpStream, seen: Arc<AtomicUsize>, go: Arc<[Notify; 3]>) {
    let mut text = String::new();
    let number = loop {
        let mut buffer = [0; 4096];
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if let Some(number) = (0..3).find(|number| text.ends_with(&question(*number))) {
            break number;
        }
    };
    seen.fetch_add(1, Ordering::SeqCst);
    go[number].notified().await;
    let (status, body) =
        if number < 2 { ("500 Internal Server Error", FAILED.to_owned()) } else { ("200 OK", long()) };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

fn question(number: usize) -> String {
    json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": format!("call {number}") }] })
        .to_string()
}

/// More than waits for the journal in memory, and its usage at the end.
fn long() -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}}}"#,
        "word ".repeat(20_000)
    )
}

fn ask(gateway: &Gateway, number: usize) -> tokio::task::JoinHandle<Got> {
    let call = Call::post("/two/v1/chat/completions", &gateway.key, question(number));
    let address = gateway.address;
    tokio::spawn(async move { send(address, &call).await })
}

async fn until(what: &str, gateway: &Gateway, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for {what}:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The names of a record's parts.
fn parts(record: &Value) -> Vec<&str> {
    let parts = record["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    parts.iter().filter_map(|part| part["part"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_lease_ends_nothing_is_sent_on_and_outcomes_tell_of_no_answer_but_their_own() {
    let brokers = MockCluster::new(1).expect("brokers");
    brokers.create_topic("affidavit-commit", 2, 1).expect("a topic");
    let dir = tempfile::tempdir().expect("a folder");
    let (held, second) = (Held::start().await, Provider::start([]).await);
    let evidence = format!(
        "  commit:\n    kafka:\n      brokers: [\"{}\"]\n      lease: {}s\n      timeout: 5s\n      secret: {{ file: {} }}\n",
        brokers.bootstrap_servers(),
        LEASE.as_secs(),
        tests::commit_secret(dir.path()).display()
    );
    let setup = Setup {
        provider: second.url(),
        evidence,
        providers: format!("  - {{ name: held, dialect: openai, base_url: \"http://{}\" }}\n", held.address),
        routes: "  - name: two\n    path: /two\n    estimate: off\n    \
                 targets: [{ name: first, provider: held }, { name: second, provider: openai, priority: 1 }]\n"
            .into(),
        ..Setup::default()
    };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let [early, late, whole] = [0, 1, 2].map(|number| ask(&gateway, number));
    until("three requests", &gateway, || held.seen.load(Ordering::SeqCst) == 3).await;
    brokers.broker_down(1).expect("the broker goes");
    // One fails while the lease holds, the others answer behind it.
    held.release(0);
    let mut got = vec![early.await.expect("an answer")];
    held.release(1);
    held.release(2);
    for other in [late, whole] {
        got.push(other.await.expect("an answer"));
    }
    for got in &got {
        assert_eq!((got.status, got.header("x-affidavit-reason")), (503, Some("no_lease")), "{}", got.text());
    }
    brokers.broker_up(1).expect("the broker is back");
    until("the lease", &gateway, || gateway.ready()).await;
    assert!(second.seen().is_empty(), "what nobody could be told of is not sent");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");

    let evidence = Evidence::read(&gateway);
    let ids: Vec<&str> = got.iter().map(|got| got.exchange().expect("an id")).collect();
    let outcome = |number: usize| evidence.outcome(ids[number]).expect("an outcome");
    let tried = |number: usize| -> Vec<String> {
        let of = evidence.of_kind("attempt").filter(|attempt| attempt["exchange"] == ids[number]);
        of.map(|attempt| format!("{} {}", attempt["number"], attempt["phase"].as_str().unwrap_or_default()))
            .collect()
    };
    // The second target's attempt is in the log, and was sent nothing.
    let early = outcome(0);
    assert_eq!(tried(0), ["0 end", "1 open"]);
    assert_eq!((&early["served"]["target"], &early["reason"]), (&json!("second"), &json!("no_lease")));
    assert_eq!((&early["provider_status"], &early["usage"]["role"]), (&Value::Null, &json!("none")));
    assert_eq!(parts(early), ["client_response", "error"]);
    // It is not even there.
    let late = outcome(1);
    assert_eq!(tried(1), ["0 end"]);
    assert_eq!((&late["served"], &late["provider_status"]), (&Value::Null, &json!(500)));
    assert_eq!(parts(late), ["provider_response_head", "provider_response"]);
    // What could not be kept was read.
    let whole = outcome(2);
    assert_eq!((&whole["end"], &whole["reason"]), (&json!("gateway_abort"), &json!("no_lease")));
    assert_eq!(
        (&whole["usage"]["source"], &whole["usage"]["output_tokens"]),
        (&json!("provider"), &json!(7)),
        "{whole}"
    );
}
