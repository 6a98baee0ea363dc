//! The way to a provider: a proxy's tunnel, a certificate that the gateway shows, tokens that it fetches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::Full;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use schemas::record::End;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pki::{Pki, pki};
use crate::provider::{COMPLETION, Provider, Seen, whole};
use crate::rig::{Rig, Setup, read, send};
use crate::routes::attempts;

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;
const ACCOUNT_KEY: &str = include_str!("../../testdata/service-account.pem");

async fn answering(tls: Option<Arc<rustls::ServerConfig>>) -> Provider {
    Provider::start_over(tls, |_| async { whole(200, "application/json", COMPLETION) }).await
}

/// A proxy that leads everywhere, and the heads of what it was asked.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let all = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(from.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let port = head.split(' ').nth(1).unwrap().rsplit(':').next().unwrap().parse().unwrap();
                all.lock().unwrap().push(head);
                let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                from.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (format!("http://{address}"), asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_sees_host_and_port_of_a_provider_and_one_tunnel_carries_all_exchanges() {
    let pki = pki();
    let (url, asked) = proxy().await;
    for tls in [true, false] {
        asked.lock().unwrap().clear();
        let provider = answering(tls.then(|| pki.server(&[b"h2", b"http/1.1"]))).await;
        let port = provider.address.port();
        let (scheme, ca) = if tls {
            ("https", ", ca: ".to_owned() + &pki.dir.path().join("ca.pem").display().to_string())
        } else {
            ("http", String::new())
        };
        let setup = Setup {
            base_url: Some(format!("{scheme}://localhost:{port}")),
            provider: ca,
            rest: format!(
                "upstream_proxy: {{ url: '{url}', credential: {{ file: proxy.key }}, no_proxy: [10.0.0.0/8] }}\n"
            ),
            ..Setup::default()
        };
        let rig = Rig::start_with(&provider, setup, &[("proxy.key", "gateway:hunter2")]).await;
        for _ in 0..5 {
            let (status, _, body) = read(rig.chat(QUESTION).await).await;
            assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()));
        }
        let evidence = rig.stop().await;
        assert!(evidence.outcomes().iter().all(|outcome| outcome.end == End::Complete));
        let asked = asked.lock().unwrap().clone();
        // `gateway:hunter2`
        let wanted = format!(
            "CONNECT localhost:{port} HTTP/1.1\r\nhost: localhost:{port}\r\nproxy-authorization: Basic Z2F0ZXdheTpodW50ZXIy\r\n\r\n"
        );
        assert_eq!(asked, [wanted], "one tunnel, and nothing of a request");
        assert!(provider.seen().iter().all(|seen| !seen.headers.contains_key("proxy-authorization")));
        assert!(provider.seen().iter().all(|seen| seen.uri.path() == "/v1/chat/completions"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_the_rules_name_is_asked_without_the_proxy() {
    let (url, asked) = proxy().await;
    for rest in [
        format!("upstream_proxy: {{ url: '{url}', no_proxy: [127.0.0.0/8] }}\n"),
        format!("upstream_proxy: {{ url: '{url}', no_proxy: ['*'] }}\n"),
        "upstream_proxy: off\n".to_owned(),
    ] {
        let provider = answering(None).await;
        let rig = Rig::start(&provider, Setup { rest, ..Setup::default() }).await;
        assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
        rig.stop().await;
    }
    // The provider's own word counts before that of the whole.
    let provider = answering(None).await;
    let rest = format!("upstream_proxy: {{ url: '{url}' }}\n");
    let setup = Setup { rest, provider: ", upstream_proxy: off".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    rig.stop().await;
    assert!(asked.lock().unwrap().is_empty());
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
}

/// A server that takes only who shows a certificate of this CA.
fn demanding(pki: &Pki) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(pki.roots.clone());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(pki.dir.path().join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pki.dir.path().join("key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_asks_for_a_certificate_gets_the_one_in_force() {
    let (own, other) = (pki(), pki());
    let provider = answering(Some(demanding(&own))).await;
    let setup = Setup {
        base_url: Some(format!("https://localhost:{}", provider.address.port())),
        provider: format!(
            ", ca: {}, client_certificate: {{ certificate: shown.pem, key: shown.key }}",
            own.dir.path().join("ca.pem").display()
        ),
        ..Setup::default()
    };
    let files = |pki: &Pki| {
        [("shown.key", pem("PRIVATE KEY", &pki.client.1)), ("shown.pem", pem("CERTIFICATE", &pki.client.0))]
    };
    let wrong = files(&other);
    let wrong: Vec<_> = wrong.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let rig = Rig::start_with(&provider, setup, &wrong).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 502, "a certificate of somebody else's");
    assert!(provider.seen().is_empty());
    // The right one in its place, while the gateway runs.
    for (name, text) in files(&own) {
        let fresh = rig.dir.path().join(format!("{name}.new"));
        gateway::output::write_new(&fresh, text.as_bytes(), 0o600).unwrap();
        std::fs::rename(fresh, rig.dir.path().join(name)).unwrap();
    }
    for _ in 0..200 {
        if read(rig.chat(QUESTION).await).await.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200, "the renewed certificate rules");
    rig.stop().await;
}

/// What a token endpoint checks, and what it gives.
struct Endpoint {
    provider: Provider,
    asked: Arc<AtomicUsize>,
    /// Status of its next answers; 200: a token.
    status: Arc<AtomicUsize>,
}

/// `name=value` of a form, decoded.
fn form(body: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(body).unwrap();
    let decoded = |text: &str| {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            out.push(if byte == b'%' {
                let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
                hex::decode(pair).unwrap()[0]
            } else {
                byte
            });
        }
        String::from_utf8(out).unwrap()
    };
    text.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(n, v)| (decoded(n), decoded(v))).collect()
}

/// Whether the assertion is one that Google would take.
fn is_asserted(jwt: &str, audience: &str) -> bool {
    let parts: Vec<&str> = jwt.split('.').collect();
    let [header, claims, signature] = parts[..] else { return false };
    let read =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let key = PrivatePkcs8KeyDer::from_pem_slice(ACCOUNT_KEY.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref().to_vec());
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (header, claims) = (read(header), read(claims));
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    header == json!({ "alg": "RS256", "typ": "JWT", "kid": "0123abcd" })
        && claims.as_object().unwrap().len() == 5
        && claims["iss"] == "gw@p.iam.gserviceaccount.com"
        && claims["aud"] == audience
        && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        && (now - 30..=now + 5).contains(&iat)
        && exp == iat + 3600
        && public.verify(signed.as_bytes(), &signature).is_ok()
}

/// A token endpoint: the nth token is `token-<n>`, and lives `life` seconds.
async fn endpoint(life: u64, slow: Duration, is_right: fn(&Seen, &str) -> bool) -> Endpoint {
    let asked: Arc<AtomicUsize> = Arc::default();
    let status = Arc::new(AtomicUsize::new(200));
    let (count, told) = (Arc::clone(&asked), Arc::clone(&status));
    let provider = Provider::start(move |seen| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        let status = u16::try_from(told.load(Ordering::SeqCst)).unwrap();
        let url = format!("http://{}/token", seen.headers["host"].to_str().unwrap());
        let right = is_right(&seen, &url);
        async move {
            tokio::time::sleep(slow).await;
            if status != 200 || !right {
                let status = if right { status } else { 400 };
                let body = json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." });
                return whole(status, "application/json", body.to_string());
            }
            let body =
                json!({ "access_token": format!("token-{n}"), "expires_in": life, "token_type": "Bearer" });
            whole(200, "application/json", body.to_string())
        }
    })
    .await;
    Endpoint { provider, asked, status }
}

/// A gateway with a provider `further` of these keys at `/further`, beside the usual one.
async fn rig_with(provider: &Provider, keys: &str, files: &[(&str, &str)]) -> Rig {
    let setup = Setup {
        more_providers: format!("  - {{ name: further, base_url: 'http://{}', {keys} }}\n", provider.address),
        more_routes: "  - { name: further, path: /further, provider: further }\n".into(),
        ..Setup::default()
    };
    Rig::start_with(provider, setup, files).await
}

async fn ask(rig: &Rig) -> u16 {
    ask_at(rig.address, &rig.key).await
}

async fn ask_at(address: std::net::SocketAddr, key: &str) -> u16 {
    let request = http::Request::post("/further/v1/publishers/google/models/m:generateContent")
        .header("host", "gateway")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::from(QUESTION))
        .unwrap();
    read(send(address, request).await).await.0
}

