//! Providers behind a real proxy: Squid with passwords, a port that it does not lead to, TLS, and its death under a stream.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::client::{Call, Leave, send, send_until};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::process::{Process, free_port, ran};
use tests::provider::Provider;

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Is it?"}]}"#;
const PASSWORD: &str = "proxy-password-0123456789";

/// Squid in a folder, on a plain port and on one with TLS.
struct Squid {
    process: Option<Process>,
    plain: SocketAddr,
    over_tls: SocketAddr,
    folder: PathBuf,
}

impl Squid {
    /// Leads everywhere but to the port of `denied`, for who knows the password.
    fn start(folder: &Path, denied: SocketAddr) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        // Squid changes to a user of its own.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("its mode");
        let (plain, over_tls) = (free_port(), free_port());
        let tls = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let at = |name: &str| folder.join(name);
        std::fs::write(at("tls.crt"), tls.cert.pem()).expect("the certificate");
        std::fs::write(at("tls.key"), tls.signing_key.serialize_pem()).expect("its key");
        let hash = ran(Command::new("openssl").args(["passwd", "-apr1", PASSWORD]));
        std::fs::write(at("passwords"), format!("gateway:{hash}")).expect("the passwords");
        let conf = format!(
            "http_port {plain}\nhttps_port {over_tls} tls-cert={d}/tls.crt tls-key={d}/tls.key\n\
             auth_param basic program /usr/lib/squid/basic_ncsa_auth {d}/passwords\nauth_param basic children 2\n\
             acl known proxy_auth REQUIRED\nacl denied port {denied}\nhttp_access deny denied\nhttp_access allow known\n\
             http_access deny all\naccess_log stdio:{d}/access.log\ncache_log {d}/cache.log\npid_filename {d}/squid.pid\n\
             coredump_dir {d}\ncache deny all\nshutdown_lifetime 0 seconds\nvisible_hostname proxy.test\n\
             pinger_enable off\nconnect_timeout 5 seconds\n",
            d = folder.display(),
            denied = denied.port(),
        );
        std::fs::write(at("squid.conf"), conf).expect("a configuration");
        let mut command = Command::new("/usr/sbin/squid");
        command.arg("-N").arg("-f").arg(at("squid.conf"));
        let process = Process::listening(&mut command, &at("squid.log"), plain);
        Self { process: Some(process), plain, over_tls, folder: folder.to_owned() }
    }

    /// Lines of its log, of tunnels that have ended.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }
}

fn provider(name: &str, at: SocketAddr, proxy: &str) -> String {
    format!("  - {{ name: {name}, dialect: openai, base_url: 'http://{at}', upstream_proxy: {proxy} }}\n")
}

