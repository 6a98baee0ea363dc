//! Quotas that gateways share on a real Redis, a cluster and behind Sentinels: two never spend more than one may, a dead one
//! gives back what it reserved, a Redis that is away is met as configured, and counting goes on with a master's replica.

#![allow(clippy::print_stdout, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::client::{Call, Leave, send, send_until};
use tests::gateway::{Gateway, Setup};
use tests::process::ran;
use tests::provider::Provider;
use tests::services::{Redis, RedisCluster, Sentinels};

fn quotas(redis: &Redis, more: &str, rule: &str) -> String {
    format!(
        "quotas:\n  store:\n    redis: {{ urls: [\"redis://{}\"], lease: 3s, timeout: 2s{more} }}\n  rules:\n    - {{ name: r, {rule} }}\n",
        redis.address
    )
}

fn gateway(dir: &Path, name: &str, provider: &Provider, rest: &str) -> Gateway {
    let setup = Setup { provider: provider.url(), name: name.into(), rest: rest.into(), ..Setup::default() };
    Gateway::start(&dir.join(name), &setup)
}

fn call(gateway: &Gateway) -> Call {
    let body = r#"{"model":"gpt-4o-mini","max_tokens":50,"messages":[{"role":"user","content":"x"}]}"#;
    Call::post("/openai/v1/chat/completions", &gateway.key, body)
}

async fn status(gateway: &Gateway) -> u16 {
    send(gateway.address, &call(gateway)).await.status
}

