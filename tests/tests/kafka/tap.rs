//! The live tap into a real topic: every journaled leaf at least once, in its log's order, with the evidence's hash,
//! through a gateway that is killed and a broker that goes away.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Message as _};
use tests::Dice;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;
use tests::services::Kafka;
use tests::tapped::{Book, Tapped};

const TOPIC: &str = "affidavit-tap";

fn make_topic(kafka: &Kafka) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address.to_string());
    let work = || {
        let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let topic = NewTopic::new(TOPIC, 3, TopicReplication::Fixed(1));
        let made = runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new())).expect("a topic");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    };
    std::thread::scope(|scope| scope.spawn(work).join()).expect("the topic");
}

/// Reads the topic until it is silent.
fn read(kafka: &Kafka, book: &Book) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address.to_string());
    config.set("group.id", "siem").set("auto.offset.reset", "earliest").set("enable.auto.commit", "true");
    let reader: BaseConsumer = config.create().expect("a reader");
    reader.subscribe(&[TOPIC]).expect("a topic");
    let (begun, mut heard) = (Instant::now(), None::<Instant>);
    while begun.elapsed() < Duration::from_secs(20)
        && heard.is_none_or(|heard| heard.elapsed() < Duration::from_secs(3))
    {
        let Some(Ok(message)) = reader.poll(Duration::from_millis(200)) else { continue };
        heard = Some(Instant::now());
        let headers = message.headers().expect("headers");
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
            String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
        };
        book.put(Tapped {
            origin: String::from_utf8_lossy(message.key().expect("a key")).into_owned(),
            position: header("position").parse().expect("a position"),
            kind: header("kind"),
            hash: header("leaf_hash"),
            value: message.payload().expect("a value").to_vec(),
        });
    }
}

fn metric(gateway: &Gateway, line: &str) -> f64 {
    let text = gateway.admin_get("/metrics").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_topic_has_every_journaled_leaf_through_kills_and_a_broker_that_goes_away() {
    let rounds = if tests::long_round() { 30 } else { 4 };
    let mut dice = Dice::new(7);
    let mut kafka = Kafka::start();
    make_topic(&kafka);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let tap = format!(
        "  segment: 1MiB\n  tap:\n    - name: live\n      kafka: {{ brokers: [\"{}\"], timeout: 3s }}\n",
        kafka.address
    );
    let setup = Setup { provider: provider.url(), evidence: tap, ..Setup::default() };
    let mut gateway = Gateway::prepare(&dir.path().join("gw"), &setup);
    let begun = Instant::now();
    for round in 0..rounds {
        gateway.serve();
        if round % 2 == 1 {
            kafka.pause();
        }
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..4 {
            let (address, key) = (gateway.address, gateway.key.clone());
            callers.spawn(async move {
                for n in 0.. {
                    let body = serde_json::json!({ "model": "gpt-4o-mini",
                        "messages": [{ "role": "user", "content": format!("{caller} {n}") }] });
                    let call = Call::post("/openai/v1/chat/completions", &key, body.to_string());
                    if send(address, &call).await.status == 0 {
                        return;
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(400 + dice.below(1200))).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
        if round % 2 == 1 {
            kafka.resume();
        }
    }
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    gateway.serve();
    let waited = Instant::now();
    while metric(&gateway, "gateway_tap_records_behind{sink=\"live\"}") != 0.0
        || waited.elapsed() < Duration::from_secs(2)
    {
        assert!(waited.elapsed() < Duration::from_secs(60), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gateway.kill();
    let book = Book::default();
    read(&kafka, &book);
    book.wait_for("topic", &evidence).await;
    let (came, again) = book.hold_against("topic", &evidence);
    eprintln!(
        "{rounds} kills, {} leaves, {came} messages, {again} again; {:?}",
        evidence.leaves.len(),
        begun.elapsed()
    );
    assert!(evidence.leaves.len() > 100);
}