/// Whether some content of the evidence holds `text`.
fn is_told(evidence: &Evidence, text: &str) -> bool {
    evidence.contents().any(|content| content.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs squid and openssl"]
async fn squid_leads_to_providers_and_what_it_refuses_is_recorded_with_its_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let (origin, denied, closed) = (Provider::start([]).await, Provider::start([]).await, free_port());
    let mut squid = Squid::start(&dir.path().join("squid"), denied.address);
    for (file, text) in [("right", format!("gateway:{PASSWORD}")), ("wrong", "gateway:wrong-password".into())]
    {
        std::fs::write(dir.path().join(file), text).expect("a password");
        std::fs::set_permissions(dir.path().join(file), std::fs::Permissions::from_mode(0o600))
            .expect("its mode");
    }
    let credential = |file: &str| format!("credential: {{ file: {}/{file} }}", dir.path().display());
    let plain = format!("url: 'http://{}'", squid.plain);
    let right = format!("{{ {plain}, {} }}", credential("right"));
    let over_tls = format!(
        "{{ url: 'https://localhost:{}', {}, ca: {}/tls.crt }}",
        squid.over_tls.port(),
        credential("right"),
        squid.folder.display()
    );
    let stranger =
        format!("{{ url: 'https://localhost:{}', {} }}", squid.over_tls.port(), credential("right"));
    let bypassed = format!("{{ {plain}, no_proxy: [127.0.0.0/8] }}");
    let ways = [
        ("through", origin.address, right.clone()),
        ("secure", origin.address, over_tls),
        ("stranger", origin.address, stranger),
        ("unknown", origin.address, format!("{{ {plain} }}")),
        ("mistaken", origin.address, format!("{{ {plain}, {} }}", credential("wrong"))),
        ("denied", denied.address, right.clone()),
        ("closed", closed, right),
        ("bypassed", origin.address, bypassed),
        ("asked", origin.address, "environment".into()),
    ];
    let setup = Setup {
        provider: origin.url(),
        providers: ways.iter().map(|(name, at, proxy)| provider(name, *at, proxy)).collect(),
        routes: ways
            .iter()
            .map(|(name, ..)| format!("  - {{ name: {name}, path: /{name}, provider: {name} }}\n"))
            .collect(),
        environment: vec![("http_proxy".into(), format!("http://gateway:{PASSWORD}@{}", squid.plain))],
        ..Setup::default()
    };
    let mut gateway = Gateway::start(&dir.path().join("gw"), &setup);
    let (address, key) = (gateway.address, gateway.key.clone());
    let call = |way: &str| Call::post(&format!("/{way}/v1/chat/completions"), &key, QUESTION);
    for way in ["through", "through", "through", "secure", "bypassed", "asked", "openai"] {
        let got = send(address, &call(way)).await;
        assert_eq!(got.status, 200, "{way}: {} {}", got.text(), squid.log());
    }
    for way in ["stranger", "unknown", "mistaken", "denied", "closed"] {
        let got = send(address, &call(way)).await;
        assert_eq!(
            (got.status, got.header("x-affidavit-reason")),
            (502, Some("provider_unreachable")),
            "{way}"
        );
        assert!(!got.text().contains("proxy") && !got.text().contains(PASSWORD), "{}", got.text());
    }
    assert!(denied.seen().is_empty());
    // Squid logs a tunnel when it ends.
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let log = squid.log();
    let tunnels =
        |port: u16| log.lines().filter(|line| line.contains(&format!("CONNECT 127.0.0.1:{port}"))).count();
    assert!(tunnels(origin.address.port()) >= 3, "{log}");
    // Three exchanges of `through` were in one tunnel: seven whole ones went there, and two of them past the proxy.
    let led = log.lines().filter(|line| line.contains("/200") && line.contains("CONNECT")).count();
    assert!(led <= 4, "{log}");
    assert!(log.contains("TCP_DENIED/407") && log.contains("TCP_DENIED/403"), "{log}");
    gateway.serve();
    // It dies under a stream.
    let stream = r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#;
    let call = Call::post("/through/v1/chat/completions", &key, stream).header("x-replay", "script:slow:300");
    let leave = Leave::default();
    let read = tokio::spawn(async move { send_until(address, &call, leave).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    squid.process = None;
    let got = read.await.expect("a caller");
    assert!(got.status == 200 && !got.whole && !got.body.is_empty(), "{}", got.text());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    let ends = |end: &str| evidence.of_kind("outcome").filter(|outcome| outcome["end"] == end).count();
    assert_eq!((ends("complete"), ends("unreachable"), ends("provider_abort")), (7, 5, 1));
    for text in [
        "answered 407: `upstream_proxy.credential` is missing or wrong",
        "it answered 403",
        "it answered 503",
    ] {
        assert!(is_told(&evidence, text), "{text}");
    }
    assert!(is_told(&evidence, "could not be reached"), "the proxy's own certificate is not trusted");
    let coded = "Z2F0ZXdheTpwcm94eS1wYXNzd29yZC0";
    for secret in [PASSWORD, coded] {
        let leaves = evidence.leaves.iter().any(|leaf| String::from_utf8_lossy(&leaf.leaf).contains(secret));
        assert!(
            !leaves && !is_told(&evidence, secret) && !gateway.log().contains(secret),
            "{secret} was kept"
        );
    }
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
}