/// Waits until a call gets this answer.
async fn until(wanted: u16, gateway: &Gateway) -> Duration {
    let begun = Instant::now();
    loop {
        let status = status(gateway).await;
        if status == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{status}, wanted {wanted}:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn two_gateways_never_spend_more_than_one_may() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, redis) = (Provider::start([]).await, Redis::start());
    let rest = quotas(&redis, "", "count: requests, limit: 40, per: 1d, by: [consumer]");
    let gateways =
        [gateway(dir.path(), "gw1", &provider, &rest), gateway(dir.path(), "gw2", &provider, &rest)];
    let calls = gateways.iter().flat_map(|gateway| (0..60).map(move |_| status(gateway)));
    let all = futures_util::future::join_all(calls).await;
    assert_eq!(all.iter().filter(|status| **status == 200).count(), 40, "{all:?}\n{}", gateways[0].log());
    assert_eq!(all.iter().filter(|status| **status == 429).count(), 80);
    // Nothing of the caller stands there, and all of it ends.
    for key in redis.cli(&["KEYS", "*"]).lines().filter(|line| !line.is_empty()) {
        assert!(key.starts_with("{affidavit}:") && !key.contains("tester"), "{key}");
        let left: i64 = redis.cli(&["PTTL", key]).trim().parse().expect("a number");
        assert!(left > 0, "{key} {left}");
    }
    println!("120 calls at two gateways, 40 allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn what_a_killed_gateway_had_reserved_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, redis) = (Provider::start([]).await, Redis::start());
    let rest = quotas(&redis, "", "count: concurrency, limit: 1");
    let mut first = gateway(dir.path(), "gw1", &provider, &rest);
    let second = gateway(dir.path(), "gw2", &provider, &rest);
    let body = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    let stalled =
        Call::post("/openai/v1/chat/completions", &first.key, body).header("x-replay", "script:stall:2");
    let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_secs(30)) };
    let address = first.address;
    let streaming = tokio::spawn(async move { send_until(address, &stalled, leave).await });
    // The place is the stream's before anybody else asks for it.
    while provider.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(429, &second).await;
    // A stream that lives keeps its place, far longer than a lease.
    for _ in 0..25 {
        assert_eq!(status(&second).await, 429);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    first.kill();
    let took = until(200, &second).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    drop(streaming.await);
    println!("free {took:?} after the kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn a_redis_that_is_away_is_met_as_configured() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, mut redis) = (Provider::start([]).await, Redis::start());
    let rule = "count: requests, limit: 2, per: 1d";
    let ways = [("closed", [503, 503, 503]), ("open", [200, 200, 200]), ("local", [200, 200, 429])];
    let gateways: Vec<_> = ways
        .iter()
        .map(|(way, _)| {
            let rest = quotas(&redis, &format!(", when_down: {way}, prefix: {way}"), rule);
            gateway(dir.path(), way, &provider, &rest)
        })
        .collect();
    for gateway in &gateways {
        assert_eq!(status(gateway).await, 200, "{}", gateway.log());
    }
    redis.kill();
    for (gateway, (way, wanted)) in gateways.iter().zip(&ways) {
        let begun = Instant::now();
        for wanted in wanted {
            assert_eq!(status(gateway).await, *wanted, "{way}\n{}", gateway.log());
        }
        assert!(begun.elapsed() < Duration::from_secs(6), "nobody waits for one that is down");
        let text = gateway.admin_get("/metrics").expect("metrics");
        let line = format!("gateway_quota_store_down_total{{result=\"{way}\"}}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    // It comes back, empty.
    redis.resume();
    until(200, &gateways[0]).await;
    until(200, &gateways[0]).await;
    until(429, &gateways[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn a_redis_with_tls_and_a_user_is_used_and_another_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("the certificate");
    let redis = Redis::start_with(|folder| {
        let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&cert, made.cert.pem()).expect("the certificate");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("its key");
        let text = |path: &Path| path.display().to_string();
        let options =
            ["--tls-cert-file", &text(&cert), "--tls-key-file", &text(&key), "--tls-auth-clients", "no"];
        let user = ["--user", "gateway", "on", ">secret-of-redis", "~{affidavit}:*", "+@all"];
        options.iter().chain(&user).map(|option| (*option).to_owned()).collect()
    });
    let password = dir.path().join("redis.password");
    std::fs::write(&password, "secret-of-redis\n").expect("the password");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("its mode");
    let rest = |user: &str| {
        format!(
            "quotas:\n  store:\n    redis:\n      urls: [\"rediss://localhost:{}\"]\n      tls: {{ ca: {} }}\n      username: {user}\n      password: {{ file: {} }}\n      timeout: 2s\n  rules:\n    - {{ name: r, count: requests, limit: 1, per: 1d }}\n",
            redis.address.port(),
            ca.display(),
            password.display()
        )
    };
    let good = gateway(dir.path(), "good", &provider, &rest("gateway"));
    assert_eq!(status(&good).await, 200, "{}", good.log());
    assert_eq!(status(&good).await, 429, "{}", good.log());
    let bad = gateway(dir.path(), "bad", &provider, &rest("nobody"));
    assert_eq!(status(&bad).await, 503);
    assert!(bad.log().contains("the store of quotas does not answer"), "{}", bad.log());
    for gateway in [&good, &bad] {
        assert!(!gateway.log().contains("secret-of-redis"));
        let shown = ran(Command::new(tests::binary("gateway"))
            .args(["check", "-c"])
            .arg(gateway.dir.join("gateway.yaml")));
        assert!(!shown.contains("secret-of-redis"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn a_question_without_an_answer_in_time_is_given_back_and_ends_no_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, redis) = (Provider::start([]).await, Redis::start());
    let rest = quotas(&redis, "", "count: requests, limit: 2, per: 1d");
    let gateway = gateway(dir.path(), "gw1", &provider, &rest);
    assert_eq!(status(&gateway).await, 200, "{}", gateway.log());
    redis.cli(&["CLIENT", "PAUSE", "2500"]);
    assert_eq!(status(&gateway).await, 503, "{}", gateway.log());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&gateway).await, 200, "{}", gateway.log());
    assert_eq!(status(&gateway).await, 429, "{}", gateway.log());
    assert!(!gateway.log().contains("the store of quotas is lost"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn a_caller_that_leaves_while_it_is_reserved_for_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, redis) = (Provider::start([]).await, Redis::start());
    let rest = format!(
        "quotas:\n  store:\n    redis: {{ urls: [\"redis://{}\"], lease: 1h, timeout: 5s }}\n  rules:\n    - {{ name: r, count: concurrency, limit: 1 }}\n",
        redis.address
    );
    let gateway = gateway(dir.path(), "gw1", &provider, &rest);
    assert_eq!(status(&gateway).await, 200, "{}", gateway.log());
    redis.cli(&["CLIENT", "PAUSE", "1500"]);
    let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_millis(300)) };
    let left = send_until(gateway.address, &call(&gateway), leave).await;
    assert_eq!(left.status, 0, "it left before any answer");
    // Its place is free long before a lease would end.
    assert!(until(200, &gateway).await < Duration::from_secs(10), "{}", gateway.log());
    for key in redis.cli(&["KEYS", "*:0"]).lines().filter(|line| !line.is_empty()) {
        assert_eq!(redis.cli(&["HGET", key, "h"]).trim(), "0", "{key}");
    }
    let refused = gateway.admin_get("/metrics").expect("metrics");
    assert!(!refused.contains("gateway_quota_unsettled_total 1"), "{refused}");
    assert_eq!(provider.seen().len(), 2, "who left was never sent on");
}

/// One gateway key at two gateways, with a counter for each `x-app`.
struct Pair {
    gateways: [Gateway; 2],
    provider: Provider,
}

const LIMIT: usize = 60;

impl Pair {
    async fn start(dir: &Path, store: &str) -> Self {
        let provider = Provider::start([]).await;
        let rest = format!(
            "quotas:\n  store:\n    redis: {{ {store}, lease: 10s, timeout: 2s }}\n  rules:\n    - {{ name: r, count: requests, limit: {LIMIT}, per: 1d, by: [consumer, 'header:x-app'] }}\n"
        );
        let gateways = [gateway(dir, "gw1", &provider, &rest), gateway(dir, "gw2", &provider, &rest)];
        Self { gateways, provider }
    }

    /// So many callers at once at both; how many passed, were over the limit, and met no store.
    async fn at_once(&self, app: &str, count: usize) -> [usize; 3] {
        let one = |place: usize| {
            let gateway = &self.gateways[place % 2];
            let call = call(gateway).header("x-app", app);
            async move { send(gateway.address, &call).await.status }
        };
        let all = futures_util::future::join_all((0..count).map(one)).await;
        let counts = [200, 429, 503].map(|wanted| all.iter().filter(|status| **status == wanted).count());
        assert_eq!(counts.iter().sum::<usize>(), count, "{all:?}");
        counts
    }

    /// Calls until both have passed or refused one again; how many passed, how many met no store, and how long it took.
    async fn until_it_counts(&self, app: &str) -> (usize, usize, Duration) {
        let (mut passed, mut down, begun) = (0, 0, Instant::now());
        for gateway in &self.gateways {
            loop {
                let status = send(gateway.address, &call(gateway).header("x-app", app)).await.status;
                passed += usize::from(status == 200);
                down += usize::from(status == 503);
                if status != 503 {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(40), "{}", gateway.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        (passed, down, begun.elapsed())
    }

    /// Counting before, while and after `kill` ends the master.
    async fn outlives(mut self, kill: impl FnOnce()) {
        let [passed, full, down] = self.at_once("calm", 100).await;
        assert_eq!((passed, full, down), (LIMIT, 40, 0), "{}", self.gateways[0].log());
        let [quiet, ..] = self.at_once("quiet", 30).await;
        assert_eq!(quiet, 30);
        // What is settled has reached the replica.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = self.provider.seen().len();
        let busy = async { self.at_once("busy", 40).await };
        let killed = async {
            while self.provider.seen().len() < before + 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            kill();
        };
        let ([busy, over, met_none], ()) = tokio::join!(busy, killed);
        assert_eq!(over, 0);
        let (more, down, took) = self.until_it_counts("quiet").await;
        let [after, refused, late] = self.at_once("quiet", 100).await;
        assert_eq!((quiet + more + after, late), (LIMIT, 0), "{refused}\n{}", self.gateways[0].log());
        let [again, ..] = self.at_once("busy", 100).await;
        // Whatever was on its way to the replica when the master ended is lost: at most what was under way.
        let too_many = (busy + again).saturating_sub(LIMIT);
        assert!(again <= LIMIT && too_many <= 40, "{busy} {again}");
        assert!(again >= LIMIT - 40, "what nobody used is there: {busy} {again}");
        assert_eq!(self.at_once("calm", 10).await, [0, 10, 0], "what was used up is");
        println!(
            "counted again {took:?} after the kill; {down} + {met_none} calls met no store; {busy} of 40 passed while it was \
             killed, {too_many} too many of {LIMIT} in the end"
        );
        let mut unavailable = 0;
        for gateway in &mut self.gateways {
            assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
            let evidence = tests::oracle::Evidence::read(gateway);
            let refusals = evidence.of_kind("refusal");
            unavailable += refusals.filter(|refusal| refusal["reason"] == "quota_unavailable").count();
            let (code, out, err) = gateway.verify(&[]);
            assert_eq!(code, 0, "{out}{err}");
        }
        assert_eq!(unavailable, down + met_none, "each of them is a record");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn on_a_cluster_counting_goes_on_while_its_slot_moves_and_with_the_replica_of_a_killed_master() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = tokio::task::block_in_place(|| RedisCluster::start(1, |_| Vec::new()));
    let key = "{affidavit}:any";
    let owner = cluster.owner(0, key);
    // Only one that does not have the slot is named.
    let seed = (owner + 1) % 3;
    let store = format!("cluster: {{ nodes: ['redis://{}'] }}", cluster.nodes[seed].address);
    let pair = Pair::start(dir.path(), &store).await;
    assert_eq!(pair.at_once("moving", 20).await, [20, 0, 0], "{}", pair.gateways[0].log());
    // Whoever calls while the slot is between two nodes is answered once it is there.
    let (moving, ()) = tokio::join!(pair.at_once("moving", 20), async {
        tokio::task::block_in_place(|| {
            cluster.bring(key, owner, seed, || std::thread::sleep(Duration::from_millis(300)))
        });
    });
    assert_eq!(moving, [20, 0, 0], "{}", pair.gateways[0].log());
    assert_eq!(cluster.owner(owner, key), seed);
    assert_eq!(pair.at_once("moving", 40).await, [20, 20, 0]);
    // The only one that is named is the one that ends: the others are known.
    pair.outlives(|| cluster.nodes[seed].kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn behind_sentinels_counting_goes_on_with_the_replica_of_a_killed_master() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut sentinels = tokio::task::block_in_place(|| Sentinels::start(|_| Vec::new()));
    let (user, password) = Sentinels::USER;
    let file = dir.path().join("sentinel.password");
    std::fs::write(&file, password).expect("the password");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let store = |password: &Path| {
        // The first of them is not there.
        let nodes: Vec<String> = std::iter::once("redis://127.0.0.1:9".to_owned())
            .chain(sentinels.addresses.iter().map(|address| format!("redis://{address}")))
            .collect();
        format!(
            "sentinel: {{ nodes: {nodes:?}, master: {}, username: {user}, password: {{ file: {} }} }}",
            Sentinels::MASTER,
            password.display()
        )
    };
    let pair = Pair::start(dir.path(), &store(&file)).await;
    let [master, _] = &mut sentinels.servers;
    pair.outlives(|| master.kill()).await;
    // Who does not know the sentinels' password is told nothing by them.
    let wrong = dir.path().join("wrong.password");
    std::fs::copy(&file, &wrong).expect("a copy");
    std::fs::write(&wrong, "another").expect("another password");
    let other = dir.path().join("wrong");
    let pair = Pair::start(&other, &store(&wrong)).await;
    assert_eq!(pair.at_once("any", 2).await, [0, 0, 2]);
    let log = pair.gateways[0].log();
    assert!(log.contains("authentication failed") && !log.contains("another"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn a_cluster_with_tls_and_a_user_is_used() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::write(&cert, made.cert.pem()).expect("the certificate");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("its key");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let cluster = tokio::task::block_in_place(|| {
        RedisCluster::start(0, |_| {
            let tls = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert];
            let more = ["--tls-auth-clients", "no", "--tls-cluster", "yes", "--tls-replication", "yes"];
            let user =
                ["--user", "gateway", "on", ">secret-of-redis", "~{affidavit}:*", "-@all", "+@scripting"];
            let rights = ["+@read", "+@write", "+time", "+role", "+cluster|slots"];
            let all = tls.iter().chain(&more).chain(&user).chain(&rights);
            all.map(|option| (*option).to_owned()).collect()
        })
    });
    let password = dir.path().join("redis.password");
    std::fs::write(&password, "secret-of-redis").expect("the password");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("its mode");
    let seed = (cluster.owner(0, "{affidavit}:any") + 1) % 3;
    let store = format!(
        "cluster: {{ nodes: ['rediss://{}'] }}, tls: {{ ca: {cert} }}, username: gateway, password: {{ file: {} }}",
        cluster.nodes[seed].address,
        password.display()
    );
    let pair = Pair::start(dir.path(), &store).await;
    assert_eq!(pair.at_once("any", 100).await, [LIMIT, 40, 0], "{}", pair.gateways[0].log());
}
