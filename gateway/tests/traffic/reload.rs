//! What a change of a file does to a running gateway: the new rules, from its place in the log on; a bad one does
//! not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use rustls_pki_types::ServerName;
use schemas::record::{Body, ConfigReason};
use tokio::net::TcpStream;

use crate::pki::{Pki, pki};
use crate::provider::{COMPLETION, DONE, Provider, delta, events, whole};
use crate::rig::{CREDENTIAL, Evidence, Rig, Setup, issue_key_of, read, read_bytes};

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;
const ALLOW: &str = "mode: enforce\ndefault: allow\n";
const DENY: &str = "mode: enforce\ndefault: deny\n";
const HEADER: &str = "id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,\
    cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note\n";

fn book(price: &str) -> String {
    format!(
        "{HEADER}row,openai,gpt-4.1-mini*,standard,,2020-01-01,,USD,{price},,,,{price},,,,https://x.test,2026-01-01,\n"
    )
}

async fn provider() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

/// Another file in the place of `path`.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// The user of this process.
fn own_user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(name: &Option<schemas::Identifier>) -> Option<String> {
    name.as_ref().map(ToString::to_string)
}

/// Asks until `wanted` says that the answer is the one.
async fn until(rig: &Rig, wanted: impl Fn(u16) -> bool) {
    for _ in 0..200 {
        if wanted(read(rig.chat(QUESTION).await).await.0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the change did not come to rule");
}

/// CH-4: every record names the configuration that was the last to come into the log before it.
fn configs_are_in_the_log_before_they_rule(evidence: &Evidence) -> usize {
    let mut reloads = 0;
    let mut ruling = evidence.records[0].config;
    for record in &evidence.records {
        assert_eq!(record.config, ruling);
        if let Body::Config(config) = &record.body
            && config.reason == ConfigReason::Reload
        {
            reloads += 1;
            ruling = config.next;
        }
    }
    reloads
}

fn refused_reloads(evidence: &Evidence) -> usize {
    let admin = |body: &Body| matches!(body, Body::Admin(it) if it.action.as_str() == "config_refused");
    evidence.records.iter().filter(|record| admin(&record.body)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_policy_rules_and_a_bad_one_leaves_the_old() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup { policy: Some(ALLOW.into()), ..Setup::default() }).await;
    let path = rig.dir.path().join("policy.yaml");
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    replace(&path, DENY);
    until(&rig, |status| status == 403).await;
    replace(&path, "mode: enforce\ndefault: perhaps\n");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 403, "the old one stays");
    replace(&path, ALLOW);
    until(&rig, |status| status == 200).await;
    let evidence = rig.stop().await;
    assert_eq!(configs_are_in_the_log_before_they_rule(&evidence), 2);
    assert_eq!(refused_reloads(&evidence), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_between_the_reading_of_a_file_and_its_watch_is_not_missed() {
    let provider = provider().await;
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup { policy: Some(ALLOW.into()), ..Setup::default() };
    let key = crate::rig::prepare(dir.path(), &provider, &setup);
    let loaded = gateway::config::load(&dir.path().join("gateway.yaml")).unwrap();
    // The start has read it, and does not watch it yet.
    replace(&dir.path().join("policy.yaml"), DENY);
    let started = gateway::serve::Gateway::start(loaded, gateway::serve::Start::default()).await.unwrap();
    let address = started.addresses()[0];
    let rig = Rig { gateway: started, address, key, gate: crate::disk::Gate::new(), dir };
    until(&rig, |status| status == 403).await;
    let evidence = rig.stop().await;
    assert_eq!(configs_are_in_the_log_before_they_rule(&evidence), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_prices_are_charged_and_a_bad_book_leaves_the_old() {
    let provider = provider().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prices.csv");
    std::fs::write(&path, book("1")).unwrap();
    let rest = format!("prices: {}\n", path.display());
    let rig = Rig::start(&provider, Setup { rest, ..Setup::default() }).await;
    for (text, wait) in [(book("2"), 1200), ("id,provider\nx,y\n".into(), 1200)] {
        assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
        replace(&path, &text);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    let evidence = rig.stop().await;
    let totals: Vec<&str> =
        evidence.outcomes().iter().map(|outcome| outcome.cost.as_ref().unwrap().total.as_str()).collect();
    // 9 tokens in, 3 out.
    assert_eq!(totals, ["0.000012", "0.000024", "0.000024"]);
    assert_eq!((configs_are_in_the_log_before_they_rule(&evidence), refused_reloads(&evidence)), (1, 1));
}

/// What stands in metrics of a route, provider, team, price and rule that the test takes away.
const LEAVING: [&str; 5] = [
    "route=\"leaving\"",
    "provider=\"leaving\"",
    "team=\"leavers\"",
    "price=\"leaving-row\"",
    "rule=\"leaving-rule\"",
];

/// The exchanges of the route that leaves.
fn ended_there(metrics: &str) -> Option<u64> {
    let series = "gateway_exchanges_total{route=\"leaving\",end=\"complete\",status=\"2xx\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(series)?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_what_a_reload_takes_away_go_with_the_last_exchange_under_it() {
    let stays = provider().await;
    let (sender, stream) = events();
    let stream = std::sync::Mutex::new(Some(stream));
    let leaves = Provider::start(move |_| {
        let first = stream.lock().unwrap().take();
        async move { first.unwrap_or_else(|| whole(200, "application/json", COMPLETION)) }
    })
    .await;
    let rule = "rules:\n  - { id: leaving-rule, effect: deny, models: [never] }\n";
    let setup = Setup {
        policy: Some(format!("{ALLOW}{rule}")),
        rest: "prices: prices.csv\n".into(),
        more_providers: format!(
            "  - {{ name: leaving, dialect: openai, base_url: \"http://{}\" }}\n",
            leaves.address
        ),
        more_routes: "  - { name: leaving, path: /leaving, provider: leaving }\n".into(),
        ..Setup::default()
    };
    let (providers, routes) = (setup.more_providers.clone(), setup.more_routes.clone());
    let with_row = book("1") + &book("1").replace(HEADER, "").replace("row,openai", "leaving-row,leaving");
    let rig = Rig::start_with(&stays, setup, &[("prices.csv", &with_row)]).await;
    let keys = rig.dir.path().join("keys.yaml");
    let without = std::fs::read_to_string(&keys).unwrap();
    let key = issue_key_of(&keys, "second", "leavers");
    let asked = async |path: &str, body: &'static str| {
        let request =
            Request::post(path).header("host", "gateway").header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {key}"));
        rig.send(request.body(Full::from(body)).unwrap()).await
    };
    let comes_to = async |path: &str, wanted: u16| {
        for _ in 0..200 {
            if read(asked(path, QUESTION).await).await.0 == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} never answers {wanted}");
    };
    comes_to("/openai/v1/chat/completions", 200).await;
    let path = "/leaving/v1/chat/completions";
    let mut open = asked(path, r#"{"model":"gpt-4.1-mini","stream":true,"messages":[]}"#).await;
    sender.send(delta("x")).await;
    read_bytes(open.body_mut(), delta("x").len()).await;
    comes_to(path, 200).await;
    let metrics = rig.metrics().await;
    assert_eq!(ended_there(&metrics), Some(1));
    assert!(LEAVING.iter().all(|name| metrics.contains(name)), "{metrics}");

    let config = rig.dir.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    replace(&config, &text.replace(&providers, "").replace(&routes, ""));
    replace(&rig.dir.path().join("policy.yaml"), ALLOW);
    replace(&rig.dir.path().join("prices.csv"), &book("1"));
    comes_to(path, 404).await;
    replace(&keys, &without);
    comes_to("/openai/v1/chat/completions", 401).await;
    // An exchange under the old configuration still runs: its counts are still to come.
    for _ in 0..2 {
        let metrics = rig.metrics().await;
        assert!(LEAVING.iter().all(|name| metrics.contains(name)), "{metrics}");
    }
    let before = ended_there(&rig.metrics().await).unwrap();
    sender.send(DONE).await;
    drop(sender);
    assert_eq!(read(open).await.0, 200);
    let mut last = None;
    for _ in 0..200 {
        let metrics = rig.metrics().await;
        let Some(count) = ended_there(&metrics) else { break };
        last = Some(count);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(last, Some(before + 1), "its end was never shown");
    let metrics = rig.metrics().await;
    assert!(!LEAVING.iter().any(|name| metrics.contains(name)), "{metrics}");
    for stays in ["route=\"openai\"", "provider=\"openai\"", "price=\"row\"", "rule=\"default\""] {
        assert!(metrics.contains(stays), "{stays} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_and_a_broken_keys_file_leaves_the_old() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let path = rig.dir.path().join("keys.yaml");
    let keys = std::fs::read_to_string(&path).unwrap();
    replace(&path, "keys: [broken");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200, "the old ones stay");
    let program = env!("CARGO_BIN_EXE_gateway");
    replace(&path, &keys);
    // What stands between `afk_` and the next `_` is the key's id.
    let id = rig.key.split('_').nth(1).unwrap();
    let revoked =
        std::process::Command::new(program).args(["keys", "revoke", "--file"]).arg(&path).arg(id).output();
    assert!(revoked.unwrap().status.success());
    until(&rig, |status| status == 401).await;
    let evidence = rig.stop().await;
    assert_eq!(evidence.refusals()[0].reason.as_str(), "revoked_key");
    // A watcher that is told late of both changes reads the broken file twice.
    assert!((1..=2).contains(&refused_reloads(&evidence)));
    let refused = evidence.records.iter().find_map(|record| match &record.body {
        Body::Admin(admin) if admin.action.as_str() == "config_refused" => Some((record, admin)),
        _ => None,
    });
    let (record, refused) = refused.unwrap();
    assert_eq!(text(&refused.actor), Some(format!("owner:{}", own_user())));
    // It has no hash: the one in force stays.
    assert_eq!(text(&refused.object), Some(record.config.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issued_and_revoked_keys_are_recorded_by_their_id_and_never_by_their_secret() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let path = rig.dir.path().join("keys.yaml");
    let program = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
        // What a caller says of himself is nobody's word.
        command.env("USER", "somebody-else").env("LOGNAME", "somebody-else");
        let output = command.arg("keys").args(arguments).args(["--file"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let key = program(&["issue", "--consumer", "second", "--id", "k-second"]);
    let ask = || {
        Request::post("/openai/v1/chat/completions")
            .header("host", "g")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::from(QUESTION))
            .unwrap()
    };
    let mut status = 0;
    for _ in 0..100 {
        status = read(rig.send(ask()).await).await.0;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 200);
    program(&["revoke", "k-second"]);
    for _ in 0..100 {
        status = read(rig.send(ask()).await).await.0;
        if status == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 401);
    let evidence = rig.stop().await;
    let at = |wanted: &dyn Fn(&Body) -> bool| evidence.records.iter().position(|record| wanted(&record.body));
    let admin = |action: &'static str| {
        at(&move |body| {
            matches!(body, Body::Admin(it) if it.action.as_str() == action
                && it.object.as_ref().is_some_and(|id| id.as_str() == "k-second"))
        })
        .unwrap()
    };
    let calls = at(
        &|body| matches!(body, Body::Intent(it) if it.caller.key.as_ref().is_some_and(|id| id.as_str() == "k-second")),
    );
    assert!(admin("key_issued") < calls.unwrap() && calls.unwrap() < admin("key_revoked"));
    assert_eq!(evidence.count("admin"), 2);
    for record in &evidence.records {
        if let Body::Admin(admin) = &record.body {
            assert_eq!(text(&admin.actor), Some(own_user()), "{admin:?}");
        }
    }
    let secret = key.rsplit('_').next().unwrap();
    let digest = schemas::Sha256Hex::of(key.as_bytes()).to_string();
    let text = format!("{:?}", evidence.records);
    assert!(!text.contains(secret) && !text.contains(&digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_provider_credential_is_sent_and_an_unusable_one_is_not() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let path = rig.dir.path().join("provider.key");
    let sent = || provider.seen().last().unwrap().headers["authorization"].to_str().unwrap().to_owned();
    read(rig.chat(QUESTION).await).await;
    assert_eq!(sent(), format!("Bearer {CREDENTIAL}"));
    let put = |text: &str| {
        let fresh = path.with_extension("fresh");
        gateway::output::write_new(&fresh, text.as_bytes(), 0o600).unwrap();
        std::fs::rename(fresh, &path).unwrap();
    };
    put("sk-rotated-0123456789");
    for _ in 0..100 {
        read(rig.chat(QUESTION).await).await;
        if sent() != format!("Bearer {CREDENTIAL}") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sent(), "Bearer sk-rotated-0123456789");
    put("");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    assert_eq!(sent(), "Bearer sk-rotated-0123456789", "the old one stays");
    let evidence = rig.stop().await;
    assert_eq!((configs_are_in_the_log_before_they_rule(&evidence), refused_reloads(&evidence)), (1, 1));
}

/// Whether a handshake with the gateway succeeds for who trusts `trusted`.
async fn shakes_hands(rig: &Rig, trusted: &Pki) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted.roots.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_shown_to_new_callers_and_a_broken_one_is_not() {
    let (provider, old, new) = (provider().await, pki(), pki());
    let folder = tempfile::tempdir().unwrap();
    old.copy_to(folder.path());
    let path = folder.path().display();
    let tls = Some(format!("{{ certificate: {path}/cert.pem, key: {path}/key.pem }}"));
    let rig = Rig::start(&provider, Setup { tls, ..Setup::default() }).await;
    assert!(shakes_hands(&rig, &old).await && !shakes_hands(&rig, &new).await);
    new.copy_to(folder.path());
    for _ in 0..100 {
        if shakes_hands(&rig, &new).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(shakes_hands(&rig, &new).await && !shakes_hands(&rig, &old).await);
    replace(&folder.path().join("cert.pem"), "no certificate");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(shakes_hands(&rig, &new).await, "the old one stays");
    let evidence = rig.stop().await;
    assert!(configs_are_in_the_log_before_they_rule(&evidence) >= 1);
    assert!(refused_reloads(&evidence) >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_cannot_be_recorded_does_not_rule() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let other = crate::rig::issue_key(&rig.dir.path().join("keys-2.yaml"), "second");
    rig.gate.fail();
    std::fs::rename(rig.dir.path().join("keys-2.yaml"), rig.dir.path().join("keys.yaml")).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let request = |key: &str| {
        Request::post("/openai/v1/chat/completions")
            .header("host", "g")
            .header("x-api-key", key)
            .body(Full::from(QUESTION))
            .unwrap()
    };
    // Neither passes; the old key is still known, the new one is not.
    let old = read(rig.send(request(&rig.key)).await).await;
    assert_eq!(old.0, 503);
    let new = read(rig.send(request(&other)).await).await;
    assert_ne!(new.0, 200);
    assert!(provider.seen().is_empty());
}
