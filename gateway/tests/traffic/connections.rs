//! HTTP/2, TLS, mTLS, kept connections.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

use crate::pki::{Pki, pki};
use crate::provider::{COMPLETION, Provider, delta, events, whole};
use crate::rig::{Rig, Setup, read};

async fn provider() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

fn question(rig: &Rig, authority: &str) -> Request<Full<Bytes>> {
    Request::post(format!("{authority}/openai/v1/chat/completions"))
        .header("authorization", format!("Bearer {}", rig.key))
        .header("content-type", "application/json")
        .body(Full::from(r#"{"model":"m","messages":[]}"#))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_without_tls_serves_many_exchanges_on_one_connection() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let mut sender = sender.clone();
        let request = question(&rig, "http://gateway");
        answers.push(tokio::spawn(async move { read(sender.send_request(request).await.unwrap()).await }));
    }
    for answer in answers {
        let (status, _, body) = answer.await.unwrap();
        assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()));
    }
    drop(sender);
    let evidence = rig.stop().await;
    assert_eq!((evidence.count("intent"), evidence.count("outcome")), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_stream_that_is_reset_is_a_client_abort_and_the_connection_lives() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let stream = response.lock().unwrap().take();
        async move { stream.unwrap_or_else(|| whole(200, "application/json", COMPLETION)) }
    })
    .await;
    let setup = Setup { provider: ", drain_after_abort: off".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut response = caller.send_request(question(&rig, "http://gateway")).await.unwrap();
    sender.send(delta("x")).await;
    crate::rig::read_bytes(response.body_mut(), delta("x").len()).await;
    drop(response);
    sender.closed().await;
    caller.ready().await.unwrap();
    let (status, ..) = read(caller.send_request(question(&rig, "http://gateway")).await.unwrap()).await;
    assert_eq!(status, 200);
    drop((caller, sender));
    let evidence = rig.stop().await;
    let mut ends: Vec<_> = evidence.outcomes().iter().map(|outcome| format!("{:?}", outcome.end)).collect();
    ends.sort();
    assert_eq!(ends, ["ClientAbort", "Complete"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_one_exchange_after_the_other() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..50 {
        caller.ready().await.unwrap();
        let mut request = question(&rig, "");
        request.headers_mut().insert("host", "g".parse().unwrap());
        assert_eq!(read(caller.send_request(request).await.unwrap()).await.0, 200);
    }
    drop(caller);
    let evidence = rig.stop().await;
    assert_eq!(evidence.count("outcome"), 50);
}

async fn call_tls(rig: &Rig, pki: &Pki, with_certificate: bool, alpn: &[u8]) -> std::io::Result<(u16, bool)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(pki.roots.clone());
    let mut config = if with_certificate {
        let key = PrivateKeyDer::Pkcs8(pki.client.1.clone().into());
        builder.with_client_auth_cert(vec![pki.client.0.clone()], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(rig.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let sent = if http2 {
        let (mut caller, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        caller.send_request(question(rig, "https://localhost")).await
    } else {
        let (mut caller, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let mut request = question(rig, "");
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        caller.send_request(request).await
    };
    let (status, ..) = read(sent.map_err(std::io::Error::other)?).await;
    Ok((status, http2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_serves_http1_and_http2_by_alpn() {
    let (provider, pki) = (provider().await, pki());
    let path = pki.dir.path().display();
    let tls = format!("{{ certificate: {path}/cert.pem, key: {path}/key.pem }}");
    let rig = Rig::start(&provider, Setup { tls: Some(tls), ..Setup::default() }).await;
    assert_eq!(call_tls(&rig, &pki, false, b"h2").await.unwrap(), (200, true));
    assert_eq!(call_tls(&rig, &pki, false, b"http/1.1").await.unwrap(), (200, false));
    let evidence = rig.stop().await;
    assert_eq!(evidence.count("outcome"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_client_ca_a_caller_without_certificate_is_refused_and_counted() {
    let (provider, pki) = (provider().await, pki());
    let path = pki.dir.path().display();
    let tls = format!("{{ certificate: {path}/cert.pem, key: {path}/key.pem, client_ca: {path}/ca.pem }}");
    let rig = Rig::start(&provider, Setup { tls: Some(tls), ..Setup::default() }).await;
    assert!(call_tls(&rig, &pki, false, b"http/1.1").await.is_err());
    assert_eq!(call_tls(&rig, &pki, true, b"http/1.1").await.unwrap(), (200, false));
    let evidence = rig.stop().await;
    assert_eq!(evidence.count("outcome"), 1);
    let text = serde_json::to_string(&evidence.records).unwrap();
    assert!(text.contains("\"failed_tls_handshake\":1"), "failures below HTTP are signed counters");
}