fn account(endpoint: &Endpoint) -> String {
    json!({ "type": "service_account", "private_key_id": "0123abcd", "private_key": ACCOUNT_KEY,
        "client_email": "gw@p.iam.gserviceaccount.com", "token_uri": format!("http://{}/token", endpoint.provider.address) })
    .to_string()
}

fn of_account(seen: &Seen, url: &str) -> bool {
    let pairs = form(&seen.body);
    pairs.len() == 2
        && pairs[0] == ("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into())
        && pairs[1].0 == "assertion"
        && is_asserted(&pairs[1].1, url)
}

fn tokens_of(provider: &Provider) -> Vec<String> {
    let token = |seen: &Seen| seen.headers["authorization"].to_str().unwrap().to_owned();
    provider.seen().iter().map(token).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_signs_for_one_token_that_all_of_fifty_get() {
    let endpoint = endpoint(3600, Duration::from_millis(200), of_account).await;
    let provider = answering(None).await;
    let keys = "dialect: vertex, google: { service_account: { file: account.json } }";
    let rig = rig_with(&provider, keys, &[("account.json", &account(&endpoint))]).await;
    let all: Vec<_> = (0..50)
        .map(|_| {
            let (address, key) = (rig.address, rig.key.clone());
            tokio::spawn(async move { ask_at(address, &key).await })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    assert!(tokens_of(&provider).iter().all(|token| token == "Bearer token-1"));
    let metrics = rig.metrics().await;
    assert!(
        metrics.contains("gateway_provider_tokens_total{provider=\"further\",result=\"fetched\"} 1"),
        "{metrics}"
    );
    let evidence = rig.stop().await;
    assert_eq!(evidence.count("intent"), 50);
    for file in walk(&evidence.store) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|some| some == b"token-1"), "{}", file.display());
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    crate::rig::find(folder, "", &mut found);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_ahead_and_a_failure_leaves_the_old_one_in_force() {
    let endpoint = endpoint(6, Duration::ZERO, of_account).await;
    let provider = answering(None).await;
    let keys = "dialect: vertex, google: { service_account: { file: account.json } }";
    let rig = rig_with(&provider, keys, &[("account.json", &account(&endpoint))]).await;
    assert_eq!(ask(&rig).await, 200);
    // Aging, and the endpoint is down: beside the traffic it is tried, and the old token serves to its end.
    endpoint.status.store(503, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ask(&rig).await, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(endpoint.asked.load(Ordering::SeqCst) >= 2);
    assert!(tokens_of(&provider).iter().all(|token| token == "Bearer token-1"));
    // Behind its end there is none, and nothing goes to the provider.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(ask(&rig).await, 502);
    assert_eq!(provider.seen().len(), 2);
    endpoint.status.store(200, Ordering::SeqCst);
    assert_eq!(ask(&rig).await, 200);
    let last = tokens_of(&provider).pop().unwrap();
    // A young token that ages is replaced beside the traffic: the next request has the next one.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ask(&rig).await, 200);
    assert_eq!(tokens_of(&provider).pop().unwrap(), last);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ask(&rig).await, 200);
    assert_ne!(tokens_of(&provider).pop().unwrap(), last);
    let evidence = rig.stop().await;
    let ends: Vec<_> = evidence.outcomes().iter().map(|outcome| outcome.end).collect();
    assert_eq!(ends.iter().filter(|end| **end == End::Unreachable).count(), 1, "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_provider_refuses_is_renewed_once() {
    let endpoint = endpoint(3600, Duration::ZERO, of_account).await;
    let provider = Provider::start(|seen| async move {
        let status = if seen.headers["authorization"] == "Bearer token-1" { 401 } else { 200 };
        whole(status, "application/json", COMPLETION)
    })
    .await;
    let keys = "dialect: vertex, google: { service_account: { file: account.json } }";
    let rig = rig_with(&provider, keys, &[("account.json", &account(&endpoint))]).await;
    assert_eq!([ask(&rig).await, ask(&rig).await, ask(&rig).await], [200, 200, 200]);
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
    assert_eq!(provider.seen().len(), 4, "the refused one went again, under the next token");
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes().len(), 3);
    assert_eq!(attempts(&evidence).len(), 2, "the end of the first and the beginning of the second");
    // One that is refused for good is not fetched again and again.
    let endpoint = self::endpoint(3600, Duration::ZERO, of_account).await;
    let provider = Provider::start(|_| async { whole(401, "application/json", "{}") }).await;
    let rig = rig_with(&provider, keys, &[("account.json", &account(&endpoint))]).await;
    for _ in 0..10 {
        assert_eq!(ask(&rig).await, 401);
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_secrets_with_assertions_and_with_api_keys_get_tokens() {
    let of = |seen: &Seen| form(&seen.body).into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
    let cases: [(&str, &[&str]); 3] = [
        (
            "client_id: c, client_secret: { file: way.secret }, scope: 'https://cognitiveservices.azure.com/.default'",
            &[
                "grant_type=client_credentials",
                "client_id=c",
                "client_secret=s3cret&x",
                "scope=https://cognitiveservices.azure.com/.default",
            ],
        ),
        (
            "client_id: c, client_assertion: { file: way.secret }",
            &[
                "grant_type=client_credentials",
                "client_id=c",
                "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion=s3cret&x",
            ],
        ),
        (
            "api_key: { file: way.secret }",
            &["grant_type=urn:ibm:params:oauth:grant-type:apikey", "apikey=s3cret&x"],
        ),
    ];
    for (keys, wanted) in cases {
        let endpoint = endpoint(3600, Duration::ZERO, |seen, _| seen.method == "POST").await;
        let provider = answering(None).await;
        let at = format!("token_url: 'http://{}/token', {keys}", endpoint.provider.address);
        let keys = format!("dialect: openai, oauth: {{ {at} }}");
        let rig = rig_with(&provider, &keys, &[("way.secret", "s3cret&x\n")]).await;
        assert_eq!(ask(&rig).await, 200, "{keys}");
        assert_eq!(tokens_of(&provider), ["Bearer token-1"]);
        assert_eq!(of(&endpoint.provider.seen()[0]), wanted);
        rig.stop().await;
    }
}
